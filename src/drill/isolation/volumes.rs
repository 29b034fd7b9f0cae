//! What the containers mount: every volume a new one, every host path a copy, memory as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::copies::plain;
use super::decisions::{TAKE_IT_OUT, below};
use super::{Assembly, Request, rules};

/// A volume of the drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewVolume {
    /// Begins with the drill's id; also its key in the model.
    pub name: String,
    pub stands_for: StandsFor,
}

/// What a volume of the drill stands for in the live stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StandsFor {
    /// A volume that the Compose files name: its key there, and the engine's own name for it.
    Named { key: String, name: String },
    /// A mount without a name.
    Nameless { service: String, target: String },
    /// A path that the image declares as a volume.
    Image { service: String, target: String },
}

#[derive(Debug, Default)]
pub(super) struct Volumes {
    pub made: Vec<NewVolume>,
    by_key: BTreeMap<String, String>,
}

impl Volumes {
    /// The names are counted, so that nothing of a live name is in them.
    fn make(&mut self, request: &Request<'_>, stands_for: StandsFor) -> String {
        let name = format!("{}-v{}", request.id, self.made.len() + 1);
        self.made.push(NewVolume { name: name.clone(), stands_for });
        name
    }
}

/// The mounts of a service.
pub(super) fn mounts(work: &mut Assembly<'_>, service: &str, declared: &Map<String, Value>) -> Vec<Value> {
    let at = format!("services.{service}.volumes");
    let mut made = Vec::new();
    for (nth, entry) in work.decisions.list(&at, declared.get("volumes")).iter().enumerate() {
        let at = format!("{at}[{nth}]");
        let Some(entry) = work.decisions.object(&at, Some(entry)) else { continue };
        let mount = match work.decisions.text(&below(&at, "type"), entry.get("type")) {
            Some("volume") => Some(volume(work, service, &at, entry)),
            Some("bind") => bind(work, &at, entry),
            Some("tmpfs") => Some(memory(work, &at, entry)),
            // `npipe` is Docker's own pipe on Windows, `cluster` belongs to swarm, `image` no engine of ours knows.
            Some(other) => {
                work.decisions.refuse(&at, format!("the drill knows no mounts of the type `{other}`"), TAKE_IT_OUT);
                None
            }
            None => {
                work.decisions.misshapen(&at, "a mount with a `type`");
                None
            }
        };
        made.extend(mount.map(Value::Object));
    }
    let covered = covered(work.request, service, &mut BTreeSet::new());
    for target in work.request.image_volumes.get(service).into_iter().flatten() {
        if !covered.contains(&plain(Path::new(target))) {
            let stands_for = StandsFor::Image { service: service.to_owned(), target: target.clone() };
            let source = work.volumes.make(work.request, stands_for);
            let target = target.replace('$', "$$");
            made.push(serde_json::json!({ "type": "volume", "source": source, "target": target }));
        }
    }
    made
}

fn volume(work: &mut Assembly<'_>, service: &str, at: &str, entry: &Map<String, Value>) -> Map<String, Value> {
    let mut made = work.decisions.sorted(at, entry, rules::VOLUME_MOUNT);
    let options_at = below(at, "volume");
    if let Some(options) = work.decisions.object(&options_at, entry.get("volume")) {
        let kept = work.decisions.sorted(&options_at, options, rules::VOLUME_OPTIONS);
        made.insert("volume".to_owned(), Value::Object(kept));
    }
    let source = match work.decisions.text(&below(at, "source"), entry.get("source")) {
        Some(key) => named(work, key),
        // Without a name of ours the engine would make one without a label.
        None => {
            let target = entry.get("target").and_then(Value::as_str).unwrap_or_default().to_owned();
            work.volumes.make(work.request, StandsFor::Nameless { service: service.to_owned(), target })
        }
    };
    made.insert("source".to_owned(), source.into());
    made
}

