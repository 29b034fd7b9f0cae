//! Snapshots that somebody wrote anew: `restic tag` gives a snapshot another id, and so do `rewrite` and `copy`. What a run's manifest
//! names is then found by what it was called first, or by its tags.

use std::collections::{BTreeMap, BTreeSet};

use rustic_core::repofile::SnapshotFile;

use super::records::tag;
use super::store::hex;
use crate::model::ids::{RunId, ServiceName, SnapshotId};
use crate::model::observation::Run;
use crate::model::run::{ServiceResult, Taken};

/// What may stand in the place of a snapshot that is gone.
pub(super) struct Rewritten<'a> {
    by_original: BTreeMap<String, Vec<&'a SnapshotFile>>,
    by_tags: BTreeMap<(&'a str, &'a str), Vec<&'a SnapshotFile>>,
}

impl<'a> Rewritten<'a> {
    /// `own` is the tag of the stack.
    pub fn among(all: &'a [SnapshotFile], own: &str) -> Self {
        let (mut by_original, mut by_tags) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for file in all.iter().filter(|file| tag(file, "record:").is_none()) {
            if let Some(original) = &file.original {
                by_original.entry(hex(original)).or_default().push(file);
            }
            if let (true, Some(run), Some(service)) =
                (file.tags.contains(own), tag(file, "run:"), tag(file, "service:"))
            {
                by_tags.entry((run, service)).or_default().push(file);
            }
        }
        Self { by_original, by_tags }
    }

    /// Has the run name the snapshots as they are called now, and notes those that are gone. What was proven of a tree holds for
    /// the same tree under another name; of what may be another tree, only what was proven of just that.
    pub fn follow(&self, run: &mut Run, present: &BTreeSet<SnapshotId>) {
        let id = run.manifest.run.clone();
        let mut unproven = Vec::new();
        for (service, result) in &mut run.manifest.services {
            let ServiceResult::Taken(taken) = result else { continue };
            if present.contains(&taken.snapshot) {
                continue;
            }
            let Some(found) = self.stand_in(&id, service, taken) else {
                run.lost.push(taken.snapshot.clone());
                continue;
            };
            taken.snapshot = SnapshotId::new(hex(&found.id));
            let tree = hex(&found.tree);
            if taken.tree.as_ref() != Some(&tree) {
                unproven.push(taken.snapshot.clone());
            }
        }
        run.proofs.retain(|proof| unproven.iter().all(|snapshot| proof.snapshots.contains(snapshot)));
    }

    /// The same tree before any other, and what says that it was this snapshot before what only carries its tags.
    fn stand_in(&self, run: &RunId, service: &ServiceName, taken: &Taken) -> Option<&'a SnapshotFile> {
        let by_original = self.by_original.get(taken.snapshot.as_str()).into_iter().flatten();
        let by_tags = self.by_tags.get(&(run.as_str(), service.as_str())).into_iter().flatten();
        let all: Vec<&SnapshotFile> = by_original.chain(by_tags).copied().collect();
        let same_tree = |file: &&&SnapshotFile| taken.tree.as_ref() == Some(&hex(&file.tree));
        all.iter().find(same_tree).or_else(|| all.first()).copied()
    }
}
