//! The types of `devstack.yaml`. What is accepted here works today; nothing else is accepted.
//!
//! Enums are externally tagged, with no `flatten` and no untagged ones, so that every error has its place in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::ids::{Digest, PolicyName, RepositoryName, ServiceName, StackName};
use crate::model::retention::Rule;
use crate::model::units::Span;

pub use super::runtime::{ColimaRuntime, DockerRuntime, Runtime, variable_files};
pub use super::shrinking::Shrinking;
pub use super::source::{
    CertificatesSource, Choice, FilesSource, Login, MongodbSource, MysqlSource, PostgresSource, RabbitmqSource,
    RedisSource, SecretIdFile, Source, SqliteSource, Tls, VaultRole, VaultSource, VolumeSource,
};
pub use super::vault::{Approle, Recipient, SecretId, Unseal, UnsealKeys, Vault, VaultLogin};
pub use crate::model::assertion::Assertion;
pub use crate::model::hook::Hooks;

/// The desired state of one stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The version of this format: 1.
    pub version: u32,
    /// The name of the stack: lower-case letters, digits, `-` and `_`.
    pub stack: StackName,
    /// Where the services run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Where secrets lie that the file refers to by `{ vault: PATH#FIELD }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<Vault>,
    /// What is backed up.
    pub services: BTreeMap<ServiceName, Service>,
    /// Where backups go.
    pub repositories: BTreeMap<RepositoryName, Repository>,
    /// Which services are backed up when, to where, and how long they are kept.
    pub backup: BTreeMap<PolicyName, Policy>,
    /// How fast the stack must come back and how much may be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// What the stack holds and no backup takes, each with the reason: it is then no longer told as unprotected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<LeftOut>,
}

/// Something of the stack that needs no backup. Exactly one of `volume`, `path`, `build`, `service` and `network`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// A volume, by its key in the Compose files or its real name; one without a name as `SERVICE:FOLDER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// A file or folder of this machine, with all that lies in it; relative to the folder of devstack.yaml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A folder that images are built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<PathBuf>,
    /// A service of Compose, with all that only services left out use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// An external network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Why nobody will miss it.
    pub because: String,
}

impl LeftOut {
    /// The keys that name something, each with the name.
    pub fn named(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let all = [
            ("volume", self.volume.clone()),
            ("path", path(&self.path)),
            ("build", path(&self.build)),
            ("service", self.service.clone()),
            ("network", self.network.clone()),
        ];
        all.into_iter().filter_map(|(key, name)| Some((key, name?))).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Where its data is, and of which kind.
    pub source: Source,
    /// The services that must be back before this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<ServiceName>,
    /// When a run of it is suspect: what may be gone, and how far something may fall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrinking: Option<Shrinking>,
    /// Programs that are run before and after it is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// A folder on this machine; relative to the folder of devstack.yaml. `~` is the home folder.
    pub path: PathBuf,
    /// The keys that open it. At least one must work without a person: a passphrase, an age identity or a gpg secret key.
    pub keys: Vec<Key>,
    /// The zstd level, 1 to 19; 3 if not given.
    #[schemars(range(min = 1, max = 19))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Key {
    /// A passphrase that opens the repository, for devstack and for plain restic.
    Passphrase(Passphrase),
    /// A GPG recipient (a fingerprint, or an address that names one key). Its random password is encrypted to it.
    Gpg(String),
    /// A random password, encrypted by gpg with a passphrase of yours.
    GpgSymmetric(SecretRef),
    /// An age recipient, `age1…`. Its random password is encrypted to it.
    Age(String),
    /// A file with an age identity, `AGE-SECRET-KEY-1…`, or the variable that holds one. Opens the repository, and is
    /// its own recipient.
    AgeIdentity(SecretRef),
}

/// Where a secret's value is found. Exactly one of `env`, `file`, `env_file` and `vault`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// An environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file that nobody else may read (mode 0600 or 0400); a final newline is not part of the secret. `~` is the home
    /// folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A file of variables, such as `.env`, read as Docker Compose reads it; `name` says which. `~` is the home folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// With `env_file`: the name of the variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A field of a secret in the KV engine of the file's `vault`: `secret/postgres#password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<String>,
}

/// Where the passphrase is found. Exactly one of `env`, `file`, `env_file`, `vault` and `prompt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Passphrase {
    /// An environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file that nobody else may read (mode 0600 or 0400); a final newline is not part of the secret. `~` is the home
    /// folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A file of variables, such as `.env`, read as Docker Compose reads it; `name` says which. `~` is the home folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// With `env_file`: the name of the variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A field of a secret in the KV engine of the file's `vault`: `secret/devstack#passphrase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<String>,
    /// Ask on the terminal. Such a key cannot serve a scheduled run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prompt: bool,
    /// With `file`: make a random passphrase there when neither it nor the repository exists.
    #[serde(default, skip_serializing_if = "is_false")]
    pub generate: bool,
}

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `all`, or a list of names.
    pub services: Services,
    /// When a run is due. Without it a run is taken once, and then by `devstack backup` only, which is DEGRADED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// It has no schedule, and is meant to have none: somebody takes it by hand, or a timer of their own does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
    /// The repositories, each of which gets every run. The first that can be reached is read into, the others get copies.
    pub to: Vec<RepositoryName>,
    /// Which runs stay. Without it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Rule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Programs that are run before and after a run of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
}

