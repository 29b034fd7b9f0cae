//! What a container tells of itself, so that a server is known whatever its image is called: asked from the engine, and nothing
//! is run in the container.

use bollard::query_parameters::{InspectContainerOptions, TopOptionsBuilder};

use super::{Docker, RuntimeError};
use crate::model::observation::ContainerState;

/// What the engine says of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The programs by their own names, without their arguments; none where it does not run.
    pub programs: Vec<String>,
    /// The names of its variables, those of its image too. No value is kept.
    pub variables: Vec<String>,
    /// The ports that its image says it listens on.
    pub ports: Vec<u16>,
    /// Its entrypoint and its command.
    pub command: String,
}

impl Docker {
    pub fn told(&self, container: &ContainerState) -> Result<Told, RuntimeError> {
        let doing = || RuntimeError::docker(format!("asking what {} is", container.name));
        let seen = self
            .wait(self.client.inspect_container(container.id.as_str(), None::<InspectContainerOptions>))
            .map_err(doing())?;
        let programs = match container.running {
            true => self.programs(container)?,
            false => Vec::new(),
        };
        let Some(config) = seen.config else { return Ok(Told { programs, ..Told::default() }) };
        let names = config.env.unwrap_or_default();
        let variables = names.iter().filter_map(|entry| Some(entry.split_once('=')?.0.to_owned())).collect();
        let exposed = config.exposed_ports.unwrap_or_default();
        let ports = exposed.iter().filter_map(|port| port_of(port)).collect();
        let command = [config.entrypoint.unwrap_or_default(), config.cmd.unwrap_or_default()].concat().join(" ");
        Ok(Told { programs, variables, ports, command })
    }

    fn programs(&self, container: &ContainerState) -> Result<Vec<String>, RuntimeError> {
        let options = TopOptionsBuilder::default().ps_args("-eo pid,args").build();
        let answer = self
            .wait(self.client.top_processes(container.id.as_str(), Some(options)))
            .map_err(RuntimeError::docker(format!("asking which programs run in {}", container.name)))?;
        let titles = answer.titles.unwrap_or_default();
        let column = titles.iter().position(|title| title == "COMMAND" || title == "CMD");
        let commands = answer.processes.unwrap_or_default();
        let commands = commands.iter().filter_map(|row| row.get(column.unwrap_or(row.len().saturating_sub(1))));
        Ok(commands.map(|command| program(command).to_owned()).collect())
    }
}

/// `5432/tcp`.
fn port_of(text: &str) -> Option<u16> {
    text.split('/').next()?.parse().ok()
}

/// `postgres: checkpointer` is `postgres`; RabbitMQ runs in Erlang's machine, and is told by its arguments.
fn program(command: &str) -> &str {
    let first = command.split_whitespace().next().unwrap_or_default().trim_end_matches(':');
    let name = first.rsplit('/').next().unwrap_or_default();
    if name == "beam.smp" && command.contains("rabbit") { "rabbitmq-server" } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_by_its_own_name() {
        for (command, name) in [
            ("postgres: walwriter ", "postgres"),
            ("/usr/local/bin/redis-server *:6379", "/usr/local/bin/redis-server"),
            ("/usr/lib/erlang/erts-15/bin/beam.smp -W w -- -root /usr -s rabbit boot", "rabbitmq-server"),
            ("/usr/lib/erlang/erts-15/bin/beam.smp -- -progname couch", "/usr/lib/erlang/erts-15/bin/beam.smp"),
            ("", ""),
        ] {
            assert_eq!(program(command), name);
        }
    }

    #[test]
    fn a_port_is_read_from_what_the_engine_calls_it() {
        assert_eq!(port_of("5432/tcp"), Some(5432));
        assert_eq!(port_of("27017"), Some(27017));
        assert_eq!(port_of("tcp"), None);
    }
}
