//! A tree back on disk. Every step is taken from an open folder by a plain name, never through a path, so that no symbolic
//! link, restored or found there, leads outside of the target. Hard links come back as files of their own; extended
//! attributes of symbolic links are not restored.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{DataId, TreeId};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use xattr::FileExt as _;

use super::chunks;
use super::error::RepositoryError;
use super::listing::unix_mode;
use super::reader::{Reader, content};
use super::sparse::SparseFile;
use super::watched::{watched, workers};
use crate::model::cancel::Cancel;
use crate::model::ids::SnapshotId;
use crate::model::units::ByteSize;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// This entry of the snapshot and what is beneath it, at its own path in the target; its folders' metadata too.
    pub only: Option<PathBuf>,
    /// Only what is beneath this folder of the snapshot; the target stands for it and keeps its own metadata.
    pub beneath: Option<PathBuf>,
    /// Give files their owner and group. Without the right to, each that differs is counted as skipped.
    pub ownership: bool,
    /// What is there under an entry's name stays as it is, a folder with its own metadata. What is of another kind is an error.
    pub keep: bool,
}

#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    pub files: u64,
    /// Plain bytes of the files.
    pub bytes: ByteSize,
    /// Entries that kept the restoring user as their owner, and attributes of the system that it may not set.
    pub skipped_ownership: u64,
    /// Files that were there and stayed.
    pub kept: u64,
    /// Where things lie now that were of another kind than the entry of their name: a folder where a file is to be, or the reverse.
    pub aside: Vec<PathBuf>,
}

/// From this many chunks on, a file's chunks are read ahead in parallel; below, whole files go side by side.
const LARGE: usize = 16;

impl Reader {
    /// Restores into `to`, which is created where it is missing. What is there already is replaced where the snapshot has
    /// an entry of its name, and else left. `progress` is told the plain bytes written so far.
    pub fn restore_tree(
        &self,
        snapshot: &SnapshotId,
        to: &Path,
        options: &RestoreOptions,
        cancel: &Cancel,
        progress: &dyn Fn(ByteSize),
    ) -> Result<Restored, RepositoryError> {
        let tree = match &options.beneath {
            None => self.snapshot(snapshot)?.tree,
            Some(folder) => {
                let path = folder.to_string_lossy();
                let missing = || RepositoryError::NoSuchPath { snapshot: snapshot.clone(), path: path.to_string() };
                self.node(snapshot, &path)?.subtree.ok_or_else(missing)?
            }
        };
        if let Some(only) = &options.only {
            self.node(snapshot, &only.to_string_lossy())?;
        }
        let at = |source| RepositoryError::Restore { path: to.to_owned(), source };
        fs::create_dir_all(to).map_err(at)?;
        let root = rustix::fs::open(to, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|error| at(error.into()))?;
        let restore = Restore {
            reader: self,
            snapshot,
            options,
            cancel,
            written: AtomicU64::new(0),
            files: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            aside: Mutex::default(),
            failed: Mutex::new(None),
        };
        let lent = lend(&root).map_err(at)?;
        watched(&restore.written, progress, || restore.run(tree, root, lent));
        match restore.failed.into_inner().unwrap_or_else(|poison| poison.into_inner()) {
            Some(error) => Err(error),
            None if cancel.is_cancelled() => Err(RepositoryError::Interrupted),
            None => Ok(Restored {
                files: restore.files.into_inner(),
                bytes: ByteSize(restore.written.into_inner()),
                skipped_ownership: restore.skipped.into_inner(),
                kept: restore.kept.into_inner(),
                aside: restore.aside.into_inner().unwrap_or_else(|poison| poison.into_inner()),
            }),
        }
    }
}

