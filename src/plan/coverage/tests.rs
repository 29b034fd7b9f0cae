//! Small stacks, each with one thing that is taken, left out or forgotten.

use serde_json::{Value, json};

use super::*;
use crate::model::holdings::ReadAs;
use crate::plan::fixtures::small;

fn mount(kind: &str, source: &str, target: &str) -> Value {
    json!({ "type": kind, "source": source, "target": target })
}

/// A shop: a server with its volume, an application with a volume, a folder, a file, a secret and an env_file, a build.
fn model() -> Value {
    json!({
        "name": "shop",
        "services": {
            "db": { "image": "postgres:17", "volumes": [mount("volume", "pg", "/var/lib/postgresql/data")] },
            "web": {
                "image": "shop/web", "build": { "context": "/srv/shop/web" }, "secrets": [{ "source": "token" }],
                "env_file": [{ "path": "/srv/shop/web.env" }],
                "volumes": [mount("volume", "media", "/media"), mount("bind", "/srv/shop/conf", "/etc/web"),
                    mount("bind", "/var/run/docker.sock", "/var/run/docker.sock"), mount("bind", "/etc/localtime", "/etc/localtime")],
            },
            "worker": { "image": "shop/web", "volumes": [mount("volume", "media", "/media")] },
        },
        "volumes": { "pg": { "name": "shop_pg" }, "media": { "name": "shop_media" } },
        "networks": { "proxy": { "name": "proxy", "external": true } },
        "secrets": { "token": { "file": "/srv/shop/secrets/token" } },
    })
}

/// All of it is taken.
fn file() -> Value {
    let mut spec = small();
    spec["runtime"] = json!({ "docker": { "compose": ["compose.yaml"] } });
    spec["services"] = json!({
        "database": { "source": { "postgres": { "container": "db" } } },
        "media": { "source": { "volume": { "volume": "media", "stop": ["web", "worker"] } } },
        "configuration": { "source": { "files": { "paths": ["conf", "secrets", "web", "*.env"] } } },
    });
    spec
}

fn seen(model: &Value) -> SeenStack {
    let read = [("/srv/shop/compose.yaml".into(), ReadAs::Compose), ("/srv/shop/.env".into(), ReadAs::Variables)];
    SeenStack { held: Holdings::of(model, &read), base: "/srv/shop".into(), home: None, elsewhere: None }
}

fn compared(file: &Value, model: &Value) -> Coverage {
    let spec: Spec = serde_json::from_value(file.clone()).unwrap();
    coverage(&spec, &seen(model))
}

fn resources(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|note| note.resource.as_str()).collect()
}

#[test]
fn what_a_backed_up_service_takes_is_taken_and_nothing_else_is_told() {
    let coverage = compared(&file(), &model());
    assert_eq!(resources(&coverage.unprotected), [] as [&str; 0]);
    assert_eq!((coverage.left_out.len(), coverage.stale.len()), (0, 0));
    let taken = resources(&coverage.taken);
    assert_eq!(
        taken,
        [
            "server db",
            "volume media",
            "bind ./conf",
            "file of variables ./.env",
            "Compose file ./compose.yaml",
            "secret file ./secrets/token",
            "env_file ./web.env",
            "build ./web"
        ]
    );
}

