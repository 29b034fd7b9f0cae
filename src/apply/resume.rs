//! A recovery that was interrupted: its plan is kept beside the journal until it has come to its end, and the journal tells
//! which of its steps did.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::journal::{Contents, Ended, Entry};
use crate::model::ids::ServiceName;
use crate::model::plan::Plan;
use crate::model::step::{Action, StepId};
use crate::plan::saved::{self, ReadError};

const FILE: &str = "recovery.json";

/// How far a step of an earlier try came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It may have left half of its work: what is there now is its own.
    Begun,
    Done,
}

/// The steps of an interrupted recovery that were begun.
pub type Resumed = BTreeMap<StepId, Progress>;

#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error("the plan of the recovery, {path}, could not be {act}")]
    Io {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the plan of the interrupted recovery, {path}, cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: ReadError,
    },
}

/// The place of the plan in `.devstack/`.
pub fn place(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// The plan of the recovery that was interrupted, if one was.
pub fn interrupted(state: &Path) -> Result<Option<Plan>, ResumeError> {
    let path = place(state);
    match std::fs::read(&path) {
        Ok(bytes) => saved::read(&bytes).map(Some).map_err(|source| ResumeError::Unreadable { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ResumeError::Io { act: "read", path, source }),
    }
}

/// It has come to its end.
pub fn forget(state: &Path) -> Result<(), ResumeError> {
    let path = place(state);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ResumeError::Io { act: "removed", path, source })
        }
        _ => Ok(()),
    }
}

/// The services whose restore this plan has begun, and not brought to its end.
pub fn half_restored(plan: &Plan, journal: &Contents) -> Vec<ServiceName> {
    let resumed = progress(plan, journal);
    let begun = plan.steps.iter().filter(|step| resumed.get(&step.id) == Some(&Progress::Begun));
    let restores = begun.filter_map(|step| match &step.action {
        Action::Restore(restore) => Some(restore.service.clone()),
        _ => None,
    });
    restores.collect()
}

/// What earlier tries of this plan did.
pub fn progress(plan: &Plan, journal: &Contents) -> Resumed {
    let mut tries = Vec::new();
    let mut resumed = Resumed::new();
    for record in &journal.records {
        match &record.entry {
            Entry::ApplyStarted { plan: of, .. } if *of == plan.id => tries.push(&record.apply),
            Entry::StepStarted { step, .. } if tries.contains(&&record.apply) => {
                resumed.entry(*step).or_insert(Progress::Begun);
            }
            Entry::StepEnded { step, ended: Ended::Done | Ended::AlreadyDone, .. }
                if tries.contains(&&record.apply) =>
            {
                resumed.insert(*step, Progress::Done);
            }
            _ => {}
        }
    }
    resumed
}
