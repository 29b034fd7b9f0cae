use super::*;

#[test]
fn registries_tags_and_digests_are_no_part_of_a_name() {
    for (image, name) in [
        ("postgres", "postgres"),
        ("docker.io/library/postgres:17-alpine", "postgres"),
        ("localhost:5000/mirror/postgres@sha256:abc", "mirror/postgres"),
        ("GHCR.io/Acme/Shop:1", "acme/shop"),
        ("registry.example.com:5000/a/b/c:1@sha256:d", "a/b/c"),
        ("bitnami/redis", "bitnami/redis"),
        ("", ""),
    ] {
        assert_eq!(repository(image), name, "{image}");
    }
}

#[test]
fn servers_are_known_by_whole_parts_of_their_names() {
    use Server::{Mariadb, Mongodb, Mysql, Postgres, Rabbitmq, Redis, Vault};
    for (server, images) in [
        (
            Postgres,
            &[
                "postgres:17",
                "library/postgres",
                "postgis/postgis:17-3.5",
                "timescale/timescaledb:latest-pg17",
                "timescale/timescaledb-ha:pg17",
                "citusdata/citus:13",
                "ghcr.io/zalando/spilo-17:4.0-p2",
                "pgvector/pgvector:pg17",
                "tensorchord/pgvecto-rs:pg14-v0.2.0",
                "supabase/postgres:15.8.1",
                "bitnami/postgresql:17",
                "bitnamilegacy/postgresql",
                "ghcr.io/cloudnative-pg/postgresql:17",
                "ghcr.io/immich-app/postgres:14-vectorchord0.4.3",
                "registry.example.com/mirror/postgres:16",
                "pgautoupgrade/pgautoupgrade:17-alpine",
                "bitnami/postgresql-repmgr",
                "acme/postgres-17",
            ][..],
        ),
        (
            Mysql,
            &[
                "mysql:8.4",
                "mysql/mysql-server",
                "mysql/community-server:8.0",
                "percona:8",
                "percona/percona-server:8.4",
                "bitnami/mysql",
                "container-registry.oracle.com/mysql/community-server:9.1",
            ],
        ),
        (Mariadb, &["mariadb:11", "linuxserver/mariadb", "lscr.io/linuxserver/mariadb:11", "bitnami/mariadb"]),
        (
            Mongodb,
            &[
                "mongo:8",
                "percona/percona-server-mongodb:8.0",
                "bitnami/mongodb",
                "mongodb/mongodb-community-server:8.0",
            ],
        ),
        (
            Redis,
            &[
                "redis:8-alpine",
                "redis/redis-stack:latest",
                "redis/redis-stack-server",
                "valkey/valkey:8",
                "bitnami/redis",
                "bitnami/valkey",
                "bitnami/redis-cluster",
                "docker.io/valkey/valkey:8@sha256:0",
            ],
        ),
        (Rabbitmq, &["rabbitmq:4-management", "bitnami/rabbitmq"]),
        (Vault, &["vault:1.13", "hashicorp/vault:1.21", "hashicorp/vault-enterprise"]),
    ] {
        for image in images {
            assert_eq!(of_name(image), Kind::Server(server), "{image}");
        }
    }
}

#[test]
fn what_only_has_a_servers_name_in_its_own_is_none() {
    for image in [
        "prodrigestivill/postgres-backup-local:17",
        "databack/mysql-backup",
        "fradelg/mysql-cron-backup",
        "tiredofit/db-backup",
        "kartoza/pg-backup",
        "schickling/postgres-backup-s3",
        "quay.io/prometheuscommunity/postgres-exporter",
        "oliver006/redis_exporter",
        "prom/mysqld-exporter",
        "percona/mongodb_exporter",
        "bitnami/redis-exporter",
        "dpage/pgadmin4",
        "phpmyadmin",
        "phpmyadmin/phpmyadmin",
        "adminer",
        "mysql/mysql-router",
        "mysql/mysql-router:8",
        "container-registry.oracle.com/mysql/community-router",
        "bitnami/redis-sentinel",
        "rediscommander/redis-commander",
        "redis/redisinsight",
        "postgrest/postgrest:v12",
        "supabase/postgres-meta",
        "zabbix/zabbix-server-mysql",
        "zabbix/zabbix-web-nginx-pgsql",
        "zabbix/zabbix-server-pgsql",
        "proxysql/proxysql",
        "edoburu/pgbouncer",
        "bitnami/pgbouncer",
        "bitnami/pgpool",
        "mariadb/maxscale",
        "mongo-express",
        "vaultwarden/server",
        "dockage/tor-privoxy",
        "hashicorp/vault-k8s",
        "banzaicloud/bank-vaults",
        "sosedoff/pgweb",
        "ankane/pghero",
        "nginx",
        "mattermost/mattermost-team-edition",
        "mcr.microsoft.com/garnet-cli",
        "prom/node-exporter",
        "mongodb/mongodb-mcp-server",
        "redis-commander",
        "onlyoffice/communityserver",
        "acme/rabbitmq-exporter",
        "postgres-init",
        "acme/redis-ui",
        "kbudde/rabbitmq-exporter",
        "mongodb-compass-web",
    ] {
        let kind = of_name(image);
        assert!(matches!(kind, Kind::Helper | Kind::Other), "{image} is {kind:?}");
    }
    for image in
        ["prodrigestivill/postgres-backup-local", "mysql/mysql-router", "zabbix/zabbix-server-mysql", "dpage/pgadmin4"]
    {
        assert_eq!(of_name(image), Kind::Helper, "{image}");
    }
}

