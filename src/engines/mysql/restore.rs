//! Putting databases back into a running server. A database of these servers cannot be renamed, so there is no moving it
//! aside: the backup is proven whole first, a mark says that a restore is under way, the databases are dropped, loaded and
//! counted. Where that fails the mark stays, nothing is backed up over it, and the same restore can be run again.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use super::dump::ONCE;
use super::names::{dotted, literal, part, quoted, table};
use super::{ACCOUNTS, DATABASES, Flavour, GRANTS, Mysql, Session, accounts, among, inspector};
use crate::engines::server::Server;
use crate::engines::{EngineError, Restored, Work, streams};
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::Reader;
use crate::runtime::masked;

/// A database that is there from before the first drop until every row is counted. It holds the server's settings as they
/// were, for whoever restores after a restore that was killed.
pub(super) const MARK: &str = "_devstack_restore";

/// What the server is told for as long as databases are loaded: rows of any size, and no event that changes what has just
/// been loaded.
const SETTINGS: [(&str, &str); 2] = [("max_allowed_packet", "1073741824"), ("event_scheduler", "OFF")];

/// What a grant may fail with when it is for something that is no longer there: a dropped table, column or routine (which
/// keep their grants), a right that this version does not have, an account that only its own server may stand in for.
const GRANTS_OF_NOTHING: [&str; 7] = ["1049", "1054", "1146", "1147", "1305", "1698", "3619"];

