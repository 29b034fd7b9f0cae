//! MySQL and MariaDB: accounts, all chosen databases in one dump, grants, through the server's own tools.
//!
//! Consistency: all databases are of one moment, as far as their tables are InnoDB's.

mod accounts;
mod dump;
mod names;
mod restore;
mod rights;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use self::rights::Rights;
use super::inspect::Inspect;
use super::server::{self, Server};
use super::streams::{self, DumpStream, Notes, Taker};
use super::{Answer, Engine, EngineError, Ground, LONGEST_ANSWER, Proven, Restored, TakeRequest, Work, misplaced};
use crate::model::assertion::Assertion;
use crate::model::cancel::Cancel;
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::repository::Reader;
use crate::runtime::{Command, masked};
use crate::spec::file::MysqlSource;

/// Which of the two servers it is: they share a protocol and a past, and no longer their programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Mysql,
    Mariadb,
}

pub(super) struct Mysql {
    source: MysqlSource,
    ground: Ground,
    flavour: Flavour,
}

const ACCOUNTS: &str = "/accounts.sql";
const DATABASES: &str = "/databases.sql";
const GRANTS: &str = "/grants.sql";

/// The servers' own, on every server.
const SYSTEM: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// The largest that both programs and both servers take.
const LARGEST_PACKET: &str = "--max-allowed-packet=1G";

/// Every transaction of the session is one that the server lets write nothing.
const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY;\n";

/// A table that somebody has locked ends a dump with an error, rather than holding it up for a year. Where a tool can't be
/// told, it is ended for its silence.
const LOCK_WAIT: &str = "SET SESSION max_execution_time = 0, lock_wait_timeout = 300";

type Session = server::Session<String>;

/// What a server's state is asked by.
#[derive(Debug, Deserialize)]
struct Size {
    bytes: u64,
    objects: u64,
}

impl Flavour {
    fn engine(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }

    fn client(self) -> &'static str {
        self.engine()
    }

    fn dump(self) -> &'static str {
        match self {
            Self::Mysql => "mysqldump",
            Self::Mariadb => "mariadb-dump",
        }
    }

    /// What every session of devstack's own says first, whatever the server says to all: what a text means, how long a
    /// question may take, and that it may write.
    fn own_settings(self) -> &'static str {
        match self {
            Self::Mysql => "SET SESSION sql_mode = '', max_execution_time = 0;\nSET SESSION TRANSACTION READ WRITE;\n",
            Self::Mariadb => {
                "SET SESSION sql_mode = '', max_statement_time = 0;\nSET SESSION TRANSACTION READ WRITE;\n"
            }
        }
    }
}

