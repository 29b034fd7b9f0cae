//! Containers are made: from the Compose files where they say here what they said in the run, else from the model that the run
//! holds; with what they bind, and with the networks and volumes that somebody else was to make. A service that can't be
//! made is left out by name, and its start fails with the reason: nothing else waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::world::{World, repository_error};
use crate::apply::runner::StepError;
use crate::model::compose::{Bound, ComposeModel};
use crate::model::outcome::{Done, FailureKind};
use crate::model::resolved::{self, Need, Needed};
use crate::model::step::HeldModel;
use crate::model::{chain, listed};
use crate::runtime::{Compose, Docker, KEPT_MODEL, MadeModel, Making, Order, Resolved, RuntimeError};

fn failed(error: RuntimeError) -> StepError {
    StepError::new(error.kind(), error)
}

/// What Compose made of the files of a run, as it would be here.
struct Held {
    run: String,
    model: Value,
    known: ComposeModel,
    /// What the run keeps of the Compose files and is not here, by its name in the run and its place here.
    lacking: Vec<(String, PathBuf)>,
}

pub(super) fn create(
    world: &World,
    services: &[String],
    held: Option<&HeldModel>,
    replaced: &[PathBuf],
) -> Result<Done, StepError> {
    let Some(compose) = world.ground.containers.compose() else {
        let text = "the file declares no Compose files, so nothing can make containers; this is a fault in devstack";
        return Err(StepError::new(FailureKind::Permanent, text.to_owned()));
    };
    let docker = world.ground.containers.docker().map_err(failed)?;
    let here = compose.resolved_here();
    let project = world.ground.containers.project();
    let held = match held {
        Some(held) => read(world, &compose, held, project.ok().flatten())?,
        None => None,
    };
    let Some((made_from, mut advice)) = choose(here.as_ref().map_err(|error| chain(error)), held.as_ref()) else {
        return Err(match here {
            Err(error) => failed(error),
            Ok(_) => StepError::permanent("no model was chosen; this is a fault in devstack"),
        });
    };
    let model = match (made_from, &here, &held) {
        (MadeFrom::Files, Ok(here), _) => &here.model,
        (_, _, Some(held)) => &held.model,
        (_, _, None) => return Err(StepError::permanent("no model was chosen; this is a fault in devstack")),
    };
    let chosen: BTreeSet<String> = services.iter().cloned().collect();
    let unmade = with_dependents(model, &chosen, hindered(world, model, &chosen, held.as_ref(), &docker)?);
    let made: Vec<String> = services.iter().filter(|name| !unmade.contains_key(*name)).cloned().collect();
    let used: BTreeSet<String> = made.iter().cloned().collect();
    advice.extend(bring(&docker, model, &used).map_err(failed)?);
    let make = |services: &[String], how: Making| match (made_from, &held) {
        // Compose takes none for all.
        _ if services.is_empty() => Ok(()),
        (MadeFrom::Run, Some(held)) => {
            let project = held.model["name"].as_str().unwrap_or_default();
            let folder = compose.folder();
            let model = MadeModel { project, model: &held.model, folder: &folder };
            model.create(&docker, &Order { services, how, alive: None })
        }
        _ => compose.create(&docker, services, how),
    };
    make(&anew(world, &made, replaced)?, Making::Anew).map_err(failed)?;
    make(&made, Making::Keep).map_err(failed)?;
    advice.extend(unmade.iter().map(|(service, why)| format!("{service} was NOT made: {why}")));
    let count = world.ground.containers.of_project().map_err(failed)?.len();
    let mut summary = format!("{count} containers are there");
    if made_from == MadeFrom::Run
        && let Some(held) = &held
    {
        summary.push_str(&format!(", made from the model that run {} holds", held.run));
    }
    if !unmade.is_empty() {
        let names: Vec<&str> = unmade.keys().map(String::as_str).collect();
        summary.push_str(&format!("; NOT made: {}", names.join(", ")));
    }
    world.note_unmade(unmade);
    Ok(Done { summary, advice, ..Done::default() })
}

