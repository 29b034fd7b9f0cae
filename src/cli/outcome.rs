//! What came of an apply, a recovery or a restore, failures first.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use crate::model::ids::ServiceName;
use crate::model::outcome::{ApplyOutcome, FailureKind, StepOutcome};
use crate::model::plan::Plan;
use crate::model::standing::{Finding, Kind, Standing};
use crate::model::step::{Action, RestoreTarget, StepId};
use crate::plan::{Request, render};

/// The verb that was asked for, and what the last line calls that which came of it.
fn names(request: &Request) -> (&'static str, &'static str) {
    match request {
        Request::Converge => ("apply", "Apply"),
        Request::Backup { .. } => ("backup", "Backup"),
        Request::Restore { .. } => ("restore", "Restore"),
        Request::Recover(_) => ("recover", "Recovery"),
        Request::Rollback(_) => ("recover --rollback", "Rollback"),
        Request::Forget(_) => ("forget", "Forgetting"),
    }
}

/// For a person: failures, what is held, what was done, what to do now, and what is left.
pub(super) fn text(request: &Request, outcome: &ApplyOutcome, left: &Plan, standing: &Standing) -> String {
    let mut out = String::new();
    let (verb, _) = names(request);
    let verdict = match request {
        Request::Converge => format!("{}\n", render::printable(&standing.line())),
        _ => String::new(),
    };
    let _ = writeln!(out, "\n{verdict}devstack {verb}   plan {}   took {}\n", outcome.plan.short(), outcome.took);
    let width = outcome.steps.iter().map(|(_, action, _)| action.resource().chars().count()).max().unwrap_or(0);
    let same = of_one_cause(outcome);
    let mut rows: Vec<(u8, String)> = outcome
        .steps
        .iter()
        .map(|(id, action, came)| row(request, (*id, action, came), same.get(id).copied(), width))
        .collect();
    rows.sort_by_key(|(rank, _)| *rank);
    for (_, row) in rows {
        let _ = writeln!(out, "{row}");
    }
    let mut advice = Vec::new();
    for (_, _, came) in &outcome.steps {
        if let StepOutcome::Done(done) = came {
            advice.extend(done.damage.iter().map(|finding| format!("  DAMAGE   {finding}")));
            advice.extend(done.advice.iter().map(|line| format!("  NOTE     {line}")));
        }
    }
    if !advice.is_empty() {
        let _ = writeln!(out, "\n{}", advice.join("\n"));
    }
    let alarms = render::alarms(left);
    if !alarms.is_empty() {
        let _ = write!(out, "\n{alarms}");
    }
    // Told where it matters: what was brought back here came from elsewhere, or what is due here waits for a word.
    if !matches!(request, Request::Restore { .. }) {
        for note in &left.report.foreign {
            let _ = writeln!(out, "\n  FOREIGN  {}: {}", note.resource, render::printable(&note.text));
        }
    }
    let _ = write!(out, "\n{}", render::standing(left));
    let _ = writeln!(out, "\n{}", summary(request, outcome, left));
    if matches!(request, Request::Recover(_)) && is_to_go_on(outcome) {
        let when = if outcome.interrupted { "" } else { ", once what failed is put right" };
        let _ = writeln!(out, "  next: `devstack recover --resume` goes on with it{when}");
    }
    if matches!(request, Request::Restore { .. }) {
        for service in damaged_restores(outcome) {
            let _ = writeln!(
                out,
                "  next: `devstack backups` lists the runs; `devstack restore {service} --backup RUN` takes another, and --from \
                 another repository; docs/damage.md says what helps"
            );
        }
    }
    out
}

/// What could not be read back of a run.
fn damaged_restores(outcome: &ApplyOutcome) -> impl Iterator<Item = &ServiceName> {
    outcome.steps.iter().filter_map(|(_, action, came)| match (action, came) {
        (Action::Restore(restore), StepOutcome::Failed { kind: FailureKind::Damage, .. }) => Some(&restore.service),
        _ => None,
    })
}

/// Whether it has left anything half-way. Where runs were found damaged before anything was touched, others are looked for.
fn is_to_go_on(outcome: &ApplyOutcome) -> bool {
    let reads = |action: &Action| {
        matches!(action, Action::Prove { .. } | Action::StartColima { .. } | Action::StartDocker { .. })
    };
    let begun = |came: &StepOutcome| !matches!(came, StepOutcome::Skipped { .. } | StepOutcome::Held { .. });
    let touched = outcome.steps.iter().any(|(_, action, came)| !reads(action) && begun(came));
    let damaged = |came: &StepOutcome| matches!(came, StepOutcome::Done(done) if !done.damage.is_empty());
    let all = || outcome.steps.iter().map(|(_, _, came)| came);
    !all().all(StepOutcome::is_success) && (touched || !all().any(damaged))
}

