//! Why a drill could not go on. Each of these is a finding of the drill: a recovery would have met with the same.

use std::path::PathBuf;

use super::id::DrillId;
use super::isolation::NotIsolated;
use crate::model::ids::{RunId, ServiceName};
use crate::observe::StoreError;
use crate::plan::PlanError;
use crate::repository::RepositoryError;
use crate::runtime::RuntimeError;

#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    NotIsolated(#[from] NotIsolated),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("{doing} {path} failed")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("no name for the drill could be drawn")]
    NoName(#[source] std::io::Error),
    #[error(
        "run {run} names its Compose files and does not hold what Compose makes of them (compose.json); take a new run by `devstack backup`"
    )]
    NoModel { run: RunId },
    #[error("the compose.json of run {run} is not what `docker compose config` prints")]
    Model {
        run: RunId,
        #[source]
        source: serde_json::Error,
    },
    #[error("the Vault {service} can't be drilled: {why}; leave it out of --only, or put that right")]
    Vault { service: ServiceName, why: &'static str },
    #[error("there is nothing to drill: every service of the file is a Vault, which can't be drilled: {why}")]
    Nothing { why: &'static str },
    #[error("the escrow is for a Vault, and none is brought back{}; leave `--escrow` out, or put that right", because(.why))]
    NoVault { why: Option<&'static str> },
    #[error(
        "{id} is there already, recovered by this stack; remove it by `devstack recover --to-project {id} --remove`, or give another name"
    )]
    Kept { id: DrillId },
    #[error("the engine has containers or volumes of a project {id} which is not of this making; give another name")]
    Taken { id: DrillId },
    #[error("nothing was recovered here as {id}, so there is nothing to remove")]
    NotKept { id: DrillId },
    #[error("{id} is being recovered right now; stop that first")]
    InUse { id: DrillId },
    #[error("the journal could not be opened")]
    Journal(#[from] crate::apply::journal::JournalError),
    /// One reaches out: nothing was started.
    #[error("the containers were made and not started, since the drill would not be isolated: {0}")]
    Gate(String),
    #[error("{place} is bound into a container, and run {run} does not hold it; add it to a `files` service")]
    NotInRun { place: PathBuf, run: String },
    #[error("{path} is a symbolic link, which Docker would follow out of the drill")]
    Link { path: PathBuf },
}

fn because(why: &Option<&'static str>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}

impl DrillError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
