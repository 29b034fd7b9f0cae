//! What a repository holds of one stack: its records, paired into runs.

use std::collections::{BTreeMap, BTreeSet};

use rustic_core::repofile::SnapshotFile;

use super::error::RepositoryError;
use super::known;
use super::records::tag;
use super::rewritten::Rewritten;
use super::store::{Store, hex};
use crate::model::damage::DamageRecord;
use crate::model::ids::{PolicyName, RunId, ServiceName, SnapshotId, StackName};
use crate::model::observation::{Marked, RepositoryFacts, Run, UnsealedRun};
use crate::model::record::{Record, RuleApproved};

impl Store {
    /// Reads all records of the stack. One that cannot be read, or is of a newer format, is an error: leaving it out could
    /// make a forgotten floor or an unused plan of it. The leases are left empty.
    pub fn facts(&self, stack: &StackName) -> Result<RepositoryFacts, RepositoryError> {
        match self.facts_around(stack)? {
            (facts, unreadable) if unreadable.is_empty() => Ok(facts),
            (_, mut unreadable) => Err(unreadable.swap_remove(0).source),
        }
    }

    /// What can still be read where something is damaged, and what can't. For verification only: to a planner, a record
    /// that is left out could be a floor that is forgotten.
    pub fn facts_around(&self, stack: &StackName) -> Result<(RepositoryFacts, Vec<UnreadableRecord>), RepositoryError> {
        again_if_gone(|| self.facts_now(stack))
    }

    fn facts_now(&self, stack: &StackName) -> Result<(RepositoryFacts, Vec<UnreadableRecord>), RepositoryError> {
        let mut unreadable = Vec::new();
        // Before and after the snapshots are listed: a run that is sealed or forgotten meanwhile is in one of the two only.
        let sealed_before = self.tally(stack)?;
        let failed = |error| RepositoryError::store("read the snapshots", self.site.path(), error);
        let mut all = self.repository.get_all_snapshots().map_err(failed)?;
        all.sort_by(|a, b| (&a.time, &a.id).cmp(&(&b.time, &b.id)));
        let reader = self.reader()?;
        let present: BTreeSet<_> = all.iter().map(|file| SnapshotId::new(hex(&file.id))).collect();
        let packs = reader.look_at_packs()?;
        let mut facts = self.bare_facts(packs.marked)?;
        facts.oldest = all.first().map(|file| file.time.timestamp());
        let mut gathered = Gathered::default();
        let own = format!("stack:{stack}");
        let is_own = |file: &SnapshotFile| file.tags.contains("devstack") && file.tags.contains(&own);
        for file in all.iter().filter(|file| is_own(file) || known::is_damage_record(file)) {
            match tag(file, "record:") {
                Some(kind) => {
                    let snapshot = SnapshotId::new(hex(&file.id));
                    match reader.record(file, kind) {
                        Ok(record) => gathered.add(snapshot, record, &mut facts),
                        Err(source) => {
                            let run = tag(file, "run:").map(RunId::new);
                            unreadable.push(UnreadableRecord { snapshot, kind: kind.to_owned(), run, source });
                        }
                    }
                }
                None => gathered.data.push(file),
            }
        }
        let damage = std::mem::take(&mut gathered.damage);
        gathered.finish(&Rewritten::among(&all, &own), &present, &mut facts);
        self.add_damage(damage, &reader, &packs, &present, &mut facts)?;
        // Of what is hidden since it is damaged, nobody can say that it was removed.
        if let (Some(before), Some(after), true) = (sealed_before, self.tally(stack)?, self.site.is_whole()) {
            let is_here = |run: &RunId| facts.runs.iter().any(|held| held.manifest.run == *run);
            let is_unreadable = |run: &RunId| unreadable.iter().any(|record| record.run.as_ref() == Some(run));
            let gone = before.intersection(&after).filter(|run| !is_here(run) && !is_unreadable(run));
            facts.removed = gone.cloned().collect();
        }
        Ok((facts, unreadable))
    }

    /// The stacks that have runs in here.
    pub fn stacks(&self) -> Result<Vec<StackName>, RepositoryError> {
        let failed = |error| RepositoryError::store("read the snapshots", self.site.path(), error);
        let all = self.repository.get_all_snapshots().map_err(failed)?;
        let ours = all.iter().filter(|file| file.tags.contains("devstack"));
        let names: BTreeSet<StackName> = ours.filter_map(|file| tag(file, "stack:")?.parse().ok()).collect();
        Ok(names.into_iter().collect())
    }

