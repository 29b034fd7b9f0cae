//! What the stack holds against what the file takes: each thing is taken, left out by a word with its reason, or unprotected.
//! What holds no data (memory, sockets, the machine's own) is none of them.

mod left_out;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::left_out::LeavesOut;
use self::paths::Place;
use super::Planner;
use crate::model::holdings::{Backing, HeldVolume, Holder, Holdings, Use, of_the_machine, writers};
use crate::model::ids::ServiceName;
use crate::model::image::Server;
use crate::model::observation::{Observed, SeenStack};
use crate::model::plan::Note;
use crate::model::run::Manifest;
use crate::spec::file::{Services, Source, Spec, VolumeSource, variable_files};
use crate::spec::paths::resolve;

/// What the comparison came to. Each thing stands in one of the lists, once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    pub taken: Vec<Note>,
    /// With the reasons that the file gives.
    pub left_out: Vec<Note>,
    pub unprotected: Vec<Note>,
    /// Entries of `leave_out`, by their numbers, that name nothing which the stack has.
    pub stale: Vec<(usize, String)>,
}

/// What becomes of one thing.
enum Fate {
    Taken(String),
    LeftOut(String),
    /// With what it is, and what to do.
    Unprotected(String),
    NoData,
}

/// How much of a place a source takes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    Whole,
    Part(String),
}

/// The comparison. What could not be looked into is unprotected: nobody knows what is there.
pub fn coverage(spec: &Spec, seen: &SeenStack) -> Coverage {
    let weighing = Weighing::of(spec, seen);
    let mut coverage = Coverage::default();
    let mut told = |resource: String, fate: Fate| match fate {
        Fate::Taken(by) => coverage.taken.push(Note::new(resource, by)),
        Fate::LeftOut(because) => coverage.left_out.push(Note::new(resource, because)),
        Fate::Unprotected(text) => coverage.unprotected.push(Note::new(resource, text)),
        Fate::NoData => {}
    };
    let held = &seen.held;
    for (name, holder) in &held.services {
        if let Some(server) = holder.server {
            told(format!("server {name}"), weighing.server(name, holder, server));
        }
    }
    for volume in &held.volumes {
        told(format!("volume {}", called(volume)), weighing.volume(volume));
    }
    for nameless in held.nameless.iter().filter(|it| !it.volumes.is_empty() && !it.empty) {
        let at = &nameless.at;
        told(format!("volume {}:{}", at.service, at.target), weighing.nameless(at));
    }
    for bind in &held.binds {
        told(format!("bind {}", weighing.shown(&bind.path)), weighing.bind(&bind.path, &bind.uses));
    }
    let bound: BTreeSet<&Path> = held.binds.iter().map(|bind| bind.path.as_path()).collect();
    for file in held.files.iter().filter(|file| !bound.contains(file.path.as_path())) {
        let read_as = file.read_as.iter().next_back().map_or("file", |read_as| read_as.as_str());
        told(format!("{read_as} {}", weighing.shown(&file.path)), weighing.file(&file.path, read_as, &file.services));
    }
    for build in &held.builds {
        told(format!("build {}", weighing.shown(&build.context)), weighing.build(&build.context, &build.services));
    }
    for (name, text) in weighing.unmade() {
        told(format!("service {name}"), Fate::Unprotected(text));
    }
    for reason in &held.unread {
        told("the stack".to_owned(), Fate::Unprotected(format!("not all that it holds could be seen: {reason}")));
    }
    coverage.stale = weighing.left_out.stale(held);
    coverage
}

/// The same, where the stack could not be looked at, or is none.
pub fn coverage_of(spec: &Spec, seen: Option<&Observed<SeenStack>>) -> Coverage {
    match seen {
        Some(Observed::Known(seen)) => coverage(spec, seen),
        Some(Observed::Unknown { reason }) => {
            let text = format!("what it holds was not compared with devstack.yaml: {reason}");
            Coverage { unprotected: vec![Note::new("the stack", text)], ..Coverage::default() }
        }
        None => {
            let text = "no Compose file and no container says what the stack holds, so nothing can be left out: remove the entry";
            let stale = (0..spec.leave_out.len()).map(|index| (index, text.to_owned()));
            Coverage { stale: stale.collect(), ..Coverage::default() }
        }
    }
}

