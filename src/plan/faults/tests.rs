use serde_json::json;

use crate::model::history::CutOff;
use crate::model::hook::{HookRun, Phase};
use crate::model::ids::ServiceName;
use crate::model::observation::Run;
use crate::model::plan::Plan;
use crate::model::run::{Sealed, ServiceResult};
use crate::model::standing::{Kind, Standing};
use crate::model::units::Span;
use crate::plan::fixtures::*;

fn hours_ago(hours: u64) -> jiff::Timestamp {
    Span::from_hours(hours).before(at(NOW))
}

/// As a later apply seals it.
fn cut_off(of: &str, hours: u64, services: &[&str]) -> Run {
    let mut cut = by_hand(incomplete(run(of, hours_ago(hours), services)));
    cut.manifest.sealed = Sealed::AfterInterruption;
    cut
}

fn told(plan: &Plan, kind: Kind) -> Vec<String> {
    let standing = Standing::of_plan(plan);
    let of = standing.findings().iter().filter(|finding| finding.kind == kind);
    of.map(|finding| format!("{}: {}", finding.resource, finding.text)).collect()
}

#[test]
fn a_newest_run_that_was_cut_off_is_told_until_a_later_one_has_what_it_lacks() {
    let world = World::settled(with_services(&["wiki"]));
    let whole = |hours| run("daily", hours_ago(hours), &["shop", "wiki"]);
    // The slot of 01:15 is served, so that nothing is due.
    let world = world.with_run("local", run("daily", at(SLOT), &["shop", "wiki"]));
    assert_eq!(told(&world.plan(), Kind::Interrupted), Vec::<String>::new());

    let sealed = world.clone().with_run("local", cut_off("daily", 3, &["shop", "wiki"]));
    let plan = sealed.plan();
    assert!(plan.is_empty(), "{:?}", short(&plan));
    let [note] = &told(&plan, Kind::Interrupted)[..] else { panic!("{:?}", Standing::of_plan(&plan)) };
    assert!(note.contains("no later one has taken shop, wiki; `devstack backup`"), "{note}");
    assert_eq!((Standing::of_plan(&plan).word(), Standing::of_plan(&plan).code(true)), ("DEGRADED", 8));

    let mut left = world.clone();
    left.facts("local").unsealed.push(unsealed("daily", hours_ago(3), &["shop"]));
    let plan = left.plan();
    assert!(
        told(&plan, Kind::Interrupted)[0].contains("taken shop, wiki"),
        "of a run that nobody has sealed: {plan:?}"
    );
    left.facts("local").leases.push(lease("shop", true));
    assert!(told(&left.plan(), Kind::Interrupted).is_empty(), "somebody is taking it");

    let after = sealed.clone().with_run("local", by_hand(whole(1)));
    assert!(told(&after.plan(), Kind::Interrupted).is_empty());
    let part = sealed.clone().with_run("local", by_hand(run("daily", hours_ago(1), &["shop"])));
    assert!(told(&part.plan(), Kind::Interrupted)[0].contains("has taken wiki;"), "the other has been taken since");
    let before = sealed.clone().with_run("local", by_hand(whole(5)));
    assert_eq!(told(&before.plan(), Kind::Interrupted).len(), 1);
    let failed = sealed.with_run("local", incomplete(whole(1)));
    assert_eq!(told(&failed.plan(), Kind::Interrupted).len(), 1, "one that failed has taken nothing");
}

