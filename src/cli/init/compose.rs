//! What `devstack init` learns of a stack from Compose, from its files of variables and from the containers that run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

use super::password::{VariableFile, Variables};
use super::sources::{LeftOut, Seen};
use crate::model::holdings::{Holdings, ReadAs};
use crate::model::image::{Kind, of_name, of_programs, of_settings};
use crate::model::observation::ContainerState;
use crate::runtime::{Compose, Containers, LookedInto, RuntimeError};
use crate::spec::dotenv;
use crate::spec::file::{DockerRuntime, Runtime};

/// A folder with closed files is told by looking at so many of them.
const LOOKED_AT: usize = 2_000;

/// A stack as its Compose files describe it, and as it runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stack {
    /// The folder of devstack.yaml.
    pub base: PathBuf,
    pub files: Vec<PathBuf>,
    pub project: String,
    /// Those that are in use.
    pub profiles: Vec<String>,
    pub resolved: Value,
    pub written: Value,
    pub held: Holdings,
    pub variables: Variables,
    /// What lies at the paths of the machine that the stack names. What is not there is not among them.
    pub seen: BTreeMap<PathBuf, Seen>,
    pub questions: Vec<String>,
    /// Profiles that somebody has seen not to be in use.
    pub never_ran: Vec<String>,
    /// What services of such profiles keep.
    pub left_out: Vec<LeftOut>,
    /// The services that have no running container, and how it is; None where no engine answers.
    pub down: Option<BTreeMap<String, String>>,
}

/// One service of devstack.yaml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    /// What the person should know of it, a line each.
    pub about: Vec<String>,
    /// The text of its source: `{ postgres: { … } }`.
    pub source: String,
    /// The Compose services that it is made of.
    pub made_of: Vec<String>,
    pub after: Vec<String>,
}

pub enum Looked {
    Nothing,
    /// Several files that each may be the one.
    Unclear(Vec<PathBuf>),
    /// Paths and names are made of variables that nobody has set, each with its question: nothing can be said of the rest.
    Unset(Vec<String>),
    Stack(Box<Stack>),
}

/// Asks `docker compose` what the files in `folder` say.
pub fn look(folder: &Path) -> Result<Looked, RuntimeError> {
    let settings = settings(folder);
    let files = match files_of(folder, &|name| setting(&settings, name)) {
        Files::None => return Ok(Looked::Nothing),
        Files::Unclear(files) => return Ok(Looked::Unclear(files)),
        Files::These(files) => files,
    };
    let docker = DockerRuntime { compose: files.clone(), ..DockerRuntime::default() };
    let Some(compose) = Compose::declared(&docker, folder, None) else { return Ok(Looked::Nothing) };
    let LookedInto { resolved, written, mut held } = compose.looked_into()?;
    let unset: Vec<String> = held.unset.iter().filter_map(|name| missing(name, &written)).collect();
    if !unset.is_empty() {
        return Ok(Looked::Unset(unset));
    }
    let project = held.project.clone();
    let docker = DockerRuntime { project: Some(project.clone()), ..DockerRuntime::default() };
    let containers = Containers::new(Some(&Runtime { docker: Some(docker), colima: None }), folder, None);
    let running = containers.of_project().ok();
    if let Some(running) = &running {
        held = asked(held.with_containers(running), running, &containers);
    }
    let mut stack = Stack {
        base: folder.to_owned(),
        files,
        project,
        variables: variables(folder, &compose.files_of_variables(), &held),
        resolved,
        written,
        ..Stack::default()
    };
    let unread = held.unread.drain(..);
    stack
        .questions
        .extend(unread.map(|what| format!("what does Compose read there? devstack could not look into {what}")));
    let named = setting(&settings, "COMPOSE_PROFILES");
    stack.choose_profiles(named.as_deref(), running.as_deref(), &held);
    stack.down = running.map(|running| down(&stack.resolved, &running));
    stack.held = stack.restricted(held);
    stack.seen = seen(&stack.held);
    Ok(Looked::Stack(Box::new(stack)))
}

/// What a container says of itself comes before what its image is called.
fn asked(mut held: Holdings, all: &[ContainerState], containers: &Containers) -> Holdings {
    let Ok(docker) = containers.docker() else { return held };
    for container in all {
        let Some(service) = container.compose_service() else { continue };
        // One that can't be asked is known by its name.
        let Ok(told) = docker.told(container) else { continue };
        match of_programs(told.programs.iter().map(String::as_str)) {
            Kind::Server(server) => held.tell(service, Some(server)),
            Kind::Untried(_) => held.tell(service, None),
            Kind::Helper | Kind::Other if told.programs.is_empty() && of_name(&container.image) == Kind::Other => {
                if let Kind::Server(server) = of_settings(&told.ports, &told.variables)
                    && server.is_run_by(&told.command)
                {
                    held.tell(service, Some(server));
                }
            }
            Kind::Helper | Kind::Other => {}
        }
    }
    held
}

