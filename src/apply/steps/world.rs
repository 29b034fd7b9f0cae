//! What the steps act on: the file's resources, the opened repositories, the lease.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use crate::apply::lease::Lease;
use crate::apply::resume::Resumed;
use crate::apply::runner::StepError;
use crate::engines::{self, Engine, EngineError, Ground, Workrooms};
use crate::model::hook::HookRun;
use crate::model::ids::{Digest, PlanId, RepositoryName, RunId, ServiceName};
use crate::model::observation::{ContainerState, RepositoryFacts, Run};
use crate::model::origin::Origin;
use crate::model::outcome::FailureKind;
use crate::model::plan::Plan;
use crate::model::record::{Approved, Generation, PlanUsed, Record};
use crate::model::run::RECORD_FORMAT;
use crate::model::step::StepId;
use crate::observe::{StoreError, Stores};
use crate::repository::{RepositoryError, Store};
use crate::secrets::Secret;
use crate::spec::file::{Source, Spec};

/// Everything that carrying out a plan may touch.
pub struct World {
    pub spec: Spec,
    /// The text of devstack.yaml, which goes into every run: on an empty host it is needed first.
    pub spec_text: String,
    pub ground: Ground,
    pub stores: Arc<Stores>,
    pub rooms: Workrooms,
    /// None for what writes to no repository.
    pub lease: Option<Lease>,
    pub plan: Plan,
    /// A saved plan is used once: its id is recorded in every repository it applies to.
    pub saved: bool,
    /// What earlier tries of this plan did.
    pub resumed: Resumed,
    /// Where the runs are taken.
    pub origin: Option<Origin>,
    facts: Mutex<BTreeMap<RepositoryName, Arc<RepositoryFacts>>>,
    /// The services of Compose that no container was made of, each with the reason.
    unmade: Mutex<BTreeMap<String, String>>,
    /// The containers of the project before the first take stopped any.
    before: OnceLock<Vec<ContainerState>>,
    /// What the hooks of runs have come to, by their steps.
    hooks: Mutex<BTreeMap<(RunId, StepId), HookRun>>,
    /// The values of the file's secrets; read when first asked for.
    secrets: OnceLock<Vec<Secret>>,
}

impl World {
    #[allow(clippy::too_many_arguments, reason = "made in one place, each part named there")]
    pub fn new(
        spec: Spec,
        spec_text: String,
        ground: Ground,
        stores: Arc<Stores>,
        rooms: Workrooms,
        lease: Option<Lease>,
        plan: Plan,
        saved: bool,
    ) -> Self {
        let resumed = Resumed::default();
        let (facts, unmade, before) = (Mutex::default(), Mutex::default(), OnceLock::new());
        Self {
            spec,
            spec_text,
            ground,
            stores,
            rooms,
            lease,
            plan,
            saved,
            resumed,
            origin: None,
            facts,
            unmade,
            before,
            hooks: Mutex::default(),
            secrets: OnceLock::new(),
        }
    }

