//! Making a repository, and the keys that open it.

use super::world::{World, repository_error, store_error};
use crate::apply::runner::StepError;
use crate::model::ids::{KeyId, RepositoryName};
use crate::model::outcome::{Done, FailureKind};
use crate::repository::Presence;

pub(super) fn generate(world: &World, repository: &RepositoryName, key: usize) -> Result<Done, StepError> {
    // Asked again here, beside the precondition: a new key to an existing repository would be a key to nothing.
    let site = world.stores.site(repository).map_err(store_error)?;
    if site.look().map_err(repository_error)? == Presence::Present {
        return Err(StepError::new(
            FailureKind::NeedsReplan,
            format!("repository {repository} exists by now, so no key was made for it; run `devstack plan` again"),
        ));
    }
    let path = world.stores.generate_key(repository, key).map_err(store_error)?;
    Ok(Done {
        summary: format!("{}, mode 0600", path.display()),
        advice: vec![format!(
            "Keep a copy of {} on another machine or on paper. Without it nobody can open the backups, devstack included.",
            path.display()
        )],
        ..Done::default()
    })
}

pub(super) fn create(world: &World, repository: &RepositoryName, key: usize) -> Result<Done, StepError> {
    // Only now: before, nothing was put where a disk is perhaps not mounted.
    world.extend_lease(repository)?;
    world.check_lease(repository)?;
    let store = world.stores.create(repository, key).map_err(store_error)?;
    if world.saved {
        world.mark_used_in(repository)?;
    }
    world.next_generation(repository)?;
    let site = world.stores.site(repository).map_err(store_error)?;
    Ok(Done { summary: format!("{}, id {}", site.path().display(), store.id().short()), ..Done::default() })
}

pub(super) fn add(world: &World, repository: &RepositoryName, key: usize, label: &str) -> Result<Done, StepError> {
    world.check_lease(repository)?;
    let site = world.stores.site(repository).map_err(store_error)?;
    let known = site.keys().map_err(repository_error)?;
    if known.iter().any(|key| key.label.as_deref() == Some(label)) {
        return Ok(Done { summary: "there already".to_owned(), ..Done::default() });
    }
    let declared = world.stores.declared_key(repository, key).map_err(store_error)?;
    let id = world.store(repository)?.add_key(&declared).map_err(repository_error)?;
    world.next_generation(repository)?;
    Ok(Done { summary: format!("{label}, id {}", id.short()), ..Done::default() })
}

pub(super) fn remove(world: &World, repository: &RepositoryName, id: &KeyId, label: &str) -> Result<Done, StepError> {
    let _alone = world.exclusive(repository)?;
    world.check_lease(repository)?;
    world.store(repository)?.remove_key(id).map_err(repository_error)?;
    world.next_generation(repository)?;
    let advice = match label.split_once(' ') {
        Some(("passphrase", _)) | None => Vec::new(),
        Some(_) => vec![
            "Whoever kept a copy of that key's password and of the repository can still read what was in it until now."
                .to_owned(),
        ],
    };
    Ok(Done { summary: format!("{label}, id {}", id.short()), advice, ..Done::default() })
}
