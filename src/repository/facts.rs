//! What a repository holds of one stack: its records, paired into runs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rustic_core::repofile::SnapshotFile;

use super::error::RepositoryError;
use super::known;
use super::reader::Reader;
use super::records::tag;
use super::rewritten::Rewritten;
use super::store::{Store, hex};
use crate::model::damage::DamageRecord;
use crate::model::ids::{PolicyName, RunId, ServiceName, SnapshotId, StackName};
use crate::model::observation::{Marked, OtherStack, RepositoryFacts, Run, UnsealedRun};
use crate::model::record::{Record, RuleApproved};

const MANIFEST: &str = "manifest";

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
        let mut gathered = Gathered { now: Timestamp::now(), ..Gathered::default() };
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
        let is_new = facts.runs.is_empty() && facts.unsealed.is_empty() && unreadable.is_empty();
        facts.others = self.others(&all, stack, is_new.then_some(&reader));
        Ok((facts, unreadable))
    }

    /// Other stacks, by the tags of their manifests; `reader` is given where it is to be read where the newest was taken.
    fn others(&self, all: &[SnapshotFile], stack: &StackName, reader: Option<&Reader>) -> Vec<OtherStack> {
        let mut newest: BTreeMap<&str, (usize, &SnapshotFile)> = BTreeMap::new();
        let is_sealed = |file: &&SnapshotFile| file.tags.contains("devstack") && tag(file, "record:") == Some(MANIFEST);
        for file in all.iter().filter(is_sealed) {
            let Some(name) = tag(file, "stack:").filter(|name| *name != stack.as_str()) else { continue };
            // They come oldest first.
            let runs = newest.get(name).map_or(0, |(runs, _)| *runs);
            newest.insert(name, (runs + 1, file));
        }
        let others = newest.into_iter().map(|(name, (runs, file))| OtherStack {
            stack: StackName::new(name),
            runs,
            newest: file.time.timestamp(),
            // One that can't be read is somebody else's damage, and told to them.
            origin: match reader.map(|reader| reader.record(file, MANIFEST)) {
                Some(Ok(Record::Manifest(manifest))) => manifest.origin,
                _ => None,
            },
        });
        others.collect()
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
        let locks = self.restic_locks()?;
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
            adopted: Vec::new(),
            others: Vec::new(),
            approvals: Vec::new(),
            data_reads: Vec::new(),
            damage: Vec::new(),
            removed: Vec::new(),
            drills: Vec::new(),
            recoveries: Vec::new(),
            oldest: None,
            size: self.site.size()?,
            marked,
            leases: Vec::new(),
            restic_locks: locks.len(),
            lock_holders: locks,
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
    now: Timestamp,
    runs: BTreeMap<RunId, Run>,
    proofs: Vec<crate::model::evidence::Proof>,
    rules: BTreeMap<PolicyName, RuleApproved>,
    data: Vec<&'a SnapshotFile>,
    damage: Vec<DamageRecord>,
}

