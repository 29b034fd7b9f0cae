//! Containers that devstack has stopped and must start again, whatever happens. Who is stopped stands in a file before
//! it is stopped, so that the next apply starts what a killed one left down. Paused ones and visitors stand in there too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Docker, RuntimeError, Visit, Visited, unit};
use crate::model::holdings::Backing;
use crate::model::observation::ContainerState;

/// What a note's line begins with that names a visitor: it is removed where the others are started.
const REMOVE: &str = "remove ";

/// What a note's line begins with that names a container that is paused and not stopped.
const GO_ON: &str = "unpause ";

/// The folder of the notes: `.devstack/stopped`.
#[derive(Debug, Clone)]
pub struct StoppedBook {
    folder: PathBuf,
    /// How many steps want a container to be stopped now: two may read data that one container writes, and it starts
    /// again only after both.
    wanted: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// One note in the folder.
pub(super) struct Note {
    /// None where it could not be written.
    path: Option<PathBuf>,
}

/// Containers that are stopped for as long as this lives. [`Stopped::start_again`] says whether they came back.
#[must_use = "dropped, they are started again and nobody hears whether they did"]
pub struct Stopped {
    docker: Arc<Docker>,
    book: StoppedBook,
    containers: Vec<ContainerState>,
    note: Note,
    started: bool,
    /// What must outlive them all, and goes after they have been started again.
    _keepers: Vec<Visit>,
}

/// A container that is held still for as long as this lives. [`Paused::go_on`] says whether it goes on.
#[must_use = "dropped, it goes on and nobody hears whether it did"]
pub struct Paused {
    docker: Arc<Docker>,
    container: ContainerState,
    /// None once it goes on.
    note: Option<Note>,
}

/// Nothing can be kept there, and trying again would give the same.
fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

impl StoppedBook {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, wanted: Arc::default() }
    }

    /// Stops those of the containers that run, and whoever shares a network or more with one of them. When one cannot be stopped,
    /// those before it are started again.
    pub fn stop(&self, docker: &Arc<Docker>, containers: &[ContainerState]) -> Result<Stopped, RuntimeError> {
        // One at a time: another step may be stopping or starting the same ones.
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asked = Vec::new();
        for container in containers {
            let now = docker.inspect(container.id.as_str())?.unwrap_or_else(|| container.clone());
            if now.running || wanted.contains_key(now.id.as_str()) {
                asked.push(now);
            }
        }
        let mut running = if asked.is_empty() { Vec::new() } else { docker.running()? };
        for id in wanted.keys() {
            running.extend(docker.inspect(id)?);
        }
        let ours = unit::whole(&running, asked);
        // Before the note of those that are stopped: what a kill leaves is cleared up in the order of the work.
        let keepers = self.keep_memory(docker, &ours)?;
        let lines: Vec<&str> = ours.iter().map(|container| container.id.as_str()).collect();
        let note = self.note(&lines.join("\n"))?;
        let mut stopped = Stopped {
            docker: docker.clone(),
            book: self.clone(),
            containers: Vec::new(),
            note,
            started: false,
            _keepers: keepers,
        };
        let mut failed = None;
        for container in ours {
            *wanted.entry(container.id.as_str().to_owned()).or_default() += 1;
            // It may have been stopped although it was not heard.
            stopped.containers.push(container.clone());
            if let Err(error) = docker.stop(&container) {
                failed = Some(error);
                break;
            }
        }
        drop(wanted);
        match failed {
            None => Ok(stopped),
            Some(error) => Err(error),
        }
    }

    /// A volume in memory is gone with the last container that mounts it, so that one of devstack's own mounts it meanwhile.
    fn keep_memory(&self, docker: &Arc<Docker>, to_stop: &[ContainerState]) -> Result<Vec<Visit>, RuntimeError> {
        let mut kept: BTreeMap<&str, Visit> = BTreeMap::new();
        for container in to_stop.iter().filter(|container| container.running) {
            for volume in container.mounts.iter().filter_map(|mount| mount.volume.as_deref()) {
                if kept.contains_key(volume) || docker.backing_of(volume)? != Some(Backing::Memory) {
                    continue;
                }
                let visited = Visited::Volume(volume.to_owned());
                let visit = Visit::begin(docker, self, &container.image_digest, &visited, false)?;
                if !visit.has_shell() {
                    return Err(RuntimeError::WouldEmpty { name: container.name.clone(), volume: volume.to_owned() });
                }
                kept.insert(volume, visit);
            }
        }
        Ok(kept.into_values().collect())
    }

    /// Pauses a container that runs.
    pub fn pause(&self, docker: &Arc<Docker>, container: &ContainerState) -> Result<Paused, RuntimeError> {
        let note = self.note(&format!("{GO_ON}{}", container.id.as_str()))?;
        let paused = Paused { docker: docker.clone(), container: container.clone(), note: Some(note) };
        // It may be paused although it was not heard: dropped, it goes on all the same.
        docker.pause(container)?;
        Ok(paused)
    }

    /// Notes a visitor before it is made.
    pub(super) fn note_visitor(&self, name: &str) -> Result<Note, RuntimeError> {
        self.note(&format!("{REMOVE}{name}"))
    }

    fn note(&self, text: &str) -> Result<Note, RuntimeError> {
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let mut unique = [0_u8; 8];
            getrandom::fill(&mut unique).map_err(io::Error::other)?;
            let path = self.folder.join(hex::encode(unique));
            let written = fs::write(&path, text)
                .and_then(|()| fs::File::open(&path)?.sync_all())
                .and_then(|()| fs::File::open(&self.folder)?.sync_all());
            match written {
                Ok(()) => Ok(Note { path: Some(path) }),
                Err(error) => {
                    // Half a note names half an id.
                    let _ = fs::remove_file(&path);
                    Err(error)
                }
            }
        };
        match write() {
            // A cache that can't be written hinders no backup: what is lost is that the next apply cleans up after a kill.
            Err(source) if is_unwritable(&source) => {
                tracing::warn!(
                    "{} can't be written ({source}): if devstack is killed now, start what it stopped by hand, \
                     with `docker compose up -d`",
                    self.folder.display()
                );
                Ok(Note { path: None })
            }
            written => written.map_err(|source| RuntimeError::Io {
                doing: format!("writing in {} which containers are stopped", self.folder.display()),
                source,
            }),
        }
    }

    /// Whether an apply that is gone has left a note.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).map_or(true, |mut notes| notes.next().is_none())
    }

    /// Each with what is written in it.
    fn notes(&self) -> Result<impl Iterator<Item = Result<(PathBuf, String), RuntimeError>>, RuntimeError> {
        let unreadable = |source| self.unreadable(source);
        let notes = fs::read_dir(&self.folder).map_err(unreadable)?;
        Ok(notes.map(move |note| {
            let path = note.map_err(unreadable)?.path();
            let text = fs::read_to_string(&path).map_err(unreadable)?;
            Ok((path, text))
        }))
    }

    fn unreadable(&self, source: io::Error) -> RuntimeError {
        RuntimeError::Io { doing: format!("reading the notes in {}", self.folder.display()), source }
    }

    /// The names of the containers that are noted as stopped or paused, and are. While an apply goes on, its own are among them.
    pub fn still_stopped(&self, docker: &Docker) -> Result<Vec<String>, RuntimeError> {
        let mut names = Vec::new();
        for note in self.notes()? {
            let (_, text) = note?;
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with(REMOVE)) {
                let id = line.strip_prefix(GO_ON).unwrap_or(line);
                names
                    .extend(docker.inspect(id)?.filter(|container| !container.running).map(|container| container.name));
            }
        }
        Ok(names)
    }

    /// Starts what an apply that was killed left stopped. Called with the lease held, so that nobody else's are among
    /// them. Returns those that were started.
    pub fn start_left_behind(&self, docker: &Docker) -> Result<Vec<ContainerState>, RuntimeError> {
        let notes: Vec<(PathBuf, String)> = self.notes()?.collect::<Result<_, _>>()?;
        let lines = || notes.iter().flat_map(|(_, text)| text.lines()).filter(|line| !line.is_empty());
        let (mut started, mut down) = (Vec::new(), Vec::<ContainerState>::new());
        for id in lines().filter(|line| !line.starts_with(REMOVE)) {
            if let Some(paused) = id.strip_prefix(GO_ON) {
                if let Some(container) = docker.inspect(paused)?.filter(ContainerState::is_paused) {
                    docker.unpause(&container)?;
                    started.push(container);
                }
            } else if let Some(container) = docker.inspect(id)?.filter(|container| !container.running) {
                down.push(container);
            }
        }
        // What others share comes first, whichever note it stands in.
        let down = unit::whole(&[], down);
        for container in down.into_iter().rev() {
            docker.start_container(&container)?;
            started.push(container);
        }
        // Visitors last: one may be all that keeps what lies in memory.
        for visitor in lines().filter_map(|line| line.strip_prefix(REMOVE)) {
            docker.remove_visitor(visitor)?;
        }
        for (note, _) in &notes {
            fs::remove_file(note).map_err(|source| self.unreadable(source))?;
        }
        Ok(started)
    }
}

