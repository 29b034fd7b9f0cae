//! Every way out that a created container may have is found, and one that has none is let through.

use super::*;

const ID: &str = "d7f3a9";

fn id() -> DrillId {
    ID.parse().unwrap()
}

fn labels(more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let label = [(LABEL, ID)];
    label.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn container(service: &str, id: &str) -> CreatedContainer {
    CreatedContainer {
        id: id.to_owned(),
        name: format!("{ID}-{service}-1"),
        state: "created".to_owned(),
        labels: labels(&[(COMPOSE_PROJECT, ID), (COMPOSE_SERVICE, service)]),
        networks: vec![format!("{ID}-n1")],
        host: HostSettings {
            network_mode: format!("{ID}-n1"),
            ipc_mode: "private".to_owned(),
            runtime: "runc".to_owned(),
            restart_policy: "no".to_owned(),
            log_driver: "json-file".to_owned(),
            ..HostSettings::default()
        },
        ..CreatedContainer::default()
    }
}

fn mount(kind: &str, volume: Option<&str>, source: &str) -> CreatedMount {
    CreatedMount {
        kind: kind.to_owned(),
        volume: volume.map(str::to_owned),
        source: source.to_owned(),
        destination: "/data".to_owned(),
        propagation: String::new(),
    }
}

/// A database with a volume, a copy and a tmpfs, and an application that joins it; nothing leads out.
fn right() -> Created {
    let mut db = container("db", "aaaa");
    db.mounts = vec![
        mount("volume", Some("d7f3a9-v1"), "/var/lib/docker/volumes/d7f3a9-v1/_data"),
        CreatedMount { propagation: "rprivate".to_owned(), ..mount("bind", None, "/scratch/d7f3a9/b1") },
        mount("tmpfs", None, ""),
    ];
    db.host.added_capabilities = vec!["IPC_LOCK".to_owned(), "CAP_SYS_NICE".to_owned()];
    db.host.security_options = vec!["no-new-privileges:true".to_owned()];
    db.host.extra_hosts = vec!["localtest:127.0.0.1".to_owned(), "six:::1".to_owned()];
    let mut app = container("app", "bbbb");
    app.host.pid_mode = "container:aaaa".to_owned();
    app.host.volumes_from = vec!["aaaa:ro".to_owned()];
    let mut lone = container("lone", "cccc");
    lone.networks = vec!["none".to_owned()];
    lone.host.network_mode = "none".to_owned();
    Created {
        containers: vec![db, app, lone],
        volumes: vec![CreatedVolume {
            name: "d7f3a9-v1".to_owned(),
            driver: "local".to_owned(),
            options: BTreeMap::new(),
            labels: labels(&[]),
        }],
        networks: vec![CreatedNetwork {
            name: "d7f3a9-n1".to_owned(),
            driver: "bridge".to_owned(),
            internal: true,
            labels: labels(&[]),
            members: vec!["aaaa".to_owned(), "bbbb".to_owned()],
        }],
        shares_control_groups: false,
        default_runtime: "runc".to_owned(),
    }
}

fn services() -> BTreeSet<String> {
    ["app", "db", "lone"].into_iter().map(str::to_owned).collect()
}

fn found(created: &Created) -> Vec<String> {
    inspect(created, &id(), &services(), Path::new("/scratch/d7f3a9")).iter().map(ToString::to_string).collect()
}

#[test]
fn a_drill_without_a_way_out_is_let_through() {
    assert_eq!(found(&right()), Vec::<String>::new());
}

#[test]
fn every_way_out_is_found() {
    type Change = fn(&mut Created);
    let cases: Vec<(&str, Change)> = vec![
        ("does not carry the drill's label", |c| drop(c.containers[0].labels.remove(LABEL))),
        ("does not carry the drill's label", |c| {
            c.containers[0].labels.insert(LABEL.to_owned(), "other".to_owned());
        }),
        ("not made for the drill's own Compose project", |c| {
            c.containers[0].labels.insert(COMPOSE_PROJECT.to_owned(), "shop".to_owned());
        }),
        ("belongs to no service of the drill", |c| {
            c.containers[0].labels.insert(COMPOSE_SERVICE.to_owned(), "mail".to_owned());
        }),
        ("0 containers were made for it", |c| drop(c.containers.remove(2))),
        ("2 containers were made for it", |c| c.containers.push(container("lone", "dddd"))),
        ("it is running", |c| c.containers[0].state = "running".to_owned()),
        ("mounts the volume `shop_data`", |c| c.containers[0].mounts.push(mount("volume", Some("shop_data"), "/x"))),
        // What an image declares as a volume and nobody named: the engine's own, without a label.
        ("mounts the volume `5f2e`", |c| {
            c.containers[0].mounts.push(mount("volume", Some("5f2e"), "/x"));
            c.volumes.push(CreatedVolume {
                name: "5f2e".to_owned(),
                driver: "local".to_owned(),
                ..CreatedVolume::default()
            });
        }),
        ("mounts the volume ``", |c| c.containers[0].mounts.push(mount("volume", None, "/x"))),
        ("mounts /srv/shop/data", |c| c.containers[0].mounts.push(mount("bind", None, "/srv/shop/data"))),
        ("mounts /var/run/docker.sock", |c| c.containers[0].mounts.push(mount("bind", None, "/var/run/docker.sock"))),
        ("mounts /scratch/d7f3a9-live", |c| c.containers[0].mounts.push(mount("bind", None, "/scratch/d7f3a9-live"))),
        ("mounts /scratch/d7f3a9/../shop", |c| {
            c.containers[0].mounts.push(mount("bind", None, "/scratch/d7f3a9/../shop"));
        }),
        // The folder itself holds the copies of every service.
        ("mounts /scratch/d7f3a9,", |c| c.containers[0].mounts.push(mount("bind", None, "/scratch/d7f3a9"))),
        ("mounts b1, which is no copy", |c| c.containers[0].mounts.push(mount("bind", None, "b1"))),
        ("mounts propagate", |c| c.containers[0].mounts[1].propagation = "rshared".to_owned()),
        ("unknown kind `npipe`", |c| c.containers[0].mounts.push(mount("npipe", None, "/x"))),
        ("of which the engine says nothing", |c| c.containers[0].networks.push("shop_default".to_owned())),
        ("its network mode is `host`", |c| c.containers[0].host.network_mode = "host".to_owned()),
        ("its network mode is `default`", |c| c.containers[0].host.network_mode = "default".to_owned()),
        ("its network mode is ``", |c| c.containers[0].host.network_mode = String::new()),
        ("its network mode is `container:live`", |c| {
            c.containers[0].host.network_mode = "container:live".to_owned();
        }),
        ("its process namespace is `host`", |c| c.containers[0].host.pid_mode = "host".to_owned()),
        ("its process namespace is `container:live`", |c| c.containers[0].host.pid_mode = "container:live".to_owned()),
        ("its IPC namespace is `host`", |c| c.containers[0].host.ipc_mode = "host".to_owned()),
        ("its UTS namespace is `host`", |c| c.containers[0].host.uts_mode = "host".to_owned()),
        ("its user namespace is `host`", |c| c.containers[0].host.user_namespace_mode = "host".to_owned()),
        ("its control group namespace is `host`", |c| {
            c.containers[0].host.cgroup_namespace_mode = "host".to_owned();
        }),
        ("in the control group `/live`", |c| c.containers[0].host.cgroup_parent = "/live".to_owned()),
        ("in the runtime `nvidia`", |c| c.containers[0].host.runtime = "nvidia".to_owned()),
        ("it is privileged", |c| c.containers[0].host.privileged = true),
        ("publishes all its ports", |c| c.containers[0].host.publishes_all_ports = true),
        ("publishes the port 5432", |c| c.containers[0].host.published_ports.push("5432".to_owned())),
        ("its lines go to `gelf`", |c| c.containers[0].host.log_driver = "gelf".to_owned()),
        ("would be restarted", |c| c.containers[0].host.restart_policy = "unless-stopped".to_owned()),
        ("the device /dev/kvm", |c| c.containers[0].host.devices.push("/dev/kvm".to_owned())),
        ("the capability SYS_ADMIN", |c| c.containers[0].host.added_capabilities.push("SYS_ADMIN".to_owned())),
        ("the capability ALL", |c| c.containers[0].host.added_capabilities.push("ALL".to_owned())),
        ("the security option `seccomp=unconfined`", |c| {
            c.containers[0].host.security_options.push("seccomp=unconfined".to_owned());
        }),
        ("the security option `no-new-privileges:false`", |c| {
            c.containers[0].host.security_options.push("no-new-privileges:false".to_owned());
        }),
        ("the host entry `host.docker.internal:host-gateway`", |c| {
            c.containers[0].host.extra_hosts.push("host.docker.internal:host-gateway".to_owned());
        }),
        ("takes the volumes of the container live", |c| c.containers[0].host.volumes_from.push("live".to_owned())),
        ("volume d7f3a9-v1: it does not carry", |c| c.volumes[0].labels.clear()),
        ("is not a plain local volume", |c| c.volumes[0].driver = "sshfs".to_owned()),
        ("is not a plain local volume", |c| {
            c.volumes[0].options.insert("device".to_owned(), "/srv/shop/data".to_owned());
        }),
        ("volume shop_data: its name", |c| c.volumes[0].name = "shop_data".to_owned()),
        ("network d7f3a9-n1: it does not carry", |c| c.networks[0].labels.clear()),
        ("it is not internal", |c| c.networks[0].internal = false),
        ("its driver is `macvlan`", |c| c.networks[0].driver = "macvlan".to_owned()),
        ("network shop_default: its name", |c| c.networks[0].name = "shop_default".to_owned()),
        ("the container live is in it", |c| c.networks[0].members.push("live".to_owned())),
    ];
    for (expected, change) in cases {
        let mut created = right();
        change(&mut created);
        let found = found(&created);
        assert!(found.iter().any(|finding| finding.contains(expected)), "{expected} is not among {found:?}");
    }
}

#[test]
fn all_findings_are_told_at_once() {
    let mut created = right();
    created.containers[0].host.privileged = true;
    created.containers[1].host.pid_mode = "host".to_owned();
    created.networks[0].internal = false;
    assert_eq!(found(&created).len(), 3, "{:?}", found(&created));
}

#[test]
fn a_container_that_only_claims_to_be_of_the_drill_may_not_be_joined() {
    let mut created = right();
    created.containers[0].labels.remove(LABEL);
    assert!(found(&created).iter().any(|finding| finding.contains("`container:aaaa`")), "{:?}", found(&created));
}

#[test]
fn the_engines_own_defaults_are_no_findings() {
    let mut created = right();
    created.shares_control_groups = true;
    created.default_runtime = "crun".to_owned();
    created.containers[0].host.runtime = "crun".to_owned();
    created.containers[0].host.cgroup_namespace_mode = "host".to_owned();
    assert_eq!(found(&created), Vec::<String>::new());
}

#[test]
fn a_scratch_folder_that_is_everything_guards_nothing() {
    for wrong in ["/", "scratch", ""] {
        let found = inspect(&right(), &id(), &services(), Path::new(wrong));
        assert!(found.iter().any(|finding| finding.of == "the scratch folder"), "{wrong}: {found:?}");
    }
}
