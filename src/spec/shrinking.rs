//! When a run is suspect: what may come and go, and how far something may fall from one run to the next.

use globset::{Glob, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::shrink::{Limits, Percent, Volatile};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shrinking {
    /// A table, collection, key space or folder that loses more than this share of its rows, documents, keys or files makes the
    /// run suspect; 50% if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_than: Option<Percent>,
    /// Those that held fewer are not watched for a fall; 1000 if not given. That one is gone is told however few it held.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u32>,
    /// Globs of what may be gone or fall: databases, tables, collections and queues, as `devstack show` names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volatile: Vec<String>,
}

impl Shrinking {
    pub fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits { at_least: self.at_least.map_or(usual.at_least, u64::from), by: self.more_than.unwrap_or(usual.by) }
    }

    /// What may come and go, ready to be asked.
    pub fn volatile(&self) -> Result<Volatile<'static>, globset::Error> {
        if self.volatile.is_empty() {
            return Ok(Volatile::default());
        }
        let mut globs = GlobSetBuilder::new();
        for pattern in &self.volatile {
            globs.add(Glob::new(pattern)?);
        }
        let globs: GlobSet = globs.build()?;
        Ok(Volatile::those(move |name| globs.is_match(name)))
    }
}
