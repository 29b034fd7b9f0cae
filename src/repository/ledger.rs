//! What was yielded to an archive and what became of it, small enough for a million files: paths share their beginnings
//! with the one before, so that an entry costs some 24 bytes and the end of its path.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::archive::StreamAccount;
use super::error::RepositoryError;

/// Enough to see a pattern; a million permission errors are one message, not a million.
const MOST_FINDINGS: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Stream,
    Folder,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Handed to the library. A local file that stays so was taken over from the parent.
    Listed,
    /// Opened, and not yet at its end.
    Reading,
    /// Read to its end without error.
    Ended,
    /// Listed, and not there when it was opened.
    Vanished,
    /// Its fault is noted.
    Failed,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// How many bytes of its path are those of the row before.
    shared: u32,
    suffix: u32,
    pub kind: Kind,
    pub state: State,
    /// Bytes read; until then, a local file's size when it was listed.
    pub bytes: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    suffixes: Vec<u8>,
    pub rows: Vec<Row>,
    last: PathBuf,
    pub faults: Faults,
    pub streams: BTreeMap<usize, StreamAccount>,
    pub vanished: Vec<PathBuf>,
}

impl Ledger {
    /// Adds an entry and gives its row; None where its path is not one that may follow.
    pub fn list(&mut self, path: &Path, kind: Kind, size: u64) -> Option<usize> {
        if !is_plain(path) {
            self.faults.add(path, "is no absolute path of plain names", false);
            return None;
        }
        // The library compares with the parent, and restic checks, in this order; out of it entries would be lost.
        if !self.rows.is_empty() && path <= self.last.as_path() {
            self.faults.add(path, &format!("was listed after {}, out of order", self.last.display()), false);
            return None;
        }
        // The library would make a folder beside it, of the same name, and no folder can hold the two.
        if self.rows.last().is_some_and(|last| last.kind != Kind::Folder) && path.starts_with(&self.last) {
            self.faults.add(path, &format!("lies in {}, which is no folder", self.last.display()), false);
            return None;
        }
        let (bytes, last) = (path.as_os_str().as_bytes(), self.last.as_os_str().as_bytes());
        let shared = bytes.iter().zip(last).take_while(|(a, b)| a == b).count();
        let suffix = &bytes[shared..];
        let (Ok(shared), Ok(length)) = (u32::try_from(shared), u32::try_from(suffix.len())) else {
            self.faults.add(path, "has a path of more than four gigabytes", false);
            return None;
        };
        self.suffixes.extend_from_slice(suffix);
        self.rows.push(Row { shared, suffix: length, kind, state: State::Listed, bytes: size });
        self.last = path.to_owned();
        Some(self.rows.len() - 1)
    }

    /// The rows with their paths, in order.
    pub fn walk(&self) -> Walk<'_> {
        Walk { ledger: self, row: 0, offset: 0, path: Vec::new() }
    }
}

/// `/` and names, none of them `..`: what can be stored, and restored beneath a folder.
fn is_plain(path: &Path) -> bool {
    use std::path::Component;
    let mut components = path.components();
    components.next() == Some(Component::RootDir)
        && components.clone().next().is_some()
        && components.all(|component| matches!(component, Component::Normal(_)))
}

pub(super) struct Walk<'a> {
    ledger: &'a Ledger,
    row: usize,
    offset: usize,
    path: Vec<u8>,
}

impl Iterator for Walk<'_> {
    type Item = (PathBuf, Row);

    fn next(&mut self) -> Option<Self::Item> {
        let row = *self.ledger.rows.get(self.row)?;
        let end = self.offset + row.suffix as usize;
        self.path.truncate(row.shared as usize);
        self.path.extend_from_slice(&self.ledger.suffixes[self.offset..end]);
        (self.row, self.offset) = (self.row + 1, end);
        Some((PathBuf::from(OsStr::from_bytes(&self.path)), row))
    }
}

/// What was found wrong: the first twenty in words, and how many more.
#[derive(Default)]
pub(super) struct Faults {
    findings: Vec<String>,
    more: u64,
    /// All of them are sources that changed while they were read, or this is still empty.
    not_changed: bool,
}

impl Faults {
    pub fn from_findings(findings: Vec<String>, more: u64, changed: bool) -> Self {
        Self { findings, more, not_changed: !changed }
    }

    /// `changed`: the source moved under the reader, so that another try may do better.
    pub fn add(&mut self, path: &Path, what: &str, changed: bool) {
        self.not_changed |= !changed;
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(format!("{} {what}", path.display()));
        } else {
            self.more += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn into_error(self) -> RepositoryError {
        let Self { findings, more, not_changed } = self;
        RepositoryError::Incomplete { findings, more, changed: !not_changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_gives_back_the_paths_it_was_given() {
        let mut ledger = Ledger::default();
        let paths = ["/a", "/a/b", "/a/b/c", "/a.txt", "/ab", "/b"];
        for path in paths {
            assert!(ledger.list(Path::new(path), Kind::Folder, 0).is_some(), "{path}");
        }
        assert_eq!(ledger.walk().map(|(path, _)| path).collect::<Vec<_>>(), paths.map(PathBuf::from));
        assert!(ledger.faults.is_empty());
    }

    #[test]
    fn what_lies_in_something_that_is_no_folder_is_a_fault() {
        for kind in [Kind::Symlink, Kind::File, Kind::Fifo] {
            let mut ledger = Ledger::default();
            ledger.list(Path::new("/a"), Kind::Folder, 0);
            ledger.list(Path::new("/a/link"), kind, 0);
            for inside in ["/a/link/b", "/a/link/c/d"] {
                assert!(ledger.list(Path::new(inside), Kind::File, 0).is_none(), "{inside}");
            }
            assert!(ledger.list(Path::new("/a/link.d"), Kind::File, 0).is_some());
            assert!(!ledger.faults.is_empty());
        }
    }

    #[test]
    fn what_is_out_of_order_or_not_plain_is_a_fault() {
        let mut ledger = Ledger::default();
        ledger.list(Path::new("/b"), Kind::File, 0);
        for wrong in ["/a", "/b", "c", "/c/../d", "/"] {
            assert!(ledger.list(Path::new(wrong), Kind::File, 0).is_none(), "{wrong}");
        }
        assert!(
            matches!(ledger.faults.into_error(), RepositoryError::Incomplete { findings, .. } if findings.len() == 5)
        );
    }
}
