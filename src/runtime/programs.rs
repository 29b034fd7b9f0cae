//! Which programs run in a container: asked from the engine, so that nothing is run in it.

use bollard::query_parameters::TopOptionsBuilder;

use super::{Docker, RuntimeError};
use crate::model::observation::ContainerState;

impl Docker {
    /// The programs by their own names, without their arguments.
    pub fn programs(&self, container: &ContainerState) -> Result<Vec<String>, RuntimeError> {
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
}
