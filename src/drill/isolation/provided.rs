//! What of the drill stands for what of the live stack: for the restore, which must find the drill's things by the live
//! ones' names and never the live ones, and for the evidence.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::compose::numbered;

use super::{LeftOut, NewNetwork, NewVolume, ScratchCopy, StandsFor};

/// What stands for what. A question that it has no answer to is never to be asked of the engine instead: by the same name
/// the engine knows the live stack's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Provided {
    /// The names of the live project, by which devstack.yaml may call a container: `PROJECT-SERVICE-1`.
    pub projects: Vec<String>,
    pub containers: Vec<NewContainer>,
    /// Compose makes them; the data is restored into them.
    pub volumes: Vec<NewVolume>,
    /// To be filled before anything is created.
    pub copies: Vec<ScratchCopy>,
    /// Compose makes them.
    pub networks: Vec<NewNetwork>,
    /// Variables that Compose takes from its own environment when it makes the containers.
    pub variables: Vec<String>,
    pub left_out: Vec<LeftOut>,
}

/// The one container of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewContainer {
    pub service: String,
    /// The fixed name of the live container, where the Compose files give one.
    pub live: Option<String>,
}

impl Provided {
    /// The service that devstack.yaml means by a container's name: a service of the Compose files, a `container_name`, or the name
    /// that Compose gives to one of its containers. The drill has one of them.
    pub fn service_for(&self, container: &str) -> Option<&str> {
        let by_service = self.containers.iter().find(|own| own.service == container);
        let by_name = || self.containers.iter().find(|own| own.live.as_deref() == Some(container));
        let by_number = || {
            let meant = self.projects.iter().filter_map(|project| numbered(container, project));
            let mut meant = meant.map(|(service, _)| service);
            meant.find_map(|service| self.containers.iter().find(|own| own.service == service && own.live.is_none()))
        };
        by_service.or_else(by_name).or_else(by_number).map(|own| own.service.as_str())
    }

    /// The drill's volume for one that devstack.yaml means by its key in the Compose files or by the engine's own name.
    pub fn volume_for(&self, volume: &str) -> Option<&str> {
        let is = |of: &dyn Fn(&str, &str) -> bool| {
            let meant = |own: &&NewVolume| matches!(&own.stands_for, StandsFor::Named { key, name } if of(key, name));
            self.volumes.iter().find(meant)
        };
        let moved = || {
            let keys =
                self.projects.iter().filter_map(|project| volume.strip_prefix(project.as_str())?.strip_prefix('_'));
            let mut keys = keys.filter_map(|meant| {
                self.volumes.iter().find(|own| match &own.stands_for {
                    // One of the project's own: with another name it is somebody else's.
                    StandsFor::Named { key, name } => key == meant && name.ends_with(&format!("_{key}")),
                    StandsFor::Nameless { .. } | StandsFor::Image { .. } => false,
                })
            });
            keys.next()
        };
        let found = is(&|key, _| key == volume).or_else(|| is(&|_, name| name == volume));
        found.or_else(moved).map(|own| own.name.as_str())
    }

    /// Where the drill's containers see a host path: in the copy that holds it.
    pub fn copy_for(&self, host: &Path) -> Option<PathBuf> {
        let around = self.copies.iter().filter(|copy| host.starts_with(&copy.host));
        let nearest = around.max_by_key(|copy| copy.host.components().count())?;
        host.strip_prefix(&nearest.host).ok().map(|rest| match rest.as_os_str().is_empty() {
            true => nearest.scratch.clone(),
            false => nearest.scratch.join(rest),
        })
    }
}
