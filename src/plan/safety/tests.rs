//! What is copied before what, what is never chosen by itself, and when it goes.

use serde_json::json;

use super::KEPT;
use crate::model::compose::ComposeModel;
use crate::model::ids::RunId;
use crate::model::observation::{Observed, SourceState};
use crate::model::plan::Plan;
use crate::model::step::{Action, Approval, Effect, RestoreTarget};
use crate::model::units::{ByteSize, Span};
use crate::plan::fixtures::{NOW, World, at, find, only, run, service, small};
use crate::plan::{PlanError, Recover, Request, Rollback, Selection};

fn world() -> World {
    let mut world =
        World::settled(small()).with_run("local", run("daily", Span::from_hours(3).before(at(NOW)), &["shop"]));
    world.source("shop", SourceState::HasData { bytes: Some(ByteSize::mib(1)) });
    world
}

/// With a safety copy that is newer than every run.
fn with_copy(age: Span) -> (World, RunId) {
    let mut copy = run("safety", age.before(at(NOW)), &["shop"]);
    copy.manifest.parent = None;
    let id = copy.manifest.run.clone();
    (world().with_run("local", copy), id)
}

fn in_place(safety: bool) -> Request {
    let services = [(service("shop"), RestoreTarget::InPlace)].into();
    Request::Restore { services, selection: Selection::Newest, from: None, safety }
}

fn replacing() -> Request {
    Request::Recover(Recover {
        only: vec![],
        selection: Selection::Newest,
        from: None,
        replace: true,
        safety: true,
        accept_room: false,
        missing: false,
        verify: false,
        unfinished: Vec::new(),
    })
}

/// The restore of the plan waits for the copy that it would be put back from.
fn is_copied_first(plan: &Plan) -> bool {
    let copy = only(plan, "safety copy");
    let restore = only(plan, "restore");
    let (Action::SafetyCopy(made), Action::Restore(put)) = (&copy.action, &restore.action) else { return false };
    put.safety.as_ref() == Some(&made.run) && restore.waits.iter().any(|wait| wait.step == copy.id)
}

#[test]
fn data_is_copied_before_it_is_overwritten() {
    assert!(is_copied_first(&world().ask(&in_place(true)).unwrap()));
    let plan = world().ask(&replacing()).unwrap();
    assert!(is_copied_first(&plan));
    let restore = only(&plan, "restore");
    assert_eq!(restore.effect, Effect::OverwritesData);
    assert!(matches!(restore.approval, Approval::Needed { .. }));
}

#[test]
fn without_data_or_by_somebodys_word_nothing_is_copied() {
    assert!(find(&world().ask(&in_place(false)).unwrap(), "safety copy").is_empty());
    let mut empty = world();
    empty.source("shop", SourceState::Empty);
    assert!(find(&empty.ask(&in_place(true)).unwrap(), "safety copy").is_empty());
}

#[test]
fn a_recovery_leaves_data_alone_unless_it_is_told_to_replace_it() {
    let asked = Recover::lost(vec![], Selection::Newest, None);
    assert!(world().ask(&Request::Recover(asked)).unwrap().steps.is_empty());
}

#[test]
fn a_server_that_cannot_be_looked_at_is_emptied_after_its_copy() {
    let mut spec = small();
    spec["runtime"] = json!({ "docker": { "compose": ["docker-compose.yml"], "project": "p" } });
    spec["services"]["database"] = json!({ "source": { "postgres": { "container": "db" } } });
    let mut newest = run("daily", Span::from_hours(3).before(at(NOW)), &["database", "shop"]);
    newest.manifest.compose = Some(ComposeModel::of(&json!({ "name": "p", "services": { "db": {} } })));
    let mut world = World::settled(spec).with_run("local", newest);
    world
        .observation
        .services
        .insert(service("database"), Observed::Unknown { reason: "the container db is restarting".to_owned() });
    let asked = Recover {
        only: vec![service("database")],
        selection: Selection::Newest,
        from: None,
        replace: true,
        safety: true,
        accept_room: false,
        missing: false,
        verify: false,
        unfinished: Vec::new(),
    };
    let plan = world.ask(&Request::Recover(asked)).unwrap();
    assert!(is_copied_first(&plan));
    let (copy, clear, restore) = (only(&plan, "safety copy"), only(&plan, "clear"), only(&plan, "restore"));
    assert_eq!(clear.effect, Effect::DeletesData);
    assert!(clear.waits.iter().any(|wait| wait.step == copy.id));
    assert!(restore.waits.iter().any(|wait| wait.step == clear.id));
    // It is not started with what it can't start from.
    let start = only(&plan, "start container");
    assert!(start.waits.iter().any(|wait| wait.step == clear.id));
}

#[test]
fn a_safety_copy_is_never_chosen_by_itself() {
    let (world, copy) = with_copy(Span::from_hours(1));
    let plan = world.ask(&in_place(true)).unwrap();
    assert!(matches!(&only(&plan, "restore").action, Action::Restore(put) if put.run != copy));
    let services = [(service("shop"), RestoreTarget::InPlace)].into();
    let named = Request::Restore { services, selection: Selection::Run(copy.clone()), from: None, safety: true };
    let plan = world.ask(&named).unwrap();
    assert!(matches!(&only(&plan, "restore").action, Action::Restore(put) if put.run == copy));
    // Nor does it meet an objective: it is what somebody was about to overwrite.
    let exposure = world.plan().report.exposure;
    assert!(exposure.iter().all(|it| it.last_good.as_ref().is_none_or(|(run, ..)| *run != copy)), "{exposure:?}");
}

#[test]
fn a_rollback_puts_back_the_newest_copies_and_copies_what_is_there() {
    let (world, copy) = with_copy(Span::from_hours(1));
    let asked = |only: Vec<_>| Request::Rollback(Rollback { only, from: None, safety: true });
    let plan = world.ask(&asked(vec![])).unwrap();
    assert!(is_copied_first(&plan));
    assert!(matches!(&only(&plan, "restore").action, Action::Restore(put) if put.run == copy));
    assert!(matches!(&only(&plan, "restore").approval, Approval::Needed { token, .. } if token == "rollback:shop"));
    assert!(matches!(world.ask(&asked(vec![service("other")])), Err(PlanError::NothingToRollBack { .. })));
    let none = self::world().ask(&asked(vec![]));
    assert!(matches!(none, Err(PlanError::NothingToRollBack { .. })));
}

#[test]
fn copies_are_forgotten_when_their_time_is_over_and_not_before() {
    let (young, _) = with_copy(Span::from_hours(1));
    let plan = young.plan();
    assert!(find(&plan, "forget").is_empty());
    assert!(plan.report.undeclared.iter().any(|note| note.text.contains("1 safety copy")));
    let (old, copy) = with_copy(KEPT);
    let plan = old.plan();
    assert!(matches!(&only(&plan, "forget").action, Action::Forget { runs, .. } if *runs == [copy]));
}
