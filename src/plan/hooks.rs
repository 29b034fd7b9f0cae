//! Hooks as steps of a run: before its takes and after them. Nothing else than a take brings one about.

use super::Planner;
use super::draft::NewStep;
use crate::model::hook::{Hook, HookStep, Hooks, OnFailure, Phase};
use crate::model::ids::{PolicyName, RunId, ServiceName};
use crate::model::step::{Action, Approval, Precondition, StepId};

/// Whose hooks, and of which run.
pub(super) struct Of<'o> {
    pub run: &'o RunId,
    pub policy: &'o PolicyName,
    /// None: the policy's own.
    pub service: Option<&'o ServiceName>,
    /// As of the take itself: a run that another apply has taken meanwhile gets no hook.
    pub given: &'o [Precondition],
    /// What the take is held for, its hooks are held for too.
    pub approval: Approval,
}

impl Planner<'_> {
    /// One after the other, each only where the one before it succeeded. `first` is what has to be done before the first.
    pub(super) fn hooks_before(&mut self, hooks: Option<&Hooks>, of: &Of<'_>, first: &[StepId]) -> Vec<StepId> {
        let mut all: Vec<StepId> = Vec::new();
        for (index, hook) in hooks.into_iter().flat_map(|hooks| hooks.before.iter().enumerate()) {
            let waits = all.last().map_or(first, std::slice::from_ref).to_vec();
            let step = step(hook, index, Phase::Before, of).after(waits);
            all.push(self.draft.add(step));
        }
        all
    }

    /// After the takes, however they ended, and one after the other, however each ended.
    pub(super) fn hooks_after(&mut self, hooks: Option<&Hooks>, of: &Of<'_>, takes: &[StepId]) -> Vec<StepId> {
        let mut all = Vec::new();
        for (index, hook) in hooks.into_iter().flat_map(|hooks| hooks.after.iter().enumerate()) {
            let before = takes.iter().chain(&all).copied().collect::<Vec<_>>();
            let step = step(hook, index, Phase::After, of).after_end_of(before);
            all.push(self.draft.add(step));
        }
        all
    }
}

fn step(hook: &Hook, index: usize, phase: Phase, of: &Of<'_>) -> NewStep {
    let (run, policy, service) = (of.run.clone(), of.policy.clone(), of.service.cloned());
    let place = hook.container.as_ref().map_or_else(String::new, |container| format!(" in {container}"));
    let meaning = match (hook.on_failure, phase) {
        (OnFailure::Warn, _) => "a failure is a warning",
        (OnFailure::Fail, Phase::Before) => "where it fails nothing is taken",
        (OnFailure::Fail, Phase::After) => "where it fails what was taken is kept",
    };
    let step = HookStep { run, policy, service, phase, index, hook: hook.clone() };
    let cause = format!(
        "`{}`{place}, {} {} is taken; at most {}, and {meaning}",
        hook.shown(),
        phase.as_str(),
        step.owner(),
        hook.timeout()
    );
    let new = NewStep::new(Action::Hook(Box::new(step))).because(cause).given(of.given.iter().cloned());
    match &of.approval {
        Approval::Needed { token, reason } => new.held(token.clone(), reason.clone()),
        Approval::NotNeeded | Approval::ByRule => new,
    }
}
