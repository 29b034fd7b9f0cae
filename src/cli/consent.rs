//! Who says yes, to what. What is asked stands in the table of [`crate::model::consent`]; this asks it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, IsTerminal, Write};

use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::{Consent, TextOrJson};
use crate::apply::executor::Approvals;
use crate::apply::host::Holder;
use crate::model::consent::{Asked, Harm, KINDS, Way, covers, kind};
use crate::model::plan::Plan;
use crate::model::record::{Approved, ApprovedWord, How};
use crate::model::run::RECORD_FORMAT;
use crate::model::step::{Approval, StepId, WaitOn};
use crate::plan::render::printable;
use crate::spec::nearest;

/// What came of asking.
pub(super) enum Answer {
    /// With how it was said.
    Approved(Approvals, How),
    /// Somebody said no.
    Cancelled,
}

/// Where a plan comes from, as far as consent goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// It was made just now.
    None,
    /// As [`Self::None`], and `plan --out` would save it.
    CanBeSaved,
    /// Somebody has saved and read it.
    Reviewed,
    /// A recovery that was interrupted: all of it was approved when it began, and going on takes one yes.
    Begun,
}

/// What a person, or the command line in their place, approves of this plan.
pub(super) fn ask(plan: &Plan, consent: &Consent, past: Past) -> Result<Answer, Failure> {
    note_unused(plan, consent);
    let given = consent.given.iter().map(|word| (*word).to_owned());
    let tokens = consent.approve.iter().cloned().chain(given).collect();
    let mut approvals = Approvals { tokens, everything: matches!(past, Past::Reviewed | Past::Begun) };
    let is_terminal = io::stdin().is_terminal() && consent.format == TextOrJson::Text;
    let way = way(consent.yes, past == Past::Reviewed, is_terminal);
    let asked = |of: Asked| plan.steps.iter().any(|step| Harm::of(step).asked(way) == of);
    if asked(Asked::Refused) {
        let text = "nothing was done: confirmation is required, and there is no terminal to ask at";
        let refused = Failure::new(Exit::NotApproved, text)
            .hint(format!("to approve it, give the command {}", approving(plan, consent, &approvals)));
        let review = "or review a plan first: `devstack plan --out FILE`, then `devstack apply FILE`";
        return Err(if past == Past::CanBeSaved { refused.hint(review) } else { refused });
    }
    if (asked(Asked::Yes) || asked(Asked::WordTyped)) && !answered("Proceed? Type yes: ")?.eq_ignore_ascii_case("yes") {
        return Ok(Answer::Cancelled);
    }
    if asked(Asked::WordTyped) {
        for (kind, words) in missing(plan, &approvals) {
            for (word, reasons) in &words {
                eprintln!("  {word}: {}", printable(&reasons.join("; ")));
            }
            let answer = answered(&question(kind, &words.keys().copied().collect::<Vec<_>>()))?;
            approvals.tokens.extend(answer.split_whitespace().map(str::to_owned));
        }
    }
    let missing = missing(plan, &approvals);
    let word = missing.values().flat_map(BTreeMap::keys).next();
    match word {
        None => Ok(Answer::Approved(approvals, how(way))),
        Some(_) if way == Way::Terminal && (consent.whole || nothing_runs(plan, &approvals)) => Ok(Answer::Cancelled),
        Some(word) if consent.whole => Err(Failure::new(
            Exit::NotApproved,
            format!("nothing was done: {word} is held, and --yes does not cover it"),
        )
        .hint(format!("to approve it, give the command {}", approving(plan, consent, &approvals)))),
        Some(_) => Ok(Answer::Approved(approvals, how(way))),
    }
}

fn how(way: Way) -> How {
    match way {
        Way::Terminal => How::Terminal,
        Way::Yes | Way::Nobody => How::Arguments,
        Way::Reviewed => How::SavedPlan,
    }
}

/// What goes on record of it: every word that was said, and that lost data comes back. None where a plain yes was enough for all.
pub(super) fn on_record(plan: &Plan, approvals: &Approvals, how: How) -> Option<Approved> {
    let mut words: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for step in plan.steps.iter().filter(|step| approvals.missing(step).is_none()) {
        let word = match (step.approval.token(), Harm::of(step)) {
            (Some(token), _) => token,
            (None, Harm::BringsBack) => "yes",
            (None, _) => continue,
        };
        words.entry(word).or_default().push(format!("{} {}", step.action.verb(), step.action.resource()));
    }
    let words: Vec<ApprovedWord> =
        words.into_iter().map(|(word, steps)| ApprovedWord { word: word.to_owned(), steps }).collect();
    let holder = Holder::here();
    let by = format!("{}@{}", holder.user, holder.host.name);
    let (plan, at) = (plan.id.clone(), Timestamp::now());
    (!words.is_empty()).then_some(Approved { format: RECORD_FORMAT, plan, at, by, how, words })
}

