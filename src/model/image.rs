//! What an image is by its name: a server whose data devstack takes through the server itself, a kin of one that is taken
//! by its files, or a program that only has a server's name in its own.
//!
//! Names are compared part by part and never by a substring: `zabbix-server-mysql` is no MySQL. Where the name says
//! nothing, what the Compose file tells of the service (where it mounts data, which variables it sets) is asked.

use serde::{Deserialize, Serialize};

/// A server that has an engine of its own in devstack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    Postgres,
    Mysql,
    Mariadb,
    Mongodb,
    Redis,
    Rabbitmq,
    Vault,
}

/// What is known of an image, or of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Server(Server),
    /// A server, and one whose files are taken while it is stopped: devstack has no engine for it, or never tried it with
    /// the engine of its kin.
    Untried(&'static str),
    /// It has a server's name in its own and is none: its volumes are like any other program's.
    Helper,
    Other,
}

impl Server {
    /// The word for its source in devstack.yaml.
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

    /// Whether `command`, the entrypoint and the command of a container of this server's image, runs the server. The image
    /// of a server holds its clients too: a job that dumps, a node that forms a cluster and ends, a sentinel.
    pub fn is_run_by(self, command: &str) -> bool {
        let words = || command.split(|c: char| c.is_whitespace() || "/;&|\"'".contains(c));
        let is_dev = || words().any(|word| word.trim_start_matches('-') == "dev");
        match self {
            Self::Redis if words().any(|word| word == "--sentinel") => return false,
            // It keeps nothing.
            Self::Vault if is_dev() => return false,
            _ => {}
        }
        let serves = words().any(|word| self.programs().contains(&word));
        serves || !words().any(|word| CLIENTS.contains(&word))
    }

    /// Where its images keep data. A mount at or above one of these is what the server's own source takes.
    pub fn data_folders(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &[
                "/var/lib/postgresql/data",
                "/var/lib/postgresql",
                "/bitnami/postgresql",
                "/home/postgres/pgdata",
                "/home/postgres/pgroot",
                "/pgdata",
            ],
            Self::Mysql => &["/var/lib/mysql", "/bitnami/mysql"],
            Self::Mariadb => &["/var/lib/mysql", "/bitnami/mariadb", "/config"],
            Self::Mongodb => &["/data/db", "/data/configdb", "/bitnami/mongodb"],
            Self::Redis => &["/data", "/bitnami/redis", "/bitnami/valkey", "/bitnami/redis-cluster", "/var/lib/redis"],
            Self::Rabbitmq => &["/var/lib/rabbitmq", "/bitnami/rabbitmq"],
            Self::Vault => &["/vault/file", "/vault/data", "/vault/raft", "/openbao/file", "/openbao/data"],
        }
    }

    /// Whether a mount at `target` is its data and nothing else's.
    pub fn keeps_data_at(self, target: &str) -> bool {
        let target = target.trim_end_matches('/');
        self.data_folders()
            .iter()
            .any(|folder| target == *folder || is_below(target, folder) || is_below(folder, target))
    }
}

/// Programs that ask a server, or watch over servers, and hold no data.
const CLIENTS: &[&str] = &[
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
    "agent",
    // Containers that are entered by hand, or do nothing.
    "sleep",
    "tail",
];

