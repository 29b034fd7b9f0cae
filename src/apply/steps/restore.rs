//! Putting one service's data back from one run.

use std::collections::BTreeMap;

use super::world::{World, engine_error, now, repository_error};
use super::{assertions, safety, stack};
use crate::apply::runner::{StepContext, StepError};
use crate::engines::{self, Work};
use crate::model::assertion::{About, Assertion};
use crate::model::damage::{Damaged, Looked, Subject};
use crate::model::evidence::{Level, Proof, Verdict};
use crate::model::ids::{RunId, ServiceName, SnapshotId};
use crate::model::outcome::{Done, FailureKind};
use crate::model::record::Record;
use crate::model::run::{RECORD_FORMAT, ServiceResult};
use crate::model::step::{Restore, RestoreTarget};
use crate::model::units::{ByteSize, Span};

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
    let restored = engine.restore(&reader, taken, &restore.target, &work).map_err(|error| match error.damage() {
        Some((subject, found)) => remembered(world, restore, subject, found),
        None => with_what_stopped(world, &restore.service, engine_error(error)),
    })?;
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

/// Damage that a restore meets is a fact of the repository, as if a verification had met it: no look is green over it, and no
/// recovery chooses it, until the same bytes are read well.
fn remembered(world: &World, restore: &Restore, subject: Option<Subject>, found: String) -> StepError {
    let Restore { repository, service, run, snapshot, .. } = restore;
    let text = format!("run {run} in {repository} is damaged: {found}");
    // A drill holds no lease, and has a record of its own.
    let kept = if world.lease.is_none() {
        Ok(())
    } else if !world.is_recorded(repository) {
        Err("the repository can't be written here".to_owned())
    } else {
        let kept = match subject {
            Some(subject) => world.check_lease(repository).and_then(|()| {
                let damaged = Damaged { subject, found, at: now() };
                let store = world.store(repository)?;
                store.note_damage(&world.spec.stack, &Looked::default(), vec![damaged]).map_err(repository_error)
            }),
            None => world.record(repository, &Record::Proof(failed(run, snapshot, service, &found)), &[]),
        };
        world.forget_facts(repository);
        kept.map_err(|error| error.to_string())
    };
    match kept {
        Ok(()) => StepError::damage(text),
        Err(why) => StepError::damage(format!("{text} (not put on record: {why})")),
    }
}

/// What a restore has read says nothing of the rest of the run.
fn failed(run: &RunId, snapshot: &SnapshotId, service: &ServiceName, found: &str) -> Proof {
    Proof {
        format: RECORD_FORMAT,
        run: run.clone(),
        at: now(),
        took: Span::ZERO,
        read: ByteSize(0),
        levels: [(Level::Artifacts, Verdict::Failed(vec![format!("{service}: {found}")]))].into(),
        services: BTreeMap::new(),
        notes: Vec::new(),
        snapshots: vec![snapshot.clone()],
    }
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