/// The order in which words count, the last one most: one dated in the future is of a clock that was ahead, and what was found
/// since is later whatever it says.
fn trusted(at: Timestamp, now: Timestamp) -> (bool, Timestamp) {
    (at <= now, at)
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
            Record::Recovery(recovery) => facts.recoveries.push(recovery),
            Record::ShrinkAccepted(mark) => facts.accepted_shrinks.push((mark.run, mark.service)),
            Record::RuleApproved(rule) => match self.rules.get(&rule.policy) {
                Some(known) if trusted(known.at, self.now) > trusted(rule.at, self.now) => {}
                _ => drop(self.rules.insert(rule.policy.clone(), rule)),
            },
            Record::PlanUsed(plan) => facts.used_plans.push(plan.plan),
            Record::Adopted(adopted) => facts.adopted.push(*adopted),
            Record::Approved(approved) => facts.approvals.push(*approved),
            Record::Generation(generation) => match &facts.generation {
                Some(known) if known.number > generation.number => {}
                _ => facts.generation = Some(generation),
            },
        }
    }

    fn finish(mut self, rewritten: &Rewritten, present: &BTreeSet<SnapshotId>, facts: &mut RepositoryFacts) {
        let now = self.now;
        self.proofs.sort_by_key(|proof| trusted(proof.at, now));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::evidence::{Level, Proof, Verdict};
    use crate::model::retention::Rule;
    use crate::model::run::RECORD_FORMAT;
    use crate::model::units::{ByteSize, Span};

    fn sealed(started: Timestamp) -> crate::model::run::Manifest {
        serde_json::from_value(serde_json::json!({
            "format": RECORD_FORMAT, "stack": "shop", "run": "20261124T080000Z-daily", "policy": "daily", "slot": started,
            "started": started, "finished": started, "expected": ["shop"], "parent": null, "base": "20261124T080000Z-daily",
            "spec_digest": "00", "devstack_version": "0.1.0", "sealed": "by_its_apply",
            "services": { "shop": { "taken": {
                "snapshot": "00", "engine": "sqlite", "engine_version": "3", "artifacts": [], "started": started, "took": Span::ZERO,
                "added": ByteSize(1), "suspect": null,
            } } },
        }))
        .unwrap()
    }

    fn nothing() -> RepositoryFacts {
        serde_json::from_value(serde_json::json!({
            "id": "00", "keys": [], "opened_with": null, "runs": [], "unsealed": [], "approved_rules": {},
            "accepted_shrinks": [], "used_plans": [], "generation": null, "data_reads": [], "oldest": null, "size": ByteSize(0),
            "marked": null, "leases": [], "restic_locks": 0,
        }))
        .unwrap()
    }

    fn proof(of: &RunId, when: Timestamp, verdict: &Verdict) -> Record {
        Record::Proof(Proof {
            format: RECORD_FORMAT,
            run: of.clone(),
            at: when,
            took: Span::ZERO,
            read: ByteSize(0),
            levels: Level::PROOF.iter().map(|level| (*level, verdict.clone())).collect(),
            services: BTreeMap::new(),
            snapshots: Vec::new(),
            notes: vec![],
        })
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_written_is_not_the_last_word() {
        let now: Timestamp = "2026-11-24T11:00:00Z".parse().unwrap();
        let (hour_ago, tomorrow) = (Span::from_hours(1).before(now), Span::from_hours(24).after(now));
        let sealed = sealed(Span::from_hours(3).before(now));
        let failed = Verdict::Failed(vec!["a chunk is wrong".to_owned()]);
        let (old, new) = (proof(&sealed.run, tomorrow, &Verdict::Passed), proof(&sealed.run, hour_ago, &failed));
        let rule = |last, when| RuleApproved {
            format: RECORD_FORMAT,
            policy: sealed.policy.clone(),
            rule: Rule { last: Some(last), ..Rule::default() },
            at: when,
        };
        assert!(new.supersedes(&old), "the record that is written now is later than any that is there");
        let mut facts = nothing();
        let present = sealed.taken().map(|(_, taken)| taken.snapshot.clone()).collect();
        let mut gathered = Gathered { now, ..Gathered::default() };
        let records = [
            Record::Manifest(Box::new(sealed.clone())),
            Record::RuleApproved(rule(1, tomorrow)),
            Record::RuleApproved(rule(7, hour_ago)),
            new,
            old,
        ];
        for (number, record) in records.into_iter().enumerate() {
            gathered.add(SnapshotId::new(format!("{number:064x}")), record, &mut facts);
        }
        gathered.finish(&Rewritten::among(&[], "stack:shop"), &present, &mut facts);
        assert!(facts.runs[0].is_damaged() && !facts.runs[0].is_verified());
        assert_eq!(facts.approved_rules[&sealed.policy].last, Some(7));
    }
}
