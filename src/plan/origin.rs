//! Whose the runs of a repository are. One stack has one place at a time in each repository; another under the same name is held
//! until somebody says that the stack has moved.

#[cfg(test)]
mod tests;

use super::Planner;
use super::draft::NewStep;
use super::projection::{Place, Projected};
use super::render::count;
use crate::model::ids::RepositoryName;
use crate::model::observation::{Observation, OtherStack, RepositoryFacts, Run};
use crate::model::origin::Origin;
use crate::model::plan::Note;
use crate::model::step::{Action, StepId};
use crate::model::units::Span;

/// From where the runs of one repository are looked at.
#[derive(Clone, Copy)]
pub(super) struct Standpoint<'a> {
    /// None where nobody says, and for a repository that lies in the stack's own folder and moves with it: all is ours there.
    here: Option<&'a Origin>,
    facts: &'a RepositoryFacts,
    owner: Option<&'a Origin>,
}

impl<'a> Standpoint<'a> {
    pub(super) fn of(observation: &'a Observation, name: &RepositoryName, facts: &'a RepositoryFacts) -> Self {
        let here = observation.origin.as_ref().filter(|_| !observation.carried.contains(name));
        // The last one who was given the word; until then, whoever was first.
        let adopted = facts.adopted.iter().max_by_key(|adopted| adopted.number).map(|adopted| &adopted.origin);
        // A recovery that replaced something has left a safety copy, and claims nothing by that.
        let taken = || facts.runs.iter().filter(|run| !run.manifest.policy.is_safety());
        let first = || taken().find_map(|run| run.manifest.origin.as_ref());
        Self { here, facts, owner: adopted.or_else(first) }
    }

    /// The other place that the stack has here.
    pub(super) fn owner_elsewhere(&self) -> Option<&'a Origin> {
        let here = self.here?;
        self.owner.filter(|owner| !owner.is_same(here))
    }

    /// Runs of before there were origins belong to whoever owns the others.
    pub(super) fn is_ours(&self, run: &Run) -> bool {
        let Some(here) = self.here else { return true };
        match &run.manifest.origin {
            None => self.owner_elsewhere().is_none(),
            Some(origin) if origin.is_same(here) => true,
            Some(origin) => {
                let mut adopted = self.facts.adopted.iter().flat_map(|adopted| &adopted.from);
                self.owner_elsewhere().is_none() && adopted.any(|known| known.is_same(origin))
            }
        }
    }

    /// Every place whose runs become ours with the word.
    fn others(&self) -> Vec<Origin> {
        let mut others: Vec<Origin> = Vec::new();
        let runs = self.facts.runs.iter().filter_map(|run| run.manifest.origin.as_ref());
        for origin in self.owner.into_iter().chain(runs).filter(|origin| Some(*origin) != self.here) {
            if !others.iter().any(|known| known.is_same(origin)) {
                others.push(origin.clone());
            }
        }
        others
    }
}

