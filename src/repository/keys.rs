//! Declared keys: what each gives as the password of a restic key, and what lies beside the repository for it.

use std::io;

use super::disk::Sidecar;
use super::error::RepositoryError;
use super::{age_key, gpg};
use crate::secrets::Secret;

/// A key of the file with its secret resolved.
#[derive(Clone)]
pub struct DeclaredKey {
    /// As `spec::Key::label` gives it.
    pub label: String,
    pub material: KeyMaterial,
}

/// Each kind but the passphrase has a random password of its own; its encrypted copy lies at `devstack/keys/<key id>.gpg`
/// or `.age`, so that `gpg -d` or `age -d` gives what opens the repository with restic.
#[derive(Clone)]
pub enum KeyMaterial {
    Passphrase(Secret),
    /// Encrypts always; decrypts where gpg has the secret key.
    Gpg {
        recipient: String,
    },
    GpgSymmetric {
        passphrase: Secret,
    },
    /// Encrypts only.
    Age {
        recipient: String,
    },
    /// Decrypts, and is its own recipient.
    AgeIdentity {
        identity: Secret,
    },
}

/// Why a key could not be made or used.
pub type Refusal = (String, Option<io::Error>);

impl KeyMaterial {
    /// The extension of its sidecar; none for a passphrase, which has no sidecar.
    pub(super) fn extension(&self) -> Option<&'static str> {
        match self {
            Self::Passphrase(_) => None,
            Self::Gpg { .. } | Self::GpgSymmetric { .. } => Some("gpg"),
            Self::Age { .. } | Self::AgeIdentity { .. } => Some("age"),
        }
    }

    /// The password inside a sidecar.
    pub(super) fn unlock(&self, sidecar: &[u8]) -> Result<Secret, Refusal> {
        match self {
            Self::Passphrase(secret) => Ok(secret.clone()),
            Self::Gpg { .. } => gpg::decrypt(sidecar, None),
            Self::GpgSymmetric { passphrase } => gpg::decrypt(sidecar, Some(passphrase)),
            Self::Age { .. } => {
                Err(("an age recipient only encrypts: declare the identity as `age_identity`".to_owned(), None))
            }
            Self::AgeIdentity { identity } => age_key::decrypt(sidecar, identity),
        }
    }

    fn lock(&self, password: &Secret) -> Result<Option<Vec<u8>>, Refusal> {
        match self {
            Self::Passphrase(_) => Ok(None),
            Self::Gpg { recipient } => gpg::encrypt_to(recipient, password).map(Some),
            Self::GpgSymmetric { passphrase } => gpg::encrypt_with(passphrase, password).map(Some),
            Self::Age { recipient } => age_key::encrypt_to(recipient, password).map(Some),
            Self::AgeIdentity { identity } => age_key::recipient_of(identity)
                .and_then(|recipient| age_key::encrypt_to(&recipient, password))
                .map(Some),
        }
    }
}

impl DeclaredKey {
    /// The password of a new restic key for it, with the sidecar that must lie there before the key does.
    pub(super) fn make(&self) -> Result<(Secret, Option<Sidecar>), RepositoryError> {
        let password = match &self.material {
            KeyMaterial::Passphrase(secret) => secret.clone(),
            KeyMaterial::Gpg { .. }
            | KeyMaterial::GpgSymmetric { .. }
            | KeyMaterial::Age { .. }
            | KeyMaterial::AgeIdentity { .. } => random_password().map_err(|refusal| self.refused(refusal))?,
        };
        let locked = self.material.lock(&password).map_err(|refusal| self.refused(refusal))?;
        let sidecar = self.material.extension().zip(locked).map(|(extension, bytes)| Sidecar { extension, bytes });
        Ok((password, sidecar))
    }

    pub(super) fn refused(&self, (why, source): Refusal) -> RepositoryError {
        RepositoryError::Key { label: self.label.clone(), why, source }
    }
}

/// 32 random bytes in hexadecimal: typed or piped into restic without quoting.
fn random_password() -> Result<Secret, Refusal> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes)
        .map_err(|error| ("the system gave no random bytes".to_owned(), Some(io::Error::other(error))))?;
    Ok(Secret::new(hex::encode(*bytes)))
}
