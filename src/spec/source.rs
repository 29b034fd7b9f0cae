//! The kinds of data that a service may have.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::{SecretRef, is_false};
use crate::model::units::Span;

/// The kind of data; each has an engine of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// An SQLite database file, taken through SQLite's own online backup.
    Sqlite(SqliteSource),
    /// Files and folders of this machine.
    Files(FilesSource),
    /// Certificates that services mount, with the keys beside them: files, whose expiry is watched.
    Certificates(CertificatesSource),
    /// A PostgreSQL server in a container.
    Postgres(PostgresSource),
    /// A MySQL server in a container.
    Mysql(MysqlSource),
    /// A MariaDB server in a container.
    Mariadb(MysqlSource),
    /// A MongoDB server in a container.
    Mongodb(MongodbSource),
    /// A Redis server or cluster in containers.
    Redis(RedisSource),
    /// A RabbitMQ server in a container.
    Rabbitmq(RabbitmqSource),
    /// A Vault in a container: the one that the file's `vault` names.
    Vault(VaultSource),
    /// A named volume, or a folder in a container.
    Volume(VolumeSource),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteSource {
    /// The database file; relative to the folder of devstack.yaml.
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesSource {
    /// Files, folders or globs (`*`, `**`, `?`, `[a-z]`, `{a,b}`); relative to the folder of devstack.yaml.
    /// Each must match something.
    pub paths: Vec<String>,
    /// What is left out, by the rules of a `.gitignore` beside devstack.yaml: `node_modules/`, `*.log`, `./cache`, `!keep.log`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Who writes there: services or containers that are stopped while it is read, and started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificatesSource {
    /// Files, folders or globs, as those of `files`. At least one file must hold a certificate, in PEM or DER.
    pub paths: Vec<String>,
    /// What is left out, as of `files`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// How long before its end a certificate is reported; 30 days if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Span>,
}

impl CertificatesSource {
    pub fn warn(&self) -> Span {
        self.warn.unwrap_or(Span::from_days(30))
    }
}

/// Which databases of a server are backed up: globs, all of them if nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Only those whose name matches one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// None of those whose name matches one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Who restores, where the user that takes backups may not write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// TLS to a server that asks for it. The files are those inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate of the authority that signed the server's.
    pub ca: String,
    /// The client's own certificate, where the server wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// The client's own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSource {
    /// A service of the Compose project, or a container's name.
    pub container: String,
    /// Who takes backups; `postgres` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Not needed where the server trusts its own socket, as the official image does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// All that accept connections, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Choice>,
    /// Leave the roles' passwords out: for a user that may not read them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub without_role_passwords: bool,
    /// Connect by TCP with TLS, the server's certificate checked; its socket in the container if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who restores; the user that takes backups, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_as: Option<Login>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MysqlSource {
    /// A service of the Compose project, or a container's name.
    pub container: String,
    /// Who takes backups; `root` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// All of them, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Choice>,
    /// Leave users, roles and grants out: for a user that may not read them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub without_accounts: bool,
    /// Connect by TCP with TLS, the server's certificate checked; its socket in the container if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who restores; the user that takes backups, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_as: Option<Login>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MongodbSource {
    /// A service of the Compose project, or a container's name.
    pub container: String,
    /// Who takes backups; no login if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// The database that the user is known in; `admin` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_database: Option<String>,
    /// All of them, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Choice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who restores; the user that takes backups, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_as: Option<Login>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSource {
    /// One service of the Compose project (or container) for a single server; all nodes of a cluster.
    pub containers: Vec<String>,
    /// The containers are the nodes of one Redis Cluster.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cluster: bool,
    /// The ACL user; the default user if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// 6379 if not given.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who restores; the user that takes backups, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_as: Option<Login>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqSource {
    /// A service of the Compose project, or a container's name.
    pub container: String,
    /// The messages too: the node is stopped while its data folder is read.
    #[serde(default, skip_serializing_if = "is_false")]
    pub messages: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultSource {
    /// The service of the Compose project, or the container's name, that `vault.address` leads to.
    pub container: String,
    /// With file storage: its folder in the container; read from the server's settings if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Files of this machine without which a restored Vault stays shut or unreachable: unseal keys, role-ids, secret-ids,
    /// the CA. They are encrypted to `vault.escrow` before they enter a repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_files: Vec<PathBuf>,
    /// A field that must be there when it is taken and after it was restored: `secret/canary#value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// The roles whose secret-ids are issued anew after a restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approles: Vec<VaultRole>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultRole {
    pub role: String,
    /// Where services read it.
    pub secret_id: SecretIdFile,
    /// Where the method is mounted; `approle` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretIdFile {
    /// A file of this machine. It keeps its mode; a new one gets 0600.
    pub file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSource {
    /// A named volume, with or without the Compose project before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// In place of a volume: the container that `path` lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// A folder in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Who writes to it: services or containers that are stopped while it is read, and started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

impl Source {
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Files(_) => "files",
            Self::Certificates(_) => "certificates",
            Self::Postgres(_) => "postgres",
            Self::Mysql(_) => "mysql",
            Self::Mariadb(_) => "mariadb",
            Self::Mongodb(_) => "mongodb",
            Self::Redis(_) => "redis",
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Vault(_) => "vault",
            Self::Volume(_) => "volume",
        }
    }

    /// Whether it lives in containers, so that a Docker engine is needed.
    pub fn needs_docker(&self) -> bool {
        !matches!(self, Self::Sqlite(_) | Self::Files(_) | Self::Certificates(_))
    }

    /// The passwords that it is looked into with.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        let (password, restoring) = match self {
            Self::Postgres(source) => (&source.password, &source.restore_as),
            Self::Mysql(source) | Self::Mariadb(source) => (&source.password, &source.restore_as),
            Self::Mongodb(source) => (&source.password, &source.restore_as),
            Self::Redis(source) => (&source.password, &source.restore_as),
            Self::Sqlite(_)
            | Self::Files(_)
            | Self::Certificates(_)
            | Self::Rabbitmq(_)
            | Self::Vault(_)
            | Self::Volume(_) => return Vec::new(),
        };
        let restoring = restoring.as_ref().and_then(|login| login.password.as_ref());
        password.iter().chain(restoring).collect()
    }

    pub fn reads_from_vault(&self) -> bool {
        self.secrets().iter().any(|secret| secret.vault.is_some())
    }

    /// The containers whose state it depends on, as the file names them.
    pub fn containers(&self) -> Vec<&str> {
        match self {
            Self::Sqlite(_) | Self::Files(_) | Self::Certificates(_) => Vec::new(),
            Self::Postgres(source) => vec![&source.container],
            Self::Mysql(source) | Self::Mariadb(source) => vec![&source.container],
            Self::Mongodb(source) => vec![&source.container],
            Self::Redis(source) => source.containers.iter().map(String::as_str).collect(),
            Self::Rabbitmq(source) => vec![&source.container],
            Self::Vault(source) => vec![&source.container],
            Self::Volume(source) => source.container.iter().chain(&source.stop).map(String::as_str).collect(),
        }
    }

    /// The containers that are stopped while it is taken.
    pub fn stops(&self) -> Vec<&str> {
        match self {
            Self::Volume(source) => source.stop.iter().map(String::as_str).collect(),
            Self::Rabbitmq(source) if source.messages => vec![&source.container],
            Self::Files(source) => source.stop.iter().map(String::as_str).collect(),
            Self::Rabbitmq(_)
            | Self::Sqlite(_)
            | Self::Certificates(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Mariadb(_)
            | Self::Mongodb(_)
            | Self::Redis(_)
            | Self::Vault(_) => Vec::new(),
        }
    }
}
