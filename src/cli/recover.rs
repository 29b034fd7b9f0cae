//! `recover`: whatever of the stack is gone comes back, in order.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::restore::vault;
use super::session::Session;
use super::{Consent, TextOrJson, apply, known_service};
use crate::apply::resume::{self, ResumeError};
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::plan::Plan;
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
    /// Go on with a recovery that was interrupted or failed: what it did is not done again.
    #[arg(long, conflicts_with_all = ["at", "backup", "from", "only", "dry_run"])]
    resume: bool,
    /// Leave an interrupted recovery, and plan anew.
    #[arg(long, conflicts_with = "resume")]
    afresh: bool,
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
    let request = Request::Recover(Recover { only: arguments.only.clone(), selection, from: arguments.from.clone() });
    let unset = unset_passwords(&session, &arguments.only);
    if arguments.dry_run {
        if let Some(text) = unset {
            eprintln!("warning: {text}; set it before the recovery");
        }
        return show(&session, &request, arguments);
    }
    if let Some(text) = unset {
        // Found now, and not half-way.
        return Err(Failure::new(Exit::Input, format!("nothing was done: {text}"))
            .hint("set it; where it stood in a lost .env, first bring that back: `devstack recover --only FILES_SERVICE`, then `set -a; . ./.env; set +a`"));
    }
    let origin = match resume::interrupted(&session.state).map_err(unreadable)? {
        Some(plan) if arguments.resume => going_on(&session, plan)?,
        None if arguments.resume => {
            return Err(Failure::new(Exit::Input, "no recovery was interrupted here, so there is none to go on with")
                .hint("to recover what is gone: `devstack recover`"));
        }
        Some(_) if !arguments.afresh => {
            // What it has left half-way looks like data, and would be left as it is.
            let text = session.interrupted_recovery().unwrap_or_default();
            return Err(Failure::new(Exit::NotApproved, text)
                .hint("to go on with it: `devstack recover --resume`")
                .hint("to leave it and plan anew; what it has restored half-way counts as data: `devstack recover --afresh`"));
        }
        Some(_) | None => apply::Origin::Request,
    };
    // Who asks for a recovery asks for the restores that it is made of.
    let mut implied = vec!["restore:"];
    implied.extend(arguments.accept_age.then_some("age:"));
    let consent = Consent { implied, whole: true, ..arguments.consent.clone() };
    let chosen = matches!(&request, Request::Recover(asked) if matches!(asked.selection, Selection::Run(_)));
    let mut exit = apply::carry_out(&session, &request, origin, &consent, false)?;
    // A run that is damaged is on record as such now, and the next plan passes it over. There are as many tries as runs.
    while exit == Exit::Verification && !chosen && !arguments.resume {
        eprintln!("note: a run was found damaged before anything was touched; looking for an older one");
        resume::forget(&session.state).map_err(unreadable)?;
        exit = apply::carry_out(&session, &request, apply::Origin::Request, &consent, false)?;
    }
    Ok(exit)
}

/// The first variable that a service to be looked into needs, and that is not set.
pub(super) fn unset_passwords(session: &Session, only: &[ServiceName]) -> Option<String> {
    let services = session.loaded.spec.services.iter().filter(|(name, _)| only.is_empty() || only.contains(name));
    let names = services.flat_map(|(name, service)| {
        service.source.secrets().into_iter().filter_map(move |secret| Some((name, secret.env.as_deref()?)))
    });
    let unset = |variable: &str| std::env::var_os(variable).is_none_or(|value| value.is_empty());
    let (name, variable) = names.into_iter().find(|(_, variable)| unset(variable))?;
    Some(format!("the password of {name} is in the environment variable {variable}, which is not set"))
}

fn unreadable(error: ResumeError) -> Failure {
    Failure::caused(Exit::Unexpected, "the recovery that was interrupted", &error)
        .hint("to leave it and plan anew: remove that file, then `devstack recover`")
}

fn going_on(session: &Session, plan: Plan) -> Result<apply::Origin, Failure> {
    if plan.spec_digest != session.loaded.digest {
        let text =
            "devstack.yaml has changed since the recovery was interrupted, so its plan is not this file's any more";
        return Err(Failure::new(Exit::Stale, text)
            .hint("put the file back as it was, or plan anew: `devstack recover --afresh`"));
    }
    Ok(apply::Origin::Interrupted(Box::new(plan)))
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
