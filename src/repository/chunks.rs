//! Reading chunks back: each is compared with the SHA-256 that is its id, and several are read at once.

use std::collections::HashSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use rustic_core::repofile::Tree;
use rustic_core::{BlobId, DataId, Id, PackedId, TreeId};
use sha2::{Digest, Sha256};

use super::error::Cause;
use super::store::{Indexed, hex};
use super::watched::workers;
use crate::model::cancel::Cancel;

/// Why a chunk or tree could not be read back.
#[derive(Debug)]
pub(super) struct BlobFault {
    pub why: String,
    /// The file of data that holds it, where its bytes are wrong or not there; none where nobody could read them.
    pub pack: Option<String>,
    pub source: Option<Cause>,
}

fn blob<I: PackedId>(repository: &Indexed, id: &I) -> Result<Bytes, BlobFault> {
    let (kind, pack) = (I::TYPE, repository.get_index_entry(id).ok().map(|entry| hex(&entry.pack)));
    let id: BlobId = (*id).into();
    let place = pack.as_ref().map_or_else(String::new, |pack| format!(" in data/{}/{pack}", &pack[..2]));
    let bytes = repository.cat_blob(kind, &hex(&id)).map_err(|error| {
        let source = Cause(error);
        // A disk that does not answer, or a folder that may not be read, says nothing of the bytes.
        let pack = pack.clone().filter(|_| !source.is_io());
        BlobFault { why: format!("its {kind} blob {}{place} cannot be read", short(&id)), pack, source: Some(source) }
    })?;
    // The encryption's own check says only that somebody with the key wrote it.
    if Sha256::digest(&bytes)[..] != hex::decode(hex(&id)).unwrap_or_default()[..] {
        let why = format!("its {kind} blob {}{place} has another hash than its id", short(&id));
        return Err(BlobFault { why, pack, source: None });
    }
    Ok(bytes)
}

fn short(id: &Id) -> String {
    hex(id)[..8].to_owned()
}

pub(super) fn chunk(repository: &Indexed, id: &DataId) -> Result<Bytes, BlobFault> {
    blob(repository, id)
}

pub(super) fn tree(repository: &Indexed, id: &TreeId) -> Result<Tree, BlobFault> {
    let bytes = blob(repository, id)?;
    let fault = |why| BlobFault { why, pack: None, source: None };
    let tree: Tree = serde_json::from_slice(&bytes)
        .map_err(|error| fault(format!("its tree {} is no tree: {error}", short(&BlobId::from(*id)))))?;
    match twice(tree.nodes.iter().map(|node| node.name().into_owned())) {
        None => Ok(tree),
        Some(name) => {
            Err(fault(format!("its tree {} has two entries called {}", short(&BlobId::from(*id)), name.display())))
        }
    }
}

/// A name that stands there twice: no folder can hold both, so that it can't be restored.
fn twice(mut names: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(name.clone()))
}

/// How many chunks each reading thread may be ahead. A chunk is at most 8 MiB by default, so that two threads hold at
/// most some 50 MiB.
const AHEAD: usize = 2;

/// Hands the chunks of one file to `sink` in order while the next are being read. Stops when `sink` breaks.
pub(super) fn in_order<B>(
    repository: &Indexed,
    ids: &[DataId],
    mut sink: impl FnMut(Result<Bytes, BlobFault>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let threads = workers().min(ids.len());
    if threads < 2 {
        return ids.iter().try_for_each(|id| sink(chunk(repository, id)));
    }
    thread::scope(|scope| {
        // Each thread reads every n-th chunk into a queue of its own; taking from the queues in turn gives them in order.
        let queues: Vec<_> = (0..threads)
            .map(|first| {
                let (send, receive) = mpsc::sync_channel(AHEAD);
                scope.spawn(move || {
                    for id in ids.iter().skip(first).step_by(threads) {
                        // Nobody listens any more: the sink has stopped.
                        if send.send(chunk(repository, id)).is_err() {
                            return;
                        }
                    }
                });
                receive
            })
            .collect();
        for turn in 0..ids.len() {
            let why = "the thread that read it is gone".to_owned();
            let lost = || Err(BlobFault { why: why.clone(), pack: None, source: None });
            sink(queues[turn % threads].recv().unwrap_or_else(|_| lost()))?;
        }
        ControlFlow::Continue(())
    })
}

/// Reads each chunk once, on all cores, and gives those that failed. `read` counts plain bytes.
pub(super) fn read_all(
    repository: &Indexed,
    ids: HashSet<DataId>,
    read: &AtomicU64,
    cancel: &Cancel,
) -> Vec<(DataId, BlobFault)> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    // Pack by pack, front to back: as the disk has them. What is not indexed comes first, and fails.
    ids.sort_by_cached_key(|id| repository.get_index_entry(id).ok().map(|entry| (*entry.pack, entry.location.offset)));
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed))
            && !cancel.is_cancelled()
        {
            match chunk(repository, id) {
                Ok(bytes) => drop(read.fetch_add(bytes.len() as u64, Ordering::Relaxed)),
                Err(fault) => failed.lock().unwrap_or_else(|poison| poison.into_inner()).push((*id, fault)),
            }
        }
    };
    thread::scope(|scope| (0..workers()).for_each(|_| drop(scope.spawn(work))));
    failed.into_inner().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_in_a_folder_is_found() {
        let of = |names: &[&str]| twice(names.iter().map(OsString::from));
        assert_eq!(of(&["a", "b", "a"]), Some("a".into()));
        assert_eq!(of(&["link", "link"]), Some("link".into()));
        assert_eq!(of(&["a", "A", "a ", "b"]), None);
        assert_eq!(of(&[]), None);
    }
}
