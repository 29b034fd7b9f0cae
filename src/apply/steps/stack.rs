//! The containers of the stack: started, and looked at as a whole.

use std::sync::Arc;
use std::time::Duration;

use super::assertions;
use super::world::World;
use crate::apply::runner::{StepContext, StepError};
use crate::model::assertion::Assertion;
use crate::model::cancel::Cancel;
use crate::model::chain;
use crate::model::ids::ServiceName;
use crate::model::observation::{ContainerState, Health, Observed, SourceState};
use crate::model::outcome::{Done, FailureKind};
use crate::model::step::{Action, Started, Step};
use crate::runtime::{Docker, RuntimeError};
use crate::spec::file::Source;

/// A server that replays the log of a large database is up within this, or somebody must look.
const STARTS: Duration = Duration::from_secs(300);

fn failed(error: RuntimeError) -> StepError {
    StepError::new(error.kind(), error)
}

pub(super) fn start(
    world: &World,
    service: &str,
    until: Started,
    context: &StepContext<'_>,
) -> Result<Done, StepError> {
    if let Some(why) = world.why_unmade(service) {
        return Err(StepError::permanent(why));
    }
    let docker = world.ground.containers.docker().map_err(failed)?;
    let containers = world.ground.containers.of_service(service).map_err(failed)?;
    for container in &containers {
        docker.start_container(container).map_err(failed)?;
    }
    for container in &containers {
        match until {
            Started::Running => {}
            Started::Healthy => until_healthy(&docker, container, &context.cancel).map_err(failed)?,
            Started::Completed => docker.wait_completed(container, STARTS, &context.cancel).map_err(failed)?,
        }
    }
    let summary = match (containers.len(), until) {
        (0, _) => "Compose makes no container of it".to_owned(),
        (_, Started::Running) => "runs".to_owned(),
        (_, Started::Healthy) => "is up".to_owned(),
        (_, Started::Completed) => "has ended with 0".to_owned(),
    };
    Ok(Done { summary, ..Done::default() })
}

/// Every container runs and is healthy, every one of these services holds data, and then every assertion holds. All that is
/// wrong is named. Rows and keys are not counted again here: each restore has counted them against its run before anything
/// that depends on the data was started, and applications that run change them.
pub(super) fn verify(
    world: &World,
    services: &[ServiceName],
    assertions: &[Assertion],
    red: &[String],
    context: &StepContext<'_>,
) -> Result<Done, StepError> {
    let (mut findings, mut advice) = (Vec::new(), Vec::new());
    let containers = match world.ground.containers.of_project() {
        // Where nothing that came back lives in a container, an engine that does not answer says nothing of it.
        Err(_) if !concerns_containers(world, services) => Vec::new(),
        looked => looked.map_err(failed)?,
    };
    let docker = (!containers.is_empty()).then(|| world.ground.containers.docker()).transpose().map_err(failed)?;
    for container in containers.iter().filter(|container| !is_over(container)) {
        let Some(docker) = &docker else { break };
        if container.compose_service().is_some_and(|service| red.contains(service)) {
            // A check that was red then is no measure of what came back.
            match (container.running, container.health) {
                (false, _) => findings.push(format!("the container {} is {}", container.name, container.state)),
                (true, Health::Healthy | Health::NotChecked) => {}
                (true, Health::Unhealthy | Health::Starting) => advice.push(format!(
                    "the health check of the container {} was red when the run was taken, and is not green now: its data is back, look at the check",
                    container.name
                )),
            }
            continue;
        }
        match until_healthy(docker, container, &context.cancel) {
            Ok(()) => {}
            Err(RuntimeError::Interrupted) => return Err(failed(RuntimeError::Interrupted)),
            Err(error) => findings.push(chain(&error)),
        }
    }
    for service in services {
        findings.extend(without_data(world, service)?);
    }
    if !findings.is_empty() {
        let text = format!("the stack is not back: {}", findings.join("; "));
        return Err(StepError::new(FailureKind::Permanent, text));
    }
    assertions::hold(world, assertions, &context.cancel)?;
    let mut summary = format!("{} containers are up, {} services hold data", containers.len(), services.len());
    match assertions.len() {
        0 => {}
        1 => summary.push_str(", 1 assertion holds"),
        count => summary.push_str(&format!(", {count} assertions hold")),
    }
    Ok(Done { summary, advice, ..Done::default() })
}

/// Whether the plan makes or starts containers, or one of the services lives in some.
fn concerns_containers(world: &World, services: &[ServiceName]) -> bool {
    let is_of_containers = |step: &Step| {
        matches!(
            step.action,
            Action::CreateContainers { .. } | Action::StartContainer { .. } | Action::StartDocker { .. }
        )
    };
    let lives_in_one = |name: &ServiceName| world.source(name).is_ok_and(Source::needs_docker);
    world.plan.steps.iter().any(is_of_containers) || services.iter().any(lives_in_one)
}

/// Why it does not hold what it should.
fn without_data(world: &World, service: &ServiceName) -> Result<Option<String>, StepError> {
    Ok(match world.engine(service)?.observe() {
        Observed::Known(SourceState::HasData { .. }) => None,
        Observed::Known(SourceState::Unfinished { .. }) => {
            Some(format!("a restore into {service} was begun and has not ended"))
        }
        Observed::Known(SourceState::Empty) => Some(format!("{service} holds nothing")),
        Observed::Known(SourceState::Gone) => Some(format!("{service} is not there")),
        Observed::Known(SourceState::Broken) => Some(format!("{service} is damaged and can't be read")),
        Observed::Unknown { reason } => Some(format!("{service}: {reason}")),
    })
}

/// One service alone, right after its restore.
pub(super) fn holds_data(world: &World, service: &ServiceName) -> Result<(), StepError> {
    match without_data(world, service)? {
        None => Ok(()),
        Some(finding) => Err(StepError::permanent(format!("the restore did not come to anything: {finding}"))),
    }
}

/// One that only prepares something ends by itself.
fn until_healthy(docker: &Arc<Docker>, container: &ContainerState, cancel: &Cancel) -> Result<(), RuntimeError> {
    match docker.wait_healthy(container, STARTS, cancel) {
        Ok(_) => Ok(()),
        Err(RuntimeError::NotRunning { .. })
            if docker.inspect(container.id.as_str())?.as_ref().is_some_and(is_over) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// It has done its work, as a container that only prepares something does.
fn is_over(container: &ContainerState) -> bool {
    container.state == "exited" && container.exit_code == 0
}
