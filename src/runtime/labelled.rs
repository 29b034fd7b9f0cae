//! What carries a label: described as the engine says it, and removed.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use bollard::query_parameters::{
    InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use serde_json::{Value, json};

use super::containers::PROJECT;
use super::visit::{self, is_visitor};
use super::{Docker, RuntimeError};

/// What was made, in the engine's own words (`docker inspect`), without any environment.
#[derive(Debug, Clone, Default)]
pub struct Made {
    pub containers: Vec<Value>,
    pub volumes: Vec<Value>,
    pub networks: Vec<Value>,
    /// `docker info`.
    pub engine: Value,
}

impl Docker {
    /// The containers that carry the label or belong to the Compose project of that name, with every volume and network
    /// that they or the label name.
    pub fn made_for(&self, label: &str, name: &str) -> Result<Made, RuntimeError> {
        let mut ids: BTreeSet<String> = self.containers_with(label, name)?.into_iter().collect();
        ids.extend(self.containers_with(PROJECT, name)?);
        let mut made = Made::default();
        let mut volumes: BTreeSet<String> = self.volumes_with(label, name)?.into_iter().collect();
        let mut networks: BTreeSet<String> = self.networks_with(label, name)?.into_iter().collect();
        for id in ids {
            let looked = self.wait(self.client.inspect_container(&id, None));
            let mut container = json(looked.map_err(RuntimeError::docker(format!("looking at the container {id}")))?)?;
            if let Some(config) = container.get_mut("Config").and_then(Value::as_object_mut) {
                config.remove("Env");
            }
            let mounts = container["Mounts"].as_array().into_iter().flatten();
            let named = mounts.filter(|mount| mount["Type"] == "volume").filter_map(|mount| mount["Name"].as_str());
            volumes.extend(named.map(str::to_owned));
            let joined = container["NetworkSettings"]["Networks"].as_object();
            networks.extend(joined.into_iter().flat_map(|joined| joined.keys().cloned()));
            made.containers.push(container);
        }
        for name in volumes {
            // One that is not there stays out, and whoever compares finds it missing.
            match self.wait(self.client.inspect_volume(&name)) {
                Ok(volume) => made.volumes.push(json(volume)?),
                Err(error) if RuntimeError::is_not_found(&error) => {}
                Err(error) => return Err(RuntimeError::docker(format!("looking at the volume {name}"))(error)),
            }
        }
        for name in networks {
            match self.wait(self.client.inspect_network(&name, None::<InspectNetworkOptions>)) {
                Ok(network) => made.networks.push(json(network)?),
                Err(error) if RuntimeError::is_not_found(&error) => {}
                Err(error) => return Err(RuntimeError::docker(format!("looking at the network {name}"))(error)),
            }
        }
        let info = self.wait(self.client.info()).map_err(RuntimeError::docker("asking Docker about itself"))?;
        made.engine = json!({ "SecurityOptions": info.security_options, "DefaultRuntime": info.default_runtime });
        Ok(made)
    }

    /// Removes every container, volume and network that carries the label with this value, and visitors to these volumes or
    /// to folders below `folder`. Goes on after an error, and gives the first. Nothing is stopped in order: what is in
    /// there is not wanted.
    pub fn remove_labelled(&self, label: &str, value: &str, folder: &Path) -> Result<(), RuntimeError> {
        let mut first = None;
        let mut note = |done: Result<(), RuntimeError>| first = first.take().or(done.err());
        let volumes = self.volumes_with(label, value)?;
        let mut containers = self.containers_with(label, value)?;
        containers.extend(self.visitors_to(&volumes, folder)?);
        for id in containers {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let removed = self.wait(self.patient.remove_container(&id, Some(options)));
            note(gone(removed, || format!("removing the container {id}")));
        }
        for name in volumes {
            let options = RemoveVolumeOptionsBuilder::default().force(true).build();
            let removed = self.wait(self.patient.remove_volume(&name, Some(options)));
            note(gone(removed, || format!("removing the volume {name}")));
        }
        for name in self.networks_with(label, value)? {
            note(gone(self.wait(self.client.remove_network(&name)), || format!("removing the network {name}")));
        }
        first.map_or(Ok(()), Err)
    }

    fn containers_with(&self, label: &str, value: &str) -> Result<Vec<String>, RuntimeError> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter(label, value)).build();
        let found = self.wait(self.client.list_containers(Some(options)));
        let found = found.map_err(RuntimeError::docker("listing the containers"))?;
        Ok(found.into_iter().filter_map(|container| container.id).collect())
    }

    fn volumes_with(&self, label: &str, value: &str) -> Result<Vec<String>, RuntimeError> {
        let options = ListVolumesOptionsBuilder::default().filters(&filter(label, value)).build();
        let found = self.wait(self.client.list_volumes(Some(options)));
        let found = found.map_err(RuntimeError::docker("listing the volumes"))?;
        Ok(found.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect())
    }

    fn networks_with(&self, label: &str, value: &str) -> Result<Vec<String>, RuntimeError> {
        let options = ListNetworksOptionsBuilder::default().filters(&filter(label, value)).build();
        let found = self.wait(self.client.list_networks(Some(options)));
        let found = found.map_err(RuntimeError::docker("listing the networks"))?;
        Ok(found.into_iter().filter_map(|network| network.name).collect())
    }

    /// The one volume that carries all of these labels.
    pub(super) fn labelled_volume(&self, labels: &[(&str, &str)]) -> Result<Option<String>, RuntimeError> {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let found = self.wait(self.client.list_volumes(Some(options)));
        let found = found.map_err(RuntimeError::docker("listing the volumes"))?.volumes.unwrap_or_default();
        Ok(found.into_iter().next().map(|volume| volume.name))
    }

    fn visitors_to(&self, volumes: &[String], folder: &Path) -> Result<Vec<String>, RuntimeError> {
        let all = self.labelled(&[visit::LABEL])?.into_iter().filter(|container| is_visitor(&container.name));
        let visits = |mount: &crate::model::observation::Mount| match &mount.volume {
            Some(volume) => volumes.contains(volume),
            None => Path::new(&mount.source).starts_with(folder),
        };
        Ok(all.filter(|it| it.mounts.iter().any(visits)).map(|it| it.id.as_str().to_owned()).collect())
    }
}

fn filter(label: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])])
}

fn gone(done: Result<(), bollard::errors::Error>, doing: impl FnOnce() -> String) -> Result<(), RuntimeError> {
    match done {
        Ok(()) => Ok(()),
        Err(error) if RuntimeError::is_not_found(&error) => Ok(()),
        Err(error) => Err(RuntimeError::docker(doing())(error)),
    }
}

fn json(answer: impl serde::Serialize) -> Result<Value, RuntimeError> {
    serde_json::to_value(answer)
        .map_err(|source| RuntimeError::Printed { program: "docker inspect".to_owned(), source })
}
