//! What a stack holds, asked from Compose and from the engine.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::compose::output;
use super::containers::{FOLDER, PROJECT};
use super::written::{Variables, Written, filled};
use super::{Compose, Containers, Docker, Resolved, RuntimeError};
use crate::model::chain;
use crate::model::holdings::Holdings;
use crate::model::observation::ContainerState;
use crate::spec::file::DockerRuntime;

const OVERRIDES: [&str; 4] =
    ["compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"];

/// What Compose makes of the files, with the services of every profile.
pub struct LookedInto {
    /// Filled in; `env_file` and `label_file`, which Compose then no longer tells, are in it all the same.
    pub resolved: Value,
    /// Put together, and no variable filled in.
    pub written: Value,
    pub held: Holdings,
}

impl Compose {
    /// The files that Compose finds by itself, in its own order.
    pub const USUAL_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

    /// The files in `folder` that Compose would find there by itself.
    pub fn beside(folder: &Path, project: Option<String>) -> Option<Self> {
        let compose = Self::found_in(folder);
        if compose.is_empty() {
            return None;
        }
        Self::declared(&DockerRuntime { compose, project, ..DockerRuntime::default() }, folder, None)
    }

    /// Their names, none where there are none.
    pub fn found_in(folder: &Path) -> Vec<PathBuf> {
        let present = |names: &[&str]| names.iter().find(|name| folder.join(name).is_file()).map(PathBuf::from);
        let Some(file) = present(&Self::USUAL_NAMES) else { return Vec::new() };
        std::iter::once(file).chain(present(&OVERRIDES)).collect()
    }

    /// What the files say that the stack holds, with the services of every profile: what one of them has written once lies
    /// there still. No engine is asked.
    pub fn held(&self) -> Result<Holdings, RuntimeError> {
        self.looked_into().map(|looked| looked.held)
    }

    /// The same, with the models that it is made of.
    pub fn looked_into(&self) -> Result<LookedInto, RuntimeError> {
        let all = self.with_profiles(vec!["*".to_owned()]);
        // Filled in, an env_file is no longer told; as it is written, no volume has its name.
        let (resolved, written) = std::thread::scope(|scope| {
            let written = scope.spawn(|| all.as_written());
            (all.resolved_here(), written.join())
        });
        let Resolved { model: mut resolved, unset } = resolved?;
        let asked = std::cell::OnceCell::new();
        let variables = |name: &str| asked.get_or_init(|| all.variables()).get(name)?.as_str().map(str::to_owned);
        let mut unread = Vec::new();
        let written = match written {
            Ok(written) => written?,
            Err(_) => {
                unread.push("the Compose files as they are written".to_owned());
                Value::Null
            }
        };
        add_read_files(&mut resolved, &written, &variables, &mut unread);
        make_profiles_absolute(&mut resolved, &self.folder());
        let followed = Written::follow(self.files(), &self.files_of_variables(), &variables);
        let mut held = Holdings::of(&resolved, &followed.files);
        held.unread = [followed.unread, unread].concat();
        held.unset = unset;
        held.profiles = self.profiles().to_vec();
        if held.profiles.is_empty() && held.services.values().any(|holder| !holder.profiles.is_empty()) {
            let own = variables("COMPOSE_PROFILES").unwrap_or_default();
            held.profiles = own.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        }
        Ok(LookedInto { resolved, written, held })
    }