#[test]
fn each_service_is_told_of_the_newest_run_that_was_cut_off_and_a_copy_elsewhere_is_a_run() {
    let world = World::settled(small()).with_run("local", run("daily", at(SLOT), &["shop"]));
    let twice = world
        .clone()
        .with_run("local", cut_off("daily", 4, &["shop"]))
        .with_run("local", cut_off("daily", 2, &["shop"]));
    let notes = told(&twice.plan(), Kind::Interrupted);
    assert!(notes.len() == 1 && notes[0].contains("20261124T090000Z"), "{notes:?}");
    let undeclared = world.with_run("local", cut_off("weekly", 2, &["shop"]));
    assert!(told(&undeclared.plan(), Kind::Interrupted).is_empty(), "nothing takes another of it");

    let slot = run("daily", at(SLOT), &["shop"]);
    let mut copy = cut_off("daily", 2, &["shop"]);
    let whole = by_hand(run("daily", hours_ago(2), &["shop"]));
    assert_eq!(copy.manifest.run, whole.manifest.run);
    let world = World::settled(two_places()).with_run("local", slot.clone()).with_run("offsite", slot);
    copy.manifest.sealed = Sealed::AfterInterruption;
    let world = world.with_run("local", whole).with_run("offsite", copy);
    assert!(told(&world.plan(), Kind::Interrupted).is_empty(), "the run itself is whole");
    let future = World::settled(small()).with_run("local", run("daily", at(SLOT), &["shop"]));
    let mut ahead = cut_off("daily", 0, &["shop"]);
    ahead.manifest.started = Span::from_hours(48).after(at(NOW));
    assert!(told(&future.with_run("local", ahead).plan(), Kind::Interrupted).is_empty(), "of a clock that was wrong");
}

fn hooked(on_failure: &str) -> World {
    let mut spec = small();
    spec["services"]["shop"]["hooks"] = json!({ "after": [ { "run": ["./thaw.sh"], "on_failure": on_failure } ] });
    spec["backup"]["daily"]["hooks"] = json!({ "before": [ { "run": ["occ", "on"] } ], "after": [ { "run": ["occ", "off"], "on_failure": on_failure } ] });
    World::settled(spec)
}

fn ran(mut run: Run, of: Option<&str>, command: &str, failed: Option<&str>) -> Run {
    run.manifest.hooks.push(HookRun {
        service: of.map(ServiceName::new),
        phase: Phase::After,
        command: command.to_owned(),
        container: None,
        took: Span::from_secs(1),
        failed: failed.map(str::to_owned),
        output: String::new(),
    });
    run
}

#[test]
fn a_hook_after_a_backup_that_failed_is_told_until_it_has_ended_well() {
    let slot = || run("daily", at(SLOT), &["shop"]);
    let failed = |on_failure| {
        hooked(on_failure).with_run("local", ran(slot(), Some("shop"), "./thaw.sh", Some("it ended with exit code 3")))
    };
    let plan = failed("fail").plan();
    let [note] = &told(&plan, Kind::FailedHook)[..] else { panic!("{:?}", Standing::of_plan(&plan)) };
    assert!(note.starts_with("shop/after: `./thaw.sh` failed in run") && note.contains("exit code 3"), "{note}");
    assert!(note.ends_with("`devstack backup shop`"), "{note}");
    assert_eq!(Standing::of_plan(&plan).code(false), 7);
    assert!(told(&failed("warn").plan(), Kind::FailedHook).is_empty(), "a failure is a warning there");

    let again = |hook| failed("fail").with_run("local", hook);
    let later = || by_hand(run("daily", hours_ago(1), &["shop"]));
    assert!(told(&again(ran(later(), Some("shop"), "./thaw.sh", None)).plan(), Kind::FailedHook).is_empty());
    assert_eq!(told(&again(later()).plan(), Kind::FailedHook).len(), 1, "a run without it says nothing of it");
    let other = ran(later(), None, "./thaw.sh", None);
    assert_eq!(told(&again(other).plan(), Kind::FailedHook).len(), 1, "that of the policy is another");

    let of_policy = hooked("fail").with_run("local", ran(slot(), None, "occ off", Some("it took longer than 5 min")));
    let notes = told(&of_policy.plan(), Kind::FailedHook);
    assert!(notes.len() == 1 && notes[0].ends_with("`devstack backup --policy daily`"), "{notes:?}");
    let gone = hooked("fail").with_run("local", ran(slot(), None, "occ removed", Some("x")));
    assert!(told(&gone.plan(), Kind::FailedHook).is_empty(), "the file has no such hook any more");
}

