//! What must still be true just before a step runs.

use std::time::{Duration, Instant};

use super::world::{World, now, repository_error, store_error};
use crate::apply::resume::Progress;
use crate::apply::runner::StepError;
use crate::model::ids::ServiceName;
use crate::model::observation::{Observed, ResticLock, SourceState};
use crate::model::outcome::FailureKind;
use crate::model::step::{Action, Precondition, Step};
use crate::repository::Presence;

/// A server that runs answers within this, or it never will.
const ANSWERS: Duration = Duration::from_secs(60);
/// Where a whole stack starts at once on a small machine, a look may take as long as that by itself. One that was cut off
/// says nothing of the server.
const LOOKS: u32 = 4;
/// After the first look; each next one is twice as far away, up to [`FURTHEST`]: looks are programs that cost the starting
/// servers time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
const FURTHEST: Duration = Duration::from_secs(4);

/// None: run it. Some(reason): it is done already. An error: the world is no longer what the plan was made for.
pub(super) fn check(world: &World, step: &Step) -> Result<Option<String>, StepError> {
    let before = world.resumed.get(&step.id);
    // What starts something may have to start it again; data that was put back is there.
    if before == Some(&Progress::Done) && is_done_once(&step.action) {
        return Ok(Some("it was done before the interruption".to_owned()));
    }
    for precondition in &step.preconditions {
        // What is there now was written by the step itself.
        let is_of_data =
            matches!(precondition, Precondition::SourceIsLost { .. } | Precondition::SourceHasNoData { .. });
        if is_of_data && before == Some(&Progress::Begun) {
            continue;
        }
        if let Some(done) = holds(world, precondition)? {
            return Ok(Some(done));
        }
    }
    Ok(None)
}

/// A second safety copy would be one of what the restore has begun to write.
fn is_done_once(action: &Action) -> bool {
    matches!(action, Action::Restore(_) | Action::Prove { .. } | Action::SafetyCopy(_) | Action::Clear { .. })
}

