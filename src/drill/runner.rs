//! The steps of a recovery, carried out apart from the live stack: those that touch containers go to the drill's own, none
//! writes to a repository, and nothing is started that the gate has not let through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::copies;
use super::created::created;
use super::error::DrillError;
use super::gate;
use super::id::{DrillId, LABEL};
use super::isolation::Isolated;
use super::vault;
use crate::apply::runner::{StepContext, StepError, StepRunner};
use crate::apply::steps::{ProofOf, World, prove_run};
use crate::model::chain;
use crate::model::compose::Bound;
use crate::model::evidence::Proof;
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::outcome::{Done, FailureKind};
use crate::model::plan::Note;
use crate::model::resolved;
use crate::model::step::{Action, Step};
use crate::runtime::{Compose, Docker, MadeModel, Making, Order};
use crate::spec::file::Spec;

pub(super) struct Drilled {
    /// With a ground of the drill's own.
    pub world: World,
    /// The whole file: a run is read back with every service in it.
    pub spec: Spec,
    pub apart: Option<Apart>,
    /// Runs that were found damaged on the way.
    pub damaged: Mutex<Vec<(RepositoryName, Proof)>>,
    pub notes: Mutex<Vec<Note>>,
}

/// What the drill's containers are made of.
pub(super) struct Apart {
    pub id: DrillId,
    pub isolated: Isolated,
    pub services: BTreeSet<String>,
    pub docker: Arc<Docker>,
    pub folder: PathBuf,
    pub root: PathBuf,
    pub lock: File,
    /// The run that the Compose files are of.
    pub run: String,
    /// What stood at each path that containers bind, when the run was taken.
    pub binds: BTreeMap<PathBuf, Bound>,
    /// The run's Compose files, where this drill brings some back.
    pub files: Option<FilesOfRun>,
}

/// The Compose files that were brought back, beside what they were resolved to when the run was taken.
pub(super) struct FilesOfRun {
    pub compose: Compose,
    /// The folder of theirs on this machine, and the one that stands for it here.
    pub folder: PathBuf,
    pub there: PathBuf,
    pub model: Value,
    pub unset: Option<Vec<String>>,
}

impl FilesOfRun {
    /// What a recovery that has these files alone would say of them. The drill is made from what the run holds either way, as
    /// a recovery then is.
    fn told(&self, run: &str) -> Option<Note> {
        let text = match self.compose.resolved_here() {
            Err(error) => format!("they can't be resolved by themselves ({})", chain(&error)),
            Ok(here) => {
                let project = self.model["name"].as_str().unwrap_or_default();
                let model = resolved::moved(here.model, Some(&self.there), &self.folder, project);
                let then = self.unset.as_deref().unwrap_or_default();
                let lost: Vec<String> = here.unset.into_iter().filter(|name| !then.contains(name)).collect();
                let differs = resolved::differences(&self.model, &model);
                match (lost.is_empty(), differs.is_empty()) {
                    (_, true) => return None,
                    (false, false) => format!("these variables are in no file of it: {}", lost.join(", ")),
                    (true, false) => {
                        let some: Vec<String> = differs.into_iter().take(6).collect();
                        format!("they do not say by themselves what they said then: {}", some.join(", "))
                    }
                }
            }
        };
        let text = format!(
            "the Compose files of run {run}: {text}; the containers were made from the model that the run holds, as those of a recovery are"
        );
        Some(Note::new("compose", text))
    }
}

impl StepRunner for Drilled {
    fn precheck(&self, step: &Step) -> Result<Option<String>, StepError> {
        self.world.precheck(step)
    }

    fn run(&self, step: &Step, context: &StepContext<'_>) -> Result<Done, StepError> {
        match &step.action {
            Action::Prove { repository, run } => self.prove(repository, run, context),
            Action::CreateContainers { .. } => self.create(),
            Action::Restore(restore) => {
                self.must_not_be_live(&restore.service)?;
                let done = self.world.run(step, context)?;
                self.hand_out(&restore.service)?;
                Ok(done)
            }
            Action::StartContainer { .. } | Action::VerifyStack { .. } => self.world.run(step, context),
            other => {
                let text = format!("a drill does not {}; this is a fault in devstack", other.verb());
                Err(StepError::permanent(text))
            }
        }
    }
}

