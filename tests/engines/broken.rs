//! Sources as they really are: linked, damaged, left in the middle of something. What is taken of them comes back, and a restore
//! over what is broken works.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use devstack::engines::{Ground, TakeRequest, for_source, of_taken, safety_of};
use devstack::model::ids::{PolicyName, RunId, ServiceName, StackName};
use devstack::model::observation::{Observed, SourceState};
use devstack::model::run::Taken;
use devstack::model::step::RestoreTarget;
use devstack::repository::Tags;
use rusqlite::Connection;

use super::{Bench, accounts, files, sqlite, sum};

#[test]
fn links_that_are_named_come_back_with_what_they_lead_to() {
    let sources: [(&[&str], &[&str]); 6] = [
        (&["current"], &["current/a", "current/sub/b"]),
        (&["cur*"], &["current/a", "current/sub/b"]),
        (&["current/sub"], &["current/sub/b"]),
        (&["*/sub"], &["current/sub/b"]),
        (&["settings"], &["settings"]),
        (&["chain", "current", "releases"], &["chain/a", "chain/sub/b", "current/a"]),
    ];
    for (paths, there) in sources {
        let bench = Bench::new();
        fs::create_dir_all(bench.path("releases/5/sub")).unwrap();
        fs::create_dir_all(bench.path("etc")).unwrap();
        for (file, text) in [("releases/5/a", "a"), ("releases/5/sub/b", "b"), ("etc/settings", "s")] {
            fs::write(bench.path(file), text).unwrap();
        }
        symlink("releases/5", bench.path("current")).unwrap();
        symlink(bench.path("current"), bench.path("chain")).unwrap();
        symlink(bench.path("etc/settings"), bench.path("settings")).unwrap();
        let was: Vec<String> = there.iter().map(|path| fs::read_to_string(bench.path(path)).unwrap()).collect();
        let source = files(paths, &[]);
        let taken = bench.take(&source, None).unwrap();
        bench.prove(&source, &taken);
        bench.restore(&source, &taken, &RestoreTarget::InPlace).unwrap();
        for gone in ["releases", "etc"] {
            fs::remove_dir_all(bench.path(gone)).unwrap();
        }
        let seen = bench.observe(&source);
        assert!(
            matches!(seen, Observed::Known(SourceState::Gone | SourceState::Empty)),
            "{paths:?}: the links lead nowhere, and {seen:?} was seen"
        );
        assert!(bench.take(&source, None).is_err(), "{paths:?}: a link that leads nowhere was taken as what it led to");
        for gone in ["current", "chain", "settings"] {
            fs::remove_file(bench.path(gone)).unwrap();
        }
        bench.restore(&source, &taken, &RestoreTarget::Missing).unwrap();
        let now: Vec<String> = there.iter().map(|path| fs::read_to_string(bench.path(path)).unwrap()).collect();
        assert_eq!(now, was, "{paths:?}");
        let beside = bench.path("beside");
        bench.restore(&source, &taken, &RestoreTarget::Beside { folder: beside.clone() }).unwrap();
        assert!(beside.join("stack").is_dir(), "{paths:?}");
    }
}

/// A database with what an application would have brought along: SQLite itself knows neither.
fn with_foreign(path: &Path, statements: &str, from: &str, to: &str) {
    let database = Connection::open(path).unwrap();
    database
        .execute_batch("CREATE TABLE plain (id INTEGER PRIMARY KEY, x TEXT UNIQUE); INSERT INTO plain VALUES (1, 'a')")
        .unwrap();
    database.execute_batch(statements).unwrap();
    database.execute_batch("INSERT INTO t (a) VALUES ('b'), ('A'), ('c')").unwrap();
    database.execute_batch("PRAGMA writable_schema = ON").unwrap();
    database.execute("UPDATE sqlite_schema SET sql = replace(sql, ?1, ?2)", [from, to]).unwrap();
    database.execute_batch("PRAGMA writable_schema = OFF").unwrap();
}

