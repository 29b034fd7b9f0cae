//! Files and folders of the host: contents, symlinks, holes, modes, owners, times and extended attributes.
//!
//! Consistency: each file as it was when it was read; the tree is not frozen as a whole. With `stop`, the moment at which
//! everybody who writes there was stopped.

pub(super) mod links;
mod writers;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::files_walk::{BELOW_BASE, ELSEWHERE, Found, Selection};
use super::meta::{meta, with_xattrs};
use super::volume::started_again;
use super::{
    Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work, count_findings, exact, single_artifact, taken,
};
use crate::model::ids::{RunId, SnapshotId};
use crate::model::observation::{Misplaced, MissingFiles, Observed, SourceState};
use crate::model::run::{Artifact, ArtifactKind, Taken};
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::repository::{ArchiveRequest, Entry, EntryKind, Listing, NodeKind, Reader, RestoreOptions};
use crate::spec::file::Source;

pub(super) struct Files {
    base: PathBuf,
    root: PathBuf,
    selection: Selection,
    first: PathBuf,
    writers: writers::Writers,
}

impl Files {
    pub(super) fn new(given: &[String], exclude: &[String], ground: &Ground) -> Self {
        let base = &ground.base;
        let patterns: Vec<PathBuf> = given.iter().map(|path| ground.path(Path::new(path))).collect();
        let first = patterns.first().cloned().unwrap_or_else(|| base.to_owned());
        let selection = Selection::new(base, patterns, exclude.to_owned()).without(&ground.own);
        let writers = writers::Writers::new(ground);
        Self { base: base.to_owned(), root: ground.root.clone(), selection, first, writers }
    }

    /// With the services and containers that are stopped while it is read or written.
    pub(super) fn stopping(mut self, stop: &[String]) -> Self {
        self.writers.stop = stop.to_owned();
        self
    }

    /// All that is named, as it is now.
    pub(super) fn walk(&self) -> Result<impl Iterator<Item = io::Result<Found>> + use<>, EngineError> {
        self.selection.walk(self.selection.roots()?)
    }

    /// The folders among them that are files in a snapshot.
    fn misplaced(&self, reader: &Reader, snapshot: &SnapshotId) -> Result<Vec<Misplaced>, EngineError> {
        let mut folders = std::collections::BTreeMap::new();
        for found in self.walk()? {
            let found = found.map_err(EngineError::io("walking through", &self.first))?;
            if found.metadata.is_dir() {
                folders.insert(found.inside, found.path);
            }
        }
        let mut misplaced = Vec::new();
        for entry in reader.entries(snapshot)? {
            let (inside, facts) = entry?;
            let path = folders.get(&inside).filter(|_| facts.kind != NodeKind::Folder);
            if let Some(path) = path {
                let mut entries = fs::read_dir(path).map_err(EngineError::io("listing", path))?;
                misplaced.push(Misplaced { path: path.clone(), empty: entries.next().is_none() });
            }
        }
        Ok(misplaced)
    }