    /// What Compose fills its files in with. Values of variables are in it, so it is asked for only where a path has one in it.
    fn variables(&self) -> Map<String, Value> {
        let Ok(mut command) = self.command(None) else { return Map::new() };
        command.args(["config", "--environment"]);
        let Ok(printed) = output(command, "docker compose config") else { return Map::new() };
        let text = String::from_utf8_lossy(&printed);
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

/// A profile of seccomp is the one file that Compose leaves as it is written.
fn make_profiles_absolute(resolved: &mut Value, folder: &Path) {
    let services = resolved["services"].as_object_mut().into_iter().flatten();
    let options = services.filter_map(|(_, service)| service.get_mut("security_opt")?.as_array_mut()).flatten();
    for option in options {
        let profile = option
            .as_str()
            .and_then(|text| text.strip_prefix("seccomp"))
            .and_then(|rest| rest.strip_prefix([':', '=']));
        let Some(profile) = profile.filter(|profile| !["unconfined", "builtin"].contains(profile)) else { continue };
        *option = format!("seccomp={}", folder.join(profile).display()).into();
    }
}

/// Compose tells env_file and label_file only of files that it has not filled in.
fn add_read_files(resolved: &mut Value, written: &Value, variables: Variables<'_>, unread: &mut Vec<String>) {
    for (name, service) in resolved["services"].as_object_mut().into_iter().flatten() {
        for key in ["env_file", "label_file"] {
            let entries = match &written["services"][name.as_str()][key] {
                Value::Array(entries) => entries.clone(),
                Value::Null => continue,
                one => vec![one.clone()],
            };
            let mut kept = Vec::new();
            for entry in entries {
                let Some(given) = entry.as_str().or_else(|| entry["path"].as_str()) else { continue };
                match filled(given, variables) {
                    // As Compose prints a `$` that is one.
                    Some(path) => kept.push(serde_json::json!({
                        "path": path.replace('$', "$$"), "required": entry["required"] != false,
                    })),
                    None => unread.push(format!("{key} {given} of {name}: what its variables are is not known")),
                }
            }
            service[key] = Value::Array(kept);
        }
    }
}

impl Containers {
    /// What the Compose files say that it holds, those too that lie in the folder and are not declared; no engine is asked. None
    /// where there are none.
    pub fn held_by_files(&self) -> Option<Result<Holdings, RuntimeError>> {
        let compose = self.compose().or_else(|| Compose::beside(self.base(), self.declared_project()));
        compose.map(|compose| compose.held())
    }

    /// What the project holds: what its Compose files say, those too that lie in the folder and are not declared, and what
    /// its containers mount. None where there are neither.
    pub fn held(&self) -> Result<Option<Holdings>, RuntimeError> {
        let mut files = self.held_by_files().transpose()?;
        let project = match &files {
            Some(held) => Some(held.project.clone()),
            None => self.project()?,
        };
        let containers = match (&project, self.docker()) {
            (_, Ok(docker)) => containers_of(&docker, project.as_deref(), self.base())?,
            // The files alone say a great deal.
            (_, Err(error)) => {
                let text = format!("no engine answers, so what containers mount is not known: {}", chain(&error));
                files.iter_mut().for_each(|held| held.unread.push(text.clone()));
                Vec::new()
            }
        };
        if files.is_none() && containers.is_empty() {
            return Ok(None);
        }
        let held = files.unwrap_or_else(|| Holdings { project: project.unwrap_or_default(), ..Holdings::default() });
        Ok(Some(held.with_containers(&containers)))
    }
}

/// Those of the project; without one, those that were started from `folder`.
fn containers_of(docker: &Docker, project: Option<&str>, folder: &Path) -> Result<Vec<ContainerState>, RuntimeError> {
    match project {
        Some(project) => docker.labelled(&[(PROJECT, project)]),
        None => docker.labelled(&[(FOLDER, &folder.display().to_string())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_seccomp_lies_where_compose_looks_for_it() {
        let mut resolved = serde_json::json!({ "services": {
            "a": { "security_opt": ["seccomp:profiles/a.json", "seccomp=unconfined", "label:disable"] },
            "b": { "security_opt": ["seccomp=/etc/b.json"] }, "c": {},
        } });
        make_profiles_absolute(&mut resolved, Path::new("/srv"));
        let held = Holdings::of(&resolved, &[]);
        let told: Vec<_> = held.files.iter().map(|file| file.path.display().to_string()).collect();
        assert_eq!(told, ["/etc/b.json", "/srv/profiles/a.json"]);
    }

    #[test]
    fn env_files_come_back_into_what_was_filled_in_with_their_variables() {
        let mut resolved = serde_json::json!({ "services": { "web": { "image": "x" }, "db": {} } });
        let written = serde_json::json!({ "services": {
            "web": { "env_file": [ { "path": "/srv/${ENV}.env", "required": false }, { "path": "/srv/a$$b.env", "required": true } ],
                "label_file": "/srv/labels" },
            "db": { "env_file": [ "/srv/${NO}.env" ] },
        } });
        let variables = |name: &str| (name == "ENV").then(|| "prod".to_owned());
        let mut unread = Vec::new();
        add_read_files(&mut resolved, &written, &variables, &mut unread);
        let held = Holdings::of(&resolved, &[]);
        let told: Vec<_> = held.files.iter().map(|file| (file.path.display().to_string(), file.optional)).collect();
        let wanted = [("/srv/a$b.env", false), ("/srv/labels", false), ("/srv/prod.env", true)];
        assert_eq!(told, wanted.map(|(path, optional)| (path.to_owned(), optional)));
        assert_eq!(unread, ["env_file /srv/${NO}.env of db: what its variables are is not known"]);
    }
}
