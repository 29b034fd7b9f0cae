//! A drill from its recovery point to its evidence. Everything that it makes is removed before this returns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::runtime::Runtime;

use super::error::DrillError;
use super::id::DrillId;
use super::isolation::{self, Isolated, Provided};
use super::point::Point;
use super::runner::{Apart, Drilled, FilesOfRun};
use super::scratch::Scratch;
use super::stand_in::Names;
use super::vault;
use crate::apply::executor::{Approvals, ExecuteOptions, execute};
use crate::apply::journal::Journal;
use crate::apply::progress::{self, ProgressKind};
use crate::apply::runner::StepRunner;
use crate::apply::steps::World;
use crate::engines::{Ground, KeyFiles, VaultRestore, Workrooms};
use crate::model::cancel::Cancel;
use crate::model::chain;
use crate::model::compose::ComposeModel;
use crate::model::drill::{Drill, DrillStep};
use crate::model::evidence::{Proof, Verdict};
use crate::model::history::{History, Measured};
use crate::model::ids::RepositoryName;
use crate::model::outcome::{Event, StepOutcome};
use crate::model::plan::{Note, Plan};
use crate::model::run::RECORD_FORMAT;
use crate::model::step::{Action, Step, StepId};
use crate::model::units::Span;
use crate::observe::Stores;
use crate::runtime::{Containers, Docker, KEPT_MODEL, StoppedBook};
use crate::spec::file::Spec;

/// What a drill works with.
pub struct Means<'a> {
    pub spec: &'a Spec,
    pub spec_text: &'a str,
    /// The live stack's; the drill makes one of its own from it.
    pub ground: &'a Ground,
    /// Which keys open a Vault.
    pub vault: VaultRestore,
    /// The name under which all of it stays; a drill is removed.
    pub kept: Option<DrillId>,
    pub stores: &'a Arc<Stores>,
    pub history: &'a History,
    /// `.devstack/`.
    pub state: &'a Path,
    pub parallel: usize,
    pub progress: ProgressKind,
    pub runtime: &'a Runtime,
    pub cancel: &'a Cancel,
}

/// What came of it.
#[must_use = "a drill that nobody hears of proves nothing"]
pub struct Outcome {
    pub drill: Drill,
    /// Runs that were found damaged, to be put on record.
    pub damaged: Vec<(RepositoryName, Proof)>,
    /// It was stopped, so that it says nothing of a recovery.
    pub interrupted: bool,
    /// Why something of it is still there. The next drill removes it.
    pub left_behind: Option<DrillError>,
    /// All of it is there, under the name that was asked for.
    pub kept: bool,
}

/// What is known once the steps have ended, or could not begin.
#[derive(Default)]
struct Told {
    steps: Vec<DrillStep>,
    measured: Vec<Measured>,
    /// By service: from the drill's begin to the end of its restore.
    back: BTreeMap<String, Span>,
    findings: Vec<String>,
    left_out: Vec<Note>,
    without: Vec<Note>,
    damaged: Vec<(RepositoryName, Proof)>,
    interrupted: bool,
}

