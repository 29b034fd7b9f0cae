//! `devstack.yaml`: its types, its reading with diagnostics, its JSON Schema.

mod check;
mod cron;
pub mod diagnostic;
pub mod dotenv;
mod exposed;
pub mod file;
mod mask;
mod nearest;
mod node;
pub mod paths;
pub mod questions;
pub mod read;
mod runtime;
pub mod schedule;
pub mod schema;
pub mod exclude;
mod services;
mod shrinking;
mod source;
mod structure;
mod vault;
pub mod yaml;

pub use diagnostic::{Diagnostic, Look, Rejected, Severity};
pub use nearest::nearest;
pub use read::{Loaded, load, parse, parse_with_home};
