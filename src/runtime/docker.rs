//! A connection to the Docker engine, and what it says of containers.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, HealthStatusEnum, MountPoint};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, ListVolumesOptions};

use super::RuntimeError;
use super::connect::{Place, Surroundings, Way};
use super::dialled::Dialled;
use super::visit::is_visitor;
use crate::model::holdings::Backing;
use crate::model::ids::ContainerId;
use crate::model::observation::{ContainerState, Health, Mount};

/// An answer that is not a stream comes within this, or the engine hangs.
const ANSWER: Duration = Duration::from_secs(60);

/// A stream may take as long as the longest run; its own steps watch over it.
const STREAM: Duration = Duration::from_secs(24 * 3600);

/// A connection to an engine. Its calls block; they run on threads of its own, so that it serves from any thread that
/// is not itself one of tokio's workers.
pub struct Docker {
    /// For questions.
    pub(super) client: bollard::Docker,
    /// For uploads, whose answer comes only after the last byte.
    pub(super) patient: bollard::Docker,
    runtime: tokio::runtime::Runtime,
    place: Place,
    /// What stands between, where only the `docker` program knows the way. It lasts as long as the connection.
    _dialled: Option<Dialled>,
}

impl Docker {
    /// Connects to the engine that the environment, Docker's context or the usual sockets name, in the newest version of
    /// its API that both know (1.41 at least).
    pub fn connect() -> Result<Self, RuntimeError> {
        let places = Surroundings::here().places()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("docker")
            .enable_all()
            .build()
            .map_err(|source| RuntimeError::Io { doing: "starting the threads that talk to Docker".into(), source })?;
        let mut last = None;
        for place in &places {
            let dialled = match place.way {
                Way::Direct => None,
                Way::Program => {
                    let io =
                        |source| RuntimeError::Io { doing: "making a socket for the docker program".into(), source };
                    Some(Dialled::listen().map_err(io)?)
                }
            };
            let address = dialled.as_ref().map_or_else(|| place.address.clone(), Dialled::address);
            match runtime.block_on(answers(&address)) {
                Ok(client) => {
                    let patient = client.clone().with_timeout(STREAM);
                    return Ok(Self { client, patient, runtime, place: place.clone(), _dialled: dialled });
                }
                Err(source) => {
                    let Some(said) = dialled.and_then(|dialled| dialled.said()) else {
                        last = Some(source);
                        continue;
                    };
                    return Err(RuntimeError::NotDialled { at: place.address.clone(), said });
                }
            }
        }
        let looked_at = places.into_iter().map(|place| place.address).collect();
        Err(RuntimeError::NoEngine { looked_at, source: last })
    }

    /// The address that answered, as `DOCKER_HOST` takes it.
    pub fn address(&self) -> &str {
        &self.place.address
    }

    /// The engine is reached by a socket of this machine: the paths that containers bind are this machine's.
    pub fn is_here(&self) -> bool {
        self.place.address.starts_with("unix://")
    }

