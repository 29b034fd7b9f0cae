//! MongoDB: an archive of each database, through `mongodump` and `mongorestore` in the server's container.
//!
//! Consistency: per collection, and no snapshot. Each document is as it was at some moment of the dump; what is written
//! meanwhile may be in it or not, and collections are of different moments. `mongodump --oplog` would make one moment of
//! it on a replica set; it is left out, since it takes a whole server or nothing, its restore can load neither chosen
//! databases nor beside the old data, and nothing here could try it.

mod archive;
mod bson;
mod crc64;
mod restore;
mod shell;

use self::shell::Database;
use super::inspect::Inspect;
use super::server::{self, Server};
use super::streams::{self, DumpStream, Taker};
use super::{Answer, Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work, misplaced};
use crate::model::assertion::Assertion;
use crate::model::cancel::Cancel;
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::repository::Reader;
use crate::runtime::Command;
use crate::spec::file::MongodbSource;

pub(super) struct Mongodb {
    source: MongodbSource,
    ground: Ground,
}

const ENGINE: &str = "mongodb";
const DATABASES: &str = "/databases/";
const ARCHIVE: &str = ".archive";

/// The database of users and roles. It comes along unless it is excluded by its name, and is nobody's data.
const ADMIN: &str = "admin";

/// Runs a tool with its password on a descriptor of its own: a pipe, so that it never is on a disk. `printf` is the
/// shell's own and has no argument list; the tool's input is what it would have been.
const WITH_PASSWORD: &str = "exec 4<&0; printf '%s\\n' \"$DEVSTACK_CONFIG\" | \
     { unset DEVSTACK_CONFIG; exec \"$@\" --config=/dev/fd/3 3<&0 <&4 4<&-; }";

type Session = server::Session<Option<String>>;

impl Mongodb {
    pub(super) fn new(source: &MongodbSource, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone() }
    }

    fn session(&self) -> Result<Session, EngineError> {
        Session::open(self.source.user.clone(), self.source.password.as_ref(), &self.ground)
    }

    fn restorer(&self) -> Result<Session, EngineError> {
        Session::restoring(self.source.restore_as.as_ref(), &self.ground).unwrap_or_else(|| self.session())
    }

    fn auth_database(&self) -> &str {
        self.source.auth_database.as_deref().unwrap_or(ADMIN)
    }

    /// `mongodump` or `mongorestore`, told whom to connect as.
    fn tool(&self, session: &Session, name: &str) -> Command {
        let mut command = match &session.password {
            // Its first word is what messages call it.
            Some(password) => Command::script(&format!("# {name}\n{WITH_PASSWORD}"), [name])
                .env("DEVSTACK_CONFIG", &shell::config(password)),
            None => Command::new([name]),
        };
        if let Some(user) = &session.user {
            command = command
                .arg(format!("--username={user}"))
                .arg(format!("--authenticationDatabase={}", self.auth_database()));
        }
        if let Some(tls) = &self.source.tls {
            command = command.args(["--ssl", "--sslAllowInvalidHostnames"]).arg(format!("--sslCAFile={}", tls.ca));
            command = command.args(tls.cert.iter().map(|cert| format!("--sslPEMKeyFile={cert}")));
        }
        command.arg("--archive")
    }

    /// Whether a database is taken: `admin` unless it is excluded, the others as they are chosen.
    fn is_taken(&self, database: &Database) -> bool {
        let choice = self.source.databases.as_ref();
        if database.name == ADMIN {
            let without = choice.map(|choice| crate::spec::file::Choice { include: Vec::new(), ..choice.clone() });
            return server::is_chosen(without.as_ref(), ADMIN);
        }
        !database.collections.is_empty() && server::is_chosen(choice, &database.name)
    }

    /// The databases to take. What a restore that was cut off has left behind is told from data.
    fn databases(&self, server: &Server, session: &Session) -> Result<Vec<Database>, EngineError> {
        let mut all = self.look(server, session)?;
        all.retain(|database| self.is_taken(database));
        Ok(all)
    }

    fn state(databases: &[Database]) -> SourceState {
        let data = || databases.iter().filter(|database| database.name != ADMIN);
        match data().next() {
            None => SourceState::Empty,
            Some(_) => SourceState::HasData { bytes: Some(data().map(|database| ByteSize(database.bytes)).sum()) },
        }
    }

    fn streams(&self, server: &Server, session: &Session, databases: &[Database], cancel: &Cancel) -> Vec<DumpStream> {
        let stream = |database: &Database| {
            let left_behind = database.collections.iter().filter(|name| restore::is_left_behind(name));
            let command = self
                .tool(session, "mongodump")
                .arg(format!("--db={}", database.name))
                // One collection after the other: the same data makes the same bytes, of which the repository keeps one.
                .arg("--numParallelCollections=1")
                .args(left_behind.map(|name| format!("--excludeCollection={name}")));
            DumpStream {
                name: format!("{DATABASES}{}{ARCHIVE}", server::file_name(&database.name)),
                open: streams::from_program(&server.docker, &server.container, command, cancel),
                inspect: inspector_of(&database.name),
            }
        };
        databases.iter().map(stream).collect()
    }
}

fn inspector_of(database: &str) -> Inspect {
    if database == ADMIN { archive::inspect_users } else { archive::inspect }
}

/// What an artifact is, by its name.
fn inspector(name: &str) -> Option<Inspect> {
    database_of(name).map(|database| inspector_of(&database))
}

/// The database that an artifact is the archive of.
fn database_of(artifact: &str) -> Option<String> {
    Some(server::database_name(artifact.strip_prefix(DATABASES)?.strip_suffix(ARCHIVE)?))
}

impl Engine for Mongodb {
    /// Gone: there is no such container. Empty: no chosen database but `admin`, `config` and `local` holds a collection.
    /// A new server knows only the login that restores: it is asked where the other one is refused.
    fn observe(&self) -> Observed<SourceState> {
        server::observe(&self.ground, &self.source.container, |server| {
            let databases = match (self.databases(server, &self.session()?), &self.source.restore_as) {
                (Err(_), Some(_)) => self.databases(server, &self.restorer()?)?,
                (databases, _) => databases?,
            };
            Ok(Self::state(&databases))
        })
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.session()?;
        let databases = self.databases(&server, &session)?;
        if databases.is_empty() || !request.allow_empty && Self::state(&databases) == SourceState::Empty {
            return Err(EngineError::Bare { engine: ENGINE, container: server.container.name });
        }
        for database in &databases {
            restore::must_not_be_half_restored(database, &server)?;
        }
        let version = server.ask(&Command::new(["mongodump", "--version"]), "")?.text();
        let version = version.lines().next().unwrap_or_default().to_owned();
        let taker = Taker { engine: ENGINE, version, image: Some(server.container.image_digest.clone()) };
        streams::take(request, work, taker, self.streams(&server, &session, &databases, work.cancel))
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
        let Assertion::Mongodb(asked) = assertion else { return Err(misplaced(assertion)) };
        let server = Server::find(&self.ground, &self.source.container)?;
        let value: String = self.evaluated(&server, &self.session()?, &asked.database, &asked.eval)?;
        Ok(Answer::of_value(&value))
    }
}
