//! A plan on a terminal or in a log: danger first, then the steps, then what waits, then where the stack stands.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::describe::{approval, bytes, time, what};
use super::drill::drilled;
use super::escape::printable;
use super::summary::summary;
use crate::model::ids::{RepositoryName, RunId};
use crate::model::listed;
use crate::model::plan::{Basis, Exposure, Note, Plan, RecoveryForecast};
use crate::model::standing::{Kind, Standing, folded, told_together};
use crate::model::step::{Action, Approval, Effect, Step, StepId, WaitOn};
use crate::plan::graph::behind;

/// Lines are broken at words to stay within this, where a word allows it.
const WIDTH: usize = 110;
/// No column is padded beyond this: one long name must not push all causes off the screen.
const WIDEST_COLUMN: usize = 36;
/// How far a reason is set in that has lines of its own.
const OWN_LINE: usize = 11;
/// Services named on the line of exposure; the rest is counted.
const NAMED: usize = 6;

/// How the text is laid out.
#[derive(Debug, Clone)]
pub struct TextOptions {
    /// Times are shown in it, with their offset.
    pub zone: TimeZone,
    /// Everything: seals and proofs of their own line, waits, and what is unchanged.
    pub all: bool,
}

/// The plan as text, ending with a newline.
pub fn text(plan: &Plan, options: &TextOptions) -> String {
    let mut out = Vec::new();
    out.push(head(plan, &options.zone));
    let behind = behind(&plan.steps);
    let (danger, steps): (Vec<&Step>, Vec<&Step>) = plan.steps.iter().partition(|step| danger(step).is_some());
    let report = &plan.report;
    block(&mut out, finding_lines(&Standing::of_plan(plan)));
    block(&mut out, danger_lines(&danger, &behind));
    let mut lines = step_lines(&steps, &behind, options.all);
    let unchanged = &report.unchanged;
    if options.all {
        lines.extend(note_lines(&[("left out", &report.left_out), ("=", unchanged)]));
    } else if !unchanged.is_empty() {
        lines.push(format!(
            "      {} unchanged (--all lists {})",
            unchanged.len(),
            if unchanged.len() == 1 { "it" } else { "them" }
        ));
    }
    block(&mut out, lines);
    block(&mut out, note_lines(&[("waiting", &report.waiting)]));
    block(&mut out, note_lines(&[("undeclared", &report.undeclared), ("drift", &report.drift)]));
    block(&mut out, standing_lines(plan));
    out.push(String::new());
    out.push(summary(plan));
    out.join("\n") + "\n"
}

/// What is damaged or gone of the backups themselves; empty where nothing is.
pub fn alarms(plan: &Plan) -> String {
    let lines = note_lines(&[("DAMAGED", &plan.report.damaged), ("REMOVED", &plan.report.removed)]);
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Where the stack stands: how fast it would come back, and how much would be lost.
pub fn standing(plan: &Plan) -> String {
    standing_lines(plan).join("\n") + "\n"
}

fn standing_lines(plan: &Plan) -> Vec<String> {
    let drill = plan.report.drill.as_ref().map(|report| line("drill", &drilled(report, plan.now)));
    [recovery(&plan.report.recovery, plan.report.can_be_drilled()), drill.unwrap_or_default(), exposure(plan)].concat()
}

pub(super) fn head(plan: &Plan, zone: &TimeZone) -> String {
    let now = plan.now.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z");
    let (id, file) = (plan.id.short(), plan.spec_digest.short());
    let stack = printable(plan.stack.as_str());
    printable(&format!("devstack plan {id}   stack {stack}   file {file}   observed {now} ({})", plan.observed_in))
        .into_owned()
}

/// A block is set off by an empty line before it.
fn block(out: &mut Vec<String>, lines: Vec<String>) {
    if !lines.is_empty() {
        out.push(String::new());
        out.extend(lines);
    }
}

/// The word before a step that is dangerous or held, the worst first.
fn danger(step: &Step) -> Option<&'static str> {
    match (&step.approval, step.effect) {
        (Approval::Needed { .. }, _) => Some("HELD"),
        (_, Effect::DeletesData) => Some("DELETES"),
        (_, Effect::OverwritesData) => Some("OVERWRITES"),
        (_, Effect::Restarts) => Some("RESTARTS"),
        (_, Effect::Safe) => None,
    }
}

