//! Work on another thread while this one tells how far it is: the work's own threads never call back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::model::units::ByteSize;

/// Often enough for a line on a terminal to look alive, seldom enough to cost nothing.
const EVERY: Duration = Duration::from_millis(100);

/// Runs `work` and meanwhile tells `progress` what `counter` says: the bytes since the start.
pub(super) fn watched<T: Send>(counter: &AtomicU64, progress: &dyn Fn(ByteSize), work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let (alive, ended) = mpsc::channel::<()>();
        let worker = scope.spawn(move || {
            // Dropped when the work returns or panics; either ends the loop below.
            let _alive = alive;
            work()
        });
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
            progress(ByteSize(counter.load(Ordering::Relaxed)));
        }
        progress(ByteSize(counter.load(Ordering::Relaxed)));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Threads for work that is bound by the processor.
pub(super) fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
