//! What a stack holds: all that its Compose files and its containers mount, write and read, and the servers among them. The
//! comparison with what devstack.yaml takes is made of it, and so is a starter file. No value of a variable is kept, but
//! for the folder that a server is told to keep its data in.

mod compose;
mod running;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::image::Server;

/// Everything that one stack holds, each thing once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holdings {
    /// The Compose project; empty where none is known.
    pub project: String,
    pub services: BTreeMap<String, Holder>,
    pub volumes: Vec<HeldVolume>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameless: Vec<Nameless>,
    pub binds: Vec<Bind>,
    pub files: Vec<HeldFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<Build>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<ExternalNetwork>,
    /// The profiles that are in use; without one of its own a service of profiles is not made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// The variables that the files ask for and that nobody has set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// What could not be looked into, each with the reason: there may be more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// A service of Compose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The server that it is, if it is one of a kind that devstack has an engine for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// The Compose files name it. If not, there is only a container of it.
    pub declared: bool,
    /// Names of its containers, as far as they were looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Where each of its mounts stands in the container; memory is not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

/// How a service uses what it mounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Use {
    pub service: String,
    /// Where it stands in the container.
    pub target: String,
    /// Not mounted read-only.
    pub writes: bool,
    /// The server that keeps its own data there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_of: Option<Server>,
}

/// A volume with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldVolume {
    /// The engine's own name for it.
    pub name: String,
    /// What the Compose files call it; none where only a container mounts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Compose expects it to be there, and makes it not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    #[serde(default, skip_serializing_if = "Backing::is_local")]
    pub backing: Backing,
    pub uses: Vec<Use>,
}

/// Where a volume's bytes lie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// In the engine's own folder.
    #[default]
    Local,
    /// In this folder of the machine.
    Folder(PathBuf),
    /// In memory: it ends with its last container.
    Memory,
    /// Elsewhere: what is mounted, or the driver.
    Remote(String),
}

impl Backing {
    /// By the driver of a volume and its options.
    pub fn of<'o>(driver: Option<&str>, option: impl Fn(&str) -> &'o str) -> Self {
        let bound = option("o").split(',').any(|it| matches!(it, "bind" | "rbind"));
        match (driver.filter(|driver| !matches!(*driver, "" | "local")), option("type")) {
            (Some(driver), _) => Self::Remote(format!("the driver {driver}")),
            (None, "tmpfs" | "ramfs") => Self::Memory,
            (None, _) if bound => Self::Folder(PathBuf::from(option("device"))),
            (None, "" | "none") => Self::Local,
            (None, kind) => Self::Remote(format!("{kind} {}", option("device")).trim().to_owned()),
        }
    }

    fn is_local(&self) -> bool {
        *self == Self::Local
    }
}

/// A volume without a name, which a container that is made anew does not find again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nameless {
    pub at: Use,
    /// The engine's names for it, where containers were looked at: one for each container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Nothing lies in any of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
}

/// A file or folder of the machine that containers mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub path: PathBuf,
    pub uses: Vec<Use>,
    /// A container mounts it, and it is not there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
}

/// A file that Compose itself reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFile {
    pub path: PathBuf,
    pub read_as: BTreeSet<ReadAs>,
    /// The services that it is read for; none for what all of them come from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub services: BTreeSet<String>,
    /// Compose goes without it (`required: false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Looked for on this machine, and not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
}

/// What Compose reads a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadAs {
    /// One of the declared Compose files.
    Compose,
    Include,
    Extends,
    /// Variables that fill in the Compose files.
    Variables,
    EnvFile,
    LabelFile,
    Secret,
    Config,
    /// A profile of seccomp, or a credential spec.
    Security,
    /// A Dockerfile outside of its context.
    Dockerfile,
}

impl ReadAs {
    /// As the Compose file calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compose => "Compose file",
            Self::Include => "include",
            Self::Extends => "extends file",
            Self::Variables => "file of variables",
            Self::EnvFile => "env_file",
            Self::LabelFile => "label_file",
            Self::Secret => "secret file",
            Self::Config => "config file",
            Self::Security => "security profile",
            Self::Dockerfile => "Dockerfile",
        }
    }
}

/// A folder that images are built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    pub context: PathBuf,
    pub services: BTreeSet<String>,
}

/// A network that Compose expects to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalNetwork {
    /// The engine's own name for it.
    pub name: String,
    pub key: String,
    pub services: BTreeSet<String>,
}

impl Holdings {
    pub fn is_empty(&self) -> bool {
        let Self {
            project: _,
            services,
            volumes,
            nameless,
            binds,
            files,
            builds,
            networks,
            profiles: _,
            unset: _,
            unread,
        } = self;
        services.is_empty()
            && volumes.is_empty()
            && nameless.is_empty()
            && binds.is_empty()
            && files.is_empty()
            && builds.is_empty()
            && networks.is_empty()
            && unread.is_empty()
    }

