//! `recover`: whatever of the stack is gone comes back, in order.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::point::PointArguments;
use super::restore::vault;
use super::session::{Session, write_private};
use super::{Consent, TextOrJson, apply, beside};
use crate::apply::resume::{self, ResumeError};
use crate::drill::DrillId;
use crate::model::ids::ServiceName;
use crate::model::plan::Plan;
use crate::model::step::{Action, Step};
use crate::observe;
use crate::plan::{Recover, Request, Rollback, as_if_lost, render};
use crate::spec::file::Source;

#[derive(Debug, Args)]
pub(super) struct RecoverArguments {
    #[command(flatten)]
    point: PointArguments,
    /// Show the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: the graph alone.
    #[arg(long, value_enum, requires = "dry_run", value_name = "FORMAT")]
    graph: Option<GraphFormat>,
    /// Put the runs also over services that have data, or that no longer start. What is there is copied first.
    #[arg(long)]
    replace: bool,
    /// Put back what the last recovery, restore or rollback has overwritten.
    #[arg(long, conflicts_with_all = ["at", "backup", "replace", "accept_age", "resume", "afresh", "escrow"])]
    rollback: bool,
    /// Overwrite with no copy made first: there is no way back.
    #[arg(long)]
    without_safety: bool,
    /// Print the recovery of everything for a person without devstack, as markdown: restic, Docker and the servers' clients in
    /// order, with the ids and paths of the newest good runs. Looks at the repositories and at nothing else.
    #[arg(long, conflicts_with_all = ["dry_run", "resume", "afresh", "only", "accept_age", "escrow"])]
    runbook: bool,
    /// With --runbook: into this file, which only you can read.
    #[arg(long, requires = "runbook", value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take runs that are older than the file's RPO allows.
    #[arg(long)]
    accept_age: bool,
    /// Recover although fewer bytes are free than come back.
    #[arg(long)]
    accept_room: bool,
    /// Go on with a recovery that was interrupted or failed: what it did is not done again.
    #[arg(long, conflicts_with_all = ["at", "backup", "from", "only", "dry_run"])]
    resume: bool,
    /// Leave an interrupted recovery, and plan anew: what it brought back stays as it is, and what the file asserts is asked.
    #[arg(long, conflicts_with = "resume")]
    afresh: bool,
    /// Bring it back beside the running stack, as the Compose project NAME: made like a drill, so that it publishes no ports and
    /// reaches nothing outside of itself, and left there.
    #[arg(long, value_name = "NAME", conflicts_with_all = [
        "dry_run", "replace", "rollback", "without_safety", "runbook", "accept_age", "accept_room", "resume", "afresh",
    ])]
    to_project: Option<DrillId>,
    /// With --to-project: remove what was brought back under that name.
    #[arg(long, requires = "to_project", conflicts_with_all = ["at", "backup", "from", "only", "escrow"])]
    remove: bool,
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
    arguments.point.must_be_known(&session)?;
    if let Some(name) = &arguments.to_project {
        let Consent { parallel, format, .. } = arguments.consent;
        return match arguments.remove {
            true => beside::remove(&session, name),
            false => beside::recover(&session, &arguments.point, name, arguments.escrow.as_deref(), parallel, format),
        };
    }
    session.ground.vault = vault(&session, |_| true, arguments.escrow.as_deref(), false)?;
    if arguments.rollback {
        return roll_back(&session, arguments);
    }
    let left = if arguments.afresh { resume::interrupted(&session.state).map_err(unreadable)? } else { None };
    let unfinished = match &left {
        Some(plan) => resume::half_restored(plan, &apply::read_journal(&session)?),
        None => Vec::new(),
    };
    let request = Request::Recover(Recover {
        only: arguments.point.only.clone(),
        selection: arguments.point.selection(),
        from: arguments.point.from.clone(),
        replace: arguments.replace,
        safety: !arguments.without_safety,
        accept_room: arguments.accept_room,
        missing: !arguments.replace && !arguments.runbook,
        verify: left.is_some(),
        unfinished,
    });
    if arguments.runbook {
        return runbook(&session, &request, arguments.output.as_deref());
    }
    if arguments.point.backup.is_some() {
        session.stores.read_around_damage();
    }
    let unset = unset_passwords(&session, &arguments.point.only);
    if arguments.dry_run {
        if let Some(text) = unset {
            eprintln!("warning: {text}; set it before the recovery");
        }
        return show(&session, &request, arguments);
    }
    if let Some(text) = unset {
        // Found now, and not half-way.
        let refused = Failure::new(Exit::Input, format!("nothing was done: {text}"));
        return Err(set_it(&session)?.into_iter().fold(refused, Failure::hint));
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
                .hint(AFRESH));
        }
        Some(_) | None => apply::Origin::Request,
    };
    let given = arguments.accept_age.then_some("age").into_iter().collect();
    let consent = Consent { given, whole: true, ..arguments.consent.clone() };
    until_whole(&session, &request, origin, &consent)
}

