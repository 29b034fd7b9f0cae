//! Where a volume's data is reached: through a visitor that mounts it, or, for a folder in a container's own layer,
//! through that container.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tar::Tar;
use crate::engines::{EngineError, Ground};
use crate::model::holdings::Backing;
use crate::model::image::{Kind, of_name};
use crate::model::observation::{ContainerState, Mount};
use crate::runtime::{Docker, RuntimeError, StoppedBook, Visit, Visited};
use crate::spec::file::VolumeSource;

/// Data in a volume, a mounted folder, or a container's own layer.
#[derive(Clone)]
pub(in crate::engines) struct Place {
    docker: Arc<Docker>,
    book: StoppedBook,
    reach: Reach,
    /// `the volume shop_data`.
    pub name: String,
    /// The containers that mount it, in any state, each with whether it may write.
    pub users: Vec<(ContainerState, bool)>,
}

#[derive(Clone)]
enum Reach {
    Mounted {
        visited: Visited,
        /// `/cache` for a folder in the volume; empty for all of it.
        below: String,
        /// None where nothing on the machine says which image could look into it.
        image: Option<String>,
        /// How to get a container that mounts it.
        hint: String,
    },
    Inside {
        container: ContainerState,
        path: String,
    },
}

/// A place that is open: a container, and the path in it that the data has.
pub(in crate::engines) struct Site {
    pub docker: Arc<Docker>,
    pub container: ContainerState,
    pub path: String,
    visit: Option<Visit>,
}

impl Place {
    /// What the file declares; None where Docker says that it is not there.
    pub fn of(source: &VolumeSource, ground: &Ground) -> Result<Option<Self>, EngineError> {
        match (&source.volume, &source.container, &source.path) {
            (Some(volume), ..) => Self::volume(ground, volume),
            (None, Some(container), Some(path)) => match ground.containers.look_for(container)? {
                Some(container) => Self::folder(ground, container, path).map(Some),
                None => Ok(None),
            },
            (None, _, _) => Err(EngineError::Refused { what: "the file names neither a volume nor a folder".into() }),
        }
    }

    fn volume(ground: &Ground, name: &str) -> Result<Option<Self>, EngineError> {
        let docker = ground.containers.docker()?;
        let real = ground.containers.volume(name)?;
        if !docker.has_volume(&real)? {
            return Ok(None);
        }
        Ok(Some(Self::named(ground, docker, real, String::new())?))
    }

    fn named(ground: &Ground, docker: Arc<Docker>, real: String, below: String) -> Result<Self, EngineError> {
        let is_it = |mount: &&Mount| mount.volume.as_deref() == Some(&*real);
        let users: Vec<(ContainerState, bool)> = docker
            .mounting(&real)?
            .into_iter()
            .map(|container| {
                let writes = container.mounts.iter().filter(is_it).any(|mount| mount.writable);
                (container, writes)
            })
            .collect();
        let users = match docker.backing_of(&real)? {
            Some(Backing::Memory) => {
                return Err(EngineError::Refused {
                    what: format!(
                        "the volume {real} lies in memory (tmpfs): it is gone with the last container that mounts it, and nothing \
                         can be put back into it before one runs; take it out of the file, or give it a place on the disk"
                    ),
                });
            }
            Some(Backing::Folder(device)) => {
                let others = beside(&docker, &device, &users)?;
                users.into_iter().chain(others).collect()
            }
            Some(Backing::Local | Backing::Remote(_)) | None => users,
        };
        let (image, hint) = match users.first() {
            Some((container, _)) => (Some(container.image_digest.clone()), String::new()),
            None => image_by_compose(ground, &docker, &real)?,
        };
        let name = format!("the volume {real}");
        let reach = Reach::Mounted { visited: Visited::Volume(real), below, image, hint };
        Ok(Self { docker, book: ground.stopped.clone(), reach, name, users })
    }

