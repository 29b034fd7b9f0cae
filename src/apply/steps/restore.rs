//! Putting one service's data back from one run.

use super::world::{World, engine_error, repository_error};
use super::{assertions, safety, stack};
use crate::apply::runner::{StepContext, StepError};
use crate::engines::{self, Work};
use crate::model::assertion::{About, Assertion};
use crate::model::ids::ServiceName;
use crate::model::outcome::{Done, FailureKind};
use crate::model::run::ServiceResult;
use crate::model::step::{Restore, RestoreTarget};

/// Where a safety copy was made, a restore that fails leaves what was there before.
pub(super) fn restore(world: &World, restore: &Restore, context: &StepContext<'_>) -> Result<Done, StepError> {
    let restored = put(world, restore, context);
    restored.map_err(|failed| safety::put_back(world, restore, failed))
}

fn put(world: &World, restore: &Restore, context: &StepContext<'_>) -> Result<Done, StepError> {
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
    // What a safety copy holds is put back as it was taken, and not by its server's engine.
    let engine = engines::of_taken(taken, world.source(&restore.service)?, &world.ground);
    let restored = engine
        .restore(&reader, taken, &restore.target, &work)
        .map_err(|error| with_what_stopped(world, &restore.service, engine_error(error)))?;
    let mut advice = restored.notes;
    if held.manifest.policy.is_safety() && matches!(restore.target, RestoreTarget::InPlace) {
        advice.extend(safety::as_before(world, &restore.service, &context.cancel)?);
    }
    if restore.safety.is_some() && !held.manifest.policy.is_safety() && !taken.empty {
        stack::holds_data(world, &restore.service)?;
        assertions::hold(world, &asserted(world, &restore.service), &context.cancel)?;
    }
    Ok(Done {
        bytes: restored.bytes,
        summary: format!("{} to {}", restored.bytes, restored.to),
        advice,
        ..Done::default()
    })
}

/// A server that dies takes the client that restores along, and all that the client tells is that it was killed.
fn with_what_stopped(world: &World, service: &ServiceName, failed: StepError) -> StepError {
    let Ok(source) = world.source(service) else { return failed };
    let found = source.containers().into_iter().filter_map(|name| world.ground.containers.look_for(name).ok()?);
    // What devstack stops itself ends with 0.
    let died = found.filter(|container| !container.running && container.exit_code != 0);
    let died: Vec<String> = died
        .map(|it| {
            let killed = if it.exit_code == 137 { ", killed, perhaps for want of memory" } else { "" };
            format!(
                "the container {} stopped meanwhile (exit code {}{killed}; see `docker logs {}`)",
                it.name, it.exit_code, it.name
            )
        })
        .collect();
    match died.is_empty() {
        true => failed,
        false => StepError::new(failed.kind, format!("{}: {failed}", died.join("; "))),
    }
}

/// What the file asserts of a service alone. What it asserts of containers may need others, and is asked at the end.
fn asserted(world: &World, service: &ServiceName) -> Vec<Assertion> {
    let declared = world.spec.recovery.iter().flat_map(|recovery| &recovery.assert);
    declared.filter(|it| matches!(it.about(), About::Service(of) if of == service)).cloned().collect()
}