#[test]
fn what_nothing_takes_is_unprotected_each_once_with_what_to_write() {
    let mut spec = file();
    spec["services"] = json!({ "x": { "source": { "files": { "paths": ["nothing"] } } } });
    let told: Vec<String> =
        compared(&spec, &model()).unprotected.iter().map(|it| format!("{}: {}", it.resource, it.text)).collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// What is told as unprotected, with its text.
fn told(file: &Value, model: &Value) -> Vec<(String, String)> {
    compared(file, model).unprotected.into_iter().map(|it| (it.resource, it.text)).collect()
}

fn with(model: &Value, place: &str, value: Value) -> Value {
    let mut model = model.clone();
    *model.pointer_mut(place).unwrap() = value;
    model
}

fn leaving_out(entries: Value) -> Value {
    let mut spec = file();
    spec["services"] = json!({ "x": { "source": { "files": { "paths": ["nothing"] } } } });
    spec["leave_out"] = entries;
    spec
}

#[test]
fn what_no_policy_names_is_not_taken() {
    let mut spec = file();
    spec["backup"]["daily"]["services"] = json!(["configuration"]);
    let told = told(&spec, &model());
    let resources: Vec<&str> = told.iter().map(|(resource, _)| resource.as_str()).collect();
    assert_eq!(resources, ["server db", "volume media"]);
    assert!(told.iter().all(|(_, text)| text.contains("no policy under `backup` names")), "{told:?}");
    // Two would take it, and one is named.
    spec["services"]["again"] = json!({ "source": { "volume": { "volume": "shop_media" } } });
    spec["backup"]["daily"]["services"] = json!(["configuration", "again", "database"]);
    assert_eq!(super::tests::told(&spec, &model()), []);
}

#[test]
fn the_raw_files_of_a_server_count_only_where_it_is_stopped() {
    let mut spec = file();
    for (source, right) in [
        (json!({ "volume": { "volume": "pg" } }), false),
        (json!({ "volume": { "volume": "pg", "stop": ["web"] } }), false),
        (json!({ "volume": { "volume": "pg", "stop": ["db"] } }), true),
        (json!({ "volume": { "volume": "shop_pg", "stop": ["shop-db-1"] } }), true),
        (json!({ "volume": { "container": "db", "path": "/var/lib/postgresql/data", "stop": ["db"] } }), true),
        (json!({ "volume": { "container": "db", "path": "/var/lib/postgresql/data/base", "stop": ["db"] } }), false),
        (json!({ "postgres": { "container": "shop-db-1" } }), true),
        (json!({ "postgres": { "container": "elsewhere" } }), false),
    ] {
        spec["services"]["database"] = json!({ "source": source });
        let told = told(&spec, &model());
        assert_eq!(told.is_empty(), right, "{source}: {told:?}");
        assert!(told.iter().all(|(resource, _)| resource == "server db"), "{told:?}");
    }
}

#[test]
fn a_server_keeps_its_data_wherever_it_is_mounted() {
    for place in ["/srv/shop/pgdata", "/mnt/pg"] {
        let mounted = json!([mount("bind", place, "/var/lib/postgresql/data")]);
        let model = with(&model(), "/services/db/volumes", mounted);
        assert_eq!(told(&file(), &model), [], "{place}");
    }
    // Two servers on one volume by mistake are two servers.
    let mut two = model();
    two["services"]["db2"] = two["services"]["db"].clone();
    let told = told(&file(), &two);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "server db2");
}

#[test]
fn paths_are_taken_by_what_lies_at_or_around_them_and_is_not_excluded() {
    for (paths, exclude, whole) in [
        (json!(["conf"]), json!([]), true),
        (json!(["./conf/"]), json!([]), true),
        (json!(["/srv/shop"]), json!([]), true),
        (json!(["."]), json!(["conf"]), false),
        (json!(["."]), json!(["*.tmp"]), true),
        (json!(["con*"]), json!([]), true),
        (json!(["conf/*"]), json!([]), true),
        (json!(["conf/**"]), json!([]), true),
        (json!(["conf/web.conf"]), json!([]), false),
        (json!(["conf/*.conf"]), json!([]), false),
        (json!(["configuration"]), json!([]), false),
        (json!(["../shop/conf"]), json!([]), true),
    ] {
        let mut spec = file();
        spec["services"]["configuration"] =
            json!({ "source": { "files": { "paths": ["secrets", "web", "*.env"], "exclude": [] } } });
        spec["services"]["more"] = json!({ "source": { "files": { "paths": paths, "exclude": exclude } } });
        let told = told(&spec, &model());
        assert_eq!(told.is_empty(), whole, "{paths} without {exclude}: {told:?}");
        if paths.to_string().contains("conf/") && !whole {
            assert!(told[0].1.contains("takes only conf/"), "{told:?}");
        }
    }
}

#[test]
fn each_thing_can_be_left_out_by_its_name_and_its_reason_is_kept() {
    let because = "nobody needs it";
    for (entry, left) in [
        (json!({ "volume": "media" }), vec!["volume media"]),
        (json!({ "volume": "shop_media" }), vec!["volume media"]),
        (json!({ "volume": "pg" }), vec!["server db"]),
        (json!({ "path": "conf" }), vec!["bind ./conf"]),
        (json!({ "path": "web.env" }), vec!["env_file ./web.env"]),
        (
            json!({ "path": "." }),
            vec!["bind ./conf", "secret file ./secrets/token", "env_file ./web.env", "build ./web"],
        ),
        (json!({ "build": "web" }), vec!["build ./web"]),
        (json!({ "service": "db" }), vec!["server db"]),
        // The other one that mounts the volume may need it.
        (
            json!({ "service": "web" }),
            vec!["bind ./conf", "secret file ./secrets/token", "env_file ./web.env", "build ./web"],
        ),
    ] {
        let mut entry = entry;
        entry["because"] = json!(because);
        let coverage = compared(&leaving_out(json!([entry])), &model());
        assert_eq!(resources(&coverage.left_out), left, "{entry}");
        assert!(coverage.left_out.iter().all(|note| note.text == because));
        assert!(resources(&coverage.unprotected).iter().all(|it| !left.contains(it)), "{entry}");
        assert_eq!(coverage.stale, [], "{entry}");
    }
    let both = json!([{ "service": "web", "because": "a" }, { "service": "worker", "because": "b" }]);
    assert!(resources(&compared(&leaving_out(both), &model()).left_out).contains(&"volume media"));
}

