//! A line of the journal, and what can be learnt from many of them. A record names the act, the resource and the
//! sample key, and has the outcome in words: nothing in it is made from a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SAMPLES;
use crate::model::history::{CutOff, History, Sample};
use crate::model::ids::{PlanId, RepositoryId, RepositoryName, StackName};
use crate::model::outcome::{FailureKind, StepOutcome};
use crate::model::step::{Step, StepId};
use crate::model::units::{ByteSize, Span};

/// The version of a record; a line of another version counts as unreadable.
pub const JOURNAL_FORMAT: u32 = 1;

/// One apply, so that its records are found among those of another one that writes at the same time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApplyId(String);

impl ApplyId {
    /// A new one. It is a name and no secret, so where the system has no random numbers the time and pid will do.
    pub fn random() -> Self {
        let fallback = || Timestamp::now().as_nanosecond() as u64 ^ (u64::from(std::process::id()) << 32);
        Self(format!("{:016x}", getrandom::u64().unwrap_or_else(|_| fallback())))
    }
}

impl fmt::Display for ApplyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalRecord {
    pub format: u32,
    pub at: Timestamp,
    /// None for what is noted outside of an apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<ApplyId>,
    pub entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    ApplyStarted {
        plan: PlanId,
        stack: StackName,
        pid: u32,
        devstack_version: String,
        steps: usize,
        /// It is a drill, which serves no schedule of a backup.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        drill: bool,
    },
    /// On the disk before the step does anything.
    StepStarted {
        step: StepId,
        verb: String,
        resource: String,
        sample: String,
    },
    StepEnded {
        step: StepId,
        verb: String,
        resource: String,
        sample: String,
        ended: Ended,
        /// With all tries and the waits between them.
        took: Span,
        /// The last try alone: what estimates are fitted against.
        ran: Span,
        bytes: ByteSize,
        added: ByteSize,
        /// The summary of what was done, or the reason of the failure.
        detail: String,
    },
    ApplyEnded {
        took: Span,
        counts: Counts,
        interrupted: bool,
    },
    /// A repository was made or opened here.
    RepositoryKnown {
        name: RepositoryName,
        id: RepositoryId,
    },
}

/// How a step that was started ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Done,
    /// It ran to its end, and what it found is damage.
    Damaged,
    AlreadyDone,
    Failed(FailureKind),
    Interrupted,
}

/// How many steps of an apply ended in which way. Held and skipped steps have no records of their own: they never
/// started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub done: usize,
    pub already_done: usize,
    pub failed: usize,
    pub held: usize,
    pub skipped: usize,
    pub interrupted: usize,
}

impl Counts {
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a StepOutcome>) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            *match outcome {
                StepOutcome::Done(_) => &mut counts.done,
                StepOutcome::AlreadyDone { .. } => &mut counts.already_done,
                StepOutcome::Failed { .. } => &mut counts.failed,
                StepOutcome::Held { .. } => &mut counts.held,
                StepOutcome::Skipped { .. } => &mut counts.skipped,
                StepOutcome::Interrupted => &mut counts.interrupted,
            } += 1;
        }
        counts
    }
}

impl Entry {
    pub fn started(step: &Step) -> Self {
        let action = &step.action;
        Self::StepStarted {
            step: step.id,
            verb: action.verb().to_owned(),
            resource: action.resource(),
            sample: action.sample_key(),
        }
    }

    /// `detail` is used where the outcome has no words of its own. None for an outcome that a started step cannot have.
    pub fn ended(step: &Step, outcome: &StepOutcome, took: Span, ran: Span, detail: &str) -> Option<Self> {
        let (ended, detail) = match outcome {
            StepOutcome::Done(done) if done.damage.is_empty() => (Ended::Done, done.summary.as_str()),
            StepOutcome::Done(done) => (Ended::Damaged, done.summary.as_str()),
            StepOutcome::AlreadyDone { reason } => (Ended::AlreadyDone, reason.as_str()),
            StepOutcome::Failed { kind, reason } => (Ended::Failed(*kind), reason.as_str()),
            StepOutcome::Interrupted => (Ended::Interrupted, detail),
            StepOutcome::Held { .. } | StepOutcome::Skipped { .. } => return None,
        };
        let (bytes, added) = match outcome {
            StepOutcome::Done(done) => (done.bytes, done.added),
            _ => (ByteSize::default(), ByteSize::default()),
        };
        let action = &step.action;
        Some(Self::StepEnded {
            step: step.id,
            verb: action.verb().to_owned(),
            resource: action.resource(),
            sample: action.sample_key(),
            ended,
            took,
            ran,
            bytes,
            added,
            detail: detail.to_owned(),
        })
    }
}

