//! One file per kind of data: how it is taken out, proven and put back.
//!
//! A new engine is one file here, one variant in `spec::file::Source`, one arm in [`for_source`], one page in
//! `docs/engines/`, one service in the test stack, and nothing else.

mod certificates;
mod error;
mod files;
mod files_walk;
mod ground;
mod inspect;
mod meta;
mod mongodb;
mod mysql;
mod postgres;
mod rabbitmq;
mod redis;
mod safety;
mod server;
mod sqlite;
mod streams;
mod vault;
mod volume;
mod workroom;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use error::EngineError;
pub use files::{gone_paths, idle_excludes, missing, out_of_place, own_left_out};
pub use ground::{Ground, KeyFiles, VaultRestore};
pub use safety::{ENGINE as SAFETY, clear, of_taken, safety_of};
pub use workroom::{Workroom, Workrooms};

use crate::model::assertion::{Assertion, is_true, short};
use crate::model::cancel::Cancel;
use crate::model::certificate::Certificate;
use crate::model::ids::SnapshotId;
use crate::model::observation::{Observed, SourceState};
use crate::model::run::{Artifact, Taken};
use crate::model::shrink::Present;
use crate::model::step::RestoreTarget;
use crate::model::units::{ByteSize, Span};
use crate::repository::{Reader, Store, Tags};
use crate::spec::file::{CertificatesSource, Source};

/// What a long act needs from whoever started it: a word to stop, somebody to tell how far it is, a private folder.
pub struct Work<'a> {
    pub cancel: &'a Cancel,
    /// Told the plain bytes handled so far.
    pub progress: &'a (dyn Fn(ByteSize) + Sync),
    pub rooms: &'a Workrooms,
}

/// What to take, into where.
pub struct TakeRequest<'a> {
    pub store: &'a Store,
    pub tags: Tags,
    pub at: Timestamp,
    /// The service's snapshot in the parent run.
    pub parent: Option<SnapshotId>,
    /// Somebody has approved that the source is empty now.
    pub allow_empty: bool,
}

/// What reading an artifact back has shown. Empty lists mean that the level passed.
#[must_use = "findings are the only word of damage"]
#[derive(Debug, Default)]
pub struct Proven {
    /// Digests or sizes that differ from the manifest's.
    pub artifacts: Vec<String>,
    /// What the engine found in the content itself.
    pub content: Vec<String>,
    /// What could not be checked, and is no damage.
    pub notes: Vec<String>,
    pub read: ByteSize,
}

/// What a restore has put back.
#[must_use]
#[derive(Debug)]
pub struct Restored {
    /// Where it is now: a path, or a container.
    pub to: String,
    pub bytes: ByteSize,
    /// What the person should know, such as ownership that could not be set.
    pub notes: Vec<String>,
}

/// What came of an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub holds: bool,
    /// For the person who has to look: what came, behind `it answered`.
    pub came: String,
}

impl Answer {
    /// Of a client that prints one value.
    fn of_value(value: &str) -> Self {
        let came = if value.trim().is_empty() { "nothing".to_owned() } else { format!("`{}`", short(value)) };
        Self { holds: is_true(value), came }
    }
}

/// A query that counts reads a large table from its beginning to its end.
const LONGEST_ANSWER: std::time::Duration = std::time::Duration::from_secs(3600);

/// A kind of data.
pub trait Engine: Send + Sync {
    /// The state of the source. *Gone* and *empty* are defined by each engine and said only on positive evidence.
    fn observe(&self) -> Observed<SourceState>;

    /// What lies in it by name, where that is known in a moment and without counting: a look tells what is gone, and does not wait
    /// for the next run. None where nobody can say.
    fn holding(&self) -> Option<Present> {
        None
    }

    /// Takes the data into a snapshot, accounts for every byte of it, and counts what is in it.
    ///
    /// # Errors
    /// Whenever anything of the source is not in the snapshot; no snapshot is then left behind.
    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError>;

    /// Reads everything back, compares digests with the manifest's, and checks that the content parses.
    ///
    /// # Errors
    /// Only when the check itself could not run; damage is a finding.
    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError>;

    /// Puts the data back, checked before anything existing is touched.
    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError>;

    /// Whether what answers is not the server itself yet, but the one that sets it up: official images run one, on its socket
    /// alone, for as long as their first start takes, and then end it.
    fn is_being_set_up(&self) -> bool {
        false
    }

