//! What holds for any model: nothing of the live stack's is in what comes out, and nothing that is not known gets through.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

use super::rules::{self, Rule};
use super::{Isolated, NotIsolated, Request, isolate};
use crate::drill::{DrillId, LABEL};

const ID: &str = "d7f3a9";
const SECRET: &str = "hunter2";

fn id() -> DrillId {
    ID.parse().unwrap()
}

fn made(model: &Value, services: &BTreeSet<String>) -> Result<Isolated, NotIsolated> {
    isolate(&Request {
        model,
        id: &id(),
        services,
        scratch: Path::new("/scratch/d7f3a9"),
        image_volumes: &BTreeMap::from([("s0".to_owned(), vec!["/image".to_owned()])]),
    })
}

/// Every key of a service in the Compose Specification, so that each is decided on and none is merely unknown.
const SPECIFIED: &str = "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs \
    container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset \
    credential_spec depends_on deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint \
    env_file environment expose extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc \
    isolation label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models \
    network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop privileged \
    profiles provider pull_policy read_only restart runtime scale secrets security_opt shm_size stdin_open \
    stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volumes \
    volumes_from working_dir";

#[test]
fn every_key_of_the_specification_is_decided_on_once() {
    let specified: BTreeSet<&str> = SPECIFIED.split_whitespace().collect();
    let decided: BTreeSet<&str> = rules::SERVICE.iter().map(|(key, _)| *key).collect();
    assert_eq!(decided, specified);
    assert_eq!(rules::SERVICE.len(), decided.len());
}

/// Something that no key has: what is carried over would show it.
fn nonsense() -> Value {
    json!({ "shiny": { "deep": [{ "er": "/livehost" }] } })
}