const FOREIGN: [(&str, &str, &str); 6] = [
    ("CREATE TABLE t (a TEXT); CREATE INDEX i ON t (a COLLATE NOCASE)", "NOCASE", "unicase"),
    ("CREATE TABLE t (a TEXT COLLATE NOCASE UNIQUE)", "NOCASE", "unicase"),
    ("CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID", "NOCASE", "unicase"),
    ("CREATE TABLE t (a TEXT); CREATE INDEX i ON t (lower(a))", "lower", "folded"),
    ("CREATE TABLE t (a TEXT); CREATE INDEX i ON t (a) WHERE lower(a) > 'a'", "lower", "folded"),
    ("CREATE TABLE t (a TEXT, b TEXT AS (lower(a)) VIRTUAL)", "lower", "folded"),
];

#[test]
fn a_check_that_needs_its_application_is_a_note_and_no_damage() {
    for (statements, from, to) in FOREIGN {
        let bench = Bench::new();
        let (live, source) = (bench.path("app.db"), sqlite("app.db"));
        with_foreign(&live, statements, from, to);
        let bytes = fs::read(&live).unwrap();
        let taken = bench.take(&source, None).unwrap();
        let reader = bench.store.reader().unwrap();
        let engine = for_source(&source, &Ground::new(None, None, bench.folder.path(), None));
        let proven = engine.prove(&reader, &taken, &bench.work()).unwrap();
        assert!(proven.artifacts.is_empty() && proven.content.is_empty(), "{statements}: {proven:?}");
        assert_eq!(proven.notes.len(), 1, "{statements}: {proven:?}");
        assert!(proven.notes[0].contains("the table t can't be checked without its application"), "{proven:?}");
        bench.restore(&source, &taken, &RestoreTarget::InPlace).unwrap();
        fs::remove_file(&live).unwrap();
        bench.restore(&source, &taken, &RestoreTarget::Missing).unwrap();
        assert_eq!(fs::read(&live).unwrap().len(), bytes.len(), "{statements}");
        // What can be checked beside it is.
        let database = Connection::open(&live).unwrap();
        database
            .execute_batch(
                "UPDATE plain SET x = NULL; PRAGMA writable_schema = ON; \
                 UPDATE sqlite_schema SET sql = replace(sql, 'x TEXT', 'x TEXT NOT NULL') WHERE name = 'plain'",
            )
            .unwrap();
        drop(database);
        let taken = bench.take(&source, None).unwrap();
        let reader = bench.store.reader().unwrap();
        let proven = engine.prove(&reader, &taken, &bench.work()).unwrap();
        assert!(proven.content.iter().any(|finding| finding.contains("NULL value in plain.x")), "{proven:?}");
    }
}

/// How a database is broken, by a name.
type Way<'a> = (&'a str, &'a dyn Fn(&Path));

/// A repository takes longer to make than all that is tried in it.
fn cleared(bench: &Bench) {
    for entry in fs::read_dir(bench.folder.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("bank.db") {
            drop(fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path())));
        }
    }
}

#[test]
fn a_database_comes_back_over_whatever_is_in_its_place() {
    let garbage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[..4096].fill(b'x');
        fs::write(path, bytes).unwrap();
    };
    let text =
        |path: &Path| fs::write(path, "no database, and longer than a header of a hundred bytes. ".repeat(20)).unwrap();
    let folder = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let schema = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[100..400].fill(0xff);
        fs::write(path, bytes).unwrap();
    };
    let ways: [Way<'_>; 4] = [("first page", &garbage), ("text", &text), ("folder", &folder), ("schema", &schema)];
    let bench = Bench::new();
    for (way, breaks) in ways {
        for target in [RestoreTarget::InPlace, RestoreTarget::Missing] {
            cleared(&bench);
            let (live, source) = (bench.path("bank.db"), sqlite("bank.db"));
            drop(accounts(&live, "wal"));
            let taken = bench.take(&source, None).unwrap();
            breaks(&live);
            fs::write(bench.path("bank.db-wal"), b"of what is broken").unwrap();
            let broken = fs::read(&live).ok();
            assert_eq!(bench.observe(&source), Observed::Known(SourceState::Broken), "{way}");
            bench.restore(&source, &taken, &target).unwrap();
            assert_eq!(sum(&live), 200_000, "{way}");
            assert_eq!(fs::read(bench.path("bank.db.before-restore")).ok(), broken, "{way}: what was there is lost");
            assert!(bench.path("bank.db-wal.before-restore").exists(), "{way}");
            assert!(matches!(bench.observe(&source), Observed::Known(SourceState::HasData { .. })), "{way}");
        }
    }
}

