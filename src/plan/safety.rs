//! The way back from a restore: a copy of what is there before it is overwritten, kept for a while, and a rollback that puts
//! it back.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::Planner;
use super::draft::NewStep;
use super::projection::{Place, Projected};
use super::request::{PlanError, Rollback};
use super::retention::Standing;
use crate::model::ids::{PolicyName, RepositoryName, RunId, ServiceName};
use crate::model::plan::Note;
use crate::model::step::{Action, Effect, Restore, RestoreTarget, SafetyCopy, StepId};
use crate::model::units::Span;

/// Long enough that a mistake is found after a holiday.
const KEPT: Span = Span::from_secs(14 * 24 * 3600);

impl<'a> Planner<'a> {
    /// A restore is put back from the repository that it came out of.
    pub(super) fn must_take_copies(&self, service: &ServiceName, repository: &RepositoryName) -> Result<(), PlanError> {
        match self.observation.unwritable.contains(repository) {
            true => Err(PlanError::NoCopy { service: service.clone(), repository: repository.clone() }),
            false => Ok(()),
        }
    }

    /// What copies the data of a service before a restore out of `repository`, and the run that it is kept as.
    pub(super) fn safety_copy(&self, service: &ServiceName, repository: &RepositoryName) -> (NewStep, RunId) {
        let run = self.free_run_id(|at| RunId::of_safety(at, service));
        let copy = SafetyCopy { repository: repository.clone(), service: service.clone(), run: run.clone() };
        let action = Action::SafetyCopy(copy);
        let estimate = self.estimate_of(&action.sample_key(), None);
        let stops = self.spec.services.get(service).is_some_and(|it| it.source.needs_docker());
        let step = NewStep::new(action)
            .because(format!("what is there can be put back for {}", KEPT.to_file_text()))
            .effect(if stops { Effect::Restarts } else { Effect::Safe })
            .estimate(estimate)
            .given(self.places.known.get(repository).and_then(|place| place.is(repository)));
        (step, run)
    }

    /// Puts back what the last restore, recovery or rollback has overwritten.
    pub(super) fn roll_back(&mut self, asked: &Rollback) -> Result<(), PlanError> {
        self.must_know_a_repository(asked.from.as_ref())?;
        let copies: Vec<(RepositoryName, Projected<'a>)> = self
            .places
            .known
            .iter()
            .filter(|(name, _)| asked.from.as_ref().is_none_or(|from| from == *name))
            .flat_map(|(name, place)| safety_runs(place).map(|run| (name.clone(), run.clone())))
            .filter(|(_, run)| run.started <= self.now && run.standing == Standing::Verified && !run.foreign)
            .collect();
        let Some(last) = copies.iter().map(|(_, run)| run.started).max() else {
            return Err(PlanError::NothingToRollBack { unknown: self.not_looked_at() });
        };
        let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
        for (repository, run) in copies.iter().filter(|(_, run)| run.started == last) {
            for (service, taken) in run.seen.into_iter().flat_map(|run| run.manifest.taken()) {
                let asked_for = asked.only.is_empty() || asked.only.contains(service);
                if !asked_for || !self.spec.services.contains_key(service) || !done.insert(service) {
                    continue;
                }
                if asked.safety {
                    self.must_take_copies(service, repository)?;
                }
                let copied = asked.safety.then(|| self.safety_copy(service, repository));
                let (before, safety) = match copied {
                    Some((step, run)) => {
                        let step = step.held(format!("rollback:{service}"), "before it is overwritten");
                        (Some(self.draft.add(step)), Some(run))
                    }
                    None => (None, None),
                };
                let action = Action::Restore(Restore {
                    repository: repository.clone(),
                    service: service.clone(),
                    run: run.run.clone(),
                    snapshot: taken.snapshot.clone(),
                    target: RestoreTarget::InPlace,
                    safety,
                });
                let age = Span::between(run.started, self.now);
                let estimate = self.estimate_of(&action.sample_key(), Some(taken.bytes()));
                let step = NewStep::new(action)
                    .because(format!("what it had {age} ago, before it was overwritten"))
                    .effect(Effect::OverwritesData)
                    .estimate(estimate)
                    .after(before)
                    .given(self.places.known.get(repository).and_then(|place| place.is(repository)))
                    .held(format!("rollback:{service}"), "overwrites what is there now");
                self.draft.add(step);
            }
        }
        match done.is_empty() {
            true => Err(PlanError::NothingToRollBack { unknown: self.not_looked_at() }),
            false => Ok(()),
        }
    }

    /// Safety copies that nobody has needed for so long are forgotten; nothing else rests on them.
    pub(super) fn forget_old_safety(&mut self, name: &RepositoryName) -> Option<StepId> {
        let runs: Vec<Projected<'a>> = safety_runs(self.places.known.get(name)?).cloned().collect();
        let old: BTreeSet<&RunId> =
            runs.iter().filter(|run| KEPT.after(run.started) <= self.now).map(|run| &run.run).collect();
        let policy = PolicyName::safety();
        if old.is_empty() || self.is_busy(name, &format!("{name}/{policy}/retention"), "forgetting") {
            return None;
        }
        let cause = format!("{} of {} are older than {}", old.len(), runs.len(), KEPT.to_file_text());
        let step = self.forget_step(name, &policy, &runs, &old).because(cause).by_rule();
        Some(self.add_exclusive(name, step))
    }

    /// That there are such copies, and until when.
    pub(super) fn note_safety(&self, name: &RepositoryName) -> Option<Note> {
        let runs: Vec<_> = safety_runs(self.places.known.get(name)?).collect();
        let newest = runs.iter().map(|run| run.started).max()?;
        let until = KEPT.after(newest).strftime("%Y-%m-%d");
        let copies = if runs.len() == 1 { "1 safety copy".to_owned() } else { format!("{} safety copies", runs.len()) };
        let text = format!("{copies}, the newest kept until {until}; to go back to it: devstack recover --rollback");
        Some(Note::new(format!("{name}/{}", PolicyName::SAFETY), text))
    }
}

fn safety_runs<'p, 'a>(place: &'p Place<'a>) -> impl Iterator<Item = &'p Projected<'a>> {
    place.runs_of(&PolicyName::safety()).iter()
}