#[test]
fn no_key_is_dropped_without_a_word_and_none_carries_what_is_not_known() {
    for (key, rule) in rules::SERVICE {
        let mut service = json!({ "image": "a" });
        service[*key] = nonsense();
        let model = json!({ "name": "shop", "services": { "s0": service } });
        let place = format!("services.s0.{key}");
        match made(&model, &BTreeSet::from(["s0".to_owned()])) {
            Err(refused) => {
                assert!(refused.problems.iter().any(|problem| problem.at.starts_with(&place)), "{key}: {refused}");
                assert!(!matches!(rule, Rule::LeaveOut(_)), "{key}: {refused}");
            }
            Ok(isolated) => {
                let left = &isolated.provided.left_out;
                assert!(left.iter().any(|left| left.at.starts_with(&place)), "{key}: {left:?}");
                assert!(!isolated.model.to_string().contains("livehost"), "{key}");
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Trait {
    NamedVolume,
    ExternalVolume,
    Disguised,
    Nameless,
    Bind,
    BindInside,
    Memory,
    Network,
    ExternalNetwork,
    ContainerName,
    Port,
    Environment,
    SecretFile,
    Restart,
    Limits,
    Labels,
    ExtraHost,
    DependsOn,
    // From here on it can't be isolated.
    Privileged,
    HostNetwork,
    LiveNetwork,
    HostProcesses,
    Socket,
    Unknown,
    UnknownInside,
    Device,
    LiveVolumes,
    Capability,
    Pipe,
    ApiSocket,
    Misshapen,
}

use Trait::*;

const TRAITS: [Trait; 31] = [
    NamedVolume,
    ExternalVolume,
    Disguised,
    Nameless,
    Bind,
    BindInside,
    Memory,
    Network,
    ExternalNetwork,
    ContainerName,
    Port,
    Environment,
    SecretFile,
    Restart,
    Limits,
    Labels,
    ExtraHost,
    DependsOn,
    Privileged,
    HostNetwork,
    LiveNetwork,
    HostProcesses,
    Socket,
    Unknown,
    UnknownInside,
    Device,
    LiveVolumes,
    Capability,
    Pipe,
    ApiSocket,
    Misshapen,
];

const FIRST_FORBIDDEN: usize = 18;

fn push(service: &mut Value, key: &str, entry: Value) -> usize {
    let list = service.as_object_mut().unwrap().entry(key).or_insert_with(|| json!([]));
    list.as_array_mut().unwrap().push(entry);
    list.as_array().unwrap().len() - 1
}

/// Puts a trait into a service; the place of the problem that it must become, if it can't be isolated.
fn put(kind: Trait, n: u8, name: &str, service: &mut Value, model: &mut Value) -> Option<String> {
    let at = |key: &str| Some(format!("services.{name}.{key}"));
    match kind {
        NamedVolume | ExternalVolume | Disguised => {
            let key = format!("volkey{n}");
            push(
                service,
                "volumes",
                json!({ "type": "volume", "source": key, "target": format!("/v{n}"), "volume": {} }),
            );
            model["volumes"][&key] = match kind {
                NamedVolume => json!({ "name": format!("livevol{n}"), "labels": { "of": format!("livevol{n}") } }),
                ExternalVolume => json!({ "name": format!("livevol{n}"), "external": true }),
                _ => json!({
                    "name": format!("livevol{n}"), "driver": "local",
                    "driver_opts": { "type": "none", "o": "bind", "device": format!("/livehost/d{n}") },
                }),
            };
            None
        }
        Nameless => {
            push(service, "volumes", json!({ "type": "volume", "target": format!("/a{n}") }));
            None
        }
        Bind | BindInside => {
            let inside = if matches!(kind, BindInside) { "/inside" } else { "" };
            let source = format!("/livehost/b{n}{inside}");
            let mount = json!({
                "type": "bind", "source": source, "target": format!("/b{n}{inside}"), "read_only": n.is_multiple_of(2),
                "bind": { "create_host_path": true, "propagation": "rshared" },
            });
            push(service, "volumes", mount);
            None
        }
        Memory => {
            push(service, "volumes", json!({ "type": "tmpfs", "target": format!("/m{n}"), "tmpfs": { "size": "64" } }));
            None
        }
        Network | ExternalNetwork => {
            let key = format!("netkey{n}");
            service["networks"][&key] =
                json!({ "aliases": [format!("alias{n}")], "ipv4_address": format!("10.99.{n}.7") });
            model["networks"][&key] = json!({
                "name": format!("livenet{n}"), "external": matches!(kind, ExternalNetwork),
                "ipam": { "config": [{ "subnet": format!("10.99.{n}.0/24") }] },
            });
            None
        }
        ContainerName => {
            service["container_name"] = json!(format!("livebox{n}"));
            None
        }
        Port => {
            let port = json!({ "mode": "ingress", "target": 80, "published": format!("{}", 47000 + u32::from(n)), "protocol": "tcp" });
            push(service, "ports", port);
            None
        }
        Environment => {
            service["environment"][format!("PASSWORD{n}")] = json!(SECRET);
            service["build"] = json!({ "context": "/livehost/build", "args": { "TOKEN": SECRET } });
            None
        }
        SecretFile => {
            let key = format!("secret{n}");
            push(service, "secrets", json!({ "source": key, "target": format!("/run/secrets/{key}") }));
            model["secrets"][&key] = json!({ "name": format!("livevol_{key}"), "file": format!("/livehost/s{n}") });
            None
        }
        Restart => {
            service["restart"] = json!("always");
            None
        }
        Limits => {
            service["deploy"] = json!({ "replicas": 3, "resources": { "limits": { "memory": "64" } } });
            None
        }
        Labels => {
            service["labels"] = json!({ "traefik.enable": "true", "secret": SECRET });
            None
        }
        ExtraHost => {
            push(service, "extra_hosts", json!(format!("db=10.99.{n}.9")));
            None
        }
        DependsOn => {
            service["depends_on"]["s0"] = json!({ "condition": "service_started", "required": true });
            None
        }
        Privileged => {
            service["privileged"] = json!(true);
            at("privileged")
        }
        HostNetwork => {
            service["network_mode"] = json!("host");
            at("network_mode")
        }
        LiveNetwork => {
            service["network_mode"] = json!(format!("container:livebox{n}"));
            at("network_mode")
        }
        HostProcesses => {
            service["pid"] = json!("host");
            at("pid")
        }
        Socket => {
            let paths = ["/var/run/docker.sock", "/run", "/", "/var", "/livehost/../run/x", "/livehost/docker.sock"];
            let mount = json!({ "type": "bind", "source": paths[usize::from(n) % paths.len()], "target": "/x" });
            let nth = push(service, "volumes", mount);
            at(&format!("volumes[{nth}].source"))
        }
        Unknown => {
            service[format!("shiny{n}")] = json!(SECRET);
            at(&format!("shiny{n}"))
        }
        UnknownInside => {
            service["healthcheck"] = json!({ "test": ["CMD", "true"], "shiny": SECRET });
            at("healthcheck.shiny")
        }
        Device => {
            push(service, "devices", json!({ "source": "/dev/kvm", "target": "/dev/kvm", "permissions": "rwm" }));
            at("devices")
        }
        LiveVolumes => {
            push(service, "volumes_from", json!(format!("container:livebox{n}")));
            at("volumes_from")
        }
        Capability => {
            push(service, "cap_add", json!("SYS_ADMIN"));
            at("cap_add")
        }
        Pipe => {
            let nth = push(service, "volumes", json!({ "type": "npipe", "source": "x", "target": "y" }));
            at(&format!("volumes[{nth}]"))
        }
        ApiSocket => {
            service["use_api_socket"] = json!(true);
            at("use_api_socket")
        }
        Misshapen => {
            service["user"] = json!({ "name": SECRET });
            at("user")
        }
    }
}

/// A model of three services; the places that must be refused, by service.
fn assembled(traits: &[Vec<(usize, u8)>]) -> (Value, Vec<Vec<String>>) {
    let mut model = json!({ "name": "liveproject", "services": {}, "volumes": {}, "networks": {}, "secrets": {} });
    let mut refused = Vec::new();
    for (nth, traits) in traits.iter().enumerate() {
        let name = format!("s{nth}");
        let mut service = json!({ "image": "shop/app:1", "command": null, "entrypoint": null, "networks": {} });
        let places = traits.iter().filter_map(|(kind, n)| put(TRAITS[*kind], *n, &name, &mut service, &mut model));
        let places: Vec<String> = places.collect();
        model["services"][&name] = service;
        refused.push(places);
    }
    (model, refused)
}

fn worlds() -> impl Strategy<Value = (Vec<Vec<(usize, u8)>>, Vec<bool>)> {
    // Half of the worlds can be isolated.
    let kinds = prop_oneof![Just(FIRST_FORBIDDEN), Just(TRAITS.len())];
    kinds.prop_flat_map(|kinds| (vec(vec((0..kinds, 0..6_u8), 0..7), 3), vec(any::<bool>(), 3)))
}

/// The model without what may say anything: an alias answers in the drill's own networks only.
fn without_names(model: &Value) -> String {
    let mut model = model.clone();
    for service in model["services"].as_object_mut().unwrap().values_mut() {
        service.as_object_mut().unwrap().remove("logging");
        for network in service["networks"].as_object_mut().into_iter().flat_map(Map::values_mut) {
            network.as_object_mut().unwrap().remove("aliases");
        }
    }
    model.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(20_261_126), ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_the_live_stack_is_in_what_comes_out((traits, needed) in worlds()) {
        let (model, refused) = assembled(&traits);
        let mut services: BTreeSet<String> =
            (0..3).filter(|nth| needed[*nth]).map(|nth| format!("s{nth}")).collect();
        services.insert("s0".to_owned());
        let expected: BTreeSet<&String> =
            (0..3).filter(|nth| services.contains(&format!("s{nth}"))).flat_map(|nth| &refused[nth]).collect();
        let answer = made(&model, &services);
        prop_assert_eq!(&answer, &made(&model, &services));
        match answer {
            Err(refused) => {
                let told: BTreeSet<&String> = refused.problems.iter().map(|problem| &problem.at).collect();
                prop_assert_eq!(told, expected);
                let said = format!("{refused}{refused:?}");
                prop_assert!(!said.contains(SECRET), "{}", said);
            }
            Ok(isolated) => {
                prop_assert!(expected.is_empty(), "{:?} got through", expected);
                let text = without_names(&isolated.model);
                for live in [
                    "livevol", "volkey", "livenet", "netkey", "livehost", "livebox", "liveproject", "10.99.", "\"47",
                    "external", "driver", "container_name", "\"ports\"", "restart", "traefik", "propagation",
                ] {
                    prop_assert!(!text.contains(live), "{} in {}", live, text);
                }
                for part in ["volumes", "networks"] {
                    for (key, made) in isolated.model[part].as_object().unwrap() {
                        prop_assert!(key.starts_with("d7f3a9-") && made["name"] == key.as_str(), "{}", key);
                        prop_assert_eq!(&made["labels"], &json!({ LABEL: ID }));
                        prop_assert_eq!(made["internal"] == true, part == "networks");
                    }
                }
                for (name, service) in isolated.model["services"].as_object().unwrap() {
                    prop_assert_eq!(&service["labels"], &json!({ LABEL: ID }), "{}", name);
                    prop_assert!(!service["networks"].as_object().unwrap().is_empty(), "{}", name);
                    for network in service["networks"].as_object().unwrap().keys() {
                        prop_assert!(isolated.model["networks"].get(network).is_some());
                    }
                    for mount in service["volumes"].as_array().into_iter().flatten() {
                        let source = mount["source"].as_str().unwrap_or_default();
                        match mount["type"].as_str().unwrap() {
                            "volume" => prop_assert!(isolated.model["volumes"].get(source).is_some(), "{}", mount),
                            "bind" => prop_assert!(source.starts_with("/scratch/d7f3a9/b"), "{}", mount),
                            kind => prop_assert_eq!(kind, "tmpfs"),
                        }
                    }
                }
                let told = format!("{isolated:?}{}", json!(isolated.provided));
                prop_assert!(!told.contains(SECRET), "{}", told);
            }
        }
    }
}