/// Asks for a variable that nobody has set, where a path or a name is made of it: Compose takes it for empty.
fn missing(name: &str, written: &Value) -> Option<String> {
    let refers = |value: &Value| is_in(name, &value.to_string());
    let services = written["services"].as_object().into_iter().flatten();
    let of_service = |service: &Value| {
        ["volumes", "env_file", "image", "container_name", "build"].iter().any(|key| refers(&service[*key]))
    };
    let used = services.filter(|(_, service)| of_service(service)).map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    let elsewhere = ["volumes", "secrets", "configs"].iter().any(|key| refers(&written[*key]));
    if used.is_empty() && !elsewhere {
        return None;
    }
    let whose = if used.is_empty() { String::new() } else { format!(" of {}", used.join(", ")) };
    Some(format!(
        "what is {name}? The Compose files make a path or a name{whose} of it, nobody has set it, and Compose takes it for empty: \
         set it in .env, and run `devstack init` again."
    ))
}

/// Whether `text` has `$name` or `${name…}` in it.
fn is_in(name: &str, text: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let names = |after: &str| after.strip_prefix('{').unwrap_or(after).strip_prefix(name).is_some_and(ends);
    text.split('$').skip(1).any(names)
}

enum Files {
    None,
    These(Vec<PathBuf>),
    Unclear(Vec<PathBuf>),
}

/// The Compose files of a folder, as Compose itself would choose them, and those of other names where there is but one.
fn files_of(folder: &Path, setting: &dyn Fn(&str) -> Option<String>) -> Files {
    if let Some(files) = setting("COMPOSE_FILE") {
        let separator = setting("COMPOSE_PATH_SEPARATOR").unwrap_or_else(|| ":".to_owned());
        return Files::These(files.split(&separator).filter(|file| !file.is_empty()).map(PathBuf::from).collect());
    }
    let found = Compose::found_in(folder);
    if !found.is_empty() {
        return Files::These(found);
    }
    let mut others = Vec::new();
    for entry in walkdir::WalkDir::new(folder).min_depth(1).max_depth(1).sort_by_file_name().into_iter().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let yaml = name.ends_with(".yml") || name.ends_with(".yaml");
        if entry.file_type().is_file() && yaml && name.contains("compose") {
            others.push(PathBuf::from(name));
        }
    }
    if others.is_empty() {
        let below = walkdir::WalkDir::new(folder).min_depth(2).max_depth(2).sort_by_file_name();
        let found = below
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| Compose::USUAL_NAMES.contains(&name)));
        others.extend(found.filter_map(|entry| entry.path().strip_prefix(folder).ok().map(Path::to_owned)));
    }
    match others.len() {
        0 => Files::None,
        1 => Files::These(others),
        _ => Files::Unclear(others),
    }
}

/// What the folder's own `.env` sets.
fn settings(folder: &Path) -> dotenv::Variables {
    let mut settings = dotenv::Variables::default();
    if let Ok(text) = std::fs::read_to_string(folder.join(".env")) {
        // A line that Compose can't read is told by Compose.
        let _ = dotenv::read(&text, &mut settings, &|name| std::env::var(name).ok().map(Zeroizing::new));
    }
    settings
}

/// A setting of Compose: what the environment says, else its own `.env`.
fn setting(settings: &dotenv::Variables, name: &str) -> Option<String> {
    let value = std::env::var(name).ok().or_else(|| settings.get(name).map(str::to_owned));
    value.filter(|value| !value.is_empty())
}

fn variables(base: &Path, own: &[PathBuf], held: &Holdings) -> Variables {
    let read = |absolute: &Path| {
        let shown = absolute.strip_prefix(base).unwrap_or(absolute);
        Some(VariableFile::read(shown, absolute, &std::fs::read_to_string(absolute).ok()?))
    };
    let read_as =
        |kind: ReadAs| held.files.iter().filter(move |file| file.read_as.contains(&kind)).map(|file| &file.path);
    // Those of included files come after the project's own, so they stand before them: the last one counts.
    let of_included = read_as(ReadAs::Variables).filter(|path| !own.contains(path));
    let env_files = read_as(ReadAs::EnvFile);
    Variables {
        own: of_included.chain(own).filter_map(|path| read(path)).collect(),
        of_services: env_files.filter_map(|path| read(path)).collect(),
        environment: std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
    }
}

