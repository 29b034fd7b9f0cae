//! From what a stack holds to the services of devstack.yaml. Pure: what lies where was looked at before.
//!
//! Each thing is taken once. A server's data is taken through the server. What else is mounted is grouped by who writes it:
//! folders of the machine with the same writers are one source, and a volume is one source whose writers all stop together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::compose::{Found, Stack};
use super::password::Asked;
use super::server::{self, Made, Node};
use super::vault::{self, VaultFound};
use super::{name_of, quoted};
use crate::model::holdings::{Backing, Bind, HeldVolume, Use, of_the_machine, writers};
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
    /// What is not taken, with the reason.
    pub left_out: Vec<String>,
    /// Folders of the machine whose content is taken already, or is a server's own.
    pub covered: Vec<PathBuf>,
}

/// What lies at a path of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    File,
    Folder,
    /// A folder of which not everything can be read by who runs this.
    Closed,
}

pub fn propose(stack: &Stack) -> Proposed {
    let mut proposed = Proposed::default();
    let taken = servers(stack, &mut proposed);
    volumes(stack, &taken, &mut proposed);
    binds(stack, &taken, &mut proposed);
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
        if let (None, Kind::Untried(kind)) = (holder.server, of_name(image)) {
            untried(name, kind, stack, proposed);
        }
        let Some(server) = holder.server else { continue };
        let made = match server {
            Server::Vault => {
                vaults.push((name.as_str(), resolved));
                taken.insert(name.as_str());
                None
            }
            Server::Redis if !keeps(stack, name) => {
                proposed.left_out.push(format!("{name}: this Redis keeps nothing in a volume, so it is a cache."));
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

fn untried(name: &str, kind: &str, stack: &Stack, proposed: &mut Proposed) {
    if !keeps(stack, name) {
        return;
    }
    if kind == "Dragonfly" {
        proposed.questions.push(format!(
            "{name}: does this Dragonfly write a snapshot when it is stopped (--dbfilename)? Its files are taken then, and \
             hold nothing else."
        ));
    }
}

/// Whether a service has a volume or a folder of the machine that it writes to.
fn keeps(stack: &Stack, service: &str) -> bool {
    let held = &stack.held;
    let volumes = held.volumes.iter().filter(|volume| volume.backing != Backing::Memory).flat_map(|volume| &volume.uses);
    let all = volumes.chain(held.binds.iter().flat_map(|bind| &bind.uses)).chain(held.nameless.iter().map(|it| &it.at));
    let mut own = all.filter(|it| it.service == service && it.writes);
    own.any(|it| it.data_of.is_some() || stack.held.services[service].server.is_none())
}

fn is_covered(uses: &[Use], taken: &BTreeSet<&str>) -> bool {
    uses.iter().any(|it| it.data_of.is_some() && taken.contains(it.service.as_str()))
}

/// What is made again by itself: nobody misses it. By the last words of its name and of every place where it is mounted.
fn is_cache(names: &[&str]) -> bool {
    const CACHES: [&str; 12] =
        ["cache", "caches", ".cache", "tmp", "temp", "transcode", "transcodes", "transcoding", "node_modules", "vendor", "sockets", "run"];
    let word = |name: &&str| {
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        CACHES.iter().any(|cache| last == *cache || last.ends_with(&format!("-{cache}")) || last.ends_with(&format!("_{cache}")))
    };
    names.iter().any(word)
}

fn volumes(stack: &Stack, taken: &BTreeSet<&str>, proposed: &mut Proposed) {
    for volume in &stack.held.volumes {
        let key = volume.key.as_deref().unwrap_or(&volume.name);
        if is_covered(&volume.uses, taken) {
            continue;
        }
        let targets: Vec<&str> = volume.uses.iter().map(|it| it.target.as_str()).collect();
        let reason = match &volume.backing {
            _ if volume.uses.is_empty() => Some("no service mounts it"),
            Backing::Memory => Some("it lies in memory"),
            Backing::Folder(path) => of_the_machine(path),
            Backing::Local | Backing::Remote(_) if is_cache(&[&[key], &*targets].concat()) => Some("a cache by its name"),
            Backing::Local | Backing::Remote(_) => None,
        };
        if let Some(reason) = reason {
            proposed.left_out.push(format!("the volume {key}: {reason}."));
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
        let at = &nameless.at;
        if !at.writes || is_covered(std::slice::from_ref(at), taken) {
            continue;
        }
        if is_cache(&[&at.target]) {
            proposed.left_out.push(format!("the volume without a name at {} in {}: a cache by its name.", at.target, at.service));
            continue;
        }
        let source = format!(
            "{{ volume: {{ container: {0}, path: {1}, stop: [{0}] }} }}",
            quoted(&at.service),
            quoted(&at.target)
        );
        let writers = BTreeSet::from([at.service.as_str()]);
        let about = vec![format!(
            "{} in the container: a volume without a name, which a container that is made anew does not find again.",
            at.target
        )];
        let last = at.target.rsplit('/').next().unwrap_or_default();
        let name = name_for(&writers, last, proposed);
        proposed.services.push(Found { name, about, source, made_of: owned(&writers), after: Vec::new() });
    }
}

/// A volume that the stack mounts and never writes to.
fn only_read(volume: &HeldVolume, key: &str, proposed: &mut Proposed) {
    let readers = volume.uses.iter().map(|it| it.service.as_str()).collect::<BTreeSet<_>>();
    let readers = readers.into_iter().collect::<Vec<_>>().join(", ");
    if volume.external {
        proposed.questions.push(format!(
            "the volume {key}: who writes it? {readers} only reads it, and it belongs to another project; take it there, or here \
             with `volume: {}`.",
            volume.name
        ));
    } else {
        proposed.left_out.push(format!("the volume {key}: {readers} only reads it, and nothing in this stack writes it."));
    }
}

/// Where a folder is mounted that a program only reads its settings from, though it is not mounted read-only.
fn is_settings(target: &str) -> bool {
    const SETTINGS: [&str; 20] = [
        "/docker-entrypoint-initdb.d", "/etc/nginx", "/etc/apache2", "/etc/httpd", "/etc/caddy", "/etc/traefik", "/etc/haproxy",
        "/etc/prometheus", "/etc/alertmanager", "/etc/grafana", "/etc/loki", "/etc/promtail", "/etc/mysql", "/etc/postgresql",
        "/etc/redis", "/etc/rabbitmq", "/usr/local/etc", "/usr/share/nginx", "/vault/config", "/mosquitto/config",
    ];
    SETTINGS.iter().any(|folder| Path::new(target).starts_with(folder))
}

/// One file, as far as it can be told: by what is there, or by its name.
fn is_file(bind: &Bind, stack: &Stack) -> bool {
    match stack.seen.get(&bind.path) {
        Some(Seen::File) => true,
        Some(Seen::Folder | Seen::Closed) => false,
        None => {
            let ending = |path: &Path| path.extension().is_some_and(|ending| ending != "d" && ending.len() <= 5);
            ending(&bind.path) && bind.uses.iter().all(|it| ending(Path::new(&it.target)))
        }
    }
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["db", "sqlite", "sqlite3", "db3"].iter().any(|it| ending == *it))
}

/// Folders with the same writers, and where each stands in a container.
struct Group<'a> {
    writers: BTreeSet<&'a str>,
    binds: Vec<&'a Bind>,
}

fn binds(stack: &Stack, taken: &BTreeSet<&str>, proposed: &mut Proposed) {
    let mut data: Vec<(&Bind, BTreeSet<&str>)> = Vec::new();
    for bind in &stack.held.binds {
        if of_the_machine(&bind.path).is_some() {
            continue;
        }
        if is_covered(&bind.uses, taken) {
            proposed.covered.push(bind.path.clone());
            continue;
        }
        let targets: Vec<&str> = bind.uses.iter().map(|it| it.target.as_str()).collect();
        let writers = writers(&bind.uses);
        let settings = bind.uses.iter().filter(|it| it.writes).all(|it| is_settings(&it.target));
        let file = is_file(bind, stack) && !is_database(&bind.path);
        if file || settings && (!writers.is_empty() || bind.path.starts_with(&stack.base)) {
            // A Compose file, or a secret, is known as what Compose reads.
            proposed.configuration.insert(stack.named(&bind.path));
        } else if !writers.is_empty() {
            let path = bind.path.to_string_lossy();
            if is_cache(&[&[&*path], &*targets].concat()) {
                proposed.left_out.push(format!("{}: a cache by its name.", stack.named(&bind.path).display()));
                proposed.covered.push(bind.path.clone());
            } else {
                data.push((bind, writers));
            }
        } else if is_settings_for_reading(bind, stack) {
            proposed.configuration.insert(stack.named(&bind.path));
        } else {
            let readers = bind.uses.iter().map(|it| it.service.as_str()).collect::<BTreeSet<_>>();
            proposed.questions.push(format!(
                "{}: shall it be taken? {} only reads it, and it lies outside of this folder; take it with `files: {{ paths: [{}] }}`.",
                bind.path.display(),
                readers.into_iter().collect::<Vec<_>>().join(", "),
                quoted(&bind.path.to_string_lossy())
            ));
        }
    }
    for group in grouped(data) {
        folders(stack, taken, &group, proposed);
    }
}

/// What is only read and lies below the folder of the stack, or among the settings of the machine.
fn is_settings_for_reading(bind: &Bind, stack: &Stack) -> bool {
    let below = bind.path.starts_with(&stack.base);
    below || bind.path.starts_with("/etc") || bind.uses.iter().all(|it| is_settings(&it.target))
}

/// A folder within another is part of it, and whoever writes to it writes to the other.
fn grouped<'a>(mut data: Vec<(&'a Bind, BTreeSet<&'a str>)>) -> Vec<Group<'a>> {
    data.sort_by_key(|(bind, _)| bind.path.clone());
    let mut outer: Vec<(&Bind, BTreeSet<&str>)> = Vec::new();
    for (bind, writers) in data {
        match outer.iter_mut().find(|(known, _)| bind.path.starts_with(&known.path)) {
            Some((_, known)) => known.extend(writers),
            None => outer.push((bind, writers)),
        }
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (bind, writers) in outer {
        match groups.iter_mut().find(|group| group.writers == writers) {
            Some(group) => group.binds.push(bind),
            None => groups.push(Group { writers, binds: vec![bind] }),
        }
    }
    groups
}

/// One group's sources: one of files, and one through Docker for each folder that only root may read.
fn folders(stack: &Stack, taken: &BTreeSet<&str>, group: &Group<'_>, proposed: &mut Proposed) {
    // A server whose data is taken by itself writes dumps and logs beside it: nobody stops a database for those.
    let stop: BTreeSet<&str> = group.writers.iter().copied().filter(|writer| !taken.contains(writer)).collect();
    let closed = |bind: &&&Bind| stack.seen.get(&bind.path) == Some(&Seen::Closed);
    let open: Vec<&Bind> = group.binds.iter().filter(|bind| !closed(bind)).copied().collect();
    if !open.is_empty() {
        let paths = list(open.iter().map(|bind| stack.named(&bind.path)).collect::<Vec<_>>().iter().map(|it| it.to_str().unwrap_or_default()));
        let stopped = if stop.is_empty() { String::new() } else { format!(", stop: [{}]", list(stop.iter().copied())) };
        let source = format!("{{ files: {{ paths: [{paths}]{stopped} }} }}");
        let about = if stop.is_empty() {
            vec!["Read while the server runs, file by file.".to_owned()]
        } else {
            vec![format!("{} while its folders are read, and started again.", are_stopped(&stop))]
        };
        let short = last_name(open[0]);
        let name = name_for(&group.writers, &short, proposed);
        proposed.services.push(Found { name, about, source, made_of: owned(&group.writers), after: Vec::new() });
    }
    for bind in group.binds.iter().filter(closed) {
        let Some(at) = bind.uses.iter().find(|it| it.writes) else { continue };
        let stopped = if stop.is_empty() { String::new() } else { format!(", stop: [{}]", list(stop.iter().copied())) };
        let source =
            format!("{{ volume: {{ container: {}, path: {}{stopped} }} }}", quoted(&at.service), quoted(&at.target));
        let about = vec![format!(
            "{} is not for you to read, so it is read through Docker. {} meanwhile.",
            stack.named(&bind.path).display(),
            are_stopped(&stop)
        )];
        let name = name_for(&group.writers, &last_name(bind), proposed);
        proposed.services.push(Found { name, about, source, made_of: owned(&group.writers), after: Vec::new() });
    }
    proposed.covered.extend(group.binds.iter().map(|bind| bind.path.clone()));
}

fn last_name(bind: &Bind) -> String {
    bind.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
    format!("{} in the container. {} while its volume is read, and started again.", targets.join(", "), are_stopped(writers))
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
