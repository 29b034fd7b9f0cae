//! How much would be lost now: per service the last good run, and when the next is due.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Planner;
use super::origin::Standpoint;
use super::projection::{standing, suspects};
use super::retention::Standing;
use crate::model::ids::{PolicyName, RepositoryName, RunId, ServiceName};
use crate::model::observation::Run;
use crate::model::plan::Exposure;
use crate::model::run::Taken;

/// The newest complete and verified run that holds a service, and that nobody has doubts about: what a recovery would choose.
#[derive(Clone, Copy)]
pub(super) struct LastGood<'a> {
    pub repository: &'a RepositoryName,
    pub run: &'a Run,
    pub taken: &'a Taken,
}

impl LastGood<'_> {
    fn age_key(&self) -> (Timestamp, &RunId) {
        (self.run.manifest.started, &self.run.manifest.run)
    }
}

impl<'a> Planner<'a> {
    /// One pass over all runs, for all services. A run dated in the future is not taken at its word: its age would be
    /// zero, and an objective met that is not.
    pub(super) fn last_good(&self) -> BTreeMap<&'a ServiceName, LastGood<'a>> {
        let mut last: BTreeMap<&ServiceName, LastGood> = BTreeMap::new();
        for (name, facts) in self.places.present() {
            let Some((repository, _)) = self.spec.repositories.get_key_value(name) else { continue };
            let standpoint = Standpoint::of(self.observation, name, facts);
            // A safety copy is what somebody is about to overwrite: it meets no objective.
            let good = |run: &&Run| {
                let is_meant = !run.manifest.policy.is_safety() && run.manifest.started <= self.now;
                let is_sound = standing(run) == Standing::Verified && suspects(facts, run).next().is_none();
                is_meant && is_sound && standpoint.is_ours(run)
            };
            for run in facts.runs.iter().filter(good) {
                for (service, taken) in run.manifest.taken() {
                    let found = LastGood { repository, run, taken };
                    let is_newer = last.get(service).is_none_or(|known| found.age_key() > known.age_key());
                    if is_newer {
                        last.insert(service, found);
                    }
                }
            }
        }
        last
    }

    pub(super) fn exposure(&self) -> Vec<Exposure> {
        let last = self.last_good();
        let mut policies: BTreeMap<ServiceName, Vec<PolicyName>> = BTreeMap::new();
        let mut next: BTreeMap<&PolicyName, Option<Timestamp>> = BTreeMap::new();
        for (name, policy) in &self.spec.backup {
            next.insert(name, self.calendar.slots(name).and_then(|slots| slots.next_after(self.now)));
            for service in self.spec.services_of(policy) {
                policies.entry(service).or_default().push(name.clone());
            }
        }
        let exposure = self.spec.services.keys().map(|service| {
            let policies = policies.remove(service).unwrap_or_default();
            Exposure {
                service: service.clone(),
                last_good: last.get(service).map(|good| {
                    let manifest = &good.run.manifest;
                    (manifest.run.clone(), good.repository.clone(), manifest.started)
                }),
                rpo: self.spec.rpo_of(service),
                next: policies.iter().filter_map(|policy| next.get(policy).copied().flatten()).min(),
                policies,
            }
        });
        exposure.collect()
    }
}
