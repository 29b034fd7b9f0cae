//! Putting databases back into a running server. A database of these servers cannot be renamed, so there is no moving it
//! aside: the backup is proven whole first, a mark says that a restore is under way, the databases are dropped, loaded and
//! counted. Where that fails the mark stays, nothing is backed up over it, and the same restore can be run again.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use super::names::{dotted, literal, part, quoted, table};
use super::{ACCOUNTS, DATABASES, GRANTS, Mysql, Session, accounts, among, inspector};
use crate::engines::server::Server;
use crate::engines::{EngineError, Restored, Work, streams};
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::Reader;

/// A database that is there from before the first drop until every row is counted. It holds the server's settings as they
/// were, for whoever restores after a restore that was killed.
pub(super) const MARK: &str = "_devstack_restore";

/// What the server is told for as long as databases are loaded: rows of any size, and no event that changes what has just
/// been loaded.
const SETTINGS: [(&str, &str); 2] = [("max_allowed_packet", "1073741824"), ("event_scheduler", "OFF")];

/// What a grant may fail with when it is for something that is no longer there: a dropped table, column or routine (which
/// keep their grants), a right that this version does not have, an account that only its own server may stand in for.
const GRANTS_OF_NOTHING: [&str; 7] = ["1049", "1054", "1146", "1147", "1305", "1698", "3619"];

/// Counting the rows of a large table takes as long as reading it.
const COUNTING: Duration = Duration::from_secs(24 * 3600);

impl Mysql {
    pub(super) fn restore_in_place(
        &self,
        reader: &Reader,
        taken: &Taken,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        if taken.engine != self.flavour.engine() {
            return Err(EngineError::Refused {
                what: format!(
                    "the backup is of {}, and the service is {}: neither loads all of what the other dumps; nothing was touched",
                    taken.engine,
                    self.flavour.engine()
                ),
            });
        }
        streams::must_be_whole(reader, taken, work, inspector)?;
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.restorer()?;
        let into = Into { engine: self, server: &server, session: &session };
        let artifact = |name: &str| taken.artifacts.iter().find(|artifact| artifact.name == name);
        let (mut notes, mut bytes) = (Vec::new(), ByteSize(0));
        if let Some(artifact) = artifact(ACCOUNTS) {
            into.load_accounts(&streams::small(reader, taken, artifact, work)?)?;
            bytes = bytes + artifact.bytes;
        }
        if let Some(artifact) = artifact(DATABASES) {
            let databases = databases_of(artifact);
            into.load_marked(&databases, artifact, &mut notes, || {
                into.load(reader, taken, artifact, &databases, work, bytes)
            })?;
            bytes = bytes + artifact.bytes;
            let all = self.all_databases(&server, &session)?;
            let others: Vec<String> = all.into_iter().filter(|name| !databases.contains(name)).collect();
            if !others.is_empty() {
                notes.push(format!("left as they are, since the backup does not hold them: {}", others.join(", ")));
            }
        }
        if let Some(artifact) = artifact(GRANTS) {
            into.load_grants(&streams::small(reader, taken, artifact, work)?, &mut notes)?;
            bytes = bytes + artifact.bytes;
        }
        Ok(Restored { to: format!("the container {}", server.container.name), bytes, notes })
    }
}

/// The databases that an artifact is the dump of.
fn databases_of(artifact: &Artifact) -> Vec<String> {
    let names = artifact.counts.keys().filter_map(|name| name.strip_prefix("tables in "));
    names.filter_map(part).map(|(name, _)| name).collect()
}

/// Where it is restored into.
struct Into<'a> {
    engine: &'a Mysql,
    server: &'a Server,
    session: &'a Session,
}

