//! Containers made from a model that no file holds: Compose reads it from its standard input.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bollard::models::{NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::InspectNetworkOptions;
use serde_json::Value;

use super::compose::{Making, output, printed, program};
use super::{Docker, RuntimeError};

/// A whole Compose model of devstack's own making.
pub struct MadeModel<'a> {
    pub project: &'a str,
    /// There may be passwords in it: it is in no file and in no argument.
    pub model: &'a Value,
    /// Where Compose looks for files that belong to it.
    pub folder: &'a Path,
}

/// What is to be made of a model.
pub struct Order<'a> {
    /// All where none is named.
    pub services: &'a [String],
    pub how: Making,
    /// Becomes the program's standard output, to which it prints nothing: a lock on it is held for as long as the program lives,
    /// so that a Compose that outlives a killed devstack makes nothing behind the back of who cleans up.
    pub alive: Option<&'a File>,
}

impl MadeModel<'_> {
    /// Makes its containers, volumes and networks, and starts nothing.
    pub fn create(&self, docker: &Docker, order: &Order<'_>) -> Result<(), RuntimeError> {
        const NAME: &str = "docker compose create";
        let io = |source| RuntimeError::Io { doing: format!("running `{NAME}`"), source };
        let mut command = program()?;
        command.args(["--file", "-", "--profile", "*", "--project-name", self.project]);
        command.arg("--project-directory").arg(self.folder);
        command.args(["create", order.how.argument()]).args(order.services);
        docker.guide(&mut command);
        for variable in ["COMPOSE_FILE", "COMPOSE_ENV_FILES", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"] {
            command.env_remove(variable);
        }
        command.current_dir(self.folder).stdin(Stdio::piped()).stderr(Stdio::piped());
        command.stdout(match order.alive {
            Some(alive) => Stdio::from(alive.try_clone().map_err(io)?),
            None => Stdio::null(),
        });
        let mut child = command.spawn().map_err(io)?;
        let given = child.stdin.take().map(|mut input| input.write_all(self.model.to_string().as_bytes()));
        let ran = child.wait_with_output().map_err(io)?;
        printed(ran, NAME)?;
        // Only now: what the program said is the better reason why it did not read on.
        given.unwrap_or(Ok(())).map_err(io)
    }
}

impl Docker {
    /// Fetches an image that is not on the machine, by the program, which knows the logins to registries.
    pub fn fetch_image(&self, image: &str) -> Result<(), RuntimeError> {
        if self.has_image(image)? {
            return Ok(());
        }
        let mut command = Command::new("docker");
        command.args(["pull", "--quiet", "--", image]);
        self.guide(&mut command);
        output(command, "docker pull").map(drop)
    }

    /// A volume of this name, made where there is none. Whether it was.
    pub fn make_volume(&self, name: &str) -> Result<bool, RuntimeError> {
        if self.has_volume(name)? {
            return Ok(false);
        }
        let request = VolumeCreateRequest { name: Some(name.to_owned()), ..VolumeCreateRequest::default() };
        let made = self.wait(self.client.create_volume(request));
        made.map(|_| true).map_err(RuntimeError::docker(format!("making the volume {name}")))
    }

    /// A network of this name, made where there is none. Whether it was.
    pub fn make_network(&self, name: &str) -> Result<bool, RuntimeError> {
        match self.wait(self.client.inspect_network(name, None::<InspectNetworkOptions>)) {
            Ok(_) => return Ok(false),
            Err(error) if RuntimeError::is_not_found(&error) => {}
            Err(error) => return Err(RuntimeError::docker(format!("looking at the network {name}"))(error)),
        }
        let request = NetworkCreateRequest { name: name.to_owned(), ..NetworkCreateRequest::default() };
        let made = self.wait(self.client.create_network(request));
        made.map(|_| true).map_err(RuntimeError::docker(format!("making the network {name}")))
    }

    /// The paths that an image declares as volumes.
    pub fn image_volumes(&self, image: &str) -> Result<Vec<String>, RuntimeError> {
        let answer = self
            .wait(self.client.inspect_image(image))
            .map_err(RuntimeError::docker(format!("looking at the image {image}")))?;
        Ok(answer.config.and_then(|config| config.volumes).unwrap_or_default())
    }
}
