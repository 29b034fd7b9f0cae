//! `plan`: what differs, and the steps. Changes nothing and takes no lock.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::recover;
use super::session::{Session, write_private};
use crate::model::plan::Plan;
use crate::model::standing::Standing;
use crate::plan::{Request, render, saved};

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[arg(long, value_enum, default_value_t)]
    format: PlanFormat,
    /// Save the plan for `devstack apply FILE`. It holds no secrets.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exit 2 when there are steps.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Exit 8 when the verdict is DEGRADED too: an objective missed or not measured, something unprotected, suspect or expiring.
    #[arg(long)]
    strict: bool,
    /// List what is unchanged too, and every step by itself.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum PlanFormat {
    #[default]
    Text,
    Json,
    /// For a pull request.
    Markdown,
    /// The graph alone.
    Mermaid,
    /// The graph alone.
    Dot,
}

impl PlanArguments {
    pub(super) fn is_for_programs(&self) -> bool {
        matches!(self.format, PlanFormat::Json)
    }
}

pub(super) fn run(file: &Path, arguments: &PlanArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.warn_of_recovery();
    let now = Timestamp::now();
    let observation = session.observe(now);
    let plan = session.plan(&observation, &Request::Converge, now)?;
    let standing = Standing::of_plan(&plan);
    let printed = match arguments.format {
        PlanFormat::Text => render::text(&plan, &session.layout(arguments.all)),
        PlanFormat::Json => render::json_with_verdict(&plan).map_err(unwritable)?,
        PlanFormat::Markdown => render::markdown(&plan, &session.zone),
        PlanFormat::Mermaid => render::mermaid(&plan),
        PlanFormat::Dot => render::dot(&plan),
    };
    if matches!(arguments.format, PlanFormat::Text) {
        println!("{}", render::printable(&standing.line()));
        if let Some(text) = recover::held_by(&session, &plan)? {
            println!("\n{text}");
        }
    }
    print!("{printed}");
    if let Some(path) = &arguments.out {
        refuse_to_overwrite(path)?;
        write_private(path, json(&plan)?.as_bytes())
            .map_err(|error| Failure::caused(Exit::Input, &format!("saving the plan to {}", path.display()), &error))?;
        eprintln!("saved as {}; carry it out with `devstack apply {}`", path.display(), path.display());
    }
    let judged = session.judged(&standing, arguments.strict);
    Ok(if judged != Exit::Done {
        judged
    } else if arguments.detailed_exitcode && !plan.is_empty() {
        Exit::Changes
    } else {
        Exit::Done
    })
}

/// A slip of the pen must not cost a key or a database: only an older plan is written over.
fn refuse_to_overwrite(path: &Path) -> Result<(), Failure> {
    let refused = |why: String| {
        Err(Failure::new(Exit::Input, format!("the plan was not saved to {}: {why}", path.display()))
            .hint("give another name: `devstack plan --out FILE`"))
    };
    match std::fs::read(path) {
        Ok(bytes) if saved::read(&bytes).is_ok() => Ok(()),
        Ok(_) => refused("a file that is no plan is there".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                refused(format!("{} is no folder", folder.display()))
            }
            _ => Ok(()),
        },
        Err(error) => refused(error.to_string()),
    }
}

fn json(plan: &Plan) -> Result<String, Failure> {
    render::json(plan).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::caused(Exit::Unexpected, "writing the plan as JSON", &error)
}