/// Steps that failed for a reason which another one before it has said in the same words, with that one.
fn of_one_cause(outcome: &ApplyOutcome) -> BTreeMap<StepId, StepId> {
    let (mut first, mut same) = (BTreeMap::new(), BTreeMap::new());
    for (id, _, came) in &outcome.steps {
        let StepOutcome::Failed { reason, .. } = came else { continue };
        match first.get(reason) {
            Some(one) => drop(same.insert(*id, *one)),
            None => drop(first.insert(reason, *id)),
        }
    }
    same
}

fn row(
    request: &Request,
    (id, action, came): (StepId, &Action, &StepOutcome),
    same: Option<StepId>,
    width: usize,
) -> (u8, String) {
    let (rank, word, text) = match came {
        StepOutcome::Failed { reason, .. } => {
            (0, "FAILED", same.map_or_else(|| reason.clone(), |one| format!("of the same cause as {one}")))
        }
        StepOutcome::Done(done) if !done.damage.is_empty() => (0, "DAMAGED", done.summary.clone()),
        StepOutcome::Interrupted => (1, "STOPPED", format!("interrupted; {}", after_interruption(request))),
        StepOutcome::Held { token } => (2, "HELD", format!("not approved; to approve it: --yes --approve {token}")),
        StepOutcome::Skipped { because } => (3, "skipped", format!("because of step {because}")),
        StepOutcome::Done(done) => (4, "done", done.summary.clone()),
        StepOutcome::AlreadyDone { reason } => (4, "done", format!("already: {reason}")),
    };
    let resource = action.resource();
    let (resource, text) = (render::printable(&resource), render::printable(&text));
    (rank, format!("  {word:<8} {id:>4}  {resource:<width$}  {:<12}  {text}", action.verb()))
}

fn after_interruption(request: &Request) -> &'static str {
    match request {
        Request::Recover(_) => "what it has begun is done anew",
        Request::Restore { .. } | Request::Rollback(_) => "what it was to write may be there in part; restore it again",
        Request::Converge | Request::Backup { .. } | Request::Forget(_) => {
            "the next apply seals what is there as incomplete, and takes what is due"
        }
    }
}

