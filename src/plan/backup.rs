//! Runs: every service of a policy is taken, the run is sealed and proven, and copied to the policy's other repositories.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Planner;
use super::draft::NewStep;
use super::due::{Intent, Intents};
use super::hooks::Of;
use super::prediction;
use super::projection::{Projected, lacks_a_verdict};
use super::retention::Standing;
use crate::model::ids::{PolicyName, RepositoryName, RunId, ServiceName};
use crate::model::observation::{Observed, SourceState};
use crate::model::plan::Note;
use crate::model::run::Taken;
use crate::model::step::{Action, Approval, Effect, Estimate, Precondition, StepId, Take};
use crate::model::units::{ByteSize, Span};
use crate::spec::file::Source;

impl<'a> Planner<'a> {
    /// The runs that are to be taken.
    pub(super) fn take_runs(&mut self, intents: &Intents) {
        for (policy, intent) in intents {
            self.take_run(policy, intent);
        }
    }

    /// The runs that are to be taken; and for the policies that are not due, the proofs and copies they lack.
    pub(super) fn back_up(&mut self, intents: &Intents) {
        let spec = self.spec;
        let mut taken: BTreeSet<ServiceName> = BTreeSet::new();
        for (name, policy) in &spec.backup {
            match intents.get(name) {
                Some(intent) => {
                    taken.extend(intent.only.clone().unwrap_or_else(|| spec.services_of(policy)));
                    self.take_run(name, intent);
                }
                None => {
                    self.prove_newest(name);
                    self.copy_newest(name);
                }
            }
        }
        let mut quiet: BTreeSet<ServiceName> = BTreeSet::new();
        for (name, policy) in spec.backup.iter().filter(|(name, _)| !intents.contains_key(name)) {
            let newest =
                self.runs_in_its_repositories(name).filter(|run| run.is_complete()).map(|run| run.started).max();
            let Some(newest) = newest else { continue };
            let text = format!("last run {} old", Span::between(newest, self.now));
            for service in spec.services_of(policy).into_iter().filter(|service| !taken.contains(service)) {
                if quiet.insert(service.clone()) {
                    self.report.unchanged.push(Note::new(format!("{service}/backup"), text.clone()));
                }
            }
        }
    }

