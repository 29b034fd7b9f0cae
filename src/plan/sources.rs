//! Sources that can't be seen, that are not there, or that are empty: said at every look, not only when the next slot
//! makes a take fail.

use super::Planner;
use crate::model::ids::ServiceName;
use crate::model::observation::{Observed, SourceState};
use crate::model::plan::Note;
use crate::model::run::Taken;
use crate::spec::file::{CertificatesSource, FilesSource, Source};

impl Planner<'_> {
    pub(super) fn report_sources(&mut self) {
        for (name, state) in &self.observation.services {
            let resource = format!("{name}/data");
            match state {
                Observed::Unknown { reason } => self.report.unknown.push(Note::new(resource, reason.clone())),
                Observed::Known(SourceState::Gone) if self.last_taken(name).is_some() => {
                    self.report.lost.push(Note::new(resource, self.gone(name)));
                }
                Observed::Known(SourceState::Gone) => self.report.unknown.push(Note::new(resource, self.gone(name))),
                Observed::Known(SourceState::Empty) => {
                    match self.last_taken(name).filter(|taken| !taken.empty).map(Taken::bytes) {
                        Some(had) if had.0 > 0 => {
                            let text = format!(
                                "its source is empty, and held {had} in its newest run; `devstack restore {name} --in-place` \
                             brings that back"
                            );
                            self.report.lost.push(Note::new(resource, text));
                        }
                        _ => self.report.waiting.push(Note::new(resource, "its source is empty")),
                    }
                }
                Observed::Known(SourceState::HasData { .. }) => {}
            }
        }
    }

    /// A pattern that matches nothing is a slip of the pen, or of a day that is gone.
    pub(super) fn report_idle_excludes(&mut self) {
        for (name, patterns) in &self.observation.idle_excludes {
            for pattern in patterns {
                let text = format!("no path matches the exclude `{pattern}`, so it leaves nothing out");
                self.report.drift.push(Note::new(format!("{name}/data"), text));
            }
        }
    }

    /// What is not there, and how it comes back: a restore puts data into what Compose has made, and makes nothing itself.
    fn gone(&self, name: &ServiceName) -> String {
        let source = self.spec.services.get(name).map(|service| &service.source);
        let (what, made_by) = match source {
            Some(Source::Volume(volume)) => match (&volume.volume, &volume.container) {
                (Some(volume), _) => (format!("there is no volume {volume}"), Some("create")),
                (None, container) => {
                    let container = container.as_deref().unwrap_or_default();
                    let path = volume.path.as_deref().unwrap_or_default();
                    (format!("there is no {path} in a container {container}"), Some("up -d"))
                }
            },
            Some(Source::Sqlite(sqlite)) => (format!("{} is gone", sqlite.path.display()), None),
            Some(Source::Files(FilesSource { paths, .. }) | Source::Certificates(CertificatesSource { paths, .. })) => {
                (format!("one of {} is gone", paths.join(", ")), None)
            }
            None => ("its source is gone".to_owned(), None),
            Some(source) => (format!("there is no container {}", source.containers().join(", ")), Some("up -d")),
        };
        if self.last_taken(name).is_none() {
            return format!("{what}, and no run holds it: is it called something else than the file says?");
        }
        let before = made_by.map_or_else(String::new, |verb| format!("`{} {verb}`, then ", self.compose()));
        format!("{what}; if that is its name, to bring the data back: {before}`devstack restore {name} --in-place`")
    }

    /// The command, with the profiles that the file declares: without them Compose leaves services out.
    fn compose(&self) -> String {
        let docker = self.spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref());
        let profiles = docker.into_iter().flat_map(|docker| &docker.profiles);
        profiles.fold("docker compose".to_owned(), |command, profile| format!("{command} --profile {profile}"))
    }

    /// The service as the newest run that took it holds it.
    fn last_taken(&self, name: &ServiceName) -> Option<&Taken> {
        let runs = self.places.known.values().flat_map(|place| place.runs.values().flatten());
        let holding = runs.filter_map(|run| Some((run.started, run.seen?.manifest.taken_of(name)?)));
        holding.max_by_key(|(started, _)| *started).map(|(_, taken)| taken)
    }
}
