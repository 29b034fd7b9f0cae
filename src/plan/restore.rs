//! A service out of a run: beside the live data, or over it when somebody says so.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Planner;
use super::draft::NewStep;
use super::projection::{Place, Projected};
use super::request::{PlanError, Selection};
use super::retention::Standing;
use crate::model::ids::{RepositoryName, RunId, ServiceName, StackName};
use crate::model::observation::{Observed, SourceState};
use crate::model::origin::Origin;
use crate::model::run::Taken;
use crate::model::step::{Action, Effect, Precondition, Restore, RestoreTarget};
use crate::model::units::Span;
use crate::spec::file::Source;

/// A run to restore from.
pub(super) struct Found<'a> {
    pub repository: RepositoryName,
    pub run: Projected<'a>,
    pub taken: &'a Taken,
}

impl<'a> Planner<'a> {
    /// All of the services, or none: each that can't be restored is named.
    pub(super) fn restores(
        &mut self,
        services: &BTreeMap<ServiceName, RestoreTarget>,
        selection: &Selection,
        from: Option<&RepositoryName>,
        safety: bool,
    ) -> Result<(), PlanError> {
        self.must_know_a_repository(from)?;
        let refused: Vec<PlanError> = services
            .iter()
            .filter_map(|(service, target)| self.restore(service, selection, target, from, safety).err())
            .collect();
        if refused.is_empty() { Ok(()) } else { Err(PlanError::together(refused, services.len())) }
    }

    /// The one that is named, or any.
    pub(super) fn must_know_a_repository(&self, from: Option<&RepositoryName>) -> Result<(), PlanError> {
        if let Some(name) = from {
            if let Some(reason) = self.places.unknown.get(name) {
                return Err(PlanError::UnknownRepository { repository: name.clone(), reason: reason.clone() });
            }
            if !self.places.known.contains_key(name) {
                return Err(self.no_such_repository(name));
            }
        }
        if self.places.known.is_empty() {
            return Err(PlanError::NothingKnown { unknown: self.places.unknown.clone() });
        }
        Ok(())
    }

    fn restore(
        &mut self,
        service: &ServiceName,
        selection: &Selection,
        target: &RestoreTarget,
        from: Option<&RepositoryName>,
        safety: bool,
    ) -> Result<(), PlanError> {
        let found = self.selected(service, selection, from)?;
        // Of files that one is gone says nothing of the others: those that are there stay.
        let missing = RestoreTarget::Missing;
        let target = if *target == RestoreTarget::InPlace && self.is_partly_gone(service) { &missing } else { target };
        let overwrites = *target == RestoreTarget::InPlace && self.has_data(service);
        if overwrites && safety {
            self.must_take_copies(service, &found.repository)?;
        }
        let copied = (overwrites && safety).then(|| self.safety_copy(service, &found.repository));
        let (before, safety) = match copied {
            Some((step, run)) => (Some(step), Some(run)),
            None => (None, None),
        };
        let step = self.restore_step(service, &found, target, selection, from, safety);
        let step = match target {
            RestoreTarget::Beside { folder } => step.because(format!("into {}", folder.display())),
            RestoreTarget::InPlace | RestoreTarget::Missing => self.over_live_data(service, step)?,
        };
        // By the same word: a server is not stopped for a copy that nothing comes after.
        let copied_by_word = |copy: NewStep| copy.held(format!("restore:{service}"), "before it is overwritten");
        let before = before.map(|copy| self.draft.add(copied_by_word(copy)));
        self.draft.add(step.after(before));
        Ok(())
    }

    /// Why nothing is planned over data that could not be inspected.
    pub(super) fn unseen(&self, service: &ServiceName, reason: &str) -> PlanError {
        let needs_docker = self.spec.services.get(service).is_some_and(|it| it.source.needs_docker());
        let (services, reason) = (vec![service.clone()], reason.to_owned());
        match &self.observation.engine {
            // Each source has its own words for it; the cause is one.
            Some(Observed::Unknown { reason }) if needs_docker => {
                PlanError::NoEngine { services, reason: reason.clone() }
            }
            _ => PlanError::UnknownTarget { services, reason },
        }
    }

    fn is_partly_gone(&self, service: &ServiceName) -> bool {
        let source = self.spec.services.get(service).map(|service| &service.source);
        matches!(source, Some(Source::Files(_) | Source::Certificates(_)))
            && matches!(self.observation.services.get(service), Some(Observed::Known(SourceState::Gone)))
    }

    pub(super) fn has_data(&self, service: &ServiceName) -> bool {
        matches!(
            self.observation.services.get(service),
            Some(Observed::Known(SourceState::HasData { .. } | SourceState::Unfinished { .. }))
        )
    }

