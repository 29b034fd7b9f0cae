//! Being written.

use super::{Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work};
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::repository::Reader;
use crate::spec::file::MysqlSource;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Mysql,
    Mariadb,
}

pub(super) struct Mysql {
    source: MysqlSource,
    ground: Ground,
    flavour: Flavour,
}

impl Mysql {
    pub(super) fn new(source: &MysqlSource, flavour: Flavour, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone(), flavour }
    }
}

impl Engine for Mysql {
    fn observe(&self) -> Observed<SourceState> {
        let _ = (&self.source, &self.ground);
        Observed::Unknown { reason: "not written yet".to_owned() }
    }

    fn take(&self, _: TakeRequest<'_>, _: &Work<'_>) -> Result<Taken, EngineError> {
        Err(EngineError::Refused { what: "not written yet".to_owned() })
    }

    fn prove(&self, _: &Reader, _: &Taken, _: &Work<'_>) -> Result<Proven, EngineError> {
        Err(EngineError::Refused { what: "not written yet".to_owned() })
    }

    fn restore(&self, _: &Reader, _: &Taken, _: &RestoreTarget, _: &Work<'_>) -> Result<Restored, EngineError> {
        Err(EngineError::Refused { what: "not written yet".to_owned() })
    }
}
