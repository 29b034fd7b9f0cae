//! Putting data back into servers that run. The backup's RDB is laid beside each server's files, all servers are stopped,
//! the files change places, all are started again. What was there before stays under other names until every server has
//! loaded and counted; where one does not, all get their old files back.

use super::cluster::SlotMap;
use super::swap::Files;
use super::{ENGINE, MASTERS, Redis, SINGLE, SLOTS, Session, inspector, loading};
use crate::engines::server::Server;
use crate::engines::{EngineError, Restored, Work, single_artifact, streams};
use crate::model::observation::ContainerState;
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::Reader;
use crate::runtime::{RuntimeError, Stopped};

/// How a program ends that the engine had to kill.
const KILLED: i64 = 137;

/// A server, and the RDB that goes into it.
pub(super) struct Place<'a> {
    pub server: &'a Server,
    pub artifact: &'a Artifact,
}

impl Redis {
    pub(super) fn restore_in_place(
        &self,
        reader: &Reader,
        taken: &Taken,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        streams::must_be_whole(reader, taken, work, inspector)?;
        let is_cluster = taken.artifacts.iter().any(|artifact| artifact.name == SLOTS);
        if is_cluster != self.source.cluster {
            let (backup, file) = if is_cluster { ("a cluster", "single") } else { ("a single server", "a cluster") };
            let what = format!("the backup is of {backup}, and the {ENGINE} of the file is {file}");
            return Err(EngineError::Refused { what });
        }
        let session = self.restorer()?;
        match is_cluster {
            true => self.restore_cluster(reader, taken, &session, work),
            false => self.restore_single(reader, taken, &session, work),
        }
    }

    fn restore_single(
        &self,
        reader: &Reader,
        taken: &Taken,
        session: &Session,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        let artifact = single_artifact(taken)?;
        if artifact.name != SINGLE {
            return Err(EngineError::Manifest { snapshot: taken.snapshot.clone(), artifacts: 1 });
        }
        let server = self.single()?;
        let info = self.settled(&server, session)?;
        if info.is("role", "slave") {
            let master = info.0.get("master_host").cloned().unwrap_or_default();
            let what = format!(
                "Redis in the container {} is a replica of {master}, which would replace its data again; restore into the master",
                server.container.name
            );
            return Err(EngineError::Refused { what });
        }
        let places = [Place { server: &server, artifact }];
        let containers = vec![server.container.clone()];
        let notes = self.replace(reader, taken, &places, containers, session, work, &|| Ok(()))?;
        Ok(Restored { to: format!("the container {}", server.container.name), bytes: artifact.bytes, notes })
    }

    fn restore_cluster(
        &self,
        reader: &Reader,
        taken: &Taken,
        session: &Session,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        let wrong = || EngineError::Manifest { snapshot: taken.snapshot.clone(), artifacts: taken.artifacts.len() };
        let artifact = |name: &str| taken.artifacts.iter().find(|it| it.name == name).ok_or_else(wrong);
        let json = streams::small(reader, taken, artifact(SLOTS)?, work)?;
        let map = SlotMap::read(&json).map_err(|why| EngineError::NotWhole { name: SLOTS.to_owned(), why })?;
        if taken.artifacts.iter().filter(|it| it.name.starts_with(MASTERS)).count() != map.masters.len() {
            return Err(wrong());
        }
        let formed = self.formed(&map, session, work)?;
        let mut places = Vec::new();
        for (master, container) in &formed.serving {
            let node = formed.nodes.all.iter().find(|node| node.container == *container).ok_or_else(wrong)?;
            places.push(Place { server: &node.server, artifact: artifact(&master.artifact())? });
        }
        let bytes = places.iter().map(|place| place.artifact.bytes).sum();
        let containers = formed.nodes.all.iter().map(|node| node.server.container.clone()).collect();
        let settled = || self.wait_formed(&formed, session, work);
        let mut notes = self.replace(reader, taken, &places, containers, session, work, &settled)?;
        notes.splice(0..0, formed.notes.clone());
        let to: Vec<&str> = places.iter().map(|place| place.server.container.name.as_str()).collect();
        Ok(Restored { to: format!("the containers {}", to.join(", ")), bytes, notes })
    }

