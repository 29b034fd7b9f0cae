//! What Compose makes of the stack's files, as far as a recovery needs to know it: who is there, and who waits for whom.
//! No environment is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComposeModel {
    pub project: String,
    /// Those of the declared profiles.
    pub services: BTreeMap<String, ComposeService>,
    /// The real names of volumes, by their keys in the Compose files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
    /// The folder that the files' relative paths start from, when the run was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The variables that the files ask for and that nobody had set when the run was taken; none where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unset: Option<Vec<String>>,
    /// What stood at each path of the machine that containers bind, when the run was taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binds: BTreeMap<PathBuf, Bound>,
    /// Other names that the project had in runs: devstack.yaml may call a container by one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub once: Vec<String>,
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// How its containers were before the run was taken; none where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

/// The containers of a service at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// In any state: one that has ended was there.
    pub containers: usize,
    /// One of them ran, and its health check was red.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
}

/// What a container binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    File,
    Folder { mode: u32, uid: u32, gid: u32 },
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
        let texts = |value: &Value| value.as_array().into_iter().flatten().filter_map(named).collect();
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
            profiles: texts(&service["profiles"]),
            seen: None,
        };
        Self {
            project: named(&resolved["name"]).unwrap_or_default(),
            services: entries(&resolved["services"]).map(|(name, value)| (name.clone(), service(value))).collect(),
            volumes: entries(volumes)
                .filter_map(|(key, volume)| Some((key.clone(), named(&volume["name"])?)))
                .collect(),
            ..Self::default()
        }
    }

    /// The service that devstack.yaml calls so: by its name, by that of its container, or by the name that Compose gives to
    /// a container of it.
    pub fn service(&self, name: &str) -> Option<&str> {
        let by_name = self.services.get_key_value(name).map(|(key, _)| key.as_str());
        let fixed = || {
            let mut services = self.services.iter();
            services.find(|(_, it)| it.container_name.as_deref() == Some(name)).map(|(key, _)| key.as_str())
        };
        by_name.or_else(fixed).or_else(|| {
            let projects = std::iter::once(&self.project).chain(&self.once);
            let (key, _) = projects.filter_map(|project| numbered(name, project)).find_map(|(service, _)| {
                let known = self.services.get_key_value(service)?;
                known.1.container_name.is_none().then_some(known)
            })?;
            Some(key.as_str())
        })
    }

    /// The services that mount a volume, which the file may name by its key, or without the project.
    pub fn mounting(&self, volume: &str) -> impl Iterator<Item = &str> {
        let real = self.volumes.get(volume).cloned().unwrap_or_else(|| format!("{}_{volume}", self.project));
        let once: Vec<String> = self.once.iter().map(|project| format!("{project}_")).collect();
        // By the real name that it had when the project was called otherwise.
        let moved = once.iter().find_map(|prefix| volume.strip_prefix(prefix.as_str()));
        let moved = moved.and_then(|key| self.volumes.get(key)).cloned();
        let mounts = move |service: &ComposeService| {
            service.volumes.iter().any(|it| *it == real || it == volume || Some(it) == moved.as_ref())
        };
        self.services.iter().filter(move |(_, service)| mounts(service)).map(|(name, _)| name.as_str())
    }

    /// What the newest run has seen of the services, where this model does not know it.
    pub fn remember(&mut self, run: &Self) {
        for (name, service) in &mut self.services {
            service.seen = service.seen.or_else(|| run.services.get(name)?.seen);
        }
        if run.project != self.project && !self.once.contains(&run.project) {
            self.once.push(run.project.clone());
        }
    }
}

/// The service and the number in the name that Compose gives to a container: `PROJECT-SERVICE-1`, in older versions
/// `PROJECT_SERVICE_1`.
pub fn numbered<'n>(container: &'n str, project: &str) -> Option<(&'n str, u32)> {
    let rest = container.strip_prefix(project)?;
    ['-', '_'].into_iter().find_map(|between| {
        let (service, number) = rest.strip_prefix(between)?.rsplit_once(between)?;
        (!service.is_empty()).then_some((service, number.parse().ok()?))
    })
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

    fn named() -> ComposeModel {
        ComposeModel::of(&json!({
            "name": "shop",
            "services": {
                "db": { "volumes": [ { "type": "volume", "source": "data", "target": "/data" } ] },
                "db-1": {}, "b_c": {}, "fixed": { "container_name": "shop-web-1" },
                "web": { "profiles": ["extra"] },
            },
            "volumes": { "data": { "name": "precious" } }
        }))
    }

    #[test]
    fn a_container_is_known_by_every_name_that_it_may_have() {
        let model = named();
        for (name, service) in [
            ("db", Some("db")),
            ("shop-db-1", Some("db")),
            ("shop_db_3", Some("db")),
            // A service of that very name comes before a number.
            ("db-1", Some("db-1")),
            ("shop-db-1-1", Some("db-1")),
            ("shop_b_c_1", Some("b_c")),
            // The name of another service's own container, which the numbered one can't have.
            ("shop-web-1", Some("fixed")),
            ("shop-fixed-1", None),
            ("other-db-1", None),
            ("shop-db-x", None),
            ("shop-db", None),
            ("shop-1", None),
            ("shop--1", None),
        ] {
            assert_eq!(model.service(name), service, "{name}");
        }
        let mut moved = ComposeModel { project: "new".to_owned(), ..model };
        moved.remember(&named());
        assert_eq!(moved.service("shop-db-1"), Some("db"), "as it was called before its folder moved");
        assert_eq!(moved.service("new-db-1"), Some("db"));
        assert_eq!(moved.service("other-db-1"), None);
    }

    #[test]
    fn a_volume_with_a_name_of_its_own_is_known_by_its_key_too() {
        let model = named();
        assert_eq!(model.mounting("data").collect::<Vec<_>>(), ["db"]);
        assert_eq!(model.mounting("precious").collect::<Vec<_>>(), ["db"]);
        assert_eq!(model.mounting("shop_data").count(), 0, "no volume of the stack is called so");
        let mut moved = ComposeModel::of(&json!({
            "name": "new", "services": { "db": { "volumes": [ { "type": "volume", "source": "data" } ] } },
            "volumes": { "data": { "name": "new_data" } }
        }));
        moved.remember(&named());
        for name in ["data", "new_data", "shop_data"] {
            assert_eq!(moved.mounting(name).collect::<Vec<_>>(), ["db"], "{name}");
        }
    }

    #[test]
    fn what_yesterdays_version_has_written_is_read() {
        let text = r#"{ "project": "p", "services": { "db": { "image": "postgres" } } }"#;
        let model: ComposeModel = serde_json::from_str(text).unwrap();
        assert_eq!((model.unset.as_ref(), model.services["db"].seen), (None, None));
    }
}