impl Planner<'_> {
    pub(super) fn report_coverage(&mut self) {
        let coverage = coverage_of(self.spec, self.observation.stack.as_ref());
        let stale = coverage.stale.into_iter();
        self.report.drift.extend(stale.map(|(index, text)| Note::new(format!("leave_out[{index}]"), text)));
        self.report.unprotected.extend(coverage.unprotected);
        let blank = self.blank();
        self.report.unprotected.extend(blank);
        self.report.left_out.extend(coverage.left_out);
    }
}

impl Planner<'_> {
    /// The variables that nobody has set any more: what is made anew here would be made with nothing in their place.
    fn blank(&self) -> Vec<Note> {
        let Some(Observed::Known(seen)) = &self.observation.stack else { return Vec::new() };
        let runs = self.observation.present().flat_map(|(_, facts)| &facts.runs).map(|run| &run.manifest);
        let asked = runs.filter_map(|run| Some((run, run.compose.as_ref()?.unset.as_ref()?)));
        let asked: Vec<_> = asked.collect();
        let blank = seen.held.unset.iter().filter_map(|name| {
            let set = asked.iter().filter(|(_, unset)| !unset.contains(name)).map(|(run, _)| run);
            let (run, _) = set.map(|run| (run, run.started)).max_by_key(|(_, started)| *started)?;
            let text = format!(
                "it is not set here, and was when run {} was taken: Compose would make containers with nothing in its place. Set it, or \
                 write `${{{name}:-}}` in the Compose file where it may be empty",
                run.run
            );
            Some(Note::new(format!("variable {name}"), text))
        });
        blank.collect()
    }

    /// What a recovery from these runs does not bring back: by their own manifests, where nobody can look at the stack, or the file
    /// has changed since. One of chosen services says nothing of the others.
    pub(super) fn report_missed<'r>(&mut self, manifests: impl Iterator<Item = &'r Manifest>, is_whole: bool) {
        let known = manifests.filter_map(|manifest| Some((manifest.started, manifest.unprotected.as_ref()?)));
        let then = known.max_by_key(|(started, _)| *started).map(|(_, notes)| notes.as_slice());
        let report = &mut self.report;
        if !is_whole {
            report.unprotected.clear();
            report.left_out.clear();
            return;
        }
        let Some(then) = then else { return };
        if !matches!(self.observation.stack, Some(Observed::Known(_))) {
            report.unprotected.clear();
        }
        for note in then {
            if report.unprotected.iter().all(|known| known.resource != note.resource) {
                report.unprotected.push(note.clone());
            }
        }
    }
}

/// A service of the file and what it takes.
struct Taking<'a> {
    name: &'a ServiceName,
    source: &'a Source,
    /// A policy names it.
    is_backed_up: bool,
}

struct Weighing<'a> {
    held: &'a Holdings,
    base: &'a Path,
    home: Option<&'a Path>,
    /// The machine on which what is bound lies, where it is another one.
    elsewhere: Option<&'a str>,
    taking: Vec<Taking<'a>>,
    left_out: LeavesOut<'a>,
    /// The files that every run keeps beside its manifest.
    kept: BTreeSet<PathBuf>,
    /// devstack's own.
    stores: Vec<PathBuf>,
}

