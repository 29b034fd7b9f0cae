//! What was seen of the world, and what could not be seen, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::compose::ComposeModel;
use super::damage::Damaged;
use super::drill::Drill;
use super::evidence::{DataRead, Level, Proof, Verdict};
use super::holdings::Holdings;
use super::ids::{
    ContainerId, KeyId, LeaseId, PlanId, PolicyName, RepositoryId, RepositoryName, RunId, ServiceName, SnapshotId,
    StackName,
};
use super::login::LoginState;
use super::origin::Origin;
use super::record::{Adopted, Approved, Generation, Recovery};
use super::retention::Rule;
use super::run::Manifest;
use super::shrink::Present;
use super::units::{ByteSize, Span};

/// A field that was seen, or the reason why not. Nothing that overwrites or deletes may rest on an Unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed<T> {
    Known(T),
    Unknown { reason: String },
}

impl<T> Observed<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }
}

/// A container as the engine describes it. Its environment is never kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: ContainerId,
    pub name: String,
    /// As Compose or the command line named it.
    pub image: String,
    /// The digest of the image's configuration, `sha256:…`.
    pub image_digest: String,
    /// The engine's own word: `running`, `exited`, `created` …
    pub state: String,
    /// Running, and not paused.
    pub running: bool,
    /// How long it may take to end by its own declaration (`stop_grace_period`), in seconds.
    #[serde(default)]
    pub stop_seconds: Option<i64>,
    /// Of its last end.
    pub exit_code: i64,
    pub health: Health,
    pub restarts: u64,
    pub mounts: Vec<Mount>,
    pub networks: Vec<String>,
    /// The containers whose network, processes or memory it shares (`network_mode: service:…`): without them it can't start, and
    /// after their new start it is cut off until its own.
    #[serde(default)]
    pub joins: Vec<ContainerId>,
    /// Those that Compose wrote.
    pub labels: BTreeMap<String, String>,
}

/// The label by which Compose tells of which of its services a container is.
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";

impl ContainerState {
    /// The service of Compose that made it; none where somebody else did.
    pub fn compose_service(&self) -> Option<&String> {
        self.labels.get(COMPOSE_SERVICE)
    }

    /// Of `docker compose run`: nobody's service.
    pub fn is_one_off(&self) -> bool {
        self.labels.get("com.docker.compose.oneoff").is_some_and(|value| value == "True")
    }

    /// For tests: one that runs, with these mounts.
    #[cfg(test)]
    pub fn mounting(name: &str, mounts: Vec<Mount>) -> Self {
        Self {
            id: ContainerId::new(name),
            name: name.to_owned(),
            image: String::new(),
            image_digest: String::new(),
            state: "running".into(),
            running: true,
            stop_seconds: None,
            exit_code: 0,
            health: Health::NotChecked,
            restarts: 0,
            mounts,
            networks: Vec::new(),
            joins: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Running, and held still.
    pub fn is_paused(&self) -> bool {
        self.state == "paused"
    }
}

/// What the container's own health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Healthy,
    Unhealthy,
    Starting,
    /// It has no health check.
    NotChecked,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The name of the volume; none for a folder of the host.
    pub volume: Option<String>,
    pub source: String,
    pub destination: String,
    /// Not mounted read-only.
    #[serde(default)]
    pub writable: bool,
}

/// Everything that was looked at, at one time. One part that can't be reached never hides the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    pub at: Timestamp,
    pub took: Span,
    /// Where devstack stands; none where nobody says, and then every run counts as ours.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// Repositories that lie in the stack's own folder: they move with it, and no other stack writes there.
    #[serde(default)]
    pub carried: BTreeSet<RepositoryName>,
    /// Repositories that are Unknown since no key at hand opens them.
    #[serde(default)]
    pub shut: BTreeSet<RepositoryName>,
    /// Repositories that can be read and not written: nothing can be kept there before it is overwritten.
    #[serde(default)]
    pub unwritable: BTreeSet<RepositoryName>,
    pub services: BTreeMap<ServiceName, Observed<SourceState>>,
    /// What lies in those of them that can tell it soon.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holding: BTreeMap<ServiceName, Present>,
    /// The address of the engine that containers run on, if it answers; none where no service lives in a container.
    #[serde(default)]
    pub engine: Option<Observed<String>>,
    /// Asked only where a container is gone.
    #[serde(default)]
    pub projects: Option<OtherProjects>,
    /// Containers that a devstack which is gone had stopped, and that nobody has started since.
    #[serde(default)]
    pub left_stopped: Vec<String>,
    /// When the recovery began that has not ended here, or why its plan can't be read.
    #[serde(default)]
    pub unfinished_recovery: Option<String>,
    /// What devstack logs in to Vault with, where this look had to.
    #[serde(default)]
    pub login: Option<Observed<LoginState>>,
    /// What Compose makes of the declared files; looked at for a recovery only.
    #[serde(default)]
    pub compose: Option<Observed<ComposeModel>>,
    /// What the stack holds, whoever takes it; none where there is no Compose file and no container of it, or where it was
    /// not asked for.
    #[serde(default)]
    pub stack: Option<Observed<SeenStack>>,
    /// The services of Compose that have a container which runs, or has ended with 0; looked at for a recovery only.
    #[serde(default)]
    pub up: Option<Observed<BTreeSet<String>>>,
    /// Excludes that match nothing of what is there.
    #[serde(default)]
    pub idle_excludes: BTreeMap<ServiceName, Vec<String>>,
    /// Folders that stand where the newest run of a service has files; looked at for a recovery only.
    #[serde(default)]
    pub misplaced: BTreeMap<ServiceName, Vec<Misplaced>>,
    /// What the newest run of a service that is made of files has and that is not there; looked at for a recovery only.
    #[serde(default)]
    pub missing: BTreeMap<ServiceName, MissingFiles>,
    /// The paths that a service declares and that name nothing.
    #[serde(default)]
    pub gone: BTreeMap<ServiceName, Vec<String>>,
    /// What is free where each service's data lies; looked at for a recovery only.
    #[serde(default)]
    pub room: BTreeMap<ServiceName, Room>,
    /// The containers of each service that has some, by the names that the file gives them.
    pub containers: BTreeMap<ServiceName, Observed<BTreeMap<String, ContainerState>>>,
    /// Those of each service whose source is certificates.
    #[serde(default)]
    pub certificates: BTreeMap<ServiceName, Observed<Vec<Certificate>>>,
    pub repositories: BTreeMap<RepositoryName, Observed<RepositoryState>>,
}

