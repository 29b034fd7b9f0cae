//! The world as it is: sources and repositories, each looked at side by side. What can't be seen is Unknown with its
//! reason and hides nothing else. Looking changes nothing and takes no lock.

mod room;
mod stack;
mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::Timestamp;

pub use room::room;
pub use stack::{stack, stack_by_its_files};
pub use stores::{StoreError, Stores};

use crate::engines::{self, Ground};
use crate::model::history::History;
use crate::model::ids::{RepositoryName, ServiceName, StackName};
use crate::model::observation::{ContainerState, Observation, Observed, RepositoryState, SourceState};
use crate::model::units::Span;
use crate::repository::Presence;
use crate::spec::file::{Key, Source, Spec};

/// Looks at every declared repository at once, and at every service for which `concerns` holds. Opening a repository
/// derives a key for some 0.4 s, so they are opened side by side, and each only once per command: `stores` keeps them.
pub fn observe(
    spec: &Spec,
    ground: &Ground,
    stores: &Stores,
    history: &History,
    now: Timestamp,
    concerns: &dyn Fn(&ServiceName) -> bool,
) -> Observation {
    let since = Instant::now();
    let (engine, services, holding, containers, certificates, repositories, idle_excludes) =
        std::thread::scope(|scope| {
            let concerned = || spec.services.iter().filter(|(name, _)| concerns(name));
            let services: Vec<_> = concerned()
                .map(|(name, service)| {
                    (name.clone(), scope.spawn(|| engines::for_source(&service.source, ground).observe()))
                })
                .collect();
            let holding: Vec<_> = concerned()
                .map(|(name, service)| {
                    (name.clone(), scope.spawn(|| engines::for_source(&service.source, ground).holding()))
                })
                .collect();
            let containers: Vec<_> = concerned()
                .filter(|(_, service)| !service.source.containers().is_empty())
                .map(|(name, service)| (name.clone(), scope.spawn(|| containers_of(&service.source, ground))))
                .collect();
            let certificates: Vec<_> = concerned()
                .filter_map(|(name, service)| match &service.source {
                    Source::Certificates(it) => Some((name, it)),
                    _ => None,
                })
                .map(|(name, it)| (name.clone(), scope.spawn(move || engines::certificates_of(it, ground))))
                .collect();
            let repositories: Vec<_> = spec
                .repositories
                .keys()
                .map(|name| (name.clone(), scope.spawn(|| repository(spec, stores, history, name))))
                .collect();
            let in_containers = spec.services.values().any(|service| service.source.needs_docker());
            let engine = in_containers.then(|| match ground.containers.docker() {
                Ok(docker) => Observed::Known(docker.address().to_owned()),
                Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
            });
            let idle_excludes = concerned()
                .map(|(name, service)| (name.clone(), engines::idle_excludes(&service.source, ground)))
                .filter(|(_, idle)| !idle.is_empty())
                .collect();
            // Of what can't tell, its state says why.
            let holding: BTreeMap<_, _> =
                holding.into_iter().filter_map(|(name, look)| Some((name, look.join().ok()??))).collect();
            let (containers, certificates) = (joined(containers), joined(certificates));
            (engine, joined(services), holding, containers, certificates, joined(repositories), idle_excludes)
        });
    let is_gone = |name: &ServiceName| services.get(name) == Some(&Observed::Known(SourceState::Gone));
    let gone = spec.services.iter().filter(|(name, _)| concerns(name) && is_gone(name));
    let gone = gone.map(|(name, service)| (name.clone(), engines::gone_paths(&service.source, ground)));
    let gone: BTreeMap<_, _> = gone.filter(|(_, gone)| !gone.is_empty()).collect();
    // Whoever needed a secret has logged in by now.
    let login = ground.secrets.login_state().map(|state| match state {
        Ok(state) => Observed::Known(state),
        Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
    });
    Observation {
        at: now,
        took: Span::from(since.elapsed()),
        origin: None,
        carried: BTreeSet::new(),
        shut: stores.shut(),
        unwritable: BTreeSet::new(),
        engine,
        services,
        holding,
        projects: None,
        left_stopped: Vec::new(),
        unfinished_recovery: None,
        login,
        compose: None,
        stack: None,
        up: None,
        idle_excludes,
        misplaced: BTreeMap::new(),
        missing: BTreeMap::new(),
        gone,
        room: BTreeMap::new(),
        containers,
        certificates,
        repositories,
    }
}

/// The containers of a source that are there.
fn containers_of(source: &Source, ground: &Ground) -> Observed<BTreeMap<String, ContainerState>> {
    let mut found = BTreeMap::new();
    for name in source.containers() {
        let is_stopped = source.stops().contains(&name);
        let looked = match is_stopped {
            true => ground.containers.all_called(name),
            false => ground.containers.look_for(name).map(|found| found.into_iter().collect()),
        };
        match looked {
            Ok(mut one) if one.len() == 1 => drop(found.insert(name.to_owned(), one.remove(0))),
            // Of a service with several, each by its own name.
            Ok(several) => found.extend(several.into_iter().map(|container| (container.name.clone(), container))),
            Err(error) => return Observed::Unknown { reason: crate::model::chain(&error) },
        }
    }
    Observed::Known(found)
}

fn joined<K: Ord, T>(looks: Vec<(K, std::thread::ScopedJoinHandle<'_, Observed<T>>)>) -> BTreeMap<K, Observed<T>> {
    looks
        .into_iter()
        .map(|(name, look)| {
            let seen =
                look.join().unwrap_or_else(|_| Observed::Unknown { reason: "looking at it panicked".to_owned() });
            (name, seen)
        })
        .collect()
}

fn repository(spec: &Spec, stores: &Stores, history: &History, name: &RepositoryName) -> Observed<RepositoryState> {
    let looked = look_at(spec, &spec.stack, stores, history, name);
    stores.note_trouble(name, looked.as_ref().err().map(StoreError::kind));
    match looked {
        Ok(state) => Observed::Known(state),
        Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
    }
}

fn look_at(
    spec: &Spec,
    stack: &StackName,
    stores: &Stores,
    history: &History,
    name: &RepositoryName,
) -> Result<RepositoryState, StoreError> {
    let site = stores.site(name)?;
    match site.look()? {
        Presence::Absent => Ok(RepositoryState::Absent {
            ungenerated_keys: ungenerated(spec, stores, name),
            known_before: history.known_repositories.get(name).cloned(),
        }),
        Presence::Present => Ok(RepositoryState::Present(Box::new(stores.facts(name, stack)?))),
    }
}

/// The keys that the file lets devstack make, and whose file is not there yet.
fn ungenerated(spec: &Spec, stores: &Stores, name: &RepositoryName) -> Vec<usize> {
    let keys = spec.repositories.get(name).map(|repository| repository.keys.as_slice()).unwrap_or_default();
    keys.iter()
        .enumerate()
        .filter(|(_, key)| match key {
            Key::Passphrase(passphrase) if passphrase.generate => {
                passphrase.file.as_ref().is_some_and(|file| stores.is_missing(file))
            }
            _ => false,
        })
        .map(|(index, _)| index)
        .collect()
}
