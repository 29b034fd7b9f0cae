//! Finding the key that opens a repository, at the price of one derivation where the file and the repository agree.

use std::path::Path;
use std::sync::Arc;

use rustic_core::repofile::MasterKey;
use rustic_core::{Credentials, Id, OpenStatus, Repository, RepositoryBackends, RepositoryOptions, WriteBackend};

use super::disk::Disk;
use super::error::{Cause, RepositoryError};
use super::keys::{DeclaredKey, KeyMaterial};
use super::objects::Objects;
use super::site::{Presence, Site};
use crate::model::ids::KeyId;
use crate::model::observation::ObservedKey;
use crate::secrets::Secret;

/// No cache: it would write into the home folder, and the repository is on this disk.
pub(super) fn repository(disk: Disk) -> Result<Repository<()>, Box<rustic_core::RusticError>> {
    let backend: Arc<dyn WriteBackend> = Arc::new(disk);
    Repository::new(&RepositoryOptions::default().no_cache(true), &RepositoryBackends::new(backend, None))
}

/// Opens with a key that is known already: no derivation.
pub(super) fn reopen(site: &Site, master: &MasterKey) -> Result<Repository<OpenStatus>, RepositoryError> {
    repository(site.disk())
        .and_then(|repository| repository.open(&Credentials::Masterkey(master.clone())))
        .map_err(|error| RepositoryError::store("open", site.path(), error))
}

/// What one key file made of one password.
enum Attempt {
    Opened(Box<Repository<OpenStatus>>),
    WrongPassword,
}

/// The repository, opened with the first declared key that works, and that key's id.
pub(super) fn open(site: &Site, keys: &[DeclaredKey]) -> Result<(Repository<OpenStatus>, KeyId), RepositoryError> {
    if site.look()? == Presence::Absent {
        return Err(RepositoryError::NoRepository { path: site.path().to_owned() });
    }
    // Hashes every key file first: a damaged one is damage, not a wrong password.
    let observed = site.keys()?;
    let mut why = Vec::new();
    let mut wrong_passwords = 0;
    for key in keys {
        let mut reason = "no key of the repository is labelled so".to_owned();
        for candidate in candidates(key, &observed) {
            let password = match password(site, key, candidate) {
                Ok(password) => password,
                Err(refusal) => {
                    reason = refusal;
                    continue;
                }
            };
            match attempt(site, &password, &candidate.id)? {
                Attempt::Opened(repository) => return Ok((*repository, candidate.id.clone())),
                Attempt::WrongPassword => {
                    wrong_passwords += 1;
                    reason = "wrong password".to_owned();
                }
            }
        }
        why.push((key.label.clone(), reason));
    }
    match keys {
        [only] if wrong_passwords > 0 => {
            Err(RepositoryError::WrongKey { site: site.path().to_owned(), label: only.label.clone() })
        }
        _ => Err(RepositoryError::NoOperableKey { site: site.path().to_owned(), why }),
    }
}

/// The key files worth trying: those with the key's own label; failing these, those that its kind could open, since on
/// another machine the same passphrase may lie elsewhere.
fn candidates<'a>(key: &DeclaredKey, observed: &'a [ObservedKey]) -> Vec<&'a ObservedKey> {
    let labelled: Vec<_> = observed.iter().filter(|file| file.label.as_deref() == Some(&key.label)).collect();
    if !labelled.is_empty() {
        return labelled;
    }
    let wants_sidecar = key.material.extension().is_some();
    let mut others: Vec<_> = observed.iter().filter(|file| file.sidecar == wants_sidecar).collect();
    // A key that devstack did not write is the likelier one.
    others.sort_by_key(|file| file.label.is_some());
    others
}

fn password(site: &Site, key: &DeclaredKey, candidate: &ObservedKey) -> Result<Secret, String> {
    let Some(extension) = key.material.extension() else {
        return match &key.material {
            KeyMaterial::Passphrase(secret) => Ok(secret.clone()),
            KeyMaterial::Gpg { .. }
            | KeyMaterial::GpgSymmetric { .. }
            | KeyMaterial::Age { .. }
            | KeyMaterial::AgeIdentity { .. } => Err("it has no password".to_owned()),
        };
    };
    let name = format!("keys/{}.{extension}", candidate.id);
    match site.objects().get(&name) {
        Ok(Some(sidecar)) => key.material.unlock(&sidecar).map_err(|(why, source)| match source {
            Some(source) => format!("{why} ({source})"),
            None => why,
        }),
        Ok(None) => Err(format!("its encrypted password devstack/{name} is missing")),
        Err(error) => Err(format!("devstack/{name} cannot be read: {error}")),
    }
}

fn attempt(site: &Site, password: &Secret, id: &KeyId) -> Result<Attempt, RepositoryError> {
    let shown: Id = id.as_str().parse().map_err(|error| RepositoryError::store("open", site.path(), error))?;
    let disk = site.disk().showing_key(shown);
    let opened = repository(disk).and_then(|repository| repository.open(&Credentials::password(password.expose())));
    match opened {
        Ok(repository) => Ok(Attempt::Opened(Box::new(repository))),
        Err(error) if error.is_incorrect_password() => Ok(Attempt::WrongPassword),
        Err(error) => Err(unreadable_config(site.path(), error)),
    }
}

/// The key file was whole and its password right, so that only the config is left to be at fault.
fn unreadable_config(site: &Path, error: Box<rustic_core::RusticError>) -> RepositoryError {
    match RepositoryError::store("open", site, error) {
        RepositoryError::Store { source, .. } if !source.is_io() => damaged_config(site, source),
        other => other,
    }
}

fn damaged_config(site: &Path, source: Cause) -> RepositoryError {
    RepositoryError::Damaged {
        file: site.join("config"),
        why: "the repository's key does not decrypt it".to_owned(),
        source: Some(source),
    }
}
