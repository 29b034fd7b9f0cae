//! Files of the machine that containers are made with, and that are not here any more. What runs has them open and goes on; what is
//! made anew, by a person or by a recovery, is not.

use std::path::Path;

use super::Planner;
use crate::model::holdings::Holdings;
use crate::model::observation::{Observed, SeenStack};
use crate::model::plan::Note;

impl Planner<'_> {
    pub(super) fn report_missing_files(&mut self) {
        let Some(Observed::Known(seen)) = &self.observation.stack else { return };
        self.report.unprotected.extend(missing(seen));
    }
}

fn missing(seen: &SeenStack) -> Vec<Note> {
    let held = &seen.held;
    let shown = |path: &Path| match path.strip_prefix(&seen.base) {
        Ok(below) => format!("./{}", below.display()),
        Err(_) => path.display().to_string(),
    };
    let files = held.files.iter().filter(|file| file.missing).filter_map(|file| {
        let made = made(held, file.services.iter().map(String::as_str))?;
        let read_as = file.read_as.iter().next_back().map_or("file", |read_as| read_as.as_str());
        let text = format!("it is not here, so Compose can't make {made} anew, nor can a recovery from a later run: put it back, or take it out of the Compose file");
        Some(Note::new(format!("{read_as} {}", shown(&file.path)), text))
    });
    let binds = held.binds.iter().filter(|bind| bind.missing).filter_map(|bind| {
        let made = made(held, bind.uses.iter().map(|it| it.service.as_str()))?;
        let text = format!("it is mounted in {made} and not here any more: made anew, that would find an empty folder in its place. Put it back, or take it out of the Compose file");
        Some(Note::new(format!("bind {}", shown(&bind.path)), text))
    });
    files.chain(binds).collect()
}

/// Those of the services that a `docker compose up` makes; none where it makes none of them.
fn made<'s>(held: &Holdings, services: impl Iterator<Item = &'s str>) -> Option<String> {
    const NAMED: usize = 3;
    let made: Vec<&str> = services.filter(|name| held.is_made(name)).collect();
    (!made.is_empty()).then(|| crate::model::listed(&made, NAMED))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::model::holdings::{Bind, HeldFile, Holder, ReadAs, Use};

    fn seen(profiles: &[&str]) -> SeenStack {
        let holder = Holder {
            declared: true,
            profiles: profiles.iter().map(|it| (*it).to_owned()).collect(),
            ..Holder::default()
        };
        let file = |path: &str, missing| HeldFile {
            path: path.into(),
            read_as: BTreeSet::from([ReadAs::Secret]),
            services: BTreeSet::from(["web".to_owned()]),
            optional: false,
            missing,
        };
        let uses = vec![Use { service: "web".into(), target: "/x".into(), writes: false, data_of: None }];
        let bind = |path: &str, missing| Bind { path: path.into(), uses: uses.clone(), missing };
        let held = Holdings {
            services: BTreeMap::from([("web".to_owned(), holder)]),
            files: vec![file("/srv/key", true), file("/srv/here", false)],
            binds: vec![bind("/srv/conf/x", true), bind("/opt/y", true), bind("/opt/here", false)],
            ..Holdings::default()
        };
        SeenStack { held, base: "/srv".into(), home: None, elsewhere: None }
    }

    #[test]
    fn what_containers_are_made_with_and_is_not_here_is_told() {
        let told: Vec<String> = missing(&seen(&[])).into_iter().map(|note| note.resource).collect();
        assert_eq!(told, ["secret file ./key", "bind ./conf/x", "bind /opt/y"]);
    }

    #[test]
    fn what_nobody_makes_misses_nothing() {
        assert_eq!(missing(&seen(&["later"])), []);
    }
}
