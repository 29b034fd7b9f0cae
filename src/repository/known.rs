//! What is known to be damaged: what an earlier look found, and what is missing now; and which runs it hurts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use rustic_core::FileType;
use rustic_core::repofile::{PackId, SnapshotFile};

use super::error::RepositoryError;
use super::facts::again_if_gone;
use super::reader::Reader;
use super::records::tag;
use super::store::{Store, hex, library_id};
use super::structure::{Needed, PackLook, numbered};
use crate::model::damage::{DamageRecord, Damaged, Looked, Subject};
use crate::model::ids::{SnapshotId, StackName};
use crate::model::observation::RepositoryFacts;
use crate::model::record::Record;
use crate::model::run::RECORD_FORMAT;

/// Which runs need which damaged packs, as far as it was asked in this command: the walk over all trees is made once.
#[derive(Default)]
pub(super) struct Needs {
    packs: Vec<String>,
    trees: Needed,
    snapshots: HashMap<SnapshotId, BTreeSet<usize>>,
}

pub(super) const KIND: &str = "damage";

/// A record of what is damaged, of whatever stack: it speaks of the repository.
pub(super) fn is_damage_record(file: &SnapshotFile) -> bool {
    file.tags.contains("devstack") && tag(file, "record:") == Some(KIND)
}

/// One entry for each subject, the latest word on it.
pub(super) fn union(records: impl IntoIterator<Item = DamageRecord>) -> Vec<Damaged> {
    let mut known: BTreeMap<Subject, Damaged> = BTreeMap::new();
    for damaged in records.into_iter().flat_map(|record| record.known) {
        match known.get(&damaged.subject) {
            Some(before) if before.at >= damaged.at => {}
            _ => drop(known.insert(damaged.subject.clone(), damaged)),
        }
    }
    known.into_values().collect()
}

impl Store {
    /// Writes down what a look found, and that the rest of what it looked at is well.
    pub fn note_damage(&self, stack: &StackName, looked: &Looked, found: Vec<Damaged>) -> Result<(), RepositoryError> {
        let reader = self.reader()?;
        let packs = reader.look_at_packs()?;
        let files = self.snapshot_files()?;
        let (mut ids, mut records) = (Vec::new(), Vec::new());
        for file in files.iter().filter(|file| is_damage_record(file)) {
            if let Record::Damage(record) = reader.record(file, KIND)? {
                ids.push(SnapshotId::new(hex(&file.id)));
                records.push(record);
            }
        }
        let before = union(records);
        let mut known = looked.after(&before, found);
        let present = self.snapshots()?.into_iter().map(|(id, _)| id).collect();
        known.retain(|damaged| self.is_there(&damaged.subject, &packs, &present));
        if known == before && ids.len() < 2 {
            return Ok(());
        }
        let record = DamageRecord { format: RECORD_FORMAT, at: Timestamp::now(), known };
        if !record.known.is_empty() || !self.site.is_whole() {
            self.write_record(stack, &Record::Damage(record), &[])?;
        }
        // Around damage nothing is deleted; two records are read as one that knows what either knows.
        if self.site.is_whole() { self.forget(&ids) } else { Ok(()) }
    }

    /// What is gone from the index and the disk can't be damaged any more.
    fn is_there(&self, subject: &Subject, packs: &PackLook, snapshots: &BTreeSet<SnapshotId>) -> bool {
        match subject {
            Subject::Pack(id) => library_id::<PackId>(id).is_ok_and(|id| {
                packs.indexed.contains(&id) || self.disk().path(FileType::Pack, &id).symlink_metadata().is_ok()
            }),
            Subject::Snapshot(id) => snapshots.contains(id),
        }
    }

    /// Every snapshot that is there, of this stack and of anybody else, oldest first; of the stack that it is tagged with.
    pub fn snapshots(&self) -> Result<Vec<(SnapshotId, Option<StackName>)>, RepositoryError> {
        let mut all = again_if_gone(|| {
            let failed = |error| RepositoryError::store("read the snapshots", self.site.path(), error);
            self.repository.get_all_snapshots().map_err(failed)
        })?;
        all.sort_by(|a, b| (&a.time, &a.id).cmp(&(&b.time, &b.id)));
        let stack =
            |file: &SnapshotFile| file.tags.contains("devstack").then(|| tag(file, "stack:")?.parse().ok()).flatten();
        Ok(all.iter().map(|file| (SnapshotId::new(hex(&file.id)), stack(file))).collect())
    }

    /// Puts what is damaged into the facts: what `records` remember as far as it is still there, what is missing now, and the
    /// runs that it hurts.
    pub(super) fn add_damage(
        &self,
        records: Vec<DamageRecord>,
        reader: &Reader,
        packs: &PackLook,
        present: &BTreeSet<SnapshotId>,
        facts: &mut RepositoryFacts,
    ) -> Result<(), RepositoryError> {
        let now = Timestamp::now();
        let missing = packs.faulty.iter().map(|(id, why)| {
            let id = hex(id);
            let found = format!("data/{}/{id} {why}", &id[..2]);
            Damaged { subject: Subject::Pack(id), found, at: now }
        });
        let seen = DamageRecord { format: RECORD_FORMAT, at: now, known: missing.collect() };
        facts.damage = union(records.into_iter().chain([seen]));
        facts.damage.retain(|damaged| self.is_there(&damaged.subject, packs, present));
        // A pack that no index names is needed by nobody.
        let ids = facts.damage.iter().filter_map(|damaged| match &damaged.subject {
            Subject::Pack(id) if library_id(id).is_ok_and(|id| packs.indexed.contains(&id)) => Some(id.clone()),
            Subject::Pack(_) | Subject::Snapshot(_) => None,
        });
        let ids: Vec<String> = ids.collect();
        if facts.damage.is_empty() {
            return Ok(());
        }
        let mut needs = self.needs.lock().unwrap_or_else(|poison| poison.into_inner());
        if needs.packs != ids {
            *needs = Needs { packs: ids.clone(), ..Needs::default() };
        }
        let numbers = numbered(&ids);
        for run in &mut facts.runs {
            let mut hurt = Vec::new();
            for snapshot in run.present_snapshots().cloned().collect::<Vec<_>>() {
                if !needs.snapshots.contains_key(&snapshot) {
                    let tree = reader.snapshot(&snapshot)?.tree;
                    let needed = reader.packs_needed(tree, &numbers, &mut needs.trees);
                    needs.snapshots.insert(snapshot.clone(), needed.as_ref().clone());
                }
                let packs = needs.snapshots.get(&snapshot).into_iter().flatten().filter_map(|number| ids.get(*number));
                let packs: BTreeSet<&String> = packs.collect();
                hurt.extend(facts.damage.iter().filter(|damaged| match &damaged.subject {
                    Subject::Pack(id) => packs.contains(id),
                    Subject::Snapshot(id) => *id == snapshot,
                }));
            }
            // A proof reads all that the run needs: what was found before it is not what the run needs, as a byte of a pack's
            // header is, or it is well again.
            let read_well = run.proofs.iter().filter(|proof| proof.passed()).map(|proof| proof.at).max();
            let mut hurt: Vec<String> = hurt
                .into_iter()
                .filter(|damaged| read_well.is_none_or(|at| at <= damaged.at))
                .map(|damaged| damaged.found.clone())
                .collect();
            hurt.sort();
            hurt.dedup();
            run.hurt = hurt;
        }
        Ok(())
    }
}
