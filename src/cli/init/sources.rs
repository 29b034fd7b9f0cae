//! From what a stack holds to the services of devstack.yaml. Pure: what lies where was looked at before.
//!
//! Each thing is taken once. A server's data is taken through the server. What else is mounted is grouped by who writes it:
//! folders of the machine with the same writers are one source, and a volume is one source whose writers all stop together.

mod binds;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::compose::{Found, Stack};
use super::password::Asked;
use super::server::{self, Made, Node};
use super::vault::{self, VaultFound};
use super::{name_of, quoted};
use crate::model::holdings::{Backing, HeldVolume, Nameless, Use, of_the_machine, writers};
use crate::model::image::{Kind, Server, of_name};

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposed {
    pub services: Vec<Found>,
    pub vault: Option<VaultFound>,
    /// What the stack is started from, beside what is found in the folder itself; as the file names it.
    pub configuration: BTreeSet<PathBuf>,
    /// What somebody has to decide, a line each.
    pub questions: Vec<String>,
    pub left_out: Vec<LeftOut>,
    /// What holds no data that could be lost, with the reason.
    pub mentioned: Vec<String>,
    /// Folders of the machine whose content is taken already, or is a server's own.
    pub covered: Vec<PathBuf>,
}

/// An entry of `leave_out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// `volume`, `path` or `service`.
    pub key: &'static str,
    pub name: String,
    pub because: String,
}

impl LeftOut {
    pub fn new(key: &'static str, name: &str, because: impl Into<String>) -> Self {
        Self { key, name: name.to_owned(), because: because.into() }
    }
}

/// What lies at a path of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    File,
    Folder,
    /// A folder of which not everything can be read by who runs this.
    Closed,
}

pub fn propose(stack: &Stack, repository: &str) -> Proposed {
    let mut proposed = Proposed::default();
    let taken = servers(stack, &mut proposed);
    volumes(stack, &taken, &mut proposed);
    binds::take(stack, &taken, repository, &mut proposed);
    read_by_compose(stack, &mut proposed);
    order(stack, &taken, &mut proposed.services);
    proposed.services.sort_by(|a, b| a.name.cmp(&b.name));
    proposed
}

/// The servers, each by its own source. Gives the Compose services whose data is taken so.
fn servers<'a>(stack: &'a Stack, proposed: &mut Proposed) -> BTreeSet<&'a str> {
    let mut taken = BTreeSet::new();
    let mut cluster = Vec::new();
    let mut vaults = Vec::new();
    // The first member of each replica set.
    let mut sets: BTreeMap<String, &str> = BTreeMap::new();
    for (name, holder) in &stack.held.services {
        let (written, resolved) = (&stack.written["services"][name], &stack.resolved["services"][name]);
        let image = holder.image.as_deref().unwrap_or_default();
        let asked = Asked {
            written,
            resolved,
            secrets: &stack.resolved["secrets"],
            variables: &stack.variables,
            base: &stack.base,
        };
        let node = Node { name, image, asked };
        if let (None, Kind::Untried("Dragonfly")) = (holder.server, of_name(image))
            && keeps(stack, name)
        {
            proposed.questions.push(format!(
                "{name}: does this Dragonfly write a snapshot when it is stopped (--dbfilename)? Its files are taken then, and \
                 hold nothing else."
            ));
        }
        let Some(server) = holder.server else { continue };
        if server::is_replica(resolved) {
            proposed.left_out.push(LeftOut::new("service", name, "a replica, which copies its data from its primary"));
            taken.insert(name.as_str());
            continue;
        }
        if let Some(set) = server::replica_set(resolved) {
            if let Some(first) = sets.get(&set) {
                proposed.questions.push(format!(
                    "{first}: is it the member of the replica set {set} that takes writes? {name} is a member too, and one alone is \
                     taken and restored into."
                ));
                let because = format!("a member of the replica set {set}, which copies its data from the primary");
                proposed.left_out.push(LeftOut::new("service", name, because));
                taken.insert(name.as_str());
                continue;
            }
            sets.insert(set, name);
        }
        let made = match server {
            Server::Vault => {
                vaults.push((name.as_str(), resolved));
                taken.insert(name.as_str());
                None
            }
            Server::Redis if !keeps(stack, name) => {
                proposed.left_out.push(LeftOut::new(
                    "service",
                    name,
                    "a Redis that keeps nothing in a volume, so a cache",
                ));
                None
            }
            Server::Redis if server::is_cluster_node(resolved) => {
                cluster.push(node);
                taken.insert(name.as_str());
                None
            }
            _ => server::source(server, node),
        };
        if let Some(Made { found, questions }) = made {
            proposed.services.push(found);
            proposed.questions.extend(questions);
            taken.insert(name.as_str());
        }
    }
    if let Some(Made { found, questions }) = server::redis(&cluster, true) {
        proposed.services.push(found);
        proposed.questions.extend(questions);
    }
    proposed.vault = vault::find(vaults.into_iter());
    if let Some(vault) = &proposed.vault {
        proposed.questions.push(format!(
            "{}: which login may back up this Vault? It is not backed up yet; complete what stands in comments for it.",
            vault.container
        ));
    }
    taken
}

