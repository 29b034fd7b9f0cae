//! Which machine and which process this is, and whether another process still lives.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::origin::Origin;

/// A process, by all that tells it from another that was given its number later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks from the boot to its start; none where the system does not say.
    pub started: Option<u64>,
}

/// A machine since its last boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    /// A digest of the machine's id, which itself is not to be given away. Names alone are not enough: half the world
    /// is called `localhost`, and taking such a one for dead would put two writers into one repository.
    pub machine: Option<String>,
    /// New with every boot.
    pub boot: Option<String>,
    /// Process numbers say something only within one namespace: a container's are not ours.
    pub pid_namespace: Option<String>,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub user: String,
    pub host: Host,
    pub process: Process,
}

impl Host {
    pub fn here() -> Self {
        let line =
            |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|s| !s.is_empty());
        Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            machine: line("/etc/machine-id")
                .map(|id| hex::encode(&Sha256::digest(format!("devstack lease {id}"))[..8])),
            boot: line("/proc/sys/kernel/random/boot_id"),
            pid_namespace: fs::read_link("/proc/self/ns/pid").ok().map(|link| link.to_string_lossy().into_owned()),
        }
    }
}

/// The place of a stack on this machine: the folder of its file, and the Compose project that the file declares.
pub fn origin(base: &Path, project: Option<&str>) -> Origin {
    let Host { name, machine, .. } = Host::here();
    let real = base.canonicalize().ok().filter(|real| real != base);
    Origin { host: name, machine, folder: base.to_owned(), real, project: project.map(str::to_owned) }
}

impl Holder {
    /// This process.
    pub fn here() -> Self {
        let uid = || format!("uid {}", rustix::process::getuid().as_raw());
        let pid = std::process::id();
        Self {
            user: std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(uid),
            host: Host::here(),
            process: Process { pid, started: proc_stat(pid).map(|stat| stat.started) },
        }
    }

    /// Certainly gone, as seen from `here`. False where that can't be told: then only an expiry ends its lease.
    pub fn is_dead(&self, here: &Host) -> bool {
        let same_machine =
            self.host.name == here.name && self.host.machine.is_some() && self.host.machine == here.machine;
        match (&self.host.boot, &here.boot) {
            (Some(then), Some(now)) if then != now => same_machine,
            // Two machines never share a boot id, so this needs no word of the machine's own.
            (Some(_), Some(_)) if self.host.pid_namespace == here.pid_namespace => self.process.is_gone(),
            _ => false,
        }
    }

    /// `user@host pid 4711`.
    pub fn describe(&self) -> String {
        format!("{}@{} pid {}", self.user, self.host.name, self.process.pid)
    }
}

impl Process {
    /// No process of this number runs here, or it is another one.
    fn is_gone(&self) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
        // Asked first, since a /proc mounted with hidepid hides processes that are well alive.
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            return true;
        }
        proc_stat(self.pid)
            .is_some_and(|stat| stat.is_defunct || self.started.is_some_and(|started| started != stat.started))
    }
}

struct ProcStat {
    started: u64,
    /// Killed, and only not yet waited for by its parent.
    is_defunct: bool,
}

fn proc_stat(pid: u32) -> Option<ProcStat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets, and may itself hold spaces and brackets: count from the last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(ProcStat { is_defunct: matches!(*fields.first()?, "Z" | "X"), started: fields.get(19)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    fn other(change: impl FnOnce(&mut Holder)) -> Holder {
        let mut holder = Holder::here();
        holder.host.machine = Some("m".into());
        change(&mut holder);
        holder
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_is_certainly_gone_is_dead() {
        let here = Host { machine: Some("m".into()), ..Host::here() };
        let never_a_pid = i32::MAX as u32;
        for (case, dead, holder) in [
            ("this process", false, other(|_| {})),
            ("no such process", true, other(|h| h.process.pid = never_a_pid)),
            ("its number was given anew", true, other(|h| h.process.started = h.process.started.map(|t| t + 1))),
            ("start not known", false, other(|h| h.process.started = None)),
            ("rebooted", true, other(|h| h.host.boot = Some("earlier".into()))),
            (
                "another machine",
                false,
                other(|h| {
                    h.host.boot = Some("other".into());
                    h.host.machine = Some("n".into());
                }),
            ),
            (
                "another machine of the same name without an id",
                false,
                other(|h| {
                    h.host.boot = Some("other".into());
                    h.host.machine = None;
                }),
            ),
            (
                "another machine by name",
                false,
                other(|h| {
                    h.host.boot = Some("other".into());
                    h.host.name = "elsewhere".into();
                }),
            ),
            (
                "a container's process",
                false,
                other(|h| {
                    h.host.pid_namespace = Some("pid:[1]".into());
                    h.process.pid = never_a_pid;
                }),
            ),
            (
                "no boot id",
                false,
                other(|h| {
                    h.host.boot = None;
                    h.process.pid = never_a_pid;
                }),
            ),
        ] {
            assert_eq!(holder.is_dead(&here), dead, "{case}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_killed_process_is_dead_before_its_parent_has_noticed() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        let process = Process { pid, started: proc_stat(pid).map(|stat| stat.started) };
        assert!(process.started.is_some() && !process.is_gone());
        child.kill().unwrap();
        // The kill is delivered at once, but a defunct process shows only when it has left the processor.
        while !process.is_gone() {
            std::thread::yield_now();
        }
        assert!(proc_stat(pid).is_some(), "nobody has waited for it yet");
        child.wait().unwrap();
        assert!(process.is_gone());
    }
}
