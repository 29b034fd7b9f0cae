//! Runs that somebody else removed: told, and held until somebody says that it is right. Until then nothing more is deleted there.

use super::Planner;
use super::draft::NewStep;
use crate::model::ids::RepositoryName;
use crate::model::plan::Note;
use crate::model::step::Action;

/// How many are named: a hundred ids nobody reads.
const NAMED_RUNS: usize = 6;

impl Planner<'_> {
    pub(super) fn report_removed(&mut self) {
        for (name, place) in &self.places.known {
            let removed = place.facts().map(|facts| facts.removed.as_slice()).unwrap_or_default();
            if removed.is_empty() {
                continue;
            }
            let mut named: Vec<&str> = removed.iter().map(|run| run.as_str()).take(NAMED_RUNS).collect();
            if removed.len() > NAMED_RUNS {
                named.push("…");
            }
            let text = format!(
                "{}, not by devstack: {}; devstack forgets and prunes nothing there until you accept it: \
                 `devstack apply --yes --approve {}`",
                went(removed.len()),
                named.join(", "),
                token(name)
            );
            self.report.removed.push(Note::new(format!("{}{name}", Note::REPOSITORY), text));
        }
    }

    /// One held step for each repository that runs are missed in.
    pub(super) fn accept_removed(&mut self) {
        let names: Vec<RepositoryName> = self.places.present().map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(place) = self.places.known.get(&name) else { continue };
            let runs = place.facts().map(|facts| facts.removed.clone()).unwrap_or_default();
            if runs.is_empty() {
                continue;
            }
            let reason = format!("{}, not by devstack; approve it if that is right", went(runs.len()));
            let step = NewStep::new(Action::AcceptRemoved { repository: name.clone(), runs })
                .because(reason.clone())
                .given(place.is(&name))
                .held(token(&name), reason);
            let id = self.draft.add(step);
            self.wrote(&name, [id]);
            if let Some(place) = self.places.known.get_mut(&name) {
                place.removal = Some(id);
            }
        }
    }
}

fn token(repository: &RepositoryName) -> String {
    format!("accept:removed:{repository}")
}

fn went(count: usize) -> String {
    if count == 1 { "1 run was removed".to_owned() } else { format!("{count} runs were removed") }
}
