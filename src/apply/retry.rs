//! How long to wait before a step that failed for a passing reason is tried again.

use std::time::Duration;

/// Exponential backoff with full jitter: before try n + 1 a random time between zero and `first` doubled n - 1 times,
/// never more than `cap`. Full jitter, since stacks that failed together must not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Tries in all, the first one included.
    pub tries: u32,
    pub first: Duration,
    pub cap: Duration,
}

impl Default for Backoff {
    /// Four tries spend 3.5 s at most on waiting: enough for a dropped connection or a busy file. What lasts longer is
    /// for the next apply, since a step that waits keeps the lease. The cap only matters where more tries are set.
    fn default() -> Self {
        Self { tries: 4, first: Duration::from_millis(500), cap: Duration::from_secs(15) }
    }
}

impl Backoff {
    /// The wait after the failed try number `attempt` (from 1); none when that was the last one. `fraction` is the
    /// jitter, from 0 to 1.
    pub fn wait(&self, attempt: u32, fraction: f64) -> Option<Duration> {
        if attempt >= self.tries {
            return None;
        }
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        Some(self.first.saturating_mul(doubled).min(self.cap).mul_f64(fraction.clamp(0.0, 1.0)))
    }
}

/// A random number from 0 to 1. Where the system has none to give, the wait is the longest one: jitter only spreads.
pub(super) fn jitter() -> f64 {
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_end_with_the_last_try() {
        let backoff = Backoff { tries: 8, ..Backoff::default() };
        let millis: Vec<_> = (1..=8).map(|n| backoff.wait(n, 1.0).map(|wait| wait.as_millis())).collect();
        let expected = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000].map(Some).into_iter().chain([None]);
        assert_eq!(millis, expected.collect::<Vec<_>>());
        assert_eq!(Backoff::default().wait(4, 1.0), None);
    }

    #[test]
    fn jitter_spreads_over_the_whole_wait() {
        assert_eq!(Backoff::default().wait(2, 0.0), Some(Duration::ZERO));
        assert_eq!(Backoff::default().wait(2, 0.25), Some(Duration::from_millis(250)));
        assert!((0..1_000).map(|_| jitter()).all(|fraction| (0.0..=1.0).contains(&fraction)));
    }

    #[test]
    fn a_huge_number_of_tries_does_not_overflow() {
        let backoff = Backoff { tries: u32::MAX, first: Duration::from_secs(1 << 40), cap: Duration::from_secs(15) };
        assert_eq!(backoff.wait(u32::MAX - 1, 1.0), Some(Duration::from_secs(15)));
    }
}
