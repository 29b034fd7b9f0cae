//! What is wrong with runs without being damage: the newest is incomplete, a source shrank, a slot went by.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Planner;
use crate::model::ids::{PolicyName, RunId, ServiceName};
use crate::model::observation::{RepositoryFacts, Run};
use crate::model::plan::Note;
use crate::model::run::{Sealed, Shrink};
use crate::model::shrink;
use crate::model::units::Span;
use crate::spec::file::Shrinking;

/// A slot that nobody has served for so long was missed, however far off the next one is.
const LATEST: Span = Span::from_hours(24);

impl Planner<'_> {
    pub(super) fn report_faults(&mut self) {
        if let Some(text) = &self.observation.unfinished_recovery {
            self.report.unfinished.push(Note::new("recovery", text.clone()));
        }
        self.report_failed_runs();
        self.report_suspects();
        self.report_overdue();
    }

    /// Policies whose newest run is not complete. One that the file no longer declares gets no other run, and is left out.
    fn report_failed_runs(&mut self) {
        for (name, facts) in self.places.present() {
            let mut newest: BTreeMap<&PolicyName, &Run> = BTreeMap::new();
            // One that was cut off is no verdict on its sources: what it was to serve is due again, and told where it is missed.
            let whole = |run: &&Run| run.manifest.sealed != Sealed::AfterInterruption;
            let declared = |run: &&Run| self.spec.backup.contains_key(&run.manifest.policy.whole());
            let mut parts: BTreeMap<PolicyName, &Run> = BTreeMap::new();
            for run in oldest_first(facts).filter(whole).filter(declared) {
                let policy = &run.manifest.policy;
                if policy.is_part() {
                    parts.insert(policy.whole(), run);
                } else {
                    newest.insert(policy, run);
                    // What was asked for of some services is in the run of all, or is missing there too.
                    parts.remove(policy);
                }
            }
            newest.extend(parts.into_values().map(|run| (&run.manifest.policy, run)));
            for run in newest.into_values().filter(|run| !run.manifest.is_complete()) {
                let missing: Vec<&str> = run.manifest.missing().map(|(service, _)| service.as_str()).collect();
                let id = &run.manifest.run;
                let text = format!(
                    "the newest run of {} is without {}; `devstack backup` takes another",
                    run.manifest.policy,
                    missing.join(", ")
                );
                self.report.failed.push(Note::new(format!("{name}/{id}"), text));
            }
        }
    }

    /// What keeps older runs from retention until somebody accepts it.
    fn report_suspects(&mut self) {
        for (name, facts) in self.places.present() {
            // Each run after the one that lacks something lacks it too: told once, with the first.
            let mut first: BTreeMap<&ServiceName, (&RunId, &Shrink, usize)> = BTreeMap::new();
            for run in oldest_first(facts) {
                let id = &run.manifest.run;
                for (service, taken) in run.manifest.taken() {
                    let accepted = facts.accepted_shrinks.iter().any(|(of, it)| of == id && it == service);
                    if let Some(shrink) = taken.suspect.as_ref().filter(|_| !accepted) {
                        first.entry(service).and_modify(|(.., later)| *later += 1).or_insert((id, shrink, 0));
                    }
                }
            }
            for (service, (id, shrink, later)) in first {
                let later = match later {
                    0 => String::new(),
                    1 => " and in the one after it".to_owned(),
                    more => format!(" and in the {more} after it"),
                };
                let text = format!(
                    "{shrink}, in run {id} in {name}{later}; if that is right: `devstack apply --approve accept:{service}`"
                );
                self.report.suspect.push(Note::new(service.as_str(), text));
            }
        }
    }

    /// Tables and databases that the newest run holds and that are not there now: told before the next run finds it, since who has
    /// just dropped one can still look for it.
    pub(super) fn report_gone(&mut self) {
        for (name, present) in &self.observation.holding {
            let Some((run, taken)) = self.last_run_of(name) else { continue };
            let declared = self.spec.services.get(name).and_then(|service| service.shrinking.as_ref());
            // A pattern that can't be read was refused with the file.
            let volatile = declared.map(Shrinking::volatile).transpose().ok().flatten().unwrap_or_default();
            let things = shrink::gone(taken, present, &volatile);
            if things.is_empty() {
                continue;
            }
            let gone = Shrink { from: taken.bytes(), to: taken.bytes(), things };
            let text = format!(
                "{gone}, in run {run}, and not there now; to bring back what it held then: `devstack restore {name} --backup {run} \
                 --in-place`. If that is right, the next run is suspect until you accept it"
            );
            self.report.suspect.push(Note::new(name.as_str(), text));
        }
    }

    /// A slot that is open is due, and no fault; one that the next slot has overtaken, or that has been open for a day, was
    /// missed. A policy that never had a complete run is told by its services, which nothing protects.
    fn report_overdue(&mut self) {
        let spec = self.spec;
        for name in spec.backup.keys() {
            let Some(slots) = self.calendar.slots(name) else { continue };
            let complete =
                || self.runs_in_its_repositories(name).filter(|run| run.is_complete() && run.started <= self.now);
            let Some(last) = complete().map(|run| run.slot.unwrap_or(run.started).min(run.started)).max() else {
                continue;
            };
            let Some(open) = slots.next_after(last).filter(|open| *open <= self.now) else { continue };
            let latest: Timestamp = LATEST.after(open);
            let limit = slots.next_after(open).map_or(latest, |next| next.min(latest));
            if limit <= self.now {
                let age = Span::between(open, self.now);
                let text = format!("no complete run has served its slot of {age} ago; `devstack apply --yes` takes it");
                self.report.overdue.push(Note::new(format!("{name}/backup"), text));
            }
        }
    }
}

/// Told apart by id where two began at one instant, so that the order in which they are listed changes nothing.
fn oldest_first(facts: &RepositoryFacts) -> impl Iterator<Item = &Run> {
    let mut runs: Vec<&Run> = facts.runs.iter().collect();
    runs.sort_by_key(|run| (run.manifest.started, &run.manifest.run));
    runs.into_iter()
}
