//! PostgreSQL: roles and tablespaces, then every database in the custom format, through the server's own tools.
//!
//! Consistency: each database is one snapshot; two databases are of two moments.

mod archive;
mod globals;
mod restore;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::inspect::Inspect;
use super::server::{self, Server};
use super::streams::{self, DumpStream, Taker};
use super::{Answer, Engine, EngineError, Ground, LONGEST_ANSWER, Proven, Restored, TakeRequest, Work, misplaced};
use crate::model::assertion::Assertion;
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::shrink::Present;
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::repository::Reader;
use crate::runtime::Command;
use crate::spec::file::PostgresSource;

pub(super) struct Postgres {
    source: PostgresSource,
    ground: Ground,
}

const ENGINE: &str = "postgres";
const GLOBALS: &str = "/globals.sql";
const DATABASES: &str = "/databases/";
const DUMP: &str = ".dump";

/// Where questions about the whole server are asked: there in every cluster, and never restored over.
const MAINTENANCE: &str = "template1";

/// A table that somebody has locked for good must end a dump, not hold it up for a day.
const LOCK_WAIT: &str = "--lock-wait-timeout=300s";

/// Every transaction of the session is one that the server lets write nothing.
const READ_ONLY: &str = "-c default_transaction_read_only=on";

/// Everything of a database that rows may lie in.
const TABLES: &str = "SELECT coalesce(json_agg(json_build_array(n.nspname, c.relname)), '[]') FROM pg_catalog.pg_class c \
                      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'm');";

type Session = server::Session<String>;

#[derive(Debug, Deserialize)]
struct Database {
    name: String,
    bytes: u64,
}

impl Postgres {
    pub(super) fn new(source: &PostgresSource, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone() }
    }

    fn session(&self) -> Result<Session, EngineError> {
        Session::open(
            self.source.user.clone().unwrap_or_else(|| "postgres".to_owned()),
            self.source.password.as_ref(),
            &self.ground,
        )
    }

    fn restorer(&self) -> Result<Session, EngineError> {
        Session::restoring(self.source.restore_as.as_ref(), &self.ground).unwrap_or_else(|| self.session())
    }

    /// One of the server's programs, told by its environment whom to connect as and where.
    fn program(&self, session: &Session, database: &str, name: &str) -> Command {
        let mut command = Command::new([name])
            .env("PGUSER", &session.user)
            .env("PGDATABASE", database)
            .env("PGAPPNAME", "devstack")
            .env("PGCLIENTENCODING", "UTF8");
        if let Some(password) = &session.password {
            command = command.env("PGPASSWORD", password);
        }
        if let Some(tls) = &self.source.tls {
            command = command.env("PGHOST", "localhost").env("PGSSLMODE", "verify-ca").env("PGSSLROOTCERT", &tls.ca);
            if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
                command = command.env("PGSSLCERT", cert).env("PGSSLKEY", key);
            }
        }
        // Asking for a password would wait for a person.
        command.arg("--no-password")
    }

    fn psql(&self, session: &Session, database: &str) -> Command {
        self.program(session, database, "psql").args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ])
    }

    /// The answer to a question that is one JSON value.
    fn asked<T: serde::de::DeserializeOwned>(
        &self,
        server: &Server,
        session: &Session,
        database: &str,
        sql: &str,
    ) -> Result<T, EngineError> {
        let answer = server.ask(&self.psql(session, database), sql)?;
        serde_json::from_str(&answer.text())
            .map_err(|error| EngineError::Answer { what: "psql".to_owned(), why: error.to_string() })
    }

    /// The chosen databases that accept connections, the largest first.
    fn databases(&self, server: &Server, session: &Session) -> Result<Vec<Database>, EngineError> {
        let all: Vec<Database> = self.asked(
            server,
            session,
            MAINTENANCE,
            "SELECT coalesce(json_agg(d ORDER BY bytes DESC, name), '[]') FROM (\
             SELECT datname AS name, pg_catalog.pg_database_size(oid) AS bytes FROM pg_catalog.pg_database \
             WHERE datallowconn AND NOT datistemplate) d;",
        )?;
        Ok(all
            .into_iter()
            .filter(|database| {
                // What a restore moved aside is no data of anybody's.
                server::is_chosen(self.source.databases.as_ref(), &database.name) && !restore::is_aside(&database.name)
            })
            .collect())
    }

    /// Whether anything but the system's own is in a database.
    fn has_data(&self, server: &Server, session: &Session, database: &str) -> Result<bool, EngineError> {
        self.asked(
            server,
            session,
            database,
            "SELECT to_json(EXISTS (SELECT FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)') \
             OR EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata));",
        )
    }

    fn state(&self, server: &Server) -> Result<SourceState, EngineError> {
        let session = self.session()?;
        let databases = self.databases(server, &session)?;
        for database in &databases {
            if self.has_data(server, &session, &database.name)? {
                let bytes = databases.iter().map(|database| ByteSize(database.bytes)).sum();
                return Ok(SourceState::HasData { bytes: Some(bytes) });
            }
        }
        Ok(SourceState::Empty)
    }

    /// In one session, that goes from database to database.
    fn named(&self, server: &Server) -> Result<Present, EngineError> {
        let session = self.session()?;
        let databases = self.databases(server, &session)?;
        let mut script = String::new();
        for database in &databases {
            script += &format!("\\connect {}\n{TABLES}\n", globals::quoted(&database.name));
        }
        let answer = server.ask(&self.psql(&session, MAINTENANCE), &script)?;
        let text = answer.text();
        let told = serde_json::Deserializer::from_str(&text).into_iter::<Vec<(String, String)>>();
        let told: Vec<Vec<(String, String)>> = told
            .collect::<Result<_, _>>()
            .map_err(|error| EngineError::Answer { what: "psql".to_owned(), why: error.to_string() })?;
        let mut present = Present::default();
        for (database, tables) in databases.iter().zip(told) {
            let database = server::file_name(&database.name);
            present.databases.insert(database.clone());
            let tables = tables.iter().map(|(schema, table)| archive::table(schema, table));
            present.tables.extend(tables.map(|table| (Some(database.clone()), table)));
        }
        Ok(present)
    }

    fn streams(&self, server: &Server, session: &Session, databases: &[Database]) -> Vec<DumpStream> {
        let open = |command| streams::from_program(&server.docker, &server.container, command);
        let mut roles = self.program(session, MAINTENANCE, "pg_dumpall").args(["--globals-only", LOCK_WAIT]);
        if self.source.without_role_passwords {
            roles = roles.arg("--no-role-passwords");
        }
        let mut all = vec![DumpStream { name: GLOBALS.to_owned(), open: open(roles), inspect: globals::inspect }];
        for database in databases {
            let dump =
                self.program(session, &database.name, "pg_dump").args(["--format=custom", "--compress=0", LOCK_WAIT]);
            let name = format!("{DATABASES}{}{DUMP}", server::file_name(&database.name));
            all.push(DumpStream { name, open: open(dump), inspect: archive::inspect });
        }
        all
    }
}