#[test]
fn a_word_about_what_the_stack_does_not_have_is_stale() {
    let mut joined = model();
    joined["services"]["web"]["networks"] = json!({ "proxy": null });
    for (entry, known) in [
        (json!({ "volume": "medium" }), false),
        (json!({ "path": "config" }), false),
        (json!({ "path": "conf/part" }), true),
        (json!({ "build": "conf" }), false),
        (json!({ "service": "wep" }), false),
        (json!({ "service": "shop-web-1" }), true),
        (json!({ "network": "proxy" }), true),
        (json!({ "network": "default" }), false),
    ] {
        let mut entry = entry;
        entry["because"] = json!("x");
        let stale = compared(&leaving_out(json!([entry])), &joined).stale;
        assert_eq!(stale.is_empty(), known, "{entry}: {stale:?}");
    }
    let spec: Spec = serde_json::from_value(leaving_out(json!([{ "volume": "x", "because": "x" }]))).unwrap();
    assert_eq!(coverage_of(&spec, None).stale.len(), 1);
}

#[test]
fn what_is_no_data_is_never_told() {
    let mut model = json!({ "name": "p", "services": { "a": { "image": "a" } } });
    for mounted in [
        mount("bind", "/var/run/docker.sock", "/s"),
        mount("bind", "/proc", "/p"),
        mount("bind", "/srv/shop/backups/data", "/b"),
        mount("volume", "scratch", "/scratch"),
        json!({ "type": "tmpfs", "target": "/t" }),
        json!({ "type": "volume", "target": "/nameless" }),
    ] {
        model["services"]["a"]["volumes"] = json!([mounted]);
        model["volumes"] =
            json!({ "scratch": { "name": "p_scratch", "driver_opts": { "type": "tmpfs", "device": "tmpfs" } } });
        assert_eq!(
            told(&small(), &model).iter().map(|it| &*it.0).filter(|it| !it.contains("file")).count(),
            0,
            "{mounted}"
        );
    }
    // A job that has the server's image, and keeps what it mounts in memory.
    model["services"]["a"] = json!({ "image": "redis:8", "tmpfs": ["/data"], "entrypoint": ["sh", "/init.sh"] });
    model["services"]["b"] = json!({ "image": "postgres:17", "entrypoint": ["sleep", "infinity"] });
    model["services"]["c"] =
        json!({ "image": "c", "build": { "context": "/srv/shop", "dockerfile_inline": "FROM c\nRUN x" } });
    assert_eq!(told(&small(), &model).iter().map(|it| &*it.0).filter(|it| !it.contains("file")).count(), 0);
    model["services"]["c"]["build"]["dockerfile_inline"] = json!("FROM c\nCOPY . .");
    assert!(told(&small(), &model).iter().any(|it| it.0 == "build ."));
}

#[test]
fn what_could_not_be_seen_is_told() {
    let spec: Spec = serde_json::from_value(small()).unwrap();
    let unknown = Observed::Unknown { reason: "no docker".to_owned() };
    let coverage = coverage_of(&spec, Some(&unknown));
    assert_eq!(resources(&coverage.unprotected), ["the stack"]);
    let mut seen = SeenStack::default();
    seen.held.unread = vec!["x.yaml: broken".to_owned()];
    assert!(super::coverage(&spec, &seen).unprotected[0].text.contains("x.yaml: broken"));
    assert_eq!(coverage_of(&spec, None), Coverage::default());
}

#[test]
fn a_recovery_says_what_its_runs_do_not_hold_before_anything_is_touched() {
    use crate::model::observation::SourceState;
    use crate::plan::fixtures::{NOW, World, at, run};
    use crate::plan::{Recover, Request};
    let mut old = run("daily", at(NOW), &["shop"]);
    old.manifest.unprotected = Some(vec![Note::new("volume media", "web writes to it, and no source takes it")]);
    let mut world = World::settled(small()).with_run("local", old);
    world.source("shop", SourceState::Gone);
    let asked = |world: &World, only: &[&str]| {
        let only = only.iter().map(|name| ServiceName::new(*name)).collect();
        let plan = world.ask(&Request::Recover(Recover { only, ..Recover::everything() })).unwrap();
        let options = crate::plan::render::TextOptions { zone: jiff::tz::TimeZone::UTC, all: true };
        let text = crate::plan::render::recovery(&plan, &world.spec, &options);
        (resources(&plan.report.unprotected).into_iter().map(str::to_owned).collect::<Vec<_>>(), text)
    };
    // On an empty machine nobody can look.
    world.observation.stack = Some(Observed::Unknown { reason: "compose.yaml is not there".to_owned() });
    let (missed, text) = asked(&world, &[]);
    assert_eq!(missed, ["volume media"]);
    assert!(text.contains("UNPROTECTED  no run holds these") && text.contains("volume media"), "{text}");
    // What the file takes by now no run holds yet.
    world.observation.stack = Some(Observed::Known(seen(&model())));
    let (missed, _) = asked(&world, &[]);
    assert_eq!(missed.iter().filter(|it| *it == "volume media").count(), 1);
    assert!(missed.contains(&"server db".to_owned()));
    assert_eq!(asked(&world, &["shop"]).0, [] as [&str; 0]);
}

