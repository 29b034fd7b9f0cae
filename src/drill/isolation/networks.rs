//! The networks of a drill: each stands for one of the live stack, leads nowhere, and answers to the same names.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::decisions::{TAKE_IT_OUT, below};
use super::service::joined;
use super::{Assembly, rules};

/// A network of the drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewNetwork {
    /// Begins with the drill's id; also its key in the model.
    pub name: String,
    /// The key in the Compose files of the network that it stands for.
    pub key: String,
    /// The engine's own name of that network.
    pub live: String,
}

#[derive(Debug, Default)]
pub(super) struct Networks {
    pub made: Vec<NewNetwork>,
    by_key: BTreeMap<String, String>,
}

/// Puts `networks` or `network_mode` into a service. One without either would get a network from Compose, which leads out.
pub(super) fn connect(
    work: &mut Assembly<'_>,
    service: &str,
    declared: &Map<String, Value>,
    made: &mut Map<String, Value>,
) {
    let at = format!("services.{service}.network_mode");
    let mode = work.decisions.text(&at, declared.get("network_mode"));
    match mode {
        None => {}
        Some("none") => {
            made.insert("network_mode".to_owned(), "none".into());
            return;
        }
        // The engine's own network, where containers of the live stack may be.
        Some("bridge" | "default") => {
            work.decisions.leave_out(&at, "the live stack may be in the engine's own network; the drill has another");
        }
        Some(mode) => {
            match joined(work, mode) {
                Ok(()) => {
                    made.insert("network_mode".to_owned(), mode.into());
                }
                Err(why) => work.decisions.refuse(&at, why, TAKE_IT_OUT),
            }
            return;
        }
    }
    let at = format!("services.{service}.networks");
    let declared_networks = work.decisions.object(&at, declared.get("networks")).cloned().unwrap_or_default();
    let container = work.decisions.text(&format!("services.{service}.container_name"), declared.get("container_name"));
    let mut networks = Map::new();
    for (key, attachment) in &declared_networks {
        attach(work, &at, key, Some(attachment), container, &mut networks);
    }
    if declared_networks.is_empty() {
        attach(work, &at, "default", None, container, &mut networks);
    }
    made.insert("networks".to_owned(), Value::Object(networks));
}

fn attach(
    work: &mut Assembly<'_>,
    at: &str,
    key: &str,
    attachment: Option<&Value>,
    container: Option<&str>,
    networks: &mut Map<String, Value>,
) {
    let at = below(at, key);
    let mut kept = Map::new();
    let mut aliases = Vec::new();
    if let Some(attachment) = work.decisions.object(&at, attachment) {
        kept = work.decisions.sorted(&at, attachment, rules::ATTACHMENT);
        let at = below(&at, "aliases");
        for alias in work.decisions.list(&at, attachment.get("aliases")) {
            match alias.as_str() {
                Some(alias) => aliases.push(alias.to_owned()),
                None => work.decisions.misshapen(&at, "a list of texts"),
            }
        }
    }
    // The engine answers to a container's name as well, and the other services may be set up with it.
    aliases.extend(container.map(str::to_owned).filter(|name| !aliases.contains(name)));
    if !aliases.is_empty() {
        kept.insert("aliases".to_owned(), aliases.into());
    }
    networks.insert(network(work, key), Value::Object(kept));
}

/// The network that stands for one of the files', made when the first service asks for it.
fn network(work: &mut Assembly<'_>, key: &str) -> String {
    if let Some(known) = work.networks.by_key.get(key) {
        return known.clone();
    }
    let mut live = key;
    if let Some(declared) = work.declared("networks", key) {
        let at = format!("networks.{key}");
        work.decisions.sorted(&at, declared, rules::NETWORK);
        // `name:` and `external:` mean the live network, whatever the project is called. One is even called `host`.
        live = work.decisions.text(&below(&at, "name"), declared.get("name")).unwrap_or(key);
        if let Some(driver) = work.decisions.text(&below(&at, "driver"), declared.get("driver"))
            && driver != "bridge"
        {
            let why = format!("`{driver}` may put containers among other machines; the drill's network is a bridge");
            work.decisions.leave_out(below(&at, "driver"), why);
        }
    }
    let name = format!("{}-n{}", work.request.id, work.networks.made.len() + 1);
    work.networks.made.push(NewNetwork { name: name.clone(), key: key.to_owned(), live: live.to_owned() });
    work.networks.by_key.insert(key.to_owned(), name.clone());
    name
}
