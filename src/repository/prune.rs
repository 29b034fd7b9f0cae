//! Giving back the room of what was forgotten, in two phases: packs that nothing needs are marked now and deleted by a
//! prune after the grace, so that a reader or an interrupted writer has that long to be done with them.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustic_core::PruneOptions;

use super::disk::UNFINISHED;
use super::error::RepositoryError;
use super::records::tag;
use super::store::{Store, hex, remove_sidecars};
use crate::model::ids::{KeyId, SnapshotId};
use crate::model::units::{ByteSize, Span};

/// What a prune did.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Bytes that go with a later prune.
    pub marked: ByteSize,
    /// Bytes deleted.
    pub freed: ByteSize,
    /// Bytes written anew, since they shared packs with what nothing needs.
    pub repacked: ByteSize,
}

impl Store {
    /// Must be alone in the repository: the lease sees to that among devstacks, the locks of restic are looked at here.
    pub fn prune(&self, grace: Span) -> Result<Pruned, RepositoryError> {
        let failed = |error| RepositoryError::store("prune", self.site.path(), error);
        assert!(self.site.is_whole(), "a prune that does not see a file takes it for gone");
        let locks = self.site.restic_locks()?;
        if locks > 0 {
            return Err(RepositoryError::ResticLocked { site: self.site.path().to_owned(), count: locks });
        }
        self.sweep_orphaned_records(grace)?;
        self.sweep_unfinished_files(grace)?;
        self.sweep_orphaned_sidecars()?;
        let millis = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX / 2).min(MOST_GRACE);
        let mut options = PruneOptions::default();
        options.keep_delete = jiff::Span::new().milliseconds(millis);
        let plan = self.repository.prune_plan(&options).map_err(failed)?;
        let size = plan.stats.size_sum();
        let pruned = Pruned {
            marked: ByteSize(size.remove + size.repack),
            freed: ByteSize(plan.stats.size_to_delete.remove),
            repacked: ByteSize(size.repack - size.repackrm),
        };
        self.repository.prune(&options, plan).map_err(failed)?;
        Ok(pruned)
    }

    /// Proofs and marks of a run whose manifest is gone: a forget was interrupted after it. They are older than the grace,
    /// so that none belongs to a run that is being written.
    fn sweep_orphaned_records(&self, grace: Span) -> Result<(), RepositoryError> {
        let files = self.snapshot_files()?;
        let key = |file| Some((tag(file, "stack:")?, tag(file, "run:")?));
        let alive: BTreeSet<_> = files
            .iter()
            .filter(|file| matches!(tag(file, "record:"), None | Some("manifest")))
            .filter_map(key)
            .collect();
        let before = grace.before(Timestamp::now());
        let orphans: Vec<_> = files
            .iter()
            .filter(|file| tag(file, "record:").is_some() && file.time.timestamp() < before)
            .filter(|file| key(file).is_some_and(|key| !alive.contains(&key)))
            .map(|file| SnapshotId::new(hex(&file.id)))
            .collect();
        self.forget(&orphans)
    }

    /// Encrypted passwords of keys that a killed process did not get to write. Nobody adds a key meanwhile: a prune is alone.
    fn sweep_orphaned_sidecars(&self) -> Result<(), RepositoryError> {
        for id in self.site.orphaned_sidecars()? {
            remove_sidecars(&self.site, &KeyId::new(id))?;
        }
        Ok(())
    }

    /// Files that a killed writer did not get to rename.
    fn sweep_unfinished_files(&self, grace: Span) -> Result<(), RepositoryError> {
        for entry in walkdir::WalkDir::new(self.site.path()) {
            let entry = entry.map_err(|error| self.site.io("list", self.site.path(), error.into()))?;
            if !entry.file_type().is_file() || !entry.file_name().to_string_lossy().contains(UNFINISHED) {
                continue;
            }
            let path = entry.path();
            let meta = path.metadata().map_err(|source| self.site.io("look at", path, source))?;
            let changed = meta.modified().map_err(|source| self.site.io("look at", path, source))?;
            if SystemTime::now().duration_since(changed).is_ok_and(|age| age > Duration::from(grace)) {
                fs::remove_file(path).map_err(|source| self.site.io("delete", path, source))?;
            }
        }
        Ok(())
    }
}

/// A hundred years, in milliseconds: what the library's calendar can still subtract from today.
const MOST_GRACE: i64 = 100 * 365 * 86_400_000;
