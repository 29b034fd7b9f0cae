//! Damage that was seen in a repository: a fact until a later look at the same bytes says otherwise, or they are gone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::SnapshotId;

/// What is damaged. Only what a look has to read for is remembered: a file that is missing, or has another size than the index
/// says, is seen at every look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A file of data, by its id: its bytes.
    Pack(String),
    /// What a snapshot needs, of this stack or of anybody else's: its trees, and chunks that the index knows.
    Snapshot(SnapshotId),
}

impl Subject {
    /// Its part of the 256 in which a repository is read: the first byte of its id.
    pub fn part(&self) -> Option<u8> {
        let id = match self {
            Self::Pack(id) => id.as_str(),
            Self::Snapshot(id) => id.as_str(),
        };
        u8::from_str_radix(id.get(..2)?, 16).ok()
    }
}

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    pub subject: Subject,
    /// What was found, as a sentence that names the file or the snapshot.
    pub found: String,
    /// When it was seen so last.
    pub at: Timestamp,
}

/// All that is known to be damaged in a repository. It speaks of the repository and not of one stack: whoever finds that a file
/// is well again writes the next one for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DamageRecord {
    pub format: u32,
    pub at: Timestamp,
    pub known: Vec<Damaged>,
}

/// What a look has read: all of it that is not among what it found is well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// Packs were hashed whose ids begin with these bytes.
    pub packs: Vec<u8>,
    /// The trees of these snapshots were walked.
    pub snapshots: Vec<SnapshotId>,
}

impl Looked {
    fn at(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Pack(_) => subject.part().is_some_and(|part| self.packs.contains(&part)),
            Subject::Snapshot(id) => self.snapshots.contains(id),
        }
    }

    /// What is known after the look: what it found, and of what was known before that which it did not look at.
    pub fn after(&self, before: &[Damaged], found: Vec<Damaged>) -> Vec<Damaged> {
        let mut known = found;
        let kept = before.iter().filter(|old| !self.at(&old.subject));
        for old in kept {
            if !known.iter().any(|new| new.subject == old.subject) {
                known.push(old.clone());
            }
        }
        known.sort_by(|a, b| a.subject.cmp(&b.subject));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(id: &str, at: i64) -> Damaged {
        let found = format!("data/{id} does not have the hash that is its name");
        Damaged { subject: Subject::Pack(id.to_owned()), found, at: Timestamp::from_second(at).unwrap() }
    }

    fn snapshot(id: &str) -> Damaged {
        let found = format!("snapshot {id}: / cannot be listed");
        Damaged { subject: Subject::Snapshot(SnapshotId::new(id)), found, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn reading_other_parts_leaves_what_is_known_of_a_part_and_reading_it_well_clears_it() {
        let known = [pack("ab01", 1), snapshot("ab02")];
        let other = Looked { packs: vec![0xac], snapshots: vec![] };
        assert_eq!(other.after(&known, vec![]), known, "another part says nothing of this one");
        let same = Looked { packs: vec![0xab], snapshots: vec![] };
        assert_eq!(same.after(&known, vec![]), [snapshot("ab02")], "its bytes were read, and are well");
        let trees = Looked { packs: vec![], snapshots: vec![SnapshotId::new("ab02")] };
        assert_eq!(trees.after(&known, vec![]), [pack("ab01", 1)], "its trees were walked, and are well");
    }

    #[test]
    fn what_is_found_again_is_known_once_with_the_later_time_and_what_is_new_is_added() {
        let look = Looked { packs: vec![0xab], snapshots: vec![] };
        let found = vec![pack("ab01", 7), pack("ab09", 7)];
        assert_eq!(
            look.after(&[pack("ab01", 1), pack("ff01", 1)], found),
            [pack("ab01", 7), pack("ab09", 7), pack("ff01", 1)]
        );
    }
}
