//! The stored tree against the ledger: both are in the same order, so that one pass over each finds every difference.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use rustic_core::repofile::{Node, NodeType};
use rustic_core::{DataId, TreeId};

use super::ledger::{Kind, Ledger, Row, State};
use super::reader::TreeWalk;
use super::store::Indexed;

/// What the tree holds.
#[derive(Default)]
pub(super) struct Totals {
    pub files: u64,
    pub bytes: u64,
}

/// Walks the tree and notes every difference in the ledger's faults. Read after the archive, from the index as it is on
/// disk: what it does not find there, a restore would not find either.
pub(super) fn audit(ledger: &mut Ledger, repository: &Indexed, tree: TreeId) -> Totals {
    let mut faults = std::mem::take(&mut ledger.faults);
    let mut fault = |path: &Path, what: &str| faults.add(path, what, false);
    let mut totals = Totals::default();
    let mut expected = ledger.walk().peekable();
    for found in TreeWalk::new(repository, tree) {
        let (path, node) = match found {
            Ok(found) => found,
            Err((path, error)) => {
                fault(&path, &format!("was stored as a folder that cannot be read back: {}", error.why));
                continue;
            }
        };
        loop {
            match expected.peek().map(|(listed, _)| listed.cmp(&path)) {
                Some(Ordering::Less) => {
                    // Peeked just now.
                    if let Some((listed, row)) = expected.next() {
                        missing(&listed, row, &mut fault);
                    }
                }
                Some(Ordering::Equal) => {
                    if let Some((_, row)) = expected.next() {
                        compare(&path, row, &node, repository, &mut totals, &mut fault);
                    }
                    break;
                }
                // A folder that nobody listed and that something listed lies in was made by the library.
                Some(Ordering::Greater) if node.is_dir() && leads_to(&path, expected.peek()) => break,
                Some(Ordering::Greater) | None => {
                    fault(&path, "is in the snapshot and was not listed");
                    break;
                }
            }
        }
    }
    for (listed, row) in expected {
        missing(&listed, row, &mut fault);
    }
    ledger.faults = faults;
    totals
}

fn leads_to(folder: &Path, next: Option<&(PathBuf, Row)>) -> bool {
    next.is_some_and(|(path, _)| path.starts_with(folder))
}

fn missing(path: &Path, row: Row, fault: &mut impl FnMut(&Path, &str)) {
    match row.state {
        // The one is no error, the fault of the other is noted already.
        State::Vanished | State::Failed => {}
        State::Listed | State::Reading | State::Ended => fault(path, "was listed and is not in the snapshot"),
    }
}

fn compare(
    path: &Path,
    row: Row,
    node: &Node,
    repository: &Indexed,
    totals: &mut Totals,
    fault: &mut impl FnMut(&Path, &str),
) {
    let same_kind = match (&node.node_type, row.kind) {
        (NodeType::File, Kind::File | Kind::Stream) => true,
        (NodeType::Dir, Kind::Folder) => node.subtree.is_some(),
        (NodeType::Symlink { .. }, Kind::Symlink)
        | (NodeType::Fifo, Kind::Fifo)
        | (NodeType::Socket, Kind::Socket)
        | (NodeType::Chardev { .. }, Kind::CharDevice)
        | (NodeType::Dev { .. }, Kind::BlockDevice) => true,
        (
            NodeType::File
            | NodeType::Dir
            | NodeType::Symlink { .. }
            | NodeType::Fifo
            | NodeType::Socket
            | NodeType::Chardev { .. }
            | NodeType::Dev { .. },
            _,
        ) => false,
    };
    if !same_kind {
        return fault(path, &format!("was stored as another kind ({})", node.node_type));
    }
    if !matches!(row.kind, Kind::File | Kind::Stream) {
        return;
    }
    match (row.state, row.kind) {
        (State::Ended, _) | (State::Listed, Kind::File) => {}
        (State::Listed, _) => return fault(path, "is a stream and was not read"),
        (State::Reading, _) => return fault(path, "was not read to its end"),
        (State::Vanished, _) => return fault(path, "was gone when it was opened, and is in the snapshot"),
        // Noted where it failed.
        (State::Failed, _) => return,
    }
    match stored_bytes(node.content.as_deref().unwrap_or_default(), repository) {
        Ok(bytes) if bytes == row.bytes => {
            totals.files += 1;
            totals.bytes += bytes;
        }
        Ok(bytes) => fault(path, &format!("was stored with {bytes} bytes, and has {}", row.bytes)),
        Err(id) => fault(path, &format!("was stored with the chunk {id}, which the index does not have")),
    }
}

/// The sum of the chunks' plain lengths, or the first chunk that is not in the index.
pub(super) fn stored_bytes(chunks: &[DataId], repository: &Indexed) -> Result<u64, String> {
    chunks.iter().try_fold(0, |sum, id| match repository.get_index_entry(id) {
        Ok(entry) => Ok(sum + u64::from(entry.data_length())),
        Err(_) => Err(super::store::hex(id)),
    })
}
