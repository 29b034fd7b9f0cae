//! The repositories as they are and, run by run, as they will be once the plan's own steps are done.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::origin::Standpoint;
use super::retention::Standing;
use crate::model::evidence::Level;
use crate::model::history::History;
use crate::model::ids::{PolicyName, RepositoryId, RepositoryName, RunId, ServiceName};
use crate::model::observation::{Observation, Observed, RepositoryFacts, RepositoryState, ResticLock, Run};
use crate::model::origin::Origin;
use crate::model::plan::Lineage;
use crate::model::step::{Precondition, StepId};
use crate::spec::file::Spec;

/// Every declared repository: what is there, or why that is not known.
pub(super) struct Places<'a> {
    pub known: BTreeMap<RepositoryName, Place<'a>>,
    pub unknown: BTreeMap<RepositoryName, String>,
    /// The ids of all runs that are there, sealed or not.
    pub used: BTreeSet<&'a RunId>,
}

/// A repository that the store has answered for.
pub(super) struct Place<'a> {
    pub state: State<'a>,
    /// Runs of each policy, in no order that anything rests on; what the plan adds comes last.
    pub runs: BTreeMap<PolicyName, Vec<Projected<'a>>>,
    /// The step that creates it.
    pub created: Option<StepId>,
    /// The last of the steps that seal interrupted runs.
    pub sealed: Option<StepId>,
    /// Steps of this plan that write to it, since the last one that allows no other writer.
    pub writers: Vec<StepId>,
    /// The steps that record a policy's rule as approved.
    pub rules: BTreeMap<PolicyName, StepId>,
    /// The steps that accept shrunken sources in runs of a policy.
    pub accepts: BTreeMap<PolicyName, Vec<StepId>>,
    /// The step that accepts that somebody else has removed runs.
    pub removal: Option<StepId>,
    /// The step that prunes it.
    pub pruned: Option<StepId>,
    /// Where else the stack has its place in it. Its runs stand among [`Self::runs`] as if they had been adopted, each marked.
    pub elsewhere: Option<&'a Origin>,
    /// The step that moves the stack's place here.
    pub adopted: Option<StepId>,
    /// Runs of other places where the stack's own is here: seen and named, and used for nothing.
    pub strays: Vec<Projected<'a>>,
}

pub(super) enum State<'a> {
    Absent { ungenerated: &'a [usize], known_before: Option<&'a RepositoryId> },
    Present(&'a RepositoryFacts),
}

/// A run that is there, or that will be.
#[derive(Clone)]
pub(super) struct Projected<'a> {
    pub run: RunId,
    pub started: Timestamp,
    pub standing: Standing,
    pub slot: Option<Timestamp>,
    /// Shrunken sources that nobody has accepted.
    pub suspect: Vec<ServiceName>,
    /// Holds a service that the file no longer names.
    pub undeclared: bool,
    /// Taken at another place, and not adopted.
    pub foreign: bool,
    pub seen: Option<&'a Run>,
    /// The step of this plan that has to succeed before it stands so.
    pub pending: Option<StepId>,
}

impl Projected<'_> {
    pub(super) fn is_complete(&self) -> bool {
        self.standing != Standing::Incomplete
    }

    /// Newest last. Runs of one instant are told apart by id, so that the order is one and the same everywhere.
    pub(super) fn age_key(&self) -> (Timestamp, &RunId) {
        (self.started, &self.run)
    }
}

/// How a sealed run stands in its repository.
pub(super) fn standing(run: &Run) -> Standing {
    if !run.manifest.is_complete() {
        Standing::Incomplete
    } else if run.is_damaged() {
        Standing::Damaged
    } else if run.is_verified() {
        Standing::Verified
    } else {
        Standing::Unproven
    }
}

/// The services of a run that had shrunk when it was taken, which nobody has accepted.
pub(super) fn suspects<'a>(facts: &'a RepositoryFacts, run: &'a Run) -> impl Iterator<Item = &'a ServiceName> {
    let of_run = &run.manifest.run;
    let is_accepted =
        move |name: &ServiceName| facts.accepted_shrinks.iter().any(|(run, of)| run == of_run && of == name);
    let suspect = run.manifest.taken().filter(|(_, taken)| taken.suspect.is_some()).map(|(service, _)| service);
    suspect.filter(move |name| !is_accepted(name))
}

/// Some level of the proof has no verdict at all.
pub(super) fn lacks_a_verdict(run: &Run) -> bool {
    Level::PROOF.iter().any(|level| run.latest(*level).is_none())
}

impl<'a> Places<'a> {
    pub(super) fn read(spec: &'a Spec, observation: &'a Observation, history: &'a History) -> Self {
        let (mut known, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        for name in spec.repositories.keys() {
            match observation.repositories.get(name) {
                None => drop(unknown.insert(name.clone(), "it was not looked at".to_owned())),
                Some(Observed::Unknown { reason }) => drop(unknown.insert(name.clone(), reason.clone())),
                Some(Observed::Known(RepositoryState::Absent { ungenerated_keys, known_before })) => {
                    let known_before = known_before.as_ref().or(history.known_repositories.get(name));
                    known.insert(
                        name.clone(),
                        Place::new(State::Absent { ungenerated: ungenerated_keys, known_before }),
                    );
                }
                Some(Observed::Known(RepositoryState::Present(facts))) => {
                    let mut place = Place::new(State::Present(facts));
                    let standpoint = Standpoint::of(observation, name, facts);
                    place.elsewhere = standpoint.owner_elsewhere();
                    let (runs, strays) = project(spec, facts, standpoint);
                    (place.runs, place.strays) = (runs, strays);
                    known.insert(name.clone(), place);
                }
            }
        }
        let mut places = Self { known, unknown, used: BTreeSet::new() };
        places.used = places
            .present()
            .flat_map(|(_, facts)| {
                let sealed = facts.runs.iter().map(|run| &run.manifest.run);
                sealed.chain(facts.unsealed.iter().map(|unsealed| &unsealed.run)).chain(&facts.removed)
            })
            .collect();
        places
    }

    /// Repositories that were there before, as this machine remembers.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&RepositoryName, &RepositoryId)> {
        self.known.iter().filter_map(|(name, place)| match &place.state {
            State::Absent { known_before, .. } => known_before.map(|id| (name, id)),
            State::Present(_) => None,
        })
    }

