//! `unlock ID`: remove a lease whose holder is gone for good.

use std::path::Path;

use super::error::{Exit, Failure};
use super::session::Session;
use crate::apply::lease;
use crate::model::ids::LeaseId;

pub(super) fn run(file: &Path, id: &LeaseId) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    let mut removed = Vec::new();
    let mut there = Vec::new();
    for name in session.stores.names() {
        let objects = session.objects(name)?;
        let leases = lease::list(objects.as_ref(), &lease::SystemClock)
            .map_err(|error| Failure::caused(Exit::Unexpected, &format!("listing the leases in {name}"), &error))?;
        if leases.iter().any(|lease| lease.id == *id) {
            lease::unlock(objects.as_ref(), id)
                .map_err(|error| Failure::caused(Exit::Unexpected, &format!("removing the lease from {name}"), &error))?;
            removed.push(name.to_string());
        }
        there.extend(leases.into_iter().map(|lease| format!("{} of {} in {name}", lease.id, lease.owner)));
    }
    if removed.is_empty() {
        let hint = if there.is_empty() { "no lease is held at all".to_owned() } else { format!("held: {}", there.join("; ")) };
        return Err(Failure::new(Exit::Input, format!("there is no lease {id}")).hint(hint));
    }
    println!("Removed lease {id} from {}.", removed.join(", "));
    Ok(Exit::Done)
}
