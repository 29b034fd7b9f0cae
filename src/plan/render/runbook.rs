//! The recovery of a stack for a person who has no devstack: restic, Docker and the servers' own clients, in order, with the
//! ids, paths and names of this stack. No secret is in it; where each is found is.

mod data;
mod keys;
mod shell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::shell::{path, quoted, words};
use super::escape::{code_span, printable};
use crate::model::assertion::Assertion;
use crate::model::compose::ComposeModel;
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::observation::{Observation, Run};
use crate::model::plan::Plan;
use crate::model::run::ArtifactKind;
use crate::model::step::{Action, Restore, Started};
use crate::model::units::Span;
use crate::spec::file::{DockerRuntime, Source, Spec};
use crate::spec::paths;

/// What a runbook is made of: the plan of a recovery of all that is declared, as if everything were gone.
pub struct Book<'a> {
    pub plan: &'a Plan,
    pub spec: &'a Spec,
    /// What the repositories hold.
    pub observation: &'a Observation,
    /// The folder of devstack.yaml.
    pub base: &'a Path,
}

/// One numbered step: words, one block of commands, how to see that it worked.
#[derive(Default)]
struct Chapter {
    title: String,
    words: Vec<String>,
    commands: Vec<String>,
    check: Vec<String>,
}

/// The runbook as markdown.
pub fn runbook(book: &Book<'_>) -> String {
    let mut chapters = vec![book.beginning(), book.repositories()];
    let mut compose_is_known = false;
    for step in &book.plan.steps {
        if !compose_is_known && matches!(step.action, Action::CreateContainers { .. }) {
            compose_is_known = true;
            chapters.extend(book.compose_files());
        }
        chapters.extend(book.chapter(&step.action));
    }
    chapters.push(Chapter {
        title: "Tidy up".to_owned(),
        words: vec!["Passwords and keys lie in this folder until now.".to_owned()],
        commands: vec!["rm -r \"$PRIVATE\"".to_owned()],
        ..Chapter::default()
    });
    let mut out = book.head();
    for (number, chapter) in chapters.iter().enumerate() {
        out.push_str(&format!("\n## {}. {}\n", number + 1, printable(&chapter.title)));
        for words in &chapter.words {
            let lines: Vec<_> = words.lines().map(printable).collect();
            out.push_str(&format!("\n{}\n", lines.join("\n")));
        }
        out.push_str(&block(&chapter.commands));
        if !chapter.check.is_empty() {
            out.push_str("\nIt worked if these answer as they say:\n");
            out.push_str(&block(&chapter.check));
        }
    }
    out
}

/// A fence that nothing inside closes: no line of ours begins with one.
fn block(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("\n```bash\n{}\n```\n", lines.join("\n"))
}

