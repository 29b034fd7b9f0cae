//! Private folders for the one declared temporary copy, SQLite's. They go when their owner is done, and the next apply
//! sweeps what a killed one left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The folder that holds the rooms: `.devstack/work`.
#[derive(Debug, Clone)]
pub struct Workrooms {
    root: PathBuf,
}

/// A folder of mode 0700, locked by its owner for as long as it lives and removed when dropped.
#[derive(Debug)]
pub struct Workroom {
    folder: PathBuf,
    _lock: File,
}

const LOCK: &str = "owner.lock";
const BLOCK: usize = 4096;

impl Workrooms {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// A new room of its own; where `.devstack` can't be written, under the system's folder for what is temporary.
    pub fn enter(&self) -> io::Result<Workroom> {
        self.enter_here().or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull => enter_elsewhere(),
            _ => Err(error),
        })
    }

    fn enter_here(&self) -> io::Result<Workroom> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        let mut unique = [0_u8; 8];
        getrandom::fill(&mut unique).map_err(io::Error::other)?;
        let folder = self.root.join(hex::encode(unique));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        locked(folder)
    }

    /// Removes the rooms whose owner is gone: the kernel drops a killed process's lock, so a lock that can be had
    /// belongs to nobody. Returns how many went.
    pub fn sweep(&self) -> io::Result<usize> {
        let mut swept = 0;
        let rooms = match fs::read_dir(&self.root) {
            Ok(rooms) => rooms,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        for room in rooms {
            let folder = room?.path();
            if is_abandoned(&folder)? {
                fs::remove_dir_all(&folder)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// Of a name that nobody can have made before. Nothing sweeps there: what lies in a folder that all may write is anybody's.
fn enter_elsewhere() -> io::Result<Workroom> {
    locked(tempfile::Builder::new().prefix("devstack-").tempdir()?.keep())
}

fn locked(folder: PathBuf) -> io::Result<Workroom> {
    let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(LOCK));
    let locked = lock.and_then(|mut lock| {
        // A folder can be made on a full disk, and nothing be put into it.
        lock.write_all(&[0; BLOCK])?;
        lock.sync_all()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(lock)
    });
    match locked {
        Ok(lock) => Ok(Workroom { folder, _lock: lock }),
        Err(error) => {
            let _ = fs::remove_dir_all(&folder);
            Err(error)
        }
    }
}

fn is_abandoned(folder: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(folder.join(LOCK)) {
        Ok(lock) => Ok(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()),
        // Killed between making the folder and its lock; a living owner passes that gap in microseconds, and the lease
        // keeps a second apply away meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

impl Workroom {
    /// An empty file of mode 0600.
    pub fn file(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(path)
    }
}

impl Drop for Workroom {
    fn drop(&mut self) {
        // What cannot be removed now is abandoned once the lock is gone, and the next sweep takes it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_room_is_private_and_goes_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let rooms = Workrooms::new(root.path().join("work"));
        let room = rooms.enter().unwrap();
        let file = room.file("copy.db").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(rooms.sweep().unwrap(), 0, "a room in use is left alone");
        drop(room);
        assert!(!file.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let rooms = Workrooms::new(root.path().join("work"));
        let room = rooms.enter().unwrap();
        let file = room.file("copy.db").unwrap();
        // As a kill does: the lock is dropped by the kernel, the folder stays.
        let Workroom { .. } = &room;
        flock(&room._lock, FlockOperation::Unlock).unwrap();
        std::mem::forget(room);
        assert_eq!(rooms.sweep().unwrap(), 1);
        assert!(!file.exists());
    }
}
