//! Stopping and starting containers that Compose has made, and waiting until they are healthy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder};
use futures_util::TryStreamExt;

use super::{Docker, RuntimeError};
use crate::model::cancel::Cancel;
use crate::model::observation::{ContainerState, Health};

/// How long a container may take to end by itself before the engine kills it, where it declares no time of its own.
/// Compose gives 10 s, after which a server that still writes its memory down is killed; but a program that does not
/// listen to SIGTERM is down for all of it.
const STOP_SECONDS: i32 = 60;

/// Between two looks at a container that starts.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

impl Docker {
    /// Stops a container and waits for its end. One that does not run is fine.
    pub fn stop(&self, container: &ContainerState) -> Result<(), RuntimeError> {
        let seconds = container.stop_seconds.and_then(|seconds| i32::try_from(seconds).ok()).unwrap_or(STOP_SECONDS);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        self.wait(self.patient.stop_container(container.id.as_str(), Some(options)))
            .map_err(RuntimeError::docker(format!("stopping the container {}", container.name)))
    }

    /// Starts a container. One that runs is fine.
    pub fn start_container(&self, container: &ContainerState) -> Result<(), RuntimeError> {
        self.wait(self.client.start_container(container.id.as_str(), None::<StartContainerOptions>))
            .map_err(RuntimeError::docker(format!("starting the container {}", container.name)))
    }

    /// The lines that a container has printed since then, errors and all.
    pub fn said_since(&self, container: &ContainerState, since: jiff::Timestamp) -> Result<Vec<String>, RuntimeError> {
        // The engine counts whole seconds.
        let since = i32::try_from(since.as_second()).unwrap_or(0);
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).since(since).tail("200").build();
        let parts: Vec<LogOutput> = self
            .wait(self.client.logs(container.id.as_str(), Some(options)).try_collect())
            .map_err(RuntimeError::docker(format!("reading what the container {} has printed", container.name)))?;
        let bytes: Vec<u8> = parts.into_iter().flat_map(LogOutput::into_bytes).collect();
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// Holds every process of a container still.
    pub(super) fn pause(&self, container: &ContainerState) -> Result<(), RuntimeError> {
        self.wait(self.client.pause_container(container.id.as_str()))
            .map_err(RuntimeError::docker(format!("pausing the container {}", container.name)))
    }

    /// Lets it go on.
    pub(super) fn unpause(&self, container: &ContainerState) -> Result<(), RuntimeError> {
        self.wait(self.client.unpause_container(container.id.as_str()))
            .map_err(RuntimeError::docker(format!("letting the paused container {} go on", container.name)))
    }

    /// Waits until the container has done its work and ended with 0.
    pub fn wait_completed(
        self: &Arc<Self>,
        container: &ContainerState,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<(), RuntimeError> {
        let since = Instant::now();
        loop {
            let gone = || RuntimeError::NoContainer { name: container.name.clone(), project: None };
            let now = self.inspect(container.id.as_str())?.ok_or_else(gone)?;
            match (now.state.as_str(), now.exit_code) {
                ("exited", 0) => return Ok(()),
                ("exited" | "dead", code) => {
                    return Err(RuntimeError::NotRunning {
                        name: now.name,
                        state: format!("{} with exit code {code}, and what waits for it needs 0", now.state),
                    });
                }
                _ if cancel.is_cancelled() => return Err(RuntimeError::Interrupted),
                _ if since.elapsed() > limit => {
                    return Err(RuntimeError::TimedOut {
                        doing: format!("waiting for the container {} to complete", now.name),
                        seconds: limit.as_secs(),
                    });
                }
                _ => std::thread::sleep(BETWEEN_LOOKS),
            }
        }
    }

    /// Waits until the container runs and its health check, where it has one, says healthy.
    pub fn wait_healthy(
        self: &Arc<Self>,
        container: &ContainerState,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<ContainerState, RuntimeError> {
        let since = Instant::now();
        loop {
            let gone = || RuntimeError::NoContainer { name: container.name.clone(), project: None };
            let now = self.inspect(container.id.as_str())?.ok_or_else(gone)?;
            match (now.running, now.health) {
                (true, Health::Healthy | Health::NotChecked) => return Ok(now),
                (true, Health::Starting) => {}
                // A health check that fails while a large database replays its log may pass again.
                (true, Health::Unhealthy) => {}
                (false, _) if now.state == "exited" || now.state == "dead" => {
                    return Err(RuntimeError::NotRunning {
                        name: now.name,
                        state: format!("{} with exit code {}", now.state, now.exit_code),
                    });
                }
                (false, _) => {}
            }
            if cancel.is_cancelled() {
                return Err(RuntimeError::Interrupted);
            }
            if since.elapsed() > limit {
                return Err(match now.health {
                    Health::Unhealthy => RuntimeError::Unhealthy {
                        name: now.name,
                        said: format!("and stayed so for {} s", limit.as_secs()),
                    },
                    _ => RuntimeError::TimedOut {
                        doing: format!("waiting for the container {} to be healthy", now.name),
                        seconds: limit.as_secs(),
                    },
                });
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }
}
