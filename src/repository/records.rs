//! Records: small snapshots in which devstack keeps what it knows, beside the data they speak of.

use std::io::Cursor;
use std::path::PathBuf;

use jiff::Timestamp;
use rustic_core::repofile::SnapshotFile;

use super::archive::{Entry, EntryKind, EntryMeta, tag_list};
use super::chunks;
use super::error::RepositoryError;
use super::facts::again_if_gone;
use super::reader::{Reader, content};
use super::store::{Store, hex};
use crate::model::cancel::Cancel;
use crate::model::ids::{RunId, SnapshotId, StackName};
use crate::model::record::Record;
use crate::model::run::RECORD_FORMAT;

/// The largest record that is read: a manifest of thousands of services stays far below it.
const MOST_BYTES: usize = 64 << 20;

impl Store {
    /// Stores a record as a snapshot with `/<kind>.json` and the attachments beside it, by their names.
    pub fn write_record(
        &self,
        stack: &StackName,
        record: &Record,
        attachments: &[(&str, &[u8])],
    ) -> Result<SnapshotId, RepositoryError> {
        let json = to_json(record).map_err(|source| RepositoryError::Record {
            snapshot: SnapshotId::new("(new)"),
            why: "it cannot be written as JSON".to_owned(),
            source: Some(source),
        })?;
        let at = Timestamp::now();
        let mut files = vec![(PathBuf::from(format!("/{}.json", record.kind())), json)];
        for (name, bytes) in attachments {
            files.push((PathBuf::from("/").join(name.trim_start_matches('/')), bytes.to_vec()));
        }
        files.sort();
        let entries = files.into_iter().map(move |(path, bytes)| {
            let meta = EntryMeta { mode: 0o600, mtime: Some(at), size: bytes.len() as u64, ..EntryMeta::default() };
            Entry { path, meta, kind: EntryKind::Stream(Box::new(Cursor::new(bytes))) }
        });
        let mut tags = vec![format!("stack:{stack}"), format!("record:{}", record.kind())];
        tags.extend(record.run().map(|run| format!("run:{run}")));
        // Not to be interrupted: it is small, and it says what has been done.
        let stored =
            self.store_entries(tag_list(tags.clone()), at, None, Box::new(entries), &Cancel::new(), &|_| {})?;
        self.drop_superseded(&stored.snapshot, record, &tags)?;
        Ok(stored.snapshot)
    }

    /// Takes away what a new record says anew; without this, an hourly apply would leave thousands of them in a year.
    /// After the new one is on disk: a kill between leaves both, and the newer counts.
    fn drop_superseded(&self, new: &SnapshotId, record: &Record, tags: &[String]) -> Result<(), RepositoryError> {
        if !record.can_supersede() || !self.site.is_whole() {
            return Ok(());
        }
        let alike: Vec<SnapshotFile> = self
            .snapshot_files()?
            .into_iter()
            .filter(|file| hex(&file.id) != new.as_str() && tags.iter().all(|tag| file.tags.contains(tag)))
            .collect();
        if alike.is_empty() {
            return Ok(());
        }
        let reader = self.reader()?;
        for file in alike {
            // One that cannot be read is damage, which the next look tells; it is not taken away unread.
            if reader.record(&file, record.kind()).is_ok_and(|older| record.supersedes(&older)) {
                self.forget(&[SnapshotId::new(hex(&file.id))])?;
            }
        }
        Ok(())
    }

    /// The id of a snapshot's tree: what stays the same when the snapshot gets another id.
    pub fn tree_of(&self, snapshot: &SnapshotId) -> Result<String, RepositoryError> {
        Ok(hex(&self.reader()?.snapshot(snapshot)?.tree))
    }

    /// What there is of a run, in the order in which it is to be forgotten: the manifests first, so that a run that is
    /// half forgotten is no run; then its other records; then its data.
    pub fn snapshots_of(&self, stack: &StackName, run: &RunId) -> Result<Vec<SnapshotId>, RepositoryError> {
        let tags = (format!("stack:{stack}"), format!("run:{run}"));
        let mut found: Vec<_> = self
            .snapshot_files()?
            .into_iter()
            .filter(|file| file.tags.contains(&tags.0) && file.tags.contains(&tags.1))
            .map(|file| {
                let rank = match tag(&file, "record:") {
                    Some("manifest") => 0,
                    Some(_) => 1,
                    None => 2,
                };
                (rank, hex(&file.id))
            })
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, id)| SnapshotId::new(id)).collect())
    }

    /// The records of a run, the manifest first, without its data.
    pub fn snapshots_of_records_for(&self, stack: &StackName, run: &RunId) -> Result<Vec<SnapshotId>, RepositoryError> {
        let records: Vec<_> = self
            .snapshot_files()?
            .into_iter()
            .filter(|file| tag(file, "record:").is_some())
            .map(|file| SnapshotId::new(hex(&file.id)))
            .collect();
        Ok(self.snapshots_of(stack, run)?.into_iter().filter(|id| records.contains(id)).collect())
    }

    /// All snapshots of devstack, as they are now on disk.
    pub(super) fn snapshot_files(&self) -> Result<Vec<SnapshotFile>, RepositoryError> {
        again_if_gone(|| {
            self.repository
                .get_matching_snapshots(|file| file.tags.contains("devstack"))
                .map_err(|error| RepositoryError::store("read the snapshots", self.site.path(), error))
        })
    }
}