    /// Takes them, and has `look` at what was taken. What it refuses is not kept.
    pub(super) fn take_and_look<T>(
        &self,
        request: TakeRequest<'_>,
        work: &Work<'_>,
        look: impl FnOnce(&Reader, &SnapshotId) -> Result<T, EngineError>,
    ) -> Result<(Taken, T), EngineError> {
        let since = Instant::now();
        let roots = self.selection.roots()?;
        let least = u64::try_from(request.store.least_chunk()).unwrap_or(0);
        // A look at every size beforehand costs little beside what it saves: see `Store::least_chunk`.
        let small = |found: io::Result<Found>| {
            found.is_ok_and(|found| !found.metadata.is_file() || found.metadata.len() < least)
        };
        let small_files = self.selection.walk(roots.clone())?.all(small);
        let walk = self.selection.walk(roots)?;
        // The first thing that cannot be listed ends the walk, and afterwards the take: the archive that was made up to
        // there is not a backup.
        let failed: Arc<Mutex<Option<io::Error>>> = Arc::default();
        let seen = Arc::clone(&failed);
        let entries = walk.map_while(move |found| match found.and_then(entry) {
            Ok(entry) => Some(entry),
            Err(error) => {
                *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                None
            }
        });
        let archived = request.store.archive(
            ArchiveRequest {
                tags: request.tags,
                at: request.at,
                parent: request.parent,
                small_files,
                entries: Box::new(entries),
            },
            work.cancel,
            work.progress,
        )?;
        let failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(error) = failed {
            request.store.discard(&archived.snapshot)?;
            return Err(EngineError::io("listing", &self.first)(error));
        }
        if archived.files == 0 && !request.allow_empty {
            request.store.discard(&archived.snapshot)?;
            return Err(EngineError::Empty { path: self.first.clone() });
        }
        let looked = request.store.reader().map_err(EngineError::from).and_then(|reader| {
            let listing = reader.listing(&archived.snapshot, false, work.cancel, work.progress)?;
            Ok((listing, look(&reader, &archived.snapshot)?))
        });
        let (listing, looked) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                request.store.discard(&archived.snapshot)?;
                return Err(error);
            }
        };
        let artifact = Artifact {
            name: TREE.to_owned(),
            kind: ArtifactKind::Tree,
            bytes: listing.bytes,
            counts: exact(counts(&listing)),
            sha256: listing.digest,
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok((taken("files", version, archived.snapshot, artifact, archived.added, request.at, since), looked))
    }
}

/// The files of a source that is made of such.
fn of_source(source: &Source, ground: &Ground) -> Option<Files> {
    match source {
        Source::Files(it) => Some(Files::new(&it.paths, &it.exclude, ground)),
        Source::Certificates(it) => Some(Files::new(&it.paths, &it.exclude, ground)),
        _ => None,
    }
}

/// The excludes of a source that leave nothing out of what is there now. What hinders the look is told by the take.
pub fn idle_excludes(source: &Source, ground: &Ground) -> Vec<String> {
    let files = of_source(source, ground);
    files.and_then(|files| files.selection.idle_excludes().ok()).unwrap_or_default()
}

/// What is devstack's own within what a source names, and is left out of it.
pub fn own_left_out(source: &Source, ground: &Ground) -> Vec<PathBuf> {
    let Some(files) = of_source(source, ground) else { return Vec::new() };
    let roots = files.selection.roots().unwrap_or_default();
    let within = |path: &&PathBuf| roots.iter().any(|root| path.starts_with(root) && *path != root);
    let Ok(excluded) = files.selection.left_out() else { return Vec::new() };
    let left_out = ground.own.iter().filter(within).filter(|path| path.symlink_metadata().is_ok());
    left_out.filter(|path| !excluded(path)).cloned().collect()
}

/// More than so many files of a run are not looked for: what is missing among them is told, and that there are more.
const MOST_LOOKED_FOR: usize = 100_000;

/// Files of a run of a source that are not there, by their names; of one that is not made of files, none. What is excluded now, and
/// what `is_volatile` says of the path below the folder of devstack.yaml, is not looked for.
pub fn missing(
    source: &Source,
    ground: &Ground,
    reader: &Reader,
    (run, taken): (&RunId, &Taken),
    is_volatile: &dyn Fn(&Path) -> bool,
) -> Result<MissingFiles, EngineError> {
    let mut missing = MissingFiles { run: run.clone(), count: 0, of: 0, more: false, named: Vec::new() };
    let Some(files) = of_source(source, ground) else { return Ok(missing) };
    let excluded = files.selection.left_out()?;
    for (number, entry) in reader.entries(&taken.snapshot)?.enumerate() {
        if number >= MOST_LOOKED_FOR {
            missing.more = true;
            break;
        }
        let (inside, facts) = entry?;
        if facts.kind == NodeKind::Folder {
            continue;
        }
        let (path, shown) = match (inside.strip_prefix(BELOW_BASE), inside.strip_prefix(ELSEWHERE)) {
            (Ok(below), _) => (files.base.join(below), below.to_owned()),
            (_, Ok(below)) => (files.root.join(below), Path::new("/").join(below)),
            _ => continue,
        };
        if ground.own.iter().any(|own| path.starts_with(own)) || excluded(&path) || is_volatile(&shown) {
            continue;
        }
        missing.of += 1;
        if matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            missing.count += 1;
            if missing.named.len() < 3 {
                missing.named.push(shown);
            }
        }
    }
    Ok(missing)
}