#[test]
fn a_hook_that_never_ran_since_its_run_was_cut_off_is_told_until_it_has_ended_well() {
    let world = hooked("fail").with_run("local", run("daily", at(SLOT), &["shop"]));
    let cut = |keys: &[&str], undone: &[&str]| {
        let mut world = world.clone();
        let undone = undone.iter().map(|key| (*key).to_owned()).collect();
        let cut = CutOff { at: hours_ago(2), undone };
        world.history.cut_off = keys.iter().map(|key| ((*key).to_owned(), cut.clone())).collect();
        world
    };
    assert!(told(&world.plan(), Kind::FailedHook).is_empty());
    let notes = told(&cut(&["hook/daily"], &[]).plan(), Kind::FailedHook);
    assert!(notes.len() == 1 && notes[0].starts_with("daily/after: `occ off` did not come to its end"), "{notes:?}");
    assert_eq!(told(&cut(&["take/shop"], &[]).plan(), Kind::FailedHook).len(), 2, "the take is in both");
    let one = cut(&["take/shop", "hook/daily"], &["hook/shop/after/0"]);
    assert_eq!(told(&one.plan(), Kind::FailedHook).len(), 1);
    let both = cut(&["take/shop", "hook/daily"], &["hook/shop/after/0", "hook/daily/after/0"]);
    assert!(told(&both.plan(), Kind::FailedHook).is_empty());
    let mut now = cut(&["take/shop"], &[]);
    now.facts("local").leases.push(lease("shop", true));
    assert!(told(&now.plan(), Kind::FailedHook).is_empty(), "somebody is at work");
    // A run that misses the service for another reason says so itself.
    let mut failed = world.clone();
    failed.facts("local").runs[0]
        .manifest
        .services
        .insert(service("shop"), ServiceResult::Failed { reason: "x".to_owned() });
    assert!(told(&failed.plan(), Kind::FailedHook).is_empty());
}

#[test]
fn a_policy_without_a_schedule_is_told_once_it_has_run_unless_somebody_takes_it_by_hand() {
    let mut spec = with_services(&["wiki"]);
    spec["backup"]["daily"].as_object_mut().unwrap().remove("schedule");
    let of = |spec: &serde_json::Value| {
        World::settled(spec.clone()).with_run("local", by_hand(run("daily", hours_ago(900), &["shop", "wiki"])))
    };
    let plan = of(&spec).plan();
    assert!(plan.is_empty(), "{:?}", short(&plan));
    let [note] = &told(&plan, Kind::Unscheduled)[..] else { panic!("{:?}", Standing::of_plan(&plan)) };
    assert!(note.starts_with("daily/backup: it has no schedule, and nothing takes shop, wiki again"), "{note}");
    assert_eq!((Standing::of_plan(&plan).code(true), Standing::of_plan(&plan).code(false)), (8, 0));
    assert!(
        told(&World::settled(spec.clone()).plan(), Kind::Unscheduled).is_empty(),
        "nothing protects it yet, which is told"
    );

    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut spec = spec.clone();
        change(&mut spec);
        told(&of(&spec).plan(), Kind::Unscheduled)
    };
    assert!(with(&|spec| spec["backup"]["daily"]["manual"] = json!(true)).is_empty());
    assert!(with(&|spec| spec["recovery"] = json!({ "rpo": "24h" })).is_empty(), "the objective is missed, and told");
    let of_one = with(&|spec| spec["recovery"] = json!({ "services": { "shop": { "rpo": "24h" } } }));
    assert!(of_one[0].contains("nothing takes wiki again"), "{of_one:?}");
    let another = with(&|spec| {
        spec["backup"]["hourly"] =
            json!({ "services": ["shop"], "schedule": { "cron": "0 * * * *" }, "to": ["local"] });
    });
    assert!(another.len() == 1 && another[0].contains("nothing takes wiki again"), "{another:?}");
}

