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
    let mut tokens: BTreeSet<String> = consent.approve.iter().cloned().collect();
    refuse_unknown(plan, &tokens)?;
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

/// A word that approves nothing is a slip of the pen, and the step that was meant would stay held unnoticed.
fn refuse_unknown(plan: &Plan, tokens: &BTreeSet<String>) -> Result<(), Failure> {
    let held = held_words(plan);
    match tokens.iter().find(|token| !held.contains(token.as_str())) {
        None => Ok(()),
        Some(unknown) if held.is_empty() => {
            Err(Failure::new(Exit::Input, format!("--approve {unknown}: no step of this plan waits for approval")))
        }
        Some(unknown) => {
            let words: Vec<&str> = held.into_iter().collect();
            Err(Failure::new(Exit::Input, format!("--approve {unknown}: no step waits for that word"))
                .hint(format!("held steps wait for: {}", words.join(", "))))
        }
    }
}

fn answered(question: &str, wanted: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::caused(Exit::Unexpected, "asking", &error);
    let mut out = io::stderr();
    write!(out, "{question}").and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim() == wanted)
}
