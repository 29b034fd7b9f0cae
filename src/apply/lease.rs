//! The stack's lease: an object, put if absent, in every repository that is written. Stacks share a repository; two
//! applies of one stack do not, and what deletes shares with nobody.
//!
//! Safety rests on putting first and looking afterwards, on both sides: of two who put at once at least one sees the
//! other. Expiry compares the clocks of two machines, which must agree to within [`EXPIRY`] less [`HEARTBEAT`]; what
//! deletes therefore reads its lease again with [`Lease::check`] before each deletion.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::clock::Clock;
use super::host::Holder;
use super::retry::jitter;
use super::runner::StepError;
use crate::model::cancel::Cancel;
use crate::model::ids::{LeaseId, RepositoryName, StackName};
use crate::model::outcome::FailureKind;
use crate::model::units::Span;
use crate::repository::objects::Objects;

mod heartbeat;
mod record;
mod unlock;

use heartbeat::Held;
use record::{Body, Kind, Seen, survey};
pub use unlock::{UnlockError, list, unlock};

/// How often a lease is renewed: one small write, so that a repository far away is not kept busy.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// A lease that was not renewed for so long is over. Five beats in a row must fail before it is, so that one slow answer
/// of a store costs no apply; and after the loss of a machine another one waits a minute, which nobody notices.
pub const EXPIRY: Span = Span::from_secs(60);

/// How often the first of several who came at once looks whether the others have gone, as they will.
const LOOKS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(
        "repository {repository}: {other} is at work on this stack; wait for it, or if it is certainly gone run `devstack unlock {id}`"
    )]
    Locked { repository: RepositoryName, other: String, id: LeaseId },
    #[error(
        "repository {repository} must be had alone, and {other} is using it; try again when it is done, or if it is certainly gone run `devstack unlock {id}`"
    )]
    Busy { repository: RepositoryName, other: String, id: LeaseId },
    #[error("the lease on repository {repository} was lost: {why}; nothing more is changed, run `devstack plan` again")]
    Lost { repository: RepositoryName, why: String },
    #[error(
        "the lease in repository {repository} could not be {act}; check that the repository can be reached and written"
    )]
    Store {
        repository: RepositoryName,
        act: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("this apply holds no lease on repository {repository}; this is a fault of devstack")]
    NotHeld { repository: RepositoryName },
    #[error("no lease could be made: the system gave no thread or random number; try again when it is less busy")]
    System(#[source] io::Error),
}

impl LeaseError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Locked { .. } => FailureKind::Locked,
            // Another stack's use passes.
            Self::Busy { .. } | Self::Store { .. } | Self::System(_) => FailureKind::Transient,
            Self::Lost { .. } | Self::NotHeld { .. } => FailureKind::Permanent,
        }
    }
}