/// A folder that is being filled. It is held by all that is to be written into it, and by the folders in it: whoever drops
/// it last gives it its mode and times. Earlier, the next file would change its time, or might not be let in.
struct Folder<'a> {
    fd: OwnedFd,
    path: PathBuf,
    /// None for the target itself, which keeps its own.
    meta: Option<Metadata>,
    /// The mode that it had, where its owner had to be let in first.
    lent: Option<Mode>,
    _within: Option<Arc<Folder<'a>>>,
    restore: &'a Restore<'a>,
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if let Some(meta) = self.meta.take().filter(|_| !self.restore.stopped()) {
            self.restore.note(self.restore.finish_folder(&self.fd, &self.path, &meta));
        } else if let Some(mode) = self.lent {
            let at =
                |error: rustix::io::Errno| RepositoryError::Restore { path: self.path.clone(), source: error.into() };
            self.restore.note(rustix::fs::fchmod(&self.fd, mode).map_err(at));
        }
    }
}

/// A file on its way to a worker: its folder, its path for messages, its node.
type Job<'a> = (Arc<Folder<'a>>, PathBuf, Node);

struct Restore<'a> {
    reader: &'a Reader,
    snapshot: &'a SnapshotId,
    options: &'a RestoreOptions,
    cancel: &'a Cancel,
    written: AtomicU64,
    files: AtomicU64,
    kept: AtomicU64,
    skipped: AtomicU64,
    aside: Mutex<Vec<PathBuf>>,
    /// The first error; it stops the others.
    failed: Mutex<Option<RepositoryError>>,
}

