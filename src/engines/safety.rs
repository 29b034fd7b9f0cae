//! What is there before it is overwritten: of containers, every volume and folder that they may write to, byte for byte, with
//! whoever writes there stopped. It asks no server, since one that no longer starts can't be asked. Of files, what their own
//! engine takes.

use std::time::Duration;

mod as_it_lies;

use self::as_it_lies::AsItLies;
use super::streams::{self, DumpStream, Taker};
use super::volume::{self, Place, put_back};
use super::{Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work, for_source};
use crate::model::holdings::Backing;
use crate::model::observation::{ContainerState, Observed, SourceState};
use crate::model::run::{Artifact, Taken};
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::repository::Reader;
use crate::runtime::Command;
use crate::spec::file::Source;

/// What the manifest says of a copy of containers' volumes, in place of the server's engine.
pub const ENGINE: &str = "safety";

/// Many small files take their time to be removed.
const LONG: Duration = Duration::from_secs(3600);

/// Leaves the folder itself, with its owner and mode, as a server expects to find it when it starts for the first time.
const EMPTY: &str = r#"cd "$1" && find . -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +"#;

/// The raw copy of a source that lives in containers.
pub struct Safety<'a> {
    source: &'a Source,
    ground: &'a Ground,
}

/// How a source is copied before it is overwritten.
pub fn safety_of<'a>(source: &'a Source, ground: &'a Ground) -> Box<dyn Engine + 'a> {
    match source {
        Source::Sqlite(sqlite) => Box::new(AsItLies::new(source, sqlite, ground)),
        _ if source.needs_docker() => Box::new(Safety { source, ground }),
        _ => for_source(source, ground),
    }
}

/// The engine that reads what was taken of a source: its own, or the copy's.
pub fn of_taken<'a>(taken: &Taken, source: &'a Source, ground: &'a Ground) -> Box<dyn Engine + 'a> {
    if taken.engine == ENGINE { safety_of(source, ground) } else { for_source(source, ground) }
}

/// Empties every place that the containers of a source write to, and leaves them stopped. Only after a copy of it was made:
/// it is how a server is begun anew whose data no longer lets it start.
pub fn clear(source: &Source, ground: &Ground) -> Result<(), EngineError> {
    let safety = Safety { source, ground };
    let docker = ground.containers.docker()?;
    let places = safety.places()?;
    for container in safety.containers()? {
        docker.stop(&container)?;
    }
    for (_, place) in &places {
        for writer in place.writers() {
            docker.stop(writer)?;
        }
        let site = place.open(true)?;
        if !site.has_shell()? {
            let what = format!("{} can't be emptied: the image that mounts it has no shell", place.name);
            return Err(EngineError::Refused { what });
        }
        let command = Command::script(EMPTY, [site.path.clone()]).user("0");
        site.docker.run(&site.container, &command, b"", LONG)?;
    }
    Ok(())
}

