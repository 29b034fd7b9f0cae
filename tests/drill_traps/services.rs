//! What else a service says: carried over, left out, or not known.

use std::collections::BTreeSet;

use serde_json::json;

use crate::*;

#[test]
fn what_stays_in_the_container_is_carried_over() {
    let isolated = with("plain", &["db", "app", "init"], &[]).unwrap();
    let settings = insta::Settings::clone_current();
    settings.bind(|| insta::assert_snapshot!("plain", serde_json::to_string_pretty(&isolated.model).unwrap()));
    assert_eq!(left_out(&isolated), BTreeSet::new());
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
