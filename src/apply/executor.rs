//! Runs the steps of a plan as they become ready, several at once. It decides nothing: which steps, in which order, and
//! on whose word all stand in the plan and the approvals.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};

use super::journal::{ApplyId, Counts, Entry, Journal};
use super::retry::Backoff;
use super::runner::{StepError, StepRunner};
use super::schedule::{Malformed, Schedule};
use crate::model::cancel::Cancel;
use crate::model::consent;
use crate::model::outcome::{ApplyOutcome, Event, FailureKind, StepOutcome};
use crate::model::plan::Plan;
use crate::model::retention::LONGEST_RUN;
use crate::model::step::{Action, Approval, Step, StepId};
use crate::model::units::Span;

mod attempt;

use attempt::{Ended, Job, Told};

/// What somebody has agreed to, beyond what needs no word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Approvals {
    /// From `--approve`, or typed: `KIND:RESOURCE`, or `KIND` alone for all of a kind.
    pub tokens: BTreeSet<String>,
    /// The whole plan was read: a saved plan, or that of a recovery which goes on.
    pub everything: bool,
}

impl Approvals {
    /// The token that is missing, if the step is held.
    pub(crate) fn missing<'a>(&self, step: &'a Step) -> Option<&'a str> {
        match &step.approval {
            Approval::NotNeeded | Approval::ByRule => None,
            Approval::Needed { token, .. } => (!self.everything && !self.covers(token)).then_some(token),
        }
    }

    pub(crate) fn covers(&self, token: &str) -> bool {
        self.tokens.iter().any(|word| consent::covers(word, token))
    }
}

/// How long a step may take, all its tries together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// For steps whose time grows with the data.
    pub data: Duration,
    /// For the others: what takes minutes there hangs.
    pub small: Duration,
}

impl Default for TimeLimits {
    /// Ten minutes leave room for a passphrase to be typed into an agent, and for a slow store.
    fn default() -> Self {
        Self { data: LONGEST_RUN.into(), small: Duration::from_secs(600) }
    }
}

