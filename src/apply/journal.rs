//! The journal: what applies on this machine did, one JSON object a line, in `.devstack/journal.jsonl`. It serves
//! progress, time estimates and `devstack log`. The truth lives in the repositories: losing this file loses no backup.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::model::history::History;
use crate::model::ids::{RepositoryId, RepositoryName};

mod compaction;
mod record;

pub use record::{ApplyId, Counts, Ended, Entry, JOURNAL_FORMAT, JournalRecord};

/// The journal's file in its folder.
pub const FILE: &str = "journal.jsonl";
const LOCK_FILE: &str = "journal.lock";
const ROOM_FILE: &str = "journal.room";

/// Above this the older half goes: some 50,000 steps, which are years of a small stack, read in a few 100 ms.
const LARGEST: u64 = 16 << 20;

/// How many measured times are kept for each sample key: enough for a fit, few enough to follow a machine that changes.
const SAMPLES: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(
        "the journal {path:?} could not be {act}: make room or set its permissions right, or delete it: no backup is lost by that"
    )]
    Io {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a record of the journal {path:?} could not be written as JSON; this is a fault of devstack")]
    Encode {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// What was read of a journal, and what could not be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// Oldest first.
    pub records: Vec<JournalRecord>,
    /// Whole lines that are not records of this format.
    pub unreadable: usize,
    /// The last line has no end: a process was killed while writing it, or is writing it now.
    pub torn: bool,
}

/// An open journal. Clones write to the same file; so may other processes, each record whole.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
    largest: u64,
    /// None for one that is not written.
    file: Option<Arc<Mutex<File>>>,
}

/// More than the records of a small apply take.
const RESERVE: usize = 16 << 10;

impl Journal {
    /// Opens or makes the journal in `folder` (the stack's `.devstack/`). A torn last line is cut off, with a warning.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        Self::open_with(folder, LARGEST)
    }

    /// As [`Self::open`], with room for what comes. A disk that fills up later ends an apply; one that is full already, or can't be
    /// written at all, is found here, before anything was begun.
    pub fn open_with_room(folder: &Path) -> Result<Self, JournalError> {
        let journal = Self::open(folder)?;
        journal.must_have_room()?;
        Ok(journal)
    }

    /// A journal that nobody writes: what cannot be kept in `folder` hinders no work.
    pub fn nowhere(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), largest: LARGEST, file: None }
    }

    pub fn is_nowhere(&self) -> bool {
        self.file.is_none()
    }

    fn must_have_room(&self) -> Result<(), JournalError> {
        let path = self.folder.join(ROOM_FILE);
        let written =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).and_then(|mut file| {
                file.write_all(&[0; RESERVE])?;
                file.sync_all()
            });
        // Whatever came of it.
        let _ = fs::remove_file(&path);
        written.map_err(failed("given room", &self.path()))
    }

    fn open_with(folder: &Path, largest: u64) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("made", folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed("made private", folder))?;
        let _lock = lock(folder)?;
        let file = open_file(&path)?;
        repair(&file, &path)?;
        compaction::compact_if_larger(&path, largest)?;
        let file = open_file(&path)?;
        sync(folder)?;
        Ok(Self { folder: folder.to_owned(), largest, file: Some(Arc::new(Mutex::new(file))) })
    }

    /// Appends one record, with one write, and syncs it to the disk before it returns.
    pub fn append(&self, apply: Option<&ApplyId>, entry: Entry) -> Result<(), JournalError> {
        let Some(file) = &self.file else { return Ok(()) };
        let path = self.path();
        let record = JournalRecord::now(apply.cloned(), entry);
        let mut line =
            serde_json::to_vec(&record).map_err(|source| JournalError::Encode { path: path.clone(), source })?;
        line.push(b'\n');

        // A panic elsewhere cannot leave a file handle half changed, so a poisoned lock is as good as another.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = lock(&self.folder)?;
        self.reopen_if_replaced(&mut file)?;
        let before = file.metadata().map_err(failed("looked at", &path))?.len();
        if let Err(error) = write_once(&mut file, &line) {
            // Half a line would swallow the next record. If even this fails, the next open cuts it off.
            file.set_len(before).map_err(failed("cut back after a failed write", &path))?;
            return Err(failed("written", &path)(error));
        }
        file.sync_data().map_err(failed("synced", &path))?;
        if before > self.largest {
            compaction::compact_if_larger(&path, self.largest)?;
        }
        Ok(())
    }

    /// Remembers that a repository was made or opened, once for each id: if it is gone one day, it is not made anew
    /// without a word.
    pub fn note_repository(&self, name: &RepositoryName, id: &RepositoryId) -> Result<(), JournalError> {
        if self.is_nowhere() || Self::history(&self.folder)?.known_repositories.get(name) == Some(id) {
            return Ok(());
        }
        self.append(None, Entry::RepositoryKnown { name: name.clone(), id: id.clone() })
    }

    /// Every record that can be read. Takes no lock and changes nothing; a journal that is not there is an empty one.
    pub fn read(folder: &Path) -> Result<Contents, JournalError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Contents::default()),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// What the planner may know of earlier applies.
    pub fn history(folder: &Path) -> Result<History, JournalError> {
        Ok(record::history_of(&Self::read(folder)?.records, Timestamp::now()))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Another process may have compacted the journal, or somebody deleted it: a record written to the old file would
    /// be lost.
    fn reopen_if_replaced(&self, file: &mut File) -> Result<(), JournalError> {
        let path = self.path();
        let ours = file.metadata().map_err(failed("looked at", &path))?;
        let same = fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev());
        if !same {
            *file = open_file(&path)?;
        }
        Ok(())
    }
}

fn failed<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { act, path: path.to_owned(), source }
}

fn open_file(path: &Path) -> Result<File, JournalError> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let file = file.map_err(failed("opened", path))?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed("made private", path))?;
    Ok(file)
}

fn sync(folder: &Path) -> Result<(), JournalError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("synced", folder))
}

/// One writer at a time, among processes as well: a repair or compaction beside an append would lose the record. The
/// lock goes with the handle, so also with a kill. It is a file of its own because compaction replaces the journal.
fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(failed("locked", &path))?;
    file.lock().map_err(failed("locked", &path))?;
    Ok(file)
}

/// A single write call: a kill leaves the whole record or a torn one, never two mixed.
fn write_once(file: &mut File, line: &[u8]) -> io::Result<()> {
    let written = file.write(line)?;
    if written == line.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::WriteZero, format!("only {written} of {} bytes were written", line.len())))
    }
}

/// Cuts the journal back to its last whole line.
fn repair(file: &File, path: &Path) -> Result<(), JournalError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole == bytes.len() {
        return Ok(());
    }
    tracing::warn!("{path:?}: the last record was torn by a kill; its {} bytes are dropped", bytes.len() - whole);
    file.set_len(whole as u64).map_err(failed("repaired", path))?;
    file.sync_all().map_err(failed("synced", path))
}

fn parse(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\n") {
            contents.torn = true;
        } else if let Some(record) = JournalRecord::parse(line) {
            contents.records.push(record);
        } else {
            contents.unreadable += 1;
        }
    }
    contents
}

#[cfg(test)]
mod tests;
