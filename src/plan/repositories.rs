//! Repositories and their keys: made where the store says there is none, and given the keys that the file declares.

use super::Planner;
use super::draft::NewStep;
use super::due::Intents;
use super::keys::{first_operable, has_sidecar, surely_operable};
use super::projection::State;
use crate::model::ids::{RepositoryName, RunId};
use crate::model::observation::{RepositoryFacts, UnsealedRun};
use crate::model::plan::Note;
use crate::model::step::{Action, Effect, Precondition, StepId};
use crate::spec::file::Repository;

/// How many damaged files of a repository are named one by one.
const NAMED_DAMAGE: usize = 5;

impl<'a> Planner<'a> {
    pub(super) fn report_unknown_repositories(&mut self) {
        for (name, reason) in &self.places.unknown {
            let is_shut = self.observation.shut.contains(name);
            let list = if is_shut { &mut self.report.shut } else { &mut self.report.unknown };
            list.push(Note::new(format!("{}{name}", Note::REPOSITORY), reason.clone()));
        }
        for (name, id) in self.places.missing() {
            self.report.lost.push(Note::missing_repository(name, id));
        }
    }

    /// No step comes of it: what else holds that data is for a person to see.
    pub(super) fn report_damage(&mut self) {
        for (name, place) in &self.places.known {
            let mut runs: Vec<&RunId> =
                place.facts().into_iter().flat_map(RepositoryFacts::damaged).map(|run| &run.manifest.run).collect();
            runs.sort();
            for run in runs {
                let text = format!("`devstack show {run}` says what was found");
                self.report.damaged.push(Note::new(format!("{name}/{run}"), text));
            }
            let known = place.facts().map(|facts| (facts, facts.damage.as_slice()));
            let Some((facts, damage)) = known.filter(|(_, damage)| !damage.is_empty()) else { continue };
            let resource = format!("{}{name}", Note::REPOSITORY);
            for damaged in damage.iter().take(NAMED_DAMAGE) {
                let hurts = facts.runs.iter().any(|run| run.hurt.contains(&damaged.found));
                let whose = if hurts { "" } else { "; no run of this stack was found to need it" };
                self.report.damaged.push(Note::new(&resource, format!("{}{whose}", damaged.found)));
            }
            if damage.len() > NAMED_DAMAGE {
                let text =
                    format!("and {} more; `devstack verify --all --data` names them all", damage.len() - NAMED_DAMAGE);
                self.report.damaged.push(Note::new(&resource, text));
            }
        }
    }

    /// Creates what is absent, adds the keys that are missing.
    pub(super) fn repositories(&mut self) {
        self.create_missing();
        for (name, repository) in &self.spec.repositories {
            if let Some(facts) = self.places.known.get(name).and_then(|place| place.facts()) {
                self.add_keys(name, repository, facts);
            }
        }
    }

    /// Creates what is absent, with all its keys.
    pub(super) fn create_missing(&mut self) {
        for (name, repository) in &self.spec.repositories {
            if let Some(State::Absent { ungenerated, known_before }) =
                self.places.known.get(name).map(|place| &place.state)
            {
                let known_before = known_before.map(|id| id.short().to_owned());
                let ungenerated: Vec<usize> = ungenerated.to_vec();
                self.create(name, repository, &ungenerated, known_before);
            }
        }
    }

    fn create(
        &mut self,
        name: &RepositoryName,
        repository: &Repository,
        ungenerated: &[usize],
        before: Option<String>,
    ) {
        let Some(first) = first_operable(&repository.keys) else {
            let text =
                "not created: no declared key could open it without a person; add a passphrase or an age identity";
            self.report.waiting.push(Note::new(format!("repository/{name}"), text));
            return;
        };
        let absent = || Precondition::RepositoryAbsent { repository: name.clone() };
        // A generated key beside a repository that is only not mounted would be a wrong key to it: held alike.
        let guarded = |step: NewStep| match &before {
            None => step,
            Some(id) => step.held(
                format!("create:{name}"),
                format!("repository {id} was here before; a disk that is not mounted looks the same"),
            ),
        };
        let mut generated = Vec::new();
        for key in ungenerated.iter().copied().filter(|key| repository.keys.get(*key).is_some()) {
            let step = NewStep::new(Action::GenerateKey { repository: name.clone(), key })
                .because(format!("no {}, and no repository yet", repository.keys[key].label()))
                .given([absent()]);
            generated.push(self.draft.add(guarded(step)));
        }
        let cause = format!("no repository at {}", repository.path.display());
        let step = NewStep::new(Action::CreateRepository { repository: name.clone(), key: first }).because(cause);
        let created = self.draft.add(guarded(step.after(generated.iter().copied()).given([absent()])));
        let mut writers = vec![created];
        for (key, declared) in repository.keys.iter().enumerate().filter(|(key, _)| *key != first) {
            let action = Action::AddKey { repository: name.clone(), key, label: declared.label() };
            let waits = generated.iter().copied().chain([created]);
            writers.push(self.draft.add(NewStep::new(action).because("declared, the repository is new").after(waits)));
        }
        if before.is_some() {
            let text = format!("what goes there waits for create:{name}");
            self.report.waiting.push(Note::new(format!("repository/{name}"), text));
        }
        if let Some(place) = self.places.known.get_mut(name) {
            place.created = Some(created);
            place.writers = writers;
        }
    }

