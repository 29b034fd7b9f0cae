//! A program run inside a container: its output as a reader, its input as a writer, and an end that is only good when the
//! engine says that its exit code was 0.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::{Docker, RuntimeError};
use crate::model::cancel::Cancel;
use crate::model::observation::ContainerState;

/// Frames come in 8 to 32 KiB; gathered to this much they cost the reader a hundredth of the wake-ups.
const GATHERED: usize = 256 * 1024;

/// Gathered pieces that may wait for a slow reader: 2 MiB a stream.
const WAITING: usize = 8;

/// What is kept of standard error, from its end: enough for a server's last words.
const LAST_WORDS: usize = 4 * 1024;

/// The first line on standard error, by which the program can be ended later: an exec has no other handle that works on
/// every engine.
const PID: &str = "devstack-pid ";

/// What to run. Secrets go into `env` or into the input, never into `argv`.
#[derive(Clone, Default)]
pub struct Command {
    argv: Vec<String>,
    env: Vec<Zeroizing<String>>,
    user: Option<String>,
}

impl Command {
    pub fn new<T: Into<String>>(argv: impl IntoIterator<Item = T>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A script for the container's `sh`, with its arguments as `$1`, `$2` …
    pub fn script<T: Into<String>>(script: &str, arguments: impl IntoIterator<Item = T>) -> Self {
        let fixed = ["sh", "-c", script, "sh"].map(str::to_owned);
        Self { argv: fixed.into_iter().chain(arguments.into_iter().map(Into::into)).collect(), ..Self::default() }
    }

    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    pub fn args<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A variable of the program's environment. It can be read by whoever may talk to the Docker socket, and inside the
    /// container by the same user and root, for as long as the program runs.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(Zeroizing::new(format!("{name}={value}")));
        self
    }

    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The program's name, for messages.
    pub fn program(&self) -> &str {
        match self.argv.as_slice() {
            // Of a script, the first word that is not the shell's own business.
            [sh, dash_c, script, ..] if sh == "sh" && dash_c == "-c" => {
                let mut words = script.split_whitespace().filter(|word| word.bytes().all(is_plain));
                words.find(|word| !["exec", "set", "if", "then", "cd", "env"].contains(word)).unwrap_or("sh")
            }
            [program, ..] => program,
            [] => "nothing",
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/')
}

/// A program that has ended with exit code 0, or was asked to be looked at whatever its code.
#[derive(Debug)]
pub struct Finished {
    pub stdout: Vec<u8>,
    /// The end of it.
    pub stderr: String,
    pub code: i64,
}

impl Finished {
    /// Standard output as text, without the final newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }
}

impl Docker {
    /// Runs a program to its end. `input` is what it reads; its output is small.
    ///
    /// # Errors
    /// When it cannot be started, ends with another code than 0, or takes longer than `limit`.
    pub fn run(
        self: &Arc<Self>,
        container: &ContainerState,
        command: &Command,
        input: &[u8],
        limit: Duration,
    ) -> Result<Finished, RuntimeError> {
        let finished = self.run_any(container, command, input, limit)?;
        match finished.code {
            0 => Ok(finished),
            code => Err(exit(container, command.program(), code, &finished.stdout, &finished.stderr)),
        }
    }

    /// As [`Self::run`], with any exit code being an answer.
    pub fn run_any(
        self: &Arc<Self>,
        container: &ContainerState,
        command: &Command,
        input: &[u8],
        limit: Duration,
    ) -> Result<Finished, RuntimeError> {
        let mut running = self.start(container, command, true)?;
        let whole = running.whole(input);
        match self.wait(async { tokio::time::timeout(limit, whole).await }) {
            Ok(finished) => {
                running.ended = true;
                finished
            }
            Err(_) => Err(RuntimeError::TimedOut {
                doing: format!("{} in the container {}", command.program(), container.name),
                seconds: limit.as_secs(),
            }),
        }
    }

    /// As [`Self::run_any`], ended early where `cancel` is set. What does not end when it is asked to is killed.
    pub fn run_until(
        self: &Arc<Self>,
        container: &ContainerState,
        command: &Command,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<Finished, RuntimeError> {
        let mut running = self.start(container, command, true)?;
        running.stubborn = true;
        let finished = {
            let mut whole = std::pin::pin!(running.whole(b""));
            let ended = async {
                loop {
                    tokio::select! {
                        finished = &mut whole => return Some(finished),
                        () = tokio::time::sleep(BETWEEN_LOOKS) => if cancel.is_cancelled() { return None },
                    }
                }
            };
            self.wait(async { tokio::time::timeout(limit, ended).await })
        };
        match finished {
            Ok(Some(finished)) => {
                running.ended = true;
                finished
            }
            Ok(None) => Err(RuntimeError::Interrupted),
            Err(_) => Err(RuntimeError::TimedOut {
                doing: format!("{} in the container {}", command.program(), container.name),
                seconds: limit.as_secs(),
            }),
        }
    }

    /// Starts a program whose output is read. Its input is closed.
    pub fn output(self: &Arc<Self>, container: &ContainerState, command: &Command) -> Result<Output, RuntimeError> {
        let mut running = self.start(container, command, false)?;
        running.close_input();
        Ok(Output { running, current: Bytes::new(), failed: None })
    }

    /// Starts a program that is written to.
    pub fn input(self: &Arc<Self>, container: &ContainerState, command: &Command) -> Result<Input, RuntimeError> {
        Ok(Input { running: self.start(container, command, true)?, gathered: BytesMut::new() })
    }

    fn start(
        self: &Arc<Self>,
        container: &ContainerState,
        command: &Command,
        with_input: bool,
    ) -> Result<Running, RuntimeError> {
        if !container.running {
            return Err(RuntimeError::NotRunning { name: container.name.clone(), state: container.state.clone() });
        }
        let wrapped = ["sh", "-c", &format!("echo '{PID}'$$ >&2; exec \"$@\""), "sh"].map(str::to_owned);
        let options = CreateExecOptions {
            attach_stdin: Some(with_input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(command.env.iter().map(|variable| variable.to_string()).collect()),
            cmd: Some(wrapped.into_iter().chain(command.argv.iter().cloned()).collect()),
            user: command.user.clone(),
            ..CreateExecOptions::<String>::default()
        };
        let doing = || format!("starting {} in the container {}", command.program(), container.name);
        let (exec, started) = self
            .wait(async {
                let exec = self.client.create_exec(container.id.as_str(), options).await?.id;
                let options = StartExecOptions { output_capacity: Some(64 * 1024), ..StartExecOptions::default() };
                let started = self.client.start_exec(&exec, Some(options)).await?;
                Ok((exec, started))
            })
            .map_err(RuntimeError::docker(doing()))?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(RuntimeError::Io { doing: doing(), source: io::Error::other("it was not attached") });
        };
        let (to_reader, pieces) = mpsc::channel(WAITING);
        let (to_program, from_writer) = mpsc::channel::<Bytes>(WAITING);
        let (ended, end) = oneshot::channel();
        let words = Arc::new(Words::default());
        self.spawn(write_input(input, from_writer));
        let reading = Reading { docker: Arc::downgrade(self), exec, words: words.clone(), to_reader };
        self.spawn(async move {
            let _ = ended.send(reading.read(output).await);
        });
        Ok(Running {
            docker: self.clone(),
            container: container.clone(),
            program: command.program().to_owned(),
            words,
            pieces,
            to_program: Some(to_program),
            end,
            ended: false,
            stubborn: false,
        })
    }
}

/// Writes what comes, and closes the program's input when nothing more does.
async fn write_input(
    mut input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
    mut from_writer: mpsc::Receiver<Bytes>,
) {
    while let Some(piece) = from_writer.recv().await {
        // A program that ended early closes its input; its exit code says why.
        if input.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = input.shutdown().await;
}

/// The end of standard error.
#[derive(Default)]
struct Words {
    kept: Mutex<VecDeque<u8>>,
    pid: Mutex<Option<String>>,
}

impl Words {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let mut pid = self.pid.lock().unwrap_or_else(PoisonError::into_inner);
        if pid.is_none()
            && let Some(end) = kept.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = kept.drain(..=end).collect();
            match String::from_utf8_lossy(&line).trim().strip_prefix(PID) {
                Some(number) => *pid = Some(number.to_owned()),
                // The shell itself failed; its words are all there is.
                None => {
                    *pid = Some(String::new());
                    line.into_iter().rev().for_each(|byte| kept.push_front(byte));
                }
            }
        }
        let excess = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..excess);
    }

    fn pid(&self) -> Option<String> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|pid| !pid.is_empty())
    }

    fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// The task that reads a program's output.
