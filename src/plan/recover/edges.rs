//! What has to come before what: by the file's `after`, by the `depends_on` of Compose, and by what each kind of data needs.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, Node};
use super::serves;
use crate::model::compose::ComposeModel;
use crate::model::ids::ServiceName;
use crate::model::observation::{ContainerState, Observed};
use crate::plan::Planner;
use crate::plan::request::PlanError;
use crate::spec::file::Source;

impl<'a> Planner<'a> {
    pub(super) fn recovery_graph(
        &self,
        restored: &BTreeSet<&'a ServiceName>,
        model: Option<&ComposeModel>,
        started: &BTreeSet<String>,
    ) -> Result<Graph, PlanError> {
        let mut graph = Graph::default();
        for name in restored {
            let restore = || Node::Restore((*name).clone());
            let service = &self.spec.services[*name];
            for before in service.after.iter().chain(self.opens(&service.source)).filter(|it| restored.contains(it)) {
                graph.edge(Node::Restore(before.clone()), restore());
            }
            if service.source.needs_docker() {
                self.place_in_containers(name, &service.source, (model, started), &mut graph)?;
            } else if !started.is_empty() {
                // Compose reads its files, and containers mount others.
                graph.edge(restore(), Node::Create);
            }
            graph.edge(restore(), Node::Verify);
        }
        if let Some(model) = model {
            self.start_edges(model, started, restored, &mut graph);
        }
        Ok(graph)
    }

    /// Where a service's restore stands among the containers.
    fn place_in_containers(
        &self,
        name: &ServiceName,
        source: &Source,
        (model, started): (Option<&ComposeModel>, &BTreeSet<String>),
        graph: &mut Graph,
    ) -> Result<(), PlanError> {
        let restore = || Node::Restore(name.clone());
        if model.is_some() {
            graph.edge(Node::Create, restore());
        }
        let seen = self.observation.containers.get(name).and_then(Observed::known);
        // Of several of one service each stands there by its own name.
        let is_of = |container: &str, state: &ContainerState| {
            state.compose_service().is_some_and(|service| service == container)
        };
        let is_gone = |container: &str| {
            seen.is_none_or(|seen| !seen.contains_key(container) && !seen.values().any(|state| is_of(container, state)))
        };
        for container in source.containers() {
            match model.and_then(|model| model.service(container)) {
                // A server takes its data while it runs; a volume is filled before its writers start.
                Some(service) if serves(source) => graph.edge(Node::Start(service.to_owned()), restore()),
                Some(service) => graph.edge(restore(), Node::Start(service.to_owned())),
                // One that is only stopped meanwhile writes nothing where nobody makes it: it was renamed, or is of a profile that
                // is not in use.
                None if is_gone(container) && lives_in(source, container) => {
                    return Err(match self.unread_compose() {
                        Some(reason) => PlanError::UnreadCompose { reason: reason.to_owned() },
                        None => PlanError::NoMaker { service: name.clone(), container: container.to_owned() },
                    });
                }
                None => {}
            }
        }
        if let (Source::Volume(volume), Some(model)) = (source, model) {
            // A job of a profile that was never in use may mount it too, and is not started for that.
            let mounting = volume.volume.iter().flat_map(|volume| model.mounting(volume));
            for service in mounting.filter(|service| started.contains(*service)) {
                graph.edge(restore(), Node::Start(service.to_owned()));
            }
        }
        Ok(())
    }

    /// The Vault of the file, where a source's secrets lie in it.
    fn opens(&self, source: &Source) -> impl Iterator<Item = &'a ServiceName> + use<'a> {
        let needs = source.reads_from_vault();
        let vaults = self.spec.services.iter().filter(|(_, service)| matches!(service.source, Source::Vault(_)));
        vaults.filter(move |_| needs).map(|(name, _)| name)
    }

    fn start_edges(
        &self,
        model: &ComposeModel,
        started: &BTreeSet<String>,
        restored: &BTreeSet<&'a ServiceName>,
        graph: &mut Graph,
    ) {
        // Whose data lies in a Compose service.
        let mut lives: BTreeMap<&str, Vec<&ServiceName>> = BTreeMap::new();
        for (name, service) in &self.spec.services {
            for at in service.source.containers().into_iter().filter_map(|it| model.service(it)) {
                lives.entry(at).or_default().push(name);
            }
        }
        let living = |service: &str| lives.get(service).into_iter().flatten().copied();
        for service in started {
            let start = || Node::Start(service.clone());
            graph.edge(Node::Create, start());
            graph.edge(start(), Node::Verify);
            let depends_on = model.services.get(service).into_iter().flat_map(|it| it.depends_on.keys());
            for before in depends_on.filter(|before| started.contains(*before)) {
                graph.edge(Node::Start(before.clone()), start());
                // Who depends on a server depends on what is in it.
                for data in living(before).filter(|name| restored.contains(name)) {
                    graph.edge(Node::Restore(data.clone()), start());
                }
            }
            let after = living(service).flat_map(|name| &self.spec.services[name].after);
            for before in after.filter(|name| restored.contains(name)) {
                graph.edge(Node::Restore(before.clone()), start());
            }
        }
    }
}

/// Whether the data lies in this container, and does not only hold it up.
fn lives_in(source: &Source, container: &str) -> bool {
    match source {
        Source::Volume(volume) => volume.container.as_deref() == Some(container),
        Source::Files(_) => false,
        source => source.containers().contains(&container),
    }
}