impl Observation {
    /// The repositories that are there, with what is known of each.
    pub fn present(&self) -> impl Iterator<Item = (&RepositoryName, &RepositoryFacts)> {
        self.repositories.iter().filter_map(|(name, state)| match state {
            Observed::Known(RepositoryState::Present(facts)) => Some((name, facts.as_ref())),
            Observed::Known(RepositoryState::Absent { .. }) | Observed::Unknown { .. } => None,
        })
    }

    /// Those that this machine has seen before, and that are not there.
    pub fn missing(&self) -> impl Iterator<Item = (&RepositoryName, &RepositoryId)> {
        self.repositories.iter().filter_map(|(name, state)| match state {
            Observed::Known(RepositoryState::Absent { known_before: Some(id), .. }) => Some((name, id)),
            Observed::Known(_) | Observed::Unknown { .. } => None,
        })
    }
}

/// What a stack holds, with what is needed to compare it with the paths of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeenStack {
    pub held: Holdings,
    /// The folder of devstack.yaml.
    pub base: PathBuf,
    /// What `~` is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<PathBuf>,
    /// The engine's address where it runs on another machine: what containers bind lies there, and not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
}

/// A folder where a run has a file: Docker makes one for a bind mount whose file is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misplaced {
    pub path: PathBuf,
    /// One with something in it was not made by Docker, and is nobody's to remove.
    pub empty: bool,
}

/// Files of a run that are not there, by their names alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingFiles {
    pub run: RunId,
    pub count: u64,
    /// Files of the run that were looked for.
    pub of: u64,
    /// The run has more than are looked for.
    pub more: bool,
    /// The first of them.
    pub named: Vec<PathBuf>,
}

/// A place that data comes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The nearest folder that is there.
    pub path: PathBuf,
    pub free: ByteSize,
    /// The number of its file system: what shares one shares what is free.
    pub device: u64,
}

