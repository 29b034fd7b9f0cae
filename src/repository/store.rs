//! An opened repository. It is shared by threads; everything in it may be used at once, save what the lease excludes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use rustic_core::repofile::{Chunker, MasterKey, RepoId};
use rustic_core::{
    ConfigOptions, Credentials, FileType, Id, IndexedFullStatus, KeyOptions, OpenStatus, ReadBackend, Repository,
    RusticError, WriteBackend,
};

use super::disk::{Disk, Sidecar};
use super::error::RepositoryError;
use super::keys::DeclaredKey;
use super::known::Needs;
use super::objects::Objects;
use super::opening;
use super::reader::Reader;
use super::site::{KEY_HOST, Presence, Site};
use crate::model::ids::{KeyId, RepositoryId, SnapshotId};

/// How a new repository is set up; none of it can be changed later without ending deduplication against older data,
/// save the compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// The zstd level, 1 to 22.
    pub compression: i32,
    /// None for restic's own sizes (1 MiB on average, from 512 KiB to 8 MiB). restic reads chunks of any size; a restic
    /// that writes into the repository cuts at its own sizes and so shares little with what devstack wrote.
    pub chunks: Option<ChunkSizes>,
}

/// Sizes of content-defined chunks in bytes. The average is a power of two, and the least at least 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    pub min: usize,
    pub average: usize,
    pub max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { compression: 3, chunks: None }
    }
}

pub(super) type Indexed = Repository<IndexedFullStatus>;

pub struct Store {
    pub(super) site: Site,
    pub(super) master: MasterKey,
    opened_with: KeyId,
    id: RepositoryId,
    pub(super) repository: Repository<OpenStatus>,
    index: Mutex<Option<LoadedIndex>>,
    pub(super) needs: Mutex<Needs>,
}

/// An index stays good for as long as the repository has the same index files.
struct LoadedIndex {
    files: BTreeSet<Id>,
    repository: Arc<Indexed>,
}

impl Store {
    /// Opens with the first declared key that works.
    pub fn open(site: &Site, keys: &[DeclaredKey]) -> Result<Self, RepositoryError> {
        let (repository, opened_with) = opening::open(site, keys)?;
        Ok(Self::opened(site, repository, opened_with))
    }

    /// Makes a new repository in restic's format 2, with `key` as its only key. What a killed creation left is replaced.
    pub fn create(site: &Site, key: &DeclaredKey, options: &StoreOptions) -> Result<Self, RepositoryError> {
        if site.look()? == Presence::Present {
            return Err(RepositoryError::Exists { path: site.path().to_owned() });
        }
        let config = options.config()?;
        let (password, sidecar) = key.make()?;
        Self::sweep_unfinished(site)?;
        let disk = site.disk().with_sidecar(sidecar);
        let credentials = Credentials::password(password.expose());
        let created = opening::repository(disk)
            .and_then(|repository| repository.init(&credentials, &key_options(&key.label), &config))
            .map_err(|error| RepositoryError::store("create the repository", site.path(), error))?;
        let opened_with = created.key_id().as_ref().map(|id| KeyId::new(hex(id)));
        match opened_with {
            // Opened anew, so that what is used from now on is what lies on disk, without the sidecar of the first key.
            Some(opened_with) => {
                let repository = opening::reopen(site, &created.key())?;
                Ok(Self::opened(site, repository, opened_with))
            }
            None => Err(RepositoryError::Setting { why: "the library made no key file".to_owned() }),
        }
    }

    /// A key file of a killed creation belongs to no repository: left there, its label would lead to a wrong key. Only
    /// called where `look` saw that there is no data.
    fn sweep_unfinished(site: &Site) -> Result<(), RepositoryError> {
        let disk = site.disk();
        let swept = |error| RepositoryError::store("clear an unfinished creation", site.path(), error);
        if !site.path().join("keys").is_dir() {
            return Ok(());
        }
        for id in disk.list(FileType::Key).map_err(swept)? {
            disk.remove(FileType::Key, &id, false).map_err(swept)?;
            remove_sidecars(site, &KeyId::new(hex(&id)))?;
        }
        Ok(())
    }

    fn opened(site: &Site, repository: Repository<OpenStatus>, opened_with: KeyId) -> Self {
        let id = RepositoryId::new(hex(&repository.config().id));
        Self {
            site: site.clone(),
            master: repository.key(),
            opened_with,
            id,
            repository,
            index: Mutex::new(None),
            needs: Mutex::default(),
        }
    }

    pub fn site(&self) -> &Site {
        &self.site
    }

    pub fn id(&self) -> RepositoryId {
        self.id.clone()
    }

    /// The key file that opened it.
    pub fn opened_with(&self) -> Option<KeyId> {
        Some(self.opened_with.clone())
    }

    pub fn add_key(&self, key: &DeclaredKey) -> Result<KeyId, RepositoryError> {
        let (password, sidecar) = key.make()?;
        self.add_prepared_key(&key.label, password.expose(), sidecar)
    }

    fn add_prepared_key(
        &self,
        label: &str,
        password: &str,
        sidecar: Option<Sidecar>,
    ) -> Result<KeyId, RepositoryError> {
        let disk = self.site.disk().with_sidecar(sidecar);
        opening::repository(disk)
            .and_then(|repository| repository.open(&Credentials::Masterkey(self.master.clone())))
            .and_then(|repository| repository.add_key(password, &key_options(label)))
            .map(|id| KeyId::new(hex(&id)))
            .map_err(|error| RepositoryError::store("add a key", self.site.path(), error))
    }

