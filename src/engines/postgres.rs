//! PostgreSQL: roles and tablespaces, then every database in the custom format, through the server's own tools.
//!
//! Consistency: each database is one snapshot; two databases are of two moments.

mod archive;
mod globals;
mod restore;
mod unfinished;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::inspect::Inspect;
use super::server::{self, Server};
use super::streams::{self, DumpStream, Notes, Taker};
use super::{Answer, Engine, EngineError, Ground, LONGEST_ANSWER, Proven, Restored, TakeRequest, Work, misplaced};
use crate::model::assertion::Assertion;
use crate::model::cancel::Cancel;
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

/// What devstack's own sessions say of themselves, whatever the server, a database or a role says to all: neither a look nor a
/// load nor a count is to end, or to be different, by a limit that was meant for applications.
const OWN_SETTINGS: &str = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
                            -c default_transaction_read_only=off";

/// For questions that name everything in full.
const NO_PATH: &str = "-c search_path=pg_catalog";

/// Versions 17 and later: a trigger on logins that writes a row would make every restore differ by devstack's own.
const WITHOUT_EVENT_TRIGGERS: &str = "-c event_triggers=off";

/// Limits that only newer versions have, and that can't be named to older ones.
const NEWER_LIMITS: &str = "SELECT max(pg_catalog.set_config(name, '0', false)) AS own FROM pg_catalog.pg_settings \
                            WHERE name IN ('transaction_timeout', 'idle_session_timeout') \\gset devstack_\n";

/// A body that is text, with a `FROM` or `JOIN` before a name without a dot, of a function with no path of its own, on which a CHECK, an
/// index or a generated column depends.
const NEED_A_PATH: &str = r#"SELECT coalesce(json_agg(DISTINCT p.oid::regprocedure::text), '[]') FROM pg_proc p
    JOIN pg_language l ON l.oid = p.prolang AND l.lanname IN ('sql', 'plpgsql')
    JOIN pg_depend d ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
    WHERE NOT coalesce(array_to_string(p.proconfig, ' '), '') LIKE '%search_path=%'
    AND p.prosrc ~* '\m(from|join)\s+(only\s+)?("[^"]+"|[a-z_][a-z0-9_$]*)(\s*$|\s*[;,)]|\s+[^.\s(])'
    AND (EXISTS (SELECT FROM pg_constraint c WHERE d.classid = 'pg_constraint'::regclass AND c.oid = d.objid AND c.contype = 'c')
        OR EXISTS (SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('i', 'I'))
        OR EXISTS (SELECT FROM pg_attrdef a JOIN pg_attribute t ON t.attrelid = a.adrelid AND t.attnum = a.adnum
            WHERE d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid AND t.attgenerated <> ''));"#;

/// A login, and the settings of its sessions.
struct Session {
    login: server::Session<String>,
    settings: String,
}

impl Session {
    fn of(login: server::Session<String>) -> Self {
        Self { login, settings: OWN_SETTINGS.to_owned() }
    }
}

#[derive(Debug, Deserialize)]
struct Database {
    name: String,
    bytes: u64,
    encoding: String,
}

/// Databases that can't be taken.
#[derive(Debug, Deserialize)]
struct Closed {
    name: String,
    /// Its DROP was interrupted: nobody can ever read it again.
    broken: bool,
}

