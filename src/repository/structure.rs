//! Whether what snapshots need is there: trees that load, chunks that are indexed, packs in their right size.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustic_core::repofile::{IndexFile, NodeType, PackId};
use rustic_core::{DataId, FileType, Id, ReadBackend, TreeId};

use super::chunks;
use super::error::RepositoryError;
use super::reader::Reader;
use super::store::hex;
use crate::model::ids::SnapshotId;
use crate::model::observation::Marked;
use crate::model::units::ByteSize;

/// Trees that were looked at, and whether all beneath them is well: snapshots share most of theirs.
type Seen = HashMap<TreeId, bool>;

/// Of a tree, the packs among those asked for that it needs, by their numbers. Snapshots share most of their trees.
pub(super) type Needed = HashMap<TreeId, Arc<BTreeSet<usize>>>;

/// The packs that the index names, and how they lie on disk.
pub(super) struct PackLook {
    /// Those that are not there in the size that the index says, each with what is wrong.
    pub faulty: HashMap<PackId, String>,
    /// All of them, those that a prune has marked too.
    pub indexed: HashSet<PackId>,
    pub marked: Option<Marked>,
}

impl Reader {
    /// Findings as sentences that name the snapshot and the file. None of the chunks is read.
    pub fn check_structure(&self, snapshots: &[SnapshotId]) -> Result<Vec<String>, RepositoryError> {
        Ok(self.check_each(snapshots)?.into_iter().flat_map(|(_, findings)| findings).collect())
    }