    /// What can be said without reading records.
    fn bare_facts(&self, marked: Option<Marked>) -> Result<RepositoryFacts, RepositoryError> {
        Ok(RepositoryFacts {
            id: self.id(),
            keys: self.site.keys()?,
            opened_with: self.opened_with(),
            runs: Vec::new(),
            unsealed: Vec::new(),
            approved_rules: BTreeMap::new(),
            accepted_shrinks: Vec::new(),
            used_plans: Vec::new(),
            generation: None,
            data_reads: Vec::new(),
            damage: Vec::new(),
            removed: Vec::new(),
            drills: Vec::new(),
            oldest: None,
            size: self.site.size()?,
            marked,
            leases: Vec::new(),
            restic_locks: self.site.restic_locks()?,
        })
    }
}

/// How often a listing is made anew because something in it was gone when it was read: another thread has replaced a
/// record by a newer one. Each time takes milliseconds, so that losing this many races in a row is not one.
const LISTINGS: u32 = 8;

pub(super) fn again_if_gone<T>(look: impl Fn() -> Result<T, RepositoryError>) -> Result<T, RepositoryError> {
    let mut left = LISTINGS;
    loop {
        match look() {
            Err(error) if left > 1 && error.is_of_something_gone() => left -= 1,
            looked => return looked,
        }
    }
}

/// A record that is there and can't be read.
#[derive(Debug)]
pub struct UnreadableRecord {
    pub snapshot: SnapshotId,
    pub kind: String,
    /// The run that it speaks of, by its tag.
    pub run: Option<RunId>,
    pub source: RepositoryError,
}

/// Records on their way into the facts; snapshots come oldest first.
#[derive(Default)]
struct Gathered<'a> {
    runs: BTreeMap<RunId, Run>,
    proofs: Vec<crate::model::evidence::Proof>,
    rules: BTreeMap<PolicyName, RuleApproved>,
    data: Vec<&'a SnapshotFile>,
    damage: Vec<DamageRecord>,
}

impl Gathered<'_> {
    fn add(&mut self, snapshot: SnapshotId, record: Record, facts: &mut RepositoryFacts) {
        match record {
            Record::Manifest(manifest) => {
                // The first manifest of a run is the one that was reported.
                self.runs.entry(manifest.run.clone()).or_insert(Run {
                    manifest: *manifest,
                    record: snapshot,
                    proofs: Vec::new(),
                    lost: Vec::new(),
                    hurt: Vec::new(),
                });
            }
            Record::Proof(proof) => self.proofs.push(proof),
            Record::DataRead(read) => facts.data_reads.push(read),
            Record::Damage(damage) => self.damage.push(damage),
            Record::Drill(drill) => facts.drills.push(*drill),
            Record::ShrinkAccepted(mark) => facts.accepted_shrinks.push((mark.run, mark.service)),
            Record::RuleApproved(rule) => match self.rules.get(&rule.policy) {
                Some(known) if known.at > rule.at => {}
                _ => drop(self.rules.insert(rule.policy.clone(), rule)),
            },
            Record::PlanUsed(plan) => facts.used_plans.push(plan.plan),
            Record::Generation(generation) => match &facts.generation {
                Some(known) if known.number > generation.number => {}
                _ => facts.generation = Some(generation),
            },
        }
    }

    fn finish(mut self, rewritten: &Rewritten, present: &BTreeSet<SnapshotId>, facts: &mut RepositoryFacts) {
        self.proofs.sort_by_key(|proof| proof.at);
        for proof in self.proofs {
            // A proof without its run is what an interrupted forget leaves; prune sweeps it.
            if let Some(run) = self.runs.get_mut(&proof.run) {
                run.proofs.push(proof);
            }
        }
        for run in self.runs.values_mut() {
            rewritten.follow(run, present);
        }
        let mut unsealed: BTreeMap<RunId, UnsealedRun> = BTreeMap::new();
        for file in self.data {
            let (Some(run), Some(service)) = (tag(file, "run:"), tag(file, "service:")) else { continue };
            let run = RunId::new(run);
            if self.runs.contains_key(&run) {
                continue;
            }
            let policy = PolicyName::new(tag(file, "policy:").unwrap_or_default());
            let entry = unsealed.entry(run.clone());
            let entry = entry.or_insert(UnsealedRun { run, policy, snapshots: Vec::new() });
            let snapshot = SnapshotId::new(hex(&file.id));
            entry.snapshots.push((snapshot, ServiceName::new(service), file.time.timestamp()));
        }
        facts.unsealed = unsealed.into_values().collect();
        facts.approved_rules = self.rules.into_iter().map(|(policy, approved)| (policy, approved.rule)).collect();
        facts.runs = self.runs.into_values().collect();
        facts.runs.sort_by(|a, b| (a.manifest.started, &a.manifest.run).cmp(&(b.manifest.started, &b.manifest.run)));
        facts.data_reads.sort_by_key(|read| read.at);
    }
}
