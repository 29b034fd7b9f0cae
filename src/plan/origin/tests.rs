use super::*;
use crate::model::ids::RunId;
use crate::model::record::Adopted;
use crate::model::run::RECORD_FORMAT;
use crate::model::step::{Approval, RestoreTarget, Step, WaitOn};
use crate::plan::fixtures::*;
use crate::plan::{ForgetSelection, PlanError, Recover, Request, Selection};

fn place(folder: &str) -> Origin {
    Origin { host: "tower".into(), machine: Some("m".into()), folder: folder.into(), real: None, project: None }
}

fn prod() -> Origin {
    place("/srv/prod")
}

fn staging() -> Origin {
    place("/srv/staging")
}

fn taken_at(origin: &Origin, mut run: Run) -> Run {
    run.manifest.origin = Some(origin.clone());
    run
}

fn hours_ago(hours: u64) -> jiff::Timestamp {
    Span::from_hours(hours).before(at(NOW))
}

/// Two runs of prod, the newer of which has served the slot, as they are seen from `here`.
fn seen_from(here: &Origin) -> World {
    let mut world = World::settled(small());
    world.observation.origin = Some(here.clone());
    world
        .with_run("local", taken_at(&prod(), run("daily", hours_ago(30), &["shop"])))
        .with_run("local", taken_at(&prod(), run("daily", at(SLOT), &["shop"])))
}

fn adopts(mut world: World, number: u64, origin: &Origin, from: &[Origin]) -> World {
    let (origin, from) = (origin.clone(), from.to_vec());
    let adopted = Adopted { format: RECORD_FORMAT, number, origin, from, at: at(NOW) };
    world.facts("local").adopted.push(adopted);
    world
}

fn word(step: &Step) -> &str {
    match &step.approval {
        Approval::Needed { token, .. } => token,
        other => panic!("{other:?}"),
    }
}

