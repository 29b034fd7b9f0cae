//! `recover --to-project`: the stack as it was, beside the one that runs, in a Compose project that stays.

use std::path::Path;

use super::TextOrJson;
use super::drill;
use super::error::{Exit, Failure};
use super::point::PointArguments;
use super::running::Running;
use super::session::Session;
use crate::drill::{DrillId, Outcome, must_be_free, remove_kept};
use crate::model::chain;
use crate::plan::Recover;

/// Brings the point back under this name. Nothing that is there is touched, so that nobody is asked.
pub(super) fn recover(
    session: &Session,
    point: &PointArguments,
    name: &DrillId,
    escrow: Option<&Path>,
    parallel: u8,
    format: TextOrJson,
) -> Result<Exit, Failure> {
    let asked = Recover::lost(point.only.clone(), point.selection(), point.from.clone());
    must_be_free(&session.state, name, || session.ground.containers.docker())
        .map_err(|error| Failure::new(Exit::Input, chain(&error)))?;
    let keys = drill::keys(escrow.map(|identity| Some(identity.to_owned())).as_ref())?;
    let running = Running::start()?;
    let _listening = running.listen()?;
    let outcome = drill::apart(session, &asked, keys, Some(name.clone()), parallel, format, &running)?;
    match format {
        TextOrJson::Text => print!("{}", text(session, name, &outcome)),
        TextOrJson::Json => println!(
            "{}",
            serde_json::json!({
                "event": "finished", "project": name, "kept": outcome.kept, "interrupted": outcome.interrupted,
                "recovery": outcome.drill,
            })
        ),
    }
    if let Some(error) = &outcome.left_behind {
        eprintln!("error: something of {name} is still there: {}", chain(error));
        eprintln!("  next: `devstack recover --to-project {name} --remove`");
    }
    Ok(if outcome.drill.passed() && outcome.kept { Exit::Done } else { Exit::Partly })
}

/// Removes what was recovered under this name: containers, volumes, networks, files.
pub(super) fn remove(session: &Session, name: &DrillId) -> Result<Exit, Failure> {
    remove_kept(&session.state, name, || session.ground.containers.docker())
        .map_err(|error| Failure::new(Exit::Input, chain(&error)))?;
    println!("Removed: {name} with its containers, volumes, networks and files. The running stack was not touched.");
    Ok(Exit::Done)
}

fn text(session: &Session, name: &DrillId, outcome: &Outcome) -> String {
    let took = outcome.drill.took;
    let told = drill::told(&outcome.drill);
    let last = match (outcome.kept, outcome.drill.passed()) {
        (true, true) => format!("Recovery complete: {took}. All of it runs as the Compose project {name}."),
        (true, false) => format!("Recovery FAILED: {took}. What did come back is there as the Compose project {name}."),
        (false, _) if outcome.interrupted => {
            format!("Recovery INTERRUPTED: {took}. What there was of {name} was removed.")
        }
        (false, _) => "Recovery FAILED: nothing of it was made.".to_owned(),
    };
    let next = match outcome.kept {
        true => format!(
            "  It reaches nothing outside of itself, publishes no ports, and ends with the engine.\n\
             \x20 to look into it: `docker compose -p {name} ps`, `docker compose -p {name} exec SERVICE …`\n\
             \x20 to remove it: `devstack recover --to-project {name} --remove`\n"
        ),
        false => String::new(),
    };
    let stack = &session.loaded.spec.stack;
    format!(
        "\ndevstack recover   stack {stack}   beside it, as {name}\n\n{told}\n{last} The running stack was not touched.\n{next}"
    )
}
