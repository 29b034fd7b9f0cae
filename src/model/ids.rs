//! Names and ids. Each is a type of its own, so that a run's id cannot be passed where a snapshot's is meant.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A string newtype with Display, FromStr and serde, as plain as the string inside.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `pad`, not `write_str`: tables ask for a width.
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(text.to_owned()))
            }
        }
    };
}

name!(
    /// The name of the whole stack; with a repository's id it is a plan's lineage.
    StackName
);
name!(
    /// A key of `services:` in the file.
    ServiceName
);
name!(
    /// A key of `backup:` in the file.
    PolicyName
);
name!(
    /// A key of `repositories:` in the file.
    RepositoryName
);
name!(
    /// One run of a policy: `20261123T145436Z-nightly`. Derived from the plan's own time, so that planning stays pure.
    RunId
);
name!(
    /// The restic id of a snapshot, 64 hexadecimal digits.
    SnapshotId
);
name!(
    /// The id in a repository's config, 64 hexadecimal digits.
    RepositoryId
);
name!(
    /// The restic id of a key file, 64 hexadecimal digits.
    KeyId
);
name!(
    /// SHA-256 over everything a plan says, 64 hexadecimal digits: what a saved plan is called and used once by.
    PlanId
);
name!(
    /// A lease's own random id: what `devstack unlock` must be given.
    LeaseId
);
name!(
    /// A container's id, 64 hexadecimal digits.
    ContainerId
);
name!(
    /// A SHA-256 in hexadecimal.
    Digest
);

impl RunId {
    /// A copy of what was about to be overwritten: its policy stands behind the time in its name, and no other may begin so.
    pub fn is_safety(&self) -> bool {
        self.0.split_once('-').is_some_and(|(_, policy)| policy.starts_with("safety-"))
    }

    /// In place of an id, as restic has it: the newest run. No run is called so, since ids begin with a time.
    pub const LATEST: &'static str = "latest";

    pub fn is_latest(&self) -> bool {
        self.as_str() == Self::LATEST
    }

    /// A beginning of an id stands for it where no other run begins so; it has to have the day, since a year or a month that
    /// names one run today names several tomorrow.
    const SHORTEST: usize = "20261124".len();

    /// Whether somebody who writes this may mean `run`: its id, or a beginning of it.
    pub fn may_mean(&self, run: &Self) -> bool {
        self == run || (self.0.len() >= Self::SHORTEST && run.0.starts_with(&self.0))
    }