/// The declared paths that name nothing.
pub fn gone_paths(source: &Source, ground: &Ground) -> Vec<String> {
    let given = match source {
        Source::Files(it) => &it.paths,
        Source::Certificates(it) => &it.paths,
        _ => return Vec::new(),
    };
    let is_gone = |path: &&String| {
        let pattern = ground.path(Path::new(path.as_str()));
        let roots = Selection::new(&ground.base, vec![pattern], Vec::new()).roots();
        matches!(roots, Err(EngineError::Gone { .. } | EngineError::NoMatch { .. }))
    };
    given.iter().filter(is_gone).cloned().collect()
}

/// Folders that stand where a run of a source has files; none of a source that is not made of files, or is not there.
pub fn out_of_place(
    source: &Source,
    ground: &Ground,
    reader: &Reader,
    taken: &Taken,
) -> Result<Vec<Misplaced>, EngineError> {
    let Some(files) = of_source(source, ground) else { return Ok(Vec::new()) };
    match files.misplaced(reader, &taken.snapshot) {
        Err(EngineError::Gone { .. } | EngineError::LeadsNowhere { .. } | EngineError::NoMatch { .. }) => {
            Ok(Vec::new())
        }
        found => found,
    }
}

/// The name of the one artifact: the whole tree of the snapshot.
const TREE: &str = "/";

fn counts(listing: &Listing) -> Vec<(String, u64)> {
    vec![("files".to_owned(), listing.files), ("folders".to_owned(), listing.folders)]
}

fn entry(found: Found) -> io::Result<Entry> {
    let Found { path, inside, metadata } = found;
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        EntryKind::Folder
    } else if file_type.is_symlink() {
        EntryKind::Symlink(fs::read_link(&path)?)
    } else if file_type.is_fifo() {
        EntryKind::Fifo
    } else if file_type.is_socket() {
        EntryKind::Socket
    } else if file_type.is_char_device() {
        EntryKind::CharDevice(metadata.rdev())
    } else if file_type.is_block_device() {
        EntryKind::BlockDevice(metadata.rdev())
    } else {
        EntryKind::LocalFile(path.clone())
    };
    let meta = with_xattrs(meta(&metadata), &path)?;
    Ok(Entry { path: inside, meta, kind })
}

/// The folders at the top of the snapshot: `/stack`, `/host`, or both.
fn tops(reader: &Reader, taken: &Taken) -> Result<Vec<PathBuf>, EngineError> {
    let mut tops = Vec::new();
    for entry in reader.entries(&taken.snapshot)? {
        let (path, _) = entry?;
        if path.components().count() == 2 {
            tops.push(path);
        }
    }
    Ok(tops)
}

