//! The restic-format store: the only room that knows rustic_core.

mod age_key;
mod archive;
mod audit;
mod chunks;
mod copy;
mod damage;
mod disk;
mod error;
mod facts;
pub mod gpg;
mod keys;
mod known;
mod ledger;
mod listing;
mod locks;
pub mod objects;
mod opening;
mod prune;
mod reader;
mod records;
mod restore;
mod rewritten;
mod site;
mod source;
mod sparse;
mod store;
mod structure;
mod tally;
mod watched;

pub use archive::{ArchiveRequest, Archived, Entry, EntryKind, EntryMeta, StreamAccount, Tags, Xattr};
pub use copy::Copied;
pub use damage::{Damage, FileKind, What};
pub use error::{Cause, RepositoryError};
pub use facts::UnreadableRecord;
pub use keys::{DeclaredKey, KeyMaterial};
pub use listing::Listing;
pub use prune::Pruned;
pub use reader::{NodeFacts, NodeKind, Reader};

pub use restore::{RESTORING, RestoreOptions, Restored};
pub use site::{Presence, Site};
pub use store::{ChunkSizes, Store, StoreOptions};
