//! What `docker compose config --format json` prints, moved to where the stack is now, and compared. It holds environments, and
//! with them passwords: places in it are told, values never.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A model that was resolved in one folder under one project's name, as it would be in another under another.
pub fn moved(mut model: Value, from: Option<&Path>, to: &Path, project: &str) -> Value {
    let was = model["name"].as_str().unwrap_or_default().to_owned();
    if was != project {
        for part in ["volumes", "networks"] {
            for (key, declared) in object_mut(&mut model[part]) {
                // Compose's own name for it, and not one that the files give.
                if declared["name"] == format!("{was}_{key}") && declared["external"] != true {
                    declared["name"] = format!("{project}_{key}").into();
                }
            }
        }
        model["name"] = project.into();
    }
    let Some(from) = from.filter(|from| *from != to) else { return model };
    let place = |value: &mut Value| {
        if let Some(below) = value.as_str().and_then(|path| Path::new(path).strip_prefix(from).ok()) {
            *value = to.join(below).to_string_lossy().trim_end_matches('/').into();
        }
    };
    for (_, service) in object_mut(&mut model["services"]) {
        for mount in service["volumes"].as_array_mut().into_iter().flatten() {
            if mount["type"] == "bind" {
                place(&mut mount["source"]);
            }
        }
        if let Some(build) = service.get_mut("build").filter(|build| build.is_object()) {
            place(&mut build["context"]);
        }
    }
    for part in ["secrets", "configs"] {
        object_mut(&mut model[part]).for_each(|(_, declared)| {
            if declared.get("file").is_some() {
                place(&mut declared["file"]);
            }
        });
    }
    model
}

/// The places at which two models differ. What says nothing is not there: versions of Compose differ in what they print.
pub fn differences(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", one, other, &mut found);
    found
}

/// A place deeper than this is told by what it lies in: `services.web.environment.KEY` is one too many.
const DEEPEST: usize = 4;