impl Postgres {
    pub(super) fn new(source: &PostgresSource, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone() }
    }

    fn session(&self) -> Result<Session, EngineError> {
        let user = self.source.user.clone().unwrap_or_else(|| "postgres".to_owned());
        server::Session::open(user, self.source.password.as_ref(), &self.ground).map(Session::of)
    }

    fn restorer(&self) -> Result<Session, EngineError> {
        match server::Session::restoring(self.source.restore_as.as_ref(), &self.ground) {
            Some(login) => login.map(Session::of),
            None => self.session(),
        }
    }

    /// As [`Self::restorer`], without the triggers that fire at its own logins and definitions, where it may say so.
    fn restoring(&self, server: &Server) -> Result<Session, EngineError> {
        let mut session = self.restorer()?;
        let may: bool = self.asked(
            server,
            &session,
            MAINTENANCE,
            "SELECT to_json(current_setting('server_version_num')::int >= 170000 AND rolsuper) FROM pg_catalog.pg_roles \
             WHERE rolname = current_user;",
        )?;
        if may {
            session.settings = format!("{} {WITHOUT_EVENT_TRIGGERS}", session.settings);
        }
        Ok(session)
    }

    /// One of the server's programs, told by its environment whom to connect as and where.
    fn program(&self, session: &Session, database: &str, name: &str) -> Command {
        let mut command = Command::new([name])
            .env("PGUSER", &session.login.user)
            .env("PGDATABASE", database)
            .env("PGAPPNAME", "devstack")
            .env("PGCLIENTENCODING", "UTF8")
            .env("PGOPTIONS", &session.settings);
        if let Some(password) = &session.login.password {
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
        // What it asks names everything in full.
        let settings = format!("{} {NO_PATH}", session.settings);
        let answer = server.ask(&self.psql(session, database).env("PGOPTIONS", &settings), sql)?;
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
             SELECT datname AS name, pg_catalog.pg_database_size(oid) AS bytes, \
             pg_catalog.pg_encoding_to_char(encoding) AS encoding FROM pg_catalog.pg_database \
             WHERE datallowconn AND datconnlimit <> -2 AND NOT datistemplate) d;",
        )?;
        Ok(all
            .into_iter()
            .filter(|database| server::is_chosen(self.source.databases.as_ref(), &database.name))
            .collect())
    }

    /// Why chosen databases are not among them.
    fn left_out(&self, server: &Server, session: &Session) -> Result<Vec<String>, EngineError> {
        let closed: Vec<Closed> = self.asked(
            server,
            session,
            MAINTENANCE,
            "SELECT coalesce(json_agg(d ORDER BY name), '[]') FROM (\
             SELECT datname AS name, datconnlimit = -2 AS broken FROM pg_catalog.pg_database \
             WHERE (NOT datallowconn OR datconnlimit = -2) AND NOT datistemplate) d;",
        )?;
        let chosen = closed.into_iter().filter(|it| server::is_chosen(self.source.databases.as_ref(), &it.name));
        Ok(chosen
            .map(|Closed { name, broken }| match broken {
                true => format!("the database {name} is not in this run: dropping it was interrupted, and nobody can read it any more; drop it"),
                false => format!(
                    "the database {name} is not in this run: it accepts no connections; let it, or name it in `databases: {{ exclude }}`"
                ),
            })
            .collect())
    }

    /// What the user may not see, and what the tools leave out without a word.
    fn unseen(&self, server: &Server, session: &Session, database: &str) -> Result<Vec<String>, EngineError> {
        let hidden: u64 = self.asked(
            server,
            session,
            database,
            "SELECT to_json(count(*)) FROM pg_catalog.pg_user_mappings WHERE umoptions IS NULL \
             AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);",
        )?;
        let mut notes = self.that_need_a_path(server, session, database)?;
        notes.extend(match hidden {
            0 => Vec::new(),
            count => vec![format!(
                "the options of {count} user mappings of {database}, which may hold passwords, are not in this run: only a superuser sees them"
            )],
        });
        Ok(notes)
    }

    /// Functions by which rows are checked or computed, and which name a table without its schema: a restore loads the rows
    /// with an empty path, and they fail there.
    fn that_need_a_path(&self, server: &Server, session: &Session, database: &str) -> Result<Vec<String>, EngineError> {
        let functions: Vec<String> = self.asked(server, session, database, NEED_A_PATH)?;
        Ok(functions
            .into_iter()
            .map(|function| {
                format!(
                    "a restore of {database} will fail at rows that are checked or computed by {function}: it names a table without its \
                     schema, and PostgreSQL restores with an empty path; ALTER FUNCTION {function} SET search_path = …"
                )
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

    fn state(&self, server: &Server, session: &Session) -> Result<SourceState, EngineError> {
        let databases = self.databases(server, session)?;
        let bytes = Some(databases.iter().map(|database| ByteSize(database.bytes)).sum());
        if self.unfinished(server, session)?.is_there() {
            return Ok(SourceState::Unfinished { bytes });
        }
        for database in &databases {
            if self.has_data(server, session, &database.name)? {
                return Ok(SourceState::HasData { bytes });
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

    fn streams(
        &self,
        server: &Server,
        session: &Session,
        databases: &[Database],
        cancel: &Cancel,
        notes: &Notes,
    ) -> Vec<DumpStream> {
        let open = |command| streams::from_dump_tool(&server.docker, &server.container, command, cancel, notes);
        let mut roles = self.program(session, MAINTENANCE, "pg_dumpall").args(["--globals-only", LOCK_WAIT]);
        if self.source.without_role_passwords {
            roles = roles.arg("--no-role-passwords");
        }
        let mut all = vec![DumpStream { name: GLOBALS.to_owned(), open: open(roles), inspect: globals::inspect }];
        for database in databases {
            let mut dump =
                self.program(session, &database.name, "pg_dump").args(["--format=custom", "--compress=0", LOCK_WAIT]);
            if database.encoding == "SQL_ASCII" {
                // It holds bytes of any encoding, and comes back as it is.
                dump = dump.arg("--encoding=SQL_ASCII");
            }
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
        server::observe(&self.ground, &self.source.container, |server| {
            let seen = self.session().and_then(|session| self.state(server, &session));
            server::or_seen_by_the_restorer(seen, self.source.restore_as.is_some(), || {
                self.state(server, &self.restorer()?)
            })
        })
    }

    /// The image's first server, which sets the cluster up, answers on its socket alone.
    fn is_being_set_up(&self) -> bool {
        let asked = || -> Result<bool, EngineError> {
            let server = Server::find(&self.ground, &self.source.container)?;
            let sql = "SELECT to_json(current_setting('listen_addresses') = '');";
            let session = self.session()?;
            self.asked(&server, &session, MAINTENANCE, sql)
                .or_else(|_| self.asked(&server, &self.restorer()?, MAINTENANCE, sql))
        };
        asked().unwrap_or(false)
    }

    fn holding(&self) -> Option<Present> {
        let server = Server::find(&self.ground, &self.source.container).ok()?;
        self.named(&server).ok()
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.session()?;
        self.refuse_unfinished_restore(&server, &session)?;
        if !request.allow_empty && self.state(&server, &session)? == SourceState::Empty {
            return Err(EngineError::Bare { engine: ENGINE, container: server.container.name });
        }
        let databases = self.databases(&server, &session)?;
        let notes = Notes::default();
        notes.add(self.left_out(&server, &session)?);
        for database in &databases {
            notes.add(self.unseen(&server, &session, &database.name)?);
        }
        let version = server.ask(&Command::new(["pg_dump", "--version"]), "")?.text();
        let taker = Taker { engine: ENGINE, version, image: Some(server.container.image_digest.clone()) };
        let streams = self.streams(&server, &session, &databases, work.cancel, &notes);
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
        let Assertion::Postgres(asked) = assertion else { return Err(misplaced(assertion)) };
        let server = Server::find(&self.ground, &self.source.container)?;
        let mut session = self.session()?;
        session.settings = format!("{} {READ_ONLY}", session.settings);
        let command = self.psql(&session, &asked.database);
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
