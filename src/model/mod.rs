//! What the rooms above talk about: runs, evidence, history, observation, plans and steps.
//!
//! Invariant: nothing in here does input or output, reads a clock, or draws a random number.

pub mod assertion;
pub mod cancel;
pub mod certificate;
pub mod compose;
pub mod consent;
pub mod damage;
pub mod drill;
pub mod evidence;
pub mod history;
pub mod holdings;
pub mod hook;
pub mod ids;
pub mod image;
pub mod login;
pub mod observation;
pub mod origin;
pub mod outcome;
pub mod plan;
pub mod record;
pub mod resolved;
pub mod retention;
pub mod run;
pub mod shrink;
pub mod standing;
pub mod step;
pub mod units;

/// The first few names, and how many more there are: `web, worker and 3 more`.
pub fn listed<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let first = names.iter().take(most).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// An error and its causes in one line, joined by colons: the one place where a chain is put into words.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // `transparent` variants and wrapping crates repeat their source's words.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