    /// A folder as a container sees it: in one of its mounts, or in its own layer.
    pub fn folder(ground: &Ground, container: ContainerState, path: &str) -> Result<Self, EngineError> {
        let docker = ground.containers.docker()?;
        let path = path.trim_end_matches('/');
        let below = |destination: &str| {
            let rest = path.strip_prefix(destination.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let mount = container.mounts.iter().filter_map(|mount| Some((mount, below(&mount.destination)?)));
        let mount = mount.max_by_key(|(mount, _)| mount.destination.len());
        let name = format!("the folder {path} of the container {}", container.name);
        let (reach, users) = match mount {
            Some((mount, below)) => match (&mount.volume, &*mount.source) {
                (Some(volume), _) => {
                    let named = Self::named(ground, docker, volume.clone(), below)?;
                    return Ok(Self { name, ..named });
                }
                (None, "") => {
                    let what = format!("{name} lies in memory (tmpfs), and is gone with its container");
                    return Err(EngineError::Refused { what });
                }
                (None, source) => {
                    let visited = Visited::Folder(source.to_owned());
                    let image = Some(container.image_digest.clone());
                    let folder = format!("{source}{below}");
                    let writes = mount.writable;
                    let own = vec![(container, writes)];
                    let others = beside(&docker, Path::new(&folder), &own)?;
                    let users = own.into_iter().chain(others).collect();
                    (Reach::Mounted { visited, below, image, hint: String::new() }, users)
                }
            },
            None => {
                let users = vec![(container.clone(), true)];
                (Reach::Inside { container, path: path.to_owned() }, users)
            }
        };
        Ok(Self { docker, book: ground.stopped.clone(), reach, name, users })
    }

    /// In the container's own layer: it can be emptied only by a program that runs in there.
    pub fn is_inside(&self) -> bool {
        matches!(self.reach, Reach::Inside { .. })
    }

    /// Those that run and may write to it.
    pub fn writers(&self) -> impl Iterator<Item = &ContainerState> {
        self.users.iter().filter(|(container, writes)| *writes && container.running).map(|(container, _)| container)
    }

    /// Of the writers that are not stopped, the first that is a database server.
    pub fn live_server(&self, stopped: &[ContainerState]) -> Option<&ContainerState> {
        self.writers().find(|writer| !holds(stopped, writer) && is_server(&writer.image))
    }

    /// Makes it reachable; `writes` for a restore.
    pub fn open(&self, writes: bool) -> Result<Site, EngineError> {
        match &self.reach {
            Reach::Inside { container, path } => {
                Ok(Site { docker: self.docker.clone(), container: container.clone(), path: path.clone(), visit: None })
            }
            Reach::Mounted { visited, below, image, hint } => {
                let Some(image) = image else {
                    let what =
                        format!("no container mounts {}, and Docker reads a volume through one; {hint}", self.name);
                    return Err(EngineError::Refused { what });
                };
                let visit = Visit::begin(&self.docker, &self.book, image, visited, writes)?;
                Ok(Site {
                    docker: self.docker.clone(),
                    container: visit.container().clone(),
                    path: format!("{}{below}", Visit::PLACE),
                    visit: Some(visit),
                })
            }
        }
    }

    /// Whether anything is in it, seen through a container that is there already. None where the folder is not there.
    pub fn has_data(&self) -> Result<Option<bool>, EngineError> {
        match &self.reach {
            Reach::Inside { container, path } => has_entries(&self.docker, container, path),
            Reach::Mounted { visited, below, hint, .. } => {
                let is_it = |mount: &&Mount| match visited {
                    Visited::Volume(name) => mount.volume.as_ref() == Some(name),
                    Visited::Folder(source) => mount.volume.is_none() && mount.source == *source,
                };
                let mut seen = self.users.iter().filter_map(|(container, _)| {
                    let mount = container.mounts.iter().find(is_it)?;
                    Some((container, format!("{}{below}", mount.destination.trim_end_matches('/'))))
                });
                let Some((container, path)) = seen.next() else {
                    let what = format!("no container mounts {}, so that nobody can look into it; {hint}", self.name);
                    return Err(EngineError::Refused { what });
                };
                // One that can't be looked into is no reason to think anything gone: another may see the same.
                let first = has_entries(&self.docker, container, &path);
                match first {
                    Ok(_) => first,
                    Err(_) => {
                        seen.find_map(|(other, path)| has_entries(&self.docker, other, &path).ok()).map_or(first, Ok)
                    }
                }
            }
        }
    }
}

impl Site {
    /// Whether programs can be run there.
    pub fn has_shell(&self) -> Result<bool, EngineError> {
        match &self.visit {
            Some(visit) => Ok(visit.has_shell()),
            // Opened while it ran, it may have been stopped since.
            None => Ok(self.docker.inspect(self.container.id.as_str())?.is_some_and(|container| container.running)),
        }
    }

    pub fn has_data(&self) -> Result<Option<bool>, EngineError> {
        has_entries(&self.docker, &self.container, &self.path)
    }
}

/// The other containers that mount a folder of the machine.
fn beside(
    docker: &Docker,
    folder: &Path,
    known: &[(ContainerState, bool)],
) -> Result<Vec<(ContainerState, bool)>, EngineError> {
    Ok(mounting(&docker.running()?, known, folder, &docker.bound_volumes()?))
}

/// The containers, but for those that are known, that mount this folder of the machine, a part of it, or a folder around it; true
/// for those that may write there. `bound` are the volumes that are a folder of the machine.
fn mounting(
    running: &[ContainerState],
    known: &[(ContainerState, bool)],
    folder: &Path,
    bound: &BTreeMap<String, PathBuf>,
) -> Vec<(ContainerState, bool)> {
    // Docker Desktop sees the machine's folders below one of its own.
    let plain =
        |path: &Path| path.strip_prefix("/host_mnt").map_or_else(|_| path.to_owned(), |it| Path::new("/").join(it));
    let real = |path: &Path| {
        let path = plain(path);
        std::fs::canonicalize(&path).unwrap_or(path)
    };
    let folder = real(folder);
    let others = running.iter().filter(|it| known.iter().all(|(known, _)| known.id != it.id));
    let found = others.filter_map(|container| {
        let mut overlapping = container.mounts.iter().filter(|mount| {
            on_the_machine(mount, bound).is_some_and(|source| {
                let source = real(source);
                source.starts_with(&folder) || folder.starts_with(&source)
            })
        });
        let writes = overlapping.clone().any(|mount| mount.writable);
        overlapping.next().map(|_| (container.clone(), writes))
    });
    found.collect()
}

/// The folder of the machine that a mount is of: as it is, or as a volume that is one under another name.
pub(in crate::engines) fn on_the_machine<'m>(
    mount: &'m Mount,
    bound: &'m BTreeMap<String, PathBuf>,
) -> Option<&'m Path> {
    match &mount.volume {
        Some(volume) => bound.get(volume).map(PathBuf::as_path),
        None => Some(Path::new(&mount.source)).filter(|source| !source.as_os_str().is_empty()),
    }
}

