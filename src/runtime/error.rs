//! What can go wrong between devstack and the Docker engine.

use std::path::PathBuf;

use crate::model::outcome::FailureKind;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "no Docker engine answers; looked at {}: start Docker, or set DOCKER_HOST to where it is",
        looked_at.join(", ")
    )]
    NoEngine {
        looked_at: Vec<String>,
        #[source]
        source: Option<bollard::errors::Error>,
    },
    #[error(
        "the Docker engine at {at} does not answer; `docker system dial-stdio` said: {said}. Look whether `docker version` works here"
    )]
    NotDialled { at: String, said: String },
    #[error(
        "a drill mounts folders of this machine into its containers, and the engine {at} runs on another: run the drill there, from the \
         same repository"
    )]
    Elsewhere { at: String },
    #[error("reading the Docker settings in {path} failed; correct the file, or set DOCKER_HOST")]
    Settings {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "there is no container {name}{}; start it (`docker compose up -d`), or correct `container` in the file",
        project.as_ref().map(|project| format!(" in the Compose project {project}")).unwrap_or_default()
    )]
    NoContainer { name: String, project: Option<String> },
    /// Of a stand-in only: the engine's own names are never asked there.
    #[error("no service of {project} mounts the volume {name}, so it has none in its place")]
    NoVolume { name: String, project: String },
    #[error(
        "{count} containers belong to the Compose service {name}; name one of them in `container`: {}",
        names.join(", ")
    )]
    Ambiguous { name: String, count: usize, names: Vec<String> },
    #[error("the container {name} is not running, it is {state}; start it and try again")]
    NotRunning { name: String, state: String },
    #[error(
        "stopping the container {name} would empty the volume {volume}, which lies in memory, and the container's image has no shell \
         that could keep it meanwhile; take {name} out of `stop`, or give the volume a place on the disk"
    )]
    WouldEmpty { name: String, volume: String },
    #[error("{program} is not in the container {container} ({said}); devstack runs the server's own tools there")]
    NoProgram { container: String, program: String, said: String },
    /// A program in a container ended with another code than 0.
    #[error("{program} in the container {container} ended with exit code {code}{}", told(said))]
    Exit { container: String, program: String, code: i64, said: String },
    /// The stream ended and nobody can say how the program did: the engine was restarted, or the container is gone.
    #[error(
        "{program} in the container {container} ended without an exit code of its own: the connection, the container or Docker stopped meanwhile{}",
        told(said)
    )]
    NoExitCode { container: String, program: String, said: String },
    #[error("{doing} failed")]
    Docker {
        doing: String,
        #[source]
        source: bollard::errors::Error,
    },
    #[error("{doing} failed")]
    Io {
        doing: String,
        #[source]
        source: std::io::Error,
    },
    /// A dump that waits for a lock, or for nothing at all.
    #[error(
        "{program} in the container {container} has said nothing for {seconds} s and was ended; something holds it up there, \
         such as a lock on a table: see which session holds it, end that, and try again"
    )]
    Silent { container: String, program: String, seconds: u64 },
    #[error("{doing} took longer than {seconds} s")]
    TimedOut { doing: String, seconds: u64 },
    #[error("the container {name} became unhealthy: {said}")]
    Unhealthy { name: String, said: String },
    #[error("`{program}` was not found; install it, since {why}")]
    NoCompose { program: &'static str, why: &'static str },
    #[error(
        "the Compose file {} is not there; put it back (`devstack restore SERVICE --in-place`, where a `files` service holds it), or correct `runtime.docker` in the file",
        path.display()
    )]
    NoComposeFile { path: PathBuf },
    /// A syntax error, a variable that is not set, or a key that only another Compose knows.
    #[error(
        "Docker Compose {version} does not accept the declared files ({}): {said}; put that right, or install a Docker Compose that accepts it",
        files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    ComposeRefused { version: String, files: Vec<PathBuf>, said: String },
    #[error("`{program}` failed with {status}: {said}")]
    Program { program: String, status: String, said: String },
    #[error("`{program}` printed something else than was expected")]
    Printed {
        program: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("interrupted")]
    Interrupted,
}

/// The last words of a program, on the same line as what it did.
fn told(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl RuntimeError {
    /// What may pass by itself is tried again: a connection that was cut, an engine that restarts.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoEngine { .. } | Self::NotDialled { .. } | Self::NoExitCode { .. } | Self::Io { .. } => {
                FailureKind::Transient
            }
            Self::Docker { source, .. } => match source {
                bollard::errors::Error::DockerResponseServerError { status_code, .. } if *status_code < 500 => {
                    FailureKind::Permanent
                }
                _ => FailureKind::Transient,
            },
            Self::Elsewhere { .. }
            | Self::Settings { .. }
            | Self::NoContainer { .. }
            | Self::NoVolume { .. }
            | Self::Ambiguous { .. }
            | Self::NotRunning { .. }
            | Self::WouldEmpty { .. }
            | Self::NoProgram { .. }
            | Self::Exit { .. }
            // What hung for a minute hangs for the next one too, and holds the lease meanwhile.
            | Self::TimedOut { .. }
            | Self::Silent { .. }
            | Self::Unhealthy { .. }
            | Self::NoCompose { .. }
            | Self::NoComposeFile { .. }
            | Self::ComposeRefused { .. }
            | Self::Program { .. }
            | Self::Printed { .. }
            | Self::Interrupted => FailureKind::Permanent,
        }
    }

    /// The engine has positively said that what was asked for, such as a file of a container, is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Docker { source, .. } if Self::is_not_found(source))
    }

    pub(super) fn docker(doing: impl Into<String>) -> impl FnOnce(bollard::errors::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Docker { doing, source }
    }

    /// The engine has positively said that there is no such thing.
    pub(super) fn is_not_found(error: &bollard::errors::Error) -> bool {
        matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
    }
}
