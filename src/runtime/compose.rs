//! The `docker compose` program: the Compose files are the truth about how containers are made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::RuntimeError;
use crate::model::compose::ComposeModel;
use crate::spec::file::DockerRuntime;
use crate::spec::paths;

/// The declared Compose files with what goes with them.
#[derive(Debug, Clone)]
pub struct Compose {
    files: Vec<PathBuf>,
    env_files: Vec<PathBuf>,
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
            profiles: docker.profiles.clone(),
            project: docker.project.clone(),
            base: base.to_owned(),
        })
    }

    /// `docker compose` with all that is declared, in the folder of devstack.yaml. Compose is told the same engine that
    /// devstack talks to.
    pub fn command(&self, address: Option<&str>) -> Result<Command, RuntimeError> {
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
        if let Some(address) = address {
            command.env("DOCKER_HOST", address).env_remove("DOCKER_CONTEXT");
        }
        command.current_dir(&self.base).stdin(Stdio::null());
        Ok(command)
    }

    /// What Compose makes of the files: names, images, volumes, dependencies, with every variable filled in.
    pub fn resolved(&self) -> Result<serde_json::Value, RuntimeError> {
        let mut command = self.command(None)?;
        command.args(["config", "--format", "json"]);
        let printed = output(command, "docker compose config")?;
        serde_json::from_slice(&printed)
            .map_err(|source| RuntimeError::Printed { program: "docker compose config".to_owned(), source })
    }

    /// The files as they are written, put together but with no variable filled in.
    pub fn as_written(&self) -> Result<serde_json::Value, RuntimeError> {
        let mut command = self.command(None)?;
        command.args(["config", "--no-interpolate", "--format", "json"]);
        let printed = output(command, "docker compose config")?;
        serde_json::from_slice(&printed)
            .map_err(|source| RuntimeError::Printed { program: "docker compose config".to_owned(), source })
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
    pub files: Vec<(String, Vec<u8>)>,
}

impl Compose {
    /// The files, those of variables too, and what Compose makes of them with every variable filled in (`compose.json`).
    /// There may be passwords in all of them.
    pub fn kept(&self) -> Result<KeptCompose, RuntimeError> {
        let resolved = self.resolved()?;
        let mut files = vec![("compose.json".to_owned(), resolved.to_string().into_bytes())];
        let usual = self.base.join(".env");
        let usual = (self.env_files.is_empty() && usual.exists()).then_some(usual);
        let all = self.files.iter().chain(&self.env_files).chain(&usual);
        for (index, path) in all.enumerate() {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            let bytes = std::fs::read(path)
                .map_err(|source| RuntimeError::Io { doing: format!("reading {}", path.display()), source })?;
            files.push((format!("compose-{index}-{name}"), bytes));
        }
        Ok(KeptCompose { model: ComposeModel::of(&resolved), files })
    }

    /// Makes the containers of these services that are not there, with their volumes and networks, and starts nothing. What is there stays as it is.
    pub fn create(&self, address: &str, services: &[String]) -> Result<(), RuntimeError> {
        let mut command = self.command(Some(address))?;
        command.args(["create", "--no-recreate"]).args(services);
        output(command, "docker compose create").map(drop)
    }
}

/// `docker compose`, or the program of its own that some distributions have.
pub(super) fn program() -> Result<Command, RuntimeError> {
    let answers = |command: &mut Command| {
        let looked = command.arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        looked.is_ok_and(|status| status.success())
    };
    let mut plugin = Command::new("docker");
    if answers(plugin.arg("compose")) {
        let mut command = Command::new("docker");
        command.arg("compose");
        return Ok(command);
    }
    if answers(&mut Command::new("docker-compose")) {
        return Ok(Command::new("docker-compose"));
    }
    Err(RuntimeError::NoCompose { program: "docker compose", why: "the file declares Compose files" })
}

/// Runs a program to its end; what it printed, or its last words as an error.
pub(super) fn output(mut command: Command, name: &str) -> Result<Vec<u8>, RuntimeError> {
    let ran = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| RuntimeError::Io { doing: format!("running `{name}`"), source })?;
    printed(ran, name)
}

/// What a program printed that has ended, or its last words as an error.
pub(super) fn printed(ran: Output, name: &str) -> Result<Vec<u8>, RuntimeError> {
    if ran.status.success() {
        return Ok(ran.stdout);
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(RuntimeError::Program {
        program: name.to_owned(),
        status: ran.status.to_string(),
        said: lines[lines.len().saturating_sub(3)..].join("; "),
    })
}