impl Safety<'_> {
    fn containers(&self) -> Result<Vec<ContainerState>, EngineError> {
        self.source.containers().into_iter().map(|name| Ok(self.ground.containers.find(name)?)).collect()
    }

    /// Every place that may hold its data, each with the name that its copy has.
    fn places(&self) -> Result<Vec<(String, Place)>, EngineError> {
        if let Source::Volume(volume) = self.source {
            let gone = || EngineError::Refused { what: "the volume is not there, so there is nothing to copy".into() };
            return Ok(vec![("/volume.tar".to_owned(), Place::of(volume, self.ground)?.ok_or_else(gone)?)]);
        }
        let mut places: Vec<(String, Place)> = Vec::new();
        let docker = self.ground.containers.docker()?;
        for container in self.containers()? {
            let mounts = container.mounts.clone();
            let mut found = 0;
            // What lies in memory is gone with the container anyway.
            for mount in mounts.iter().filter(|it| it.writable && !(it.volume.is_none() && it.source.is_empty())) {
                let backing = mount.volume.as_ref().map(|volume| docker.backing_of(volume)).transpose()?.flatten();
                if backing == Some(Backing::Memory) {
                    continue;
                }
                found += 1;
                let name = match &mount.volume {
                    Some(volume) => format!("/{volume}.tar"),
                    None => format!("/{}{}.tar", container.name, mount.destination.replace('/', "-")),
                };
                if places.iter().all(|(known, _)| *known != name) {
                    places.push((name, Place::folder(self.ground, container.clone(), &mount.destination)?));
                }
            }
            if found == 0 {
                let what = format!(
                    "the container {} has no volume: its data lies in the container itself, and of that no copy can be made",
                    container.name
                );
                return Err(EngineError::Refused { what });
            }
        }
        Ok(places)
    }

    fn writers(&self, places: &[(String, Place)]) -> Result<Vec<ContainerState>, EngineError> {
        let mut all = self.containers()?;
        for writer in places.iter().flat_map(|(_, place)| place.writers()) {
            if !volume::holds(&all, writer) {
                all.push(writer.clone());
            }
        }
        Ok(all)
    }
}

impl Engine for Safety<'_> {
    fn observe(&self) -> Observed<SourceState> {
        for_source(self.source, self.ground).observe()
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let places = self.places()?;
        let docker = self.ground.containers.docker()?;
        let version = format!("Docker {}", docker.version()?);
        let image = self.containers()?.first().map(|container| container.image_digest.clone());
        // Opened before anybody is stopped, so that who is stopped stays so for the copy alone.
        let sites: Vec<_> = places
            .iter()
            .map(|(name, place)| Ok((name.clone(), place.open(false)?)))
            .collect::<Result<_, EngineError>>()?;
        let store = request.store;
        let stopped = self.ground.stopped.stop(&docker, &self.writers(&places)?)?;
        let streams: Vec<DumpStream> =
            sites.into_iter().map(|(name, site)| volume::stream(&name, site, true)).collect();
        let taken = streams::take(request, work, Taker { engine: ENGINE, version, image }, streams);
        volume::started_again(stopped, taken, |taken| Ok(store.discard(&taken.snapshot)?))
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        streams::prove(reader, taken, work, |_| Some(volume::inspect))
    }

    /// Puts back all of it, or says which part of it is back.
    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        if let RestoreTarget::Beside { folder } = target {
            return streams::restore_beside(reader, taken, folder, work);
        }
        streams::must_be_whole(reader, taken, work, |_| Some(volume::inspect))?;
        let places = self.places()?;
        let pairs: Vec<(&Artifact, &Place)> = taken
            .artifacts
            .iter()
            .map(|artifact| match places.iter().find(|(name, _)| *name == artifact.name) {
                Some((_, place)) => Ok((artifact, place)),
                None => Err(EngineError::Refused {
                    what: format!("the place that {} was copied from is not there any more", artifact.name),
                }),
            })
            .collect::<Result<_, EngineError>>()?;
        let docker = self.ground.containers.docker()?;
        let stopped = self.ground.stopped.stop(&docker, &self.writers(&places)?)?;
        let put = pairs.into_iter().try_fold((ByteSize(0), Vec::new()), |(bytes, mut notes), (artifact, place)| {
            let site = place.open(true)?;
            let put = put_back(place, &site, reader, taken, artifact, work)?;
            notes.extend(put.notes);
            Ok((bytes + put.bytes, notes))
        });
        let (bytes, mut notes) = volume::started_again(stopped, put, |_| Ok(()))?;
        if matches!(self.source, Source::Vault(_)) {
            notes.push(
                "the Vault was started again and may be sealed: unseal it with the keys that it had then".to_owned(),
            );
        }
        let names: Vec<&str> = places.iter().map(|(_, place)| place.name.as_str()).collect();
        Ok(Restored { to: names.join(", "), bytes, notes })
    }
}