#[test]
fn a_database_that_is_damaged_within_is_copied_as_it_lies_before_it_is_overwritten() {
    let bench = Bench::new();
    let (live, source) = (bench.path("bank.db"), sqlite("bank.db"));
    drop(accounts(&live, "delete"));
    let taken = bench.take(&source, None).unwrap();
    let mut bytes = fs::read(&live).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page.fill(0xee);
    }
    fs::write(&live, &bytes).unwrap();
    let ground = Ground::new(None, None, bench.folder.path(), None);
    let tags = Tags {
        stack: StackName::new("test"),
        run: RunId::new("safety"),
        service: ServiceName::new("service"),
        policy: PolicyName::new("safety"),
    };
    let request =
        TakeRequest { store: &bench.store, tags, at: jiff::Timestamp::now(), parent: None, allow_empty: true };
    let copy: Taken = safety_of(&source, &ground).take(request, &bench.work()).unwrap();
    let reader = bench.store.reader().unwrap();
    let proven = of_taken(&copy, &source, &ground).prove(&reader, &copy, &bench.work()).unwrap();
    assert!(proven.artifacts.is_empty() && proven.content.is_empty(), "{proven:?}");
    bench.restore(&source, &taken, &RestoreTarget::InPlace).unwrap();
    assert_eq!(sum(&live), 200_000);
    let back = of_taken(&copy, &source, &ground).restore(&reader, &copy, &RestoreTarget::InPlace, &bench.work());
    drop(back.unwrap());
    assert_eq!(fs::read(&live).unwrap(), bytes, "the copy did not come back as it was");
}

#[test]
fn a_database_comes_back_over_one_of_another_form() {
    let forms = [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 16384",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA encoding = 'UTF-16le'",
    ];
    let bench = Bench::new();
    for mode in ["wal", "delete", "truncate"] {
        for form in forms {
            cleared(&bench);
            let (live, source) = (bench.path("bank.db"), sqlite("bank.db"));
            drop(accounts(&live, mode));
            let taken = bench.take(&source, None).unwrap();
            fs::remove_file(&live).unwrap();
            let other = Connection::open(&live).unwrap();
            other.execute_batch(&format!("{form}; CREATE TABLE t (x); INSERT INTO t VALUES (1)")).unwrap();
            other.pragma_update(None, "journal_mode", mode).unwrap();
            drop(other);
            bench.restore(&source, &taken, &RestoreTarget::InPlace).unwrap();
            assert_eq!(sum(&live), 200_000, "{mode}, {form}");
            let back = Connection::open(&live).unwrap();
            let now: String = back.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(now == "wal", mode == "wal", "{form}: its journal mode is another");
        }
    }
}

#[test]
fn what_its_program_did_not_finish_is_undone_in_the_copy_and_not_in_the_database() {
    for mode in ["delete", "wal"] {
        let bench = Bench::new();
        let busy = bench.path("busy.db");
        let open = accounts(&busy, mode);
        // Spilled to the disk, and not committed: as it lies when the power goes.
        open.execute_batch("PRAGMA cache_size = 4; BEGIN; UPDATE account SET money = 0").unwrap();
        let names = if mode == "wal" { ["", "-wal"] } else { ["", "-journal"] };
        for ending in names {
            fs::copy(bench.path(&format!("busy.db{ending}")), bench.path(&format!("bank.db{ending}"))).unwrap();
        }
        let was: Vec<_> = names.map(|ending| fs::read(bench.path(&format!("bank.db{ending}"))).unwrap()).into();
        let source = sqlite("bank.db");
        assert!(matches!(bench.observe(&source), Observed::Known(SourceState::HasData { .. })), "{mode}");
        let taken = bench.take(&source, None).unwrap();
        bench.prove(&source, &taken);
        if mode == "delete" {
            let now: Vec<_> = names.map(|ending| fs::read(bench.path(&format!("bank.db{ending}"))).unwrap()).into();
            assert_eq!(now, was, "the take has changed what it took");
        }
        let beside = bench.path("beside");
        bench.restore(&source, &taken, &RestoreTarget::Beside { folder: beside.clone() }).unwrap();
        assert_eq!(sum(&beside.join("bank.db")), 200_000, "{mode}");
        bench.restore(&source, &taken, &RestoreTarget::InPlace).unwrap();
        assert_eq!(sum(&bench.path("bank.db")), 200_000, "{mode}");
    }
}
