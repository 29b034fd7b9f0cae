//! The stack's lease: an object, put if absent, in every repository that is written. Stacks share a repository; two
//! applies of one stack do not, and what deletes shares with nobody.
//!
//! Safety rests on putting first and looking afterwards, on both sides: of two who put at once at least one sees the
//! other. Expiry compares the clocks of two machines, which must agree to within [`EXPIRY`] less [`HEARTBEAT`]; what
//! deletes therefore reads its lease again with [`Lease::check`] before each deletion.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
/// Several times within a heartbeat.
const BETWEEN_WATCHES: Duration = Duration::from_secs(2);
/// What could not be done where a repository can't be written.
const PUT: &str = "put";

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
    #[error("nothing is written to repository {repository}: no lease could be put there: {why}")]
    Unwritable { repository: RepositoryName, why: String },
    #[error("no lease could be made: the system gave no thread or random number; try again when it is less busy")]
    System(#[source] io::Error),
}

impl LeaseError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Locked { .. } => FailureKind::Locked,
            // Another stack's use passes.
            Self::Busy { .. } | Self::Store { .. } | Self::System(_) => FailureKind::Transient,
            Self::Lost { .. } | Self::NotHeld { .. } | Self::Unwritable { .. } => FailureKind::Permanent,
        }
    }
}

