use serde_json::{Value, json};

use super::*;
use crate::model::observation::{COMPOSE_SERVICE, ContainerState, Mount};

fn volume(source: &str, target: &str) -> Value {
    json!({ "type": "volume", "source": source, "target": target })
}

fn bind(source: &str, target: &str) -> Value {
    json!({ "type": "bind", "source": source, "target": target })
}

fn stack() -> Holdings {
    let resolved = json!({
        "name": "shop",
        "services": {
            "web": {
                "image": "nginx:1", "container_name": "front",
                "environment": { "TOKEN": "hunter2" },
                "env_file": [ { "path": "/srv/web.env", "required": true }, { "path": "/srv/opt.env", "required": false } ],
                "build": { "context": "/srv/web", "additional_contexts": { "base": "docker-image://x", "lib": "/srv/lib" },
                    "dockerfile": "/srv/docker/Web" },
                "secrets": [ { "source": "token" }, { "source": "variable" } ], "configs": [ { "source": "site" } ],
                "security_opt": [ "seccomp:/srv/seccomp.json", "no-new-privileges:true" ],
                "networks": { "proxy": null, "default": null },
                "volumes": [ volume("media", "/media"), bind("/srv/conf", "/etc/nginx"), { "type": "volume", "target": "/cache" },
                    { "type": "tmpfs", "target": "/tmp" } ],
            },
            "job": { "image": "alpine", "volumes_from": [ "web:ro" ], "profiles": ["tools"] },
            "db": { "image": "postgres:17", "environment": { "PGDATA": "/pg/17" },
                "volumes": [ volume("pg", "/pg"), { "type": "volume", "source": "backups", "target": "/backups", "read_only": true } ] },
        },
        "volumes": {
            "media": { "name": "shop_media", "driver_opts": { "type": "none", "o": "bind", "device": "/mnt/media" } },
            "pg": { "name": "postgres-data", "external": true },
            "backups": { "name": "shop_backups", "driver_opts": { "type": "nfs", "o": "addr=nas", "device": ":/backups" } },
            "old": { "name": "shop_old" },
        },
        "networks": { "proxy": { "name": "proxy", "external": true }, "default": { "name": "shop_default" } },
        "secrets": { "token": { "file": "/srv/secrets/token" }, "variable": { "environment": "TOKEN" } },
        "configs": { "site": { "file": "/srv/site.conf" }, "inline": { "content": "x" } },
    });
    let read = [
        ("/srv/compose.yaml".into(), ReadAs::Compose),
        ("/srv/more/compose.yaml".into(), ReadAs::Include),
        ("/srv/web.env".into(), ReadAs::Variables),
    ];
    Holdings::of(&resolved, &read)
}

fn container(service: &str, mounts: Vec<Mount>) -> ContainerState {
    ContainerState {
        image: "postgres:17".into(),
        labels: [(COMPOSE_SERVICE.to_owned(), service.to_owned())].into(),
        ..ContainerState::mounting(&format!("shop-{service}-1"), mounts)
    }
}

fn mount(volume: Option<&str>, source: &str, destination: &str) -> Mount {
    Mount { volume: volume.map(str::to_owned), source: source.into(), destination: destination.into(), writable: true }
}

#[test]
fn volumes_know_who_mounts_them_who_writes_and_where_their_bytes_lie() {
    let held = stack();
    let names: Vec<&str> = held.volumes.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["postgres-data", "shop_backups", "shop_media", "shop_old"]);
    let media = held.volume("media").unwrap();
    assert_eq!(media.backing, Backing::Folder("/mnt/media".into()));
    let uses: Vec<(&str, bool)> = media.uses.iter().map(|it| (it.service.as_str(), it.writes)).collect();
    assert_eq!(uses, [("job", false), ("web", true)]);
    assert_eq!(writers(&media.uses).into_iter().collect::<Vec<_>>(), ["web"]);
    let pg = held.volume("postgres-data").unwrap();
    assert!(pg.external && pg.uses[0].data_of == Some(Server::Postgres));
    let backups = held.volume("shop_backups").unwrap();
    assert_eq!(backups.backing, Backing::Remote("nfs :/backups".into()));
    assert!(backups.uses[0].data_of.is_none() && !backups.uses[0].writes);
    assert!(held.volume("old").unwrap().uses.is_empty() && held.volume("nothing").is_none());
    assert_eq!(held.nameless.iter().map(|it| it.at.target.as_str()).collect::<Vec<_>>(), ["/cache"]);
}

