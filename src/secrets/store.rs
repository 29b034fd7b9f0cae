//! From a reference in the file to the value, wherever it lies.

use std::path::{Path, PathBuf};

use super::vault::{Vault, VaultError};
use super::{Secret, SecretError, resolve};
use crate::spec::file::{Passphrase, SecretRef, Vault as Declared};

/// Everything that the file refers to as a secret. What lies in Vault is read by one login for the whole command.
pub struct Secrets {
    base: PathBuf,
    vault: Option<Vault>,
}

impl Secrets {
    /// Relative paths start from `base`, the folder of devstack.yaml.
    pub fn new(vault: Option<&Declared>, base: &Path, home: Option<&Path>) -> Self {
        Self { base: base.to_owned(), vault: vault.map(|vault| Vault::new(vault, base, home)) }
    }

    pub fn resolve(&self, secret: &SecretRef) -> Result<Secret, SecretError> {
        match &secret.vault {
            Some(reference) => self.in_vault(reference),
            None => resolve::local(secret, &self.base),
        }
    }

    /// The passphrase, asked for on the terminal where the file says `prompt: true`.
    pub fn resolve_passphrase(&self, passphrase: &Passphrase) -> Result<Secret, SecretError> {
        match &passphrase.vault {
            Some(reference) => self.in_vault(reference),
            None => resolve::passphrase(passphrase, &self.base),
        }
    }

    fn in_vault(&self, reference: &str) -> Result<Secret, SecretError> {
        match &self.vault {
            Some(vault) => vault.read(reference),
            None => Err(VaultError::Undeclared { path: reference.to_owned() }.into()),
        }
    }

    /// From here on the command changes things: a wrapped secret-id may be spent, and a Vault that does not answer is
    /// waited for.
    pub fn apply(&self) {
        if let Some(vault) = &self.vault {
            vault.apply();
        }
    }

    /// Revokes the token of the login, if there was one.
    pub fn close(&self) -> Result<(), VaultError> {
        self.vault.as_ref().map_or(Ok(()), Vault::close)
    }
}