fn danger_lines(steps: &[&Step], behind: &BTreeMap<StepId, StepId>) -> Vec<String> {
    let rank = |step: &&Step| {
        ["HELD", "DELETES", "OVERWRITES", "RESTARTS"].iter().position(|word| danger(step) == Some(*word))
    };
    let mut steps: Vec<&Step> = steps.to_vec();
    steps.sort_by_key(|step| (rank(step), step.id));
    let rows = steps.iter().map(|step| {
        let mut why: Vec<String> = Vec::new();
        why.extend(approval(step));
        let held = matches!(step.approval, Approval::Needed { .. });
        if held && step.effect != Effect::Safe {
            why.push(step.effect.as_str().to_owned());
        }
        // Which run would be put over the data decides whether that is approved.
        if !held || matches!(step.action, Action::Restore(_)) {
            why.extend(step.causes.iter().cloned());
        }
        why.extend(waiting_on(step, behind));
        let columns = [danger(step).unwrap_or_default().to_owned(), step.id.to_string(), step.action.resource()];
        Row {
            cells: columns.into_iter().chain([what(&step.action), bytes(step), time(step)]).collect(),
            cause: why.join("; "),
        }
    });
    aligned(rows.collect())
}

fn waiting_on(step: &Step, behind: &BTreeMap<StepId, StepId>) -> Option<String> {
    behind.get(&step.id).map(|held| format!("waits for the approval of {held}"))
}

fn step_lines(steps: &[&Step], behind: &BTreeMap<StepId, StepId>, all: bool) -> Vec<String> {
    let folds = if all { Folds::default() } else { Folds::of(steps) };
    let mut rows: Vec<(Row, Option<String>)> = Vec::new();
    for step in steps.iter().filter(|step| !folds.hidden.contains(&step.id)) {
        let mut why = step.causes.clone();
        why.extend(waiting_on(step, behind));
        if all && !step.waits.is_empty() {
            why.push(waits(step));
        }
        let cells = vec![step.id.to_string(), step.action.resource(), what(&step.action), bytes(step), time(step)];
        rows.push((Row { cells, cause: why.join("; ") }, folds.after.get(&step.id).cloned()));
    }
    let (rows, notes): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let lines = aligned_groups(rows);
    lines.into_iter().zip(notes).flat_map(|(lines, note)| lines.into_iter().chain(note)).collect()
}

/// `after #1 #2, end of #3`; many are counted.
fn waits(step: &Step) -> String {
    let list = |on: WaitOn| -> Option<String> {
        let ids: Vec<_> = step.waits.iter().filter(|wait| wait.on == on).map(|wait| wait.step.to_string()).collect();
        let word = if on == WaitOn::End { "the end of " } else { "" };
        match ids.len() {
            0 => None,
            1..=8 => Some(format!("{word}{}", ids.join(" "))),
            many => Some(format!("{word}{} … {} ({many})", ids[0], ids[many - 1])),
        }
    };
    let lists: Vec<_> = [WaitOn::Success, WaitOn::End].into_iter().filter_map(list).collect();
    format!("after {}", lists.join(", "))
}

/// The seal and the proof of a run that only follow its takes or its copy are said in one line behind these.
#[derive(Default)]
struct Folds {
    hidden: BTreeSet<StepId>,
    after: BTreeMap<StepId, String>,
}

