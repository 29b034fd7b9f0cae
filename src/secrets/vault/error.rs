//! Why Vault gave no secret: which path, what was missing, what to do. Never a value, never a token.

use std::path::PathBuf;

use crate::model::outcome::FailureKind;

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(
        "a secret lies in Vault ({path}), and the file has no `vault` section: write where it is and how to log in"
    )]
    Undeclared { path: String },
    #[error("Vault at {address} does not answer: start it, or correct `vault.address`")]
    Unreachable {
        address: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the certificate of Vault at {address} is not trusted: name its authority in `vault.ca`, and use a name that it holds"
    )]
    Untrusted {
        address: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the authority file {path} of Vault cannot be used: `vault.ca` names a file of PEM certificates")]
    Authority {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("`vault.address` {address} is no address of a server, such as https://vault.example.com:8200")]
    Address { address: String },
    #[error(
        "the certificate of Vault at {address} is for an address of the network, which a drill's own Vault does not have: name Vault by a host name in `vault.address`"
    )]
    NoStandIn { address: String },
    #[error("Vault at {address} is sealed: unseal it (`vault operator unseal`), then try again")]
    Sealed { address: String },
    #[error("Vault at {address} is not initialised: it holds nothing yet")]
    Uninitialised { address: String },
    #[error(
        "Vault refused the login at auth/{mount}: {why}; issue a new secret-id, or correct the role-id{}",
        locked_out(.why)
    )]
    Login { mount: String, why: String },
    #[error("the wrapped secret-id was not spent: only an apply unwraps it, since it can be unwrapped once")]
    NotSpent,
    #[error(
        "the wrapping token of the secret-id is used up, expired or unknown to Vault ({why}): wrap a new secret-id; if nobody else was given this one, somebody has intercepted it"
    )]
    Unwrap { why: String },
    #[error("Vault does not take the token that the file names ({why}): put a valid one there")]
    Token { why: String },
    #[error(
        "Vault denies {capability} on {path}{}: give the login's policy `path \"{path}\" {{ capabilities = [\"{capability}\"] }}`",
        has(.granted)
    )]
    Denied { path: String, capability: &'static str, granted: Vec<String> },
    #[error(
        "Vault denies read on {path}, or no engine is mounted there: give the login's policy \
         `path \"{data}\" {{ capabilities = [\"read\"] }}` (KV version 2; for version 1 `path \"{path}\"`)"
    )]
    NoAccess { path: String, data: String },
    #[error("Vault does not know the token any more: it was revoked or has expired")]
    TokenGone,
    #[error("there is no secret at {path} in Vault{hint}")]
    NoPath { path: String, hint: String },
    #[error("the newest version of {path} in Vault was deleted: `vault kv undelete`, or write it anew")]
    Deleted { path: String },
    #[error("the secret {path} in Vault has no field {field}; it has {}", if .fields.is_empty() { "none".to_owned() } else { .fields.join(", ") })]
    NoField { path: String, field: String, fields: Vec<String> },
    #[error("the field {field} of {path} in Vault is no text: write it as a string")]
    NotText { path: String, field: String },
    #[error("{path} lies in {mount} of Vault, which is of type {kind} and not kv: name a path of a KV engine")]
    NotKv { path: String, mount: String, kind: String },
    #[error("{doing} was answered by Vault with {status}{}", said(.errors))]
    Answer { doing: String, status: u16, errors: Vec<String> },
    #[error(
        "{doing}: what answers at {address} is not Vault, or speaks TLS where the address does not: correct `vault.address`"
    )]
    NotVault { address: String, doing: String },
    #[error("{doing}: Vault's answer could not be understood ({why})")]
    Unreadable { doing: String, why: String },
    #[error("starting the thread that talks to Vault failed")]
    Thread {
        #[source]
        source: std::io::Error,
    },
}

/// What Vault answers to a role that it has locked out, whatever secret-id comes with it.
fn locked_out(why: &str) -> &'static str {
    match why {
        "permission denied" => " (after several refusals in a row Vault lets nobody in by this role for 15 minutes)",
        _ => "",
    }
}

fn has(granted: &[String]) -> String {
    match granted {
        [] => String::new(),
        [only] if only == "deny" => " (it has none there)".to_owned(),
        granted => format!(" (it has {})", granted.join(", ")),
    }
}

fn said(errors: &[String]) -> String {
    if errors.is_empty() { String::new() } else { format!(": {}", errors.join("; ")) }
}

impl VaultError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Unreachable { .. } => FailureKind::Transient,
            Self::Answer { status, .. } if *status >= 500 => FailureKind::Transient,
            Self::Sealed { .. }
            | Self::Uninitialised { .. }
            | Self::Answer { .. }
            | Self::Unreadable { .. }
            | Self::Thread { .. } => FailureKind::Permanent,
            Self::Undeclared { .. }
            | Self::Untrusted { .. }
            | Self::Authority { .. }
            | Self::Address { .. }
            | Self::NoStandIn { .. }
            | Self::NotVault { .. }
            | Self::Login { .. }
            | Self::NotSpent
            | Self::Unwrap { .. }
            | Self::Token { .. }
            | Self::Denied { .. }
            | Self::NoAccess { .. }
            | Self::TokenGone
            | Self::NoPath { .. }
            | Self::Deleted { .. }
            | Self::NoField { .. }
            | Self::NotText { .. }
            | Self::NotKv { .. } => FailureKind::Key,
        }
    }
}
