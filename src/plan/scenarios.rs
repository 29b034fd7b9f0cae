//! Whole plans as people see them, told as stories. The snapshots are to be read, not only compared.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::fixtures::*;
use super::request::{Request, Selection};
use crate::model::damage::{Damaged, Subject};
use crate::model::history::Sample;
use crate::model::ids::{RunId, StackName};
use crate::model::observation::{RepositoryState, SourceState};
use crate::model::plan::Plan;
use crate::model::step::{RestoreTarget, WaitOn};
use crate::model::units::{ByteSize, Span};
use crate::plan::graph::PlanGraph;
use crate::plan::render::{LONGEST_COMMENT, TextOptions, dot, markdown, mermaid, summary, text};
use crate::spec::schedule::time_zone;

fn berlin() -> jiff::tz::TimeZone {
    time_zone("Europe/Berlin").unwrap()
}

fn brief(plan: &Plan) -> String {
    text(plan, &TextOptions { zone: berlin(), all: false })
}

fn whole(plan: &Plan) -> String {
    text(plan, &TextOptions { zone: berlin(), all: true })
}

/// Three services, two repositories, objectives.
fn shop() -> Value {
    let mut spec = two_places();
    spec["services"]["web"] = json!({ "source": { "files": { "paths": ["web"] } }, "after": ["shop"] });
    spec["services"]["config"] = json!({ "source": { "files": { "paths": [".env"] } } });
    spec["recovery"] = json!({ "rpo": "24h", "rto": "30m" });
    spec
}

fn measured(world: &mut World) {
    for (key, mib, secs) in [
        ("take/shop", 400, 6),
        ("take/web", 90, 2),
        ("prove/local", 500, 9),
        ("restore/shop", 400, 61),
        ("restore/web", 100, 31),
    ] {
        let sample = Sample { bytes: ByteSize::mib(mib), took: Span::from_secs(secs) };
        world.history.samples.insert(key.to_owned(), vec![sample]);
    }
}

const ALL: [&str; 3] = ["shop", "web", "config"];

#[test]
fn a_fresh_clone_on_an_empty_machine() {
    let mut world = World::new(small());
    world.set("local", RepositoryState::Absent { ungenerated_keys: vec![0], known_before: None });
    let plan = world.plan();
    assert_snapshot!("fresh_text", brief(&plan));
    assert_snapshot!("fresh_mermaid", mermaid(&plan));
    assert_snapshot!("fresh_dot", dot(&plan));
}

#[test]
fn nothing_to_do() {
    let plan = World::settled(small()).with_history(2, 12).plan();
    assert_snapshot!("settled_text", brief(&plan));
    assert_snapshot!("settled_all", whole(&plan));
    assert_snapshot!("settled_markdown", markdown(&plan, &berlin()));
}

#[test]
fn a_damaged_run_is_told_first_and_not_all_is_well() {
    let world = World::settled(small()).with_history(2, 12);
    let hurt = damaged(run("daily", at("2026-11-20T01:15:00Z"), &["shop"]));
    let plan = world.with_run("local", hurt).plan();
    assert_snapshot!("damaged_text", brief(&plan));
    assert_snapshot!("damaged_markdown", markdown(&plan, &berlin()));
}

#[test]
fn runs_that_somebody_else_removed_and_files_that_hurt_nobody_here_are_told_first() {
    let mut world = World::settled(small()).with_history(5, 12);
    world.facts("local").removed = (1..=8).map(at_day).collect();
    let damage = |nth: u8| Damaged {
        subject: Subject::Pack(hex(nth)),
        found: format!("data/{nth:02x}/{} is missing (pack {:.8})", hex(nth), hex(nth)),
        at: at(NOW),
    };
    world.facts("local").damage = (1..=7).map(damage).collect();
    let plan = world.plan();
    assert_snapshot!("removed_text", brief(&plan));
    assert_snapshot!("removed_markdown", markdown(&plan, &berlin()));
}

fn at_day(day: i64) -> RunId {
    RunId::at(Span::from_days(day.unsigned_abs()).before(at("2026-11-10T01:15:00Z")), &policy("daily"))
}

fn hex(nth: u8) -> String {
    format!("{nth:02x}").repeat(32)
}

fn a_missed_night() -> World {
    let mut world = World::settled(shop());
    for back in (2..9).rev() {
        let slot = Span::from_hours(back * 12).before(at(SLOT));
        world = world.with_run("local", run("daily", slot, &ALL)).with_run("offsite", run("daily", slot, &ALL));
    }
    world.rule(json!({ "last": 6 }));
    world.approve_declared_rules();
    measured(&mut world);
    world
}

#[test]
fn a_missed_night_with_copies_and_retention() {
    let plan = a_missed_night().plan();
    assert_snapshot!("missed_text", brief(&plan));
    assert_snapshot!("missed_all", whole(&plan));
    assert_snapshot!("missed_markdown", markdown(&plan, &berlin()));
    assert_snapshot!("missed_mermaid", mermaid(&plan));
    assert_snapshot!("missed_dot", dot(&plan));
}

