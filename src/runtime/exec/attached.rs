//! Both ends of a program that runs in a container: what it writes as a reader, what it reads as a writer. Whoever waits at
//! one of them can be told to stop.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{GATHERED, Running, said};
use crate::model::cancel::Cancel;
use crate::runtime::RuntimeError;

/// Between two looks at whether somebody wants to stop.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// A dump that has said nothing for so long hangs. A table that is locked gives up sooner where the tool has a limit of its own.
const SILENCE: Duration = Duration::from_secs(900);

/// How long a program may say nothing, and who may stop it.
#[derive(Clone)]
pub struct Patience {
    pub silence: Duration,
    pub cancel: Cancel,
}

impl Default for Patience {
    fn default() -> Self {
        Self::until(&Cancel::new())
    }
}

impl Patience {
    pub fn until(cancel: &Cancel) -> Self {
        Self { silence: SILENCE, cancel: cancel.clone() }
    }

    pub fn of(silence: Duration, cancel: &Cancel) -> Self {
        Self { silence, cancel: cancel.clone() }
    }
}

/// What a program writes. Its end comes only after the engine has said that the exit code was 0.
pub struct Output {
    running: Running,
    current: Bytes,
    failed: Option<String>,
    patience: Patience,
}

impl Output {
    pub(super) fn of(running: Running, patience: Patience) -> Self {
        Self { running, current: Bytes::new(), failed: None, patience }
    }

    /// What it has warned of so far.
    pub fn warnings(&self) -> Vec<String> {
        said::warnings(&self.running.words.text())
    }

    /// The next piece; none at its end.
    fn next(&mut self) -> Result<Option<Bytes>, RuntimeError> {
        let since = Instant::now();
        let docker = self.running.docker.clone();
        loop {
            let pieces = &mut self.running.pieces;
            if let Ok(piece) = docker.wait(async { tokio::time::timeout(BETWEEN_LOOKS, pieces.recv()).await }) {
                return Ok(piece);
            }
            let given_up = if self.patience.cancel.is_cancelled() {
                RuntimeError::Interrupted
            } else if since.elapsed() > self.patience.silence {
                RuntimeError::Silent {
                    container: self.running.container.name.clone(),
                    program: self.running.program.clone(),
                    seconds: self.patience.silence.as_secs(),
                }
            } else {
                continue;
            };
            self.running.stubborn = true;
            self.running.end();
            return Err(given_up);
        }
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failed) = &self.failed {
            return Err(io::Error::other(failed.clone()));
        }
        while self.current.is_empty() {
            if self.running.ended {
                return Ok(0);
            }
            let failed = match self.next() {
                Ok(Some(piece)) => {
                    self.current = piece;
                    continue;
                }
                Ok(None) => self.running.settle(),
                Err(error) => Err(error),
            };
            if let Err(error) = failed {
                self.failed = Some(crate::model::chain(&error));
                return Err(io::Error::other(error));
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// What a program reads. [`Input::finish`] closes it and says how the program ended.
pub struct Input {
    running: Running,
    gathered: BytesMut,
    cancel: Cancel,
}

/// Comes when somebody wants to stop.
async fn stopped(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// Hands on what is gathered.
    ///
    /// # Errors
    /// A broken pipe where the program has ended; [`Input::finish`] then says why.
    fn flush(&mut self) -> io::Result<()> {
        // What it prints meanwhile is small and must not stop it.
        while self.running.pieces.try_recv().is_ok() {}
        let piece = self.gathered.split().freeze();
        if piece.is_empty() {
            return Ok(());
        }
        let docker = self.running.docker.clone();
        let Some(sender) = self.running.to_program.clone() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let pieces = &mut self.running.pieces;
        let cancel = &self.cancel;
        docker.wait(async {
            let sending = sender.send(piece);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    () = stopped(cancel) => return Err(io::Error::other(RuntimeError::Interrupted)),
                    sent = &mut sending => return sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
                    // Output must be taken away, or a program that waits to write would never read on.
                    Some(_) = pieces.recv() => {}
                }
            }
        })
    }
}

impl Input {
    pub(super) fn of(running: Running, cancel: Cancel) -> Self {
        Self { running, gathered: BytesMut::new(), cancel }
    }

    /// Closes the program's input, waits for its end, and gives what it printed last.
    ///
    /// # Errors
    /// When it ended with another code than 0, or nobody knows how.
    pub fn finish(mut self) -> Result<String, RuntimeError> {
        let _ = self.flush();
        self.running.close_input();
        let docker = self.running.docker.clone();
        let pieces = &mut self.running.pieces;
        let mut printed = VecDeque::new();
        let cancel = &self.cancel;
        let stopped = docker.wait(async {
            loop {
                tokio::select! {
                    () = stopped(cancel) => return true,
                    piece = pieces.recv() => {
                        let Some(piece) = piece else { return false };
                        printed.extend(piece);
                        let excess = printed.len().saturating_sub(64 * 1024);
                        printed.drain(..excess);
                    }
                }
            }
        });
        if stopped {
            self.running.stubborn = true;
            self.running.end();
            return Err(RuntimeError::Interrupted);
        }
        self.running.settle()?;
        let printed: Vec<u8> = printed.into_iter().collect();
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}