    /// Sets a program of Docker's own to the same engine. Where it is the program that knows the way, it is left to its settings.
    pub(super) fn guide(&self, program: &mut std::process::Command) {
        match self.place.way {
            Way::Direct => {
                for name in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS"] {
                    program.env_remove(name);
                }
                program.env("DOCKER_HOST", &self.place.address);
            }
            Way::Program => {}
        }
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(future);
    }

    /// The containers, in any state, that carry every one of these labels.
    pub(super) fn labelled(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerState>, RuntimeError> {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.listed(HashMap::from([("label".to_owned(), labels)]))
    }

    /// The containers, in any state, that mount a named volume. Visitors are not among them.
    pub fn mounting(&self, volume: &str) -> Result<Vec<ContainerState>, RuntimeError> {
        let mut found = self.listed(HashMap::from([("volume".to_owned(), vec![volume.to_owned()])]))?;
        // The engine takes the word for a path in the container too.
        found.retain(|container| {
            let mounts = container.mounts.iter().any(|mount| mount.volume.as_deref() == Some(volume));
            mounts && !is_visitor(&container.name)
        });
        Ok(found)
    }

    /// All containers that run, whatever project they belong to, but for visitors.
    pub fn running(&self) -> Result<Vec<ContainerState>, RuntimeError> {
        let mut found = self.listed(HashMap::from([("status".to_owned(), vec!["running".to_owned()])]))?;
        found.retain(|container| !is_visitor(&container.name));
        Ok(found)
    }

    /// The engine's version.
    pub fn version(&self) -> Result<String, RuntimeError> {
        let answer = self.wait(self.client.version()).map_err(RuntimeError::docker("asking Docker for its version"))?;
        Ok(answer.version.unwrap_or_default())
    }

    /// The folder of its machine in which it keeps volumes and containers.
    pub fn folder(&self) -> Result<Option<std::path::PathBuf>, RuntimeError> {
        let answer = self.wait(self.client.info()).map_err(RuntimeError::docker("asking Docker for its folder"))?;
        Ok(answer.docker_root_dir.map(Into::into))
    }

    /// Whether an image is on the machine.
    pub fn has_image(&self, image: &str) -> Result<bool, RuntimeError> {
        match self.wait(self.client.inspect_image(image)) {
            Ok(_) => Ok(true),
            Err(error) if RuntimeError::is_not_found(&error) => Ok(false),
            Err(error) => Err(RuntimeError::docker(format!("looking at the image {image}"))(error)),
        }
    }

    fn listed(&self, filters: HashMap<String, Vec<String>>) -> Result<Vec<ContainerState>, RuntimeError> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self
            .wait(self.client.list_containers(Some(options)))
            .map_err(RuntimeError::docker("listing the containers"))?;
        let mut states = Vec::new();
        for id in found.into_iter().filter_map(|container| container.id) {
            // One that went between the listing and the look is not there.
            states.extend(self.inspect(&id)?);
        }
        states.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(states)
    }

    /// A container by id or exact name; None where the engine says that there is none.
    pub fn inspect(&self, container: &str) -> Result<Option<ContainerState>, RuntimeError> {
        match self.wait(self.client.inspect_container(container, None::<InspectContainerOptions>)) {
            Ok(answer) => Ok(Some(state(answer))),
            Err(error) if RuntimeError::is_not_found(&error) => Ok(None),
            Err(error) => Err(RuntimeError::docker(format!("looking at the container {container}"))(error)),
        }
    }

    /// Where a running container is reached from the engine's own machine; None where it is on no network.
    pub fn address_of(&self, container: &ContainerState) -> Result<Option<IpAddr>, RuntimeError> {
        let doing = || format!("looking at the container {}", container.name);
        let answer = self
            .wait(self.client.inspect_container(container.id.as_str(), None::<InspectContainerOptions>))
            .map_err(RuntimeError::docker(doing()))?;
        let networks = answer.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        Ok(networks.into_values().find_map(|network| network.ip_address?.parse().ok()))
    }

    /// Whether this machine reaches the engine's containers by their addresses: not where they live in a machine of their
    /// own (Docker Desktop, Colima), afar, or behind a user's own network (rootless).
    pub fn shares_network(&self) -> Result<bool, RuntimeError> {
        let answer = self.wait(self.client.info()).map_err(RuntimeError::docker("asking Docker for its kind"))?;
        let is_desktop = answer.operating_system.is_some_and(|system| system.contains("Docker Desktop"));
        let is_rootless = answer.security_options.unwrap_or_default().iter().any(|option| option.contains("rootless"));
        Ok(cfg!(target_os = "linux") && self.is_here() && !is_desktop && !is_rootless)
    }

    /// Where the bytes of a named volume lie; None where it is not there.
    pub fn backing_of(&self, volume: &str) -> Result<Option<Backing>, RuntimeError> {
        match self.wait(self.client.inspect_volume(volume)) {
            Ok(found) => Ok(Some(backing(&found.driver, &found.options))),
            Err(error) if RuntimeError::is_not_found(&error) => Ok(None),
            Err(error) => Err(RuntimeError::docker(format!("looking at the volume {volume}"))(error)),
        }
    }

    /// The named volumes that are a folder of the machine under another name, and that folder.
    pub fn bound_volumes(&self) -> Result<BTreeMap<String, PathBuf>, RuntimeError> {
        let listed = self
            .wait(self.client.list_volumes(None::<ListVolumesOptions>))
            .map_err(RuntimeError::docker("listing the volumes"))?;
        let bound = listed.volumes.unwrap_or_default().into_iter().filter_map(|volume| {
            match backing(&volume.driver, &volume.options) {
                Backing::Folder(path) => Some((volume.name, path)),
                Backing::Local | Backing::Memory | Backing::Remote(_) => None,
            }
        });
        Ok(bound.collect())
    }

    /// Whether a named volume is there.
    pub fn has_volume(&self, volume: &str) -> Result<bool, RuntimeError> {
        match self.wait(self.client.inspect_volume(volume)) {
            Ok(_) => Ok(true),
            Err(error) if RuntimeError::is_not_found(&error) => Ok(false),
            Err(error) => Err(RuntimeError::docker(format!("looking at the volume {volume}"))(error)),
        }
    }
}

