//! A plan: the steps, and a report of what it is waiting on. Both are to be read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::evidence::Verdict;
use super::ids::{Digest, PlanId, PolicyName, RepositoryId, RepositoryName, RunId, ServiceName, StackName};
use super::step::{Approval, Step};
use super::units::{ByteSize, Span};

/// The version of the plan's JSON; a reader refuses another one.
pub const PLAN_FORMAT: u32 = 1;

#[must_use = "a plan that nobody reads changes nothing and warns nobody"]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub format: u32,
    pub id: PlanId,
    pub devstack_version: String,
    pub stack: StackName,
    /// The time that the plan was made for: every age and slot in it is reckoned from here.
    pub now: Timestamp,
    /// How long the look at the world took.
    pub observed_in: Span,
    pub spec_digest: Digest,
    /// What it was made against: it applies to these repositories in these generations and to no others.
    pub lineage: Vec<Lineage>,
    pub steps: Vec<Step>,
    pub report: Report,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    pub repository: RepositoryName,
    /// None where the plan creates it.
    pub id: Option<RepositoryId>,
    pub generation: u64,
}

/// What the plan is waiting on and what it left alone: not a summary of the steps.
#[must_use = "an unread report warns nobody"]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What could not be looked at, and what was therefore not planned.
    pub unknown: Vec<Note>,
    /// Repositories that no key at hand opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shut: Vec<Note>,
    /// Runs that were found damaged, and that nothing later cleared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Note>,
    /// Runs that devstack took and did not remove, and that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Note>,
    /// Policies whose newest run is incomplete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Note>,
    /// Hooks after a backup that failed, or never ran, and have not ended well since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Note>,
    /// Runs that were cut off, with what no later run has taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interrupted: Vec<Note>,
    /// A recovery that has begun here and has not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfinished: Vec<Note>,
    /// Policies with a slot that went by: the next one has come, or a day has passed, and no complete run serves it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overdue: Vec<Note>,
    /// What the stack holds and nothing takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unprotected: Vec<Note>,
    /// Services that were taken, and that no policy takes again by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unscheduled: Vec<Note>,
    /// What the stack holds and the file leaves out, with the reasons that it gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Note>,
    /// Files that the newest run has and that are not there; looked for by a recovery only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Note>,
    /// Sources that shrank, which nobody has said to be right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspect: Vec<Note>,
    /// Another place of a stack of this name, in a repository that both write to; and what of this one waits for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<Note>,
    /// The Compose project has another name in the file than what runs from the stack's folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<Note>,
    /// Sources that are not there, or empty where their newest run held something.
    #[serde(default)]
    pub lost: Vec<Note>,
    /// What stops being good before it is needed again, with what renews it: certificates, the login to Vault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expiring: Vec<Note>,
    /// What waits, or is kept back, and on what.
    pub waiting: Vec<Note>,
    /// What the world holds and the file does not name: kept until `forget`.
    pub undeclared: Vec<Note>,
    /// Differences that are reported and not acted on.
    pub drift: Vec<Note>,
    /// Resources that are as declared.
    pub unchanged: Vec<Note>,
    pub recovery: RecoveryForecast,
    pub exposure: Vec<Exposure>,
    /// None where nothing could be drilled and nobody asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillReport>,
}

/// The last drill and the next one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// None: never drilled.
    pub last: Option<LastDrill>,
    /// A slot of its schedule is not served: the next apply drills after its backups.
    pub due: bool,
    pub next: Option<Timestamp>,
}

/// What is told of a drill beside everything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastDrill {
    pub id: String,
    pub at: Timestamp,
    pub took: Span,
    pub rto: Option<Span>,
    pub partial: bool,
    /// Services of Compose that could not be isolated, and that the drill did without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    pub verdict: Verdict,
}

/// A resource and a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub resource: String,
    pub text: String,
}

impl Note {
    /// What the resource of a note on a repository begins with.
    pub const REPOSITORY: &str = "repository/";

