//! Putting one service's data back from one run.

use super::world::{World, engine_error, repository_error};
use crate::apply::runner::{StepContext, StepError};
use crate::engines::Work;
use crate::model::outcome::{Done, FailureKind};
use crate::model::run::ServiceResult;
use crate::model::step::Restore;

pub(super) fn restore(world: &World, restore: &Restore, context: &StepContext<'_>) -> Result<Done, StepError> {
    let held = world.run(&restore.repository, &restore.run)?;
    let Some(ServiceResult::Taken(taken)) = held.manifest.services.get(&restore.service) else {
        return Err(StepError::new(
            FailureKind::NeedsReplan,
            format!(
                "run {} does not hold {}; `devstack show {}` lists what it holds",
                restore.run, restore.service, restore.run
            ),
        ));
    };
    let reader = world.store(&restore.repository)?.reader().map_err(repository_error)?;
    let progress = |bytes| context.progress(bytes);
    let work = Work { cancel: &context.cancel, progress: &progress, rooms: &world.rooms };
    let restored =
        world.engine(&restore.service)?.restore(&reader, taken, &restore.target, &work).map_err(engine_error)?;
    Ok(Done {
        bytes: restored.bytes,
        summary: format!("{} to {}", restored.bytes, restored.to),
        advice: restored.notes,
        ..Done::default()
    })
}
