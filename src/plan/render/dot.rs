//! The graph of a plan for Graphviz.

use super::describe::what;
use super::escape::dot_string;
use super::mermaid::edges;
use crate::model::plan::Plan;
use crate::model::step::{Approval, Effect, WaitOn};

/// Left to right; held steps are dashed, what deletes or overwrites is red. Dashed edges wait for the end only.
pub fn dot(plan: &Plan) -> String {
    let mut out = String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    for step in &plan.steps {
        let label = format!(
            "{}\\n{}",
            dot_string(&format!("{} {}", step.id, step.action.resource())),
            dot_string(&what(&step.action))
        );
        let held = if matches!(step.approval, Approval::Needed { .. }) { ", style=dashed" } else { "" };
        let danger = match step.effect {
            Effect::DeletesData | Effect::OverwritesData => ", color=red",
            Effect::Safe | Effect::Restarts => "",
        };
        out.push_str(&format!("  s{} [label=\"{label}\"{held}{danger}];\n", step.id.0));
    }
    for (from, to, on) in edges(&plan.steps) {
        let style = match on {
            WaitOn::Success => "",
            WaitOn::End => " [style=dashed]",
        };
        out.push_str(&format!("  s{} -> s{}{style};\n", from.0, to.0));
    }
    out.push_str("}\n");
    out
}
