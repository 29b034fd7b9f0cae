//! Keeps the journal from growing for ever: the older half goes, but for what the planner still learns from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::record::{Entry, JournalRecord};
use super::{JournalError, SAMPLES, failed, sync};

/// Replaces the journal by its newest half when it is larger than `largest` bytes. A kill leaves the old file or the
/// new one. The caller holds the journal's lock.
pub(super) fn compact_if_larger(path: &Path, largest: u64) -> Result<(), JournalError> {
    if fs::metadata(path).map_err(failed("looked at", path))?.len() <= largest {
        return Ok(());
    }
    let bytes = fs::read(path).map_err(failed("read", path))?;
    let half = usize::try_from(largest / 2).unwrap_or(usize::MAX);
    let staged = path.with_extension("new");
    let result = write_private(&staged, &kept(&bytes, half)).and_then(|()| fs::rename(&staged, path));
    result.map_err(failed("compacted", path))?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover of a kill may have any content and any mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The whole lines within the last `half` bytes; before them those of the rest that history still counts: the last
/// word on each repository, and the newest samples of keys that are rarely measured, such as restores.
fn kept(bytes: &[u8], half: usize) -> Vec<u8> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).collect();
    let mut repositories = BTreeSet::new();
    let mut samples: BTreeMap<String, usize> = BTreeMap::new();
    let mut size = 0;
    let mut newest_first = Vec::new();
    for line in lines.into_iter().rev() {
        size += line.len();
        let record = JournalRecord::parse(line);
        let counts = record.is_some_and(|record| match (&record.entry, record.sample()) {
            (Entry::RepositoryKnown { name, .. }, _) => repositories.insert(name.clone()),
            (_, Some((key, _))) => {
                let count = samples.entry(key.to_owned()).or_default();
                *count += 1;
                *count <= SAMPLES
            }
            (_, None) => false,
        });
        if size <= half || counts {
            newest_first.push(line);
        }
    }
    newest_first.into_iter().rev().flatten().copied().collect()
}
