//! The repository's files on local disk, as rustic_core reads and writes them. rustic_backend's own local backend logs an
//! error while listing and goes on with a shorter list: to a prune, snapshots that could not be listed are snapshots that
//! are gone. This one fails instead. It also syncs the folder after each rename and checks small files against their names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustic_core::{BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend};
use sha2::{Digest, Sha256};

use super::objects::{LocalObjects, Objects};

/// What restic calls its unfinished files, so that both programs know them for leftovers.
pub(super) const UNFINISHED: &str = "-tmp-";

#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
    /// Only this key is listed: trying the others would cost 0.4 s each.
    shown_key: Option<Id>,
    /// Written under the id of the next key, before that key.
    sidecar: Option<Sidecar>,
    /// Settings that hold for one session only: writing the config succeeds and changes nothing.
    config_is_fixed: bool,
    /// Damaged files, by their ids: not listed, so that what is whole can be read around them.
    hidden: Arc<BTreeSet<String>>,
    /// The folder of the locks stands for that of the snapshots.
    locks_for_snapshots: bool,
}

/// The encrypted copy of a key's password.
#[derive(Debug, Clone)]
pub(super) struct Sidecar {
    pub extension: &'static str,
    pub bytes: Vec<u8>,
}

/// Carried through rustic_core's errors, so that damage is told from other failures.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub(super) struct DamagedFile {
    pub path: PathBuf,
    pub why: &'static str,
}

