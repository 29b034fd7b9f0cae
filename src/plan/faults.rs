//! What is wrong with runs without being damage: the newest is incomplete, a source shrank, a slot went by.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Planner;
use super::origin::Standpoint;
use crate::model::hook::{Hook, HookRun, OnFailure, Phase};
use crate::model::ids::{PolicyName, RepositoryName, RunId, ServiceName};
use crate::model::observation::{RepositoryFacts, Run, UnsealedRun};
use crate::model::plan::Note;
use crate::model::run::{Manifest, Sealed, Shrink};
use crate::model::shrink;
use crate::model::units::Span;
use crate::spec::file::{Hooks, Shrinking};

/// A slot that nobody has served for so long was missed, however far off the next one is.
const LATEST: Span = Span::from_hours(24);

impl Planner<'_> {
    pub(super) fn report_faults(&mut self) {
        if let Some(text) = &self.observation.unfinished_recovery {
            self.report.unfinished.push(Note::new("recovery", text.clone()));
        }
        self.report_failed_runs();
        self.report_interrupted();
        self.report_hooks();
        self.report_suspects();
        self.report_overdue();
        self.report_unscheduled();
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

    /// Runs that were cut off, sealed since or not, with the services that no later complete run has taken: who looks only at
    /// schedules would find them served by the run before.
    fn report_interrupted(&mut self) {
        let mut cut: Vec<Cut<'_>> = Vec::new();
        for (name, facts) in self.places.present() {
            let standpoint = Standpoint::of(self.observation, name, facts);
            let sealed = facts.runs.iter().filter(|run| run.manifest.sealed == Sealed::AfterInterruption);
            cut.extend(sealed.filter(|run| standpoint.is_ours(run)).map(|run| {
                let Manifest { run, policy, started, expected, .. } = &run.manifest;
                Cut { repository: name, run, policy, started: *started, services: expected.iter().collect() }
            }));
            // Of one that is being taken now there is no more either.
            if self.is_at_work(facts) {
                continue;
            }
            cut.extend(facts.unsealed.iter().filter_map(|UnsealedRun { run, policy, snapshots }| {
                let started = snapshots.iter().map(|(_, _, at)| *at).min()?;
                let declared = self.spec.backup.get(policy).map(|policy| self.spec.services_of(policy));
                let services =
                    snapshots.iter().map(|(_, service, _)| service.clone()).chain(declared.into_iter().flatten());
                let services = services.filter_map(|name| Some(self.spec.services.get_key_value(&name)?.0)).collect();
                Some(Cut { repository: name, run, policy, started, services })
            }));
        }
        // A run or a slot dated in the future comes from a clock that was wrong.
        cut.retain(|it| it.started <= self.now && self.spec.backup.contains_key(&it.policy.whole()));
        cut.sort_by_key(|it| (std::cmp::Reverse(it.started), it.run));
        let mut told: BTreeSet<&ServiceName> = BTreeSet::new();
        let mut notes = Vec::new();
        for Cut { repository, run, started, services, .. } in cut {
            let mut open: BTreeSet<&ServiceName> = services;
            open.retain(|service| {
                self.spec.services.contains_key(*service) && !self.is_taken_since(service, run, started)
            });
            // The newest is what is told of a service.
            open.retain(|service| told.insert(service));
            if !open.is_empty() {
                let names: Vec<&str> = open.iter().map(|service| service.as_str()).collect();
                let text = format!(
                    "the run was interrupted, and no later one has taken {}; `devstack backup` takes another",
                    names.join(", ")
                );
                notes.push(Note::new(format!("{repository}/{run}"), text));
            }
        }
        notes.extend(self.cut_before_a_trace(&told));
        self.report.interrupted.extend(notes);
    }

    /// Of a run that has left nothing in any repository only the journal knows: it was at its first take, or at a hook before it.
    fn cut_before_a_trace(&self, told: &BTreeSet<&ServiceName>) -> Vec<Note> {
        if self.is_somebody_at_work() {
            return Vec::new();
        }
        let mut cut: BTreeMap<ServiceName, Timestamp> = BTreeMap::new();
        for (name, policy) in &self.spec.backup {
            for service in self.spec.services_of(policy) {
                let begun = [format!("take/{service}"), format!("hook/{service}"), format!("hook/{name}")];
                let begun = begun.iter().filter_map(|key| self.history.cut_off.get(key)).map(|cut| cut.at).max();
                let at = cut.remove(&service).max(begun);
                cut.extend(at.map(|at| (service, at)));
            }
        }
        cut.retain(|service, at| *at <= self.now && !told.contains(service) && !self.is_whole_since(service, *at));
        let note = |(service, at): (ServiceName, Timestamp)| {
            let text = format!(
                "its backup was cut off {} ago, and no run since has it; `devstack backup {service}` takes it",
                Span::between(at, self.now)
            );
            Note::new(format!("{service}/backup"), text)
        };
        cut.into_iter().map(note).collect()
    }

    /// A policy that has run, and that nothing brings about again: protected on the day of its run, and less on every day after it.
    /// Services with an RPO are told of by that, and services of another policy that has a schedule are taken by it.
    fn report_unscheduled(&mut self) {
        let spec = self.spec;
        let open = spec.unscheduled();
        for (name, policy) in spec.backup.iter().filter(|(_, policy)| policy.schedule.is_none()) {
            let services: Vec<ServiceName> =
                spec.services_of(policy).into_iter().filter(|it| open.contains(it)).collect();
            let has_run = self.runs_in_its_repositories(name).any(|run| run.is_complete());
            if services.is_empty() || !has_run {
                continue;
            }
            let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
            let text = format!(
                "it has no schedule, and nothing takes {} again; write a `schedule`, or `manual: true` where somebody takes it \
                 by hand",
                names.join(", ")
            );
            self.report.unscheduled.push(Note::new(format!("{name}/backup"), text));
        }
    }

    /// By a complete run that is later, or by the same in another repository.
    fn is_taken_since(&self, service: &ServiceName, cut: &RunId, started: Timestamp) -> bool {
        self.places.present().flat_map(|(_, facts)| &facts.runs).any(|run| {
            let Manifest { run: id, started: at, .. } = &run.manifest;
            let is_later = (*at > started && *at <= self.now) || id == cut;
            is_later && run.is_complete() && run.manifest.taken_of(service).is_some()
        })
    }

    /// A run that has it ended later, whatever else it lacks.
    fn is_whole_since(&self, service: &ServiceName, at: Timestamp) -> bool {
        let mut runs = self.places.present().flat_map(|(_, facts)| &facts.runs).map(|run| &run.manifest);
        runs.any(|run| run.finished >= at && run.taken_of(service).is_some())
    }

    pub(super) fn is_somebody_at_work(&self) -> bool {
        self.places.present().any(|(_, facts)| self.is_at_work(facts))
    }

    /// Somebody else's command on this stack.
    fn is_at_work(&self, facts: &RepositoryFacts) -> bool {
        facts.leases.iter().any(|lease| lease.alive && lease.stack == self.spec.stack)
    }

    /// Hooks that were to undo something after a backup, until they have ended well once more: a cloud may still stand in
    /// maintenance. One whose failure the file calls a warning was told when it failed.
    fn report_hooks(&mut self) {
        let mut runs: Vec<&Run> = self.places.present().flat_map(|(_, facts)| &facts.runs).collect();
        runs.sort_by_key(|run| (run.manifest.started, &run.manifest.run));
        let mut last: BTreeMap<(String, &str), (&RunId, &HookRun)> = BTreeMap::new();
        for run in runs {
            let after = run.manifest.hooks.iter().filter(|hook| hook.phase == Phase::After);
            last.extend(after.map(|hook| {
                let policy = || run.manifest.policy.whole().to_string();
                let owner = hook.service.as_ref().map_or_else(policy, ToString::to_string);
                ((owner, hook.command.as_str()), (&run.manifest.run, hook))
            }));
        }
        let is_at_work = self.is_somebody_at_work();
        let mut notes = Vec::new();
        for owner in self.owners_of_hooks() {
            for (index, hook) in owner.after.iter().enumerate().filter(|(_, hook)| hook.on_failure == OnFailure::Fail) {
                let shown = hook.shown();
                let failed = last.iter().find_map(|((of, command), (run, ran))| {
                    // A secret of the file is not kept in it.
                    let is_it = *of == owner.name && (*command == shown || command.contains("***"));
                    Some((run, ran.failed.as_ref().filter(|_| is_it)?))
                });
                let key = format!("hook/{}/after/{index}", owner.name);
                let cut =
                    owner.begun_by.iter().filter_map(|begun| self.history.cut_off.get(begun)).max_by_key(|it| it.at);
                let cut = cut.filter(|cut| !is_at_work && !cut.undone.contains(&key));
                let what = match (failed, cut) {
                    (Some((run, why)), _) => format!("failed in run {run}: {why}"),
                    (None, Some(cut)) => {
                        format!(
                            "did not come to its end in the run that was cut off {} ago",
                            Span::between(cut.at, self.now)
                        )
                    }
                    (None, None) => continue,
                };
                let text = format!(
                    "`{shown}` {what}; what it undoes may still be so. A run in which it ends well ends this: `devstack backup {}`",
                    owner.again
                );
                notes.push(Note::new(format!("{}/after", owner.name), text));
            }
        }
        self.report.hooks.extend(notes);
    }

    fn owners_of_hooks<'s>(&'s self) -> Vec<Owner<'s>> {
        let after = |hooks: &'s Option<Hooks>| hooks.as_ref().map_or(&[][..], |hooks| &hooks.after);
        let services = self.spec.services.iter().map(|(name, service)| Owner {
            name: name.to_string(),
            after: after(&service.hooks),
            begun_by: vec![format!("take/{name}"), format!("hook/{name}")],
            again: name.to_string(),
        });
        let policies = self.spec.backup.iter().map(|(name, policy)| {
            // A take does not say by which of several policies it was.
            let others = self.spec.backup.values().filter(|other| !std::ptr::eq(*other, policy));
            let others: BTreeSet<ServiceName> = match policy.hooks {
                Some(_) => others.flat_map(|other| self.spec.services_of(other)).collect(),
                None => BTreeSet::new(),
            };
            let takes = self.spec.services_of(policy).into_iter().filter(|service| !others.contains(service));
            Owner {
                name: name.to_string(),
                after: after(&policy.hooks),
                begun_by: takes.map(|it| format!("take/{it}")).chain([format!("hook/{name}")]).collect(),
                again: format!("--policy {name}"),
            }
        });
        services.chain(policies).filter(|owner| !owner.after.is_empty()).collect()
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

/// A run that was cut off.
struct Cut<'a> {
    repository: &'a RepositoryName,
    run: &'a RunId,
    policy: &'a PolicyName,
    started: Timestamp,
    services: BTreeSet<&'a ServiceName>,
}

/// Whose hooks.
struct Owner<'a> {
    name: String,
    after: &'a [Hook],
    /// What the journal calls that after which they are run.
    begun_by: Vec<String>,
    /// What has them run again.
    again: String,
}

/// Told apart by id where two began at one instant, so that the order in which they are listed changes nothing.
fn oldest_first(facts: &RepositoryFacts) -> impl Iterator<Item = &Run> {
    let mut runs: Vec<&Run> = facts.runs.iter().collect();
    runs.sort_by_key(|run| (run.manifest.started, &run.manifest.run));
    runs.into_iter()
}

#[cfg(test)]
mod tests;
