//! The folder of one drill, `.devstack/drills/ID`, and the removal of everything that carries the drill's name, whoever
//! left it. A recovery beside the running stack has its own in `.devstack/projects/NAME`, and is removed when somebody says so.
//!
//! Beside the folder lies a lock, taken before anything is made and removed after everything is gone. The kernel drops it
//! with the process, so what lies beside a free lock belongs to nobody.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::error::DrillError;
use super::id::{DrillId, LABEL};
use crate::runtime::{Docker, RuntimeError};

/// The folder of the drills in `.devstack`.
const DRILLS: &str = "drills";

/// The folder of what was recovered beside the running stack.
const PROJECTS: &str = "projects";

/// In the folder of a drill that has containers.
const ENGINE: &str = "has-containers";

/// What every drill's name begins with.
const NAME: &str = "drill-";

/// A drill's own folder, mode 0700, and its lock. Dropped without [`Scratch::remove`], as by a panic, it is left for the next
/// drill, which finds all of it by the lock.
pub(super) struct Scratch {
    pub id: DrillId,
    /// Absolute, and with no symbolic link in it.
    pub folder: PathBuf,
    pub lock: File,
}

impl Scratch {
    pub fn make(state: &Path) -> Result<Self, DrillError> {
        let mut unique = [0_u8; 4];
        getrandom::fill(&mut unique).map_err(|error| DrillError::NoName(io::Error::other(error)))?;
        let name = format!("{NAME}{}", hex::encode(unique));
        let id: DrillId = name.parse().map_err(|error| DrillError::NoName(io::Error::other(error)))?;
        Self::among(&state.join(DRILLS), id)
    }

    /// One that stays, under a name that nothing else has.
    pub fn kept(state: &Path, id: DrillId) -> Result<Self, DrillError> {
        Self::among(&state.join(PROJECTS), id)
    }

    fn among(all: &Path, id: DrillId) -> Result<Self, DrillError> {
        private(all).map_err(DrillError::io("making the folder", all))?;
        let all = all.canonicalize().map_err(DrillError::io("resolving the folder", all))?;
        let (folder, lock) = (all.join(id.as_str()), lock_of(&all, &id));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&lock);
        let file = file.map_err(DrillError::io("making the lock", &lock))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| DrillError::io("taking the lock", &lock)(error.into()))?;
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(DrillError::io("making the folder", &folder))?;
        Ok(Self { id, folder, lock: file })
    }

    /// The drill's image of this machine: every path of the file lies below it.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Where devstack notes the containers that it has stopped.
    pub fn stopped(&self) -> PathBuf {
        self.folder.join("stopped")
    }

    /// Private folders of the steps.
    pub fn rooms(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Noted before an engine is asked to make anything: whoever removes a killed drill then needs one.
    pub fn uses_engine(&self) -> Result<(), DrillError> {
        let note = self.folder.join(ENGINE);
        fs::write(&note, "").map_err(DrillError::io("writing", note))
    }

    /// Removes all that the drill has made: what an engine holds first, since a container could still write.
    pub fn remove(self, docker: Option<&Docker>) -> Result<(), DrillError> {
        remove(&self.id, &self.folder, docker)
    }
}

/// Whether nothing has this name, neither here nor in the engine: of a project that somebody else has made nothing is touched.
pub fn must_be_free(
    state: &Path,
    id: &DrillId,
    docker: impl Fn() -> Result<Arc<Docker>, RuntimeError>,
) -> Result<(), DrillError> {
    if lock_of(&state.join(PROJECTS), id).exists() {
        return Err(DrillError::Kept { id: id.clone() });
    }
    let there = docker()?.made_for(LABEL, id.as_str())?;
    match there.containers.is_empty() && there.volumes.is_empty() {
        true => Ok(()),
        false => Err(DrillError::Taken { id: id.clone() }),
    }
}

