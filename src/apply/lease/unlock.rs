//! The leases of a repository for people: seen by `status`, removed by `devstack unlock`.

use std::io;
use std::sync::Arc;

use super::record::survey;
use crate::apply::clock::Clock;
use crate::apply::host::Host;
use crate::model::ids::{LeaseId, RepositoryName};
use crate::model::observation::LeaseFact;
use crate::repository::objects::Objects;

#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    #[error("no such lease: {id}; {}", there_are(.there))]
    NoSuchLease { id: LeaseId, there: Vec<LeaseFact> },
    #[error(
        "the leases of repository {repository} could not be {act}; check that the repository can be reached and written"
    )]
    Store {
        repository: RepositoryName,
        act: &'static str,
        #[source]
        source: io::Error,
    },
}

fn there_are(leases: &[LeaseFact]) -> String {
    if leases.is_empty() {
        return "there is none".to_owned();
    }
    let leases: Vec<String> = leases
        .iter()
        .map(|lease| {
            let state = if lease.alive { "alive" } else { "dead" };
            format!("{} of stack {}, {}, {state}", lease.id, lease.stack, lease.owner)
        })
        .collect();
    format!("there are: {}", leases.join("; "))
}

/// Every lease in a repository, dead or alive. Changes nothing.
pub fn list(objects: &dyn Objects, clock: &dyn Clock) -> io::Result<Vec<LeaseFact>> {
    let here = Host::here();
    Ok(survey(objects)?.iter().map(|seen| seen.fact(clock.now(), &here)).collect())
}

/// Removes the lease of this exact id wherever it lies, alive or not, and returns what was removed and where. Its holder
/// sees it gone at its next heartbeat, and before its next deletion.
pub fn unlock(
    repositories: &[(RepositoryName, Arc<dyn Objects>)],
    id: &LeaseId,
    clock: &dyn Clock,
) -> Result<Vec<(RepositoryName, LeaseFact)>, UnlockError> {
    let here = Host::here();
    let (mut removed, mut there) = (Vec::new(), Vec::new());
    for (repository, objects) in repositories {
        let store = |act| move |source| UnlockError::Store { repository: repository.clone(), act, source };
        for seen in survey(objects.as_ref()).map_err(store("read"))? {
            let fact = seen.fact(clock.now(), &here);
            if seen.id == *id {
                objects.delete(&seen.name).map_err(store("removed"))?;
                removed.push((repository.clone(), fact));
            } else {
                there.push(fact);
            }
        }
    }
    if removed.is_empty() { Err(UnlockError::NoSuchLease { id: id.clone(), there }) } else { Ok(removed) }
}
