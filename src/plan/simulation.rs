//! What a world looks like after steps have been carried out: the planner's promises are held against it.

use std::collections::BTreeSet;

use super::fixtures::{World, empty_facts, observed_key, proof, taken};
use crate::model::evidence::{DataRead, Verdict};
use crate::model::ids::{RepositoryName, RunId, SnapshotId};
use crate::model::observation::{Marked, Observed, RepositoryFacts, RepositoryState, Run, SourceState, UnsealedRun};
use crate::model::plan::Plan;
use crate::model::record::{Adopted, Generation};
use crate::model::run::{Manifest, RECORD_FORMAT, Sealed, ServiceResult};
use crate::model::step::{Action, Precondition, Step, StepId, WaitOn};
use crate::model::units::ByteSize;

impl World {
    /// Carries out the whole plan; what is held is approved.
    pub fn apply(&mut self, plan: &Plan) {
        let done = self.apply_some(plan, |_| true, u32::MAX);
        let stuck: Vec<_> = plan.steps.iter().filter(|step| !done.contains(&step.id)).collect();
        assert!(stuck.is_empty(), "every step of a plan can be carried out: {stuck:#?}");
    }

    /// Carries out the steps up to number `last`, of which those fail that `works` says no to. Gives those that worked.
    pub fn apply_some(&mut self, plan: &Plan, works: impl Fn(&Step) -> bool, last: u32) -> BTreeSet<StepId> {
        let mut done = BTreeSet::new();
        for step in plan.steps.iter().filter(|step| step.id.0 <= last) {
            let may = step.waits.iter().all(|wait| wait.on == WaitOn::End || done.contains(&wait.step));
            if may && works(step) && step.preconditions.iter().all(|given| self.holds(given)) {
                self.carry_out(plan, step);
                done.insert(step.id);
            }
        }
        done
    }

    fn try_facts(&self, name: &RepositoryName) -> Option<&RepositoryFacts> {
        match self.observation.repositories.get(name) {
            Some(Observed::Known(RepositoryState::Present(facts))) => Some(facts),
            _ => None,
        }
    }

    fn holds(&self, given: &Precondition) -> bool {
        match given {
            Precondition::RepositoryAbsent { repository } => self.try_facts(repository).is_none(),
            Precondition::RepositoryIs { repository, id } => {
                self.try_facts(repository).is_some_and(|facts| facts.id == *id)
            }
            Precondition::SlotOpen { repository, policy, slot } => self.try_facts(repository).is_none_or(|facts| {
                !facts
                    .runs
                    .iter()
                    .any(|run| run.is_complete() && run.manifest.policy == *policy && run.manifest.slot == Some(*slot))
            }),
            Precondition::SourceHasData { service } => !matches!(
                self.observation.services.get(service),
                Some(Observed::Known(SourceState::Gone | SourceState::Empty))
            ),
            Precondition::SourceIsLost { service } | Precondition::SourceHasNoData { service } => matches!(
                self.observation.services.get(service),
                Some(Observed::Known(SourceState::Gone | SourceState::Empty | SourceState::Broken))
            ),
            // No container is replaced in the simulated world.
            Precondition::ContainersAre { .. } => true,
            Precondition::Verified { repository, runs } => self.try_facts(repository).is_some_and(|facts| {
                let verified: BTreeSet<&RunId> =
                    facts.runs.iter().filter(|run| run.is_verified()).map(|run| &run.manifest.run).collect();
                runs.iter().all(|run| verified.contains(run))
            }),
            Precondition::ShrinksAccepted { repository, policy } => self.try_facts(repository).is_some_and(|facts| {
                let runs = facts.runs.iter().filter(|run| run.manifest.policy == *policy);
                let suspects = runs.flat_map(|run| {
                    let suspect = run.manifest.taken().filter(|(_, taken)| taken.suspect.is_some());
                    suspect.map(|(service, _)| (run.manifest.run.clone(), service.clone()))
                });
                suspects.into_iter().all(|suspect| facts.accepted_shrinks.contains(&suspect))
            }),
            Precondition::RemovalsAccepted { repository } => {
                self.try_facts(repository).is_some_and(|facts| facts.removed.is_empty())
            }
            Precondition::Exclusive { repository } => {
                self.try_facts(repository).is_some_and(|facts| facts.restic_locks == 0)
            }
        }
    }