#[test]
fn each_file_that_compose_reads_is_there_once_with_what_it_is_read_for() {
    let held = stack();
    let told: Vec<(String, Vec<&str>, bool)> = held
        .files
        .iter()
        .map(|it| {
            let read_as = it.read_as.iter().map(|read_as| read_as.as_str()).collect();
            (it.path.display().to_string(), read_as, it.optional)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("/srv/compose.yaml".into(), vec!["Compose file"], false),
            ("/srv/docker/Web".into(), vec!["Dockerfile"], false),
            ("/srv/more/compose.yaml".into(), vec!["include"], false),
            ("/srv/opt.env".into(), vec!["env_file"], true),
            ("/srv/seccomp.json".into(), vec!["security profile"], false),
            ("/srv/secrets/token".into(), vec!["secret file"], false),
            ("/srv/site.conf".into(), vec!["config file"], false),
            ("/srv/web.env".into(), vec!["file of variables", "env_file"], false),
        ]
    );
    let contexts: Vec<_> = held.builds.iter().map(|it| it.context.display().to_string()).collect();
    assert_eq!(contexts, ["/srv/lib", "/srv/web"]);
    assert_eq!(held.networks.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["proxy"]);
    assert_eq!(held.binds.iter().map(|it| it.path.display().to_string()).collect::<Vec<_>>(), ["/srv/conf"]);
    let text = serde_json::to_string(&held).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(serde_json::from_str::<Holdings>(&text).unwrap(), held);
}

#[test]
fn containers_add_what_the_files_do_not_say() {
    let anonymous = "ab".repeat(32);
    let held = stack().with_containers(&[
        container(
            "db",
            vec![mount(Some("postgres-data"), "/v", "/pg"), mount(Some(&anonymous), "/v", "/var/lib/postgresql")],
        ),
        container(
            "gone",
            vec![mount(Some("shop_gone"), "/v", "/data"), mount(None, "/srv/conf", "/c"), mount(None, "", "/t")],
        ),
        container(
            "web",
            vec![
                mount(None, "/srv/secrets/token", "/run/secrets/token"),
                mount(None, "/host_mnt/srv/conf", "/etc/nginx"),
            ],
        ),
    ]);
    assert_eq!(held.volume("postgres-data").unwrap().uses.len(), 1);
    let nameless: Vec<_> =
        held.nameless.iter().map(|it| (it.at.service.as_str(), it.at.data_of, it.volumes.len())).collect();
    assert_eq!(nameless, [("db", Some(Server::Postgres), 1), ("web", None, 0)]);
    assert!(!held.services["gone"].declared && held.services["web"].declared);
    assert_eq!(held.services["gone"].server, Some(Server::Postgres));
    assert!(held.volume("shop_gone").unwrap().key.is_none());
    let binds: Vec<_> = held.binds.iter().map(|it| (it.path.display().to_string(), it.uses.len())).collect();
    assert_eq!(binds, [("/srv/conf".to_owned(), 3)]);
}

#[test]
fn services_and_volumes_are_found_by_every_name_that_the_file_may_use() {
    let held = stack();
    for (name, service) in [
        ("web", Some("web")),
        ("front", Some("web")),
        ("shop-web-1", Some("web")),
        ("shop_db_2", Some("db")),
        ("shop-web", None),
        ("other-web-1", None),
    ] {
        assert_eq!(held.service(name), service, "{name}");
    }
    for name in ["media", "shop_media"] {
        assert_eq!(held.volume(name).unwrap().key.as_deref(), Some("media"));
    }
}

#[test]
fn what_is_the_machines_own_is_never_data() {
    for path in
        ["/var/run/docker.sock", "/proc", "/sys/fs/cgroup", "/etc/localtime", "/", "/dev/dri", "/srv/app/php.sock"]
    {
        assert!(of_the_machine(Path::new(path)).is_some(), "{path}");
    }
    for path in
        ["/srv/data", "/etc/letsencrypt", "/etc/nginx", "/home/ada/run", "/var/lib/dockerx", "/var/log/app", "/procs"]
    {
        assert!(of_the_machine(Path::new(path)).is_none(), "{path}");
    }
    assert_eq!(Holdings::of(&Value::Null, &[]), Holdings::default());
    assert!(Holdings::default().is_empty() && !stack().is_empty());
}