struct Reading {
    docker: std::sync::Weak<Docker>,
    exec: String,
    words: Arc<Words>,
    to_reader: mpsc::Sender<Bytes>,
}

/// How a program ended: its exit code, or None where the engine can't say.
type End = Result<Option<i64>, bollard::errors::Error>;

impl Reading {
    async fn read(
        self,
        mut output: std::pin::Pin<
            Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>,
        >,
    ) -> End {
        let mut gathered = BytesMut::new();
        loop {
            let frame = if gathered.is_empty() {
                output.next().await
            } else {
                // What is gathered goes on as soon as nothing more is at hand: a reader must not wait for a full piece.
                tokio::select! {
                    biased;
                    frame = output.next() => frame,
                    permit = self.to_reader.reserve() => {
                        match permit {
                            Ok(permit) => permit.send(gathered.split().freeze()),
                            Err(_) => return Ok(None),
                        }
                        continue;
                    }
                }
            };
            match frame {
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                    gathered.extend_from_slice(&message);
                    if gathered.len() >= GATHERED && self.to_reader.send(gathered.split().freeze()).await.is_err() {
                        return Ok(None);
                    }
                }
                Some(Ok(LogOutput::StdErr { message })) => self.words.add(&message),
                Some(Ok(LogOutput::StdIn { .. })) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        if !gathered.is_empty() {
            let _ = self.to_reader.send(gathered.freeze()).await;
        }
        let Some(docker) = self.docker.upgrade() else { return Ok(None) };
        // The stream ends a moment before the engine has noted the exit.
        for _ in 0..EXIT_LOOKS {
            let seen = docker.client.inspect_exec(&self.exec).await?;
            if seen.running != Some(true) {
                return Ok(seen.exit_code);
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(None)
    }
}

/// To send a signal takes no longer.
const KILLED: Duration = Duration::from_secs(10);

/// A program whose output has ended has exited within this; the engine notes it within milliseconds.
const EXIT_LOOKS: u32 = 500;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// A program that runs in a container. Dropped before its end, it is ended.
struct Running {
    docker: Arc<Docker>,
    container: ContainerState,
    program: String,
    words: Arc<Words>,
    pieces: mpsc::Receiver<Bytes>,
    to_program: Option<mpsc::Sender<Bytes>>,
    end: oneshot::Receiver<End>,
    ended: bool,
    /// It may not end when it is asked to: killed then.
    stubborn: bool,
}

/// Asks all that a program has started to end.
const ASK: &str = "kill -TERM -\"$1\" 2>/dev/null || kill -TERM \"$1\"";
/// And kills what is left after two seconds.
const INSIST: &str = "kill -TERM -\"$1\" 2>/dev/null; for i in 1 2; do kill -0 -\"$1\" 2>/dev/null || exit 0; sleep 1; done; kill -KILL -\"$1\"";

impl Running {
    fn close_input(&mut self) {
        self.to_program = None;
    }

    async fn whole(&mut self, input: &[u8]) -> Result<Finished, RuntimeError> {
        let sender = self.to_program.take();
        let input = Bytes::copy_from_slice(input);
        let writing = async move {
            if let Some(sender) = sender.filter(|_| !input.is_empty()) {
                let _ = sender.send(input).await;
            }
        };
        let mut stdout = Vec::new();
        let pieces = &mut self.pieces;
        let reading = async {
            while let Some(piece) = pieces.recv().await {
                stdout.extend_from_slice(&piece);
            }
        };
        tokio::join!(writing, reading);
        let end = (&mut self.end).await;
        let code = self.code(end)?;
        Ok(Finished { stdout, stderr: self.words.text(), code })
    }

    fn code(&self, end: Result<End, oneshot::error::RecvError>) -> Result<i64, RuntimeError> {
        match end {
            Ok(Ok(Some(code))) => Ok(code),
            Ok(Err(source)) => Err(RuntimeError::Docker {
                doing: format!("reading what {} in the container {} gives", self.program, self.container.name),
                source,
            }),
            Ok(Ok(None)) | Err(_) => Err(RuntimeError::NoExitCode {
                container: self.container.name.clone(),
                program: self.program.clone(),
                said: last_line(&self.words.text()),
            }),
        }
    }

    /// The end of a program whose output has been read.
    fn settle(&mut self) -> Result<(), RuntimeError> {
        let end = self.docker.wait(&mut self.end);
        self.ended = true;
        match self.code(end)? {
            0 => Ok(()),
            code => Err(exit(&self.container, &self.program, code, b"", &self.words.text())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.pieces.close();
        // Its input is closed only after it was ended: a client that sees the end of half its input may commit that half.
        let mut pid = self.words.pid();
        for _ in 0..EXIT_LOOKS {
            if pid.is_some() || !matches!(self.end.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                break;
            }
            std::thread::sleep(BETWEEN_LOOKS);
            pid = self.words.pid();
        }
        let Some(pid) = pid else { return };
        // An exec is the leader of a session of its own, so that its group is all that it started.
        let kill = Command::script(if self.stubborn { INSIST } else { ASK }, [pid]);
        let Ok(mut killing) = self.docker.start(&self.container, &kill, false) else { return };
        // The one that ends another is not ended itself.
        killing.ended = true;
        let _ = self.docker.wait(async { tokio::time::timeout(KILLED, killing.whole(b"")).await });
    }
}

/// 126 and 127 are the shell's and the runtime's words for a program that is not there or can't be started; the text of
/// it may come on standard output.
fn exit(container: &ContainerState, program: &str, code: i64, stdout: &[u8], stderr: &str) -> RuntimeError {
    let words = if stderr.is_empty() {
        String::from_utf8_lossy(&stdout[..stdout.len().min(500)]).into()
    } else {
        stderr.to_owned()
    };
    let said = last_lines(&words);
    let container = container.name.clone();
    let program = program.to_owned();
    match code {
        // With nothing said at all it is Docker's own word for an exec whose connection was cut.
        126 if said.is_empty() => RuntimeError::NoExitCode { container, program, said },
        126 | 127 => RuntimeError::NoProgram { container, program, said },
        _ => RuntimeError::Exit { container, program, code, said },
    }
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").trim().to_owned()
}

/// The last three lines, in one: servers put the cause and its hint on lines of their own.
fn last_lines(text: &str) -> String {
    let text = text.replace('\t', " ");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// What a program writes. Its end comes only after the engine has said that the exit code was 0.
pub struct Output {
    running: Running,
    current: Bytes,
    failed: Option<String>,
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
            match self.running.docker.clone().wait(self.running.pieces.recv()) {
                Some(piece) => self.current = piece,
                None => {
                    if let Err(error) = self.running.settle() {
                        self.failed = Some(crate::model::chain(&error));
                        return Err(io::Error::other(error));
                    }
                }
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
        docker.wait(async {
            let sending = sender.send(piece);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    sent = &mut sending => return sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
                    // Output must be taken away, or a program that waits to write would never read on.
                    Some(_) = pieces.recv() => {}
                }
            }
        })
    }
}

impl Input {
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
        docker.wait(async {
            while let Some(piece) = pieces.recv().await {
                printed.extend(piece);
                let excess = printed.len().saturating_sub(64 * 1024);
                printed.drain(..excess);
            }
        });
        self.running.settle()?;
        let printed: Vec<u8> = printed.into_iter().collect();
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}
