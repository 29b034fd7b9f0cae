//! The recovery point of a drill: what `recover` would choose if every service were gone. A Vault that can't be drilled here
//! is left out, and the evidence says why.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::error::DrillError;
use super::vault;
use crate::model::assertion::About;
use crate::model::compose::ComposeModel;
use crate::model::drill::DrilledService;
use crate::model::history::History;
use crate::model::ids::{Digest, RepositoryName, RunId, ServiceName};
use crate::model::observation::{Observation, Observed, RepositoryState, Run};
use crate::model::plan::{Note, Plan};
use crate::model::step::Action;
use crate::model::units::Span;
use crate::plan::{self, Recover, Request, Selection, as_if_lost};
use crate::spec::file::{Services, Source, Spec, VolumeSource};

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
    /// What the newest of the runs says that none of them holds.
    pub(super) unprotected: Vec<Note>,
    /// The containers of what was left out, as the file calls them.
    without: Vec<String>,
    /// The Vault that is brought back.
    pub(super) vault: Option<ServiceName>,
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
        of_vault: VaultTerms,
    ) -> Result<Self, DrillError> {
        let vaults = match of_vault.hindrance {
            None => BTreeMap::new(),
            Some(_) => containers_of_vaults(spec),
        };
        if let (Some(service), Some(why)) =
            (asked.only.iter().find(|name| vaults.contains_key(name)), of_vault.hindrance)
        {
            return Err(DrillError::Vault { service: service.clone(), why });
        }
        let drillable = drillable(spec, &vaults);
        if drillable.services.is_empty() {
            return Err(DrillError::Nothing { why: of_vault.hindrance.unwrap_or_default() });
        }
        let vault = vault::all(&drillable).map(|(name, _)| name).find(|name| asked.names(name)).cloned();
        if of_vault.escrow && vault.is_none() {
            return Err(DrillError::NoVault { why: of_vault.hindrance });
        }
        let left_out = without_vault(&drillable, asked, vault.as_ref(), &vaults, of_vault);
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
            unprotected: Vec::new(),
            without: vaults.into_values().collect(),
            vault,
        };
        let plan = point.plan(None, history)?;
        point.unprotected.clone_from(&plan.report.unprotected);
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

    /// The Compose services that hold what is brought back, or of which something is asserted: without one of them the drill
    /// would prove nothing of it.
    pub(super) fn needed(&self, model: &ComposeModel) -> BTreeSet<String> {
        let services = self.services.iter().filter_map(|drilled| self.spec.services.get(&drilled.service));
        let mut needed = BTreeSet::new();
        for source in services.map(|service| &service.source) {
            let of = source.containers().into_iter().filter(|name| !source.stops().contains(name));
            needed.extend(of.filter_map(|name| model.service(name)).map(str::to_owned));
            if let Source::Volume(VolumeSource { volume: Some(volume), .. }) = source {
                // Whoever mounts it makes it; of one alone nobody else could.
                let mounting: Vec<&str> = model.mounting(volume).collect();
                needed.extend(mounting.first().filter(|_| mounting.len() == 1).map(|&name| name.to_owned()));
            }
        }
        let asserted = self.spec.recovery.iter().flat_map(|recovery| &recovery.assert);
        let about = asserted.filter_map(|assertion| match assertion.about() {
            About::Container(name) => model.service(name),
            About::Service(_) => None,
        });
        needed.extend(about.map(str::to_owned));
        needed
    }

    /// Whether files come back, the Compose files perhaps among them.
    pub(super) fn brings_files(&self) -> bool {
        let sources = self.services.iter().filter_map(|drilled| self.spec.services.get(&drilled.service));
        sources.into_iter().any(|service| matches!(service.source, Source::Files(_)))
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

/// How a Vault may be drilled.
#[derive(Debug, Clone, Copy, Default)]
pub struct VaultTerms {
    /// Why it can't be.
    pub hindrance: Option<&'static str>,
    /// Its key files come out of the backup, and not from this machine.
    pub escrow: bool,
}

fn containers_of_vaults(spec: &Spec) -> BTreeMap<ServiceName, String> {
    vault::all(spec).map(|(name, source)| (name.clone(), source.container.clone())).collect()
}

/// What the drill says nothing of for want of a Vault, or of its escrow.
fn without_vault(
    drillable: &Spec,
    asked: &Recover,
    vault: Option<&ServiceName>,
    left_out: &BTreeMap<ServiceName, String>,
    of_vault: VaultTerms,
) -> Vec<Note> {
    let why = of_vault.hindrance.unwrap_or_default();
    let text = format!("it was not brought back, and neither its keys nor the escrow were exercised: {why}");
    let mut notes: Vec<Note> = left_out.keys().map(|name| Note::new(name.as_str(), text.clone())).collect();
    match vault {
        Some(name) if !of_vault.escrow => notes.push(Note::new(
            name.as_str(),
            "it was opened with the key files of this machine, so the escrow was not exercised; `--escrow` does that",
        )),
        Some(_) => {}
        None => {
            let reads = |name: &&ServiceName| asked.names(name) && drillable.services[*name].source.reads_from_vault();
            let text = "its passwords were read from the live Vault, not from one that was brought back";
            notes.extend(drillable.services.keys().filter(reads).map(|name| Note::new(name.as_str(), text)));
        }
    }
    notes
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

    const LEFT_OUT: VaultTerms = VaultTerms { hindrance: Some("its keys are nowhere"), escrow: false };

    fn choose(world: &World, only: &[&str], terms: VaultTerms) -> Result<Point, DrillError> {
        let only = only.iter().map(|name| service(name)).collect();
        let asked = Recover::lost(only, Selection::Newest, None);
        Point::choose(&world.spec, &world.spec.digest(), &world.observation, &world.history, world.now, &asked, terms)
    }

    #[test]
    fn without_a_vault_that_cannot_be_drilled_everything_is_planned_and_nothing_waits_for_it() {
        let world = well();
        let point = choose(&world, &[], LEFT_OUT).unwrap();
        let names: Vec<&str> = point.services.iter().map(|drilled| drilled.service.as_str()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&"config") && names.contains(&"database"));
        assert!(point.partial);
        let plan = point.plan(Some(model()), &world.history).unwrap();
        let created = plan.steps.iter().find_map(|step| match &step.action {
            Action::CreateContainers { services, .. } => Some(services.clone()),
            _ => None,
        });
        assert_eq!(created, Some(vec!["db".to_owned()]));
        let told: Vec<String> = point.left_out.iter().map(|note| format!("{}: {}", note.resource, note.text)).collect();
        let of_vault = told.iter().find(|text| text.starts_with("vault: ")).unwrap();
        assert!(of_vault.contains("escrow") && of_vault.contains("its keys are nowhere"), "{told:?}");
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
    fn a_vault_comes_back_before_what_reads_from_it_and_it_is_said_when_the_escrow_was_left_alone() {
        let world = well();
        let point = choose(&world, &[], VaultTerms::default()).unwrap();
        assert_eq!((point.vault.as_ref().map(ServiceName::as_str), point.partial), (Some("vault"), false));
        let plan = point.plan(Some(model()), &world.history).unwrap();
        let nth = |service: &str| {
            let is =
                |action: &Action| matches!(action, Action::Restore(restore) if restore.service.as_str() == service);
            plan.steps.iter().position(|step| is(&step.action))
        };
        assert!(nth("vault").unwrap() < nth("database").unwrap());
        assert_eq!(point.left_out.len(), 1);
        assert!(point.left_out[0].text.contains("the escrow was not exercised"), "{:?}", point.left_out);
        let with_escrow = VaultTerms { escrow: true, ..VaultTerms::default() };
        assert_eq!(choose(&world, &[], with_escrow).unwrap().left_out, []);
        // A database alone gets its password where it is now.
        let alone = choose(&world, &["database"], VaultTerms::default()).unwrap();
        assert!(alone.vault.is_none() && alone.left_out[0].text.contains("live Vault"), "{:?}", alone.left_out);
        assert!(matches!(choose(&world, &["database"], with_escrow), Err(DrillError::NoVault { .. })));
    }

    #[test]
    fn a_vault_alone_is_refused_and_what_is_asked_for_is_all_that_is_chosen() {
        assert!(matches!(choose(&well(), &["vault"], LEFT_OUT), Err(DrillError::Vault { .. })));
        let point = choose(&well(), &["config"], LEFT_OUT).unwrap();
        assert_eq!(point.services.len(), 1);
        assert_eq!(point.services[0].age, Span::from_hours(3));
        assert_eq!(point.services[0].rpo, Some(Span::from_hours(1)));
        assert!(point.is_newest());
    }
}
