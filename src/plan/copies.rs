//! Copies: every repository of a policy gets every run; one that was away gets the newest, and not the runs between.

use jiff::Timestamp;

use super::Planner;
use super::backup::newest_sound;
use super::draft::NewStep;
use super::due::Intents;
use super::projection::State;
use super::retention::Standing;
use crate::model::ids::{PolicyName, RepositoryName, RunId};
use crate::model::observation::UnsealedRun;
use crate::model::step::{Action, Precondition, StepId};
use crate::model::units::ByteSize;

impl<'a> Planner<'a> {
    /// Copies a run and proves the copy. `source` says when the run started, its slot, and the proof that it waits for.
    pub(super) fn copy(
        &mut self,
        policy: &PolicyName,
        run: &RunId,
        from: &RepositoryName,
        to: &RepositoryName,
        bytes: Option<ByteSize>,
        (started, slot, proven): (Timestamp, Option<Timestamp>, Option<StepId>),
    ) -> Option<StepId> {
        let place = self.places.known.get(to)?;
        if matches!(place.state, State::Absent { .. }) && place.created.is_none() {
            return None;
        }
        let (is, created, sealed) = (place.is(to), place.created, place.sealed);
        let source = self.places.known.get(from).and_then(|source| source.is(from));
        let verified = Precondition::Verified { repository: from.clone(), runs: vec![run.clone()] };
        let action = Action::Copy { run: run.clone(), from: from.clone(), to: to.clone(), policy: policy.clone() };
        let estimate = self.estimate_of(&action.sample_key(), bytes);
        let copy = NewStep::new(action)
            .because(format!("not in {to}"))
            .given(source.into_iter().chain(is.clone()).chain([verified]))
            .estimate(estimate)
            .after(proven)
            .after(created)
            .after_end_of(sealed);
        let copy = self.draft.add(copy);
        let proof = NewStep::new(Action::Prove { repository: to.clone(), run: run.clone() })
            .because("a copy is proven where it lies")
            .given(is)
            .estimate(self.estimate_of(&format!("prove/{to}"), bytes))
            .after([copy]);
        let proof = self.draft.add(proof);
        // The copy reads `from` too: nothing may be pruned there under its hands.
        self.wrote(from, [copy]);
        self.wrote(to, [copy, proof]);
        if let Some(place) = self.places.known.get_mut(to) {
            place.add_run(policy, run.clone(), started, Standing::Verified, slot, proof);
        }
        Some(copy)
    }

    /// The newest verified run of a policy that is not due goes to those of its repositories that lack it.
    pub(super) fn copy_newest(&mut self, policy: &PolicyName) {
        let to = &self.spec.backup[policy].to;
        let places = to.iter().filter_map(|name| Some((name, self.places.known.get(name)?)));
        let verified = places.flat_map(|(name, place)| {
            let runs = place.runs_of(policy).iter();
            runs.filter(|run| run.standing == Standing::Verified && run.started <= self.now).map(move |run| (name, run))
        });
        let Some((from, newest)) = verified
            // Of equals the first repository of `to` is read: max_by takes the last of equals, so it goes backwards.
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .max_by(|a, b| a.1.age_key().cmp(&b.1.age_key()))
        else {
            return;
        };
        let (from, newest) = (from.clone(), newest.clone());
        let bytes = newest.seen.map(|run| run.manifest.bytes());
        for name in to.clone().iter().filter(|name| **name != from) {
            // Sealed there in whatever state: a second manifest of one run would contradict the first.
            let is_there = |run: &super::projection::Projected| run.run == newest.run;
            if self.places.known.get(name).is_none_or(|place| place.runs_of(policy).iter().any(is_there)) {
                continue;
            }
            let source = (newest.started, newest.slot, newest.pending);
            if let Some(copy) = self.copy(policy, &newest.run, &from, name, bytes, source) {
                self.accept_shrinks_of_copy(policy, &newest, (&from, name), copy);
            }
        }
    }

    /// Snapshots without a manifest whose run is complete in another repository are a copy that was interrupted. The
    /// copy is made again and seals it; sealing it as incomplete would leave this repository without the run for good.
    pub(super) fn will_be_copied_again(&self, to: &RepositoryName, unsealed: &UnsealedRun, intents: &Intents) -> bool {
        let policy = &unsealed.policy;
        let Some(declared) = self.spec.backup.get(policy).filter(|policy| policy.to.contains(to)) else { return false };
        if intents.contains_key(policy) {
            return false;
        }
        let places = declared.to.iter().filter_map(|name| self.places.known.get(name));
        let newest = places.filter_map(|place| newest_sound(place.runs_of(policy), self.now));
        newest.max_by(|a, b| a.age_key().cmp(&b.age_key())).is_some_and(|run| run.run == unsealed.run)
    }
}