impl JournalRecord {
    pub(super) fn now(apply: Option<ApplyId>, entry: Entry) -> Self {
        Self { format: JOURNAL_FORMAT, at: Timestamp::now(), apply, entry }
    }

    /// None for a line that is not a record of this format.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok().filter(|record: &Self| record.format == JOURNAL_FORMAT)
    }

    /// The key and the measurement, of a step that ran to a good end: only that time tells how long it takes.
    pub(super) fn sample(&self) -> Option<(&str, Sample)> {
        match &self.entry {
            Entry::StepEnded { sample, ended: Ended::Done, bytes, ran, .. } => {
                Some((sample, Sample { bytes: *bytes, took: *ran }))
            }
            Entry::StepEnded { .. }
            | Entry::ApplyStarted { .. }
            | Entry::StepStarted { .. }
            | Entry::ApplyEnded { .. }
            | Entry::RepositoryKnown { .. } => None,
        }
    }
}

/// What applies had begun that did not come to their end, and what of it was undone since. An apply that runs now is among them.
fn cut_off(records: &[JournalRecord]) -> BTreeMap<String, CutOff> {
    // In the order in which they began.
    let mut open: Vec<(Option<&ApplyId>, BTreeMap<String, CutOff>)> = Vec::new();
    for record in records {
        let apply = record.apply.as_ref();
        match &record.entry {
            Entry::ApplyStarted { drill: false, .. } => open.push((apply, BTreeMap::new())),
            Entry::StepStarted { sample, .. } => {
                let of = open.iter_mut().find(|(of, _)| *of == apply);
                if let (Some((_, begun)), Some(what)) = (of, begun(sample)) {
                    begun.entry(what).or_insert(CutOff { at: record.at, undone: BTreeSet::new() });
                }
            }
            Entry::StepEnded { sample, ended: Ended::Done, .. } if sample.starts_with("hook/") => {
                for cut in open.iter_mut().flat_map(|(_, begun)| begun.values_mut()) {
                    cut.undone.insert(sample.clone());
                }
            }
            // A restore that ends leaves a whole, whatever one before it had begun; so does a take that somebody has approved.
            Entry::StepEnded { sample, ended: Ended::Done | Ended::AlreadyDone, .. } => {
                if let Some(service) =
                    ["restore/", "restore-raw/", "take/"].iter().find_map(|it| sample.strip_prefix(it))
                {
                    let restore = format!("restore/{service}");
                    open.iter_mut().for_each(|(_, begun)| drop(begun.remove(&restore)));
                }
            }
            Entry::ApplyEnded { interrupted: false, .. } => open.retain(|(of, _)| *of != apply),
            Entry::ApplyStarted { drill: true, .. }
            | Entry::StepEnded { .. }
            | Entry::ApplyEnded { interrupted: true, .. }
            | Entry::RepositoryKnown { .. } => {}
        }
    }
    // Of two that had begun the same, the later one.
    open.into_iter().flat_map(|(_, begun)| begun).collect()
}

/// `take/shop`; `restore/shop`, of raw bytes too; `hook/shop` of `hook/shop/before/0`.
fn begun(sample: &str) -> Option<String> {
    if sample.starts_with("take/") || sample.starts_with("restore/") {
        return Some(sample.to_owned());
    }
    if let Some(service) = sample.strip_prefix("restore-raw/") {
        return Some(format!("restore/{service}"));
    }
    let (owner, _) = sample.strip_prefix("hook/")?.split_once('/')?;
    Some(format!("hook/{owner}"))
}

/// The last samples of each key, the last apply, and the repositories that were seen here. An apply that is dated after `now` is of a
/// clock that was ahead: taken at its word, no slot would count as missed until that date.
pub(super) fn history_of(records: &[JournalRecord], now: Timestamp) -> History {
    let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    let mut history = History { cut_off: cut_off(records), ..History::default() };
    for record in records {
        if let Some((key, sample)) = record.sample() {
            samples.entry(key.to_owned()).or_default().push(sample);
        }
        match &record.entry {
            Entry::ApplyStarted { drill: true, .. } => {}
            Entry::ApplyStarted { drill: false, .. } if record.at <= now => {
                history.last_apply = history.last_apply.max(Some(record.at));
            }
            Entry::ApplyStarted { drill: false, .. } => {}
            Entry::RepositoryKnown { name, id } => {
                history.known_repositories.insert(name.clone(), id.clone());
            }
            Entry::StepStarted { .. } | Entry::StepEnded { .. } | Entry::ApplyEnded { .. } => {}
        }
    }
    for series in samples.values_mut() {
        series.drain(..series.len().saturating_sub(SAMPLES));
    }
    history.samples = samples;
    history
}