fn is_below(path: &str, folder: &str) -> bool {
    !folder.is_empty() && path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The name of an image without its registry, tag and digest, in lower case: `library/postgres`, `bitnami/redis`.
pub fn repository(image: &str) -> String {
    let image = image.trim().to_ascii_lowercase();
    let image = image.split('@').next().unwrap_or_default();
    let (path, last) = match image.rsplit_once('/') {
        Some((path, last)) => (Some(path), last),
        None => (None, image),
    };
    let last = last.split(':').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.into_iter().flat_map(|path| path.split('/')).collect();
    // As Docker tells a registry: a first part with a point or a port in it, or `localhost`.
    if parts.first().is_some_and(|first| first.contains(['.', ':']) || *first == "localhost") {
        parts.remove(0);
    }
    if parts == ["library"] {
        parts.clear();
    }
    parts.push(last);
    parts.join("/")
}

/// The last parts of names, whoever published them: mirrors and companies put their own name before these.
const SERVERS: &[(&str, Server)] = &[
    ("postgres", Server::Postgres),
    ("postgresql", Server::Postgres),
    ("postgresql-repmgr", Server::Postgres),
    ("postgis", Server::Postgres),
    ("timescaledb", Server::Postgres),
    ("timescaledb-ha", Server::Postgres),
    ("timescaledb-postgis", Server::Postgres),
    ("citus", Server::Postgres),
    ("spilo", Server::Postgres),
    ("pgvector", Server::Postgres),
    ("pgvecto-rs", Server::Postgres),
    ("vchord-postgres", Server::Postgres),
    ("vectorchord-postgres", Server::Postgres),
    ("immich-postgres", Server::Postgres),
    ("postgres-upgrade", Server::Postgres),
    ("pgautoupgrade", Server::Postgres),
    ("crunchy-postgres", Server::Postgres),
    ("postgres-alpine", Server::Postgres),
    ("mysql", Server::Mysql),
    ("mysql-server", Server::Mysql),
    ("community-server", Server::Mysql),
    ("enterprise-server", Server::Mysql),
    ("percona", Server::Mysql),
    ("percona-server", Server::Mysql),
    ("mariadb", Server::Mariadb),
    ("mariadb-server", Server::Mariadb),
    ("mariadb-aria", Server::Mariadb),
    ("mongo", Server::Mongodb),
    ("mongodb", Server::Mongodb),
    ("percona-server-mongodb", Server::Mongodb),
    ("mongodb-community-server", Server::Mongodb),
    ("mongodb-enterprise-server", Server::Mongodb),
    ("redis", Server::Redis),
    ("redis-stack", Server::Redis),
    ("redis-stack-server", Server::Redis),
    ("redis-cluster", Server::Redis),
    ("redismod", Server::Redis),
    ("rejson", Server::Redis),
    ("redisearch", Server::Redis),
    ("valkey", Server::Redis),
    ("valkey-bundle", Server::Redis),
    ("valkey-cluster", Server::Redis),
    ("rabbitmq", Server::Rabbitmq),
    ("rabbitmq-server", Server::Rabbitmq),
    ("vault", Server::Vault),
    ("vault-enterprise", Server::Vault),
];

/// Whole names that mean something else than their last part says, or that only together with their publisher say it.
/// `spilo-17` and its like are told by [`is_versioned_postgres`].
const WHOLE: &[(&str, Kind)] = &[
    ("supabase/postgres", Kind::Server(Server::Postgres)),
    ("cloudnative-pg/postgresql", Kind::Server(Server::Postgres)),
    ("sclorg/postgresql-16-c9s", Kind::Server(Server::Postgres)),
    ("mysql/community-server", Kind::Server(Server::Mysql)),
    ("mysql/enterprise-server", Kind::Server(Server::Mysql)),
    // Other programs of these names are not MySQL's.
    ("community-server", Kind::Other),
    ("enterprise-server", Kind::Other),
    ("onlyoffice/communityserver", Kind::Other),
    ("pgvector/pgvector", Kind::Server(Server::Postgres)),
    ("citusdata/citus", Kind::Server(Server::Postgres)),
    // Their dumps and snapshots have a form of their own beside Redis's.
    ("dragonflydb/dragonfly", Kind::Untried("Dragonfly")),
    ("eqalpha/keydb", Kind::Untried("KeyDB")),
    ("snapchat/keydb", Kind::Untried("KeyDB")),
    ("apache/kvrocks", Kind::Untried("Kvrocks")),
    ("microsoft/garnet", Kind::Untried("Garnet")),
];

/// Servers whose files are taken while they are stopped, by the last part of the name.
const UNTRIED: &[(&str, &str)] = &[
    ("dragonfly", "Dragonfly"),
    ("keydb", "KeyDB"),
    ("kvrocks", "Kvrocks"),
    ("openbao", "OpenBao"),
    ("openbao-ubi", "OpenBao"),
    ("ferretdb", "FerretDB"),
    ("cockroach", "CockroachDB"),
    ("yugabyte", "YugabyteDB"),
    ("clickhouse-server", "ClickHouse"),
    ("clickhouse", "ClickHouse"),
    ("influxdb", "InfluxDB"),
    ("couchdb", "CouchDB"),
    ("couchbase", "Couchbase"),
    ("cassandra", "Cassandra"),
    ("scylla", "ScyllaDB"),
    ("neo4j", "Neo4j"),
    ("elasticsearch", "Elasticsearch"),
    ("opensearch", "OpenSearch"),
    ("meilisearch", "Meilisearch"),
    ("typesense", "Typesense"),
    ("qdrant", "Qdrant"),
    ("weaviate", "Weaviate"),
    ("kafka", "Kafka"),
    ("cp-kafka", "Kafka"),
    ("redpanda", "Redpanda"),
    ("zookeeper", "ZooKeeper"),
    ("etcd", "etcd"),
    ("nats", "NATS"),
    ("minio", "MinIO"),
    ("mssql-server", "SQL Server"),
    ("rethinkdb", "RethinkDB"),
    ("arangodb", "ArangoDB"),
    ("surrealdb", "SurrealDB"),
    ("singlestore", "SingleStore"),
    ("tidb", "TiDB"),
];

/// A part of a name with which a program is something beside a server.
const HELPERS: &[&str] = &[
    "backup",
    "backups",
    "bkup",
    "dump",
    "dumper",
    "restore",
    "exporter",
    "export",
    "metrics",
    "monitor",
    "monitoring",
    "admin",
    "pgadmin",
    "pgadmin4",
    "phpmyadmin",
    "adminer",
    "router",
    "sentinel",
    "commander",
    "insight",
    "redisinsight",
    "proxy",
    "proxysql",
    "pgbouncer",
    "pgpool",
    "pgcat",
    "maxscale",
    "haproxy",
    "express",
    "rest",
    "postgrest",
    "meta",
    "client",
    "clients",
    "cli",
    "tool",
    "tools",
    "shell",
    "migrate",
    "migration",
    "migrations",
    "operator",
    "init",
    "ui",
    "gui",
    "web",
    "webui",
    "browser",
    "agent",
    "cron",
    "connect",
    "connector",
    "replicator",
    "sidecar",
    "k8s",
    "controller",
    "csi",
    "injector",
    "helm",
    "toolbox",
    "test",
    "tests",
    "checker",
    "tor",
    "wait",
    "seed",
    "seeder",
    "compass",
    "sync",
    "warden",
    "vaultwarden",
    "anonymizer",
    "hero",
    "pgweb",
    "cloudbeaver",
    "pghero",
    "walg",
    "barman",
    "pgbackrest",
];

/// Publishers all of whose programs only use a server.
const HELPERS_OF: &[&str] = &["zabbix", "prodrigestivill", "databack", "tiredofit", "offen"];

/// What the name of an image says.
pub fn of_name(image: &str) -> Kind {
    let name = repository(image);
    let known = |wanted: &str| name == wanted || name.ends_with(&format!("/{wanted}"));
    // A publisher's own name; a mirror may stand before it.
    if let Some((_, kind)) =
        WHOLE.iter().find(|(whole, _)| if whole.contains('/') { known(whole) } else { name == *whole })
    {
        return *kind;
    }
    let mut parts = name.rsplit('/');
    let last = parts.next().unwrap_or_default();
    let publisher = parts.next().unwrap_or_default();
    if HELPERS_OF.contains(&publisher) {
        return Kind::Helper;
    }
    if let Some((_, server)) = SERVERS.iter().find(|(known, _)| *known == last) {
        return Kind::Server(*server);
    }
    if publisher == "mssql" && last == "server" {
        return Kind::Untried("SQL Server");
    }
    if let Some((_, server)) = UNTRIED.iter().find(|(known, _)| *known == last) {
        return Kind::Untried(server);
    }
    let words: Vec<&str> = last.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    let names_one = words.iter().any(|word| is_server_word(word));
    if words.iter().any(|word| HELPERS.contains(word)) {
        return if names_one || is_tool_alone(&words) { Kind::Helper } else { Kind::Other };
    }
    if is_versioned_postgres(&words) {
        return Kind::Server(Server::Postgres);
    }
    Kind::Other
}

/// `spilo-17`, `postgres-17`: a name of PostgreSQL's and its version.
fn is_versioned_postgres(words: &[&str]) -> bool {
    let version = |word: &&str| word.chars().all(|c| c.is_ascii_digit());
    matches!(words, [first, rest @ ..] if ["spilo", "postgres", "postgresql", "postgis"].contains(first)
        && !rest.is_empty() && rest.iter().all(version))
}

fn is_server_word(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "postgres",
        "postgresql",
        "pg",
        "psql",
        "pgsql",
        "mysql",
        "mariadb",
        "mongo",
        "mongodb",
        "redis",
        "valkey",
        "rabbitmq",
        "vault",
        "db",
        "database",
    ];
    WORDS.contains(&word)
}