impl From<LeaseError> for StepError {
    fn from(error: LeaseError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// On what a lease is wanted.
pub struct Wanted {
    /// The repositories that are there.
    pub present: Vec<(RepositoryName, Arc<dyn Objects>)>,
    /// Those that a step may make: nothing is put where a disk is perhaps not mounted. See [`Lease::extend`].
    pub absent: Vec<(RepositoryName, Arc<dyn Objects>)>,
    /// For what only reads: it goes on without a lease where none can be put. See [`Lease::unwritable`].
    pub reads: bool,
    /// How often it is renewed.
    pub heartbeat: Duration,
    /// How long a lease that is dated in the future is watched. One that is not renewed meanwhile is nobody's.
    pub watch: Duration,
}

impl Wanted {
    pub fn on(present: Vec<(RepositoryName, Arc<dyn Objects>)>) -> Self {
        Self { present, absent: Vec::new(), reads: false, heartbeat: HEARTBEAT, watch: EXPIRY.into() }
    }
}

/// Why none is held on a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Without {
    /// It is not made yet.
    NotYet,
    /// It can't be written, for this reason.
    Unwritable(String),
}

/// The stack's lease on some repositories, renewed in the background until it is released or dropped.
#[must_use = "dropping it releases it"]
pub struct Lease {
    held: Arc<Held>,
    without: Mutex<BTreeMap<RepositoryName, Without>>,
    watch: Duration,
    heartbeat: Option<JoinHandle<()>>,
}

impl Lease {
    /// Takes the lease in all repositories that are there, in the order of their names, or in none. Blocks on the stores.
    ///
    /// `cancel` is set when the lease is lost.
    pub fn acquire(
        wanted: Wanted,
        who: &Holder,
        stack: &StackName,
        clock: Arc<dyn Clock>,
        cancel: Cancel,
    ) -> Result<Self, LeaseError> {
        let id = random_id()?;
        let Wanted { present, absent, reads, heartbeat: interval, watch } = wanted;
        let not_yet = absent.iter().map(|(name, _)| (name.clone(), Without::NotYet)).collect();
        let objects: BTreeMap<_, _> = present.iter().cloned().chain(absent).collect();
        let held = Held::new(id, stack.clone(), who.clone(), objects, clock, cancel);
        // From here on a drop releases what was taken: all or none.
        let mut lease = Self { held: Arc::new(held), without: Mutex::new(not_yet), watch, heartbeat: None };
        let present: BTreeMap<_, _> = present.into_iter().collect();
        for repository in present.keys() {
            match take(&lease.held, repository, watch) {
                // Who else is there was looked for before: only that nobody sees us is lost.
                Err(LeaseError::Store { act: PUT, source, .. }) if reads => {
                    lease.without().insert(repository.clone(), Without::Unwritable(source.to_string()));
                }
                taken => taken?,
            }
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
        match self.without().get(repository) {
            None => {}
            Some(Without::NotYet) => return Err(LeaseError::NotHeld { repository: repository.clone() }),
            Some(Without::Unwritable(why)) => {
                return Err(LeaseError::Unwritable { repository: repository.clone(), why: why.clone() });
            }
        }
        self.held.check(repository, Kind::Shared)
    }

    /// Takes it in a repository that is about to be made. Where it is held already nothing happens.
    pub fn extend(&self, repository: &RepositoryName) -> Result<(), LeaseError> {
        if self.without().get(repository) != Some(&Without::NotYet) {
            return Ok(());
        }
        take(&self.held, repository, self.watch)?;
        self.without().remove(repository);
        Ok(())
    }

    /// The repositories that no lease could be put into, with the reasons: nothing is written there, and nobody sees us.
    pub fn unwritable(&self) -> BTreeMap<RepositoryName, String> {
        let unwritable = |(name, without): (&RepositoryName, &Without)| match without {
            Without::NotYet => None,
            Without::Unwritable(why) => Some((name.clone(), why.clone())),
        };
        self.without().iter().filter_map(unwritable).collect()
    }

    fn without(&self) -> MutexGuard<'_, BTreeMap<RepositoryName, Without>> {
        self.without.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Alone in a repository, among all stacks, until the guard is dropped.
    pub fn exclusive(&self, repository: &RepositoryName) -> Result<ExclusiveGuard, LeaseError> {
        self.check(repository)?;
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
fn take(held: &Held, repository: &RepositoryName, watch: Duration) -> Result<(), LeaseError> {
    end_those_of_the_future(held, repository, watch)?;
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

/// A lease whose holder's clock is ahead would live until that date, though its holder be gone. Whoever holds one renews it, and
/// takes it for lost after [`EXPIRY`] without: so one that does not change for so long is nobody's.
fn end_those_of_the_future(held: &Held, repository: &RepositoryName, watch: Duration) -> Result<(), LeaseError> {
    let ahead = |others: Vec<Seen>| -> BTreeMap<String, Seen> {
        let ahead = others.into_iter().filter(|other| other.ahead(held.now()).is_some());
        ahead.map(|other| (other.name.clone(), other)).collect()
    };
    let first = ahead(survey_others(held, repository)?);
    if first.is_empty() {
        return Ok(());
    }
    for other in first.values() {
        let ahead = other.ahead(held.now()).unwrap_or_default();
        tracing::warn!(
            "repository {repository}: the lease of {} is dated {ahead} in the future; looking for {} whether anybody renews it",
            other.describe(),
            Span::from(watch)
        );
    }
    let since = Instant::now();
    let mut still = first;
    while !still.is_empty() && since.elapsed() < watch {
        std::thread::sleep(BETWEEN_WATCHES.min(watch));
        let now = ahead(survey_others(held, repository)?);
        still.retain(|name, seen| now.get(name) == Some(seen));
    }
    let now = ahead(survey_others(held, repository)?);
    for (name, _) in still.iter().filter(|(name, seen)| now.get(*name) == Some(*seen)) {
        let store = |source| LeaseError::Store { repository: repository.clone(), act: "taken over", source };
        held.objects(repository)?.delete(name).map_err(store)?;
    }
    Ok(())
}

/// Everything live in a repository that is not of this lease. What is dead is deleted, where that can be done.
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
            // Left where it lies, it is as dead as before; that nothing can be written there is found by our own.
            if let Err(error) = objects.delete(&seen.name) {
                tracing::debug!("repository {repository}: the dead lease {} stays: {error}", seen.id);
            }
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