/// What an artifact is, by its name.
fn inspector(name: &str) -> Option<Inspect> {
    if name == GLOBALS {
        return Some(globals::inspect);
    }
    database_of(name).map(|_| archive::inspect as Inspect)
}

/// The database that an artifact is the dump of.
fn database_of(artifact: &str) -> Option<String> {
    Some(server::database_name(artifact.strip_prefix(DATABASES)?.strip_suffix(DUMP)?))
}

impl Engine for Postgres {
    /// Gone: there is no such container. Empty: no chosen database holds a table, a view, a sequence or a large object.
    fn observe(&self) -> Observed<SourceState> {
        server::observe(&self.ground, &self.source.container, |server| self.state(server))
    }

    fn holding(&self) -> Option<Present> {
        let server = Server::find(&self.ground, &self.source.container).ok()?;
        self.named(&server).ok()
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.session()?;
        if !request.allow_empty && self.state(&server)? == SourceState::Empty {
            return Err(EngineError::Bare { engine: ENGINE, container: server.container.name });
        }
        let databases = self.databases(&server, &session)?;
        let version = server.ask(&Command::new(["pg_dump", "--version"]), "")?.text();
        let taker = Taker { engine: ENGINE, version, image: Some(server.container.image_digest.clone()) };
        streams::take(request, work, taker, self.streams(&server, &session, &databases))
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
        let Assertion::Postgres(asked) = assertion else { return Err(misplaced(assertion)) };
        let server = Server::find(&self.ground, &self.source.container)?;
        let command = self.psql(&self.session()?, &asked.database).env("PGOPTIONS", READ_ONLY);
        let answer = server.docker.run(&server.container, &command, asked.query.as_bytes(), LONGEST_ANSWER)?;
        Ok(Answer::of_value(&answer.text()))
    }
}

/// Counts of rows by table, as [`archive::inspect`] names them.
fn rows(counts: &BTreeMap<String, crate::model::run::Count>) -> impl Iterator<Item = (&str, u64)> {
    counts
        .iter()
        .filter(|(_, count)| count.exact)
        .filter_map(|(name, count)| Some((name.strip_prefix("rows ")?, count.value)))
}