/// Programs for a server whose names don't hold the server's.
fn is_tool_alone(words: &[&str]) -> bool {
    const TOOLS: &[&str] = &[
        "pgadmin",
        "pgadmin4",
        "phpmyadmin",
        "adminer",
        "redisinsight",
        "proxysql",
        "pgbouncer",
        "pgpool",
        "pgcat",
        "maxscale",
        "postgrest",
        "vaultwarden",
        "cloudbeaver",
        "pgweb",
        "pghero",
        "pgbackrest",
        "barman",
    ];
    words.iter().any(|word| TOOLS.contains(word))
}

/// What a service tells beside its image's name: where it mounts something that it may write to, and the names of its
/// variables, never their values.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    pub image: &'a str,
    pub targets: &'a [&'a str],
    pub variables: &'a [&'a str],
}

/// By the image's name, and where that says nothing by what only such a server has: its data folder together with the
/// variable that makes its first user.
pub fn of_signs(signs: &Signs<'_>) -> Kind {
    match of_name(signs.image) {
        Kind::Other => {}
        known => return known,
    }
    const SIGNS: &[(Server, &str, &[&str])] = &[
        (
            Server::Postgres,
            "/var/lib/postgresql",
            &["POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRES_USER", "PGDATA"],
        ),
        (
            Server::Mariadb,
            "/var/lib/mysql",
            &["MARIADB_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD_FILE", "MARIADB_DATABASE"],
        ),
        (Server::Mysql, "/var/lib/mysql", &["MYSQL_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD_FILE", "MYSQL_DATABASE"]),
        (Server::Mongodb, "/data/db", &["MONGO_INITDB_ROOT_USERNAME", "MONGO_INITDB_DATABASE"]),
        (Server::Rabbitmq, "/var/lib/rabbitmq", &["RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"]),
    ];
    let mounted = |folder: &str| signs.targets.iter().any(|target| *target == folder || is_below(target, folder));
    let set = |names: &[&str]| names.iter().any(|name| signs.variables.contains(name));
    let sign = SIGNS.iter().find(|(_, folder, names)| mounted(folder) && set(names));
    sign.map_or(Kind::Other, |(server, ..)| Kind::Server(*server))
}