/// How this command is given its answers.
fn way(yes: bool, is_saved: bool, is_terminal: bool) -> Way {
    match (yes, is_saved, is_terminal) {
        (_, true, _) => Way::Reviewed,
        (true, false, _) => Way::Yes,
        (false, false, true) => Way::Terminal,
        (false, false, false) => Way::Nobody,
    }
}

fn question(kind: &str, words: &[&str]) -> String {
    match words {
        [one] => format!("Type {one} to approve it; anything else skips it: "),
        many => {
            format!("Type {kind} to approve these {}, or the words of some; anything else skips them: ", many.len())
        }
    }
}

/// The words that are still to be said, by their kind, with what each approves.
fn missing<'a>(plan: &'a Plan, approvals: &Approvals) -> BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a str>>> {
    let mut missing: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
    for step in &plan.steps {
        let (Some(word), Approval::Needed { reason, .. }) = (approvals.missing(step), &step.approval) else { continue };
        let reasons = missing.entry(kind(word)).or_default().entry(word).or_default();
        if !reasons.contains(&reason.as_str()) {
            reasons.push(reason);
        }
    }
    missing
}

/// Whether each step is held, or waits for one that is.
fn nothing_runs(plan: &Plan, approvals: &Approvals) -> bool {
    let mut held: BTreeSet<StepId> = BTreeSet::new();
    // A step comes after those that it waits for.
    for step in &plan.steps {
        let waits = step.waits.iter().any(|wait| wait.on == WaitOn::Success && held.contains(&wait.step));
        if waits || approvals.missing(step).is_some() {
            held.insert(step.id);
        }
    }
    held.len() == plan.steps.len()
}

/// The arguments that approve all of a plan. Where there are several of one kind, the kind alone is shorter.
fn approving(plan: &Plan, consent: &Consent, approvals: &Approvals) -> String {
    let tokens = || plan.held().filter_map(|step| step.approval.token());
    let used = consent.approve.iter().filter(|word| tokens().any(|token| covers(word, token)));
    let missing = missing(plan, approvals).into_iter().map(|(kind, words)| match words.keys().next() {
        Some(only) if words.len() == 1 => (*only).to_owned(),
        _ => kind.to_owned(),
    });
    let words = used.cloned().chain(missing).map(|word| format!(" --approve {word}"));
    format!("`{}`", std::iter::once("--yes".to_owned()).chain(words).collect::<String>())
}

/// A word that no step can ever wait for is a slip of the pen, and is told before anything is done. One that merely nothing waits
/// for now is not: a timer gives the same words each time. `names` are those of the file and of what its repositories hold.
pub(super) fn must_be_words(plan: &Plan, consent: &Consent, names: &BTreeSet<String>) -> Result<(), Failure> {
    let held: BTreeSet<&str> = plan.held().filter_map(|step| step.approval.token()).collect();
    for word in consent.approve.iter().filter(|word| !held.iter().any(|token| covers(word, token))) {
        let of = kind(word);
        if !KINDS.contains(&of) {
            let known = nearest(of, KINDS).map_or_else(|| KINDS.join(", "), |near| format!("did you mean `{near}`?"));
            let hint = format!("a word is `KIND:NAME`, or the kind alone; kinds: {known}");
            return Err(Failure::new(
                Exit::Input,
                format!("nothing was done: no step ever waits for --approve {word}"),
            )
            .hint(hint));
        }
        let Some((_, name)) = word.split_once(':') else { continue };
        let name = name.strip_prefix("removed:").unwrap_or(name);
        if !names.contains(name) && of != "project" {
            let near = nearest(name, names.iter().map(String::as_str));
            let failure =
                format!("nothing was done: --approve {word} names nothing that the file or its repositories know");
            let failure = Failure::new(Exit::Input, failure);
            return Err(match near {
                Some(near) => failure.hint(format!("did you mean `--approve {of}:{near}`?")),
                None => failure.hint("`devstack plan` shows the words that steps wait for"),
            });
        }
    }
    Ok(())
}

/// A word that approves nothing is told: it may be a slip of the pen, and then the step that was meant stays held, which the exit
/// code says. A timer gives the same words each time, and what is due is done all the same.
pub(super) fn note_unused(plan: &Plan, consent: &Consent) {
    for text in unused(plan, &consent.approve) {
        eprintln!("note: {text}");
    }
}

