//! Who writes to the files of a source: containers that mount them. They are stopped for the time that it is read, and one
//! that was forgotten is named before anything is stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engines::volume::{holds, on_the_machine};
use crate::engines::{EngineError, Ground};
use crate::model::observation::ContainerState;
use crate::model::step::RestoreTarget;
use crate::runtime::Stopped;

pub(super) struct Writers {
    ground: Ground,
    pub stop: Vec<String>,
}

impl Writers {
    pub fn new(ground: &Ground) -> Self {
        Self { ground: ground.clone(), stop: Vec::new() }
    }

    /// None where the file stops nobody. One that is not there writes nothing; whoever writes there all the same, because
    /// its name is another than the file says, is found by what it mounts.
    pub fn stop_for_take(
        &self,
        roots: impl FnOnce() -> Result<Vec<PathBuf>, EngineError>,
    ) -> Result<Option<Stopped>, EngineError> {
        if self.stop.is_empty() {
            return Ok(None);
        }
        let to_stop = self.containers()?;
        let docker = self.ground.containers.docker()?;
        let roots = roots()?;
        if let Some((writer, path)) = forgotten(&docker.running()?, &to_stop, &roots, &docker.bound_volumes()?) {
            return Err(EngineError::Refused {
                what: format!(
                    "the container {} may write to {} and is not in `stop`; add its service there, mount the folder read-only \
                     in it, or take `stop` out to read file by file",
                    writer.name,
                    path.display()
                ),
            });
        }
        Ok(Some(self.ground.stopped.stop(&docker, &to_stop)?))
    }

    /// On a machine without an engine nobody runs who could write: what is gone comes back all the same.
    pub fn stop_for_restore(&self, target: &RestoreTarget) -> Result<Option<Stopped>, EngineError> {
        if self.stop.is_empty() {
            return Ok(None);
        }
        match self.containers() {
            Ok(to_stop) if to_stop.is_empty() => Ok(None),
            Ok(to_stop) => Ok(Some(self.ground.stopped.stop(&self.ground.containers.docker()?, &to_stop)?)),
            Err(_) if *target == RestoreTarget::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn containers(&self) -> Result<Vec<ContainerState>, EngineError> {
        let found: Result<Vec<_>, _> = self.stop.iter().map(|name| self.ground.containers.all_called(name)).collect();
        Ok(found?.into_iter().flatten().collect())
    }
}

/// The first container that mounts one of the paths, or a part of it, or a folder around it, may write, and is not stopped.
fn forgotten<'a>(
    running: &'a [ContainerState],
    stopped: &[ContainerState],
    roots: &'a [PathBuf],
    bound: &BTreeMap<String, PathBuf>,
) -> Option<(&'a ContainerState, &'a Path)> {
    running.iter().filter(|container| !holds(stopped, container)).find_map(|container| {
        let mounts = container.mounts.iter().filter(|mount| mount.writable);
        let sources = mounts.filter_map(|mount| on_the_machine(mount, bound));
        // Docker Desktop sees the machine's folders below one of its own.
        let plain =
            |path: &Path| path.strip_prefix("/host_mnt").map_or_else(|_| path.to_owned(), |it| Path::new("/").join(it));
        sources.map(plain).find_map(|source| {
            let source = source.as_path();
            let overlaps = |root: &&PathBuf| {
                let real = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf());
                [root.as_path(), &real].iter().any(|root| root.starts_with(source) || source.starts_with(root))
            };
            Some((container, roots.iter().find(overlaps)?.as_path()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observation::Mount;

    fn container(name: &str, source: &str, writable: bool) -> ContainerState {
        let volume = (!source.starts_with('/')).then(|| source.to_owned());
        let mount = Mount { volume, source: source.into(), destination: "/data".into(), writable };
        ContainerState::mounting(name, vec![mount])
    }

    #[test]
    fn whoever_mounts_a_part_of_what_is_read_is_found_unless_it_is_stopped() {
        let roots = [PathBuf::from("/srv/app/data"), PathBuf::from("/srv/app/media")];
        for (source, writable, found) in [
            ("/srv/app/data", true, true),
            ("/srv/app", true, true),
            ("/srv/app/media/new", true, true),
            ("/host_mnt/srv/app/media", true, true),
            ("/srv/app/data", false, false),
            ("/srv/app/database", true, false),
            ("/srv/other", true, false),
            ("data", true, false),
            ("bound", true, true),
            ("bound", false, false),
        ] {
            let bound = BTreeMap::from([("bound".to_owned(), PathBuf::from("/srv/app/data"))]);
            let running = [container("web", source, writable)];
            let seen = forgotten(&running, &[], &roots, &bound);
            assert_eq!(seen.map(|(container, _)| container.name.as_str()), found.then_some("web"), "{source}");
            assert!(forgotten(&running, &running, &roots, &bound).is_none(), "{source}");
        }
    }
}
