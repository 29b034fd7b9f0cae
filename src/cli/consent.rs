//! Who says yes, to what. `--yes` never covers what overwrites or deletes data.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};

use super::Consent;
use super::error::{Exit, Failure};
use crate::apply::executor::Approvals;
use crate::model::plan::Plan;
use crate::model::step::Approval;

/// What a person, or the command line in their place, approves of this plan. `reviewed`: it came out of a saved file,
/// which somebody has read; that is their word for every step in it.
pub(super) fn ask(plan: &Plan, consent: &Consent, reviewed: bool) -> Result<Approvals, Failure> {
    note_unused(plan, consent);
    let mut tokens: BTreeSet<String> = consent.approve.iter().cloned().collect();
    if reviewed {
        return Ok(Approvals { tokens, everything: true });
    }
    if consent.yes {
        let implied = |word: &&str| consent.implied.iter().any(|kind| word.starts_with(kind));
        tokens.extend(held_words(plan).into_iter().filter(implied).map(str::to_owned));
        if let Some(word) = held_words(plan).into_iter().find(|word| consent.whole && !tokens.contains(*word)) {
            return Err(Failure::new(
                Exit::NotApproved,
                format!("nothing was done: {word} is held, and --yes does not cover it"),
            )
            .hint(format!("to say so: {}", approving(plan, consent))));
        }
        return Ok(Approvals { tokens, everything: false });
    }
    if !io::stdin().is_terminal() || consent.format == super::TextOrJson::Json {
        return Err(Failure::new(Exit::NotApproved, "nothing was done: nobody is here to be asked").hint(format!(
            "add {}, or review a plan first: `devstack plan --out FILE`, then `devstack apply FILE`",
            approving(plan, consent)
        )));
    }
    if !answered("Carry out these steps? Only 'yes' is taken as yes: ", "yes")? {
        return Err(Failure::new(Exit::NotApproved, "nothing was done: the answer was not the word 'yes'")
            .hint(format!("ask again, or say it at once: {}", approving(plan, consent))));
    }
    for step in plan.held() {
        let Approval::Needed { token, reason } = &step.approval else { continue };
        if tokens.contains(token) {
            continue;
        }
        let question = format!(
            "Step {}, {} {}: {reason}.\n  To approve it write {token}; anything else leaves it held: ",
            step.id,
            step.action.verb(),
            step.action.resource()
        );
        if answered(&question, token)? {
            tokens.insert(token.clone());
        }
    }
    Ok(Approvals { tokens, everything: false })
}

/// The arguments that approve all of a plan.
fn approving(plan: &Plan, consent: &Consent) -> String {
    let is_implied = |word: &&str| consent.implied.iter().any(|kind| word.starts_with(kind));
    let words = held_words(plan).into_iter().filter(|word| !is_implied(word));
    let words = words.map(|word| format!(" --approve {word}"));
    std::iter::once("--yes".to_owned()).chain(words).collect()
}

fn held_words(plan: &Plan) -> BTreeSet<&str> {
    let words = plan.held().filter_map(|step| match &step.approval {
        Approval::Needed { token, .. } => Some(token.as_str()),
        Approval::NotNeeded | Approval::ByRule => None,
    });
    words.collect()
}

/// A word that approves nothing is told: it may be a slip of the pen, and then the step that was meant stays held, which the exit
/// code says. A timer gives the same words each time, and what is due is done all the same.
pub(super) fn note_unused(plan: &Plan, consent: &Consent) {
    for text in unused(plan, &consent.approve) {
        eprintln!("note: {text}");
    }
}

fn unused(plan: &Plan, words: &[String]) -> Vec<String> {
    let held = held_words(plan);
    let told = |word: &&String| {
        let others = match held.is_empty() {
            true => "no step of this plan waits for approval".to_owned(),
            false => format!("held steps wait for: {}", held.iter().copied().collect::<Vec<_>>().join(", ")),
        };
        (!held.contains(word.as_str())).then(|| format!("--approve {word} approved nothing: {others}"))
    };
    words.iter().collect::<BTreeSet<_>>().iter().filter_map(told).collect()
}

fn answered(question: &str, wanted: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::caused(Exit::Unexpected, "asking", &error);
    let mut out = io::stderr();
    write!(out, "{question}").and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim() == wanted)
}
