//! A run of a policy and what it took: the manifest that is written last and makes the run exist.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::compose::ComposeModel;
use super::hook::HookRun;
use super::ids::{Digest, PolicyName, RunId, ServiceName, SnapshotId, StackName};
use super::origin::Origin;
use super::plan::Note;
use super::shrink::Shrunk;
use super::units::{ByteSize, Span};

/// The format of the records that devstack keeps in a repository; a reader refuses a newer one.
pub const RECORD_FORMAT: u32 = 1;

/// What one run of one policy took into one repository. Stored there as `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub stack: StackName,
    pub run: RunId,
    pub policy: PolicyName,
    /// The slot of the schedule that this run serves; none for a run taken by hand.
    pub slot: Option<Timestamp>,
    pub started: Timestamp,
    pub finished: Timestamp,
    /// Every service that the policy names. A run is complete only if each of them was taken.
    pub expected: Vec<ServiceName>,
    pub services: BTreeMap<ServiceName, ServiceResult>,
    /// The run before this one, of the same policy in the same repository; its snapshots were the parents.
    pub parent: Option<RunId>,
    /// The run that the chain of parents goes back to; itself for the first and for a `--full` one.
    pub base: RunId,
    pub spec_digest: Digest,
    pub devstack_version: String,
    /// Whether it was sealed by the apply that took it, or by a later one after an interruption.
    pub sealed: Sealed,
    /// Of the Compose files that lie beside the manifest; none where none are declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<ComposeModel>,
    /// Where it was taken; none in runs of before that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What the stack held when the run was taken and no source took, so that no recovery brings it back; none in runs of before
    /// that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprotected: Option<Vec<Note>>,
    /// What the hooks around it came to, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRun>,
}

/// Who wrote the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sealed {
    /// The apply that took the run.
    ByItsApply,
    /// A later apply, which found snapshots of a run that had no manifest. Such a run is never complete.
    AfterInterruption,
    /// A copy of a run that another repository holds; every service's stream was hashed on the way.
    ByCopy,
}

/// What became of one expected service.
#[allow(clippy::large_enum_variant, reason = "nearly every one is the large one")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceResult {
    Taken(Taken),
    Failed { reason: String },
}

/// One service's snapshot in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    pub snapshot: SnapshotId,
    /// The snapshot's tree. restic gives a snapshot another id where it changes a tag of it; the tree stays, and with it all that
    /// was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    pub engine: String,
    /// The version of what took it (SQLite's library, a server's dump tool).
    pub engine_version: String,
    pub artifacts: Vec<Artifact>,
    pub started: Timestamp,
    pub took: Span,
    /// New bytes in the repository, after deduplication and compression.
    pub added: ByteSize,
    /// Set when the source has lost something since an earlier run.
    pub suspect: Option<Shrink>,
    /// It was empty, and somebody has said that this is right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// The digest of the image that the server's container was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Those in it, if it is a source of certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    /// What its tools warned of, and what was left out of it for a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Taken {
    /// Plain bytes of all artifacts.
    pub fn bytes(&self) -> ByteSize {
        self.artifacts.iter().map(|artifact| artifact.bytes).sum()
    }
}

/// One stream or tree in a service's snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its path in the snapshot, with a leading slash.
    pub name: String,
    pub kind: ArtifactKind,
    /// Plain bytes: the stream's length, or the sum of a tree's files.
    pub bytes: ByteSize,
    /// Of a stream: SHA-256 of its bytes. Of a tree: SHA-256 over its canonical listing (see `repository::listing`),
    /// in which every file's content stands as the SHA-256 ids of its chunks.
    pub sha256: Digest,
    /// Tables, rows, files: whatever the engine counts, by name.
    pub counts: BTreeMap<String, Count>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    Stream,
    Tree,
}

/// A number that the engine counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub value: u64,
    /// Counted in the artifact itself. What is not exact is shown with a tilde and never compared.
    pub exact: bool,
}

/// A source that lost something between two runs: things that are gone or have fallen, or more than half of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrink {
    pub from: ByteSize,
    pub to: ByteSize,
    /// Thing by thing; none in runs of before these were compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<Shrunk>,
}

impl fmt::Display for Shrink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than this nobody reads in one line.
        const LISTED: usize = 5;
        if self.things.is_empty() {
            return write!(f, "it shrank from {} to {}", self.from, self.to);
        }
        let shown: Vec<String> = self.things.iter().take(LISTED).map(ToString::to_string).collect();
        f.write_str(&shown.join("; "))?;
        match self.things.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Manifest {
    /// Every expected service was taken, at least one was expected, and the run's own apply (or a full copy) sealed it.
    pub fn is_complete(&self) -> bool {
        self.sealed != Sealed::AfterInterruption
            && !self.expected.is_empty()
            && self.expected.iter().all(|name| matches!(self.services.get(name), Some(ServiceResult::Taken(_))))
    }

    /// The services that were taken, with what was taken.
    pub fn taken(&self) -> impl Iterator<Item = (&ServiceName, &Taken)> {
        self.services.iter().filter_map(|(name, result)| match result {
            ServiceResult::Taken(taken) => Some((name, taken)),
            ServiceResult::Failed { .. } => None,
        })
    }

    /// What was taken of one service.
    pub fn taken_of(&self, service: &ServiceName) -> Option<&Taken> {
        match self.services.get(service)? {
            ServiceResult::Taken(taken) => Some(taken),
            ServiceResult::Failed { .. } => None,
        }
    }

    /// The expected services that are not in the run, each with the reason.
    pub fn missing(&self) -> impl Iterator<Item = (&ServiceName, &str)> {
        self.expected.iter().filter_map(|name| match self.services.get(name) {
            Some(ServiceResult::Taken(_)) => None,
            Some(ServiceResult::Failed { reason }) => Some((name, reason.as_str())),
            None => Some((name, "not taken")),
        })
    }

    pub fn bytes(&self) -> ByteSize {
        self.taken().map(|(_, taken)| taken.bytes()).sum()
    }
}
