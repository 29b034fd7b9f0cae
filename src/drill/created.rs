//! What `docker inspect` says of a drill's own things, as the gate looks at it. Where the engine says nothing the gate sees
//! an empty word, which it takes for the engine's default.

use std::collections::BTreeMap;

use serde_json::Value;

use super::gate::{Created, CreatedContainer, CreatedMount, CreatedNetwork, CreatedVolume, HostSettings};
use crate::runtime::Made;

pub(super) fn created(made: &Made) -> Created {
    let options = list(&made.engine["SecurityOptions"]);
    Created {
        containers: made.containers.iter().map(container).collect(),
        volumes: made.volumes.iter().map(volume).collect(),
        networks: made.networks.iter().map(network).collect(),
        shares_control_groups: !options.iter().any(|option| option.contains("name=cgroupns")),
        default_runtime: text(&made.engine["DefaultRuntime"]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(word).collect()
}

/// Anything in one line; what is not a text is shown as it is, so that nothing is taken for nothing.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn map(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), word(value))).collect()
}

fn yes(value: &Value) -> bool {
    value.as_bool().unwrap_or_default()
}

fn container(seen: &Value) -> CreatedContainer {
    let host = &seen["HostConfig"];
    let tmpfs = host["Tmpfs"].as_object().into_iter().flatten().map(|(at, _)| CreatedMount {
        kind: "tmpfs".to_owned(),
        destination: at.clone(),
        ..CreatedMount::default()
    });
    let networks = seen["NetworkSettings"]["Networks"].as_object();
    CreatedContainer {
        id: text(&seen["Id"]),
        name: text(&seen["Name"]).trim_start_matches('/').to_owned(),
        state: text(&seen["State"]["Status"]),
        labels: map(&seen["Config"]["Labels"]),
        mounts: seen["Mounts"].as_array().into_iter().flatten().map(mount).chain(tmpfs).collect(),
        networks: networks.into_iter().flat_map(|networks| networks.keys().cloned()).collect(),
        host: settings(host),
    }
}

fn mount(seen: &Value) -> CreatedMount {
    CreatedMount {
        kind: text(&seen["Type"]),
        volume: seen["Name"].as_str().map(str::to_owned),
        source: text(&seen["Source"]),
        destination: text(&seen["Destination"]),
        propagation: text(&seen["Propagation"]),
    }
}

fn settings(host: &Value) -> HostSettings {
    let ports = host["PortBindings"].as_object().into_iter().flatten();
    let published = ports.filter(|(_, bound)| bound.as_array().is_some_and(|bound| !bound.is_empty()));
    let devices = ["Devices", "DeviceRequests", "DeviceCgroupRules"];
    HostSettings {
        network_mode: text(&host["NetworkMode"]),
        pid_mode: text(&host["PidMode"]),
        ipc_mode: text(&host["IpcMode"]),
        uts_mode: text(&host["UTSMode"]),
        user_namespace_mode: text(&host["UsernsMode"]),
        cgroup_namespace_mode: text(&host["CgroupnsMode"]),
        cgroup_parent: text(&host["CgroupParent"]),
        runtime: text(&host["Runtime"]),
        privileged: yes(&host["Privileged"]),
        publishes_all_ports: yes(&host["PublishAllPorts"]),
        published_ports: published.map(|(port, bound)| format!("{port} → {bound}")).collect(),
        added_capabilities: list(&host["CapAdd"]),
        devices: devices.iter().flat_map(|kind| list(&host[*kind])).collect(),
        security_options: list(&host["SecurityOpt"]),
        extra_hosts: list(&host["ExtraHosts"]),
        restart_policy: text(&host["RestartPolicy"]["Name"]),
        log_driver: text(&host["LogConfig"]["Type"]),
        volumes_from: list(&host["VolumesFrom"]),
    }
}

fn volume(seen: &Value) -> CreatedVolume {
    CreatedVolume {
        name: text(&seen["Name"]),
        driver: text(&seen["Driver"]),
        options: map(&seen["Options"]),
        labels: map(&seen["Labels"]),
    }
}

fn network(seen: &Value) -> CreatedNetwork {
    let members = seen["Containers"].as_object();
    CreatedNetwork {
        name: text(&seen["Name"]),
        driver: text(&seen["Driver"]),
        internal: yes(&seen["Internal"]),
        labels: map(&seen["Labels"]),
        members: members.into_iter().flat_map(|members| members.keys().cloned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::drill::id::{DrillId, LABEL};

    fn made() -> Made {
        let labels =
            json!({ LABEL: "drill-1", "com.docker.compose.project": "drill-1", "com.docker.compose.service": "db" });
        Made {
            containers: vec![json!({
                "Id": "c1", "Name": "/drill-1-db-1", "State": { "Status": "created" }, "Config": { "Labels": labels },
                "Mounts": [ { "Type": "volume", "Name": "drill-1-v1", "Source": "/var/lib/docker/volumes/drill-1-v1/_data",
                    "Destination": "/data", "Propagation": "" } ],
                "NetworkSettings": { "Networks": { "drill-1-n1": { "NetworkID": "n" } } },
                "HostConfig": { "NetworkMode": "drill-1-n1", "IpcMode": "private", "CgroupnsMode": "private", "Runtime": "runc",
                    "Privileged": false, "PublishAllPorts": false, "PortBindings": {}, "RestartPolicy": { "Name": "no" },
                    "LogConfig": { "Type": "json-file" }, "Devices": [], "Tmpfs": { "/run": "" } },
            })],
            volumes: vec![
                json!({ "Name": "drill-1-v1", "Driver": "local", "Options": null, "Labels": { LABEL: "drill-1" } }),
            ],
            networks: vec![
                json!({ "Name": "drill-1-n1", "Driver": "bridge", "Internal": true, "Labels": { LABEL: "drill-1" } }),
            ],
            engine: json!({ "SecurityOptions": ["name=seccomp", "name=cgroupns"], "DefaultRuntime": "runc" }),
        }
    }

    fn findings(made: &Made) -> Vec<String> {
        let id: DrillId = "drill-1".parse().unwrap();
        let services = BTreeSet::from(["db".to_owned()]);
        let found = crate::drill::gate::inspect(&created(made), &id, &services, Path::new("/s/drill-1"));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_made_as_planned_passes_the_gate() {
        assert_eq!(findings(&made()), Vec::<String>::new());
    }

    /// Each way out, in the engine's own words, ends at the gate: a field that is read under a wrong name would not.
    #[test]
    fn every_way_out_is_read_from_what_the_engine_says() {
        let settings: [(&str, Value); 19] = [
            ("NetworkMode", json!("host")),
            ("PidMode", json!("host")),
            ("IpcMode", json!("host")),
            ("UTSMode", json!("host")),
            ("UsernsMode", json!("host")),
            ("CgroupnsMode", json!("host")),
            ("CgroupParent", json!("/live")),
            ("Runtime", json!("other")),
            ("Privileged", json!(true)),
            ("PublishAllPorts", json!(true)),
            ("PortBindings", json!({ "80/tcp": [{ "HostIp": "", "HostPort": "80" }] })),
            ("CapAdd", json!(["CAP_SYS_ADMIN"])),
            ("Devices", json!([{ "PathOnHost": "/dev/sda" }])),
            ("DeviceRequests", json!([{ "Driver": "nvidia" }])),
            ("SecurityOpt", json!(["seccomp=unconfined"])),
            ("ExtraHosts", json!(["db:10.0.0.1"])),
            ("RestartPolicy", json!({ "Name": "always" })),
            ("LogConfig", json!({ "Type": "syslog" })),
            ("VolumesFrom", json!(["live"])),
        ];
        for (key, value) in settings {
            let mut made = made();
            made.containers[0]["HostConfig"][key] = value;
            assert!(!findings(&made).is_empty(), "{key}");
        }
        let changes: [fn(&mut Made); 10] = [
            |made| made.containers[0]["State"]["Status"] = json!("running"),
            |made| made.containers[0]["Config"]["Labels"] = json!({}),
            |made| made.containers[0]["Mounts"][0]["Name"] = json!("shop_data"),
            |made| made.containers[0]["Mounts"][0] = json!({ "Type": "bind", "Source": "/srv", "Destination": "/d" }),
            |made| made.containers[0]["NetworkSettings"]["Networks"]["shop_default"] = json!({}),
            |made| made.volumes[0]["Labels"] = json!({}),
            |made| made.volumes[0]["Options"] = json!({ "device": "/srv" }),
            |made| made.networks[0]["Internal"] = json!(false),
            |made| made.networks[0]["Driver"] = json!("host"),
            |made| made.networks[0]["Containers"] = json!({ "live": {} }),
        ];
        for (nth, change) in changes.iter().enumerate() {
            let mut made = made();
            change(&mut made);
            assert!(!findings(&made).is_empty(), "change {nth}");
        }
    }
}
