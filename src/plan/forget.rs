//! Retention as steps: rules are approved, shrunken sources accepted, runs forgotten on the projected set, packs pruned.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Planner;
use super::draft::NewStep;
use super::projection::{Projected, State};
use super::request::{ForgetSelection, PlanError};
use super::retention::{self, Candidate, Cause, Standing, Verdict};
use crate::model::ids::{PolicyName, RepositoryName, RunId, ServiceName};
use crate::model::plan::Note;
use crate::model::retention::{NEVER_FORGOTTEN, PRUNE_GRACE, Rule};
use crate::model::run::{ServiceResult, Taken};
use crate::model::step::{Action, Effect, Estimate, Precondition, StepId};
use crate::model::units::ByteSize;

/// Who approves a forget reads what goes; a hundred ids nobody reads.
const NAMED_RUNS: usize = 6;
/// A rule that takes more than this share of a policy's complete runs at once has been changed, or the clock has: held.
const HELD_SHARE_PERCENT: usize = 30;
/// Of so few runs, one alone is more than the share, in the ordinary course of things.
const TOO_FEW_FOR_A_SHARE: usize = 3;

impl<'a> Planner<'a> {
    /// One step for each shrunken source that nobody has accepted yet.
    pub(super) fn accept_shrinks(&mut self) {
        let written = self.written().into_iter().flat_map(|(name, it)| [(name.clone(), it.part()), (name, it)]);
        for (name, policy) in written.collect::<Vec<_>>() {
            let Some(place) = self.places.known.get(&name) else { continue };
            let suspects: Vec<_> =
                place.runs_of(&policy).iter().filter(|run| !run.suspect.is_empty()).cloned().collect();
            for run in suspects {
                for service in &run.suspect {
                    self.accept_shrink(&name, &policy, &run, service, None, None);
                }
            }
        }
    }

    /// A copy of a run with a shrunken source is suspect where it lies, until that is accepted there too. What was accepted
    /// in the repository that it came from needs no second word.
    pub(super) fn accept_shrinks_of_copy(
        &mut self,
        policy: &PolicyName,
        run: &Projected<'a>,
        (from, to): (&RepositoryName, &RepositoryName),
        copy: StepId,
    ) {
        let Some(seen) = run.seen else { return };
        for (service, _) in seen.manifest.taken().filter(|(_, taken)| taken.suspect.is_some()) {
            let accepted = (!run.suspect.contains(service)).then_some(from);
            self.accept_shrink(to, policy, run, service, Some(copy), accepted);
        }
    }

    fn accept_shrink(
        &mut self,
        name: &RepositoryName,
        policy: &PolicyName,
        run: &Projected<'a>,
        service: &ServiceName,
        copy: Option<StepId>,
        accepted: Option<&RepositoryName>,
    ) {
        let Some(seen) = run.seen else { return };
        let Some(ServiceResult::Taken(Taken { suspect: Some(shrink), .. })) = seen.manifest.services.get(service)
        else {
            return;
        };
        let (repository, run, shrink) = (name.clone(), run.run.clone(), shrink.clone());
        let reason = format!("{shrink}, in run {run}");
        let step = NewStep::new(Action::AcceptShrink { repository, run, service: service.clone(), shrink })
            .because(reason.clone())
            .after(copy)
            .given(self.places.known.get(name).and_then(|place| place.is(name)));
        let step = match accepted {
            Some(from) => step.because(format!("accepted in {from}")),
            None => {
                let text = format!("nothing is forgotten while the shrink of {service} is not accepted");
                self.report.waiting.push(Note::new(format!("{name}/{policy}/retention"), text));
                step.held(format!("accept:{service}"), reason)
            }
        };
        let id = self.draft.add(step);
        self.wrote(name, [id]);
        if let Some(place) = self.places.known.get_mut(name) {
            place.accepts.entry(policy.clone()).or_default().push(id);
        }
    }

