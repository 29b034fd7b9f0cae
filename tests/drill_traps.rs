//! Every way in which a Compose file keeps hold of the live stack, and what a drill makes of it. The files are
//! `tests/drill_traps/*.yaml`; beside each stands what `docker compose config --format json` prints for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devstack::drill::{CopyFrom, DrillId, Isolated, LABEL, NotIsolated, Request, StandsFor, isolate};
use serde_json::{Value, json};

const ID: &str = "d7f3a9";
const SCRATCH: &str = "/scratch/d7f3a9";

/// The folder of the files, as the models beside them call it.
const BASE: &str = "/srv/shop";

/// What the files give where a password could be.
const SECRET: &str = "hunter2";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drill_traps")
}

fn model(file: &str) -> Value {
    let text = std::fs::read(folder().join(format!("{file}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn with(file: &str, services: &[&str], image_volumes: &[(&str, &str)]) -> Result<Isolated, NotIsolated> {
    let id: DrillId = ID.parse().unwrap();
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, target) in image_volumes {
        images.entry((*service).to_owned()).or_default().push((*target).to_owned());
    }
    let answer = isolate(&Request {
        model: &model(file),
        id: &id,
        services: &services.iter().map(|service| (*service).to_owned()).collect(),
        scratch: Path::new(SCRATCH),
        image_volumes: &images,
    });
    let said = match &answer {
        Ok(isolated) => format!("{isolated:?}{}", json!(isolated.provided)),
        Err(refused) => format!("{refused}{refused:?}"),
    };
    assert!(!said.contains(SECRET), "{file} {services:?}: the secret is shown: {said}");
    answer
}

#[track_caller]
fn drilled(file: &str, services: &[&str]) -> Isolated {
    with(file, services, &[]).unwrap_or_else(|refused| panic!("{file} {services:?}: {refused}"))
}

/// The places of the problems of a service, and all that is said of them.
#[track_caller]
fn refused(file: &str, service: &str) -> (Vec<String>, String) {
    let refused = with(file, &[service], &[]).expect_err(&format!("{file}: {service}"));
    (refused.problems.iter().map(|problem| problem.at.clone()).collect(), refused.to_string())
}

#[track_caller]
fn only_refused(file: &str, service: &str, place: &str, said: &str) {
    let (places, words) = refused(file, service);
    assert_eq!(places, [place], "{words}");
    assert!(words.contains(said), "`{said}` is not in {words}");
}

fn left_out(isolated: &Isolated) -> BTreeSet<&str> {
    isolated.provided.left_out.iter().map(|left| left.at.as_str()).collect()
}

/// The service as the drill makes it, without what is in every one.
fn service(isolated: &Isolated, name: &str) -> Value {
    let mut service = isolated.model["services"][name].clone();
    let keys = service.as_object_mut().unwrap();
    assert_eq!(keys.remove("labels"), Some(json!({ LABEL: ID })), "{name}");
    assert_eq!(keys.remove("pull_policy"), Some(json!("missing")), "{name}");
    // Whatever the engine's own default is.
    assert_eq!(keys.remove("logging").unwrap()["driver"], "json-file", "{name}");
    service
}

/// As `service`, for one that has nothing but its image and the drill's network.
#[track_caller]
fn bare(file: &str, name: &str, places: &[&str]) -> Isolated {
    let isolated = drilled(file, &[name]);
    assert_eq!(service(&isolated, name), json!({ "image": "a", "networks": { "d7f3a9-n1": {} } }), "{name}");
    assert_eq!(left_out(&isolated), BTreeSet::from_iter(places.iter().copied()), "{name}");
    isolated
}

#[test]
fn what_stays_in_the_container_is_carried_over() {
    let isolated = with("plain", &["db", "app", "init"], &[]).unwrap();
    let settings = insta::Settings::clone_current();
    settings.bind(|| insta::assert_snapshot!("plain", serde_json::to_string_pretty(&isolated.model).unwrap()));
    assert_eq!(left_out(&isolated), BTreeSet::new());
}

#[test]
fn a_fixed_name_of_a_volume_is_not_kept() {
    let isolated = drilled("volumes", &["named"]);
    assert_eq!(isolated.model["volumes"], json!({ "d7f3a9-v1": { "name": "d7f3a9-v1", "labels": { LABEL: ID } } }));
    assert_eq!(service(&isolated, "named")["volumes"][0]["source"], "d7f3a9-v1");
    assert!(!isolated.model.to_string().contains("shop_data"));
    let [volume] = isolated.provided.volumes.as_slice() else { panic!("{:?}", isolated.provided) };
    assert_eq!(volume.stands_for, StandsFor::Named { key: "fixed".into(), name: "shop_data".into() });
}

#[test]
fn an_external_volume_becomes_one_of_the_drills_own() {
    let isolated = drilled("volumes", &["external"]);
    assert_eq!(isolated.model["volumes"], json!({ "d7f3a9-v1": { "name": "d7f3a9-v1", "labels": { LABEL: ID } } }));
    let stands_for = StandsFor::Named { key: "live".into(), name: "shop_external".into() };
    assert_eq!(isolated.provided.volumes[0].stands_for, stands_for);
}

#[test]
fn a_volume_that_is_a_bind_in_disguise_loses_its_device() {
    for (service, place, live) in [
        ("bind_device", "volumes.disguised.driver_opts", "/srv/live/data"),
        ("nfs", "volumes.share.driver_opts", "10.0.0.5"),
        ("plugin", "volumes.remote.driver_opts", "sshfs"),
    ] {
        let isolated = drilled("volumes", &[service]);
        assert!(left_out(&isolated).contains(place), "{:?}", isolated.provided.left_out);
        assert!(!isolated.model.to_string().contains(live), "{service}");
        assert!(!isolated.model["volumes"].to_string().contains("driver"), "{service}");
    }
    assert!(left_out(&drilled("volumes", &["plugin"])).contains("volumes.remote.driver"));
}

#[test]
fn a_nameless_volume_gets_a_name_and_with_it_the_label() {
    let isolated = drilled("volumes", &["nameless", "nameless_too"]);
    let source = |name: &str| service(&isolated, name)["volumes"][0]["source"].clone();
    assert_eq!((source("nameless"), source("nameless_too")), (json!("d7f3a9-v1"), json!("d7f3a9-v2")));
    assert_eq!(isolated.model["volumes"]["d7f3a9-v2"]["labels"], json!({ LABEL: ID }));
    let stands_for = StandsFor::Nameless { service: "nameless_too".into(), target: "/data".into() };
    assert_eq!(isolated.provided.volumes[1].stands_for, stands_for);
}

#[test]
fn a_volume_that_only_the_image_declares_gets_a_name_where_nothing_is_mounted() {
    let images = [("named", "/data"), ("named", "/config/"), ("reader", "/data/")];
    let isolated = with("volumes", &["named", "reader"], &images).unwrap();
    let mounts = service(&isolated, "named")["volumes"].clone();
    assert_eq!(mounts[1], json!({ "type": "volume", "source": "d7f3a9-v2", "target": "/config/" }));
    assert_eq!(mounts.as_array().unwrap().len(), 2);
    assert_eq!(service(&isolated, "reader")["volumes"].as_array().unwrap().len(), 1);
    let stands_for = StandsFor::Image { service: "named".into(), target: "/config/".into() };
    assert_eq!(isolated.provided.volumes[1].stands_for, stands_for);
    // What lies on a tmpfs, or is mounted by the service whose volumes are taken, is no volume of the engine's either.
    let taken =
        with("volumes_from", &["from_service", "store"], &[("from_service", "/data"), ("store", "/more")]).unwrap();
    assert_eq!(taken.provided.volumes.len(), 2, "{:?}", taken.provided.volumes);
    assert!(service(&taken, "from_service")["volumes"].is_null());
    assert_eq!(with("plain", &["db", "init"], &[("db", "/run")]).unwrap().provided.volumes.len(), 1);
}

#[test]
fn services_that_share_a_volume_still_share_it() {
    let isolated = drilled("volumes", &["writer", "reader"]);
    let mounts = |name: &str| service(&isolated, name)["volumes"][0].clone();
    assert_eq!(mounts("writer")["source"], mounts("reader")["source"]);
    assert_eq!(mounts("reader")["read_only"], true);
    assert_eq!(mounts("reader")["volume"]["nocopy"], true);
    assert_eq!(isolated.provided.volumes.len(), 1);
}

#[test]
fn every_network_is_the_drills_own_and_leads_nowhere() {
    for (service, key, live) in [
        ("named", "fixed", "shop_net"),
        ("external", "live", "shop_external"),
        ("external_host", "machine", "host"),
        ("lan", "lan", "shop_lan"),
        ("bridge_name", "bridge_name", "shop_bridge_name"),
        ("implicit", "default", "shop_default"),
    ] {
        let isolated = drilled("networks", &[service]);
        let network = json!({ "name": "d7f3a9-n1", "labels": { LABEL: ID }, "internal": true });
        assert_eq!(isolated.model["networks"], json!({ "d7f3a9-n1": network }), "{service}");
        assert_eq!(isolated.model["services"][service]["networks"], json!({ "d7f3a9-n1": {} }), "{service}");
        let network = &isolated.provided.networks[0];
        assert_eq!((network.key.as_str(), network.live.as_str()), (key, live));
    }
    let left = left_out(&drilled("networks", &["lan"])).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(left, ["networks.lan.driver", "networks.lan.driver_opts", "networks.lan.ipam"]);
    assert!(left_out(&drilled("networks", &["bridge_name"])).contains("networks.bridge_name.driver_opts"));
    assert!(left_out(&drilled("networks", &["named"])).contains("networks.fixed.ipam"));
}

#[test]
fn fixed_addresses_go_and_the_names_stay() {
    let isolated = drilled("networks", &["addresses"]);
    let made = service(&isolated, "addresses");
    assert_eq!(
        made,
        json!({ "image": "a", "networks": { "d7f3a9-n1": { "aliases": ["store", "database"], "priority": 7 } } })
    );
    let left = left_out(&isolated);
    for key in ["ipv4_address", "ipv6_address", "link_local_ips", "driver_opts"] {
        assert!(left.contains(format!("services.addresses.networks.fixed.{key}").as_str()), "{key}: {left:?}");
    }
}

#[test]
fn a_fixed_mac_address_goes() {
    // Compose moves it from the service to its first network.
    let isolated = drilled("networks", &["addresses"]);
    assert!(!isolated.model.to_string().contains("02:42"));
    assert!(left_out(&isolated).iter().any(|at| at.ends_with("mac_address")), "{:?}", left_out(&isolated));
}

#[test]
fn a_fixed_container_name_goes_and_stays_as_an_alias() {
    let isolated = drilled("networks", &["called"]);
    let made = service(&isolated, "called");
    assert!(made["container_name"].is_null());
    let aliases: Vec<_> =
        isolated.provided.networks.iter().map(|net| (&net.key, &made["networks"][&net.name])).collect();
    assert_eq!(
        aliases,
        [
            (&"fixed".to_owned(), &json!({ "aliases": ["store", "live-db"] })),
            (&"live".to_owned(), &json!({ "aliases": ["live-db"] })),
        ]
    );
    assert!(left_out(&isolated).contains("services.called.container_name"));
}

#[test]
fn a_container_without_a_network_gets_none() {
    let isolated = drilled("networks", &["alone"]);
    assert_eq!(service(&isolated, "alone"), json!({ "image": "a", "network_mode": "none" }));
    assert_eq!(isolated.model["networks"], json!({}));
}

#[test]
fn the_engines_own_network_is_replaced() {
    let isolated = drilled("networks", &["on_the_engines"]);
    let networks = json!({ "d7f3a9-n1": { "aliases": ["live-app"] } });
    assert_eq!(service(&isolated, "on_the_engines"), json!({ "image": "a", "networks": networks }));
    assert!(left_out(&isolated).contains("services.on_the_engines.network_mode"));
}

#[test]
fn nothing_is_published() {
    let isolated = bare("left_out", "ports", &["services.ports.ports"]);
    for port in ["5432", "8443", "9001", "8080"] {
        assert!(!isolated.model.to_string().contains(port), "{port}");
    }
}

#[test]
fn nothing_comes_back_after_a_reboot() {
    bare("left_out", "restart", &["services.restart.restart"]);
    let places = ["endpoint_mode", "labels", "mode", "placement", "restart_policy", "rollback_config", "update_config"];
    let isolated = drilled("left_out", &["swarm"]);
    let places = places.map(|key| format!("services.swarm.deploy.{key}"));
    assert_eq!(left_out(&isolated), places.iter().map(String::as_str).collect());
}

#[test]
fn labels_that_others_act_on_are_replaced() {
    bare("left_out", "labels", &["services.labels.labels"]);
    bare("left_out", "annotations", &["services.annotations.annotations"]);
}

#[test]
fn one_container_is_made_of_each_service() {
    for name in ["scale", "replicas"] {
        let isolated = drilled("left_out", &[name]);
        let made = service(&isolated, name);
        assert!(made["scale"].is_null() && made["deploy"]["replicas"].is_null(), "{made}");
        assert!(left_out(&isolated).iter().any(|at| at.starts_with(&format!("services.{name}."))), "{name}");
    }
}

#[test]
fn an_image_is_neither_built_nor_pulled_anew() {
    let isolated = drilled("left_out", &["built_and_named"]);
    assert_eq!(service(&isolated, "built_and_named")["image"], "shop/web:3");
    assert_eq!(left_out(&isolated), BTreeSet::from(["services.built_and_named.build"]));
    assert!(!isolated.model.to_string().contains(SECRET));
    assert_eq!(left_out(&drilled("left_out", &["pulled"])), BTreeSet::from(["services.pulled.pull_policy"]));
    let rebuilt = BTreeSet::from(["services.rebuilt.build", "services.rebuilt.pull_policy"]);
    assert_eq!(left_out(&drilled("left_out", &["rebuilt"])), rebuilt);
}

#[test]
fn an_image_without_a_name_is_named_in_the_refusal() {
    only_refused("built", "web", "services.web.image", "add `image: shop-web` to the service");
}

#[test]
fn names_that_lead_out_go() {
    bare("left_out", "external_links", &["services.external_links.external_links"]);
    bare("left_out", "dns", &["services.dns.dns"]);
    let isolated = drilled("left_out", &["hosts"]);
    assert_eq!(service(&isolated, "hosts")["extra_hosts"], json!(["me=127.0.0.1", "six=::1"]));
    assert_eq!(isolated.provided.left_out.len(), 2, "{:?}", isolated.provided.left_out);
}

#[test]
fn dependencies_outside_of_the_drill_are_dropped_and_said() {
    let isolated = drilled("left_out", &["depends", "oom"]);
    assert_eq!(
        service(&isolated, "depends")["depends_on"],
        json!({ "oom": { "condition": "service_started", "required": false } })
    );
    assert!(left_out(&isolated).contains("services.depends.depends_on.dns"));
    let isolated = drilled("left_out", &["links", "oom"]);
    assert_eq!(service(&isolated, "links")["links"], json!(["oom"]));
    assert!(left_out(&isolated).contains("services.links.links"));
}

#[test]
fn the_live_stack_outlives_the_drill_where_something_runs_short() {
    bare("left_out", "oom", &["services.oom.oom_kill_disable", "services.oom.oom_score_adj"]);
    bare("left_out", "cgroup_parent", &["services.cgroup_parent.cgroup_parent"]);
    bare("left_out", "blkio", &["services.blkio.blkio_config"]);
    bare("left_out", "realtime", &["services.realtime.cpu_rt_period", "services.realtime.cpu_rt_runtime"]);
}

#[test]
fn what_only_the_live_stack_needs_goes() {
    bare("left_out", "logging", &["services.logging.logging"]);
    bare("left_out", "profiles", &["services.profiles.profiles"]);
    bare("left_out", "develop", &["services.develop.develop"]);
    bare("left_out", "storage", &["services.storage.storage_opt"]);
}

#[test]
fn namespaces_of_the_machine_and_of_live_containers_are_refused() {
    for (name, key, said) in [
        ("network_host", "network_mode", "the machine's own"),
        ("network_live", "network_mode", "the container live-db"),
        ("pid_host", "pid", "the machine's own"),
        ("pid_live", "pid", "the container live-db"),
        ("ipc_host", "ipc", "the machine's own"),
        ("ipc_live", "ipc", "the container live-db"),
        ("uts_host", "uts", "name of the machine"),
        ("userns_host", "userns_mode", "root of the machine"),
        ("cgroup_host", "cgroup", "the machine's own"),
    ] {
        only_refused("namespaces", name, &format!("services.{name}.{key}"), said);
    }
}

#[test]
fn a_namespace_of_the_drill_may_be_joined_where_its_owner_is_in_it() {
    let isolated = drilled("namespaces", &["base", "joins"]);
    let made = service(&isolated, "joins");
    for key in ["network_mode", "pid", "ipc"] {
        assert_eq!(made[key], "service:base", "{made}");
    }
    assert!(made["networks"].is_null(), "{made}");
    let (places, words) = refused("namespaces", "joins");
    assert_eq!(places, ["services.joins.pid", "services.joins.ipc", "services.joins.network_mode"], "{words}");
    assert!(words.contains("base, which is not in the drill"), "{words}");
}

#[test]
fn power_over_the_machine_is_refused() {
    for (name, place, said) in [
        ("privileged", "privileged", "all power over the machine"),
        ("every_capability", "cap_add", "`ALL` reaches out"),
        ("device", "devices", "a device of the machine"),
        ("device_rules", "device_cgroup_rules", "devices of the machine"),
        ("gpus", "gpus", "a device of the machine"),
        ("gpu_reservation", "deploy.resources.reservations.devices", "a device of the machine"),
        ("runtime", "runtime", "does not know `nvidia`"),
        ("machine_setting", "sysctls.vm.max_map_count", "the machine's, not the container's"),
        ("api_socket", "use_api_socket", "power over the live stack"),
        ("hook", "post_start[0].privileged", "all power over the machine"),
        ("model", "models", "a program of the machine"),
        ("account", "credential_spec", "the machine's own domain"),
    ] {
        only_refused("power", name, &format!("services.{name}.{place}"), said);
    }
    let (places, words) = refused("power", "capability");
    assert_eq!(places, ["services.capability.cap_add"; 2], "{words}");
    assert!(words.contains("NET_ADMIN") && words.contains("SYS_ADMIN") && !words.contains("CHOWN"), "{words}");
    assert_eq!(refused("power", "unconfined").0, ["services.unconfined.security_opt"; 3]);
    let (places, _) = refused("power", "provider");
    assert!(places.contains(&"services.provider.provider".to_owned()), "{places:?}");
}

#[test]
fn what_is_said_to_be_off_is_no_problem() {
    assert_eq!(left_out(&drilled("power", &["nothing"])), BTreeSet::new());
}

#[test]
fn the_socket_of_docker_is_refused_by_every_path() {
    let services = model("docker_socket")["services"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(services.len() >= 14, "{services:?}");
    for name in services {
        let place = format!("services.{name}.volumes[0].source");
        let said = match name.as_str() {
            "root" => "the whole machine",
            "by_name" | "read_only" | "disguised" => "power over the live stack",
            "colima" | "live_server" => "the socket of a running server",
            _ => "the engine's socket",
        };
        only_refused("docker_socket", &name, &place, said);
    }
}

#[test]
fn host_paths_become_copies() {
    let isolated = drilled("binds", &["absolute", "relative", "shares", "inside", "beside"]);
    let copies: BTreeMap<_, _> = isolated
        .provided
        .copies
        .iter()
        .map(|copy| (copy.host.to_str().unwrap(), copy.scratch.to_str().unwrap()))
        .collect();
    assert_eq!(
        copies,
        BTreeMap::from([
            ("/srv/live/files", "/scratch/d7f3a9/b1"),
            // A folder inside of another is inside of its copy, or the one would not see what the other writes.
            ("/srv/live/files/certs", "/scratch/d7f3a9/b1/certs"),
            ("/srv/live/files-too", "/scratch/d7f3a9/b3"),
            ("/srv/shop/data", "/scratch/d7f3a9/b4"),
        ])
    );
    let mount = |name: &str| service(&isolated, name)["volumes"][0].clone();
    assert_eq!(
        mount("absolute"),
        json!({
            "type": "bind", "source": "/scratch/d7f3a9/b1", "target": "/files", "read_only": true,
            "bind": { "create_host_path": false },
        })
    );
    assert_eq!(mount("shares")["source"], "/scratch/d7f3a9/b1");
    // Written by one, read by the other.
    let shared = &isolated.provided.copies[0];
    assert!(shared.writable && shared.from == CopyFrom::Run, "{shared:?}");
    assert_eq!(shared.used_at, ["services.absolute.volumes[0].source", "services.shares.volumes[0].source"]);
    assert!(!isolated.model.to_string().contains("/srv/"), "{}", isolated.model);
}

#[test]
fn live_names_lead_to_the_drills_own_things_or_to_nothing() {
    let isolated = drilled("networks", &["called", "named"]);
    assert_eq!(isolated.provided.service_for("called"), Some("called"));
    assert_eq!(isolated.provided.service_for("live-db"), Some("called"));
    assert_eq!(isolated.provided.service_for("live-app"), None);
    let isolated = drilled("volumes", &["named", "nameless"]);
    assert_eq!(isolated.provided.volume_for("fixed"), isolated.provided.volume_for("shop_data"));
    assert_eq!(isolated.provided.volume_for("shop_data"), Some("d7f3a9-v1"));
    assert_eq!(isolated.provided.volume_for("live"), None);
    let isolated = drilled("binds", &["absolute", "inside"]);
    let copy = |host: &str| isolated.provided.copy_for(Path::new(host)).map(|path| path.display().to_string());
    assert_eq!(copy("/srv/live/files").as_deref(), Some("/scratch/d7f3a9/b1"));
    assert_eq!(copy("/srv/live/files/a/b").as_deref(), Some("/scratch/d7f3a9/b1/a/b"));
    assert_eq!(copy("/srv/live/files/certs/key").as_deref(), Some("/scratch/d7f3a9/b1/certs/key"));
    assert_eq!(copy("/srv/live/files-too"), None);
}

#[test]
fn mounts_do_not_propagate_to_the_machine() {
    let isolated = drilled("binds", &["propagated"]);
    let made = service(&isolated, "propagated");
    assert_eq!(made["volumes"][0]["bind"], json!({ "selinux": "z", "create_host_path": false }));
    let place = "services.propagated.volumes[0].bind";
    let places = [format!("{place}.propagation"), format!("{place}.recursive")];
    assert_eq!(left_out(&isolated), places.iter().map(String::as_str).collect());
}

#[test]
fn the_time_zone_is_the_machines_unless_it_may_be_written() {
    let isolated = drilled("binds", &["time"]);
    let from: Vec<_> = isolated.provided.copies.iter().map(|copy| (copy.host.to_str().unwrap(), copy.from)).collect();
    assert_eq!(from, [("/etc/localtime", CopyFrom::Machine), ("/etc/timezone", CopyFrom::Run)]);
}

#[test]
fn a_dollar_in_a_path_is_one_for_the_machine_and_two_for_compose() {
    let isolated = drilled("binds", &["dollar"]);
    assert_eq!(isolated.provided.copies[0].host, Path::new("/srv/live/a$b"));
    let id: DrillId = ID.parse().unwrap();
    let isolated = isolate(&Request {
        model: &model("binds"),
        id: &id,
        services: &BTreeSet::from(["dollar".to_owned()]),
        scratch: Path::new("/scratch/a$b"),
        image_volumes: &BTreeMap::new(),
    })
    .unwrap();
    assert_eq!(isolated.provided.copies[0].scratch, Path::new("/scratch/a$b/b1"));
    assert_eq!(service(&isolated, "dollar")["volumes"][0]["source"], "/scratch/a$$b/b1");
}

#[test]
fn folders_of_the_machine_are_refused() {
    for (name, said) in [
        ("processes", "the machine's processes"),
        ("kernel", "the machine itself"),
        ("devices", "the machine's devices"),
        ("engine", "the live stack's volumes"),
        ("libraries", "/var/lib/docker lies in it"),
    ] {
        only_refused("binds", name, &format!("services.{name}.volumes[0].source"), said);
    }
}

#[test]
fn mounts_of_other_kinds_are_refused() {
    for (name, said) in [("pipe", "`npipe`"), ("csi", "`cluster`"), ("of_an_image", "`image`")] {
        only_refused("binds", name, &format!("services.{name}.volumes[0]"), said);
    }
}

#[test]
fn mounts_of_a_live_container_are_refused() {
    only_refused("volumes_from", "from_live", "services.from_live.volumes_from", "container live-db are the live");
    let (places, words) = refused("volumes_from", "from_service");
    assert_eq!(places, ["services.from_service.volumes_from"]);
    assert!(words.contains("take store into the drill"), "{words}");
    let isolated = drilled("volumes_from", &["from_service", "store"]);
    assert_eq!(service(&isolated, "from_service")["volumes_from"], json!(["store:ro"]));
}

#[test]
fn files_behind_secrets_and_configs_become_copies() {
    for (name, part, key, host) in [
        ("secret_file", "secrets", "password", "/srv/shop/password.txt"),
        ("secret_renamed", "secrets", "password", "/srv/shop/password.txt"),
        ("config_file", "configs", "nginx", "/srv/shop/nginx.conf"),
    ] {
        let isolated = drilled("files", &[name]);
        assert_eq!(isolated.model[part], json!({ key: { "file": "/scratch/d7f3a9/b1" } }), "{name}");
        let [copy] = isolated.provided.copies.as_slice() else { panic!("{:?}", isolated.provided) };
        assert_eq!((copy.host.to_str(), copy.writable), (Some(host), false));
        assert_eq!(service(&isolated, name)[part][0]["source"], key);
    }
    let renamed = service(&drilled("files", &["secret_renamed"]), "secret_renamed");
    assert_eq!((&renamed["secrets"][0]["target"], &renamed["secrets"][0]["uid"]), (&json!("pw"), &json!("999")));
}

#[test]
fn variables_behind_secrets_and_configs_are_named_and_not_read() {
    for (name, part, key, variable) in [
        ("secret_variable", "secrets", "token", "SHOP_TOKEN"),
        ("config_variable", "configs", "variable", "SHOP_CONFIG"),
    ] {
        let isolated = drilled("files", &[name]);
        assert_eq!(isolated.model[part], json!({ key: { "environment": variable } }));
        assert_eq!(isolated.provided.variables, [variable]);
    }
}

#[test]
fn a_config_in_the_file_itself_is_carried_over() {
    let isolated = drilled("files", &["config_content"]);
    assert_eq!(isolated.model["configs"], json!({ "inline": { "content": "level = hunter2\n" } }));
}

#[test]
fn secrets_and_configs_of_another_store_are_refused() {
    for (name, places) in [
        ("secret_external", vec!["secrets.swarm.external"]),
        ("secret_driver", vec!["secrets.stored.driver", "secrets.stored.driver_opts"]),
        ("secret_in_run", vec!["secrets.in_run.file"]),
        ("config_external", vec!["configs.swarm_config.external"]),
        ("config_template", vec!["configs.template.template_driver"]),
    ] {
        assert_eq!(refused("files", name).0, places, "{name}");
    }
}

#[test]
fn variables_from_a_file_are_in_the_model_already() {
    let isolated = drilled("environment", &["from_file"]);
    // Compose halves the doubled sign when it reads.
    let environment = json!({ "MODE": "drill", "PASSWORD": "hunter2$$pecial" });
    assert_eq!(service(&isolated, "from_file")["environment"], environment);
}

#[test]
fn variables_that_are_still_in_a_file_are_refused() {
    let mut model = model("environment");
    model["services"]["from_file"]["env_file"] = json!([{ "path": "/srv/shop/app.env" }]);
    let refused = inline(&model, "from_file").unwrap_err();
    assert_eq!(refused.problems[0].at, "services.from_file.env_file");
}

fn inline(model: &Value, service: &str) -> Result<Isolated, NotIsolated> {
    isolate(&Request {
        model,
        id: &ID.parse().unwrap(),
        services: &BTreeSet::from([service.to_owned()]),
        scratch: Path::new(SCRATCH),
        image_volumes: &BTreeMap::new(),
    })
}

#[test]
fn every_key_that_is_not_known_is_named_with_its_place() {
    let model = json!({
        "name": "shop",
        "shiny": true,
        "x-ours": { "any": "thing" },
        "services": {
            "db": {
                "image": "a",
                "shiny": null,
                "healthcheck": { "test": ["CMD", "true"], "shiny": SECRET },
                "deploy": { "shiny": {}, "resources": { "limits": { "shiny": 1 }, "shiny": {} } },
                "volumes": [{ "type": "volume", "source": "data", "target": "/data", "shiny": 1, "volume": { "shiny": 1 } }],
                "networks": { "back": { "shiny": 1 } },
                "depends_on": { "db": { "condition": "service_started", "shiny": 1 } },
                "secrets": [{ "source": "password", "shiny": 1 }],
            },
            "not-needed": { "image": "a", "shiny": true },
        },
        "volumes": { "data": { "shiny": 1 }, "not-needed": { "shiny": 1 } },
        "networks": { "back": { "shiny": 1 } },
        "secrets": { "password": { "file": "/srv/shop/password", "shiny": 1 } },
    });
    let refused = inline(&model, "db").unwrap_err();
    let places: Vec<_> = refused.problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        places,
        [
            "shiny",
            "services.db.shiny",
            "services.db.healthcheck.shiny",
            "services.db.deploy.shiny",
            "services.db.deploy.resources.shiny",
            "services.db.deploy.resources.limits.shiny",
            "services.db.depends_on.db.shiny",
            "services.db.secrets[0].shiny",
            "services.db.volumes[0].shiny",
            "services.db.volumes[0].volume.shiny",
            "volumes.data.shiny",
            "services.db.networks.back.shiny",
            "networks.back.shiny",
            "secrets.password.shiny",
        ]
    );
    assert!(!refused.to_string().contains(SECRET));
    insta::assert_snapshot!("unknown_keys", refused.to_string());
}

#[test]
fn a_service_that_the_run_does_not_have_is_named() {
    let refused = with("plain", &["db", "init", "mail"], &[]).unwrap_err();
    assert_eq!(refused.problems.iter().map(|problem| problem.at.as_str()).collect::<Vec<_>>(), ["services.mail"]);
    assert!(with("plain", &[], &[]).is_err());
}

#[test]
fn a_name_that_the_live_stack_has_already_is_not_used_for_a_drill() {
    for (name, place) in [("d7f3a9", "name"), ("d7f3a9-v1", "volumes.data")] {
        let model = json!({
            "name": if place == "name" { name } else { "shop" },
            "services": { "db": { "image": "a" } },
            "volumes": { "data": { "name": if place == "name" { "shop_data" } else { name } } },
        });
        let refused = inline(&model, "db").unwrap_err();
        assert_eq!(refused.problems[0].at, place, "{refused}");
    }
}

#[test]
fn what_is_not_a_model_is_refused() {
    for wrong in
        [json!(null), json!([]), json!("services"), json!({ "services": [] }), json!({ "services": { "db": 7 } })]
    {
        assert!(inline(&wrong, "db").is_err(), "{wrong}");
    }
}

/// `docker compose`, where there is one.
fn compose() -> Option<Command> {
    let mut command = Command::new("docker");
    let version = Command::new("docker").args(["compose", "version"]).stdin(Stdio::null()).output();
    command.arg("compose");
    version.is_ok_and(|version| version.status.success()).then_some(command)
}

fn yaml_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn the_models_are_what_compose_makes_of_the_files() {
    if compose().is_none() {
        eprintln!("left out: `docker compose` is not on this machine");
        return;
    }
    let files = yaml_files();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let mut command = compose().unwrap();
        command.args(["--project-name", "shop", "--profile", "*", "--file"]).arg(&file);
        command.args(["config", "--format", "json"]).env_remove("FROM_OUTSIDE").stdin(Stdio::null());
        let printed = command.output().unwrap();
        let said = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success(), "{}: {said}", file.display());
        let printed = String::from_utf8(printed.stdout).unwrap().replace(folder().to_str().unwrap(), BASE);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(printed == model(name), "{name}.json is not what Compose prints:\n{printed:#}");
    }
}

