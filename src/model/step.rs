//! A step: one external act that can be repeated safely, with why it is there and what it waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::assertion::Assertion;
use super::hook::HookStep;
use super::ids::{ContainerId, KeyId, PolicyName, RepositoryId, RepositoryName, RunId, ServiceName, SnapshotId};
use super::origin::Origin;
use super::retention::Rule;
use super::run::Shrink;
use super::units::{ByteSize, Span};

/// The number of a step in its plan, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("#{}", self.0))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub id: StepId,
    pub action: Action,
    /// Why, at the level of fields: `last run 26 h old, slot 02:15 missed`.
    pub causes: Vec<String>,
    pub effect: Effect,
    pub approval: Approval,
    pub waits: Vec<Wait>,
    /// Looked at again just before the step runs.
    pub preconditions: Vec<Precondition>,
    pub estimate: Estimate,
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wait {
    pub step: StepId,
    pub on: WaitOn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitOn {
    /// Runs only if that step succeeded.
    Success,
    /// Runs once that step has ended, whatever the end: a manifest is written of a failed run too.
    End,
}

/// What the step does to what is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Adds or reads.
    Safe,
    /// Interrupts a service.
    Restarts,
    OverwritesData,
    DeletesData,
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Restarts => "restarts",
            Self::OverwritesData => "overwrites data",
            Self::DeletesData => "deletes data",
        }
    }
}

/// Whether somebody has to say yes, beyond `--yes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    NotNeeded,
    /// Retention under the rule that was approved before.
    ByRule,
    /// Held until the prompt, a reviewed saved plan, or `--approve TOKEN`; the token is `KIND:RESOURCE`.
    Needed {
        token: String,
        reason: String,
    },
}

impl Approval {
    /// The word that it waits for.
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::NotNeeded | Self::ByRule => None,
            Self::Needed { token, .. } => Some(token),
        }
    }
}

/// A fact that must still hold when the step is about to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precondition {
    RepositoryAbsent {
        repository: RepositoryName,
    },
    RepositoryIs {
        repository: RepositoryName,
        id: RepositoryId,
    },
    /// No complete run carries this slot yet. If one does, the step counts as done.
    SlotOpen {
        repository: RepositoryName,
        policy: PolicyName,
        slot: Timestamp,
    },
    /// The source has data: emptiness is never backed up as a good run.
    SourceHasData {
        service: ServiceName,
    },
    /// The source has no data: nothing is overwritten that nobody has seen.
    SourceHasNoData {
        service: ServiceName,
    },
    /// The source has no data, now that its server runs. If it has, there is nothing to do.
    SourceIsLost {
        service: ServiceName,
    },
    /// The service's containers are the ones that were looked at, by the names that the file gives them.
    ContainersAre {
        service: ServiceName,
        containers: BTreeMap<String, ContainerId>,
    },
    /// Each of these runs is still there, complete and verified.
    Verified {
        repository: RepositoryName,
        runs: Vec<RunId>,
    },
    /// No run of the policy has a shrunken source that nobody accepted; the runs this plan takes are looked at too.
    ShrinksAccepted {
        repository: RepositoryName,
        policy: PolicyName,
    },
    /// Nobody but devstack has removed runs of this stack, or somebody has accepted it.
    RemovalsAccepted {
        repository: RepositoryName,
    },
    /// No lease but ours lives in the repository, and no restic lock.
    Exclusive {
        repository: RepositoryName,
    },
}

/// How long it will take, and where the number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    pub time: Option<Span>,
    pub bytes: Option<ByteSize>,
}