impl Restore<'_> {
    fn run<'a>(&'a self, tree: TreeId, root: OwnedFd, lent: Option<Mode>) {
        thread::scope(|scope| {
            let (send, receive) = mpsc::sync_channel::<Job<'a>>(2 * workers());
            let receive = Arc::new(Mutex::new(receive));
            for _ in 0..workers() {
                let receive = receive.clone();
                scope.spawn(move || {
                    loop {
                        let job = receive.lock().unwrap_or_else(|poison| poison.into_inner()).recv();
                        let Ok((folder, path, node)) = job else { return };
                        if !self.stopped() {
                            self.note(self.file(&folder.fd, &path, &node));
                        }
                    }
                });
            }
            let root = Folder { fd: root, path: PathBuf::from("/"), meta: None, lent, _within: None, restore: self };
            self.note(self.folder(tree, &Arc::new(root), &send));
        });
    }

    fn stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.failed.lock().unwrap_or_else(|poison| poison.into_inner()).is_some()
    }

    fn note(&self, outcome: Result<(), RepositoryError>) {
        if let Err(error) = outcome {
            self.failed.lock().unwrap_or_else(|poison| poison.into_inner()).get_or_insert(error);
        }
    }

    fn wanted(&self, path: &Path) -> bool {
        self.options.only.as_deref().is_none_or(|only| path.starts_with(only) || only.starts_with(path))
    }

    fn folder<'a>(
        &'a self,
        tree: TreeId,
        folder: &Arc<Folder<'a>>,
        jobs: &mpsc::SyncSender<Job<'a>>,
    ) -> Result<(), RepositoryError> {
        let tree = chunks::tree(&self.reader.repository, &tree);
        let nodes = tree.map_err(|fault| content(self.snapshot, &folder.path, fault))?.nodes;
        for node in nodes {
            if self.stopped() {
                return Ok(());
            }
            let name = node.name().into_owned();
            let path = folder.path.join(&name);
            if !is_name(&name) {
                let why = "its name is no plain name, and could lead out of the target".to_owned();
                return Err(RepositoryError::Refused { path, why });
            }
            if !self.wanted(&path) {
                continue;
            }
            let at = |source: io::Error| RepositoryError::Restore { path: path.clone(), source };
            let is_folder = matches!(node.node_type, NodeType::Dir);
            let stays = self.make_way(folder, &name, is_folder).map_err(at)? && self.options.keep;
            match (&node.node_type, node.subtree) {
                (NodeType::Dir, Some(subtree)) => {
                    let (fd, lent, is_new) = enter(&folder.fd, &name).map_err(at)?;
                    match is_new {
                        true => self.as_it_will_be(&fd, &node.meta).map_err(at)?,
                        false => sweep(&fd).map_err(at)?,
                    }
                    let within = Some(folder.clone());
                    let meta = Some(node.meta).filter(|_| !stays);
                    let inner = Folder { fd, path, meta, lent, _within: within, restore: self };
                    self.folder(subtree, &Arc::new(inner), jobs)?;
                }
                (NodeType::Dir, None) => {
                    let why = "it is a folder without a tree".to_owned();
                    return Err(RepositoryError::Refused { path, why });
                }
                _ if stays => drop(self.kept.fetch_add(1, Ordering::Relaxed)),
                (NodeType::File, _) if node.content.as_ref().is_some_and(|ids| ids.len() >= LARGE) => {
                    self.file(&folder.fd, &path, &node)?;
                }
                // The workers live until the sender is dropped, and take every job.
                (NodeType::File, _) => drop(jobs.send((folder.clone(), path, node))),
                _ => self.special(&folder.fd, &name, &node).map_err(at)?,
            }
        }
        Ok(())
    }

    /// A new folder has its owner and mode from the beginning, as far as it is still written to: a restore that is killed leaves none
    /// that its own program may not enter, and the next one takes what it finds for somebody's.
    fn as_it_will_be(&self, folder: &OwnedFd, meta: &Metadata) -> io::Result<()> {
        if self.options.ownership {
            // What may not be given away is counted at the end, and there only.
            let _ = rustix::fs::fchown(folder, meta.uid.map(Uid::from_raw), meta.gid.map(Gid::from_raw));
        }
        let mode = Mode::from_raw_mode(unix_mode(meta.mode)) | Mode::RWXU;
        Ok(rustix::fs::fchmod(folder, mode)?)
    }

    /// Whether something is there that an entry of this name can be put over, or into. What is of another kind is moved aside.
    fn make_way(&self, folder: &Folder<'_>, name: &OsStr, for_folder: bool) -> io::Result<bool> {
        let there = match rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => FileType::from_raw_mode(there.st_mode) == FileType::Directory,
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match (there, for_folder) {
            (true, true) | (false, false) => return Ok(true),
            // Docker makes an empty folder where a file that it binds is missing: that is not what is in the snapshot.
            (true, false) if removed_as_empty(&folder.fd, name)? => return Ok(false),
            (true, false) | (false, true) if self.options.keep => {
                let (is, was) = if there { ("a folder", "none") } else { ("no folder", "one") };
                return Err(io::Error::other(format!(
                    "it is {is} here and {was} in the backup, and was left alone; `devstack restore SERVICE --in-place` \
                     moves it aside"
                )));
            }
            (true, false) | (false, true) => {}
        }
        let aside = move_aside(&folder.fd, name)?;
        self.aside.lock().unwrap_or_else(|poison| poison.into_inner()).push(folder.path.join(aside));
        Ok(false)
    }

    /// Written under another name and renamed: whoever looks sees the old file or the whole new one.
    fn file(&self, folder: &OwnedFd, path: &Path, node: &Node) -> Result<(), RepositoryError> {
        let at = |source: io::Error| RepositoryError::Restore { path: path.to_owned(), source };
        let unfinished = unfinished_name().map_err(at)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, &unfinished, flags, Mode::from_raw_mode(0o600));
        let file = File::from(file.map_err(|error| at(error.into()))?);
        let placed = self.fill(&file, path, node).and_then(|()| {
            rustix::fs::renameat(folder, &unfinished, folder, &*node.name()).map_err(|error| at(error.into()))
        });
        if placed.is_err() {
            // The first error is the one to tell.
            let _ = rustix::fs::unlinkat(folder, &unfinished, AtFlags::empty());
        }
        placed?;
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fill(&self, file: &File, path: &Path, node: &Node) -> Result<(), RepositoryError> {
        let at = |source: io::Error| RepositoryError::Restore { path: path.to_owned(), source };
        let mut sparse = SparseFile::new(file);
        let ids: &[DataId] = node.content.as_deref().unwrap_or_default();
        let mut sink = |chunk: Result<bytes::Bytes, _>| {
            if self.stopped() {
                return ControlFlow::Break(RepositoryError::Interrupted);
            }
            let written = chunk
                .map_err(|fault| content(self.snapshot, path, fault))
                .and_then(|chunk| sparse.write(&chunk).map(|()| chunk.len()).map_err(at));
            match written {
                Ok(length) => {
                    self.written.fetch_add(length as u64, Ordering::Relaxed);
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            }
        };
        let read = match ids.len() >= LARGE {
            true => chunks::in_order(&self.reader.repository, ids, &mut sink),
            false => ids.iter().try_for_each(|id| sink(chunks::chunk(&self.reader.repository, id))),
        };
        if let ControlFlow::Break(error) = read {
            return Err(error);
        }
        sparse.finish().map_err(at)?;
        self.finish(file, &node.meta).map_err(at)
    }

    /// Owner before mode, since a change of owner clears set-user-id; times last.
    fn finish(&self, file: &File, meta: &Metadata) -> io::Result<()> {
        self.own(meta, |uid, gid| rustix::fs::fchown(file, uid, gid))?;
        for attribute in &meta.extended_attributes {
            match file.set_xattr(&attribute.name, attribute.value.as_deref().unwrap_or_default()) {
                // Labels and capabilities are the system's, as owners are.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied && !attribute.name.starts_with("user.") =>
                {
                    self.skipped.fetch_add(1, Ordering::Relaxed);
                }
                other => other?,
            }
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(unix_mode(meta.mode)))?;
        rustix::fs::futimens(file, &times(meta))?;
        Ok(())
    }

    fn finish_folder(&self, folder: &OwnedFd, path: &Path, meta: &Metadata) -> Result<(), RepositoryError> {
        let at = |source: io::Error| RepositoryError::Restore { path: path.to_owned(), source };
        let file = File::from(folder.try_clone().map_err(at)?);
        self.finish(&file, meta).map_err(at)
    }

    fn own(
        &self,
        meta: &Metadata,
        change: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        if !self.options.ownership || (meta.uid.is_none() && meta.gid.is_none()) {
            return Ok(());
        }
        match change(meta.uid.map(Uid::from_raw), meta.gid.map(Gid::from_raw)) {
            Err(rustix::io::Errno::PERM) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Links, pipes, sockets and devices.
    fn special(&self, folder: &OwnedFd, name: &OsStr, node: &Node) -> io::Result<()> {
        let unfinished = unfinished_name()?;
        let mode = Mode::from_raw_mode(unix_mode(node.meta.mode));
        let make = |kind, device| rustix::fs::mknodat(folder, &unfinished, kind, mode, device);
        match &node.node_type {
            NodeType::Symlink { .. } => {
                let target = CString::new(node.node_type.to_link().as_os_str().as_bytes())?;
                rustix::fs::symlinkat(&target, folder, &unfinished)?;
            }
            NodeType::Fifo => make(FileType::Fifo, 0)?,
            NodeType::Socket => make(FileType::Socket, 0)?,
            NodeType::Chardev { device } => make(FileType::CharacterDevice, *device)?,
            NodeType::Dev { device } => make(FileType::BlockDevice, *device)?,
            NodeType::File | NodeType::Dir => return Err(io::Error::other("it is not a special file")),
        }
        let placed = self.finish_special(folder, &unfinished, node, mode).and_then(|()| {
            rustix::fs::renameat(folder, &unfinished, folder, name)?;
            Ok(())
        });
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(folder, &unfinished, AtFlags::empty());
        }
        placed
    }

    fn finish_special(&self, folder: &OwnedFd, name: &str, node: &Node, mode: Mode) -> io::Result<()> {
        self.own(&node.meta, |uid, gid| rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))?;
        if !node.is_symlink() {
            // mknod's mode goes through the umask. Nothing else knows this name, so that it is no link.
            rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(folder, name, &times(&node.meta), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// One name of a folder, and not one that leads elsewhere.
fn is_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0)
}

/// A link counts as what it is, wherever it leads.
fn is_there(folder: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether there was an empty folder of that name, which is gone now. Anything else, and one with something in it, stays.
fn removed_as_empty(folder: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(
            rustix::io::Errno::NOTDIR
            | rustix::io::Errno::NOTEMPTY
            | rustix::io::Errno::EXIST
            | rustix::io::Errno::BUSY,
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives what is in the way a name that says what it is, and returns that name.
fn move_aside(folder: &OwnedFd, name: &OsStr) -> io::Result<OsString> {
    for number in 1_u32.. {
        let mut aside = name.to_owned();
        aside.push(if number == 1 { BEFORE.to_owned() } else { format!("{BEFORE}-{number}") });
        if !is_there(folder, &aside)? {
            rustix::fs::renameat(folder, name, folder, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other("there is no name left to move it to"))
}

/// What the name of something ends with that was in the way of a restore.
const BEFORE: &str = ".before-restore";

/// Opens a folder by its name, made where it is missing; a symbolic link of that name is an error. With the mode that it had,
/// where that would not let its owner fill it.
fn enter(folder: &OwnedFd, name: &OsStr) -> io::Result<(OwnedFd, Option<Mode>, bool)> {
    let is_new = match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(folder.as_fd(), name, flags, Mode::empty());
    match open() {
        Ok(fd) => {
            let lent = lend(&fd)?;
            Ok((fd, lent, is_new))
        }
        // Its owner may not even list it, and can change that.
        Err(rustix::io::Errno::ACCESS) => {
            let there = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_raw_mode(there.st_mode);
            rustix::fs::chmodat(folder, name, mode | Mode::RWXU, AtFlags::empty())?;
            Ok((open()?, Some(mode), is_new))
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes what restores that were killed have left of files that were not whole yet.
fn sweep(folder: &OwnedFd) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(RESTORING.as_bytes()) {
            rustix::fs::unlinkat(folder, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Lets its owner into a folder that nobody may write to, and gives the mode to put back. Root needs no leave.
fn lend(folder: &OwnedFd) -> io::Result<Option<Mode>> {
    let (there, own) = (rustix::fs::fstat(folder)?, rustix::process::geteuid());
    let mode = Mode::from_raw_mode(there.st_mode);
    if own.is_root() || there.st_uid != own.as_raw() || mode.contains(Mode::RWXU) {
        return Ok(None);
    }
    rustix::fs::fchmod(folder, mode | Mode::RWXU)?;
    Ok(Some(mode))
}

/// What a restore writes beside a file until it is whole is called so, with a number. What a kill has left of it is nobody's data.
pub const RESTORING: &str = ".devstack-restoring-";

fn unfinished_name() -> io::Result<String> {
    let mut unique = [0_u8; 8];
    getrandom::fill(&mut unique).map_err(io::Error::other)?;
    Ok(format!("{RESTORING}{}", hex::encode(unique)))
}

fn times(meta: &Metadata) -> Timestamps {
    let spec = |time: Option<jiff::Timestamp>| match time {
        // Timespec counts nanoseconds up from a second that may lie before 1970.
        Some(time) => Timespec {
            tv_sec: time.as_nanosecond().div_euclid(1_000_000_000) as i64,
            tv_nsec: time.as_nanosecond().rem_euclid(1_000_000_000) as _,
        },
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
    };
    Timestamps { last_access: spec(meta.atime), last_modification: spec(meta.mtime) }
}
