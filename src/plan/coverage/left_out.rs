//! What the file leaves out by a word, and whether the stack has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::paths::Place;
use crate::model::holdings::{Backing, HeldVolume, Holdings, Use};
use crate::model::observation::SeenStack;
use crate::spec::file::{LeftOut, Spec};
use crate::spec::paths::resolve;

pub(super) struct LeavesOut<'a> {
    held: &'a Holdings,
    entries: &'a [LeftOut],
    /// Paths and build contexts, absolute, with the reasons.
    paths: Vec<(PathBuf, &'a str)>,
    /// Services of Compose.
    services: BTreeMap<&'a str, &'a str>,
    base: &'a Path,
    home: Option<&'a Path>,
}

impl<'a> LeavesOut<'a> {
    pub fn of(spec: &'a Spec, seen: &'a SeenStack) -> Self {
        let (base, home) = (seen.base.as_path(), seen.home.as_deref());
        let entries = spec.leave_out.as_slice();
        let paths = entries.iter().flat_map(|entry| {
            let both = entry.path.iter().chain(&entry.build);
            both.map(|path| (resolve(base, home, path), entry.because.as_str()))
        });
        let services = entries
            .iter()
            .filter_map(|entry| Some((seen.held.service(entry.service.as_deref()?)?, entry.because.as_str())));
        Self { held: &seen.held, entries, paths: paths.collect(), services: services.collect(), base, home }
    }

    pub fn service(&self, name: &str) -> Option<String> {
        self.services.get(name).map(|because| (*because).to_owned())
    }

    /// Where every one of them is left out.
    pub fn all<'n>(&self, mut services: impl Iterator<Item = &'n str>) -> Option<String> {
        let first = self.service(services.next()?)?;
        services.all(|name| self.services.contains_key(name)).then_some(first)
    }

    pub fn path(&self, path: &Path) -> Option<String> {
        let found = self.paths.iter().find(|(outer, _)| path.starts_with(outer));
        found.map(|(_, because)| (*because).to_owned())
    }

    /// By its own name, by its path, or since nobody else uses it than services that are left out.
    pub fn place(&self, place: &Place<'_>) -> Option<String> {
        let named = self.entries.iter().find(|entry| {
            entry.volume.as_deref().is_some_and(|name| match place.volume {
                Some(volume) => self.held.volume(name).is_some_and(|named| std::ptr::eq(named, volume)),
                None => place.path.is_none() && place.uses.iter().any(|at| is_nameless(at, name)),
            })
        });
        let by_path = || place.path.and_then(|path| self.path(path));
        let named = named.map(|entry| entry.because.clone());
        named.or_else(by_path).or_else(|| self.all(place.uses.iter().map(|at| at.service.as_str())))
    }

    /// The entries that name nothing which the stack has, by their numbers.
    pub fn stale(&self, held: &Holdings) -> Vec<(usize, String)> {
        let stale = self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let (key, name) = entry.named().into_iter().next()?;
            let what = match key {
                "volume" if held.volume(&name).is_some() => return None,
                "volume" if held.nameless.iter().any(|it| is_nameless(&it.at, &name)) => return None,
                "volume" => "volume",
                "service" if held.service(&name).is_some() => return None,
                "service" => "service",
                "network" if held.networks.iter().any(|it| it.key == name || it.name == name) => return None,
                "network" => "external network",
                "build" if self.is_built(&resolve(self.base, self.home, Path::new(&name))) => return None,
                "build" => "build context",
                _ if self.is_known(&resolve(self.base, self.home, Path::new(&name))) => return None,
                _ => "mounted or read path",
            };
            Some((index, format!("the stack has no {what} {name}: correct the name, or remove the entry")))
        });
        stale.collect()
    }

    fn is_built(&self, path: &Path) -> bool {
        self.held.builds.iter().any(|build| build.context.starts_with(path))
    }

    /// It lies in something that the stack holds, or around it.
    fn is_known(&self, path: &Path) -> bool {
        let folder = |volume: &'a HeldVolume| match &volume.backing {
            Backing::Folder(path) => Some(path.as_path()),
            Backing::Local | Backing::Memory | Backing::Remote(_) => None,
        };
        let volumes = self.held.volumes.iter().filter_map(folder);
        let binds = self.held.binds.iter().map(|bind| bind.path.as_path());
        let files = self.held.files.iter().map(|file| file.path.as_path());
        let builds = self.held.builds.iter().map(|build| build.context.as_path());
        let mut all = volumes.chain(binds).chain(files).chain(builds);
        all.any(|held| held.starts_with(path) || path.starts_with(held))
    }
}

/// A volume without a name is called by who mounts it, and where.
fn is_nameless(at: &Use, name: &str) -> bool {
    name.split_once(':').is_some_and(|(service, target)| {
        service == at.service && target.trim_end_matches('/') == at.target.trim_end_matches('/')
    })
}
