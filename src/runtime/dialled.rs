//! An engine that only the `docker` program knows the way to, by ssh or with certificates. `docker system dial-stdio` is that
//! way: its standard input and output are a connection to the engine of the user's settings. A socket of devstack's own hands
//! each connection on to one such program, so that all else talks to every engine alike.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Its socket goes away with it. Its threads wait until the process ends, and its programs end with their connections.
pub(super) struct Dialled {
    folder: tempfile::TempDir,
    said: Said,
}

type Said = Arc<Mutex<Option<String>>>;

impl Dialled {
    /// Listens; nothing is dialled before somebody connects.
    pub fn listen() -> io::Result<Self> {
        // Of mode 0700: whoever reaches the socket rules the engine.
        let folder = tempfile::Builder::new().prefix("devstack-engine-").tempdir()?;
        let listener = UnixListener::bind(folder.path().join("engine.sock"))?;
        let said = Said::default();
        let heard = Arc::clone(&said);
        thread::Builder::new().name("dial".into()).spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let heard = Arc::clone(&heard);
                // Without a thread the connection is dropped, and whoever made it is told.
                thread::Builder::new().spawn(move || serve(client, &heard)).ok();
            }
        })?;
        Ok(Self { folder, said })
    }

    pub fn address(&self) -> String {
        format!("unix://{}/engine.sock", self.folder.path().display())
    }

    /// The last words of a program that could not dial.
    pub fn said(&self) -> Option<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One connection, to its end.
fn serve(mut client: UnixStream, said: &Said) {
    if let Err(error) = dial(&mut client) {
        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
    // Only now: whoever sees the end of the answer may ask what was said.
    client.shutdown(Shutdown::Both).ok();
}

/// An error has the program's last words.
fn dial(client: &mut UnixStream) -> io::Result<()> {
    let mut program = Command::new("docker")
        .args(["system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("the program `docker` can not be started: {error}")))?;
    let (asks, answers, words) = (program.stdin.take(), program.stdout.take(), program.stderr.take());
    let mut from_client = client.try_clone()?;
    thread::spawn(move || {
        // Its standard input is dropped at the end: the engine sees that the client has said all, and may answer still.
        asks.map(|mut asks| pass_on(&mut from_client, &mut asks))
    });
    let heard = thread::spawn(move || {
        let lines = BufReader::new(words?).lines().map_while(Result::ok);
        lines.filter(|line| !line.trim().is_empty()).last()
    });
    let answered = answers.map_or(Ok(0), |mut answers| pass_on(&mut answers, client));
    if answered.is_err() {
        // The client has gone; the program would wait for the engine's next word.
        program.kill().ok();
    }
    let ended = program.wait()?;
    let last = heard.join().ok().flatten();
    match answered.is_ok() && !ended.success() {
        true => Err(io::Error::other(last.unwrap_or_else(|| format!("nothing, and ended with {ended}")))),
        false => Ok(()),
    }
}

/// Each piece as it comes. Between two descriptors `io::copy` would let the kernel move the bytes, and a `splice` out of a socket
/// of this kind has been seen to keep a request back until the socket was closed; of a `dyn Read` it knows no descriptor.
fn pass_on(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    io::copy(from, to)
}
