//! What the stack holds, whoever takes it: asked from Compose and from the engine, and looked at on this machine where only a
//! look tells whether there is any data.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::engines::{self, Ground};
use crate::model::holdings::{Holdings, Use};
use crate::model::observation::{Observed, SeenStack};

/// None where there is neither a Compose file nor a container of the stack. Nothing is changed.
pub fn stack(ground: &Ground, home: Option<&Path>) -> Option<Observed<SeenStack>> {
    let held = match ground.containers.held() {
        Ok(held) => held?,
        Err(error) => return Some(Observed::Unknown { reason: crate::model::chain(&error) }),
    };
    let mut seen = seen(held, ground, home);
    match ground.containers.docker() {
        Ok(docker) if docker.is_here() => mark_missing(&mut seen.held),
        Ok(docker) => seen.elsewhere = Some(docker.address().to_owned()),
        Err(_) => {}
    }
    Some(Observed::Known(seen))
}

/// Looked for only where the engine is this machine's: another one finds its files elsewhere. Of what is mounted only that which a
/// container has had: Docker makes a folder for what was never there.
fn mark_missing(held: &mut Holdings) {
    let is_missing = |path: &Path| matches!(path.try_exists(), Ok(false));
    for file in &mut held.files {
        file.missing = is_missing(&file.path);
    }
    let services = &held.services;
    for bind in &mut held.binds {
        let has_container = |it: &Use| services.get(&it.service).is_some_and(|holder| !holder.containers.is_empty());
        bind.missing = is_missing(&bind.path) && bind.uses.iter().any(has_container);
    }
}

/// The same, by the Compose files alone: no engine is asked.
pub fn stack_by_its_files(ground: &Ground, home: Option<&Path>) -> Option<Observed<SeenStack>> {
    let held = match ground.containers.held_by_files()? {
        Ok(held) => held,
        Err(error) => return Some(Observed::Unknown { reason: crate::model::chain(&error) }),
    };
    Some(Observed::Known(seen(held, ground, home)))
}

fn seen(held: Holdings, ground: &Ground, home: Option<&Path>) -> SeenStack {
    let held = without_what_is_none(held, ground);
    SeenStack { held, base: ground.base.clone(), home: home.map(Path::to_owned), elsewhere: None }
}

/// Sockets and devices hold no data, Compose goes without a file that it may go without, and a volume that nobody gave a name
/// is a cache as long as nothing lies in it.
fn without_what_is_none(mut held: Holdings, ground: &Ground) -> Holdings {
    let is_special = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|seen| {
            let kind = seen.file_type();
            kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device()
        })
    };
    held.binds.retain(|bind| !is_special(&bind.path));
    held.files.retain(|file| !file.optional || file.path.exists());
    let services = &held.services;
    for nameless in held.nameless.iter_mut().filter(|it| !it.volumes.is_empty()) {
        let containers = services.get(&nameless.at.service).map_or(&[][..], |holder| &holder.containers);
        let is_empty = |container: &String| engines::is_empty(ground, container, &nameless.at.target);
        nameless.empty = !containers.is_empty() && containers.iter().all(is_empty);
    }
    held
}
