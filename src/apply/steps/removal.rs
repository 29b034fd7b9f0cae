//! What takes away: forgetting runs and pruning packs. Each is alone in the repository and reads again before it deletes.

use super::preconditions;
use super::world::{World, repository_error};
use crate::apply::lease::ExclusiveGuard;
use crate::apply::runner::{StepContext, StepError};
use crate::model::ids::{RepositoryName, RunId};
use crate::model::outcome::{Done, FailureKind};
use crate::model::retention::PRUNE_GRACE;
use crate::model::step::Step;

impl World {
    /// No other stack works in the repository while the guard lives.
    pub(super) fn exclusive(&self, repository: &RepositoryName) -> Result<ExclusiveGuard, StepError> {
        match &self.lease {
            Some(lease) => lease.exclusive(repository).map_err(|error| StepError::new(FailureKind::Transient, error)),
            None => Err(StepError::new(
                FailureKind::Permanent,
                format!("repository {repository} is to be cleaned without a lease; this is a fault in devstack"),
            )),
        }
    }
}

pub(super) fn forget(
    world: &World,
    step: &Step,
    repository: &RepositoryName,
    runs: &[RunId],
    context: &StepContext<'_>,
) -> Result<Done, StepError> {
    let alone = world.exclusive(repository)?;
    world.forget_facts(repository);
    // Asked again with the repository to ourselves: every verified run that is to stay is there, and verified.
    preconditions::check(world, step)?;
    let facts = world.facts(repository)?;
    let store = world.store(repository)?;
    // Before anything goes: what devstack itself forgets nobody misses, whatever interrupts the rest.
    store.tally_remove(&world.spec.stack, runs).map_err(repository_error)?;
    let mut forgotten = 0;
    let mut freed = crate::model::units::ByteSize(0);
    for run in runs {
        if context.cancel.is_cancelled() {
            return Err(StepError::new(
                FailureKind::Permanent,
                format!("interrupted after {forgotten} of {} runs", runs.len()),
            ));
        }
        let Some(held) = facts.runs.iter().find(|known| known.manifest.run == *run) else { continue };
        alone.check().map_err(|error| StepError::new(FailureKind::Locked, error))?;
        // The manifest comes first: from then on the run is no longer one, whatever interrupts the rest.
        let snapshots = store.snapshots_of(&world.spec.stack, run).map_err(repository_error)?;
        store.forget(&snapshots).map_err(repository_error)?;
        world.forget_facts(repository);
        freed = freed + held.manifest.taken().map(|(_, taken)| taken.added).sum();
        forgotten += 1;
    }
    Ok(Done { summary: format!("{forgotten} runs; a prune frees up to {freed}"), ..Done::default() })
}

/// Somebody else has removed these runs, and somebody has said that it is right: they are missed no longer.
pub(super) fn accept(world: &World, repository: &RepositoryName, runs: &[RunId]) -> Result<Done, StepError> {
    world.check_lease(repository)?;
    world.store(repository)?.tally_remove(&world.spec.stack, runs).map_err(repository_error)?;
    world.forget_facts(repository);
    Ok(Done { summary: format!("{} runs are no longer missed", runs.len()), ..Done::default() })
}

pub(super) fn prune(world: &World, repository: &RepositoryName) -> Result<Done, StepError> {
    let alone = world.exclusive(repository)?;
    alone.check().map_err(|error| StepError::new(FailureKind::Locked, error))?;
    let pruned = world.store(repository)?.prune(PRUNE_GRACE).map_err(repository_error)?;
    world.forget_facts(repository);
    Ok(Done {
        summary: format!("{} marked, {} freed", pruned.marked, pruned.freed),
        advice: Vec::new(),
        ..Done::default()
    })
}
