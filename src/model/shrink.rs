//! What a source has lost since the run before: databases, tables, collections and queues that are gone, and those that hold far
//! less. Counted thing by thing: a table of half a database may go, and the bytes hardly show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::run::{Artifact, Shrink, Taken};

/// One thing that is gone, or that fell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrunk {
    pub name: String,
    pub kind: Kind,
    pub from: u64,
    /// None of what is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// What is counted in a thing. A database and a queue are only there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Database,
    Rows,
    Documents,
    Queue,
    Keys,
    Files,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = (&self.name, self.kind.unit());
        match (self.kind, self.to) {
            (Kind::Database, _) => write!(f, "the database {name}: gone, had {} {unit}", thousands(self.from)),
            (Kind::Queue, _) => write!(f, "the queue {name}: gone"),
            (_, None) => write!(f, "{name}: gone, had {} {unit}", thousands(self.from)),
            (_, Some(to)) if name.is_empty() => write!(f, "{} {unit}, had {}", thousands(to), thousands(self.from)),
            (_, Some(to)) => write!(f, "{name}: {} {unit}, had {}", thousands(to), thousands(self.from)),
        }
    }
}

impl Kind {
    fn unit(self) -> &'static str {
        match self {
            Self::Database | Self::Rows => "rows",
            Self::Documents => "documents",
            Self::Queue => "",
            Self::Keys => "keys without an expiry",
            Self::Files => "files",
        }
    }
}

/// `20,000`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A share of something, as the file writes it: `50%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    pub const HALF: Self = Self(50);
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no share: write a whole number from 1 to 99 and a percent sign, such as 50%")]
pub struct PercentError(String);

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        number.filter(|number| (1..100).contains(number)).map(Self).ok_or_else(|| PercentError(text.to_owned()))
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}%", self.0))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A whole number and a percent sign: 50%.", "pattern": "^[1-9][0-9]?%$" })
    }
}

/// When a source is suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Things that held less than this are not watched for a fall; for being gone, they are.
    pub at_least: u64,
    /// A fall by more than this.
    pub by: Percent,
}

impl Default for Limits {
    fn default() -> Self {
        Self { at_least: 1000, by: Percent::HALF }
    }
}

/// What the file says may be gone or fall: asked with each name that a thing goes by.
#[derive(Default)]
pub struct Volatile<'v>(Option<Named<'v>>);

/// Whether a name is among them.
type Named<'v> = Box<dyn Fn(&str) -> bool + 'v>;

impl<'v> Volatile<'v> {
    pub fn those(named: impl Fn(&str) -> bool + 'v) -> Self {
        Self(Some(Box::new(named)))
    }

    /// Whether nothing is volatile.
    fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub fn has(&self, database: Option<&str>, name: &str) -> bool {
        let Some(named) = &self.0 else { return false };
        let whole = database.map(|database| format!("{database}.{name}"));
        let names = [database, Some(name).filter(|name| !name.is_empty()), whole.as_deref()];
        // `orders` for `public.orders`, and for `shop.orders` of MySQL.
        let last = name.rsplit_once('.').map(|(_, last)| last);
        names.into_iter().chain([last]).flatten().any(named)
    }
}

/// The verdict on a source: what of `before` is gone from `after` or fell, or that half of its bytes are gone where these say
/// something.
pub fn of(before: &Taken, after: &Taken, limits: Limits, volatile: &Volatile<'_>) -> Option<Shrink> {
    let things = shrunk(before, after, limits, volatile);
    let (from, to) = (before.bytes(), after.bytes());
    // Of keys that expire, messages that are read and whatever else may come and go, the bytes say nothing.
    let bytes_tell = volatile.is_none() && !matches!(after.engine.as_str(), "redis" | "rabbitmq");
    let halved = bytes_tell && to.0 < from.0 / 2;
    (halved || !things.is_empty()).then_some(Shrink { from, to, things })
}

/// What a source holds now, by name: nobody has counted it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Present {
    /// Of a server whose databases are taken one by one, as its artifacts call them.
    pub databases: BTreeSet<String>,
    /// As the counts of a run call them, with their databases.
    pub tables: BTreeSet<(Option<String>, String)>,
}

/// What of `before` is not there any more, before any run has found it missing.
pub fn gone(before: &Taken, present: &Present, volatile: &Volatile<'_>) -> Vec<Shrunk> {
    let old = Things::of(before);
    let mut found = old.without(&present.databases, volatile);
    for (thing, from) in old.things.iter().filter(|(thing, _)| thing.kind == Kind::Rows) {
        let database = thing.database.as_deref();
        let of_gone = database.is_some_and(|database| !present.databases.contains(database));
        let here = present.tables.contains(&(thing.database.clone(), thing.name.clone()));
        if !here && !of_gone && !volatile.has(database, &thing.name) {
            found.push(Shrunk { name: thing.shown(), kind: thing.kind, from: *from, to: None });
        }
    }
    found
}

