//! Words, verdicts and exit codes agree, whatever is told.

use super::fixtures::{NOW, World, at, small};
use super::render::{TextOptions, markdown, text};
use crate::model::evidence::Verdict;
use crate::model::plan::{DrillReport, LastDrill, Note, Plan};
use crate::model::standing::{Finding, Kind, Severity, Standing};
use crate::model::step::Approval;
use crate::model::units::Span;

fn options() -> TextOptions {
    TextOptions { zone: jiff::tz::TimeZone::UTC, all: false }
}

/// A plan that has nothing to tell, with one thing of this kind put into it; none for what only a command's own end tells.
fn plan_with(kind: Kind) -> Option<Plan> {
    let mut plan = settled();
    let report = &mut plan.report;
    let note = || vec![Note::new("shop", "because")];
    match kind {
        Kind::Damaged => report.damaged = note(),
        Kind::Removed => report.removed = note(),
        Kind::Lost => report.lost = note(),
        Kind::Renamed => report.renamed = note(),
        Kind::Shut => report.shut = note(),
        Kind::Unknown => report.unknown = note(),
        Kind::FailedRun => report.failed = note(),
        Kind::FailedHook => report.hooks = note(),
        Kind::Interrupted => report.interrupted = note(),
        Kind::Unscheduled => report.unscheduled = note(),
        Kind::Unfinished => report.unfinished = note(),
        Kind::MissedSlot => report.overdue = note(),
        Kind::Unprotected => report.unprotected = note(),
        Kind::Missing => report.missing = note(),
        Kind::Suspect => report.suspect = note(),
        Kind::Foreign => report.foreign = note(),
        Kind::Expiring => report.expiring = note(),
        Kind::FailedDrill => report.drill = Some(drill("restore shop/data: because")),
        Kind::MissedDrill => report.drill = Some(drill("MISSED: it took 2 min")),
        Kind::DrilledWithout => {
            let mut drill = drill("");
            let last = drill.last.as_mut()?;
            (last.verdict, last.without) = (Verdict::Passed, vec!["agent".to_owned()]);
            report.drill = Some(drill);
        }
        Kind::MissedPoint => report.exposure[0].rpo = Some(Span::from_secs(1)),
        Kind::Unmeasured => report.recovery.rto = Some(Span::from_secs(1)),
        Kind::MissedTime => {
            report.recovery.rto = Some(Span::from_secs(1));
            report.recovery.predicted = Some(Span::from_secs(2));
        }
        Kind::Held => {
            let mut steps = World::new(small()).plan().steps;
            let reason = "because".to_owned();
            steps[0].approval = Approval::Needed { token: "forget:shop".to_owned(), reason };
            plan.steps = vec![steps.remove(0)];
        }
        Kind::Hurt | Kind::FailedProof | Kind::FailedStep | Kind::Stopped => return None,
    }
    Some(plan)
}

fn settled() -> Plan {
    let plan = World::settled(small()).with_history(2, 12).plan();
    assert_eq!(Standing::of_plan(&plan), Standing::Ok);
    plan
}

fn drill(finding: &str) -> DrillReport {
    let verdict = Verdict::Failed(vec![finding.to_owned()]);
    let (at, took) = (at(NOW), Span::from_secs(120));
    let last =
        LastDrill { id: "drill-1".to_owned(), at, took, rto: None, partial: false, without: Vec::new(), verdict };
    DrillReport { last: Some(last), due: false, next: None }
}

/// docs/exit-codes.md has every word in its table, with the verdict and the code that it comes with.
#[test]
fn every_word_is_documented_with_its_verdict_and_its_code() {
    let table = include_str!("../../docs/exit-codes.md");
    for kind in Kind::ALL {
        let severity = kind.severity();
        let verdict = if severity == Severity::Degraded { "DEGRADED" } else { "FAILED" };
        let row = format!("| `{}` | {} | {verdict} | {} |", kind.word(), kind.label(), severity.code());
        assert!(table.contains(&row), "docs/exit-codes.md lacks the row {row}");
    }
}

