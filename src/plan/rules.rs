//! The planner's rules one by one.

use jiff::tz::TimeZone;
use serde_json::json;
use std::collections::BTreeMap;

use super::fixtures::*;
use super::request::{ForgetSelection, PlanError, Recover, Request, Selection};
use super::retention::{Candidate, Reason, Standing, Verdict, decide};
use super::saved::{ReadError, SavedContext, Stale, read, refuse};
use crate::model::consent::Harm;
use crate::model::evidence::{DataRead, Verdict as Finding};
use crate::model::history::Sample;
use crate::model::ids::{Digest, RunId};
use crate::model::observation::{Marked, Observed, RepositoryState, SourceState};
use crate::model::plan::Basis;
use crate::model::retention::{PRUNE_GRACE, Rule};
use crate::model::run::{Count, RECORD_FORMAT, ServiceResult};
use crate::model::shrink::Present;
use crate::model::standing::Kind;
use crate::model::step::{Action, Approval, Effect, Precondition, RestoreTarget, Step, WaitOn};
use crate::model::units::{ByteSize, Span};
use crate::plan::graph::behind;
use crate::plan::lost::as_if_lost;
use crate::plan::render::{TextOptions, json};

fn token(step: &Step) -> Option<&str> {
    match &step.approval {
        Approval::Needed { token, .. } => Some(token),
        _ => None,
    }
}

fn waits(step: &Step, on: &Step) -> Option<WaitOn> {
    step.waits.iter().find(|wait| wait.step == on.id).map(|wait| wait.on)
}

fn hours_ago(hours: u64) -> jiff::Timestamp {
    Span::from_hours(hours).before(at(NOW))
}

fn waiting(plan: &super::Plan) -> String {
    plan.report.waiting.iter().map(|note| format!("{}: {}\n", note.resource, note.text)).collect()
}

#[test]
fn a_server_is_asked_before_another_take_stops_it() {
    let mut spec = small();
    spec["services"] = json!({
        "db": { "source": { "postgres": { "container": "db" } } },
        "conf": { "source": { "volume": { "volume": "conf", "stop": ["db"] } } },
        "dumps": { "source": { "files": { "paths": ["dumps"], "stop": ["db", "cron"] } } },
        "web": { "source": { "volume": { "volume": "web", "stop": ["web"] } } },
    });
    let plan = World::new(spec).plan();
    let take = |name: &str| {
        let is_it = |step: &&&Step| matches!(&step.action, Action::Take(take) if take.service == service(name));
        *find(&plan, "take").iter().find(is_it).unwrap()
    };
    // Also where the server's own take fails.
    assert_eq!(waits(take("conf"), take("db")), Some(WaitOn::End));
    assert_eq!(waits(take("dumps"), take("db")), Some(WaitOn::End));
    assert_eq!(waits(take("dumps"), take("conf")), None);
    assert_eq!(waits(take("web"), take("db")), None);
}

#[test]
fn an_absent_repository_is_created_with_its_first_operable_key_and_given_the_others() {
    let mut spec = small();
    spec["repositories"]["local"]["keys"] =
        json!([{ "age": "age1xyz" }, { "gpg": "ops@example.com" }, { "passphrase": { "env": "P" } }]);
    let plan = World::new(spec).plan();
    assert!(matches!(only(&plan, "create").action, Action::CreateRepository { key: 2, .. }));
    let added: Vec<_> = find(&plan, "add key").iter().map(|step| waits(step, only(&plan, "create"))).collect();
    assert_eq!(added, [Some(WaitOn::Success); 2]);
    assert!(find(&plan, "generate key").is_empty());
}

#[test]
fn a_key_is_generated_only_where_its_file_is_missing_and_the_store_says_there_is_no_repository() {
    let mut world = World::new(small());
    world.set("local", RepositoryState::Absent { ungenerated_keys: vec![0], known_before: None });
    let plan = world.plan();
    assert_eq!(waits(only(&plan, "create"), only(&plan, "generate key")), Some(WaitOn::Success));
    world.lose_sight_of("local");
    assert!(world.plan().is_empty());
    assert!(find(&World::settled(small()).plan(), "generate key").is_empty());
}

#[test]
fn a_repository_that_was_there_before_is_created_only_with_approval_and_so_is_its_key() {
    let mut world = World::new(small());
    let known_before = Some(empty_facts(&repository("local")).id);
    world.set("local", RepositoryState::Absent { ungenerated_keys: vec![0], known_before });
    let plan = world.plan();
    assert_eq!(token(only(&plan, "create")), Some("create:local"));
    assert_eq!(token(only(&plan, "generate key")), Some("create:local"));
    assert_eq!(waits(only(&plan, "take"), only(&plan, "create")), Some(WaitOn::Success));
    assert!(waiting(&plan).contains("create:local"));
}

#[test]
fn the_journal_alone_suffices_to_know_that_a_repository_was_there() {
    let mut world = World::new(small());
    world.history.known_repositories.insert(repository("local"), empty_facts(&repository("local")).id);
    assert_eq!(token(only(&world.plan(), "create")), Some("create:local"));
}

#[test]
fn a_backup_does_not_wait_for_a_doubtful_repository_while_there_is_another() {
    let mut world = World::settled(two_places());
    let known_before = Some(empty_facts(&repository("local")).id);
    world.set("local", RepositoryState::Absent { ungenerated_keys: vec![], known_before });
    let plan = world.plan();
    assert!(matches!(&only(&plan, "take").action, Action::Take(take) if take.repository == repository("offsite")));
    assert_eq!(waits(only(&plan, "copy"), only(&plan, "create")), Some(WaitOn::Success));
}

#[test]
fn keys_follow_the_file_and_removing_one_needs_approval() {
    let mut world = World::settled(small()).with_history(2, 12);
    world.facts("local").keys.push(observed_key("gpg gone@example.com"));
    world.facts("local").keys.push(crate::model::observation::ObservedKey { label: None, ..observed_key("foreign") });
    world
        .spec
        .repositories
        .get_mut(&repository("local"))
        .unwrap()
        .keys
        .push(crate::spec::file::Key::Age("age1new".into()));
    let plan = world.plan();
    assert_eq!(only(&plan, "add key").causes, ["declared, not among 3 keys"]);
    let removal = only(&plan, "remove key");
    assert_eq!((token(removal), removal.effect), (Some("remove-key:local"), Effect::DeletesData));
    assert!(matches!(&removal.action, Action::RemoveKey { label, .. } if label == "gpg gone@example.com"));
    assert_eq!(waits(removal, only(&plan, "add key")), Some(WaitOn::Success));
    assert!(plan.report.drift.iter().any(|note| note.text.contains("was not written by devstack")));
}

#[test]
fn the_last_key_that_surely_opens_a_repository_stays() {
    let mut world = World::settled(small()).with_history(2, 12);
    world.spec.repositories.get_mut(&repository("local")).unwrap().keys =
        vec![crate::spec::file::Key::Age("age1new".into())];
    let plan = world.plan();
    assert!(find(&plan, "remove key").is_empty());
    assert!(waiting(&plan).contains("kept"));
}

#[test]
fn a_key_without_its_sidecar_is_reported() {
    let mut spec = small();
    spec["repositories"]["local"]["keys"].as_array_mut().unwrap().push(json!({ "age": "age1xyz" }));
    let mut world = World::settled(spec).with_history(2, 12);
    world.facts("local").keys[1].sidecar = false;
    let plan = world.plan();
    assert!(plan.is_empty());
    assert!(plan.report.drift[0].text.contains("age age1xyz: key"));
}

#[test]
fn the_first_rule_needs_no_approval_in_an_empty_repository_and_does_where_runs_are() {
    let mut world = World::settled(small());
    world.facts("local").approved_rules.clear();
    assert_eq!(only(&world.plan(), "approve rule").approval, Approval::NotNeeded);
    let mut world = world.with_history(2, 12);
    assert_eq!(token(only(&world.plan(), "approve rule")), Some("retention:daily"));
    world.rule(json!({ "last": 9 }));
    world.approve_declared_rules();
    world.rule(json!({ "last": 10 }));
    assert_eq!(only(&world.plan(), "approve rule").approval, Approval::NotNeeded);
}

