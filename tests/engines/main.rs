//! The engines on real databases and files, through a real repository.

mod broken;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use devstack::engines::{EngineError, Ground, TakeRequest, Work, Workrooms, certificates_of, for_source};
use devstack::model::cancel::Cancel;
use devstack::model::certificate::Certificate;
use devstack::model::ids::{PolicyName, RunId, ServiceName, StackName};
use devstack::model::observation::{Observed, SourceState};
use devstack::model::run::Taken;
use devstack::model::step::RestoreTarget;
use devstack::repository::{DeclaredKey, KeyMaterial, Site, Store, StoreOptions, Tags};
use devstack::secrets::Secret;
use devstack::spec::file::{CertificatesSource, FilesSource, Source, SqliteSource};
use rusqlite::Connection;

/// A server's certificate and that of its authority.
const CHAIN: &str = include_str!("../../src/engines/certificates/chain.pem");

/// A folder with a repository, and what an engine needs around it.
struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    rooms: Workrooms,
    cancel: Cancel,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = DeclaredKey {
            label: "passphrase env TEST".into(),
            material: KeyMaterial::Passphrase(Secret::new("made for a test".into())),
        };
        let site = Site::new(folder.path().join("repository"));
        let store = Store::create(&site, &key, &StoreOptions::default()).unwrap();
        let rooms = Workrooms::new(folder.path().join("work"));
        Self { folder, store, rooms, cancel: Cancel::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn work(&self) -> Work<'_> {
        Work { cancel: &self.cancel, progress: &|_| {}, rooms: &self.rooms }
    }

    fn take(&self, source: &Source, parent: Option<&Taken>) -> Result<Taken, EngineError> {
        let tags = Tags {
            stack: StackName::new("test"),
            run: RunId::new("run"),
            service: ServiceName::new("service"),
            policy: PolicyName::new("policy"),
        };
        let parent = parent.map(|parent| parent.snapshot.clone());
        let request = TakeRequest { store: &self.store, tags, at: jiff::Timestamp::now(), parent, allow_empty: false };
        for_source(source, &Ground::new(None, None, self.folder.path(), None)).take(request, &self.work())
    }

    /// No finding in any level.
    fn prove(&self, source: &Source, taken: &Taken) {
        let reader = self.store.reader().unwrap();
        let proven = for_source(source, &Ground::new(None, None, self.folder.path(), None))
            .prove(&reader, taken, &self.work())
            .unwrap();
        assert!(proven.artifacts.is_empty() && proven.content.is_empty(), "{proven:?}");
    }

    fn restore(&self, source: &Source, taken: &Taken, target: &RestoreTarget) -> Result<(), EngineError> {
        let reader = self.store.reader().unwrap();
        for_source(source, &Ground::new(None, None, self.folder.path(), None))
            .restore(&reader, taken, target, &self.work())
            .map(drop)
    }

    fn observe(&self, source: &Source) -> Observed<SourceState> {
        for_source(source, &Ground::new(None, None, self.folder.path(), None)).observe()
    }
}

fn sqlite(path: &str) -> Source {
    Source::Sqlite(SqliteSource { path: path.into() })
}

fn files(paths: &[&str], exclude: &[&str]) -> Source {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Source::Files(FilesSource { paths: owned(paths), exclude: owned(exclude), stop: Vec::new() })
}

fn certificates(path: &str) -> Source {
    Source::Certificates(CertificatesSource { paths: vec![path.to_owned()], exclude: Vec::new(), warn: None })
}

fn accounts(path: &Path, mode: &str) -> Connection {
    let database = Connection::open(path).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    database.pragma_update(None, "journal_mode", mode).unwrap();
    database.execute_batch("CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER, note TEXT)").unwrap();
    let transaction = database.unchecked_transaction().unwrap();
    for id in 0..2_000 {
        transaction.execute("INSERT INTO account VALUES (?1, 100, hex(randomblob(400)))", [id]).unwrap();
    }
    transaction.commit().unwrap();
    database
}

fn sum(path: &Path) -> i64 {
    Connection::open(path).unwrap().query_row("SELECT sum(money) FROM account", [], |row| row.get(0)).unwrap()
}

