//! What can go wrong in an engine. The service's name is added by the step that called it.

use std::io;
use std::path::PathBuf;

use crate::model::damage::Subject;
use crate::model::ids::SnapshotId;
use crate::model::outcome::FailureKind;
use crate::repository::RepositoryError;
use crate::runtime::RuntimeError;
use crate::secrets::{SecretError, VaultError};
use crate::spec::exclude::ExcludeError;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "{path} does not exist; restore it with `devstack restore SERVICE --in-place`, or correct the path in the file"
    )]
    Gone { path: PathBuf },
    #[error(
        "{path} leads to {to}, which does not exist; restore it with `devstack restore SERVICE --in-place`, or correct the path in the file"
    )]
    LeadsNowhere { path: PathBuf, to: PathBuf },
    #[error("no file matches `{pattern}`; correct the pattern in the file, or take it out")]
    NoMatch { pattern: String },
    #[error("{path} holds nothing: an empty source is not backed up as a good run")]
    Empty { path: PathBuf },
    #[error("{path} is not a file that SQLite can read: {doing}")]
    Sqlite {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    #[error("{path} is locked by another program: {doing} waited {waited_s} s; try again when it is quieter")]
    Busy { path: PathBuf, doing: &'static str, waited_s: u64 },
    #[error("{doing} {path} failed")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a valid pattern")]
    Pattern {
        path: String,
        #[source]
        source: globset::Error,
    },
    #[error(transparent)]
    Exclude(#[from] ExcludeError),
    #[error("{path} holds something already; restore into a folder that is empty or not there")]
    NotEmpty { path: PathBuf },
    #[error("the backup does not pass its own check, so nothing was touched: {}", findings.join("; "))]
    Damaged { findings: Vec<String> },
    #[error(
        "snapshot {snapshot} holds {artifacts} artifacts where one was expected; was its manifest written by a newer devstack?"
    )]
    Manifest { snapshot: SnapshotId, artifacts: usize },
    #[error("{engine} in the container {container} holds nothing: an empty server is not backed up as a good run")]
    Bare { engine: &'static str, container: String },
    /// A stream that broke off, or a dump that ended before its end.
    #[error("{name} was not taken to its end")]
    Stream {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} is not whole, although the dump tool said that it was done: {why}")]
    NotWhole { name: String, why: String },
    /// An answer of a server's own client that says something else than was asked.
    #[error("{what} answered something that cannot be read: {why}")]
    Answer { what: String, why: String },
    #[error("{doing} failed, and {after}")]
    Restore {
        doing: String,
        after: String,
        #[source]
        source: Box<EngineError>,
    },
    #[error("after the restore {what} differs from the backup: {}", findings.join("; "))]
    Differs { what: String, findings: Vec<String> },
    #[error("{what}")]
    Refused { what: String },
    /// A server that loads its data, nodes that have not agreed yet: it may pass by itself.
    #[error("{what}")]
    Unready { what: String },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl EngineError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Busy { .. } | Self::Unready { .. } => FailureKind::Transient,
            Self::Damaged { .. } => FailureKind::Damage,
            Self::Repository(error) => error.kind(),
            Self::Runtime(error) => error.kind(),
            Self::Secret(error) => error.kind(),
            Self::Vault(error) => error.kind(),
            Self::Stream { source, .. } => {
                match source.get_ref().and_then(|inner| inner.downcast_ref::<RuntimeError>()) {
                    Some(error) => error.kind(),
                    None => FailureKind::Transient,
                }
            }
            // What was there is there again or was never touched; trying a restore again is for a person to decide.
            Self::Restore { .. } => FailureKind::Permanent,
            Self::Gone { .. }
            | Self::LeadsNowhere { .. }
            | Self::NoMatch { .. }
            | Self::Empty { .. }
            | Self::Sqlite { .. }
            | Self::Io { .. }
            | Self::Pattern { .. }
            | Self::Exclude(_)
            | Self::NotEmpty { .. }
            | Self::Manifest { .. }
            | Self::Bare { .. }
            | Self::NotWhole { .. }
            | Self::Answer { .. }
            | Self::Differs { .. }
            | Self::Refused { .. }
            | Self::Interrupted => FailureKind::Permanent,
        }
    }

    /// What of a backup is damaged, by a restore that could not read it; none where something else stopped it.
    pub fn damage(&self) -> Option<(Option<Subject>, String)> {
        match self {
            Self::Damaged { findings } => Some((None, findings.join("; "))),
            Self::Repository(error) => error.damage(),
            Self::Restore { source, .. } => source.damage(),
            Self::Stream { source, .. } => source.get_ref()?.downcast_ref::<RepositoryError>()?.damage(),
            _ => None,
        }
    }

    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
