//! The recovery point of a drill: what `recover` would choose if every service were gone.
//!
//! A Vault is left out. Its address and its clients' are those of the live one, and a second Vault that is opened with the
//! live keys is more than a drill may risk; the evidence says so, and that the escrow was not exercised.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::error::DrillError;
use crate::model::compose::ComposeModel;
use crate::model::drill::DrilledService;
use crate::model::history::History;
use crate::model::ids::{Digest, RepositoryName, RunId, ServiceName};
use crate::model::observation::{Observation, Observed, RepositoryState, Run};
use crate::model::plan::{Note, Plan};
use crate::model::step::Action;
use crate::model::units::Span;
use crate::plan::{self, Recover, Request, Selection, as_if_lost};
use crate::spec::file::{Services, Source, Spec};

/// What is brought back, and from where.
pub struct Point {
    /// The file without what can't be drilled.
    pub(super) spec: Spec,
    pub(super) digest: Digest,
    pub(super) observation: Observation,
    pub(super) now: Timestamp,
    pub(super) asked: Recover,
    pub(super) services: Vec<DrilledService>,
    pub(super) left_out: Vec<Note>,
    pub(super) partial: bool,
    /// The newest of the runs that holds Compose files.
    pub(super) model_of: Option<(RepositoryName, Run)>,
    /// The containers of what was left out, as the file calls them.
    without: Vec<String>,
}

impl Point {
    /// `seen` has the repositories; of the services nothing need be known.
    pub fn choose(
        spec: &Spec,
        digest: &Digest,
        seen: &Observation,
        history: &History,
        now: Timestamp,
        asked: &Recover,
    ) -> Result<Self, DrillError> {
        let vaults = vaults(spec);
        if let Some(service) = asked.only.iter().find(|name| vaults.contains_key(name)) {
            return Err(DrillError::Vault { service: service.clone() });
        }
        let drillable = drillable(spec, &vaults);
        if drillable.services.is_empty() {
            return Err(DrillError::Nothing);
        }
        let text = "a drill brings no Vault back, so its keys and the escrow were not exercised";
        let reads = |name: &&ServiceName| asked.names(name) && drillable.services[*name].source.reads_from_vault();
        let readers = drillable.services.keys().filter(reads).map(|name| {
            Note::new(name.as_str(), "its passwords were read from the live Vault, not from one that was brought back")
        });
        let left_out = vaults.keys().map(|name| Note::new(name.as_str(), text)).chain(readers).collect::<Vec<_>>();
        let mut point = Self {
            observation: as_if_lost(&drillable, seen),
            partial: !asked.only.is_empty() || !vaults.is_empty(),
            spec: drillable,
            digest: digest.clone(),
            now,
            asked: asked.clone(),
            services: Vec::new(),
            left_out,
            model_of: None,
            without: vaults.into_values().collect(),
        };
        let plan = point.plan(None, history)?;
        let restores = plan.steps.iter().filter_map(|step| match &step.action {
            Action::Restore(restore) => Some(restore),
            _ => None,
        });
        for restore in restores {
            let Some(run) = point.run(&restore.repository, &restore.run) else { continue };
            let bytes = run.manifest.taken_of(&restore.service).map(|taken| taken.bytes()).unwrap_or_default();
            let is_newer = |known: &(RepositoryName, Run)| known.1.manifest.started < run.manifest.started;
            if run.manifest.compose.is_some() && point.model_of.as_ref().is_none_or(is_newer) {
                point.model_of = Some((restore.repository.clone(), run.clone()));
            }
            let drilled = DrilledService {
                service: restore.service.clone(),
                repository: restore.repository.clone(),
                run: restore.run.clone(),
                age: Span::between(run.manifest.started, now),
                rpo: point.spec.rpo_of(&restore.service),
                bytes,
                back_after: None,
            };
            point.services.push(drilled);
        }
        Ok(point)
    }

    /// The recovery as a plan: the same steps in the same order as on an empty machine.
    pub(super) fn plan(&self, model: Option<ComposeModel>, history: &History) -> Result<Plan, DrillError> {
        let mut observation = self.observation.clone();
        observation.compose = model.map(|model| Observed::Known(self.reduced(model)));
        let request = Request::Recover(self.asked.clone());
        Ok(plan::plan(&self.spec, &self.digest, &observation, history, self.now, &request)?)
    }

    /// The Compose services that are brought up: not those of a Vault.
    fn reduced(&self, mut model: ComposeModel) -> ComposeModel {
        let without: BTreeSet<String> =
            self.without.iter().filter_map(|name| model.service(name)).map(str::to_owned).collect();
        model.services.retain(|name, _| !without.contains(name));
        for service in model.services.values_mut() {
            service.depends_on.retain(|name, _| !without.contains(name));
        }
        model
    }

    fn run(&self, repository: &RepositoryName, run: &RunId) -> Option<Run> {
        match self.observation.repositories.get(repository)? {
            Observed::Known(RepositoryState::Present(facts)) => {
                facts.runs.iter().find(|known| known.manifest.run == *run).cloned()
            }
            Observed::Known(RepositoryState::Absent { .. }) | Observed::Unknown { .. } => None,
        }
    }

