//! One step in few words.

use crate::model::step::{Action, Approval, RestoreTarget, Started, Step};

/// What the step does, without the resource it does it to.
pub(super) fn what(action: &Action) -> String {
    match action {
        Action::GenerateKey { key, .. } => format!("generate key {}", key + 1),
        Action::CreateRepository { .. } => "create".to_owned(),
        Action::Adopt { .. } => "adopt".to_owned(),
        Action::AddKey { label, .. } => format!("add {label}"),
        Action::RemoveKey { label, .. } => format!("remove {label}"),
        Action::ApproveRule { .. } => "approve rule".to_owned(),
        Action::SealInterrupted { .. } => "seal as incomplete".to_owned(),
        Action::Take(take) if take.parent.is_none() && take.parent_bytes.is_some() => "take in full".to_owned(),
        Action::Take(_) => "take".to_owned(),
        Action::Hook(hook) => format!("run {}", hook.hook.shown()),
        Action::Seal { .. } => "seal".to_owned(),
        Action::Copy { from, .. } => format!("copy from {from}"),
        Action::Prove { .. } => "prove".to_owned(),
        Action::ReadData { parts, .. } => format!("read {}", count(parts.len(), "part")),
        Action::AcceptShrink { .. } => "accept shrink".to_owned(),
        Action::AcceptRemoved { runs, .. } => format!("accept that {} went", count(runs.len(), "run")),
        Action::Forget { runs, .. } => format!("forget {}", count(runs.len(), "run")),
        Action::Prune { .. } => "prune".to_owned(),
        Action::StartColima { profile } => format!("start {profile}"),
        Action::StartDocker { command } => format!("start by `{}`", command.join(" ")),
        Action::CreateContainers { .. } => "create".to_owned(),
        Action::StartContainer { until: Started::Running, .. } => "start".to_owned(),
        Action::StartContainer { until: Started::Healthy, .. } => "start, until healthy".to_owned(),
        Action::StartContainer { until: Started::Completed, .. } => "start, until completed".to_owned(),
        Action::VerifyStack { services, assertions, .. } if assertions.is_empty() => {
            format!("verify {}", count(services.len(), "service"))
        }
        Action::VerifyStack { services, assertions, .. } => {
            format!("verify {}, {}", count(services.len(), "service"), count(assertions.len(), "assertion"))
        }
        Action::RotateSecretId { role, .. } => format!("rotate secret-id of {role}"),
        Action::SafetyCopy(_) => "copy, to go back".to_owned(),
        Action::Clear { .. } => "empty".to_owned(),
        Action::Restore(restore) => match restore.target {
            RestoreTarget::Beside { .. } => "restore beside".to_owned(),
            RestoreTarget::InPlace => "restore in place".to_owned(),
            RestoreTarget::Missing => "restore what is missing".to_owned(),
        },
    }
}

/// `1 service`, `2 services`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// `~412 MiB`; of what is deleted, what comes back.
pub(super) fn bytes(step: &Step) -> String {
    match (step.estimate.bytes, &step.action) {
        (None, _) => String::new(),
        (Some(bytes), Action::Forget { .. } | Action::Prune { .. }) if bytes.0 > 0 => format!("frees ~{bytes}"),
        (Some(_), Action::Forget { .. } | Action::Prune { .. }) => String::new(),
        (Some(bytes), _) => format!("~{bytes}"),
    }
}

/// `~6 s`; empty where nothing was ever measured.
pub(super) fn time(step: &Step) -> String {
    step.estimate.time.map_or_else(String::new, |time| format!("~{time}"))
}

/// What would let a held step run.
pub(super) fn approval(step: &Step) -> Option<String> {
    match &step.approval {
        Approval::Needed { token, reason } => Some(format!("{reason}; --approve {token}")),
        Approval::NotNeeded | Approval::ByRule => None,
    }
}