impl Drilled {
    /// As the proof of a recovery; what it found is written with the evidence, once the drill is over.
    fn prove(&self, repository: &RepositoryName, run: &RunId, context: &StepContext<'_>) -> Result<Done, StepError> {
        let world = &self.world;
        let store = world.stores.open(repository).map_err(|error| StepError::new(error.kind(), error))?;
        let facts = world.stores.facts(repository, &self.spec.stack);
        let facts = facts.map_err(|error| StepError::new(error.kind(), error))?;
        let held = facts.runs.iter().find(|known| known.manifest.run == *run);
        let held = held.ok_or_else(|| StepError::needs_replan(format!("run {run} is no longer in {repository}")))?;
        let progress = |bytes| context.progress(bytes);
        let of = ProofOf { spec: &self.spec, ground: &world.ground, rooms: &world.rooms };
        let proof = prove_run(&of, &store, held, &context.cancel, &progress)
            .map_err(|error| StepError::new(error.kind(), error))?;
        let named = |(level, finding): (crate::model::evidence::Level, &str)| format!("{}: {finding}", level.as_str());
        let damage: Vec<String> = proof.findings().map(named).collect();
        let (bytes, took) = (proof.read, proof.took);
        let summary = match damage.len() {
            0 => format!("{bytes} read back and checked in {took}"),
            count => format!("DAMAGED: {count} findings"),
        };
        if !damage.is_empty() {
            self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push((repository.clone(), proof));
        }
        Ok(Done { bytes, summary, damage, ..Done::default() })
    }

    /// The engine asks the file's Vault, which is the live one unless another stands in.
    fn must_not_be_live(&self, service: &ServiceName) -> Result<(), StepError> {
        let is_vault = vault::all(&self.world.spec).any(|(name, _)| name == service);
        match is_vault && !self.world.ground.secrets.has_stand_in() {
            true => Err(StepError::permanent("the live Vault would be written to; this is a fault in devstack")),
            false => Ok(()),
        }
    }

    /// What a restored Vault has issued anew, for the drill's containers.
    fn hand_out(&self, service: &ServiceName) -> Result<(), StepError> {
        let source = vault::all(&self.world.spec).find(|(name, _)| *name == service);
        let (Some((_, source)), Some(apart)) = (source, &self.apart) else { return Ok(()) };
        vault::hand_out(source, &self.world.ground, &apart.isolated.provided)
            .map_err(|error| StepError::new(FailureKind::Permanent, error))
    }

    /// Copies first, then the containers, and then a look at each of them.
    fn create(&self) -> Result<Done, StepError> {
        let Some(apart) = &self.apart else {
            return Err(StepError::permanent("there is no model to make containers of; this is a fault in devstack"));
        };
        let (made, notes) = apart.create().map_err(|error| match error {
            DrillError::Runtime(error) => StepError::new(error.kind(), error),
            error => StepError::new(FailureKind::Permanent, error),
        })?;
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
        Ok(Done { summary: format!("{made} containers are there, and none reaches out"), ..Done::default() })
    }
}

impl Apart {
    fn create(&self) -> Result<(usize, Vec<Note>), DrillError> {
        let provided = &self.isolated.provided;
        let mut notes = copies::fill(&provided.copies, &self.root, &self.folder, &self.run, &self.binds)?;
        notes.extend(self.files.as_ref().and_then(|files| files.told(&self.run)));
        let made = MadeModel { project: self.id.as_str(), model: &self.isolated.model, folder: &self.folder };
        let order = Order { services: &[], how: Making::Keep, alive: Some(&self.lock) };
        made.create(&self.docker, &order)?;
        let created = created(&self.docker.made_for(LABEL, self.id.as_str())?);
        let findings = gate::inspect(&created, &self.id, &self.services, &self.folder);
        if !findings.is_empty() {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            return Err(DrillError::Gate(lines.join("; ")));
        }
        Ok((created.containers.len(), notes))
    }
}
