//! What Compose makes of the stack's files, as far as a recovery needs to know it: who is there, and who waits for whom.
//! No environment is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComposeModel {
    pub project: String,
    /// Those of the declared profiles.
    pub services: BTreeMap<String, ComposeService>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComposeService {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Condition>,
    /// Real names of the volumes that it mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
}

/// What a service waits for in one that it depends on, in the words of Compose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Condition {
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

impl ComposeModel {
    /// Out of what `docker compose config --format json` prints. What it does not know of it leaves out.
    pub fn of(resolved: &Value) -> Self {
        let named = |value: &Value| value.as_str().map(str::to_owned);
        let volumes = &resolved["volumes"];
        let service = |service: &Value| ComposeService {
            image: named(&service["image"]),
            container_name: named(&service["container_name"]),
            depends_on: entries(&service["depends_on"])
                .map(|(name, how)| (name.clone(), serde_json::from_value(how["condition"].clone())))
                .map(|(name, condition)| (name, condition.unwrap_or(Condition::Started)))
                .collect(),
            volumes: service["volumes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|mount| mount["type"] == "volume")
                .filter_map(|mount| {
                    let key = mount["source"].as_str()?;
                    Some(volumes[key]["name"].as_str().unwrap_or(key).to_owned())
                })
                .collect(),
        };
        Self {
            project: named(&resolved["name"]).unwrap_or_default(),
            services: entries(&resolved["services"]).map(|(name, value)| (name.clone(), service(value))).collect(),
        }
    }

    /// The service that devstack.yaml calls so: by its name, or by that of its container.
    pub fn service(&self, name: &str) -> Option<&str> {
        let by_name = self.services.get_key_value(name).map(|(key, _)| key.as_str());
        by_name.or_else(|| {
            let mut services = self.services.iter();
            services.find(|(_, it)| it.container_name.as_deref() == Some(name)).map(|(key, _)| key.as_str())
        })
    }

    /// The services that mount a volume, which the file may name without the project.
    pub fn mounting(&self, volume: &str) -> impl Iterator<Item = &str> {
        let full = format!("{}_{volume}", self.project);
        let mounts = move |service: &ComposeService| service.volumes.iter().any(|it| *it == full || it == volume);
        self.services.iter().filter(move |(_, service)| mounts(service)).map(|(name, _)| name.as_str())
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_recovery_needs_is_read_and_no_environment_is_kept() {
        let model = ComposeModel::of(&json!({
            "name": "shop",
            "services": {
                "db": { "image": "postgres:17", "environment": { "POSTGRES_PASSWORD": "hunter2" },
                    "volumes": [ { "type": "volume", "source": "data", "target": "/data" },
                        { "type": "bind", "source": "/etc/x", "target": "/x" } ] },
                "web": { "image": "web", "container_name": "the-web",
                    "depends_on": { "db": { "condition": "service_healthy", "required": true },
                        "init": { "condition": "service_completed_successfully" }, "odd": { "condition": "unheard of" } } }
            },
            "volumes": { "data": { "name": "shop_data" } }
        }));
        assert_eq!(model.service("the-web"), Some("web"));
        assert_eq!(model.service("nobody"), None);
        assert_eq!(model.mounting("data").collect::<Vec<_>>(), ["db"]);
        assert_eq!(model.mounting("shop_data").collect::<Vec<_>>(), ["db"]);
        let waits = &model.services["web"].depends_on;
        assert_eq!(
            (waits["db"], waits["init"], waits["odd"]),
            (Condition::Healthy, Condition::Completed, Condition::Started)
        );
        assert!(!serde_json::to_string(&model).unwrap().contains("hunter2"));
        assert_eq!(ComposeModel::of(&json!(null)), ComposeModel::default());
    }
}
