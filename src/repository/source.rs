//! Entries as the library reads them. Each reader keeps its own account, since the library only logs one that fails; each
//! fills the caller's buffer, since a short read makes the library's chunker read in pieces of that size from then on.

use std::fs;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult};
use sha2::{Digest as _, Sha256};

use super::archive::{Entry, EntryKind, EntryMeta, StreamAccount};
use super::ledger::{Kind, Ledger, State};
use super::listing::{attributes, go_mode};
use crate::model::cancel::Cancel;
use crate::model::ids::Digest;
use crate::model::units::ByteSize;

/// The chunker asks for 4 KiB at a time; the source is asked for this much.
const BUFFER: usize = 1 << 20;

/// What the readers of one archive share.
pub(super) struct Shared {
    ledger: Mutex<Ledger>,
    /// Plain bytes read so far.
    pub read: AtomicU64,
    cancel: Cancel,
    at: Timestamp,
}

impl Shared {
    pub fn new(at: Timestamp, cancel: Cancel) -> Self {
        Self { ledger: Mutex::default(), read: AtomicU64::new(0), cancel, at }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The finished ledger; an empty one is left.
    pub fn close(&self) -> Ledger {
        std::mem::take(&mut *self.ledger())
    }
}

type EntryIterator = Box<dyn Iterator<Item = Entry> + Send>;

pub(super) struct Source {
    entries: Mutex<Option<EntryIterator>>,
    shared: Arc<Shared>,
}

impl Source {
    pub fn new(entries: EntryIterator, shared: Arc<Shared>) -> Self {
        Self { entries: Mutex::new(Some(entries)), shared }
    }
}

impl ReadSource for Source {
    type Open = Opening;
    type Iter = Entries;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    /// The entries can be had once. A second call would give none, and the audit would miss all of them.
    fn entries(&self) -> Entries {
        let entries = self.entries.lock().unwrap_or_else(|poison| poison.into_inner()).take();
        Entries { entries: entries.unwrap_or_else(|| Box::new(std::iter::empty())), shared: self.shared.clone() }
    }
}

pub(super) struct Entries {
    entries: EntryIterator,
    shared: Arc<Shared>,
}

impl Iterator for Entries {
    type Item = RusticResult<ReadSourceEntry<Opening>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.shared.cancel.is_cancelled() {
                return None;
            }
            let Entry { path, meta, kind } = self.entries.next()?;
            let (listed, size) = match &kind {
                EntryKind::LocalFile(_) => (Kind::File, meta.size),
                EntryKind::Stream(_) => (Kind::Stream, 0),
                EntryKind::Folder => (Kind::Folder, 0),
                EntryKind::Symlink(_) => (Kind::Symlink, 0),
                EntryKind::Fifo => (Kind::Fifo, 0),
                EntryKind::Socket => (Kind::Socket, 0),
                EntryKind::CharDevice(_) => (Kind::CharDevice, 0),
                EntryKind::BlockDevice(_) => (Kind::BlockDevice, 0),
            };
            // One that may not be listed has its fault in the ledger, and the archive fails in the end.
            if let Some(row) = self.shared.ledger().list(&path, listed, size) {
                return Some(Ok(self.hand_over(path, meta, kind, row)));
            }
        }
    }
}

impl Entries {
    fn hand_over(&self, path: PathBuf, meta: EntryMeta, kind: EntryKind, row: usize) -> ReadSourceEntry<Opening> {
        let size = meta.size;
        let xattrs = attributes(&meta.xattrs).unwrap_or_else(|error| {
            let what = format!("has extended attributes that cannot be stored: {error}");
            self.shared.ledger().faults.add(&path, &what, false);
            Vec::new()
        });
        let mut metadata = Metadata { extended_attributes: xattrs, ..metadata(meta, &kind) };
        let mut content = None;
        let node_type = match kind {
            EntryKind::Stream(stream) => {
                // Makes it differ from the parent's entry of the same name, whose content would else be kept unread.
                metadata.ctime = Some(self.shared.at);
                content = Some(Content::Stream { stream, size });
                NodeType::File
            }
            EntryKind::LocalFile(file) => {
                content = Some(Content::File { file, size });
                NodeType::File
            }
            EntryKind::Folder => NodeType::Dir,
            EntryKind::Symlink(target) => NodeType::from_link(&target),
            EntryKind::Fifo => NodeType::Fifo,
            EntryKind::Socket => NodeType::Socket,
            EntryKind::CharDevice(device) => NodeType::Chardev { device },
            EntryKind::BlockDevice(device) => NodeType::Dev { device },
        };
        let node = Node::new_node(path.file_name().unwrap_or_default(), node_type, metadata);
        let open = content.map(|content| Opening { content, path: path.clone(), row, shared: self.shared.clone() });
        ReadSourceEntry { path, node, open }
    }
}

fn metadata(meta: EntryMeta, kind: &EntryKind) -> Metadata {
    Metadata {
        mode: Some(go_mode(meta.mode, kind)),
        mtime: meta.mtime,
        atime: meta.atime,
        ctime: meta.ctime,
        uid: meta.uid,
        gid: meta.gid,
        user: meta.user,
        group: meta.group,
        inode: meta.inode,
        device_id: meta.device,
        size: meta.size,
        links: meta.links,
        extended_attributes: Vec::new(),
    }
}

