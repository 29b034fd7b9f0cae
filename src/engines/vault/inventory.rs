//! What is set up in a Vault, readable and without a secret in it: who reviews a backup sees what a restore brings back.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::storage::Storage;
use crate::engines::EngineError;
use crate::engines::inspect::{Counts, cut};
use crate::model::ids::Digest;
use crate::secrets::{SealStatus, Secret, VaultError, VaultServer};

/// The whole of it, as `inventory.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Inventory {
    pub server: Facts,
    /// Their texts.
    pub policies: BTreeMap<String, String>,
    pub auth: BTreeMap<String, Mount>,
    /// Roles of AppRole, by mount and name: `approle/shop`.
    pub roles: BTreeMap<String, Value>,
    pub secrets: BTreeMap<String, Mount>,
    /// Issuers of PKI, by mount and id.
    pub issuers: BTreeMap<String, Issuer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// What a restored secret is compared with, without its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Canary {
    /// As the file names it: `secret/canary#value`.
    pub reference: String,
    /// 16 random bytes in hexadecimal, so that equal values in two backups do not look equal.
    salt: String,
    /// SHA-256 of the salt's text and the value.
    sha256: Digest,
}

impl Canary {
    pub fn of(reference: &str, value: &Secret) -> io::Result<Self> {
        let mut salt = [0_u8; 16];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let salt = hex::encode(salt);
        Ok(Self { reference: reference.to_owned(), sha256: digest(&salt, value), salt })
    }

    pub fn is(&self, value: &Secret) -> bool {
        digest(&self.salt, value) == self.sha256
    }
}

fn digest(salt: &str, value: &Secret) -> Digest {
    Digest::of(Zeroizing::new([salt, value.expose()].concat()).as_bytes())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub version: String,
    pub cluster_id: Option<String>,
    pub cluster_name: Option<String>,
    pub storage: String,
    /// `shamir`, or what unseals it by itself.
    pub seal: String,
    pub shares: u32,
    pub threshold: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mount {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub description: String,
    /// Such as the version of a KV engine.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub local: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Issuer {
    pub name: String,
    pub certificate: String,
}

/// Its rules are not text, and it is the same everywhere.
const ROOT: &str = "root";

impl Inventory {
    /// Asked with a login; a right that it lacks is named with its path.
    pub fn of(vault: &VaultServer, status: &SealStatus) -> Result<Self, EngineError> {
        let server = Facts {
            version: status.version.clone(),
            cluster_id: status.cluster_id.clone(),
            cluster_name: status.cluster_name.clone(),
            storage: Storage::of(status)?.name().to_owned(),
            seal: status.kind.clone(),
            shares: status.n,
            threshold: status.t,
        };
        let mut policies = BTreeMap::new();
        for name in vault.list("sys/policies/acl")?.into_iter().filter(|name| name != ROOT) {
            let told = vault.read(&format!("sys/policies/acl/{name}"))?;
            policies.insert(name, text(&told["data"]["policy"], "a policy")?);
        }
        let auth = mounts(vault, "sys/auth")?;
        let mut roles = BTreeMap::new();
        for mount in of_kind(&auth, "approle") {
            for role in vault.list(&format!("auth/{mount}role"))? {
                let told = vault.read(&format!("auth/{mount}role/{role}"))?;
                roles.insert(format!("{mount}{role}"), told["data"].clone());
            }
        }
        let secrets = mounts(vault, "sys/mounts")?;
        let mut issuers = BTreeMap::new();
        for mount in of_kind(&secrets, "pki") {
            let (ids, about) = vault.list_with_info(&format!("{mount}issuers"))?;
            for id in ids {
                // Anybody may read an issuer's certificate.
                let told = vault.read(&format!("{mount}issuer/{id}/json"))?;
                let name = about[&id]["issuer_name"].as_str().unwrap_or_default().to_owned();
                let certificate = text(&told["data"]["certificate"], "an issuer's certificate")?;
                issuers.insert(format!("{mount}{id}"), Issuer { name, certificate });
            }
        }
        Ok(Self { server, policies, auth, roles, secrets, issuers, canary: None })
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, EngineError> {
        serde_json::to_vec_pretty(self)
            .map_err(|error| EngineError::Answer { what: "Vault".to_owned(), why: error.to_string() })
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("it is no inventory of a Vault: {error}"))
    }

    /// What another one has otherwise. Versions may differ, and so do ids that a server gives itself.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        fn of<T: PartialEq>(
            what: &str,
            then: &BTreeMap<String, T>,
            now: &BTreeMap<String, T>,
            found: &mut Vec<String>,
        ) {
            for (name, value) in then {
                match now.get(name) {
                    None => found.push(format!("{what} {name} is missing")),
                    Some(there) if there != value => found.push(format!("{what} {name} is another")),
                    Some(_) => {}
                }
            }
            found.extend(
                now.keys().filter(|name| !then.contains_key(*name)).map(|name| format!("{what} {name} is new")),
            );
        }
        let mut found = Vec::new();
        of("the policy", &self.policies, &other.policies, &mut found);
        of("the auth method", &self.auth, &other.auth, &mut found);
        of("the role", &self.roles, &other.roles, &mut found);
        of("the secrets engine", &self.secrets, &other.secrets, &mut found);
        of("the issuer", &self.issuers, &other.issuers, &mut found);
        found
    }
}

