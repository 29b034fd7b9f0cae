//! The small records that devstack keeps beside the data, each a snapshot of its own in the repository.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::damage::DamageRecord;
use super::drill::Drill;
use super::evidence::{DataRead, Proof};
use super::history::Measured;
use super::ids::{Digest, PlanId, PolicyName, RunId, ServiceName};
use super::origin::Origin;
use super::retention::Rule;
use super::run::Manifest;
use super::units::Span;

/// What a record says. Its kind is also a tag of its snapshot, `record:KIND`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    Manifest(Box<Manifest>),
    Proof(Proof),
    DataRead(DataRead),
    /// All that is known to be damaged; the store writes it and takes the one before away.
    Damage(DamageRecord),
    Drill(Box<Drill>),
    Recovery(Recovery),
    ShrinkAccepted(ShrinkAccepted),
    RuleApproved(RuleApproved),
    PlanUsed(PlanUsed),
    Generation(Generation),
    Adopted(Box<Adopted>),
    Approved(Box<Approved>),
}

impl Record {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Manifest(_) => "manifest",
            Self::Proof(_) => "proof",
            Self::DataRead(_) => "data-read",
            Self::Damage(_) => "damage",
            Self::Drill(_) => "drill",
            Self::Recovery(_) => "recovery",
            Self::ShrinkAccepted(_) => "shrink-accepted",
            Self::RuleApproved(_) => "rule-approved",
            Self::PlanUsed(_) => "plan-used",
            Self::Generation(_) => "generation",
            Self::Adopted(_) => "adopted",
            Self::Approved(_) => "approved",
        }
    }

    /// Kinds of which only the newest word is kept.
    pub fn can_supersede(&self) -> bool {
        match self {
            Self::Proof(_) | Self::DataRead(_) | Self::RuleApproved(_) | Self::Generation(_) => true,
            // What a drill took is compared with the next one, and there are few.
            Self::Manifest(_)
            | Self::ShrinkAccepted(_)
            | Self::PlanUsed(_)
            | Self::Drill(_)
            | Self::Recovery(_)
            // Each names runs of other places that are ours since.
            | Self::Adopted(_)
            // Who said what is told for as long as there is a repository.
            | Self::Approved(_)
            // Which one it replaces is told by who writes it: the one that it read, and not one written meanwhile.
            | Self::Damage(_) => false,
        }
    }

    /// Whether all that `older` says is said anew here, so that it need not be kept. `older` was there before this one was
    /// written, whatever its date: one of a clock that was ahead would stay the last word until that date.
    pub fn supersedes(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::Proof(new), Self::Proof(old)) => {
                new.run == old.run && old.levels.keys().all(|level| new.levels.contains_key(level))
            }
            (Self::DataRead(new), Self::DataRead(old)) => old.parts.iter().all(|part| new.parts.contains(part)),
            (Self::RuleApproved(new), Self::RuleApproved(old)) => new.policy == old.policy,
            (Self::Generation(new), Self::Generation(old)) => new.number > old.number,
            // A manifest is never replaced, a used plan stays used, a shrink that was accepted stays accepted.
            _ => false,
        }
    }

    /// The run that the record speaks of; such records go when the run is forgotten.
    pub fn run(&self) -> Option<&RunId> {
        match self {
            Self::Manifest(manifest) => Some(&manifest.run),
            Self::Proof(proof) => Some(&proof.run),
            Self::ShrinkAccepted(mark) => Some(&mark.run),
            // A drill may have used several runs, and says what it says after they are gone.
            Self::Drill(_)
            | Self::Recovery(_)
            | Self::DataRead(_)
            | Self::Damage(_)
            | Self::RuleApproved(_)
            | Self::PlanUsed(_)
            | Self::Generation(_)
            | Self::Adopted(_)
            | Self::Approved(_) => None,
        }
    }
}

/// Somebody has looked at a shrunken source and said that it is right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShrinkAccepted {
    pub format: u32,
    pub run: RunId,
    pub service: ServiceName,
    pub at: Timestamp,
}

/// What a recovery, or a restore in place, has measured: the forecast of the next one, on whatever machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    pub format: u32,
    pub at: Timestamp,
    pub took: Span,
    pub measured: Vec<Measured>,
    pub devstack_version: String,
}

/// The retention rule that somebody approved for a policy; forgetting under it needs no further approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleApproved {
    pub format: u32,
    pub policy: PolicyName,
    pub rule: Rule,
    pub at: Timestamp,
}

/// A saved plan that was applied: it is not applied again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanUsed {
    pub format: u32,
    pub plan: PlanId,
    pub at: Timestamp,
}

/// Counts the applied changes of what is declared (keys, retention, repositories), not takes or proofs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    pub format: u32,
    pub number: u64,
    pub spec_digest: Digest,
    pub plan: PlanId,
    pub at: Timestamp,
}

/// Somebody has said that the stack has its place in this repository at `origin` now, and no longer where it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    pub format: u32,
    /// The highest one counts: clocks of two machines say nothing of who was last.
    pub number: u64,
    pub origin: Origin,
    /// The places whose runs count as those of `origin` since.
    pub from: Vec<Origin>,
    pub at: Timestamp,
}

/// Somebody has approved what a plain yes does not cover, or that lost data comes back. Written before the first step runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approved {
    pub format: u32,
    pub plan: PlanId,
    pub at: Timestamp,
    /// `ops@tower`.
    pub by: String,
    pub how: How,
    pub words: Vec<ApprovedWord>,
}

/// A word that was said, and the steps that it let go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovedWord {
    /// `restore:postgres`; `yes` for what comes back where nothing was.
    pub word: String,
    pub steps: Vec<String>,
}

/// How it was approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Typed at a terminal.
    Terminal,
    /// `--yes`, with `--approve`.
    Arguments,
    /// By saving the plan, and applying it.
    SavedPlan,
}

impl How {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "at a terminal",
            Self::Arguments => "by arguments",
            Self::SavedPlan => "by a saved plan",
        }
    }
}
