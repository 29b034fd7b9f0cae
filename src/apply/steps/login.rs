//! What devstack logs in to Vault with.

use super::world::World;
use crate::apply::runner::StepError;
use crate::model::chain;
use crate::model::outcome::Done;

/// Replaces the secret-id of the login.
pub(super) fn rotate(world: &World, mount: &str, role: &str) -> Result<Done, StepError> {
    let secrets = &world.ground.secrets;
    let rotated = secrets.rotate(mount, role).map_err(|error| StepError::new(error.kind(), error))?;
    let file = rotated.file.display();
    let summary = match rotated.old_stays {
        None => format!("a new one lies in {file}"),
        Some(error) => format!("a new one lies in {file}; the old one is good until it expires: {}", chain(&error)),
    };
    Ok(Done { summary, ..Done::default() })
}