impl From<LeaseError> for StepError {
    fn from(error: LeaseError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// The stack's lease on some repositories, renewed in the background until it is released or dropped.
#[must_use = "dropping it releases it"]
pub struct Lease {
    held: Arc<Held>,
    heartbeat: Option<JoinHandle<()>>,
}

impl Lease {
    /// Takes the lease in all of `objects`, in the order of their names, or in none. Blocks on the stores.
    ///
    /// `cancel` is set when the lease is lost.
    pub fn acquire(
        objects: Vec<(RepositoryName, Arc<dyn Objects>)>,
        who: &Holder,
        stack: &StackName,
        clock: Arc<dyn Clock>,
        cancel: Cancel,
    ) -> Result<Self, LeaseError> {
        Self::acquire_with(objects, who, stack, clock, cancel, HEARTBEAT)
    }

    fn acquire_with(
        objects: Vec<(RepositoryName, Arc<dyn Objects>)>,
        who: &Holder,
        stack: &StackName,
        clock: Arc<dyn Clock>,
        cancel: Cancel,
        interval: Duration,
    ) -> Result<Self, LeaseError> {
        let id = random_id()?;
        let objects: BTreeMap<_, _> = objects.into_iter().collect();
        let held = Held::new(id, stack.clone(), who.clone(), objects, clock, cancel);
        // From here on a drop releases what was taken: all or none.
        let mut lease = Self { held: Arc::new(held), heartbeat: None };
        for repository in lease.held.repositories() {
            take(&lease.held, repository)?;
        }
        let held = lease.held.clone();
        let thread = std::thread::Builder::new().name("lease".into()).spawn(move || held.beat_until_stopped(interval));
        lease.heartbeat = Some(thread.map_err(LeaseError::System)?);
        Ok(lease)
    }

    pub fn id(&self) -> &LeaseId {
        &self.held.id
    }

    /// It was removed, taken over, or could not be renewed in time: nothing more may be changed.
    pub fn lost(&self) -> bool {
        self.held.loss().is_some()
    }

    /// Reads the lease again: still there, ours, and not expired. To be called before each deletion.
    pub fn check(&self, repository: &RepositoryName) -> Result<(), LeaseError> {
        self.held.check(repository, Kind::Shared)
    }

    /// Alone in a repository, among all stacks, until the guard is dropped.
    pub fn exclusive(&self, repository: &RepositoryName) -> Result<ExclusiveGuard, LeaseError> {
        self.held.put(repository, Kind::Exclusive)?;
        // Made before the look, so that each way out of here takes the object away again.
        let guard = ExclusiveGuard { held: self.held.clone(), repository: repository.clone() };
        let others = survey_others(&self.held, repository)?;
        match others.first() {
            None => Ok(guard),
            Some(other) => {
                Err(LeaseError::Busy { repository: repository.clone(), other: other.describe(), id: other.id.clone() })
            }
        }
    }

    /// Stops renewing and takes the lease away everywhere. An error says where it stays until it expires.
    pub fn release(mut self) -> Result<(), LeaseError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LeaseError> {
        self.held.stop();
        if let Some(thread) = self.heartbeat.take() {
            // A beat that panicked has renewed nothing since: the objects are taken away like any others.
            if thread.join().is_err() {
                tracing::error!("the lease's heartbeat died; this is a fault of devstack, please report it");
            }
        }
        self.held.take_away_all()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("{}; it ends by itself within {EXPIRY}", StepError::from(error));
        }
    }
}

/// Exclusive use of one repository, until it is dropped. The lease must be kept as long.
#[must_use = "dropping it lets others in"]
pub struct ExclusiveGuard {
    held: Arc<Held>,
    repository: RepositoryName,
}

impl ExclusiveGuard {
    /// Both the lease and the exclusive use are still there and ours. To be called before each deletion.
    pub fn check(&self) -> Result<(), LeaseError> {
        self.held.check(&self.repository, Kind::Shared)?;
        self.held.check(&self.repository, Kind::Exclusive)
    }
}

impl Drop for ExclusiveGuard {
    fn drop(&mut self) {
        if let Err(error) = self.held.take_away(&self.repository, Kind::Exclusive) {
            tracing::warn!("{}; it ends by itself within {EXPIRY}", StepError::from(error));
        }
    }
}

/// Puts the stack's lease into one repository, or says who is in the way.
///
/// Of several who come at once, the one with the smallest (time, id) stays and looks again until the others have gone;
/// the others go at once. Nobody holds it before a look that showed nobody else, so a holder's lease that is not the
/// smallest is safe as well: the smaller one gives up.
fn take(held: &Held, repository: &RepositoryName) -> Result<(), LeaseError> {
    if let Some(error) = in_the_way(held, repository, &survey_others(held, repository)?) {
        return Err(error);
    }
    let ours = (held.put(repository, Kind::Shared)?, held.id.clone());
    for look in 1.. {
        let others = survey_others(held, repository)?;
        let Some(error) = in_the_way(held, repository, &others) else { break };
        let first = rivals(held, &others).all(|other| other.order().is_some_and(|order| ours < order));
        if !first || matches!(error, LeaseError::Busy { .. }) || look == LOOKS {
            // What was put goes with the lease.
            return Err(error);
        }
        std::thread::sleep(FIRST_PAUSE.saturating_mul(1 << look).mul_f64(jitter()));
    }
    Ok(())
}

/// Everything live in a repository that is not of this lease. What is dead is deleted.
fn survey_others(held: &Held, repository: &RepositoryName) -> Result<Vec<Seen>, LeaseError> {
    let store = |act| move |source| LeaseError::Store { repository: repository.clone(), act, source };
    let objects = held.objects(repository)?;
    let mut others = Vec::new();
    for seen in survey(objects.as_ref()).map_err(store("looked for"))? {
        if seen.id == held.id {
            continue;
        }
        if seen.is_live(held.now(), &held.holder.host) {
            others.push(seen);
        } else {
            tracing::info!("repository {repository}: {} is dead; its lease {} is taken over", seen.describe(), seen.id);
            objects.delete(&seen.name).map_err(store("taken over"))?;
        }
    }
    Ok(others)
}

/// The leases of the same stack, and what can't be read: whose that is cannot be told.
fn rivals<'a>(held: &Held, others: &'a [Seen]) -> impl Iterator<Item = &'a Seen> {
    others.iter().filter(move |other| match &other.body {
        Body::Readable(record) => record.stack == held.stack,
        Body::Unreadable => other.stack == held.stack,
    })
}

/// Why the stack's lease cannot be had beside `others`.
fn in_the_way(held: &Held, repository: &RepositoryName, others: &[Seen]) -> Option<LeaseError> {
    let repository = repository.clone();
    if let Some(rival) = rivals(held, others).next() {
        return Some(LeaseError::Locked { repository, other: rival.describe(), id: rival.id.clone() });
    }
    let alone = others.iter().find(|other| other.is_exclusive())?;
    Some(LeaseError::Busy { repository, other: alone.describe(), id: alone.id.clone() })
}

fn random_id() -> Result<LeaseId, LeaseError> {
    let random = getrandom::u64().map_err(|error| LeaseError::System(io::Error::other(error)))?;
    Ok(LeaseId::new(format!("{random:016x}")))
}

/// When a lease was taken, and its id: who came first.
type Order = (Timestamp, LeaseId);

#[cfg(test)]
mod tests;
