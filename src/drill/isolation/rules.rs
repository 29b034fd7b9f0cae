//! What becomes of every key that a resolved Compose model may have. A key that stands in none of these tables stops the
//! drill.
//!
//! The measure: what lives inside of the container is carried over; what ties it to the outside, but without which it
//! starts, is left out and said; what gives it power over the machine or a view of the live stack is refused, since a
//! drill without it would prove another service than the one that is declared.

use serde_json::Value;

use Rule::{Keep, LeaveOut, Own, Refuse};
use Shape::{Command, Flag, Limits, Pairs, Scalar, Text, Texts};

#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// Carried over as it is, if it has this shape.
    Keep(Shape),
    /// Left out, for this reason.
    LeaveOut(&'static str),
    /// Can't be isolated, for this reason.
    Refuse(&'static str),
    /// Code of its own decides.
    Own,
}

/// A shape is checked so that nothing unknown is carried over inside of something known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Text,
    Flag,
    /// A text or a number.
    Scalar,
    /// One scalar or a list of them.
    Texts,
    /// As `Texts`; an empty list takes away what the image says.
    Command,
    /// Names with a scalar each, or with nothing.
    Pairs,
    /// Names with a number, or with a soft and a hard one.
    Limits,
}

impl Shape {
    pub fn fits(self, value: &Value) -> bool {
        let scalar = |value: &Value| value.is_string() || value.is_number();
        match self {
            Text => value.is_string(),
            Flag => value.is_boolean(),
            Scalar => scalar(value),
            Texts | Command => scalar(value) || value.as_array().is_some_and(|entries| entries.iter().all(scalar)),
            Pairs => value.as_object().is_some_and(|pairs| {
                pairs.values().all(|value| value.is_null() || value.is_boolean() || scalar(value))
            }),
            Limits => value.as_object().is_some_and(|limits| {
                let both = |limit: &Value| {
                    limit.as_object().is_some_and(|ends| {
                        ends.iter().all(|(end, value)| matches!(end.as_str(), "soft" | "hard") && scalar(value))
                    })
                };
                limits.values().all(|limit| scalar(limit) || both(limit))
            }),
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Text => "a text",
            Flag => "true or false",
            Scalar => "a text or a number",
            Texts | Command => "a text or a list of texts",
            Pairs => "names with a text each",
            Limits => "names with a number each, or with `soft` and `hard`",
        }
    }
}