impl Means<'_> {
    /// Brings the point back, looks at it, and removes it. What goes wrong is a finding: a recovery would have met with it.
    pub fn carry_out(&self, point: &Point, since: Instant) -> Outcome {
        let at = point.now;
        let failed = |error: DrillError| Told { findings: vec![chain(&error)], ..Told::default() };
        let (mut told, took, id, left_behind, kept) = match self.docker(point) {
            Ok(docker) => match self.scratch() {
                Ok(scratch) => {
                    let told = self.inside(point, &scratch, docker.as_ref(), since).unwrap_or_else(failed);
                    let took = Span::from(since.elapsed());
                    let id = scratch.id.to_string();
                    // What was stopped half-way is of no use to anybody.
                    let kept = self.kept.is_some() && !told.interrupted && !told.steps.is_empty();
                    let left_behind = if kept { None } else { scratch.remove(docker.as_deref()).err() };
                    (told, took, id, left_behind, kept)
                }
                Err(error) => (failed(error), Span::from(since.elapsed()), String::new(), None, false),
            },
            Err(error) => (failed(error.into()), Span::from(since.elapsed()), String::new(), None, false),
        };
        let mut services = point.services.clone();
        for service in &mut services {
            service.back_after = told.back.get(service.service.as_str()).copied();
        }
        let rto = point.spec.recovery.as_ref().and_then(|recovery| recovery.rto);
        let mut drill = Drill {
            format: RECORD_FORMAT,
            id,
            at,
            took,
            services,
            steps: told.steps,
            measured: told.measured,
            verdict: Verdict::Passed,
            rto,
            left_out: [point.left_out.clone(), told.left_out].concat(),
            without: told.without,
            unprotected: point.unprotected.clone(),
            partial: point.partial,
            as_scheduled: point.is_newest() && point.asked.only.is_empty() && point.asked.from.is_none(),
            escrow: self.vault.keys == KeyFiles::InPlace && vault_is_back(point, &told.back),
            devstack_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        if self.kept.is_none() {
            told.findings.extend(missed(&drill, &point.spec, point.is_newest()));
        }
        if !told.findings.is_empty() {
            drill.verdict = Verdict::Failed(told.findings);
        }
        Outcome { drill, damaged: told.damaged, interrupted: told.interrupted, left_behind, kept }
    }

    fn scratch(&self) -> Result<Scratch, DrillError> {
        match &self.kept {
            None => Scratch::make(self.state),
            Some(name) => Scratch::kept(self.state, name.clone()),
        }
    }

    /// The engine, where the drill has containers.
    fn docker(&self, point: &Point) -> Result<Option<Arc<Docker>>, crate::runtime::RuntimeError> {
        let in_containers = |name| point.spec.services.get(name).is_some_and(|service| service.source.needs_docker());
        let needed = point.asked.only.is_empty() && point.model_of.is_some()
            || point.services.iter().any(|drilled| in_containers(&drilled.service));
        let Some(docker) = needed.then(|| self.ground.containers.docker()).transpose()? else { return Ok(None) };
        match docker.is_here() {
            true => Ok(Some(docker)),
            false => Err(crate::runtime::RuntimeError::Elsewhere { at: docker.address().to_owned() }),
        }
    }

    fn inside(
        &self,
        point: &Point,
        scratch: &Scratch,
        docker: Option<&Arc<Docker>>,
        since: Instant,
    ) -> Result<Told, DrillError> {
        let kept = self.model(point)?;
        let mut model = kept.clone().map(|model| with_built(model, docker)).transpose()?;
        let mut plan = point.plan(self.known(model.as_ref()), self.history)?;
        let (mut isolated, mut without) = (None, Vec::new());
        if let (Some(all), Some(docker)) = (&model, docker) {
            let barred = self.barred(point, all, &plan, scratch)?;
            if !barred.is_empty() {
                let less = isolation::reduced(all.clone(), &barred);
                plan = point.plan(self.known(Some(&less)), self.history)?;
                model = Some(less);
                without = barred.into_iter().map(|(name, why)| Note::new(name, why)).collect();
            }
            if let Some(model) = &model {
                isolated = self.isolated(model, &plan, scratch, docker)?;
            }
        }
        let mut provided = isolated.as_ref().map(|(isolated, _)| isolated.provided.clone()).unwrap_or_default();
        provided.projects.extend(self.live_project());
        let ground = self.apart_ground(point, scratch, &provided, docker, model.as_ref());
        let left_out = provided.left_out.iter().map(|left| Note::new(left.at.clone(), left.why.clone())).collect();
        let runner = Arc::new(Drilled {
            world: self.world(point, scratch, ground, &plan),
            spec: self.spec.clone(),
            apart: match (isolated, docker) {
                (Some((isolated, services)), Some(docker)) => {
                    Some(self.apart(point, scratch, isolated, services, docker, kept.as_ref())?)
                }
                _ => None,
            },
            damaged: Mutex::default(),
            notes: Mutex::new(left_out),
        });
        let mut told = self.execute(&plan, &runner, since)?;
        told.damaged = std::mem::take(&mut *runner.damaged.lock().unwrap_or_else(PoisonError::into_inner));
        told.left_out = std::mem::take(&mut *runner.notes.lock().unwrap_or_else(PoisonError::into_inner));
        told.without = without;
        Ok(told)
    }

    /// What Compose made of the run's files, with every variable filled in.
    fn model(&self, point: &Point) -> Result<Option<Value>, DrillError> {
        let Some((repository, run)) = &point.model_of else { return Ok(None) };
        let files = self.stores.open(repository)?.reader()?.attachments(&run.record)?;
        let of = || run.manifest.run.clone();
        let kept = files.into_iter().find(|(name, _)| name == KEPT_MODEL);
        let (_, bytes) = kept.ok_or_else(|| DrillError::NoModel { run: of() })?;
        serde_json::from_slice(&bytes).map(Some).map_err(|source| DrillError::Model { run: of(), source })
    }

    /// As the planner wants to know it. The file here may call containers by the name that the project has now.
    fn known(&self, model: Option<&Value>) -> Option<ComposeModel> {
        let mut known = ComposeModel::of(model?);
        known.once.extend(self.live_project().filter(|project| *project != known.project));
        Some(known)
    }

    fn live_project(&self) -> Option<String> {
        self.ground.containers.project().ok().flatten()
    }

    /// The services that can't be isolated and that nothing declared needs, each with the reason. Nothing is fetched or made
    /// for them.
    fn barred(
        &self,
        point: &Point,
        model: &Value,
        plan: &Plan,
        scratch: &Scratch,
    ) -> Result<BTreeMap<String, String>, DrillError> {
        let services = created(plan);
        if services.is_empty() {
            return Ok(BTreeMap::new());
        }
        let request = isolation::Request {
            model,
            id: &scratch.id,
            services: &services,
            scratch: &scratch.folder,
            image_volumes: &BTreeMap::new(),
        };
        let Err(refused) = isolation::isolate(&request) else { return Ok(BTreeMap::new()) };
        let needed = self.known(Some(model)).map(|known| point.needed(&known)).unwrap_or_default();
        match isolation::without(model, &services, &refused.problems, &needed) {
            Some(without) => Ok(without),
            None => Err(refused.into()),
        }
    }

    /// The model made over, and the services in it; none where the plan makes no containers.
    fn isolated(
        &self,
        model: &Value,
        plan: &Plan,
        scratch: &Scratch,
        docker: &Docker,
    ) -> Result<Option<(Isolated, BTreeSet<String>)>, DrillError> {
        let services = created(plan);
        if services.is_empty() {
            return Ok(None);
        }
        let mut image_volumes = BTreeMap::new();
        for service in &services {
            // One without an image is refused below, in words of its own.
            let Some(image) = model["services"][service]["image"].as_str() else { continue };
            docker.fetch_image(image)?;
            image_volumes.insert(service.clone(), docker.image_volumes(image)?);
        }
        let request = isolation::Request {
            model,
            id: &scratch.id,
            services: &services,
            scratch: &scratch.folder,
            image_volumes: &image_volumes,
        };
        Ok(Some((isolation::isolate(&request)?, services)))
    }

    fn apart(
        &self,
        point: &Point,
        scratch: &Scratch,
        isolated: Isolated,
        services: BTreeSet<String>,
        docker: &Arc<Docker>,
        kept: Option<&Value>,
    ) -> Result<Apart, DrillError> {
        scratch.uses_engine()?;
        let of_run = point.model_of.as_ref().and_then(|(_, run)| run.manifest.compose.as_ref());
        let files = self.ground.containers.compose().filter(|_| point.brings_files()).and_then(|compose| {
            let (of_run, root) = (of_run?, scratch.root());
            let compose = compose.called(Some(of_run.project.clone()));
            let folder = compose.folder();
            // One that lay elsewhere then is compared with nothing.
            (of_run.folder.as_ref() == Some(&folder)).then_some(())?;
            let compose = compose.below(&root);
            let there = compose.folder();
            Some(FilesOfRun { compose, folder, there, model: kept?.clone(), unset: of_run.unset.clone() })
        });
        Ok(Apart {
            id: scratch.id.clone(),
            isolated,
            services,
            docker: Arc::clone(docker),
            folder: scratch.folder.clone(),
            root: scratch.root(),
            lock: scratch.lock.try_clone().map_err(DrillError::io("using the lock of", &scratch.folder))?,
            run: point.model_run(),
            binds: of_run.map(|model| model.binds.clone()).unwrap_or_default(),
            files,
        })
    }

    fn apart_ground(
        &self,
        point: &Point,
        scratch: &Scratch,
        provided: &Provided,
        docker: Option<&Arc<Docker>>,
        model: Option<&Value>,
    ) -> Ground {
        let names = Arc::new(Names { id: scratch.id.clone(), provided: provided.clone() });
        let containers = Containers::of_stand_in(names, docker.cloned(), &scratch.root());
        let mut ground = self.ground.apart(&scratch.root(), containers, StoppedBook::new(scratch.stopped()));
        ground.vault = self.vault.clone();
        let source = vault::all(&point.spec).find(|(name, _)| Some(*name) == point.vault.as_ref());
        if let (Some((_, source)), Some(docker), Some(model)) = (source, docker, model) {
            ground.secrets = Arc::new(vault::secrets(self.ground, &ground, docker, source, model, provided));
            // It is waited for while it starts, as in a recovery.
            ground.secrets.apply();
        }
        ground
    }

    fn world(&self, point: &Point, scratch: &Scratch, ground: Ground, plan: &Plan) -> World {
        World::new(
            point.spec.clone(),
            self.spec_text.to_owned(),
            ground,
            Arc::clone(self.stores),
            Workrooms::new(scratch.rooms()),
            // It writes to no repository.
            None,
            plan.clone(),
            false,
        )
    }

    fn execute(&self, plan: &Plan, runner: &Arc<Drilled>, since: Instant) -> Result<Told, DrillError> {
        let journal = Journal::open(self.state)?;
        let told = Arc::new(Mutex::new(Told::default()));
        let steps: BTreeMap<StepId, Step> = plan.steps.iter().map(|step| (step.id, step.clone())).collect();
        let (show, seen) = (progress::receiver(self.progress, plan), Arc::clone(&told));
        let events = move |event: Event| {
            if let Event::Ended { step, took, outcome, .. } = &event
                && let Some(step) = steps.get(step)
            {
                let mut told = seen.lock().unwrap_or_else(PoisonError::into_inner);
                told.note(step, *took, outcome, Span::from(since.elapsed()));
            }
            show(event);
        };
        let options = ExecuteOptions { parallel: self.parallel, drill: true, ..ExecuteOptions::default() };
        // Nothing that is there is touched, so that nobody has to be asked.
        let approvals = Approvals { everything: true, ..Approvals::default() };
        let runner: Arc<dyn StepRunner> = Arc::clone(runner) as _;
        let outcome =
            self.runtime.block_on(execute(plan, &approvals, runner, &journal, options, self.cancel.clone(), events));
        let mut told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        told.interrupted = outcome.interrupted;
        told.findings.extend(outcome.unjournalled);
        Ok(told)
    }
}

