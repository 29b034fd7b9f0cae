//! Every file of a repository hashed against its name: damage is found without a key, and before a key is blamed for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use super::disk::{UNFINISHED, hash_file};
use super::error::RepositoryError;
use super::site::Site;
use super::watched::{watched, workers};
use crate::model::cancel::Cancel;
use crate::model::units::ByteSize;

/// Which files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    Key,
    Snapshot,
    Index,
    /// The packs whose ids begin with this byte.
    Pack(u8),
    /// Not hashed, since it is not named by its hash: it must be there and not be empty.
    Config,
}

impl FileKind {
    /// All packs, in 256 parts.
    pub fn packs() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self::Pack)
    }

    fn folder(self) -> String {
        match self {
            Self::Key => "keys".to_owned(),
            Self::Snapshot => "snapshots".to_owned(),
            Self::Index => "index".to_owned(),
            Self::Pack(part) => format!("data/{}", hex::encode([part])),
            Self::Config => String::new(),
        }
    }
}

/// A file of the repository that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub kind: FileKind,
    /// The file's name: its id, where it has one.
    pub name: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Missing,
    Empty,
    /// The error of the system.
    Unreadable(String),
    HashMismatch,
    /// It is in a folder where its name does not belong, or its name is no id.
    WrongName,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = Path::new(&self.kind.folder()).join(&self.name);
        let what = match &self.what {
            What::Missing => "is missing",
            What::Empty => "is empty",
            What::Unreadable(why) => return write!(f, "{} cannot be read: {why}", file.display()),
            What::HashMismatch => "does not have the hash that is its name",
            What::WrongName => "is not a name that belongs there",
        };
        write!(f, "{} {what}", file.display())
    }
}

/// One piece of a file at a time, large enough to keep a disk busy.
const PIECE: usize = 1 << 20;

impl Site {
    /// Hashes every file of the kinds in `what` against its name, on all cores. The config is looked at in any case.
    /// `progress` is told the bytes read so far.
    pub fn hash_files(
        &self,
        what: &[FileKind],
        progress: &dyn Fn(ByteSize),
        cancel: &Cancel,
    ) -> Result<Vec<Damage>, RepositoryError> {
        let mut damages = self.look_over_config()?;
        let mut files = Vec::new();
        for kind in what {
            self.list_files(*kind, &mut files, &mut damages)?;
        }
        if what.contains(&FileKind::Key) {
            damages.extend(self.orphaned_sidecars()?.into_iter().map(|id| Damage {
                kind: FileKind::Key,
                name: id,
                what: What::Missing,
            }));
        }
        let (read, next) = (AtomicU64::new(0), AtomicUsize::new(0));
        let found = Mutex::new(Vec::new());
        let work = || {
            let mut buffer = vec![0; PIECE];
            let mut each = |count| {
                read.fetch_add(count, Ordering::Relaxed);
                cancel.check()
            };
            while let Some((kind, path)) = files.get(next.fetch_add(1, Ordering::Relaxed))
                && !cancel.is_cancelled()
            {
                if let Some(damage) = hash_one(*kind, path, &mut buffer, &mut each) {
                    found.lock().unwrap_or_else(|poison| poison.into_inner()).push(damage);
                }
            }
        };
        watched(&read, progress, || {
            thread::scope(|scope| (0..workers()).for_each(|_| drop(scope.spawn(work))));
        });
        if cancel.is_cancelled() {
            return Err(RepositoryError::Interrupted);
        }
        damages.extend(found.into_inner().unwrap_or_else(|poison| poison.into_inner()));
        damages.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(damages)
    }

    fn look_over_config(&self) -> Result<Vec<Damage>, RepositoryError> {
        let config = |what| vec![Damage { kind: FileKind::Config, name: "config".to_owned(), what }];
        match fs::read(self.path().join("config")) {
            Ok(bytes) if bytes.is_empty() => Ok(config(What::Empty)),
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(config(What::Missing)),
            Err(error) => Ok(config(What::Unreadable(error.to_string()))),
        }
    }

    fn list_files(
        &self,
        kind: FileKind,
        files: &mut Vec<(FileKind, PathBuf)>,
        damages: &mut Vec<Damage>,
    ) -> Result<(), RepositoryError> {
        if kind == FileKind::Config {
            return Ok(());
        }
        let folder = self.path().join(kind.folder());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A part of the packs without a folder holds none; whether one is missing, the index tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(kind, FileKind::Pack(_)) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                damages.push(Damage { kind, name: String::new(), what: What::Missing });
                return Ok(());
            }
            Err(source) => return Err(self.io("list", &folder, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| self.io("list", &folder, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let belongs = match kind {
                FileKind::Pack(part) => name.starts_with(&hex::encode([part])),
                FileKind::Key | FileKind::Snapshot | FileKind::Index | FileKind::Config => true,
            };
            if belongs && name.len() == 64 && hex::decode(&name).is_ok() {
                files.push((kind, entry.path()));
            } else if !name.contains(UNFINISHED) {
                damages.push(Damage { kind, name, what: What::WrongName });
            }
        }
        Ok(())
    }
}

fn hash_one(
    kind: FileKind,
    path: &Path,
    buffer: &mut [u8],
    each: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Option<Damage> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = match path.symlink_metadata() {
        Ok(meta) if meta.len() == 0 => What::Empty,
        Ok(_) => match hash_file(path, buffer, each) {
            Ok(digest) if digest == name => return None,
            Ok(_) => What::HashMismatch,
            Err(error) => What::Unreadable(error.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => What::Missing,
        Err(error) => What::Unreadable(error.to_string()),
    };
    Some(Damage { kind, name, what })
}