/// A server that was started a moment ago needs one to answer; one without a health check counts as started before that.
fn answered(world: &World, service: &ServiceName) -> Result<Observed<SourceState>, StepError> {
    let (since, mut looks, mut pause) = (Instant::now(), 0, BETWEEN_LOOKS);
    loop {
        let seen = world.engine(service)?.observe();
        looks += 1;
        let may_come = looks < LOOKS || since.elapsed() < ANSWERS;
        // One that listens nowhere by its own settings is taken at its word when the time is up.
        let is_settled = || !world.engine(service).is_ok_and(|engine| engine.is_being_set_up());
        if !may_come || (matches!(seen, Observed::Known(_)) && is_settled()) {
            return Ok(seen);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(FURTHEST);
    }
}

fn changed(text: String) -> StepError {
    StepError::new(FailureKind::NeedsReplan, format!("{text}; run `devstack plan` to see what that changes"))
}

/// What it left may hold the only copy of what was there before: nobody has approved to write over that.
fn unfinished(service: &ServiceName) -> StepError {
    changed(format!(
        "a restore into {service} was begun and has not ended, so nothing was written to it; to end it: \
         `devstack restore {service} --in-place`"
    ))
}

fn holds(world: &World, precondition: &Precondition) -> Result<Option<String>, StepError> {
    match precondition {
        Precondition::RepositoryAbsent { repository } => {
            let site = world.stores.site(repository).map_err(store_error)?;
            match site.look().map_err(repository_error)? {
                Presence::Absent => Ok(None),
                Presence::Present => Err(changed(format!("repository {repository} exists by now"))),
            }
        }
        Precondition::RepositoryIs { repository, id } => {
            let there = world.store(repository)?.id();
            if there == *id {
                Ok(None)
            } else {
                Err(changed(format!(
                    "repository {repository} is {} and the plan was made for {}",
                    there.short(),
                    id.short()
                )))
            }
        }
        Precondition::SlotOpen { repository, policy, slot } => {
            let facts = world.facts(repository)?;
            let served = facts.runs.iter().find(|run| run.serves(policy, *slot, now()));
            Ok(served.map(|run| format!("run {} has served this slot", run.manifest.run)))
        }
        Precondition::SourceHasData { service } => match world.engine(service)?.observe() {
            Observed::Known(SourceState::HasData { .. }) => Ok(None),
            Observed::Known(SourceState::Gone) => Err(StepError::new(
                FailureKind::Permanent,
                format!("{service} had data when the plan was made and is gone now; nothing was taken"),
            )),
            Observed::Known(SourceState::Empty) => Err(StepError::new(
                FailureKind::Permanent,
                format!("{service} had data when the plan was made and is empty now; nothing was taken"),
            )),
            // The take itself will say what is wrong with it, in the engine's own words.
            Observed::Known(SourceState::Broken | SourceState::Unfinished { .. }) | Observed::Unknown { .. } => {
                Ok(None)
            }
        },
        Precondition::SourceHasNoData { service } => match world.engine(service)?.observe() {
            Observed::Known(SourceState::Gone | SourceState::Empty) => Ok(None),
            Observed::Known(SourceState::Broken) => {
                Err(changed(format!("something damaged lies in the place of {service}, so nothing was written to it")))
            }
            Observed::Known(SourceState::HasData { .. }) => Err(changed(format!(
                "{service} had no data when the plan was made and has some now, so nothing was written to it"
            ))),
            Observed::Known(SourceState::Unfinished { .. }) => Err(unfinished(service)),
            Observed::Unknown { reason } => {
                Err(changed(format!("{service} cannot be looked at ({reason}), so nothing was written to it")))
            }
        },
        Precondition::SourceIsLost { service } => match answered(world, service)? {
            Observed::Known(SourceState::Gone | SourceState::Empty | SourceState::Broken) => Ok(None),
            Observed::Known(SourceState::HasData { .. }) => {
                Ok(Some(format!("{service} has data, now that it runs; it was left as it is")))
            }
            Observed::Known(SourceState::Unfinished { .. }) => Err(unfinished(service)),
            Observed::Unknown { reason } => {
                Err(changed(format!("{service} cannot be looked at ({reason}), so nothing was written to it")))
            }
        },
        Precondition::ContainersAre { service, containers } => {
            for (name, id) in containers {
                let now =
                    world.ground.containers.look_for(name).map_err(|error| StepError::new(error.kind(), error))?;
                match now {
                    Some(now) if now.id == *id => {}
                    Some(now) => {
                        return Err(changed(format!(
                            "{service}: the container {name} was replaced since the plan was made (now {}, image {})",
                            now.name, now.image
                        )));
                    }
                    None => {
                        return Err(changed(format!(
                            "{service}: the container {name} was there when the plan was made and is gone"
                        )));
                    }
                }
            }
            Ok(None)
        }
        Precondition::Verified { repository, runs } => {
            let facts = world.facts(repository)?;
            for wanted in runs {
                match facts.runs.iter().find(|run| run.manifest.run == *wanted) {
                    Some(run) if run.is_verified() => {}
                    Some(_) => return Err(changed(format!("run {wanted} in {repository} is no longer verified"))),
                    None => return Err(changed(format!("run {wanted} is no longer in {repository}"))),
                }
            }
            Ok(None)
        }
        Precondition::ShrinksAccepted { repository, policy } => {
            let facts = world.facts(repository)?;
            let suspect = facts.runs.iter().filter(|run| run.manifest.policy == *policy).find_map(|run| {
                let unaccepted = |service: &&ServiceName| {
                    !facts.accepted_shrinks.contains(&(run.manifest.run.clone(), (*service).clone()))
                };
                let shrunk = run.manifest.taken().filter(|(_, taken)| taken.suspect.is_some());
                shrunk
                    .map(|(service, _)| service)
                    .find(unaccepted)
                    .map(|service| (run.manifest.run.clone(), service.clone()))
            });
            match suspect {
                None => Ok(None),
                Some((run, service)) => Err(StepError::new(
                    FailureKind::NeedsReplan,
                    format!(
                        "{service} shrank in run {run}, so older runs are kept; look at it, then `devstack apply --approve accept:{service}`"
                    ),
                )),
            }
        }
        Precondition::RemovalsAccepted { repository } => {
            let removed = world.facts(repository)?.removed.len();
            if removed == 0 {
                return Ok(None);
            }
            Err(StepError::new(
                FailureKind::NeedsReplan,
                format!(
                    "{removed} runs were removed from {repository}, not by devstack, so nothing more is deleted there; if that is right: \
                     `devstack apply --yes --approve accept:removed:{repository}`"
                ),
            ))
        }
        Precondition::Exclusive { repository } => {
            let site = world.stores.site(repository).map_err(store_error)?;
            match site.restic_locks().map_err(repository_error)? {
                0 => Ok(None),
                count => {
                    let holders = world.store(repository)?.restic_locks().map_err(repository_error)?;
                    let holders = ResticLock::describe_all(count, &holders);
                    Err(StepError::transient(format!(
                        "repository {repository} must be had alone, and there is {holders}"
                    )))
                }
            }
        }
    }
}