impl Folds {
    fn of(steps: &[&Step]) -> Self {
        #[derive(Default)]
        struct Run {
            last: Option<StepId>,
            seal: Option<StepId>,
            proof: Option<StepId>,
        }
        let mut runs: BTreeMap<(&RepositoryName, &RunId), Run> = BTreeMap::new();
        for step in steps {
            match &step.action {
                Action::Take(take) => runs.entry((&take.repository, &take.run)).or_default().last = Some(step.id),
                Action::Copy { run, to, .. } => runs.entry((to, run)).or_default().last = Some(step.id),
                Action::Seal { repository, run, .. } => runs.entry((repository, run)).or_default().seal = Some(step.id),
                Action::Prove { repository, run } => runs.entry((repository, run)).or_default().proof = Some(step.id),
                _ => {}
            }
        }
        let mut folds = Self::default();
        for Run { last, seal, proof } in runs.into_values() {
            let (Some(last), Some(first)) = (last, seal.or(proof)) else { continue };
            folds.hidden.extend(seal.into_iter().chain(proof));
            let both = match (seal, proof) {
                (Some(seal), Some(proof)) => format!("seal and proof {seal} {proof}"),
                (Some(seal), None) => format!("seal {seal}"),
                (None, _) => format!("proof {first}"),
            };
            folds.after.insert(last, format!("      + {both}"));
        }
        folds
    }
}

/// A line of columns and a cause that may run on.
pub(super) struct Row {
    pub cells: Vec<String>,
    pub cause: String,
}

pub(super) fn aligned(rows: Vec<Row>) -> Vec<String> {
    aligned_groups(rows).concat()
}

/// Each row's lines: the cells padded to their columns, empty columns left out, the cause broken at words.
fn aligned_groups(rows: Vec<Row>) -> Vec<Vec<String>> {
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let clean: Vec<Vec<String>> =
        rows.iter().map(|row| row.cells.iter().map(|cell| printable(cell).into_owned()).collect()).collect();
    let width = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| clean.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0).min(WIDEST_COLUMN))
        .collect();
    let numeric = |cell: &str| cell.starts_with('~');
    rows.iter()
        .zip(&clean)
        .map(|(row, cells)| {
            let mut line = String::from(" ");
            for (cell, width) in cells.iter().zip(&widths).filter(|(_, width)| **width > 0) {
                let width = *width;
                line.push_str(&if numeric(cell) { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") });
            }
            broken(&line, &printable(&row.cause))
        })
        .collect()
}

/// `start` and then `rest`, broken at words: under where `rest` began if there is room for a column of text, or else on
/// lines of its own.
fn broken(start: &str, rest: &str) -> Vec<String> {
    let begin = start.chars().count() + 1;
    let fits = begin + rest.chars().count() <= WIDTH;
    let (indent, mut lines, mut line) = if fits || begin <= WIDTH / 2 {
        (begin, Vec::new(), format!("{start} "))
    } else {
        (OWN_LINE, vec![start.to_owned()], " ".repeat(OWN_LINE))
    };
    let mut used = line.chars().count();
    let mut fresh = true;
    for word in rest.split(' ') {
        let length = word.chars().count();
        if !fresh && used + 1 + length > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            (used, fresh) = (indent, true);
        }
        if !fresh {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        (used, fresh) = (used + length, false);
    }
    lines.push(line);
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// What is wrong, the worst first. Held steps and objectives have places of their own further down.
fn finding_lines(standing: &Standing) -> Vec<String> {
    let elsewhere = |kind: Kind| matches!(kind, Kind::Held | Kind::MissedPoint | Kind::MissedTime | Kind::Unmeasured);
    let here = standing.findings().iter().filter(|finding| !elsewhere(finding.kind));
    let notes = here.map(|finding| (finding.kind.word(), finding.resource.as_str(), finding.text.as_str()));
    folded_lines(notes)
}

/// Notes under their words, in one table.
fn note_lines(kinds: &[(&str, &[Note])]) -> Vec<String> {
    folded_lines(
        kinds.iter().flat_map(|(word, notes)| {
            notes.iter().map(move |note| (*word, note.resource.as_str(), note.text.as_str()))
        }),
    )
}

fn folded_lines<'a>(notes: impl Iterator<Item = (&'a str, &'a str, &'a str)>) -> Vec<String> {
    let rows = folded(notes).into_iter().map(|(word, resources, text)| {
        let (resource, cause) = told_together(&resources, text);
        Row { cells: vec![format!("{word:<10}"), resource], cause }
    });
    aligned(rows.collect())
}