fn compare(at: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    if one == other || (says_nothing(one) && says_nothing(other)) {
        return;
    }
    let is_deep = at.split('.').count() >= DEEPEST;
    match (one, other) {
        (Value::Object(one), Value::Object(other)) if !is_deep => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                compare(&at, one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(entries) => entries.is_empty(),
        Value::Object(entries) => entries.values().all(says_nothing),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A file or folder of the machine that the containers of a service are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub path: PathBuf,
    pub kind: Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Bound; the file or folder may be made by Docker where it is missing.
    Bind,
    /// Bound, and Compose refuses where it is missing.
    MustBind,
    /// A secret or a config.
    File,
}

/// By service: the paths of the machine that its containers see.
pub fn paths(model: &Value) -> BTreeMap<String, Vec<Needed>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let plain = |value: &Value| Some(PathBuf::from(value.as_str()?.replace("$$", "$")));
    let of = |service: &Value| {
        let mut needed = Vec::new();
        for mount in list(&service["volumes"]).iter().filter(|mount| mount["type"] == "bind") {
            let kind = match &mount["bind"]["create_host_path"] {
                Value::Bool(false) => Need::MustBind,
                _ => Need::Bind,
            };
            needed.extend(plain(&mount["source"]).map(|path| Needed { path, kind }));
        }
        for part in ["secrets", "configs"] {
            for used in list(&service[part]) {
                let key = used.as_str().or_else(|| used["source"].as_str()).unwrap_or_default();
                needed.extend(plain(&model[part][key]["file"]).map(|path| Needed { path, kind: Need::File }));
            }
        }
        needed
    };
    object(&model["services"]).map(|(name, service)| (name.clone(), of(service))).collect()
}

/// What is declared as made by somebody else, by its real name, of those that these services use.
pub fn external(model: &Value, part: &str, services: &BTreeSet<String>) -> Vec<String> {
    let used = |key: &String| {
        services.iter().any(|service| {
            let used = &model["services"][service.as_str()][part];
            used.get(key.as_str()).is_some()
                || used.as_array().into_iter().flatten().any(|mount| mount["source"] == key.as_str())
        })
    };
    let declared = object(&model[part]).filter(|(key, it)| it["external"] == true && used(key));
    declared.map(|(key, it)| it["name"].as_str().unwrap_or(key).to_owned()).collect()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn object_mut(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model() -> Value {
        json!({
            "name": "old",
            "services": {
                "web": {
                    "build": { "context": "/srv/old/web" },
                    "environment": { "KEY": "hunter2" },
                    "networks": { "default": null, "proxy": null },
                    "secrets": [ { "source": "key" } ],
                    "volumes": [
                        { "type": "bind", "source": "/srv/old/conf", "target": "/conf" },
                        { "type": "bind", "source": "/srv/older", "target": "/o", "bind": { "create_host_path": false } },
                        { "type": "volume", "source": "data", "target": "/data" },
                    ],
                },
            },
            "secrets": { "key": { "file": "/srv/old/key" } },
            "networks": { "default": { "name": "old_default" }, "proxy": { "name": "proxy", "external": true } },
            "volumes": { "data": { "name": "old_data" }, "fixed": { "name": "fixed" },
                "unused": { "name": "old_unused", "external": true } },
        })
    }

    #[test]
    fn a_model_moves_with_its_folder_and_what_has_a_name_of_its_own_keeps_it() {
        let moved = moved(model(), Some(Path::new("/srv/old")), Path::new("/srv/new"), "new");
        assert_eq!(moved["name"], "new");
        assert_eq!(moved["volumes"]["data"]["name"], "new_data");
        assert_eq!(moved["volumes"]["fixed"]["name"], "fixed");
        assert_eq!(moved["volumes"]["unused"]["name"], "old_unused", "somebody else has named it");
        assert_eq!(moved["networks"]["default"]["name"], "new_default");
        let web = &moved["services"]["web"];
        assert_eq!(web["build"]["context"], "/srv/new/web");
        assert_eq!(web["volumes"][0]["source"], "/srv/new/conf");
        assert_eq!(web["volumes"][1]["source"], "/srv/older");
        assert_eq!(moved["secrets"]["key"]["file"], "/srv/new/key");
        // A run of yesterday does not say where it came from.
        assert_eq!(super::moved(model(), None, Path::new("/srv/new"), "old"), model());
    }

    #[test]
    fn differences_are_told_by_their_places_and_never_by_values() {
        let mut other = model();
        other["services"]["web"]["environment"]["KEY"] = "".into();
        other["services"]["web"]["command"] = Value::Null;
        other["services"]["web"]["labels"] = json!({});
        assert_eq!(differences(&model(), &other), ["services.web.environment.KEY"]);
        assert_eq!(differences(&model(), &model()), [] as [String; 0]);
        assert_eq!(differences(&json!({ "services": { "a": {} } }), &json!({ "services": {} })), [] as [String; 0]);
        assert_eq!(differences(&json!({ "services": { "a": { "image": "x" } } }), &json!({})), ["services"]);
    }

    #[test]
    fn what_a_service_needs_of_the_machine_is_found() {
        let found = paths(&model());
        let kinds: Vec<(&str, Need)> = found["web"].iter().map(|it| (it.path.to_str().unwrap(), it.kind)).collect();
        assert_eq!(
            kinds,
            [("/srv/old/conf", Need::Bind), ("/srv/older", Need::MustBind), ("/srv/old/key", Need::File)]
        );
        let services = BTreeSet::from(["web".to_owned()]);
        assert_eq!(external(&model(), "networks", &services), ["proxy"]);
        assert_eq!(external(&model(), "volumes", &services), [] as [String; 0], "nobody mounts it");
        assert_eq!(external(&model(), "networks", &BTreeSet::new()), [] as [String; 0]);
    }
}