/// The external acts. The plan leaves no choices: all that a step needs to know stands in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Writes a new random passphrase, mode 0600, where the file says `generate: true` and no repository exists.
    GenerateKey {
        repository: RepositoryName,
        key: usize,
    },
    /// Makes a new repository, with the operable key `key` of the file.
    CreateRepository {
        repository: RepositoryName,
        key: usize,
    },
    /// Records that the stack has its place in this repository at `origin`, with all the runs of the places `from`.
    Adopt {
        repository: RepositoryName,
        origin: Box<Origin>,
        from: Vec<Origin>,
    },
    /// Adds the key number `key` of the file.
    AddKey {
        repository: RepositoryName,
        key: usize,
        label: String,
    },
    RemoveKey {
        repository: RepositoryName,
        id: KeyId,
        label: String,
    },
    /// Records a retention rule as approved.
    ApproveRule {
        repository: RepositoryName,
        policy: PolicyName,
        rule: Rule,
    },
    /// Writes the manifest of a run that an earlier apply left without one, as incomplete.
    SealInterrupted {
        repository: RepositoryName,
        run: RunId,
        policy: PolicyName,
        snapshots: Vec<(SnapshotId, ServiceName, Timestamp)>,
    },
    /// Reads one service into one repository.
    Take(Take),
    /// Runs a program of the person's, before or after a take.
    Hook(Box<HookStep>),
    /// Writes the manifest of the run that the takes before it belong to.
    Seal {
        repository: RepositoryName,
        run: RunId,
        policy: PolicyName,
        slot: Option<Timestamp>,
        expected: Vec<ServiceName>,
        parent: Option<RunId>,
        base: RunId,
    },
    /// Copies a complete run into another repository, stream by stream, each hashed on the way, and seals it there.
    Copy {
        run: RunId,
        from: RepositoryName,
        to: RepositoryName,
        policy: PolicyName,
    },
    /// Verifies structure, artifacts and content of a run and writes the evidence.
    Prove {
        repository: RepositoryName,
        run: RunId,
    },
    /// Reads and hashes all packs whose ids begin with one of these bytes.
    ReadData {
        repository: RepositoryName,
        parts: Vec<u8>,
    },
    /// Records that a shrunken source was looked at and is right.
    AcceptShrink {
        repository: RepositoryName,
        run: RunId,
        service: ServiceName,
        shrink: Shrink,
    },
    /// Records that runs which somebody else removed are gone for good.
    AcceptRemoved {
        repository: RepositoryName,
        runs: Vec<RunId>,
    },
    /// Forgets runs of a policy: their snapshots, proofs and manifests, manifests first.
    Forget {
        repository: RepositoryName,
        policy: PolicyName,
        runs: Vec<RunId>,
        keep: Vec<RunId>,
    },
    /// Two-phase prune: packs that nothing needs are marked, and go after the grace.
    Prune {
        repository: RepositoryName,
    },
    /// Copies what is there, before a restore overwrites it, and proves the copy.
    SafetyCopy(SafetyCopy),
    /// Empties the volumes of a service whose server can't be used any more. It stays stopped.
    Clear {
        service: ServiceName,
    },
    Restore(Restore),
    /// Starts the virtual machine that Docker runs in.
    StartColima {
        profile: String,
    },
    /// Starts the engine by the program that the file names, and waits until it answers.
    StartDocker {
        command: Vec<String>,
    },
    /// Has Compose make the containers of these services of its own that are not there, with volumes and networks.
    CreateContainers {
        services: Vec<String>,
        /// The run whose own model they are made from where the Compose files can't be resolved here as they were there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<HeldModel>,
        /// Files that come back in the place of folders which Docker has made: containers that bind one are made anew.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        replaced: Vec<PathBuf>,
    },
    /// Starts the containers of a service of Compose, and waits for them.
    StartContainer {
        service: String,
        until: Started,
    },
    /// Looks at every one of these services, and at every container of the project, and then asks what the file asserts.
    VerifyStack {
        services: Vec<ServiceName>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        assertions: Vec<Assertion>,
        /// Services of Compose whose health check was red when the run was taken, so that nobody waits for it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        red: Vec<String>,
    },
    /// Puts a new secret-id of the role into the file that holds the old one, and destroys that.
    RotateSecretId {
        mount: String,
        role: String,
    },
}

/// What Compose made of the files of a run, as the run keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldModel {
    pub repository: RepositoryName,
    pub run: RunId,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Take {
    pub repository: RepositoryName,
    pub service: ServiceName,
    pub run: RunId,
    pub policy: PolicyName,
    pub slot: Option<Timestamp>,
    /// The service's snapshot in the parent run: unchanged files are not read again.
    pub parent: Option<SnapshotId>,
    /// Plain bytes in the run that it is compared with, to see a source that has shrunk.
    pub parent_bytes: Option<ByteSize>,
    /// The run whose counts are compared with what is taken: the newest that nobody has doubts about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<RunId>,
    /// It was empty in the parent too, by somebody's word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_be_empty: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    pub repository: RepositoryName,
    pub service: ServiceName,
    pub run: RunId,
    pub snapshot: SnapshotId,
    pub target: RestoreTarget,
    /// The run in the same repository that is put back if the restore fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<RunId>,
}

/// A copy for going back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SafetyCopy {
    pub repository: RepositoryName,
    pub service: ServiceName,
    pub run: RunId,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreTarget {
    /// Into a folder that does not exist yet or is empty.
    Beside { folder: PathBuf },
    /// Over the live data.
    InPlace,
    /// In place, and of files only those that are not there.
    Missing,
}

/// When a container counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    Running,
    /// Where it has a health check, that says so; else as soon as it runs.
    Healthy,
    /// It has done its work and ended with 0.
    Completed,
}