/// Ends the writer when the test ends, a failing one too: a test that fails must not hang.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn sqlite_is_taken_consistent_while_somebody_writes() {
    for mode in ["wal", "delete"] {
        let bench = Bench::new();
        let live = bench.path("bank.db");
        let writer = accounts(&live, mode);
        let stopping = AtomicBool::new(false);
        let stop = &stopping;
        let moved = std::thread::scope(|scope| {
            let moving = scope.spawn(move || {
                let mut moved = 0_u32;
                // Money moves from one account to another: no moment has another sum.
                while !stop.load(Ordering::Relaxed) {
                    let (from, to) = (moved % 2_000, (moved * 7 + 13) % 2_000);
                    let transaction = writer.unchecked_transaction().unwrap();
                    transaction.execute("UPDATE account SET money = money - 3 WHERE id = ?1", [from]).unwrap();
                    transaction.execute("UPDATE account SET money = money + 3 WHERE id = ?1", [to]).unwrap();
                    transaction.commit().unwrap();
                    moved += 1;
                }
                moved
            });
            let ending = Stop(stop);
            for round in 0..3 {
                let taken = bench.take(&sqlite("bank.db"), None).unwrap();
                bench.prove(&sqlite("bank.db"), &taken);
                let folder = bench.path(&format!("{mode}-{round}"));
                bench.restore(&sqlite("bank.db"), &taken, &RestoreTarget::Beside { folder: folder.clone() }).unwrap();
                assert_eq!(sum(&folder.join("bank.db")), 200_000, "{mode}, round {round}");
            }
            drop(ending);
            moving.join().unwrap()
        });
        assert!(moved > 0, "nobody wrote meanwhile");
    }
}

#[test]
fn sqlite_comes_back_in_place_into_a_database_with_a_live_wal() {
    let bench = Bench::new();
    let live = bench.path("bank.db");
    let open = accounts(&live, "wal");
    let taken = bench.take(&sqlite("bank.db"), None).unwrap();
    // Committed, and only in the -wal: a file put over the database would have this replayed into it.
    open.execute("UPDATE account SET money = 0", []).unwrap();
    assert!(fs::metadata(bench.path("bank.db-wal")).unwrap().len() > 0);
    bench.restore(&sqlite("bank.db"), &taken, &RestoreTarget::InPlace).unwrap();
    assert_eq!(sum(&live), 200_000);
    let seen: i64 = open.query_row("SELECT sum(money) FROM account", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 200_000, "a connection that was open all along sees the restored rows");
}

