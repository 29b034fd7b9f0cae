//! The worst day, thought out: the repositories are as they are, and nothing else of the stack is left.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::observation::{Observation, Observed, SourceState};
use crate::spec::file::Spec;

/// What would be seen if everything but the repositories were gone.
pub fn as_if_lost(spec: &Spec, seen: &Observation) -> Observation {
    Observation {
        engine: None,
        services: spec.services.keys().map(|name| (name.clone(), Observed::Known(SourceState::Gone))).collect(),
        containers: spec
            .services
            .iter()
            .filter(|(_, service)| !service.source.containers().is_empty())
            .map(|(name, _)| (name.clone(), Observed::Known(BTreeMap::new())))
            .collect(),
        certificates: BTreeMap::new(),
        holding: BTreeMap::new(),
        login: None,
        projects: None,
        left_stopped: Vec::new(),
        // What the Compose files say is then known from the run.
        compose: None,
        // Of what a run lacks its own manifest tells.
        stack: None,
        up: Some(Observed::Known(BTreeSet::new())),
        ..seen.clone()
    }
}
