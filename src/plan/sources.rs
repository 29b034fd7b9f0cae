//! Sources that can't be seen, that are not there, or that are empty: said at every look, not only when the next slot
//! makes a take fail.

use super::Planner;
use super::render::count;
use super::request::Selection;
use crate::model::ids::{RunId, ServiceName};
use crate::model::observation::{Observed, OtherProjects, SourceState};
use crate::model::plan::Note;
use crate::model::run::Taken;
use crate::model::units::Span;
use crate::spec::file::{CertificatesSource, FilesSource, Source};

/// `3 containers of project old run`.
pub(super) fn running(projects: &OtherProjects) -> String {
    let told = |(name, running): (&String, &usize)| format!("{} of project {name}", count(*running, "container"));
    let told: Vec<String> = projects.others.iter().map(told).collect();
    let verb = if projects.others.values().sum::<usize>() == 1 { "runs" } else { "run" };
    format!("{} {verb}", told.join(" and "))
}

impl Planner<'_> {
    /// One note for all that is gone because the project is called otherwise than what runs here.
    fn report_renamed(&mut self) {
        let Some(projects) = &self.observation.projects else { return };
        let gone: Vec<&str> = self.gone_with_the_project().map(ServiceName::as_str).collect();
        let others = running(projects);
        let first = projects.others.keys().next().map_or("", String::as_str);
        let text = format!(
            "no container of Compose project {} is there, and {others} from this folder: was the project renamed? Nothing says \
             that {} is lost. To go on with what runs, declare `runtime.docker.project: {first}`; to bring the stack up under its \
             new name beside it: `devstack recover --approve project:{}`",
            projects.own,
            gone.join(", "),
            projects.own,
        );
        self.report.renamed.push(Note::new(format!("project/{}", projects.own), text));
    }

    fn gone_with_the_project(&self) -> impl Iterator<Item = &ServiceName> {
        let gone = self.observation.services.iter().filter(|(_, state)| **state == Observed::Known(SourceState::Gone));
        gone.map(|(name, _)| name).filter(|name| self.is_of_the_project(name))
    }

    fn is_of_the_project(&self, name: &ServiceName) -> bool {
        let source = self.spec.services.get(name).map(|service| &service.source);
        self.observation.projects.is_some() && source.is_some_and(Source::needs_docker)
    }

    pub(super) fn report_sources(&mut self) {
        self.report_renamed();
        for (name, state) in &self.observation.services {
            let resource = format!("{name}/data");
            match state {
                Observed::Unknown { reason } => self.report.unknown.push(Note::new(resource, reason.clone())),
                // What is told of the project says it of each.
                Observed::Known(SourceState::Gone) if self.is_of_the_project(name) => {}
                Observed::Known(SourceState::Gone) if self.last_taken(name).is_some() => {
                    self.report.lost.push(Note::new(resource, self.gone(name)));
                }
                Observed::Known(SourceState::Gone) => self.report.unknown.push(Note::new(resource, self.gone(name))),
                Observed::Known(SourceState::Empty) => {
                    match self.last_taken(name).filter(|taken| !taken.empty).map(Taken::bytes) {
                        Some(had) if had.0 > 0 => {
                            let text = format!(
                                "its source is empty, and held {had} in its newest run; `devstack restore {name}{} --in-place` \
                             brings that back",
                                self.naming_a_run(name)
                            );
                            self.report.lost.push(Note::new(resource, text));
                        }
                        _ => self.report.waiting.push(Note::new(resource, "its source is empty")),
                    }
                }
                Observed::Known(SourceState::Broken) => {
                    let text = format!(
                        "what is there is damaged and can't be read; `devstack restore {name}{} --in-place` moves it aside and puts a \
                         run in its place",
                        self.naming_a_run(name)
                    );
                    match self.last_taken(name) {
                        Some(_) => self.report.lost.push(Note::new(resource, text)),
                        None => {
                            let text = "what is there is damaged and can't be read, and no run holds it";
                            self.report.unknown.push(Note::new(resource, text));
                        }
                    }
                }
                Observed::Known(SourceState::Unfinished { .. }) => {
                    let text = format!(
                        "a restore into it was begun and has not ended, so what is there may be half of a backup and nothing is \
                         taken from it; to end it: `devstack restore {name}{} --in-place`",
                        self.naming_a_run(name)
                    );
                    self.report.unfinished.push(Note::new(resource, text));
                }
                Observed::Known(SourceState::HasData { .. }) => {
                    if let Some(text) = self.restore_cut_off(name) {
                        let text = format!(
                            "{text}; to end it: `devstack restore {name}{} --in-place`",
                            self.naming_a_run(name)
                        );
                        self.report.unfinished.push(Note::new(resource, text));
                    }
                }
            }
        }
    }

    /// A pattern that matches nothing is a slip of the pen, or of a day that is gone.
    pub(super) fn report_idle_excludes(&mut self) {
        // Before anything was taken there is nothing to compare with: what a pattern is for may come yet.
        let taken = self.observation.idle_excludes.iter().filter(|(name, _)| self.last_taken(name).is_some());
        let notes = taken.flat_map(|(name, patterns)| {
            let text = |pattern| format!("no path matches the exclude `{pattern}`, so it leaves nothing out");
            patterns.iter().map(move |pattern| Note::new(format!("{name}/data"), text(pattern)))
        });
        let notes: Vec<Note> = notes.collect();
        self.report.drift.extend(notes);
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
                let gone = self.observation.gone.get(name).map_or(&[][..], Vec::as_slice);
                match (gone, paths.as_slice()) {
                    ([], [only]) => (format!("{only} is gone"), None),
                    ([], _) => (format!("one of {} is gone", paths.join(", ")), None),
                    ([only], _) => (format!("{only} is gone"), None),
                    (several, _) => (format!("{} are gone", several.join(", ")), None),
                }
            }
            None => ("its source is gone".to_owned(), None),
            Some(source) => (format!("there is no container {}", source.containers().join(", ")), Some("up -d")),
        };
        if self.last_taken(name).is_none() {
            return format!("{what}, and no run holds it: is it called something else than the file says?");
        }
        let run = self.naming_a_run(name);
        if self.is_made_by_recovery() {
            return format!(
                "{what}; if that is its name, to bring the data back: `devstack recover --only {name}{run}`"
            );
        }
        let before = made_by.map_or_else(String::new, |verb| format!("`{} {verb}`, then ", self.compose()));
        format!(
            "{what}; if that is its name, to bring the data back: {before}`devstack restore {name}{run} --in-place`"
        )
    }

    /// Where no run is good, the newest is restored from by its name only.
    fn naming_a_run(&self, name: &ServiceName) -> String {
        let of = |selection| self.selected(name, &selection, None).ok();
        match (of(Selection::Newest), of(Selection::Latest)) {
            (None, Some(found)) => format!(" --backup {}", found.run.run),
            (Some(_), _) | (None, None) => String::new(),
        }
    }

    /// Whether a recovery makes containers here: by Compose files that the file declares.
    fn is_made_by_recovery(&self) -> bool {
        let docker = self.spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref());
        docker.is_some_and(|docker| !docker.compose.is_empty())
    }

    /// The command, with the profiles that the file declares: without them Compose leaves services out.
    fn compose(&self) -> String {
        let docker = self.spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref());
        let profiles = docker.into_iter().flat_map(|docker| &docker.profiles);
        profiles.fold("docker compose".to_owned(), |command, profile| format!("{command} --profile {profile}"))
    }

    /// That a restore of files over others was cut off: they are put back one after the other, and no look at them tells which.
    /// Servers and databases know it themselves.
    pub(super) fn restore_cut_off(&self, name: &ServiceName) -> Option<String> {
        let (Source::Files(_) | Source::Certificates(_)) = self.spec.services.get(name)?.source else { return None };
        let cut = self.history.cut_off.get(&format!("restore/{name}")).filter(|_| !self.is_somebody_at_work())?;
        let ago = Span::between(cut.at, self.now);
        Some(format!(
            "a restore over it was cut off {ago} ago, so that some of what is there may be as it was before it"
        ))
    }

    /// The service as the newest run that took it holds it. Copies from before a restore are none.
    fn last_taken(&self, name: &ServiceName) -> Option<&Taken> {
        self.last_run_of(name).map(|(_, taken)| taken)
    }

    pub(super) fn last_run_of(&self, name: &ServiceName) -> Option<(&RunId, &Taken)> {
        let policies =
            self.places.known.values().flat_map(|place| &place.runs).filter(|(policy, _)| !policy.is_safety());
        let runs = policies.flat_map(|(_, runs)| runs);
        let holding = runs.filter_map(|run| Some((run.started, (&run.run, run.seen?.manifest.taken_of(name)?))));
        holding.max_by_key(|(started, _)| *started).map(|(_, found)| found)
    }
}