impl Told {
    fn note(&mut self, step: &Step, took: Span, outcome: &StepOutcome, since: Span) {
        let (verb, resource) = (step.action.verb(), step.action.resource());
        let said = match outcome {
            StepOutcome::Done(done) => {
                let of = |finding: &String| format!("{verb} {resource}: {finding}");
                self.findings.extend(done.damage.iter().map(of));
                done.summary.clone()
            }
            StepOutcome::AlreadyDone { reason } => reason.clone(),
            StepOutcome::Failed { reason, .. } => {
                self.findings.push(format!("{verb} {resource}: {reason}"));
                reason.clone()
            }
            // Its cause is a step of its own.
            StepOutcome::Held { .. } | StepOutcome::Skipped { .. } | StepOutcome::Interrupted => return,
        };
        let succeeded = outcome.is_success();
        if let (true, Action::Restore(restore)) = (succeeded, &step.action) {
            self.back.insert(restore.service.to_string(), since);
        }
        self.measured.extend(outcome.measured(&step.action, took));
        self.steps.push(DrillStep { verb: verb.to_owned(), resource, took, said, succeeded });
    }
}

/// What is built is, where its image is here, no other than one that is fetched.
fn with_built(mut model: Value, docker: Option<&Arc<Docker>>) -> Result<Value, DrillError> {
    let project = model["name"].as_str().unwrap_or_default().to_owned();
    let Some(docker) = docker else { return Ok(model) };
    for (name, service) in model["services"].as_object_mut().into_iter().flatten() {
        let is_built = service["image"].is_null() && service["build"].is_object();
        let built = format!("{project}-{name}");
        if is_built && docker.has_image(&built)? {
            service["image"] = built.into();
        }
    }
    Ok(model)
}