#[test]
fn a_tightened_rule_is_held_with_its_fields_and_all_forgetting_with_it() {
    let mut world = World::settled(small()).with_history(10, 12);
    world.rule(json!({ "last": 10, "daily": 14 }));
    world.approve_declared_rules();
    world.rule(json!({ "last": 8, "daily": 7 }));
    let plan = world.plan();
    let rule = only(&plan, "approve rule");
    assert_eq!(token(rule), Some("retention:daily"));
    assert_eq!(rule.causes, ["retention.last 10 → 8, retention.daily 14 → 7"]);
    assert_eq!(waits(only(&plan, "forget"), rule), Some(WaitOn::Success));
    assert!(waiting(&plan).contains("nothing is forgotten until the rule is approved"));
}

#[test]
fn without_a_rule_nothing_is_forgotten() {
    let mut world = World::settled(small()).with_history(20, 12);
    world.spec.backup.get_mut(&policy("daily")).unwrap().retention = None;
    assert!(world.plan().is_empty());
}

#[test]
fn interrupted_runs_are_sealed_first_unless_a_live_lease_of_this_stack_stands() {
    let mut world = World::settled(small());
    world.facts("local").unsealed.push(unsealed("daily", hours_ago(5), &["shop"]));
    let plan = world.plan();
    assert_eq!(waits(only(&plan, "take"), only(&plan, "seal interrupted")), Some(WaitOn::End));
    world.facts("local").leases.push(lease("shop", true));
    let plan = world.plan();
    assert!(find(&plan, "seal interrupted").is_empty());
    assert!(waiting(&plan).contains("devstack unlock 77fe"));
    world.facts("local").leases = vec![lease("shop", false), lease("other", true)];
    assert_eq!(find(&world.plan(), "seal interrupted").len(), 1);
}

#[test]
fn a_schedule_is_due_until_a_complete_run_carries_its_last_slot() {
    let daily = |run| World::settled(small()).with_run("local", run).plan();
    let served = run("daily", at(SLOT), &["shop"]);
    assert!(find(&daily(served.clone()), "take").is_empty());
    let take = |plan: &super::Plan| match &only(plan, "take").action {
        Action::Take(take) => take.clone(),
        _ => unreachable!(),
    };
    assert_eq!(take(&daily(incomplete(served.clone()))).slot, Some(at(SLOT)));
    assert_eq!(only(&daily(incomplete(served.clone())), "take").causes, ["no complete run yet"]);
    let late = World::settled(small()).with_run("local", run("daily", at("2026-11-23T01:15:00Z"), &["shop"])).plan();
    assert_eq!(only(&late, "take").causes, ["last run 33 h 45 min old, slots Mon 14:15 and 02:15 missed"]);
    let never = World::settled(small()).plan();
    assert_eq!(
        (take(&never).slot, only(&never, "take").causes.as_slice()),
        (Some(at(SLOT)), &["never taken".to_owned()][..])
    );
    let ahead = run("daily", Span::from_hours(48).after(at(NOW)), &["shop"]);
    assert_eq!(find(&daily(ahead), "take").len(), 1, "a run from a wrong clock does not stop today's");
}

#[test]
fn without_a_schedule_a_run_is_due_only_if_there_never_was_a_complete_one() {
    let mut spec = small();
    spec["backup"]["daily"].as_object_mut().unwrap().remove("schedule");
    let world = World::settled(spec);
    assert!(matches!(&only(&world.plan(), "take").action, Action::Take(take) if take.slot.is_none()));
    let old = by_hand(run("daily", hours_ago(9_000), &["shop"]));
    assert!(world.with_run("local", old).plan().is_empty());
}

#[test]
fn a_run_is_taken_sealed_proven_and_copied_with_the_right_waits() {
    let mut spec = two_places();
    spec["services"]["web"] = json!({ "source": { "files": { "paths": ["web"] } } });
    let plan = World::settled(spec).plan();
    let (seal, copy) = (only(&plan, "seal"), only(&plan, "copy"));
    let proofs = find(&plan, "prove");
    for take in find(&plan, "take") {
        assert_eq!(waits(seal, take), Some(WaitOn::End), "a manifest is written of a failed run too");
        assert_eq!(waits(proofs[0], take), Some(WaitOn::Success));
        assert!(take.preconditions.iter().any(|it| matches!(it, Precondition::SlotOpen { .. })));
    }
    assert_eq!(waits(proofs[0], seal), Some(WaitOn::Success));
    assert_eq!(waits(copy, proofs[0]), Some(WaitOn::Success));
    assert_eq!(waits(proofs[1], copy), Some(WaitOn::Success));
}

#[test]
fn a_take_goes_on_from_the_newest_sound_run_and_a_full_one_from_none() {
    let old = run("daily", hours_ago(60), &["shop"]);
    let world = World::settled(small())
        .with_run("local", old.clone())
        .with_run("local", damaged(run("daily", hours_ago(40), &["shop"])));
    let plan = world.plan();
    let Action::Take(take) = &only(&plan, "take").action else { unreachable!() };
    assert_eq!(take.parent_bytes, Some(ByteSize::mib(100)));
    assert_eq!(take.parent.as_ref(), old.manifest.taken().map(|(_, taken)| &taken.snapshot).next());
    assert!(matches!(&only(&plan, "seal").action, Action::Seal { base, parent: Some(parent), .. }
        if *base == old.manifest.run && *parent == old.manifest.run));
    let full = world.ask(&Request::Backup { policies: vec![], services: vec![], full: true }).unwrap();
    let Action::Take(take) = &only(&full, "take").action else { unreachable!() };
    assert_eq!((&take.parent, take.parent_bytes), (&None, Some(ByteSize::mib(100))));
    assert!(matches!(&only(&full, "seal").action, Action::Seal { base, parent: None, run, .. } if base == run));
}

#[test]
fn emptiness_where_data_was_is_never_backed_up_unasked() {
    let late = || World::settled(small()).with_run("local", run("daily", hours_ago(60), &["shop"]));
    for (state, wanted) in [(SourceState::Gone, None), (SourceState::Empty, Some("take:shop"))] {
        let mut world = late();
        world.source("shop", state);
        let plan = world.plan();
        assert_eq!(token(only(&plan, "take")), wanted, "what is gone can't be taken, so nothing is asked");
        let mut fresh = World::settled(small());
        fresh.source("shop", state);
        assert_eq!(token(only(&fresh.plan(), "take")), wanted, "the first run is asked for like any other");
    }
    let mut approved = run("daily", hours_ago(60), &["shop"]);
    let Some(ServiceResult::Taken(taken)) = approved.manifest.services.get_mut(&service("shop")) else {
        unreachable!()
    };
    taken.empty = true;
    let mut once = World::settled(small()).with_run("local", approved);
    once.source("shop", SourceState::Empty);
    let plan = once.plan();
    assert_eq!(token(only(&plan, "take")), None, "what somebody has said once is not asked every night");
    assert!(
        matches!(&only(&plan, "take").action, Action::Take(take) if take.may_be_empty) && plan.report.lost.is_empty()
    );
    let mut world = late();
    let has_data = |plan: &super::Plan| {
        only(plan, "take").preconditions.contains(&Precondition::SourceHasData { service: service("shop") })
    };
    assert!(has_data(&world.plan()));
    world.observation.services.insert(service("shop"), Observed::Unknown { reason: "no answer".into() });
    assert!(has_data(&world.plan()), "unknown, but it had data");
}

#[test]
fn a_repository_that_was_away_gets_the_newest_verified_run_only() {
    let mut world = World::settled(two_places()).with_history(4, 12);
    let plan = world.plan();
    let newest = RunId::at(at(SLOT), &policy("daily"));
    assert!(matches!(&only(&plan, "copy").action, Action::Copy { run, .. } if *run == newest));
    assert_eq!(find(&plan, "prove").len(), 1);
    // The copy was interrupted: it is made again, not sealed as a run that failed.
    world.facts("offsite").unsealed.push(unsealed("daily", at(SLOT), &["shop"]));
    let plan = world.plan();
    assert_eq!((find(&plan, "copy").len(), find(&plan, "seal interrupted").len()), (1, 0));
}

