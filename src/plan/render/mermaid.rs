//! The graph of a plan for mermaid, which pull requests draw by themselves.

use super::describe::what;
use super::escape::mermaid_label;
use crate::model::plan::Plan;
use crate::model::step::{Action, Approval, Effect, Step, StepId, WaitOn};

/// Left to right; what deletes or overwrites and what is held has a class of its own. Dashed: waits for the end only.
pub fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart LR\n");
    for step in &plan.steps {
        let label = mermaid_label(&format!("{} {} {}", step.id.0, step.action.resource(), what(&step.action)));
        out.push_str(&format!("  s{}[\"{label}\"]{}\n", step.id.0, class(step)));
    }
    for (from, to, on) in edges(&plan.steps) {
        let arrow = match on {
            WaitOn::Success => "-->",
            WaitOn::End => "-.->",
        };
        out.push_str(&format!("  s{} {arrow} s{}\n", from.0, to.0));
    }
    out.push_str("  classDef held stroke-dasharray:5 5,stroke:#b08800\n");
    out.push_str("  classDef danger stroke:#cf222e,stroke-width:2px\n");
    out
}

fn class(step: &Step) -> &'static str {
    match (&step.approval, step.effect) {
        (Approval::Needed { .. }, _) => ":::held",
        (_, Effect::DeletesData | Effect::OverwritesData) => ":::danger",
        (_, Effect::Safe | Effect::Restarts) => "",
    }
}

/// The waits to draw. A proof waits for its takes and for their seal, which waits for them too: drawn through the seal.
pub(super) fn edges(steps: &[Step]) -> Vec<(StepId, StepId, WaitOn)> {
    let kinds: std::collections::BTreeMap<StepId, &Action> = steps.iter().map(|step| (step.id, &step.action)).collect();
    let mut edges = Vec::new();
    for step in steps {
        let is_seal = |id: StepId| matches!(kinds.get(&id), Some(Action::Seal { .. }));
        let through_seal = step.waits.iter().any(|wait| is_seal(wait.step));
        for wait in &step.waits {
            let is_take = matches!(kinds.get(&wait.step), Some(Action::Take(_)));
            if !(through_seal && is_take) {
                edges.push((wait.step, step.id, wait.on));
            }
        }
    }
    edges
}
