//! The restic-format store: the only room that knows rustic_core.

pub mod objects;