impl TimeLimits {
    fn of(&self, action: &Action) -> Duration {
        match action {
            Action::Take(_)
            | Action::Copy { .. }
            | Action::Prove { .. }
            | Action::ReadData { .. }
            | Action::Prune { .. }
            | Action::SafetyCopy(_)
            | Action::Clear { .. }
            | Action::Restore(_)
            // It has a limit of its own.
            | Action::Hook(_)
            // A query that counts reads a large table from its beginning to its end.
            | Action::VerifyStack { .. } => self.data,
            Action::StartColima { .. }
            | Action::StartDocker { .. }
            | Action::CreateContainers { .. }
            | Action::StartContainer { .. }
            | Action::RotateSecretId { .. }
            | Action::GenerateKey { .. }
            | Action::CreateRepository { .. }
            | Action::Adopt { .. }
            | Action::AddKey { .. }
            | Action::RemoveKey { .. }
            | Action::ApproveRule { .. }
            | Action::SealInterrupted { .. }
            | Action::Seal { .. }
            | Action::AcceptShrink { .. }
            | Action::AcceptRemoved { .. }
            | Action::Forget { .. } => self.small,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecuteOptions {
    /// Steps that run at once, at least one.
    pub parallel: usize,
    pub backoff: Backoff,
    pub limits: TimeLimits,
    /// Said in the journal, where its times count and it is no apply.
    pub drill: bool,
}

impl Default for ExecuteOptions {
    /// Eight at once: most of a take is waiting, for a server's own tool or for Redis' pause before a dump. With seven
    /// services on two processors, of four at once the one that waits longest began last. More would hold more memory,
    /// some 20 MB each, for nothing.
    fn default() -> Self {
        Self { parallel: 8, backoff: Backoff::default(), limits: TimeLimits::default(), drill: false }
    }
}

/// Carries `plan` out and returns when every step has ended. Nothing runs that is not in the journal first. An
/// interruption starts nothing more and waits for what runs; a runner that panics is a failed step.
///
/// Do not drop the future before it is done: steps that run would go on unwatched.
pub async fn execute(
    plan: &Plan,
    approvals: &Approvals,
    runner: Arc<dyn StepRunner>,
    journal: &Journal,
    options: ExecuteOptions,
    cancel: Cancel,
    events: impl Fn(Event) + Send + Sync,
) -> ApplyOutcome {
    let clock = Instant::now();
    let started = Timestamp::now();
    let apply = ApplyId::random();
    let held = plan.steps.iter().filter_map(|step| Some((step.id, approvals.missing(step)?.to_owned()))).collect();
    let (schedule, not_approved) = match Schedule::new(&plan.steps, held) {
        Ok(both) => both,
        Err(malformed) => return refused(plan, started, &malformed),
    };
    let opened = write(
        journal,
        &apply,
        Entry::ApplyStarted {
            plan: plan.id.clone(),
            stack: plan.stack.clone(),
            pid: std::process::id(),
            devstack_version: env!("CARGO_PKG_VERSION").to_owned(),
            steps: plan.steps.len(),
            drill: options.drill,
        },
    );
    let unjournalled = opened.await.err();

    let mut apply = Apply { plan, runner, journal, options, cancel, events, id: apply, schedule, unjournalled };
    apply.tell_not_started(&not_approved);
    apply.run_what_is_ready().await;

    let Apply { schedule, cancel, id, mut unjournalled, .. } = apply;
    let interrupted = cancel.is_cancelled();
    let steps = schedule.into_outcomes(&plan.steps);
    let took = Span::from(clock.elapsed());
    if unjournalled.is_none() {
        let counts = Counts::of(steps.iter().map(|(_, _, outcome)| outcome));
        unjournalled = write(journal, &id, Entry::ApplyEnded { took, counts, interrupted }).await.err();
    }
    ApplyOutcome { plan: plan.id.clone(), started, took, steps, interrupted, unjournalled }
}

/// A malformed plan is refused as a whole: which of its steps are the right ones cannot be told.
fn refused(plan: &Plan, started: Timestamp, malformed: &Malformed) -> ApplyOutcome {
    let outcome = StepOutcome::Failed { kind: FailureKind::Permanent, reason: malformed.to_string() };
    ApplyOutcome {
        plan: plan.id.clone(),
        started,
        took: Span::ZERO,
        steps: plan.steps.iter().map(|step| (step.id, step.action.clone(), outcome.clone())).collect(),
        interrupted: false,
        unjournalled: None,
    }
}

/// An apply under way.
struct Apply<'a, E> {
    plan: &'a Plan,
    runner: Arc<dyn StepRunner>,
    journal: &'a Journal,
    options: ExecuteOptions,
    cancel: Cancel,
    events: E,
    id: ApplyId,
    schedule: Schedule<'a>,
    /// Why the journal could not be written. From then on nothing is started.
    unjournalled: Option<String>,
}

impl<E: Fn(Event) + Send + Sync> Apply<'_, E> {
    async fn run_what_is_ready(&mut self) {
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        let mut ids: HashMap<Id, StepId> = HashMap::new();
        loop {
            self.notice_interruption();
            while running.len() < self.options.parallel.max(1) && !self.cancel.is_cancelled() {
                let Some(step) = self.schedule.next() else { break };
                match &self.unjournalled {
                    Some(reason) => {
                        let ended = Ended::not_started(reason.clone());
                        self.ended(step.id, ended);
                    }
                    None => {
                        let job = self.job(step, tell.clone());
                        ids.insert(running.spawn(job.carry_out()).id(), step.id);
                    }
                }
            }
            tokio::select! {
                biased;
                Some(what) = told.recv() => self.tell(what),
                joined = running.join_next_with_id() => {
                    let Some(joined) = joined else { break };
                    // What the step has told goes out before its end does.
                    while let Ok(what) = told.try_recv() {
                        self.tell(what);
                    }
                    let (task, ended) = joined.unwrap_or_else(|error| (error.id(), broken(&error)));
                    if let Some(id) = ids.remove(&task) {
                        self.ended(id, ended);
                    }
                }
            }
        }
        // Set after the last look, with nothing running any more.
        self.notice_interruption();
    }

    fn job(&self, step: &Step, tell: mpsc::UnboundedSender<Told>) -> Job {
        Job {
            step: step.clone(),
            runner: self.runner.clone(),
            journal: self.journal.clone(),
            apply: self.id.clone(),
            backoff: self.options.backoff,
            limit: self.options.limits.of(&step.action),
            interruption: self.cancel.clone(),
            outcomes: self.schedule.outcomes_for(step),
            tell,
        }
    }

    fn ended(&mut self, id: StepId, ended: Ended) {
        // Before the end is counted: what waited for an interrupted step was interrupted, not let down by it.
        self.notice_interruption();
        if self.unjournalled.is_none() {
            self.unjournalled = ended.unjournalled;
        }
        self.tell_ended(id, &ended.outcome, ended.at, ended.took);
        let with_it = self.schedule.finish(id, ended.outcome);
        self.tell_not_started(&with_it);
    }

    fn notice_interruption(&mut self) {
        if self.cancel.is_cancelled() {
            let rest = self.schedule.interrupt();
            self.tell_not_started(&rest);
        }
    }

    fn tell(&self, told: Told) {
        (self.events)(told.into_event());
    }

    fn tell_not_started(&self, outcomes: &[(StepId, StepOutcome)]) {
        for (id, outcome) in outcomes {
            self.tell_ended(*id, outcome, Timestamp::now(), Span::ZERO);
        }
    }

    fn tell_ended(&self, id: StepId, outcome: &StepOutcome, at: Timestamp, took: Span) {
        let Some(step) = self.plan.step(id) else { return };
        let (verb, resource) = (step.action.verb().to_owned(), step.action.resource());
        (self.events)(Event::Ended { step: id, verb, resource, at, took, outcome: outcome.clone() });
    }
}

/// The task around a step died: the step itself cannot do that, so it is a fault of the executor, and still no reason
/// to lose the other steps.
fn broken(error: &JoinError) -> Ended {
    let reason = format!("the step was lost: {error}; this is a fault of devstack, please report it");
    Ended::failed(FailureKind::Permanent, reason)
}

/// Writes a record on a blocking thread, since it waits for the disk.
async fn write(journal: &Journal, apply: &ApplyId, entry: Entry) -> Result<(), String> {
    let (journal, apply) = (journal.clone(), apply.clone());
    match tokio::task::spawn_blocking(move || journal.append(Some(&apply), entry)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(StepError::permanent(error).to_string()),
        Err(error) => Err(format!("the journal could not be written: {error}")),
    }
}

#[cfg(test)]
mod tests;
