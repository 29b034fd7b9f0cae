//! Who is brought back in which order, on small worlds.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::model::assertion::Assertion;
use crate::model::compose::{ComposeModel, ComposeService, Condition, Seen};
use crate::model::consent::{Harm, VERBS};
use crate::model::evidence::Verdict;
use crate::model::ids::RunId;
use crate::model::observation::{Misplaced, Observed, OtherProjects, SourceState};
use crate::model::plan::Plan;
use crate::model::step::{Action, Approval, Started, StepId};
use crate::model::units::Span;
use crate::plan::fixtures::{NOW, World, at, proof, run, service, small};
use crate::plan::{PlanError, Recover, Request, Rollback, Selection};

const SERVICES: [&str; 5] = ["config", "database", "files", "shop", "vault"];

/// A Vault, a database whose password lies in it, a volume of an application, files; nothing of it is there.
fn lost() -> World {
    let mut spec = small();
    spec["runtime"] = json!({ "docker": { "compose": ["docker-compose.yml"], "project": "p" } });
    spec["vault"] = json!({ "address": "http://127.0.0.1:8200", "login": { "token": { "file": "token" } } });
    spec["services"]["config"] = json!({ "source": { "files": { "paths": ["docker-compose.yml"] } } });
    spec["services"]["vault"] = json!({ "source": { "vault": { "container": "vault" } } });
    spec["services"]["database"] =
        json!({ "source": { "postgres": { "container": "db", "password": { "vault": "secret/db#password" } } } });
    spec["services"]["files"] =
        json!({ "source": { "volume": { "volume": "data", "stop": ["web"] } }, "after": ["database"] });
    let mut world = World::settled(spec);
    let mut newest = run("daily", Span::from_hours(3).before(at(NOW)), &SERVICES);
    newest.manifest.compose = Some(model());
    world = world.with_run("local", newest);
    for name in SERVICES {
        world.source(name, SourceState::Gone);
        world.observation.containers.insert(service(name), Observed::Known(BTreeMap::new()));
    }
    world.observation.compose = Some(Observed::Unknown { reason: "there is no docker-compose.yml".to_owned() });
    world
}

/// Where only some services are asked for, the Compose files must be here.
fn lost_but_for_the_compose_files() -> World {
    let mut world = lost();
    world.observation.compose = Some(Observed::Known(model()));
    world
}

fn model() -> ComposeModel {
    let healthy = json!({ "condition": "service_healthy" });
    ComposeModel::of(&json!({
        "name": "p",
        "services": {
            "vault": {}, "db": {},
            "init": { "depends_on": { "db": healthy } },
            "web": { "depends_on": { "db": healthy, "init": { "condition": "service_completed_successfully" } },
                "volumes": [ { "type": "volume", "source": "data" } ] }
        },
        "volumes": { "data": { "name": "p_data" } }
    }))
}

fn asked(only: &[&str]) -> Request {
    let only = only.iter().map(|name| service(name)).collect();
    Request::Recover(Recover::lost(only, Selection::Newest, None))
}

fn plan(world: &World) -> Plan {
    world.ask(&asked(&[])).unwrap()
}

/// The steps by what they are called.
fn called(plan: &Plan) -> BTreeMap<String, StepId> {
    plan.steps.iter().map(|step| (format!("{} {}", step.action.verb(), step.action.resource()), step.id)).collect()
}

/// Whether the one waits for the other, by however many steps between.
fn waits(plan: &Plan, later: &str, earlier: &str) -> bool {
    let ids = called(plan);
    let mut open = vec![ids[later]];
    while let Some(id) = open.pop() {
        if id == ids[earlier] {
            return true;
        }
        open.extend(plan.step(id).unwrap().waits.iter().map(|wait| wait.step));
    }
    false
}