impl Disk {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            shown_key: None,
            sidecar: None,
            config_is_fixed: false,
            hidden: Arc::default(),
            locks_for_snapshots: false,
        }
    }

    pub fn hiding(self, hidden: Arc<BTreeSet<String>>) -> Self {
        Self { hidden, ..self }
    }

    /// For reading locks, which the library has no kind of file for.
    pub fn with_locks_for_snapshots(self) -> Self {
        Self { locks_for_snapshots: true, ..self }
    }

    pub fn with_fixed_config(self) -> Self {
        Self { config_is_fixed: true, ..self }
    }

    pub fn showing_key(self, id: Id) -> Self {
        Self { shown_key: Some(id), ..self }
    }

    pub fn with_sidecar(self, sidecar: Option<Sidecar>) -> Self {
        Self { sidecar, ..self }
    }

    pub fn path(&self, kind: FileType, id: &Id) -> PathBuf {
        let hex = id.to_hex();
        match kind {
            FileType::Config => self.root.join("config"),
            FileType::Pack => self.root.join("data").join(&hex[..2]).join(&*hex),
            FileType::Snapshot if self.locks_for_snapshots => self.root.join("locks").join(&*hex),
            FileType::Index | FileType::Key | FileType::Snapshot => self.root.join(kind.dirname()).join(&*hex),
        }
    }

    /// Every file of a kind with its path. A folder that is missing is an error: it is not the same as an empty one.
    fn files(&self, kind: FileType) -> io::Result<Vec<(Id, PathBuf)>> {
        let mut files = Vec::new();
        match kind {
            FileType::Config => match self.root.join("config").symlink_metadata() {
                Ok(_) => files.push((Id::default(), self.root.join("config"))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            },
            FileType::Pack => {
                for part in fs::read_dir(self.root.join("data"))? {
                    let part = part?;
                    if part.file_type()?.is_dir() {
                        collect(&part.path(), &mut files)?;
                    }
                }
            }
            FileType::Index | FileType::Key | FileType::Snapshot => {
                collect(&self.root.join(kind.dirname()), &mut files)?;
            }
        }
        if kind == FileType::Key && self.shown_key.is_some() {
            files.retain(|(id, _)| Some(*id) == self.shown_key);
        }
        if !self.hidden.is_empty() {
            files.retain(|(id, _)| !self.hidden.contains(&*id.to_hex()));
        }
        Ok(files)
    }

    fn write(&self, kind: FileType, id: &Id, content: BytesList) -> io::Result<()> {
        if kind == FileType::Config && self.config_is_fixed {
            return Ok(());
        }
        let path = self.path(kind, id);
        let folder = path.parent().unwrap_or(&self.root);
        if let (FileType::Key, Some(sidecar)) = (kind, &self.sidecar) {
            // Before its key: a sidecar without a key is harmless, a key whose password nobody has is not.
            let name = format!("keys/{}.{}", &*id.to_hex(), sidecar.extension);
            LocalObjects::new(&self.root).replace(&name, &sidecar.bytes)?;
        }
        if !folder.is_dir() {
            create_folder(folder)?;
        }
        let mut unique = [0_u8; 8];
        getrandom::fill(&mut unique).map_err(io::Error::other)?;
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(format!("{UNFINISHED}{}", hex::encode(unique)));
        let written = write_file(Path::new(&unfinished), content).and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = written {
            // Best effort: the error that matters is the first, and prune sweeps leftovers.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::File::open(folder)?.sync_all()
    }

    fn remove_file(&self, kind: FileType, id: &Id) -> io::Result<()> {
        let path = self.path(kind, id);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        match (kind, path.parent()) {
            // Their order of deletion has a meaning (manifest first, key before sidecar) and must survive a power cut.
            (FileType::Key | FileType::Snapshot | FileType::Index, Some(folder)) => fs::File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }
}

fn collect(folder: &Path, into: &mut Vec<(Id, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What is not named by an id is no repository file: an unfinished one, or somebody else's.
        if let Some(Ok(id)) = entry.file_name().to_str().map(str::parse::<Id>)
            && entry.file_type()?.is_file()
        {
            into.push((id, entry.path()));
        }
    }
    Ok(())
}

pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn write_file(path: &Path, content: BytesList) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for piece in content.slice() {
        file.write_all(piece)?;
    }
    file.sync_all()
}

fn failed(act: &str, path: &Path, error: io::Error) -> Box<RusticError> {
    RusticError::with_source(ErrorKind::Backend, format!("cannot {act} {}", path.display()), error)
}

fn damaged(path: &Path, why: &'static str) -> Box<RusticError> {
    let file = DamagedFile { path: path.to_owned(), why };
    RusticError::with_source(ErrorKind::Verification, file.to_string(), file)
}

impl ReadBackend for Disk {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let folder = self.root.join(kind.dirname());
        let files = self.files(kind).map_err(|error| failed("list", &folder, error))?;
        let mut sized = Vec::with_capacity(files.len());
        for (id, path) in files {
            let meta = path.symlink_metadata().map_err(|error| failed("look at", &path, error))?;
            let size =
                u32::try_from(meta.len()).map_err(|_| damaged(&path, "larger than any repository file can be"))?;
            sized.push((id, size));
        }
        Ok(sized)
    }

    fn list(&self, kind: FileType) -> RusticResult<Vec<Id>> {
        let folder = self.root.join(kind.dirname());
        let files = self.files(kind).map_err(|error| failed("list", &folder, error))?;
        Ok(files.into_iter().map(|(id, _)| id).collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let path = self.path(kind, id);
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, error))?;
        // The config is the one file that is not named by its hash.
        if kind != FileType::Config && hex::encode(Sha256::digest(&bytes)) != *id.to_hex() {
            return Err(damaged(&path, "its content does not have the hash that is its name"));
        }
        Ok(bytes.into())
    }

    fn read_partial(&self, kind: FileType, id: &Id, _: bool, offset: u32, length: u32) -> RusticResult<Bytes> {
        let path = self.path(kind, id);
        let read = || {
            let mut bytes = vec![0; length as usize];
            fs::File::open(&path)?.read_exact_at(&mut bytes, offset.into())?;
            Ok(bytes.into())
        };
        read().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&path, "shorter than the index says"),
            io::ErrorKind::NotFound => damaged(&path, "missing"),
            _ => failed("read", &path, error),
        })
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.path(kind, id).display().to_string()
    }
}

impl WriteBackend for Disk {
    fn create(&self) -> RusticResult<()> {
        let folders = ["keys", "snapshots", "index", "locks"].map(|name| self.root.join(name));
        let parts = (0..=u8::MAX).map(|part| self.root.join("data").join(hex::encode([part])));
        for folder in folders.into_iter().chain(parts) {
            create_folder(&folder).map_err(|error| failed("create", &folder, error))?;
        }
        Ok(())
    }

    fn write_bytes(&self, kind: FileType, id: &Id, _: bool, content: BytesList) -> RusticResult<()> {
        self.write(kind, id, content).map_err(|error| failed("write", &self.path(kind, id), error))
    }

    fn remove(&self, kind: FileType, id: &Id, _: bool) -> RusticResult<()> {
        self.remove_file(kind, id).map_err(|error| failed("delete", &self.path(kind, id), error))
    }
}

/// SHA-256 of a file, a piece at a time; `each` is told of every piece and may stop it.
pub(super) fn hash_file(
    path: &Path,
    buffer: &mut [u8],
    each: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(hex::encode(hash.finalize())),
            Ok(count) => {
                hash.update(&buffer[..count]);
                each(count as u64)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