    /// The key goes before its sidecar. The key that this store was opened with is the one that is known to work, and
    /// stays: so the last operable key is never removed.
    pub fn remove_key(&self, id: &KeyId) -> Result<(), RepositoryError> {
        if *id == self.opened_with {
            return Err(RepositoryError::LastKey { id: id.short().to_owned() });
        }
        // Read again: the key that is to stay must be there and whole when the other goes.
        if !self.site.keys()?.iter().any(|key| key.id == self.opened_with) {
            return Err(RepositoryError::LastKey { id: id.short().to_owned() });
        }
        let failed = |error| RepositoryError::store("remove a key", self.site.path(), error);
        let file: Id = id.as_str().parse().map_err(failed)?;
        self.disk().remove(FileType::Key, &file, false).map_err(failed)?;
        remove_sidecars(&self.site, id)
    }

    /// Everything that can be read, as the repository is now.
    pub fn reader(&self) -> Result<Reader, RepositoryError> {
        Ok(Reader::new(self.site.clone(), self.indexed()?))
    }

    /// Deletes snapshots in the given order, each on disk before the next; what is gone already is fine.
    pub fn forget(&self, snapshots: &[SnapshotId]) -> Result<(), RepositoryError> {
        let failed = |error| RepositoryError::store("delete a snapshot", self.site.path(), error);
        for snapshot in snapshots {
            let id: Id = snapshot.as_str().parse().map_err(failed)?;
            self.disk().remove(FileType::Snapshot, &id, false).map_err(failed)?;
        }
        Ok(())
    }

    pub fn discard(&self, snapshot: &SnapshotId) -> Result<(), RepositoryError> {
        self.forget(std::slice::from_ref(snapshot))
    }

    pub(super) fn disk(&self) -> Disk {
        self.site.disk()
    }

    /// The whole index, loaded again only when the repository's index files are others.
    pub(super) fn indexed(&self) -> Result<Arc<Indexed>, RepositoryError> {
        let failed = |error| RepositoryError::store("read the index", self.site.path(), error);
        let files: BTreeSet<Id> = self.disk().list(FileType::Index).map_err(failed)?.into_iter().collect();
        let mut index = self.index.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(loaded) = &*index
            && loaded.files == files
        {
            return Ok(loaded.repository.clone());
        }
        // Freed first: two indexes of a large repository at once would double the memory.
        *index = None;
        let repository = Arc::new(self.reopen()?.to_indexed().map_err(failed)?);
        *index = Some(LoadedIndex { files, repository: repository.clone() });
        Ok(repository)
    }

    /// For files that are all smaller than the least chunk, so that each is one chunk whatever cuts it. The library works
    /// out the tables of its content-defined chunker anew for every file (some 0.1 ms each); the one that cuts at a fixed
    /// size needs none, and gives the same chunks for such files.
    pub(super) fn indexed_for_small_files(&self) -> Result<Arc<Indexed>, RepositoryError> {
        let failed = |error| RepositoryError::store("read the index", self.site.path(), error);
        let mut repository = opening::repository(self.site.disk().with_fixed_config())
            .and_then(|repository| repository.open(&Credentials::Masterkey(self.master.clone())))
            .map_err(failed)?;
        let mut whole = ConfigOptions::default();
        whole.set_chunker = Some(Chunker::FixedSize);
        whole.set_chunk_size = Some(library_size(self.least_chunk())?);
        repository.apply_config(&whole).map_err(failed)?;
        Ok(Arc::new(repository.to_indexed().map_err(failed)?))
    }

    /// Bytes of the smallest chunk that is cut off a longer file.
    pub fn least_chunk(&self) -> usize {
        self.repository.config().chunk_min_size()
    }

    pub(super) fn reopen(&self) -> Result<Repository<OpenStatus>, RepositoryError> {
        opening::reopen(&self.site, &self.master)
    }
}

impl StoreOptions {
    fn config(&self) -> Result<ConfigOptions, RepositoryError> {
        let mut config = ConfigOptions::default();
        config.set_compression = Some(self.compression);
        let Some(ChunkSizes { min, average, max }) = self.chunks else { return Ok(config) };
        // The chunker looks back 64 bytes from the least size on, and has no other guard.
        if min < 64 || !average.is_power_of_two() || min > average || average > max {
            let why = format!("chunk sizes {min}, {average}, {max}: 64 ≤ least ≤ average (a power of two) ≤ most");
            return Err(RepositoryError::Setting { why });
        }
        config.set_chunk_min_size = Some(library_size(min)?);
        config.set_chunk_size = Some(library_size(average)?);
        config.set_chunk_max_size = Some(library_size(max)?);
        Ok(config)
    }
}

/// The library's type for sizes cannot be named from outside it; it is read from text.
fn library_size<T: std::str::FromStr>(bytes: usize) -> Result<T, RepositoryError> {
    let why = format!("a chunk size of {bytes} bytes");
    format!("{bytes} B").parse().map_err(|_| RepositoryError::Setting { why })
}

fn key_options(label: &str) -> KeyOptions {
    KeyOptions::default().hostname(KEY_HOST.to_owned()).username(label.to_owned()).with_created(true)
}

pub(super) fn remove_sidecars(site: &Site, id: &KeyId) -> Result<(), RepositoryError> {
    let objects = site.objects();
    for extension in ["gpg", "age"] {
        let name = format!("keys/{id}.{extension}");
        objects.delete(&name).map_err(|source| site.io("delete", &site.path().join("devstack").join(&name), source))?;
    }
    Ok(())
}

/// The 64 digits of any of the library's ids: their own Display shows eight.
pub(super) fn hex(id: &Id) -> String {
    id.to_hex().to_string()
}

/// One of the library's ids from one of ours.
pub(super) fn library_id<T: RepoId>(id: &str) -> Result<T, Box<RusticError>> {
    id.parse::<Id>().map(T::from)
}