    fn add_keys(&mut self, name: &RepositoryName, repository: &Repository, facts: &RepositoryFacts) {
        let resource = format!("repository/{name}/keys");
        let mut added = Vec::new();
        for (key, declared) in repository.keys.iter().enumerate() {
            let label = declared.label();
            let mut seen = facts.keys.iter().filter(|key| key.label.as_deref() == Some(label.as_str()));
            match seen.next() {
                None => {
                    let count = facts.keys.len();
                    let cause = format!("declared, not among {count} {}", if count == 1 { "key" } else { "keys" });
                    let action = Action::AddKey { repository: name.clone(), key, label };
                    let given = self.places.known.get(name).and_then(|place| place.is(name));
                    added.push(self.draft.add(NewStep::new(action).because(cause).given(given)));
                }
                Some(found) if has_sidecar(declared) && !found.sidecar && !seen.any(|key| key.sidecar) => {
                    let text =
                        format!("{label}: key {} has no sidecar, so nobody can decrypt its password", found.id.short());
                    self.report.drift.push(Note::new(resource.clone(), text));
                }
                Some(_) => {}
            }
        }
        let mut foreign: Vec<_> =
            facts.keys.iter().filter(|key| key.label.is_none()).map(|key| key.id.short()).collect();
        foreign.sort_unstable();
        for id in foreign {
            self.report
                .drift
                .push(Note::new(resource.clone(), format!("key {id} was not written by devstack; left alone")));
        }
        if added.is_empty() {
            let keys = facts.keys.len();
            let text =
                format!("repository {} with {keys} {}", facts.id.short(), if keys == 1 { "key" } else { "keys" });
            self.report.unchanged.push(Note::new(format!("repository/{name}"), text));
        }
        self.wrote(name, added);
    }

    /// Removes the keys that the file no longer declares: last of all, so that whatever fails before leaves them.
    pub(super) fn remove_keys(&mut self) {
        for (name, repository) in &self.spec.repositories {
            let Some(facts) = self.places.known.get(name).and_then(|place| place.facts()) else { continue };
            let declared: Vec<String> = repository.keys.iter().map(|key| key.label()).collect();
            let is_gone = |label: &Option<String>| label.as_ref().is_some_and(|label| !declared.contains(label));
            let mut gone: Vec<_> = facts.keys.iter().filter(|key| is_gone(&key.label)).collect();
            gone.sort_by(|a, b| a.id.cmp(&b.id));
            let opens = repository.keys.iter().any(surely_operable)
                || facts.opened_with.as_ref().is_some_and(|id| {
                    facts
                        .keys
                        .iter()
                        .any(|key| key.id == *id && key.label.as_ref().is_some_and(|l| declared.contains(l)))
                });
            for key in gone {
                let label = key.label.clone().unwrap_or_default();
                let resource = format!("repository/{name}/keys");
                if !opens {
                    let text = format!("{label} is no longer declared, but may be the last key that opens it: kept");
                    self.report.waiting.push(Note::new(resource, text));
                    continue;
                }
                if self.is_busy(name, &resource, "removing a key") {
                    continue;
                }
                let added = self.added_keys(name);
                let step = NewStep::new(Action::RemoveKey {
                    repository: name.clone(),
                    id: key.id.clone(),
                    label: label.clone(),
                })
                .because(format!("{label} is not declared"))
                .effect(Effect::DeletesData)
                .held(format!("remove-key:{name}"), "whoever has only this key can no longer open the repository")
                .after(added);
                self.add_exclusive(name, step);
            }
        }
    }