impl Mysql {
    pub(super) fn new(source: &MysqlSource, flavour: Flavour, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone(), flavour }
    }

    fn session(&self) -> Result<Session, EngineError> {
        Session::open(
            self.source.user.clone().unwrap_or_else(|| "root".to_owned()),
            self.source.password.as_ref(),
            &self.ground,
        )
    }

    fn restorer(&self) -> Result<Session, EngineError> {
        Session::restoring(self.source.restore_as.as_ref(), &self.ground).unwrap_or_else(|| self.session())
    }

    /// One of the server's programs, told whom to connect as and where. The password goes by the environment.
    fn program(&self, session: &Session, name: &str) -> Command {
        let mut command = Command::new([name])
            .arg(format!("--user={}", session.user))
            .args(["--default-character-set=utf8mb4", LARGEST_PACKET]);
        if let Some(password) = &session.password {
            command = command.env("MYSQL_PWD", password);
        }
        let Some(tls) = &self.source.tls else {
            return command.args(["--protocol=socket", "--host=localhost"]);
        };
        command = command.args(["--protocol=tcp", "--host=127.0.0.1"]).arg(format!("--ssl-ca={}", tls.ca));
        command = command.arg(match self.flavour {
            Flavour::Mysql => "--ssl-mode=VERIFY_CA",
            Flavour::Mariadb => "--ssl-verify-server-cert",
        });
        if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
            command = command.arg(format!("--ssl-cert={cert}")).arg(format!("--ssl-key={key}"));
        }
        command
    }

    fn client(&self, session: &Session) -> Command {
        self.program(session, self.flavour.client()).args(["--batch", "--skip-column-names"])
    }

    /// The rows of an answer.
    fn asked(&self, server: &Server, session: &Session, sql: &str) -> Result<Vec<Vec<String>>, EngineError> {
        let answer = server.ask(&self.client(session), &format!("{}{sql}", self.flavour.own_settings()))?;
        Ok(names::rows(&answer.text()))
    }

    fn unreadable(&self, why: impl Into<String>) -> EngineError {
        EngineError::Answer { what: self.flavour.client().to_owned(), why: masked(&why.into()) }
    }

    fn column(&self, server: &Server, session: &Session, sql: &str) -> Result<Vec<String>, EngineError> {
        self.asked(server, session, sql)?
            .into_iter()
            .map(|row| row.into_iter().next().ok_or_else(|| self.unreadable("an empty row")))
            .collect()
    }

    /// All databases but the servers' own and the mark of a restore.
    fn all_databases(&self, server: &Server, session: &Session) -> Result<Vec<String>, EngineError> {
        let names = self.column(server, session, "SELECT schema_name FROM information_schema.schemata ORDER BY 1;")?;
        let is_own = |name: &String| SYSTEM.contains(&name.as_str()) || name == restore::MARK || is_no_database(name);
        Ok(names.into_iter().filter(|name| !is_own(name)).collect())
    }

    /// Folders in the data folder that the server shows as databases and can't read: `lost+found` of a file system.
    fn left_out(&self, server: &Server, session: &Session) -> Result<Vec<String>, EngineError> {
        let names = self.column(server, session, "SELECT schema_name FROM information_schema.schemata ORDER BY 1;")?;
        Ok(names
            .into_iter()
            .filter(|name| is_no_database(name))
            .map(|name| {
                let folder = name.trim_start_matches(NO_DATABASE).to_owned();
                format!("the folder {folder} in the data folder is no database, and is not in this run")
            })
            .collect())
    }

    /// The databases in an order in which each finds what its definitions name: a dump makes one after the other, and a
    /// default of a sequence or a view may name another's.
    fn in_order(&self, server: &Server, session: &Session, databases: Vec<String>) -> Result<Vec<String>, EngineError> {
        let Some(among) = among(&databases) else { return Ok(databases) };
        let sql = format!(
            "SELECT table_schema, view_definition FROM information_schema.views WHERE table_schema IN ({among}) \
             UNION ALL SELECT table_schema, column_default FROM information_schema.columns \
             WHERE table_schema IN ({among}) AND column_default LIKE '%nextval%';"
        );
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in self.asked(server, session, &sql)? {
            let [database, text] = row.as_slice() else { continue };
            let others = databases.iter().filter(|other| *other != database);
            let named = others.filter(|other| text.contains(&format!("{}.", names::quoted(other))));
            needs.entry(database.clone()).or_default().extend(named.cloned());
        }
        Ok(ordered(databases, &needs))
    }

    /// The chosen databases.
    fn databases(&self, server: &Server, session: &Session) -> Result<Vec<String>, EngineError> {
        let all = self.all_databases(server, session)?;
        Ok(all.into_iter().filter(|name| server::is_chosen(self.source.databases.as_ref(), name)).collect())
    }

    /// Whether the mark of a restore is there that has not ended.
    fn is_unfinished(&self, server: &Server, session: &Session) -> Result<bool, EngineError> {
        let mark = names::literal(restore::MARK);
        let sql = format!("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = {mark};");
        Ok(self.column(server, session, &sql)?.join("") != "0")
    }

    /// Half of a backup must not become the newest one.
    fn refuse_unfinished_restore(&self, server: &Server, session: &Session) -> Result<(), EngineError> {
        if !self.is_unfinished(server, session)? {
            return Ok(());
        }
        Err(EngineError::Refused {
            what: format!(
                "a restore into the container {} was not finished (its mark is the database {}): restore again; or, if what is \
                 there now is right, drop that database",
                server.container.name,
                restore::MARK
            ),
        })
    }

    fn size(&self, server: &Server, session: &Session, databases: &[String]) -> Result<Size, EngineError> {
        let Some(among) = among(databases) else { return Ok(Size { bytes: 0, objects: 0 }) };
        let fresh = match self.flavour {
            // What is kept of a table's size may be a day old, or of before the first row.
            Flavour::Mysql => "SET SESSION information_schema_stats_expiry = 0;\n",
            Flavour::Mariadb => "",
        };
        let sql = format!(
            "{fresh}SELECT CONCAT('{{\"bytes\":', COALESCE(SUM(data_length), 0), ',\"objects\":', COUNT(*) \
             + (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema IN ({among})) \
             + (SELECT COUNT(*) FROM information_schema.events WHERE event_schema IN ({among})), '}}') \
             FROM information_schema.tables WHERE table_schema IN ({among});"
        );
        let answer = self.column(server, session, &sql)?.join("");
        serde_json::from_str(&answer).map_err(|error| self.unreadable(error.to_string()))
    }

    fn state(&self, server: &Server, session: &Session) -> Result<SourceState, EngineError> {
        let databases = self.databases(server, session)?;
        let size = self.size(server, session, &databases)?;
        Ok(if self.is_unfinished(server, session)? {
            SourceState::Unfinished { bytes: Some(ByteSize(size.bytes)) }
        } else if size.objects == 0 {
            SourceState::Empty
        } else {
            SourceState::HasData { bytes: Some(ByteSize(size.bytes)) }
        })
    }

    /// Refuses a user from whom the dump tool would hide something without a word.
    fn check_rights(&self, server: &Server, session: &Session, databases: &[String]) -> Result<(), EngineError> {
        let role = self.column(server, session, "SELECT COALESCE(CURRENT_ROLE(), 'NONE');")?.join("");
        let sql = match self.flavour {
            // Without this the roles that are on are named, and not what they allow.
            Flavour::Mysql if role != "NONE" => format!("SHOW GRANTS FOR CURRENT_USER() USING {role};"),
            Flavour::Mysql | Flavour::Mariadb => "SHOW GRANTS;".to_owned(),
        };
        let grants = self.column(server, session, &sql)?;
        let all = self.source.databases.as_ref().is_none_or(|choice| choice.include.is_empty());
        let databases: Vec<&str> = databases.iter().map(String::as_str).collect();
        let missing = Rights::read(grants.iter().map(String::as_str)).missing(
            self.flavour,
            &databases,
            all,
            !self.source.without_accounts,
        );
        if missing.is_empty() {
            return Ok(());
        }
        let user = &session.user;
        let what = format!(
            "the user {user} of {} in the container {} may not see everything, and what it may not see would be missing without \
             a word: let it with GRANT {} TO the user",
            self.flavour.engine(),
            server.container.name,
            missing.join("; GRANT ")
        );
        Err(EngineError::Refused { what })
    }

    fn dump(&self, session: &Session, databases: &[String]) -> Command {
        let mut command = self.program(session, self.flavour.dump()).args([
            // One moment for all databases; rows as they are read and not held in memory.
            "--single-transaction",
            "--quick",
            "--routines",
            "--events",
            "--triggers",
            "--hex-blob",
            // Columns by name: generated and invisible ones come back right.
            "--complete-insert",
            "--no-tablespaces",
            "--tz-utc",
            // An unchanged server gives the same bytes.
            "--skip-dump-date",
            "--comments",
        ]);
        command = match self.flavour {
            // Positions of a binary log belong to the old server.
            Flavour::Mysql => command
                .args(["--set-gtid-purged=OFF", "--column-statistics"])
                // Older ones can't be told.
                .arg(format!("--loose-init-command={LOCK_WAIT}")),
            // Versions before 10.11 have no history, and say so on standard error. A table that is locked for its rows can't read
            // the sequence of its default.
            Flavour::Mariadb => {
                command.args(["--loose-dump-history", "--loose-max-statement-time=0", "--skip-add-locks"])
            }
        };
        command.args(["--databases", "--"]).args(databases)
    }

    /// The two texts, gathered at once: they are small, and are asked for by many questions.
    fn accounts(&self, server: &Server, session: &Session) -> Result<accounts::Texts, EngineError> {
        let listed = accounts::listed(&self.asked(server, session, accounts::which(self.flavour))?);
        let question = accounts::what_they_are(self.flavour, &listed);
        let own = self.column(server, session, "SELECT CURRENT_USER();")?.join("");
        let question = format!("{}{question}", self.flavour.own_settings());
        let told = server.ask(&self.client(session).arg("--force"), &question)?.text();
        accounts::texts(self.flavour, &listed, &names::rows(&told), &own)
    }

    fn streams(
        &self,
        server: &Server,
        session: &Session,
        databases: &[String],
        cancel: &Cancel,
        notes: &Notes,
    ) -> Result<Vec<DumpStream>, EngineError> {
        let mut streams = Vec::new();
        let mut add = |name: &str, open, inspect| streams.push(DumpStream { name: name.to_owned(), open, inspect });
        if !self.source.without_accounts {
            let texts = self.accounts(server, session)?;
            add(ACCOUNTS, streams::from_bytes(texts.accounts.into_bytes()), accounts::inspect_accounts as Inspect);
            add(GRANTS, streams::from_bytes(texts.grants.into_bytes()), accounts::inspect_grants);
        }
        if !databases.is_empty() {
            let dump = self.dump(session, databases);
            let open = streams::from_dump_tool(&server.docker, &server.container, dump, cancel, notes);
            add(DATABASES, open, dump::inspect);
        }
        Ok(streams)
    }
}