enum Content {
    Stream { stream: Box<dyn Read + Send>, size: u64 },
    File { file: PathBuf, size: u64 },
}

/// A file or stream before its first byte.
pub(super) struct Opening {
    content: Content,
    path: PathBuf,
    row: usize,
    shared: Arc<Shared>,
}

impl ReadSourceOpen for Opening {
    type Reader = Accounted;

    fn open(self) -> RusticResult<Accounted> {
        let Self { content, path, row, shared } = self;
        let hash = matches!(content, Content::Stream { .. }).then(Sha256::new);
        let (inner, size): (Box<dyn Read + Send>, _) = match content {
            Content::Stream { stream, size } => {
                // Zero is unknown: any length is right.
                (Box::new(BufReader::with_capacity(BUFFER, stream)), Some(size).filter(|size| *size > 0))
            }
            Content::File { file, size } => match open_file(&file) {
                Ok(file) => {
                    let capacity = usize::try_from(size).unwrap_or(BUFFER).clamp(4096, BUFFER);
                    // No more than it had when it was listed: what grows is stored as it was at that moment.
                    (Box::new(BufReader::with_capacity(capacity, file.take(size))), Some(size))
                }
                Err(error) => return Err(refuse(&shared, row, &path, error)),
            },
        };

        shared.ledger().rows[row].state = State::Reading;
        Ok(Accounted { inner, path, row, shared, size, hash, bytes: 0, done: false })
    }
}

/// Without following a link that took the file's place, and without waiting for the other end of a pipe that did.
fn open_file(path: &Path) -> io::Result<fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file any more")),
    }
}

fn refuse(shared: &Shared, row: usize, path: &Path, error: io::Error) -> Box<RusticError> {
    let mut ledger = shared.ledger();
    if error.kind() == io::ErrorKind::NotFound {
        ledger.rows[row].state = State::Vanished;
        ledger.vanished.push(path.to_owned());
    } else {
        ledger.rows[row].state = State::Failed;
        ledger.faults.add(path, &format!("cannot be opened: {error}"), false);
    }
    RusticError::with_source(ErrorKind::InputOutput, "cannot open a source", error)
}

/// Counts, hashes and ends; what it saw is in the ledger when the library drops it.
pub(super) struct Accounted {
    inner: Box<dyn Read + Send>,
    path: PathBuf,
    row: usize,
    shared: Arc<Shared>,
    /// What it must have at its end, where that is known.
    size: Option<u64>,
    /// Of a stream.
    hash: Option<Sha256>,
    bytes: u64,
    done: bool,
}

impl Read for Accounted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && !self.done {
            if let Err(error) = self.shared.cancel.check() {
                return Err(self.fail(error, false));
            }
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => self.end()?,
                Ok(count) => {
                    if let Some(hash) = &mut self.hash {
                        hash.update(&buffer[filled..filled + count]);
                    }
                    self.bytes += count as u64;
                    self.shared.read.fetch_add(count as u64, Ordering::Relaxed);
                    filled += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fail(error, false)),
            }
        }
        Ok(filled)
    }
}

impl Accounted {
    fn end(&mut self) -> io::Result<()> {
        if let Some(size) = self.size.filter(|size| *size != self.bytes) {
            let why = format!("gave {} bytes and had {size} when it was listed", self.bytes);
            return Err(self.fail(io::Error::other(why), true));
        }
        self.done = true;
        let mut ledger = self.shared.ledger();
        ledger.rows[self.row].state = State::Ended;
        ledger.rows[self.row].bytes = self.bytes;
        if let Some(hash) = self.hash.take() {
            let sha256 = Digest::new(hex::encode(hash.finalize()));
            let account = StreamAccount { path: self.path.clone(), bytes: ByteSize(self.bytes), sha256 };
            ledger.streams.insert(self.row, account);
        }
        Ok(())
    }

    fn fail(&mut self, error: io::Error, changed: bool) -> io::Error {
        let mut ledger = self.shared.ledger();
        if ledger.rows[self.row].state != State::Failed {
            ledger.rows[self.row].state = State::Failed;
            let what = if changed { error.to_string() } else { format!("cannot be read: {error}") };
            ledger.faults.add(&self.path, &what, changed);
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, as a slow pipe may.
    struct Dripping(usize);

    impl Read for Dripping {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.min(1).min(buffer.len());
            buffer[..count].fill(b'y');
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn every_read_but_the_last_fills_the_callers_buffer() {
        let shared = Arc::new(Shared::new(Timestamp::UNIX_EPOCH, Cancel::new()));
        let path = PathBuf::from("/s");
        let row = shared.ledger().list(&path, Kind::Stream, 0).unwrap();
        let content = Content::Stream { stream: Box::new(Dripping(10_000)), size: 0 };
        let mut reader = Opening { content, path, row, shared: shared.clone() }.open().unwrap();
        let mut buffer = [0; 4096];
        let counts: Vec<_> = (0..4).map(|_| reader.read(&mut buffer).unwrap()).collect();
        assert_eq!(counts, [4096, 4096, 10_000 - 8192, 0]);
        assert_eq!(shared.close().streams[&row].bytes, ByteSize(10_000));
    }
}