#[test]
fn everything_comes_back_in_the_order_that_it_needs() {
    let plan = plan(&lost());
    let run = plan.steps.iter().find(|step| matches!(step.action, Action::Prove { .. })).unwrap().action.resource();
    let proof = format!("prove {run}");
    for (later, earlier) in [
        ("restore config/data", proof.as_str()),
        ("create containers stack/containers", "restore config/data"),
        ("create containers stack/containers", "restore shop/data"),
        ("start container container/vault", "create containers stack/containers"),
        ("restore vault/data", "start container container/vault"),
        // Its password lies in Vault.
        ("restore database/data", "restore vault/data"),
        ("restore database/data", "start container container/db"),
        // `depends_on` means the data, too.
        ("start container container/init", "restore database/data"),
        ("start container container/web", "start container container/init"),
        // A volume is filled before its writers start.
        ("start container container/web", "restore files/data"),
        ("restore files/data", "create containers stack/containers"),
        ("restore files/data", "restore database/data"),
        ("verify stack", "start container container/web"),
        ("verify stack", "restore vault/data"),
    ] {
        assert!(waits(&plan, later, earlier), "{later} does not wait for {earlier}");
    }
    // What has nothing to do with each other goes side by side.
    assert!(!waits(&plan, "start container container/db", "start container container/vault"));
    assert!(!waits(&plan, "start container container/db", "restore vault/data"));
    assert_eq!(plan.steps.iter().filter(|step| matches!(step.action, Action::VerifyStack { .. })).count(), 1);
}

#[test]
fn what_is_asserted_goes_along_as_far_as_it_is_about_what_comes_back() {
    let mut world = lost_but_for_the_compose_files();
    world.spec.recovery = serde_json::from_value(json!({ "assert": [
        { "postgres": { "service": "database", "database": "shop", "query": "select count(*) > 0 from orders" } },
        { "http": { "container": "web", "url": "http://127.0.0.1/", "name": "the page" } },
        { "command": { "container": "other", "run": ["true"] } },
    ] }))
    .unwrap();
    let asserted = |only: &[&str]| -> Vec<String> {
        let plan = world.ask(&asked(only)).unwrap();
        let last = plan.steps.last().unwrap();
        let Action::VerifyStack { assertions, .. } = &last.action else { panic!("{last:?} is last") };
        assertions.iter().map(Assertion::name).collect()
    };
    let (orders, page, other) = ("database: select count(*) > 0 from orders", "the page", "other: true");
    assert_eq!(asserted(&[]), [orders, page, other]);
    // Its container is started with those of the files.
    assert_eq!(asserted(&["files"]), [page]);
    assert_eq!(asserted(&["database"]), [orders]);
    assert!(asserted(&["config"]).is_empty());
}

#[test]
fn the_plan_is_the_same_each_time() {
    assert_eq!(plan(&lost()), plan(&lost()));
}

#[test]
fn what_has_its_data_is_left_and_what_was_not_seen_is_not_written_to() {
    let mut world = lost_but_for_the_compose_files();
    world.source("shop", SourceState::HasData { bytes: None });
    let left = plan(&world);
    assert!(!called(&left).contains_key("restore shop/data"));
    assert!(left.report.unchanged.iter().any(|note| note.resource == "shop/data"));
    world.observation.services.insert(service("config"), Observed::Unknown { reason: "the disk is broken".to_owned() });
    let error = world.ask(&asked(&[])).unwrap_err().to_string();
    assert!(error.contains("config") && error.contains("the disk is broken"), "{error}");
    assert!(world.ask(&asked(&["database"])).is_ok(), "what is not asked for is in nobody's way");
}

#[test]
fn nothing_is_planned_where_nothing_is_gone() {
    let mut world = lost();
    for name in SERVICES {
        world.source(name, SourceState::HasData { bytes: None });
    }
    assert!(plan(&world).steps.is_empty());
}

#[test]
fn after_a_recovery_that_was_left_what_is_asserted_is_asked_though_nothing_is_gone() {
    let mut world = lost_but_for_the_compose_files();
    for name in SERVICES {
        world.source(name, SourceState::HasData { bytes: None });
    }
    let page = json!({ "http": { "container": "web", "url": "http://127.0.0.1/", "name": "the page" } });
    world.spec.recovery = serde_json::from_value(json!({ "assert": [page] })).unwrap();
    let afresh = Request::Recover(Recover { verify: true, ..Recover::everything() });
    let plan = world.ask(&afresh).unwrap();
    let Some(Action::VerifyStack { services, assertions, .. }) = plan.steps.last().map(|step| &step.action) else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!((services.len(), assertions[0].name()), (SERVICES.len(), "the page".to_owned()));
    assert!(!plan.steps.iter().any(|step| matches!(step.action, Action::Restore(_))), "what is there stays");
    // Also where there are no containers at all.
    world.spec.runtime = None;
    world.observation.compose = None;
    assert_eq!(world.ask(&afresh).unwrap().steps.len(), 1);
}

