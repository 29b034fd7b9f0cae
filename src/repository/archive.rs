//! Entries in, a snapshot out, and an account that says whether the one holds the other.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::{SnapshotFile, StringList};
use rustic_core::{BackupOptions, ParentOptions};

use super::audit::audit;
use super::error::RepositoryError;
use super::ledger::Faults;
use super::source::{Shared, Source};
use super::store::{Indexed, Store, hex, library_id};
use super::watched::watched;
use crate::model::cancel::Cancel;
use crate::model::ids::{Digest, PolicyName, RunId, ServiceName, SnapshotId, StackName};
use crate::model::units::ByteSize;

/// What is to become one snapshot.
pub struct ArchiveRequest {
    pub tags: Tags,
    /// The time that the snapshot carries.
    pub at: Timestamp,
    /// Files that are as they were in this snapshot are not read again; streams always are. None reads everything.
    pub parent: Option<SnapshotId>,
    /// Every local file is smaller than [`Store::least_chunk`], and there is no stream.
    pub small_files: bool,
    /// In the order of their paths, component by component: folders before what is in them, names sorted bytewise.
    pub entries: Box<dyn Iterator<Item = Entry> + Send>,
}

/// What a data snapshot is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    pub stack: StackName,
    pub run: RunId,
    pub service: ServiceName,
    pub policy: PolicyName,
}

pub struct Entry {
    /// Absolute in the snapshot: `/shop.db`.
    pub path: PathBuf,
    pub meta: EntryMeta,
    pub kind: EntryKind,
}

/// An extended attribute: its name and its value.
pub type Xattr = (String, Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryMeta {
    /// Permission bits, with set-user-id, set-group-id and sticky; bits of the file's type are ignored.
    pub mode: u32,
    pub mtime: Option<Timestamp>,
    pub atime: Option<Timestamp>,
    /// Not used for streams, which carry the snapshot's own time: see `source`.
    pub ctime: Option<Timestamp>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub inode: u64,
    pub device: u64,
    pub links: u64,
    /// Of a local file: what it had when it was listed; no more is read, and less is an error. Of a stream: its length, from
    /// which a difference is an error; 0 if it is not known. The tree keeps this number, and an older
    /// restic restores an empty file where it is 0 (0.14 does, 0.19 does not): give it wherever it can be known.
    pub size: u64,
    pub xattrs: Vec<Xattr>,
}

pub enum EntryKind {
    Stream(Box<dyn Read + Send>),
    /// Opened only when its turn comes. A symbolic link is not followed.
    LocalFile(PathBuf),
    Folder,
    Symlink(PathBuf),
    Fifo,
    Socket,
    CharDevice(u64),
    BlockDevice(u64),
}

/// A snapshot that holds what was yielded, and what it took.
#[must_use = "the snapshot exists now; whoever drops its id loses it"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    pub snapshot: SnapshotId,
    /// Bytes of packs written for this snapshot, compressed and encrypted.
    pub added: ByteSize,
    /// Files and streams in the snapshot.
    pub files: u64,
    /// Their plain bytes.
    pub bytes: ByteSize,
    /// In order of path.
    pub streams: Vec<StreamAccount>,
    /// Local files that were listed and gone when they were opened.
    pub vanished: Vec<PathBuf>,
}

/// What went through one stream, from its first byte to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAccount {
    pub path: PathBuf,
    pub bytes: ByteSize,
    pub sha256: Digest,
}

impl Tags {
    fn list(&self) -> StringList {
        let Self { stack, run, service, policy } = self;
        tag_list([
            format!("stack:{stack}"),
            format!("run:{run}"),
            format!("service:{service}"),
            format!("policy:{policy}"),
        ])
    }
}

/// Every snapshot of ours has the tag `devstack` first.
pub(super) fn tag_list(tags: impl IntoIterator<Item = String>) -> StringList {
    let mut list = StringList::default();
    list.add("devstack".to_owned());
    tags.into_iter().for_each(|tag| list.add(tag));
    list
}

impl Store {
    /// Stores the entries as one snapshot. The library saves a snapshot without the files whose readers failed, and calls
    /// it good; so the snapshot's tree is compared with what was yielded and read, and deleted where they differ.
    /// `progress` is told the bytes read so far.
    pub fn archive(
        &self,
        request: ArchiveRequest,
        cancel: &Cancel,
        progress: &(dyn Fn(ByteSize) + Sync),
    ) -> Result<Archived, RepositoryError> {
        let ArchiveRequest { tags, at, parent, small_files, entries } = request;
        let indexed = if small_files { self.indexed_for_small_files()? } else { self.indexed()? };
        self.store_into(&indexed, tags.list(), at, parent, entries, cancel, progress)
    }