    /// As [`Self::check_structure`], the snapshots apart: only those that are not well.
    pub fn check_each(&self, snapshots: &[SnapshotId]) -> Result<Vec<(SnapshotId, Vec<String>)>, RepositoryError> {
        let faulty = self.faulty_packs()?;
        let (mut all, mut seen) = (Vec::new(), Seen::new());
        for snapshot in snapshots {
            let mut findings = Vec::new();
            let file = match self.snapshot(snapshot) {
                Ok(file) => file,
                Err(error @ (RepositoryError::NoSuchSnapshot { .. } | RepositoryError::Damaged { .. })) => {
                    all.push((snapshot.clone(), vec![error.to_string()]));
                    continue;
                }
                // It is there and whole, and cannot be decrypted or parsed: as lost as a damaged one.
                Err(error @ RepositoryError::Store { .. }) => {
                    all.push((snapshot.clone(), vec![format!("snapshot {}: {error}", snapshot.short())]));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut tell = |path: &Path, what: &str| {
                findings.push(format!("snapshot {}: {} {what}", snapshot.short(), path.display()));
            };
            self.check_tree(file.tree, Path::new("/"), &faulty, &mut seen, &mut tell);
            if !findings.is_empty() {
                all.push((snapshot.clone(), findings));
            }
        }
        Ok(all)
    }

    /// True when all beneath it is well.
    fn check_tree(
        &self,
        tree: TreeId,
        path: &Path,
        faulty: &HashMap<PackId, String>,
        seen: &mut Seen,
        tell: &mut dyn FnMut(&Path, &str),
    ) -> bool {
        // What is not well is told again for each snapshot that it hurts.
        if seen.get(&tree) == Some(&true) {
            return true;
        }
        let nodes = match chunks::tree(&self.repository, &tree) {
            Ok(tree) => tree.nodes,
            Err(fault) => {
                tell(path, &format!("cannot be listed: {}", fault.why));
                return false;
            }
        };
        let mut well = true;
        if let Ok(entry) = self.repository.get_index_entry(&tree)
            && let Some(why) = faulty.get(&entry.pack)
        {
            tell(path, &format!("lies in a pack that {why}"));
            well = false;
        }
        for node in nodes {
            let path = path.join(node.name());
            match (&node.node_type, node.subtree) {
                (NodeType::Dir, Some(subtree)) => well &= self.check_tree(subtree, &path, faulty, seen, tell),
                (NodeType::Dir, None) => {
                    tell(&path, "is a folder without a tree");
                    well = false;
                }
                // An empty file has an empty list.
                (NodeType::File, _) if node.content.is_none() => {
                    tell(&path, "is a file without a list of its chunks");
                    well = false;
                }
                _ => {
                    for id in node.content.iter().flatten() {
                        if let Some(why) = self.fault_of(id, faulty) {
                            tell(&path, &why);
                            well = false;
                            // One sentence a file: a large file has thousands of chunks.
                            break;
                        }
                    }
                }
            }
        }
        seen.insert(tree, well);
        well
    }

    fn fault_of(&self, id: &DataId, faulty: &HashMap<PackId, String>) -> Option<String> {
        match self.repository.get_index_entry(id) {
            Err(_) => Some(format!("needs the chunk {}, which the index does not have", &hex(id)[..8])),
            Ok(entry) => faulty.get(&entry.pack).map(|why| format!("needs a pack that {why}")),
        }
    }

    /// The packs that the index lists and that are not on disk in the right size, needed by a snapshot or not: each by
    /// its id, with what is wrong with it.
    pub fn damaged_packs(&self) -> Result<Vec<(String, String)>, RepositoryError> {
        let mut packs: Vec<_> = self.faulty_packs()?.into_iter().map(|(id, why)| (hex(&id), why)).collect();
        packs.sort();
        Ok(packs)
    }

    /// The packs of the index that are not on disk in the size that the index says.
    fn faulty_packs(&self) -> Result<HashMap<PackId, String>, RepositoryError> {
        Ok(self.look_at_packs()?.faulty)
    }

    /// Reads the index files and asks the disk for the size of each pack that they name.
    pub(super) fn look_at_packs(&self) -> Result<PackLook, RepositoryError> {
        let failed = |error| RepositoryError::store("read the index", self.site.path(), error);
        let listed = || -> Result<BTreeSet<Id>, RepositoryError> {
            Ok(self.site.disk().list(FileType::Index).map_err(failed)?.into_iter().collect())
        };
        // A prune writes a new index before it deletes what the old one named: only what is missing by the same index is missing.
        let mut left = MOST_LOOKS;
        loop {
            let before = listed()?;
            let look = self.look_at_packs_now()?;
            left -= 1;
            if look.faulty.is_empty() || left == 0 || listed()? == before {
                return Ok(look);
            }
        }
    }

    fn look_at_packs_now(&self) -> Result<PackLook, RepositoryError> {
        let failed = |error| RepositoryError::store("read the index", self.site.path(), error);
        let disk = self.site.disk();
        let mut look = PackLook { faulty: HashMap::new(), indexed: HashSet::new(), marked: None };
        for file in self.repository.stream_files::<IndexFile>().map_err(failed)? {
            let (_, file) = file.map_err(failed)?;
            for pack in file.packs_to_delete {
                // The library heals a mark without a time by giving it the next prune's.
                let since = pack.time.unwrap_or_else(Timestamp::now);
                let bytes = ByteSize(pack.pack_size().into());
                look.indexed.insert(pack.id);
                look.marked = Some(match look.marked {
                    Some(before) => Marked { since: before.since.min(since), bytes: before.bytes + bytes },
                    None => Marked { since, bytes },
                });
            }
            for pack in file.packs {
                let path: PathBuf = disk.path(FileType::Pack, &pack.id);
                let size = u64::from(pack.pack_size());
                let name = &hex(&pack.id)[..8];
                look.indexed.insert(pack.id);
                let why = match fs::metadata(&path) {
                    Ok(meta) if meta.len() == size => continue,
                    Ok(meta) => format!("has {} bytes and should have {size} (pack {name})", meta.len()),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("is missing (pack {name})"),
                    Err(error) => format!("cannot be looked at: {error} (pack {name})"),
                };
                look.faulty.insert(pack.id, why);
            }
        }
        Ok(look)
    }

    /// The snapshots that need one of these packs, given by their ids in hexadecimal.
    pub fn snapshots_using_packs(
        &self,
        packs: &[String],
        snapshots: &[SnapshotId],
    ) -> Result<Vec<SnapshotId>, RepositoryError> {
        let numbers = numbered(packs);
        let (mut hurt, mut seen) = (Vec::new(), Needed::new());
        for snapshot in snapshots {
            if !self.packs_needed(self.snapshot(snapshot)?.tree, &numbers, &mut seen).is_empty() {
                hurt.push(snapshot.clone());
            }
        }
        Ok(hurt)
    }

    /// The numbers of those packs that a tree, or anything beneath it, lies in. What cannot be read may lie in any of them.
    pub(super) fn packs_needed(
        &self,
        tree: TreeId,
        packs: &HashMap<String, usize>,
        seen: &mut Needed,
    ) -> Arc<BTreeSet<usize>> {
        if let Some(known) = seen.get(&tree) {
            return Arc::clone(known);
        }
        let all = || packs.values().copied().collect::<BTreeSet<usize>>();
        let mut needed = BTreeSet::new();
        let mut of = |pack: Option<PackId>| match pack {
            Some(pack) => needed.extend(packs.get(&hex(&pack))),
            None => needed.extend(all()),
        };
        of(self.repository.get_index_entry(&tree).ok().map(|entry| entry.pack));
        let mut beneath = Vec::new();
        match chunks::tree(&self.repository, &tree) {
            Ok(tree) => {
                for node in tree.nodes {
                    for id in node.content.iter().flatten() {
                        of(self.repository.get_index_entry(id).ok().map(|entry| entry.pack));
                    }
                    beneath.extend(node.subtree);
                }
            }
            Err(_) => of(None),
        }
        for subtree in beneath {
            needed.extend(self.packs_needed(subtree, packs, seen).iter());
        }
        let needed = Arc::new(needed);
        seen.insert(tree, Arc::clone(&needed));
        needed
    }
}

/// How often the packs are looked at anew because the index was replaced meanwhile.
const MOST_LOOKS: u32 = 8;

pub(super) fn numbered(packs: &[String]) -> HashMap<String, usize> {
    packs.iter().enumerate().map(|(number, pack)| (pack.clone(), number)).collect()
}
