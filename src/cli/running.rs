//! A verb that works for a while: its threads, and the word to stop that Ctrl-C and SIGTERM give.

use tokio::runtime::{Builder, Runtime};

use super::error::{Exit, Failure};
use crate::apply::interrupt::{self, Interruption};
use crate::model::cancel::Cancel;

pub(super) struct Running {
    pub(super) runtime: Runtime,
    pub(super) cancel: Cancel,
}

impl Running {
    pub(super) fn start() -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::caused(Exit::Unexpected, "starting", &error))?;
        Ok(Self { runtime, cancel: Cancel::new() })
    }

    /// From here on a signal ends the work in order. Before, while somebody is being asked, it ends the process at once:
    /// nothing has been done, and the lease of a process that is gone is taken over.
    pub(super) fn listen(&self) -> Result<Interruption, Failure> {
        let cancel = self.cancel.clone();
        self.runtime
            .block_on(async { interrupt::listen(cancel, |text| eprintln!("{text}")) })
            .map_err(|error| Failure::caused(Exit::Unexpected, "listening for signals", &error))
    }
}
