//! Networks, addresses, namespaces and power: what could reach the live stack or the machine.

use std::collections::BTreeSet;

use devstack::drill::LABEL;
use serde_json::json;

use crate::*;

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
fn names_that_lead_out_go() {
    bare("left_out", "external_links", &["services.external_links.external_links"]);
    bare("left_out", "dns", &["services.dns.dns"]);
    let isolated = drilled("left_out", &["hosts"]);
    assert_eq!(service(&isolated, "hosts")["extra_hosts"], json!(["me=127.0.0.1", "six=::1"]));
    assert_eq!(isolated.provided.left_out.len(), 2, "{:?}", isolated.provided.left_out);
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
