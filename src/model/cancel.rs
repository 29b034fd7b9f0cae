//! A word to stop that long work asks for between two pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by whoever may interrupt and whoever may be interrupted. Once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The error that a reader gives when it is told to stop, so that an archive in progress ends.
    pub fn check(&self) -> std::io::Result<()> {
        if self.is_cancelled() { Err(std::io::Error::other("interrupted")) } else { Ok(()) }
    }
}