#[test]
fn what_a_restore_left_half_way_is_not_taken_for_what_came_back() {
    let mut world = lost_but_for_the_compose_files();
    for name in SERVICES {
        world.source(name, SourceState::HasData { bytes: None });
    }
    let left = Recover { verify: true, unfinished: vec![service("config")], ..Recover::everything() };
    let plan = world.ask(&Request::Recover(left.clone())).unwrap();
    let held: Vec<(String, String)> = plan
        .held()
        .filter_map(|step| match &step.approval {
            Approval::Needed { token, .. } => Some((step.action.verb().to_owned(), token.clone())),
            _ => None,
        })
        .collect();
    let word = || "restore:config".to_owned();
    assert!(held.contains(&("restore".to_owned(), word())), "{held:?}");
    assert!(held.iter().any(|(verb, token)| verb != "restore" && *token == word()), "it is not copied first: {held:?}");
    assert!(
        !plan.steps.iter().any(|step| matches!(&step.action, Action::Restore(it) if it.service != service("config")))
    );
    // One that is gone comes back as any other.
    world.source("config", SourceState::Gone);
    let plan = world.ask(&Request::Recover(left)).unwrap();
    assert!(
        plan.steps.iter().any(|step| matches!(&step.action, Action::Restore(it) if it.service == service("config")))
    );
}

#[test]
fn one_service_brings_along_what_its_containers_need_and_no_more() {
    let steps = called(&lost_but_for_the_compose_files().ask(&asked(&["files"])).unwrap());
    for wanted in [
        "start container container/web",
        "start container container/init",
        "start container container/db",
        "restore files/data",
    ] {
        assert!(steps.contains_key(wanted), "{wanted} is missing: {steps:?}");
    }
    assert!(!steps.contains_key("start container container/vault") && !steps.contains_key("restore database/data"));
    let files = called(&lost().ask(&asked(&["config"])).unwrap());
    assert!(!files.contains_key("create containers stack/containers"), "{files:?}");
}

#[test]
fn what_is_gone_waits_for_no_word_unless_its_run_is_too_old() {
    let tokens = |world: &World| -> Vec<String> {
        let held = plan(world).steps.into_iter().filter_map(|step| match step.approval {
            Approval::Needed { token, .. } => Some(token),
            _ => None,
        });
        let mut tokens: Vec<String> = held.collect();
        tokens.sort();
        tokens
    };
    let mut world = lost();
    assert_eq!(tokens(&world), Vec::<String>::new());
    world.spec.recovery = serde_json::from_value(json!({ "services": { "database": { "rpo": "1h" } } })).unwrap();
    assert_eq!(tokens(&world), ["age:database"]);
    let at = Request::Recover(Recover::lost(vec![], Selection::At(at(NOW)), None));
    let held = world
        .ask(&at)
        .unwrap()
        .steps
        .into_iter()
        .any(|step| matches!(step.approval, Approval::Needed { token, .. } if token.starts_with("age:")));
    assert!(!held, "who names a time has accepted its age");
}

/// What a verb's steps may do is what the table of consent says of it, and nothing that overwrites or empties goes without a word.
#[test]
fn a_recovery_does_no_more_than_the_table_of_consent_says() {
    let mut world = lost();
    let ask = |world: &World, name: &str| match name {
        "recover" => world.ask(&asked(&[])).unwrap(),
        "recover --replace" => {
            let all = Recover { replace: true, ..Recover::everything() };
            world.ask(&Request::Recover(all)).unwrap()
        }
        _ => world.ask(&Request::Rollback(Rollback { only: vec![], from: None, safety: true })).unwrap(),
    };
    let mut seen = BTreeSet::new();
    let mut look = |world: &World, name: &'static str| {
        let verb = VERBS.iter().find(|verb| verb.name == name).unwrap();
        for step in ask(world, name).steps {
            let harm = Harm::of(&step);
            assert!(verb.harms.contains(&harm), "{name}: {harm:?} {step:?}");
            assert_eq!(harm.needs_a_word(), step.approval.token().is_some(), "{name}: {step:?}");
            seen.insert((name, harm));
        }
    };
    look(&world, "recover");
    for source in ["config", "files", "shop"] {
        world.source(source, SourceState::HasData { bytes: None });
    }
    let unseen = Observed::Unknown { reason: "it does not start".to_owned() };
    world.observation.services.insert(service("database"), unseen);
    look(&world, "recover --replace");
    let mut copy = run("safety", Span::from_hours(1).before(at(NOW)), &["shop"]);
    copy.manifest.run = RunId::of_safety(at(NOW), &service("shop"));
    let world = world.with_run("local", copy);
    look(&world, "recover --rollback");
    for (name, harm) in [
        ("recover", Harm::BringsBack),
        ("recover --replace", Harm::BringsBack),
        ("recover --replace", Harm::Overwrites),
        ("recover --replace", Harm::Deletes),
        ("recover --rollback", Harm::Overwrites),
    ] {
        assert!(seen.contains(&(name, harm)), "{name} {harm:?} was not looked at: {seen:?}");
    }
}