#[test]
fn compose_reads_what_the_drill_makes() {
    if compose().is_none() {
        eprintln!("left out: `docker compose` is not on this machine");
        return;
    }
    let mut read = 0;
    for file in yaml_files() {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let services = model(&name)["services"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        let fit: Vec<&str> = match with(&name, &services, &[]) {
            Ok(_) => services,
            Err(_) => services.into_iter().filter(|service| with(&name, &[service], &[]).is_ok()).collect(),
        };
        if fit.is_empty() {
            continue;
        }
        let isolated = drilled(&name, &fit);
        let mut command = compose().unwrap();
        command.args(["--project-name", ID, "--file", "-", "config", "--format", "json"]);
        command.env("SHOP_TOKEN", "x").env("SHOP_CONFIG", "x").env_remove("FROM_OUTSIDE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(isolated.model.to_string().as_bytes()).unwrap();
        let printed = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success() && said.is_empty(), "{name}: {said}\n{:#}", isolated.model);
        let again: Value = serde_json::from_slice(&printed.stdout).unwrap();
        // Compose adds no network of its own, mounts nothing else, and changes no value.
        let keys =
            |part: &Value| part.as_object().map(|all| all.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        assert_eq!(keys(&isolated.model["networks"]), keys(&again["networks"]), "{name}");
        assert_eq!(keys(&isolated.model["volumes"]), keys(&again["volumes"]), "{name}");
        for service in fit {
            let (made, again) = (&isolated.model["services"][service], &again["services"][service]);
            assert_eq!(keys(&made["networks"]), keys(&again["networks"]), "{name} {service}");
            assert_eq!(made["environment"], again["environment"], "{name} {service}");
            let sources = |service: &Value| {
                let mounts = service["volumes"].as_array().cloned().unwrap_or_default();
                mounts.iter().map(|mount| mount["source"].clone()).collect::<Vec<_>>()
            };
            assert_eq!(sources(made), sources(again), "{name} {service}");
            read += 1;
        }
    }
    assert!(read > 40, "only {read} services were read");
}