impl Stopped {
    /// Starts them again, in the other order, and looks at each.
    pub fn start_again(mut self) -> Result<(), RuntimeError> {
        self.start()
    }

    pub fn containers(&self) -> &[ContainerState] {
        &self.containers
    }

    /// It runs: what the engine has started may have ended at once.
    fn is_up(&self, container: &ContainerState) -> Result<(), RuntimeError> {
        match self.docker.inspect(container.id.as_str())? {
            Some(now) if now.running => Ok(()),
            Some(now) if now.state == "restarting" || (now.state == "exited" && now.exit_code == 0) => Ok(()),
            Some(now) => Err(RuntimeError::NotRunning { name: now.name, state: now.state }),
            None => Err(RuntimeError::NoContainer { name: container.name.clone(), project: None }),
        }
    }

    fn start(&mut self) -> Result<(), RuntimeError> {
        self.started = true;
        let mut wanted = self.book.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = None;
        for container in self.containers.iter().rev() {
            let id = container.id.as_str();
            let others = wanted.get(id).map_or(0, |count| count.saturating_sub(1));
            if others > 0 {
                wanted.insert(id.to_owned(), others);
                continue;
            }
            wanted.remove(id);
            let up = self.docker.start_container(container).and_then(|()| self.is_up(container));
            if let Err(error) = up {
                first = first.or(Some(error));
            }
        }
        drop(wanted);
        match first {
            // The note stays: the next apply tries again.
            Some(error) => Err(error),
            None => self.note.remove(),
        }
    }
}

impl Paused {
    /// Lets it go on. One that was stopped meanwhile is not paused any more.
    pub fn go_on(mut self) -> Result<(), RuntimeError> {
        self.resume()
    }

    fn resume(&mut self) -> Result<(), RuntimeError> {
        let Some(note) = self.note.take() else { return Ok(()) };
        if self.docker.inspect(self.container.id.as_str())?.is_some_and(|now| now.is_paused()) {
            // Where it fails, the note stays and the next apply tries again.
            self.docker.unpause(&self.container)?;
        }
        note.done();
        Ok(())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = self.resume() {
            tracing::error!("a container that was paused does not go on: {}", crate::model::chain(&error));
        }
    }
}

impl Note {
    /// What it tells of is over.
    pub(super) fn done(self) {
        if let Err(error) = self.remove() {
            tracing::warn!("{}", crate::model::chain(&error));
        }
    }

    fn remove(&self) -> Result<(), RuntimeError> {
        let Some(path) = &self.path else { return Ok(()) };
        remove(path)
            .map_err(|source| RuntimeError::Io { doing: format!("removing the note {}", path.display()), source })
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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