/// Removes one that was kept.
pub fn remove_kept(
    state: &Path,
    id: &DrillId,
    docker: impl Fn() -> Result<Arc<Docker>, RuntimeError>,
) -> Result<(), DrillError> {
    let projects = state.join(PROJECTS);
    let lock = lock_of(&projects, id);
    let file = match OpenOptions::new().append(true).open(&lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DrillError::NotKept { id: id.clone() }),
        opened => opened.map_err(DrillError::io("opening the lock", &lock))?,
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(DrillError::InUse { id: id.clone() });
    }
    let projects = projects.canonicalize().map_err(DrillError::io("resolving the folder", &projects))?;
    let folder = projects.join(id.as_str());
    let engine = folder.join(ENGINE).exists().then(docker).transpose()?;
    remove(id, &folder, engine.as_deref())
}

fn private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn lock_of(drills: &Path, id: &DrillId) -> PathBuf {
    drills.join(format!("{id}.lock"))
}

fn remove(id: &DrillId, folder: &Path, docker: Option<&Docker>) -> Result<(), DrillError> {
    if let Some(docker) = docker {
        docker.remove_labelled(LABEL, id.as_str(), folder)?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DrillError::io("removing the folder", folder)(error));
        }
        _ => {}
    }
    let Some(drills) = folder.parent() else { return Ok(()) };
    let lock = lock_of(drills, id);
    fs::remove_file(&lock).map_err(DrillError::io("removing the lock", &lock))?;
    // Kept where another drill is in it.
    let _ = fs::remove_dir(drills);
    Ok(())
}

/// Removes what drills of this stack have left that were killed. Gives their names. One that runs is left alone, as are
/// those of other stacks on the same engine: their locks lie elsewhere.
pub fn sweep(state: &Path, docker: impl Fn() -> Result<Arc<Docker>, RuntimeError>) -> Result<Vec<DrillId>, DrillError> {
    let drills = state.join(DRILLS);
    let entries = match fs::read_dir(&drills) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DrillError::io("reading the folder", &drills)(error)),
    };
    let drills = drills.canonicalize().map_err(DrillError::io("resolving the folder", &drills))?;
    let mut swept = Vec::new();
    for entry in entries {
        let name = entry.map_err(DrillError::io("reading the folder", &drills))?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".lock")).and_then(|id| id.parse::<DrillId>().ok());
        let Some(id) = id else { continue };
        let lock = lock_of(&drills, &id);
        let file = match OpenOptions::new().append(true).open(&lock) {
            Ok(file) => file,
            // Its drill has come to its end meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(DrillError::io("opening the lock", &lock)(error)),
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let folder = drills.join(id.as_str());
        // Without an engine at hand the lock stays, so that a later drill removes the rest.
        let engine = folder.join(ENGINE).exists().then(&docker).transpose()?;
        remove(&id, &folder, engine.as_deref())?;
        swept.push(id);
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn no_engine() -> Result<Arc<Docker>, RuntimeError> {
        Err(RuntimeError::NoEngine { looked_at: vec![], source: None })
    }

    #[test]
    fn the_folder_is_private_and_goes_with_its_lock() {
        let state = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(state.path()).unwrap();
        assert_eq!(fs::metadata(&scratch.folder).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir_all(scratch.root()).unwrap();
        // One that runs is left alone, without an engine being asked.
        assert!(sweep(state.path(), no_engine).unwrap().is_empty());
        assert!(scratch.root().exists());
        scratch.remove(None).unwrap();
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_one_left_is_not_forgotten_while_no_engine_answers() {
        let state = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(state.path()).unwrap();
        scratch.uses_engine().unwrap();
        flock(&scratch.lock, FlockOperation::Unlock).unwrap();
        let folder = scratch.folder.clone();
        std::mem::forget(scratch);
        assert!(sweep(state.path(), no_engine).is_err());
        assert!(folder.exists() && folder.with_extension("lock").exists());
        // One that never had containers needs no engine.
        fs::remove_file(folder.join(ENGINE)).unwrap();
        assert_eq!(sweep(state.path(), no_engine).unwrap().len(), 1);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_path_of_the_state_does_not_become_a_part_of_the_folder() {
        let real = tempfile::tempdir().unwrap();
        let link = real.path().join("link");
        fs::create_dir(real.path().join("state")).unwrap();
        std::os::unix::fs::symlink(real.path().join("state"), &link).unwrap();
        let scratch = Scratch::make(&link).unwrap();
        assert!(!scratch.folder.starts_with(&link), "{}", scratch.folder.display());
    }
}