/// A run that is damaged is on record as such once it was read, and the next plan passes it over. There are as many tries as
/// runs.
fn until_whole(
    session: &Session,
    request: &Request,
    origin: apply::Origin,
    consent: &Consent,
) -> Result<Exit, Failure> {
    let mut exit = apply::carry_out(session, request, origin, consent, false)?;
    while exit == Exit::Verification && nothing_was_touched(session)? {
        eprintln!("note: a run was found damaged before anything was touched; looking for an older one");
        resume::forget(&session.state).map_err(unreadable)?;
        exit = apply::carry_out(session, request, apply::Origin::Request, consent, false).map_err(no_other_run)?;
    }
    Ok(exit)
}

/// The recovery ended when it had read runs back, and nothing else of it was begun.
fn nothing_was_touched(session: &Session) -> Result<bool, Failure> {
    let Some(plan) = resume::interrupted(&session.state).map_err(unreadable)? else { return Ok(false) };
    let begun = resume::progress(&plan, &apply::read_journal(session)?);
    let touches_nothing = |step: &Step| {
        matches!(step.action, Action::Prove { .. } | Action::StartColima { .. } | Action::StartDocker { .. })
    };
    Ok(begun.keys().filter_map(|id| plan.step(*id)).all(touches_nothing))
}

/// After damage the reason is the damage, whatever the planner says of what is left.
fn no_other_run(failure: Failure) -> Failure {
    failure.ending_with(Exit::Verification).hint(
        "to bring back what is whole of a damaged run: `devstack recover --backup RUN`; `devstack backups` lists them",
    )
}

/// The word that has `apply` bring back what is lost.
pub(super) const WORD: &str = "recover";

/// What `apply` would bring back by that word; None where its plan says that nothing is lost, or nothing could bring it back.
pub(super) fn held_by(session: &Session, plan: &Plan) -> Result<Option<String>, Failure> {
    // A container that stands still, or a repository that is not mounted, is lost in another sense.
    let is_source = |resource: &str| session.loaded.spec.services.keys().any(|name| resource == format!("{name}/data"));
    let lost = plan.report.lost.iter().any(|note| is_source(&note.resource));
    if !lost || session.interrupted_recovery().is_some() {
        return Ok(None);
    }
    let (now, request) = (Timestamp::now(), Request::Recover(Recover::everything()));
    // Why it can't be planned is told by `recover`; here it would hide what else there is to say.
    let Ok(recovery) = session.plan(&session.observe_beside(now, None, &request), &request, now) else {
        return Ok(None);
    };
    if recovery.is_empty() {
        return Ok(None);
    }
    let text = session.recovery_text(&recovery);
    Ok(Some(format!(
        "HELD: what is lost can come back. `devstack recover`, or `devstack apply --yes --approve {WORD}`, carries this out:\n\n{text}"
    )))
}

