//! Volumes, host paths, files: what could be the live data by another name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use devstack::drill::{CopyFrom, DrillId, LABEL, Request, StandsFor, isolate};
use serde_json::json;

use crate::*;

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

/// `data:/data:z`: Compose says it of a volume too, where it means nothing to a new one.
#[test]
fn a_label_of_selinux_is_no_reason_to_refuse_and_nothing_else_slips_in_beside_it() {
    let model = json!({ "name": "shop", "volumes": { "data": { "name": "shop_data" } }, "services": { "a": { "image": "a",
        "volumes": [ { "type": "volume", "source": "data", "target": "/d",
            "bind": { "selinux": "z", "propagation": "rshared", "shiny": "/livehost" }, "volume": {} } ] } } });
    let isolated = crate::inline(&model, "a").unwrap();
    let mount = &isolated.model["services"]["a"]["volumes"][0];
    assert_eq!(mount, &json!({ "type": "volume", "source": "d7f3a9-v1", "target": "/d", "volume": {} }));
}
