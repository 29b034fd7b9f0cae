//! From a reference in the file to the value, wherever it lies.

use std::path::Path;

use super::resolve::Here;
use super::vault::{Rotated, Vault, VaultError, VaultServer, VaultStandIn};
use super::{Secret, SecretError, prompt};
use crate::model::login::LoginState;
use crate::spec::file::{DockerRuntime, Passphrase, SecretRef, Vault as Declared};

/// Everything that the file refers to as a secret. What lies in Vault is read by one login for the whole command.
pub struct Secrets {
    here: Here,
    vault: Option<Vault>,
}

impl Secrets {
    /// Relative paths start from `base`, the folder of devstack.yaml. `docker` says which files of variables are Compose's.
    pub fn new(docker: Option<&DockerRuntime>, vault: Option<&Declared>, base: &Path, home: Option<&Path>) -> Self {
        let here = Here::new(docker, base, home);
        Self { vault: vault.map(|vault| Vault::new(vault, &here, home)), here }
    }

    /// The same, with another server in place of the file's Vault.
    pub fn with_vault(&self, stand_in: VaultStandIn) -> Self {
        Self { here: self.here.clone(), vault: self.vault.as_ref().map(|vault| vault.instead(stand_in)) }
    }

    /// Whether another server is asked in place of the file's Vault.
    pub fn has_stand_in(&self) -> bool {
        self.vault.as_ref().is_some_and(Vault::has_stand_in)
    }

    pub fn resolve(&self, secret: &SecretRef) -> Result<Secret, SecretError> {
        match &secret.vault {
            Some(reference) => self.in_vault(reference),
            None => self.here.local(secret),
        }
    }

    /// The passphrase, asked for on the terminal where the file says `prompt: true`.
    pub fn resolve_passphrase(&self, passphrase: &Passphrase) -> Result<Secret, SecretError> {
        match &passphrase.vault {
            Some(reference) => self.in_vault(reference),
            None => self.here.passphrase(passphrase),
        }
    }

    fn in_vault(&self, reference: &str) -> Result<Secret, SecretError> {
        match &self.vault {
            Some(vault) => vault.read(reference),
            None => Err(VaultError::Undeclared { path: reference.to_owned() }.into()),
        }
    }

    /// Asks on the terminal without showing what is typed.
    pub fn ask(&self, question: &str) -> Result<Secret, SecretError> {
        prompt::ask(question)
    }

    /// The file's Vault as it is declared.
    pub fn vault(&self) -> Option<&Declared> {
        self.vault.as_ref().map(Vault::declared)
    }

    /// The file's Vault itself, asked without a login.
    pub fn vault_server(&self) -> Result<VaultServer, SecretError> {
        Ok(self.declared_vault()?.server(None)?)
    }

    /// The file's Vault itself, asked with this token.
    pub fn vault_server_as(&self, token: &Secret) -> Result<VaultServer, SecretError> {
        Ok(self.declared_vault()?.server(Some(token))?)
    }

    /// The file's Vault itself, asked with the token of the file's login.
    pub fn vault_server_logged_in(&self) -> Result<VaultServer, SecretError> {
        let vault = self.declared_vault()?;
        Ok(vault.server(Some(&vault.token()?))?)
    }

    /// For how long the login to Vault is good; none where this command has not logged in, or nothing is told of it.
    pub fn login_state(&self) -> Option<Result<LoginState, SecretError>> {
        self.vault.as_ref()?.login_state()
    }

    /// Replaces the secret-id of the file's login.
    pub fn rotate(&self, mount: &str, role: &str) -> Result<Rotated, SecretError> {
        self.declared_vault()?.rotate(mount, role)
    }

    /// Vault's storage was replaced: the login of before is none any more.
    pub fn forget_login(&self) {
        if let Some(vault) = &self.vault {
            vault.forget();
        }
    }

    fn declared_vault(&self) -> Result<&Vault, SecretError> {
        match &self.vault {
            Some(vault) => Ok(vault),
            None => Err(VaultError::Undeclared { path: "vault".to_owned() }.into()),
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
