//! `show RUN`: what it holds and what has been proven of it.

use std::path::Path;

use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::session::Session;
use super::{TextOrJson, backups, lines};
use crate::model::evidence::{Level, Verdict};
use crate::model::ids::RunId;
use crate::model::observation::Run;
use crate::model::run::ServiceResult;
use crate::plan::render::printable;

pub(super) fn run(file: &Path, run: &RunId, format: TextOrJson) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.stores.read_around_damage();
    let now = Timestamp::now();
    let observation = session.observe(now);
    let run = &backups::named(&observation, run)?;
    for (repository, held) in backups::copies(&observation, run) {
        match format {
            TextOrJson::Json => println!("{}", backups::described(repository, held)),
            TextOrJson::Text => {
                println!("run {run}   repository {repository}   {}", printable(&backups::state(held)));
                print!("{}", details(&session, held, now));
            }
        }
    }
    Ok(Exit::Done)
}

fn details(session: &Session, run: &Run, now: Timestamp) -> String {
    let manifest = &run.manifest;
    let mut lines = vec![
        format!("  policy    {}", manifest.policy),
        format!("  started   {} ({})", lines::time(manifest.started, &session.zone), lines::ago(manifest.started, now)),
        format!(
            "  slot      {}",
            manifest.slot.map_or("none: taken by hand".to_owned(), |slot| lines::time(slot, &session.zone))
        ),
        format!(
            "  parent    {}",
            manifest.parent.as_ref().map_or("none: the first of its chain".to_owned(), ToString::to_string)
        ),
        format!("  chain     goes back to {}", manifest.base),
        format!("  devstack  {}   file {}", manifest.devstack_version, manifest.spec_digest.short()),
    ];
    for level in Level::PROOF {
        let word = match run.latest(level) {
            None => "never looked at".to_owned(),
            Some((at, Verdict::Passed)) => {
                format!("passed {} ({})", lines::time(at, &session.zone), lines::ago(at, now))
            }
            Some((at, Verdict::Failed(findings))) => {
                format!("FAILED {}: {}", lines::time(at, &session.zone), findings.join("; "))
            }
        };
        lines.push(format!("  {:<9} {}", level.as_str(), printable(&word)));
    }
    for hook in &manifest.hooks {
        lines.push(format!("  hook      {}", printable(&hook.to_string())));
        lines.extend(hook.output.lines().map(|line| format!("            | {}", printable(line))));
    }
    for snapshot in &run.lost {
        lines.push(format!("  damaged   snapshot {} is gone from the repository", snapshot.short()));
    }
    for found in &run.hurt {
        lines.push(format!("  damaged   {}", printable(found)));
    }
    for (service, result) in &manifest.services {
        lines.push(String::new());
        match result {
            ServiceResult::Failed { reason } => lines.push(format!("  {service}   NOT TAKEN: {}", printable(reason))),
            ServiceResult::Taken(taken) => {
                lines.push(format!(
                    "  {service}   {} {}   snapshot {}   {}, {} new   took {}",
                    taken.engine,
                    taken.engine_version,
                    taken.snapshot.short(),
                    taken.bytes(),
                    taken.added,
                    taken.took
                ));
                for artifact in &taken.artifacts {
                    lines.push(format!(
                        "    {}   {}   sha256 {}",
                        printable(&artifact.name),
                        artifact.bytes,
                        artifact.sha256
                    ));
                    let counts: Vec<String> = artifact
                        .counts
                        .iter()
                        .map(|(name, count)| format!("{name} {}{}", if count.exact { "" } else { "~" }, count.value))
                        .collect();
                    lines.push(format!("    {}", printable(&counts.join(", "))));
                }
                lines.extend(taken.notes.iter().map(|note| format!("    note      {}", printable(note))));
                for certificate in &taken.certificates {
                    lines.push(format!(
                        "    {}   {}   until {}",
                        printable(&certificate.path),
                        printable(&certificate.title()),
                        lines::time(certificate.not_after, &session.zone)
                    ));
                }
            }
        }
    }
    lines.join("\n") + "\n"
}
