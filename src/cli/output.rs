//! The one way out for all that is printed. A disk that is full, or a reader that is gone, stops no work: it is noted, nothing
//! more is written, and the exit code says so at the end. The macros below stand in for those of the standard library, which
//! panic, in every file of this room.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use super::error::Exit;

/// Why standard output could not be written, the first time.
static TROUBLE: Mutex<Option<io::Error>> = Mutex::new(None);

/// As shells say it of a program that the signal SIGPIPE has ended.
const CLOSED_PIPE: u8 = 128 + 13;

macro_rules! print {
    ($($text:tt)*) => { $crate::cli::output::out(format_args!($($text)*)) };
}

macro_rules! println {
    ($($text:tt)*) => { $crate::cli::output::out(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::output::err(format_args!("{}\n", format_args!($($text)*))) };
}

/// To standard output.
pub(super) fn out(text: fmt::Arguments<'_>) {
    let mut trouble = TROUBLE.lock().unwrap_or_else(PoisonError::into_inner);
    // What comes after a gap would be read as if there were none.
    if trouble.is_none() {
        *trouble = io::stdout().write_fmt(text).err();
    }
}

/// To standard error. Where that can't be written either, nobody is left to be told.
pub(super) fn err(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// The exit code of a command that ended with `exit`, once all that it printed is out.
pub(super) fn ended(exit: Exit) -> u8 {
    let mut trouble = TROUBLE.lock().unwrap_or_else(PoisonError::into_inner);
    if trouble.is_none() {
        *trouble = io::stdout().flush().err();
    }
    let (code, text) = judged(exit, trouble.as_ref());
    if let Some(text) = text {
        eprintln!("{text}");
    }
    code
}

/// What the shell is told, and the person.
fn judged(exit: Exit, trouble: Option<&io::Error>) -> (u8, Option<String>) {
    match (trouble, exit) {
        (None, _) => (exit.code(), None),
        // `devstack backups | head`: the reader has what it wanted and is gone, which is nobody's fault.
        (Some(error), Exit::Done) if error.kind() == io::ErrorKind::BrokenPipe => (CLOSED_PIPE, None),
        (Some(error), _) if error.kind() == io::ErrorKind::BrokenPipe => (exit.code(), None),
        (Some(error), _) => {
            let text = format!(
                "error: devstack did its work, but its output could not be written: {error}\n  \
                 next: to see what was done: `devstack log`, `devstack status`"
            );
            // What came of the work says more than what came of the text about it.
            let code = if exit == Exit::Done { Exit::Unexpected } else { exit };
            (code.code(), Some(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_was_not_written_is_told_after_what_came_of_the_work() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        for (exit, trouble, code, told) in [
            (Exit::Done, None, 0, false),
            (Exit::Done, Some(&full), 1, true),
            (Exit::NotApproved, Some(&full), 4, true),
            (Exit::Verification, Some(&full), 8, true),
            (Exit::Done, Some(&closed), 141, false),
            (Exit::Partly, Some(&closed), 7, false),
        ] {
            let (found, text) = judged(exit, trouble);
            assert_eq!((found, text.is_some()), (code, told), "{exit:?} {trouble:?}");
        }
    }
}
