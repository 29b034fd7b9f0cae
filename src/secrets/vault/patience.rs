//! For how long a Vault that does not answer is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::VaultError;
use crate::model::outcome::FailureKind;

/// An answer comes within this, or the server hangs.
const ANSWER: Duration = Duration::from_secs(15);
/// The same of a server that has not come back in time before.
const ANSWER_OF_A_HUNG_ONE: Duration = Duration::from_secs(2);
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// Spent once for a command and not once for each question: one that did not come back in this time is asked once for each
/// secret from then on, until it answers.
pub(super) struct Patience {
    most: Duration,
    spent: AtomicBool,
}

impl Patience {
    pub fn new(most: Duration) -> Self {
        Self { most, spent: AtomicBool::new(false) }
    }

    /// How long one question may take.
    pub fn for_an_answer(&self) -> Duration {
        if self.spent.load(Ordering::Relaxed) { ANSWER_OF_A_HUNG_ONE } else { ANSWER }
    }

    /// What `ask` comes to, asked again while that may pass.
    pub fn ask<T>(&self, ask: impl Fn() -> Result<T, VaultError>) -> Result<T, VaultError> {
        let since = Instant::now();
        loop {
            let answer = ask();
            if !answer.as_ref().is_err_and(may_pass) {
                self.spent.store(false, Ordering::Relaxed);
                return answer;
            }
            if since.elapsed() >= self.most || self.spent.load(Ordering::Relaxed) {
                self.spent.store(true, Ordering::Relaxed);
                return answer;
            }
            sleep(BETWEEN_TRIES);
        }
    }
}

/// One that has just been started is sealed until somebody, or its auto-unseal, has opened it.
fn may_pass(error: &VaultError) -> bool {
    error.kind() == FailureKind::Transient || matches!(error, VaultError::Sealed { .. })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn sealed() -> Result<(), VaultError> {
        Err(VaultError::Sealed { address: "http://vault".to_owned() })
    }

    #[test]
    fn it_is_spent_once_until_there_is_an_answer() {
        let patience = Patience::new(BETWEEN_TRIES / 2);
        let asked = Cell::new(0);
        let unanswered = || {
            asked.set(asked.get() + 1);
            sealed()
        };
        assert!(patience.ask(unanswered).is_err());
        assert_eq!(asked.replace(0), 2);
        assert!(patience.ask(unanswered).is_err());
        assert_eq!(asked.replace(0), 1);
        assert!(patience.ask(|| Ok(())).is_ok());
        assert!(patience.ask(unanswered).is_err());
        assert_eq!(asked.replace(0), 2);
    }

    #[test]
    fn what_comes_back_in_time_is_an_answer_and_a_refusal_is_one_too() {
        let patience = Patience::new(Duration::from_secs(60));
        let asked = Cell::new(0);
        let second_time = || {
            asked.set(asked.get() + 1);
            if asked.get() == 1 { sealed() } else { Ok(()) }
        };
        assert!(patience.ask(second_time).is_ok());
        assert!(matches!(patience.ask(|| Err::<(), _>(VaultError::TokenGone)), Err(VaultError::TokenGone)));
    }
}