#[test]
fn the_newest_complete_run_without_a_verdict_is_proven_and_a_failed_one_is_not_proven_again() {
    let of = |run| World::settled(small()).with_run("local", run).plan();
    assert_eq!(find(&of(unproven(run("daily", at(SLOT), &["shop"]))), "prove").len(), 1);
    assert!(find(&of(damaged(run("daily", at(SLOT), &["shop"]))), "prove").is_empty());
}

#[test]
fn each_part_of_the_data_is_read_once_within_data_every() {
    let mut spec = small();
    spec["backup"]["daily"]["verify"] = json!({ "data_every": "256h" });
    let mut world = World::settled(spec).with_history(2, 12);
    let parts = |world: &World| match find(&world.plan(), "read data").as_slice() {
        [] => vec![],
        [step] => match &step.action {
            Action::ReadData { parts, .. } => parts.clone(),
            _ => unreachable!(),
        },
        _ => unreachable!(),
    };
    assert_eq!(parts(&world).len(), 22, "one part an hour since the oldest snapshot, 21 h 45 min ago");
    world.facts("local").oldest = Some(hours_ago(9_000));
    assert_eq!(parts(&world).len(), 256);
    let read = |hours, parts: std::ops::RangeInclusive<u8>| DataRead {
        format: RECORD_FORMAT,
        at: hours_ago(hours),
        took: Span::ZERO,
        read: ByteSize(0),
        parts: parts.collect(),
        verdict: Finding::Failed(vec!["damage".into()]),
        hurt: vec![],
        remembered: false,
    };
    world.facts("local").data_reads.push(read(3, 0..=255));
    assert_eq!(parts(&world).len(), 3, "three slots have passed since, whatever the verdict was");
    let mut seen: Vec<u8> = Vec::new();
    for _ in 0..256 {
        seen.extend(parts(&world));
        let (parts, now) = (parts(&world), world.now);
        world.facts("local").data_reads.push(DataRead { at: now, parts, ..read(0, 0..=0) });
        world.now = Span::from_hours(1).after(world.now);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 256, "all of it is read within the time");
}

#[test]
fn runs_that_somebody_else_removed_are_a_held_step_that_retention_waits_for() {
    let mut world = World::settled(small()).with_history(5, 12);
    let gone = [RunId::at(hours_ago(200), &policy("daily")), RunId::at(hours_ago(212), &policy("daily"))];
    world.facts("local").removed = gone.to_vec();
    let plan = world.plan();
    let accept = only(&plan, "accept removal");
    assert_eq!(token(accept), Some("accept:removed:local"));
    assert!(plan.report.removed[0].text.contains("2 runs were removed, not by devstack"), "{:?}", plan.report.removed);
    assert!(crate::model::standing::Standing::of_plan(&plan).has(Kind::Removed));
    for verb in ["forget", "prune"] {
        let step = only(&plan, verb);
        assert!(behind(&plan.steps).contains_key(&step.id), "{verb} waits for the approval");
        let guarded = |it: &Precondition| matches!(it, Precondition::RemovalsAccepted { .. });
        assert!(step.preconditions.iter().any(guarded), "{verb} asks again, should more go meanwhile");
    }
    world.apply(&plan);
    let plan = world.plan();
    assert!(plan.is_empty() && plan.report.removed.is_empty(), "{:?}", short(&plan));
}

#[test]
fn a_run_whose_manifest_somebody_removed_is_called_incomplete_only_when_that_is_accepted() {
    let mut world = World::settled(small()).with_history(2, 12);
    let left = unsealed("daily", hours_ago(200), &["shop"]);
    world.facts("local").removed = vec![left.run.clone()];
    world.facts("local").unsealed.push(left);
    let plan = world.plan();
    assert_eq!(waits(only(&plan, "seal interrupted"), only(&plan, "accept removal")), Some(WaitOn::Success));
    world.apply(&plan);
    assert!(world.plan().steps.iter().all(|step| step.action.verb() != "accept removal"));
}

#[test]
fn pruning_by_hand_waits_until_a_removal_is_accepted_and_forgetting_does_not() {
    let mut world = World::settled(small()).with_history(5, 12);
    world.facts("local").removed = vec![RunId::at(hours_ago(200), &policy("daily"))];
    let oldest = world.facts("local").runs[0].manifest.run.clone();
    let selection = ForgetSelection { repository: None, policy: None, service: None, runs: vec![oldest] };
    let plan = world.ask(&Request::Forget(selection)).unwrap();
    assert_eq!(find(&plan, "forget").len(), 1);
    assert!(find(&plan, "prune").is_empty());
    assert!(waiting(&plan).contains("accept:removed:local"));
}

#[test]
fn a_run_that_needs_what_is_damaged_is_no_floor_and_no_good_run() {
    let mut world = World::settled(small()).with_history(3, 12);
    let newest = world.facts("local").runs.last().unwrap().manifest.run.clone();
    world.facts("local").runs.last_mut().unwrap().hurt = vec!["data/ab/ab01 is missing".into()];
    let plan = world.plan();
    assert!(plan.report.damaged.iter().any(|note| note.resource == format!("local/{newest}")));
    let good = plan.report.exposure[0].last_good.as_ref().map(|(run, _, _)| run);
    assert!(good.is_some_and(|good| *good != newest), "{good:?}");
}

#[test]
fn a_reading_of_an_older_version_is_forgotten_only_when_its_part_was_read_again() {
    let mut world = World::settled(small()).with_history(1, 12);
    let run = world.facts("local").runs[0].manifest.run.clone();
    let read = |hours, parts: Vec<u8>, hurt: Vec<RunId>| DataRead {
        format: RECORD_FORMAT,
        at: hours_ago(hours),
        took: Span::ZERO,
        read: ByteSize(0),
        parts,
        verdict: match hurt.is_empty() {
            true => Finding::Passed,
            false => Finding::Failed(vec!["data/ab/ab01 does not have the hash that is its name".into()]),
        },
        hurt,
        remembered: false,
    };
    let damaged = |world: &mut World| world.facts("local").damaged().count();
    world.facts("local").data_reads = vec![read(9, vec![0xab, 0xac], vec![run])];
    assert_eq!(damaged(&mut world), 1);
    world.facts("local").data_reads.push(read(8, vec![0xac, 0xad], vec![]));
    assert_eq!(damaged(&mut world), 1, "other parts were read, and say nothing of this one");
    world.facts("local").data_reads.push(read(7, vec![0xab], vec![]));
    assert_eq!(damaged(&mut world), 0);
}

#[test]
fn a_shrunken_source_keeps_all_older_runs_until_it_is_accepted() {
    let world = World::settled(small()).with_history(4, 12);
    let mut world = world;
    let newest = world.facts("local").runs.pop().unwrap();
    let world = world.with_run("local", suspect(newest));
    let plan = world.plan();
    let accept = only(&plan, "accept shrink");
    assert_eq!(token(accept), Some("accept:shop"));
    assert_eq!(waits(only(&plan, "forget"), accept), Some(WaitOn::Success));
    assert!(waiting(&plan).contains("shrink of shop is not accepted"));
    let guarded = |it: &Precondition| matches!(it, Precondition::ShrinksAccepted { .. });
    assert!(only(&plan, "forget").preconditions.iter().any(guarded), "the run taken in this very plan may be one");
}

#[test]
fn forgetting_counts_on_the_run_of_this_plan_waits_for_its_proof_and_names_the_keepers() {
    let mut world = World::settled(small()).with_history(3, 12);
    world.now = at("2026-11-24T14:00:00Z");
    let plan = world.plan();
    let forget = only(&plan, "forget");
    assert_eq!(waits(forget, only(&plan, "prove")), Some(WaitOn::Success));
    assert_eq!(forget.approval, Approval::ByRule);
    let Action::Forget { runs, keep, .. } = &forget.action else { unreachable!() };
    assert_eq!((runs.len(), keep.len()), (1, 3));
    let verified = Precondition::Verified { repository: repository("local"), runs: keep.clone() };
    assert!(forget.preconditions.contains(&verified) && keep.contains(&RunId::at(world.now, &policy("daily"))));
    assert_eq!(waits(only(&plan, "prune"), forget), Some(WaitOn::Success));
}

