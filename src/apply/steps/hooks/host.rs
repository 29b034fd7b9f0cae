//! A hook on this machine: a process group of its own, which ends as a whole.

use std::io::{Read, pipe};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Ended, KEPT, end_of, over};
use crate::model::cancel::Cancel;
use crate::model::hook::Hook;

/// Between two looks whether it has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// A program that is asked to end has so long to do it.
const GRACE: Duration = Duration::from_secs(3);

/// What it has printed is read within this once it has ended; a child that it leaves running may hold the output open for ever.
const DRAIN: Duration = Duration::from_millis(500);

/// Waits for the end of its input, which comes when devstack ends however it ends, and then ends the group.
const GUARD: &str = "cat >/dev/null; kill -KILL \"-$1\" 2>/dev/null";

pub(super) fn run(folder: &Path, hook: &Hook, variables: &[(&str, String)], cancel: &Cancel) -> Ended {
    let none = |failed: String| Ended { failed: Some(failed), output: Vec::new() };
    let (mut child, output) = match start(folder, hook, variables) {
        Ok(started) => started,
        Err(error) => return none(format!("it can't be started: {error}")),
    };
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let guard = Guard::over(child.id());
    let since = Instant::now();
    let limit = Duration::from(hook.timeout());
    let mut stopped = None;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Err(error) => break Err(error),
            Ok(None) => {}
        }
        if stopped.is_none() && (cancel.is_cancelled() || since.elapsed() > limit) {
            stopped = Some(cancel.is_cancelled());
            end(group, &mut child);
        }
        std::thread::sleep(GLANCE);
    };
    // Once more, for what outlived the first process of the group.
    if stopped.is_some() {
        signal(group, Signal::KILL);
    }
    drop(guard);
    let output = collected(&output);
    let failed = match (stopped, status) {
        (Some(true), _) => Some("interrupted".to_owned()),
        (Some(false), _) => Some(over(hook.timeout())),
        (None, Ok(status)) => (!status.success()).then(|| told(status)),
        (None, Err(error)) => Some(format!("nobody knows how it ended: {error}")),
    };
    Ended { failed, output }
}

fn start(folder: &Path, hook: &Hook, variables: &[(&str, String)]) -> std::io::Result<(Child, Receiver<Vec<u8>>)> {
    let (mut reader, writer) = pipe()?;
    let [program, arguments @ ..] = hook.run.as_slice() else {
        return Err(std::io::Error::other("it names no program"));
    };
    // `./freeze.sh` is the one beside devstack.yaml, whatever folder the command is given in.
    let is_path = program.contains('/');
    let program = if is_path { folder.join(program) } else { program.into() };
    let child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    let (sender, output) = channel();
    // Read to its end by a thread of its own: a full pipe would stop the program, and one that a child keeps open would stop us.
    std::thread::spawn(move || {
        let mut piece = vec![0; 8 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            if sender.send(piece[..count].to_vec()).is_err() {
                // Nobody asks any more; what is left running may go on writing.
                while reader.read(&mut piece).is_ok_and(|count| count > 0) {}
            }
        }
    });
    Ok((child, output))
}

/// What has come, and what still comes within a moment.
fn collected(output: &Receiver<Vec<u8>>) -> Vec<u8> {
    let since = Instant::now();
    let mut kept = Vec::new();
    while let Ok(piece) = output.recv_timeout(DRAIN.saturating_sub(since.elapsed())) {
        kept.extend(piece);
        if kept.len() > 16 * KEPT {
            kept = end_of(kept);
        }
    }
    end_of(kept)
}

fn end(group: Option<Pid>, child: &mut Child) {
    signal(group, Signal::TERM);
    let since = Instant::now();
    while since.elapsed() < GRACE {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(GLANCE);
    }
    signal(group, Signal::KILL);
}

fn signal(group: Option<Pid>, signal: Signal) {
    // A group that is gone has nothing left to be ended.
    let _ = group.map(|group| kill_process_group(group, signal));
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Ends the group where devstack is killed and can't.
struct Guard(Option<Child>);

impl Guard {
    fn over(group: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", &group.to_string()]).stdin(Stdio::piped());
        // In a group of its own: Ctrl-C at the terminal is for devstack, which ends the hook itself.
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn();
        Self(spawned.ok())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.0 {
            let group = i32::try_from(guard.id()).ok().and_then(Pid::from_raw);
            signal(group, Signal::KILL);
            let _ = guard.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hook::OnFailure;
    use crate::model::units::Span;

    fn hook(run: &[&str], timeout: Span) -> Hook {
        let run = run.iter().map(|word| (*word).to_owned()).collect();
        Hook { run, container: None, timeout: Some(timeout), on_failure: OnFailure::Fail }
    }

    fn ran(script: &str, timeout: Span, cancel: &Cancel) -> (Option<String>, String) {
        let variables = [("DEVSTACK_RUN", "run-1".to_owned())];
        let folder = tempfile::tempdir().unwrap();
        let ended = run(folder.path(), &hook(&["sh", "-c", script], timeout), &variables, cancel);
        (ended.failed, String::from_utf8(ended.output).unwrap())
    }

    #[test]
    fn a_program_is_told_of_its_run_and_its_words_are_kept() {
        let long = Span::from_secs(600);
        let cancel = Cancel::new();
        let (failed, output) = ran("echo out $DEVSTACK_RUN; echo err >&2; pwd | wc -l; exit 3", long, &cancel);
        assert_eq!((failed.as_deref(), output.as_str()), (Some("it ended with exit code 3"), "out run-1\nerr\n1\n"));
        assert_eq!(ran("kill -9 $$", long, &cancel).0.as_deref(), Some("it was ended by signal 9"));
        assert_eq!(ran("cat", long, &cancel), (None, String::new()), "nothing can be read");
        let (failed, output) = ran("i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done", long, &cancel);
        assert!(failed.is_none() && output.len() <= KEPT && output.ends_with("line 39999\n"));
        let folder = tempfile::tempdir().unwrap();
        let absent = run(folder.path(), &hook(&["./no-such"], long), &[], &cancel);
        assert!(absent.failed.unwrap().starts_with("it can't be started: "));
    }

    /// One that hangs, and with it what it has started, is ended; and a child that keeps the output open holds nobody up.
    #[test]
    fn one_that_hangs_is_ended_with_all_that_it_started() {
        let cancel = Cancel::new();
        cancel.cancel();
        let (failed, output) = ran("echo began; sleep 1000 & echo $!; wait", Span::from_secs(600), &cancel);
        assert_eq!(failed.as_deref(), Some("interrupted"));
        if let Some(pid) = output.lines().nth(1) {
            assert!(!Path::new("/proc").join(pid).join("cmdline").exists() || is_zombie(pid), "{output}");
        }
        let over = ran("sleep 1000", Span::from_millis(50), &Cancel::new()).0.unwrap();
        assert_eq!(over, "it took longer than 0.1 s and was ended");
    }

    fn is_zombie(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }
}
