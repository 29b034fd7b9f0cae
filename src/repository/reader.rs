//! Reading snapshots: streams, entries, and the walk over a tree that the others stand on.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustic_core::TreeId;
use rustic_core::repofile::{Node, NodeType, SnapshotFile};
use sha2::{Digest as _, Sha256};

use super::archive::StreamAccount;
use super::chunks::{self, BlobFault};
use super::error::RepositoryError;
use super::listing::unix_mode;
use super::site::Site;
use super::store::{Indexed, library_id};
use crate::model::cancel::Cancel;
use crate::model::ids::{Digest, SnapshotId};
use crate::model::units::ByteSize;

/// A repository with its whole index, for many reads at once. It does not see what is written after it was made.
#[derive(Clone)]
pub struct Reader {
    pub(super) site: Site,
    pub(super) repository: Arc<Indexed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    File,
    Folder,
    Symlink(PathBuf),
    Fifo,
    Socket,
    CharDevice(u64),
    BlockDevice(u64),
}

/// An entry of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    pub kind: NodeKind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Of a file: the plain bytes of its chunks.
    pub size: ByteSize,
    pub mtime: Option<Timestamp>,
}

impl Reader {
    pub(super) fn new(site: Site, repository: Arc<Indexed>) -> Self {
        Self { site, repository }
    }

    pub(super) fn snapshot(&self, snapshot: &SnapshotId) -> Result<SnapshotFile, RepositoryError> {
        let failed = |error| RepositoryError::store("read a snapshot", self.site.path(), error);
        let path = self.site.path().join("snapshots").join(snapshot.as_str());
        match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(RepositoryError::NoSuchSnapshot { snapshot: snapshot.clone() });
            }
            _ => {}
        }
        let id = library_id(snapshot.as_str()).map_err(failed)?;
        self.repository.get_file(&id).map_err(failed)
    }

    /// Writes a file of the snapshot to `out`, chunk by chunk, each compared with its id. `progress` is told the bytes
    /// written so far.
    pub fn read_stream(
        &self,
        snapshot: &SnapshotId,
        path: &str,
        out: &mut dyn Write,
        cancel: &Cancel,
        progress: &dyn Fn(ByteSize),
    ) -> Result<StreamAccount, RepositoryError> {
        let node = self.node(snapshot, path)?;
        if !node.is_file() {
            return Err(RepositoryError::NoSuchPath { snapshot: snapshot.clone(), path: format!("file {path}") });
        }
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        let ids = node.content.unwrap_or_default();
        let outcome = chunks::in_order(&self.repository, &ids, |chunk| {
            let chunk = match chunk {
                Ok(chunk) if !cancel.is_cancelled() => chunk,
                Ok(_) => return ControlFlow::Break(RepositoryError::Interrupted),
                Err(fault) => return ControlFlow::Break(content(snapshot, Path::new(path), fault)),
            };
            if let Err(source) = out.write_all(&chunk) {
                return ControlFlow::Break(RepositoryError::Sink { path: path.to_owned(), source });
            }
            hash.update(&chunk);
            bytes += chunk.len() as u64;
            progress(ByteSize(bytes));
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(error) = outcome {
            return Err(error);
        }
        out.flush().map_err(|source| RepositoryError::Sink { path: path.to_owned(), source })?;
        let sha256 = Digest::new(hex::encode(hash.finalize()));
        Ok(StreamAccount { path: path.into(), bytes: ByteSize(bytes), sha256 })
    }

    /// Every entry, folders before what is in them.
    pub fn entries(
        &self,
        snapshot: &SnapshotId,
    ) -> Result<impl Iterator<Item = Result<(PathBuf, NodeFacts), RepositoryError>>, RepositoryError> {
        let tree = self.snapshot(snapshot)?.tree;
        Ok(TreeWalk::new(&self.repository, tree).map(move |found| match found {
            Ok((path, node)) => Ok((path, self.facts(&node))),
            Err((path, fault)) => Err(content(snapshot, &path, fault)),
        }))
    }

    fn facts(&self, node: &Node) -> NodeFacts {
        let kind = match &node.node_type {
            NodeType::File => NodeKind::File,
            NodeType::Dir => NodeKind::Folder,
            NodeType::Symlink { .. } => NodeKind::Symlink(node.node_type.to_link().to_owned()),
            NodeType::Fifo => NodeKind::Fifo,
            NodeType::Socket => NodeKind::Socket,
            NodeType::Chardev { device } => NodeKind::CharDevice(*device),
            NodeType::Dev { device } => NodeKind::BlockDevice(*device),
        };
        let chunks = node.content.as_deref().unwrap_or_default();
        // Of a file with a chunk that is not indexed, what it had when it was listed.
        let size = super::audit::stored_bytes(chunks, &self.repository).unwrap_or(node.meta.size);
        NodeFacts {
            kind,
            mode: unix_mode(node.meta.mode),
            uid: node.meta.uid,
            gid: node.meta.gid,
            size: ByteSize(size),
            mtime: node.meta.mtime,
        }
    }

    /// The node at a path of the snapshot.
    pub(super) fn node(&self, snapshot: &SnapshotId, path: &str) -> Result<Node, RepositoryError> {
        let missing = || RepositoryError::NoSuchPath { snapshot: snapshot.clone(), path: path.to_owned() };
        let mut tree = Some(self.snapshot(snapshot)?.tree);
        let mut node = None;
        for name in Path::new(path).components().filter_map(|component| match component {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        }) {
            let id = tree.ok_or_else(missing)?;
            let nodes =
                chunks::tree(&self.repository, &id).map_err(|fault| content(snapshot, Path::new(path), fault))?.nodes;
            let found = nodes.into_iter().find(|node| node.name() == name).ok_or_else(missing)?;
            tree = found.subtree;
            node = Some(found);
        }
        node.ok_or_else(missing)
    }
}

pub(super) fn content(snapshot: &SnapshotId, path: &Path, fault: BlobFault) -> RepositoryError {
    let BlobFault { why, pack, source } = fault;
    let pack = pack.map(String::into_boxed_str);
    RepositoryError::Content { snapshot: snapshot.clone(), path: path.to_owned(), why, pack, source }
}

/// Every node of a tree with its path, folders before what is in them. A folder that cannot be read is told once, after
/// its own node, and left out.
pub(super) struct TreeWalk<'a> {
    repository: &'a Indexed,
    entered: Option<(PathBuf, TreeId)>,
    stack: Vec<(PathBuf, std::vec::IntoIter<Node>)>,
}

impl<'a> TreeWalk<'a> {
    pub fn new(repository: &'a Indexed, tree: TreeId) -> Self {
        Self { repository, entered: Some((PathBuf::from("/"), tree)), stack: Vec::new() }
    }
}

impl Iterator for TreeWalk<'_> {
    type Item = Result<(PathBuf, Node), (PathBuf, BlobFault)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((path, id)) = self.entered.take() {
            match chunks::tree(self.repository, &id) {
                Ok(tree) => self.stack.push((path, tree.nodes.into_iter())),
                Err(fault) => return Some(Err((path, fault))),
            }
        }
        loop {
            let (folder, nodes) = self.stack.last_mut()?;
            let Some(node) = nodes.next() else {
                self.stack.pop();
                continue;
            };
            let path = folder.join(node.name());
            if let (NodeType::Dir, Some(id)) = (&node.node_type, node.subtree) {
                self.entered = Some((path.clone(), id));
            }
            return Some(Ok((path, node)));
        }
    }
}