#[test]
fn a_project_that_was_renamed_is_asked_about_and_nothing_is_called_lost() {
    let mut world = lost_but_for_the_compose_files();
    world.source("config", SourceState::HasData { bytes: None });
    let others = BTreeMap::from([("old".to_owned(), 3)]);
    world.observation.projects = Some(OtherProjects { own: "p".to_owned(), others });
    let report = world.plan().report;
    let [note] = report.renamed.as_slice() else { panic!("{:?}", report.renamed) };
    for said in ["3 containers of project old run", "database, files, vault", "runtime.docker.project: old"] {
        assert!(note.text.contains(said), "{}", note.text);
    }
    // What lies on the machine itself is lost whatever the project is called.
    let lost: Vec<_> = report.lost.iter().map(|note| note.resource.as_str()).collect();
    assert_eq!(lost, ["shop/data"]);
    let plan = plan(&world);
    let held: Vec<_> = plan.held().map(|step| (step.action.verb(), step.approval.token())).collect();
    assert_eq!(held, [("create containers", Some("project:p"))]);
    world.observation.projects = None;
    assert!(world.plan().report.renamed.is_empty() && self::plan(&world).held().next().is_none());
}

#[test]
fn over_data_a_run_that_is_too_old_needs_the_harder_word_which_says_both() {
    let mut world = lost();
    world.spec.recovery = serde_json::from_value(json!({ "rpo": "1h" })).unwrap();
    world.source("shop", SourceState::HasData { bytes: None });
    let asked =
        Recover { replace: true, safety: false, ..Recover::lost(vec![service("shop")], Selection::Newest, None) };
    let plan = world.ask(&Request::Recover(asked)).unwrap();
    let held: Vec<_> = plan.held().map(|step| &step.approval).collect();
    let [Approval::Needed { token, reason }] = held.as_slice() else { panic!("{held:?}") };
    assert_eq!(token, "restore:shop");
    assert!(reason.contains("NOT copied first") && reason.contains("may be lost"), "{reason}");
}

#[test]
fn a_damaged_run_is_passed_over_for_an_older_good_one() {
    let mut older = run("daily", Span::from_hours(30).before(at(NOW)), &SERVICES);
    older.manifest.compose = Some(model());
    let mut world = lost().with_run("local", older.clone());
    let newest = &mut world.facts("local").runs[0];
    newest.proofs.push(proof(
        &newest.manifest.run.clone(),
        at(NOW),
        &[],
        &Verdict::Failed(vec!["a pack is gone".to_owned()]),
    ));
    let restored = plan(&world).steps.into_iter().filter_map(|step| match step.action {
        Action::Restore(restore) => Some(restore.run),
        _ => None,
    });
    assert!(restored.into_iter().all(|run| run == older.manifest.run));
}

#[test]
fn a_container_that_nobody_makes_is_named() {
    let mut world = lost();
    world.spec.runtime = None;
    world.observation.compose = None;
    for run in &mut world.facts("local").runs {
        run.manifest.compose = None;
    }
    let error = world.ask(&asked(&["database"])).unwrap_err();
    assert!(matches!(error, PlanError::NoMaker { .. }), "{error}");
}

#[test]
fn compose_files_that_nobody_can_read_are_found_before_anything_is_touched() {
    let mut world = lost();
    world.source("config", SourceState::HasData { bytes: None });
    // What the run knows of them is enough, and it is said.
    let told = created(&world.ask(&asked(&[])).unwrap()).1;
    assert!(told.contains("from the model that run") && told.contains("there is no docker-compose.yml"), "{told}");
    // The files that come back may be those that Compose misses.
    world.source("config", SourceState::Gone);
    let told = created(&world.ask(&asked(&[])).unwrap()).1;
    assert!(told.contains("that come back"), "{told}");
    // Where no run has ever known them, nothing can be planned.
    for run in &mut world.facts("local").runs {
        run.manifest.compose = None;
    }
    let error = world.ask(&asked(&["database"])).unwrap_err();
    assert!(
        matches!(&error, PlanError::UnreadCompose { reason } if reason == "there is no docker-compose.yml"),
        "{error}"
    );
    assert!(error.is_of_the_world());
    assert!(world.ask(&asked(&["shop"])).is_ok(), "a file needs no container");
}

