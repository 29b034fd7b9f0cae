//! What the rooms above talk about: runs, evidence, history, observation, plans and steps.
//!
//! Invariant: nothing in here does input or output, reads a clock, or draws a random number.

pub mod cancel;
pub mod evidence;
pub mod history;
pub mod ids;
pub mod observation;
pub mod outcome;
pub mod plan;
pub mod record;
pub mod retention;
pub mod run;
pub mod step;
pub mod units;
