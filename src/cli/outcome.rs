//! What came of an apply, failures first.

use std::fmt::Write;

use serde_json::json;

use crate::model::outcome::{ApplyOutcome, StepOutcome};
use crate::model::plan::Plan;
use crate::model::step::{Action, RestoreTarget, StepId};
use crate::plan::render;

/// For a person: failures, what is held, what was done, what to do now, and what is left.
pub(super) fn text(outcome: &ApplyOutcome, left: &Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "\ndevstack apply   plan {}   took {}\n", outcome.plan.short(), outcome.took);
    let width = outcome.steps.iter().map(|(_, action, _)| action.resource().chars().count()).max().unwrap_or(0);
    let mut rows: Vec<(u8, String)> =
        outcome.steps.iter().map(|(id, action, came)| row(*id, action, came, width)).collect();
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
    let _ = write!(out, "\n{}", render::standing(left));
    let _ = writeln!(out, "\n{}", summary(outcome, left));
    out
}

fn row(id: StepId, action: &Action, came: &StepOutcome, width: usize) -> (u8, String) {
    let (rank, word, text) = match came {
        StepOutcome::Failed { reason, .. } => (0, "FAILED", reason.clone()),
        StepOutcome::Done(done) if !done.damage.is_empty() => (0, "DAMAGED", done.summary.clone()),
        StepOutcome::Interrupted => (
            1,
            "STOPPED",
            "interrupted; the next apply seals what is there as incomplete, and takes what is due".to_owned(),
        ),
        StepOutcome::Held { token } => (2, "HELD", format!("not approved; to approve it: --yes --approve {token}")),
        StepOutcome::Skipped { because } => (3, "skipped", format!("because of step {because}")),
        StepOutcome::Done(done) => (4, "done", done.summary.clone()),
        StepOutcome::AlreadyDone { reason } => (4, "done", format!("already: {reason}")),
    };
    let resource = action.resource();
    let (resource, text) = (render::printable(&resource), render::printable(&text));
    (rank, format!("  {word:<8} {id:>4}  {resource:<width$}  {:<12}  {text}", action.verb()))
}

fn summary(outcome: &ApplyOutcome, left: &Plan) -> String {
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
    let word = if outcome.interrupted {
        "Apply INTERRUPTED"
    } else if failed > 0 || damaged > 0 {
        "Apply FAILED"
    } else if outcome.steps.iter().all(|(_, _, came)| came.is_success()) {
        "Apply complete"
    } else if done == 0 {
        "Nothing was done"
    } else {
        "Apply done in part"
    };
    let all_well = failed == 0 && damaged == 0 && held == 0 && !outcome.interrupted;
    let beside =
        |action: &Action| matches!(action, Action::Restore(it) if matches!(it.target, RestoreTarget::Beside { .. }));
    if all_well && outcome.steps.iter().all(|(_, action, _)| beside(action)) {
        return format!("{word}: {}. The live data is untouched.", parts.join(", "));
    }
    let nothing_open = left.report.waiting.is_empty() && !left.report.is_troubled();
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

/// The last line of a JSON stream: the plan's id, every outcome, and what is left.
pub(super) fn json(plan: &Plan, outcome: Option<&ApplyOutcome>, left: &Plan) -> String {
    json!({
        "event": "finished",
        "plan": plan.id,
        "outcome": outcome,
        "steps_left": left.steps.len(),
        "report": left.report,
    })
    .to_string()
}
