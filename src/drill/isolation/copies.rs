//! Host paths that containers see, each replaced by a copy below the scratch folder.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::Request;
use super::decisions::{Decisions, TAKE_IT_OUT};

/// A host path that a container sees, and what it sees in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScratchCopy {
    pub host: PathBuf,
    /// Where the copy is to be before anything is created. Neither it nor a folder above it may be a symbolic link: the
    /// engine would follow it to the live path. A path below another copy's is a part of that copy.
    pub scratch: PathBuf,
    pub from: CopyFrom,
    /// Whether a container may write to it.
    pub writable: bool,
    /// The places in the model that name it.
    pub used_at: Vec<String>,
}

/// What a copy is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyFrom {
    /// The run that is drilled. A live file would prove nothing.
    Run,
    /// This machine: its time zone and its trusted certificates, which any machine has and no run needs to hold.
    Machine,
}

/// What every machine has of its own and containers are often lent, read-only.
const OF_ANY_MACHINE: [&str; 4] = ["/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/etc/ssl/certs"];

/// Folders without files that could be in a run, and why nothing in them can be lent to a drill.
const OF_THE_MACHINE: [(&str, &str); 7] = [
    ("/run", "the engine's socket and those of live servers lie in /run"),
    ("/var/run", "the engine's socket and those of live servers lie in /var/run"),
    ("/proc", "/proc shows the machine's processes, the live stack's among them"),
    ("/sys", "/sys is the machine itself"),
    ("/dev", "/dev holds the machine's devices"),
    ("/var/lib/docker", "the engine keeps the live stack's volumes and containers in /var/lib/docker"),
    ("/var/lib/containerd", "the engine keeps the live stack's containers in /var/lib/containerd"),
];

#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Every host path that is bound, in the order of its parts: a folder stands before what is in it.
    planned: BTreeMap<PathBuf, ScratchCopy>,
}

impl Copies {
    /// One place for every host path of the services, so that services that share a folder share its copy, and a folder
    /// inside of another one is inside of its copy.
    pub fn planned(request: &Request<'_>) -> Self {
        let mut planned: BTreeMap<PathBuf, ScratchCopy> = BTreeMap::new();
        let mut hosts: Vec<PathBuf> = paths(request).into_iter().filter_map(|path| host(&path).ok()).collect();
        hosts.sort();
        hosts.dedup();
        for (nth, host) in hosts.into_iter().enumerate() {
            let around = host.ancestors().skip(1).find_map(|folder| planned.get(folder));
            let scratch = around
                .and_then(|around| host.strip_prefix(&around.host).ok().map(|rest| around.scratch.join(rest)))
                // A number, so that nothing of the live path is in the model.
                .unwrap_or_else(|| request.scratch.join(format!("b{}", nth + 1)));
            let copy =
                ScratchCopy { host: host.clone(), scratch, from: CopyFrom::Run, writable: false, used_at: vec![] };
            planned.insert(host, copy);
        }
        Self { planned }
    }

    /// The path that replaces a host's, as the model is to say it.
    pub fn take(&mut self, decisions: &mut Decisions, at: &str, path: &str, read_only: bool) -> Option<String> {
        let host = host(path).map_err(|why| decisions.refuse(at, why, TAKE_IT_OUT)).ok()?;
        let Some(copy) = self.planned.get_mut(&host) else {
            decisions.refuse(at, "no place was made for a copy of it", TAKE_IT_OUT);
            return None;
        };
        copy.used_at.push(at.to_owned());
        copy.writable |= !read_only;
        let lent = OF_ANY_MACHINE.iter().any(|folder| host.starts_with(folder));
        copy.from = if lent && !copy.writable { CopyFrom::Machine } else { CopyFrom::Run };
        copy.scratch.to_str().map(|scratch| scratch.replace('$', "$$"))
    }

    pub fn used(self) -> Vec<ScratchCopy> {
        self.planned.into_values().filter(|copy| !copy.used_at.is_empty()).collect()
    }
}

/// Every path of the host that the services and their secrets and configs name.
fn paths(request: &Request<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let entries = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for service in request.services {
        let service = &request.model["services"][service.as_str()];
        for mount in entries(&service["volumes"]) {
            if mount["type"] == "bind" {
                found.extend(mount["source"].as_str().map(str::to_owned));
            }
        }
        for part in ["secrets", "configs"] {
            for used in entries(&service[part]) {
                let key = used.as_str().or_else(|| used["source"].as_str()).unwrap_or_default();
                found.extend(request.model[part][key]["file"].as_str().map(str::to_owned));
            }
        }
    }
    found
}

/// A host path without `.`, `..` and doubled slashes, or why no copy of it can be lent.
fn host(written: &str) -> Result<PathBuf, String> {
    let written = written.replace("$$", "$");
    if !Path::new(&written).is_absolute() {
        return Err("it is not an absolute path of this machine".to_owned());
    }
    let path = plain(Path::new(&written));
    if path == Path::new("/") {
        return Err("it is the whole machine".to_owned());
    }
    // A Mac's /var and /tmp lie below /private.
    let seen = path.strip_prefix("/private").map_or_else(|_| path.clone(), |rest| Path::new("/").join(rest));
    for (folder, why) in OF_THE_MACHINE {
        if seen.starts_with(folder) {
            return Err(why.to_owned());
        }
        if Path::new(folder).starts_with(&seen) {
            return Err(format!("{folder} lies in it, and {why}"));
        }
    }
    let ending = path.extension().and_then(|ending| ending.to_str());
    if matches!(ending, Some("sock" | "socket")) {
        return Err("it is the socket of a running server, Docker's or another's, and can't be copied".to_owned());
    }
    Ok(path)
}

/// `/a/./b//../c` is `/a/c`.
pub(in crate::drill) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
