//! The `docker compose` program: the Compose files are the truth about how containers are made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use super::{Docker, RuntimeError};
use crate::model::compose::ComposeModel;
use crate::spec::file::{DockerRuntime, variable_files};
use crate::spec::paths;

/// The declared Compose files with what goes with them.
#[derive(Debug, Clone)]
pub struct Compose {
    files: Vec<PathBuf>,
    env_files: Vec<PathBuf>,
    /// Compose's own, where none is declared. They need not be there.
    usual: Vec<PathBuf>,
    profiles: Vec<String>,
    project: Option<String>,
    base: PathBuf,
}

impl Compose {
    /// None where the file declares no Compose files.
    pub fn declared(docker: &DockerRuntime, base: &Path, home: Option<&Path>) -> Option<Self> {
        if docker.compose.is_empty() {
            return None;
        }
        let resolved = |files: &[PathBuf]| files.iter().map(|file| paths::resolve(base, home, file)).collect();
        Some(Self {
            files: resolved(&docker.compose),
            env_files: resolved(&docker.env_files),
            usual: match docker.env_files.is_empty() {
                true => variable_files(Some(docker), base, home).concat(),
                false => Vec::new(),
            },
            profiles: docker.profiles.clone(),
            project: docker.project.clone(),
            base: base.to_owned(),
        })
    }

    /// `docker compose` with all that is declared, in the folder of devstack.yaml. Compose is told the same engine that
    /// devstack talks to.
    pub fn command(&self, docker: Option<&Docker>) -> Result<Command, RuntimeError> {
        let mut command = program()?;
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        for file in &self.env_files {
            command.arg("--env-file").arg(file);
        }
        // Without its profiles Compose leaves services out without a word.
        for profile in &self.profiles {
            command.arg("--profile").arg(profile);
        }
        if let Some(project) = &self.project {
            command.arg("--project-name").arg(project);
        }
        if let Some(docker) = docker {
            docker.guide(&mut command);
        }
        command.current_dir(&self.base).stdin(Stdio::null());
        Ok(command)
    }

    /// The project's name where nothing declares it: on a machine where the files are not, as a run has it.
    #[must_use]
    pub fn called(mut self, project: Option<String>) -> Self {
        self.project = self.project.or(project);
        self
    }

    /// The same files where they lie below another root: those that a drill has brought back.
    #[must_use]
    pub fn below(&self, root: &Path) -> Self {
        let below = |path: &PathBuf| root.join(path.strip_prefix("/").unwrap_or(path));
        Self {
            files: self.files.iter().map(below).collect(),
            env_files: self.env_files.iter().map(below).collect(),
            base: below(&self.base),
            ..self.clone()
        }
    }

    /// The folder that Compose starts relative paths from, and whose name the project has where nothing else names it.
    pub fn folder(&self) -> PathBuf {
        let first = self.files.first().and_then(|file| file.parent());
        first.unwrap_or(&self.base).to_owned()
    }

    pub fn profiles(&self) -> &[String] {
        &self.profiles
    }

    /// What Compose makes of the files, and which of the variables that they ask for nobody has set: Compose takes them for
    /// empty, and only warns.
    pub fn resolved_here(&self) -> Result<Resolved, RuntimeError> {
        let (printed, warned) = self.config(&["--format", "json"])?;
        let model = serde_json::from_slice(&printed)
            .map_err(|source| RuntimeError::Printed { program: "docker compose config".to_owned(), source })?;
        Ok(Resolved { model, unset: unset(&warned) })
    }

    /// What Compose makes of the files: names, images, volumes, dependencies, with every variable filled in.
    pub fn resolved(&self) -> Result<serde_json::Value, RuntimeError> {
        self.resolved_here().map(|resolved| resolved.model)
    }

    /// The files as they are written, put together but with no variable filled in.
    pub fn as_written(&self) -> Result<serde_json::Value, RuntimeError> {
        let (printed, _) = self.config(&["--no-interpolate", "--format", "json"])?;
        serde_json::from_slice(&printed)
            .map_err(|source| RuntimeError::Printed { program: "docker compose config".to_owned(), source })
    }

    /// What `docker compose config` prints, and what it warns of. It reads the files and asks no engine, so where it fails it is
    /// they that are wrong.
    fn config(&self, arguments: &[&str]) -> Result<(Vec<u8>, String), RuntimeError> {
        if let Some(path) = self.files.iter().chain(&self.env_files).find(|file| !file.exists()) {
            return Err(RuntimeError::NoComposeFile { path: path.clone() });
        }
        let mut command = self.command(None)?;
        command.arg("config").args(arguments);
        both(command, "docker compose config").map_err(|error| match error {
            RuntimeError::Program { said, .. } => {
                RuntimeError::ComposeRefused { version: version(), files: self.files.clone(), said }
            }
            error => error,
        })
    }