impl<'a> Planner<'a> {
    /// The stack that was backed up from this very place to a repository which holds nothing of ours: was it renamed in the file?
    fn once_called(&self, facts: &'a RepositoryFacts) -> Option<&'a OtherStack> {
        // Another project of the same folder may be the same rename.
        let here = Origin { project: None, ..self.observation.origin.clone()? };
        let is_new = facts.runs.is_empty() && facts.unsealed.is_empty() && facts.adopted.is_empty();
        let is_here = |other: &&OtherStack| other.origin.as_ref().is_some_and(|origin| origin.is_same(&here));
        facts.others.iter().filter(|_| is_new).find(is_here)
    }

    fn report_renamed_stack(&self, notes: &mut Vec<Note>) {
        for (name, place) in &self.places.known {
            let Some(other) = place.facts().and_then(|facts| self.once_called(facts)) else { continue };
            let text = format!(
                "it holds {} of stack {old}, the newest {} old, taken from this very folder, and none of {new}: was the stack \
                 renamed in the file? `stack: {old}` goes on with them. If {new} is another stack: `devstack apply --approve \
                 adopt:{name}`",
                count(other.runs, "run"),
                Span::between(other.newest, self.now),
                old = other.stack,
                new = self.spec.stack,
            );
            notes.push(Note::new(format!("{}{name}", Note::REPOSITORY), text));
        }
    }

    /// Says where runs were taken elsewhere, or under another name.
    pub(super) fn report_foreign(&mut self) {
        let mut notes = Vec::new();
        self.report_renamed_stack(&mut notes);
        for (name, place) in &self.places.known {
            let resource = format!("{}{name}", Note::REPOSITORY);
            if let Some(owner) = place.elsewhere {
                let theirs: Vec<&Projected> = place.runs.values().flatten().filter(|run| run.foreign).collect();
                let newest = theirs.iter().map(|run| run.started).filter(|at| *at <= self.now).max();
                let newest =
                    newest.map_or_else(String::new, |at| format!(", the newest {} old", Span::between(at, self.now)));
                let here = self.observation.origin.as_ref().map(Origin::to_string).unwrap_or_default();
                let text = format!(
                    "stack {} is backed up to it from {owner} ({}{newest}), and this is {here}. Nothing is written to it from here. \
                     If the stack has moved here: `devstack apply --approve adopt:{name}`. If it is another one, give it a name of \
                     its own (`stack:` in the file)",
                    self.spec.stack,
                    count(theirs.len(), "run"),
                );
                notes.push(Note::new(resource.clone(), text));
            }
            for run in &place.strays {
                let Some(origin) = run.seen.and_then(|run| run.manifest.origin.as_ref()) else { continue };
                let text = format!(
                    "run {} was taken at {origin}, and not here: it is left alone; to forget it: devstack forget {}",
                    run.run, run.run
                );
                notes.push(Note::new(resource.clone(), text));
            }
        }
        self.report.foreign = notes;
    }

    /// One held step for each repository in which the stack has another place, or another name.
    pub(super) fn adopt(&mut self) {
        let Some(here) = self.observation.origin.as_ref() else { return };
        self.begin_beside(here);
        let names: Vec<RepositoryName> = self
            .places
            .known
            .iter()
            .filter(|(_, place)| place.elsewhere.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let Some(place) = self.places.known.get(&name) else { continue };
            let (Some(owner), Some(facts)) = (place.elsewhere, place.facts()) else { continue };
            let from = Standpoint::of(self.observation, &name, facts).others();
            let action = Action::Adopt { repository: name.clone(), origin: Box::new(here.clone()), from };
            let step = NewStep::new(action)
                .because(format!("the stack is backed up there from {owner}, and this is {here}"))
                .given(place.is(&name))
                .held(
                    format!("adopt:{name}"),
                    format!("its runs were taken at {owner}; with this word the stack lives here, and no longer there"),
                );
            let id = self.draft.add(step);
            self.wrote(&name, [id]);
            if let Some(place) = self.places.known.get_mut(&name) {
                place.adopted = Some(id);
            }
        }
    }

    fn begin_beside(&mut self, here: &Origin) {
        let renamed: Vec<(RepositoryName, String)> = self
            .places
            .known
            .iter()
            .filter_map(|(name, place)| Some((name.clone(), self.once_called(place.facts()?)?)))
            .map(|(name, other)| {
                let runs = count(other.runs, "run");
                (
                    name,
                    format!(
                        "it holds {runs} of stack {}, taken from this very folder, and none of this one",
                        other.stack
                    ),
                )
            })
            .collect();
        for (name, why) in renamed {
            let action = Action::Adopt { repository: name.clone(), origin: Box::new(here.clone()), from: Vec::new() };
            let given = self.places.known.get(&name).and_then(|place| place.is(&name));
            let reason = format!("with this word stack {} begins anew beside them", self.spec.stack);
            let step = NewStep::new(action).because(why).given(given).held(format!("adopt:{name}"), reason);
            let id = self.draft.add(step);
            self.wrote(&name, [id]);
            if let Some(place) = self.places.known.get_mut(&name) {
                place.adopted = Some(id);
            }
        }
    }

    /// What would write to such a repository, or carry its runs elsewhere, waits for that word.
    pub(super) fn wait_for_adoption(&mut self) {
        let adopted = |name: &RepositoryName| self.places.known.get(name).and_then(|place: &Place| place.adopted);
        let gates = |action: &Action| -> Vec<StepId> {
            let from = match action {
                Action::Copy { from, .. } => Some(from),
                _ => None,
            };
            action.writes().into_iter().chain(from).filter_map(adopted).collect()
        };
        self.draft.wait_for(gates);
    }
}