/// Whether a service has a volume or a folder of the machine that it writes to.
fn keeps(stack: &Stack, service: &str) -> bool {
    let held = &stack.held;
    let volumes =
        held.volumes.iter().filter(|volume| volume.backing != Backing::Memory).flat_map(|volume| &volume.uses);
    let nameless = held.nameless.iter().filter(|it| is_declared(stack, it)).map(|it| &it.at);
    let all = volumes.chain(held.binds.iter().flat_map(|bind| &bind.uses)).chain(nameless);
    let mut own = all.filter(|it| it.service == service && it.writes);
    own.any(|it| it.data_of.is_some() || held.services[service].server.is_none())
}

/// The Compose files ask for it, and not the image alone, as that of Redis does for every container.
fn is_declared(stack: &Stack, nameless: &Nameless) -> bool {
    let mounts = stack.resolved["services"][&nameless.at.service]["volumes"].as_array();
    mounts.into_iter().flatten().any(|mount| mount["target"] == nameless.at.target.as_str())
}

fn is_covered(uses: &[Use], taken: &BTreeSet<&str>) -> bool {
    uses.iter().any(|it| it.data_of.is_some() && taken.contains(it.service.as_str()))
}

/// What is made again by itself, and what nobody misses: by its own name, or by those of all places where it is mounted.
fn is_cache(name: &str, targets: &[&str]) -> bool {
    const CACHES: [&str; 16] = [
        "cache",
        "caches",
        ".cache",
        "tmp",
        "temp",
        "transcode",
        "transcodes",
        "transcoding",
        "node_modules",
        "vendor",
        "sock",
        "socket",
        "sockets",
        "run",
        "venv",
        ".venv",
    ];
    let is_one = |name: &str| {
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        CACHES.iter().any(|cache| {
            let before = last.strip_suffix(cache);
            before.is_some_and(|before| before.is_empty() || before.ends_with(['-', '_', '.']))
        })
    };
    is_one(name) || !targets.is_empty() && targets.iter().all(|target| is_one(target))
}

fn volumes(stack: &Stack, taken: &BTreeSet<&str>, proposed: &mut Proposed) {
    for volume in &stack.held.volumes {
        let key = volume.key.as_deref().unwrap_or(&volume.name);
        if let Backing::Folder(path) = &volume.backing {
            proposed.covered.push(path.clone());
        }
        if is_covered(&volume.uses, taken) {
            continue;
        }
        let targets: Vec<&str> = volume.uses.iter().map(|it| it.target.as_str()).collect();
        let no_data = match &volume.backing {
            _ if volume.uses.is_empty() => Some("no service mounts it"),
            Backing::Memory => Some("it lies in memory"),
            Backing::Folder(_) | Backing::Local | Backing::Remote(_) => None,
        };
        if let Some(reason) = no_data {
            proposed.mentioned.push(format!("the volume {key}: {reason}."));
            continue;
        }
        let reason = match &volume.backing {
            Backing::Folder(path) if of_the_machine(path).is_some() => of_the_machine(path),
            _ if is_cache(key, &targets) => Some("a cache by its name"),
            Backing::Folder(_) | Backing::Local | Backing::Remote(_) | Backing::Memory => None,
        };
        if let Some(reason) = reason {
            proposed.left_out.push(LeftOut::new("volume", key, reason));
            continue;
        }
        let writers = writers(&volume.uses);
        if writers.is_empty() {
            only_read(volume, key, proposed);
            continue;
        }
        let stop = list(writers.iter().copied());
        let source = format!("{{ volume: {{ volume: {}, stop: [{stop}] }} }}", quoted(key));
        let about = vec![stops(&writers, &targets)];
        let name = name_for(&writers, key, proposed);
        proposed.services.push(Found { name, about, source, made_of: owned(&writers), after: Vec::new() });
    }
    for nameless in &stack.held.nameless {
        without_a_name(stack, nameless, taken, proposed);
    }
}

