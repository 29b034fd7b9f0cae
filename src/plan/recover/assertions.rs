//! What a recovery asserts at its end: all that the file says, or of a narrowed one what it says of what comes back.

use std::collections::BTreeSet;

use crate::model::assertion::{About, Assertion};
use crate::model::compose::ComposeModel;
use crate::plan::Planner;
use crate::plan::request::Recover;

impl Planner<'_> {
    /// `started` are the services of Compose that the recovery starts.
    pub(super) fn assertions(
        &self,
        asked: &Recover,
        model: Option<&ComposeModel>,
        started: &BTreeSet<String>,
    ) -> Vec<Assertion> {
        let declared = self.spec.recovery.iter().flat_map(|recovery| &recovery.assert);
        let concerned = |assertion: &&Assertion| match assertion.about() {
            _ if asked.only.is_empty() => true,
            About::Service(service) => asked.names(service),
            About::Container(name) => {
                let is_started = model.and_then(|model| model.service(name)).is_some_and(|it| started.contains(it));
                let named = asked.only.iter().filter_map(|name| self.spec.services.get(name));
                is_started || named.flat_map(|service| service.source.containers()).any(|container| container == name)
            }
        };
        declared.filter(concerned).cloned().collect()
    }
}
