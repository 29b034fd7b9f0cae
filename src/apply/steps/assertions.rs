//! What the file asserts of a stack that is back: each is asked until it holds or its time is over, all of them side by
//! side in time, and every one that does not hold is named with what was expected and what came.

use std::time::{Duration, Instant};

use super::world::World;
use crate::apply::runner::StepError;
use crate::engines::{Answer, EngineError};
use crate::model::assertion::{About, Assertion, CommandAssertion, HttpAssertion, short};
use crate::model::cancel::Cancel;
use crate::model::chain;
use crate::model::outcome::FailureKind;
use crate::runtime::{Command, Finished, RuntimeError};

/// Between two rounds of asking those that do not hold yet.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);

/// How often a wait looks whether it is interrupted.
const GLANCE: Duration = Duration::from_millis(50);

/// A page or a program that takes longer than this hangs.
const ANSWER: Duration = Duration::from_secs(60);

/// Asks by what the container has. The first word says which that was.
const REQUEST: &str = r#"
if command -v curl >/dev/null 2>&1; then
  printf 'curl '
  exec curl --silent --show-error --output /dev/null --max-time 30 --write-out '%{http_code}' --url "$1"
elif command -v wget >/dev/null 2>&1; then
  printf 'wget '
  exec wget -S -O /dev/null -T 30 "$1" 2>&1
fi
printf 'none'
"#;

/// Waits until all of them hold.
///
/// # Errors
/// Of the kind `Unmet` when one does not within its time, whatever the reason.
pub(super) fn hold(world: &World, assertions: &[Assertion], cancel: &Cancel) -> Result<(), StepError> {
    let since = Instant::now();
    let mut open: Vec<&Assertion> = assertions.iter().collect();
    let mut failed: Vec<(&Assertion, String)> = Vec::new();
    while !open.is_empty() {
        let mut again = Vec::new();
        for assertion in open {
            if cancel.is_cancelled() {
                return Err(StepError::permanent(RuntimeError::Interrupted));
            }
            let came = match asked(world, assertion) {
                Ok(Answer { holds: true, .. }) => continue,
                Ok(answer) => format!("it answered {}", answer.came),
                Err(error) => error.to_string(),
            };
            // The answer may have come late itself.
            match since.elapsed() < Duration::from(assertion.within()) {
                true => again.push(assertion),
                false => failed.push((assertion, came)),
            }
        }
        open = again;
        if !open.is_empty() {
            wait(cancel);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    // In the order of the file, whenever they gave up.
    failed.sort_by_key(|(assertion, _)| assertions.iter().position(|it| it == *assertion));
    let named: Vec<String> = failed.iter().map(|(assertion, came)| told(assertion, came)).collect();
    // In a drill there is nothing to go on with.
    let next = match world.ground.is_apart() {
        true => "",
        false => {
            "; the data is restored and stays as it is: put right what is wrong in the stack, then `devstack recover --resume` asks \
             again; where the assertion is wrong, correct the file, then `devstack recover --afresh`"
        }
    };
    let text = format!("{} of {} assertions do not hold: {}{next}", failed.len(), assertions.len(), named.join("; "));
    Err(StepError::new(FailureKind::Unmet, text))
}

fn told(assertion: &Assertion, came: &str) -> String {
    let within = match assertion.within() {
        within if within.is_zero() => String::new(),
        within => format!(" within {within}"),
    };
    format!("`{}` expected {}{within}, and {came}", assertion.name(), assertion.expected())
}

fn wait(cancel: &Cancel) {
    let since = Instant::now();
    while since.elapsed() < BETWEEN_ROUNDS && !cancel.is_cancelled() {
        std::thread::sleep(GLANCE);
    }
}

fn asked(world: &World, assertion: &Assertion) -> Result<Answer, StepError> {
    let of_runtime = |error: RuntimeError| StepError::new(error.kind(), error);
    match assertion {
        Assertion::Http(it) => requested(world, it).map_err(of_runtime),
        Assertion::Command(it) => ran(world, it).map_err(of_runtime),
        of_server => match of_server.about() {
            About::Service(service) => world
                .engine(service)?
                .answer(of_server)
                .map_err(|error: EngineError| StepError::new(error.kind(), chain(&error))),
            About::Container(_) => Err(StepError::permanent("nobody answers this; it is a fault in devstack")),
        },
    }
}

fn inside(world: &World, container: &str, command: &Command) -> Result<Finished, RuntimeError> {
    let containers = &world.ground.containers;
    // Of a service with several any one answers.
    let found = match containers.all_called(container)?.into_iter().next() {
        Some(found) => found,
        None => containers.find(container)?,
    };
    containers.docker()?.run_any(&found, command, b"", ANSWER)
}

fn requested(world: &World, assertion: &HttpAssertion) -> Result<Answer, RuntimeError> {
    let finished = inside(world, &assertion.container, &Command::script(REQUEST, [assertion.url.as_str()]))?;
    let (tool, said) = match finished.text().split_once(' ') {
        Some((tool, said)) => (tool.to_owned(), said.to_owned()),
        None => (finished.text(), String::new()),
    };
    let status = match tool.as_str() {
        "curl" => said.trim().parse().ok().filter(|status| *status != 0),
        "wget" => first_status(&said),
        "none" => {
            let came = format!(
                "with nothing: the container {} has neither curl nor wget to ask with; assert a `command` of it, or ask from \
                 another container",
                assertion.container
            );
            return Ok(Answer { holds: false, came });
        }
        _ => None,
    };
    Ok(match status {
        Some(status) => Answer { holds: status == assertion.status(), came: format!("with status {status}") },
        None => {
            let words = if finished.stderr.is_empty() { &said } else { &finished.stderr };
            Answer { holds: false, came: format!("with no status: {}", last_line(words)) }
        }
    })
}

/// Of what wget prints of the headers: of the first answer, since it follows redirects.
fn first_status(printed: &str) -> Option<u16> {
    let mut lines = printed.lines().filter_map(|line| line.split_once("HTTP/"));
    lines.find_map(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
}

fn ran(world: &World, assertion: &CommandAssertion) -> Result<Answer, RuntimeError> {
    let finished = inside(world, &assertion.container, &Command::new(assertion.run.iter().cloned()))?;
    let said = match last_line(&finished.stderr) {
        words if words.is_empty() => last_line(&finished.text()),
        words => words,
    };
    let said = if said.is_empty() { said } else { format!(": {said}") };
    Ok(Answer { holds: finished.code == 0, came: format!("with exit code {}{said}", finished.code) })
}

fn last_line(text: &str) -> String {
    short(text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_first_answer_whichever_wget_it_was() {
        let busybox = "Connecting to 127.0.0.1:3000 (127.0.0.1:3000)\n  HTTP/1.1 302 Found\n  Location: /login\n  HTTP/1.1 200 OK\n";
        assert_eq!(first_status(busybox), Some(302));
        assert_eq!(first_status("wget: server returned error: HTTP/1.1 404 Not Found"), Some(404));
        let gnu = "HTTP request sent, awaiting response... \n  HTTP/1.0 500 Internal Server Error\n";
        assert_eq!(first_status(gnu), Some(500));
        assert_eq!(first_status("wget: can't connect to remote host: Connection refused"), None);
    }
}