    /// Of a repository that this machine has seen before, and that is not there.
    pub fn missing_repository(name: &RepositoryName, id: &RepositoryId) -> Self {
        let text = format!("repository {} was at its place and is not there; is its disk mounted?", id.short());
        Self::new(format!("{}{name}", Self::REPOSITORY), text)
    }

    pub fn new(resource: impl Into<String>, text: impl Into<String>) -> Self {
        Self { resource: resource.into(), text: text.into() }
    }
}

/// How long the stack would take to come back, from what was measured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RecoveryForecast {
    /// In the order of the dependency graph.
    pub services: Vec<ServiceForecast>,
    /// The chain of services that decides the time, first to last.
    pub critical_path: Vec<ServiceName>,
    /// The length of the critical path; none when a service on no path has ever been measured.
    pub predicted: Option<Span>,
    /// Where every step of a recovery was measured, by recoveries or drills: the chain of steps that decides the time, proofs,
    /// starts and verification among them. `predicted` is then the length of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<(String, Span)>,
    pub rto: Option<Span>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceForecast {
    pub service: ServiceName,
    pub after: Vec<ServiceName>,
    /// Its restore alone.
    pub predicted: Option<Span>,
    /// From the begin of a recovery of everything to the end of its restore, as a drill measures it; where every step was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_after: Option<Span>,
    pub basis: Basis,
    pub bytes: Option<ByteSize>,
    pub rto: Option<Span>,
}

/// Where a predicted time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Restores of this service that ran, in recoveries or drills.
    Restored,
    /// Nothing was ever measured. What a proof took to read it back says nothing of how long a server takes to load it.
    #[serde(alias = "read_back")]
    NeverMeasured,
}

/// How much would be lost now, per service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exposure {
    pub service: ServiceName,
    /// The newest complete and verified run without doubts that holds it, with the start of that run.
    pub last_good: Option<(RunId, RepositoryName, Timestamp)>,
    pub rpo: Option<Span>,
    pub policies: Vec<PolicyName>,
    /// The next slot of any schedule that names it.
    pub next: Option<Timestamp>,
}

impl Exposure {
    /// How old the last good run is at `now`.
    pub fn age(&self, now: Timestamp) -> Option<Span> {
        self.last_good.as_ref().map(|(_, _, started)| Span::between(*started, now))
    }

    /// Missed: an objective is declared, and the last good run is older or there is none.
    pub fn is_missed(&self, now: Timestamp) -> bool {
        self.rpo.is_some_and(|rpo| self.age(now).is_none_or(|age| age > rpo))
    }
}

impl ServiceForecast {
    /// When it would be back: what came before its restore counts, where that is known.
    pub fn back(&self) -> Option<Span> {
        self.back_after.or(self.predicted)
    }

    pub fn is_missed(&self) -> bool {
        matches!((self.back(), self.rto), (Some(back), Some(rto)) if back > rto)
    }
}

impl Report {
    /// What is declared and could not be looked at, or is not there.
    pub fn troubles(&self) -> impl Iterator<Item = &str> {
        self.shut.iter().chain(&self.unknown).chain(&self.lost).map(|note| note.resource.as_str())
    }

    pub fn is_troubled(&self) -> bool {
        self.troubles().next().is_some()
    }

    /// A drill brings back everything, so that each service must have a run to come from.
    pub fn can_be_drilled(&self) -> bool {
        self.exposure.iter().all(|exposure| exposure.last_good.is_some())
    }

    /// What is said where no good run is known: one may lie in a repository that could not be looked at.
    pub fn no_good_run(&self) -> &'static str {
        let unseen =
            !self.shut.is_empty() || self.unknown.iter().any(|note| note.resource.starts_with(Note::REPOSITORY));
        if unseen { "unknown" } else { "never" }
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn step(&self, id: super::step::StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The steps that need somebody's word.
    pub fn held(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.approval, Approval::Needed { .. }))
    }
}