impl Book<'_> {
    fn restores(&self) -> impl Iterator<Item = &Restore> {
        self.plan.steps.iter().filter_map(|step| match &step.action {
            Action::Restore(restore) => Some(restore),
            _ => None,
        })
    }

    fn run(&self, repository: &RepositoryName, run: &RunId) -> Option<&Run> {
        let (_, facts) = self.observation.present().find(|(name, _)| *name == repository)?;
        facts.runs.iter().find(|known| known.manifest.run == *run)
    }

    /// The newest of the runs that are used and that know the Compose files.
    fn compose_run(&self) -> Option<(&RepositoryName, &Run)> {
        let runs = self.restores().filter_map(|it| Some((&it.repository, self.run(&it.repository, &it.run)?)));
        runs.filter(|(_, run)| run.manifest.compose.is_some()).max_by_key(|(_, run)| run.manifest.started)
    }

    pub(super) fn model(&self) -> Option<&ComposeModel> {
        self.compose_run().and_then(|(_, run)| run.manifest.compose.as_ref())
    }

    /// The real name of a container, by what the file calls it.
    pub(super) fn container(&self, name: &str) -> String {
        let Some(model) = self.model() else { return name.to_owned() };
        match model.service(name) {
            Some(service) => model.services[service]
                .container_name
                .clone()
                .unwrap_or_else(|| format!("{}-{service}-1", model.project)),
            None => name.to_owned(),
        }
    }

    fn docker(&self) -> Option<&DockerRuntime> {
        self.spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref())
    }

    fn head(&self) -> String {
        let stack = &self.spec.stack;
        let mut out = format!("# Recovery of {stack} by hand\n\n");
        let mut runs: BTreeMap<(&RepositoryName, &RunId), Vec<&str>> = BTreeMap::new();
        for restore in self.restores() {
            runs.entry((&restore.repository, &restore.run)).or_default().push(restore.service.as_str());
        }
        out.push_str(&format!(
            "This brings the whole stack back on a machine that has neither it nor devstack. It was written on {} from the runs that were the newest good ones then. Each run \
             has ids of its own: print this anew after the runs that matter, and keep it off the machine. No password is in it.\n\n",
            self.plan.now.strftime("%Y-%m-%d %H:%M UTC")
        ));
        out.push_str("| run | in | taken | services |\n|---|---|---|---|\n");
        for ((repository, run), services) in &runs {
            let started = self.run(repository, run).map(|run| run.manifest.started);
            let taken = started.map_or_else(String::new, |at| {
                format!(
                    "{}, {} before this was written",
                    at.strftime("%Y-%m-%d %H:%M UTC"),
                    Span::between(at, self.plan.now)
                )
            });
            out.push_str(&format!("| {run} | {repository} | {taken} | {} |\n", services.join(", ")));
        }
        out.push_str("\nYou need:\n\n");
        for need in self.needs() {
            out.push_str(&format!("- {}\n", printable(&need)));
        }
        out.push_str(
            "\nThe commands are for one session of bash, from the first to the last: each block once, in order. Stop where one fails.\n",
        );
        out
    }

    fn needs(&self) -> Vec<String> {
        let mut needs = vec!["restic (0.14 or newer), GNU tar, and bash".to_owned()];
        if self.spec.services.values().any(|service| service.source.needs_docker()) {
            needs.push("Docker with `docker compose`, running".to_owned());
        }
        for name in self.used() {
            let Some(repository) = self.spec.repositories.get(name) else { continue };
            let facts = self.observation.present().find(|(known, _)| *known == name).map(|(_, facts)| facts);
            let ways: Vec<String> = keys::ways(name, repository, facts).into_iter().map(|way| way.needs).collect();
            needs.push(format!(
                "the repository `{name}`, which lay in `{}`, and one of: {}",
                self.place_of(&repository.path),
                ways.join("; ")
            ));
        }
        let secrets: BTreeSet<String> = self
            .spec
            .services
            .iter()
            .flat_map(|(name, service)| {
                service
                    .source
                    .secrets()
                    .into_iter()
                    .map(move |secret| format!("the password of {name}, which is found in `{}`", secret.place()))
            })
            .collect();
        needs.extend(secrets);
        let images: BTreeSet<String> = self
            .model()
            .into_iter()
            .flat_map(|model| model.services.values())
            .filter_map(|it| it.image.clone())
            .collect();
        if !images.is_empty() {
            let images: Vec<String> = images.iter().map(|image| code_span(image)).collect();
            needs.push(format!("the images {}", images.join(", ")));
        }
        let digests: BTreeSet<String> = self
            .restores()
            .filter_map(|restore| {
                let taken = self.run(&restore.repository, &restore.run)?.manifest.taken_of(&restore.service)?;
                Some(format!("{} was taken from the image {}", restore.service, taken.image.as_ref()?))
            })
            .collect();
        needs.extend(digests);
        needs
    }

    /// Where a path of the file was on the machine that is gone.
    fn place_of(&self, given: &Path) -> String {
        let place = if given.starts_with("~") { given.to_owned() } else { paths::resolve(self.base, None, given) };
        place.display().to_string()
    }

    /// The repositories that something comes back from.
    fn used(&self) -> BTreeSet<&RepositoryName> {
        self.restores().map(|restore| &restore.repository).collect()
    }

    fn beginning(&self) -> Chapter {
        let mut commands = vec![
            format!("STACK={}", quoted(&self.base.to_string_lossy())),
            "mkdir -p \"$STACK\" && cd \"$STACK\"".to_owned(),
            "umask 077".to_owned(),
            "PRIVATE=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)   # for passwords: in memory, where there is a place for it".to_owned(),
            "set -o pipefail   # a dump that breaks off must not look like one that ended".to_owned(),
        ];
        if let Some(colima) = self.spec.runtime.as_ref().and_then(|runtime| runtime.colima.as_ref()) {
            commands.push(format!("colima start {}", quoted(colima.profile.as_deref().unwrap_or("default"))));
        }
        let docker = self.spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref());
        if let Some(start) = docker.map(|docker| &docker.start).filter(|start| !start.is_empty()) {
            commands.push(format!("docker version >/dev/null || {}", words(start.iter().map(String::as_str))));
        }
        let docker = self.spec.services.values().any(|service| service.source.needs_docker());
        Chapter {
            title: "A place to work in".to_owned(),
            words: vec!["The stack may come back in another folder: change the first line then.".to_owned()],
            commands,
            check: docker.then(|| "docker version --format '{{.Server.Version}}'".to_owned()).into_iter().collect(),
        }
    }

    fn repositories(&self) -> Chapter {
        let words = vec!["Where one lies elsewhere now, change what follows `--repo`.".to_owned()];
        let mut chapter = Chapter { title: "Open the repositories".to_owned(), words, ..Chapter::default() };
        for name in self.used() {
            let Some(repository) = self.spec.repositories.get(name) else { continue };
            let facts = self.observation.present().find(|(known, _)| *known == name).map(|(_, facts)| facts);
            let ways = keys::ways(name, repository, facts);
            let mut ways = ways.iter();
            if let Some(first) = ways.next() {
                chapter.words.push(format!("`{name}` opens by {}.", first.needs));
                chapter.commands.push(first.command.clone());
            }
            for other in ways {
                chapter.words.push(format!("Or by {}: {}", other.needs, code_span(&other.command)));
            }
            let function = keys::function(name);
            chapter.commands.push(format!(
                "{function}() {{ restic --repo {} --password-file \"$PRIVATE\"/{name} \"$@\"; }}",
                path(&repository.path)
            ));
            chapter.check.push(format!("{function} snapshots --tag {}", quoted(&format!("stack:{}", self.spec.stack))));
        }
        chapter
    }

    /// The Compose files, where none of the services has brought them back, and the word by which Compose is told of them.
    fn compose_files(&self) -> Option<Chapter> {
        let docker = self.docker()?;
        let mut commands = Vec::new();
        if let Some((repository, run)) = self.compose_run() {
            let dump = |name: &str, to: &str| {
                let dump = format!("{} dump {} {}", keys::function(repository), run.record.short(), quoted(name));
                format!("[ -e {to} ] || {{ mkdir -p \"$(dirname {to})\" && {dump} >{to}; }}")
            };
            commands.push(dump("/devstack.yaml", "\"$STACK\"/devstack.yaml"));
            for (index, file) in docker.compose.iter().chain(&docker.env_files).enumerate() {
                let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                commands.push(dump(&format!("/compose-{index}-{name}"), &path(file)));
            }
            if docker.env_files.is_empty() {
                let usual = dump(&format!("/compose-{}-.env", docker.compose.len()), "\"$STACK\"/.env");
                commands.push(format!("{usual} || rm -f \"$STACK\"/.env   # where there was one"));
            }
        }
        let mut line = "docker compose".to_owned();
        for file in &docker.compose {
            line.push_str(&format!(" --file {}", path(file)));
        }
        for file in &docker.env_files {
            line.push_str(&format!(" --env-file {}", path(file)));
        }
        for profile in &docker.profiles {
            line.push_str(&format!(" --profile {}", quoted(profile)));
        }
        if let Some(project) = self.model().map(|model| &model.project).or(docker.project.as_ref()) {
            line.push_str(&format!(" --project-name {}", quoted(project)));
        }
        commands.push(format!("dc() {{ (cd \"$STACK\" && {line} \"$@\"); }}"));
        Some(Chapter {
            title: "The Compose files".to_owned(),
            words: vec![
                "They came back with the files above, or come out of the run's record now. A variable that a step asks for may stand in \
                 `.env`: `dc config --environment` prints what Compose makes of it."
                    .to_owned(),
            ],
            commands,
            check: vec!["dc config --quiet   # says nothing".to_owned()],
        })
    }

    fn chapter(&self, action: &Action) -> Option<Chapter> {
        match action {
            Action::Prove { repository, run } => self.proof(repository, run),
            Action::Restore(restore) => self.restore(restore),
            Action::CreateContainers { services, .. } => Some(Chapter {
                title: "Make the containers, and start none".to_owned(),
                commands: vec![format!("dc create --no-recreate {}", words(services.iter().map(String::as_str)))],
                check: vec!["dc ps --all".to_owned()],
                ..Chapter::default()
            }),
            Action::StartContainer { service, until } => Some(self.start(service, *until)),
            Action::VerifyStack { services, assertions, .. } => Some(self.verification(services, assertions)),
            _ => None,
        }
    }

    fn proof(&self, repository: &RepositoryName, run: &RunId) -> Option<Chapter> {
        let function = keys::function(repository);
        let manifest = &self.run(repository, run)?.manifest;
        let used: BTreeSet<&ServiceName> =
            self.restores().filter(|it| it.repository == *repository && it.run == *run).map(|it| &it.service).collect();
        let taken = manifest.taken().filter(|(name, _)| used.contains(name));
        let streams =
            taken.flat_map(|(_, taken)| taken.artifacts.iter().map(move |artifact| (&taken.snapshot, artifact)));
        let streams = streams.filter(|(_, artifact)| artifact.kind == ArtifactKind::Stream);
        let mut commands = vec![format!("{function} check")];
        commands.extend(streams.map(|(snapshot, artifact)| {
            let name = quoted(&artifact.name);
            format!(
                "{function} dump {} {name} |\n  sha256sum --check <(echo '{}  -')   # {name}, {}",
                snapshot.short(),
                artifact.sha256.as_str(),
                artifact.bytes
            )
        }));
        Some(Chapter {
            title: format!("Read run {run} back, before anything is touched"),
            words: vec!["Each stream must be `OK`. Where one is not, take an older run: `snapshots` lists them, and its ids replace these.".to_owned()],
            commands,
            check: Vec::new(),
        })
    }

    fn restore(&self, restore: &Restore) -> Option<Chapter> {
        let service = self.spec.services.get(&restore.service)?;
        let taken = self.run(&restore.repository, &restore.run)?.manifest.taken_of(&restore.service)?;
        let way = self.way(&service.source, &keys::function(&restore.repository), taken);
        let what = match &service.source {
            Source::Files(_) | Source::Certificates(_) => "the files of",
            Source::Volume(_) => "the volume of",
            _ => "the data of",
        };
        Some(Chapter {
            title: format!("Put back {what} {}", restore.service),
            words: way.words,
            commands: way.commands,
            check: way.check,
        })
    }

    fn start(&self, service: &str, until: Started) -> Chapter {
        let up = |more: &[&str]| {
            let line = ["dc", "up", "--detach", "--no-deps", "--no-recreate"].into_iter();
            words(line.chain(more.iter().copied()).chain([service]))
        };
        let commands = match until {
            Started::Running => vec![up(&[])],
            Started::Healthy => vec![up(&["--wait"])],
            Started::Completed => {
                let container = self.container(service);
                vec![
                    up(&[]),
                    format!("[ \"$(docker wait {})\" = 0 ]   # it does its work and ends", quoted(&container)),
                ]
            }
        };
        Chapter { title: format!("Start {service}"), commands, ..Chapter::default() }
    }

    fn verification(&self, services: &[ServiceName], assertions: &[Assertion]) -> Chapter {
        let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
        let up = if self.docker().is_some() { "every container is up and " } else { "" };
        let mut words =
            vec![format!("All of it is back when {up}each of these holds what it held: {}.", names.join(", "))];
        if !assertions.is_empty() {
            let named =
                |it: &Assertion| it.given_name().map_or_else(String::new, |name| format!("{}: ", code_span(name)));
            // Whole: on paper a name can't be looked up.
            let asked = |it: &Assertion| it.asks().split_whitespace().collect::<Vec<_>>().join(" ");
            let listed: Vec<String> = assertions
                .iter()
                .map(|it| format!("- {}{} gives {}", named(it), code_span(&asked(it)), it.expected()))
                .collect();
            words.push(format!("The file asserts besides:\n\n{}", listed.join("\n")));
        }
        let commands = match self.docker() {
            Some(_) => vec!["dc ps --all".to_owned()],
            None => Vec::new(),
        };
        Chapter { title: "Look at the whole".to_owned(), words, commands, check: Vec::new() }
    }
}
