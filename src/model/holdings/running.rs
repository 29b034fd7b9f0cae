//! What the containers of the project add to what its files say: volumes without a name, and all that the files no longer name.

use std::path::Path;

use super::{Backing, HeldVolume, Holdings, Use};
use crate::model::image::{Kind, Server, of_name};
use crate::model::observation::{ContainerState, Mount};

impl Holdings {
    /// Takes in what containers mount, those too whose service the files do not name.
    pub fn with_containers(mut self, containers: &[ContainerState]) -> Self {
        for container in containers {
            if container.is_one_off() {
                continue;
            }
            // Without the label it belongs to no service, and is known by its own name.
            let service = container.compose_service().unwrap_or(&container.name).clone();
            let holder = self.services.entry(service.clone()).or_default();
            holder.containers.push(container.name.clone());
            if holder.image.is_none() {
                holder.image = Some(container.image.clone());
            }
            if !holder.declared && holder.server.is_none() {
                holder.server = match of_name(&container.image) {
                    Kind::Server(server) => Some(server),
                    Kind::Untried(_) | Kind::Helper | Kind::Other => None,
                };
            }
            let server = holder.server;
            holder.targets.extend(container.mounts.iter().map(|mount| mount.destination.clone()));
            for mount in &container.mounts {
                self.mount(&service, server, mount);
            }
        }
        self.sort();
        self
    }

    fn mount(&mut self, service: &str, server: Option<Server>, mount: &Mount) {
        let target = mount.destination.clone();
        let data_of = server.filter(|server| server.keeps_data_at(&target));
        let at = Use { service: service.to_owned(), target: target.clone(), writes: mount.writable, data_of };
        let known = |uses: &[Use]| uses.iter().any(|it| it.service == service && it.target == target);
        match &mount.volume {
            Some(name) => {
                let declared = self.volumes.iter_mut().find(|volume| volume.name == *name);
                match declared {
                    Some(volume) if known(&volume.uses) => {}
                    Some(volume) => volume.uses.push(at),
                    None if is_nameless(name) => self.nameless(at).volumes.push(name.clone()),
                    None => self.volumes.push(HeldVolume {
                        name: name.clone(),
                        key: None,
                        external: false,
                        backing: Backing::Local,
                        uses: vec![at],
                    }),
                }
            }
            // Memory has no source; what Compose makes itself for a config or a secret lies in the container.
            None if mount.source.is_empty() => {}
            None => {
                // Docker Desktop sees the machine's folders below one of its own.
                let path = mount.source.strip_prefix("/host_mnt").filter(|path| path.starts_with('/'));
                let path = Path::new(path.unwrap_or(&mount.source));
                // A secret or a config is mounted from the file that is known already.
                if self.files.iter().any(|file| file.path == path) && !self.binds.iter().any(|bind| bind.path == path) {
                    return;
                }
                let bind = self.bind(path);
                if !known(&bind.uses) {
                    bind.uses.push(at);
                }
            }
        }
    }
}

/// The engine calls a volume that nobody gave a name by 64 digits.
fn is_nameless(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
