//! What waits for what in a recovery.

use std::collections::BTreeMap;
use std::fmt;

use petgraph::Direction;
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::model::ids::{RepositoryName, RunId, ServiceName};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// A run is read back.
    Prove(RepositoryName, RunId),
    /// Compose makes containers, volumes and networks.
    Create,
    /// A service of Compose.
    Start(String),
    /// What a service has is copied before it is overwritten.
    Safety(ServiceName),
    /// Its volumes are emptied.
    Clear(ServiceName),
    /// The data of a service of the file.
    Restore(ServiceName),
    Verify,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prove(_, run) => write!(f, "the proof of run {run}"),
            Self::Create => f.write_str("the creation of the containers"),
            Self::Start(service) => write!(f, "the start of {service}"),
            Self::Safety(service) => write!(f, "the safety copy of {service}"),
            Self::Clear(service) => write!(f, "the emptying of {service}"),
            Self::Restore(service) => write!(f, "the restore of {service}"),
            Self::Verify => f.write_str("the verification of the stack"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    graph: DiGraph<Node, ()>,
    nodes: BTreeMap<Node, NodeIndex>,
}

impl Graph {
    fn node(&mut self, node: Node) -> NodeIndex {
        match self.nodes.get(&node) {
            Some(index) => *index,
            None => *self.nodes.entry(node.clone()).or_insert(self.graph.add_node(node)),
        }
    }

    /// One that may have nothing to wait for.
    pub fn add(&mut self, node: Node) {
        self.node(node);
    }

    pub fn edge(&mut self, before: Node, after: Node) {
        let (before, after) = (self.node(before), self.node(after));
        self.graph.update_edge(before, after, ());
    }

    /// Nothing is touched before each of these runs, from which services come back, has been read back.
    pub fn prove_first(&mut self, runs: impl Iterator<Item = (RepositoryName, RunId)>) {
        let others: Vec<Node> = self.nodes.keys().filter(|node| **node != Node::Verify).cloned().collect();
        for (repository, run) in runs {
            for other in &others {
                self.edge(Node::Prove(repository.clone(), run.clone()), other.clone());
            }
        }
    }

    /// An order that agrees with every edge, the same for the same graph; or a node of a circle.
    pub fn order(&self) -> Result<Vec<Node>, Node> {
        // Made anew in the order of the nodes, and backwards, since toposort visits the last first.
        let mut graph: DiGraph<&Node, ()> = DiGraph::new();
        let new: BTreeMap<&Node, NodeIndex> =
            self.nodes.keys().rev().map(|node| (node, graph.add_node(node))).collect();
        for edge in self.graph.raw_edges() {
            graph.add_edge(new[&self.graph[edge.source()]], new[&self.graph[edge.target()]], ());
        }
        match toposort(&graph, None) {
            Ok(order) => Ok(order.into_iter().map(|index| graph[index].clone()).collect()),
            Err(cycle) => Err(graph[cycle.node_id()].clone()),
        }
    }

    pub fn before(&self, node: &Node) -> impl Iterator<Item = &Node> {
        let index = self.nodes.get(node);
        let before = index.into_iter().flat_map(|index| self.graph.neighbors_directed(*index, Direction::Incoming));
        before.map(|index| &self.graph[index])
    }
}