/// By what an image sets for itself, seen in a container made from it: the port that its server listens on, together with a
/// variable that only the server's own image has. An image built upon that one inherits both, whatever it is called.
pub fn of_settings(ports: &[u16], variables: &[String]) -> Kind {
    const SETTINGS: &[(Server, u16, &[&str])] = &[
        (Server::Postgres, 5432, &["PG_MAJOR", "PG_VERSION", "PGDATA"]),
        (Server::Mariadb, 3306, &["MARIADB_VERSION", "MARIADB_MAJOR"]),
        (Server::Mysql, 3306, &["MYSQL_MAJOR", "MYSQL_VERSION"]),
        (Server::Mongodb, 27017, &["MONGO_VERSION", "MONGO_MAJOR", "MONGO_PACKAGE"]),
        (Server::Redis, 6379, &["REDIS_VERSION", "REDIS_DOWNLOAD_URL", "VALKEY_VERSION", "VALKEY_DOWNLOAD_URL"]),
        (Server::Rabbitmq, 5672, &["RABBITMQ_VERSION", "RABBITMQ_DATA_DIR"]),
    ];
    let is_it = |(_, port, names): &&(Server, u16, &[&str])| {
        ports.contains(port) && variables.iter().any(|name| names.contains(&name.as_str()))
    };
    SETTINGS.iter().find(is_it).map_or(Kind::Other, |(server, ..)| Kind::Server(*server))
}

/// By the programs that run in a container: what a server's process calls itself, whatever its image is called.
pub fn of_programs<'a>(programs: impl IntoIterator<Item = &'a str>) -> Kind {
    let mut found = Kind::Other;
    for program in programs {
        let name = program.trim_start_matches('-').rsplit('/').next().unwrap_or_default();
        let kind = match name {
            "postgres" | "postmaster" => Kind::Server(Server::Postgres),
            "mariadbd" => Kind::Server(Server::Mariadb),
            "mysqld" => Kind::Server(Server::Mysql),
            "mongod" => Kind::Server(Server::Mongodb),
            "redis-server" | "valkey-server" => Kind::Server(Server::Redis),
            "keydb-server" => Kind::Untried("KeyDB"),
            "dragonfly" => Kind::Untried("Dragonfly"),
            "rabbitmq-server" | "rabbitmq" => Kind::Server(Server::Rabbitmq),
            "vault" => Kind::Server(Server::Vault),
            "bao" => Kind::Untried("OpenBao"),
            _ => Kind::Other,
        };
        match (found, kind) {
            (_, Kind::Other | Kind::Helper) => {}
            (Kind::Other, kind) => found = kind,
            // MariaDB up to 10.4 calls itself `mysqld`; two kinds in one container are nobody's single server.
            (known, kind) if known == kind => {}
            _ => return Kind::Other,
        }
    }
    found
}

#[cfg(test)]
mod tests;
