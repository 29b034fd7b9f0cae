//! How long the stack would take to come back: each service's restore, measured; the longest chain of `after` decides.

use std::collections::BTreeMap;

use jiff::Timestamp;
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Planner;
use super::graph::PlanGraph;
use super::lost::as_if_lost;
use super::prediction;
use super::request::{PlanError, Recover, Request};
use crate::model::history::History;
use crate::model::ids::{Digest, ServiceName};
use crate::model::observation::Observation;
use crate::model::plan::{Basis, Plan, RecoveryForecast, ServiceForecast};
use crate::model::run::Taken;
use crate::model::step::Action;
use crate::model::units::Span;
use crate::spec::file::Spec;

/// A recovery of everything, each step of which was measured.
pub(super) struct Whole {
    /// The chain of steps that decides how long it takes.
    pub path: Vec<(String, Span)>,
    pub total: Span,
    /// When the restore of each service has ended.
    pub back: BTreeMap<ServiceName, Span>,
}

/// None while one of its steps was never measured.
pub(super) fn of_everything(
    spec: &Spec,
    digest: &Digest,
    observation: &Observation,
    history: &History,
    now: Timestamp,
) -> Option<Whole> {
    let lost = as_if_lost(spec, observation);
    let plan = super::plan(spec, digest, &lost, history, now, &Request::Recover(Recover::everything())).ok()?;
    if plan.steps.is_empty() || plan.steps.iter().any(|step| step.estimate.time.is_none()) {
        return None;
    }
    let (path, total) = PlanGraph::of(&plan).ok()?.critical_path(&plan);
    let named = path.iter().filter_map(|id| plan.step(*id)).map(|step| {
        (format!("{} {}", step.action.verb(), step.action.resource()), step.estimate.time.unwrap_or_default())
    });
    Some(Whole { path: named.collect(), total, back: back(&plan) })
}

fn back(plan: &Plan) -> BTreeMap<ServiceName, Span> {
    let (mut ends, mut back) = (BTreeMap::new(), BTreeMap::new());
    // In the order of their numbers every step comes after those that it waits for.
    for step in &plan.steps {
        let begin = step.waits.iter().filter_map(|wait| ends.get(&wait.step)).max().copied().unwrap_or(Span::ZERO);
        let end = begin.saturating_add(step.estimate.time.unwrap_or_default());
        ends.insert(step.id, end);
        if let Action::Restore(restore) = &step.action {
            back.insert(restore.service.clone(), end);
        }
    }
    back
}

impl Planner<'_> {
    /// Fails where `after` goes round in a circle.
    pub(super) fn forecast(&self) -> Result<RecoveryForecast, PlanError> {
        let mut graph: DiGraph<&ServiceName, ()> = DiGraph::new();
        // Backwards by name, since toposort visits the last first: independent services come out in order of name.
        let nodes: BTreeMap<&ServiceName, NodeIndex> =
            self.spec.services.keys().rev().map(|name| (name, graph.add_node(name))).collect();
        for (name, service) in &self.spec.services {
            for before in service.after.iter().filter_map(|before| nodes.get(before)) {
                graph.update_edge(*before, nodes[name], ());
            }
        }
        let order =
            toposort(&graph, None).map_err(|cycle| PlanError::Cycle { service: graph[cycle.node_id()].clone() })?;

        let last = self.last_good();
        let mut services = Vec::with_capacity(order.len());
        // The longest chain that ends with each service, and the one before it in that chain.
        let mut ends: BTreeMap<NodeIndex, (Span, Option<NodeIndex>)> = BTreeMap::new();
        for node in &order {
            let name = graph[*node];
            let good = last.get(name);
            let bytes = good.map(|good| good.taken).map(Taken::bytes);
            let (predicted, basis) = self.restore_time(name, good);
            let mut before: Vec<NodeIndex> = graph.neighbors_directed(*node, petgraph::Incoming).collect();
            before.sort_by_key(|before| graph[*before]);
            let longest = before.into_iter().rev().max_by_key(|before| ends[before].0);
            let start = longest.map_or(Span::ZERO, |longest| ends[&longest].0);
            ends.insert(*node, (start.saturating_add(predicted.unwrap_or_default()), longest));
            services.push(ServiceForecast {
                service: name.clone(),
                after: self.spec.services[name].after.clone(),
                predicted,
                back_after: None,
                basis,
                bytes,
                rto: self.spec.rto_of(name),
            });
        }
        let mut critical_path = Vec::new();
        let mut at = order.iter().rev().copied().max_by_key(|node| ends[node].0).filter(|node| !ends[node].0.is_zero());
        let longest = at.map(|node| ends[&node].0);
        while let Some(node) = at {
            critical_path.push(graph[node].clone());
            at = ends[&node].1;
        }
        critical_path.reverse();
        // With one service never measured the sum would be a promise that nothing stands behind.
        let measured = services.iter().all(|service| service.basis != Basis::NeverMeasured);
        Ok(RecoveryForecast {
            services,
            critical_path,
            predicted: longest.filter(|_| measured),
            steps: Vec::new(),
            rto: self.spec.recovery.as_ref().and_then(|recovery| recovery.rto),
        })
    }

    fn restore_time(&self, name: &ServiceName, good: Option<&super::exposure::LastGood>) -> (Option<Span>, Basis) {
        let Some(good) = good else { return (None, Basis::NeverMeasured) };
        let samples = self.history.samples.get(&format!("restore/{name}")).map_or(&[][..], Vec::as_slice);
        if let Some(model) = prediction::fit(samples) {
            return (Some(model.predict(good.taken.bytes())), Basis::Restored);
        }
        (None, Basis::NeverMeasured)
    }
}
