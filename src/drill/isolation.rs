//! The Compose model of a run, made over for a drill: names, addresses, ports and paths of the live stack are not in it,
//! and what can't be isolated stops the drill before anything is made.
//!
//! It is built from nothing by an allow-list (`rules.rs`), and not by taking things out of the live model: what Compose
//! learns tomorrow stops a drill and does not slip into it.
//!
//! Compose doubles every `$` that it prints and halves it when it reads, so what is carried over stays as it is printed.

mod barred;
mod copies;
mod decisions;
mod networks;
#[cfg(test)]
mod properties;
mod provided;
mod rules;
mod service;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::id::{DrillId, LABEL};
pub(super) use barred::{reduced, without};
pub(super) use copies::plain;
pub use copies::{CopyFrom, ScratchCopy};
use decisions::{Decisions, below};
pub use decisions::{LeftOut, NotIsolated, Problem};
pub use networks::NewNetwork;
pub use provided::{NewContainer, Provided};
pub(super) use rules::{confines, is_itself, stays_inside};
pub use volumes::{NewVolume, StandsFor};

/// What is to be drilled.
pub struct Request<'a> {
    /// What `docker compose --profile '*' config --format json` prints of the run's own files.
    pub model: &'a Value,
    pub id: &'a DrillId,
    /// The services of the model that the drill needs.
    pub services: &'a BTreeSet<String>,
    /// An absolute path; copies of what the services bind come below it. The engine must see it too: one in a virtual machine
    /// is often lent the home folder only.
    pub scratch: &'a Path,
    /// By service: the paths that its image declares as volumes. The engine would make nameless volumes for them, which
    /// carry no label, so that a killed drill would leave them behind for good.
    pub image_volumes: &'a BTreeMap<String, Vec<String>>,
}

/// A model that can be created beside the live stack, and what its maker has to put in place first.
#[derive(Clone, PartialEq)]
pub struct Isolated {
    /// For `docker compose -f - -p ID`. It holds the services' environments, and with them passwords: it goes to the
    /// program by its standard input, and nowhere else.
    pub model: Value,
    pub provided: Provided,
}

/// Without the model: an environment may hold passwords.
impl fmt::Debug for Isolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolated").field("provided", &self.provided).finish_non_exhaustive()
    }
}

/// Makes the model of a drill, or names every key that keeps it from being made.
pub fn isolate(request: &Request<'_>) -> Result<Isolated, NotIsolated> {
    let mut work = Assembly::begin(request);
    work.names_are_free();
    let mut services = Map::new();
    for name in request.services {
        match request.model["services"].get(name).and_then(Value::as_object) {
            Some(declared) => {
                let made = service::made_over(&mut work, name, declared);
                let called = declared.get("container_name").and_then(Value::as_str).map(str::to_owned);
                work.containers.push(NewContainer { service: name.clone(), live: called });
                services.insert(name.clone(), Value::Object(made));
            }
            None => work.decisions.refuse(
                format!("services.{name}"),
                "the drill needs this service, and the Compose files of the run have none of that name",
                "drill a run whose files have it, or leave the service out of the drill",
            ),
        }
    }
    if request.services.is_empty() {
        work.decisions.refuse("services", "no service is to be drilled", "name at least one");
    }
    work.finished(services)
}

/// The label that everything of the drill carries, as the model says it.
fn label(id: &DrillId) -> Value {
    json!({ LABEL: id.as_str() })
}

/// The model while it is made.
struct Assembly<'a> {
    request: &'a Request<'a>,
    decisions: Decisions,
    volumes: volumes::Volumes,
    networks: networks::Networks,
    copies: copies::Copies,
    containers: Vec<NewContainer>,
    /// Of `secrets` and `configs`, those that a service uses.
    files: BTreeMap<&'static str, BTreeSet<String>>,
}

