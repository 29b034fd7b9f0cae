//! Every failure ends here: in words, hints and an exit code.

use std::error::Error;
use std::process::ExitCode;

use crate::apply::runner::StepError;
use crate::model::outcome::FailureKind;

/// The documented exit codes. Where several hold, the order of precedence is 3, 6, 5, 4, 7, 8, 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    Unexpected,
    Changes,
    Input,
    NotApproved,
    Stale,
    Locked,
    Partly,
    Verification,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unexpected => 1,
            Self::Changes => 2,
            Self::Input => 3,
            Self::NotApproved => 4,
            Self::Stale => 5,
            Self::Locked => 6,
            Self::Partly => 7,
            Self::Verification => 8,
        }
    }

    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::Changes,
            3 => Self::Input,
            4 => Self::NotApproved,
            5 => Self::Stale,
            6 => Self::Locked,
            7 => Self::Partly,
            8 => Self::Verification,
            _ => Self::Unexpected,
        }
    }

    /// Of two that both hold, the one that is given.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        let rank = |exit: Self| match exit {
            Self::Input => 0,
            Self::Locked => 1,
            Self::Stale => 2,
            Self::NotApproved => 3,
            Self::Partly => 4,
            Self::Verification => 5,
            Self::Unexpected => 6,
            Self::Changes => 7,
            Self::Done => 8,
        };
        if rank(other) < rank(self) { other } else { self }
    }

    /// What a failure of that kind is to the shell.
    pub(crate) fn of(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Permanent | FailureKind::Transient => Self::Partly,
            FailureKind::NeedsReplan => Self::Stale,
            FailureKind::Damage | FailureKind::Unmet => Self::Verification,
            FailureKind::Key => Self::Input,
            FailureKind::Locked => Self::Locked,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Something that ends the command, with what to do next.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
    hints: Vec<String>,
    /// Printed as it is: it has its own layout (diagnostics of the file).
    rendered: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hints: Vec::new(), rendered: None }
    }

    pub(crate) fn caused(exit: Exit, doing: &str, error: &(dyn Error + 'static)) -> Self {
        Self::new(exit, format!("{doing}: {}", crate::model::chain(error)))
    }

    /// Already laid out for a person.
    pub(crate) fn rendered(exit: Exit, rendered: String) -> Self {
        Self { exit, text: String::new(), hints: Vec::new(), rendered: Some(rendered) }
    }

    /// The same, for another reason to the shell.
    pub(crate) fn ending_with(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Says it on standard error, as one line for programs, and gives the exit code.
    pub(crate) fn report_as_json(&self) -> Exit {
        let error = self.rendered.as_deref().unwrap_or(&self.text);
        let line = serde_json::json!({
            "event": "failed", "error": error.trim_end(), "next": self.hints, "exit": self.exit.code(),
        });
        eprintln!("{line}");
        self.exit
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn report(&self) -> Exit {
        match &self.rendered {
            Some(rendered) => eprintln!("{}", rendered.trim_end()),
            None => eprintln!("error: {}", self.text),
        }
        for hint in &self.hints {
            eprintln!("  next: {hint}");
        }
        self.exit
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self::new(Exit::of(error.kind), error.to_string())
    }
}

impl From<crate::observe::StoreError> for Failure {
    fn from(error: crate::observe::StoreError) -> Self {
        Self::new(Exit::of(error.kind()), crate::model::chain(&error))
    }
}

impl From<crate::repository::RepositoryError> for Failure {
    fn from(error: crate::repository::RepositoryError) -> Self {
        Self::new(Exit::of(error.kind()), crate::model::chain(&error))
    }
}
