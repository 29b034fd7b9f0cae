//! What has been proven of a run in a repository, when, and with which result.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{RunId, SnapshotId};
use super::units::{ByteSize, Span};

/// The first three together are the meaning of *verified*; data has an age of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Index and trees: every blob a snapshot needs is indexed, every pack is there in its right size.
    Structure,
    /// The bytes read back have the digest that the manifest names.
    Artifacts,
    /// The dump parses: an integrity check, counts equal to the manifest's.
    Content,
    /// Every file of the repository read and hashed against its name.
    Data,
}

impl Level {
    /// The levels that make a run verified.
    pub const PROOF: [Self; 3] = [Self::Structure, Self::Artifacts, Self::Content];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Artifacts => "artifacts",
            Self::Content => "content",
            Self::Data => "data",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    /// What was found, one finding a line.
    Failed(Vec<String>),
}

/// One verification of one run, as stored in the repository that holds the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub format: u32,
    pub run: RunId,
    pub at: Timestamp,
    pub took: Span,
    /// Plain bytes read back.
    pub read: ByteSize,
    pub levels: BTreeMap<Level, Verdict>,
    /// How long each service's content took to be read back and checked: the first estimate of its restore.
    pub services: BTreeMap<super::ids::ServiceName, Span>,
    /// The snapshots that were read. One that somebody put in the place of another counts as proven only if it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
    /// What could not be checked, and why: no damage, and nothing that was proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Proof {
    pub fn passed(&self) -> bool {
        Level::PROOF.iter().all(|level| self.levels.get(level) == Some(&Verdict::Passed))
    }

    pub fn findings(&self) -> impl Iterator<Item = (Level, &str)> {
        self.levels.iter().flat_map(|(level, verdict)| {
            match verdict {
                Verdict::Passed => [].iter(),
                Verdict::Failed(findings) => findings.iter(),
            }
            .map(|finding| (*level, finding.as_str()))
        })
    }
}

/// The packs of a repository are read in 256 parts, by the first byte of their ids, so that reading is spread evenly
/// over `data_every` and a part is the same part next month.
pub const DATA_PARTS: u16 = 256;

/// One pass over some parts of a repository's packs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataRead {
    pub format: u32,
    pub at: Timestamp,
    pub took: Span,
    pub read: ByteSize,
    /// First bytes of the pack ids that were read.
    pub parts: Vec<u8>,
    pub verdict: Verdict,
    /// Runs that hold a damaged pack.
    pub hurt: Vec<RunId>,
    /// What it found stands in a record of its own as well (`DamageRecord`), which says when that is over. The readings of older
    /// versions are all that tells of theirs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remembered: bool,
}