#[test]
fn data_that_comes_back_into_a_service_that_nobody_makes_is_told() {
    let mut spec = file();
    let mut model = model();
    model["services"]["db"]["profiles"] = json!(["later"]);
    let seen = |model: &Value, used: &[&str]| {
        let mut seen = seen(model);
        seen.held.profiles = used.iter().map(|it| (*it).to_owned()).collect();
        seen
    };
    let unprotected = |spec: &Value, seen: &SeenStack| {
        let spec: Spec = serde_json::from_value(spec.clone()).unwrap();
        resources(&coverage(&spec, seen).unprotected).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(unprotected(&spec, &seen(&model, &[])), ["service db"]);
    assert_eq!(unprotected(&spec, &seen(&model, &["other"])), ["service db"]);
    assert_eq!(unprotected(&spec, &seen(&model, &["later"])), [] as [&str; 0]);
    // Of a volume one that mounts it is enough.
    model["services"]["web"]["profiles"] = json!(["later"]);
    assert_eq!(unprotected(&spec, &seen(&model, &["x"])), ["service db"]);
    model["services"]["worker"]["profiles"] = json!(["x"]);
    assert_eq!(unprotected(&spec, &seen(&model, &["x"])), ["service db"]);
    assert_eq!(unprotected(&spec, &seen(&model, &[])), ["service db", "service web", "service worker"]);
    // What is never taken comes back into nobody.
    spec["services"]["database"] = json!({ "source": { "files": { "paths": ["x"] } } });
    spec["leave_out"] = json!([{ "service": "db", "because": "x" }]);
    assert_eq!(unprotected(&spec, &seen(&model, &["x"])), [] as [&str; 0]);
}

#[test]
fn a_variable_that_was_set_when_any_run_was_taken_is_missed() {
    use crate::model::compose::ComposeModel;
    use crate::plan::fixtures::{NOW, World, at, run};
    let with = |unset: Option<&[&str]>| {
        let mut run = run("daily", at(NOW), &["shop"]);
        let unset = unset.map(|names| names.iter().map(|it| (*it).to_owned()).collect());
        run.manifest.compose = Some(ComposeModel { unset, ..ComposeModel::default() });
        let mut world = World::settled(small()).with_run("local", run);
        let mut stack = SeenStack { base: "/srv/shop".into(), ..SeenStack::default() };
        stack.held.unset = vec!["ODD".to_owned(), "SECRET_KEY".to_owned()];
        world.observation.stack = Some(Observed::Known(stack));
        let plan = world.plan();
        resources(&plan.report.unprotected).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(with(Some(&["ODD"])), ["variable SECRET_KEY"]);
    assert_eq!(with(Some(&["ODD", "SECRET_KEY"])), [] as [&str; 0]);
    // Nobody asked then.
    assert_eq!(with(None), [] as [&str; 0]);
}

#[test]
fn a_folder_on_the_engines_machine_is_not_taken_by_the_path_of_that_name_here() {
    let spec: Spec = serde_json::from_value(file()).unwrap();
    let mut stack = seen(&model());
    assert_eq!(resources(&coverage(&spec, &stack).unprotected), [] as [&str; 0]);
    stack.elsewhere = Some("ssh://far".to_owned());
    let told = coverage(&spec, &stack).unprotected;
    let told: Vec<String> = told.iter().map(|it| format!("{}: {}", it.resource, it.text)).collect();
    insta::assert_snapshot!(told.join("\n"));
    // What Compose reads it reads here, and a container reaches its folder wherever it lies.
    let mut by_container = file();
    by_container["services"]["conf"] =
        json!({ "source": { "volume": { "container": "web", "path": "/etc/web", "stop": ["web"] } } });
    let spec: Spec = serde_json::from_value(by_container).unwrap();
    assert_eq!(resources(&coverage(&spec, &stack).unprotected), [] as [&str; 0]);
}