/// None where the run keeps no model: Compose did not accept its files then.
fn read(
    world: &World,
    compose: &Compose,
    held: &HeldModel,
    project: Option<String>,
) -> Result<Option<Held>, StepError> {
    let run = world.run(&held.repository, &held.run)?;
    let Some(known) = run.manifest.compose.clone() else { return Ok(None) };
    let reader = world.store(&held.repository)?.reader().map_err(repository_error)?;
    let files = reader.attachments(&run.record).map_err(repository_error)?;
    let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    let Some((_, bytes)) = files.into_iter().find(|(name, _)| name == KEPT_MODEL) else { return Ok(None) };
    let model: Value = serde_json::from_slice(&bytes).map_err(|error| {
        StepError::permanent(format!("the {KEPT_MODEL} of run {} can't be read: {error}", held.run))
    })?;
    let project = project.unwrap_or_else(|| known.project.clone());
    let model = resolved::moved(model, known.folder.as_deref(), &compose.folder(), &project);
    Ok(Some(Held { run: held.run.to_string(), model, lacking: compose.lacking(&names), known }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MadeFrom {
    Files,
    Run,
}

/// What the containers are made from, and what a person must be told of it. The files are right where somebody has changed
/// them since the run; where something that they need is missing, the run knows what it was. None where there is neither.
fn choose(here: Result<&Resolved, String>, held: Option<&Held>) -> Option<(MadeFrom, Vec<String>)> {
    let (here, held) = match (here, held) {
        (Ok(here), Some(held)) => (here, held),
        (Ok(here), None) => {
            let blank = here.unset.join(", ");
            let told = (!blank.is_empty()).then(|| {
                format!("these variables of the Compose files are not set, and the containers were made with nothing in their place: {blank}")
            });
            return Some((MadeFrom::Files, told.into_iter().collect()));
        }
        (Err(reason), Some(held)) => {
            let text = format!(
                "the Compose files can't be resolved here ({reason}), so the containers were made from the model that run {} holds{}",
                held.run,
                afterwards(held)
            );
            return Some((MadeFrom::Run, vec![text]));
        }
        (Err(_), None) => return None,
    };
    let differs = resolved::differences(&held.model, &here.model);
    if differs.is_empty() {
        return Some((MadeFrom::Files, Vec::new()));
    }
    // One that nobody asked then could have been unset then.
    let then = held.known.unset.as_deref().unwrap_or_default();
    let lost: Vec<&str> = here.unset.iter().filter(|name| !then.contains(name)).map(String::as_str).collect();
    let lacking: Vec<String> = held.lacking.iter().map(|(_, path)| path.display().to_string()).collect();
    let why = match (lost.is_empty(), lacking.is_empty()) {
        (false, _) => format!("not set here and set when run {} was taken: {}", held.run, lost.join(", ")),
        (true, false) => format!("not here and there when run {} was taken: {}", held.run, lacking.join(", ")),
        (true, true) => {
            let text = format!(
                "the Compose files do not say any more what they said in run {}, and the containers were made as they say now: {}",
                held.run,
                listed(&differs, SHOWN)
            );
            return Some((MadeFrom::Files, vec![text]));
        }
    };
    let text = format!(
        "{why}; so the containers were made from the model that run {} holds, which has the values{}",
        held.run,
        afterwards(held)
    );
    Some((MadeFrom::Run, vec![text]))
}

/// What has to be done before Compose is used again by hand.
fn afterwards(held: &Held) -> String {
    let mut text =
        "; set what is missing before the next `docker compose up`, which would make them anew without it".to_owned();
    for (name, path) in &held.lacking {
        text.push_str(&format!(
            "; {} is in the run: `restic dump latest --tag run:{},record:manifest /{name}`",
            path.display(),
            held.run
        ));
    }
    text
}

/// Places named; more would hide the rest.
const SHOWN: usize = 6;

/// The services that can't be made as they were, each with the reason. Folders that containers bind are made on the way, as
/// they were when the run was taken: what Docker makes in their place is root's.
fn hindered(
    world: &World,
    model: &Value,
    services: &BTreeSet<String>,
    held: Option<&Held>,
    docker: &Docker,
) -> Result<BTreeMap<String, String>, StepError> {
    // The paths of an engine elsewhere are not this machine's.
    let is_here = docker.is_here();
    let paths = resolved::paths(model);
    let mut unmade = BTreeMap::new();
    for service in services {
        let needed = paths.get(service).map_or(&[][..], Vec::as_slice);
        for needed in needed.iter().filter(|needed| is_here && !needed.path.exists()) {
            match was(held, &needed.path, &world.ground.containers.compose().map(|it| it.folder()).unwrap_or_default())
            {
                Some(bound @ Bound::Folder { .. }) => make_folder(&needed.path, bound)?,
                was => {
                    if let Some(why) = missing(needed, was) {
                        unmade.insert(service.clone(), why);
                    }
                }
            }
        }
        if let Some(why) = without_image(model, service, docker)? {
            unmade.entry(service.clone()).or_insert(why);
        }
    }
    Ok(unmade)
}

fn was(held: Option<&Held>, path: &Path, folder: &Path) -> Option<Bound> {
    let known = &held?.known;
    // The run tells it by the place that it had then.
    let then = known.folder.as_ref().and_then(|then| Some(then.join(path.strip_prefix(folder).ok()?)));
    known.binds.get(then.as_deref().unwrap_or(path)).or_else(|| known.binds.get(path)).copied()
}

fn missing(needed: &Needed, was: Option<Bound>) -> Option<String> {
    let path = needed.path.display();
    let next = "put it there, then `devstack recover --resume`; a `files` service would bring it back";
    match (needed.kind, was) {
        (Need::File, _) => Some(format!("its secret or config {path} is not here, and no run holds it: {next}")),
        (Need::Bind | Need::MustBind, Some(Bound::File)) => {
            Some(format!("it mounts the file {path}, which is not here and which no run holds: {next}"))
        }
        (Need::MustBind, _) => Some(format!("it mounts {path}, which is not here and which no run holds: {next}")),
        // What it was nobody knows; Docker makes a folder.
        (Need::Bind, _) => None,
    }
}

fn make_folder(path: &Path, bound: Bound) -> Result<(), StepError> {
    let Bound::Folder { mode, uid, gid } = bound else { return Ok(()) };
    let failed = |error: std::io::Error| {
        StepError::permanent(format!("the folder {}, which a container binds, can't be made: {error}", path.display()))
    };
    if let Some(around) = path.parent() {
        fs::create_dir_all(around).map_err(failed)?;
    }
    fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
    // Without the right to give it away it stays whoever's the recovery is.
    match std::os::unix::fs::chown(path, Some(uid), Some(gid)) {
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => return Err(failed(error)),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777)).map_err(failed)
}

/// A service that is built needs its image, or what it is built from.
fn without_image(model: &Value, service: &str, docker: &Docker) -> Result<Option<String>, StepError> {
    let declared = &model["services"][service];
    let Some(context) = declared["build"]["context"].as_str() else { return Ok(None) };
    let project = model["name"].as_str().unwrap_or_default();
    let image = declared["image"].as_str().map_or_else(|| format!("{project}-{service}"), str::to_owned);
    let is_here = !context.starts_with('/') || Path::new(context).exists();
    if is_here || docker.has_image(&image).map_err(failed)? {
        return Ok(None);
    }
    Ok(Some(format!(
        "its image {image} is not on this machine, and {context}, which it is built from, is not here: bring that back, or `docker load` the image, then `devstack recover --resume`"
    )))
}

/// With those that depend on one: Compose would make it for them.
fn with_dependents(
    model: &Value,
    services: &BTreeSet<String>,
    mut unmade: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    loop {
        let found = services.iter().filter(|name| !unmade.contains_key(*name)).find_map(|name| {
            let depends_on = model["services"][name.as_str()]["depends_on"].as_object();
            let needed = depends_on.into_iter().flatten().filter(|(_, how)| how["required"] != false);
            let missing = needed.map(|(other, _)| other).find(|other| unmade.contains_key(*other))?;
            Some((name.clone(), format!("it depends on {missing}")))
        });
        match found {
            Some((name, why)) => drop(unmade.insert(name, why)),
            None => return unmade,
        }
    }
}

/// What the files call external and nobody has made here: the stack declares that it needs it.
fn bring(docker: &Docker, model: &Value, services: &BTreeSet<String>) -> Result<Vec<String>, RuntimeError> {
    let mut told = Vec::new();
    for name in resolved::external(model, "volumes", services) {
        if docker.make_volume(&name)? {
            told.push(format!(
                "the external volume {name} was not here and was made, empty until its data is restored"
            ));
        }
    }
    for name in resolved::external(model, "networks", services) {
        if docker.make_network(&name)? {
            told.push(format!("the external network {name} was not here and was made, a plain bridge"));
        }
    }
    Ok(told)
}

/// The services whose containers bind one of these files: they were made with the folder in its place.
fn anew(world: &World, made: &[String], replaced: &[PathBuf]) -> Result<Vec<String>, StepError> {
    if replaced.is_empty() {
        return Ok(Vec::new());
    }
    let containers = world.ground.containers.of_project().map_err(failed)?;
    let binds = |container: &crate::model::observation::ContainerState| {
        container
            .mounts
            .iter()
            .any(|mount| mount.volume.is_none() && replaced.iter().any(|it| it == Path::new(&mount.source)))
    };
    let services = containers.iter().filter(|it| binds(it)).filter_map(|it| it.compose_service());
    let services: BTreeSet<&String> = services.filter(|name| made.contains(name)).collect();
    Ok(services.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(secret: &str) -> Value {
        json!({ "name": "p", "services": { "web": { "image": "web", "environment": { "SECRET_KEY": secret } } } })
    }

    fn held(unset: Option<&[&str]>, lacking: &[&str]) -> Held {
        let unset = unset.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        Held {
            run: "r-1".to_owned(),
            model: model("hunter2"),
            known: ComposeModel { unset, ..ComposeModel::default() },
            lacking: lacking.iter().map(|path| ("compose-1-.env".to_owned(), PathBuf::from(path))).collect(),
        }
    }

    fn here(secret: &str, unset: &[&str]) -> Resolved {
        Resolved { model: model(secret), unset: unset.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn the_files_are_used_where_they_say_what_they_said() {
        assert_eq!(choose(Ok(&here("hunter2", &[])), Some(&held(Some(&[]), &[]))), Some((MadeFrom::Files, vec![])));
    }

    #[test]
    fn a_variable_that_is_lost_or_files_that_cannot_be_read_bring_the_model_of_the_run() {
        for (here, held, word) in [
            (Ok(&here("", &["SECRET_KEY"])), held(Some(&[]), &[]), "SECRET_KEY"),
            // A default in its place: Compose warns of nothing.
            (Ok(&here("default", &[])), held(Some(&[]), &["/srv/.env"]), "/srv/.env"),
            (Ok(&here("", &["SECRET_KEY"])), held(None, &[]), "SECRET_KEY"),
            (Err("env file /srv/app.env not found".to_owned()), held(Some(&[]), &[]), "app.env"),
        ] {
            let (from, told) = choose(here, Some(&held)).unwrap();
            assert_eq!(from, MadeFrom::Run, "{told:?}");
            assert!(told[0].contains(word) && told[0].contains("the model that run r-1 holds"), "{told:?}");
            assert!(!told[0].contains("hunter2"));
        }
    }

    #[test]
    fn files_that_somebody_has_changed_are_right_and_it_is_told_where() {
        let (from, told) = choose(Ok(&here("rotated", &[])), Some(&held(Some(&[]), &[]))).unwrap();
        assert_eq!(from, MadeFrom::Files);
        assert!(told[0].contains("services.web.environment.SECRET_KEY") && !told[0].contains("rotated"), "{told:?}");
        // What was empty then is empty again.
        let changed = here("other", &["ODD"]);
        assert_eq!(choose(Ok(&changed), Some(&held(Some(&["ODD"]), &[]))).unwrap().0, MadeFrom::Files);
    }

    #[test]
    fn without_a_model_of_the_run_what_is_blank_is_told_and_nothing_at_all_is_an_error() {
        let (from, told) = choose(Ok(&here("", &["SECRET_KEY"])), None).unwrap();
        assert!(from == MadeFrom::Files && told[0].contains("SECRET_KEY"), "{told:?}");
        assert_eq!(choose(Ok(&here("x", &[])), None), Some((MadeFrom::Files, vec![])));
        assert_eq!(choose(Err("no".to_owned()), None), None);
    }

    #[test]
    fn who_depends_on_what_cannot_be_made_is_left_out_too() {
        let model = json!({ "services": {
            "db": {}, "web": { "depends_on": { "db": { "condition": "service_started" } } },
            "proxy": { "depends_on": { "web": {} } }, "other": { "depends_on": { "db": { "required": false } } },
        } });
        let services = ["db", "web", "proxy", "other"].map(str::to_owned).into_iter().collect();
        let unmade = with_dependents(&model, &services, BTreeMap::from([("db".to_owned(), "x".to_owned())]));
        assert_eq!(unmade.keys().collect::<Vec<_>>(), ["db", "proxy", "web"]);
        assert!(unmade["proxy"].contains("web"));
    }

    #[test]
    fn a_file_is_never_made_a_folder_and_a_folder_is_made_as_it_was() {
        let needed = |kind| Needed { path: "/srv/x".into(), kind };
        assert!(missing(&needed(Need::Bind), Some(Bound::File)).is_some());
        assert!(missing(&needed(Need::Bind), None).is_none());
        assert!(missing(&needed(Need::MustBind), None).is_some());
        assert!(missing(&needed(Need::File), None).is_some());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let owner = std::os::unix::fs::MetadataExt::uid(&folder.path().metadata().unwrap());
        make_folder(&path, Bound::Folder { mode: 0o40750, uid: owner, gid: owner }).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o750);
        // A run from another folder tells it by the place that it had there.
        let mut held = held(None, &[]);
        held.known.folder = Some("/srv/old".into());
        held.known.binds = BTreeMap::from([("/srv/old/conf".into(), Bound::File), ("/etc/x".into(), Bound::File)]);
        let new = Path::new("/srv/new");
        assert_eq!(was(Some(&held), Path::new("/srv/new/conf"), new), Some(Bound::File));
        assert_eq!(was(Some(&held), Path::new("/etc/x"), new), Some(Bound::File));
        assert_eq!(was(Some(&held), Path::new("/srv/new/other"), new), None);
    }
}