/// Which services a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Services {
    All,
    Named(Vec<ServiceName>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Minute, hour, day of month, month, day of week.
    pub cron: String,
    /// An IANA time zone, such as Europe/Berlin; UTC if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Every byte of the repositories is read and hashed within this time, a part at each apply.
    pub data_every: Span,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// How much may be lost: the largest age of the last good run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Span>,
    /// How long the whole stack may take to come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Span>,
    /// Objectives of single services, where they differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, Objective>,
    /// What must hold once everything is back: asked as the last step of a recovery, and of a drill.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assert: Vec<Assertion>,
    /// A recovery in isolation, to prove that it works and how long it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillRule {
    /// When `apply` drills, after its backups.
    pub schedule: Schedule,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Span>,
}

impl Spec {
    /// SHA-256 of what the file says, whatever its comments and order.
    pub fn digest(&self) -> Digest {
        // BTreeMaps and fixed field order make the JSON canonical; a Spec has no map with keys other than strings.
        Digest::of(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The services that `policy` names, in order of name.
    pub fn services_of(&self, policy: &Policy) -> Vec<ServiceName> {
        match &policy.services {
            Services::All => self.services.keys().cloned().collect(),
            Services::Named(names) => {
                let mut names = names.clone();
                names.sort();
                names.dedup();
                names
            }
        }
    }

    /// Services that are backed up once, and that nothing takes again or misses: every policy of theirs lacks a schedule, none says
    /// that it is taken by hand, and no RPO is declared.
    pub fn unscheduled(&self) -> BTreeSet<ServiceName> {
        let comes_again = |policy: &&Policy| policy.schedule.is_some() || policy.manual;
        let (again, once): (Vec<&Policy>, Vec<&Policy>) = self.backup.values().partition(comes_again);
        let of = |policies: Vec<&Policy>| -> BTreeSet<ServiceName> {
            policies.into_iter().flat_map(|policy| self.services_of(policy)).collect()
        };
        let again = of(again);
        of(once).into_iter().filter(|name| !again.contains(name) && self.rpo_of(name).is_none()).collect()
    }

    /// Every secret that the file refers to, but for those that a person is asked for.
    pub fn secrets(&self) -> Vec<SecretRef> {
        let of_sources = self.services.values().flat_map(|service| service.source.secrets()).cloned();
        let of_keys = self.repositories.values().flat_map(|repository| &repository.keys).filter_map(Key::secret);
        let login = self.vault.iter().flat_map(|vault| match &vault.login {
            VaultLogin::Token(token) => vec![token.clone()],
            VaultLogin::Approle(approle) => vec![approle.role_id.clone(), approle.secret_id.reference()],
        });
        of_sources.chain(of_keys).chain(login).collect()
    }

    pub fn rpo_of(&self, service: &ServiceName) -> Option<Span> {
        let recovery = self.recovery.as_ref()?;
        recovery.services.get(service).and_then(|objective| objective.rpo).or(recovery.rpo)
    }

    /// The service's own recovery time objective; the stack's one is for the whole.
    pub fn rto_of(&self, service: &ServiceName) -> Option<Span> {
        self.recovery.as_ref()?.services.get(service).and_then(|objective| objective.rto)
    }
}

impl Key {
    /// What opens the repository, where it is not asked for.
    pub fn secret(&self) -> Option<SecretRef> {
        match self {
            Self::Passphrase(it) if it.prompt => None,
            Self::Passphrase(Passphrase { env, file, env_file, name, vault, .. }) => Some(SecretRef {
                env: env.clone(),
                file: file.clone(),
                env_file: env_file.clone(),
                name: name.clone(),
                vault: vault.clone(),
            }),
            Self::GpgSymmetric(secret) | Self::AgeIdentity(secret) => Some(secret.clone()),
            Self::Gpg(_) | Self::Age(_) => None,
        }
    }

    /// What the repository's key file is labelled with, so that a declared key finds its own without trying them all.
    pub fn label(&self) -> String {
        match self {
            Self::Passphrase(Passphrase { env: Some(name), .. }) => format!("passphrase env {name}"),
            Self::Passphrase(Passphrase { file: Some(path), .. }) => format!("passphrase file {}", path.display()),
            Self::Passphrase(Passphrase { env_file: Some(path), name: Some(name), .. }) => {
                format!("passphrase env_file {} {name}", path.display())
            }
            Self::Passphrase(Passphrase { vault: Some(path), .. }) => format!("passphrase vault {path}"),
            Self::Passphrase(_) => "passphrase prompt".to_owned(),
            Self::Gpg(recipient) => format!("gpg {recipient}"),
            Self::GpgSymmetric(secret) => format!("gpg-symmetric {}", secret.place()),
            Self::Age(recipient) => format!("age {recipient}"),
            Self::AgeIdentity(secret) => format!("age-identity {}", secret.place()),
        }
    }
}

impl SecretRef {
    /// Where it is found, never what it is.
    pub fn place(&self) -> String {
        match self {
            Self { env: Some(name), .. } => format!("env {name}"),
            Self { file: Some(path), .. } => format!("file {}", path.display()),
            Self { env_file: Some(path), name: Some(name), .. } => format!("env_file {} {name}", path.display()),
            Self { vault: Some(path), .. } => format!("vault {path}"),
            Self { .. } => "nowhere".to_owned(),
        }
    }
}
