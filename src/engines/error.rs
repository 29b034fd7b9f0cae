//! What can go wrong in an engine. The service's name is added by the step that called it.

use std::io;
use std::path::PathBuf;

use crate::model::ids::SnapshotId;
use crate::model::outcome::FailureKind;
use crate::repository::RepositoryError;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{path} does not exist; restore it with `devstack restore`, or correct the path in the file")]
    Gone { path: PathBuf },
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
    #[error("{path} holds something already; restore into a folder that is empty or not there")]
    NotEmpty { path: PathBuf },
    #[error("the backup does not pass its own check, so nothing was touched: {}", findings.join("; "))]
    Damaged { findings: Vec<String> },
    #[error(
        "snapshot {snapshot} holds {artifacts} artifacts where one was expected; was its manifest written by a newer devstack?"
    )]
    Manifest { snapshot: SnapshotId, artifacts: usize },
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl EngineError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Busy { .. } => FailureKind::Transient,
            Self::Damaged { .. } => FailureKind::Damage,
            Self::Repository(error) => error.kind(),
            Self::Gone { .. }
            | Self::NoMatch { .. }
            | Self::Empty { .. }
            | Self::Sqlite { .. }
            | Self::Io { .. }
            | Self::Pattern { .. }
            | Self::NotEmpty { .. }
            | Self::Manifest { .. }
            | Self::Interrupted => FailureKind::Permanent,
        }
    }

    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
