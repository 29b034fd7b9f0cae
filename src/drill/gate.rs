//! The last gate: what the engine says of a drill's containers, volumes and networks once they are created, and before
//! anything is started. It trusts neither the model nor Compose, and what it does not know is a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::id::{DrillId, LABEL};
use super::isolation;
use crate::model::observation::COMPOSE_SERVICE;

#[cfg(test)]
mod tests;

/// What was made for a drill, as the engine describes it.
#[derive(Debug, Clone, Default)]
pub struct Created {
    /// Those that Compose made for the drill's project, found by Compose's own label and by the drill's.
    pub containers: Vec<CreatedContainer>,
    /// Every volume that one of these containers mounts.
    pub volumes: Vec<CreatedVolume>,
    /// Every network that one of these containers is in.
    pub networks: Vec<CreatedNetwork>,
    /// Whether the engine shows its containers the machine's control groups unless told otherwise: `docker info` then has no
    /// `name=cgroupns` among its security options.
    pub shares_control_groups: bool,
    /// The engine's `DefaultRuntime`.
    pub default_runtime: String,
}

/// A container, without its environment.
#[derive(Debug, Clone, Default)]
pub struct CreatedContainer {
    pub id: String,
    pub name: String,
    /// The engine's word: `created` for one that was never started.
    pub state: String,
    pub labels: BTreeMap<String, String>,
    pub mounts: Vec<CreatedMount>,
    /// The names of its networks.
    pub networks: Vec<String>,
    pub host: HostSettings,
}

/// A mount, as `docker inspect` says it under `Mounts`, and each tmpfs of the host settings.
#[derive(Debug, Clone, Default)]
pub struct CreatedMount {
    /// `volume`, `bind`, `tmpfs` …
    pub kind: String,
    /// The volume's name.
    pub volume: Option<String>,
    /// The path on the machine.
    pub source: String,
    pub destination: String,
    pub propagation: String,
}

/// A container's `HostConfig`: where it touches the machine. Modes are the engine's own words, empty for its default.
#[derive(Debug, Clone, Default)]
pub struct HostSettings {
    pub network_mode: String,
    pub pid_mode: String,
    pub ipc_mode: String,
    pub uts_mode: String,
    pub user_namespace_mode: String,
    pub cgroup_namespace_mode: String,
    pub cgroup_parent: String,
    pub runtime: String,
    pub privileged: bool,
    pub publishes_all_ports: bool,
    /// `5432/tcp → 127.0.0.1:5432`, in any wording.
    pub published_ports: Vec<String>,
    pub added_capabilities: Vec<String>,
    /// Devices, requests for devices and rules that open some, in any wording.
    pub devices: Vec<String>,
    pub security_options: Vec<String>,
    pub extra_hosts: Vec<String>,
    /// `no` or empty for none.
    pub restart_policy: String,
    pub log_driver: String,
    /// The containers whose volumes it takes, by id.
    pub volumes_from: Vec<String>,
}

/// A volume.
#[derive(Debug, Clone, Default)]
pub struct CreatedVolume {
    pub name: String,
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// A network.
#[derive(Debug, Clone, Default)]
pub struct CreatedNetwork {
    pub name: String,
    pub driver: String,
    pub internal: bool,
    pub labels: BTreeMap<String, String>,
    /// The ids of the containers that are in it.
    pub members: Vec<String>,
}

/// Something that reaches out of the drill. One is enough that nothing is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `container d1-db-1`, `volume x`, `network y`.
    pub of: String,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.of, self.what)
    }
}

/// Every finding; none means that the drill's containers may be started. `services` are those that the model has.
pub fn inspect(created: &Created, id: &DrillId, services: &BTreeSet<String>, scratch: &Path) -> Vec<Finding> {
    let mut gate = Gate { created, id, scratch: plain(scratch), findings: Vec::new() };
    if gate.scratch.as_ref().is_none_or(|scratch| scratch.parent().is_none()) {
        gate.found("the scratch folder", format!("{} is not a folder of the drill's own", scratch.display()));
    }
    for service in services {
        let is = |container: &&CreatedContainer| container.labels.get(COMPOSE_SERVICE) == Some(service);
        match created.containers.iter().filter(is).count() {
            1 => {}
            count => gate.found(&format!("service {service}"), format!("{count} containers were made for it, not one")),
        }
    }
    for container in &created.containers {
        gate.container(container, services);
    }
    for volume in &created.volumes {
        gate.volume(volume);
    }
    for network in &created.networks {
        gate.network(network);
    }
    gate.findings
}