    /// Records the declared rules as approved; a tighter one than was approved only when somebody says so.
    pub(super) fn approve_rules(&mut self) {
        for (name, policy) in self.written() {
            let (Some(rule), Some(place)) = (self.spec.backup[&policy].retention, self.places.known.get(&name)) else {
                continue;
            };
            if matches!(place.state, State::Absent { .. }) && place.created.is_none() {
                continue;
            }
            let approved = place.facts().and_then(|facts| facts.approved_rules.get(&policy));
            if approved == Some(&rule) {
                continue;
            }
            // With no rule at all everything stays: the first rule is tighter than that.
            let tighter = approved.is_none_or(|approved| rule.is_tighter_than(approved));
            let held = tighter && place.runs_of(&policy).iter().any(Projected::is_complete);
            let cause = difference(approved, &rule);
            let action = Action::ApproveRule { repository: name.clone(), policy: policy.clone(), rule };
            let step = NewStep::new(action).because(cause.clone()).given(place.is(&name)).after(place.created);
            let step = if held {
                let text = format!("nothing is forgotten until the rule is approved ({cause})");
                self.report.waiting.push(Note::new(format!("{name}/{policy}/retention"), text));
                step.held(format!("retention:{policy}"), format!("keeps less than before: {cause}"))
            } else {
                step
            };
            let id = self.draft.add(step);
            self.wrote(&name, [id]);
            if let Some(place) = self.places.known.get_mut(&name) {
                place.rules.insert(policy.clone(), id);
            }
        }
    }

    /// Forgets what the rules no longer keep, then prunes.
    pub(super) fn retain(&mut self) {
        let mut forgets: BTreeMap<RepositoryName, Vec<StepId>> = BTreeMap::new();
        for (name, policy, projected) in self.groups() {
            let Some(rule) = self.spec.backup[&policy.whole()].retention else { continue };
            let Some(place) = self.places.known.get(&name).filter(|place| place.facts().is_some()) else { continue };
            let has_rule_step = place.rules.contains_key(&policy.whole()) || policy.is_part();
            // Acceptance is a step that the forgetting waits for: decided as if it had succeeded.
            let serving = serving(&projected, self.now);
            let candidates: Vec<_> = projected.iter().map(|run| candidate(run, false, serving.as_ref())).collect();
            let verdicts = retention::decide(&candidates, &rule, self.now, &self.calendar.zone(&policy.whole()));
            let resource = format!("{name}/{policy}/retention");
            let going = |verdict: &Verdict| !verdict.is_keep();
            if !verdicts.iter().any(|(_, verdict)| going(verdict)) {
                if !has_rule_step && !projected.is_empty() {
                    let text = format!("all {} runs stay under {}", projected.len(), in_words(&rule));
                    self.report.unchanged.push(Note::new(resource, text));
                }
                continue;
            }
            if self.is_busy(&name, &resource, "forgetting") {
                continue;
            }
            let id = self.forget_by_rule(&name, &policy, &rule, &projected, &verdicts);
            forgets.entry(name).or_default().push(id);
        }
        let names: Vec<_> = self.places.present().map(|(name, facts)| (name.clone(), facts.marked)).collect();
        for (name, _) in &names {
            forgets.entry(name.clone()).or_default().extend(self.forget_old_safety(name));
        }
        for (name, marked) in names {
            let ripe = marked.filter(|marked| PRUNE_GRACE.after(marked.since) <= self.now);
            self.prune(&name, forgets.get(&name).map_or(&[], Vec::as_slice), ripe.map(|marked| marked.bytes));
        }
    }

