//! The recovery of the stack: which run each service comes back from, and in which order, as a graph. A service that has
//! its data is left as it is; what nobody could look at is not overwritten.

mod assertions;
mod edges;
mod graph;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::graph::{Graph, Node};
use super::Planner;
use super::draft::NewStep;
use super::request::{PlanError, Recover, Selection};
use super::restore::Found;
use crate::model::compose::{ComposeModel, Condition};
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::observation::{Observed, SourceState};
use crate::model::plan::Note;
use crate::model::step::{Action, Precondition, RestoreTarget, Started, StepId};
use crate::model::units::Span;
use crate::spec::file::Source;

/// What is to become of a service.
enum Fate<'a> {
    /// It comes back from this run, if what is given holds once its server runs.
    Restored { found: Box<Found<'a>>, given: Option<Precondition> },
    /// It has its data.
    Left,
}

impl<'a> Planner<'a> {
    /// All of what was asked for, or none of it: each service that can't be brought back is named.
    pub(super) fn recover(&mut self, asked: &Recover) -> Result<(), PlanError> {
        self.must_know_a_repository(asked.from.as_ref())?;
        let chosen: Vec<&'a ServiceName> = self.spec.services.keys().filter(|name| asked.names(name)).collect();
        let (mut fates, mut refused) = (BTreeMap::new(), Vec::new());
        for name in &chosen {
            match self.fate(name, asked) {
                Ok(fate) => drop(fates.insert(*name, fate)),
                Err(error) => refused.push(error),
            }
        }
        match refused.len() {
            0 => {}
            1 if chosen.len() == 1 => return Err(refused.remove(0)),
            _ => return Err(PlanError::Several { refused, asked: chosen.len() }),
        }
        for name in fates.iter().filter(|(_, fate)| matches!(fate, Fate::Left)).map(|(name, _)| *name) {
            let text = format!("has data and stays as it is; `devstack restore {name} --in-place` puts a run over it");
            self.report.unchanged.push(Note::new(format!("{name}/data"), text));
        }
        let model = self.compose_model(&fates);
        let up = model.as_ref().is_none_or(|model| self.is_up(&self.started(asked, model)));
        if fates.values().all(|fate| matches!(fate, Fate::Left)) && self.everything_runs() && up {
            return Ok(());
        }
        let restored: BTreeSet<&ServiceName> =
            fates.iter().filter(|(_, fate)| matches!(fate, Fate::Restored { .. })).map(|(name, _)| *name).collect();
        let runs = fates.values().filter_map(|fate| match fate {
            Fate::Restored { found, .. } => Some((found.repository.clone(), found.run.run.clone())),
            Fate::Left => None,
        });
        let started = model.as_ref().map(|model| self.started(asked, model)).unwrap_or_default();
        let graph = self.recovery_graph(&restored, runs, model.as_ref(), &started)?;
        let order = graph.order().map_err(|node| PlanError::RecoveryCycle { through: node.to_string() })?;
        self.draft_recovery(asked, fates, (model.as_ref(), &started), (&graph, &order));
        Ok(())
    }

    fn fate(&self, name: &ServiceName, asked: &Recover) -> Result<Fate<'a>, PlanError> {
        let source = &self.spec.services[name].source;
        let unseen = |reason: &str| PlanError::UnknownTarget { service: name.clone(), reason: reason.to_owned() };
        let given = match self.observation.services.get(name) {
            None => return Err(unseen("it was not looked at")),
            Some(Observed::Known(SourceState::HasData { .. })) => return Ok(Fate::Left),
            // A volume that is made anew may get what its image brings along; that is nobody's data.
            Some(Observed::Known(SourceState::Gone)) if !serves(source) => None,
            Some(Observed::Known(SourceState::Empty)) if !serves(source) => {
                Some(Precondition::SourceHasNoData { service: name.clone() })
            }
            // Its container is gone, which says nothing of its volume.
            Some(Observed::Known(SourceState::Gone | SourceState::Empty)) => {
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

    fn vault_comes_back(&self, asked: &Recover) -> bool {
        self.spec.services.iter().any(|(name, service)| {
            let lost = matches!(
                self.observation.services.get(name),
                Some(Observed::Known(SourceState::Gone | SourceState::Empty))
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

    /// As the files here have it; on a machine where they are not, as the newest of the runs has it.
    fn compose_model(&self, fates: &BTreeMap<&'a ServiceName, Fate<'a>>) -> Option<ComposeModel> {
        if let Some(Observed::Known(model)) = &self.observation.compose {
            return Some(model.clone());
        }
        let runs = fates.values().filter_map(|fate| match fate {
            Fate::Restored { found, .. } => found.run.seen,
            Fate::Left => None,
        });
        let newest = runs.filter(|run| run.manifest.compose.is_some()).max_by_key(|run| run.manifest.started)?;
        newest.manifest.compose.clone()
    }

    fn draft_recovery(
        &mut self,
        asked: &Recover,
        mut fates: BTreeMap<&'a ServiceName, Fate<'a>>,
        (model, started): (Option<&ComposeModel>, &BTreeSet<String>),
        (graph, order): (&Graph, &[Node]),
    ) {
        // What was empty when it was taken is empty again.
        let holds = |fate: &Fate| match fate {
            Fate::Restored { found, .. } => !found.taken.empty,
            Fate::Left => true,
        };
        let full: Vec<ServiceName> =
            fates.iter().filter(|(_, fate)| holds(fate)).map(|(name, _)| (*name).clone()).collect();
        let mut steps: BTreeMap<&Node, StepId> = BTreeMap::new();
        for node in order {
            let step = match node {
                Node::Prove(repository, run) => self.proof_step(repository, run),
                Node::Create => NewStep::new(Action::CreateContainers { services: started.iter().cloned().collect() })
                    .because("as the Compose files declare them"),
                Node::Start(service) => self.start_step(service, model),
                Node::Restore(name) => match fates.remove(name) {
                    Some(Fate::Restored { found, given }) => self.recover_step(name, &found, given, asked),
                    Some(Fate::Left) | None => continue,
                },
                Node::Verify => {
                    let assertions = self.assertions(asked, model, started);
                    NewStep::new(Action::VerifyStack { services: full.clone(), assertions })
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
        let age = Span::between(found.run.started, self.now);
        let late = self.spec.rpo_of(name).filter(|rpo| age > *rpo && asked.selection == Selection::Newest);
        let what = match given {
            Some(Precondition::SourceIsLost { .. }) => "in place, where it holds nothing once it runs",
            _ => "in place; nothing is there",
        };
        let step = self.restore_step(name, found, &RestoreTarget::Missing, &asked.selection, asked.from.as_ref());
        let step = step.given(given);
        match late {
            None => step.held(format!("restore:{name}"), what),
            Some(rpo) => step.held(
                format!("age:{name}"),
                format!("its newest good run is {age} old, and no more than {rpo} may be lost; --accept-age takes it"),
            ),
        }
    }
}

/// It lives in a server, which must run to be looked into.
fn serves(source: &Source) -> bool {
    source.needs_docker() && !matches!(source, Source::Volume(_))
}