/// All that is gone, as `recover` without options brings it back.
pub(super) fn whole(session: &Session, consent: &Consent) -> Result<Exit, Failure> {
    if let Some(text) = session.interrupted_recovery() {
        return Err(Failure::new(Exit::NotApproved, text).hint("to go on with it: `devstack recover --resume`"));
    }
    let consent = Consent { whole: true, ..consent.clone() };
    until_whole(session, &Request::Recover(Recover::everything()), apply::Origin::Request, &consent)
}

/// Whatever became of the recovery before: one that was interrupted is over once what it overwrote is back.
fn roll_back(session: &Session, arguments: &RecoverArguments) -> Result<Exit, Failure> {
    let request = Request::Rollback(Rollback {
        only: arguments.point.only.clone(),
        from: arguments.point.from.clone(),
        safety: !arguments.without_safety,
    });
    if arguments.dry_run {
        return show(session, &request, arguments);
    }
    let consent = Consent { whole: true, ..arguments.consent.clone() };
    let exit = apply::carry_out(session, &request, apply::Origin::Request, &consent, false)?;
    if exit == Exit::Done && arguments.point.only.is_empty() {
        resume::forget(&session.state).map_err(unreadable)?;
    }
    Ok(exit)
}

/// How a variable comes back that stood in a lost .env. A restore is taken in every state, and amid a recovery too; after a change
/// of the file an interrupted recovery could not be gone on with.
fn set_it(session: &Session) -> Result<Vec<String>, Failure> {
    let services = session.loaded.spec.services.iter();
    let files =
        services.filter(|(_, service)| matches!(service.source, Source::Files(_))).map(|(name, _)| name.as_str());
    let files: Vec<&str> = files.collect();
    let mut hints = vec![match files.as_slice() {
        [] => "set it, then give the command again".to_owned(),
        files => format!(
            "set it, then give the command again; where it stood in a lost .env, that comes back by \
             `devstack restore {} --in-place`",
            files.join(" ")
        ),
    }];
    if resume::interrupted(&session.state).map_err(unreadable)?.is_none() {
        hints.push(
            "or write `{ env_file: .env, name: VARIABLE }` in devstack.yaml: the recovery brings that file back before it needs \
             the password"
                .to_owned(),
        );
    }
    Ok(hints)
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

/// What becomes of that which a recovery has brought back, when it is left.
const AFRESH: &str = "to plan anew: `devstack recover --afresh`; what came back whole counts as data and stays, what a restore left \
    half-way is put back anew, and what the file asserts is asked again; with `--replace` runs are put over all of it";

fn going_on(session: &Session, plan: Plan) -> Result<apply::Origin, Failure> {
    if plan.spec_digest != session.loaded.digest {
        let text =
            "devstack.yaml has changed since the recovery was interrupted, so its plan is not this file's any more";
        return Err(Failure::new(Exit::Stale, text)
            .hint("to go on, put the file back as it was: `devstack recover --resume`")
            .hint(AFRESH));
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
    Ok(session.unseen().or_worse(apply::with_missing(&plan)))
}

/// No service is looked at: on the worst day there is none.
fn runbook(session: &Session, request: &Request, output: Option<&Path>) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let (spec, ground) = (&session.loaded.spec, &session.ground);
    let seen = observe::observe(spec, ground, &session.stores, &session.history, now, &|_| false);
    let lost = as_if_lost(spec, &seen);
    let plan = session.plan(&lost, request, now)?;
    let text = render::runbook(&render::Book { plan: &plan, spec, observation: &lost, base: &ground.base });
    match output {
        None => print!("{text}"),
        Some(path) => {
            let failed = |error| Failure::caused(Exit::Unexpected, &format!("writing {}", path.display()), &error);
            write_private(path, text.as_bytes()).map_err(failed)?;
            println!("Written to {}: print it, and keep it off this machine.", path.display());
        }
    }
    Ok(session.unseen())
}