/// What `after` has lost of `before`. Only exact counts are compared, and nothing that may come and go.
pub fn shrunk(before: &Taken, after: &Taken, limits: Limits, volatile: &Volatile<'_>) -> Vec<Shrunk> {
    if before.engine != after.engine {
        return Vec::new();
    }
    let (old, new) = (Things::of(before), Things::of(after));
    let mut found = old.without(&new.databases, volatile);
    for (thing, from) in &old.things {
        let is_gone = |database: &str| old.databases.contains(database) && !new.databases.contains(database);
        let of_gone = thing.database.as_deref().is_some_and(is_gone);
        if of_gone || volatile.has(thing.database.as_deref(), &thing.name) {
            continue;
        }
        let to = new.things.get(thing).copied();
        let fell = |to: u64| {
            let lost = u128::from(from.saturating_sub(to));
            *from >= limits.at_least && lost * 100 > u128::from(*from) * u128::from(limits.by.0)
        };
        match to {
            // What a run of an older devstack or of another shape did not count is not gone.
            None if !new.kinds.contains(&thing.kind) => {}
            Some(to) if !fell(to) => {}
            to => found.push(Shrunk { name: thing.shown(), kind: thing.kind, from: *from, to }),
        }
    }
    found
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thing {
    database: Option<String>,
    name: String,
    kind: Kind,
}

impl Thing {
    fn shown(&self) -> String {
        match &self.database {
            Some(database) if !self.name.starts_with(&format!("{database}.")) => format!("{database}: {}", self.name),
            Some(_) | None => self.name.clone(),
        }
    }
}

#[derive(Default)]
struct Things {
    databases: BTreeSet<String>,
    things: BTreeMap<Thing, u64>,
    /// Those that the run counts at all.
    kinds: BTreeSet<Kind>,
}

impl Things {
    /// The databases that are not among these.
    fn without(&self, databases: &BTreeSet<String>, volatile: &Volatile<'_>) -> Vec<Shrunk> {
        let gone = self.databases.difference(databases).filter(|database| !volatile.has(Some(database), ""));
        let counted = gone.map(|database| {
            let rows = self.things.iter().filter(|(thing, _)| thing.database.as_ref() == Some(database));
            let from = rows.map(|(_, count)| count).sum();
            Shrunk { name: database.clone(), kind: Kind::Database, from, to: None }
        });
        counted.collect()
    }

    fn of(taken: &Taken) -> Self {
        let mut things = Self::default();
        let (mut keys, mut expiring) = (None, 0);
        for artifact in &taken.artifacts {
            let database = database_of(artifact);
            things.databases.extend(database.map(str::to_owned));
            let counts = artifact.counts.iter().filter(|(_, count)| count.exact);
            for (name, count) in counts {
                let mut add = |kind, database: Option<&str>, name: &str| {
                    let thing = Thing { database: database.map(str::to_owned), name: name.to_owned(), kind };
                    things.things.insert(thing, count.value);
                };
                match (taken.engine.as_str(), name.split_once(' ').unwrap_or((name, ""))) {
                    (_, ("rows", table)) => {
                        add(Kind::Rows, database.or_else(|| before_dot(table, &taken.engine)), table)
                    }
                    (_, ("documents", collection)) => add(Kind::Documents, database, collection),
                    (_, ("queue", queue)) => add(Kind::Queue, None, queue),
                    (_, ("tables", rest)) => things.databases.extend(rest.strip_prefix("in ").map(str::to_owned)),
                    ("redis", ("keys", "")) => *keys.get_or_insert(0) += count.value,
                    ("redis", ("keys", "with an expiry")) => expiring += count.value,
                    ("files" | "volume", ("files", "")) => add(Kind::Files, None, ""),
                    _ => {}
                }
            }
        }
        if let Some(keys) = keys {
            let lasting = Thing { database: None, name: String::new(), kind: Kind::Keys };
            things.things.insert(lasting, u64::saturating_sub(keys, expiring));
        }
        things.kinds = things.things.keys().map(|thing| thing.kind).collect();
        // Where there are none left that stay, none is named.
        if taken.artifacts.iter().any(|artifact| artifact.counts.contains_key("queues")) {
            things.kinds.insert(Kind::Queue);
        }
        // A database that lost its last table has none that could be counted, and they are gone all the same.
        if !things.databases.is_empty() {
            things.kinds.extend([Kind::Rows, Kind::Documents]);
        }
        if taken.artifacts.iter().any(|artifact| artifact.counts.contains_key("tables")) {
            things.kinds.insert(Kind::Rows);
        }
        things
    }
}

/// Of a server whose databases are streams of their own.
fn database_of(artifact: &Artifact) -> Option<&str> {
    let name = artifact.name.strip_prefix("/databases/")?;
    Some(name.rsplit_once('.').map_or(name, |(stem, _)| stem))
}

/// MySQL's dump is one stream, in which tables stand with their database.
fn before_dot<'t>(table: &'t str, engine: &str) -> Option<&'t str> {
    matches!(engine, "mysql" | "mariadb").then(|| table.split_once('.').map(|(database, _)| database)).flatten()
}

#[cfg(test)]
mod tests;
