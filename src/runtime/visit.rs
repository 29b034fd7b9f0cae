//! A container of devstack's own, the only kind that it makes: it lives for one step, to look into a volume or to put a
//! backup into it.
//!
//! Why there is one at all: Docker can read and fill a volume through any container that mounts it, but it cannot list
//! one, and it cannot remove anything from one. A stopped server can do neither for itself, and a running one must not.
//! So the visitor is made from an image that is on the machine already, that of the container the volume belongs to; it
//! runs `sleep` in place of the server, as root, without a network, and sees nothing but this one volume, which it may
//! only read unless something is restored. It stands in the book of what is left behind before it is made: what a killed
//! devstack leaves is removed by the next apply.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, Mount, MountType, MountVolumeOptions};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions};

use super::stopped::Note;
use super::{Docker, RuntimeError, StoppedBook};
use crate::model::observation::ContainerState;

/// On every visitor, for people who look.
pub(super) const LABEL: (&str, &str) = ("devstack.visitor", "removed after its step");

/// What every visitor's name begins with.
const NAME: &str = "devstack-visitor-";

/// Longer than any step.
const DAY: &str = "exec sleep 90000";

/// What a visitor sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visited {
    Volume(String),
    /// A folder of the machine that Docker runs on, mounted into a container.
    Folder(String),
}

/// A visitor, removed when this goes.
pub struct Visit {
    docker: Arc<Docker>,
    container: ContainerState,
    /// None once it is removed.
    note: Option<Note>,
}

impl Visit {
    /// Where what is visited lies in the visitor.
    pub const PLACE: &'static str = "/.devstack/volume";

    /// Makes a visitor from an image that is there and starts it. An image without a shell can't be started; the visitor
    /// then does not run, and Docker can still read what it mounts.
    pub fn begin(
        docker: &Arc<Docker>,
        book: &StoppedBook,
        image: &str,
        visited: &Visited,
        writes: bool,
    ) -> Result<Self, RuntimeError> {
        let mut unique = [0_u8; 8];
        getrandom::fill(&mut unique).map_err(|error| RuntimeError::Io {
            doing: "choosing a name for a container".to_owned(),
            source: std::io::Error::other(error),
        })?;
        let name = format!("{NAME}{}", hex::encode(unique));
        let note = book.note_visitor(&name)?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let doing = || format!("making a container from the image {image} to look into {}", visited.name());
        docker
            .wait(docker.client.create_container(Some(options), body(image, visited, writes)))
            .map_err(RuntimeError::docker(doing()))?;
        let gone = || RuntimeError::NoContainer { name: name.clone(), project: None };
        let made =
            Self { docker: docker.clone(), container: docker.inspect(&name)?.ok_or_else(gone)?, note: Some(note) };
        made.started()
    }

    fn started(mut self) -> Result<Self, RuntimeError> {
        let id = self.container.id.as_str().to_owned();
        match self.docker.wait(self.docker.client.start_container(&id, None::<StartContainerOptions>)) {
            Ok(()) => {}
            Err(error) if error.to_string().contains("executable file not found") => return Ok(self),
            Err(error) => {
                let doing = format!("starting the container {}", self.container.name);
                return Err(RuntimeError::docker(doing)(error));
            }
        }
        let gone = || RuntimeError::NoContainer { name: self.container.name.clone(), project: None };
        self.container = self.docker.inspect(&id)?.ok_or_else(gone)?;
        Ok(self)
    }

    pub fn container(&self) -> &ContainerState {
        &self.container
    }

    /// Whether programs can be run in it.
    pub fn has_shell(&self) -> bool {
        self.container.running
    }
}

impl Visited {
    fn name(&self) -> String {
        match self {
            Self::Volume(name) => format!("the volume {name}"),
            Self::Folder(path) => format!("the folder {path}"),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(note) = self.note.take() else { return };
        // Where it fails, the note stays and the next apply tries again.
        match self.docker.remove_visitor(&self.container.name) {
            Ok(()) => note.done(),
            Err(error) => tracing::warn!("{}", crate::model::chain(&error)),
        }
    }
}

fn body(image: &str, visited: &Visited, writes: bool) -> ContainerCreateBody {
    let (source, typ, volume_options) = match visited {
        // Without this Docker would first fill an empty volume with what the image has at that place.
        Visited::Volume(name) => {
            let options = MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() };
            (name, MountType::VOLUME, Some(options))
        }
        Visited::Folder(path) => (path, MountType::BIND, None),
    };
    let mount = Mount {
        target: Some(Visit::PLACE.to_owned()),
        source: Some(source.clone()),
        typ: Some(typ),
        read_only: Some(!writes),
        volume_options,
        ..Mount::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(["sh", "-c", DAY].map(str::to_owned).to_vec()),
        cmd: Some(Vec::new()),
        user: Some("0:0".to_owned()),
        labels: Some(HashMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())])),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(HostConfig {
            mounts: Some(vec![mount]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

impl Docker {
    /// Removes a visitor with the volumes that its image declares. One that is gone is fine, and nothing but a visitor is
    /// ever removed.
    pub(super) fn remove_visitor(&self, name: &str) -> Result<(), RuntimeError> {
        if !is_visitor(name) {
            return Ok(());
        }
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.wait(self.client.remove_container(name, Some(options))) {
            Ok(()) => Ok(()),
            Err(error) if RuntimeError::is_not_found(&error) => Ok(()),
            Err(error) => Err(RuntimeError::docker(format!("removing the container {name}"))(error)),
        }
    }
}

/// Whether a container is a visitor, by its name.
pub(super) fn is_visitor(name: &str) -> bool {
    name.starts_with(NAME)
}
