//! Asking on the terminal without showing what is typed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{Secret, SecretError};

/// The terminal itself, not stdin: the answer must not come from a pipe that was meant for something else.
pub(super) fn ask(question: &str) -> Result<Secret, SecretError> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let terminal = terminal.map_err(|source| SecretError::NoTerminal { source })?;
    let line = ask_silently(&terminal, question).map_err(|source| SecretError::Terminal { source })?;
    if line.is_empty() {
        return Err(SecretError::Empty { place: "the answer".to_owned() });
    }
    Ok(Secret::new(line.to_string()))
}

/// Puts the terminal back as it was, also when reading fails.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // There is nobody left to tell; the shell resets its terminal as well.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

fn ask_silently(mut terminal: &File, question: &str) -> io::Result<Zeroizing<String>> {
    let before = tcgetattr(terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ICANON);
    let _silence = Silence { terminal, before };
    tcsetattr(terminal, OptionalActions::Flush, &silent)?;
    terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new(Vec::with_capacity(1024));
    let mut byte = [0_u8];
    // A line is short; byte by byte nothing after it is taken from the terminal.
    while terminal.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    terminal.write_all(b"\n")?;
    let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
    Ok(Zeroizing::new(text.to_owned()))
}