#[test]
fn kin_that_devstack_has_not_tried_are_named_and_not_taken_for_the_server() {
    for (image, name) in [
        ("docker.dragonflydb.io/dragonflydb/dragonfly", "Dragonfly"),
        ("eqalpha/keydb:latest", "KeyDB"),
        ("quay.io/openbao/openbao:2", "OpenBao"),
        ("mcr.microsoft.com/mssql/server:2022-latest", "SQL Server"),
        ("clickhouse/clickhouse-server:25", "ClickHouse"),
        ("ghcr.io/ferretdb/ferretdb:2", "FerretDB"),
        ("getmeili/meilisearch:v1", "Meilisearch"),
    ] {
        assert_eq!(of_name(image), Kind::Untried(name), "{image}");
    }
    assert_eq!(of_name("vaultwarden/server"), Kind::Other, "it is no SQL Server");
}

#[test]
fn an_image_of_ones_own_is_known_by_its_data_folder_and_its_variables() {
    let signs = |image, targets: &[&str], variables: &[&str]| of_signs(&Signs { image, targets, variables });
    let postgres = Kind::Server(Server::Postgres);
    assert_eq!(signs("acme/shop-db", &["/var/lib/postgresql/data"], &["POSTGRES_USER"]), postgres);
    assert_eq!(signs("acme/shop-db", &["/var/lib/mysql"], &["MYSQL_DATABASE"]), Kind::Server(Server::Mysql));
    assert_eq!(signs("acme/shop-db", &["/var/lib/mysql"], &["MARIADB_ROOT_PASSWORD"]), Kind::Server(Server::Mariadb));
    // One sign alone is none: an application has the variables of its database, a backup its folder.
    assert_eq!(signs("acme/shop", &["/srv"], &["POSTGRES_PASSWORD"]), Kind::Other);
    assert_eq!(signs("acme/shop", &["/var/lib/postgresql/data"], &[]), Kind::Other);
    // A name that says more is believed.
    assert_eq!(signs("acme/pg-backup", &["/var/lib/postgresql/data"], &["POSTGRES_USER"]), Kind::Helper);
}

#[test]
fn a_running_container_is_what_its_programs_are() {
    assert_eq!(of_programs(["/usr/bin/tini", "postgres", "postgres"]), Kind::Server(Server::Postgres));
    assert_eq!(of_programs(["/usr/sbin/mariadbd"]), Kind::Server(Server::Mariadb));
    assert_eq!(of_programs(["sh", "/usr/local/bin/redis-server"]), Kind::Server(Server::Redis));
    assert_eq!(of_programs(["keydb-server"]), Kind::Untried("KeyDB"));
    assert_eq!(of_programs(["/usr/bin/python3", "crond"]), Kind::Other);
    // Everything in one container.
    assert_eq!(of_programs(["postgres", "redis-server", "nginx"]), Kind::Other);
    assert_eq!(of_programs([]), Kind::Other);
}

#[test]
fn a_container_that_does_not_run_is_what_its_image_sets() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(of_settings(&[5432], &names(&["PATH", "PG_MAJOR"])), Kind::Server(Server::Postgres));
    assert_eq!(of_settings(&[3306, 33060], &names(&["MYSQL_VERSION"])), Kind::Server(Server::Mysql));
    // An application that only knows where its database is, and one whose own port it is.
    assert_eq!(of_settings(&[80], &names(&["PGDATA"])), Kind::Other);
    assert_eq!(of_settings(&[5432], &names(&["PATH", "PGHOST"])), Kind::Other);
}

#[test]
fn a_mount_at_a_servers_folder_is_its_data() {
    assert!(Server::Postgres.keeps_data_at("/var/lib/postgresql/data"));
    assert!(Server::Postgres.keeps_data_at("/var/lib/postgresql/"));
    assert!(Server::Postgres.keeps_data_at("/var/lib/postgresql/data/pgdata"));
    assert!(!Server::Postgres.keeps_data_at("/docker-entrypoint-initdb.d"));
    assert!(!Server::Postgres.keeps_data_at("/var/lib/postgresql2"));
    assert!(!Server::Redis.keeps_data_at("/usr/local/etc/redis"));
}

#[test]
fn a_servers_image_that_runs_a_client_is_no_server() {
    for (server, command, runs) in [
        (Server::Redis, "redis-cli --cluster create a:6379", false),
        (Server::Redis, "redis-server /etc/sentinel.conf --sentinel", false),
        (Server::Redis, "sh -c 'redis-server & redis-cli ping'", true),
        (Server::Postgres, "sh -c 'while :; do pg_dump shop > /backups/x; done'", false),
        (Server::Postgres, "postgres -c wal_level=logical", true),
        (Server::Postgres, "", true),
        (Server::Mysql, "--character-set-server=utf8mb4", true),
        (Server::Vault, "vault server -dev", false),
        (Server::Vault, "vault agent -config=/a.hcl", false),
        (Server::Vault, "vault server -config=/v.hcl", true),
    ] {
        assert_eq!(server.is_run_by(command), runs, "{command}");
    }
}
