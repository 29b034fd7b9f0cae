//! The way back: what is there is copied before it is overwritten, and put back where that fails.

use std::time::{Duration, Instant};

use super::proof;
use super::run::write_manifest;
use super::world::{World, engine_error, now, repository_error};
use crate::apply::runner::{StepContext, StepError};
use crate::engines::{self, TakeRequest, Work};
use crate::model::cancel::Cancel;
use crate::model::chain;
use crate::model::ids::{PolicyName, ServiceName};
use crate::model::observation::Observed;
use crate::model::outcome::{Done, FailureKind};
use crate::model::run::{Manifest, RECORD_FORMAT, Sealed, ServiceResult};
use crate::model::step::{Restore, RestoreTarget, SafetyCopy};
use crate::model::units::ByteSize;
use crate::repository::Tags;
use crate::spec::file::Source;

/// A server that was stopped for its copy answers again within this, as long as a recovery waits for one.
const ANSWERS: Duration = Duration::from_secs(300);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// One that was put back as it was may have been unwell then, and would never answer.
const ANSWERS_AS_BEFORE: Duration = Duration::from_secs(60);

/// Copied, sealed and read back. It is a run of its own, and what is restored afterwards waits for it.
pub(super) fn copy(world: &World, copy: &SafetyCopy, context: &StepContext<'_>) -> Result<Done, StepError> {
    world.check_lease(&copy.repository)?;
    let answered = matches!(world.engine(&copy.service)?.observe(), Observed::Known(_));
    // A try before this one may have come as far as that.
    let is_there = world.facts(&copy.repository)?.runs.iter().any(|held| held.manifest.run == copy.run);
    let (bytes, added) = if is_there { Default::default() } else { taken(world, copy, context)? };
    let proven = proof::prove(world, &copy.repository, &copy.run, context)?;
    if !proven.damage.is_empty() {
        let text = format!("the safety copy of {} can't be read back: {}", copy.service, proven.damage.join("; "));
        return Err(StepError::damage(text));
    }
    if answered {
        answers_again(world, &copy.service, &context.cancel)?;
    }
    Ok(Done { bytes, added, summary: format!("{bytes}, {added} new, as run {}", copy.run), ..Done::default() })
}

/// The plain bytes of it, and those that are new.
fn taken(world: &World, copy: &SafetyCopy, context: &StepContext<'_>) -> Result<(ByteSize, ByteSize), StepError> {
    let source = world.source(&copy.service)?;
    let store = world.store(&copy.repository)?;
    let policy = PolicyName::safety();
    let tags = Tags {
        stack: world.spec.stack.clone(),
        run: copy.run.clone(),
        service: copy.service.clone(),
        policy: policy.clone(),
    };
    let progress = |bytes| context.progress(bytes);
    let work = Work { cancel: &context.cancel, progress: &progress, rooms: &world.rooms };
    // Nothing at all is a state to come back to as well.
    let request = TakeRequest { store: &store, tags, at: now(), parent: None, allow_empty: true };
    let taken = engines::safety_of(source, &world.ground).take(request, &work).map_err(|error| {
        let kind = error.kind();
        let text = format!(
            "no safety copy of {} could be made, so nothing was touched: {}; to do without one: --without-safety",
            copy.service,
            chain(&error)
        );
        StepError::new(kind, text)
    })?;
    let (bytes, added) = (taken.bytes(), taken.added);
    let manifest = Manifest {
        format: RECORD_FORMAT,
        stack: world.spec.stack.clone(),
        run: copy.run.clone(),
        policy,
        slot: None,
        // The same for every copy of one plan: what belongs together is put back together.
        started: world.plan.now,
        finished: now(),
        expected: vec![copy.service.clone()],
        services: [(copy.service.clone(), ServiceResult::Taken(taken))].into(),
        parent: None,
        base: copy.run.clone(),
        spec_digest: world.spec_digest(),
        devstack_version: env!("CARGO_PKG_VERSION").to_owned(),
        sealed: Sealed::ByItsApply,
        compose: None,
        origin: world.origin.clone(),
        unprotected: None,
        hooks: Vec::new(),
    };
    let text = [("devstack.yaml".to_owned(), world.spec_text.clone().into_bytes())];
    write_manifest(world, &copy.repository, manifest, &text)?;
    Ok((bytes, added))
}