impl Stack {
    /// Those that somebody named, and those whose services have containers. What never ran is not started by a recovery.
    fn choose_profiles(&mut self, named: Option<&str>, running: Option<&[ContainerState]>, held: &Holdings) {
        let named = named.into_iter().flat_map(|named| named.split(',')).map(str::trim).filter(|name| !name.is_empty());
        let mut chosen: BTreeSet<String> = named.map(str::to_owned).collect();
        let is_said = !chosen.is_empty();
        let known: BTreeSet<&String> = held.services.values().flat_map(|holder| &holder.profiles).collect();
        if chosen.contains("*") {
            chosen = known.iter().map(|name| (*name).clone()).collect();
        }
        let has_run = |service: &str| {
            running.into_iter().flatten().any(|it| it.compose_service().is_some_and(|name| name == service))
        };
        for (service, holder) in held.services.iter().filter(|(service, _)| has_run(service)) {
            if let Some(first) = holder.profiles.first()
                && !holder.profiles.iter().any(|profile| chosen.contains(profile))
            {
                tracing::debug!("the service {service} runs, so its profile {first} is in use");
                chosen.insert(first.clone());
            }
        }
        let others: Vec<&str> =
            known.iter().filter(|name| !chosen.contains(**name)).map(|name| name.as_str()).collect();
        if !others.is_empty() {
            // Whoever names some has said which; and of a project that runs, one sees it.
            match running.is_some_and(|running| !running.is_empty()) || is_said {
                true => self.never_ran = others.iter().map(|name| (*name).to_owned()).collect(),
                false => self.questions.push(format!(
                    "which of the profiles {} are in use? Nothing of this project has run here that could tell. Set \
                     COMPOSE_PROFILES in .env, or start the stack, and run `devstack init` again.",
                    others.join(", ")
                )),
            }
        }
        self.profiles = chosen.into_iter().collect();
    }

    /// Without the services of profiles that are not in use, and what they alone hold.
    fn restricted(&mut self, mut held: Holdings) -> Holdings {
        let out: BTreeSet<String> = held
            .services
            .iter()
            .filter(|(_, holder)| {
                !holder.profiles.is_empty() && !holder.profiles.iter().any(|it| self.profiles.contains(it))
            })
            .map(|(name, _)| name.clone())
            .collect();
        if out.is_empty() {
            return held;
        }
        let reads = |name: &str| {
            let files = held.files.iter().any(|file| file.services.contains(name));
            files || held.builds.iter().any(|build| build.services.contains(name))
        };
        let never = |profile: &&String| self.never_ran.contains(*profile);
        for (name, holder) in held.services.iter().filter(|(name, _)| out.contains(*name)) {
            let holds = holder.server.is_some() || !holder.targets.is_empty() || reads(name);
            if let Some(profile) = holder.profiles.iter().find(never).filter(|_| holds) {
                let because = format!("nothing of its profile {profile} has run");
                self.left_out.push(LeftOut::new("service", name, because));
            }
        }
        held.services.retain(|name, _| !out.contains(name));
        held.volumes.retain_mut(|volume| {
            let used = !volume.uses.is_empty();
            volume.uses.retain(|it| !out.contains(&it.service));
            !used || !volume.uses.is_empty()
        });
        held.binds.retain_mut(|bind| {
            bind.uses.retain(|it| !out.contains(&it.service));
            !bind.uses.is_empty()
        });
        held.nameless.retain(|it| !out.contains(&it.at.service));
        held
    }

    /// A path as devstack.yaml names it: from its own folder on where it lies in there.
    pub fn named(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.base) {
            Ok(below) if below.as_os_str().is_empty() => PathBuf::from("."),
            Ok(below) => below.to_owned(),
            Err(_) => path.to_owned(),
        }
    }

    pub fn depends_on(&self, service: &str) -> Vec<String> {
        match &self.resolved["services"][service]["depends_on"] {
            Value::Object(others) => others.keys().cloned().collect(),
            Value::Array(others) => others.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }
}

/// The services without a running container, with the state that theirs is in.
fn down(resolved: &Value, running: &[ContainerState]) -> BTreeMap<String, String> {
    let services = resolved["services"].as_object().into_iter().flatten();
    let states = services.filter_map(|(service, _)| {
        let mut own = running.iter().filter(|it| it.compose_service().is_some_and(|name| name == service)).peekable();
        let none = own.peek().is_none();
        let states: Vec<&ContainerState> = own.collect();
        if states.iter().any(|it| it.running) {
            return None;
        }
        let state = if none { "has no container" } else { states.first().map_or("", |it| it.state.as_str()) };
        Some((service.clone(), state.to_owned()))
    });
    states.collect()
}

/// What lies at every path of the machine that the stack names.
fn seen(held: &Holdings) -> BTreeMap<PathBuf, Seen> {
    let binds = held.binds.iter().map(|bind| &bind.path);
    let files = held.files.iter().map(|file| &file.path);
    let builds = held.builds.iter().map(|build| &build.context);
    let paths: BTreeSet<&PathBuf> = binds.chain(files).chain(builds).collect();
    paths.into_iter().filter_map(|path| Some((path.clone(), kind_of(path)?))).collect()
}

fn kind_of(path: &Path) -> Option<Seen> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_dir() {
        return Some(Seen::File);
    }
    let denied = |error: &walkdir::Error| {
        error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let mut entries = walkdir::WalkDir::new(path).into_iter().take(LOOKED_AT);
    let closed = entries.any(|entry| match entry {
        Ok(entry) => {
            entry.file_type().is_file()
                && std::fs::File::open(entry.path())
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        }
        Err(error) => denied(&error),
    });
    Some(if closed { Seen::Closed } else { Seen::Folder })
}

pub fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}
