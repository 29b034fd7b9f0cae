//! Bringing up what containers run on.

use super::world::World;
use crate::apply::runner::StepError;
use crate::model::outcome::Done;
use crate::runtime::Colima;

/// Starts Colima as it is declared, and waits until an engine answers.
pub(super) fn start_colima(world: &World) -> Result<Done, StepError> {
    let declared = world.spec.runtime.as_ref().and_then(|runtime| runtime.colima.clone()).unwrap_or_default();
    let failed = |error: crate::runtime::RuntimeError| StepError::new(error.kind(), error);
    let had_to = Colima::new(declared).start().map_err(failed)?;
    let docker = world.ground.containers.docker().map_err(failed)?;
    let summary = match had_to {
        true => format!("the engine answers at {}", docker.address()),
        false => format!("ran already; the engine answers at {}", docker.address()),
    };
    Ok(Done { summary, ..Done::default() })
}