    fn forget_by_rule(
        &mut self,
        name: &RepositoryName,
        policy: &PolicyName,
        rule: &Rule,
        projected: &[Projected<'a>],
        verdicts: &[(RunId, Verdict)],
    ) -> StepId {
        let go: Vec<_> = projected.iter().zip(verdicts).filter(|(_, (_, verdict))| !verdict.is_keep()).collect();
        let count = |cause: Cause| go.iter().filter(|(_, (_, verdict))| *verdict == Verdict::Forget(cause)).count();
        let mut parts = Vec::new();
        for (cause, word) in
            [(Cause::Rule, "by rule"), (Cause::Unproven, "unproven"), (Cause::Incomplete, "incomplete")]
        {
            match count(cause) {
                0 => {}
                some => parts.push(format!("{some} {word}")),
            }
        }
        let cause = format!(
            "{}; {} of {} stay under {}",
            parts.join(", "),
            projected.len() - go.len(),
            projected.len(),
            in_words(rule)
        );
        let runs: BTreeSet<&RunId> = go.iter().map(|(run, _)| &run.run).collect();
        let sealed = projected.iter().filter(|run| run.is_complete() && run.seen.is_some()).count();
        let complete = go.iter().filter(|(run, _)| run.is_complete()).count();
        let future = go.iter().any(|(run, _)| run.started > self.now);
        let step = self.forget_step(name, policy, projected, &runs).because(cause);
        let step = if future {
            step.held(format!("forget:{name}"), "some of the runs are dated in the future")
        } else if sealed > TOO_FEW_FOR_A_SHARE && complete * 100 > sealed * HELD_SHARE_PERCENT {
            let reason = format!("{complete} of {sealed} complete runs go at once, more than {HELD_SHARE_PERCENT} %");
            step.held(format!("forget:{name}"), reason)
        } else {
            step.by_rule()
        };
        let place = self.places.known.get(name);
        let rule_step = place.and_then(|place| place.rules.get(&policy.whole())).copied();
        let accepts = place.and_then(|place| place.accepts.get(policy)).cloned().unwrap_or_default();
        let accepted = Precondition::ShrinksAccepted { repository: name.clone(), policy: policy.clone() };
        let removal = place.and_then(|place| place.removal);
        let removals = Precondition::RemovalsAccepted { repository: name.clone() };
        self.add_exclusive(name, step.after(rule_step).after(accepts).after(removal).given([accepted, removals]))
    }

    /// Forgets `runs` of `projected`: waits for whatever brings the others about, and needs its keepers verified.
    pub(super) fn forget_step(
        &self,
        name: &RepositoryName,
        policy: &PolicyName,
        projected: &[Projected<'a>],
        runs: &BTreeSet<&RunId>,
    ) -> NewStep {
        let (go, mut stay): (Vec<_>, Vec<_>) = projected.iter().partition(|run| runs.contains(&run.run));
        stay.sort_by(|a, b| a.age_key().cmp(&b.age_key()));
        let verified =
            stay.iter().filter(|run| run.standing == Standing::Verified).map(|run| run.run.clone()).collect();
        let freed: ByteSize = go
            .iter()
            .filter_map(|run| run.seen)
            .flat_map(|run| run.manifest.taken().map(|(_, taken)| taken.added))
            .sum();
        let action = Action::Forget {
            repository: name.clone(),
            policy: policy.clone(),
            runs: go.iter().map(|run| run.run.clone()).collect(),
            keep: stay.iter().map(|run| run.run.clone()).collect(),
        };
        let Estimate { time, .. } = self.estimate_of(&action.sample_key(), Some(freed));
        NewStep::new(action)
            .effect(Effect::DeletesData)
            .estimate(Estimate { time, bytes: Some(freed) })
            .after(projected.iter().filter_map(|run| run.pending))
            .given([Precondition::Verified { repository: name.clone(), runs: verified }])
    }

    /// Marks what nothing refers to any more, and removes what was marked longer ago than the grace.
    fn prune(&mut self, name: &RepositoryName, forgets: &[StepId], ripe: Option<ByteSize>) {
        if forgets.is_empty() && ripe.is_none() {
            return;
        }
        let resource = format!("repository/{name}");
        if self.is_busy(name, &resource, "pruning") {
            return;
        }
        let Some(place) = self.places.known.get(name) else { return };
        let (removal, removed) = (place.removal, place.facts().map_or(0, |facts| facts.removed.len()));
        if removal.is_none() && removed > 0 {
            let text = format!(
                "pruning waits until you accept that runs were removed: `devstack apply --yes --approve accept:removed:{name}`"
            );
            self.report.waiting.push(Note::new(resource, text));
            return;
        }
        let cause = match (forgets, ripe) {
            ([], Some(bytes)) => format!("{bytes} marked longer ago than {}", PRUNE_GRACE.to_file_text()),
            (_, Some(bytes)) => {
                format!("after forgetting; {bytes} marked longer ago than {}", PRUNE_GRACE.to_file_text())
            }
            (_, None) => format!("after forgetting; what is marked now goes in {}", PRUNE_GRACE.to_file_text()),
        };
        let action = Action::Prune { repository: name.clone() };
        let time = self.estimate_of(&action.sample_key(), None).time;
        let step = NewStep::new(action)
            .because(cause)
            .effect(Effect::DeletesData)
            .by_rule()
            .after(removal)
            .given([Precondition::RemovalsAccepted { repository: name.clone() }])
            .estimate(Estimate { time, bytes: ripe });
        // One forgetting that fails or is held leaves nothing to prune; of several, the others have left something.
        let step = match (forgets, ripe) {
            ([only], None) => step.after([*only]),
            _ => step.after_end_of(forgets.iter().copied()),
        };
        let id = self.add_exclusive(name, step);
        if let Some(place) = self.places.known.get_mut(name) {
            place.pruned = Some(id);
        }
    }

    /// What somebody names. Even then the two newest verified runs of a declared policy stay.
    pub(super) fn forget_selected(&mut self, selection: &ForgetSelection) -> Result<(), PlanError> {
        let ForgetSelection { repository, policy, service, runs } = selection;
        if repository.is_none() && policy.is_none() && service.is_none() && runs.is_empty() {
            return Err(PlanError::NothingSelected);
        }
        if let Some(name) = repository {
            if let Some(reason) = self.places.unknown.get(name) {
                return Err(PlanError::UnknownRepository { repository: name.clone(), reason: reason.clone() });
            }
            if !self.places.known.contains_key(name) {
                return Err(self.no_such_repository(name));
            }
        }
        let chosen_runs: BTreeSet<&RunId> = runs.iter().collect();
        // A run of another place is chosen by its name alone.
        let is_chosen = |run: &Projected, of: &PolicyName| {
            (!run.foreign || chosen_runs.contains(&run.run))
                && policy.as_ref().is_none_or(|policy| policy == of || *policy == of.whole())
                && (chosen_runs.is_empty() || chosen_runs.contains(&run.run))
                && service
                    .as_ref()
                    .is_none_or(|service| run.seen.is_some_and(|seen| seen.manifest.services.contains_key(service)))
        };
        let mut matched = BTreeSet::new();
        let mut forgets: BTreeMap<RepositoryName, Vec<StepId>> = BTreeMap::new();
        let names: Vec<RepositoryName> = self.places.known.keys().cloned().collect();
        for name in names.iter().filter(|name| repository.as_ref().is_none_or(|it| it == *name)) {
            let strays = self.places.known[name].strays.clone();
            let strays_of = |of: &PolicyName| {
                let named = strays.iter().filter(|run| run.seen.is_some_and(|seen| seen.manifest.policy == *of));
                named.cloned().collect::<Vec<_>>()
            };
            let of_strays = strays.iter().filter_map(|run| run.seen).map(|seen| seen.manifest.policy.clone());
            let policies: BTreeSet<_> = self.places.known[name].runs.keys().cloned().chain(of_strays).collect();
            for of in policies {
                let own = self.places.known[name].runs_of(&of).to_vec();
                let declared = self.spec.backup.get(&of).is_some_and(|policy| policy.to.contains(name));
                let floor = if declared { newest_verified(&own, self.now) } else { BTreeSet::new() };
                let projected = [own, strays_of(&of)].concat();
                let mut go = BTreeSet::new();
                for run in projected.iter().filter(|run| is_chosen(run, &of)) {
                    matched.insert(run.run.clone());
                    if !floor.contains(&run.run) {
                        go.insert(&run.run);
                    } else if chosen_runs.contains(&run.run) {
                        return Err(PlanError::NeverForgotten {
                            run: run.run.clone(),
                            policy: of,
                            repository: name.clone(),
                        });
                    } else {
                        let text = format!("kept: one of the {NEVER_FORGOTTEN} newest verified runs of {of}");
                        self.report.waiting.push(Note::new(format!("{name}/{}", run.run), text));
                    }
                }
                if go.is_empty() {
                    continue;
                }
                if let Some(holders) = self.places.known[name].busy(&self.spec.stack) {
                    return Err(PlanError::Busy { repository: name.clone(), holders });
                }
                let mut named: Vec<&str> = go.iter().map(|run| run.as_str()).take(NAMED_RUNS).collect();
                if go.len() > NAMED_RUNS {
                    named.push("…");
                }
                let reason =
                    format!("{} of {} runs of {of}, as asked: {}", go.len(), projected.len(), named.join(", "));
                let step = self.forget_step(name, &of, &projected, &go).because(reason.clone());
                let id = self.add_exclusive(name, step.held(format!("forget:{name}"), reason));
                forgets.entry(name.clone()).or_default().push(id);
            }
        }
        if matched.is_empty() || chosen_runs.iter().any(|run| !matched.contains(*run)) {
            return Err(match chosen_runs.iter().find(|run| !matched.contains(**run)) {
                Some(run) => PlanError::NoSuchRun { run: (*run).clone(), unknown: self.not_looked_at() },
                None => PlanError::NoMatch { unknown: self.not_looked_at() },
            });
        }
        for (name, steps) in &forgets {
            self.prune(name, steps, None);
        }
        Ok(())
    }

    pub(super) fn not_looked_at(&self) -> Vec<RepositoryName> {
        self.places.unknown.keys().chain(self.places.missing().map(|(name, _)| name)).cloned().collect()
    }

    pub(super) fn no_such_repository(&self, name: &RepositoryName) -> PlanError {
        PlanError::NoSuchRepository {
            repository: name.clone(),
            declared: self.spec.repositories.keys().cloned().collect(),
        }
    }

    /// The runs that one rule looks at together, in each repository: the whole ones of a policy; and those of some of its
    /// services, by which they are, so that ten of one service push out none of another.
    fn groups(&self) -> Vec<(RepositoryName, PolicyName, Vec<Projected<'a>>)> {
        let mut groups = Vec::new();
        for (name, policy) in self.written() {
            let Some(place) = self.places.known.get(&name) else { continue };
            let mut parts: BTreeMap<&[ServiceName], Vec<Projected<'a>>> = BTreeMap::new();
            for run in place.runs_of(&policy.part()) {
                let expected = run.seen.map_or(&[][..], |run| &run.manifest.expected);
                parts.entry(expected).or_default().push(run.clone());
            }
            groups.push((name.clone(), policy.clone(), place.runs_of(&policy).to_vec()));
            groups.extend(parts.into_values().map(|runs| (name.clone(), policy.part(), runs)));
        }
        groups
    }

    /// Each known repository with each policy that writes to it.
    fn written(&self) -> Vec<(RepositoryName, PolicyName)> {
        let mut pairs: Vec<_> = self
            .spec
            .backup
            .iter()
            .flat_map(|(policy, declared)| declared.to.iter().map(move |to| (to.clone(), policy.clone())))
            .filter(|(to, _)| self.places.known.contains_key(to))
            .collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }
}

/// The run that keeps the last slot from being due again.
fn serving(runs: &[Projected], now: Timestamp) -> Option<RunId> {
    let carriers =
        runs.iter().filter(|run| run.is_complete() && run.started <= now && run.slot.is_some_and(|slot| slot <= now));
    carriers.max_by_key(|run| (run.slot, run.started)).map(|run| run.run.clone())
}

fn candidate(run: &Projected, suspicion: bool, serving: Option<&RunId>) -> Candidate {
    Candidate {
        run: run.run.clone(),
        started: run.started,
        standing: run.standing,
        suspect: suspicion && !run.suspect.is_empty(),
        undeclared: run.undeclared,
        serving: serving == Some(&run.run),
    }
}

/// Those that nobody may name. One dated in the future is the newest for as long as the clock was ahead, and could not be got rid of
/// until then: it is among them only where nothing else is verified.
fn newest_verified(runs: &[Projected], now: Timestamp) -> BTreeSet<RunId> {
    let mut verified: Vec<_> = runs.iter().filter(|run| run.standing == Standing::Verified).collect();
    if verified.iter().any(|run| run.started <= now) {
        verified.retain(|run| run.started <= now);
    }
    verified.sort_by(|a, b| b.age_key().cmp(&a.age_key()));
    verified.into_iter().take(NEVER_FORGOTTEN).map(|run| run.run.clone()).collect()
}

/// `retention.daily 7 → 14`, field by field.
fn difference(approved: Option<&Rule>, rule: &Rule) -> String {
    let Some(approved) = approved else { return format!("retention {}, none approved here yet", in_words(rule)) };
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let changes: Vec<_> = approved
        .fields()
        .iter()
        .zip(rule.fields().iter())
        .filter(|((_, old), (_, new))| old != new)
        .map(|((field, old), (_, new))| format!("retention.{field} {} → {}", show(old), show(new)))
        .collect();
    changes.join(", ")
}

/// `last 3, daily 7`.
pub(super) fn in_words(rule: &Rule) -> String {
    let lines: Vec<_> =
        rule.fields().into_iter().filter_map(|(field, value)| value.map(|value| format!("{field} {value}"))).collect();
    if lines.is_empty() { "a rule that keeps nothing".to_owned() } else { lines.join(", ") }
}
