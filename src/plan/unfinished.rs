//! A restore that was begun and has not ended is told at every look; nothing overwrites what it left without a word.

use super::fixtures::{NOW, World, at, only, run, service, small};
use super::request::{Recover, Request, Selection};
use crate::model::consent::Harm;
use crate::model::observation::{Observed, SourceState};
use crate::model::standing::{Kind, Standing};
use crate::model::step::{Action, Precondition, RestoreTarget};
use crate::model::units::{ByteSize, Span};

fn half() -> World {
    let mut world =
        World::settled(small()).with_run("local", run("daily", Span::from_hours(60).before(at(NOW)), &["shop"]));
    world.source("shop", SourceState::Unfinished { bytes: Some(ByteSize::mib(10)) });
    world
}

fn recovery() -> Request {
    Request::Recover(Recover::lost(Vec::new(), Selection::Newest, None))
}

#[test]
fn every_look_tells_it_and_fails() {
    let plan = half().plan();
    let standing = Standing::of_plan(&plan);
    assert!(standing.has(Kind::Unfinished) && standing.word() == "FAILED", "{standing:?}");
    assert!(plan.report.unfinished[0].text.contains("devstack restore shop"), "{:?}", plan.report.unfinished);
    // A sibling: of a stack that was never backed up as well.
    let mut fresh = World::new(small());
    fresh.source("shop", SourceState::Unfinished { bytes: None });
    assert!(Standing::of_plan(&fresh.plan()).has(Kind::Unfinished));
    // And it is told until it is over.
    let mut over = half();
    over.source("shop", SourceState::HasData { bytes: None });
    assert!(!Standing::of_plan(&over.plan()).has(Kind::Unfinished));
}

#[test]
fn a_take_of_it_is_not_planned_as_one_of_data() {
    let plan = half().plan();
    let take = only(&plan, "take");
    assert!(!take.preconditions.contains(&Precondition::SourceHasData { service: service("shop") }));
    assert!(format!("{take:?}").contains("has not ended"), "{take:?}");
}

#[test]
fn a_restore_over_it_overwrites_and_keeps_a_copy_first() {
    let services = [(service("shop"), RestoreTarget::InPlace)].into();
    let asked = Request::Restore { services, selection: Selection::Newest, from: None, safety: true };
    let plan = half().ask(&asked).unwrap();
    assert_eq!(Harm::of(only(&plan, "restore")), Harm::Overwrites);
    let verbs: Vec<&str> = plan.steps.iter().map(|step| step.action.verb()).collect();
    assert_eq!(verbs, ["safety copy", "restore"]);
    let Action::Restore(restore) = &only(&plan, "restore").action else { panic!("{plan:?}") };
    assert_eq!(restore.target, RestoreTarget::InPlace);
}

#[test]
fn a_recovery_neither_leaves_it_nor_overwrites_it_unasked() {
    let mut world = half();
    let error = world.ask(&recovery()).unwrap_err().to_string();
    assert!(error.contains("has not ended") && error.contains("restore shop --in-place"), "{error}");
    world.observation.services.insert(service("shop"), Observed::Known(SourceState::HasData { bytes: None }));
    assert!(world.ask(&recovery()).is_ok());
}