/// The Compose services of which the plan makes containers.
fn created(plan: &Plan) -> BTreeSet<String> {
    let of = plan.steps.iter().find_map(|step| match &step.action {
        Action::CreateContainers { services, .. } => Some(services.iter().cloned().collect()),
        _ => None,
    });
    of.unwrap_or_default()
}

fn vault_is_back(point: &Point, back: &BTreeMap<String, Span>) -> bool {
    point.vault.as_ref().is_some_and(|name| back.contains_key(name.as_str()))
}

/// The objectives that were not met.
fn missed(drill: &Drill, spec: &Spec, is_newest: bool) -> Vec<String> {
    let mut missed = Vec::new();
    if let Some(rto) = drill.rto.filter(|rto| drill.took > *rto) {
        missed.push(format!("MISSED: it took {}, and the stack may take {rto} to come back", drill.took));
    }
    for service in &drill.services {
        let name = &service.service;
        if let (Some(back), Some(rto)) = (service.back_after, spec.rto_of(name))
            && back > rto
        {
            missed.push(format!("MISSED: {name} was back after {back}, and may take {rto}"));
        }
        if let Some(rpo) = service.rpo.filter(|rpo| is_newest && service.age > *rpo) {
            let age = service.age;
            missed.push(format!(
                "MISSED: the newest good run of {name} is {age} old, and no more than {rpo} may be lost"
            ));
        }
    }
    missed
}
