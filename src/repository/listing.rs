//! The canonical listing of a tree: one line an entry in the order of the paths. Its digest is what a manifest says of a
//! tree, so that its format may never change.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use rustic_core::DataId;
use rustic_core::repofile::{Node, NodeType};
use sha2::{Digest as _, Sha256};

use super::archive::{EntryKind, Xattr};
use super::audit::stored_bytes;
use super::chunks;
use super::error::RepositoryError;
use super::reader::{Reader, TreeWalk, content};
use super::store::hex;
use super::watched::watched;
use crate::model::cancel::Cancel;
use crate::model::ids::{Digest, SnapshotId};
use crate::model::units::ByteSize;

/// A tree in numbers, and the digest over its listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub digest: Digest,
    pub files: u64,
    pub folders: u64,
    pub symlinks: u64,
    /// Pipes, sockets and devices.
    pub others: u64,
    /// Plain bytes of all files.
    pub bytes: ByteSize,
}

impl Reader {
    /// The listing of a snapshot's tree. With `read`, every chunk is read and compared with its id as well; `progress` is
    /// told the plain bytes read so far, each chunk once however many files share it.
    pub fn listing(
        &self,
        snapshot: &SnapshotId,
        read: bool,
        cancel: &Cancel,
        progress: &dyn Fn(ByteSize),
    ) -> Result<Listing, RepositoryError> {
        let mut hash = Sha256::new();
        let mut listing =
            Listing { digest: Digest::new(""), files: 0, folders: 0, symlinks: 0, others: 0, bytes: ByteSize(0) };
        let mut chunks = HashSet::new();
        for found in TreeWalk::new(&self.repository, self.snapshot(snapshot)?.tree) {
            let (path, node) = found.map_err(|(path, fault)| content(snapshot, &path, fault))?;
            if cancel.is_cancelled() {
                return Err(RepositoryError::Interrupted);
            }
            let ids = node.content.as_deref().unwrap_or_default();
            let bytes = stored_bytes(ids, &self.repository).map_err(|id| RepositoryError::Content {
                snapshot: snapshot.clone(),
                path: path.clone(),
                why: format!("the index does not have its chunk {id}"),
                pack: None,
                source: None,
            })?;
            match node.node_type {
                NodeType::File => listing.files += 1,
                NodeType::Dir => listing.folders += 1,
                NodeType::Symlink { .. } => listing.symlinks += 1,
                NodeType::Fifo | NodeType::Socket | NodeType::Dev { .. } | NodeType::Chardev { .. } => {
                    listing.others += 1;
                }
            }
            listing.bytes = listing.bytes + ByteSize(bytes);
            hash.update(line(&path, &node, bytes));
            if read {
                chunks.extend(ids.iter().copied());
            }
        }
        listing.digest = Digest::new(hex::encode(hash.finalize()));
        if read {
            self.read_chunks(snapshot, chunks, cancel, progress)?;
        }
        Ok(listing)
    }

    fn read_chunks(
        &self,
        snapshot: &SnapshotId,
        ids: HashSet<DataId>,
        cancel: &Cancel,
        progress: &dyn Fn(ByteSize),
    ) -> Result<(), RepositoryError> {
        let read = AtomicU64::new(0);
        let failed = watched(&read, progress, || chunks::read_all(&self.repository, ids, &read, cancel));
        if cancel.is_cancelled() {
            return Err(RepositoryError::Interrupted);
        }
        let Some((id, fault)) = failed.into_iter().next() else { return Ok(()) };
        // Seldom needed, so that the paths of the chunks are not kept all along.
        let tree = self.snapshot(snapshot)?.tree;
        let hurt = TreeWalk::new(&self.repository, tree)
            .flatten()
            .find(|(_, node)| node.content.as_deref().unwrap_or_default().contains(&id))
            .map(|(path, _)| path);
        Err(content(snapshot, &hurt.unwrap_or_else(|| "/".into()), fault))
    }
}

/// Type, mode, owner, group, size, mtime in nanoseconds, link target, chunks and path, by tabs. Bytes that are not plain
/// ASCII are escaped, so that a name with a newline is no second line.
fn line(path: &Path, node: &Node, bytes: u64) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let (kind, detail) = match &node.node_type {
        NodeType::File => ("file", String::new()),
        NodeType::Dir => ("folder", String::new()),
        NodeType::Symlink { .. } => {
            ("symlink", node.node_type.to_link().as_os_str().as_bytes().escape_ascii().to_string())
        }
        NodeType::Fifo => ("fifo", String::new()),
        NodeType::Socket => ("socket", String::new()),
        NodeType::Chardev { device } => ("chardev", device.to_string()),
        NodeType::Dev { device } => ("blockdev", device.to_string()),
    };
    let mtime = node.meta.mtime.map_or_else(|| "-".to_owned(), |time| time.as_nanosecond().to_string());
    let mut line = format!(
        "{kind}\t{:04o}\t{}\t{}\t{bytes}\t{mtime}\t{detail}\t",
        unix_mode(node.meta.mode),
        number(node.meta.uid),
        number(node.meta.gid),
    );
    for (place, id) in node.content.iter().flatten().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(line, "{}{}", if place == 0 { "" } else { "," }, hex(id));
    }
    let _ = writeln!(line, "\t{}", path.as_os_str().as_bytes().escape_ascii());
    line
}

/// restic keeps modes as Go does, with the type in the high bits and set-user-id, set-group-id and sticky elsewhere.
const GO_SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

pub(super) fn go_mode(mode: u32, kind: &EntryKind) -> u32 {
    let type_bits = match kind {
        EntryKind::Stream(_) | EntryKind::LocalFile(_) => 0,
        EntryKind::Folder => 1 << 31,
        EntryKind::Symlink(_) => 1 << 27,
        EntryKind::BlockDevice(_) => 1 << 26,
        EntryKind::CharDevice(_) => 1 << 26 | 1 << 21,
        EntryKind::Fifo => 1 << 25,
        EntryKind::Socket => 1 << 24,
    };
    let special = GO_SPECIAL.iter().filter(|(unix, _)| mode & unix != 0).map(|(_, go)| go).sum::<u32>();
    type_bits | special | mode & 0o777
}

pub(super) fn unix_mode(mode: Option<u32>) -> u32 {
    let mode = mode.unwrap_or(0);
    GO_SPECIAL.iter().filter(|(_, go)| mode & go != 0).map(|(unix, _)| unix).sum::<u32>() | mode & 0o777
}

/// The library's type for them cannot be named from outside it; the JSON that it is stored as can.
pub(super) fn attributes<T: serde::de::DeserializeOwned>(xattrs: &[Xattr]) -> Result<T, serde_json::Error> {
    use base64::Engine as _;
    let encoded = |value: &[u8]| base64::engine::general_purpose::STANDARD.encode(value);
    let all = xattrs.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": encoded(value) }));
    serde_json::from_value(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_come_back_from_restics_form() {
        for mode in [0, 0o644, 0o4755, 0o2770, 0o1777, 0o7777] {
            assert_eq!(unix_mode(Some(go_mode(mode, &EntryKind::Folder))), mode);
        }
        assert_eq!(go_mode(0o1777, &EntryKind::Folder), 0o20000000777 | 1 << 20);
    }
}