fn of_kind<'a>(mounts: &'a BTreeMap<String, Mount>, kind: &'a str) -> impl Iterator<Item = &'a String> {
    mounts.iter().filter(move |(_, mount)| mount.kind == kind).map(|(path, _)| path)
}

fn mounts(vault: &VaultServer, path: &str) -> Result<BTreeMap<String, Mount>, EngineError> {
    let told = vault.read(path)?;
    Ok(serde_json::from_value(told["data"].clone()).map_err(|error| unreadable(path, &error.to_string()))?)
}

fn text(value: &Value, what: &str) -> Result<String, VaultError> {
    value.as_str().map(str::to_owned).ok_or_else(|| unreadable(what, "it is no text"))
}

fn unreadable(what: &str, why: &str) -> VaultError {
    VaultError::Unreadable { doing: format!("reading {what}"), why: why.to_owned() }
}

/// An inventory is small; whatever is larger is none.
const LARGEST: u64 = 256 << 20;

pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut bytes = Vec::new();
    from.take(LARGEST).read_to_end(&mut bytes).map_err(|error| cut("the inventory", &error))?;
    let inventory = Inventory::parse(&bytes)?;
    let counts = [
        ("policies", inventory.policies.len()),
        ("auth methods", inventory.auth.len()),
        ("roles", inventory.roles.len()),
        ("secrets engines", inventory.secrets.len()),
        ("issuers", inventory.issuers.len()),
    ];
    Ok(counts.into_iter().map(|(name, count)| (name.to_owned(), count as u64)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let mount = Mount { kind: "kv".into(), description: String::new(), options: None, local: false };
        Inventory {
            server: Facts {
                version: "1.21.2".into(),
                cluster_id: Some("id".into()),
                cluster_name: None,
                storage: "raft".into(),
                seal: "shamir".into(),
                shares: 5,
                threshold: 3,
            },
            policies: [("shop".to_owned(), "path \"x\" {}".to_owned())].into(),
            auth: BTreeMap::new(),
            roles: [("approle/shop".to_owned(), serde_json::json!({"token_ttl": 60}))].into(),
            secrets: [("secret/".to_owned(), mount)].into(),
            issuers: BTreeMap::new(),
            canary: None,
        }
    }

    #[test]
    fn a_canary_is_known_again_and_its_value_does_not_show() {
        let value = |text: &str| Secret::new(text.to_owned());
        let canary = Canary::of("secret/canary#value", &value("tweet")).unwrap();
        assert!(canary.is(&value("tweet")) && !canary.is(&value("tweets")));
        let again = Canary::of("secret/canary#value", &value("tweet")).unwrap();
        assert_ne!(again.sha256, canary.sha256);
        let bytes = Inventory { canary: Some(canary), ..inventory() }.to_bytes().unwrap();
        assert!(!String::from_utf8(bytes).unwrap().contains("tweet"));
    }

    #[test]
    fn what_is_written_is_read_and_cut_it_is_not_whole() {
        let bytes = inventory().to_bytes().unwrap();
        assert_eq!(Inventory::parse(&bytes).unwrap(), inventory());
        assert_eq!(inspect(&mut bytes.as_slice()).unwrap()[0], ("policies".to_owned(), 1));
        for end in 0..bytes.len() {
            assert!(inspect(&mut &bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn what_differs_is_named_and_a_newer_server_does_not() {
        let mut now = inventory();
        now.server.version = "1.22.0".into();
        assert!(inventory().differences(&now).is_empty());
        now.policies.insert("more".into(), String::new());
        now.roles.insert("approle/shop".into(), Value::Null);
        now.secrets.clear();
        let found = inventory().differences(&now);
        assert_eq!(
            found,
            ["the policy more is new", "the role approle/shop is another", "the secrets engine secret/ is missing"]
        );
    }
}