/// The services that get containers, and what is said of where they come from.
fn created(plan: &Plan) -> (Vec<String>, String) {
    let found = plan.steps.iter().find_map(|step| match &step.action {
        Action::CreateContainers { services, .. } => Some((services.clone(), step.causes.join("; "))),
        _ => None,
    });
    found.unwrap()
}

/// As the run has seen them: a job of a profile that was never run, one that was, and a server whose check was red.
fn seen() -> World {
    let mut world = lost();
    let seen = |containers, unhealthy| Some(Seen { containers, unhealthy });
    let model = world.facts("local").runs[0].manifest.compose.as_mut().unwrap();
    for service in model.services.values_mut() {
        service.seen = seen(1, false);
    }
    model.services.get_mut("db").unwrap().seen = seen(1, true);
    for (name, containers) in [("danger", 0), ("job", 1), ("needed", 0)] {
        let service = ComposeService {
            profiles: vec!["extra".to_owned()],
            seen: seen(containers, false),
            // Each could write to the volume that comes back.
            volumes: vec!["p_data".to_owned()],
            ..ComposeService::default()
        };
        model.services.insert(name.to_owned(), service);
    }
    model.services.get_mut("job").unwrap().depends_on.insert("needed".to_owned(), Condition::Started);
    // Stopped by hand, and of no profile: it belongs to the stack.
    model.services.get_mut("vault").unwrap().seen = seen(0, false);
    world
}

#[test]
fn only_profiles_that_ran_are_started() {
    let plan = plan(&seen());
    let (services, _) = created(&plan);
    assert_eq!(services, ["db", "init", "job", "needed", "vault", "web"]);
    assert!(!called(&plan).contains_key("start container container/danger"));
    let told: Vec<String> = plan.report.unchanged.iter().map(|it| format!("{}: {}", it.resource, it.text)).collect();
    assert!(told.iter().any(|it| it.starts_with("container/danger: ") && it.contains("profile extra")), "{told:?}");
    // What declared data lies in is brought up whatever ran.
    let mut world = seen();
    let model = world.facts("local").runs[0].manifest.compose.as_mut().unwrap();
    let db = model.services.get_mut("db").unwrap();
    (db.profiles, db.seen) = (vec!["extra".to_owned()], Some(Seen::default()));
    assert!(created(&super::tests::plan(&world)).0.contains(&"db".to_owned()));
    // A run of yesterday has seen nothing: nothing is left out of it.
    let mut world = seen();
    for service in world.facts("local").runs[0].manifest.compose.as_mut().unwrap().services.values_mut() {
        service.seen = None;
    }
    assert!(created(&super::tests::plan(&world)).0.contains(&"danger".to_owned()));
    // Also where the files are here: what ran is known from the run.
    let mut world = seen();
    let mut here = world.facts("local").runs[0].manifest.compose.clone().unwrap();
    here.services.values_mut().for_each(|service| service.seen = None);
    world.observation.compose = Some(Observed::Known(here));
    assert!(!created(&super::tests::plan(&world)).0.contains(&"danger".to_owned()));
}

#[test]
fn a_health_check_that_was_red_then_is_waited_for_by_nobody() {
    let plan = plan(&seen());
    let until = |name: &str| {
        let of = plan.steps.iter().find_map(|step| match &step.action {
            Action::StartContainer { service, until } if service == name => Some(*until),
            _ => None,
        });
        of.unwrap()
    };
    assert_eq!((until("db"), until("web")), (Started::Running, Started::Healthy));
    let Action::VerifyStack { red, .. } = &plan.steps.last().unwrap().action else { panic!("{plan:?}") };
    assert_eq!(red, &["db"]);
}

#[test]
fn variables_that_were_set_then_and_are_not_now_are_named() {
    let mut world = lost_but_for_the_compose_files();
    let told = |world: &World| created(&plan(world)).1;
    let lacking = |world: &mut World, then: Option<&[&str]>, now: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        world.facts("local").runs[0].manifest.compose.as_mut().unwrap().unset = then.map(owned);
        world.observation.compose = Some(Observed::Known(ComposeModel { unset: Some(owned(now)), ..model() }));
    };
    lacking(&mut world, Some(&["ODD"]), &["ODD", "SECRET_KEY"]);
    let said = told(&world);
    assert!(said.contains("SECRET_KEY was set when it was taken") && !said.contains("ODD"), "{said}");
    assert!(said.contains("from the model that run"), "{said}");
    for (then, now) in [(Some(&["ODD"] as &[&str]), &["ODD"] as &[&str]), (None, &["ODD"]), (Some(&[]), &[])] {
        lacking(&mut world, then, now);
        assert_eq!(told(&world), "as the Compose files declare them", "{then:?} {now:?}");
    }
}

