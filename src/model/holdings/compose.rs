//! What the Compose files make of a stack, out of what `docker compose config --format json` prints.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Backing, Build, ExternalNetwork, HeldVolume, Holder, Holdings, ReadAs, Use};
use crate::model::image::{Kind, Server, Signs, of_signs};

/// `volumes_from` may go through as many services.
const DEEPEST: usize = 16;

impl Holdings {
    /// `resolved` is what Compose prints for all profiles, with paths made absolute; `read` are the files that it was made from.
    pub fn of(resolved: &Value, read: &[(PathBuf, ReadAs)]) -> Self {
        let mut held = Self { project: resolved["name"].as_str().unwrap_or_default().to_owned(), ..Self::default() };
        for (path, read_as) in read {
            held.file(path, *read_as, None, false);
        }
        for (name, service) in entries(&resolved["services"]) {
            held.services.insert(name.clone(), holder(service));
        }
        for (name, service) in entries(&resolved["services"]) {
            held.mounts_of(name, service, resolved);
            held.read_for(name, service, resolved);
            held.built_for(name, service);
            for network in names(&service["networks"]) {
                held.join(name, network, &resolved["networks"][network]);
            }
        }
        // A volume that no service mounts may hold what one has written before.
        for (key, declared) in entries(&resolved["volumes"]) {
            held.volume_of(key, declared);
        }
        held.sort();
        held
    }

    fn mounts_of(&mut self, name: &str, service: &Value, resolved: &Value) {
        let server = self.services.get(name).and_then(|holder| holder.server);
        let own = server.and_then(|server| own_folder(server, service));
        for (mount, read_only) in mounts(name, service, resolved, DEEPEST) {
            let target = mount["target"].as_str().unwrap_or_default().to_owned();
            let data_of = server.filter(|server| {
                server.keeps_data_at(&target) || own.is_some_and(|own| Path::new(own).starts_with(&target))
            });
            let writes = !read_only && mount["read_only"] != true;
            let at = Use { service: name.to_owned(), target: target.clone(), writes, data_of };
            match (mount["type"].as_str(), mount["source"].as_str()) {
                (Some("volume" | "cluster"), Some(key)) => {
                    self.volume_of(key, &resolved["volumes"][key]).uses.push(at);
                }
                // `volumes_from` is of the same volume, which the other service holds.
                (Some("volume"), None) if service["volumes"].as_array().is_some_and(|own| own.contains(mount)) => {
                    self.nameless(at);
                }
                (Some("bind"), Some(path)) => self.bind(&plain(path)).uses.push(at),
                _ => continue,
            }
            if let Some(holder) = self.services.get_mut(name) {
                holder.targets.push(target);
            }
        }
    }

    /// The volume that the files call `key`, known from now on.
    fn volume_of(&mut self, key: &str, declared: &Value) -> &mut HeldVolume {
        let at = match self.volumes.iter().position(|volume| volume.key.as_deref() == Some(key)) {
            Some(at) => at,
            None => {
                let name = declared["name"].as_str().unwrap_or(key).to_owned();
                let external = declared["external"] == true;
                let (key, backing) = (Some(key.to_owned()), backing(declared));
                self.volumes.push(HeldVolume { name, key, external, backing, uses: Vec::new() });
                self.volumes.len() - 1
            }
        };
        &mut self.volumes[at]
    }

    /// The files that Compose reads to make this service.
    fn read_for(&mut self, name: &str, service: &Value, resolved: &Value) {
        for (key, read_as) in [("env_file", ReadAs::EnvFile), ("label_file", ReadAs::LabelFile)] {
            for entry in one_or_many(&service[key]) {
                let path = entry.as_str().or_else(|| entry["path"].as_str());
                if let Some(path) = path {
                    self.file(&plain(path), read_as, Some(name), entry["required"] == false);
                }
            }
        }
        let built_with = &service["build"]["secrets"];
        for (used, all, read_as) in [
            (&service["secrets"], "secrets", ReadAs::Secret),
            (built_with, "secrets", ReadAs::Secret),
            (&service["configs"], "configs", ReadAs::Config),
            (&service["credential_spec"], "configs", ReadAs::Security),
        ] {
            for entry in one_or_many(used) {
                let key = entry.as_str().or_else(|| entry["source"].as_str()).or_else(|| entry["config"].as_str());
                let file = key.and_then(|key| resolved[all][key]["file"].as_str()).or_else(|| entry["file"].as_str());
                if let Some(path) = file {
                    self.file(&plain(path), read_as, Some(name), false);
                }
            }
        }
        for option in one_or_many(&service["security_opt"]).filter_map(Value::as_str) {
            let profile = option.strip_prefix("seccomp").and_then(|rest| rest.strip_prefix([':', '=']));
            if let Some(path) = profile.filter(|path| path.starts_with('/')) {
                self.file(&plain(path), ReadAs::Security, Some(name), false);
            }
        }
    }

    fn built_for(&mut self, name: &str, service: &Value) {
        let build = &service["build"];
        let is_needed = build["dockerfile_inline"].as_str().is_none_or(uses_its_context);
        let context = build.as_str().or_else(|| build["context"].as_str()).filter(|_| is_needed);
        let further = entries(&build["additional_contexts"]).filter_map(|(_, path)| path.as_str());
        let mut folders = context.into_iter().chain(further).filter(|path| path.starts_with('/')).map(plain);
        if let (Some(context), Some(dockerfile)) = (context, build["dockerfile"].as_str()) {
            let path = plain(dockerfile);
            if path.is_absolute() && !path.starts_with(context) {
                self.file(&path, ReadAs::Dockerfile, Some(name), false);
            }
        }
        for context in folders.by_ref() {
            match self.builds.iter_mut().find(|build| build.context == context) {
                Some(build) => drop(build.services.insert(name.to_owned())),
                None => {
                    let services = [name.to_owned()].into();
                    self.builds.push(Build { context, services });
                }
            }
        }
    }