    /// Asks the server, as the user that takes its backups, what the file asserts of it.
    ///
    /// # Errors
    /// When it could not be asked, or refused to answer.
    fn answer(&self, assertion: &Assertion) -> Result<Answer, EngineError> {
        Err(misplaced(assertion))
    }
}

/// The file's check lets nobody ask an engine what it does not understand.
fn misplaced(assertion: &Assertion) -> EngineError {
    let what = format!("nobody there answers what is asserted as `{}`; name a service of that kind", assertion.kind());
    EngineError::Refused { what }
}

/// The engine for a source of the file.
pub fn for_source(source: &Source, ground: &Ground) -> Box<dyn Engine> {
    match source {
        Source::Sqlite(sqlite) => Box::new(sqlite::Sqlite::new(ground.path(&sqlite.path))),
        Source::Files(it) => Box::new(files::Files::new(&it.paths, &it.exclude, ground).stopping(&it.stop)),
        Source::Certificates(it) => Box::new(certificates::Certificates::new(it, ground)),
        Source::Postgres(postgres) => Box::new(postgres::Postgres::new(postgres, ground)),
        Source::Mysql(mysql) => Box::new(mysql::Mysql::new(mysql, mysql::Flavour::Mysql, ground)),
        Source::Mariadb(mariadb) => Box::new(mysql::Mysql::new(mariadb, mysql::Flavour::Mariadb, ground)),
        Source::Mongodb(mongodb) => Box::new(mongodb::Mongodb::new(mongodb, ground)),
        Source::Redis(redis) => Box::new(redis::Redis::new(redis, ground)),
        Source::Rabbitmq(rabbitmq) => Box::new(rabbitmq::Rabbitmq::new(rabbitmq, ground)),
        Source::Vault(vault) => Box::new(vault::Vault::new(vault, ground)),
        Source::Volume(volume) => Box::new(volume::Volume::new(volume, ground)),
    }
}

/// Whether nothing lies in a folder of a container. One that can't be looked into may hold something.
pub fn is_empty(ground: &Ground, container: &str, path: &str) -> bool {
    let looked = || {
        let docker = ground.containers.docker()?;
        match docker.inspect(container)? {
            Some(container) => volume::has_entries(&docker, &container, path),
            None => Ok(None),
        }
    };
    matches!(looked(), Ok(Some(false) | None))
}

/// The certificates that a source names, as they are now.
pub fn certificates_of(source: &CertificatesSource, ground: &Ground) -> Observed<Vec<Certificate>> {
    match certificates::Certificates::new(source, ground).present() {
        Ok(certificates) => Observed::Known(certificates),
        Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
    }
}

/// The only artifact of an engine that makes exactly one.
fn single_artifact(taken: &Taken) -> Result<&Artifact, EngineError> {
    match taken.artifacts.as_slice() {
        [artifact] => Ok(artifact),
        others => Err(EngineError::Manifest { snapshot: taken.snapshot.clone(), artifacts: others.len() }),
    }
}

/// The parts of [`Taken`] that are the same for every engine.
fn taken(
    engine: &'static str,
    engine_version: String,
    snapshot: SnapshotId,
    artifact: Artifact,
    added: ByteSize,
    at: Timestamp,
    since: std::time::Instant,
) -> Taken {
    Taken {
        snapshot,
        tree: None,
        engine: engine.to_owned(),
        engine_version,
        artifacts: vec![artifact],
        started: at,
        took: Span::from(since.elapsed()),
        added,
        suspect: None,
        empty: false,
        image: None,
        certificates: Vec::new(),
        notes: Vec::new(),
    }
}

/// Counts that were made in the artifact itself, so that they may be compared.
fn exact(counts: impl IntoIterator<Item = (String, u64)>) -> BTreeMap<String, crate::model::run::Count> {
    counts.into_iter().map(|(name, value)| (name, crate::model::run::Count { value, exact: true })).collect()
}

/// A finding for every count that the manifest gives as exact and that now differs.
fn count_findings(artifact: &Artifact, now: &BTreeMap<String, crate::model::run::Count>) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, expected) in artifact.counts.iter().filter(|(_, count)| count.exact) {
        match now.get(name) {
            Some(count) if count.value == expected.value => {}
            Some(count) => {
                findings.push(format!("{name}: {} when taken, {} in the backup", expected.value, count.value))
            }
            None => findings.push(format!("{name}: {} when taken, missing in the backup", expected.value)),
        }
    }
    findings
}