#[test]
fn sqlite_comes_back_where_the_file_is_gone_and_a_leftover_wal_is_moved_aside() {
    let bench = Bench::new();
    let live = bench.path("bank.db");
    drop(accounts(&live, "wal"));
    fs::set_permissions(&live, fs::Permissions::from_mode(0o640)).unwrap();
    let taken = bench.take(&sqlite("bank.db"), None).unwrap();
    fs::remove_file(&live).unwrap();
    assert_eq!(bench.observe(&sqlite("bank.db")), Observed::Known(SourceState::Gone));
    fs::write(bench.path("bank.db-wal"), b"left by a database that is gone").unwrap();
    bench.restore(&sqlite("bank.db"), &taken, &RestoreTarget::InPlace).unwrap();
    assert_eq!(sum(&live), 200_000);
    assert_eq!(fs::metadata(&live).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(bench.path("bank.db-wal.before-restore").exists());
}

#[test]
fn what_is_no_database_or_holds_nothing_is_not_taken() {
    let bench = Bench::new();
    fs::write(bench.path("text.db"), "no database, and longer than a header of a hundred bytes. ".repeat(20)).unwrap();
    assert!(matches!(bench.take(&sqlite("text.db"), None), Err(EngineError::Sqlite { .. })));
    assert_eq!(bench.observe(&sqlite("text.db")), Observed::Known(SourceState::Broken));
    fs::write(bench.path("empty.db"), "").unwrap();
    assert!(matches!(bench.take(&sqlite("empty.db"), None), Err(EngineError::Empty { .. })));
    assert_eq!(bench.observe(&sqlite("empty.db")), Observed::Known(SourceState::Empty));
    assert!(matches!(bench.take(&sqlite("gone.db"), None), Err(EngineError::Gone { .. })));
    fs::create_dir(bench.path("hollow")).unwrap();
    assert!(matches!(bench.take(&files(&["hollow"], &[]), None), Err(EngineError::Empty { .. })));
    assert!(bench.store.facts(&StackName::new("test")).unwrap().unsealed.is_empty(), "a refused take left a snapshot");
}

#[test]
fn a_proof_finds_a_backup_that_is_not_what_the_manifest_says() {
    let bench = Bench::new();
    drop(accounts(&bench.path("bank.db"), "delete"));
    let mut taken = bench.take(&sqlite("bank.db"), None).unwrap();
    let reader = bench.store.reader().unwrap();
    let engine = for_source(&sqlite("bank.db"), &Ground::new(None, None, bench.folder.path(), None));
    for count in taken.artifacts[0].counts.values_mut() {
        count.value += 1;
    }
    let proven = engine.prove(&reader, &taken, &bench.work()).unwrap();
    assert_eq!((proven.artifacts.len(), proven.content.len()), (0, 2), "{proven:?}");
    taken.artifacts[0].sha256 = devstack::model::ids::Digest::of("something else");
    let proven = engine.prove(&reader, &taken, &bench.work()).unwrap();
    assert_eq!(proven.artifacts.len(), 1, "{proven:?}");
}

fn tree(root: &Path) {
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("plain.txt"), "plain").unwrap();
    fs::write(root.join("sub/secret.key"), "secret").unwrap();
    fs::set_permissions(root.join("sub/secret.key"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::write(root.join("sub/skip.log"), "not wanted").unwrap();
    symlink("plain.txt", root.join("link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    let sparse = fs::File::create(root.join("sparse.img")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", (8 << 20) - 3).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::open(root.join("plain.txt")).unwrap().set_modified(old).unwrap();
}

#[test]
fn files_come_back_in_place_with_modes_times_links_and_holes() {
    let bench = Bench::new();
    let root = bench.path("data");
    tree(&root);
    let source = files(&["data"], &["*.log"]);
    let taken = bench.take(&source, None).unwrap();
    bench.prove(&source, &taken);
    fs::remove_file(root.join("plain.txt")).unwrap();
    fs::write(root.join("link-target-elsewhere"), "unknown to the backup").unwrap();
    fs::remove_file(root.join("link")).unwrap();
    fs::remove_file(root.join("sparse.img")).unwrap();
    bench.restore(&source, &taken, &RestoreTarget::InPlace).unwrap();
    let plain = fs::metadata(root.join("plain.txt")).unwrap();
    assert_eq!((plain.mtime(), plain.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("plain.txt"));
    assert_eq!(fs::read_link(root.join("dangling")).unwrap(), Path::new("/nowhere"));
    assert_eq!(fs::metadata(root.join("sub/secret.key")).unwrap().permissions().mode() & 0o777, 0o400);
    let sparse = fs::metadata(root.join("sparse.img")).unwrap();
    assert_eq!(sparse.len(), 8 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "the hole came back as {} bytes", sparse.blocks() * 512);
    assert!(root.join("link-target-elsewhere").exists(), "what the backup does not know is left alone");
    assert!(root.join("sub/empty").is_dir());
    let beside = bench.path("beside");
    bench.restore(&source, &taken, &RestoreTarget::Beside { folder: beside.clone() }).unwrap();
    assert!(!beside.join("stack/data/sub/skip.log").exists(), "an excluded file is in the backup");
    assert!(matches!(
        bench.restore(&source, &taken, &RestoreTarget::Beside { folder: beside }),
        Err(EngineError::NotEmpty { .. })
    ));
}

#[test]
fn a_changed_file_is_read_again_and_the_others_are_not_stored_twice() {
    let bench = Bench::new();
    let root = bench.path("data");
    fs::create_dir(&root).unwrap();
    for number in 0..50_u32 {
        let words: String = (0..2_000).map(|word| format!("{} ", (word * 7919 + number) * 31)).collect();
        fs::write(root.join(format!("{number}.txt")), words).unwrap();
    }
    let source = files(&["data"], &[]);
    let first = bench.take(&source, None).unwrap();
    fs::write(root.join("7.txt"), "quite another text").unwrap();
    let second = bench.take(&source, Some(&first)).unwrap();
    bench.prove(&source, &second);
    assert!(second.added.0 * 5 < first.added.0, "{} after {}", second.added, first.added);
    let beside = bench.path("beside");
    bench.restore(&source, &second, &RestoreTarget::Beside { folder: beside.clone() }).unwrap();
    assert_eq!(fs::read_to_string(beside.join("stack/data/7.txt")).unwrap(), "quite another text");
}

#[test]
fn a_declared_path_that_matches_nothing_fails_the_take() {
    let bench = Bench::new();
    tree(&bench.path("data"));
    assert!(matches!(bench.take(&files(&["data", "gone"], &[]), None), Err(EngineError::Gone { .. })));
    assert!(matches!(bench.take(&files(&["data/*.nothing"], &[]), None), Err(EngineError::NoMatch { .. })));
}

#[test]
fn a_take_that_is_interrupted_leaves_no_snapshot_and_no_private_copy() {
    let bench = Bench::new();
    drop(accounts(&bench.path("bank.db"), "delete"));
    bench.cancel.cancel();
    assert!(bench.take(&sqlite("bank.db"), None).is_err());
    assert!(bench.store.facts(&StackName::new("test")).unwrap().unsealed.is_empty());
    assert_eq!(fs::read_dir(bench.path("work")).unwrap().count(), 0);
}

#[test]
fn small_files_are_stored_as_the_same_chunks_as_beside_a_large_one() {
    let bench = Bench::new();
    let root = bench.path("data");
    fs::create_dir(&root).unwrap();
    for number in 0..20_u32 {
        let text: String = (0..3_000).map(|word| format!("{} ", (word * 7919 + number) * 31)).collect();
        fs::write(root.join(format!("{number}.txt")), text).unwrap();
    }
    let source = files(&["data"], &[]);
    let small = bench.take(&source, None).unwrap();
    bench.prove(&source, &small);
    // One file above the least chunk, and everything goes through the content-defined chunker again.
    let large: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(root.join("large.bin"), &large).unwrap();
    let with_large = bench.take(&source, None).unwrap();
    bench.prove(&source, &with_large);
    fs::remove_file(root.join("large.bin")).unwrap();
    let again = bench.take(&source, None).unwrap();
    let listing = |taken: &Taken| {
        let reader = bench.store.reader().unwrap();
        let listing = reader.listing(&taken.snapshot, false, &bench.cancel, &|_| {}).unwrap();
        (listing.files, listing.bytes)
    };
    assert_eq!(listing(&small), listing(&again));
    assert!(again.added.0 < small.added.0 / 4, "{} after {}: the chunks were not the same", again.added, small.added);
    let config = fs::read(bench.path("repository/config")).unwrap();
    let reopened = bench.take(&source, None).unwrap();
    bench.prove(&source, &reopened);
    assert_eq!(
        config,
        fs::read(bench.path("repository/config")).unwrap(),
        "the repository's own settings were changed"
    );
}

#[test]
fn certificates_come_back_with_the_keys_beside_them_and_only_they_are_in_the_inventory() {
    let bench = Bench::new();
    let root = bench.path("certs");
    fs::create_dir_all(root.join("old")).unwrap();
    fs::write(root.join("chain.pem"), CHAIN).unwrap();
    fs::write(root.join("old/web.pem"), CHAIN.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap()).unwrap();
    fs::write(root.join("web.key"), "not a certificate").unwrap();
    fs::set_permissions(root.join("web.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let source = certificates("certs");
    let taken = bench.take(&source, None).unwrap();
    let found = |certificates: &[Certificate]| -> Vec<(String, bool)> {
        certificates.iter().map(|certificate| (certificate.path.clone(), certificate.is_ca)).collect()
    };
    let expected = [("certs/chain.pem", false), ("certs/chain.pem", true), ("certs/old/web.pem", false)];
    assert_eq!(found(&taken.certificates), expected.map(|(path, is_ca)| (path.to_owned(), is_ca)));
    assert_eq!(taken.engine, "certificates");
    bench.prove(&source, &taken);
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(bench.observe(&source), Observed::Known(SourceState::Gone));
    bench.restore(&source, &taken, &RestoreTarget::InPlace).unwrap();
    assert_eq!(fs::read_to_string(root.join("chain.pem")).unwrap(), CHAIN);
    assert_eq!(fs::metadata(root.join("web.key")).unwrap().permissions().mode() & 0o777, 0o640);
    let Source::Certificates(declared) = &source else { unreachable!() };
    let present = certificates_of(declared, &Ground::new(None, None, bench.folder.path(), None));
    assert_eq!(present.known().unwrap(), &taken.certificates);
}

#[test]
fn files_of_which_none_holds_a_certificate_are_not_taken() {
    let bench = Bench::new();
    fs::create_dir(bench.path("certs")).unwrap();
    assert!(matches!(bench.take(&certificates("certs"), None), Err(EngineError::Empty { .. })));
    fs::write(bench.path("certs/web.key"), "not a certificate").unwrap();
    let refused = bench.take(&certificates("certs"), None).unwrap_err();
    assert!(refused.to_string().starts_with("no certificate can be read in any file of certs"), "{refused}");
    assert!(bench.store.facts(&StackName::new("test")).unwrap().unsealed.is_empty(), "a refused take left a snapshot");
}