impl<'a> Weighing<'a> {
    fn of(spec: &'a Spec, seen: &'a SeenStack) -> Self {
        let (base, home) = (seen.base.as_path(), seen.home.as_deref());
        let named = |name: &ServiceName| {
            spec.backup.values().any(|policy| match &policy.services {
                Services::All => true,
                Services::Named(names) => names.contains(name),
            })
        };
        let taking = spec.services.iter();
        let taking = taking.map(|(name, it)| Taking { name, source: &it.source, is_backed_up: named(name) });
        let docker = spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref());
        let compose = docker.into_iter().filter(|docker| !docker.compose.is_empty()).flat_map(|docker| {
            let own = docker.compose.iter().map(|file| resolve(base, home, file));
            own.chain(variable_files(Some(docker), base, home).concat())
        });
        Self {
            held: &seen.held,
            base,
            home,
            elsewhere: seen.elsewhere.as_deref(),
            taking: taking.collect(),
            left_out: LeavesOut::of(spec, seen),
            kept: compose.filter(|_| spec.backup.values().next().is_some()).collect(),
            stores: spec.repositories.values().map(|it| resolve(base, home, &it.path)).collect(),
        }
    }

    /// As it is shown: from the folder of devstack.yaml, where it lies in there.
    fn shown(&self, path: &Path) -> String {
        match path.strip_prefix(self.base) {
            Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
            Ok(below) => format!("./{}", below.display()),
            Err(_) => path.display().to_string(),
        }
    }

    /// A database server, with all volumes and folders that it keeps its data in.
    fn server(&self, name: &str, holder: &Holder, server: Server) -> Fate {
        let by_engine = self.taking.iter().filter(|it| {
            let is_server = it.source.needs_docker() && !matches!(it.source, Source::Volume(_));
            is_server && it.source.containers().iter().any(|container| self.held.service(container) == Some(name))
        });
        let places = self.places_of(name);
        let raw: Vec<(&Taking<'_>, Reach)> = places.iter().flat_map(|place| self.reaching(place)).collect();
        let is_stopped = |it: &&(&Taking<'_>, Reach)| {
            it.0.source.stops().iter().any(|stopped| self.held.service(stopped) == Some(name))
        };
        let whole = raw.iter().filter(is_stopped).filter(|(_, reach)| *reach == Reach::Whole).map(|(it, _)| *it);
        if let Some(fate) = taken(by_engine.chain(whole)) {
            return self.unless_left_out(fate, || self.left_out.service(name));
        }
        if let Some(because) = self.left_out.service(name).or_else(|| self.all_left_out(&places)) {
            return Fate::LeftOut(because);
        }
        let title = server.title();
        if let Some((live, _)) = raw.first() {
            return Fate::Unprotected(format!(
                "{} copies the files of this {title} server while it writes, which is no backup: add {name} to its `stop`, or take the \
                 server by {}",
                live.name,
                advised(server, name)
            ));
        }
        let image = holder.image.as_deref().map_or_else(String::new, |image| format!(" ({image})"));
        Fate::Unprotected(format!(
            "no source takes this {title} server{image}: add {} to `services`, or {LEAVE_OUT}",
            advised(server, name)
        ))
    }

    /// The services of Compose that data is to come back into, and that Compose does not make here.
    fn unmade(&self) -> Vec<(String, String)> {
        let mut unmade: BTreeMap<String, String> = BTreeMap::new();
        for taking in self.taking.iter().filter(|taking| taking.is_backed_up) {
            let lives_in: Vec<&str> = match taking.source {
                Source::Volume(VolumeSource { volume: Some(volume), .. }) => {
                    let uses = self.held.volume(volume).map_or(&[][..], |volume| &volume.uses);
                    let all: Vec<&str> = uses.iter().map(|at| at.service.as_str()).collect();
                    // Any that mounts it makes it.
                    if all.iter().any(|name| self.held.is_made(name)) { Vec::new() } else { all }
                }
                Source::Volume(source) => source.container.iter().filter_map(|it| self.held.service(it)).collect(),
                source => source.containers().into_iter().filter_map(|it| self.held.service(it)).collect(),
            };
            let declared = |name: &&str| self.held.services.get(*name).is_some_and(|holder| holder.declared);
            for name in lives_in.into_iter().filter(declared).filter(|name| !self.held.is_made(name)) {
                let profiles =
                    self.held.services.get(name).map(|holder| holder.profiles.join(", ")).unwrap_or_default();
                unmade.entry(name.to_owned()).or_insert_with(|| {
                    format!(
                        "{} comes back into it, and it is made only with a profile that is not in use ({profiles}), so a recovery would \
                         not find it: add that to `runtime.docker.profiles`",
                        taking.name
                    )
                });
            }
        }
        unmade.into_iter().collect()
    }

    /// Where a server keeps its data, as far as it is mounted.
    fn places_of(&self, server: &str) -> Vec<Place<'a>> {
        let is_its = |uses: &[Use]| uses.iter().any(|it| it.service == server && it.data_of.is_some());
        let volumes = self.held.volumes.iter().filter(|it| is_its(&it.uses)).map(Place::of_volume);
        let binds = self.held.binds.iter().filter(|it| is_its(&it.uses));
        let nameless = self.held.nameless.iter().map(|it| &it.at);
        let nameless = nameless.filter(|at| at.service == server && at.data_of.is_some()).map(Place::of_nameless);
        volumes.chain(binds.map(|bind| Place::of_bind(&bind.path, &bind.uses))).chain(nameless).collect()
    }

    fn all_left_out(&self, places: &[Place<'_>]) -> Option<String> {
        let mut reasons = places.iter().map(|place| self.left_out.place(place));
        let first = reasons.next()??;
        reasons.all(|reason| reason.is_some()).then_some(first)
    }

    fn volume(&self, volume: &'a HeldVolume) -> Fate {
        // What nobody mounts nobody misses; what is a server's is the server's to be told of.
        if volume.backing == Backing::Memory || volume.uses.is_empty() || is_of_a_server(&volume.uses) {
            return Fate::NoData;
        }
        let name = called(volume);
        let stop: Vec<&str> = writers(&volume.uses).into_iter().collect();
        let stop = if stop.is_empty() { String::new() } else { format!(", stop: [{}]", stop.join(", ")) };
        self.mounted(&Place::of_volume(volume), &format!("{{ volume: {{ volume: {name}{stop} }} }}"))
    }

    fn nameless(&self, at: &Use) -> Fate {
        if at.data_of.is_some() {
            return Fate::NoData;
        }
        let Use { service, target, .. } = at;
        let source = format!("{{ volume: {{ container: {service}, path: {target}, stop: [{service}] }} }}");
        self.mounted(&Place::of_nameless(at), &source)
    }

    fn bind(&self, path: &'a Path, uses: &'a [Use]) -> Fate {
        let is_own = self.stores.iter().any(|store| path.starts_with(store));
        if of_the_machine(path).is_some() || is_own || is_of_a_server(uses) {
            return Fate::NoData;
        }
        let stop: Vec<&str> = writers(uses).into_iter().collect();
        let stop = if stop.is_empty() { String::new() } else { format!(", stop: [{}]", stop.join(", ")) };
        let source = match (self.elsewhere, uses.first()) {
            (Some(_), Some(Use { service, target, .. })) => {
                format!("{{ volume: {{ container: {service}, path: {target}{stop} }} }}")
            }
            _ => format!("{{ files: {{ paths: [{}]{stop} }} }}", self.shown(path)),
        };
        self.mounted(&Place::of_bind(path, uses), &source)
    }

    /// What services mount.
    fn mounted(&self, place: &Place<'_>, source: &str) -> Fate {
        let reaching = self.reaching(place);
        let whole = reaching.iter().filter(|(_, reach)| *reach == Reach::Whole).map(|(it, _)| *it);
        if let Some(fate) = taken(whole) {
            return self.unless_left_out(fate, || self.left_out.place(place));
        }
        if let Some(because) = self.left_out.place(place) {
            return Fate::LeftOut(because);
        }
        let mut used = used_by(place.uses);
        if let (Some(engine), Some(_)) = (self.elsewhere, place.path) {
            used = format!("{used} on the machine of the engine {engine}");
        }
        match reaching.first() {
            Some((it, Reach::Part(part))) => Fate::Unprotected(format!(
                "{used}, and {} takes only {part} of it: take the whole by {source}, or {LEAVE_OUT}",
                it.name
            )),
            Some((_, Reach::Whole)) | None => {
                Fate::Unprotected(format!("{used}, and no source takes it: add {source} to `services`, or {LEAVE_OUT}"))
            }
        }
    }

    /// A file that Compose itself reads.
    fn file(&self, path: &Path, read_as: &str, services: &BTreeSet<String>) -> Fate {
        if self.kept.contains(path) {
            return Fate::Taken("every run keeps it".to_owned());
        }
        if of_the_machine(path).is_some() {
            return Fate::NoData;
        }
        let of = match services.is_empty() {
            true => "Compose reads it".to_owned(),
            false => format!("it is the {read_as} of {}", listed(services)),
        };
        self.read(path, services, &of)
    }

    fn build(&self, context: &Path, services: &BTreeSet<String>) -> Fate {
        self.read(context, services, &format!("the image of {} is built from it", listed(services)))
    }

    fn read(&self, path: &Path, services: &BTreeSet<String>, of: &str) -> Fate {
        let place = Place { path: Some(path), volume: None, uses: &[] };
        let reaching = self.reaching(&place);
        let whole = reaching.iter().filter(|(_, reach)| *reach == Reach::Whole).map(|(it, _)| *it);
        let left_out = || self.left_out.path(path).or_else(|| self.left_out.all(services.iter().map(String::as_str)));
        if let Some(fate) = taken(whole) {
            return self.unless_left_out(fate, left_out);
        }
        if let Some(because) = left_out() {
            return Fate::LeftOut(because);
        }
        let part = reaching.iter().find_map(|(it, reach)| match reach {
            Reach::Part(part) => Some(format!("{} takes only {part} of it", it.name)),
            Reach::Whole => None,
        });
        let part = part.unwrap_or_else(|| "no `files` source takes it".to_owned());
        let shown = self.shown(path);
        Fate::Unprotected(format!("{of}, and {part}: add {shown} to the `paths` of one, or {LEAVE_OUT}"))
    }

    /// A service that no policy names takes nothing; what is left out besides need not be taken.
    fn unless_left_out(&self, fate: Fate, left_out: impl FnOnce() -> Option<String>) -> Fate {
        match fate {
            Fate::Unprotected(text) => left_out().map_or(Fate::Unprotected(text), Fate::LeftOut),
            fate => fate,
        }
    }

    /// The services of the file that take this place, or a part of it; whole ones first.
    fn reaching(&self, place: &Place<'_>) -> Vec<(&Taking<'a>, Reach)> {
        let mut reaching: Vec<(&Taking<'a>, Reach)> = Vec::new();
        for taking in &self.taking {
            let reach = match taking.source {
                Source::Volume(source) => self.volume_reach(source, place),
                // What a container binds on another machine is not the path of that name here.
                _ if self.elsewhere.is_some() && !place.uses.is_empty() => None,
                source => place.path.and_then(|path| paths::reach(source, (self.base, self.home), path)),
            };
            reaching.extend(reach.map(|reach| (taking, reach)));
        }
        reaching.sort_by_key(|(taking, reach)| (*reach != Reach::Whole, !taking.is_backed_up));
        reaching
    }

    fn volume_reach(&self, source: &VolumeSource, place: &Place<'_>) -> Option<Reach> {
        match (&source.volume, &source.container, &source.path) {
            (Some(name), _, _) => {
                let named = self.held.volume(name)?;
                place.volume.is_some_and(|volume| std::ptr::eq(volume, named)).then_some(Reach::Whole)
            }
            (None, Some(container), Some(path)) => {
                let service = self.held.service(container)?;
                let mut uses = place.uses.iter().filter(|it| it.service == service);
                uses.find_map(|it| {
                    let (target, path) = (Path::new(&it.target), Path::new(path));
                    match path.strip_prefix(target) {
                        Ok(below) if below.as_os_str().is_empty() => Some(Reach::Whole),
                        Ok(below) => Some(Reach::Part(below.display().to_string())),
                        Err(_) => None,
                    }
                })
            }
            (None, _, _) => None,
        }
    }
}

const LEAVE_OUT: &str = "name it under `leave_out` with a reason";

/// What the first of these that a policy names comes to, or the first of all. None where there is none.
fn taken<'t>(takings: impl Iterator<Item = &'t Taking<'t>>) -> Option<Fate> {
    let mut unnamed = None;
    for taking in takings {
        if taking.is_backed_up {
            return Some(Fate::Taken(format!("taken by {}", taking.name)));
        }
        unnamed = unnamed.or(Some(taking.name));
    }
    let name = unnamed?;
    Some(Fate::Unprotected(format!("{name} would take it, and no policy under `backup` names {name}: add it to one")))
}

