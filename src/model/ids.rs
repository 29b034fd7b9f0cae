//! Names and ids. Each is a type of its own, so that a run's id cannot be passed where a snapshot's is meant.

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

impl PolicyName {
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
