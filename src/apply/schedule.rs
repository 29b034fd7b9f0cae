//! Which step may run next, and what the end of one means for the others. Pure: it starts nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ids::RepositoryName;
use crate::model::outcome::StepOutcome;
use crate::model::step::{Action, Step, StepId, WaitOn};

/// A plan that no planner of ours makes: two steps of one number, a wait for a step that is not there, or a loop.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Malformed {
    #[error("the plan has two steps {0}: it was changed by hand; run `devstack plan` again")]
    Twice(StepId),
    #[error(
        "step {step} waits for {waits_for}, which is not in the plan: it was changed by hand; run `devstack plan` again"
    )]
    Missing { step: StepId, waits_for: StepId },
    #[error("step {0} waits for itself through others: the plan was changed by hand; run `devstack plan` again")]
    Loop(StepId),
}

/// How a repository is being used by the steps that run.
#[derive(Debug, Clone, Copy)]
enum Use {
    Shared(usize),
    Exclusive,
}

/// The state of an apply: every step is waiting, ready, running or ended.
pub(super) struct Schedule<'a> {
    steps: BTreeMap<StepId, &'a Step>,
    /// How many of its waits have not ended yet. An entry goes when the step becomes ready or ends.
    waiting: BTreeMap<StepId, usize>,
    dependents: BTreeMap<StepId, Vec<StepId>>,
    ready: BTreeSet<StepId>,
    running: BTreeSet<StepId>,
    outcomes: BTreeMap<StepId, StepOutcome>,
    in_use: BTreeMap<RepositoryName, Use>,
    /// The steps that nobody approved, with the token of each. They end like others once what they wait for has ended:
    /// what comes after them must not come before that.
    held: BTreeMap<StepId, String>,
}

impl<'a> Schedule<'a> {
    /// All steps waiting or ready, but for those `held` (with the token of each) that wait for nothing: they have ended,
    /// and they and what that skips are returned.
    pub fn new(
        steps: &'a [Step],
        held: BTreeMap<StepId, String>,
    ) -> Result<(Self, Vec<(StepId, StepOutcome)>), Malformed> {
        let mut by_id = BTreeMap::new();
        for step in steps {
            if by_id.insert(step.id, step).is_some() {
                return Err(Malformed::Twice(step.id));
            }
        }
        let mut waiting = BTreeMap::new();
        let mut dependents: BTreeMap<StepId, Vec<StepId>> = BTreeMap::new();
        for step in steps {
            // A step may wait for another on its end and on its success: that is one step to wait for.
            let waits: BTreeSet<StepId> = step.waits.iter().map(|wait| wait.step).collect();
            waiting.insert(step.id, waits.len());
            for waits_for in waits {
                if !by_id.contains_key(&waits_for) {
                    return Err(Malformed::Missing { step: step.id, waits_for });
                }
                dependents.entry(waits_for).or_default().push(step.id);
            }
        }
        check_for_loops(&waiting, &dependents)?;
        let (ready, held_now): (BTreeSet<StepId>, BTreeSet<StepId>) =
            waiting.iter().filter(|(_, open)| **open == 0).map(|(id, _)| *id).partition(|id| !held.contains_key(id));
        waiting.retain(|_, open| *open > 0);
        let (running, outcomes, in_use) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let mut schedule = Self { steps: by_id, waiting, dependents, ready, running, outcomes, in_use, held };
        let mut ended = Vec::new();
        for id in held_now {
            let outcome = schedule.without_running(id, StepOutcome::Interrupted);
            ended.push((id, outcome.clone()));
            ended.extend(schedule.end(id, outcome));
        }
        Ok((schedule, ended))
    }

