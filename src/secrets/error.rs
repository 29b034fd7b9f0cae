//! Why a secret could not be had: what, where, why and the next step. Never the value.

use std::io;
use std::path::PathBuf;

use super::VaultError;
use crate::model::outcome::FailureKind;
use crate::spec::dotenv::DotenvError;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("the secret names no place: give it `env`, `file`, `env_file` or `vault`")]
    Nowhere,
    #[error("the environment variable {name} is not set: set it, or name another place in the file")]
    Unset { name: String },
    #[error("the environment variable {name} does not hold UTF-8 text: set it to text")]
    NotText { name: String },
    #[error("the secret file {path} does not exist: put it there, or name another place in the file")]
    NoFile { path: PathBuf },
    #[error("cannot read the secret file {path}: check that it exists and that you may read it")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the secret file {path} is not a regular file: name a file")]
    NotAFile { path: PathBuf },
    #[error(
        "the secret file {path}, which devstack generated, can be read by others (mode {mode:04o}): run `chmod 600 {path}`"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the secret in {place} is empty: put the value there")]
    Empty { place: String },
    #[error("the secret file {path} does not hold UTF-8 text: write the value as text")]
    FileNotText { path: PathBuf },
    #[error("{path} sets no variable {name}: add it there, or correct `name` in the file")]
    NotInFile { path: PathBuf, name: String },
    #[error("the variables in {path} cannot be read")]
    Variables {
        path: PathBuf,
        #[source]
        source: DotenvError,
    },
    #[error("the file {path} is larger than 1 MiB: name the file that holds the secret")]
    TooLarge { path: PathBuf },
    #[error("{path} lies in the home folder, and HOME is not set: set HOME, or write the whole path")]
    NoHome { path: PathBuf },
    #[error("no terminal to ask for the passphrase: run it on a terminal, or give the passphrase by `env` or `file`")]
    NoTerminal {
        #[source]
        source: io::Error,
    },
    #[error("reading the passphrase from the terminal failed: try again, or give it by `env` or `file`")]
    Terminal {
        #[source]
        source: io::Error,
    },
    #[error("{path} exists already and is not overwritten: remove `generate: true`, or move the file away")]
    Exists { path: PathBuf },
    #[error("cannot write the new secret file {path}: check that its folder can be written")]
    Unwritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl SecretError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Vault(error) => error.kind(),
            Self::Nowhere
            | Self::Unset { .. }
            | Self::NotText { .. }
            | Self::NoFile { .. }
            | Self::Unreadable { .. }
            | Self::NotAFile { .. }
            | Self::Exposed { .. }
            | Self::Empty { .. }
            | Self::FileNotText { .. }
            | Self::NotInFile { .. }
            | Self::Variables { .. }
            | Self::TooLarge { .. }
            | Self::NoHome { .. }
            | Self::NoTerminal { .. }
            | Self::Terminal { .. }
            | Self::Exists { .. }
            | Self::Unwritable { .. } => FailureKind::Key,
        }
    }
}