fn summary(request: &Request, outcome: &ApplyOutcome, left: &Plan) -> String {
    let count = |wanted: fn(&StepOutcome) -> bool| outcome.steps.iter().filter(|(_, _, came)| wanted(came)).count();
    let failed = count(|came| matches!(came, StepOutcome::Failed { .. }));
    let damaged = count(|came| matches!(came, StepOutcome::Done(done) if !done.damage.is_empty()));
    let held = count(|came| matches!(came, StepOutcome::Held { .. }));
    let done = count(StepOutcome::is_success);
    let parts: Vec<String> = [
        (failed, "failed"),
        (damaged, "found damage"),
        (count(|came| matches!(came, StepOutcome::Interrupted)), "interrupted"),
        (count(|came| matches!(came, StepOutcome::Skipped { .. })), "skipped"),
        (held, "held"),
        (done, "done"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    let (_, name) = names(request);
    let word = if outcome.interrupted {
        format!("{name} INTERRUPTED")
    } else if failed > 0 || damaged > 0 {
        format!("{name} FAILED")
    } else if outcome.steps.iter().all(|(_, _, came)| came.is_success()) {
        format!("{name} complete")
    } else if done == 0 {
        "Nothing was done".to_owned()
    } else {
        format!("{name} done in part")
    };
    let all_well = failed == 0 && damaged == 0 && held == 0 && !outcome.interrupted;
    let beside =
        |action: &Action| matches!(action, Action::Restore(it) if matches!(it.target, RestoreTarget::Beside { .. }));
    if all_well && outcome.steps.iter().all(|(_, action, _)| beside(action)) {
        return format!("{word}: {}. The live data is untouched.", parts.join(", "));
    }
    let report = &left.report;
    let nothing_open = report.waiting.is_empty() && Standing::of_plan(left) == Standing::Ok;
    let rest = match left.steps.len() {
        0 if all_well && nothing_open => "The stack is as declared.".to_owned(),
        0 => "Nothing else is due now; `devstack plan` says what is open.".to_owned(),
        1 => "1 step is left; `devstack plan` shows it.".to_owned(),
        steps => format!("{steps} steps are left; `devstack plan` shows them."),
    };
    let troubles = match left.report.troubles().count() {
        0 => String::new(),
        count => format!(" {} of what is declared not there or not seen.", count),
    };
    format!("{word}: {}. {rest}{troubles}", parts.join(", "))
}

/// What went wrong, or waits for a word, as findings.
pub(super) fn findings(outcome: &ApplyOutcome) -> Vec<Finding> {
    let of_step = |(_, action, came): &(StepId, Action, StepOutcome)| {
        let what = format!("{} {}", action.verb(), action.resource());
        match came {
            StepOutcome::Failed { kind: FailureKind::Damage, reason } => {
                Some(Finding::new(Kind::Damaged, what, reason))
            }
            StepOutcome::Failed { kind: FailureKind::Key, reason } => Some(Finding::new(Kind::Shut, what, reason)),
            StepOutcome::Failed { reason, .. } => Some(Finding::new(Kind::FailedStep, what, reason)),
            StepOutcome::Done(done) if !done.damage.is_empty() => {
                Some(Finding::new(Kind::Damaged, what, done.damage.join("; ")))
            }
            StepOutcome::Interrupted => Some(Finding::new(Kind::Stopped, what, "interrupted")),
            StepOutcome::Held { token } => Some(Finding::new(Kind::Held, token, what)),
            // A skipped one has its cause in a step of its own.
            StepOutcome::Done(_) | StepOutcome::AlreadyDone { .. } | StepOutcome::Skipped { .. } => None,
        }
    };
    let unjournalled = outcome.unjournalled.iter().map(|reason| Finding::new(Kind::FailedStep, "the journal", reason));
    outcome.steps.iter().filter_map(of_step).chain(unjournalled).collect()
}

/// The last line of a JSON stream: the plan's id, every outcome, and what is left.
pub(super) fn json(plan: &Plan, outcome: Option<&ApplyOutcome>, left: &Plan, standing: &Standing) -> String {
    json!({
        "event": "finished",
        "verdict": standing,
        "plan": plan.id,
        "outcome": outcome,
        "steps_left": left.steps.len(),
        "report": left.report,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::plans::prove;
    use crate::model::ids::PlanId;
    use crate::model::outcome::Done;
    use crate::model::units::Span;
    use crate::plan::fixtures::{World, small};
    use crate::plan::{Recover, Rollback};

    fn said(request: &Request, steps: Vec<(Action, StepOutcome)>) -> String {
        let steps = steps.into_iter().zip(1..).map(|((action, came), id)| (StepId(id), action, came)).collect();
        let outcome = ApplyOutcome {
            plan: PlanId::new("p"),
            started: jiff::Timestamp::UNIX_EPOCH,
            took: Span::ZERO,
            steps,
            interrupted: false,
            unjournalled: None,
        };
        let left = World::settled(small()).with_history(2, 12).plan();
        text(request, &outcome, &left, &Standing::of(findings(&outcome)))
    }

    fn started() -> Action {
        Action::StartContainer { service: "db".to_owned(), until: crate::model::step::Started::Healthy }
    }

    fn failed() -> StepOutcome {
        StepOutcome::Failed { kind: FailureKind::Permanent, reason: "because".to_owned() }
    }

    #[test]
    fn the_last_line_speaks_of_what_was_asked_for() {
        let rollback = Rollback { only: vec![], from: None, safety: true };
        for (request, first, last) in [
            (Request::Converge, "devstack apply ", "Apply complete: 1 done."),
            (Request::Recover(Recover::everything()), "devstack recover ", "Recovery complete: 1 done."),
            (Request::Rollback(rollback), "devstack recover --rollback ", "Rollback complete: 1 done."),
        ] {
            let said = said(&request, vec![(started(), StepOutcome::Done(Done::default()))]);
            assert!(said.contains(first) && said.contains(last), "{said}");
            assert!(!said.contains("--resume"), "{said}");
        }
        assert!(said(&Request::Converge, vec![(started(), failed())]).contains("Apply FAILED: 1 failed."));
    }

    #[test]
    fn one_cause_of_several_steps_is_told_once() {
        let other = StepOutcome::Failed { kind: FailureKind::Permanent, reason: "another".to_owned() };
        let steps = vec![(started(), failed()), (started(), other), (started(), failed())];
        let said = said(&Request::Converge, steps);
        assert_eq!((said.matches("because").count(), said.matches("another").count()), (1, 1), "{said}");
        assert!(said.contains("of the same cause as #1"), "{said}");
    }

    #[test]
    fn a_recovery_that_stopped_says_how_it_goes_on_unless_another_run_is_looked_for() {
        let recovery = Request::Recover(Recover::everything());
        let skipped = || (started(), StepOutcome::Skipped { because: StepId(1) });
        let damage = Done { damage: vec!["a pack is gone".to_owned()], ..Done::default() };
        let stopped = said(&recovery, vec![(started(), failed()), skipped()]);
        assert!(stopped.contains("Recovery FAILED: 1 failed, 1 skipped."), "{stopped}");
        assert!(stopped.contains("`devstack recover --resume` goes on with it"), "{stopped}");
        let unread = said(&recovery, vec![(prove("local"), failed()), skipped()]);
        assert!(unread.contains("--resume"), "{unread}");
        let damaged = said(&recovery, vec![(prove("local"), StepOutcome::Done(damage)), skipped()]);
        assert!(!damaged.contains("--resume"), "{damaged}");
        assert!(!said(&Request::Converge, vec![(started(), failed())]).contains("--resume"));
    }
}
