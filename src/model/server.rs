//! Which server runs in a container, told by what is known of it from outside: the name of its image, its command, the ports
//! that it opens and the names of its variables.

use serde::{Deserialize, Serialize};

/// A server that devstack has an engine for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerKind {
    Postgres,
    Mysql,
    Mariadb,
    Mongodb,
    Redis,
    Rabbitmq,
    Vault,
}

/// What is known of a container without asking what is in it. Of its variables the names alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clues<'a> {
    pub image: &'a str,
    /// The entrypoint and the command, as one line.
    pub command: &'a str,
    /// Those that it opens inside.
    pub ports: &'a [u16],
    pub variables: &'a [&'a str],
}

impl ServerKind {
    /// The key of its source in devstack.yaml.
    pub fn engine(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
            Self::Rabbitmq => "rabbitmq",
            Self::Vault => "vault",
        }
    }

    /// As people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::Mariadb => "MariaDB",
            Self::Mongodb => "MongoDB",
            Self::Redis => "Redis",
            Self::Rabbitmq => "RabbitMQ",
            Self::Vault => "Vault",
        }
    }

    /// None for a container that is no server of these kinds, or can't be told to be one.
    pub fn told_by(clues: &Clues<'_>) -> Option<Self> {
        let kind = by_image(clues.image)?;
        // The image of a server runs its clients too: a job that dumps, a node that forms a cluster and ends.
        let words = || clues.command.split(|c: char| c.is_whitespace() || "/;&|\"'".contains(c));
        let serves = words().any(|word| kind.programs().contains(&word));
        let asks = words().any(|word| CLIENTS.contains(&word));
        // A sentinel watches over servers, by the program of a server.
        let watches = words().any(|word| word == "--sentinel");
        (!watches && (serves || !asks)).then_some(kind)
    }

    /// The programs that are the server.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "postmaster"],
            Self::Mysql => &["mysqld"],
            Self::Mariadb => &["mariadbd", "mysqld"],
            Self::Mongodb => &["mongod"],
            Self::Redis => &["redis-server", "valkey-server"],
            Self::Rabbitmq => &["rabbitmq-server"],
            Self::Vault => &["server"],
        }
    }

    /// Whether the server keeps its data in `target`, a folder in its container: what is mounted there comes back by the
    /// server's own dump. `own` is where its variables say that its data is, where they do.
    pub fn keeps_data_in(self, target: &str, own: Option<&str>) -> bool {
        let target = target.trim_end_matches('/');
        let places: &[&str] = match self {
            Self::Postgres => &[
                "/var/lib/postgresql",
                "/var/lib/pgsql",
                "/bitnami/postgresql",
                "/home/postgres/pgdata",
                "/home/postgres/data",
            ],
            Self::Mysql | Self::Mariadb => {
                &["/var/lib/mysql", "/bitnami/mysql", "/bitnami/mariadb", "/var/lib/mysql-files"]
            }
            Self::Mongodb => &["/data/db", "/data/configdb", "/bitnami/mongodb"],
            Self::Redis => &["/data", "/bitnami/redis", "/bitnami/valkey", "/var/lib/redis", "/var/lib/valkey"],
            Self::Rabbitmq => &["/var/lib/rabbitmq", "/bitnami/rabbitmq"],
            Self::Vault => &["/vault/data", "/vault/file", "/vault/raft", "/openbao/data", "/openbao/file"],
        };
        let below = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        places.iter().any(|place| below(place, target)) || own.is_some_and(|own| below(target, own))
    }
}

/// Programs that ask a server, or watch over servers, and hold no data.
const CLIENTS: [&str; 16] = [
    "psql",
    "pg_dump",
    "pg_dumpall",
    "pg_restore",
    "pg_basebackup",
    "pg_isready",
    "mysql",
    "mysqldump",
    "mysqladmin",
    "mariadb",
    "mariadb-dump",
    "mongosh",
    "mongodump",
    "redis-cli",
    "valkey-cli",
    "redis-sentinel",
];

/// By the name of the image without its registry, tag and digest.
fn by_image(image: &str) -> Option<ServerKind> {
    let name = image.split('@').next()?;
    let last = name.rsplit('/').next()?.split(':').next()?.to_ascii_lowercase();
    Some(match last.as_str() {
        "postgres" | "postgresql" | "postgis" | "timescaledb" | "timescaledb-ha" | "pgvector" | "citus" | "spilo" => {
            ServerKind::Postgres
        }
        "mysql" | "mysql-server" | "percona" | "percona-server" => ServerKind::Mysql,
        "mariadb" => ServerKind::Mariadb,
        "mongo" | "mongodb" | "mongodb-community-server" | "percona-server-mongodb" => ServerKind::Mongodb,
        "redis" | "redis-stack" | "redis-stack-server" | "valkey" => ServerKind::Redis,
        "rabbitmq" => ServerKind::Rabbitmq,
        "vault" | "openbao" => ServerKind::Vault,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(image: &str, command: &str) -> Option<ServerKind> {
        ServerKind::told_by(&Clues { image, command, ..Clues::default() })
    }

    #[test]
    fn a_server_is_told_by_its_image_and_not_by_a_part_of_a_name() {
        for (image, kind) in [
            ("postgres:17", ServerKind::Postgres),
            ("docker.io/bitnami/postgresql:16@sha256:00", ServerKind::Postgres),
            ("registry:5000/timescale/timescaledb-ha:pg17", ServerKind::Postgres),
            ("mysql/mysql-server", ServerKind::Mysql),
            ("percona/percona-server-mongodb:8", ServerKind::Mongodb),
            ("valkey/valkey:8", ServerKind::Redis),
            ("hashicorp/vault:1.20", ServerKind::Vault),
        ] {
            assert_eq!(told(image, ""), Some(kind), "{image}");
        }
        for image in [
            "prodrigestivill/postgres-backup-local",
            "mysql/mysql-router",
            "postgrest/postgrest",
            "supabase/postgres-meta",
            "zabbix/zabbix-server-pgsql",
            "vaultwarden/server",
            "",
        ] {
            assert_eq!(told(image, ""), None, "{image}");
        }
    }

    #[test]
    fn a_servers_image_that_runs_a_client_is_no_server() {
        assert_eq!(told("redis:8", "redis-cli --cluster create a:6379"), None);
        assert_eq!(told("redis:8", "redis-server /etc/sentinel.conf --sentinel"), None);
        assert_eq!(told("postgres:17", "sh -c 'while :; do pg_dump shop > /backups/x; done'"), None);
        assert_eq!(told("postgres:17", "postgres -c wal_level=logical"), Some(ServerKind::Postgres));
        assert_eq!(told("redis:8", "sh -c 'redis-server & redis-cli ping'"), Some(ServerKind::Redis));
    }

    #[test]
    fn where_a_server_keeps_its_data_is_known_or_told_by_its_variables() {
        assert!(ServerKind::Postgres.keeps_data_in("/var/lib/postgresql/data/", None));
        assert!(ServerKind::Postgres.keeps_data_in("/pg", Some("/pg/17")));
        assert!(!ServerKind::Postgres.keeps_data_in("/docker-entrypoint-initdb.d", Some("/pg/17")));
        assert!(!ServerKind::Redis.keeps_data_in("/database", None));
        assert!(ServerKind::Mongodb.keeps_data_in("/data/configdb", None));
    }
}
