//! A Vault in a drill: a second one, opened with the keys of the first, and asked in its place by everything of the drill.
//!
//! It holds the leases of the live one and would revoke those that have run out; it lies in a network that leads nowhere, so
//! that it reaches nobody. Whoever asks it goes through a door of devstack's own, and never by the address in its storage.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use reqwest::Url;
use serde_json::Value;

use super::error::DrillError;
use super::isolation::Provided;
use crate::engines::Ground;
use crate::model::ids::ServiceName;
use crate::runtime::{Containers, Docker};
use crate::secrets::{Secrets, VaultStandIn, Whereabouts};
use crate::spec::file::{Source, Spec, VaultSource};

/// The Vaults of the file, by name.
pub(super) fn all(spec: &Spec) -> impl Iterator<Item = (&ServiceName, &VaultSource)> {
    spec.services.iter().filter_map(|(name, service)| match &service.source {
        Source::Vault(vault) => Some((name, vault)),
        _ => None,
    })
}

/// Why a Vault can't be drilled here; None where it can be, or where there is none. `attended` says that a person is there
/// to be asked.
pub fn hindrance(spec: &Spec, ground: &Ground, attended: bool) -> Option<&'static str> {
    all(spec).next()?;
    let Some(unseal) = spec.vault.as_ref().and_then(|vault| vault.unseal.as_ref()) else {
        return Some("the file does not say where its unseal keys are (`vault.unseal`)");
    };
    if !attended && unseal.keys.iter().any(|keys| keys.prompt) {
        return Some("its unseal keys are asked for on a terminal, and nobody is there");
    }
    // One that does not answer is told of by whatever needs it first.
    let is_near = || ground.containers.docker().and_then(|docker| docker.shares_network());
    match is_near() {
        Ok(false) => Some("containers of this engine can't be reached by their addresses from here"),
        Ok(true) | Err(_) => None,
    }
}

/// The secrets of a drill: those in Vault are read from its own.
pub(super) fn secrets(
    live: &Ground,
    apart: &Ground,
    docker: &Arc<Docker>,
    source: &VaultSource,
    model: &Value,
    provided: &Provided,
) -> Secrets {
    let address = live.secrets.vault().map(|vault| vault.address.as_str()).unwrap_or_default();
    let service = provided.service_for(&source.container).unwrap_or_default();
    let port = port(address, &model["services"][service]["ports"]);
    let (containers, docker, name) = (Arc::clone(&apart.containers), Arc::clone(docker), source.container.clone());
    let whereabouts: Whereabouts = Arc::new(move || listens(&containers, &docker, &name, port));
    live.secrets.with_vault(VaultStandIn { whereabouts, root: apart.root.clone() })
}

fn listens(containers: &Containers, docker: &Docker, name: &str, port: u16) -> io::Result<SocketAddr> {
    let container = containers.find(name).map_err(io::Error::other)?;
    let address = docker.address_of(&container).map_err(io::Error::other)?;
    let none = || io::Error::other(format!("the container {} has no address", container.name));
    Ok(SocketAddr::new(address.ok_or_else(none)?, port))
}

/// Which port of its container the address means: the one that is published under the address' own, or else that very one.
fn port(address: &str, published: &Value) -> u16 {
    let meant = Url::parse(address).ok().and_then(|url| url.port_or_known_default()).unwrap_or_default();
    let is_meant = |port: &&Value| match &port["published"] {
        Value::String(text) => text.parse() == Ok(meant),
        number => number.as_u64() == Some(meant.into()),
    };
    let published = published.as_array().into_iter().flatten().find(is_meant);
    published.and_then(|port| u16::try_from(port["target"].as_u64()?).ok()).unwrap_or(meant)
}

/// Puts the secret-ids that were issued anew where the drill's containers see those of before.
pub(super) fn hand_out(source: &VaultSource, ground: &Ground, provided: &Provided) -> Result<(), DrillError> {
    for role in &source.approles {
        let (live, issued) = (ground.live_path(&role.secret_id.file), ground.path(&role.secret_id.file));
        let Some(copy) = provided.copy_for(&live) else { continue };
        replaced(&issued, &copy).map_err(DrillError::io("handing out the secret-id", issued))?;
    }
    Ok(())
}

/// Into the file that is there, since a container may have bound that very one.
fn replaced(issued: &Path, copy: &Path) -> io::Result<()> {
    let same = |a: &Path, b: &Path| -> io::Result<bool> { Ok(a.canonicalize()? == b.canonicalize()?) };
    if copy.exists() && same(issued, copy)? {
        return Ok(());
    }
    if let Some(folder) = copy.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(issued, copy).map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_port_is_that_of_the_container_and_not_of_the_host() {
        let published = json!([{ "published": "9000", "target": 9000 }, { "published": "18200", "target": 8200 }]);
        assert_eq!(port("http://127.0.0.1:18200", &published), 8200);
        assert_eq!(port("http://vault:8200", &published), 8200);
        assert_eq!(port("https://vault.example", &json!([{ "published": "443", "target": 8200 }])), 8200);
        assert_eq!(port("http://vault:8200", &Value::Null), 8200);
    }
}
