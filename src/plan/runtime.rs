//! What containers run on, and how they are.

use super::Planner;
use super::draft::NewStep;
use crate::model::observation::{Health, Observed};
use crate::model::plan::Note;
use crate::model::step::Action;
use crate::spec::file::Runtime;

impl Planner<'_> {
    /// Starts the declared virtual machine, or the engine by the declared program, where no engine answers. Where one does there
    /// is nothing to do.
    pub(super) fn start_runtime(&mut self) {
        let Some(Observed::Unknown { reason }) = &self.observation.engine else { return };
        let action = match &self.spec.runtime {
            Some(Runtime { colima: Some(colima), .. }) => {
                Action::StartColima { profile: colima.profile.clone().unwrap_or_else(|| "default".to_owned()) }
            }
            Some(Runtime { docker: Some(docker), .. }) if !docker.start.is_empty() => {
                Action::StartDocker { command: docker.start.clone() }
            }
            _ => return,
        };
        self.started = Some(self.draft.add(NewStep::new(action).because(reason.clone())));
    }

    /// Containers that are there and not well. Reported only: Compose is who changes them.
    pub(super) fn report_containers(&mut self) {
        for name in &self.observation.left_stopped {
            let text = "stopped by a devstack that was ended meanwhile; `devstack apply` starts it again";
            self.report.lost.push(Note::new(format!("container/{name}"), text));
        }
        for (service, containers) in &self.observation.containers {
            for (name, container) in containers.known().into_iter().flatten() {
                let restarted = match container.restarts {
                    0 => String::new(),
                    1 => ", restarted once".to_owned(),
                    times => format!(", restarted {times} times"),
                };
                let text = match (container.running, container.health) {
                    (true, Health::Unhealthy) => format!("container {name} is unhealthy{restarted}"),
                    (true, _) => continue,
                    (false, _) => {
                        format!("container {name} is {}, exit code {}{restarted}", container.state, container.exit_code)
                    }
                };
                self.report.drift.push(Note::new(service.to_string(), text));
            }
        }
    }
}