    /// The service that devstack.yaml calls so: by its name, or by that of one of its containers.
    pub fn service(&self, name: &str) -> Option<&str> {
        let by_name = self.services.get_key_value(name).map(|(key, _)| key.as_str());
        let is_it = |holder: &Holder| {
            holder.container_name.as_deref() == Some(name) || holder.containers.iter().any(|it| it == name)
        };
        let by_container = || self.services.iter().find(|(_, holder)| is_it(holder)).map(|(key, _)| key.as_str());
        // Compose's own names for containers: `PROJECT-SERVICE-1`.
        let by_pattern = || {
            let rest = name.strip_prefix(self.project.as_str()).filter(|_| !self.project.is_empty())?;
            let (service, number) = rest.strip_prefix(['-', '_'])?.rsplit_once(['-', '_'])?;
            let (key, _) = self.services.get_key_value(service)?;
            (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(key.as_str())
        };
        by_name.or_else(by_container).or_else(by_pattern)
    }

    /// The volume that devstack.yaml calls so: by its key in the Compose files, or by the engine's name for it.
    pub fn volume(&self, name: &str) -> Option<&HeldVolume> {
        let full = format!("{}_{name}", self.project);
        let is_it = [
            |it: &HeldVolume, name: &str, _: &str| it.key.as_deref() == Some(name),
            |it: &HeldVolume, _: &str, full: &str| it.name == full,
            |it: &HeldVolume, name: &str, _: &str| it.name == name,
        ];
        is_it.iter().find_map(|is_it| self.volumes.iter().find(|volume| is_it(volume, name, &full)))
    }

    /// Whether Compose makes containers of the service: it is of no profile, or of one that is in use. One that the files do not
    /// name is no longer made.
    pub fn is_made(&self, service: &str) -> bool {
        let of = self.services.get(service).filter(|holder| holder.declared).map(|holder| &holder.profiles);
        let in_use = |profile: &String| self.profiles.iter().any(|used| used == profile || used == "*");
        of.is_some_and(|of| of.is_empty() || of.iter().any(in_use))
    }

    fn bind(&mut self, path: &Path) -> &mut Bind {
        let at = match self.binds.iter().position(|bind| bind.path == path) {
            Some(at) => at,
            None => {
                self.binds.push(Bind { path: path.to_owned(), uses: Vec::new(), missing: false });
                self.binds.len() - 1
            }
        };
        &mut self.binds[at]
    }

    fn nameless(&mut self, at: Use) -> &mut Nameless {
        let known = |it: &Nameless| it.at.service == at.service && it.at.target == at.target;
        let index = match self.nameless.iter().position(known) {
            Some(index) => index,
            None => {
                self.nameless.push(Nameless { at, volumes: Vec::new(), empty: false });
                self.nameless.len() - 1
            }
        };
        &mut self.nameless[index]
    }

    fn file(&mut self, path: &Path, read_as: ReadAs, service: Option<&str>, optional: bool) {
        let at = match self.files.iter().position(|file| file.path == path) {
            Some(at) => at,
            None => {
                let (read_as, services) = (BTreeSet::new(), BTreeSet::new());
                self.files.push(HeldFile { path: path.to_owned(), read_as, services, optional: true, missing: false });
                self.files.len() - 1
            }
        };
        let file = &mut self.files[at];
        file.read_as.insert(read_as);
        file.services.extend(service.map(str::to_owned));
        // Wanted by one, it is wanted.
        file.optional &= optional;
    }

    /// One order, whatever the Compose files and the engine list first.
    fn sort(&mut self) {
        let Self {
            project: _,
            services,
            volumes,
            nameless,
            binds,
            files,
            builds,
            networks,
            profiles: _,
            unset: _,
            unread: _,
        } = self;
        for holder in services.values_mut() {
            holder.targets.sort();
            holder.targets.dedup();
            holder.containers.sort();
            holder.containers.dedup();
        }
        let all = volumes.iter_mut().map(|it| &mut it.uses).chain(binds.iter_mut().map(|it| &mut it.uses));
        for uses in all {
            uses.sort();
            uses.dedup();
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        nameless.sort_by(|a, b| a.at.cmp(&b.at));
        binds.sort_by(|a, b| a.path.cmp(&b.path));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        builds.sort_by(|a, b| a.context.cmp(&b.context));
        networks.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// The services among `uses` that write.
pub fn writers(uses: &[Use]) -> BTreeSet<&str> {
    uses.iter().filter(|it| it.writes).map(|it| it.service.as_str()).collect()
}

/// Why a path of the machine is never a stack's data: it is the machine's own, and another machine has its own.
pub fn of_the_machine(path: &Path) -> Option<&'static str> {
    const TREES: [(&str, &str); 12] = [
        ("/proc", "the kernel's own"),
        ("/sys", "the kernel's own"),
        ("/dev", "devices of the machine"),
        ("/run", "it ends with the machine's session"),
        ("/var/run", "it ends with the machine's session"),
        ("/lib/modules", "the kernel's own"),
        ("/usr/share/zoneinfo", "the machine's time zones"),
        ("/tmp/.X11-unix", "a display of the machine"),
        ("/var/lib/docker", "Docker's own"),
        ("/etc/ssl/certs", "the machine's authorities"),
        ("/usr/share/ca-certificates", "the machine's authorities"),
        ("/boot", "the machine's own"),
    ];
    const FILES: [(&str, &str); 12] = [
        ("/", "the machine itself"),
        ("/etc/localtime", "the machine's time zone"),
        ("/etc/timezone", "the machine's time zone"),
        ("/etc/hostname", "the machine's own name"),
        ("/etc/machine-id", "the machine's own name"),
        ("/etc/hosts", "the machine's own names"),
        ("/etc/resolv.conf", "the machine's own names"),
        ("/etc/os-release", "the machine's system"),
        ("/etc/passwd", "the machine's users"),
        ("/etc/group", "the machine's users"),
        ("/etc/shadow", "the machine's users"),
        ("/var/log", "the machine's log"),
    ];
    let tree = TREES.iter().find(|(tree, _)| path.starts_with(tree));
    let found = tree.or_else(|| FILES.iter().find(|(file, _)| path == Path::new(file)));
    let socket = || path.extension().is_some_and(|ending| ending == "sock");
    found.map(|(_, why)| *why).or_else(|| socket().then_some("a socket"))
}

#[cfg(test)]
mod tests;