impl<'a> Assembly<'a> {
    fn begin(request: &'a Request<'a>) -> Self {
        let mut decisions = Decisions::default();
        match request.model.as_object() {
            Some(root) => {
                decisions.sorted("", root, rules::ROOT);
            }
            None => decisions.misshapen("the model", "an object"),
        }
        if !request.scratch.is_absolute() || request.scratch.to_str().is_none() {
            let why = format!("{} is not an absolute path in UTF-8", request.scratch.display());
            decisions.refuse("the scratch folder", why, "give one that is");
        }
        Self {
            request,
            decisions,
            volumes: volumes::Volumes::default(),
            networks: networks::Networks::default(),
            copies: copies::Copies::planned(request),
            containers: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// A random name is free. If it is not, the drill would be made of the live stack's own things.
    fn names_are_free(&mut self) {
        let id = self.request.id.as_str();
        let of = |part: &str| -> Vec<(String, String)> {
            let declared = self.request.model[part].as_object();
            let name = |(key, value): (&String, &Value)| {
                (format!("{part}.{key}"), value["name"].as_str().unwrap_or(key).to_owned())
            };
            declared.map(|declared| declared.iter().map(name).collect()).unwrap_or_default()
        };
        let project = self.request.model["name"].as_str().unwrap_or_default().to_owned();
        let mut names = vec![("name".to_owned(), project)];
        names.extend(of("volumes"));
        names.extend(of("networks"));
        for (at, name) in names {
            if name == id || name.starts_with(&format!("{id}-")) {
                let why = format!("`{name}` of the live stack begins like the drill's own names");
                self.decisions.refuse(at, why, "begin again with another name for the drill");
            }
        }
    }

    /// What stands at the top of the live model under a name; nothing where there is no such thing.
    fn declared(&mut self, part: &str, key: &str) -> Option<&'a Map<String, Value>> {
        self.decisions.object(&format!("{part}.{key}"), self.request.model[part].get(key))
    }

    fn finished(mut self, services: Map<String, Value>) -> Result<Isolated, NotIsolated> {
        let mut model = Map::new();
        model.insert("name".to_owned(), self.request.id.as_str().into());
        model.insert("services".to_owned(), Value::Object(services));
        let mut provided = Provided::default();
        for part in ["configs", "secrets"] {
            let mut made = Map::new();
            for key in self.files.remove(part).unwrap_or_default() {
                let file = self.file(part, &key, &mut provided.variables);
                made.insert(key, Value::Object(file));
            }
            model.insert(part.to_owned(), Value::Object(made));
        }
        provided.variables.sort();
        provided.variables.dedup();
        let label = label(self.request.id);
        let named = |name: &str| (name.to_owned(), json!({ "name": name, "labels": label }));
        // `internal`, and never attached to anything else: nothing outside of the drill can be reached by it.
        let inside = |name: &str| (name.to_owned(), json!({ "name": name, "labels": label, "internal": true }));
        provided.projects.extend(self.request.model["name"].as_str().map(str::to_owned));
        provided.containers = self.containers;
        provided.volumes = self.volumes.made;
        provided.networks = self.networks.made;
        provided.copies = self.copies.used();
        provided.left_out = self.decisions.left_out;
        model.insert("volumes".to_owned(), provided.volumes.iter().map(|volume| named(&volume.name)).collect());
        model.insert("networks".to_owned(), provided.networks.iter().map(|network| inside(&network.name)).collect());
        if self.decisions.problems.is_empty() {
            Ok(Isolated { model: Value::Object(model), provided })
        } else {
            Err(NotIsolated { problems: self.decisions.problems })
        }
    }

    /// A secret or a config at the top of the model.
    fn file(&mut self, part: &str, key: &str, variables: &mut Vec<String>) -> Map<String, Value> {
        let at = format!("{part}.{key}");
        let Some(declared) = self.declared(part, key) else {
            let why = "a service uses it, and it is not declared";
            self.decisions.refuse(at, why, "correct the Compose file");
            return Map::new();
        };
        let mut made = self.decisions.sorted(&at, declared, rules::FILE);
        if let Some(variable) = made.get("environment").and_then(Value::as_str) {
            variables.push(variable.to_owned());
        }
        let at = below(&at, "file");
        if let Some(path) = self.decisions.text(&at, declared.get("file")) {
            // Compose mounts the host's own file into the container.
            if let Some(scratch) = self.copies.take(&mut self.decisions, &at, path, true) {
                made.insert("file".to_owned(), scratch.into());
            }
        }
        made
    }
}
