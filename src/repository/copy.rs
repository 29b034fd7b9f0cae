//! Copying a snapshot into another repository, chunk by chunk as it is: what the other has already is not sent again.

use std::collections::BTreeMap;

use rustic_core::repofile::SnapshotFile;
use rustic_core::{FileType, Id, ReadBackend};

use super::error::RepositoryError;
use super::store::{Store, hex};
use crate::model::cancel::Cancel;
use crate::model::ids::SnapshotId;
use crate::model::units::ByteSize;

/// A snapshot that was copied, by the id that it has where it is now.
#[must_use = "the copy exists now; whoever drops its id loses it"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub snapshot: SnapshotId,
    /// Bytes of packs that this added to the other repository.
    pub added: ByteSize,
}

impl Store {
    /// Copies one snapshot into `target`. What a copy that was interrupted has left there is found again and used.
    ///
    /// The chunks are only decrypted and encrypted on the way: what proves the copy is the proof that follows it.
    pub fn copy_to(&self, target: &Self, snapshot: &SnapshotId, cancel: &Cancel) -> Result<Copied, RepositoryError> {
        let source = self.reader()?.snapshot(snapshot)?;
        if cancel.is_cancelled() {
            return Err(RepositoryError::Interrupted);
        }
        let before = target.packs()?;
        if target.same_snapshot(&source)?.is_none() {
            let (from, to) = (self.indexed()?, target.indexed()?);
            from.copy(&*to, [&source])
                .map_err(|error| RepositoryError::store("copy a snapshot", target.site.path(), error))?;
        }
        let added = target.packs()?.into_iter().filter(|(id, _)| !before.contains_key(id)).map(|(_, size)| size).sum();
        match target.same_snapshot(&source)? {
            Some(copied) => Ok(Copied { snapshot: copied, added }),
            None => Err(RepositoryError::NoSuchSnapshot { snapshot: snapshot.clone() }),
        }
    }

    /// The snapshot here that has the tree, the time and the tags of another repository's.
    fn same_snapshot(&self, wanted: &SnapshotFile) -> Result<Option<SnapshotId>, RepositoryError> {
        let all = self
            .reopen()?
            .get_all_snapshots()
            .map_err(|error| RepositoryError::store("list the snapshots", self.site.path(), error))?;
        let same =
            |known: &&SnapshotFile| known.tree == wanted.tree && known.time == wanted.time && known.tags == wanted.tags;
        Ok(all.iter().find(same).map(|known| SnapshotId::new(hex(&known.id))))
    }

    fn packs(&self) -> Result<BTreeMap<Id, ByteSize>, RepositoryError> {
        let packs = self
            .disk()
            .list_with_size(FileType::Pack)
            .map_err(|error| RepositoryError::store("list the packs", self.site.path(), error))?;
        Ok(packs.into_iter().map(|(id, size)| (id, ByteSize(u64::from(size)))).collect())
    }
}
