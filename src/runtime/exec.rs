//! A program run inside a container: its output as a reader, its input as a writer, and an end that is only good when the
//! engine says that its exit code was 0.

mod attached;
mod said;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

pub use self::attached::{Input, Output, Patience};
pub use self::said::masked;
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

/// The program, its input being nothing, and the watcher of what it was given as input.
const LEASHED: &str = "exec 3<&0; \"$@\" </dev/null 3<&- & child=$!; \
    (trap 'exit 0' TERM; while read -r line <&3; do :; done; kill -TERM $child 2>/dev/null; sleep 2; kill -KILL $child 2>/dev/null) \
    >/dev/null 2>&1 & leash=$!; exec 3<&-; wait $child; code=$?; kill $leash 2>/dev/null; exit $code";

/// What to run. Secrets go into `env` or into the input, never into `argv`.
#[derive(Clone, Default)]
pub struct Command {
    argv: Vec<String>,
    env: Vec<Zeroizing<String>>,
    user: Option<String>,
    /// Where it does not show in the first words.
    name: Option<String>,
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
        // The last word counts.
        self.env.retain(|variable| variable.split_once('=').is_none_or(|(before, _)| before != name));
        self.env.push(Zeroizing::new(format!("{name}={value}")));
        self
    }

    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// What it says on standard error comes with its output, in order.
    pub fn with_errors(mut self) -> Self {
        let fixed = ["sh", "-c", "exec \"$@\" 2>&1", "sh"].map(str::to_owned);
        self.name = Some(self.program().to_owned());
        self.argv = fixed.into_iter().chain(self.argv).collect();
        self
    }

    /// With a watcher beside it that reads the input for it: when that ends, devstack is gone, however it went, and the
    /// program is ended. One that waits for a lock would not notice for a year.
    fn leashed(&self) -> Self {
        let fixed = ["sh", "-c", LEASHED, "sh"].map(str::to_owned);
        let argv = fixed.into_iter().chain(self.argv.iter().cloned()).collect();
        Self { argv, name: Some(self.program().to_owned()), ..self.clone() }
    }

    /// The program's name, for messages.
    pub fn program(&self) -> &str {
        if let Some(name) = &self.name {
            return name;
        }
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
        input: &[u8],
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<Finished, RuntimeError> {
        let mut running = self.start(container, command, true)?;
        running.stubborn = true;
        let finished = {
            let mut whole = std::pin::pin!(running.whole(input));
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

    /// Starts a program whose output is read. It has no input of its own, and ends when devstack does.
    pub fn output(
        self: &Arc<Self>,
        container: &ContainerState,
        command: &Command,
        patience: Patience,
    ) -> Result<Output, RuntimeError> {
        let running = self.start(container, &command.leashed(), true)?;
        Ok(Output::of(running, patience))
    }

    /// Starts a program that is written to.
    pub fn input(
        self: &Arc<Self>,
        container: &ContainerState,
        command: &Command,
        cancel: &Cancel,
    ) -> Result<Input, RuntimeError> {
        Ok(Input::of(self.start(container, command, true)?, cancel.clone()))
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

/// The end of standard error, and before it the lines that tell a cause: what follows one may be a statement of any length.
#[derive(Default)]
struct Words {
    kept: Mutex<VecDeque<u8>>,
    pid: Mutex<Option<String>>,
    causes: Mutex<Causes>,
}

#[derive(Default)]
struct Causes {
    /// The line that has not ended yet.
    line: Vec<u8>,
    lines: Vec<String>,
}

impl Causes {
    const MOST: usize = 4;
    const LONGEST: usize = 2000;

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() < Self::LONGEST {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_owned();
            self.line.clear();
            let told = said::is_cause(&line) || (!self.lines.is_empty() && said::adds_to_it(&line));
            if told && self.lines.len() < Self::MOST {
                self.lines.push(line);
            }
        }
    }
}

impl Words {
    fn add(&self, bytes: &[u8]) {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner).add(bytes);
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
        let kept = String::from_utf8_lossy(&bytes).trim().to_owned();
        let causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        match causes.lines.first() {
            Some(first) if !kept.contains(first.as_str()) => format!("{}\n{kept}", causes.lines.join("\n")),
            Some(_) | None => kept,
        }
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
                said: said::cause(&self.words.text()),
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
        self.end();
    }
}

impl Running {
    /// Ends it, if it has not ended.
    fn end(&mut self) {
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
    let said = said::cause(&words);
    let container = container.name.clone();
    let program = program.to_owned();
    match code {
        // With nothing said at all it is Docker's own word for an exec whose connection was cut.
        126 if said.is_empty() => RuntimeError::NoExitCode { container, program, said },
        126 | 127 => RuntimeError::NoProgram { container, program, said },
        _ => RuntimeError::Exit { container, program, code, said },
    }
}