    fn carry_out(&mut self, plan: &Plan, step: &Step) {
        let now = plan.now;
        match &step.action {
            Action::GenerateKey { repository, key } => {
                let state = self.observation.repositories.get_mut(repository);
                if let Some(Observed::Known(RepositoryState::Absent { ungenerated_keys, .. })) = state {
                    ungenerated_keys.retain(|it| it != key);
                }
            }
            Action::StartColima { profile } => {
                self.observation.engine = Some(Observed::Known(profile.clone()));
            }
            Action::StartDocker { command } => {
                self.observation.engine = Some(Observed::Known(command.join(" ")));
            }
            Action::RotateSecretId { .. } => {
                if let Some(Observed::Known(login)) = &mut self.observation.login {
                    let lifetime = login.lifetime();
                    (login.issued, login.expires) = (now, lifetime.map(|lifetime| lifetime.after(now)));
                }
            }
            Action::CreateRepository { repository, key } => {
                let mut facts = empty_facts(repository);
                facts.keys = vec![observed_key(&self.spec.repositories[repository].keys[*key].label())];
                facts.opened_with = Some(facts.keys[0].id.clone());
                self.set(repository.as_str(), RepositoryState::Present(Box::new(facts)));
            }
            Action::Adopt { repository, origin, from } => {
                let adopted = Adopted {
                    format: RECORD_FORMAT,
                    number: self.facts(repository.as_str()).adopted.len() as u64 + 1,
                    origin: (**origin).clone(),
                    from: from.clone(),
                    at: now,
                };
                self.facts(repository.as_str()).adopted.push(adopted);
            }
            Action::AddKey { repository, label, .. } => self.facts(repository.as_str()).keys.push(observed_key(label)),
            Action::RemoveKey { repository, id, .. } => {
                self.facts(repository.as_str()).keys.retain(|key| key.id != *id);
            }
            Action::ApproveRule { repository, policy, rule } => {
                self.facts(repository.as_str()).approved_rules.insert(policy.clone(), *rule);
            }
            Action::SealInterrupted { repository, run, policy, snapshots } => {
                let started = snapshots.iter().map(|(_, _, at)| *at).min().unwrap();
                let manifest = Manifest {
                    format: RECORD_FORMAT,
                    stack: plan.stack.clone(),
                    run: run.clone(),
                    policy: policy.clone(),
                    slot: None,
                    started,
                    finished: now,
                    expected: snapshots.iter().map(|(_, service, _)| service.clone()).collect(),
                    services: Default::default(),
                    parent: None,
                    base: run.clone(),
                    spec_digest: plan.spec_digest.clone(),
                    devstack_version: plan.devstack_version.clone(),
                    sealed: Sealed::AfterInterruption,
                    compose: None,
                    origin: self.observation.origin.clone(),
                    unprotected: None,
                    hooks: vec![],
                };
                self.seal(repository, manifest);
            }
            Action::Take(take) => {
                let snapshot =
                    taken(ByteSize::mib(100), now, &format!("{}/{}/{}", take.repository, take.run, take.service));
                let facts = self.facts(take.repository.as_str());
                facts.oldest = Some(facts.oldest.unwrap_or(now));
                let taken = (snapshot.snapshot, take.service.clone(), now);
                match facts.unsealed.iter_mut().find(|run| run.run == take.run) {
                    Some(run) => run.snapshots.push(taken),
                    None => facts.unsealed.push(UnsealedRun {
                        run: take.run.clone(),
                        policy: take.policy.clone(),
                        snapshots: vec![taken],
                    }),
                }
            }
            Action::Seal { repository, run, policy, slot, expected, parent, base } => {
                let facts = self.facts(repository.as_str());
                let found = facts.unsealed.iter().find(|unsealed| unsealed.run == *run);
                let snapshots = found.map(|unsealed| unsealed.snapshots.clone()).unwrap_or_default();
                let services = snapshots.iter().map(|(id, service, at)| {
                    let mut taken = taken(ByteSize::mib(100), *at, "");
                    taken.snapshot = id.clone();
                    (service.clone(), ServiceResult::Taken(taken))
                });
                let manifest = Manifest {
                    format: RECORD_FORMAT,
                    stack: plan.stack.clone(),
                    run: run.clone(),
                    policy: policy.clone(),
                    slot: *slot,
                    started: now,
                    finished: now,
                    expected: expected.clone(),
                    services: services.collect(),
                    parent: parent.clone(),
                    base: base.clone(),
                    spec_digest: plan.spec_digest.clone(),
                    devstack_version: plan.devstack_version.clone(),
                    sealed: Sealed::ByItsApply,
                    compose: None,
                    origin: self.observation.origin.clone(),
                    unprotected: None,
                    hooks: vec![],
                };
                self.seal(repository, manifest);
            }
            Action::Copy { run, from, to, .. } => {
                let source = self.facts(from.as_str()).runs.iter().find(|it| it.manifest.run == *run).unwrap();
                assert!(source.is_verified(), "only what is verified is copied");
                let manifest = Manifest { sealed: Sealed::ByCopy, ..source.manifest.clone() };
                let facts = self.facts(to.as_str());
                assert!(!facts.runs.iter().any(|it| it.manifest.run == *run), "two manifests of {run} in {to}");
                facts.oldest = Some(facts.oldest.unwrap_or(now));
                self.seal(to, manifest);
            }
            Action::Prove { repository, run } => {
                let facts = self.facts(repository.as_str());
                let run = facts.runs.iter_mut().find(|it| it.manifest.run == *run).unwrap();
                let services: Vec<_> = run.manifest.services.keys().cloned().collect();
                run.proofs.push(proof(&run.manifest.run.clone(), now, &services, &Verdict::Passed));
            }
            Action::ReadData { repository, parts } => self.facts(repository.as_str()).data_reads.push(DataRead {
                format: RECORD_FORMAT,
                at: now,
                took: Default::default(),
                read: ByteSize(0),
                parts: parts.clone(),
                verdict: Verdict::Passed,
                hurt: vec![],
                remembered: true,
            }),
            Action::AcceptRemoved { repository, runs } => {
                self.facts(repository.as_str()).removed.retain(|run| !runs.contains(run));
            }
            Action::AcceptShrink { repository, run, service, .. } => {
                self.facts(repository.as_str()).accepted_shrinks.push((run.clone(), service.clone()));
            }
            Action::Forget { repository, runs, keep, .. } => {
                let facts = self.facts(repository.as_str());
                let before = facts.runs.len();
                facts.runs.retain(|run| !runs.contains(&run.manifest.run));
                assert_eq!(before - facts.runs.len(), runs.len(), "a forget names runs that are there");
                assert!(
                    keep.iter().all(|run| facts.runs.iter().any(|it| it.manifest.run == *run)),
                    "a keeper is missing"
                );
            }
            Action::Prune { repository } => {
                let forgot = plan
                    .steps
                    .iter()
                    .any(|step| matches!(&step.action, Action::Forget { repository: it, .. } if it == repository));
                self.facts(repository.as_str()).marked =
                    forgot.then_some(Marked { since: now, bytes: ByteSize::mib(1) });
            }
            Action::Restore(_)
            | Action::Hook(_)
            | Action::SafetyCopy(_)
            | Action::Clear { .. }
            | Action::CreateContainers { .. }
            | Action::StartContainer { .. }
            | Action::VerifyStack { .. } => {}
        }
        if let Some(repository) = step.action.writes().filter(|_| step.action.moves_generation()) {
            let facts = self.facts(repository.clone().as_str());
            let number = facts.generation.as_ref().map_or(0, |generation| generation.number) + 1;
            let (spec_digest, plan) = (plan.spec_digest.clone(), plan.id.clone());
            facts.generation = Some(Generation { format: RECORD_FORMAT, number, spec_digest, plan, at: now });
        }
    }

    fn seal(&mut self, repository: &RepositoryName, manifest: Manifest) {
        let facts = self.facts(repository.as_str());
        facts.unsealed.retain(|unsealed| unsealed.run != manifest.run);
        let record = SnapshotId::new(manifest.run.as_str());
        facts.runs.push(Run { manifest, record, proofs: vec![], lost: vec![], hurt: vec![] });
    }
}