    /// The same, with these profiles in place of the declared ones.
    pub(super) fn with_profiles(&self, profiles: Vec<String>) -> Self {
        Self { profiles, ..self.clone() }
    }

    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The declared ones; Compose's own, those that are there, where none are.
    pub fn files_of_variables(&self) -> Vec<PathBuf> {
        let usual = self.usual.iter().filter(|path| path.is_file());
        self.env_files.iter().chain(usual).cloned().collect()
    }

    pub fn files_are_here(&self) -> bool {
        self.files.iter().all(|file| file.exists())
    }

    /// The project's name: the declared one, or what Compose makes of the files and the folder.
    pub fn project(&self) -> Result<String, RuntimeError> {
        if let Some(project) = &self.project {
            return Ok(project.clone());
        }
        Ok(self.resolved()?["name"].as_str().unwrap_or_default().to_owned())
    }
}

/// The Compose files as a run keeps them, by the names that they have there.
pub struct KeptCompose {
    pub model: ComposeModel,
    /// What Compose makes of them.
    pub resolved: serde_json::Value,
    pub files: Vec<(String, Vec<u8>)>,
}

/// What Compose makes of the files.
pub struct Resolved {
    pub model: serde_json::Value,
    /// The variables that it took for empty.
    pub unset: Vec<String>,
}

impl Resolved {
    /// What a recovery needs to know of it.
    pub fn known(&self) -> ComposeModel {
        ComposeModel { unset: Some(self.unset.clone()), ..ComposeModel::of(&self.model) }
    }
}

/// The name of what Compose makes of the files, in a run.
pub const KEPT_MODEL: &str = "compose.json";

impl Compose {
    /// The files, those of variables too, and what Compose makes of them with every variable filled in (`compose.json`).
    /// There may be passwords in all of them.
    pub fn kept(&self) -> Result<KeptCompose, RuntimeError> {
        let resolved = self.resolved_here()?;
        let mut files = vec![(KEPT_MODEL.to_owned(), resolved.model.to_string().into_bytes())];
        for (name, path) in self.to_keep().into_iter().filter(|(_, path)| path.is_file()) {
            let bytes = std::fs::read(&path)
                .map_err(|source| RuntimeError::Io { doing: format!("reading {}", path.display()), source })?;
            files.push((name, bytes));
        }
        let model = ComposeModel { folder: Some(self.folder()), ..resolved.known() };
        Ok(KeptCompose { model, resolved: resolved.model, files })
    }

    /// The files that a run keeps, by the names that they have there. The usual files of variables are kept where they are.
    fn to_keep(&self) -> Vec<(String, PathBuf)> {
        let all = self.files.iter().chain(&self.env_files).chain(&self.usual);
        let named = |(index, path): (usize, &PathBuf)| {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            (format!("compose-{index}-{name}"), path.clone())
        };
        all.enumerate().map(named).collect()
    }

    /// Of the files that a run has kept, by their names there, those that are not here.
    pub fn lacking(&self, kept: &[String]) -> Vec<(String, PathBuf)> {
        self.to_keep().into_iter().filter(|(name, path)| kept.contains(name) && !path.exists()).collect()
    }

    /// Makes the containers of these services that are not there, with their volumes and networks, and starts nothing. What is there stays as it is.
    pub fn create(&self, docker: &Docker, services: &[String], how: Making) -> Result<(), RuntimeError> {
        let mut command = self.command(Some(docker))?;
        command.args(["create", how.argument()]).args(services);
        match output(command, "docker compose create") {
            Ok(_) => Ok(()),
            // An image that is not there is another matter than a file that is refused.
            Err(error) => self.config(&["--quiet"]).and(Err(error)),
        }
    }
}

/// What becomes of containers that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    Keep,
    /// They are made anew, with the volumes that they had.
    Anew,
}

impl Making {
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Keep => "--no-recreate",
            Self::Anew => "--force-recreate",
        }
    }
}

/// `docker compose`, or the program of its own that some distributions have. One that has answered once is there.
pub(super) fn program() -> Result<Command, RuntimeError> {
    static FOUND: Mutex<Option<&[&str]>> = Mutex::new(None);
    const PROGRAMS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let made = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    };
    let answers = |words: &&&[&str]| {
        let mut command = made(words);
        let looked = command.arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        looked.is_ok_and(|status| status.success())
    };
    // Held while it is looked for: whoever comes meanwhile waits for the answer, and does not ask as well.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if found.is_none() {
        *found = PROGRAMS.iter().find(answers).copied();
    }
    found.map(made).ok_or(RuntimeError::NoCompose { program: "docker compose", why: "the file declares Compose files" })
}