    /// Replaces the data of every place while all `containers` are stopped. `settled` has the last word.
    fn replace(
        &self,
        reader: &Reader,
        taken: &Taken,
        places: &[Place<'_>],
        containers: Vec<ContainerState>,
        session: &Session,
        work: &Work<'_>,
        settled: &dyn Fn() -> Result<(), EngineError>,
    ) -> Result<Vec<String>, EngineError> {
        let mut laid = Vec::new();
        let mut before = ByteSize(0);
        for place in places {
            let files = self.files(place.server, session)?;
            let beside = files.lay_beside(place.server, reader, taken, place.artifact, work, before);
            laid.push((place, files));
            if let Err(error) = beside {
                laid.iter().for_each(|(place, files)| drop(files.clean_up(place.server)));
                return Err(untouched("laying the backup beside the server's files", error));
            }
            before = before + place.artifact.bytes;
        }
        let mut replacing = Replacing { engine: self, laid, containers, session, work };
        match replacing.run(settled) {
            Ok(()) => Ok(replacing.laid.iter().filter_map(|(place, files)| files.clean_up(place.server)).collect()),
            Err(error) => Err(error),
        }
    }
}

fn untouched(doing: &str, error: EngineError) -> EngineError {
    EngineError::Restore {
        doing: doing.to_owned(),
        after: "nothing was touched: the server runs on with its data".to_owned(),
        source: Box::new(error),
    }
}

struct Replacing<'a> {
    engine: &'a Redis,
    laid: Vec<(&'a Place<'a>, Files)>,
    containers: Vec<ContainerState>,
    session: &'a Session,
    work: &'a Work<'a>,
}

impl Replacing<'_> {
    fn run(&mut self, settled: &dyn Fn() -> Result<(), EngineError>) -> Result<(), EngineError> {
        for (place, files) in &self.laid {
            // A server that saves nothing by itself would take what it holds with it.
            if !files.is_append_only {
                let saves =
                    self.engine.ask(place.server, self.session, &["CONFIG", "SET", "shutdown-on-sigterm", "save"]);
                if saves.is_err() {
                    self.engine.ask(place.server, self.session, &["SAVE"]).map_err(|error| self.give_up(error))?;
                }
            }
        }
        let stopped = self.stop().map_err(|error| self.give_up(error))?;
        let swapped = self
            .must_have_ended()
            .and_then(|()| self.laid.iter_mut().try_for_each(|(place, files)| files.swap(place.server)));
        if let Err(error) = swapped {
            return Err(self.put_back(Ok(stopped), error));
        }
        let started = stopped.start_again().map_err(EngineError::from);
        let loaded = started.and_then(|()| self.loaded()).and_then(|()| settled());
        loaded.map_err(|error| self.put_back(self.stop(), error))
    }

    fn stop(&self) -> Result<Stopped, EngineError> {
        let Some((place, _)) = self.laid.first() else {
            return Err(EngineError::Refused { what: "there is no server to restore into".to_owned() });
        };
        Ok(self.engine.ground.stopped.stop(&place.server.docker, &self.containers)?)
    }

    /// A server that was killed has not saved what it held.
    fn must_have_ended(&self) -> Result<(), EngineError> {
        for (place, _) in &self.laid {
            let name = place.server.container.name.clone();
            let gone = || RuntimeError::NoContainer { name: name.clone(), project: None };
            let now = place.server.docker.inspect(place.server.container.id.as_str())?.ok_or_else(gone)?;
            if now.exit_code == KILLED {
                let what = format!("the container {name} was killed before it had saved its data");
                return Err(EngineError::Refused { what });
            }
        }
        Ok(())
    }

    fn loaded(&self) -> Result<(), EngineError> {
        for (place, _) in &self.laid {
            let bytes = place.artifact.bytes.0;
            let info = self.engine.wait_loaded(place.server, self.session, bytes, self.work)?;
            loading::compare(&info, place.artifact, &place.server.container.name)?;
        }
        Ok(())
    }

    fn give_up(&self, error: EngineError) -> EngineError {
        self.laid.iter().for_each(|(place, files)| drop(files.clean_up(place.server)));
        untouched("stopping Redis", error)
    }

    /// Gives every server its old files, and starts all of them.
    fn put_back(&mut self, stopped: Result<Stopped, EngineError>, error: EngineError) -> EngineError {
        let back = stopped.and_then(|stopped| {
            let back = self.laid.iter_mut().try_for_each(|(place, files)| files.swap_back(place.server));
            let started = stopped.start_again().map_err(EngineError::from);
            back.and(started)
        });
        // Also an interrupted restore ends with servers that answer.
        let patient = crate::model::cancel::Cancel::default();
        let work = Work { cancel: &patient, ..*self.work };
        let back = back.and_then(|()| {
            self.laid.iter().try_for_each(|(place, _)| {
                self.engine.wait_loaded(place.server, self.session, place.artifact.bytes.0, &work).map(|_| ())
            })
        });
        let after = match back {
            Ok(()) => {
                self.laid.iter().for_each(|(place, files)| drop(files.clean_up(place.server)));
                "the old data is in place again".to_owned()
            }
            Err(failed) => format!(
                "putting the old data back failed too ({}): in the data folder the files named *.devstack-before are the \
                 old ones; rename them while the container is stopped, and start it",
                crate::model::chain(&failed)
            ),
        };
        EngineError::Restore { doing: "restoring Redis".to_owned(), after, source: Box::new(error) }
    }
}