impl Into<'_> {
    fn sql(&self, sql: &str) -> Result<(), EngineError> {
        self.server.ask(&self.engine.client(self.session), sql).map(|_| ())
    }

    fn load_accounts(&self, text: &[u8]) -> Result<(), EngineError> {
        // Who takes backups and who restores stay who they are.
        let backup = self.engine.session()?.user;
        let text = accounts::keeping(&String::from_utf8_lossy(text), &[&self.session.user, &backup]);
        self.sql(&format!("{text}FLUSH PRIVILEGES;\n")).map_err(|error| EngineError::Restore {
            doing: "restoring the accounts".to_owned(),
            after: "no database was touched".to_owned(),
            source: Box::new(error),
        })
    }

    /// Loads under the mark, with the settings of a load, and puts the settings back whatever comes.
    fn load_marked(
        &self,
        databases: &[String],
        artifact: &Artifact,
        notes: &mut Vec<String>,
        load: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let untouched = |error| EngineError::Restore {
            doing: "preparing the restore".to_owned(),
            after: "no database was touched".to_owned(),
            source: Box::new(error),
        };
        self.mark().map_err(untouched)?;
        notes.extend(self.set_for_loading());
        let loaded = load().and_then(|()| self.compare(databases, artifact));
        let back = self.set_back();
        let names = databases.join(", ");
        loaded.map_err(|error| EngineError::Restore {
            doing: format!("restoring {names}"),
            after: format!(
                "these databases are now restored in part or not there; the backup is whole: remove the cause and restore \
                 again. Until then nothing is backed up from this server (its mark is the database {MARK})"
            ),
            source: Box::new(error),
        })?;
        back.and_then(|()| self.sql(&format!("DROP DATABASE IF EXISTS {};", quoted(MARK)))).map_err(|error| {
            EngineError::Restore {
                doing: "putting the server's settings back".to_owned(),
                after: format!(
                    "the databases are restored and compared; set {} as they were (they stand in {MARK}.settings), and \
                     drop {MARK}",
                    SETTINGS.map(|(name, _)| name).join(" and ")
                ),
                source: Box::new(error),
            }
        })
    }

    fn mark(&self) -> Result<(), EngineError> {
        let settings = format!("{}.settings", quoted(MARK));
        let mut sql = format!(
            "CREATE DATABASE IF NOT EXISTS {};\nCREATE TABLE IF NOT EXISTS {settings} \
             (name VARCHAR(64) PRIMARY KEY, value VARCHAR(64)) ENGINE=InnoDB;\n",
            quoted(MARK)
        );
        for (name, _) in SETTINGS {
            // Of a restore that was killed the first values stay.
            sql.push_str(&format!("INSERT IGNORE INTO {settings} SELECT '{name}', @@GLOBAL.{name};\n"));
        }
        self.sql(&sql)
    }

    fn settings_now(&self) -> Result<Vec<String>, EngineError> {
        let names = SETTINGS.map(|(name, _)| format!("@@GLOBAL.{name}"));
        let rows = self.engine.asked(self.server, self.session, &format!("SELECT {};", names.join(", ")))?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Sets what can be set. A user without the right restores all the same, as far as the settings go.
    fn set_for_loading(&self) -> Vec<String> {
        let now = self.settings_now().unwrap_or_default();
        let mut notes = Vec::new();
        for ((name, value), now) in SETTINGS.iter().zip(&now) {
            // A scheduler that is `DISABLED` cannot be set, and runs nothing.
            if now == value || now == "DISABLED" {
                continue;
            }
            if let Err(error) = self.sql(&format!("SET GLOBAL {name} = {value};")) {
                notes.push(format!("{name} stayed {now} while loading: {}", crate::model::chain(&error)));
            }
        }
        notes
    }

    fn set_back(&self) -> Result<(), EngineError> {
        let kept = format!("SELECT name, value FROM {}.settings;", quoted(MARK));
        let kept = self.engine.asked(self.server, self.session, &kept)?;
        let now = self.settings_now()?;
        for ((name, _), now) in SETTINGS.iter().zip(&now) {
            let before = kept.iter().find(|row| row.first().is_some_and(|of| of == name)).and_then(|row| row.get(1));
            if let Some(before) = before.filter(|before| *before != now) {
                self.sql(&format!("SET GLOBAL {name} = {before};"))?;
            }
        }
        Ok(())
    }

    /// Drops the databases and loads them, in one session that ends at the first error.
    fn load(
        &self,
        reader: &Reader,
        taken: &Taken,
        artifact: &Artifact,
        databases: &[String],
        work: &Work<'_>,
        before: ByteSize,
    ) -> Result<(), EngineError> {
        // Texts of routines as they are, comments included.
        let command = self.engine.client(self.session).args(["--binary-mode", "--comments"]);
        let mut input = self.server.docker.input(&self.server.container, &command)?;
        let mut drops = "SET FOREIGN_KEY_CHECKS = 0;\n".to_owned();
        for database in databases {
            drops.push_str(&format!("DROP DATABASE IF EXISTS {};\n", quoted(database)));
        }
        input
            .write_all(drops.as_bytes())
            .map_err(|source| EngineError::Stream { name: artifact.name.clone(), source })?;
        streams::pour(reader, taken, artifact, input, work, before).map(|_| ())
    }

    /// Counts everything as the server now has it.
    fn compare(&self, databases: &[String], artifact: &Artifact) -> Result<(), EngineError> {
        let Some(among) = among(databases) else { return Ok(()) };
        let mut findings = self.compare_definitions(&among, artifact)?;
        let versioned = self.versioned(&among)?;
        let tables: Vec<(&str, u64)> = artifact
            .counts
            .iter()
            .filter_map(|(name, count)| Some((name.strip_prefix("rows ")?, count.value)))
            .collect();
        for some in tables.chunks(200) {
            let mut counts = Vec::new();
            for (name, _) in some {
                let from = table(name).ok_or_else(|| self.engine.unreadable(format!("{name} is no table's name")))?;
                let all = if versioned.contains(*name) { " FOR SYSTEM_TIME ALL" } else { "" };
                counts.push(format!("(SELECT COUNT(*) FROM {from}{all})"));
            }
            let there = self.numbers(&format!("SELECT {};", counts.join(", ")))?;
            for ((name, rows), now) in some.iter().zip(&there) {
                if rows != now {
                    findings.push(format!("{name} has {now} rows, and {rows} in the backup"));
                }
            }
        }
        match findings.is_empty() {
            true => Ok(()),
            false => {
                Err(EngineError::Differs { what: format!("the server in {}", self.server.container.name), findings })
            }
        }
    }

    fn compare_definitions(&self, among: &str, artifact: &Artifact) -> Result<Vec<String>, EngineError> {
        let kinds = [
            ("events", "events WHERE event_schema"),
            ("routines", "routines WHERE routine_schema"),
            ("sequences", "tables WHERE table_type = 'SEQUENCE' AND table_schema"),
            ("triggers", "triggers WHERE trigger_schema"),
            ("views", "views WHERE table_schema"),
        ];
        let counts = kinds
            .map(|(_, which)| format!("(SELECT COUNT(*) FROM information_schema.{which} IN ({among}))"))
            .join(", ");
        let there = self.numbers(&format!("SELECT {counts};"))?;
        let expected = kinds.map(|(kind, _)| (kind, artifact.counts.get(kind).map_or(0, |count| count.value)));
        let differing = expected.iter().zip(&there).filter(|((_, expected), now)| expected != *now);
        Ok(differing.map(|((kind, expected), now)| format!("{now} {kind}, and {expected} in the backup")).collect())
    }

    /// Tables whose rows of former times are in the dump too.
    fn versioned(&self, among: &str) -> Result<BTreeSet<String>, EngineError> {
        let sql = format!(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_type = {} AND table_schema IN ({among});",
            literal("SYSTEM VERSIONED")
        );
        let rows = self.engine.asked(self.server, self.session, &sql)?;
        Ok(rows.iter().filter_map(|row| Some(dotted(row.first()?, row.get(1)?))).collect())
    }

    /// One row of numbers.
    fn numbers(&self, sql: &str) -> Result<Vec<u64>, EngineError> {
        let command = self.engine.client(self.session);
        let answer = self.server.docker.run(&self.server.container, &command, sql.as_bytes(), COUNTING)?;
        let text = answer.text();
        let numbers: Result<Vec<u64>, _> = text.split('\t').map(str::parse).collect();
        numbers.map_err(|error| self.engine.unreadable(error.to_string()))
    }

    /// Every grant is tried, and what each one was answered is looked at.
    fn load_grants(&self, text: &[u8], notes: &mut Vec<String>) -> Result<(), EngineError> {
        let text = String::from_utf8_lossy(text);
        let mut sql = accounts::PLAIN_MODE.to_owned();
        let statements: Vec<&str> = accounts::statements(&text).collect();
        for (number, statement) in statements.iter().enumerate() {
            // A question to a table: it also makes the server forget the errors of the statement before.
            sql.push_str(&format!(
                "SELECT {number} FROM information_schema.engines LIMIT 1;\n{statement}\nSHOW ERRORS;\n"
            ));
        }
        sql.push_str("FLUSH PRIVILEGES;\n");
        let failed = |error| EngineError::Restore {
            doing: "restoring what the accounts may do".to_owned(),
            after: "the databases are restored and compared, and the accounts are there; restore again".to_owned(),
            source: Box::new(error),
        };
        let command = self.engine.client(self.session).arg("--force");
        let answer = self.server.ask(&command, &sql).map_err(failed)?;
        let (mut statement, mut answered, mut wrong) = ("", 0, Vec::new());
        for row in super::names::rows(&answer.text()) {
            match row.as_slice() {
                [number] => {
                    let asked = number.parse().ok().and_then(|at: usize| statements.get(at));
                    statement = asked.ok_or_else(|| failed(self.engine.unreadable(number.as_str())))?;
                    answered += 1;
                }
                [_, number, said] if GRANTS_OF_NOTHING.contains(&number.as_str()) => {
                    notes.push(format!("not granted, since what it is for is not there ({said}): {statement}"));
                }
                [_, number, said] => wrong.push(format!("{statement} answered {number}: {said}")),
                _ => {}
            }
        }
        // A client that is told to go on does so without a server too.
        if answered < statements.len() {
            wrong.push(format!("{answered} of {} statements were answered", statements.len()));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(failed(EngineError::Differs { what: "what the accounts may do".to_owned(), findings: wrong })),
        }
    }
}