impl Engine for Files {
    /// Gone: the first declared pattern that names something finds nothing. Empty: what they name holds not one file, and links
    /// are none.
    fn observe(&self) -> Observed<SourceState> {
        let walk = match self.walk() {
            Ok(walk) => walk,
            Err(EngineError::Gone { .. } | EngineError::LeadsNowhere { .. } | EngineError::NoMatch { .. }) => {
                return Observed::Known(SourceState::Gone);
            }
            Err(error) => return Observed::Unknown { reason: error.to_string() },
        };
        // One file is enough to know that there is data; the rest would cost a walk through all of it at every plan.
        for found in walk {
            match found {
                Ok(found) if found.metadata.is_file() => {
                    return Observed::Known(SourceState::HasData { bytes: None });
                }
                Ok(_) => {}
                Err(error) => return Observed::Unknown { reason: format!("cannot be walked: {error}") },
            }
        }
        Observed::Known(SourceState::Empty)
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let store = request.store;
        let stopped = self.writers.stop_for_take(|| self.selection.roots())?;
        let taken = self.take_and_look(request, work, |_, _| Ok(())).map(|(taken, ())| taken);
        match stopped {
            None => taken,
            Some(stopped) => started_again(stopped, taken, |taken| Ok(store.discard(&taken.snapshot)?)),
        }
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        let artifact = single_artifact(taken)?;
        let listing = reader.listing(&taken.snapshot, true, work.cancel, work.progress)?;
        let mut proven = Proven { read: listing.bytes, ..Proven::default() };
        if listing.digest != artifact.sha256 {
            proven.artifacts.push("the tree read back is not the one in the manifest".to_owned());
        }
        proven.content = count_findings(artifact, &exact(counts(&listing)));
        if listing.bytes != artifact.bytes {
            proven.content.push(format!("{} bytes when taken, {} in the backup", artifact.bytes.0, listing.bytes.0));
        }
        Ok(proven)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        // The tree and its digest first, contents as they are read: every chunk is compared with its id on the way.
        let artifact = single_artifact(taken)?;
        let listing = reader.listing(&taken.snapshot, false, work.cancel, &|_| {})?;
        if listing.digest != artifact.sha256 {
            return Err(EngineError::Damaged {
                findings: vec!["the tree in the snapshot is not the one in the manifest".to_owned()],
            });
        }
        let stopped = match target {
            RestoreTarget::Beside { .. } => None,
            RestoreTarget::InPlace | RestoreTarget::Missing => self.writers.stop_for_restore(target)?,
        };
        let put = self.put(reader, taken, target, work);
        match stopped {
            None => put,
            Some(stopped) => started_again(stopped, put, |_| Ok(())),
        }
    }
}

impl Files {
    /// Writes what was checked to its place.
    fn put(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        let (to, parts) = match target {
            RestoreTarget::Beside { folder } => {
                let holds_something = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
                if holds_something {
                    return Err(EngineError::NotEmpty { path: folder.clone() });
                }
                fs::create_dir_all(folder).map_err(EngineError::io("making", folder))?;
                (folder.clone(), vec![(None, folder.clone())])
            }
            RestoreTarget::InPlace | RestoreTarget::Missing => {
                let tops = tops(reader, taken)?;
                let places = [(BELOW_BASE, self.base.clone()), (ELSEWHERE, self.root.clone())];
                let there = places.into_iter().filter(|(top, _)| tops.iter().any(|known| known == Path::new(top)));
                (self.base.clone(), there.map(|(top, folder)| (Some(top), folder)).collect())
            }
        };
        let mut bytes = ByteSize(0);
        let (mut without_owner, mut kept, mut aside) = (0, 0, Vec::new());
        for (beneath, folder) in parts {
            let keep = *target == RestoreTarget::Missing;
            let options = RestoreOptions { beneath: beneath.map(PathBuf::from), ownership: true, only: None, keep };
            let restored = reader.restore_tree(&taken.snapshot, &folder, &options, work.cancel, work.progress)?;
            bytes = bytes + restored.bytes;
            without_owner += restored.skipped_ownership;
            kept += restored.kept;
            // A path of the snapshot begins with `/`, where the folder stands for it.
            aside.extend(restored.aside.iter().map(|path| folder.join(path.strip_prefix("/").unwrap_or(path))));
        }
        let mut notes = Vec::new();
        if without_owner > 0 {
            notes.push(format!("the owner of {without_owner} files could not be set (not running as root)"));
        }
        if kept > 0 {
            notes.push(format!("{kept} files are there and stay as they are; `devstack restore SERVICE --in-place` puts a run over them"));
        }
        notes.extend(aside.iter().map(|path| {
            format!("{}: what was there was of another kind than in the backup, and was moved there", path.display())
        }));
        Ok(Restored { to: to.display().to_string(), bytes, notes })
    }
}