    /// The lowest step that may run now, which counts as running from here on.
    pub fn next(&mut self) -> Option<&'a Step> {
        let id = self.ready.iter().copied().find(|id| self.has_room_for(&self.steps[id].action))?;
        self.ready.remove(&id);
        self.running.insert(id);
        let step = self.steps[&id];
        for repository in repositories_of(&step.action) {
            let before = self.in_use.get(repository).copied();
            let after = match before {
                _ if step.action.is_exclusive() => Use::Exclusive,
                Some(Use::Shared(count)) => Use::Shared(count + 1),
                Some(Use::Exclusive) | None => Use::Shared(1),
            };
            self.in_use.insert(repository.clone(), after);
        }
        Some(step)
    }

    /// A step that was running has ended. Returns the steps that end with it without running: held, or skipped because
    /// of it, each after the one that it waits for.
    pub fn finish(&mut self, id: StepId, outcome: StepOutcome) -> Vec<(StepId, StepOutcome)> {
        self.running.remove(&id);
        for repository in repositories_of(&self.steps[&id].action) {
            match self.in_use.get_mut(repository) {
                Some(Use::Shared(count)) if *count > 1 => *count -= 1,
                _ => {
                    self.in_use.remove(repository);
                }
            }
        }
        self.end(id, outcome)
    }

    /// A step is held or skipped only once all its waits have ended, so that order holds through it.
    fn end(&mut self, id: StepId, outcome: StepOutcome) -> Vec<(StepId, StepOutcome)> {
        let mut with_it = Vec::new();
        let mut ended = vec![(id, outcome)];
        while let Some((id, outcome)) = ended.pop() {
            self.outcomes.insert(id, outcome);
            for dependent in self.dependents.get(&id).into_iter().flatten().copied() {
                let Some(open) = self.waiting.get_mut(&dependent) else { continue };
                *open -= 1;
                if *open > 0 {
                    continue;
                }
                self.waiting.remove(&dependent);
                let let_down = self.root_of_failure(dependent);
                if let_down.is_none() && !self.held.contains_key(&dependent) {
                    self.ready.insert(dependent);
                    continue;
                }
                let skipped = let_down.map(|because| StepOutcome::Skipped { because });
                let outcome = self.without_running(dependent, skipped.unwrap_or(StepOutcome::Interrupted));
                with_it.push((dependent, outcome.clone()));
                ended.push((dependent, outcome));
            }
        }
        with_it
    }

    /// The outcome of a step that never ran: what nobody approved is held, whatever else stood in its way.
    fn without_running(&self, id: StepId, otherwise: StepOutcome) -> StepOutcome {
        match self.held.get(&id) {
            Some(token) => StepOutcome::Held { token: token.clone() },
            None => otherwise,
        }
    }

    /// Ends everything that has not been started, in the order of the numbers: nothing more will run. What waits for a
    /// step that still runs is interrupted too, not skipped: that step is not to blame.
    pub fn interrupt(&mut self) -> Vec<(StepId, StepOutcome)> {
        self.waiting.clear();
        self.ready.clear();
        let not_started = |id: &&StepId| !self.outcomes.contains_key(id) && !self.running.contains(id);
        let rest: Vec<StepId> = self.steps.keys().filter(not_started).copied().collect();
        rest.into_iter()
            .map(|id| {
                let outcome = self.without_running(id, StepOutcome::Interrupted);
                self.outcomes.insert(id, outcome.clone());
                (id, outcome)
            })
            .collect()
    }

    /// The outcomes of the steps that `step` waits for, as far as they have ended.
    pub fn outcomes_for(&self, step: &Step) -> BTreeMap<StepId, StepOutcome> {
        step.waits.iter().filter_map(|wait| Some((wait.step, self.outcomes.get(&wait.step)?.clone()))).collect()
    }

    /// The outcome of every step, in the order of the plan.
    pub fn into_outcomes(mut self, steps: &[Step]) -> Vec<(StepId, Action, StepOutcome)> {
        steps
            .iter()
            .map(|step| {
                let outcome = self.outcomes.remove(&step.id).unwrap_or(StepOutcome::Interrupted);
                (step.id, step.action.clone(), outcome)
            })
            .collect()
    }

    fn has_room_for(&self, action: &Action) -> bool {
        repositories_of(action).all(|repository| match self.in_use.get(repository) {
            None => true,
            Some(Use::Exclusive) => false,
            Some(Use::Shared(_)) => !action.is_exclusive(),
        })
    }

    /// The step whose end is to blame for `id` not running; the lowest one where there are several.
    fn root_of_failure(&self, id: StepId) -> Option<StepId> {
        let needed = self.steps[&id].waits.iter().filter(|wait| wait.on == WaitOn::Success).map(|wait| wait.step);
        needed
            .filter_map(|needed| match self.outcomes.get(&needed) {
                Some(outcome) if outcome.is_success() => None,
                Some(StepOutcome::Skipped { because }) => Some(*because),
                Some(_) | None => Some(needed),
            })
            .min()
    }
}

/// The repositories that a step writes or reads. Readers count as well: a prune must not delete what a copy or a
/// restore beside it is reading.
fn repositories_of(action: &Action) -> impl Iterator<Item = &RepositoryName> {
    let read = match action {
        Action::Copy { from, to, .. } if from != to => Some(from),
        Action::Restore(restore) => Some(&restore.repository),
        _ => None,
    };
    action.writes().into_iter().chain(read)
}