pub(in crate::engines) fn holds(containers: &[ContainerState], one: &ContainerState) -> bool {
    containers.iter().any(|container| container.id == one.id)
}

/// Reads no more of the archive than its first entries. None where the path is not there.
///
/// To look into a container Docker mounts all that it mounts. Where a bound file or folder is gone, it says of every path that it is
/// not there, of a volume full of data too: then nothing was seen.
pub(in crate::engines) fn has_entries(
    docker: &Arc<Docker>,
    container: &ContainerState,
    path: &str,
) -> Result<Option<bool>, EngineError> {
    match entries(docker, container, path)? {
        None if entries(docker, container, "/")?.is_none() => Err(EngineError::Refused {
            what: format!(
                "Docker can't look into the container {}: something of this machine that it mounts is not there any more",
                container.name
            ),
        }),
        seen => Ok(seen),
    }
}

fn entries(docker: &Arc<Docker>, container: &ContainerState, path: &str) -> Result<Option<bool>, EngineError> {
    let mut download = docker.download(container, path)?;
    let (mut tar, mut any) = (Tar::new(false), false);
    let mut buffer = [0; 4096];
    loop {
        let count = match download.read(&mut buffer) {
            Ok(count) => count,
            Err(error) => {
                let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<RuntimeError>());
                if cause.is_some_and(RuntimeError::is_missing) {
                    return Ok(None);
                }
                return Err(EngineError::Stream { name: path.to_owned(), source: error });
            }
        };
        let answer = |why| EngineError::Answer { what: format!("Docker's archive of {path}"), why };
        if count == 0 {
            return tar.end().map(|tally| Some(tally.entries() > 0)).map_err(answer);
        }
        tar.feed(&buffer[..count], &mut |_| any = true).map_err(answer)?;
        if any {
            return Ok(Some(true));
        }
    }
}