/// The state of a service's data. Each engine defines what the three mean for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Positively not there: the file or folder does not exist.
    Gone,
    /// There, and holding nothing.
    Empty,
    /// There, with data; about this many bytes, where that is cheap to know.
    HasData { bytes: Option<ByteSize> },
    /// Something is there that positively is none of its data any more: no database, or one that is damaged. A restore moves it
    /// aside, so that nothing of it is lost.
    Broken,
    /// A restore into it was begun and has not come to its end: what is there is in part what a backup held. Nothing is taken
    /// from it until a restore has ended, or somebody has said that it is right as it is.
    Unfinished { bytes: Option<ByteSize> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryState {
    /// The store answered, and there is no repository at that place.
    Absent {
        /// For each declared key that can be generated: its file is not there yet. The planner generates only then.
        ungenerated_keys: Vec<usize>,
        /// A repository was here when an earlier apply looked, as the local journal tells: a disk that is not mounted
        /// looks the same, so creating a new one is held.
        known_before: Option<RepositoryId>,
    },
    Present(Box<RepositoryFacts>),
}

/// What an opened repository holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepositoryFacts {
    pub id: RepositoryId,
    pub keys: Vec<ObservedKey>,
    /// The key that opened it.
    pub opened_with: Option<KeyId>,
    /// Runs of this stack, oldest first.
    pub runs: Vec<Run>,
    /// Service snapshots of this stack whose run has no manifest: interrupted, or still being taken.
    pub unsealed: Vec<UnsealedRun>,
    pub approved_rules: BTreeMap<PolicyName, Rule>,
    pub accepted_shrinks: Vec<(RunId, ServiceName)>,
    pub used_plans: Vec<PlanId>,
    pub generation: Option<Generation>,
    /// Where the stack has had its place, by somebody's word.
    #[serde(default)]
    pub adopted: Vec<Adopted>,
    /// Other stacks that have runs in here.
    #[serde(default)]
    pub others: Vec<OtherStack>,
    /// Who approved what, oldest first.
    #[serde(default)]
    pub approvals: Vec<Approved>,
    pub data_reads: Vec<DataRead>,
    /// All that is known to be damaged, of this stack's and of anybody's: what is missing now, and what an earlier look found.
    #[serde(default)]
    pub damage: Vec<Damaged>,
    /// Runs that were sealed here, that devstack has not forgotten, and that are not here.
    #[serde(default)]
    pub removed: Vec<RunId>,
    /// Oldest first.
    #[serde(default)]
    pub drills: Vec<Drill>,
    /// What recoveries have measured.
    #[serde(default)]
    pub recoveries: Vec<Recovery>,
    /// When the repository's oldest snapshot was written: packs are due to be read from then on.
    pub oldest: Option<Timestamp>,
    /// Bytes of all files.
    pub size: ByteSize,
    /// Packs that an earlier prune marked and that go once the grace is over.
    pub marked: Option<Marked>,
    pub leases: Vec<LeaseFact>,
    /// Locks that a restic program holds: a prune waits for them.
    pub restic_locks: usize,
    /// Whose they are.
    #[serde(default)]
    pub lock_holders: Vec<ResticLock>,
}

/// Another stack in the same repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherStack {
    pub stack: StackName,
    pub runs: usize,
    pub newest: Timestamp,
    /// Where its newest run was taken. Asked only where the stack that is looked for has no run in the repository.
    #[serde(default)]
    pub origin: Option<Origin>,
}

/// The stack's own Compose project has no container, and these projects run from its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherProjects {
    pub own: String,
    /// With the number of their containers that run.
    pub others: BTreeMap<String, usize>,
}

/// A lock of a restic program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResticLock {
    pub id: String,
    /// `user@host pid 4711`.
    pub owner: String,
    /// None where it can't be read.
    pub since: Option<Timestamp>,
    pub exclusive: bool,
    /// Why nobody can be holding it any more.
    pub stale: Option<String>,
}

impl ResticLock {
    /// Whose it is, and what removes it.
    pub fn describe(&self) -> String {
        let kind = if self.exclusive { "an exclusive restic lock" } else { "a restic lock" };
        match &self.stale {
            Some(why) => {
                format!("{kind} of {} that nobody holds any more ({why}; `restic unlock` removes it)", self.owner)
            }
            None => format!("{kind} of {} (if that restic is gone: `restic unlock`)", self.owner),
        }
    }

    /// All of them; of many the first few.
    pub fn describe_all(count: usize, holders: &[Self]) -> String {
        const NAMED: usize = 3;
        let mut texts: Vec<String> = holders.iter().take(NAMED).map(Self::describe).collect();
        match count.saturating_sub(texts.len()) {
            0 => {}
            1 => texts.push("a restic lock (if no restic is running: `restic unlock`)".to_owned()),
            many => texts.push(format!("{many} restic locks (if no restic is running: `restic unlock`)")),
        }
        texts.join(" and ")
    }
}