    /// The run that a selection means for a service.
    pub(super) fn selected(
        &self,
        service: &ServiceName,
        selection: &Selection,
        from: Option<&RepositoryName>,
    ) -> Result<Found<'a>, PlanError> {
        match selection {
            Selection::Newest => self.newest_good(service, None, from),
            Selection::At(at) => self.newest_good(service, Some(*at), from),
            Selection::Run(run) => self.named(service, run, from),
            Selection::Latest => self.latest(service, from),
        }
    }

    /// The step, with all that is to be said of the run; whether it needs a word is for the caller to say.
    pub(super) fn restore_step(
        &self,
        service: &ServiceName,
        found: &Found<'a>,
        target: &RestoreTarget,
        selection: &Selection,
        from: Option<&RepositoryName>,
        safety: Option<RunId>,
    ) -> NewStep {
        let bytes = found.taken.bytes();
        let action = Action::Restore(Restore {
            repository: found.repository.clone(),
            service: service.clone(),
            run: found.run.run.clone(),
            snapshot: found.taken.snapshot.clone(),
            target: target.clone(),
            safety,
        });
        let estimate = self.estimate_of(&action.sample_key(), Some(bytes));
        let mut step = NewStep::new(action)
            .because(format!(
                "run {} in {}, {} old",
                found.run.run,
                found.repository,
                Span::between(found.run.started, self.now)
            ))
            .estimate(estimate)
            .given(self.places.known.get(&found.repository).and_then(|place| place.is(&found.repository)));
        match found.run.standing {
            Standing::Verified => {}
            Standing::Unproven => step = step.because("the run was never verified"),
            Standing::Damaged => step = step.because("the run's last verification found damage"),
            Standing::Incomplete => step = step.because(format!("the run {}", lacking(&found.run))),
        }
        if let Some(origin) = self.taken_elsewhere(found) {
            step = step.because(format!("taken at {origin}, and not here"));
        }
        if let Some(newer) = self.newer_than(found, service, selection, from) {
            step = step.because(newer);
        }
        if found.run.suspect.contains(service) {
            step = step.because("something was gone from its source, or had shrunk, and nobody has accepted that");
        }
        step
    }

    /// Where a run was taken, if not here: of a stack that has moved as well.
    fn taken_elsewhere(&self, found: &Found<'a>) -> Option<&'a Origin> {
        let here = self.observation.origin.as_ref()?;
        let origin = found.run.seen?.manifest.origin.as_ref()?;
        let is_carried = self.observation.carried.contains(&found.repository);
        (!is_carried && !origin.is_same(here)).then_some(origin)
    }

    fn over_live_data(&self, service: &ServiceName, step: NewStep) -> Result<NewStep, PlanError> {
        if !self.spec.services.contains_key(service) {
            return Err(PlanError::NoPlace { service: service.clone() });
        }
        let token = format!("restore:{service}");
        let unknown = |reason: String| self.unseen(service, &reason);
        match self.observation.services.get(service) {
            None => Err(unknown("it was not looked at".to_owned())),
            Some(Observed::Unknown { reason }) => Err(unknown(reason.clone())),
            Some(Observed::Known(SourceState::HasData { bytes })) => {
                let size = bytes.map_or_else(|| "the".to_owned(), |bytes| format!("{bytes} of"));
                let reason = format!("overwrites {size} live data");
                let step = step.effect(Effect::OverwritesData).given(self.same_containers(service));
                Ok(step.held(token, reason))
            }
            // What was there before it may be among what is there.
            Some(Observed::Known(SourceState::Unfinished { .. })) => {
                let reason = "overwrites what a restore that has not ended has left";
                let step = step.effect(Effect::OverwritesData).given(self.same_containers(service));
                Ok(step.held(token, reason))
            }
            // Nothing is there now. Something may be by the time it runs, and then nothing is written.
            Some(Observed::Known(SourceState::Gone)) => {
                let unseen = Precondition::SourceHasNoData { service: service.clone() };
                Ok(step.given([unseen]).because("in place; the source is gone"))
            }
            Some(Observed::Known(SourceState::Empty)) => {
                let unseen = Precondition::SourceHasNoData { service: service.clone() };
                Ok(step.given([unseen]).because("in place; the source is empty"))
            }
            // Moved, and not overwritten: nothing of it is lost.
            Some(Observed::Known(SourceState::Broken)) => {
                let broken = Precondition::SourceIsLost { service: service.clone() };
                Ok(step.given([broken]).because("in place; what is there is damaged, and is moved aside"))
            }
        }
    }

    /// That a newer run holds the service too, and why it was not chosen.
    fn newer_than(
        &self,
        found: &Found<'a>,
        service: &ServiceName,
        selection: &Selection,
        from: Option<&RepositoryName>,
    ) -> Option<String> {
        let until = match selection {
            Selection::Newest => self.now,
            Selection::At(at) => *at,
            Selection::Run(_) | Selection::Latest => return None,
        };
        let newer = self.of_policies(service, from).filter(|other| {
            other.run.age_key() > found.run.age_key() && other.run.run != found.run.run && other.run.started <= until
        });
        let newest = newer.max_by(|a, b| a.run.age_key().cmp(&b.run.age_key()))?;
        let why = match newest.run.standing {
            Standing::Incomplete => lacking(&newest.run),
            Standing::Damaged => "is damaged".to_owned(),
            Standing::Unproven => "was never verified".to_owned(),
            Standing::Verified => format!("is suspect, since {} shrank", names(&newest.run.suspect)),
        };
        Some(format!("not from the newer {}, which {why}; --backup {} takes it", newest.run.run, newest.run.run))
    }

    /// The newest complete, verified run that nobody has doubts about.
    fn newest_good(
        &self,
        service: &ServiceName,
        at: Option<Timestamp>,
        from: Option<&RepositoryName>,
    ) -> Result<Found<'a>, PlanError> {
        let until = at.unwrap_or(self.now).min(self.now);
        let good = self.of_policies(service, from).filter(|found| {
            found.run.standing == Standing::Verified && found.run.suspect.is_empty() && found.run.started <= until
        });
        good.max_by(|a, b| a.run.age_key().cmp(&b.run.age_key()).then_with(|| b.repository.cmp(&a.repository)))
            .ok_or_else(|| self.nothing_to_restore(service, at))
    }

    fn nothing_to_restore(&self, service: &ServiceName, at: Option<Timestamp>) -> PlanError {
        let facts = || self.places.known.values().filter_map(Place::facts);
        let is_new = facts().all(|facts| facts.runs.is_empty());
        let mut others: Vec<StackName> =
            facts().filter(|_| is_new).flat_map(|facts| &facts.others).map(|other| other.stack.clone()).collect();
        others.sort();
        others.dedup();
        let any = self.holding(service, None).next().is_some();
        PlanError::NothingToRestore { service: service.clone(), at, unknown: self.not_looked_at(), any, others }
    }

    /// The newest whatever is known of it, from the repository where it stands best.
    fn latest(&self, service: &ServiceName, from: Option<&RepositoryName>) -> Result<Found<'a>, PlanError> {
        let newest =
            self.of_policies(service, from).map(|found| found.run).max_by(|a, b| a.age_key().cmp(&b.age_key()));
        match newest {
            Some(run) => self.named(service, &run.run, from),
            None => Err(self.nothing_to_restore(service, None)),
        }
    }

    /// A run by its id, from the repository where it stands best.
    fn named(&self, service: &ServiceName, run: &RunId, from: Option<&RepositoryName>) -> Result<Found<'a>, PlanError> {
        let places = self.places.known.iter().filter(|(name, _)| from.is_none_or(|from| from == *name));
        let all: Vec<_> = places.flat_map(|(_, place)| place.all_runs()).filter(|it| it.run == *run).collect();
        if all.is_empty() {
            return Err(PlanError::NoSuchRun { run: run.clone(), unknown: self.not_looked_at() });
        }
        // What a run that lacks another service holds of this one is whole all the same, and who names it knows.
        let holds = |it: &&Projected| it.seen.is_some_and(|run| run.manifest.taken_of(service).is_some());
        if all.iter().all(|it| !it.is_complete()) && !all.iter().any(holds) {
            let missing: Vec<String> = all
                .iter()
                .filter_map(|it| it.seen)
                .flat_map(|it| it.manifest.missing())
                .map(|(service, reason)| format!("{service}: {reason}"))
                .take(3)
                .collect();
            let reason = if missing.is_empty() { "it was interrupted".to_owned() } else { missing.join("; ") };
            return Err(PlanError::Incomplete { run: run.clone(), reason });
        }
        self.holding(service, from)
            .filter(|found| found.run.run == *run)
            .min_by(|a, b| (a.run.standing, &a.repository).cmp(&(b.run.standing, &b.repository)))
            .ok_or_else(|| PlanError::NotInRun { run: run.clone(), service: service.clone() })
    }

    /// Without safety copies, which are chosen by name alone. So is what was taken at another place, unless this one has no run of
    /// its own at all: on a machine where nothing is left, that is what comes back.
    fn of_policies(&self, service: &ServiceName, from: Option<&RepositoryName>) -> impl Iterator<Item = Found<'a>> {
        let is_safety = |run: &Projected| run.seen.is_some_and(|run| run.manifest.policy.is_safety());
        let mut all = self.places.known.values().flat_map(Place::all_runs);
        let has_own = all.any(|run| !run.foreign && !is_safety(run));
        self.holding(service, from).filter(move |found| !(is_safety(&found.run) || (has_own && found.run.foreign)))
    }

    fn holding(&self, service: &ServiceName, from: Option<&RepositoryName>) -> impl Iterator<Item = Found<'a>> {
        let places = self.places.known.iter().filter(move |(name, _)| from.is_none_or(|from| from == *name));
        places.flat_map(move |(name, place)| {
            place.all_runs().filter_map(move |run| {
                let taken = run.seen?.manifest.taken_of(service)?;
                Some(Found { repository: name.clone(), run: run.clone(), taken })
            })
        })
    }
}

/// `is incomplete, without a, b`.
fn lacking(run: &Projected<'_>) -> String {
    let missing: Vec<&str> =
        run.seen.iter().flat_map(|run| run.manifest.missing()).map(|(service, _)| service.as_str()).collect();
    format!("is incomplete, without {}", missing.join(", "))
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}
