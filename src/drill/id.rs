//! The name that everything of one drill begins with, and the label that it carries.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// On every container, volume and network of a drill, with the drill's id: by it the next drill finds what a killed one
/// left behind.
pub const LABEL: &str = "io.devstack.drill";

/// A drill's short random name: the Compose project, and the beginning of every volume's and network's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DrillId(String);

/// A name that Compose would change or refuse as a project's name, or that is too short to be one of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` can't be the name of a drill; give 4 to 32 of a-z, 0-9 and `-` that begin with a letter")]
pub struct BadDrillId {
    given: String,
}

impl DrillId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DrillId {
    type Err = BadDrillId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (4..=32).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
        if fits { Ok(Self(text.to_owned())) } else { Err(BadDrillId { given: text.to_owned() }) }
    }
}

impl fmt::Display for DrillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_compose_takes_as_a_project_is_a_name() {
        for right in ["drill-4f1c", "d123"] {
            assert_eq!(right.parse::<DrillId>().unwrap().as_str(), right);
        }
        for wrong in ["", "abc", "4f1c", "Drill-1", "drill_1", "drill.1", "drill 1", "drill/1", "-drill", "dri$l"] {
            assert!(wrong.parse::<DrillId>().unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }
}