    fn added_keys(&self, name: &RepositoryName) -> Vec<StepId> {
        let adds = |action: &Action| matches!(action, Action::AddKey { repository, .. } if repository == name);
        self.draft.steps().iter().filter(|step| adds(&step.action)).map(|step| step.id).collect()
    }

    /// Writes manifests for what an earlier apply left without one, unless that apply is still at it.
    pub(super) fn seal_interrupted(&mut self, intents: &Intents) {
        let names: Vec<_> = self.places.present().map(|(name, facts)| (name.clone(), facts)).collect();
        for (name, facts) in names {
            if facts.unsealed.is_empty() {
                continue;
            }
            if let Some(lease) = facts.leases.iter().find(|lease| lease.alive && lease.stack == self.spec.stack) {
                let mut runs: Vec<_> = facts.unsealed.iter().map(|unsealed| unsealed.run.as_str()).collect();
                runs.sort_unstable();
                let text = format!(
                    "not sealed while {} may still be at it; if that process is gone: devstack unlock {}",
                    lease.owner, lease.id
                );
                self.report.waiting.push(Note::new(format!("{name}/{}", runs.join(", ")), text));
                continue;
            }
            let mut unsealed: Vec<_> = facts.unsealed.iter().collect();
            unsealed.sort_by(|a, b| a.run.cmp(&b.run));
            unsealed.retain(|unsealed| !self.will_be_copied_again(&name, unsealed, intents));
            for unsealed in unsealed {
                self.seal_one(&name, unsealed);
            }
        }
    }

    fn seal_one(&mut self, name: &RepositoryName, unsealed: &UnsealedRun) {
        let mut snapshots = unsealed.snapshots.clone();
        snapshots.sort_by(|a, b| (&a.1, &a.2, &a.0).cmp(&(&b.1, &b.2, &b.0)));
        let cause = match snapshots.len() {
            1 => "1 snapshot without a manifest: an apply was interrupted".to_owned(),
            many => format!("{many} snapshots without a manifest: an apply was interrupted"),
        };
        let started = snapshots.iter().map(|(_, _, at)| *at).min().unwrap_or(self.now);
        let run = unsealed.run.clone();
        let policy = unsealed.policy.clone();
        let action =
            Action::SealInterrupted { repository: name.clone(), run: run.clone(), policy: policy.clone(), snapshots };
        let Some(place) = self.places.known.get(name) else { return };
        // Its manifest was here: that it went is somebody's to accept before the run is called incomplete.
        let removed = place.facts().is_some_and(|facts| facts.removed.contains(&unsealed.run));
        let accepted = place.removal.filter(|_| removed);
        let step = NewStep::new(action).because(cause).given(place.is(name)).after_end_of(place.sealed).after(accepted);
        let id = self.draft.add(step);
        self.wrote(name, [id]);
        if let Some(place) = self.places.known.get_mut(name) {
            place.sealed = Some(id);
            place.add_run(&policy, RunId::clone(&run), started, super::retention::Standing::Incomplete, None, id);
        }
    }

    /// Remembers steps that write to a repository: what must be alone there waits for them.
    pub(super) fn wrote(&mut self, name: &RepositoryName, steps: impl IntoIterator<Item = StepId>) {
        if let Some(place) = self.places.known.get_mut(name) {
            place.writers.extend(steps);
        }
    }

    /// Adds a step that allows no other writer: it waits for the end of all that wrote before it, and later such steps
    /// wait for it.
    pub(super) fn add_exclusive(&mut self, name: &RepositoryName, step: NewStep) -> StepId {
        let Some(place) = self.places.known.get(name) else { return self.draft.add(step) };
        let given = place.is(name).into_iter().chain([Precondition::Exclusive { repository: name.clone() }]);
        let writers = place.writers.clone();
        let id = self.draft.add(step.after_end_of(writers).given(given));
        if let Some(place) = self.places.known.get_mut(name) {
            place.writers = vec![id];
        }
        id
    }

    /// Says what waits, if somebody else works in the repository.
    pub(super) fn is_busy(&mut self, name: &RepositoryName, resource: &str, what: &str) -> bool {
        let Some(holders) = self.places.known.get(name).and_then(|place| place.busy(&self.spec.stack)) else {
            return false;
        };
        self.report.waiting.push(Note::new(resource, format!("{what} waits for {holders}")));
        true
    }
}