    fn join(&mut self, service: &str, key: &str, declared: &Value) {
        if declared["external"] != true {
            return;
        }
        let name = declared["name"].as_str().unwrap_or(key);
        match self.networks.iter_mut().find(|network| network.name == name) {
            Some(network) => drop(network.services.insert(service.to_owned())),
            None => {
                let services = [service.to_owned()].into();
                self.networks.push(ExternalNetwork { name: name.to_owned(), key: key.to_owned(), services });
            }
        }
    }
}

fn holder(service: &Value) -> Holder {
    let image = service["image"].as_str().map(str::to_owned);
    let command = [words(&service["entrypoint"]), words(&service["command"])].join(" ");
    let variables: Vec<&str> = names(&service["environment"]).collect();
    let targets: Vec<&str> = one_or_many(&service["volumes"]).filter_map(|it| it["target"].as_str()).collect();
    let signs = Signs { image: image.as_deref().unwrap_or_default(), targets: &targets, variables: &variables };
    let server = match of_signs(&signs) {
        // In memory it keeps nothing: a job that has the server's image for its client, a cache.
        Kind::Server(server) => {
            Some(server).filter(|server| server.is_run_by(command.trim()) && !is_in_memory(*server, service))
        }
        Kind::Untried(_) | Kind::Helper | Kind::Other => None,
    };
    Holder {
        server,
        container_name: service["container_name"].as_str().map(str::to_owned),
        profiles: one_or_many(&service["profiles"]).filter_map(Value::as_str).map(str::to_owned).collect(),
        declared: true,
        image,
        ..Holder::default()
    }
}

/// The mounts of a service, those of `volumes_from` too; true for what it mounts read-only by that.
fn mounts<'v>(name: &str, service: &'v Value, resolved: &'v Value, depth: usize) -> Vec<(&'v Value, bool)> {
    let mut all: Vec<(&Value, bool)> = one_or_many(&service["volumes"]).map(|mount| (mount, false)).collect();
    if depth == 0 {
        return all;
    }
    for from in one_or_many(&service["volumes_from"]).filter_map(Value::as_str) {
        let mut parts = from.split(':');
        // `container:NAME` is nobody's service.
        let Some(other) = parts.next().filter(|other| *other != name && *other != "container") else { continue };
        let read_only = parts.next() == Some("ro");
        let theirs = mounts(other, &resolved["services"][other], resolved, depth - 1);
        all.extend(theirs.into_iter().map(|(mount, already)| (mount, already || read_only)));
    }
    all
}

/// Whether all that the server's image keeps data in is memory.
fn is_in_memory(server: Server, service: &Value) -> bool {
    let of_volumes = one_or_many(&service["volumes"]);
    let (memory, kept): (Vec<&Value>, Vec<&Value>) = of_volumes.partition(|mount| mount["type"] == "tmpfs");
    let short = one_or_many(&service["tmpfs"]).filter_map(Value::as_str).filter_map(|it| it.split(':').next());
    let mut memory = memory.into_iter().filter_map(|mount| mount["target"].as_str()).chain(short);
    let is_kept = kept.iter().filter_map(|mount| mount["target"].as_str()).any(|target| server.keeps_data_at(target));
    !is_kept && memory.any(|target| server.keeps_data_at(target))
}

/// Whether a Dockerfile that stands in the Compose file takes anything out of its context.
fn uses_its_context(dockerfile: &str) -> bool {
    dockerfile.lines().map(|line| line.trim_start().to_ascii_uppercase()).any(|line| {
        let copies = line.starts_with("COPY ") || line.starts_with("ADD ");
        (copies && !line.contains("--FROM=")) || line.contains("TYPE=BIND")
    })
}

fn backing(declared: &Value) -> Backing {
    let option = |name: &str| declared["driver_opts"][name].as_str().unwrap_or_default();
    match Backing::of(declared["driver"].as_str(), option) {
        Backing::Folder(path) => Backing::Folder(plain(&path.to_string_lossy())),
        other => other,
    }
}

/// Where a server's variables say that it keeps its data.
fn own_folder(server: Server, service: &Value) -> Option<&str> {
    match server {
        Server::Postgres => ["PGDATA", "POSTGRESQL_DATA_DIR", "PGROOT"]
            .iter()
            .find_map(|name| service["environment"][*name].as_str())
            .filter(|path| path.starts_with('/') && path.len() > 1),
        Server::Rabbitmq => service["environment"]["RABBITMQ_MNESIA_BASE"].as_str(),
        Server::Mysql | Server::Mariadb | Server::Mongodb | Server::Redis | Server::Vault => None,
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The keys of a mapping, or the items of a list, up to a `=`.
fn names(value: &Value) -> impl Iterator<Item = &str> {
    let listed = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    let listed = listed.map(|item| item.split('=').next().unwrap_or_default());
    entries(value).map(|(key, _)| key.as_str()).chain(listed)
}

fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    let one = Some(value).filter(|value| !value.is_array() && !value.is_null());
    value.as_array().into_iter().flatten().chain(one)
}

/// Compose prints each `$` twice, so that it would read it once.
fn plain(path: &str) -> PathBuf {
    PathBuf::from(path.replace("$$", "$"))
}

fn words(value: &Value) -> String {
    one_or_many(value).filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}