    fn take_run(&mut self, of: &PolicyName, intent: &Intent) {
        let (spec, now) = (self.spec, self.now);
        let declared = &spec.backup[of];
        let primary = &intent.primary;
        let (policy, expected) = match &intent.only {
            None => (of.clone(), self.spec.services_of(declared)),
            Some(only) => (of.part(), only.clone()),
        };
        let policy = &policy;
        let run = self.free_run_id(|at| RunId::at(at, policy));
        let Some(place) = self.places.known.get(primary) else { return };
        let parts = if policy.is_part() { place.runs_of(policy) } else { &[] };
        // What is new in a part is what the newest run of either kind lacks.
        let candidates: Vec<Projected<'a>> = place.runs_of(of).iter().chain(parts).cloned().collect();
        let holding = |service: &ServiceName| {
            let holds = |it: &&Projected| it.seen.is_some_and(|run| run.manifest.taken_of(service).is_some());
            newest_sound(candidates.iter().filter(holds), now)?.seen
        };
        // A table that was lost stays lost: the runs after it are compared with the last that had it, until somebody says that it
        // may be gone.
        let compared = |service: &ServiceName| {
            let holds = |it: &&Projected| it.seen.is_some_and(|run| run.manifest.taken_of(service).is_some());
            let beyond_doubt = |it: &&Projected| !it.suspect.contains(service);
            newest_sound(candidates.iter().filter(holds).filter(beyond_doubt), now)?.seen
        };
        let parent = newest_sound(&candidates, now).and_then(|run| run.seen);
        let (created, sealed) = (place.created, place.sealed);
        let is = place.is(primary);
        // The slot may be served there by a run of another place, which is no backup of this one.
        let open = intent.slot.filter(|_| place.elsewhere.is_none()).map(|slot| Precondition::SlotOpen {
            repository: primary.clone(),
            policy: policy.clone(),
            slot,
        });

        let given: Vec<Precondition> = is.iter().chain(&open).cloned().collect();
        let whose = |service, approval| Of { run: &run, policy, service, given: &given, approval };
        let hooks = declared.hooks.as_ref();
        let first: Vec<StepId> = created.into_iter().chain(self.started).collect();
        let opening = self.hooks_before(hooks, &whose(None, Approval::NotNeeded), &first);
        let mut around = opening.clone();
        let mut takes: BTreeMap<ServiceName, StepId> = BTreeMap::new();
        let mut bytes = ByteSize::default();
        for (service, asked) in self.in_order(&expected) {
            let before = holding(service).and_then(|run| run.manifest.taken_of(service));
            let take = Take {
                repository: primary.clone(),
                service: service.clone(),
                run: run.clone(),
                policy: policy.clone(),
                slot: intent.slot,
                parent: before.filter(|_| !intent.full).map(|before| before.snapshot.clone()),
                parent_bytes: compared(service).and_then(|run| run.manifest.taken_of(service)).map(Taken::bytes),
                compared: compared(service).map(|run| run.manifest.run.clone()),
                may_be_empty: before.is_some_and(|before| before.empty),
            };
            let (step, about) = self.take(take, before);
            let source = self.spec.services.get(service).map(|service| &service.source);
            let started = self.started.filter(|_| source.is_some_and(Source::needs_docker));
            // Vault and the file that opens it must be of one time, or what is in the backup is a login that Vault refuses.
            let rotated = self.rotated.filter(|_| matches!(source, Some(Source::Vault(_))));
            let step = step.because(intent.cause.clone()).after(created).after(started);
            let step = step.after_end_of(sealed).after_end_of(rotated);
            bytes = bytes + about.unwrap_or_default();
            let step = step.after_end_of(asked.iter().filter_map(|other| takes.get(*other).copied()));
            let hooks = spec.services.get(service).and_then(|service| service.hooks.as_ref());
            let of = whose(Some(service), step.approval());
            let waits: Vec<StepId> = first.iter().chain(opening.last()).copied().collect();
            let before = self.hooks_before(hooks, &of, &waits);
            let step = step.after(opening.last().copied()).after(before.last().copied());
            let take = self.draft.add(step.given(given.iter().cloned()));
            let begun: Vec<StepId> = before.iter().copied().chain([take]).collect();
            around.extend(self.hooks_after(hooks, &of, &begun));
            around.extend(before);
            takes.insert(service.clone(), take);
        }
        let takes: Vec<StepId> = takes.into_values().collect();
        let begun: Vec<StepId> = around.iter().chain(&takes).copied().collect();
        around.extend(self.hooks_after(hooks, &whose(None, Approval::NotNeeded), &begun));
        let seal = Action::Seal {
            repository: primary.clone(),
            run: run.clone(),
            policy: policy.clone(),
            slot: intent.slot,
            expected,
            parent: parent.filter(|_| !intent.full).map(|parent| parent.manifest.run.clone()),
            base: parent.filter(|_| !intent.full).map_or_else(|| run.clone(), |parent| parent.manifest.base.clone()),
        };
        let seal = NewStep::new(seal).because("the run ends with its manifest").given(is.clone());
        let seal = self.draft.add(seal.after_end_of(takes.iter().chain(&around).copied()).after(created));
        let proof = NewStep::new(Action::Prove { repository: primary.clone(), run: run.clone() })
            .because("every run is proven")
            .given(is)
            .estimate(self.estimate_of(&format!("prove/{primary}"), Some(bytes)))
            .after([seal])
            .after(takes);
        let proof = self.draft.add(proof);
        self.wrote(primary, [seal, proof]);
        self.adds(primary, policy, &run, intent.slot, proof);
        for to in declared.to.iter().filter(|to| *to != primary) {
            self.copy(policy, &run, primary, to, Some(bytes), (self.now, intent.slot, Some(proof)));
        }
    }

