//! Small plans for the tests of this room.

use jiff::Timestamp;

use crate::model::ids::{Digest, PlanId, RepositoryName, RunId, ServiceName, SnapshotId, StackName};
use crate::model::plan::{PLAN_FORMAT, Plan, Report};
use crate::model::step::{Action, Approval, Effect, Estimate, Restore, RestoreTarget, Step, StepId, Wait, WaitOn};
use crate::model::units::Span;

pub fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        format: PLAN_FORMAT,
        id: PlanId::new("0123456789abcdef"),
        devstack_version: "0".into(),
        stack: StackName::new("shop"),
        now: Timestamp::UNIX_EPOCH,
        observed_in: Span::ZERO,
        spec_digest: Digest::new("00"),
        lineage: Vec::new(),
        steps,
        report: Report::default(),
    }
}

pub fn step(id: u32, action: Action, waits: &[Wait]) -> Step {
    Step {
        id: StepId(id),
        action,
        causes: Vec::new(),
        effect: Effect::Safe,
        approval: Approval::NotNeeded,
        waits: waits.to_vec(),
        preconditions: Vec::new(),
        estimate: Estimate::default(),
    }
}

pub fn needing(token: &str, mut step: Step) -> Step {
    step.approval = Approval::Needed { token: token.into(), reason: "deletes data".into() };
    step
}

pub fn success(step: u32) -> Wait {
    Wait { step: StepId(step), on: WaitOn::Success }
}

pub fn end(step: u32) -> Wait {
    Wait { step: StepId(step), on: WaitOn::End }
}

/// Writes, and allows others beside it.
pub fn prove(repository: &str) -> Action {
    Action::Prove { repository: RepositoryName::new(repository), run: RunId::new("run") }
}

/// Writes, and allows no others beside it.
pub fn prune(repository: &str) -> Action {
    Action::Prune { repository: RepositoryName::new(repository) }
}

/// Reads only.
pub fn restore(repository: &str) -> Action {
    Action::Restore(Restore {
        repository: RepositoryName::new(repository),
        service: ServiceName::new("shop"),
        run: RunId::new("run"),
        snapshot: SnapshotId::new("00"),
        target: RestoreTarget::InPlace,
        safety: None,
    })
}