#[test]
fn more_than_thirty_percent_of_the_runs_at_once_is_held() {
    let forget = |count, last| {
        let mut world = World::settled(small()).with_history(count, 12);
        world.rule(json!({ "last": last }));
        world.approve_declared_rules();
        let plan = world.plan();
        only(&plan, "forget").approval.clone()
    };
    assert_eq!(forget(10, 7), Approval::ByRule);
    assert!(matches!(forget(10, 6), Approval::Needed { token, .. } if token == "forget:local"));
    assert_eq!(forget(3, 2), Approval::ByRule, "one of three is the ordinary course of things");
}

#[test]
fn incomplete_runs_use_no_slot_and_go_after_the_grace() {
    let with = |hours| {
        let world = World::settled(small()).with_history(3, 12);
        forgotten(&world.with_run("local", incomplete(run("daily", hours_ago(hours), &["shop"]))).plan()).len()
    };
    assert_eq!((with(47), with(100)), (0, 1));
    let lonely = World::settled(small()).with_run("local", incomplete(run("daily", hours_ago(100), &["shop"])));
    assert!(forgotten(&lonely.plan()).is_empty(), "no two verified runs are newer");
}

#[test]
fn packs_marked_longer_ago_than_the_grace_are_pruned() {
    let mut world = World::settled(small()).with_history(2, 12);
    let since = Span::from_secs(1).after(PRUNE_GRACE.before(at(NOW)));
    world.facts("local").marked = Some(Marked { since, bytes: ByteSize::mib(9) });
    assert!(world.plan().is_empty());
    world.facts("local").marked = Some(Marked { since: PRUNE_GRACE.before(at(NOW)), bytes: ByteSize::mib(9) });
    let plan = world.plan();
    assert_eq!((only(&plan, "prune").effect, &only(&plan, "prune").approval), (Effect::DeletesData, &Approval::ByRule));
    assert!(only(&plan, "prune").preconditions.contains(&Precondition::Exclusive { repository: repository("local") }));
    world.facts("local").restic_locks = 1;
    assert!(world.plan().is_empty() && waiting(&world.plan()).contains("a restic lock"));
}

#[test]
fn what_was_taken_out_of_the_file_is_kept_and_listed_with_the_command() {
    let mut world = World::settled(small()).with_history(2, 12);
    for hours in 0..9 {
        world = world.with_run("local", run("gone", hours_ago(500 + hours), &["shop"]));
        world = world.with_run("local", run("daily", hours_ago(700 + hours), &["shop", "wiki"]));
    }
    world.history.known_repositories.insert(repository("attic"), empty_facts(&repository("attic")).id);
    let plan = world.plan();
    assert!(plan.is_empty(), "{:?}", short(&plan));
    let listed: String =
        plan.report.undeclared.iter().map(|note| format!("{} {}\n", note.resource, note.text)).collect();
    for part in ["devstack forget --policy gone", "devstack forget --service wiki", "repository/attic"] {
        assert!(listed.contains(part), "{listed}");
    }
}

#[test]
fn nothing_is_planned_for_a_repository_that_cannot_be_seen() {
    let mut world = World::settled(small());
    world.lose_sight_of("local");
    let plan = world.plan();
    assert!(plan.is_empty());
    assert_eq!(plan.report.unknown[0].text, "the disk does not answer");
    assert!(waiting(&plan).contains("due, but none of its repositories is known"));
    let mut world = World::settled(two_places());
    world.lose_sight_of("local");
    assert!(
        matches!(&only(&world.plan(), "take").action, Action::Take(take) if take.repository == repository("offsite"))
    );
}

#[test]
fn the_longest_chain_decides_and_one_service_never_measured_leaves_no_prediction() {
    let mut spec = with_services(&["web", "mail"]);
    spec["services"]["web"]["after"] = json!(["shop"]);
    spec["recovery"] = json!({ "rto": "1h", "rpo": "24h" });
    let mut world = World::settled(spec).with_run("local", run("daily", at(SLOT), &["shop", "web", "mail"]));
    for (name, secs) in [("shop", 60), ("web", 10), ("mail", 80)] {
        let sample = Sample { bytes: ByteSize::mib(100), took: Span::from_secs(secs) };
        world.history.samples.insert(format!("restore/{name}"), vec![sample]);
    }
    let plan = world.plan();
    let recovery = &plan.report.recovery;
    assert_eq!(recovery.predicted, Some(Span::from_secs(80)));
    world.history.samples.get_mut("restore/shop").unwrap()[0].took = Span::from_secs(100);
    let plan = world.plan();
    let recovery = &plan.report.recovery;
    assert_eq!(recovery.critical_path, [service("shop"), service("web")]);
    assert_eq!(recovery.predicted, Some(Span::from_secs(110)));
    // What a proof took to read web back says nothing of how long its restore takes.
    world.history.samples.remove("restore/web");
    let plan = world.plan();
    let recovery = &plan.report.recovery;
    assert!(world.facts("local").runs.iter().any(|run| run.proofs[0].services.contains_key(&service("web"))));
    assert_eq!(recovery.predicted, None);
    let web = recovery.services.iter().find(|it| it.service == service("web")).unwrap();
    assert_eq!((web.basis, web.predicted), (Basis::NeverMeasured, None));
    world.spec.services.get_mut(&service("shop")).unwrap().after = vec![service("web")];
    assert!(matches!(world.ask(&Request::Converge), Err(PlanError::Cycle { .. })));
}