/// A server's files, read while it writes, are none that it could start from.
fn is_server(image: &str) -> bool {
    matches!(of_name(image), Kind::Server(_) | Kind::Untried(_))
}

/// The image of the Compose service that mounts a volume, where it is on the machine, and how to make its container.
fn image_by_compose(ground: &Ground, docker: &Docker, volume: &str) -> Result<(Option<String>, String), EngineError> {
    let by_hand = || "create the container that it belongs to (`docker compose create SERVICE`)".to_owned();
    let Some(compose) = ground.containers.compose() else { return Ok((None, by_hand())) };
    let files = compose.resolved()?;
    match service_of(&files, volume) {
        None => Ok((None, by_hand())),
        Some((service, image)) => {
            let hint = format!("create the one that it belongs to: `docker compose create {service}`");
            let image = match image {
                Some(image) if docker.has_image(&image)? => Some(image),
                _ => None,
            };
            Ok((image, hint))
        }
    }
}

/// The service that mounts a volume, by what Compose makes of its files.
fn service_of(files: &serde_json::Value, volume: &str) -> Option<(String, Option<String>)> {
    let (key, _) = files["volumes"].as_object()?.iter().find(|(_, declared)| declared["name"] == volume)?;
    let mounts = |service: &serde_json::Value| {
        let mounts = service["volumes"].as_array().map_or(&[][..], Vec::as_slice);
        mounts.iter().any(|mount| mount["type"] == "volume" && mount["source"] == key.as_str())
    };
    let (name, service) = files["services"].as_object()?.iter().find(|(_, service)| mounts(service))?;
    Some((name.clone(), service["image"].as_str().map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_their_images() {
        for image in [
            "postgres:17",
            "docker.io/library/mariadb",
            "bitnami/redis:8",
            "postgis/postgis",
            "x/Percona-Server",
            "quay.io/openbao/openbao",
        ] {
            assert!(is_server(image), "{image}");
        }
        for image in
            ["codeberg.org/forgejo/forgejo:12", "oliver006/redis_exporter", "phpmyadmin", "mysql/tool", "nginx"]
        {
            assert!(!is_server(image), "{image}");
        }
    }

    fn container(name: &str, source: &str, writable: bool) -> ContainerState {
        let volume = (!source.starts_with('/')).then(|| source.to_owned());
        let mount = Mount { volume, source: source.into(), destination: "/srv".into(), writable };
        ContainerState::mounting(name, vec![mount])
    }

    #[test]
    fn whoever_else_mounts_a_bound_folder_is_one_of_its_users() {
        let own = container("web", "/no-such/data", true);
        for (source, writable, found) in [
            ("/no-such/data", true, Some(true)),
            ("/no-such", true, Some(true)),
            ("/no-such/data/new", true, Some(true)),
            ("/host_mnt/no-such/data", true, Some(true)),
            ("/no-such/data", false, Some(false)),
            ("/no-such/database", true, None),
            ("data", true, None),
            ("bound", true, Some(true)),
            ("bound", false, Some(false)),
            ("/", true, Some(true)),
        ] {
            let running = [own.clone(), container("writer", source, writable)];
            let known = [(own.clone(), true)];
            let bound = BTreeMap::from([("bound".to_owned(), PathBuf::from("/no-such/data"))]);
            let seen = mounting(&running, &known, Path::new("/no-such/data"), &bound);
            let seen: Vec<_> = seen.iter().map(|(container, writes)| (container.name.as_str(), *writes)).collect();
            let wanted: Vec<_> = found.map(|writes| ("writer", writes)).into_iter().collect();
            assert_eq!(seen, wanted, "{source}");
        }
    }

    #[test]
    fn compose_says_whose_a_volume_is() {
        let files = serde_json::json!({
            "services": {
                "web": { "image": "nginx" },
                "app": { "image": "app:1", "volumes": [{ "type": "volume", "source": "data", "target": "/d" }] },
            },
            "volumes": { "data": { "name": "p_data" }, "other": { "name": "p_other" } },
        });
        assert_eq!(service_of(&files, "p_data"), Some(("app".to_owned(), Some("app:1".to_owned()))));
        assert_eq!(service_of(&files, "p_other"), None);
        assert_eq!(service_of(&files, "data"), None);
    }
}