impl RepositoryFacts {
    /// Runs that a proof or the last reading of packs found damaged, and that nothing later cleared.
    pub fn damaged(&self) -> impl Iterator<Item = &Run> {
        let old: Vec<&DataRead> = self.data_reads.iter().filter(|read| self.is_last_word(read)).collect();
        let hurt = move |run: &RunId| old.iter().any(|read| read.hurt.contains(run));
        self.runs.iter().filter(move |run| run.is_damaged() || hurt(&run.manifest.run))
    }

    /// A reading of an older version found damage, and nothing has read the same parts since. The newest reading alone would
    /// say nothing of what it did not read.
    fn is_last_word(&self, read: &DataRead) -> bool {
        let Verdict::Failed(findings) = &read.verdict else { return false };
        // `data/ab/…`: its part. A finding without one may be of any part that was read.
        let part = |finding: &String| u8::from_str_radix(finding.strip_prefix("data/")?.get(..2)?, 16).ok();
        let parts: Vec<u8> = match findings.iter().map(part).collect::<Option<Vec<u8>>>() {
            Some(parts) if !parts.is_empty() => parts,
            _ => read.parts.clone(),
        };
        let read_since = |part: &u8| self.data_reads.iter().any(|it| it.at > read.at && it.parts.contains(part));
        !read.remembered && !parts.iter().all(read_since)
    }
}

/// Packs marked by a prune: the first of its two phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// When the oldest of them was marked.
    pub since: Timestamp,
    pub bytes: ByteSize,
}

/// A key file of the repository. Its label says for which declared key devstack wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedKey {
    pub id: KeyId,
    /// As `spec::Key::label` gives it; none for a key that devstack did not write.
    pub label: Option<String>,
    /// An encrypted copy of its password lies beside the repository.
    pub sidecar: bool,
}

/// A sealed run with all that is known of it in one repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub manifest: Manifest,
    /// The snapshot that holds the manifest.
    pub record: SnapshotId,
    /// Oldest first.
    pub proofs: Vec<Proof>,
    /// Service snapshots that the manifest names but the repository no longer lists.
    pub lost: Vec<SnapshotId>,
    /// What is damaged of what it needs, and no later proof has read well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hurt: Vec<String>,
}

impl Run {
    /// The latest verdict on `level`, with its time. A later failure revokes an earlier pass.
    pub fn latest(&self, level: Level) -> Option<(Timestamp, &Verdict)> {
        self.proofs.iter().rev().find_map(|proof| proof.levels.get(&level).map(|verdict| (proof.at, verdict)))
    }

    pub fn is_complete(&self) -> bool {
        self.manifest.is_complete() && self.lost.is_empty()
    }

    /// The snapshots that it consists of, whether they are there or not: what was taken, and its manifest.
    pub fn snapshots(&self) -> impl Iterator<Item = &SnapshotId> {
        self.manifest.taken().map(|(_, taken)| &taken.snapshot).chain([&self.record])
    }

    /// Those of them that are there.
    pub fn present_snapshots(&self) -> impl Iterator<Item = &SnapshotId> {
        self.snapshots().filter(|snapshot| !self.lost.contains(*snapshot))
    }

    /// Complete, and the latest word on structure, artifacts and content is that each passed.
    pub fn is_verified(&self) -> bool {
        self.is_complete()
            && self.hurt.is_empty()
            && Level::PROOF.iter().all(|level| matches!(self.latest(*level), Some((_, Verdict::Passed))))
    }

    /// Whether the slot of its policy is served by it, as known at `now`. A run or slot dated in the future comes from a clock
    /// that was wrong, and serves nothing.
    pub fn serves(&self, policy: &PolicyName, slot: Timestamp, now: Timestamp) -> bool {
        let carries = self.manifest.slot.is_some_and(|carried| carried >= slot && carried <= now);
        carries && self.manifest.policy == *policy && self.manifest.started <= now && self.is_complete()
    }

    /// A verification has failed, or something that it needs was found damaged, and nothing later passed.
    pub fn is_damaged(&self) -> bool {
        !self.lost.is_empty()
            || !self.hurt.is_empty()
            || Level::PROOF.iter().any(|level| matches!(self.latest(*level), Some((_, Verdict::Failed(_)))))
    }
}

/// Service snapshots of a run that has no manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealedRun {
    pub run: RunId,
    pub policy: PolicyName,
    /// Each with its service and the time it was written.
    pub snapshots: Vec<(SnapshotId, ServiceName, Timestamp)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFact {
    pub id: LeaseId,
    pub stack: StackName,
    /// `user@host pid 4711`.
    pub owner: String,
    pub expires: Timestamp,
    pub alive: bool,
}
