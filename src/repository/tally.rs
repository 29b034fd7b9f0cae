//! The tally: which runs of a stack were sealed here and have not been forgotten by devstack. It lies beside the restic files, where
//! no `restic forget` reaches it, so that runs which somebody else removed are missed, on whatever machine.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::RepositoryError;
use super::objects::Objects;
use super::store::Store;
use crate::model::ids::{RepositoryId, RunId, StackName};

/// What the names of tallies begin with.
pub(super) const FOLDER: &str = "tally/";

const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Tally {
    format: u32,
    /// A tally that was copied beside another repository says nothing of it.
    repository: RepositoryId,
    runs: BTreeSet<RunId>,
}

impl Store {
    /// None where none was ever written: a version before this one made the repository, or it is a copy by restic.
    pub(super) fn tally(&self, stack: &StackName) -> Result<Option<BTreeSet<RunId>>, RepositoryError> {
        let name = name(stack);
        let path = self.site.path().join("devstack").join(&name);
        let bytes = self.site.objects().get(&name).map_err(|source| self.site.io("read", &path, source))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let file = format!("devstack/{name}");
        let tally: Tally = serde_json::from_slice(&bytes)
            .map_err(|_| self.site.damaged(&file, "it is no list of runs; delete it to begin a new one"))?;
        if tally.format > FORMAT {
            return Err(self.site.damaged(&file, "a newer devstack wrote it: update devstack"));
        }
        Ok((tally.repository == self.id()).then_some(tally.runs))
    }

    /// Adds runs that are there. Called with the stack's lease held.
    pub fn tally_add<'a>(
        &self,
        stack: &StackName,
        runs: impl IntoIterator<Item = &'a RunId>,
    ) -> Result<(), RepositoryError> {
        let before = self.tally(stack)?;
        let mut after = before.clone().unwrap_or_default();
        after.extend(runs.into_iter().cloned());
        self.write_tally(stack, before, after)
    }

    /// Strikes runs off: before devstack forgets them, or when somebody has accepted that they are gone.
    pub fn tally_remove(&self, stack: &StackName, runs: &[RunId]) -> Result<(), RepositoryError> {
        let Some(before) = self.tally(stack)? else { return Ok(()) };
        let after = before.iter().filter(|run| !runs.contains(run)).cloned().collect();
        self.write_tally(stack, Some(before), after)
    }

    fn write_tally(
        &self,
        stack: &StackName,
        before: Option<BTreeSet<RunId>>,
        runs: BTreeSet<RunId>,
    ) -> Result<(), RepositoryError> {
        if before.as_ref() == Some(&runs) {
            return Ok(());
        }
        let name = name(stack);
        let path = self.site.path().join("devstack").join(&name);
        let io = |source| self.site.io("write", &path, source);
        let tally = Tally { format: FORMAT, repository: self.id(), runs };
        let bytes = serde_json::to_vec(&tally).map_err(|error| io(error.into()))?;
        self.site.objects().replace(&name, &bytes).map_err(io)
    }
}

fn name(stack: &StackName) -> String {
    format!("{FOLDER}{stack}.json")
}
