//! What is free where data comes back.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engines::Ground;
use crate::model::observation::Room;
use crate::model::units::ByteSize;
use crate::spec::file::Source;

/// None where it can't be seen: an engine on another machine, a folder that may not be read.
pub fn room(source: &Source, ground: &Ground) -> Option<Room> {
    let place = match source {
        Source::Sqlite(sqlite) => ground.path(&sqlite.path),
        Source::Files(files) => ground.path(Path::new(files.paths.first()?)),
        Source::Certificates(certificates) => ground.path(Path::new(certificates.paths.first()?)),
        Source::Postgres(_)
        | Source::Mysql(_)
        | Source::Mariadb(_)
        | Source::Mongodb(_)
        | Source::Redis(_)
        | Source::Rabbitmq(_)
        | Source::Vault(_)
        | Source::Volume(_) => engine_folder(ground)?,
    };
    // What is to come back is not there yet, nor perhaps the folder that it lay in.
    let there = place.ancestors().find(|path| path.exists())?;
    let space = rustix::fs::statvfs(there).ok()?;
    let device = std::fs::metadata(there).ok()?.dev();
    Some(Room { path: there.to_owned(), free: ByteSize(space.f_bavail.saturating_mul(space.f_frsize)), device })
}

/// Where the engine keeps volumes, if it runs on this machine.
fn engine_folder(ground: &Ground) -> Option<PathBuf> {
    let docker = ground.containers.docker().ok()?;
    docker.is_here().then(|| docker.folder().ok().flatten())?
}
