//! The evidence of a drill: what was brought back in isolation, from which runs, how long it took, and with which result.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::evidence::Verdict;
use super::history::Measured;
use super::ids::{RepositoryName, RunId, ServiceName};
use super::plan::Note;
use super::units::{ByteSize, Span};

/// One drill, as stored in the repositories that its runs lie in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    pub format: u32,
    /// The name that everything of the drill began with.
    pub id: String,
    /// When it began.
    pub at: Timestamp,
    /// From the choice of the recovery point to the last look at the stack; the removal is not part of a recovery.
    pub took: Span,
    pub services: Vec<DrilledService>,
    /// In the order in which they ended.
    pub steps: Vec<DrillStep>,
    /// Of the steps that succeeded, what predicts a recovery. Empty in drills of before it was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
    /// Passed only if every step succeeded and every objective that could be measured was met.
    pub verdict: Verdict,
    /// The stack's objective at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Span>,
    /// What the drill went without, so that it proves nothing of it.
    pub left_out: Vec<Note>,
    /// Services of Compose that hold no declared data and can't be isolated: the drill did without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Note>,
    /// What the stack held when the runs were taken and no source took: no recovery brings it back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unprotected: Vec<Note>,
    /// Not every service of the file: some were not asked for, or can't be drilled.
    pub partial: bool,
    /// All that can be drilled, from the newest runs: what a schedule asks for. One of chosen services or runs serves no slot.
    pub as_scheduled: bool,
    /// Whether the keys of a Vault were opened with the escrow key, as on an empty machine.
    pub escrow: bool,
    pub devstack_version: String,
}

/// A service that the drill brought back, or was to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrilledService {
    pub service: ServiceName,
    pub repository: RepositoryName,
    pub run: RunId,
    /// How old the run was: what a loss at that time would have cost.
    pub age: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Span>,
    pub bytes: ByteSize,
    /// From the drill's begin to the end of its restore; none where that did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_after: Option<Span>,
}

/// One step with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillStep {
    pub verb: String,
    pub resource: String,
    pub took: Span,
    /// What was done, or why it failed.
    pub said: String,
    pub succeeded: bool,
}

impl Drill {
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }

    /// Passed, with every service of Compose that runs, and with all that the stack holds.
    pub fn is_whole(&self) -> bool {
        self.passed() && self.without.is_empty() && self.unprotected.is_empty()
    }

    pub fn findings(&self) -> &[String] {
        match &self.verdict {
            Verdict::Passed => &[],
            Verdict::Failed(findings) => findings,
        }
    }
}