fn without_a_name(stack: &Stack, nameless: &Nameless, taken: &BTreeSet<&str>, proposed: &mut Proposed) {
    let at = &nameless.at;
    let is_server = || stack.held.services.get(&at.service).is_some_and(|holder| holder.server.is_some());
    let of_its_own = at.data_of.is_some() && (taken.contains(at.service.as_str()) || !is_declared(stack, nameless));
    // What the image of a server sets apart beside its data is no data.
    if !at.writes || of_its_own || is_server() && !is_declared(stack, nameless) {
        return;
    }
    let last = at.target.rsplit('/').next().unwrap_or_default();
    // One that only the image asks for is nothing that the Compose files could leave out.
    if is_cache(last, &[]) && is_declared(stack, nameless) {
        let name = format!("{}:{}", at.service, at.target);
        proposed.left_out.push(LeftOut::new("volume", &name, "a cache by its name"));
        return;
    }
    let source =
        format!("{{ volume: {{ container: {0}, path: {1}, stop: [{0}] }} }}", quoted(&at.service), quoted(&at.target));
    let writers = BTreeSet::from([at.service.as_str()]);
    let about = vec![format!(
        "{} in the container: a volume without a name, which a container that is made anew does not find again.",
        at.target
    )];
    let name = name_for(&writers, last, proposed);
    proposed.services.push(Found { name, about, source, made_of: owned(&writers), after: Vec::new() });
}

/// A volume that the stack mounts and never writes to.
fn only_read(volume: &HeldVolume, key: &str, proposed: &mut Proposed) {
    let readers = volume.uses.iter().map(|it| it.service.as_str()).collect::<BTreeSet<_>>();
    let readers = readers.into_iter().collect::<Vec<_>>().join(", ");
    if volume.external {
        proposed.questions.push(format!(
            "the volume {key}: who writes it? {readers} only reads it, and it belongs to another project. Take it there, or here \
             with `volume: {}`.",
            volume.name
        ));
    } else {
        let because = format!("{readers} only reads it, and nothing in this stack writes it");
        proposed.left_out.push(LeftOut::new("volume", key, because));
    }
}

/// The files that Compose reads, and the folders that it builds from.
fn read_by_compose(stack: &Stack, proposed: &mut Proposed) {
    for file in &stack.held.files {
        let known = proposed.covered.iter().any(|folder| file.path.starts_with(folder));
        if known || of_the_machine(&file.path).is_some() {
            continue;
        }
        if stack.seen.contains_key(&file.path) {
            proposed.configuration.insert(stack.named(&file.path));
        } else if !file.optional {
            let what = file.read_as.iter().next().map_or("file", |read_as| read_as.as_str());
            proposed.questions.push(format!(
                "{}: where is this {what}? Compose reads it, and it is not there.",
                stack.named(&file.path).display()
            ));
        }
    }
    for build in &stack.held.builds {
        if stack.seen.contains_key(&build.context) {
            proposed.configuration.insert(stack.named(&build.context));
        }
    }
}

/// From Compose's `depends_on`: servers come back before those that need them. Files come before every container, so they
/// wait for none.
fn order(stack: &Stack, taken: &BTreeSet<&str>, services: &mut [Found]) {
    let is_server = |found: &&Found| found.made_of.iter().all(|part| taken.contains(part.as_str()));
    let owners: BTreeMap<String, String> = services
        .iter()
        .filter(is_server)
        .filter(|found| !found.source.starts_with("{ files:") && !found.source.starts_with("{ volume:"))
        .flat_map(|found| found.made_of.iter().map(|part| (part.clone(), found.name.clone())))
        .collect();
    for found in services.iter_mut().filter(|found| !found.source.starts_with("{ files:")) {
        let needs = found.made_of.iter().flat_map(|part| stack.depends_on(part));
        let after: BTreeSet<String> =
            needs.filter_map(|name| owners.get(&name)).filter(|name| **name != found.name).cloned().collect();
        found.after = after.into_iter().collect();
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

fn owned(names: &BTreeSet<&str>) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn stops(writers: &BTreeSet<&str>, targets: &[&str]) -> String {
    let targets: BTreeSet<&str> = targets.iter().copied().collect();
    let targets: Vec<&str> = targets.into_iter().collect();
    format!(
        "{} in the container. {} while its volume is read, and started again.",
        targets.join(", "),
        are_stopped(writers)
    )
}

fn are_stopped(writers: &BTreeSet<&str>) -> String {
    let names: Vec<&str> = writers.iter().copied().collect();
    match names.as_slice() {
        [] => "Nobody is stopped".to_owned(),
        [one] => format!("{one} is stopped"),
        [all @ .., last] => format!("{} and {last} are stopped", all.join(", ")),
    }
}

/// The service's own name for what it alone writes, and the data's for what several do.
fn name_for(writers: &BTreeSet<&str>, short: &str, proposed: &Proposed) -> String {
    let free = |name: &str| !proposed.services.iter().any(|found| name_of(&found.name, "") == name_of(name, ""));
    let mut names = writers.iter();
    match (names.next(), names.next()) {
        (Some(one), None) if free(one) => (*one).to_owned(),
        (Some(one), None) if short.starts_with(one) => short.to_owned(),
        (Some(one), None) => format!("{one}-{short}"),
        _ => short.to_owned(),
    }
}