#[test]
fn a_suspect_run_renews_no_recovery_point_until_it_is_accepted() {
    let mut spec = with_services(&["wiki"]);
    spec["recovery"] = json!({ "rpo": "24h" });
    let old = run("daily", hours_ago(30), &["shop", "wiki"]);
    let mut new = run("daily", at(SLOT), &["shop", "wiki"]);
    let ServiceResult::Taken(taken) = new.manifest.services.get_mut(&service("shop")).unwrap() else { panic!() };
    taken.suspect = Some(crate::model::run::Shrink {
        from: crate::model::units::ByteSize::mib(400),
        to: crate::model::units::ByteSize::mib(100),
        things: vec![],
    });
    let id = new.manifest.run.clone();
    let mut world = World::settled(spec).with_run("local", old.clone()).with_run("local", new);
    let plan = world.plan();
    assert_eq!(
        told(&plan, Kind::MissedPoint),
        ["shop: last good run 30 h old, objective 24 h", "wiki: last good run 30 h old, objective 24 h"]
    );
    // The same one that a recovery takes.
    world.source("shop", crate::model::observation::SourceState::Gone);
    let recovery = world.ask(&crate::plan::Request::Recover(crate::plan::Recover::everything())).unwrap();
    let crate::model::step::Action::Restore(restore) = &only(&recovery, "restore").action else { panic!() };
    let exposed = &plan.report.exposure[0].last_good;
    assert_eq!(exposed.as_ref().map(|(run, ..)| run), Some(&restore.run));
    assert_eq!(restore.run, old.manifest.run);
    world.facts("local").accepted_shrinks.push((id.clone(), service("wiki")));
    assert_eq!(told(&world.plan(), Kind::MissedPoint).len(), 2, "another service was accepted");
    world.facts("local").accepted_shrinks.push((id, service("shop")));
    assert!(told(&world.plan(), Kind::MissedPoint).is_empty());
}

/// As the journal tells it.
fn with_cut(world: &World, key: &str, hours: u64) -> World {
    let mut world = world.clone();
    let cut = CutOff { at: hours_ago(hours), undone: std::collections::BTreeSet::new() };
    world.history.cut_off.insert(key.to_owned(), cut);
    world
}

#[test]
fn a_take_that_left_nothing_in_any_repository_is_told_until_a_run_has_it() {
    let world = World::settled(with_services(&["wiki"])).with_run("local", run("daily", at(SLOT), &["shop", "wiki"]));
    let interrupted = |world: &World| told(&world.plan(), Kind::Interrupted);
    let cut = with_cut(&world, "take/wiki", 0);
    let notes = interrupted(&cut);
    assert!(notes.len() == 1 && notes[0].contains("`devstack backup wiki`"), "{notes:?}");
    assert_eq!(Standing::of_plan(&cut.plan()).code(true), 8);
    assert!(interrupted(&with_cut(&world, "take/wiki", 30)).is_empty(), "a run has it since");
    assert!(interrupted(&with_cut(&world, "take/gone", 0)).is_empty(), "the file has no such service");
    assert_eq!(interrupted(&with_cut(&world, "hook/wiki", 0)).len(), 1, "it was at a hook before");
    assert_eq!(interrupted(&with_cut(&world, "hook/daily", 0)).len(), 2, "of the policy, and so of both");
    let mut now = cut.clone();
    now.facts("local").leases.push(lease("shop", true));
    assert!(interrupted(&now).is_empty(), "somebody is at work");
}

#[test]
fn files_whose_restore_was_cut_off_are_told_and_not_taken_unasked() {
    let world = World::settled(with_services(&["wiki"]));
    let unfinished = |world: &World| told(&world.plan(), Kind::Unfinished);
    let cut = with_cut(&world, "restore/wiki", 1);
    let notes = unfinished(&cut);
    assert!(notes.len() == 1 && notes[0].contains("devstack restore wiki"), "{notes:?}");
    assert_eq!(Standing::of_plan(&cut.plan()).word(), "FAILED");
    let is_held = |plan: &Plan| {
        let steps = plan.steps.iter().filter(|step| step.action.verb() == "take");
        let word = |step: &crate::model::step::Step| format!("{step:?}").contains("take:wiki");
        steps.filter(|step| word(step)).count()
    };
    assert_eq!((is_held(&cut.plan()), is_held(&world.plan())), (1, 0), "{:?}", cut.plan().steps);
    // A database is put in its place whole.
    assert!(unfinished(&with_cut(&world, "restore/shop", 1)).is_empty());
    let mut now = cut;
    now.facts("local").leases.push(lease("shop", true));
    assert!(unfinished(&now).is_empty(), "somebody is at work");
}