fn unused(plan: &Plan, words: &[String]) -> Vec<String> {
    let held: BTreeSet<&str> = plan.held().filter_map(|step| step.approval.token()).collect();
    let told = |word: &&String| {
        let others = match held.is_empty() {
            true => "no step of this plan waits for approval".to_owned(),
            false => format!("held steps wait for: {}", held.iter().copied().collect::<Vec<_>>().join(", ")),
        };
        let is_used = held.iter().any(|token| covers(word, token));
        (!is_used).then(|| format!("--approve {word} approved nothing: {others}"))
    };
    words.iter().collect::<BTreeSet<_>>().iter().filter_map(told).collect()
}

fn answered(question: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::caused(Exit::Unexpected, "asking", &error);
    let mut out = io::stderr();
    write!(out, "{question}").and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::step::{Action, Effect, Restore, RestoreTarget};
    use crate::plan::fixtures::{World, service, small};
    use crate::plan::{Recover, Request};

    fn consent(approve: &[&str]) -> Consent {
        Consent {
            yes: true,
            approve: approve.iter().map(|word| (*word).to_owned()).collect(),
            parallel: 1,
            format: TextOrJson::Text,
            given: vec![],
            whole: true,
        }
    }

    /// One service that is gone, and one with data; both are to come back.
    fn replaced() -> Plan {
        use crate::model::observation::SourceState;
        let mut world = World::settled(small()).with_history(2, 12);
        world.source("shop", SourceState::Gone);
        let mut plan = world.ask(&Request::Recover(Recover::everything())).unwrap();
        let held = plan.steps.iter().find(|step| matches!(step.action, Action::Restore(_))).unwrap().clone();
        for name in ["a", "b"] {
            let mut step = held.clone();
            let Action::Restore(restore) = &held.action else { unreachable!() };
            let restore = Restore { service: service(name), target: RestoreTarget::InPlace, ..restore.clone() };
            step.action = Action::Restore(restore);
            step.effect = Effect::OverwritesData;
            step.approval = Approval::Needed { token: format!("restore:{name}"), reason: "overwrites".to_owned() };
            step.id = StepId(u32::try_from(plan.steps.len()).unwrap() + 1);
            plan.steps.push(step);
        }
        plan
    }

    #[test]
    fn a_word_that_no_step_can_wait_for_is_an_error_and_one_that_nothing_waits_for_now_is_not() {
        let plan = World::settled(small()).with_history(2, 12).plan();
        let names = ["shop", "local", "daily"].into_iter().map(str::to_owned).collect();
        let said = |word: &str| match must_be_words(&plan, &consent(&[word]), &names) {
            Ok(()) => String::new(),
            Err(failure) => format!("{} {failure:?}", failure.exit().code()),
        };
        for fine in [
            "forget:local",
            "forget",
            "accept:removed:local",
            "accept:shop",
            "retention:daily",
            "project:old",
            "recover",
        ] {
            assert_eq!(said(fine), "", "{fine}");
        }
        for (slip, meant) in
            [("bogus", "accept, adopt"), ("forgot:local", "did you mean `forget`"), ("restore:shpo", "restore:shop")]
        {
            let said = said(slip);
            assert!(said.starts_with("3 ") && said.contains(slip) && said.contains(meant), "{said}");
        }
        assert!(said("take:").starts_with("3 ") && said("accept:removed:elsewhere").starts_with("3 "));
    }

    #[test]
    fn what_was_approved_goes_on_record_with_who_said_it_and_a_plain_yes_to_a_backup_does_not() {
        let plan = replaced();
        let given = |words: &[&str]| Approvals {
            tokens: words.iter().map(|word| (*word).to_owned()).collect(),
            everything: false,
        };
        let said = |words: &[&str]| {
            let record = on_record(&plan, &given(words), How::Arguments).unwrap();
            record.words.into_iter().map(|it| format!("{} {}", it.word, it.steps.join("+"))).collect::<Vec<_>>()
        };
        assert_eq!(said(&[]), ["yes restore shop/data"]);
        assert_eq!(said(&["restore:a"]), ["restore:a restore a/data", "yes restore shop/data"]);
        assert_eq!(said(&["restore"]).len(), 3);
        let backup = World::settled(small()).plan();
        assert!(!backup.is_empty() && on_record(&backup, &given(&[]), How::Terminal).is_none());
    }

    #[test]
    fn the_arguments_that_are_told_approve_all_and_are_short() {
        let plan = replaced();
        let told = |words: &[&str]| {
            let consent = consent(words);
            let tokens = consent.approve.iter().cloned().collect();
            approving(&plan, &consent, &Approvals { tokens, everything: false })
        };
        assert_eq!(told(&[]), "`--yes --approve restore`");
        assert_eq!(told(&["restore:a"]), "`--yes --approve restore:a --approve restore:b`");
        assert_eq!(told(&["restore", "nothing"]), "`--yes --approve restore`");
        assert_eq!(unused(&plan, &["restore".to_owned(), "forget:local".to_owned()]).len(), 1);
    }
}
