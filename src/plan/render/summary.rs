//! The last line: how many steps of each kind, how many are held, how much is as declared.

use std::collections::BTreeMap;

use super::describe::count;
use crate::model::plan::Plan;
use crate::model::standing::Standing;
use crate::model::step::{Action, Approval};

/// The kinds of steps in the order in which they are counted. A seal belongs to its takes and is not counted.
const KINDS: [&str; 19] = [
    "to start",
    "to rotate",
    "to create",
    "to adopt",
    "keys to generate",
    "keys to add",
    "rules to approve",
    "to seal",
    "hooks to run",
    "to take",
    "to copy",
    "to prove",
    "to read",
    "to accept",
    "to forget",
    "to prune",
    "keys to remove",
    "to restore",
    "held",
];

fn kind(action: &Action) -> Option<&'static str> {
    Some(match action {
        Action::GenerateKey { .. } => "keys to generate",
        Action::CreateRepository { .. } => "to create",
        Action::Adopt { .. } => "to adopt",
        Action::AddKey { .. } => "keys to add",
        Action::RemoveKey { .. } => "keys to remove",
        Action::ApproveRule { .. } => "rules to approve",
        Action::SealInterrupted { .. } => "to seal",
        Action::Take(_) => "to take",
        Action::Hook(_) => "hooks to run",
        Action::Seal { .. } => return None,
        Action::Copy { .. } => "to copy",
        Action::Prove { .. } => "to prove",
        Action::ReadData { .. } => "to read",
        Action::AcceptShrink { .. } | Action::AcceptRemoved { .. } => "to accept",
        Action::Forget { .. } => "to forget",
        Action::Prune { .. } => "to prune",
        Action::SafetyCopy(_) => "to copy",
        Action::Clear { .. } => "to empty",
        Action::Restore(_) => "to restore",
        Action::StartColima { .. } | Action::StartDocker { .. } => "to start",
        Action::RotateSecretId { .. } => "to rotate",
        Action::CreateContainers { .. } => return None,
        Action::StartContainer { .. } => "to start",
        Action::VerifyStack { .. } => return None,
    })
}

/// `Plan: 2 to create, 2 to take, 1 to forget, 1 held. 9 unchanged.` Only a plan that waits for nothing and has seen
/// everything says that the stack is as declared.
pub fn summary(plan: &Plan) -> String {
    let report = &plan.report;
    if plan.steps.is_empty() {
        let waiting = match report.waiting.len() {
            0 => String::new(),
            count => format!(" {count} waiting."),
        };
        return match Standing::of_plan(plan) {
            Standing::Ok if waiting.is_empty() => "No changes. The stack is as declared.".to_owned(),
            Standing::Ok => format!("No steps.{waiting}"),
            standing => format!("No steps, but not all is well: {}.{waiting}", counted(&standing)),
        };
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &plan.steps {
        let held = matches!(step.approval, Approval::Needed { .. });
        if let Some(kind) = if held { Some("held") } else { kind(&step.action) } {
            *counts.entry(kind).or_default() += 1;
        }
    }
    let parts: Vec<_> = KINDS.iter().filter_map(|kind| counts.get(kind).map(|n| worded(*n, kind))).collect();
    let mut line = format!("Plan: {}.", parts.join(", "));
    for (number, word) in [(report.unchanged.len(), "unchanged"), (report.waiting.len(), "waiting")] {
        if number > 0 {
            line.push_str(&format!(" {number} {word}."));
        }
    }
    line
}

/// `1 damaged, 2 lost`: how many findings there are of each kind.
fn counted(standing: &Standing) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for finding in standing.findings() {
        let word = finding.kind.label();
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

fn worded(number: usize, kind: &str) -> String {
    match kind.split_once("s to ") {
        Some((noun, verb)) => format!("{} to {verb}", count(number, noun)),
        None => format!("{number} {kind}"),
    }
}
