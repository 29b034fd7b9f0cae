//! A named volume, or a folder in a container: one tar stream out of Docker's own archive of it, which carries owners,
//! modes, links and capabilities and works whatever is in the image.
//!
//! Consistency: with `stop`, the moment at which everybody who writes was stopped; without it, file by file.

mod names;
mod place;
mod restore;
mod tar;

use std::path::PathBuf;

use self::names::Compared;
pub(super) use self::place::{Place, Site, has_entries, holds, on_the_machine};
pub(super) use self::restore::put_back;
pub(super) use self::tar::{Tar, inspect};
use super::inspect::Inspect;
use super::streams::{self, DumpStream, Taker};
use super::{Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work, single_artifact};
use crate::model::observation::{ContainerState, Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::repository::Reader;
use crate::runtime::Stopped;
use crate::spec::file::VolumeSource;

pub(super) struct Volume {
    source: VolumeSource,
    ground: Ground,
}

const ENGINE: &str = "volume";
const ARCHIVE: &str = "/volume.tar";

/// What an artifact is, by its name.
fn inspector(name: &str) -> Option<Inspect> {
    (name == ARCHIVE).then_some(inspect as Inspect)
}

/// The stream that an open place gives. `quiet`: nobody writes there.
pub(super) fn stream(name: &str, site: Site, quiet: bool) -> DumpStream {
    let open = move || Ok(Box::new(Compared::begin(site, quiet)?) as Box<dyn std::io::Read + Send>);
    DumpStream { name: name.to_owned(), open: Box::new(open), inspect }
}

/// Starts containers again after what was done while they were stopped, and says both ends.
pub(super) fn started_again<T>(
    stopped: Stopped,
    done: Result<T, EngineError>,
    undo: impl FnOnce(&T) -> Result<(), EngineError>,
) -> Result<T, EngineError> {
    let names: Vec<String> = stopped.containers().iter().map(|container| container.name.clone()).collect();
    let Err(error) = stopped.start_again() else { return done };
    let names = names.join(", ");
    let cause = crate::model::chain(&error);
    match done {
        Ok(value) => {
            undo(&value)?;
            let what = format!("stopped for this and not started again: {names} ({cause}); start them by hand");
            Err(EngineError::Refused { what })
        }
        Err(failed) => Err(EngineError::Restore {
            doing: "what was done while they were stopped".to_owned(),
            after: format!("these could not be started again: {names} ({cause}); start them by hand"),
            source: Box::new(failed),
        }),
    }
}

impl Volume {
    pub(super) fn new(source: &VolumeSource, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone() }
    }

    fn declared(&self) -> String {
        match (&self.source.volume, &self.source.container, &self.source.path) {
            (Some(volume), ..) => format!("the volume {volume}"),
            (None, container, path) => format!(
                "the folder {} of the container {}",
                path.as_deref().unwrap_or_default(),
                container.as_deref().unwrap_or_default()
            ),
        }
    }

    fn place(&self) -> Result<Place, EngineError> {
        match Place::of(&self.source, &self.ground)? {
            Some(place) => Ok(place),
            None => Err(EngineError::Refused {
                what: format!(
                    "{} is not there; make it with the container that mounts it (`docker compose create SERVICE`), or \
                     correct the file",
                    self.declared()
                ),
            }),
        }
    }

    /// The containers in `stop`. One that is not there writes nothing, and whoever writes to a volume is known anyway; to
    /// a folder of the host a container of another name may write, so there a name must be right.
    fn to_stop(&self) -> Result<Vec<ContainerState>, EngineError> {
        let containers = &self.ground.containers;
        let find = |name: &String| match (self.source.volume.is_some(), containers.all_called(name)?) {
            (false, found) if found.is_empty() => containers.find(name).map(|found| vec![found]),
            (_, found) => Ok(found),
        };
        let found: Result<Vec<_>, _> = self.source.stop.iter().map(find).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Files that a server writes into while they are read are no backup of it.
    fn refuse_live(&self, place: &Place, to_stop: &[ContainerState]) -> Result<(), EngineError> {
        if let Some(server) = place.live_server(to_stop) {
            return Err(EngineError::Refused {
                what: format!(
                    "{} belongs to the running server {} ({}), and its files, read while it writes, are no backup; use \
                     that server's own source, or name it in `stop`",
                    place.name, server.name, server.image
                ),
            });
        }
        let other = place.writers().find(|writer| !self.source.stop.is_empty() && !holds(to_stop, writer));
        if let Some(other) = other {
            return Err(EngineError::Refused {
                what: format!(
                    "{} may write to {} and is not in `stop`; add it there, mount the volume read-only in it, or take \
                     `stop` out to read file by file",
                    other.name, place.name
                ),
            });
        }
        Ok(())
    }

    fn take_open(
        &self,
        place: &Place,
        site: Site,
        quiet: bool,
        request: TakeRequest<'_>,
        work: &Work<'_>,
    ) -> Result<Taken, EngineError> {
        match site.has_data()? {
            Some(false) if !request.allow_empty => {
                return Err(EngineError::Empty { path: PathBuf::from(&place.name) });
            }
            None => return Err(EngineError::Refused { what: format!("{} is not there", place.name) }),
            Some(_) => {}
        }
        let version = format!("Docker {}", site.docker.version()?);
        let image = place.users.first().map(|(container, _)| container.image_digest.clone());
        let taker = Taker { engine: ENGINE, version, image };
        streams::take(request, work, taker, vec![stream(ARCHIVE, site, quiet)])
    }

    fn restore_in_place(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Restored, EngineError> {
        streams::must_be_whole(reader, taken, work, inspector)?;
        let artifact = single_artifact(taken)?;
        let place = self.place()?;
        let runs_on = place.is_inside() && self.source.stop.is_empty();
        let mut writers: Vec<ContainerState> = if runs_on { Vec::new() } else { place.writers().cloned().collect() };
        for name in &self.source.stop {
            // One that is not there writes nothing.
            for container in self.ground.containers.all_called(name)? {
                if !holds(&writers, &container) {
                    writers.push(container);
                }
            }
        }
        let site = place.open(true)?;
        let stopped = self.ground.stopped.stop(&site.docker, &writers)?;
        let names: Vec<String> = stopped.containers().iter().map(|container| container.name.clone()).collect();
        let put = put_back(&place, &site, reader, taken, artifact, work);
        drop(site);
        let mut put = started_again(stopped, put, |_| Ok(()))?;
        if !names.is_empty() {
            put.notes.push(format!("stopped meanwhile and started again: {}", names.join(", ")));
        }
        if runs_on {
            put.notes.push("the container ran on meanwhile; restart it where it keeps files open".to_owned());
        }
        Ok(Restored { to: place.name, bytes: put.bytes, notes: put.notes })
    }
}

impl Engine for Volume {
    /// Gone: Docker says that there is no such volume, container or folder. Empty: nothing lies in it.
    fn observe(&self) -> Observed<SourceState> {
        let seen = Place::of(&self.source, &self.ground).and_then(|place| match place {
            None => Ok(SourceState::Gone),
            Some(place) => Ok(match place.has_data()? {
                None => SourceState::Gone,
                Some(false) => SourceState::Empty,
                Some(true) => SourceState::HasData { bytes: None },
            }),
        });
        match seen {
            Ok(state) => Observed::Known(state),
            Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
        }
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let place = self.place()?;
        let to_stop = self.to_stop()?;
        self.refuse_live(&place, &to_stop)?;
        // Opened first: whoever is stopped stays so for the archive alone.
        let site = place.open(false)?;
        let quiet = place.writers().all(|writer| holds(&to_stop, writer));
        if to_stop.is_empty() {
            return self.take_open(&place, site, quiet, request, work);
        }
        let store = request.store;
        let stopped = self.ground.stopped.stop(&self.ground.containers.docker()?, &to_stop)?;
        let taken = self.take_open(&place, site, quiet, request, work);
        started_again(stopped, taken, |taken| Ok(store.discard(&taken.snapshot)?))
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        streams::prove(reader, taken, work, inspector)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        match target {
            RestoreTarget::Beside { folder } => streams::restore_beside(reader, taken, folder, work),
            RestoreTarget::InPlace | RestoreTarget::Missing => self.restore_in_place(reader, taken, work),
        }
    }
}
