//! Plan → outcome: carries a plan out and decides nothing. One step is one external act that can be repeated safely.

pub mod clock;
pub mod executor;
pub mod exit;
pub mod host;
pub mod interrupt;
pub mod journal;
pub mod lease;
pub mod progress;
pub mod resume;
pub mod retry;
pub mod runner;
mod schedule;
pub mod steps;

#[cfg(test)]
pub(crate) mod plans;
