//! What earlier applies on this machine measured. It lives in `.devstack/` and may be lost without harm.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{RepositoryId, RepositoryName};
use super::units::{ByteSize, Span};

/// From the journal: how long steps took, when an apply was last seen, which repositories were here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// By `action/service` (`take/shop`, `restore/shop`) or `action/repository`: the newest samples last.
    pub samples: BTreeMap<String, Vec<Sample>>,
    pub last_apply: Option<Timestamp>,
    pub known_repositories: BTreeMap<RepositoryName, RepositoryId>,
    /// What an apply had begun that did not come to its end: `take/SERVICE`, `restore/SERVICE` over what is there until a later one
    /// has ended, or `hook/OWNER` where a hook of it was run.
    pub cut_off: BTreeMap<String, CutOff>,
}

/// When it was begun, and the hooks after a backup that have ended well since, by their sample keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    pub at: Timestamp,
    pub undone: BTreeSet<String>,
}

/// A step that ran to its good end, as a record in a repository keeps it for every machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Measured {
    /// What [`History::samples`] calls it.
    pub key: String,
    pub bytes: ByteSize,
    pub took: Span,
}

/// One measured step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub bytes: ByteSize,
    pub took: Span,
}