    pub(super) fn store_entries(
        &self,
        tags: StringList,
        at: Timestamp,
        parent: Option<SnapshotId>,
        entries: Box<dyn Iterator<Item = Entry> + Send>,
        cancel: &Cancel,
        progress: &(dyn Fn(ByteSize) + Sync),
    ) -> Result<Archived, RepositoryError> {
        self.store_into(&*self.indexed()?, tags, at, parent, entries, cancel, progress)
    }

    fn store_into(
        &self,
        indexed: &Indexed,
        tags: StringList,
        at: Timestamp,
        parent: Option<SnapshotId>,
        entries: Box<dyn Iterator<Item = Entry> + Send>,
        cancel: &Cancel,
        progress: &(dyn Fn(ByteSize) + Sync),
    ) -> Result<Archived, RepositoryError> {
        let shared = Arc::new(Shared::new(at, cancel.clone()));
        let source = Source::new(entries, shared.clone());
        let options = BackupOptions::default().no_scan(true).parent_opts(self.parent_options(parent, at)?);
        let saved = watched(&shared.read, progress, || {
            indexed.archive(&options, &source, snapshot_file(tags, at), &[PathBuf::from("/")])
        })
        .map_err(|error| RepositoryError::store("store a snapshot", self.site.path(), error))?;
        let snapshot = SnapshotId::new(hex(&saved.id));
        match self.settle(&saved, &snapshot, &shared, cancel) {
            Ok(archived) => Ok(archived),
            Err(error) => Err(self.discard_after(&snapshot, error)),
        }
    }

    /// Compares the stored tree with the ledger.
    fn settle(
        &self,
        saved: &SnapshotFile,
        snapshot: &SnapshotId,
        shared: &Shared,
        cancel: &Cancel,
    ) -> Result<Archived, RepositoryError> {
        if cancel.is_cancelled() {
            return Err(RepositoryError::Interrupted);
        }
        let mut ledger = shared.close();
        let totals = audit(&mut ledger, &*self.indexed()?, saved.tree);
        if !ledger.faults.is_empty() {
            return Err(ledger.faults.into_error());
        }
        let added = saved.summary.as_ref().map_or(0, |summary| summary.data_added_packed);
        Ok(Archived {
            snapshot: snapshot.clone(),
            added: ByteSize(added),
            files: totals.files,
            bytes: ByteSize(totals.bytes),
            streams: ledger.streams.into_values().collect(),
            vanished: ledger.vanished,
        })
    }

    fn discard_after(&self, snapshot: &SnapshotId, error: RepositoryError) -> RepositoryError {
        match (self.discard(snapshot), error) {
            (Ok(()), error) => error,
            (Err(failed), RepositoryError::Incomplete { findings, more, changed }) => {
                let mut faults = Faults::from_findings(findings, more, changed);
                let why =
                    format!("its snapshot {snapshot} could not be deleted ({failed}); it belongs to no sealed run");
                faults.add(Path::new("/"), &why, false);
                faults.into_error()
            }
            (Err(_), error) => error,
        }
    }

    /// A stream must never match the parent's entry of its name, which would keep its old content unread. Entries match by
    /// type, size, mtime and ctime; a stream's ctime is its snapshot's time, so that only a parent of the same time could
    /// match: such a parent is not used.
    fn parent_options(&self, parent: Option<SnapshotId>, at: Timestamp) -> Result<ParentOptions, RepositoryError> {
        let options = ParentOptions::default();
        let Some(parent) = parent else { return Ok(options.force(true)) };
        let failed = |error| RepositoryError::store("read the parent snapshot", self.site.path(), error);
        let id = library_id(parent.as_str()).map_err(failed)?;
        let file: SnapshotFile = self.repository.get_file(&id).map_err(failed)?;
        if file.time.timestamp() == at {
            return Ok(options.force(true));
        }
        Ok(options.parents(vec![parent.to_string()]))
    }
}

fn snapshot_file(tags: StringList, at: Timestamp) -> SnapshotFile {
    let uid = rustix::process::getuid().as_raw();
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    SnapshotFile {
        time: at.to_zoned(TimeZone::system()),
        // The default says that the library wrote it.
        program_version: format!("devstack {}", env!("CARGO_PKG_VERSION")),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        username: user.unwrap_or_else(|_| uid.to_string()),
        uid,
        gid: rustix::process::getgid().as_raw(),
        tags,
        ..SnapshotFile::default()
    }
}