    /// Each with the servers that it stops: these are asked first, since one that is stopped answers nobody.
    fn in_order<'s>(&self, services: &'s [ServiceName]) -> Vec<(&'s ServiceName, Vec<&'s ServiceName>)> {
        let source = |service: &ServiceName| self.spec.services.get(service).map(|service| &service.source);
        let is_asked = |source: &Source| !matches!(source, Source::Volume(_));
        let stopped_by = |service: &ServiceName| {
            let stops = source(service).map(Source::stops).unwrap_or_default();
            let is_stopped = |other: &&ServiceName| {
                *other != service
                    && source(other)
                        .filter(|it| is_asked(it))
                        .is_some_and(|it| it.containers().iter().any(|name| stops.contains(name)))
            };
            services.iter().filter(is_stopped).collect::<Vec<_>>()
        };
        let all: Vec<_> = services.iter().map(|service| (service, stopped_by(service))).collect();
        let (stopping, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, asked)| !asked.is_empty());
        others.into_iter().chain(stopping).collect()
    }

    /// One service. Where there is nothing it waits for somebody's word, once, so that emptiness is never backed up as a
    /// good run unseen.
    fn take(&self, take: Take, before: Option<&Taken>) -> (NewStep, Option<ByteSize>) {
        let state = self.observation.services.get(&take.service).and_then(Observed::known).copied();
        let had_data = before.map(Taken::bytes).filter(|bytes| bytes.0 > 0);
        let service = take.service.clone();
        let seen = match state {
            Some(SourceState::HasData { bytes } | SourceState::Unfinished { bytes }) => bytes,
            Some(SourceState::Gone | SourceState::Empty) => Some(ByteSize::default()),
            Some(SourceState::Broken) | None => None,
        };
        let about = seen.or(had_data);
        let stops = self.spec.services.get(&service).map(|service| service.source.stops()).unwrap_or_default();
        let step = NewStep::new(Action::Take(take))
            .estimate(self.estimate_of(&format!("take/{service}"), about))
            .given(self.same_containers(&service));
        let step = match stops.as_slice() {
            [] => step,
            stops => step.effect(Effect::Restarts).because(format!("stops {} while it is read", stops.join(", "))),
        };
        let step = match (state, had_data) {
            (Some(SourceState::Empty), _) if before.is_some_and(|before| before.empty) => {
                step.because("it is empty, as somebody has said it may be")
            }
            (Some(SourceState::Empty), Some(had)) => {
                let reason = format!("its source is empty, and held {had} in the last run");
                step.held(format!("take:{service}"), reason)
            }
            // What is gone can't be taken, so there is nothing to approve: the take fails, and the run with it.
            (Some(SourceState::Gone), Some(had)) => {
                step.because(format!("its source is gone, and held {had} in the last run"))
            }
            (Some(SourceState::Empty), None) => {
                step.held(format!("take:{service}"), "its source is empty; approve it if that is right")
            }
            (Some(SourceState::Broken), _) => step.because("what is there is damaged, and its take fails"),
            // The engine refuses it and says how it ends.
            (Some(SourceState::Unfinished { .. }), _) => {
                step.because("a restore into its source has not ended, so it will be refused")
            }
            // Nothing was ever there to lose: the take fails visibly.
            (Some(SourceState::Gone), None) => step,
            (Some(SourceState::HasData { .. }), _) if self.restore_cut_off(&service).is_some() => {
                let word = format!("take:{service}");
                step.given([Precondition::SourceHasData { service }])
                    .held(word, "a restore over it was cut off; approve it if what is there is right")
            }
            (Some(SourceState::HasData { .. }), _) | (None, Some(_)) => {
                step.given([Precondition::SourceHasData { service }])
            }
            (None, None) => step,
        };
        (step, about)
    }

    /// What the plan was made for is what its steps must meet: a container that was replaced meanwhile may hold other data.
    pub(super) fn same_containers(&self, service: &ServiceName) -> Option<Precondition> {
        let containers = self.observation.containers.get(service)?.known()?;
        let ids = containers.iter().map(|(name, container)| (name.clone(), container.id.clone())).collect();
        Some(Precondition::ContainersAre { service: service.clone(), containers: ids })
    }

    /// The newest complete run of a policy that is not due, in each repository, gets the proof it has no word of.
    fn prove_newest(&mut self, policy: &PolicyName) {
        let kinds = [policy, &policy.part()];
        for (name, policy) in self.spec.backup[policy].to.iter().flat_map(|name| kinds.map(|kind| (name, kind))) {
            let Some(place) = self.places.known.get(name) else { continue };
            let Some(newest) = newest_sound(place.runs_of(policy), self.now) else { continue };
            let Some(seen) = newest.seen.filter(|run| lacks_a_verdict(run)) else { continue };
            let run = newest.run.clone();
            let step = NewStep::new(Action::Prove { repository: name.clone(), run: run.clone() })
                .because("newest complete run, not yet proven")
                .given(place.is(name))
                .after_end_of(place.sealed)
                .estimate(self.estimate_of(&format!("prove/{name}"), Some(seen.manifest.bytes())));
            let proof = self.draft.add(step);
            self.wrote(name, [proof]);
            let place = self.places.known.get_mut(name);
            if let Some(run) = place.and_then(|place| place.runs.get_mut(policy)?.iter_mut().find(|it| it.run == run)) {
                run.standing = Standing::Verified;
                run.pending = Some(proof);
            }
        }
    }

    /// Notes in the projection that `proof` will leave a verified run.
    pub(super) fn adds(
        &mut self,
        to: &RepositoryName,
        policy: &PolicyName,
        run: &RunId,
        slot: Option<Timestamp>,
        proof: StepId,
    ) {
        let now = self.now;
        if let Some(place) = self.places.known.get_mut(to) {
            place.add_run(policy, run.clone(), now, Standing::Verified, slot, proof);
        }
    }

    /// The id of the run that starts now. Two plans within one second, the first of them interrupted, would give two
    /// runs one id: the later one takes the next second's.
    pub(super) fn free_run_id(&self, called: impl Fn(Timestamp) -> RunId) -> RunId {
        let mut at = self.now;
        loop {
            let run = called(at);
            if !self.places.used.contains(&run) {
                return run;
            }
            at = Span::from_secs(1).after(at);
        }
    }

    pub(super) fn estimate_of(&self, key: &str, bytes: Option<ByteSize>) -> Estimate {
        let samples = self.history.samples.get(key).map_or(&[][..], Vec::as_slice);
        let time = prediction::fit(samples).map(|model| model.predict(bytes.unwrap_or_default()));
        Estimate { time, bytes }
    }
}

/// The newest complete run that nothing is known against. One dated in the future is passed over: it would be the newest
/// for years.
pub(super) fn newest_sound<'r, 'a: 'r>(
    runs: impl IntoIterator<Item = &'r Projected<'a>>,
    now: Timestamp,
) -> Option<&'r Projected<'a>> {
    let sound =
        |run: &&Projected| run.started <= now && matches!(run.standing, Standing::Verified | Standing::Unproven);
    runs.into_iter().filter(sound).max_by(|a, b| a.age_key().cmp(&b.age_key()))
}