const COMPOSE_PROJECT: &str = "com.docker.compose.project";

struct Gate<'a> {
    created: &'a Created,
    id: &'a DrillId,
    scratch: Option<PathBuf>,
    findings: Vec<Finding>,
}

impl Gate<'_> {
    fn found(&mut self, of: &str, what: impl Into<String>) {
        self.findings.push(Finding { of: of.to_owned(), what: what.into() });
    }

    fn carries_the_label(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(LABEL).is_some_and(|id| id == self.id.as_str())
    }

    /// Whether an id or a name means one of the drill's own containers.
    fn is_ours(&self, container: &str) -> bool {
        self.created.containers.iter().any(|own| own.id == container && self.carries_the_label(&own.labels))
    }

    fn container(&mut self, container: &CreatedContainer, services: &BTreeSet<String>) {
        let of = format!("container {}", container.name);
        if !self.carries_the_label(&container.labels) {
            self.found(&of, "it does not carry the drill's label");
        }
        if container.labels.get(COMPOSE_PROJECT).is_none_or(|project| project != self.id.as_str()) {
            self.found(&of, "it was not made for the drill's own Compose project");
        }
        if container.labels.get(COMPOSE_SERVICE).is_none_or(|service| !services.contains(service)) {
            self.found(&of, "it belongs to no service of the drill");
        }
        if container.state != "created" {
            self.found(&of, format!("it is {}, and was to be created only", container.state));
        }
        for mount in &container.mounts {
            self.mount(&of, mount);
        }
        for network in &container.networks {
            if !self.created.networks.iter().any(|known| known.name == *network) && network != "none" {
                self.found(&of, format!("it is in the network {network}, of which the engine says nothing"));
            }
        }
        self.host(&of, container);
    }

    fn mount(&mut self, of: &str, mount: &CreatedMount) {
        let at = &mount.destination;
        match mount.kind.as_str() {
            "tmpfs" => {}
            "volume" => {
                let name = mount.volume.as_deref().unwrap_or_default();
                let known = self.created.volumes.iter().find(|volume| volume.name == name);
                if !known.is_some_and(|volume| self.carries_the_label(&volume.labels)) {
                    self.found(of, format!("at {at} it mounts the volume `{name}`, which is not the drill's"));
                }
            }
            "bind" => {
                let source = plain(Path::new(&mount.source));
                let below = match (&source, &self.scratch) {
                    (Some(source), Some(scratch)) => source != scratch && source.starts_with(scratch),
                    _ => false,
                };
                if !below {
                    self.found(of, format!("at {at} it mounts {}, which is no copy of the drill's", mount.source));
                }
                if !matches!(mount.propagation.as_str(), "" | "private" | "rprivate") {
                    let how = &mount.propagation;
                    self.found(of, format!("at {at} mounts propagate between it and the machine ({how})"));
                }
            }
            other => self.found(of, format!("at {at} it has a mount of the unknown kind `{other}`")),
        }
    }

    fn host(&mut self, of: &str, container: &CreatedContainer) {
        let host = &container.host;
        let in_one_of = |mode: &str| container.networks.iter().any(|network| network == mode);
        if host.network_mode != "none" && !in_one_of(&host.network_mode) && !self.joins_ours(&host.network_mode) {
            self.found(of, format!("its network mode is `{}`", host.network_mode));
        }
        let modes = [
            ("process", &host.pid_mode, &["", "private"] as &[&str]),
            ("IPC", &host.ipc_mode, &["", "none", "private", "shareable"]),
            ("UTS", &host.uts_mode, &["", "private"]),
            ("user", &host.user_namespace_mode, &["", "private"]),
        ];
        for (kind, mode, own) in modes {
            if !own.contains(&mode.as_str()) && !self.joins_ours(mode) {
                self.found(of, format!("its {kind} namespace is `{mode}`"));
            }
        }
        let shares_groups = host.cgroup_namespace_mode == "host" && self.created.shares_control_groups;
        if !matches!(host.cgroup_namespace_mode.as_str(), "" | "private") && !shares_groups {
            self.found(of, format!("its control group namespace is `{}`", host.cgroup_namespace_mode));
        }
        if !host.cgroup_parent.is_empty() {
            self.found(of, format!("it is in the control group `{}`", host.cgroup_parent));
        }
        if !matches!(host.runtime.as_str(), "" | "runc") && host.runtime != self.created.default_runtime {
            self.found(of, format!("it runs in the runtime `{}`", host.runtime));
        }
        if host.privileged {
            self.found(of, "it is privileged");
        }
        if host.publishes_all_ports {
            self.found(of, "it publishes all its ports");
        }
        if !matches!(host.restart_policy.as_str(), "" | "no") {
            self.found(of, format!("it would be restarted ({})", host.restart_policy));
        }
        if !matches!(host.log_driver.as_str(), "json-file" | "local" | "none") {
            self.found(of, format!("its lines go to `{}`, which the live stack may be reading", host.log_driver));
        }
        for port in &host.published_ports {
            self.found(of, format!("it publishes the port {port}"));
        }
        for device in &host.devices {
            self.found(of, format!("it has the device {device}"));
        }
        for capability in &host.added_capabilities {
            if !isolation::stays_inside(capability) {
                self.found(of, format!("it has the capability {capability}"));
            }
        }
        for option in &host.security_options {
            if !isolation::confines(option) {
                self.found(of, format!("it has the security option `{option}`"));
            }
        }
        for entry in &host.extra_hosts {
            let (_, address) = entry.split_once([':', '=']).unwrap_or((entry, ""));
            if !isolation::is_itself(address) {
                self.found(of, format!("it has the host entry `{entry}`"));
            }
        }
        for from in &host.volumes_from {
            // `ID[:ro]`
            if !self.is_ours(from.split(':').next().unwrap_or_default()) {
                self.found(of, format!("it takes the volumes of the container {from}"));
            }
        }
    }

    /// `container:ID` with a container of the drill.
    fn joins_ours(&self, mode: &str) -> bool {
        mode.strip_prefix("container:").is_some_and(|container| self.is_ours(container))
    }

    fn volume(&mut self, volume: &CreatedVolume) {
        let of = format!("volume {}", volume.name);
        if !self.carries_the_label(&volume.labels) {
            self.found(&of, "it does not carry the drill's label");
        }
        if !self.begins_with_the_id(&volume.name) {
            self.found(&of, "its name does not begin with the drill's id");
        }
        if volume.driver != "local" || !volume.options.is_empty() {
            self.found(&of, "it is not a plain local volume, so its data may be the live stack's");
        }
    }

    fn network(&mut self, network: &CreatedNetwork) {
        let of = format!("network {}", network.name);
        // What has no network is in one of this name.
        if network.name == "none" && network.driver == "null" {
            return;
        }
        if !self.carries_the_label(&network.labels) {
            self.found(&of, "it does not carry the drill's label");
        }
        if !self.begins_with_the_id(&network.name) {
            self.found(&of, "its name does not begin with the drill's id");
        }
        if !network.internal {
            self.found(&of, "it is not internal");
        }
        if network.driver != "bridge" {
            self.found(&of, format!("its driver is `{}`, not `bridge`", network.driver));
        }
        for member in &network.members {
            if !self.is_ours(member) {
                self.found(&of, format!("the container {member} is in it, which is not the drill's"));
            }
        }
    }

    fn begins_with_the_id(&self, name: &str) -> bool {
        name.strip_prefix(self.id.as_str()).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// An absolute path without `.`, `..` and doubled slashes.
fn plain(path: &Path) -> Option<PathBuf> {
    path.is_absolute().then(|| isolation::plain(path))
}
