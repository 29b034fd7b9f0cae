//! The plan of a recovery as people read it: phase by phase, what waits for what, and how long it will take.

use std::collections::BTreeSet;

use super::describe::{approval, bytes, time, what};
use super::escape::printable;
use super::text::{Row, TextOptions, aligned, head, line};
use crate::model::consent::Harm;
use crate::model::plan::Plan;
use crate::model::standing::Kind;
use crate::model::step::{Action, Effect, Step, StepId};
use crate::model::units::Span;
use crate::plan::graph::PlanGraph;
use crate::spec::file::Spec;

/// Part of a recovery, in the order in which they begin.
fn phase(spec: &Spec, action: &Action) -> &'static str {
    match action {
        Action::Prove { .. } => "backup",
        Action::SafetyCopy(_) | Action::Clear { .. } => "safety",
        Action::StartColima { .. } | Action::StartDocker { .. } => "runtime",
        Action::Restore(restore) => match spec.services.get(&restore.service) {
            Some(service) if service.source.needs_docker() => "data",
            Some(_) | None => "files",
        },
        Action::CreateContainers { .. } => "containers",
        Action::StartContainer { .. } => "services",
        Action::VerifyStack { .. } => "verify",
        _ => "other",
    }
}

/// The steps under their phases, then the chain of steps that decides the time, against the objective.
pub fn recovery(plan: &Plan, spec: &Spec, options: &TextOptions) -> String {
    let mut out = vec![head(plan, &options.zone), String::new()];
    let passes = |step: &&Step| Harm::of(step) == Harm::Passes && !matches!(step.action, Action::SafetyCopy(_));
    for step in plan.steps.iter().filter(passes) {
        out.extend(line(
            "HELD",
            &format!("{} {}: {}", step.id, step.action.resource(), approval(step).unwrap_or_default()),
        ));
    }
    for step in &plan.steps {
        let word = match step.effect {
            Effect::OverwritesData => "OVERWRITES",
            Effect::DeletesData => "EMPTIES",
            Effect::Safe | Effect::Restarts => continue,
        };
        let why = approval(step).unwrap_or_default();
        out.extend(line(word, &format!("{} {}: {why}", step.id, step.action.resource())));
    }
    let mut last = "";
    let rows = plan.steps.iter().map(|step| {
        let phase = phase(spec, &step.action);
        let shown = if phase == last { "" } else { phase };
        last = phase;
        let cells = [
            shown.to_owned(),
            step.id.to_string(),
            step.action.resource(),
            what(&step.action),
            bytes(step),
            time(step),
        ];
        Row { cells: cells.to_vec(), cause: told(step) }
    });
    out.extend(aligned(rows.collect()));
    if plan.steps.is_empty() {
        let gone = if plan.report.missing.is_empty() { "Nothing is gone" } else { "No service is gone as a whole" };
        out.push(format!("  {gone}: there is nothing to recover."));
    }
    out.push(String::new());
    for note in &plan.report.unchanged {
        out.extend(line("left", &format!("{}: {}", note.resource, note.text)));
    }
    for note in &plan.report.missing {
        out.extend(line(Kind::Missing.word(), &printable(&format!("{}: {}", note.resource, note.text))));
    }
    out.extend(missed_things(plan));
    out.extend(duration(plan, spec));
    out.join("\n") + "\n"
}

/// What no run holds, so that whatever of it is gone stays gone: said before anything is touched.
fn missed_things(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    let names: Vec<&str> = plan.report.unprotected.iter().map(|note| note.resource.as_str()).collect();
    if !names.is_empty() {
        let text = format!("no run holds these, and what of them is gone stays gone: {}", names.join(", "));
        out.extend(line(Kind::Unprotected.word(), &printable(&text)));
    }
    for note in &plan.report.left_out {
        out.extend(line("left out", &printable(&format!("{}: {}", note.resource, note.text))));
    }
    out
}

/// What it waits for, and why it is there.
fn told(step: &Step) -> String {
    let waits: Vec<String> = step.waits.iter().map(|wait| wait.step.to_string()).collect();
    let after = (!waits.is_empty()).then(|| format!("after {}", waits.join(" ")));
    let asserted = match &step.action {
        Action::VerifyStack { assertions, .. } => assertions.as_slice(),
        _ => &[],
    };
    let asserted = asserted.iter().map(|assertion| format!("asserts `{}`", assertion.name()));
    after.into_iter().chain(step.causes.iter().cloned()).chain(asserted).collect::<Vec<_>>().join("; ")
}

fn duration(plan: &Plan, spec: &Spec) -> Vec<String> {
    if plan.steps.is_empty() {
        return Vec::new();
    }
    let Ok(graph) = PlanGraph::of(plan) else { return Vec::new() };
    let (path, total) = graph.critical_path(plan);
    let never: BTreeSet<StepId> =
        plan.steps.iter().filter(|step| step.estimate.time.is_none()).map(|step| step.id).collect();
    let rto = spec.recovery.as_ref().and_then(|recovery| recovery.rto);
    let of = rto.map_or_else(String::new, |rto| format!(" of {rto}"));
    let mut parts = vec![match never.len() {
        0 => format!("predicted {total}{of}{}", missed(total, rto)),
        count if count == plan.steps.len() => {
            format!("not predictable yet: no step was ever measured{}", objective(rto))
        }
        count => format!(
            "at least {total}{of}{}: {count} of {} steps were never measured",
            missed(total, rto),
            plan.steps.len()
        ),
    }];
    if !total.is_zero() {
        let named = path.iter().filter_map(|id| plan.step(*id)).map(|step| {
            let time = step.estimate.time.map_or_else(|| "?".to_owned(), |time| time.to_string());
            format!("{} {} {time}", step.id, step.action.resource())
        });
        parts.push(format!("critical path {}", named.collect::<Vec<_>>().join(" → ")));
    }
    line("recovery", &printable(&parts.join("; ")))
}

fn objective(rto: Option<Span>) -> String {
    rto.map_or_else(String::new, |rto| format!(" (objective {rto})"))
}

fn missed(total: Span, rto: Option<Span>) -> &'static str {
    if rto.is_some_and(|rto| total > rto) { "  MISSED" } else { "" }
}
