//! Services: what they wait for, and where their data is.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::super::exclude::Excludes;
use super::super::file::{Source, Spec};
use super::super::node::Place;
use super::super::paths;
use super::{Findings, sources};
use crate::model::ids::ServiceName;

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    for (name, service) in &spec.services {
        let place = Place::of(["services", name.as_str()]);
        let after = place.key("after");
        for (index, other) in service.after.iter().enumerate().filter(|(_, other)| !spec.services.contains_key(*other))
        {
            findings.unknown(
                &after.index(index),
                "service",
                other.as_str(),
                spec.services.keys().map(|name| name.as_str()),
            );
        }
        findings.doubles(&after, &service.after);
        let source = place.key("source");
        match &service.source {
            Source::Sqlite(sqlite) => {
                let place = source.key("sqlite").key("path");
                let text = sqlite.path.to_string_lossy();
                if text.trim().is_empty() {
                    findings.error(
                        &place,
                        format!("`{place}` is empty"),
                        "no path",
                        "write the path of the database file",
                    );
                } else if paths::has_wildcard(&text) {
                    findings.warning(
                        &place,
                        format!("`{place}` holds a wildcard, and is one file"),
                        "taken as it stands, not as a glob",
                        "declare a service for each database file; only a files source takes globs",
                    );
                }
            }
            Source::Files(it) => {
                files(&source.key("files"), &it.paths, &it.exclude, findings);
                findings.doubles(&source.key("files").key("stop"), &it.stop);
            }
            Source::Certificates(it) => files(&source.key("certificates"), &it.paths, &it.exclude, findings),
            Source::Vault(vault) => super::vault::source(spec, &source.key("vault"), vault, findings),
            Source::Postgres(_)
            | Source::Mysql(_)
            | Source::Mariadb(_)
            | Source::Mongodb(_)
            | Source::Redis(_)
            | Source::Rabbitmq(_)
            | Source::Volume(_) => sources::check(&service.source, &source.key(service.source.engine()), findings),
        }
    }
    for (name, service) in &spec.services {
        if let Some(shrinking) = &service.shrinking {
            let place = Place::of(["services", name.as_str(), "shrinking"]);
            globs(&place.key("volatile"), &shrinking.volatile, findings);
            findings.doubles(&place.key("volatile"), &shrinking.volatile);
        }
    }
    loops(spec, findings);
}

fn files(place: &Place, paths: &[String], exclude: &[String], findings: &mut Findings<'_>) {
    if paths.is_empty() {
        let help = "name the files and folders that are backed up";
        findings.error(&place.key("paths"), format!("`{place}.paths` is empty"), "nothing to back up", help);
    }
    globs(&place.key("paths"), paths, findings);
    excludes(&place.key("exclude"), exclude, findings);
    findings.doubles(&place.key("paths"), paths);
    findings.doubles(&place.key("exclude"), exclude);
}

pub(super) fn globs(place: &Place, patterns: &[String], findings: &mut Findings<'_>) {
    for (index, pattern) in patterns.iter().enumerate() {
        let at = place.index(index);
        if pattern.trim().is_empty() {
            findings.error(&at, format!("`{at}` is empty"), "matches nothing", "write a path, or remove the item");
        } else if let Err(error) = paths::glob(pattern) {
            findings.error(
                &at,
                format!("`{pattern}` is no glob: {}", error.kind()),
                "cannot be matched",
                "close what is open; a `[`, `{` or `*` that is part of a name is written as `[[]`, `[{]` or `[*]`",
            );
        }
    }
}

fn excludes(place: &Place, patterns: &[String], findings: &mut Findings<'_>) {
    for (index, pattern) in patterns.iter().enumerate() {
        let at = place.index(index);
        if pattern.trim().is_empty() {
            findings.error(&at, format!("`{at}` is empty"), "matches nothing", "write a pattern, or remove the item");
        } else if let Err(error) = Excludes::new(std::slice::from_ref(pattern), Path::new("/")) {
            findings.error(
                &at,
                error.to_string(),
                "cannot be matched",
                "close what is open; a `[`, `{` or `*` that is part of a name is written as `[[]`, `[{]` or `[*]`",
            );
        }
    }
}

/// Each loop once, by the shortest way round through the first name in it.
fn loops(spec: &Spec, findings: &mut Findings<'_>) {
    let mut graph = DiGraph::<&ServiceName, ()>::new();
    let nodes: BTreeMap<&ServiceName, NodeIndex> =
        spec.services.keys().map(|name| (name, graph.add_node(name))).collect();
    for (name, service) in &spec.services {
        for other in service.after.iter().filter_map(|other| nodes.get(other)) {
            graph.update_edge(nodes[name], *other, ());
        }
    }
    for component in kosaraju_scc(&graph) {
        let Some(first) = component.iter().copied().min_by_key(|node| graph[*node]) else { continue };
        let Some(way) = way_round(&graph, first) else { continue };
        let names: Vec<&str> = way.iter().map(|node| graph[*node].as_str()).collect();
        let after = Place::of(["services", names[0], "after"]);
        let index = spec.services[graph[first]].after.iter().position(|other| other.as_str() == names[1]).unwrap_or(0);
        let message = format!("services wait for one another in a loop: {}", names.join(" → "));
        let help = "a service comes back after those in its `after`; take one of the loop out of the other's";
        findings.error(&after.index(index), message, "the loop passes here", help);
    }
}

/// The shortest way from `start` along edges back to it, both ends in it. None where there is none.
fn way_round(graph: &DiGraph<&ServiceName, ()>, start: NodeIndex) -> Option<Vec<NodeIndex>> {
    let mut came_from: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.neighbors(node) {
            if next == start {
                let mut way = vec![start, node];
                while let Some(before) = way.last().filter(|last| **last != start).and_then(|last| came_from.get(last))
                {
                    way.push(*before);
                }
                way.reverse();
                // A loop of one: start is its own neighbour.
                return Some(if node == start { vec![start, start] } else { way });
            }
            if let std::collections::btree_map::Entry::Vacant(slot) = came_from.entry(next) {
                slot.insert(node);
                queue.push_back(next);
            }
        }
    }
    None
}
