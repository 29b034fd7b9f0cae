//! The recovery of the stack: which run each service comes back from, and in which order, as a graph. A service that has
//! its data is left as it is; what nobody could look at is not overwritten.

mod assertions;
mod edges;
mod graph;
mod model;
mod replace;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::graph::{Graph, Node};
use self::model::KnownModel;
use super::Planner;
use super::draft::NewStep;
use super::projection::Place;
use super::request::{PlanError, Recover, Selection};
use super::restore::Found;
use super::sources::running;
use crate::model::compose::{ComposeModel, Condition};
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::observation::{MissingFiles, Observed, Room, SourceState};
use crate::model::plan::Note;
use crate::model::step::{Action, Effect, Precondition, RestoreTarget, Started, StepId};
use crate::model::units::ByteSize;
use crate::spec::file::Source;

/// What is to become of a service.
enum Fate<'a> {
    /// It comes back from this run, if what is given holds once its server runs.
    Restored { found: Box<Found<'a>>, given: Option<Precondition> },
    /// It is overwritten from this run. Where its server can't be used as it is, its volumes are emptied first.
    Replaced { found: Box<Found<'a>>, cleared: bool },
    /// It has its data.
    Left,
}

impl<'a> Planner<'a> {
    /// All of what was asked for, or none of it: each service that can't be brought back is named.
    pub(super) fn recover(&mut self, asked: &Recover) -> Result<(), PlanError> {
        self.must_know_a_repository(asked.from.as_ref())?;
        self.must_be_a_run(&asked.selection)?;
        let chosen: Vec<&'a ServiceName> = self.spec.services.keys().filter(|name| asked.names(name)).collect();
        let (mut fates, mut refused) = (BTreeMap::new(), Vec::new());
        for name in &chosen {
            match self.fate(name, asked) {
                Ok(fate) => drop(fates.insert(*name, fate)),
                Err(error) => refused.push(error),
            }
        }
        if !refused.is_empty() {
            return Err(PlanError::together(refused, chosen.len()));
        }
        for name in fates.iter().filter(|(_, fate)| matches!(fate, Fate::Left)).map(|(name, _)| *name) {
            // Advised only where there is one.
            let text = match self.selected(name, &asked.selection, asked.from.as_ref()) {
                Ok(_) => {
                    format!(
                        "has data and stays as it is; `devstack recover --only {name} --replace` puts a run over it"
                    )
                }
                Err(_) => "has data and stays as it is".to_owned(),
            };
            self.report.unchanged.push(Note::new(format!("{name}/data"), text));
            self.report.missing.extend(self.missing_files(name));
        }
        if !asked.accept_room {
            self.must_have_room(&fates)?;
        }
        let manifests = fates.values().filter_map(|fate| Some(&fate.found()?.run.seen?.manifest));
        self.report_missed(manifests, asked.only.is_empty());
        let restored: BTreeSet<&ServiceName> =
            fates.iter().filter(|(_, fate)| fate.found().is_some()).map(|(name, _)| *name).collect();
        let known = self.compose_model(&fates, &restored);
        let model = known.as_ref().map(|known| &known.model);
        let up = model.is_none_or(|model| self.is_up(&self.started(asked, model)));
        let whole = fates.values().all(|fate| matches!(fate, Fate::Left)) && self.everything_runs() && up;
        if whole && !asked.verify {
            return Ok(());
        }
        // Who names a run knows it, and perhaps that it is damaged or incomplete: then what is whole of it comes back, each
        // service checked before it is touched.
        let is_named = matches!(asked.selection, Selection::Run(_) | Selection::Latest);
        let runs = fates.values().filter(|_| !is_named).filter_map(|fate| fate.found());
        let runs = runs.map(|found| (found.repository.clone(), found.run.run.clone()));
        let started = model.map(|model| self.started(asked, model)).unwrap_or_default();
        let is_held = known.as_ref().is_some_and(|known| known.held.is_some());
        let unread = self.unread_compose().filter(|_| !started.is_empty() && !is_held);
        if let Some(reason) = unread.filter(|_| !self.files_come_back(&restored)) {
            // What makes the containers would fail, once other things have been put back.
            return Err(PlanError::UnreadCompose { reason: reason.to_owned() });
        }
        let mut graph = self.recovery_graph(&restored, model, &started)?;
        self.safety_edges(asked, &fates, model, &mut graph);
        graph.prove_first(runs);
        if asked.verify {
            graph.add(Node::Verify);
        }
        let order = graph.order().map_err(|node| PlanError::RecoveryCycle { through: node.to_string() })?;
        if let Some(model) = model {
            self.tell_what_stays_away(asked, model, &started);
        }
        self.draft_recovery(asked, fates, (known.as_ref(), &started), (&graph, &order));
        Ok(())
    }

    /// Also where nothing is gone, so that none is restored from: a slip of the pen is told.
    fn must_be_a_run(&self, selection: &Selection) -> Result<(), PlanError> {
        let Selection::Run(run) = selection else { return Ok(()) };
        let mut all = self.places.known.values().flat_map(Place::all_runs);
        match all.any(|it| it.run == *run) {
            true => Ok(()),
            false => Err(PlanError::NoSuchRun { run: run.clone(), unknown: self.not_looked_at() }),
        }
    }

    /// What a service that is there lacks of its newest run. It may have been deleted on purpose: nothing of it comes back unasked.
    fn missing_files(&self, name: &ServiceName) -> Option<Note> {
        /// More than these nobody reads in one line.
        const NAMED: usize = 3;
        let MissingFiles { run, count, of, more, named } = self.observation.missing.get(name)?;
        let shown: Vec<String> = named.iter().take(NAMED).map(|path| path.display().to_string()).collect();
        let others = match count.saturating_sub(shown.len() as u64) {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let least = if *more { "at least " } else { "" };
        let text = format!(
            "{least}{count} of {of} files of run {run} are not there: {}{others}. `devstack restore {name}` puts them into a folder \
             beside, with `--in-place` over what is there; if they are gone on purpose, `devstack backup {name}` takes it as it is",
            shown.join(", ")
        );
        Some(Note::new(format!("{name}/data"), text))
    }

    fn fate(&self, name: &ServiceName, asked: &Recover) -> Result<Fate<'a>, PlanError> {
        let source = &self.spec.services[name].source;
        let unseen = |reason: &str| self.unseen(name, reason);
        let is_engine_down = matches!(self.observation.engine, Some(Observed::Unknown { .. }));
        let replaced = |cleared| {
            let found = Box::new(self.selected(name, &asked.selection, asked.from.as_ref())?);
            if asked.safety {
                self.must_take_copies(name, &found.repository)?;
            }
            Ok(Fate::Replaced { found, cleared })
        };
        let given = match self.observation.services.get(name) {
            None => return Err(unseen("it was not looked at")),
            Some(Observed::Known(SourceState::HasData { .. } | SourceState::Unfinished { .. }))
                if asked.replace || asked.unfinished.contains(name) =>
            {
                return replaced(false);
            }
            // Half of a backup is neither lost nor well: it is ended by the restore that somebody approves.
            Some(Observed::Known(SourceState::Unfinished { .. })) => {
                return Err(unseen(&format!(
                    "a restore into it was begun and has not ended; to end it: `devstack restore {name} --in-place`"
                )));
            }
            // What can't be seen since Docker is down may be well.
            Some(Observed::Unknown { .. }) if asked.replace && source.needs_docker() && !is_engine_down => {
                return replaced(serves(source));
            }
            Some(Observed::Known(SourceState::HasData { .. } | SourceState::Empty)) if self.is_misplaced(name)? => None,
            Some(Observed::Known(SourceState::HasData { .. })) => return Ok(Fate::Left),
            // A volume that is made anew may get what its image brings along; that is nobody's data.
            Some(Observed::Known(SourceState::Gone)) if !serves(source) => None,
            Some(Observed::Known(SourceState::Empty)) if !serves(source) => {
                Some(Precondition::SourceHasNoData { service: name.clone() })
            }
            // Its container is gone, which says nothing of its volume. What is broken is moved aside, and nothing of it is lost.
            Some(Observed::Known(SourceState::Gone | SourceState::Empty | SourceState::Broken)) => {
                Some(Precondition::SourceIsLost { service: name.clone() })
            }
            // Nor can anybody look into a volume without a container that mounts it.
            Some(Observed::Unknown { .. }) if source.needs_docker() && self.stands_still(name) => {
                Some(Precondition::SourceIsLost { service: name.clone() })
            }
            // Nobody can look into it before the Vault that its password lies in is back.
            Some(Observed::Unknown { .. }) if source.reads_from_vault() && self.vault_comes_back(asked) => {
                Some(Precondition::SourceIsLost { service: name.clone() })
            }
            Some(Observed::Unknown { reason }) => return Err(unseen(reason)),
        };
        let found = self.selected(name, &asked.selection, asked.from.as_ref())?;
        Ok(Fate::Restored { found: Box::new(found), given })
    }

    /// Whether folders stand where its newest run has files, which Docker makes for bind mounts whose file is missing.
    fn is_misplaced(&self, name: &ServiceName) -> Result<bool, PlanError> {
        let misplaced = self.observation.misplaced.get(name).map_or(&[][..], Vec::as_slice);
        match misplaced.iter().find(|misplaced| !misplaced.empty) {
            Some(full) => Err(PlanError::NotAFile { service: name.clone(), path: full.path.clone() }),
            None => Ok(!misplaced.is_empty()),
        }
    }

    /// Each file system can hold the bytes that come back to it. A server may need more for its indexes and logs; less than
    /// that is never enough, and is found before anything is touched.
    fn must_have_room(&self, fates: &BTreeMap<&'a ServiceName, Fate<'a>>) -> Result<(), PlanError> {
        let mut needed: BTreeMap<u64, (ByteSize, Vec<ServiceName>, &Room)> = BTreeMap::new();
        for (name, fate) in fates {
            let (Some(found), Some(room)) = (fate.found(), self.observation.room.get(*name)) else { continue };
            let entry = needed.entry(room.device).or_insert((ByteSize(0), Vec::new(), room));
            entry.0 = entry.0 + found.taken.bytes();
            entry.1.push((*name).clone());
        }
        match needed.into_values().find(|(needed, _, room)| *needed > room.free) {
            None => Ok(()),
            Some((needed, services, room)) => {
                Err(PlanError::NoRoom { services, needed, free: room.free, path: room.path.clone() })
            }
        }
    }

    fn is_broken(&self, name: &ServiceName) -> bool {
        matches!(self.observation.services.get(name), Some(Observed::Known(SourceState::Broken)))
    }

    fn vault_comes_back(&self, asked: &Recover) -> bool {
        self.spec.services.iter().any(|(name, service)| {
            let lost = matches!(
                self.observation.services.get(name),
                Some(Observed::Known(SourceState::Gone | SourceState::Empty | SourceState::Broken))
            );
            matches!(service.source, Source::Vault(_)) && asked.names(name) && lost
        })
    }

    /// All of its containers are there, or none that is runs: what it holds shows once it does.
    fn stands_still(&self, name: &ServiceName) -> bool {
        let containers = self.observation.containers.get(name).and_then(Observed::known);
        containers.is_some_and(|containers| containers.values().all(|container| !container.running))
    }

    fn everything_runs(&self) -> bool {
        let mut states = self.observation.containers.values();
        states.all(|state| state.known().is_some_and(|all| all.values().all(|container| container.running)))
    }

    /// Each of these services of Compose has a container that runs, or that has done its work.
    fn is_up(&self, services: &BTreeSet<String>) -> bool {
        match &self.observation.up {
            Some(Observed::Known(up)) => services.is_subset(up),
            Some(Observed::Unknown { .. }) => false,
            None => true,
        }
    }

    /// Why the Compose files that are declared could not be read.
    fn unread_compose(&self) -> Option<&'a str> {
        match &self.observation.compose {
            Some(Observed::Unknown { reason }) => Some(reason),
            Some(Observed::Known(_)) | None => None,
        }
    }

    /// The Compose files and their variables may be among them.
    fn files_come_back(&self, restored: &BTreeSet<&ServiceName>) -> bool {
        restored.iter().any(|name| matches!(self.spec.services[*name].source, Source::Files(_)))
    }

    fn draft_recovery(
        &mut self,
        asked: &Recover,
        mut fates: BTreeMap<&'a ServiceName, Fate<'a>>,
        (known, started): (Option<&KnownModel>, &BTreeSet<String>),
        (graph, order): (&Graph, &[Node]),
    ) {
        let model = known.map(|known| &known.model);
        let replaced: Vec<_> = fates
            .iter()
            .filter(|(_, fate)| fate.found().is_some())
            .flat_map(|(name, _)| self.observation.misplaced.get(*name).into_iter().flatten())
            .map(|misplaced| misplaced.path.clone())
            .collect();
        // What was empty when it was taken is empty again.
        let holds = |fate: &Fate| match fate {
            Fate::Restored { found, .. } | Fate::Replaced { found, .. } => !found.taken.empty,
            Fate::Left => true,
        };
        let full: Vec<ServiceName> =
            fates.iter().filter(|(_, fate)| holds(fate)).map(|(name, _)| (*name).clone()).collect();
        let mut steps: BTreeMap<&Node, StepId> = BTreeMap::new();
        let mut copies: BTreeMap<&ServiceName, RunId> = BTreeMap::new();
        for node in order {
            let step = match node {
                Node::Prove(repository, run) => self.proof_step(repository, run),
                Node::Create => NewStep::new(Action::CreateContainers {
                    services: started.iter().cloned().collect(),
                    held: known.and_then(|known| known.held.clone()),
                    replaced: replaced.clone(),
                })
                .because(known.map_or("as the Compose files declare them", |known| known.told.as_str()))
                .held_if(self.observation.projects.as_ref().map(|projects| {
                    let reason =
                        format!("{} from this folder; these would be a second stack beside them", running(projects));
                    (format!("project:{}", projects.own), reason)
                })),
                Node::Start(service) => self.start_step(service, model),
                Node::Restore(name) => match fates.remove(name) {
                    Some(Fate::Restored { found, given }) => self.recover_step(name, &found, given, asked),
                    Some(Fate::Replaced { found, cleared }) => {
                        self.replace_step(name, &found, cleared, copies.remove(name), asked)
                    }
                    Some(Fate::Left) | None => continue,
                },
                Node::Safety(name) => match fates.get(name).and_then(|fate| fate.found()) {
                    Some(found) => {
                        let (step, run) = self.safety_copy(name, &found.repository);
                        copies.insert(name, run);
                        step.held(format!("restore:{name}"), "before it is overwritten")
                    }
                    None => continue,
                },
                Node::Clear(name) => NewStep::new(Action::Clear { service: name.clone() })
                    .because("its server can't be used as it is, and begins anew")
                    .effect(Effect::DeletesData)
                    .held(format!("restore:{name}"), "empties its volumes"),
                Node::Verify => {
                    let assertions = self.assertions(asked, model, started);
                    let red = started.iter().filter(|name| was_red(model, name)).cloned().collect();
                    NewStep::new(Action::VerifyStack { services: full.clone(), assertions, red })
                        .because("a stack is back when all of it is")
                }
            };
            let waits: Vec<StepId> = graph.before(node).filter_map(|before| steps.get(before).copied()).collect();
            let estimate = self.estimate_of(&step.sample_key(), step.bytes());
            let id = self.draft.add(step.estimate(estimate).after(waits).after(self.started));
            steps.insert(node, id);
        }
    }

    fn proof_step(&self, repository: &RepositoryName, run: &RunId) -> NewStep {
        let bytes = self.places.known.get(repository).into_iter().flat_map(|place| place.runs.values().flatten());
        let bytes = bytes.filter(|it| it.run == *run).find_map(|it| it.seen).map(|run| run.manifest.bytes());
        NewStep::new(Action::Prove { repository: repository.clone(), run: run.clone() })
            .because("read back before anything is touched")
            .given(self.places.known.get(repository).and_then(|place| place.is(repository)))
            .about(bytes)
    }

    fn start_step(&self, service: &str, model: Option<&ComposeModel>) -> NewStep {
        let dependents = model.into_iter().flat_map(|model| model.services.values());
        let wanted = dependents.filter_map(|it| it.depends_on.get(service)).copied().max();
        let is_vault = self.spec.services.values().any(|it| match &it.source {
            Source::Vault(vault) => model.and_then(|model| model.service(&vault.container)) == Some(service),
            _ => false,
        });
        let until = match wanted {
            // A sealed Vault is not healthy, and it is unsealed by its restore.
            _ if is_vault => Started::Running,
            Some(Condition::Completed) => Started::Completed,
            Some(Condition::Healthy | Condition::Started) | None if was_red(model, service) => {
                let step = Action::StartContainer { service: service.to_owned(), until: Started::Running };
                return NewStep::new(step).because(
                    "its health check was red when the run was taken, so nothing waits for it: its server is asked instead",
                );
            }
            Some(Condition::Healthy | Condition::Started) | None => Started::Healthy,
        };
        NewStep::new(Action::StartContainer { service: service.to_owned(), until })
    }

    fn recover_step(
        &self,
        name: &ServiceName,
        found: &Found<'a>,
        given: Option<Precondition>,
        asked: &Recover,
    ) -> NewStep {
        let what = match given {
            Some(Precondition::SourceIsLost { .. }) if self.is_broken(name) => {
                "in place; what is there is damaged, and is moved aside"
            }
            Some(Precondition::SourceIsLost { .. }) => "in place, where it holds nothing once it runs",
            _ => "in place; nothing is there",
        };
        let step = self.restore_step(name, found, &RestoreTarget::Missing, &asked.selection, asked.from.as_ref(), None);
        self.held_for(name, found, asked, what, step.given(given))
    }
}

impl<'a> Fate<'a> {
    fn found(&self) -> Option<&Found<'a>> {
        match self {
            Self::Restored { found, .. } | Self::Replaced { found, .. } => Some(found),
            Self::Left => None,
        }
    }
}

/// Whether its health check failed when the run was taken that it comes back from.
fn was_red(model: Option<&ComposeModel>, service: &str) -> bool {
    let seen = model.and_then(|model| model.services.get(service)?.seen);
    seen.is_some_and(|seen| seen.unhealthy)
}

/// It lives in a server, which must run to be looked into.
fn serves(source: &Source) -> bool {
    source.needs_docker() && !matches!(source, Source::Volume(_))
}