/// What an account can't be made with for want of rights: then none can.
const DENIED: [&str; 5] = ["1044", "1045", "1142", "1227", "1290"];

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
        let was_unfinished = self.is_unfinished(&server, &session)?;
        let into = Into { engine: self, server: &server, session: &session };
        let artifact = |name: &str| taken.artifacts.iter().find(|artifact| artifact.name == name);
        let accounts = |name: &str| artifact(name).filter(|_| !self.source.without_accounts);
        let (mut notes, mut bytes) = (Vec::new(), ByteSize(0));
        into.mark().map_err(|error| EngineError::Restore {
            doing: "preparing the restore".to_owned(),
            after: "no database was touched".to_owned(),
            source: Box::new(error),
        })?;
        let mut unmade = BTreeSet::new();
        if let Some(artifact) = accounts(ACCOUNTS) {
            let loaded =
                streams::small(reader, taken, artifact, work).and_then(|text| into.load_accounts(&text, &mut notes));
            unmade = loaded.map_err(|error| into.untouched("restoring the accounts", was_unfinished, error))?;
            bytes = bytes + artifact.bytes;
        }
        if let Some(artifact) = artifact(DATABASES) {
            let databases = databases_of(artifact);
            into.load_marked(&databases, artifact, &mut notes, |extra| {
                into.load(reader, taken, artifact, (&databases, extra), work, bytes)
            })?;
            bytes = bytes + artifact.bytes;
            let all = self.all_databases(&server, &session)?;
            let others: Vec<String> = all.into_iter().filter(|name| !databases.contains(name)).collect();
            if !others.is_empty() {
                notes.push(format!("left as they are, since the backup does not hold them: {}", others.join(", ")));
            }
        }
        if let Some(artifact) = accounts(GRANTS) {
            into.load_grants(&streams::small(reader, taken, artifact, work)?, &unmade, &mut notes)?;
            bytes = bytes + artifact.bytes;
        }
        into.end()?;
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
        let sql = format!("{}{sql}", self.engine.flavour.own_settings());
        self.server.ask(&self.engine.client(self.session), &sql).map(|_| ())
    }

    /// What failed before any database was touched leaves no mark that was not there before.
    fn untouched(&self, doing: &str, was_unfinished: bool, error: EngineError) -> EngineError {
        let unmarked = match was_unfinished {
            true => Ok(()),
            false => self.sql(&format!("DROP DATABASE IF EXISTS {};", quoted(MARK))),
        };
        let after = match unmarked {
            Ok(()) => "no database was touched".to_owned(),
            Err(failed) => {
                format!("no database was touched; drop the database {MARK} ({})", crate::model::chain(&failed))
            }
        };
        EngineError::Restore { doing: doing.to_owned(), after, source: Box::new(error) }
    }

    /// Makes the accounts that are missing. One that can't be made here, for want of its plugin or whatever else, is told, and
    /// keeps no database from coming back. Their names come back.
    fn load_accounts(&self, text: &[u8], notes: &mut Vec<String>) -> Result<BTreeSet<String>, EngineError> {
        let present = self.engine.asked(self.server, self.session, accounts::which(self.engine.flavour))?;
        let text = String::from_utf8_lossy(text);
        let (missing, kept) = accounts::missing(&text, &accounts::listed(&present));
        let statements: Vec<&str> = missing.iter().map(|(_, statement)| *statement).collect();
        let mut unmade = BTreeSet::new();
        for (at, number, said) in self.each(&statements)? {
            let (account, said) = (&missing[at].0, masked(&said));
            if DENIED.contains(&number.as_str()) {
                let what = format!(
                    "the account {account} could not be made ({number}: {said}); `restore_as` must be a user who may"
                );
                return Err(EngineError::Refused { what });
            }
            if unmade.insert(account.clone()) {
                notes.push(format!("the account {account} can't be made here, and is left out ({number}: {said})"));
            }
        }
        if !kept.is_empty() {
            notes.push(format!(
                "accounts that were here stay as they are, passwords included, whatever they were in the backup: {}",
                kept.join(", ")
            ));
        }
        Ok(unmade)
    }

    /// Has the server do every statement, whatever came of the one before; where it is told what each error was: its place,
    /// number and text.
    fn each(&self, statements: &[&str]) -> Result<Vec<(usize, String, String)>, EngineError> {
        let mut sql = format!("{}{}", self.engine.flavour.own_settings(), accounts::PLAIN_MODE);
        for (number, statement) in statements.iter().enumerate() {
            // A question to a table: it also makes the server forget the errors of the statement before.
            sql.push_str(&format!(
                "SELECT {number} FROM information_schema.engines LIMIT 1;\n{statement}\nSHOW ERRORS;\n"
            ));
        }
        sql.push_str("FLUSH PRIVILEGES;\n");
        let command = self.engine.client(self.session).arg("--force");
        let answer = self.server.ask(&command, &sql)?;
        let (mut at, mut answered, mut wrong) = (0, 0, Vec::new());
        for row in super::names::rows(&answer.text()) {
            match row.as_slice() {
                [number] => {
                    let asked: Option<usize> = number.parse().ok().filter(|at| *at < statements.len());
                    at = asked.ok_or_else(|| self.engine.unreadable(number.as_str()))?;
                    answered += 1;
                }
                [_, number, said] => wrong.push((at, number.clone(), said.clone())),
                _ => {}
            }
        }
        // A client that is told to go on does so without a server too.
        match answered == statements.len() {
            true => Ok(wrong),
            false => {
                Err(self.engine.unreadable(format!("{answered} of {} statements were answered", statements.len())))
            }
        }
    }

    /// Loads under the mark, with the settings of a load, and puts the settings back whatever comes.
    fn load_marked(
        &self,
        databases: &[String],
        artifact: &Artifact,
        notes: &mut Vec<String>,
        load: impl FnOnce(&str) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        notes.extend(self.set_for_loading());
        let loaded = load(&self.session_for_loading()).and_then(|()| self.compare(databases, artifact, notes));
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
        back.map_err(|error| EngineError::Restore {
            doing: "putting the server's settings back".to_owned(),
            after: format!(
                "the databases are restored and compared; set {} as they were (they stand in {MARK}.settings), and \
                 restore again, or drop {MARK}",
                self.settings().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
            source: Box::new(error),
        })
    }

    /// What is there now is whole.
    fn end(&self) -> Result<(), EngineError> {
        self.sql(&format!("DROP DATABASE IF EXISTS {};", quoted(MARK))).map_err(|error| EngineError::Restore {
            doing: "ending the restore".to_owned(),
            after: format!("everything is restored and compared; drop the database {MARK}"),
            source: Box::new(error),
        })
    }

    /// What definitions needed when they were made is asked for no more in the session that loads them. What the server does
    /// not have, or its user may not set, is left as it is.
    fn session_for_loading(&self) -> String {
        let wanted: &[&str] = match self.engine.flavour {
            Flavour::Mysql => &[
                "sql_require_primary_key = OFF",
                "sql_generate_invisible_primary_key = OFF",
                "innodb_strict_mode = OFF",
                "restrict_fk_on_non_standard_key = OFF",
            ],
            Flavour::Mariadb => &["innodb_strict_mode = OFF"],
        };
        let possible = wanted.iter().map(|setting| format!("SET SESSION {setting};\n"));
        possible.filter(|set| self.sql(set).is_ok()).collect()
    }

    /// The settings of the server for as long as a load takes.
    fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let of_flavour: &[(&str, &str)] = match self.engine.flavour {
            Flavour::Mysql => &[],
            Flavour::Mariadb => &[("innodb_force_primary_key", "0")],
        };
        SETTINGS.iter().chain(of_flavour).copied().collect()
    }

    fn mark(&self) -> Result<(), EngineError> {
        let settings = format!("{}.settings", quoted(MARK));
        let mut sql = format!(
            "CREATE DATABASE IF NOT EXISTS {};\nCREATE TABLE IF NOT EXISTS {settings} \
             (name VARCHAR(64) PRIMARY KEY, value VARCHAR(64)) ENGINE=InnoDB;\n",
            quoted(MARK)
        );
        for (name, _) in self.settings() {
            // Of a restore that was killed the first values stay.
            sql.push_str(&format!("INSERT IGNORE INTO {settings} SELECT '{name}', @@GLOBAL.{name};\n"));
        }
        self.sql(&sql)
    }

    fn settings_now(&self) -> Result<Vec<String>, EngineError> {
        let names: Vec<String> = self.settings().iter().map(|(name, _)| format!("@@GLOBAL.{name}")).collect();
        let rows = self.engine.asked(self.server, self.session, &format!("SELECT {};", names.join(", ")))?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Sets what can be set. A user without the right restores all the same, as far as the settings go.
    fn set_for_loading(&self) -> Vec<String> {
        let now = self.settings_now().unwrap_or_default();
        let mut notes = Vec::new();
        for ((name, value), now) in self.settings().iter().zip(&now) {
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
        for ((name, _), now) in self.settings().iter().zip(&now) {
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
        (databases, settings): (&[String], &str),
        work: &Work<'_>,
        before: ByteSize,
    ) -> Result<(), EngineError> {
        // Texts of routines as they are, comments included.
        let command = self.engine.client(self.session).args(["--binary-mode", "--comments"]);
        let mut input = self.server.docker.input(&self.server.container, &command, work.cancel)?;
        let own = self.engine.flavour.own_settings();
        let mut drops = format!("{own}{settings}SET FOREIGN_KEY_CHECKS = 0;\n");
        for database in databases {
            drops.push_str(&format!("DROP DATABASE IF EXISTS {};\n", quoted(database)));
        }
        input
            .write_all(drops.as_bytes())
            .map_err(|source| EngineError::Stream { name: artifact.name.clone(), source })?;
        streams::pour(reader, taken, artifact, input, work, before).map(|_| ())
    }

    /// Counts everything as the server now has it.
    fn compare(&self, databases: &[String], artifact: &Artifact, notes: &mut Vec<String>) -> Result<(), EngineError> {
        let Some(among) = among(databases) else { return Ok(()) };
        let mut findings = self.compare_definitions(&among, artifact, notes)?;
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

    fn compare_definitions(
        &self,
        among: &str,
        artifact: &Artifact,
        notes: &mut Vec<String>,
    ) -> Result<Vec<String>, EngineError> {
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
        let count = |kind: &str| artifact.counts.get(kind).map_or(0, |count| count.value);
        let over = over(count("events"), count(ONCE), there[0]);
        if over > 0 {
            notes.push(format!("{over} of the backup's events are over by now, and the server made none of them"));
        }
        let expected = kinds.map(|(kind, _)| (kind, count(kind) - if kind == "events" { over } else { 0 }));
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
        let sql = format!("{}{sql}", self.engine.flavour.own_settings());
        let answer = self.server.docker.run(&self.server.container, &command, sql.as_bytes(), COUNTING)?;
        let text = answer.text();
        let numbers: Result<Vec<u64>, _> = text.split('\t').map(str::parse).collect();
        numbers.map_err(|error| self.engine.unreadable(error.to_string()))
    }

    /// Every grant is tried, and what each one was answered is looked at.
    fn load_grants(&self, text: &[u8], unmade: &BTreeSet<String>, notes: &mut Vec<String>) -> Result<(), EngineError> {
        let text = String::from_utf8_lossy(text);
        let statements: Vec<&str> = accounts::statements(&text).collect();
        let failed = |error| EngineError::Restore {
            doing: "restoring what the accounts may do".to_owned(),
            after: format!(
                "the databases are restored and compared, and the accounts are there; restore again. Until then nothing is backed \
                 up from this server (its mark is the database {MARK})"
            ),
            source: Box::new(error),
        };
        let mut wrong = Vec::new();
        for (at, number, said) in self.each(&statements).map_err(failed)? {
            let (statement, said) = (masked(statements[at]), masked(&said));
            let of_unmade = unmade.iter().any(|account| statements[at].contains(account.as_str()));
            match of_unmade || GRANTS_OF_NOTHING.contains(&number.as_str()) {
                true => notes.push(format!("not granted, since what it is for is not there ({said}): {statement}")),
                false => wrong.push(format!("{statement} answered {number}: {said}")),
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(failed(EngineError::Differs { what: "what the accounts may do".to_owned(), findings: wrong })),
        }
    }
}

/// How many of the events that end by themselves are missing, and nothing else is.
fn over(expected: u64, once: u64, there: u64) -> u64 {
    expected.saturating_sub(there).min(once)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_that_are_over_may_be_missing() {
        assert_eq!(over(3, 1, 2), 1);
        assert_eq!(over(3, 1, 3), 0);
        // Two are missing, and one of them ends by itself: the other is a finding.
        assert_eq!(3 - over(3, 1, 1), 2);
        assert_eq!(over(3, 0, 2), 0);
        assert_eq!(over(0, 0, 2), 0);
    }
}