type Table = [(&'static str, Rule)];

pub(super) const ROOT: &Table = &[
    // The live project's name: containers, volumes and networks would be taken for the live ones and recreated.
    ("name", Own),
    // Those that the drill needs are looked at, the others are not there for it.
    ("services", Own),
    ("networks", Own),
    ("volumes", Own),
    ("secrets", Own),
    ("configs", Own),
    // Means nothing since Compose v2.
    ("version", Own),
    // Those that a service uses are refused there.
    ("models", Own),
    ("include", Refuse("it is not resolved, so other files stand behind it")),
];

pub(super) const SERVICE: &Table = &[
    // What runs, and how it is told. Values of the environment may be secrets: they go into the model and nowhere else.
    ("image", Own),
    ("command", Keep(Command)),
    ("entrypoint", Keep(Command)),
    ("environment", Keep(Pairs)),
    ("working_dir", Keep(Text)),
    ("user", Keep(Scalar)),
    ("group_add", Keep(Texts)),
    ("init", Keep(Flag)),
    ("tty", Keep(Flag)),
    ("stdin_open", Keep(Flag)),
    ("attach", Keep(Flag)),
    ("platform", Keep(Text)),
    ("healthcheck", Own),
    ("post_start", Own),
    ("pre_stop", Own),
    ("stop_signal", Keep(Text)),
    ("stop_grace_period", Keep(Scalar)),
    ("read_only", Keep(Flag)),
    // The name inside of the container's own namespace. RabbitMQ's node and its data folder are called after it.
    ("hostname", Keep(Text)),
    ("domainname", Keep(Text)),
    // Opens nothing on the host.
    ("expose", Keep(Texts)),
    ("dns_search", Keep(Texts)),
    ("dns_opt", Keep(Texts)),
    // Limits: a recovery's time depends on them, and they protect the live stack from the drill.
    ("ulimits", Keep(Limits)),
    ("shm_size", Keep(Scalar)),
    ("mem_limit", Keep(Scalar)),
    ("mem_reservation", Keep(Scalar)),
    ("memswap_limit", Keep(Scalar)),
    ("mem_swappiness", Keep(Scalar)),
    ("pids_limit", Keep(Scalar)),
    ("cpus", Keep(Scalar)),
    ("cpu_count", Keep(Scalar)),
    ("cpu_percent", Keep(Scalar)),
    ("cpu_period", Keep(Scalar)),
    ("cpu_quota", Keep(Scalar)),
    ("cpu_shares", Keep(Scalar)),
    ("cpuset", Keep(Scalar)),
    // Takes away.
    ("cap_drop", Keep(Texts)),
    // In memory, and gone with the container.
    ("tmpfs", Keep(Texts)),
    // Each is carried over only in the forms that stay in the container.
    ("cap_add", Own),
    ("security_opt", Own),
    ("sysctls", Own),
    ("extra_hosts", Own),
    ("deploy", Own),
    // Namespaces: another container of the drill may be joined, the host and the live stack may not.
    ("network_mode", Own),
    ("pid", Own),
    ("ipc", Own),
    ("cgroup", Own),
    // Both have the one value `host`.
    ("uts", Refuse("`host` lets it set the name of the machine")),
    ("userns_mode", Refuse("`host` makes its root the root of the machine")),
    // References to other parts of the model.
    ("networks", Own),
    ("volumes", Own),
    ("volumes_from", Own),
    ("secrets", Own),
    ("configs", Own),
    ("depends_on", Own),
    ("links", Own),
    // A fixed name belongs to the live container: `create` would fail on it, or worse, take the live one away. The name
    // goes on as an alias in the drill's own networks, since others may call the service by it.
    ("container_name", Own),
    // A drill must not move a tag that the live stack runs on.
    ("pull_policy", Own),
    ("profiles", LeaveOut("the drill chooses its services itself")),
    ("labels", LeaveOut("a proxy or an updater of the live stack may act on labels; the drill's own label is set")),
    ("label_file", LeaveOut("as for `labels`")),
    ("annotations", LeaveOut("the machine's container runtime may act on annotations")),
    ("ports", LeaveOut("nothing is published: the port is the live stack's, and nobody may take the drill for it")),
    ("restart", LeaveOut("a container that ends is a finding, and nothing of a drill may come back after a reboot")),
    ("scale", LeaveOut("one container of each service: the drill proves data, not capacity")),
    ("build", LeaveOut("the image is used as it is: a build would move the tag that the live stack runs on")),
    ("develop", LeaveOut("nothing is watched or rebuilt")),
    ("mac_address", LeaveOut("a fixed address belongs to the live container")),
    ("external_links", LeaveOut("the containers that it names belong to the live stack")),
    ("dns", LeaveOut("the drill's networks lead nowhere, and a server of the live stack may stand behind the address")),
    ("logging", LeaveOut("a driver may send the drill's lines to the collector of the live stack")),
    // Where memory runs short, the live stack is to outlive the drill.
    ("oom_kill_disable", LeaveOut("the live stack is to outlive the drill where memory runs short")),
    ("oom_score_adj", LeaveOut("the live stack is to outlive the drill where memory runs short")),
    ("cpu_rt_period", LeaveOut("realtime shares would be taken from the live stack")),
    ("cpu_rt_runtime", LeaveOut("realtime shares would be taken from the live stack")),
    ("cgroup_parent", LeaveOut("the drill's containers would share the limits of the live ones")),
    ("blkio_config", LeaveOut("it names disks of the machine")),
    ("storage_opt", LeaveOut("it depends on where the engine keeps its containers")),
    ("privileged", Refuse("it has all power over the machine and over the live stack's containers")),
    ("devices", Refuse("a device of the machine can't be copied, and the live stack may be using it")),
    ("device_cgroup_rules", Refuse("it may open devices of the machine")),
    ("gpus", Refuse("a device of the machine can't be copied, and the live stack may be using it")),
    ("runtime", Own),
    ("use_api_socket", Refuse("whoever may talk to Docker has power over the live stack")),
    ("provider", Refuse("Compose would run a program of the machine for it, outside of any container")),
    ("models", Refuse("it is served by a program of the machine, outside of any container")),
    ("credential_spec", Refuse("it is an account of the machine's own domain")),
    ("isolation", Refuse("it belongs to Windows containers, which the drill does not know")),
    ("extends", Refuse("it is not resolved, so another file stands behind it")),
    // Compose puts the variables into `environment` and drops this. One that kept it has not put them there.
    ("env_file", Own),
];

pub(super) const HEALTHCHECK: &Table = &[
    ("test", Keep(Command)),
    ("interval", Keep(Scalar)),
    ("timeout", Keep(Scalar)),
    ("retries", Keep(Scalar)),
    ("start_period", Keep(Scalar)),
    ("start_interval", Keep(Scalar)),
    ("disable", Keep(Flag)),
];

pub(super) const HOOK: &Table = &[
    ("command", Keep(Command)),
    ("user", Keep(Scalar)),
    ("working_dir", Keep(Text)),
    ("environment", Keep(Pairs)),
    ("privileged", Refuse("it has all power over the machine and over the live stack's containers")),
];

pub(super) const DEPLOY: &Table = &[
    ("resources", Own),
    ("replicas", LeaveOut("one container of each service: the drill proves data, not capacity")),
    ("mode", LeaveOut("it belongs to swarm")),
    ("endpoint_mode", LeaveOut("it belongs to swarm")),
    ("placement", LeaveOut("it belongs to swarm")),
    ("update_config", LeaveOut("it belongs to swarm")),
    ("rollback_config", LeaveOut("it belongs to swarm")),
    ("labels", LeaveOut("a proxy or an updater of the live stack may act on labels")),
    // Compose honours it also without a swarm.
    (
        "restart_policy",
        LeaveOut("a container that ends is a finding, and nothing of a drill may come back after a reboot"),
    ),
];

pub(super) const RESOURCES: &Table = &[("limits", Own), ("reservations", Own)];

pub(super) const RESOURCE: &Table = &[
    ("cpus", Keep(Scalar)),
    ("memory", Keep(Scalar)),
    ("pids", Keep(Scalar)),
    ("devices", Refuse("a device of the machine can't be copied, and the live stack may be using it")),
    ("generic_resources", LeaveOut("it belongs to swarm")),
];

pub(super) const DEPENDENCY: &Table = &[("condition", Keep(Text)), ("required", Keep(Flag)), ("restart", Keep(Flag))];

/// A service in a network.
pub(super) const ATTACHMENT: &Table = &[
    ("aliases", Own),
    ("priority", Keep(Scalar)),
    ("gw_priority", LeaveOut("the drill's networks lead nowhere")),
    ("interface_name", LeaveOut("no process needs an interface's name to find its data")),
    ("driver_opts", LeaveOut("options may reach for interfaces of the machine")),
    ("ipv4_address", LeaveOut("a fixed address belongs to the live container")),
    ("ipv6_address", LeaveOut("a fixed address belongs to the live container")),
    ("link_local_ips", LeaveOut("a fixed address belongs to the live container")),
    ("mac_address", LeaveOut("a fixed address belongs to the live container")),
];

pub(super) const NETWORK: &Table = &[
    ("name", Own),
    ("external", Own),
    // Every network of a drill is internal.
    ("internal", Own),
    ("attachable", Own),
    ("driver", Own),
    // `com.docker.network.bridge.name` would be the live bridge, `parent` an interface of the machine.
    ("driver_opts", LeaveOut("options may name interfaces of the machine")),
    ("ipam", LeaveOut("the live network has these addresses; the engine gives the drill's network others")),
    ("enable_ipv4", LeaveOut("the engine gives the drill's network its addresses")),
    ("enable_ipv6", LeaveOut("the engine gives the drill's network its addresses")),
    ("labels", LeaveOut("the drill's own label is set")),
];

pub(super) const VOLUME: &Table = &[
    ("name", Own),
    ("external", Own),
    ("driver", Own),
    // `type: none, o: bind, device: /srv/data` mounts the live data whatever the volume is called; so does NFS.
    ("driver_opts", LeaveOut("options may mount the live data; the drill's volume is a plain local one")),
    ("labels", LeaveOut("the drill's own label is set")),
];

pub(super) const VOLUME_MOUNT: &Table = &[
    ("type", Keep(Text)),
    ("source", Own),
    ("target", Keep(Text)),
    ("read_only", Keep(Flag)),
    ("consistency", Own),
    ("volume", Own),
    // `data:/data:z`: a label for SELinux, which a new volume gets by itself. Nothing of it is carried over.
    ("bind", Own),
];

pub(super) const VOLUME_OPTIONS: &Table =
    &[("nocopy", Keep(Flag)), ("subpath", Keep(Text)), ("labels", LeaveOut("the drill's own label is set"))];

pub(super) const BIND_MOUNT: &Table = &[
    ("type", Keep(Text)),
    ("source", Own),
    ("target", Keep(Text)),
    ("read_only", Keep(Flag)),
    ("consistency", Own),
    ("bind", Own),
];

pub(super) const BIND_OPTIONS: &Table = &[
    // Relabels what is mounted, which is the copy.
    ("selinux", Keep(Text)),
    // The copy is there before the container is, or the drill is wrong.
    ("create_host_path", Own),
    // `private` and `rprivate` are what is left anyway.
    ("propagation", LeaveOut("mounts of the container would show on the machine, or the other way round")),
    ("recursive", LeaveOut("the copy has no mounts below it")),
];

pub(super) const TMPFS_MOUNT: &Table =
    &[("type", Keep(Text)), ("target", Keep(Text)), ("read_only", Keep(Flag)), ("consistency", Own), ("tmpfs", Own)];

pub(super) const TMPFS_OPTIONS: &Table = &[("size", Keep(Scalar)), ("mode", Keep(Scalar))];

/// A service's use of a secret or a config.
pub(super) const FILE_USE: &Table = &[
    ("source", Keep(Text)),
    ("target", Keep(Text)),
    ("uid", Keep(Scalar)),
    ("gid", Keep(Scalar)),
    ("mode", Keep(Scalar)),
];

/// A secret or a config.
pub(super) const FILE: &Table = &[
    ("name", Own),
    ("labels", Own),
    ("file", Own),
    // The variable's name, not its value.
    ("environment", Keep(Text)),
    ("content", Keep(Text)),
    ("external", Refuse("it lies in a swarm, and nothing on this machine can copy it")),
    ("driver", Refuse("it lies in a store outside of the file, which the live stack uses too")),
    ("driver_opts", Refuse("it lies in a store outside of the file, which the live stack uses too")),
    ("template_driver", Refuse("it is made by a swarm")),
];

/// Whether a process with this capability stays inside of its container: those that Docker gives to every one, the two with
/// which servers hold their memory and their turn, and no other.
pub(in crate::drill) fn stays_inside(capability: &str) -> bool {
    const HARMLESS: [&str; 16] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
        "SYS_NICE",
    ];
    let name = capability.to_ascii_uppercase();
    HARMLESS.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
}

/// Whether a security option takes away and gives nothing. A profile is a file of the machine, and `unconfined` is none.
pub(in crate::drill) fn confines(option: &str) -> bool {
    matches!(option, "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
}

/// Whether an address of `extra_hosts` is the container's own.
pub(in crate::drill) fn is_itself(address: &str) -> bool {
    address.starts_with("127.") || matches!(address, "::1" | "0.0.0.0" | "::")
}

/// Whether a kernel setting is one that each container's namespaces have for themselves; any other is the machine's.
pub(super) fn is_of_its_own(sysctl: &str) -> bool {
    const ALONE: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    sysctl.starts_with("net.") || sysctl.starts_with("fs.mqueue.") || ALONE.contains(&sysctl)
}
