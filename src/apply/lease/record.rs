//! The objects of leases: what stands in one, and which of those that are there still live.

use std::collections::BTreeSet;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EXPIRY, Order};
use crate::apply::host::{Holder, Host};
use crate::model::ids::{LeaseId, StackName};
use crate::model::observation::LeaseFact;
use crate::model::units::Span;
use crate::repository::objects::Objects;

pub(super) const PREFIX: &str = "leases/";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Of one stack; other stacks may have theirs.
    Shared,
    /// For a deletion: no other stack may have one.
    Exclusive,
}

/// What a lease's object says, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    pub format: u32,
    pub kind: Kind,
    pub id: LeaseId,
    pub stack: StackName,
    pub holder: Holder,
    pub acquired: Timestamp,
    pub renewed: Timestamp,
    pub expires: Timestamp,
}

impl LeaseRecord {
    pub fn new(kind: Kind, id: LeaseId, stack: StackName, holder: Holder, now: Timestamp) -> Self {
        Self { format: FORMAT, kind, id, stack, holder, acquired: now, renewed: now, expires: EXPIRY.after(now) }
    }

    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::other)
    }

    /// None for what is no lease of this format.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.format == FORMAT)
    }
}

/// The name says whose it is for people who list the folder; what counts is the content.
pub(super) fn name_of(kind: Kind, stack: &StackName, id: &LeaseId) -> String {
    match kind {
        Kind::Shared => format!("{PREFIX}{stack}.{id}"),
        Kind::Exclusive => format!("{PREFIX}exclusive.{id}"),
    }
}

/// An object that was found among the leases.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub name: String,
    /// From the name where the content can't be read, like the stack.
    pub id: LeaseId,
    pub stack: StackName,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Readable(Box<LeaseRecord>),
    /// Cut off, or of a newer devstack. It counts as live, until `devstack unlock`: the other way two could write.
    Unreadable,
}

impl Seen {
    fn new(name: String, bytes: &[u8]) -> Self {
        match LeaseRecord::parse(bytes) {
            Some(record) => {
                let (id, stack) = (record.id.clone(), record.stack.clone());
                Self { name, id, stack, body: Body::Readable(Box::new(record)) }
            }
            None => {
                let bare = name.strip_prefix(PREFIX).unwrap_or(&name);
                let (stack, id) = bare.rsplit_once('.').unwrap_or((bare, bare));
                let (stack, id) = (StackName::new(stack), LeaseId::new(id));
                Self { name, id, stack, body: Body::Unreadable }
            }
        }
    }

    pub fn is_live(&self, now: Timestamp, here: &Host) -> bool {
        match &self.body {
            Body::Readable(record) => record.expires > now && !record.holder.is_dead(here),
            Body::Unreadable => true,
        }
    }

    pub fn is_exclusive(&self) -> bool {
        match &self.body {
            Body::Readable(record) => record.kind == Kind::Exclusive,
            Body::Unreadable => self.name.starts_with(&name_of(Kind::Exclusive, &self.stack, &LeaseId::new(""))),
        }
    }

    pub fn order(&self) -> Option<Order> {
        match &self.body {
            Body::Readable(record) => Some((record.acquired, record.id.clone())),
            Body::Unreadable => None,
        }
    }

    /// How far in the future it was renewed, beyond what clocks may differ.
    pub fn ahead(&self, now: Timestamp) -> Option<Span> {
        match &self.body {
            Body::Readable(record) => Some(Span::between(now, record.renewed)).filter(|ahead| *ahead > EXPIRY),
            Body::Unreadable => None,
        }
    }

    /// `stack shop, ada@tower pid 4711`.
    pub fn describe(&self) -> String {
        match &self.body {
            Body::Readable(record) => format!("stack {}, {}", record.stack, record.holder.describe()),
            Body::Unreadable => format!("stack {}, by an object that can't be read ({})", self.stack, self.name),
        }
    }

    pub fn fact(&self, now: Timestamp, here: &Host) -> LeaseFact {
        let (owner, expires) = match &self.body {
            Body::Readable(record) => (record.holder.describe(), record.expires),
            // It does not expire.
            Body::Unreadable => (format!("unreadable ({})", self.name), Timestamp::MAX),
        };
        let owner = if self.is_exclusive() { format!("{owner} (exclusive)") } else { owner };
        let owner = match self.ahead(now) {
            Some(ahead) => format!("{owner}, by a clock that is {ahead} ahead of this one"),
            None => owner,
        };
        LeaseFact { id: self.id.clone(), stack: self.stack.clone(), owner, expires, alive: self.is_live(now, here) }
    }
}

/// All leases in a repository, by name. The names are listed twice: a renewal replaces its object, and a folder that is
/// read while a file in it is being replaced may show it under neither its old place nor its new one.
pub(super) fn survey(objects: &dyn Objects) -> io::Result<Vec<Seen>> {
    let names: BTreeSet<String> = objects.list(PREFIX)?.into_iter().chain(objects.list(PREFIX)?).collect();
    let mut seen = Vec::new();
    for name in names {
        // Gone between the two: released.
        if let Some(bytes) = objects.get(&name)? {
            seen.push(Seen::new(name, &bytes));
        }
    }
    Ok(seen)
}