    pub(super) fn lineage(&self, spec: &Spec) -> Vec<Lineage> {
        let known = spec.repositories.keys().filter_map(|name| self.known.get_key_value(name));
        known
            .map(|(name, place)| Lineage {
                repository: name.clone(),
                id: place.facts().map(|facts| facts.id.clone()),
                generation: place.facts().and_then(|facts| facts.generation.as_ref()).map_or(0, |it| it.number),
            })
            .collect()
    }

    /// The repositories that are there, in order of name.
    pub(super) fn present(&self) -> impl Iterator<Item = (&RepositoryName, &'a RepositoryFacts)> {
        self.known.iter().filter_map(|(name, place)| Some((name, place.facts()?)))
    }
}

impl<'a> Place<'a> {
    fn new(state: State<'a>) -> Self {
        Self {
            state,
            runs: BTreeMap::new(),
            created: None,
            sealed: None,
            writers: Vec::new(),
            rules: BTreeMap::new(),
            accepts: BTreeMap::new(),
            removal: None,
            pruned: None,
            elsewhere: None,
            adopted: None,
            strays: Vec::new(),
        }
    }

    pub(super) fn facts(&self) -> Option<&'a RepositoryFacts> {
        match self.state {
            State::Present(facts) => Some(facts),
            State::Absent { .. } => None,
        }
    }

    /// Absent where a repository was before: perhaps a disk that is not mounted, so nothing is begun there unasked. Or of another
    /// place of the stack.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self.state, State::Absent { known_before: Some(_), .. }) || self.elsewhere.is_some()
    }

    /// With those that are used for nothing: who names one knows it.
    pub(super) fn all_runs(&self) -> impl Iterator<Item = &Projected<'a>> {
        self.runs.values().flatten().chain(&self.strays)
    }

    pub(super) fn runs_of(&self, policy: &PolicyName) -> &[Projected<'a>] {
        self.runs.get(policy).map_or(&[], Vec::as_slice)
    }

    pub(super) fn is(&self, name: &RepositoryName) -> Option<Precondition> {
        let id = self.facts()?.id.clone();
        Some(Precondition::RepositoryIs { repository: name.clone(), id })
    }

    /// Who else works in it: while they do, nothing that must be alone is planned.
    pub(super) fn busy(&self, stack: &crate::model::ids::StackName) -> Option<String> {
        let facts = self.facts()?;
        let mut holders: Vec<String> = Vec::new();
        holders.extend(
            facts
                .leases
                .iter()
                .filter(|lease| lease.alive && lease.stack != *stack)
                .map(|lease| format!("stack {} ({}, lease {})", lease.stack, lease.owner, lease.id)),
        );
        if facts.restic_locks > 0 {
            holders.push(ResticLock::describe_all(facts.restic_locks, &facts.lock_holders));
        }
        (!holders.is_empty()).then(|| holders.join(" and "))
    }
}

/// The runs by their policies, and the strays.
fn project<'a>(
    spec: &Spec,
    facts: &'a RepositoryFacts,
    standpoint: Standpoint<'a>,
) -> (BTreeMap<PolicyName, Vec<Projected<'a>>>, Vec<Projected<'a>>) {
    let mut runs: BTreeMap<PolicyName, Vec<Projected>> = BTreeMap::new();
    let mut strays = Vec::new();
    let is_elsewhere = standpoint.owner_elsewhere().is_some();
    for run in &facts.runs {
        let manifest = &run.manifest;
        let suspect = suspects(facts, run).cloned().collect();
        let foreign = !standpoint.is_ours(run);
        let projected = Projected {
            run: manifest.run.clone(),
            started: manifest.started,
            standing: standing(run),
            slot: manifest.slot,
            suspect,
            undeclared: manifest.taken().any(|(service, _)| !spec.services.contains_key(service)),
            foreign,
            seen: Some(run),
            pending: None,
        };
        match foreign && !is_elsewhere {
            true => strays.push(projected),
            false => runs.entry(manifest.policy.clone()).or_default().push(projected),
        }
    }
    for runs in runs.values_mut() {
        runs.sort_by(|a, b| a.age_key().cmp(&b.age_key()));
    }
    (runs, strays)
}

impl Place<'_> {
    /// Adds a run that `by` will bring about.
    pub(super) fn add_run(
        &mut self,
        policy: &PolicyName,
        run: RunId,
        started: Timestamp,
        standing: Standing,
        slot: Option<Timestamp>,
        by: StepId,
    ) {
        let (suspect, undeclared, foreign) = (Vec::new(), false, false);
        let pending = Some(by);
        let projected = Projected { run, started, standing, slot, suspect, undeclared, foreign, seen: None, pending };
        self.runs.entry(policy.clone()).or_default().push(projected);
    }
}