#[test]
fn whatever_a_plan_tells_its_verdict_its_words_and_its_code_agree() {
    for kind in Kind::ALL {
        let Some(plan) = plan_with(kind) else { continue };
        let standing = Standing::of_plan(&plan);
        assert!(standing.has(kind), "{kind:?}: {standing:?}");
        let degraded = kind.severity() == Severity::Degraded;
        assert_eq!(standing.word(), if degraded { "DEGRADED" } else { "FAILED" }, "{kind:?}");
        assert_eq!(standing.code(true), kind.severity().code(), "{kind:?}");
        assert_eq!(standing.code(false), if degraded { 0 } else { kind.severity().code() }, "{kind:?}");
        for printed in [text(&plan, &options()), markdown(&plan, &jiff::tz::TimeZone::UTC)] {
            assert!(printed.contains(kind.word()), "{kind:?} is not told: {printed}");
            assert!(!printed.contains("as declared"), "{kind:?}: {printed}");
        }
        assert!(standing.line().contains(kind.label()), "{}", standing.line());
    }
}

/// The other way round: what is printed over a stack of which nothing is to be told has none of the words.
#[test]
fn over_a_stack_that_is_well_no_word_is_printed() {
    let plan = settled();
    let printed = text(&plan, &options());
    for kind in Kind::ALL {
        assert!(!printed.contains(kind.word()), "{printed}");
    }
    assert_eq!((Standing::of_plan(&plan).line().as_str(), Standing::of_plan(&plan).code(true)), ("OK", 0));
    assert!(markdown(&plan, &jiff::tz::TimeZone::UTC).lines().nth(1) == Some("**OK**"));
}

#[test]
fn a_backup_that_is_due_within_its_objective_degrades_nothing() {
    let mut spec = small();
    spec["recovery"] = serde_json::json!({ "rpo": "24h" });
    let mut world = World::settled(spec).with_history(2, 12);
    // The slot of 13:15 has come, and that of the night is the last that was served.
    world.now = at("2026-11-24T14:00:00Z");
    let plan = world.plan();
    assert!(!plan.is_empty());
    assert_eq!(Standing::of_plan(&plan), Standing::Ok);
    // The next slot has come as well.
    world.now = at("2026-11-25T01:30:00Z");
    let standing = Standing::of_plan(&world.plan());
    assert!(standing.has(Kind::MissedSlot) && standing.code(true) == 8, "{standing:?}");
}

#[test]
fn a_stack_that_was_never_backed_up_is_not_ok_with_or_without_an_objective() {
    let standing = Standing::of_plan(&World::new(small()).plan());
    assert_eq!(standing.line(), "DEGRADED: unprotected: shop");
    let mut spec = small();
    spec["recovery"] = serde_json::json!({ "rpo": "24h", "rto": "1h" });
    let standing = Standing::of_plan(&World::new(spec).plan());
    assert_eq!(standing.line(), "DEGRADED: RPO missed: shop; RTO not measured: the stack");
}

#[test]
fn the_line_names_the_worst_first_and_stays_within_its_width() {
    let named = |kind, count: usize| (0..count).map(move |n| Finding::new(kind, format!("service-number-{n}"), "x"));
    let few = Standing::of(named(Kind::Held, 1).chain(named(Kind::Lost, 2)));
    assert_eq!(few.line(), "FAILED: lost: service-number-0, service-number-1; held: service-number-0");
    let many = Standing::of(named(Kind::MissedPoint, 9));
    assert_eq!(many.line(), "DEGRADED: RPO missed: service-number-0, service-number-1, service-number-2 and 6 more");
    let all = Kind::ALL.into_iter().filter(|kind| (*kind as u8).is_multiple_of(3)).flat_map(|kind| named(kind, 30));
    let line = Standing::of(all).line();
    assert!(line.starts_with("FAILED: damaged: 30; "), "{line}");
}

#[test]
fn failure_comes_before_damage_in_the_code_and_after_it_in_the_line() {
    let both = Standing::of([Finding::new(Kind::Lost, "a", "x"), Finding::new(Kind::Damaged, "b", "y")]);
    assert_eq!((both.code(false), both.line().as_str()), (7, "FAILED: damaged: b; lost: a"));
}