async fn answers(address: &str) -> Result<bollard::Docker, bollard::errors::Error> {
    bollard::Docker::connect_with_host(address)?.with_timeout(ANSWER).negotiate_version().await
}

/// What is kept of an answer. Its environment is not: it may hold passwords.
fn state(answer: ContainerInspectResponse) -> ContainerState {
    let now = answer.state.unwrap_or_default();
    let config = answer.config.unwrap_or_default();
    let health = now.health.and_then(|health| health.status).map_or(Health::NotChecked, |status| match status {
        HealthStatusEnum::HEALTHY => Health::Healthy,
        HealthStatusEnum::UNHEALTHY => Health::Unhealthy,
        HealthStatusEnum::STARTING => Health::Starting,
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => Health::NotChecked,
    });
    let networks = answer.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut networks: Vec<String> = networks.into_keys().collect();
    networks.sort();
    let host = answer.host_config.unwrap_or_default();
    let modes = [host.network_mode, host.pid_mode, host.ipc_mode];
    let joined = modes.iter().flatten().filter_map(|mode| mode.strip_prefix("container:"));
    let mut joins: Vec<ContainerId> = joined.map(ContainerId::new).collect();
    joins.sort();
    joins.dedup();
    let mut mounts: Vec<Mount> = answer.mounts.unwrap_or_default().into_iter().map(mount).collect();
    // `tmpfs:` of a service is in another place than a mount of that type.
    for destination in host.tmpfs.unwrap_or_default().into_keys() {
        if mounts.iter().all(|mount| mount.destination != destination) {
            mounts.push(Mount { volume: None, source: String::new(), destination, writable: true });
        }
    }
    ContainerState {
        id: ContainerId::new(answer.id.unwrap_or_default()),
        name: answer.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_digest: answer.image.unwrap_or_default(),
        state: now.status.map(|status| status.to_string()).unwrap_or_default(),
        running: now.running.unwrap_or_default() && !now.paused.unwrap_or_default(),
        stop_seconds: config.stop_timeout,
        exit_code: now.exit_code.unwrap_or_default(),
        health,
        restarts: u64::try_from(answer.restart_count.unwrap_or_default()).unwrap_or_default(),
        mounts,
        networks,
        joins,
        labels: config
            .labels
            .unwrap_or_default()
            .into_iter()
            .filter(|(name, _)| name.starts_with("com.docker.compose."))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn backing(driver: &str, options: &HashMap<String, String>) -> Backing {
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    Backing::of(Some(driver), option)
}

fn mount(point: MountPoint) -> Mount {
    Mount {
        volume: point.name.filter(|_| point.typ.as_deref() == Some("volume")),
        source: point.source.unwrap_or_default(),
        destination: point.destination.unwrap_or_default(),
        writable: point.rw.unwrap_or(true),
    }
}
