//! Plans as people and programs read them. Pure text: the time zone is the caller's, no colour, no width is looked up.

mod describe;
mod dot;
mod drill;
mod escape;
mod json;
mod markdown;
mod mermaid;
mod recovery;
mod runbook;
mod summary;
mod text;

pub(crate) use describe::count;
pub use dot::dot;
pub use drill::drilled;
pub use escape::printable;
pub use json::{json, json_with_verdict};
pub use markdown::{LONGEST_COMMENT, markdown, marker};
pub use mermaid::mermaid;
pub use recovery::recovery;
pub use runbook::{Book, runbook};
pub use summary::summary;
pub use text::{TextOptions, alarms, standing, text};