    pub(super) fn note_hook(&self, run: &RunId, step: StepId, came: HookRun) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).insert((run.clone(), step), came);
    }

    /// In the order of their steps.
    pub(super) fn hooks_of(&self, run: &RunId) -> Vec<HookRun> {
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.iter().filter(|((of, _), _)| of == run).map(|(_, came)| came.clone()).collect()
    }

    /// What a program has printed, with stars in place of every secret of the file.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let secrets = self.secrets.get_or_init(|| {
            // What lies in Vault is known to no program of this machine but devstack; where nobody had to log in, nobody does now.
            let is_in_reach = self.ground.secrets.login_state().is_some();
            let references = self.spec.secrets().into_iter().filter(|secret| is_in_reach || secret.vault.is_none());
            references.filter_map(|secret| self.ground.secrets.resolve(&secret).ok()).collect()
        });
        masked(text, secrets)
    }

    pub(super) fn note_unmade(&self, unmade: BTreeMap<String, String>) {
        *self.unmade.lock().unwrap_or_else(PoisonError::into_inner) = unmade;
    }

    pub(super) fn why_unmade(&self, service: &str) -> Option<String> {
        self.unmade.lock().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }

    /// The containers as they were before any take; looked at when first asked. An engine that does not answer is told of by
    /// the takes themselves.
    pub(super) fn before(&self) -> &[ContainerState] {
        self.before.get_or_init(|| self.ground.containers.of_project().unwrap_or_default())
    }

    pub(super) fn store(&self, name: &RepositoryName) -> Result<Arc<Store>, StepError> {
        self.stores.open(name).map_err(store_error)
    }

    pub(super) fn engine(&self, service: &ServiceName) -> Result<Box<dyn Engine>, StepError> {
        self.source(service).map(|source| engines::for_source(source, &self.ground))
    }

    pub(super) fn source(&self, service: &ServiceName) -> Result<&Source, StepError> {
        match self.spec.services.get(service) {
            Some(service) => Ok(&service.source),
            None => Err(StepError::new(
                FailureKind::Permanent,
                format!("service {service} is no longer in the file; declare it again to work with its backups"),
            )),
        }
    }

    /// What the repository holds; read once, and again after anything was written.
    pub(super) fn facts(&self, name: &RepositoryName) -> Result<Arc<RepositoryFacts>, StepError> {
        let mut cached = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = cached.get(name) {
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(self.stores.facts(name, &self.spec.stack).map_err(store_error)?);
        cached.insert(name.clone(), Arc::clone(&facts));
        Ok(facts)
    }

    pub(super) fn forget_facts(&self, name: &RepositoryName) {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(super) fn run(&self, repository: &RepositoryName, run: &RunId) -> Result<Run, StepError> {
        self.facts(repository)?
            .runs
            .iter()
            .find(|known| known.manifest.run == *run)
            .cloned()
            .ok_or_else(|| store_error(StoreError::NoRun { repository: repository.clone(), run: run.clone() }))
    }

    /// Writes one record, with the lease still ours.
    pub(super) fn record(
        &self,
        repository: &RepositoryName,
        record: &Record,
        attachments: &[(&str, &[u8])],
    ) -> Result<(), StepError> {
        self.check_lease(repository)?;
        let store = self.store(repository)?;
        store.write_record(&self.spec.stack, record, attachments).map_err(repository_error)?;
        self.forget_facts(repository);
        if matches!(record, Record::Manifest(_)) {
            // The run is there now: from here on it is missed. With it those that an older version sealed.
            let facts = self.facts(repository)?;
            let runs = facts.runs.iter().map(|run| &run.manifest.run);
            store.tally_add(&self.spec.stack, runs).map_err(repository_error)?;
        }
        Ok(())
    }

    /// A process that was suspended for longer than its lease must not write on as if nothing had happened.
    pub(super) fn check_lease(&self, repository: &RepositoryName) -> Result<(), StepError> {
        match &self.lease {
            Some(lease) => lease.check(repository).map_err(|error| StepError::new(FailureKind::Locked, error)),
            None => Err(StepError::new(
                FailureKind::Permanent,
                format!("repository {repository} is written to without a lease; this is a fault in devstack"),
            )),
        }
    }

    /// Takes the lease in a repository that is about to be made.
    pub(super) fn extend_lease(&self, repository: &RepositoryName) -> Result<(), StepError> {
        match &self.lease {
            Some(lease) => Ok(lease.extend(repository)?),
            // Said by whoever checks it next.
            None => Ok(()),
        }
    }

    /// Whether evidence can be put on record. It can't be in a repository that is only read.
    pub(super) fn is_recorded(&self, repository: &RepositoryName) -> bool {
        self.lease.as_ref().is_none_or(|lease| !lease.unwritable().contains_key(repository))
    }

    /// Moves the repository's generation on: something declared has changed in it.
    pub(super) fn next_generation(&self, repository: &RepositoryName) -> Result<(), StepError> {
        let number = self.facts(repository)?.generation.as_ref().map_or(0, |generation| generation.number) + 1;
        self.record(
            repository,
            &Record::Generation(Generation {
                format: RECORD_FORMAT,
                number,
                spec_digest: self.plan.spec_digest.clone(),
                plan: self.plan.id.clone(),
                at: self.plan.now,
            }),
            &[],
        )
    }

    /// Records that this saved plan is used, in every repository that is there. Before its first step, so that a plan
    /// that was killed half-way is not applied again but planned anew.
    pub fn mark_used(&self) -> Result<(), StepError> {
        for lineage in self.plan.lineage.iter().filter(|lineage| lineage.id.is_some()) {
            self.mark_used_in(&lineage.repository)?;
        }
        Ok(())
    }

    /// Puts on record who approved what: before the first step in the repositories that are there, and after the last in those that
    /// were made (`anew`). One that can only be read keeps none.
    pub fn note_approval(&self, approved: &Approved, anew: bool) -> Result<(), StepError> {
        for lineage in self.plan.lineage.iter().filter(|lineage| lineage.id.is_none() == anew) {
            let name = &lineage.repository;
            // What was to be made and was not is told of by its own step.
            if self.is_recorded(name) && (!anew || self.facts(name).is_ok()) {
                self.record(name, &Record::Approved(Box::new(approved.clone())), &[])?;
            }
        }
        Ok(())
    }

    pub(super) fn mark_used_in(&self, repository: &RepositoryName) -> Result<(), StepError> {
        let plan: PlanId = self.plan.id.clone();
        self.record(repository, &Record::PlanUsed(PlanUsed { format: RECORD_FORMAT, plan, at: self.plan.now }), &[])
    }

    pub(super) fn spec_digest(&self) -> Digest {
        self.plan.spec_digest.clone()
    }
}

/// Shorter than this it is no secret, and would be found everywhere.
const SHORTEST_SECRET: usize = 4;

fn masked(text: &str, secrets: &[Secret]) -> String {
    // Of a file with several lines, such as one with an age identity, each is one.
    let lines = secrets.iter().flat_map(|secret| secret.expose().lines().chain([secret.expose()]));
    let mut values: Vec<&str> = lines.map(str::trim).filter(|value| value.len() >= SHORTEST_SECRET).collect();
    // A longer one may hold a shorter one.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, "***"))
}

pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

pub(super) fn store_error(error: StoreError) -> StepError {
    StepError::new(error.kind(), error)
}

pub(super) fn repository_error(error: RepositoryError) -> StepError {
    StepError::new(error.kind(), error)
}

pub(super) fn engine_error(error: EngineError) -> StepError {
    StepError::new(error.kind(), error)
}