/// Names as a list of constants; None for none, which SQL has no list for.
fn among(databases: &[String]) -> Option<String> {
    let names: Vec<String> = databases.iter().map(|name| names::literal(name)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// How the servers name a folder whose name is none of a database.
const NO_DATABASE: &str = "#mysql50#";

fn is_no_database(name: &str) -> bool {
    name.starts_with(NO_DATABASE)
}

/// Each after those that it needs. Where two need each other, in the order of their names: nothing else can be done.
fn ordered(databases: Vec<String>, needs: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let (mut waiting, mut done) = (databases, Vec::new());
    while !waiting.is_empty() {
        let is_ready =
            |name: &String| needs.get(name).is_none_or(|needs| needs.iter().all(|other| !waiting.contains(other)));
        let next = waiting.iter().position(is_ready).unwrap_or(0);
        done.push(waiting.remove(next));
    }
    done
}

/// What an artifact is, by its name.
fn inspector(name: &str) -> Option<Inspect> {
    match name {
        ACCOUNTS => Some(accounts::inspect_accounts),
        DATABASES => Some(dump::inspect),
        GRANTS => Some(accounts::inspect_grants),
        _ => None,
    }
}

impl Engine for Mysql {
    /// Gone: there is no such container. Empty: no chosen database holds a table, a view, a routine or an event. Accounts
    /// alone are no data.
    fn observe(&self) -> Observed<SourceState> {
        server::observe(&self.ground, &self.source.container, |server| {
            let seen = self.session().and_then(|session| self.state(server, &session));
            server::or_seen_by_the_restorer(seen, self.source.restore_as.is_some(), || {
                self.state(server, &self.restorer()?)
            })
        })
    }

    /// The image's first server, which makes the accounts, answers on its socket alone.
    fn is_being_set_up(&self) -> bool {
        let asked = || -> Result<bool, EngineError> {
            let server = Server::find(&self.ground, &self.source.container)?;
            let sql = "SELECT @@GLOBAL.skip_networking;";
            let said = self.column(&server, &self.session()?, sql);
            Ok(said.or_else(|_| self.column(&server, &self.restorer()?, sql))?.join("") == "1")
        };
        asked().unwrap_or(false)
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.session()?;
        self.refuse_unfinished_restore(&server, &session)?;
        let databases = self.databases(&server, &session)?;
        let databases = self.in_order(&server, &session, databases)?;
        let notes = Notes::default();
        notes.add(self.left_out(&server, &session)?);
        self.check_rights(&server, &session, &databases)?;
        if !request.allow_empty && self.size(&server, &session, &databases)?.objects == 0 {
            return Err(EngineError::Bare { engine: self.flavour.engine(), container: server.container.name });
        }
        let version = server.ask(&Command::new([self.flavour.dump(), "--version"]), "")?.text();
        let image = Some(server.container.image_digest.clone());
        let taker = Taker { engine: self.flavour.engine(), version, image };
        let streams = self.streams(&server, &session, &databases, work.cancel, &notes)?;
        streams::take_noting(request, work, taker, streams, &notes)
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        streams::prove(reader, taken, work, inspector)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        match target {
            RestoreTarget::Beside { folder } => streams::restore_beside(reader, taken, folder, work),
            RestoreTarget::InPlace | RestoreTarget::Missing => self.restore_in_place(reader, taken, work),
        }
    }

    fn answer(&self, assertion: &Assertion) -> Result<Answer, EngineError> {
        let asked = match (assertion, self.flavour) {
            (Assertion::Mysql(asked), Flavour::Mysql) | (Assertion::Mariadb(asked), Flavour::Mariadb) => asked,
            _ => return Err(misplaced(assertion)),
        };
        let server = Server::find(&self.ground, &self.source.container)?;
        let command = self.client(&self.session()?).arg(format!("--database={}", asked.database));
        // The client sends the last statement whether or not it ends with a semicolon.
        let sql = format!("{READ_ONLY}{}\n", asked.query);
        let answer = server.docker.run(&server.container, &command, sql.as_bytes(), LONGEST_ANSWER)?;
        Ok(Answer::of_value(&answer.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_comes_after_those_that_its_definitions_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let needs = |pairs: &[(&str, &[&str])]| {
            pairs.iter().map(|(name, others)| ((*name).to_owned(), names(others).into_iter().collect())).collect()
        };
        let all = || names(&["a", "b", "z"]);
        assert_eq!(ordered(all(), &needs(&[])), ["a", "b", "z"]);
        assert_eq!(ordered(all(), &needs(&[("a", &["z"])])), ["b", "z", "a"]);
        assert_eq!(ordered(all(), &needs(&[("a", &["b"]), ("b", &["z"])])), ["z", "b", "a"]);
        // Of a circle every name is there, once.
        assert_eq!(ordered(all(), &needs(&[("a", &["z"]), ("z", &["a"])])), ["b", "a", "z"]);
        assert_eq!(ordered(all(), &needs(&[("a", &["not chosen"])])), ["a", "b", "z"]);
    }

    #[test]
    fn a_folder_that_is_no_database_is_known_by_its_name() {
        assert!(is_no_database("#mysql50#lost+found") && is_no_database("#mysql50#.snapshots"));
        assert!(!is_no_database("lost") && !is_no_database("#mysql"));
    }
}
