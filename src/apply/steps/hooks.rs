//! Hooks: programs of the person's, on this machine or in a container. Each has a time limit, and is ended with all that it
//! started when that is over or devstack is.

mod host;

use std::time::{Duration, Instant};

use super::world::World;
use crate::apply::runner::{StepContext, StepError};
use crate::model::cancel::Cancel;
use crate::model::chain;
use crate::model::hook::{Hook, HookRun, HookStep, OnFailure, Phase};
use crate::model::outcome::{Done, StepOutcome};
use crate::model::step::Step;
use crate::model::units::Span;
use crate::runtime::{Command, RuntimeError};
use crate::spec::file::Hooks;

/// What is kept of the output, from its end.
const KEPT: usize = 4 * 1024;

/// How a program ended.
struct Ended {
    /// Why, if it did not end well.
    failed: Option<String>,
    output: Vec<u8>,
}

pub(super) fn run(world: &World, step: &Step, asked: &HookStep, context: &StepContext<'_>) -> Result<Done, StepError> {
    if declared(world, asked) != Some(&asked.hook) {
        return Err(StepError::needs_replan("the file declares another hook there; run `devstack plan` again"));
    }
    if asked.phase == Phase::After && !anything_was_begun(step, context) {
        return Ok(Done { summary: "not run: nothing was begun".to_owned(), ..Done::default() });
    }
    if world.ground.containers.compose().is_some() {
        // A hook may stop some of them.
        world.before();
    }
    let hook = &asked.hook;
    let since = Instant::now();
    let variables = variables(step, asked, context);
    let ended = match &hook.container {
        None => host::run(&world.ground.base, hook, &variables, &context.cancel),
        Some(container) => inside(world, container, hook, &variables, &context.cancel),
    };
    let masked = |text: &str| world.without_secrets(text);
    let output = masked(&String::from_utf8_lossy(&ended.output));
    let failed = ended.failed.as_deref().map(masked);
    let came = HookRun {
        service: asked.service.clone(),
        phase: asked.phase,
        command: masked(&hook.shown()),
        container: hook.container.clone(),
        took: Span::from(since.elapsed()),
        failed: failed.clone(),
        output: output.trim_end().to_owned(),
    };
    world.note_hook(&asked.run, step.id, came);
    let Some(why) = failed else {
        return Ok(Done { summary: last_line(&output).unwrap_or_else(|| "done".to_owned()), ..Done::default() });
    };
    let said = last_line(&output).map_or_else(String::new, |line| format!("; it said: {line}"));
    let text = format!("the hook `{}` {} {}: {why}{said}", masked(&hook.shown()), asked.phase.as_str(), asked.owner());
    match hook.on_failure {
        OnFailure::Fail => Err(StepError::permanent(text)),
        OnFailure::Warn => {
            let summary = "failed, which the file says is a warning".to_owned();
            Ok(Done { summary, advice: vec![format!("warning: {text}")], ..Done::default() })
        }
    }
}

/// The hook as the file declares it. A plan that was saved names it, and is not what decides which programs run here.
fn declared<'w>(world: &'w World, asked: &HookStep) -> Option<&'w Hook> {
    let hooks: Option<&Hooks> = match &asked.service {
        Some(service) => world.spec.services.get(service)?.hooks.as_ref(),
        None => world.spec.backup.get(&asked.policy.whole())?.hooks.as_ref(),
    };
    hooks?.of(asked.phase).get(asked.index)
}

/// What has been done before a backup is undone after it; where nothing was, there is nothing to undo.
fn anything_was_begun(step: &Step, context: &StepContext<'_>) -> bool {
    let mut ends = step.waits.iter().filter_map(|wait| context.outcome(wait.step));
    ends.any(|end| match end {
        StepOutcome::Done(_) | StepOutcome::Failed { .. } | StepOutcome::Interrupted => true,
        StepOutcome::AlreadyDone { .. } | StepOutcome::Held { .. } | StepOutcome::Skipped { .. } => false,
    })
}

/// What the program is told.
fn variables(step: &Step, asked: &HookStep, context: &StepContext<'_>) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("DEVSTACK_RUN", asked.run.to_string()),
        ("DEVSTACK_POLICY", asked.policy.whole().to_string()),
        ("DEVSTACK_PHASE", asked.phase.as_str().to_owned()),
    ];
    variables.extend(asked.service.iter().map(|service| ("DEVSTACK_SERVICE", service.to_string())));
    if asked.phase == Phase::After {
        let well = step.waits.iter().filter_map(|wait| context.outcome(wait.step)).all(StepOutcome::is_success);
        variables.push(("DEVSTACK_OUTCOME", if well { "taken" } else { "failed" }.to_owned()));
    }
    variables
}

fn inside(world: &World, container: &str, hook: &Hook, variables: &[(&str, String)], cancel: &Cancel) -> Ended {
    let none = |failed: String| Ended { failed: Some(failed), output: Vec::new() };
    let containers = &world.ground.containers;
    let looked = containers.all_called(container).map(|found| found.into_iter().next());
    let found = match looked {
        Ok(Some(found)) => Ok(found),
        Ok(None) => containers.find(container),
        Err(error) => Err(error),
    };
    let docker = found.and_then(|found| Ok((containers.docker()?, found)));
    let (docker, found) = match docker {
        Ok(both) => both,
        Err(error) => return none(chain(&error)),
    };
    // Both streams in the order in which they are written.
    let merged = Command::script("exec \"$@\" 2>&1", hook.run.iter().cloned());
    let command = variables.iter().fold(merged, |command, (name, value)| command.env(name, value));
    let limit = Duration::from(hook.timeout());
    match docker.run_until(&found, &command, b"", limit, cancel) {
        Ok(finished) => {
            let failed = (finished.code != 0).then(|| format!("it ended with exit code {}", finished.code));
            Ended { failed, output: end_of(finished.stdout) }
        }
        Err(RuntimeError::TimedOut { .. }) => none(over(hook.timeout())),
        Err(error) => none(chain(&error)),
    }
}

fn over(limit: Span) -> String {
    format!("it took longer than {limit} and was ended")
}

fn end_of(mut bytes: Vec<u8>) -> Vec<u8> {
    let excess = bytes.len().saturating_sub(KEPT);
    bytes.drain(..excess);
    bytes
}

fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(crate::model::assertion::short(line.trim()))
}
