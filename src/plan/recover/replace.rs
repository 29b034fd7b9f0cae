//! What a recovery overwrites: copied first, emptied where its server no longer starts, and held like every restore in place.

use std::collections::BTreeMap;

use super::graph::{Graph, Node};
use super::{Fate, serves};
use crate::model::compose::ComposeModel;
use crate::model::ids::{RunId, ServiceName};
use crate::model::step::{Effect, Precondition, RestoreTarget};
use crate::model::units::Span;
use crate::plan::Planner;
use crate::plan::draft::NewStep;
use crate::plan::request::{Recover, Selection};
use crate::plan::restore::Found;

impl<'a> Planner<'a> {
    /// Copies come before whatever overwrites.
    pub(super) fn safety_edges(
        &self,
        asked: &Recover,
        fates: &BTreeMap<&'a ServiceName, Fate<'a>>,
        model: Option<&ComposeModel>,
        graph: &mut Graph,
    ) {
        for (name, fate) in fates {
            let Fate::Replaced { cleared, .. } = fate else { continue };
            let name = || (*name).clone();
            let source = &self.spec.services[&name()].source;
            let mut chain: Vec<Node> = Vec::new();
            chain.extend(asked.safety.then(|| Node::Safety(name())));
            chain.extend(cleared.then(|| Node::Clear(name())));
            if let (Some(first), true) = (chain.first(), source.needs_docker() && model.is_some()) {
                // Made, not started: its container says which volumes are its own.
                graph.edge(Node::Create, first.clone());
            }
            if let (Some(last), true) = (chain.last(), serves(source)) {
                // Nothing starts a server meanwhile that is stopped for the copy, or that is to begin empty.
                let lives = source.containers().into_iter().filter_map(|it| model.and_then(|model| model.service(it)));
                for service in lives {
                    graph.edge(last.clone(), Node::Start(service.to_owned()));
                }
            }
            for pair in chain.windows(2) {
                graph.edge(pair[0].clone(), pair[1].clone());
            }
            for before in chain {
                graph.edge(before, Node::Restore(name()));
            }
        }
    }

    pub(super) fn replace_step(
        &self,
        name: &ServiceName,
        found: &Found<'a>,
        cleared: bool,
        safety: Option<RunId>,
        asked: &Recover,
    ) -> NewStep {
        let way_back = if safety.is_some() { "copied first" } else { "NOT copied first" };
        // Of one that was emptied there is nothing any more that could be overwritten.
        let (target, given, what) = match cleared {
            true => (
                RestoreTarget::Missing,
                Some(Precondition::SourceIsLost { service: name.clone() }),
                format!("begins anew; what is there is {way_back}"),
            ),
            false => {
                let what = match asked.unfinished.contains(name) {
                    true => "its restore did not come to its end; what is there is overwritten",
                    false => "overwrites live data",
                };
                (RestoreTarget::InPlace, self.same_containers(name), format!("{what}, {way_back}"))
            }
        };
        let step = self.restore_step(name, found, &target, &asked.selection, asked.from.as_ref(), safety);
        self.held_for(name, found, asked, &what, step.effect(Effect::OverwritesData).given(given))
    }

    /// Held by a word of its own where the run is older than may be lost; else only where it overwrites: what is gone comes back
    /// by the yes that the whole recovery is given.
    pub(super) fn held_for(
        &self,
        name: &ServiceName,
        found: &Found<'a>,
        asked: &Recover,
        what: &str,
        step: NewStep,
    ) -> NewStep {
        let overwrites = step.effect_so_far() >= Effect::OverwritesData;
        let age = Span::between(found.run.started, self.now);
        // Who says `latest` knows of no time either.
        let is_age_unknown = matches!(asked.selection, Selection::Newest | Selection::Latest);
        let late = self.spec.rpo_of(name).filter(|rpo| age > *rpo && is_age_unknown);
        let old = late.map(|rpo| format!("its newest good run is {age} old, and no more than {rpo} may be lost"));
        match (overwrites, old) {
            (false, None) => step.because(what),
            (false, Some(old)) => step.held(format!("age:{name}"), format!("{old}; --accept-age takes it")),
            (true, None) => step.held(format!("restore:{name}"), what),
            // Who says the harder word has read both.
            (true, Some(old)) => step.held(format!("restore:{name}"), format!("{what}; {old}")),
        }
    }
}
