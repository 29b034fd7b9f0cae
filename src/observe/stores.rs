//! The declared repositories, each opened once per command and shared.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::cancel::Cancel;
use crate::model::ids::{RepositoryName, RunId, StackName};
use crate::model::observation::RepositoryFacts;
use crate::model::outcome::FailureKind;
use crate::repository::{Damage, DeclaredKey, FileKind, KeyMaterial, RepositoryError, Site, Store, StoreOptions};
use crate::secrets::{self, SecretError, Secrets};
use crate::spec::file::{Key, Repository, Spec};
use crate::spec::paths;

/// Why a repository can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("repository {0} is not in the file")]
    Undeclared(RepositoryName),
    #[error("repository {repository}: none of its keys can be used here")]
    Secret {
        repository: RepositoryName,
        #[source]
        source: SecretError,
    },
    #[error("repository {repository}")]
    Repository {
        repository: RepositoryName,
        #[source]
        source: RepositoryError,
    },
    #[error(transparent)]
    Plain(#[from] RepositoryError),
    #[error("run {run} is not in repository {repository}; `devstack backups` lists those that are")]
    NoRun { repository: RepositoryName, run: RunId },
}

impl StoreError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Secret { source, .. } => source.kind(),
            Self::Repository { source, .. } | Self::Plain(source) => source.kind(),
            Self::NoRun { .. } => FailureKind::NeedsReplan,
            Self::Undeclared(_) => FailureKind::Permanent,
        }
    }
}

/// Where each declared repository lies, and those that are open.
pub struct Stores {
    secrets: Arc<Secrets>,
    declared: BTreeMap<RepositoryName, Repository>,
    base: PathBuf,
    home: Option<PathBuf>,
    open: Mutex<BTreeMap<RepositoryName, Arc<Place>>>,
    /// Read what is whole where something is damaged: for verbs that only take data out. To a planner of backups, a
    /// record that is left out could be a floor that is forgotten.
    around_damage: AtomicBool,
    /// Why a repository could not be looked at, for the exit code.
    troubles: Mutex<BTreeMap<RepositoryName, FailureKind>>,
}

/// Held locked while it is being opened, so that two callers derive the key once.
type Place = Mutex<Option<Arc<Store>>>;

impl Stores {
    pub fn new(spec: &Spec, base: &Path, home: Option<&Path>, secrets: Arc<Secrets>) -> Self {
        Self::of(spec.repositories.clone(), base, home, secrets)
    }

    /// Those that are given, without a file that declares them.
    pub fn of(
        declared: BTreeMap<RepositoryName, Repository>,
        base: &Path,
        home: Option<&Path>,
        secrets: Arc<Secrets>,
    ) -> Self {
        Self {
            secrets,
            declared,
            base: base.to_owned(),
            home: home.map(Path::to_owned),
            open: Mutex::default(),
            around_damage: AtomicBool::new(false),
            troubles: Mutex::default(),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &RepositoryName> {
        self.declared.keys()
    }

    fn declared(&self, name: &RepositoryName) -> Result<&Repository, StoreError> {
        self.declared.get(name).ok_or_else(|| StoreError::Undeclared(name.clone()))
    }

    pub fn read_around_damage(&self) {
        self.around_damage.store(true, Ordering::Relaxed);
    }

    /// What the repository holds of the stack; what can't be read of it is warned of, or is an error.
    pub fn facts(&self, name: &RepositoryName, stack: &StackName) -> Result<RepositoryFacts, StoreError> {
        if !self.around_damage.load(Ordering::Relaxed) {
            return Ok(self.open(name)?.facts(stack)?);
        }
        let looked = match self.open(name)?.facts_around(stack) {
            Err(error) if error.kind() == FailureKind::Damage => {
                let kinds = [FileKind::Key, FileKind::Snapshot, FileKind::Index];
                let damages = self.site(name)?.hash_files(&kinds, &|_| {}, &Cancel::new())?;
                let store = self.open_around(name, &damages)?;
                *self.place(name).lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&store));
                store.facts_around(stack)
            }
            looked => looked,
        };
        let (facts, unreadable) = looked?;
        for record in unreadable {
            tracing::warn!(
                "repository {name}: a {} was left out: {}; `devstack verify --all --data` says what is damaged",
                record.kind,
                crate::model::chain(&record.source)
            );
        }
        Ok(facts)
    }