#[test]
fn a_folder_that_docker_made_in_the_place_of_a_file_is_no_data() {
    let mut world = lost_but_for_the_compose_files();
    let here = SourceState::HasData { bytes: None };
    world.source("config", here);
    assert!(!called(&plan(&world)).contains_key("restore config/data"), "it has its data");
    let misplaced = |empty| vec![Misplaced { path: "/srv/conf/app.conf".into(), empty }];
    for state in [here, SourceState::Empty] {
        world.source("config", state);
        world.observation.misplaced.insert(service("config"), misplaced(true));
        let plan = plan(&world);
        assert!(waits(&plan, "create containers stack/containers", "restore config/data"));
        let anew = plan.steps.iter().find_map(|step| match &step.action {
            Action::CreateContainers { replaced, .. } => Some(replaced.clone()),
            _ => None,
        });
        assert_eq!(anew.unwrap(), [std::path::PathBuf::from("/srv/conf/app.conf")]);
    }
    // With something in it, it is somebody's.
    world.observation.misplaced.insert(service("config"), misplaced(false));
    let error = world.ask(&asked(&[])).unwrap_err();
    assert!(error.to_string().contains("/srv/conf/app.conf is a folder with something in it"), "{error}");
    assert!(error.is_of_the_world() && error.next()[0].contains("nothing was touched"), "{:?}", error.next());
}

#[test]
fn containers_and_volumes_are_known_by_every_name_that_they_may_have() {
    let mut world = lost();
    let spec = &mut world.spec.services;
    let named = |source: &str| serde_json::from_str(source).unwrap();
    spec.get_mut(&service("database")).unwrap().source =
        named(r#"{ "postgres": { "container": "old-db-1", "password": { "vault": "secret/db#password" } } }"#);
    spec.get_mut(&service("files")).unwrap().source =
        named(r#"{ "volume": { "volume": "old_data", "stop": ["p-web-1"] } }"#);
    // Its folder was called otherwise when an earlier run was taken.
    let mut older = run("daily", Span::from_hours(30).before(at(NOW)), &SERVICES);
    older.manifest.compose = Some(ComposeModel { project: "old".to_owned(), ..model() });
    let plan = plan(&world.with_run("local", older));
    assert!(waits(&plan, "restore database/data", "start container container/db"));
    assert!(waits(&plan, "start container container/web", "restore files/data"));
}

#[test]
fn what_is_only_stopped_and_made_by_nobody_holds_no_recovery_up() {
    for source in [
        r#"{ "volume": { "volume": "data", "stop": ["web", "renamed"] } }"#,
        r#"{ "volume": { "volume": "data", "stop": ["p-gone-1"] } }"#,
    ] {
        let mut world = lost();
        world.spec.services.get_mut(&service("files")).unwrap().source = serde_json::from_str(source).unwrap();
        let plan = plan(&world);
        assert!(waits(&plan, "start container container/web", "restore files/data"), "{source}");
    }
    // What the data lies in has to be made by somebody.
    let mut world = lost();
    let inside = r#"{ "volume": { "container": "renamed", "path": "/data", "stop": ["renamed"] } }"#;
    world.spec.services.get_mut(&service("files")).unwrap().source = serde_json::from_str(inside).unwrap();
    assert!(matches!(world.ask(&asked(&[])), Err(PlanError::UnreadCompose { .. })));
}

#[test]
fn a_circle_through_after_and_depends_on_is_named() {
    let mut world = lost();
    for run in &mut world.facts("local").runs {
        // The files of `web` come after the database, whose server waits for `web`.
        let services = &mut run.manifest.compose.as_mut().unwrap().services;
        services.get_mut("web").unwrap().depends_on.clear();
        services.get_mut("db").unwrap().depends_on.insert("web".to_owned(), Condition::Started);
    }
    let error = world.ask(&asked(&[])).map(|plan| called(&plan));
    assert!(matches!(error, Err(PlanError::RecoveryCycle { .. })), "{error:?}");
}
