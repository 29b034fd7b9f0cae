//! `unlock ID`: remove a lease whose holder is gone for good.

use std::path::Path;
use std::sync::Arc;

use super::error::{Exit, Failure};
use super::session::Session;
use crate::apply::clock::SystemClock;
use crate::apply::lease::{self, UnlockError};
use crate::model::ids::{LeaseId, RepositoryName};
use crate::repository::objects::Objects;

pub(super) fn run(file: &Path, id: &LeaseId) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    let repositories: Vec<(RepositoryName, Arc<dyn Objects>)> = session
        .stores
        .names()
        .map(|name| Ok((name.clone(), session.objects(name)?)))
        .collect::<Result<_, Failure>>()?;
    let removed = lease::unlock(&repositories, id, &SystemClock).map_err(|error| {
        let exit = if matches!(error, UnlockError::NoSuchLease { .. }) { Exit::Input } else { Exit::Unexpected };
        Failure::caused(exit, "unlock", &error)
    })?;
    for (repository, lease) in removed {
        println!("Removed lease {id} of {} from repository {repository}.", lease.owner);
    }
    Ok(Exit::Done)
}