/// What a drill measures is when a service is back, and that is what its objective is about.
#[test]
fn the_objective_of_a_service_counts_what_comes_before_its_restore() {
    let mut spec = with_services(&["web"]);
    spec["services"]["web"]["after"] = json!(["shop"]);
    spec["recovery"] = json!({ "rto": "1h", "rpo": "24h", "services": { "web": { "rto": "2m" } } });
    let mut world = World::settled(spec).with_run("local", run("daily", at(SLOT), &["shop", "web"]));
    for key in ["restore/shop", "restore/web", "prove/local", "verify/-"] {
        let sample = Sample { bytes: ByteSize::mib(100), took: Span::from_secs(60) };
        world.history.samples.insert(key.to_owned(), vec![sample]);
    }
    let recovery = world.plan().report.recovery;
    let web = recovery.services.iter().find(|it| it.service == service("web")).unwrap();
    assert!(web.predicted.unwrap() <= Span::from_secs(60), "{web:?}");
    assert!(web.back_after.unwrap() > Span::from_secs(120) && web.is_missed(), "{recovery:?}");
    let standing = crate::model::standing::Standing::of_plan(&world.plan());
    let missed = standing.findings().iter().filter(|it| it.kind == Kind::MissedTime);
    assert_eq!(missed.map(|it| it.resource.as_str()).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn a_source_that_is_not_there_is_lost_and_one_that_was_always_empty_is_not() {
    let lost = |world: &World| -> String {
        let plan = world.plan();
        plan.report.lost.iter().map(|note| format!("{}: {}\n", note.resource, note.text)).collect()
    };
    let mut world = World::settled(small()).with_history(2, 12);
    assert_eq!(lost(&world), "");
    for state in [SourceState::Gone, SourceState::Empty] {
        world.observation.services.insert(service("shop"), Observed::Known(state));
        let told = lost(&world);
        assert!(told.contains("shop/data") && told.contains("devstack restore shop --in-place"), "{told}");
    }
    let mut fresh = World::settled(small());
    fresh.observation.services.insert(service("shop"), Observed::Known(SourceState::Empty));
    assert_eq!(lost(&fresh), "", "nothing was ever in it");
    fresh.observation.services.insert(service("shop"), Observed::Known(SourceState::Gone));
    assert_eq!(lost(&fresh), "", "nothing was ever there to lose");
    let unknown = &fresh.plan().report.unknown[0].text;
    assert!(unknown.contains("is it called something else") && !unknown.contains("devstack restore"), "{unknown}");
}

#[test]
fn of_several_services_each_that_can_t_be_restored_is_named_and_none_is_begun() {
    let mut world = World::settled(with_services(&["web", "mail"]))
        .with_run("local", run("daily", hours_ago(30), &["shop", "web", "mail"]));
    for name in ["web", "mail"] {
        world.observation.services.insert(service(name), Observed::Unknown { reason: format!("{name} is down") });
    }
    let all = ["shop", "web", "mail"].map(|name| (service(name), RestoreTarget::InPlace));
    let asked = Request::Restore { services: all.into(), selection: Selection::Newest, from: None, safety: true };
    let refused = world.ask(&asked).unwrap_err();
    assert!(refused.is_of_the_world(), "{refused}");
    assert!(refused.to_string().contains("web is down") && refused.to_string().contains("mail is down"), "{refused}");
    assert!(refused.next().iter().any(|line| line.contains("devstack restore mail --to DIR")), "{:?}", refused.next());
}

#[test]
fn a_service_that_was_put_into_the_file_is_taken_at_once() {
    let mut world = World::settled(with_services(&["web"])).with_run("local", run("daily", at(SLOT), &["shop"]));
    let takes = |world: &World| -> Vec<String> {
        let plan = world.plan();
        let takes = plan.steps.iter().filter(|step| matches!(step.action, Action::Take(_)));
        takes.map(|step| step.causes.join("; ")).collect()
    };
    assert!(takes(&world).iter().any(|cause| cause.contains("web never taken")), "{:?}", takes(&world));
    world = world.with_run("local", run("daily", hours_ago(1), &["shop", "web"]));
    assert_eq!(takes(&world), Vec::<String>::new());
}

#[test]
fn exposure_counts_from_the_last_good_run_and_not_from_one_dated_ahead() {
    let mut spec = small();
    spec["recovery"] = json!({ "rpo": "10h" });
    let world = World::settled(spec)
        .with_run("local", run("daily", hours_ago(12), &["shop"]))
        .with_run("local", damaged(run("daily", hours_ago(2), &["shop"])))
        .with_run("local", run("daily", Span::from_hours(9).after(at(NOW)), &["shop"]));
    let plan = world.plan();
    let shop = &plan.report.exposure[0];
    assert_eq!(shop.age(world.now), Some(Span::from_hours(12)));
    assert!(shop.is_missed(world.now));
    assert_eq!(shop.next, Some(at("2026-11-24T13:15:00Z")));
}

#[test]
fn a_backup_by_hand_serves_the_open_slot_and_only_that() {
    let ask = |world: &World| {
        world.ask(&Request::Backup { policies: vec![policy("daily")], services: vec![], full: false }).unwrap()
    };
    let slot = |plan: &super::Plan| match &only(plan, "take").action {
        Action::Take(take) => take.slot,
        _ => unreachable!(),
    };
    assert_eq!(slot(&ask(&World::settled(small()))), Some(at(SLOT)));
    assert_eq!(slot(&ask(&World::settled(small()).with_history(2, 12))), None);
    let none =
        World::settled(small()).ask(&Request::Backup { policies: vec![policy("x")], services: vec![], full: false });
    assert!(matches!(none, Err(PlanError::NoSuchPolicy { .. })));
}

#[test]
fn a_restore_chooses_only_what_is_verified_and_beyond_doubt() {
    let good = run("daily", hours_ago(30), &["shop"]);
    let bad = incomplete(run("daily", hours_ago(1), &["shop"]));
    let mut world = World::settled(small())
        .with_run("local", good.clone())
        .with_run("local", suspect(run("daily", hours_ago(20), &["shop"])))
        .with_run("local", unproven(run("daily", hours_ago(10), &["shop"])))
        .with_run("local", bad.clone());
    let ask = |world: &World, selection: Selection, target: RestoreTarget| {
        world.ask(&Request::Restore {
            services: [(service("shop"), target)].into(),
            selection,
            from: None,
            safety: true,
        })
    };
    let beside = || RestoreTarget::Beside { folder: "out".into() };
    let plan = ask(&world, Selection::Newest, beside()).unwrap();
    assert!(matches!(&only(&plan, "restore").action, Action::Restore(restore) if restore.run == good.manifest.run));
    assert_eq!(only(&plan, "restore").approval, Approval::NotNeeded);
    let earlier = ask(&world, Selection::At(hours_ago(31)), beside());
    assert!(matches!(earlier, Err(PlanError::NothingToRestore { .. })));
    let latest = ask(&world, Selection::Latest, beside()).unwrap();
    assert!(only(&latest, "restore").causes.contains(&"the run was never verified".to_owned()), "the newest, as it is");
    let named = ask(&world, Selection::Run(bad.manifest.run), beside());
    assert!(matches!(named, Err(PlanError::Incomplete { .. })));
    assert!(matches!(ask(&world, Selection::Run(RunId::new("no")), beside()), Err(PlanError::NoSuchRun { .. })));
    let over = ask(&world, Selection::Newest, RestoreTarget::InPlace).unwrap();
    let step = only(&over, "restore");
    assert_eq!((step.effect, token(step)), (Effect::OverwritesData, Some("restore:shop")));
    world.observation.services.insert(service("shop"), Observed::Unknown { reason: "no answer".into() });
    assert!(matches!(ask(&world, Selection::Newest, RestoreTarget::InPlace), Err(PlanError::UnknownTarget { .. })));
}

#[test]
fn where_docker_is_down_one_cause_is_one_line_and_no_advice_puts_a_run_over_data() {
    let mut spec = small();
    for name in ["a", "b", "c"] {
        spec["services"][name] = json!({ "source": { "redis": { "containers": [name] } } });
    }
    let mut world = World::settled(spec).with_run("local", run("daily", hours_ago(1), &["shop", "a", "b", "c"]));
    world.observation.engine = Some(Observed::Unknown { reason: "no engine answers".into() });
    for name in ["a", "b", "c"] {
        let reason = format!("the container {name}: no engine answers");
        world.observation.services.insert(service(name), Observed::Unknown { reason });
    }
    for replace in [false, true] {
        let refused = world.ask(&Request::Recover(Recover { replace, ..Recover::everything() })).unwrap_err();
        let (said, next) = (refused.to_string(), refused.next());
        assert_eq!((said.lines().count(), next.len()), (1, 1), "{said}\n{next:?}");
        assert!(said.contains("a, b, c") && said.matches("no engine answers").count() == 1, "{said}");
        assert!(next[0].contains("start Docker") && !next[0].contains("--replace"), "{next:?}");
    }
    // Another cause beside it is told beside it, and one that two share once.
    world.observation.engine = Some(Observed::Known("here".into()));
    for (name, reason) in [("a", "one"), ("b", "two"), ("c", "one")] {
        world.observation.services.insert(service(name), Observed::Unknown { reason: reason.into() });
    }
    let refused = world.ask(&Request::Recover(Recover::everything())).unwrap_err();
    let (said, next) = (refused.to_string(), refused.next());
    assert!(said.starts_with("3 of 4 services") && said.contains("the data of a, c could"), "{said}");
    assert!(next.iter().any(|line| line.contains("`devstack recover --only a --only c --replace`")), "{next:?}");
    assert_eq!(next.iter().filter(|line| line.contains("nothing was touched")).count(), 1, "{next:?}");
}

#[test]
fn what_is_said_of_several_in_the_same_words_is_one_line() {
    let mut world = World::settled(with_services(&["a", "b", "web"]));
    for (name, reason) in [("a", "no answer"), ("b", "no answer"), ("web", "another")] {
        world.observation.services.insert(service(name), Observed::Unknown { reason: reason.into() });
    }
    let plan = world.plan();
    let layout = TextOptions { zone: TimeZone::UTC, all: false };
    let comment = super::render::markdown(&plan, &TimeZone::UTC);
    let listed: String =
        comment.lines().filter(|line| line.starts_with("- ")).map(|line| format!("{line}\n")).collect();
    for text in [super::render::text(&plan, &layout), listed] {
        let lines: Vec<_> = text.lines().filter(|line| line.contains("no answer")).collect();
        assert!(matches!(lines[..], [one] if one.contains("a/data") && one.contains("b/data")), "{text}");
        assert!(text.lines().any(|line| line.contains("another") && line.contains("web/data")), "{text}");
    }
}

#[test]
fn in_place_takes_no_word_where_nothing_is_there_and_leaves_what_is() {
    let mut spec = with_services(&["config"]);
    spec["services"]["config"] = json!({ "source": { "files": { "paths": [".env", "docker-compose.yml"] } } });
    let good = run("daily", hours_ago(30), &["shop", "config"]);
    let mut world = World::settled(spec).with_run("local", good);
    let in_place = |world: &World, name: &str| {
        let services = [(service(name), RestoreTarget::InPlace)].into();
        world.ask(&Request::Restore { services, selection: Selection::Newest, from: None, safety: true }).unwrap()
    };
    for state in [SourceState::Gone, SourceState::Empty] {
        world.source("shop", state);
        let plan = in_place(&world, "shop");
        assert_eq!((plan.steps.len(), Harm::of(only(&plan, "restore"))), (1, Harm::BringsBack));
    }
    // Of files, one that is gone makes the source gone: the others are there, and stay.
    world.source("config", SourceState::Gone);
    let plan = in_place(&world, "config");
    let Action::Restore(restore) = &only(&plan, "restore").action else { panic!("{plan:?}") };
    assert_eq!((&restore.target, Harm::of(only(&plan, "restore"))), (&RestoreTarget::Missing, Harm::BringsBack));
    world.source("config", SourceState::HasData { bytes: None });
    let plan = in_place(&world, "config");
    let harms: Vec<_> = plan.steps.iter().map(|step| (step.action.verb(), token(step))).collect();
    assert_eq!(harms, [("safety copy", Some("restore:config")), ("restore", Some("restore:config"))]);
    assert_eq!(Harm::of(only(&plan, "restore")), Harm::Overwrites);
}

#[test]
fn what_a_run_holds_of_a_service_is_restored_by_name_though_another_is_missing() {
    let mut partly = run("daily", hours_ago(1), &["shop", "web"]);
    let web = ServiceResult::Failed { reason: "no answer".into() };
    partly.manifest.services.insert(service("web"), web);
    partly.proofs.clear();
    let mut world = World::settled(with_services(&["web"]));
    world = world.with_run("local", run("daily", hours_ago(30), &["shop", "web"])).with_run("local", partly.clone());
    let ask = |name: &str, selection: Selection| {
        let target = RestoreTarget::Beside { folder: "out".into() };
        let plan = world.ask(&Request::Restore {
            services: [(service(name), target)].into(),
            selection,
            from: None,
            safety: true,
        })?;
        Ok::<String, PlanError>(only(&plan, "restore").causes.join("; "))
    };
    let named = || Selection::Run(partly.manifest.run.clone());
    assert!(ask("shop", named()).unwrap().contains("the run is incomplete, without web"));
    assert!(matches!(ask("web", named()), Err(PlanError::Incomplete { .. })));
    assert_eq!(ask("shop", Selection::Latest).unwrap(), ask("shop", named()).unwrap());
    assert!(ask("web", Selection::Latest).unwrap().contains("30 h"), "the newest that holds it");
    let newest = ask("shop", Selection::Newest).unwrap();
    assert!(newest.contains(&format!("not from the newer {}", partly.manifest.run)), "{newest}");
    assert!(!ask("web", Selection::Newest).unwrap().contains("newer"), "the newer one does not hold it");
}

#[test]
fn forget_needs_approval_and_leaves_the_two_newest_of_a_declared_policy() {
    let world = World::settled(small()).with_history(3, 12).with_run("local", run("gone", hours_ago(90), &["shop"]));
    let ask = |selection| world.ask(&Request::Forget(selection));
    let newest = RunId::at(at(SLOT), &policy("daily"));
    let refused = ask(ForgetSelection { runs: vec![newest], ..Default::default() });
    assert!(matches!(refused, Err(PlanError::NeverForgotten { .. })));
    let plan = ask(ForgetSelection { policy: Some(policy("daily")), ..Default::default() }).unwrap();
    assert_eq!((forgotten(&plan).len(), token(only(&plan, "forget"))), (1, Some("forget:local")));
    let plan = ask(ForgetSelection { policy: Some(policy("gone")), ..Default::default() }).unwrap();
    assert_eq!(forgotten(&plan).len(), 1);
    assert!(matches!(ask(ForgetSelection::default()), Err(PlanError::NothingSelected)));
}

#[test]
fn a_run_dated_in_the_future_serves_no_slot_and_can_be_forgotten_by_name() {
    let tomorrow = Span::from_hours(24).after(at(NOW));
    let ahead = run("daily", tomorrow, &["shop"]);
    let id = ahead.manifest.run.clone();
    let slot = at(SLOT);
    assert!(!ahead.serves(&policy("daily"), slot, at(NOW)), "its date is not reached");
    assert!(ahead.serves(&policy("daily"), slot, Span::from_hours(25).after(at(NOW))), "its date has passed");
    let mut slot_ahead = run("daily", hours_ago(1), &["shop"]);
    slot_ahead.manifest.slot = Some(tomorrow);
    assert!(!slot_ahead.serves(&policy("daily"), slot, at(NOW)), "a slot of the future, whatever the run's own date");
    let behind = run("daily", hours_ago(24 * 365), &["shop"]);
    assert!(!behind.serves(&policy("daily"), slot, at(NOW)), "of a clock that was behind");
    let served = run("daily", slot, &["shop"]);
    assert!(served.serves(&policy("daily"), slot, at(NOW)) && !served.serves(&policy("other"), slot, at(NOW)));

    let forget =
        |world: &World| world.ask(&Request::Forget(ForgetSelection { runs: vec![id.clone()], ..Default::default() }));
    // The next run is planned as if it were not there, and then it can go.
    let world = World::settled(small()).with_run("local", ahead.clone());
    assert_eq!(find(&world.plan(), "take").len(), 1);
    assert!(matches!(forget(&world), Err(PlanError::NeverForgotten { .. })), "nothing else is verified");
    let world = World::settled(small()).with_history(1, 12).with_run("local", ahead);
    assert_eq!(forgotten(&forget(&world).unwrap()), std::slice::from_ref(&id));
}

fn candidate(id: &str, started: &str, standing: Standing) -> Candidate {
    Candidate { run: RunId::new(id), started: at(started), standing, suspect: false, undeclared: false, serving: false }
}

#[test]
fn days_are_those_of_the_schedule_s_zone() {
    let runs = [
        candidate("a", "2026-11-20T22:30:00Z", Standing::Verified),
        candidate("b", "2026-11-20T23:30:00Z", Standing::Verified),
        candidate("c", "2026-11-21T10:00:00Z", Standing::Verified),
        candidate("d", "2026-11-21T11:00:00Z", Standing::Verified),
    ];
    let rule = Rule { daily: Some(5), ..Rule::default() };
    let kept = |zone: TimeZone| -> Vec<bool> {
        decide(&runs, &rule, at(NOW), &zone).iter().map(|(_, verdict)| verdict.is_keep()).collect()
    };
    assert_eq!(kept(TimeZone::UTC), [false, true, true, true]);
    let berlin = crate::spec::schedule::time_zone("Europe/Berlin").unwrap();
    assert_eq!(
        kept(berlin),
        [true, false, true, true],
        "23:30 UTC is the next day there; c stays as one of the two newest"
    );
}

#[test]
fn what_is_not_verified_takes_no_place_and_goes_only_when_it_would_go_anyway() {
    let runs = [
        candidate("old", "2026-11-01T00:00:00Z", Standing::Damaged),
        candidate("kept", "2026-11-18T00:00:00Z", Standing::Verified),
        candidate("would", "2026-11-19T00:00:00Z", Standing::Unproven),
        candidate("two", "2026-11-20T00:00:00Z", Standing::Verified),
        candidate("one", "2026-11-21T00:00:00Z", Standing::Verified),
    ];
    let rule = Rule { last: Some(3), ..Rule::default() };
    let verdicts = decide(&runs, &rule, at(NOW), &TimeZone::UTC);
    let verdict = |id: &str| verdicts.iter().find(|(run, _)| run.as_str() == id).unwrap().1.clone();
    assert_eq!(verdict("kept"), Verdict::Keep(vec![Reason::Last]));
    assert_eq!(verdict("would"), Verdict::Keep(vec![Reason::WouldBeKept]));
    assert!(!verdict("old").is_keep());
}

fn context(world: &World, plan: &super::Plan) -> (Digest, Vec<crate::model::plan::Lineage>) {
    (world.spec.digest(), plan.lineage.clone())
}

#[test]
fn a_saved_plan_is_applied_once_to_what_it_was_made_for_and_in_time() {
    let world = World::settled(small());
    let plan = world.plan();
    let (digest, lineage) = context(&world, &plan);
    let fits = SavedContext {
        spec_digest: &digest,
        stack: &world.spec.stack,
        lineage: &lineage,
        served: &[],
        used_plans: &[],
        now: Span::from_hours(23).after(world.now),
        max_age: Span::from_hours(24),
        devstack_version: env!("CARGO_PKG_VERSION"),
    };
    assert_eq!(refuse(&plan, &fits), Ok(()));
    let ids = [plan.id.clone()];
    let other_digest = Digest::of("other");
    let other_stack = crate::model::ids::StackName::new("other");
    let served = [(policy("daily"), at(SLOT))];
    let mut moved = lineage.clone();
    moved[0].generation += 1;
    let mut replaced = lineage.clone();
    replaced[0].id = None;
    let refusals = [
        SavedContext { used_plans: &ids, ..fits.clone() },
        SavedContext { served: &served, ..fits.clone() },
        SavedContext { stack: &other_stack, ..fits.clone() },
        SavedContext { spec_digest: &other_digest, ..fits.clone() },
        SavedContext { devstack_version: "9.9.9", ..fits.clone() },
        SavedContext { now: Span::from_hours(25).after(world.now), ..fits.clone() },
        SavedContext { now: Span::from_hours(1).before(world.now), ..fits.clone() },
        SavedContext { lineage: &[], ..fits.clone() },
        SavedContext { lineage: &replaced, ..fits.clone() },
        SavedContext { lineage: &moved, ..fits.clone() },
    ]
    .map(|context| refuse(&plan, &context).unwrap_err());
    for (nth, stale) in refusals.iter().enumerate() {
        let text = stale.to_string();
        let (_, command) = text.rsplit_once(": ").unwrap();
        assert!(command.starts_with("devstack "), "{text}");
        assert!(refusals[..nth].iter().all(|it| std::mem::discriminant::<Stale>(it) != std::mem::discriminant(stale)));
    }
}

#[test]
fn a_saved_plan_is_read_back_as_it_was_and_not_when_it_was_changed() {
    let plan = World::settled(two_places()).plan();
    let text = json(&plan).unwrap();
    assert_eq!(read(text.as_bytes()).unwrap(), plan);
    assert!(matches!(read(text.replace("\"shop\"", "\"shep\"").as_bytes()), Err(ReadError::Changed { .. })));
    assert!(matches!(
        read(text.replace("\"format\": 1", "\"format\": 2").as_bytes()),
        Err(ReadError::Format { found: 2 })
    ));
    assert!(matches!(read(b"{}"), Err(ReadError::NotAPlan { .. })));
    assert!(matches!(read(&vec![b' '; 17 << 20]), Err(ReadError::TooLarge { .. })));
    let mut circle = plan.clone();
    let last = circle.steps.last().unwrap().id;
    circle.steps[0].waits = vec![crate::model::step::Wait { step: last, on: WaitOn::End }];
    circle.id = super::id_of(&circle).unwrap();
    assert!(matches!(read(json(&circle).unwrap().as_bytes()), Err(ReadError::Graph { .. })));
}

/// One word of a person's: the services that were named, and no other.
#[test]
fn a_backup_of_a_service_takes_that_one_and_serves_no_slot() {
    let ask = |world: &World, services: &[&str], policies: &[&str]| {
        let services = services.iter().map(|name| service(name)).collect();
        let policies = policies.iter().map(|name| policy(name)).collect();
        world.ask(&Request::Backup { policies, services, full: false })
    };
    let mut spec = with_services(&["web", "mail"]);
    spec["backup"]["weekly"] = json!({ "services": ["web"], "to": ["local"] });
    let world = World::settled(spec);
    let plan = ask(&world, &["shop"], &[]).unwrap();
    assert_eq!(find(&plan, "take").len(), 1);
    let Action::Seal { run, policy: of, slot, expected, .. } = &only(&plan, "seal").action else { unreachable!() };
    assert_eq!((of.as_str(), *slot, expected.as_slice()), ("daily.part", None, &[service("shop")][..]));
    assert_eq!(run.as_str(), "20261124T110000Z-daily.part");
    // Of both policies that name it: of one it is a part, of the other the whole.
    let policies = |plan: &super::Plan| -> Vec<String> {
        let seals = find(plan, "seal").into_iter();
        seals
            .filter_map(|it| if let Action::Seal { policy, .. } = &it.action { Some(policy.to_string()) } else { None })
            .collect()
    };
    assert_eq!(policies(&ask(&world, &["web"], &[]).unwrap()), ["daily.part", "weekly"]);
    assert_eq!(policies(&ask(&world, &["web"], &["weekly"]).unwrap()), ["weekly"]);
    assert_eq!(
        policies(&ask(&world, &["shop", "web", "mail"], &["daily"]).unwrap()),
        ["daily"],
        "all of them are the policy"
    );
    assert_eq!(policies(&ask(&world, &[], &["daily"]).unwrap()), ["daily"]);
    assert!(matches!(ask(&world, &["shop"], &["weekly"]), Err(PlanError::NotOfPolicies { .. })));
}

/// The slot is as open as before, retention looks at runs of one service apart, and whole runs are compared with whole ones.
#[test]
fn a_run_of_one_service_stands_in_nobody_s_way() {
    let part = |hours: u64, name: &str| by_hand(run("daily.part", hours_ago(hours), &[name]));
    let whole = |hours: u64| run("daily", hours_ago(hours), &["shop", "web"]);
    let mut world = World::settled(with_services(&["web"])).with_run("local", whole(48)).with_run("local", whole(24));
    for (hours, name) in [(10, "shop"), (9, "shop"), (8, "web"), (7, "shop"), (6, "shop")] {
        world = world.with_run("local", part(hours, name));
    }
    let plan = world.plan();
    assert_eq!(forgotten(&plan), [part(10, "shop").manifest.run], "last 3 of shop, and all others");
    for step in find(&plan, "take") {
        let Action::Take(take) = &step.action else { unreachable!() };
        assert_eq!((take.policy.as_str(), take.slot), ("daily", Some(at(SLOT))));
        assert_eq!(take.compared, Some(whole(24).manifest.run));
    }
    assert_eq!(find(&plan, "take").len(), 2);
    assert!(plan.report.undeclared.is_empty(), "{:?}", plan.report.undeclared);
    // It is the newest of its service all the same: for a restore, and for how much would be lost.
    assert_eq!(plan.report.exposure[0].age(world.now), Some(Span::from_hours(6)));
    assert_eq!(plan.report.exposure[1].age(world.now), Some(Span::from_hours(8)));
}

#[test]
fn a_run_of_one_service_hides_no_failure_of_the_whole_and_is_forgiven_by_it() {
    let whole = |hours: u64| run("daily", hours_ago(hours), &["shop", "web"]);
    let part = |hours: u64| by_hand(run("daily.part", hours_ago(hours), &["shop"]));
    let failed = |runs: Vec<crate::model::observation::Run>| -> Vec<String> {
        let world =
            runs.into_iter().fold(World::settled(with_services(&["web"])), |world, it| world.with_run("local", it));
        world.plan().report.failed.into_iter().map(|note| note.resource).collect()
    };
    let named = |run: &crate::model::observation::Run| format!("local/{}", run.manifest.run);
    assert_eq!(failed(vec![whole(30), incomplete(whole(5)), part(2)]), [named(&whole(5))]);
    assert_eq!(failed(vec![whole(30), incomplete(part(5))]), [named(&part(5))]);
    assert_eq!(failed(vec![incomplete(part(30)), whole(5)]), [""; 0]);
    assert_eq!(failed(vec![whole(30), incomplete(part(5)), part(2)]), [""; 0]);
}

/// A table that was dropped is missing from every run after the first that lacks it, and none of these may be the one that is
/// chosen because it was compared with another that lacks it too.
#[test]
fn what_is_suspect_is_compared_with_the_last_run_that_is_not() {
    let (good, poor) = (run("daily", hours_ago(48), &["shop"]), suspect(run("daily", hours_ago(24), &["shop"])));
    let mut world = World::settled(small()).with_run("local", good.clone()).with_run("local", poor.clone());
    let take = |world: &World| match &only(&world.plan(), "take").action {
        Action::Take(take) => take.clone(),
        _ => unreachable!(),
    };
    let snapshot =
        |run: &crate::model::observation::Run| run.manifest.taken().map(|(_, it)| it.snapshot.clone()).next();
    assert_eq!((take(&world).compared, take(&world).parent), (Some(good.manifest.run.clone()), snapshot(&poor)));
    world.facts("local").accepted_shrinks.push((poor.manifest.run.clone(), service("shop")));
    assert_eq!(take(&world).compared, Some(poor.manifest.run.clone()), "it was said to be right");
    // Told once, however many lack it.
    world.facts("local").accepted_shrinks.clear();
    let world = world.with_run("local", suspect(run("daily", hours_ago(12), &["shop"])));
    let told = world.plan().report.suspect;
    assert_eq!(told.len(), 1);
    assert!(
        told[0].text.contains(&format!("in run {} in local and in the one after it", poor.manifest.run)),
        "{told:?}"
    );
}

/// Whoever has just dropped a table can look for it; the next run would tell it a day later.
#[test]
fn what_is_gone_since_the_newest_run_is_suspect_before_the_next() {
    let mut newest = run("daily", hours_ago(2), &["shop"]);
    let Some(ServiceResult::Taken(taken)) = newest.manifest.services.get_mut(&service("shop")) else { unreachable!() };
    let counts = [("rows orders", 2_000), ("rows notes", 3)];
    taken.artifacts[0].counts =
        counts.map(|(name, value)| (name.to_owned(), Count { value, exact: true })).into_iter().collect();
    let id = newest.manifest.run.clone();
    let mut world = World::settled(small()).with_run("local", newest);
    let told = |world: &World| world.plan().report.suspect;
    assert_eq!(told(&world), [], "nobody could look");
    let holding = |tables: &[&str]| Present {
        tables: tables.iter().map(|table| (None, (*table).to_owned())).collect(),
        ..Present::default()
    };
    world.observation.holding.insert(service("shop"), holding(&["orders", "notes", "more"]));
    assert_eq!(told(&world), []);
    world.observation.holding.insert(service("shop"), holding(&["orders"]));
    let [note] = &told(&world)[..] else { panic!("{:?}", told(&world)) };
    assert_eq!(note.resource, "shop");
    assert!(note.text.starts_with(&format!("notes: gone, had 3 rows, in run {id}")), "{note:?}");
    assert_eq!(as_if_lost(&world.spec, &world.observation).holding, BTreeMap::new());
    // A copy from before a restore has what was wrong then, and hides nothing of what the run had.
    let copied = world.with_run("local", run("safety", hours_ago(1), &["shop"]));
    assert_eq!(told(&copied).len(), 1);
}

#[test]
fn runs_are_named_by_the_beginning_of_their_ids() {
    let world = World::settled(small()).with_history(3, 12);
    let ids: Vec<RunId> =
        world.observation.present().flat_map(|(_, facts)| &facts.runs).map(|it| it.manifest.run.clone()).collect();
    let restored = |given: &str| {
        let services = [(service("shop"), RestoreTarget::Beside { folder: "out".into() })].into();
        let plan = world.ask(&Request::Restore {
            services,
            selection: Selection::Run(RunId::new(given)),
            from: None,
            safety: true,
        })?;
        let Action::Restore(restore) = &only(&plan, "restore").action else { unreachable!() };
        Ok::<RunId, PlanError>(restore.run.clone())
    };
    for id in &ids {
        assert_eq!(restored(&id.as_str()[..13]).unwrap(), *id);
    }
    let same_day = restored(&ids[0].as_str()[..8]);
    assert!(same_day.is_ok() || matches!(same_day, Err(PlanError::Misnamed(_))));
    assert!(matches!(restored("2026"), Err(PlanError::Misnamed(_))));
    assert!(matches!(restored("1999"), Err(PlanError::NoSuchRun { .. })));
    let oldest = ids.iter().min().unwrap();
    let asked = ForgetSelection { runs: vec![RunId::new(&oldest.as_str()[..13])], ..ForgetSelection::default() };
    assert_eq!(forgotten(&world.ask(&Request::Forget(asked)).unwrap()), std::slice::from_ref(oldest));
}

fn with_hooks() -> serde_json::Value {
    let mut spec = with_services(&["web"]);
    let hook = |name: &str| json!({ "run": [name] });
    spec["services"]["web"]["hooks"] = json!({ "before": [hook("freeze"), hook("settle")], "after": [hook("thaw")] });
    spec["backup"]["daily"]["hooks"] = json!({ "before": [hook("hello")], "after": [hook("bye")] });
    spec
}

/// Each hook is a step that the takes wait for, or that waits for their end, whatever it is.
#[test]
fn hooks_stand_around_what_they_are_declared_for() {
    let plan = World::settled(with_hooks()).plan();
    let name = |step: &Step| match &step.action {
        Action::Hook(hook) => hook.hook.run[0].clone(),
        Action::Take(take) => format!("take {}", take.service),
        other => other.verb().to_owned(),
    };
    let named: std::collections::BTreeMap<_, _> = plan.steps.iter().map(|step| (step.id, name(step))).collect();
    let waits = |of: &str, on: WaitOn| -> Vec<String> {
        let step = plan.steps.iter().find(|step| name(step) == of).unwrap();
        let mut waits: Vec<_> =
            step.waits.iter().filter(|wait| wait.on == on).map(|wait| named[&wait.step].clone()).collect();
        waits.sort();
        waits
    };
    for (step, success, end) in [
        ("hello", &[][..], &[][..]),
        ("freeze", &["hello"], &[]),
        ("settle", &["freeze"], &[]),
        ("take web", &["hello", "settle"], &[]),
        ("take shop", &["hello"], &[]),
        ("thaw", &[], &["freeze", "settle", "take web"]),
        ("bye", &[], &["freeze", "hello", "settle", "take shop", "take web", "thaw"]),
        ("seal", &[], &["bye", "freeze", "hello", "settle", "take shop", "take web", "thaw"]),
    ] {
        assert_eq!(
            (waits(step, WaitOn::Success), waits(step, WaitOn::End)),
            (success.iter().map(|it| (*it).to_owned()).collect(), end.iter().map(|it| (*it).to_owned()).collect()),
            "{step}"
        );
    }
    // Shown with what is run, for how long at most, and what its failure means.
    let text = crate::plan::render::text(&plan, &crate::plan::render::TextOptions { zone: TimeZone::UTC, all: false });
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("`freeze`, before web is taken; at most 5 min, and where it fails nothing is taken"),
        "{text}"
    );
}

/// What is held is held with its hooks, and nothing else than a take brings one about.
#[test]
fn no_hook_is_run_without_a_take() {
    let mut world = World::settled(with_hooks());
    world.source("web", SourceState::Empty);
    let plan = world.plan();
    let held = |run: &str| {
        plan.steps.iter().find(|it| matches!(&it.action, Action::Hook(hook) if hook.hook.run[0] == run)).and_then(token)
    };
    assert_eq!([held("freeze"), held("thaw"), held("hello")], [Some("take:web"), Some("take:web"), None]);
    let world = World::settled(with_hooks()).with_run("local", run("daily", hours_ago(3), &["shop", "web"]));
    assert_eq!(find(&world.plan(), "hook").len(), 0, "nothing is due");
    let services = [(service("web"), RestoreTarget::InPlace)].into();
    let restore = Request::Restore { services, selection: Selection::Newest, from: None, safety: true };
    let all = Request::Recover(super::request::Recover { replace: true, ..super::request::Recover::everything() });
    for request in [restore, all] {
        let plan = world.ask(&request).unwrap();
        assert!(!plan.is_empty() && find(&plan, "hook").is_empty(), "{:?}", short(&plan));
    }
    // Of one service: its own and those of its policy.
    let asked = Request::Backup { policies: vec![], services: vec![service("shop")], full: false };
    assert_eq!(find(&world.ask(&asked).unwrap(), "hook").len(), 2);
}
