//! The folder of a repository, and what can be said of it without a key.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::damage::Damage;
use super::disk::{Disk, UNFINISHED};
use super::error::RepositoryError;
use super::objects::{LocalObjects, Objects};
use crate::model::ids::KeyId;
use crate::model::observation::ObservedKey;
use crate::model::units::ByteSize;

/// The hostname that devstack writes into its key files; their username is the key's label.
pub(super) const KEY_HOST: &str = "devstack";

/// Where a repository is, or will be.
#[derive(Debug, Clone)]
pub struct Site {
    path: PathBuf,
    /// Ids of damaged files that are to be read around.
    hidden: Arc<BTreeSet<String>>,
}

/// Both are seen, never inferred from a failure to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Absent,
    Present,
}

/// The part of a key file that is not secret.
#[derive(Deserialize)]
struct KeyHead {
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    username: Option<String>,
    kdf: String,
    #[serde(rename = "N")]
    n: u32,
}

impl Site {
    pub fn new(path: PathBuf) -> Self {
        Self { path, hidden: Arc::default() }
    }

    /// The same place without the damaged files, so that verification can go on with what is whole. For reading and for
    /// writing evidence; never for a prune, to which what is hidden would be gone.
    pub fn around(&self, damages: &[Damage]) -> Self {
        let hidden = damages.iter().map(|damage| damage.name.clone()).collect();
        Self { path: self.path.clone(), hidden: Arc::new(hidden) }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.hidden.is_empty()
    }