    /// Runs that somebody has chosen promise nothing of their age.
    pub(super) fn is_newest(&self) -> bool {
        self.asked.selection == Selection::Newest
    }

    /// Of the run whose Compose files are used, for people.
    pub(super) fn model_run(&self) -> String {
        self.model_of.as_ref().map(|(_, run)| run.manifest.run.to_string()).unwrap_or_default()
    }
}

/// The Vault services with their containers.
fn vaults(spec: &Spec) -> BTreeMap<ServiceName, String> {
    let of = |(name, service): (&ServiceName, &crate::spec::file::Service)| match &service.source {
        Source::Vault(vault) => Some((name.clone(), vault.container.clone())),
        _ => None,
    };
    spec.services.iter().filter_map(of).collect()
}

fn drillable(spec: &Spec, vaults: &BTreeMap<ServiceName, String>) -> Spec {
    let mut spec = spec.clone();
    spec.services.retain(|name, _| !vaults.contains_key(name));
    for service in spec.services.values_mut() {
        service.after.retain(|name| !vaults.contains_key(name));
    }
    for policy in spec.backup.values_mut() {
        if let Services::Named(names) = &mut policy.services {
            names.retain(|name| !vaults.contains_key(name));
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::fixtures::{NOW, World, at, run, service, small};

    const SERVICES: [&str; 3] = ["config", "database", "vault"];

    /// A Vault, a database whose password lies in it, files; all of it there and well.
    fn well() -> World {
        let mut spec = small();
        spec["runtime"] = json!({ "docker": { "compose": ["docker-compose.yml"], "project": "p" } });
        spec["vault"] = json!({ "address": "http://127.0.0.1:8200", "login": { "token": { "file": "token" } } });
        spec["services"] = json!({
            "config": { "source": { "files": { "paths": ["docker-compose.yml"] } } },
            "vault": { "source": { "vault": { "container": "safe" } }, "after": ["config"] },
            "database": { "source": { "postgres": { "container": "db", "password": { "vault": "secret/db#password" } } },
                "after": ["vault"] },
        });
        spec["recovery"] = json!({ "rpo": "1h" });
        let mut newest = run("daily", Span::from_hours(3).before(at(NOW)), &SERVICES);
        newest.manifest.compose = Some(model());
        World::settled(spec).with_run("local", newest)
    }

    fn model() -> ComposeModel {
        ComposeModel::of(&json!({
            "name": "p",
            "services": {
                "keeper": { "container_name": "safe" },
                "db": { "depends_on": { "keeper": { "condition": "service_healthy" } } },
            },
        }))
    }

    fn choose(world: &World, only: &[&str]) -> Result<Point, DrillError> {
        let only = only.iter().map(|name| service(name)).collect();
        let asked = Recover::lost(only, Selection::Newest, None);
        Point::choose(&world.spec, &world.spec.digest(), &world.observation, &world.history, world.now, &asked)
    }

    #[test]
    fn everything_but_a_vault_is_planned_as_if_it_were_gone_and_nothing_waits_for_the_vault() {
        let world = well();
        let point = choose(&world, &[]).unwrap();
        let names: Vec<&str> = point.services.iter().map(|drilled| drilled.service.as_str()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&"config") && names.contains(&"database"));
        assert!(point.partial);
        let plan = point.plan(Some(model()), &world.history).unwrap();
        let created = plan.steps.iter().find_map(|step| match &step.action {
            Action::CreateContainers { services } => Some(services.clone()),
            _ => None,
        });
        assert_eq!(created, Some(vec!["db".to_owned()]));
        let told: Vec<String> = point.left_out.iter().map(|note| format!("{}: {}", note.resource, note.text)).collect();
        assert!(told.iter().any(|text| text.starts_with("vault: ") && text.contains("escrow")), "{told:?}");
        assert!(told.iter().any(|text| text.starts_with("database: ") && text.contains("live Vault")), "{told:?}");
        // Each action is one that a drill carries out.
        let known = |action: &Action| {
            matches!(
                action,
                Action::Prove { .. }
                    | Action::CreateContainers { .. }
                    | Action::StartContainer { .. }
                    | Action::Restore(_)
                    | Action::VerifyStack { .. }
            )
        };
        assert!(plan.steps.iter().all(|step| known(&step.action)), "{:?}", plan.steps);
    }

    #[test]
    fn a_vault_alone_is_refused_and_what_is_asked_for_is_all_that_is_chosen() {
        assert!(matches!(choose(&well(), &["vault"]), Err(DrillError::Vault { .. })));
        let point = choose(&well(), &["config"]).unwrap();
        assert_eq!(point.services.len(), 1);
        assert_eq!(point.services[0].age, Span::from_hours(3));
        assert_eq!(point.services[0].rpo, Some(Span::from_hours(1)));
        assert!(point.is_newest());
    }
}