/// What `docker compose` calls itself; nothing where it does not say.
fn version() -> String {
    let asked = program().and_then(|mut command| {
        command.args(["version", "--short"]);
        output(command, "docker compose version")
    });
    asked.map(|said| String::from_utf8_lossy(&said).trim().to_owned()).unwrap_or_default()
}

/// Runs a program to its end; what it printed, or its last words as an error.
pub(super) fn output(mut command: Command, name: &str) -> Result<Vec<u8>, RuntimeError> {
    let ran = ran(&mut command, name)?;
    printed(ran, name)
}

fn ran(command: &mut Command, name: &str) -> Result<Output, RuntimeError> {
    let ran = command.stdin(Stdio::null()).output();
    ran.map_err(|source| RuntimeError::Io { doing: format!("running `{name}`"), source })
}

/// As [`output`], with what it said on standard error.
fn both(mut command: Command, name: &str) -> Result<(Vec<u8>, String), RuntimeError> {
    let ran = ran(&mut command, name)?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    printed(ran, name).map(|printed| (printed, said))
}

/// The variables that Compose says are not set.
fn unset(warned: &str) -> Vec<String> {
    let names = warned.lines().filter(|line| line.contains("variable is not set")).filter_map(|line| {
        // msg="The \"NAME\" variable is not set. Defaulting to a blank string."
        let (before, _) = line.split_once(" variable is not set")?;
        before.rsplit(' ').next().map(|name| name.trim_matches(|c| matches!(c, '"' | '\\')).to_owned())
    });
    let names: std::collections::BTreeSet<String> = names.filter(|name| !name.is_empty()).collect();
    names.into_iter().collect()
}

/// Runs a program of this machine that the file names.
pub fn run_program(line: &[String]) -> Result<(), RuntimeError> {
    let Some((program, arguments)) = line.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments);
    output(command, &line.join(" ")).map(drop)
}

/// What a program printed that has ended, or its last words as an error.
pub(super) fn printed(ran: Output, name: &str) -> Result<Vec<u8>, RuntimeError> {
    if ran.status.success() {
        return Ok(ran.stdout);
    }
    let said = last_words(&String::from_utf8_lossy(&ran.stderr));
    Err(RuntimeError::Program { program: name.to_owned(), status: ran.status.to_string(), said })
}

/// On one line, without what Compose only warns of, such as a `version` that it does not read any more.
fn last_words(said: &str) -> String {
    let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let lines: Vec<String> = lines.filter(|line| !line.is_empty() && !line.contains("level=warning")).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_what_it_failed_for_and_not_its_warnings() {
        let said = "time=\"2026-11-23T16:47:52Z\" level=warning msg=\"/srv/a.yml: the attribute `version` is obsolete\"\n\
            validating /srv/a.yml:  additional properties 'future' not allowed\n\n";
        assert_eq!(last_words(said), "validating /srv/a.yml: additional properties 'future' not allowed");
        assert_eq!(last_words("1\n2\n3\n4\n"), "2; 3; 4");
        assert_eq!(last_words(""), "");
    }

    #[test]
    fn variables_that_are_not_set_are_read_from_what_compose_warns_of() {
        let said = "time=\"2026-11-29T03:16:33Z\" level=warning msg=\"The \\\"SECRET_KEY\\\" variable is not set. Defaulting to a blank string.\"\n\
            time=\"x\" level=warning msg=\"/srv/a.yml: the attribute `version` is obsolete\"\n\
            The \"A\" variable is not set. Defaulting to a blank string.\n\
            WARN[0000] The \\\"A\\\" variable is not set. Defaulting to a blank string.\n";
        assert_eq!(unset(said), ["A", "SECRET_KEY"]);
        assert_eq!(unset(""), [] as [String; 0]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named_before_compose_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let docker = DockerRuntime { compose: vec!["docker-compose.yml".into()], ..DockerRuntime::default() };
        let compose = Compose::declared(&docker, folder.path(), None).unwrap();
        let path = folder.path().join("docker-compose.yml");
        assert!(!compose.files_are_here());
        match compose.resolved() {
            Err(RuntimeError::NoComposeFile { path: missing }) => assert_eq!(missing, path),
            other => panic!("{other:?}"),
        }
    }
}