/// Takes away what waits for nothing until nothing is left; what stays is in a loop, or behind one.
fn check_for_loops(
    waiting: &BTreeMap<StepId, usize>,
    dependents: &BTreeMap<StepId, Vec<StepId>>,
) -> Result<(), Malformed> {
    let mut open = waiting.clone();
    let mut free: Vec<StepId> = open.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    while let Some(id) = free.pop() {
        open.remove(&id);
        for dependent in dependents.get(&id).into_iter().flatten() {
            if let Some(count) = open.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    free.push(*dependent);
                }
            }
        }
    }
    match open.keys().next() {
        None => Ok(()),
        Some(id) => Err(Malformed::Loop(*id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::plans::{end, prove, prune, restore, step, success};
    use crate::model::outcome::{Done, FailureKind};

    fn done() -> StepOutcome {
        StepOutcome::Done(Done::default())
    }

    fn failed() -> StepOutcome {
        StepOutcome::Failed { kind: FailureKind::Permanent, reason: "no".into() }
    }

    fn refusal(steps: &[Step]) -> Option<Malformed> {
        Schedule::new(steps, BTreeMap::new()).err()
    }

    #[test]
    fn malformed_plans_are_told_apart_and_never_hang() {
        let twice = [step(1, prove("a"), &[]), step(1, prove("a"), &[])];
        assert_eq!(refusal(&twice), Some(Malformed::Twice(StepId(1))));
        let missing = [step(1, prove("a"), &[end(9)])];
        let expected = Malformed::Missing { step: StepId(1), waits_for: StepId(9) };
        assert_eq!(refusal(&missing), Some(expected));
        let looped =
            [step(1, prove("a"), &[]), step(2, prove("a"), &[end(1), success(3)]), step(3, prove("a"), &[success(2)])];
        assert_eq!(refusal(&looped), Some(Malformed::Loop(StepId(2))));
    }

    #[test]
    fn a_prune_runs_alone_among_those_who_write_or_read_its_repository() {
        let steps = [
            step(1, prove("a"), &[]),
            step(2, prune("a"), &[]),
            step(3, prune("b"), &[]),
            step(4, restore("a"), &[]),
            step(5, restore("b"), &[]),
        ];
        let mut schedule = Schedule::new(&steps, BTreeMap::new()).unwrap().0;
        let started: Vec<u32> = std::iter::from_fn(|| schedule.next()).map(|step| step.id.0).collect();
        assert_eq!(started, [1, 3, 4], "2 waits for 1 and 4; 5 waits for 3");
        schedule.finish(StepId(1), done());
        assert!(schedule.next().is_none(), "a restore still reads a");
        schedule.finish(StepId(4), done());
        assert_eq!(schedule.next().unwrap().id, StepId(2));
        schedule.finish(StepId(3), done());
        assert_eq!(schedule.next().unwrap().id, StepId(5));
    }

    #[test]
    fn a_step_is_skipped_only_when_all_its_waits_have_ended_and_names_the_root() {
        let steps = [
            step(1, prove("a"), &[]),
            step(2, prove("a"), &[]),
            step(3, prove("a"), &[success(1), end(2)]),
            step(4, prove("a"), &[success(3)]),
            step(5, prove("a"), &[end(4)]),
        ];
        let mut schedule = Schedule::new(&steps, BTreeMap::new()).unwrap().0;
        assert!(schedule.next().is_some() && schedule.next().is_some());
        assert_eq!(schedule.finish(StepId(1), failed()), []);
        let skipped = StepOutcome::Skipped { because: StepId(1) };
        let expected = [(StepId(3), skipped.clone()), (StepId(4), skipped)];
        assert_eq!(schedule.finish(StepId(2), done()), expected);
        assert_eq!(schedule.next().unwrap().id, StepId(5));
    }

    #[test]
    fn a_held_step_ends_once_and_not_before_what_it_waits_for() {
        let steps = [
            step(1, prove("a"), &[]),
            step(2, prune("a"), &[]),
            step(3, prune("a"), &[success(2)]),
            step(4, prune("a"), &[end(1)]),
            step(5, prove("b"), &[end(4)]),
        ];
        let token = |id: u32| (StepId(id), format!("t{id}"));
        let held = |id: u32| (StepId(id), StepOutcome::Held { token: format!("t{id}") });
        let (mut schedule, ended) = Schedule::new(&steps, [token(2), token(3), token(4)].into()).unwrap();
        assert_eq!(ended, [held(2), held(3)]);
        assert_eq!(schedule.next().unwrap().id, StepId(1));
        assert!(schedule.next().is_none(), "5 comes after 4, and 4 after 1");
        assert_eq!(schedule.finish(StepId(1), done()), [held(4)]);
        assert_eq!(schedule.next().unwrap().id, StepId(5));
    }
}
