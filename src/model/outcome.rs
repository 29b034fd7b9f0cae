//! What came of an apply: one outcome a step, and the whole.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::history::Measured;
use super::ids::PlanId;
use super::run::Taken;
use super::step::{Action, StepId};
use super::units::{ByteSize, Span};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    Done(Done),
    /// Due by time, and somebody else has done it.
    AlreadyDone {
        reason: String,
    },
    Failed {
        kind: FailureKind,
        reason: String,
    },
    /// Nobody approved it.
    Held {
        token: String,
    },
    /// A step that it waits for did not succeed.
    Skipped {
        because: StepId,
    },
    Interrupted,
}

/// What a finished step has to tell.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Done {
    /// Plain bytes read or written: what its time is fitted against.
    pub bytes: ByteSize,
    /// Bytes added to the repository.
    pub added: ByteSize,
    /// For the person who reads the output: `12.4 MiB, 1.1 MiB new`.
    pub summary: String,
    /// What the person must do now, such as keeping a copy of a new key.
    pub advice: Vec<String>,
    /// For a take: what the manifest will say of it.
    pub taken: Option<Box<Taken>>,
    /// A proof or a reading that ran to its end and found damage: its findings.
    pub damage: Vec<String>,
}

/// What kind of failure, which decides whether it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    Permanent,
    /// May pass: tried again with backoff, a bounded number of times.
    Transient,
    /// The world is no longer what the plan was made for.
    NeedsReplan,
    /// Verification found damage.
    Damage,
    /// A key or secret is wrong or missing.
    Key,
    /// Somebody else holds the lease.
    Locked,
    /// Everything was done, and what the file asserts of it does not hold.
    Unmet,
}

#[must_use = "an outcome may be a failure"]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyOutcome {
    pub plan: PlanId,
    pub started: Timestamp,
    pub took: Span,
    pub steps: Vec<(StepId, Action, StepOutcome)>,
    pub interrupted: bool,
    /// Why the journal could not be written, if so: from then on no step was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unjournalled: Option<String>,
}

impl StepOutcome {
    /// Steps that wait for success may run. Nothing is built on what was found to be damaged.
    pub fn is_success(&self) -> bool {
        match self {
            Self::Done(done) => done.damage.is_empty(),
            Self::AlreadyDone { .. } => true,
            Self::Failed { .. } | Self::Held { .. } | Self::Skipped { .. } | Self::Interrupted => false,
        }
    }

    /// How long `action` took, where it was done and ended well: only that tells how long it takes.
    pub fn measured(&self, action: &Action, took: Span) -> Option<Measured> {
        match self {
            Self::Done(done) if done.damage.is_empty() => {
                Some(Measured { key: action.sample_key(), bytes: done.bytes, took })
            }
            Self::Done(_)
            | Self::AlreadyDone { .. }
            | Self::Failed { .. }
            | Self::Held { .. }
            | Self::Skipped { .. }
            | Self::Interrupted => None,
        }
    }
}

/// Told while an apply runs, in this order for each step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    Started { step: StepId, verb: String, resource: String, at: Timestamp },
    Progress { step: StepId, bytes: ByteSize },
    Retrying { step: StepId, attempt: u32, wait: Span, reason: String },
    Ended { step: StepId, verb: String, resource: String, at: Timestamp, took: Span, outcome: StepOutcome },
}