    /// Notes what the last look at a repository came to.
    pub(super) fn note_trouble(&self, name: &RepositoryName, trouble: Option<FailureKind>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(kind) => drop(troubles.insert(name.clone(), kind)),
            None => drop(troubles.remove(name)),
        }
    }

    /// The repositories that are Unknown for want of a key.
    pub fn shut(&self) -> BTreeSet<RepositoryName> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shut = |(name, kind): (&RepositoryName, &FailureKind)| (*kind == FailureKind::Key).then(|| name.clone());
        troubles.iter().filter_map(is_shut).collect()
    }

    /// The kinds of failure for which repositories are Unknown now.
    pub fn troubles(&self) -> Vec<FailureKind> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    pub fn site(&self, name: &RepositoryName) -> Result<Site, StoreError> {
        Ok(Site::new(paths::resolve(&self.base, self.home.as_deref(), &self.declared(name)?.path)))
    }

    /// The repository, opened now or before. Two callers at once derive the key once.
    pub fn open(&self, name: &RepositoryName) -> Result<Arc<Store>, StoreError> {
        let place = self.place(name);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = place.as_ref() {
            return Ok(Arc::clone(store));
        }
        let site = self.site(name)?;
        let store = Store::open(&site, &self.usable_keys(name)?)
            .map_err(|source| StoreError::Repository { repository: name.clone(), source })?;
        Ok(Arc::clone(place.insert(Arc::new(store))))
    }

    /// The repository as far as it is whole, opened beside the damage for verification alone.
    pub fn open_around(&self, name: &RepositoryName, damages: &[Damage]) -> Result<Arc<Store>, StoreError> {
        if damages.is_empty() {
            return self.open(name);
        }
        let site = self.site(name)?.around(damages);
        Store::open(&site, &self.usable_keys(name)?)
            .map(Arc::new)
            .map_err(|source| StoreError::Repository { repository: name.clone(), source })
    }

    /// Makes the repository with its declared key number `key`.
    pub fn create(&self, name: &RepositoryName, key: usize) -> Result<Arc<Store>, StoreError> {
        let declared = self.declared_key(name, key)?;
        let compression = self.declared(name)?.compression.map_or(StoreOptions::default().compression, i32::from);
        let options = StoreOptions { compression, ..StoreOptions::default() };
        let place = self.place(name);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let store = Store::create(&self.site(name)?, &declared, &options)
            .map_err(|source| StoreError::Repository { repository: name.clone(), source })?;
        Ok(Arc::clone(place.insert(Arc::new(store))))
    }

    fn place(&self, name: &RepositoryName) -> Arc<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(open.entry(name.clone()).or_default())
    }

    /// The declared key number `index`, with its secret resolved.
    pub fn declared_key(&self, name: &RepositoryName, index: usize) -> Result<DeclaredKey, StoreError> {
        let repository = self.declared(name)?;
        let key = repository.keys.get(index).ok_or_else(|| StoreError::Undeclared(name.clone()))?;
        self.resolved(key).map_err(|source| StoreError::Secret { repository: name.clone(), source })
    }

    /// The declared keys whose secrets are at hand, in the file's order. One that is not at hand does not hinder
    /// another that is.
    ///
    /// # Errors
    /// The first key's reason, when none is at hand.
    fn usable_keys(&self, name: &RepositoryName) -> Result<Vec<DeclaredKey>, StoreError> {
        let mut usable = Vec::new();
        let mut reason = None;
        let (asked, quiet): (Vec<&Key>, Vec<&Key>) =
            self.declared(name)?.keys.iter().partition(|key| matches!(key, Key::Passphrase(p) if p.prompt));
        for key in quiet {
            match self.resolved(key) {
                Ok(key) => usable.push(key),
                Err(error) => reason = reason.or(Some(error)),
            }
        }
        // A person is asked only when nothing else can open it.
        if !usable.iter().any(|key| can_open(&key.material)) {
            for key in asked {
                match self.resolved(key) {
                    Ok(key) => usable.push(key),
                    Err(error) => reason = reason.or(Some(error)),
                }
            }
        }
        match (usable.iter().any(|key| can_open(&key.material)), reason) {
            (false, Some(source)) => Err(StoreError::Secret { repository: name.clone(), source }),
            _ => Ok(usable),
        }
    }

    fn resolved(&self, key: &Key) -> Result<DeclaredKey, SecretError> {
        let secrets = &self.secrets;
        let material = match key {
            Key::Passphrase(passphrase) => KeyMaterial::Passphrase(secrets.resolve_passphrase(passphrase)?),
            Key::Gpg(recipient) => KeyMaterial::Gpg { recipient: recipient.clone() },
            Key::GpgSymmetric(secret) => KeyMaterial::GpgSymmetric { passphrase: secrets.resolve(secret)? },
            Key::Age(recipient) => KeyMaterial::Age { recipient: recipient.clone() },
            Key::AgeIdentity(secret) => KeyMaterial::AgeIdentity { identity: secrets.resolve(secret)? },
        };
        Ok(DeclaredKey { label: key.label(), material })
    }

    /// Writes a new passphrase where the file says `generate: true`. Returns the path.
    pub fn generate_key(&self, name: &RepositoryName, index: usize) -> Result<PathBuf, StoreError> {
        let repository = self.declared(name)?;
        let Some(Key::Passphrase(passphrase)) = repository.keys.get(index) else {
            return Err(StoreError::Undeclared(name.clone()));
        };
        let Some(file) = &passphrase.file else { return Err(StoreError::Undeclared(name.clone())) };
        let path = paths::resolve(&self.base, self.home.as_deref(), file);
        secrets::generate(&path).map_err(|source| StoreError::Secret { repository: name.clone(), source })?;
        Ok(path)
    }

    /// Positively not there.
    pub fn is_missing(&self, file: &Path) -> bool {
        let path = paths::resolve(&self.base, self.home.as_deref(), file);
        matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A recipient alone can encrypt for somebody, and open nothing; gpg may hold the secret key.
fn can_open(material: &KeyMaterial) -> bool {
    match material {
        KeyMaterial::Passphrase(_)
        | KeyMaterial::Gpg { .. }
        | KeyMaterial::GpgSymmetric { .. }
        | KeyMaterial::AgeIdentity { .. } => true,
        KeyMaterial::Age { .. } => false,
    }
}