/// The rest of the tag that begins with `prefix`.
pub(super) fn tag<'a>(file: &'a SnapshotFile, prefix: &str) -> Option<&'a str> {
    file.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
}

fn to_json(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    match record {
        Record::Manifest(manifest) => serde_json::to_vec_pretty(manifest),
        Record::Proof(proof) => serde_json::to_vec_pretty(proof),
        Record::DataRead(read) => serde_json::to_vec_pretty(read),
        Record::Damage(damage) => serde_json::to_vec_pretty(damage),
        Record::Drill(drill) => serde_json::to_vec_pretty(drill),
        Record::Recovery(recovery) => serde_json::to_vec_pretty(recovery),
        Record::ShrinkAccepted(mark) => serde_json::to_vec_pretty(mark),
        Record::RuleApproved(rule) => serde_json::to_vec_pretty(rule),
        Record::PlanUsed(plan) => serde_json::to_vec_pretty(plan),
        Record::Generation(generation) => serde_json::to_vec_pretty(generation),
        Record::Adopted(adopted) => serde_json::to_vec_pretty(adopted),
        Record::Approved(approved) => serde_json::to_vec_pretty(approved),
    }
}

impl Reader {
    /// What lies beside a manifest in its snapshot, by name.
    pub fn attachments(&self, record: &SnapshotId) -> Result<Vec<(String, Vec<u8>)>, RepositoryError> {
        let mut names = Vec::new();
        for entry in self.entries(record)? {
            let (path, _) = entry?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            names.extend((name != "manifest.json").then_some((path, name)));
        }
        let mut found = Vec::new();
        for (path, name) in names {
            let mut bytes = Vec::new();
            self.read_stream(record, &path.to_string_lossy(), &mut bytes, &Cancel::new(), &|_| {})?;
            found.push((name, bytes));
        }
        Ok(found)
    }

    /// The record in a snapshot that is tagged as one.
    pub(super) fn record(&self, file: &SnapshotFile, kind: &str) -> Result<Record, RepositoryError> {
        let snapshot = SnapshotId::new(hex(&file.id));
        let bytes = self.small_file(file, &snapshot, &format!("{kind}.json"))?;
        let wrong = |why: String, source| RepositoryError::Record { snapshot: snapshot.clone(), why, source };
        #[derive(serde::Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |error| wrong(format!("its {kind}.json is not what devstack writes"), Some(error));
        let Head { format } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if format > RECORD_FORMAT {
            let why =
                format!("its format {format} is newer than this devstack reads ({RECORD_FORMAT}): update devstack");
            return Err(wrong(why, None));
        }
        let record = match kind {
            "manifest" => serde_json::from_slice(&bytes).map(Record::Manifest),
            "proof" => serde_json::from_slice(&bytes).map(Record::Proof),
            "data-read" => serde_json::from_slice(&bytes).map(Record::DataRead),
            "damage" => serde_json::from_slice(&bytes).map(Record::Damage),
            "drill" => serde_json::from_slice(&bytes).map(Record::Drill),
            "recovery" => serde_json::from_slice(&bytes).map(Record::Recovery),
            "shrink-accepted" => serde_json::from_slice(&bytes).map(Record::ShrinkAccepted),
            "rule-approved" => serde_json::from_slice(&bytes).map(Record::RuleApproved),
            "plan-used" => serde_json::from_slice(&bytes).map(Record::PlanUsed),
            "generation" => serde_json::from_slice(&bytes).map(Record::Generation),
            "adopted" => serde_json::from_slice(&bytes).map(Record::Adopted),
            "approved" => serde_json::from_slice(&bytes).map(Record::Approved),
            other => return Err(wrong(format!("its kind `{other}` is not known: update devstack"), None)),
        };
        record.map_err(unreadable)
    }

    fn small_file(&self, file: &SnapshotFile, snapshot: &SnapshotId, name: &str) -> Result<Vec<u8>, RepositoryError> {
        let failed = |fault| content(snapshot, &PathBuf::from("/").join(name), fault);
        let tree = chunks::tree(&self.repository, &file.tree).map_err(failed)?;
        let node = tree.nodes.into_iter().find(|node| node.name == name && node.is_file());
        let node =
            node.ok_or_else(|| RepositoryError::NoSuchPath { snapshot: snapshot.clone(), path: name.to_owned() })?;
        let mut bytes = Vec::new();
        for id in node.content.iter().flatten() {
            bytes.extend_from_slice(&chunks::chunk(&self.repository, id).map_err(failed)?);
            if bytes.len() > MOST_BYTES {
                let why = "it is larger than any record".to_owned();
                return Err(RepositoryError::Record { snapshot: snapshot.clone(), why, source: None });
            }
        }
        Ok(bytes)
    }
}