/// What is restored next may need the server that was stopped for the copy. One that was unwell before is not waited for.
fn answers_again(world: &World, service: &ServiceName, cancel: &Cancel) -> Result<(), StepError> {
    match silence(world, service, cancel, ANSWERS)? {
        None => Ok(()),
        Some(reason) => {
            let text = format!("{service} does not answer after its safety copy, for which it was stopped: {reason}");
            Err(StepError::new(FailureKind::Permanent, text))
        }
    }
}

/// What was put back raw is started again, and whoever asks it next is not to be refused. What is said of one that does not
/// answer is advice: it has what it had.
pub(super) fn as_before(world: &World, service: &ServiceName, cancel: &Cancel) -> Result<Option<String>, StepError> {
    // A Vault is sealed when it is started.
    if matches!(world.source(service)?, Source::Vault(_)) {
        return Ok(None);
    }
    let silent = silence(world, service, cancel, ANSWERS_AS_BEFORE)?;
    Ok(silent.map(|reason| format!("{service} has what it had before, and does not answer: {reason}")))
}

/// Why a service does not answer; None once it does.
fn silence(
    world: &World,
    service: &ServiceName,
    cancel: &Cancel,
    longest: Duration,
) -> Result<Option<String>, StepError> {
    let since = Instant::now();
    loop {
        let Observed::Unknown { reason } = world.engine(service)?.observe() else { return Ok(None) };
        if cancel.is_cancelled() {
            return Err(StepError::transient("interrupted"));
        }
        if since.elapsed() > longest || has_ended(world, service)? {
            return Ok(Some(reason));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// None of its containers runs or is about to.
fn has_ended(world: &World, service: &ServiceName) -> Result<bool, StepError> {
    let containers = world.source(service)?.containers().into_iter();
    let mut found = containers.filter_map(|name| world.ground.containers.look_for(name).ok().flatten()).peekable();
    Ok(found.peek().is_some() && found.all(|it| matches!(it.state.as_str(), "exited" | "dead")))
}

pub(super) fn clear(world: &World, service: &ServiceName) -> Result<Done, StepError> {
    engines::clear(world.source(service)?, &world.ground).map_err(engine_error)?;
    Ok(Done { summary: "its volumes are empty, and it is stopped".to_owned(), ..Done::default() })
}

/// Puts back what a failed restore has overwritten. What is said afterwards tells both.
pub(super) fn put_back(world: &World, restore: &Restore, failed: StepError) -> StepError {
    let Some(run) = &restore.safety else { return failed };
    let (kind, failed) = (failed.kind, chain(&*failed.source));
    let text = match try_to_put_back(world, restore) {
        Ok(()) => format!("{failed}; {} has what it had before again, from its safety copy {run}", restore.service),
        Err(error) => format!(
            "{failed}; and what {} had before could not be put back: {}; it is in run {run}: \
             `devstack recover --rollback`",
            restore.service,
            chain(&*error.source)
        ),
    };
    StepError::new(kind, text)
}

fn try_to_put_back(world: &World, restore: &Restore) -> Result<(), StepError> {
    let Some(run) = &restore.safety else { return Ok(()) };
    let held = world.run(&restore.repository, run)?;
    let Some(taken) = held.manifest.taken_of(&restore.service) else {
        return Err(StepError::new(FailureKind::Permanent, format!("run {run} does not hold it")));
    };
    let reader = world.store(&restore.repository)?.reader().map_err(repository_error)?;
    // Whoever has interrupted the restore wants it to be undone all the more.
    let work = Work { cancel: &Cancel::new(), progress: &|_| {}, rooms: &world.rooms };
    let engine = engines::of_taken(taken, world.source(&restore.service)?, &world.ground);
    drop(engine.restore(&reader, taken, &RestoreTarget::InPlace, &work).map_err(engine_error)?);
    as_before(world, &restore.service, &Cancel::new()).map(drop)
}
