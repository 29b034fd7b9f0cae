//! Ctrl-C and SIGTERM: a word to stop, never a way to be torn away from a half-done step.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::model::cancel::Cancel;

/// Listens until it is dropped. The process keeps its handlers after that, as tokio has it: a signal is then ignored.
#[must_use = "dropping it stops the listening"]
#[derive(Debug)]
pub struct Interruption(JoinHandle<()>);

impl Drop for Interruption {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The first signal sets `cancel`. Each is answered with a sentence through `say`, since finishing or undoing a step may
/// take a while and a person who hears nothing would kill the process.
pub fn listen(cancel: Cancel, say: impl Fn(&str) + Send + 'static) -> io::Result<Interruption> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(Interruption(tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                received = interrupt.recv() => received,
                received = terminate.recv() => received,
            };
            if received.is_none() {
                return;
            }
            if cancel.is_cancelled() {
                say(
                    "still finishing the running steps; a kill would leave them half done, and the next apply to clean up",
                );
            } else {
                cancel.cancel();
                say("stopping: no new step is started, the running ones are finished or undone");
            }
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_signal_cancels_and_a_second_one_only_says_that_it_goes_on() {
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let cancel = Cancel::new();
        let _interruption = listen(cancel.clone(), move |text| said.send(text.to_owned()).unwrap()).unwrap();
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        assert!(heard.recv().await.unwrap().starts_with("stopping"));
        assert!(cancel.is_cancelled());
        rustix::process::kill_process(own, rustix::process::Signal::INT).unwrap();
        assert!(heard.recv().await.unwrap().starts_with("still finishing"));
    }
}
