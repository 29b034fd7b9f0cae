//! The drill's containers under the names that devstack.yaml gives to the live ones: answered by the table of what was made,
//! and never by asking the engine for a live name.

use super::id::{DrillId, LABEL};
use super::isolation::Provided;
use crate::runtime::StandIn;

/// The drill's names.
pub(super) struct Names {
    pub id: DrillId,
    pub provided: Provided,
}

impl StandIn for Names {
    fn project(&self) -> &str {
        self.id.as_str()
    }

    fn label(&self) -> (&str, &str) {
        (LABEL, self.id.as_str())
    }

    fn service_for(&self, container: &str) -> Option<String> {
        self.provided.service_for(container).map(str::to_owned)
    }

    fn volume_for(&self, volume: &str) -> Option<String> {
        self.provided.volume_for(volume).map(str::to_owned)
    }
}