/// All that is written there is a server's data; others may look into it.
fn is_of_a_server(uses: &[Use]) -> bool {
    let Some(server) = uses.iter().find_map(|it| it.data_of) else { return false };
    uses.iter().all(|it| it.data_of.is_some() || !it.writes || server.keeps_data_at(&it.target))
}

/// As the Compose files call it, where they do.
fn called(volume: &HeldVolume) -> &str {
    volume.key.as_deref().unwrap_or(&volume.name)
}

fn used_by(uses: &[Use]) -> String {
    let all: BTreeSet<&str> = uses.iter().map(|it| it.service.as_str()).collect();
    let writing = writers(uses);
    match writing.is_empty() {
        true => format!("{} {} it", listed(&all), if all.len() == 1 { "reads" } else { "read" }),
        false => format!("{} {} to it", listed(&writing), if writing.len() == 1 { "writes" } else { "write" }),
    }
}

/// More than these nobody reads in one line.
const NAMED: usize = 3;

fn listed<S: AsRef<str>>(names: &BTreeSet<S>) -> String {
    crate::model::listed(&names.iter().collect::<Vec<_>>(), NAMED)
}

/// The source that takes a server.
fn advised(server: Server, name: &str) -> String {
    match server {
        Server::Redis => format!("{{ redis: {{ containers: [{name}] }} }}"),
        _ => format!("{{ {}: {{ container: {name} }} }}", server.engine()),
    }
}