pub(super) fn line(word: &str, text: &str) -> Vec<String> {
    broken(&format!("  {word:<10} "), &printable(text))
}

fn recovery(forecast: &RecoveryForecast, can_be_drilled: bool) -> Vec<String> {
    if forecast.services.is_empty() {
        return Vec::new();
    }
    let of = forecast.rto.map_or_else(String::new, |rto| format!(" of {rto}"));
    let mut parts = vec![match forecast.predicted {
        Some(predicted) => {
            let missed = if forecast.rto.is_some_and(|rto| predicted > rto) { "  MISSED" } else { "" };
            format!("predicted {predicted}{of}{missed}")
        }
        None => match forecast.rto {
            Some(rto) => format!("not measured, objective {rto}  UNMEASURED"),
            None => "not measured yet".to_owned(),
        },
    }];
    let times: BTreeMap<_, _> = forecast.services.iter().map(|service| (&service.service, service.predicted)).collect();
    let of_services = forecast.critical_path.iter().map(|name| match times.get(name).copied().flatten() {
        Some(time) => format!("{name} {time}"),
        None => name.to_string(),
    });
    let of_steps =
        forecast.steps.iter().filter(|(_, time)| !time.is_zero()).map(|(step, time)| format!("{step} {time}"));
    let path: Vec<String> = if forecast.steps.is_empty() { of_services.collect() } else { of_steps.collect() };
    if !path.is_empty() {
        parts.push(format!("critical path {}", path.join(" → ")));
    }
    let late = forecast.services.iter().filter(|service| service.is_missed());
    let late: Vec<String> = late
        .filter_map(|it| Some(format!("{} back after {} of {}  MISSED", it.service, it.back()?, it.rto?)))
        .collect();
    parts.extend(late);
    let unmeasured = forecast.services.iter().filter(|service| service.back().is_none());
    let unmeasured =
        unmeasured.filter_map(|it| Some(format!("{} not measured, objective {}  UNMEASURED", it.service, it.rto?)));
    parts.extend(unmeasured);
    let never: Vec<&str> = forecast
        .services
        .iter()
        .filter(|service| service.basis == Basis::NeverMeasured)
        .map(|service| service.service.as_str())
        .collect();
    if !never.is_empty() {
        let next = if can_be_drilled { "; `devstack drill` measures it" } else { "" };
        parts.push(format!("never restored: {}{next}", listed(&never, NAMED)));
    }
    line("recovery", &parts.join("; "))
}

fn exposure(plan: &Plan) -> Vec<String> {
    let all = &plan.report.exposure;
    let (missed, within): (Vec<_>, Vec<_>) = all.iter().partition(|entry| entry.is_missed(plan.now));
    let told = |entry: &&Exposure| {
        let age = entry.age(plan.now).map_or_else(|| plan.report.no_good_run().to_owned(), |age| age.to_string());
        let of = entry.rpo.map_or_else(String::new, |rpo| format!(" of {rpo}"));
        format!("{} {age}{of}", entry.service)
    };
    let mut parts: Vec<String> = missed.iter().take(NAMED).map(|entry| format!("{}  MISSED", told(entry))).collect();
    if missed.len() > NAMED {
        parts.push(format!("{} more  MISSED", missed.len() - NAMED));
    }
    let (met, free): (Vec<_>, Vec<_>) = within.into_iter().partition(|entry| entry.rpo.is_some());
    // Without an objective there is nothing to meet: said as ages, never as a success.
    parts.extend(free.iter().take(NAMED).map(told));
    if free.len() > NAMED {
        parts.push(format!("{} more without an objective", free.len() - NAMED));
    }
    match met.len() {
        0 => {}
        few @ 1..=3 if few == all.len() => parts.extend(met.iter().map(told)),
        many if many == all.len() => parts.push(format!("all {many} within target")),
        1 => parts.push(told(&met[0])),
        many => parts.push(format!("{many} others within target")),
    }
    if parts.is_empty() { Vec::new() } else { line("exposure", &parts.join(" · ")) }
}
