//! Bringing up what containers run on.

use std::time::{Duration, Instant};

use super::world::World;
use crate::apply::runner::StepError;
use crate::model::cancel::Cancel;
use crate::model::outcome::Done;
use crate::runtime::{Colima, run_program};

/// An engine with many containers to bring up answers late.
const ANSWERS: Duration = Duration::from_secs(120);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

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

/// Starts the engine as it is declared, and waits until it answers: who has started it says only that it was told to.
pub(super) fn start_docker(world: &World, command: &[String], cancel: &Cancel) -> Result<Done, StepError> {
    let failed = |error: crate::runtime::RuntimeError| StepError::new(error.kind(), error);
    run_program(command).map_err(failed)?;
    let since = Instant::now();
    loop {
        match world.ground.containers.docker() {
            Ok(docker) => {
                let summary = format!("the engine answers at {}", docker.address());
                return Ok(Done { summary, ..Done::default() });
            }
            Err(error) if since.elapsed() > ANSWERS => return Err(failed(error)),
            Err(_) if cancel.is_cancelled() => return Err(StepError::transient("interrupted")),
            Err(_) => std::thread::sleep(BETWEEN_LOOKS),
        }
    }
}