#[test]
fn danger_wherever_one_looks() {
    let mut world = a_missed_night();
    world.rule(json!({ "last": 3 }));
    world.source("web", SourceState::Empty);
    world.facts("local").keys.push(observed_key("gpg gone@example.com"));
    world.facts("local").unsealed.push(unsealed("daily", at("2026-11-24T02:00:00Z"), &["shop"]));
    world.facts("offsite").restic_locks = 1;
    let world = world.with_run("local", run("old-policy", at("2026-01-01T00:00:00Z"), &["shop"]));
    let plan = world.plan();
    assert_snapshot!("danger_text", brief(&plan));
    assert_snapshot!("danger_markdown", markdown(&plan, &berlin()));
}

#[test]
fn a_disk_that_is_not_mounted_and_one_that_does_not_answer() {
    let mut world = World::settled(shop());
    let known_before = Some(empty_facts(&repository("local")).id);
    world.set("local", RepositoryState::Absent { ungenerated_keys: vec![0], known_before });
    world.lose_sight_of("offsite");
    let plan = world.plan();
    assert_snapshot!("unmounted_text", brief(&plan));
    let mut world = World::settled(small());
    world.lose_sight_of("local");
    let plan = world.plan();
    assert_snapshot!("blind_text", brief(&plan));
    assert!(!summary(&plan).contains("as declared"), "a stack that nobody has seen is not as declared");
}

#[test]
fn a_restore_over_live_data() {
    let world = a_missed_night();
    let services = [(service("shop"), RestoreTarget::InPlace)].into();
    let plan =
        world.ask(&Request::Restore { services, selection: Selection::Newest, from: None, safety: true }).unwrap();
    assert_snapshot!("restore_text", brief(&plan));
    assert_snapshot!("restore_markdown", markdown(&plan, &berlin()));
}

#[test]
fn no_name_breaks_out_of_the_text_or_the_comment() {
    let mut spec = small();
    let evil = "a\u{1b}[2J`\n```\n</details>@everyone\u{202e}-->\"];";
    spec["services"][evil] = spec["services"]["shop"].clone();
    let mut world = World::settled(spec);
    world.spec.stack = StackName::new(evil);
    world.source(evil, SourceState::HasData { bytes: Some(ByteSize::mib(1)) });
    world.facts("local").unsealed.push(unsealed("daily", at(SLOT), &["shop"]));
    world.facts("local").leases.push(crate::model::observation::LeaseFact { owner: evil.into(), ..lease(evil, true) });
    let plan = world.plan();
    for shown in [brief(&plan), whole(&plan), markdown(&plan, &berlin()), mermaid(&plan), dot(&plan)] {
        assert!(!shown.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{shown}");
    }
    let comment = markdown(&plan, &berlin());
    assert_eq!(comment.lines().filter(|line| line.starts_with("</details>")).count(), 2, "{comment}");
    assert_eq!(
        comment.matches("-->").count() - comment.matches("s1 -->").count(),
        comment.lines().filter(|line| line.contains("-->") && !line.contains("s1 -->")).count()
    );
}

#[test]
fn a_comment_is_never_longer_than_a_forge_allows_and_says_what_was_cut() {
    let names: Vec<String> = (0..3_000).map(|nth| format!("service-with-a-long-name-{nth:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world =
        World::settled(with_services(&names)).with_run("local", run("daily", at("2026-11-20T01:15:00Z"), &names));
    for name in &names {
        world.source(name, SourceState::Empty);
    }
    let comment = markdown(&world.plan(), &berlin());
    assert!(comment.chars().count() <= LONGEST_COMMENT);
    for part in ["and ", "left out for length", "too large to be drawn", "<!-- devstack-plan stack=shop -->", "Plan: "]
    {
        assert!(comment.contains(part), "{part}");
    }
}

#[test]
fn the_graph_gives_an_order_that_every_wait_agrees_with() {
    let plan = a_missed_night().plan();
    let graph = PlanGraph::of(&plan).unwrap();
    let order: Vec<_> = graph.order().collect();
    assert_eq!(order.len(), plan.steps.len());
    for step in &plan.steps {
        assert!(step.waits.iter().all(|wait| wait.step < step.id));
        assert_eq!(graph.waits(step.id).len(), step.waits.len());
        assert!(graph.waits(step.id).iter().all(|(before, on)| {
            graph.dependents(*before).contains(&(step.id, *on)) && matches!(on, WaitOn::Success | WaitOn::End)
        }));
    }
    let (path, time) = graph.critical_path(&plan);
    assert!(path.len() > 1 && time > Span::ZERO);
}

#[test]
fn no_line_is_broken_that_could_fit() {
    for line in brief(&a_missed_night().plan()).lines() {
        assert!(line.chars().count() <= 115, "{line}");
    }
}