    pub(super) fn disk(&self) -> Disk {
        Disk::new(&self.path).hiding(Arc::clone(&self.hidden))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn objects(&self) -> LocalObjects {
        LocalObjects::new(&self.path)
    }

    /// Whether there is a repository. A folder with data and no config is damage; one with other files is foreign. What a
    /// killed creation leaves (folders and a key, no data, no config) holds nothing and is absent.
    pub fn look(&self) -> Result<Presence, RepositoryError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.look_for_the_missing(),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(self.foreign("a file"));
            }
            Err(source) => return Err(self.io("list", &self.path, source)),
        };
        let mut foreign = None;
        for entry in entries {
            let name = entry.map_err(|source| self.io("list", &self.path, source))?.file_name();
            match name.to_string_lossy().as_ref() {
                "config" => return self.look_at_config(),
                // A disk's own folder, where the repository is the root of a disk.
                "keys" | "data" | "snapshots" | "index" | "locks" | "devstack" | "lost+found" => {}
                other if other.starts_with("config") && other.contains(UNFINISHED) => {}
                other => foreign = Some(other.to_owned()),
            }
        }
        for folder in ["data", "snapshots", "index"] {
            if self.first_file(folder)?.is_some() {
                return Err(self.damaged("config", "it is missing, and there is data in the repository"));
            }
        }
        for name in self.objects().list("").map_err(|source| self.io("list", &self.path, source))? {
            if name.starts_with(super::tally::FOLDER) {
                return Err(self.damaged("config", "it is missing, and devstack's list of the runs in here is not"));
            }
            if !name.starts_with("leases/") && !name.starts_with("keys/") {
                foreign = Some(format!("devstack/{name}"));
            }
        }
        match foreign {
            Some(name) => Err(self.foreign(&format!("`{name}`"))),
            None => Ok(Presence::Absent),
        }
    }

    /// The folder is not there: only a parent that can be read, or is not there either, proves it.
    fn look_for_the_missing(&self) -> Result<Presence, RepositoryError> {
        if self.path.symlink_metadata().is_ok() {
            return Err(self.foreign("a symbolic link that leads nowhere"));
        }
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match fs::read_dir(parent) {
            Ok(_) => Ok(Presence::Absent),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Presence::Absent),
            Err(source) => Err(self.io("list", parent, source)),
        }
    }

    fn look_at_config(&self) -> Result<Presence, RepositoryError> {
        let path = self.path.join("config");
        let meta = path.metadata().map_err(|source| self.io("look at", &path, source))?;
        match meta.is_file() && meta.len() > 0 {
            true => Ok(Presence::Present),
            false => Err(self.damaged("config", "it is empty or not a file")),
        }
    }

    fn first_file(&self, folder: &str) -> Result<Option<PathBuf>, RepositoryError> {
        for entry in walkdir::WalkDir::new(self.path.join(folder)) {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if entry.file_name().to_string_lossy().contains(UNFINISHED) => {}
                Ok(entry) => return Ok(Some(entry.into_path())),
                Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => {}
                Err(error) => return Err(self.io("list", &self.path, error.into())),
            }
        }
        Ok(None)
    }

    /// The key files, by id. One that is not what its name says is damage: with it, a right password would seem wrong.
    pub fn keys(&self) -> Result<Vec<ObservedKey>, RepositoryError> {
        let sidecars = self.objects().list("keys/").map_err(|source| self.io("list", &self.path, source))?;
        let folder = self.path.join("keys");
        let mut keys = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|source| self.io("list", &folder, source))? {
            let entry = entry.map_err(|source| self.io("list", &folder, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<rustic_core::Id>().is_err() || self.hidden.contains(&name) {
                continue;
            }
            let head = self.key_head(&name)?;
            let sidecar = sidecars.iter().any(|object| object.starts_with(&format!("keys/{name}.")));
            let label = head.username.filter(|_| head.hostname.as_deref() == Some(KEY_HOST));
            keys.push(ObservedKey { id: KeyId::new(name), label, sidecar });
        }
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(keys)
    }

    /// Ids of keys whose encrypted password is there and whose key file is not: the key was lost, or its making was
    /// interrupted.
    pub(super) fn orphaned_sidecars(&self) -> Result<Vec<String>, RepositoryError> {
        let sidecars = self.objects().list("keys/").map_err(|source| self.io("list", &self.path, source))?;
        let id = |name: &String| name.trim_start_matches("keys/").split('.').next().unwrap_or_default().to_owned();
        Ok(sidecars.iter().map(id).filter(|id| !self.path.join("keys").join(id).exists()).collect())
    }

    fn key_head(&self, name: &str) -> Result<KeyHead, RepositoryError> {
        let file = format!("keys/{name}");
        let path = self.path.join(&file);
        let bytes = fs::read(&path).map_err(|source| self.io("read", &path, source))?;
        if crate::model::ids::Digest::of(&bytes).as_str() != name {
            return Err(self.damaged(&file, "its content does not have the hash that is its name"));
        }
        let head: KeyHead = serde_json::from_slice(&bytes)
            .map_err(|_| self.damaged(&file, "it is not a key file of restic's format"))?;
        // Beyond 2^22 the derivation would take gigabytes; zero would make the library panic.
        if head.kdf != "scrypt" || !head.n.is_power_of_two() || head.n > 1 << 22 {
            return Err(self.damaged(&file, "its key derivation is not one that restic writes"));
        }
        Ok(head)
    }

    /// How many locks restic programs hold.
    pub fn restic_locks(&self) -> Result<usize, RepositoryError> {
        self.restic_lock_names().map(|names| names.len())
    }

    pub(super) fn restic_lock_names(&self) -> Result<Vec<String>, RepositoryError> {
        let folder = self.path.join("locks");
        match fs::read_dir(&folder) {
            Ok(entries) => {
                let names = entries.map(|entry| match entry {
                    Ok(entry) => Ok(entry.file_name().to_string_lossy().into_owned()),
                    Err(source) => Err(self.io("list", &folder, source)),
                });
                names.collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(self.io("list", &folder, source)),
        }
    }

    /// Bytes of all files.
    pub fn size(&self) -> Result<ByteSize, RepositoryError> {
        let mut size = ByteSize(0);
        for entry in walkdir::WalkDir::new(&self.path) {
            let meta = match entry.and_then(|entry| entry.metadata()) {
                Ok(meta) => meta,
                // Leases come and go while we look.
                Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => continue,
                Err(error) => return Err(self.io("list", &self.path, error.into())),
            };
            if meta.is_file() {
                size = size + ByteSize(meta.len());
            }
        }
        Ok(size)
    }

    pub(super) fn io(&self, act: &'static str, path: &Path, source: io::Error) -> RepositoryError {
        RepositoryError::Io { act, path: path.to_owned(), source }
    }

    pub(super) fn damaged(&self, file: &str, why: &str) -> RepositoryError {
        RepositoryError::Damaged { file: self.path.join(file), why: why.to_owned(), source: None }
    }

    fn foreign(&self, found: &str) -> RepositoryError {
        RepositoryError::Foreign { path: self.path.clone(), found: found.to_owned() }
    }
}
