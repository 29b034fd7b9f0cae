//! What the containers are made from: the Compose files where they say here what they said in the run, else the model that the
//! run itself holds. Which services are brought up.

use std::collections::{BTreeMap, BTreeSet};

use super::Fate;
use crate::model::compose::{ComposeModel, ComposeService};
use crate::model::ids::{RepositoryName, ServiceName};
use crate::model::observation::{Observed, Run};
use crate::model::plan::Note;
use crate::model::step::HeldModel;
use crate::plan::Planner;
use crate::plan::request::Recover;
use crate::spec::file::Source;

/// What Compose makes of the files, or made of them.
pub(super) struct KnownModel {
    pub model: ComposeModel,
    /// The run whose model is there to fall back on.
    pub held: Option<HeldModel>,
    /// For people: what the containers are made from.
    pub told: String,
}

impl<'a> Planner<'a> {
    /// As the files here have it; on a machine where they are not, as the newest of the runs has it that data comes from, or
    /// where Compose did not accept them then, the newest of all.
    pub(super) fn compose_model(
        &self,
        fates: &BTreeMap<&'a ServiceName, Fate<'a>>,
        restored: &BTreeSet<&ServiceName>,
    ) -> Option<KnownModel> {
        let all = || {
            let places = self.places.known.iter();
            places.flat_map(|(name, place)| {
                place.facts().into_iter().flat_map(move |it| it.runs.iter().map(move |run| (name, run)))
            })
        };
        let from = fates.values().filter_map(|fate| fate.found());
        let chosen = newest(&mut from.filter_map(|found| Some((&found.repository, found.run.seen?))));
        let comes_back = !restored.is_empty();
        let run = chosen.or_else(|| match &self.observation.compose {
            Some(_) => newest(&mut all()),
            None => comes_back.then(|| newest(&mut all())).flatten(),
        });
        let of_run = run.and_then(|(_, run)| run.manifest.compose.as_ref());
        let (mut model, told) = match (&self.observation.compose, run) {
            (Some(Observed::Known(model)), _) => (model.clone(), told_of_files(model, run)),
            (Some(Observed::Unknown { reason }), Some((_, run))) => {
                let id = &run.manifest.run;
                let told = match self.files_come_back(restored) {
                    true => format!(
                        "as the Compose files declare them that come back; where they can't be resolved as in run {id}, from the model that it holds"
                    ),
                    false => format!(
                        "from the model that run {id} holds, since the Compose files can't be resolved here: {reason}"
                    ),
                };
                (of_run?.clone(), told)
            }
            (Some(Observed::Unknown { .. }), None) => return None,
            (None, _) => (of_run?.clone(), "as the Compose files declare them".to_owned()),
        };
        if let Some(of_run) = of_run {
            model.remember(of_run);
        }
        for project in all().filter_map(|(_, run)| Some(run.manifest.compose.as_ref()?.project.as_str())) {
            if project != model.project && !model.once.iter().any(|known| known == project) {
                model.once.push(project.to_owned());
            }
        }
        let held =
            run.map(|(repository, run)| HeldModel { repository: repository.clone(), run: run.manifest.run.clone() });
        Some(KnownModel { model, held, told })
    }

    /// The Compose services that are started: all that ran when the run was taken, or those that the named services live in,
    /// with what they need.
    pub(super) fn started(&self, asked: &Recover, model: &ComposeModel) -> BTreeSet<String> {
        let lives_in = |named: &dyn Fn(&ServiceName) -> bool| -> Vec<String> {
            let named = self.spec.services.iter().filter(|(name, _)| named(name)).map(|(_, service)| &service.source);
            let containers = named.clone().flat_map(|source| source.containers()).filter_map(|it| model.service(it));
            let volumes = named.filter_map(|source| match source {
                Source::Volume(volume) => volume.volume.as_deref(),
                _ => None,
            });
            // A volume is made with a service that mounts it; one that may run is enough.
            let mounting = volumes.filter_map(|volume| {
                let mut all = model.mounting(volume).peekable();
                let first = all.peek().copied();
                all.find(|name| model.services.get(*name).is_some_and(has_run)).or(first)
            });
            containers.chain(mounting).map(str::to_owned).collect()
        };
        let mut open = match asked.only.is_empty() {
            true => {
                let run = model.services.iter().filter(|(_, service)| has_run(service)).map(|(name, _)| name.clone());
                run.chain(lives_in(&|_| true)).collect()
            }
            false => lives_in(&|name| asked.only.contains(name)),
        };
        let mut all = BTreeSet::new();
        while let Some(service) = open.pop() {
            if let Some(known) = model.services.get(&service)
                && all.insert(service)
            {
                open.extend(known.depends_on.keys().cloned());
            }
        }
        all
    }

    /// Says of each service that is not brought up why that is right.
    pub(super) fn tell_what_stays_away(&mut self, asked: &Recover, model: &ComposeModel, started: &BTreeSet<String>) {
        if !asked.only.is_empty() {
            return;
        }
        for (name, service) in model.services.iter().filter(|(name, _)| !started.contains(*name)) {
            let profiles = service.profiles.join(", ");
            let text = format!(
                "is not started: it is of the profile {profiles}, and had no container when the run was taken; `docker compose --profile {profiles} up -d {name}` starts it"
            );
            self.report.unchanged.push(Note::new(format!("container/{name}"), text));
        }
    }
}

/// Not one of a profile of which no container was there when the run was taken. Where nobody looked then, nothing is known
/// against it.
fn has_run(service: &ComposeService) -> bool {
    service.profiles.is_empty() || service.seen.is_none_or(|seen| seen.containers > 0)
}

fn newest<'r>(runs: &mut dyn Iterator<Item = (&'r RepositoryName, &'r Run)>) -> Option<(&'r RepositoryName, &'r Run)> {
    // A safety copy tells of the moment of a mistake.
    runs.filter(|(_, run)| run.manifest.compose.is_some() && !run.manifest.policy.is_safety())
        .max_by_key(|(_, run)| run.manifest.started)
}

fn told_of_files(here: &ComposeModel, run: Option<(&RepositoryName, &Run)>) -> String {
    let usual = || "as the Compose files declare them".to_owned();
    let Some((_, run)) = run else { return usual() };
    let lost = lost_variables(here, run.manifest.compose.as_ref());
    match lost.len() {
        0 => usual(),
        count => format!(
            "from the model that run {} holds, since {} {} set when it was taken and {} not set here",
            run.manifest.run,
            lost.join(", "),
            if count == 1 { "was" } else { "were" },
            if count == 1 { "is" } else { "are" },
        ),
    }
}

/// The variables that were set when the run was taken and are not now.
fn lost_variables(here: &ComposeModel, run: Option<&ComposeModel>) -> Vec<String> {
    let Some(then) = run.and_then(|run| run.unset.as_ref()) else { return Vec::new() };
    here.unset.iter().flatten().filter(|name| !then.contains(name)).cloned().collect()
}
