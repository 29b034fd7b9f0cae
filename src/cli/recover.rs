//! `recover`: whatever of the stack is gone comes back, in order.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::restore::vault;
use super::session::Session;
use super::{Consent, TextOrJson, apply, known_service};
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::units::Span;
use crate::plan::{Recover, Request, Selection, render};

#[derive(Debug, Args)]
pub(super) struct RecoverArguments {
    /// The newest runs at or before this time, in place of the newest.
    #[arg(long, value_parser = super::parse_time, conflicts_with = "backup", value_name = "TIME")]
    at: Option<Timestamp>,
    /// This run.
    #[arg(long, value_name = "RUN")]
    backup: Option<RunId>,
    /// Only from this repository.
    #[arg(long, value_name = "REPOSITORY")]
    from: Option<RepositoryName>,
    /// Only this service, with what it needs to run. May be repeated.
    #[arg(long, value_name = "SERVICE")]
    only: Vec<ServiceName>,
    /// Show the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: the graph alone.
    #[arg(long, value_enum, requires = "dry_run", value_name = "FORMAT")]
    graph: Option<GraphFormat>,
    /// Take runs that are older than the file's RPO allows.
    #[arg(long)]
    accept_age: bool,
    /// Of a Vault: the age identity that its key files were encrypted to. Those that are missing here come back.
    #[arg(long, value_name = "FILE")]
    escrow: Option<PathBuf>,
    #[command(flatten)]
    pub(super) consent: Consent,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    Mermaid,
    Dot,
}

pub(super) fn run(file: &Path, arguments: &RecoverArguments) -> Result<Exit, Failure> {
    let mut session = Session::open(file)?;
    for service in &arguments.only {
        known_service(&session, service)?;
    }
    session.ground.vault = vault(&session, |_| true, arguments.escrow.as_deref(), false)?;
    let selection = match (&arguments.backup, arguments.at) {
        (Some(run), _) => Selection::Run(run.clone()),
        (None, Some(at)) => Selection::At(at),
        (None, None) => Selection::Newest,
    };
    let request =
        Request::Recover(Recover { only: arguments.only.clone(), selection, from: arguments.from.clone() });
    if arguments.dry_run {
        return show(&session, &request, arguments);
    }
    // Who asks for a recovery asks for the restores that it is made of.
    let mut implied = vec!["restore:"];
    implied.extend(arguments.accept_age.then_some("age:"));
    let consent = Consent { implied, whole: true, ..arguments.consent.clone() };
    apply::carry_out(&session, &request, None, Span::ZERO, &consent, false)
}

fn show(session: &Session, request: &Request, arguments: &RecoverArguments) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let observation = session.observe_beside(now, None, request);
    let plan = session.plan(&observation, request, now)?;
    let printed = match (arguments.graph, arguments.consent.format) {
        (Some(GraphFormat::Mermaid), _) => render::mermaid(&plan),
        (Some(GraphFormat::Dot), _) => render::dot(&plan),
        (None, TextOrJson::Json) => render::json(&plan)
            .map_err(|error| Failure::caused(Exit::Unexpected, "writing the plan as JSON", &error))?,
        (None, TextOrJson::Text) => session.recovery_text(&plan),
    };
    print!("{printed}");
    Ok(session.unseen())
}
