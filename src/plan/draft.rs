//! The plan while it is being made. A step can only wait for steps that are there already, so the order of adding is a
//! topological order, a cycle can't be written, and the numbers are stable.

use crate::model::step::{Action, Approval, Effect, Estimate, Precondition, Step, StepId, Wait, WaitOn};
use crate::model::units::ByteSize;

#[derive(Debug, Default)]
pub(super) struct Draft {
    steps: Vec<Step>,
}

/// A step that has no number yet: safe, needing no approval, waiting for nothing, until said otherwise.
#[derive(Debug)]
pub(super) struct NewStep(Step);

impl NewStep {
    pub(super) fn new(action: Action) -> Self {
        Self(Step {
            id: StepId(0),
            action,
            causes: Vec::new(),
            effect: Effect::Safe,
            approval: Approval::NotNeeded,
            waits: Vec::new(),
            preconditions: Vec::new(),
            estimate: Estimate::default(),
        })
    }

    pub(super) fn because(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    pub(super) fn effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    pub(super) fn effect_so_far(&self) -> Effect {
        self.0.effect
    }

    pub(super) fn approval(&self) -> Approval {
        self.0.approval.clone()
    }

    pub(super) fn by_rule(mut self) -> Self {
        self.0.approval = Approval::ByRule;
        self
    }

    pub(super) fn held(mut self, token: impl Into<String>, reason: impl Into<String>) -> Self {
        self.0.approval = Approval::Needed { token: token.into(), reason: reason.into() };
        self
    }

    pub(super) fn held_if(self, word: Option<(String, String)>) -> Self {
        match word {
            Some((token, reason)) => self.held(token, reason),
            None => self,
        }
    }

    pub(super) fn after(mut self, steps: impl IntoIterator<Item = StepId>) -> Self {
        self.0.waits.extend(steps.into_iter().map(|step| Wait { step, on: WaitOn::Success }));
        self
    }

    pub(super) fn after_end_of(mut self, steps: impl IntoIterator<Item = StepId>) -> Self {
        self.0.waits.extend(steps.into_iter().map(|step| Wait { step, on: WaitOn::End }));
        self
    }

    pub(super) fn given(mut self, preconditions: impl IntoIterator<Item = Precondition>) -> Self {
        self.0.preconditions.extend(preconditions);
        self
    }

    /// About how many bytes it works on.
    pub(super) fn about(mut self, bytes: Option<ByteSize>) -> Self {
        self.0.estimate.bytes = bytes;
        self
    }

    pub(super) fn bytes(&self) -> Option<ByteSize> {
        self.0.estimate.bytes
    }

    pub(super) fn sample_key(&self) -> String {
        self.0.action.sample_key()
    }

    pub(super) fn estimate(mut self, estimate: Estimate) -> Self {
        self.0.estimate = estimate;
        self
    }
}

impl Draft {
    pub(super) fn add(&mut self, NewStep(mut step): NewStep) -> StepId {
        // A plan with four thousand million steps does not fit into memory.
        let id = StepId(u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX));
        step.id = id;
        step.waits.sort();
        // Waiting for success includes waiting for the end; the two sort in that order.
        step.waits.dedup_by_key(|wait| wait.step);
        self.steps.push(step);
        id
    }

    /// Has each step wait for the success of those that `gates` gives for it; they come before it.
    pub(super) fn wait_for(&mut self, gates: impl Fn(&Action) -> Vec<StepId>) {
        for step in &mut self.steps {
            for gate in gates(&step.action).into_iter().filter(|gate| *gate < step.id) {
                step.waits.retain(|wait| wait.step != gate);
                step.waits.push(Wait { step: gate, on: WaitOn::Success });
            }
            step.waits.sort();
        }
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}