    /// The one of `runs` that is meant; none if there is no such.
    pub fn among<'r>(&self, runs: impl IntoIterator<Item = &'r Self>) -> Result<Option<Self>, Misnamed> {
        let begin_so: BTreeSet<&Self> = runs.into_iter().filter(|run| run.0.starts_with(&self.0)).collect();
        match begin_so.iter().collect::<Vec<_>>().as_slice() {
            _ if begin_so.contains(self) => Ok(Some(self.clone())),
            [] => Ok(None),
            _ if self.0.len() < Self::SHORTEST => Err(Misnamed::TooShort { given: self.clone() }),
            [one] => Ok(Some((**one).clone())),
            _ => Err(Misnamed::Ambiguous { given: self.clone(), runs: begin_so.into_iter().cloned().collect() }),
        }
    }

    /// The id of the run that `policy` starts at `at`. The second suffices: one lease, one run of a policy at a time,
    /// and the plan's time moves on.
    pub fn at(at: jiff::Timestamp, policy: &PolicyName) -> Self {
        Self(format!("{}-{policy}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The id of the safety copy that a plan made at `at` has of `service`.
    pub fn of_safety(at: jiff::Timestamp, service: &ServiceName) -> Self {
        Self(format!("{}-{}-{service}", at.strftime("%Y%m%dT%H%M%SZ"), PolicyName::SAFETY))
    }
}

/// Why the beginning of an id names no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misnamed {
    #[error("{given} is too short to name a run: the beginning of an id needs at least the day, such as 20261124")]
    TooShort { given: RunId },
    #[error("{given} may be any of {} runs: {}", .runs.len(), some(.runs))]
    Ambiguous { given: RunId, runs: Vec<RunId> },
}

/// More than this nobody reads in an error.
const LISTED: usize = 6;

fn some(runs: &[RunId]) -> String {
    super::listed(&runs.iter().map(RunId::as_str).collect::<Vec<_>>(), LISTED)
}

impl PolicyName {
    /// Behind a policy's name: a run of some of its services only, for which somebody asked. No name in the file has a dot.
    const PART: &'static str = ".part";

    /// What stands in the place of this policy for a run of some of its services: such runs serve no slot, and take no place
    /// in the policy's retention.
    pub fn part(&self) -> Self {
        Self(format!("{self}{}", Self::PART))
    }

    pub fn is_part(&self) -> bool {
        self.0.ends_with(Self::PART)
    }

    /// The policy in the file whose run it is, or a part of whose run.
    pub fn whole(&self) -> Self {
        Self(self.0.strip_suffix(Self::PART).unwrap_or(&self.0).to_owned())
    }

    /// What stands in the place of a policy for what was there before a restore. The file can't declare one of that name.
    pub const SAFETY: &'static str = "safety";

    pub fn safety() -> Self {
        Self::new(Self::SAFETY)
    }

    /// Its runs are for going back, and never chosen by themselves.
    pub fn is_safety(&self) -> bool {
        self.as_str() == Self::SAFETY
    }
}

impl SnapshotId {
    /// The first eight digits, as restic prints them.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl PlanId {
    /// The first eight digits: enough to tell plans apart on a screen.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl RepositoryId {
    /// The first eight digits, as restic prints them.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl KeyId {
    /// The first eight digits, as restic prints them.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        use sha2::Digest as _;
        Self(hex::encode(sha2::Sha256::digest(bytes.as_ref())))
    }

    /// The first six digits: the file's digest in a plan's head line.
    pub fn short(&self) -> &str {
        self.0.get(..6).unwrap_or(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_a_beginning_that_no_other_has() {
        let ids = ["20261123T145436Z-nightly", "20261124T021500Z-nightly", "20261124T021500Z-nightly-big", "latecomer"];
        let runs = ids.map(RunId::new);
        let found = |given: &str| RunId::new(given).among(&runs);
        let is = |index: usize| Ok(Some(runs[index].clone()));
        assert_eq!([found("20261123"), found("20261124T021500Z-nightly-"), found(ids[0])], [is(0), is(2), is(0)]);
        // A whole id is itself, whatever else begins so; and one that is none of ours may be short.
        assert_eq!(
            [found(ids[1]), found("latecomer"), found("2027"), found("20261125")],
            [is(1), is(3), Ok(None), Ok(None)]
        );
        assert_eq!(
            [found("20261124").unwrap_err().to_string(), found("2026112").unwrap_err().to_string()],
            [
                "20261124 may be any of 2 runs: 20261124T021500Z-nightly, 20261124T021500Z-nightly-big",
                "2026112 is too short to name a run: the beginning of an id needs at least the day, such as 20261124"
            ]
        );
        assert!(matches!(found(""), Err(Misnamed::TooShort { .. })));
        let many: Vec<RunId> = (0..9).map(|n| RunId::new(format!("20261124T00000{n}Z-x"))).collect();
        assert!(RunId::new("20261124").among(&many).unwrap_err().to_string().ends_with("T000005Z-x and 3 more"));
    }

    #[test]
    fn a_part_of_a_policy_is_told_from_the_whole() {
        let nightly = PolicyName::new("nightly");
        assert_eq!(nightly.part().as_str(), "nightly.part");
        assert_eq!([nightly.part().whole(), nightly.whole()], [nightly.clone(), nightly.clone()]);
        assert!(nightly.part().is_part() && !nightly.is_part() && !PolicyName::safety().is_part());
    }
}
