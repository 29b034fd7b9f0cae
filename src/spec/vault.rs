//! `vault`: where the server is, and how devstack logs in to it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::{SecretRef, is_false};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Where it answers, such as `https://vault.example.com:8200`.
    pub address: String,
    /// A PEM file with the authority that signed its certificate; without it those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The namespace that every path is in (Vault Enterprise, OpenBao).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How devstack logs in. There is nothing that it falls back to.
    pub login: VaultLogin,
    /// What opens it after its storage was restored. Not needed where it unseals itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseal: Option<Unseal>,
    /// Whom its key files are encrypted to before they enter a repository, since every key of a repository opens all of
    /// it. Each can decrypt alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escrow: Vec<Recipient>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unseal {
    /// Where the shares (unseal keys) are found: as many as the threshold, together.
    pub keys: Vec<UnsealKeys>,
}

/// Where one or more shares are found: the answer of `vault operator init` (as JSON or as it is printed), or shares, one on
/// a line. Exactly one of `env`, `file`, `gpg` and `prompt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsealKeys {
    /// An environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file that nobody else may read: mode 0600 or 0400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A file that gpg decrypts, such as a share that `vault operator init -pgp-keys` gave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpg: Option<PathBuf>,
    /// Ask on the terminal for as many as are missing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prompt: bool,
}

/// Whom something is encrypted to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Recipient {
    /// An age recipient, `age1…`.
    Age(String),
    /// A GPG recipient: a fingerprint, or an address that names one key.
    Gpg(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VaultLogin {
    /// A role of the AppRole method. Its token is devstack's own, and revoked when the command ends.
    Approle(Approle),
    /// A token of yours. It is used as it is and left alone.
    Token(SecretRef),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approle {
    pub role_id: SecretRef,
    pub secret_id: SecretId,
    /// Where the method is mounted; `approle` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
}

/// Where the secret-id is found. Exactly one of `env`, `file` and `env_file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretId {
    /// An environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file that nobody else may read: mode 0600 or 0400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A file of variables, such as `.env`, read as Docker Compose reads it; `name` says which. `~` is the home folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// With `env_file`: the name of the variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It is a response-wrapping token, which gives the secret-id once. `plan` never spends it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wrapped: bool,
    /// With `file`: an apply puts a new one there, and destroys the old one, before it expires.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rotate: bool,
}

impl Approle {
    /// Where the method is mounted.
    pub fn mount(&self) -> &str {
        self.mount.as_deref().unwrap_or("approle")
    }
}

impl Vault {
    /// The secret-id that devstack replaces by itself.
    pub fn rotates(&self) -> bool {
        matches!(&self.login, VaultLogin::Approle(approle) if approle.secret_id.rotate)
    }
}

impl SecretId {
    pub fn reference(&self) -> SecretRef {
        SecretRef {
            env: self.env.clone(),
            file: self.file.clone(),
            env_file: self.env_file.clone(),
            name: self.name.clone(),
            vault: None,
        }
    }
}
