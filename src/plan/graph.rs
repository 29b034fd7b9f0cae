//! The steps of a plan as a graph: for the executor's order, for drawings, and for how long the whole will take.

use std::collections::BTreeMap;

use petgraph::Direction;
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::model::plan::Plan;
use crate::model::step::{Approval, Step, StepId, WaitOn};
use crate::model::units::Span;

/// Why the steps of a plan are no graph that can be carried out. The planner makes none such; a file may hold one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("two steps are numbered {0}")]
    Twice(StepId),
    #[error("step {step} waits for {on}, which is not in the plan")]
    Missing { step: StepId, on: StepId },
    #[error("step {step} waits for {on}, which does not come before it")]
    NotEarlier { step: StepId, on: StepId },
    #[error("the steps wait for each other in a circle through {0}")]
    Cycle(StepId),
}

/// Edges go from a step to those that wait for it.
#[derive(Debug, Clone)]
pub struct PlanGraph {
    graph: DiGraph<StepId, WaitOn>,
    nodes: BTreeMap<StepId, NodeIndex>,
}

impl PlanGraph {
    pub fn of(plan: &Plan) -> Result<Self, GraphError> {
        let mut graph = DiGraph::with_capacity(plan.steps.len(), 0);
        let mut nodes = BTreeMap::new();
        for step in &plan.steps {
            if nodes.insert(step.id, graph.add_node(step.id)).is_some() {
                return Err(GraphError::Twice(step.id));
            }
        }
        for step in &plan.steps {
            for wait in &step.waits {
                let before = nodes.get(&wait.step).ok_or(GraphError::Missing { step: step.id, on: wait.step })?;
                graph.add_edge(*before, nodes[&step.id], wait.on);
            }
        }
        toposort(&graph, None).map_err(|cycle| GraphError::Cycle(graph[cycle.node_id()]))?;
        // No cycle can be left once every wait points back; both are told, since the first names the fault better.
        for step in &plan.steps {
            if let Some(wait) = step.waits.iter().find(|wait| wait.step >= step.id) {
                return Err(GraphError::NotEarlier { step: step.id, on: wait.step });
            }
        }
        Ok(Self { graph, nodes })
    }

    /// The steps in the order of their numbers, which is an order that every wait agrees with.
    pub fn order(&self) -> impl Iterator<Item = StepId> {
        self.nodes.keys().copied()
    }

    /// The steps that wait for `step`, with what they wait for.
    pub fn dependents(&self, step: StepId) -> Vec<(StepId, WaitOn)> {
        self.neighbours(step, Direction::Outgoing)
    }

    /// The steps that `step` waits for.
    pub fn waits(&self, step: StepId) -> Vec<(StepId, WaitOn)> {
        self.neighbours(step, Direction::Incoming)
    }

    fn neighbours(&self, step: StepId, direction: Direction) -> Vec<(StepId, WaitOn)> {
        let Some(node) = self.nodes.get(&step) else { return Vec::new() };
        let mut found: Vec<_> = self
            .graph
            .edges_directed(*node, direction)
            .map(|edge| {
                let other = if direction == Direction::Outgoing { edge.target() } else { edge.source() };
                (self.graph[other], *edge.weight())
            })
            .collect();
        found.sort();
        found
    }

    /// The chain of steps that decides how long the plan takes, with the estimate; steps that were never measured count
    /// as nothing, so the true time is longer.
    pub fn critical_path(&self, plan: &Plan) -> (Vec<StepId>, Span) {
        let times: BTreeMap<StepId, Span> =
            plan.steps.iter().map(|step| (step.id, step.estimate.time.unwrap_or_default())).collect();
        let mut ends: BTreeMap<StepId, (Span, Option<StepId>)> = BTreeMap::new();
        for step in self.order() {
            let longest =
                self.waits(step).into_iter().rev().map(|(before, _)| before).max_by_key(|before| ends[before].0);
            let start = longest.map_or(Span::ZERO, |longest| ends[&longest].0);
            ends.insert(step, (start.saturating_add(times[&step]), longest));
        }
        let Some((last, (total, _))) = ends.iter().rev().max_by_key(|(_, (end, _))| *end) else {
            return (Vec::new(), Span::ZERO);
        };
        let mut path: Vec<StepId> = std::iter::successors(Some(*last), |step| ends[step].1).collect();
        path.reverse();
        (path, *total)
    }
}

/// For each step, the first held step that has to be approved before it can run; steps are in order of number.
pub fn behind(steps: &[Step]) -> BTreeMap<StepId, StepId> {
    let mut behind: BTreeMap<StepId, StepId> = BTreeMap::new();
    let held: std::collections::BTreeSet<StepId> =
        steps.iter().filter(|step| matches!(step.approval, Approval::Needed { .. })).map(|step| step.id).collect();
    for step in steps {
        let on_success = step.waits.iter().filter(|wait| wait.on == WaitOn::Success).map(|wait| wait.step);
        let first =
            on_success.filter_map(|on| if held.contains(&on) { Some(on) } else { behind.get(&on).copied() }).min();
        if let Some(first) = first {
            behind.insert(step.id, first);
        }
    }
    behind
}
