//! The locks of restic programs: who holds them, and whether anybody does. devstack removes none: that is for who runs restic.

use std::io;

use jiff::Timestamp;
use rustic_core::repofile::{RepoFile, SnapshotId as LibraryId};
use rustic_core::{Credentials, FileType, Id};
use serde::{Deserialize, Serialize};

use super::error::RepositoryError;
use super::opening;
use super::store::Store;
use crate::model::observation::ResticLock;
use crate::model::units::Span;

/// restic renews its locks every few minutes, and takes one of this age for nobody's.
const STALE: Span = Span::from_secs(30 * 60);

/// A lock as restic writes it. The library knows no such files, and reads it as a kind that it does.
#[derive(Serialize, Deserialize)]
struct LockFile {
    time: Timestamp,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: u32,
}

impl RepoFile for LockFile {
    const TYPE: FileType = FileType::Snapshot;
    type Id = LibraryId;
}

impl Store {
    /// Each lock that lies there. One that can't be read is there all the same.
    pub fn restic_locks(&self) -> Result<Vec<ResticLock>, RepositoryError> {
        let names = self.site.restic_lock_names()?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let disk = self.site.disk().with_locks_for_snapshots();
        let view = opening::repository(disk)
            .and_then(|repository| repository.open(&Credentials::Masterkey(self.master.clone())))
            .map_err(|error| RepositoryError::store("read the locks", self.site.path(), error))?;
        let (now, host) = (Timestamp::now(), rustix::system::uname().nodename().to_string_lossy().into_owned());
        let locks = names.into_iter().filter_map(|name| {
            let read = name.parse::<Id>().and_then(|id| view.get_file::<LockFile>(&id.into()));
            match read {
                Ok(lock) => Some(lock.told(name, now, &host)),
                // Released meanwhile.
                Err(_) if !self.site.path().join("locks").join(&name).exists() => None,
                Err(_) => Some(ResticLock {
                    id: name,
                    owner: "somebody (it can't be read)".to_owned(),
                    ..ResticLock::default()
                }),
            }
        });
        Ok(locks.collect())
    }
}

impl LockFile {
    fn told(self, id: String, now: Timestamp, host: &str) -> ResticLock {
        let age = Span::between(self.time, now);
        let stale = if self.hostname == host && is_gone(self.pid) {
            Some("that process is gone".to_owned())
        } else if age > STALE {
            Some(format!("it is {age} old, and restic renews one that it holds"))
        } else {
            None
        };
        let owner = format!("{}@{} pid {}", self.username, self.hostname, self.pid);
        ResticLock { id, owner, since: Some(self.time), exclusive: self.exclusive, stale }
    }
}

/// No process of this number runs here.
fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        matches!(rustix::process::test_kill_process(pid).map_err(io::Error::from), Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_stale_where_its_process_is_gone_or_nobody_renews_it() {
        let now: Timestamp = "2026-11-24T11:00:00Z".parse().unwrap();
        let never_a_pid = i32::MAX as u32;
        for (case, host, pid, minutes, stale) in [
            ("of this process", "here", std::process::id(), 1, false),
            ("of one that is gone", "here", never_a_pid, 1, true),
            ("of another machine", "there", never_a_pid, 29, false),
            ("of another machine, long ago", "there", never_a_pid, 31, true),
            ("of a process that hangs", "here", std::process::id(), 31, true),
        ] {
            let lock = LockFile {
                time: Span::from_secs(minutes * 60).before(now),
                exclusive: false,
                hostname: host.to_owned(),
                username: "ada".to_owned(),
                pid,
            };
            let told = lock.told("00".to_owned(), now, "here");
            assert_eq!((told.stale.is_some(), told.owner), (stale, format!("ada@{host} pid {pid}")), "{case}");
        }
    }
}
