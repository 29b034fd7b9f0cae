//! What carries a single step out, as the executor sees it.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::cancel::Cancel;
use crate::model::outcome::{Done, FailureKind, StepOutcome};
use crate::model::step::{Step, StepId};
use crate::model::units::ByteSize;

/// Carries steps out. Called on blocking threads, for several steps at once.
pub trait StepRunner: Send + Sync + 'static {
    /// Looked at just before each try. An error of kind `NeedsReplan` when a precondition no longer holds; the reason
    /// when the step is already done. It changes nothing.
    fn precheck(&self, step: &Step) -> Result<Option<String>, StepError>;

    /// Carries the step out. It must be safe to repeat, and it must end soon after `context.cancel` is set: the
    /// executor waits for it however long it takes, since nothing half done may be left running.
    fn run(&self, step: &Step, context: &StepContext<'_>) -> Result<Done, StepError>;
}

/// What a running step may ask and tell.
pub struct StepContext<'a> {
    /// Set by an interruption, and when the step's time is over.
    pub cancel: Cancel,
    progress: &'a (dyn Fn(ByteSize) + Send + Sync),
    outcomes: &'a BTreeMap<StepId, StepOutcome>,
}

impl<'a> StepContext<'a> {
    pub fn new(
        cancel: Cancel,
        progress: &'a (dyn Fn(ByteSize) + Send + Sync),
        outcomes: &'a BTreeMap<StepId, StepOutcome>,
    ) -> Self {
        Self { cancel, progress, outcomes }
    }

    /// Plain bytes read or written so far. May be called as often as is handy.
    pub fn progress(&self, bytes: ByteSize) {
        (self.progress)(bytes);
    }

    /// How a step that this one waits for ended: a seal reads what its takes came to. None for any other step, so that
    /// what a step sees never depends on what happened to run beside it.
    pub fn outcome(&self, step: StepId) -> Option<&'a StepOutcome> {
        self.outcomes.get(&step)
    }
}

/// Why a step failed, and whether that may pass.
#[derive(Debug)]
pub struct StepError {
    pub kind: FailureKind,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl StepError {
    pub fn new(kind: FailureKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// Trying again would give the same.
    pub fn permanent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::Permanent, source)
    }

    /// It may pass: tried again.
    pub fn transient(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::Transient, source)
    }

    /// The world is no longer what the plan was made for.
    pub fn needs_replan(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::NeedsReplan, source)
    }

    /// What is stored is damaged.
    pub fn damage(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::Damage, source)
    }

    /// A key or a secret is wrong or missing.
    pub fn key(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::Key, source)
    }

    /// Somebody else holds the lease.
    pub fn locked(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::Locked, source)
    }
}

impl fmt::Display for StepError {
    /// The whole chain of sources in one line. This is the one place where a chain becomes text: outcomes keep no error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut next = self.source.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

/// Without `source()`: Display says the whole chain already, and a reporter would say it twice.
impl std::error::Error for StepError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("shop: the database could not be read")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_reads_as_its_chain_of_causes() {
        let error = StepError::transient(Outer(std::io::Error::other("disk on fire")));
        assert_eq!(error.to_string(), "shop: the database could not be read: disk on fire");
    }
}
