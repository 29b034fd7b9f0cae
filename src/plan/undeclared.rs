//! What the world holds and the file no longer names: kept, and listed with the command that would forget it.

use std::collections::BTreeMap;

use super::Planner;
use crate::model::ids::{RepositoryName, ServiceName};
use crate::model::plan::Note;

impl Planner<'_> {
    pub(super) fn undeclared(&mut self) {
        let mut notes = Vec::new();
        let names: std::collections::BTreeSet<&RepositoryName> =
            self.history.known_repositories.keys().chain(self.observation.repositories.keys()).collect();
        for name in names.into_iter().filter(|name| !self.spec.repositories.contains_key(name)) {
            // Not opened any more, so what it holds is not known; only its owner can throw a whole repository away.
            let text =
                "not in the file: kept, and not looked at; to list or forget its runs, put it back into the file";
            notes.push(Note::new(format!("repository/{name}"), text));
        }
        for (name, place) in &self.places.known {
            let mut services: BTreeMap<&ServiceName, usize> = BTreeMap::new();
            for (policy, runs) in &place.runs {
                // What another place has is for that one to say.
                let seen = runs.iter().filter(|run| !run.foreign).filter_map(|run| run.seen);
                let count = seen.clone().count();
                let resource = format!("{name}/{policy}");
                match self.spec.backup.get(&policy.whole()) {
                    _ if count == 0 => {}
                    _ if policy.is_safety() => notes.extend(self.note_safety(name)),
                    None => {
                        let text = format!(
                            "{} of a policy that is not in the file: kept until: devstack forget --policy {policy} --repository {name}",
                            runs_text(count)
                        );
                        notes.push(Note::new(resource, text));
                    }
                    Some(declared) if !declared.to.contains(name) => {
                        let text = format!(
                            "{}, and {policy} no longer writes here: kept until: devstack forget --policy {policy} --repository {name}",
                            runs_text(count)
                        );
                        notes.push(Note::new(resource, text));
                    }
                    Some(_) => {
                        for (service, _) in seen.flat_map(|run| run.manifest.taken()) {
                            if !self.spec.services.contains_key(service) {
                                *services.entry(service).or_default() += 1;
                            }
                        }
                    }
                }
            }
            for (service, count) in services {
                let text = format!(
                    "{} of a service that is not in the file: kept until: devstack forget --service {service} --repository {name}",
                    runs_text(count)
                );
                notes.push(Note::new(format!("{name}/{service}"), text));
            }
        }
        self.report.undeclared = notes;
    }
}

fn runs_text(count: usize) -> String {
    if count == 1 { "1 run".to_owned() } else { format!("{count} runs") }
}
