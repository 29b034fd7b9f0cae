//! Whether what snapshots need is there: trees that load, chunks that are indexed, packs in their right size.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustic_core::repofile::{IndexFile, NodeType, PackId};
use rustic_core::{DataId, FileType, TreeId};

use super::chunks;
use super::error::RepositoryError;
use super::reader::Reader;
use super::store::hex;
use crate::model::ids::SnapshotId;

/// Trees that were looked at, and whether all beneath them is well: snapshots share most of theirs.
type Seen = HashMap<TreeId, bool>;

impl Reader {
    /// Findings as sentences that name the snapshot and the file. None of the chunks is read.
    pub fn check_structure(&self, snapshots: &[SnapshotId]) -> Result<Vec<String>, RepositoryError> {
        let faulty = self.faulty_packs()?;
        let (mut findings, mut seen) = (Vec::new(), Seen::new());
        for snapshot in snapshots {
            let file = match self.snapshot(snapshot) {
                Ok(file) => file,
                Err(error @ (RepositoryError::NoSuchSnapshot { .. } | RepositoryError::Damaged { .. })) => {
                    findings.push(error.to_string());
                    continue;
                }
                // It is there and whole, and cannot be decrypted or parsed: as lost as a damaged one.
                Err(error @ RepositoryError::Store { .. }) => {
                    findings.push(format!("snapshot {}: {error}", snapshot.short()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut tell = |path: &Path, what: &str| {
                findings.push(format!("snapshot {}: {} {what}", snapshot.short(), path.display()));
            };
            self.check_tree(file.tree, Path::new("/"), &faulty, &mut seen, &mut tell);
        }
        Ok(findings)
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
        let failed = |error| RepositoryError::store("read the index", self.site.path(), error);
        let disk = self.site.disk();
        let mut faulty = HashMap::new();
        for file in self.repository.stream_files::<IndexFile>().map_err(failed)? {
            let (_, file) = file.map_err(failed)?;
            for pack in file.packs {
                let path: PathBuf = disk.path(FileType::Pack, &pack.id);
                let size = u64::from(pack.pack_size());
                let name = &hex(&pack.id)[..8];
                let why = match fs::metadata(&path) {
                    Ok(meta) if meta.len() == size => continue,
                    Ok(meta) => format!("has {} bytes and should have {size} (pack {name})", meta.len()),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("is missing (pack {name})"),
                    Err(error) => format!("cannot be looked at: {error} (pack {name})"),
                };
                faulty.insert(pack.id, why);
            }
        }
        Ok(faulty)
    }

    /// The snapshots that need one of these packs, given by their ids in hexadecimal.
    pub fn snapshots_using_packs(
        &self,
        packs: &[String],
        snapshots: &[SnapshotId],
    ) -> Result<Vec<SnapshotId>, RepositoryError> {
        let packs: HashSet<&str> = packs.iter().map(String::as_str).collect();
        let (mut hurt, mut seen) = (Vec::new(), Seen::new());
        for snapshot in snapshots {
            if !self.is_free_of(self.snapshot(snapshot)?.tree, &packs, &mut seen) {
                hurt.push(snapshot.clone());
            }
        }
        Ok(hurt)
    }

    fn is_free_of(&self, tree: TreeId, packs: &HashSet<&str>, seen: &mut Seen) -> bool {
        if let Some(known) = seen.get(&tree) {
            return *known;
        }
        let outside = |pack: &PackId| !packs.contains(hex(pack).as_str());
        // What cannot be read may lie in any of them, and is hurt.
        let free = self.repository.get_index_entry(&tree).is_ok_and(|entry| outside(&entry.pack))
            && chunks::tree(&self.repository, &tree).is_ok_and(|tree| {
                tree.nodes.iter().all(|node| {
                    let mut content = node.content.iter().flatten();
                    content.all(|id| self.repository.get_index_entry(id).is_ok_and(|entry| outside(&entry.pack)))
                        && node.subtree.is_none_or(|subtree| self.is_free_of(subtree, packs, seen))
                })
            });
        seen.insert(tree, free);
        free
    }
}