fn restored(world: &World, selection: Selection) -> Result<(RunId, String), PlanError> {
    let target = RestoreTarget::Beside { folder: "out".into() };
    let services = [(service("shop"), target)].into();
    let plan = world.ask(&Request::Restore { services, selection, from: None, safety: true })?;
    let step = only(&plan, "restore");
    match &step.action {
        Action::Restore(restore) => Ok((restore.run.clone(), step.causes.join("; "))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn at_its_own_place_a_stack_hears_nothing_of_places() {
    for here in [prod(), Origin { host: "renamed".into(), ..prod() }] {
        let plan = seen_from(&here).plan();
        assert_eq!((short(&plan), &plan.report.foreign), (vec![], &vec![]), "{here}");
    }
    let mut carried = seen_from(&staging());
    carried.observation.carried.insert(repository("local"));
    assert!(carried.plan().is_empty(), "a repository in the stack's own folder was copied or moved with it");
}

#[test]
fn the_run_of_another_place_serves_no_slot_and_nothing_is_written_before_the_word() {
    let world = seen_from(&staging());
    let plan = world.plan();
    let adopt = only(&plan, "adopt");
    assert_eq!((adopt.id.0, word(adopt)), (1, "adopt:local"));
    assert_eq!(find(&plan, "take").len(), 1, "prod's run is no backup of staging");
    for step in plan.steps.iter().filter(|step| step.action.writes().is_some() && step.id != adopt.id) {
        let waits = step.waits.iter().any(|wait| wait.step == adopt.id && wait.on == WaitOn::Success);
        assert!(waits, "{} does not wait for the word", step.action.verb());
    }
    assert!(plan.report.exposure[0].last_good.is_none(), "staging has nothing to come back from");
    let [note] = plan.report.foreign.as_slice() else { panic!("{:?}", plan.report.foreign) };
    for said in ["/srv/prod on tower", "2 runs", "--approve adopt:local", "a name of its own"] {
        assert!(note.text.contains(said), "{}", note.text);
    }
    let asked = Request::Backup { policies: vec![], services: vec![], full: false };
    assert_eq!(word(only(&world.ask(&asked).unwrap(), "adopt")), "adopt:local");
}

#[test]
fn with_the_word_the_stack_has_moved_and_the_old_place_is_held() {
    let mut world = seen_from(&staging());
    let plan = world.plan();
    world.apply(&plan);
    let settled = world.plan();
    assert!(settled.is_empty() && settled.report.foreign.is_empty(), "{:?}", short(&settled));
    assert_eq!(
        restored(&world, Selection::At(hours_ago(20))).unwrap().0,
        run("daily", hours_ago(30), &[]).manifest.run
    );
    let told = restored(&world, Selection::At(hours_ago(20))).unwrap().1;
    assert!(told.contains("taken at /srv/prod on tower, and not here"), "{told}");

    world.observation.origin = Some(prod());
    let plan = world.plan();
    assert_eq!(word(only(&plan, "adopt")), "adopt:local");
    let (newest, told) = restored(&world, Selection::Newest).unwrap();
    assert_eq!(newest, RunId::at(at(SLOT), &policy("daily")), "staging's newer run is not prod's: {told}");
    world.apply(&plan);
    assert!(world.plan().is_empty(), "and back again by the same word");
}

#[test]
fn of_two_words_the_last_counts_whatever_the_clocks_said() {
    let world = adopts(seen_from(&prod()), 1, &staging(), &[prod()]);
    assert_eq!(world.plan().report.foreign.len(), 1);
    let mut world = adopts(world, 2, &prod(), &[staging()]);
    for adopted in &mut world.facts("local").adopted {
        adopted.at = if adopted.number == 1 { Span::from_hours(999).after(at(NOW)) } else { hours_ago(999) };
    }
    assert!(world.plan().report.foreign.is_empty());
}

#[test]
fn retention_forgets_nothing_of_another_place() {
    let mut world = seen_from(&prod());
    world.rule(serde_json::json!({ "last": 1 }));
    world.approve_declared_rules();
    // Ours are so many that the rule lets some go; a stray one is older than all of them.
    for hours in 40..45 {
        world = world.with_run("local", taken_at(&prod(), run("daily", hours_ago(hours), &["shop"])));
    }
    world = adopts(world, 1, &prod(), &[]);
    let stray = taken_at(&staging(), run("daily", hours_ago(90), &["shop"]));
    let id = stray.manifest.run.clone();
    world = world.with_run("local", stray);
    let plan = world.plan();
    assert!(!forgotten(&plan).is_empty() && !forgotten(&plan).contains(&id), "{:?}", forgotten(&plan));
    assert_eq!(find(&plan, "adopt").len(), 0, "whose the repository is, is not in doubt");
    assert!(plan.report.foreign[0].text.contains(&format!("devstack forget {id}")), "{:?}", plan.report.foreign);

    let named = ForgetSelection { runs: vec![id.clone()], ..Default::default() };
    assert_eq!(
        forgotten(&world.ask(&Request::Forget(named)).unwrap()),
        std::slice::from_ref(&id),
        "what the note says is accepted"
    );

    // From the other place, only who names a run forgets it, and never the last two.
    world.observation.origin = Some(staging());
    let forget = |selection| world.ask(&Request::Forget(selection));
    let all = forget(ForgetSelection { policy: Some(policy("daily")), ..Default::default() }).unwrap();
    assert_eq!(forgotten(&all), [id]);
    let newest = RunId::at(at(SLOT), &policy("daily"));
    let refused = forget(ForgetSelection { runs: vec![newest], ..Default::default() });
    assert!(matches!(refused, Err(PlanError::NeverForgotten { .. })), "{refused:?}");
}

#[test]
fn a_recovery_takes_its_own_runs_and_where_there_are_none_those_of_the_other_place() {
    let mut world = seen_from(&place("/home/new"));
    world.source("shop", crate::model::observation::SourceState::Gone);
    let plan = world.ask(&Request::Recover(Recover::everything())).unwrap();
    let restore = only(&plan, "restore");
    assert!(restore.causes.iter().any(|cause| cause == "taken at /srv/prod on tower, and not here"), "{restore:?}");
    assert_eq!(find(&plan, "adopt").len(), 0, "a recovery waits for no word but its own");
    assert_eq!(plan.report.foreign.len(), 1, "and says what comes next");

    // A safety copy that a recovery made is no run that could come back in its place.
    let mut copy = taken_at(&place("/home/new"), run("daily", hours_ago(1), &["shop"]));
    copy.manifest.policy = crate::model::ids::PolicyName::safety();
    world = world.with_run("local", copy);
    assert_eq!(restored(&world, Selection::Newest).unwrap().0, RunId::at(at(SLOT), &policy("daily")));

    // With a run of its own, that one alone: unless another is named.
    let own = taken_at(&place("/home/new"), run("daily", hours_ago(50), &["shop"]));
    let id = own.manifest.run.clone();
    world = world.with_run("local", own);
    assert_eq!(restored(&world, Selection::Newest).unwrap().0, id);
    let named = restored(&world, Selection::Run(RunId::at(at(SLOT), &policy("daily")))).unwrap();
    assert!(named.1.contains("taken at /srv/prod on tower"), "{}", named.1);
}

#[test]
fn runs_of_before_there_were_places_are_ours() {
    let mut world = World::settled(small()).with_history(2, 12);
    world.observation.origin = Some(staging());
    assert!(world.plan().is_empty() && world.plan().report.foreign.is_empty());
    // A safety copy claims nothing.
    let mut copy = taken_at(&prod(), run("daily", hours_ago(1), &["shop"]));
    copy.manifest.policy = crate::model::ids::PolicyName::safety();
    assert_eq!(find(&world.clone().with_run("local", copy).plan(), "adopt").len(), 0);
    // Once a place has taken a run, they are its own.
    let world = world.with_run("local", taken_at(&prod(), run("daily", hours_ago(1), &["shop"])));
    assert_eq!(find(&world.plan(), "adopt").len(), 1);
}

#[test]
fn a_second_repository_that_nobody_else_uses_gets_its_run_without_a_word() {
    let mut world = World::settled(two_places());
    world.observation.origin = Some(staging());
    let world = world.with_run("local", taken_at(&prod(), run("daily", at(SLOT), &["shop"])));
    let plan = world.plan();
    let (adopt, take, copy) = (only(&plan, "adopt"), only(&plan, "take"), only(&plan, "copy"));
    let waits = |step: &Step| step.waits.iter().any(|wait| wait.step == adopt.id);
    assert_eq!((take.action.writes(), waits(take)), (Some(&repository("offsite")), false));
    assert!(waits(copy), "what goes into prod's repository waits");
}

/// The repository holds nothing of this stack, and of another what was taken at `origin`.
fn with_another(origin: Option<Origin>) -> World {
    let mut world = World::settled(small());
    world.observation.origin = Some(prod());
    let other = OtherStack { stack: "old".parse().unwrap(), runs: 3, newest: hours_ago(2), origin };
    world.facts("local").others.push(other);
    world
}

#[test]
fn a_stack_that_was_renamed_begins_anew_only_by_a_word_and_is_told_where_its_runs_are() {
    for here in [prod(), Origin { project: Some("old".into()), ..prod() }] {
        let world = with_another(Some(here));
        let plan = world.plan();
        let adopt = only(&plan, "adopt");
        assert_eq!(word(adopt), "adopt:local");
        for step in plan.steps.iter().filter(|step| step.id != adopt.id) {
            let gated = step.waits.iter().any(|wait| wait.step == adopt.id && wait.on == WaitOn::Success);
            assert!(gated || step.action.writes().is_none(), "{step:?}");
        }
        let [note] = plan.report.foreign.as_slice() else { panic!("{:?}", plan.report.foreign) };
        for said in ["3 runs of stack old", "`stack: old`", "--approve adopt:local"] {
            assert!(note.text.contains(said), "{}", note.text);
        }
        let refused = world.ask(&Request::Recover(Recover { replace: true, ..Recover::everything() })).unwrap_err();
        assert!(refused.next().iter().all(|line| line.contains("`stack: old`")), "{:?}", refused.next());
    }
}

#[test]
fn another_stack_in_the_repository_is_no_rename_unless_it_was_here_and_we_were_not() {
    for origin in [None, Some(staging()), Some(Origin { machine: Some("n".into()), ..prod() })] {
        let plan = with_another(origin).plan();
        assert!(plan.report.foreign.is_empty(), "{:?}", plan.report.foreign);
        assert!(plan.held().next().is_none(), "{:?}", short(&plan));
    }
    let ours = taken_at(&prod(), run("daily", hours_ago(30), &["shop"]));
    let both = with_another(Some(prod())).with_run("local", ours);
    assert!(both.plan().report.foreign.is_empty(), "the stack has runs of its own");
    let adopted = adopts(with_another(Some(prod())), 1, &prod(), &[]);
    assert!(adopted.plan().report.foreign.is_empty(), "somebody has said that it is another");
}