/// The volume that stands for one of the files', made when the first service asks for it.
fn named(work: &mut Assembly<'_>, key: &str) -> String {
    if let Some(known) = work.volumes.by_key.get(key) {
        return known.clone();
    }
    let mut name = key;
    if let Some(declared) = work.declared("volumes", key) {
        let at = format!("volumes.{key}");
        work.decisions.sorted(&at, declared, rules::VOLUME);
        // `name:` and `external:` mean the live volume, whatever the project is called.
        name = work.decisions.text(&below(&at, "name"), declared.get("name")).unwrap_or(key);
        if let Some(driver) = work.decisions.text(&below(&at, "driver"), declared.get("driver"))
            && driver != "local"
        {
            let why = format!("`{driver}` may keep its data elsewhere; the drill's volume is a plain local one");
            work.decisions.leave_out(below(&at, "driver"), why);
        }
    }
    let stands_for = StandsFor::Named { key: key.to_owned(), name: name.to_owned() };
    let made = work.volumes.make(work.request, stands_for);
    work.volumes.by_key.insert(key.to_owned(), made.clone());
    made
}

fn bind(work: &mut Assembly<'_>, at: &str, entry: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut made = work.decisions.sorted(at, entry, rules::BIND_MOUNT);
    let options_at = below(at, "bind");
    let mut options = Map::new();
    if let Some(declared) = work.decisions.object(&options_at, entry.get("bind")) {
        options = work.decisions.sorted(&options_at, declared, rules::BIND_OPTIONS);
    }
    // Docker would make an empty folder where the copy is missing, and the service would start on nothing.
    options.insert("create_host_path".to_owned(), false.into());
    made.insert("bind".to_owned(), Value::Object(options));
    let source_at = below(at, "source");
    let Some(source) = work.decisions.text(&source_at, entry.get("source")) else {
        work.decisions.misshapen(source_at, "a path");
        return None;
    };
    // Whatever the socket is called on the host, a Docker client looks for it by this name.
    if made.get("target").and_then(Value::as_str).is_some_and(|target| target.ends_with("docker.sock")) {
        let why = "whoever may talk to Docker has power over the live stack";
        work.decisions.refuse(source_at, why, TAKE_IT_OUT);
        return None;
    }
    let read_only = entry.get("read_only").and_then(Value::as_bool).unwrap_or_default();
    let scratch = work.copies.take(&mut work.decisions, &source_at, source, read_only)?;
    made.insert("source".to_owned(), scratch.into());
    Some(made)
}

fn memory(work: &mut Assembly<'_>, at: &str, entry: &Map<String, Value>) -> Map<String, Value> {
    let mut made = work.decisions.sorted(at, entry, rules::TMPFS_MOUNT);
    let at = below(at, "tmpfs");
    if let Some(options) = work.decisions.object(&at, entry.get("tmpfs")) {
        made.insert("tmpfs".to_owned(), Value::Object(work.decisions.sorted(&at, options, rules::TMPFS_OPTIONS)));
    }
    made
}

/// Where something is mounted already, so that the engine makes nothing there of its own: by the service itself, or by one
/// whose volumes it takes.
fn covered(request: &Request<'_>, service: &str, seen: &mut BTreeSet<String>) -> BTreeSet<PathBuf> {
    let mut targets = BTreeSet::new();
    if !seen.insert(service.to_owned()) {
        return targets;
    }
    let entries = |value: &Value| match value {
        Value::Array(entries) => entries.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let declared = &request.model["services"][service];
    let mut cover = |target: &str| targets.insert(plain(Path::new(&target.replace("$$", "$"))));
    for mount in entries(&declared["volumes"]) {
        mount["target"].as_str().map(&mut cover);
    }
    for mount in entries(&declared["tmpfs"]) {
        // `/run:size=64m`
        mount.as_str().and_then(|mount| mount.split(':').next()).map(&mut cover);
    }
    for from in entries(&declared["volumes_from"]) {
        let Some(from) = from.as_str().and_then(|from| from.split(':').next()) else { continue };
        targets.extend(request.image_volumes.get(from).into_iter().flatten().map(|target| plain(Path::new(target))));
        targets.extend(covered(request, from, seen));
    }
    targets
}
