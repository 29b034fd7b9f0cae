//! Containers that devstack has stopped and must start again, whatever happens. Who is stopped stands in a file before
//! it is stopped, so that the next apply starts what a killed one left down.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Docker, RuntimeError};
use crate::model::observation::ContainerState;

/// The folder of the notes: `.devstack/stopped`.
#[derive(Debug, Clone)]
pub struct StoppedBook {
    folder: PathBuf,
}

/// Containers that are stopped for as long as this lives. [`Stopped::start_again`] says whether they came back.
#[must_use = "dropped, they are started again and nobody hears whether they did"]
pub struct Stopped {
    docker: Arc<Docker>,
    containers: Vec<ContainerState>,
    note: PathBuf,
    started: bool,
}

impl StoppedBook {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Stops those of the containers that run. When one cannot be stopped, those before it are started again.
    pub fn stop(&self, docker: &Arc<Docker>, containers: &[ContainerState]) -> Result<Stopped, RuntimeError> {
        let running: Vec<ContainerState> = containers.iter().filter(|container| container.running).cloned().collect();
        let note = self.note(&running).map_err(|source| RuntimeError::Io {
            doing: format!("writing in {} which containers are stopped", self.folder.display()),
            source,
        })?;
        let stopped = Stopped { docker: docker.clone(), containers: running, note, started: false };
        for container in &stopped.containers {
            docker.stop(container)?;
        }
        Ok(stopped)
    }

    fn note(&self, containers: &[ContainerState]) -> io::Result<PathBuf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut unique = [0_u8; 8];
        getrandom::fill(&mut unique).map_err(io::Error::other)?;
        let note = self.folder.join(hex::encode(unique));
        let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        fs::write(&note, ids.join("\n"))?;
        fs::File::open(&note)?.sync_all()?;
        Ok(note)
    }

    /// Whether an apply that is gone has left a note.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).map_or(true, |mut notes| notes.next().is_none())
    }

    /// Starts what an apply that was killed left stopped. Called with the lease held, so that nobody else's are among
    /// them. Returns the names of those that were started.
    pub fn start_left_behind(&self, docker: &Docker) -> Result<Vec<String>, RuntimeError> {
        let failed =
            |source| RuntimeError::Io { doing: format!("reading the notes in {}", self.folder.display()), source };
        let mut names = Vec::new();
        for note in fs::read_dir(&self.folder).map_err(failed)? {
            let note = note.map_err(failed)?.path();
            let text = fs::read_to_string(&note).map_err(failed)?;
            for id in text.lines().filter(|line| !line.is_empty()) {
                if let Some(container) = docker.inspect(id)?.filter(|container| !container.running) {
                    docker.start_container(&container)?;
                    names.push(container.name);
                }
            }
            fs::remove_file(&note).map_err(failed)?;
        }
        Ok(names)
    }
}

impl Stopped {
    /// Starts them again, in the other order.
    pub fn start_again(mut self) -> Result<(), RuntimeError> {
        self.start()
    }

    pub fn containers(&self) -> &[ContainerState] {
        &self.containers
    }

    fn start(&mut self) -> Result<(), RuntimeError> {
        self.started = true;
        let mut first = None;
        for container in self.containers.iter().rev() {
            if let Err(error) = self.docker.start_container(container) {
                first = first.or(Some(error));
            }
        }
        match first {
            // The note stays: the next apply tries again.
            Some(error) => Err(error),
            None => fs::remove_file(&self.note).map_err(|source| RuntimeError::Io {
                doing: format!("removing the note {}", self.note.display()),
                source,
            }),
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if !self.started
            && let Err(error) = self.start()
        {
            tracing::error!("containers that were stopped could not be started again: {}", crate::model::chain(&error));
        }
    }
}