impl Action {
    /// What the step is called in the journal, in samples and in JSON.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::GenerateKey { .. } => "generate key",
            Self::CreateRepository { .. } => "create",
            Self::Adopt { .. } => "adopt",
            Self::AddKey { .. } => "add key",
            Self::RemoveKey { .. } => "remove key",
            Self::ApproveRule { .. } => "approve rule",
            Self::SealInterrupted { .. } => "seal interrupted",
            Self::Take(_) => "take",
            Self::Hook(_) => "hook",
            Self::Seal { .. } => "seal",
            Self::Copy { .. } => "copy",
            Self::Prove { .. } => "prove",
            Self::ReadData { .. } => "read data",
            Self::AcceptShrink { .. } => "accept shrink",
            Self::AcceptRemoved { .. } => "accept removal",
            Self::Forget { .. } => "forget",
            Self::Prune { .. } => "prune",
            Self::SafetyCopy(_) => "safety copy",
            Self::Clear { .. } => "clear",
            Self::Restore(_) => "restore",
            Self::StartColima { .. } | Self::StartDocker { .. } => "start",
            Self::CreateContainers { .. } => "create containers",
            Self::StartContainer { .. } => "start container",
            Self::VerifyStack { .. } => "verify",
            Self::RotateSecretId { .. } => "rotate",
        }
    }

    /// The resource it acts on: `shop/backup`, `repository/local`, `local/nightly/retention`.
    pub fn resource(&self) -> String {
        match self {
            Self::GenerateKey { repository, .. }
            | Self::AddKey { repository, .. }
            | Self::RemoveKey { repository, .. } => format!("repository/{repository}/keys"),
            Self::CreateRepository { repository, .. }
            | Self::Adopt { repository, .. }
            | Self::AcceptRemoved { repository, .. }
            | Self::Prune { repository } => {
                format!("repository/{repository}")
            }
            Self::ReadData { repository, .. } => format!("repository/{repository}/data"),
            Self::ApproveRule { repository, policy, .. } | Self::Forget { repository, policy, .. } => {
                format!("{repository}/{policy}/retention")
            }
            Self::SealInterrupted { repository, run, .. }
            | Self::Seal { repository, run, .. }
            | Self::Prove { repository, run } => format!("{repository}/{run}"),
            Self::Copy { run, to, .. } => format!("{to}/{run}"),
            Self::Take(take) => format!("{}/backup", take.service),
            Self::Hook(hook) => format!("{}/{}", hook.owner(), hook.phase.as_str()),
            Self::AcceptShrink { service, .. } => format!("{service}/backup"),
            Self::Restore(Restore { service, .. })
            | Self::SafetyCopy(SafetyCopy { service, .. })
            | Self::Clear { service } => format!("{service}/data"),
            Self::StartColima { .. } => "runtime/colima".to_owned(),
            Self::StartDocker { .. } => "runtime/docker".to_owned(),
            Self::CreateContainers { .. } => "stack/containers".to_owned(),
            Self::StartContainer { service, .. } => format!("container/{service}"),
            Self::VerifyStack { .. } => "stack".to_owned(),
            Self::RotateSecretId { .. } => "vault/login".to_owned(),
        }
    }

    /// The repositories that it writes to: what a lease is needed for.
    pub fn writes(&self) -> Option<&RepositoryName> {
        match self {
            Self::GenerateKey { .. }
            | Self::Hook(_)
            | Self::Clear { .. }
            | Self::Restore(_)
            | Self::StartColima { .. }
            | Self::StartDocker { .. }
            | Self::CreateContainers { .. }
            | Self::StartContainer { .. }
            | Self::VerifyStack { .. }
            | Self::RotateSecretId { .. } => None,
            Self::CreateRepository { repository, .. }
            | Self::Adopt { repository, .. }
            | Self::AddKey { repository, .. }
            | Self::RemoveKey { repository, .. }
            | Self::ApproveRule { repository, .. }
            | Self::SealInterrupted { repository, .. }
            | Self::Seal { repository, .. }
            | Self::Prove { repository, .. }
            | Self::ReadData { repository, .. }
            | Self::AcceptShrink { repository, .. }
            | Self::AcceptRemoved { repository, .. }
            | Self::Forget { repository, .. }
            | Self::Prune { repository } => Some(repository),
            Self::Copy { to, .. } => Some(to),
            Self::Take(take) => Some(&take.repository),
            Self::SafetyCopy(copy) => Some(&copy.repository),
        }
    }

    /// Forgetting, pruning and removing keys allow no other writer.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Self::RemoveKey { .. } | Self::Forget { .. } | Self::Prune { .. })
    }

    /// Changes what is declared, so that it moves the generation: keys, retention, repositories; not takes or proofs.
    pub fn moves_generation(&self) -> bool {
        matches!(
            self,
            Self::CreateRepository { .. }
                | Self::Adopt { .. }
                | Self::AddKey { .. }
                | Self::RemoveKey { .. }
                | Self::ApproveRule { .. }
        )
    }

    /// The key under which its time is remembered: what it does, and to whom.
    pub fn sample_key(&self) -> String {
        match self {
            Self::Take(take) => format!("take/{}", take.service),
            Self::Hook(hook) => format!("hook/{}/{}/{}", hook.owner(), hook.phase.as_str(), hook.index),
            // Files that are written beside say nothing of how long a server takes to load them.
            Self::Restore(Restore { service, target: RestoreTarget::Beside { .. }, .. }) => {
                format!("restore-beside/{service}")
            }
            // Nor do raw bytes that are put back.
            Self::Restore(Restore { service, run, .. }) if run.is_safety() => format!("restore-raw/{service}"),
            Self::Restore(Restore { service, target: RestoreTarget::InPlace | RestoreTarget::Missing, .. }) => {
                format!("restore/{service}")
            }
            Self::StartContainer { service, .. } => format!("start/{service}"),
            Self::SafetyCopy(copy) => format!("safety/{}", copy.service),
            other => format!("{}/{}", other.verb(), other.writes().map_or("-", RepositoryName::as_str)),
        }
    }
}
