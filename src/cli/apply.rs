//! `apply`, `backup` and `forget`: make a plan (or read one), ask, carry it out, and say what came of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::consent::{Answer, Past};
use super::error::{Exit, Failure};
use super::measured::Meter;
use super::running::Running;
use super::session::{Access, Session, write_private};
use super::{Consent, TextOrJson, consent, drill, known_service, outcome, recover, status};
use crate::apply::executor::{ExecuteOptions, execute};
use crate::apply::exit::exit_code;
use crate::apply::journal::{Contents, Journal};
use crate::apply::lease::Lease;
use crate::apply::progress::{self, ProgressKind};
use crate::apply::resume::{self, Resumed};
use crate::apply::steps::World;
use crate::model::cancel::Cancel;
use crate::model::ids::{PlanId, PolicyName, RepositoryName, RunId, ServiceName};
use crate::model::observation::Observation;
use crate::model::outcome::ApplyOutcome;
use crate::model::plan::Plan;
use crate::model::standing::{Finding, Kind, Standing};
use crate::model::units::Span;
use crate::plan::{ForgetSelection, Request, render, saved};
use crate::runtime::RuntimeError;

#[derive(Debug, Args)]
pub(super) struct ApplyArguments {
    /// A plan that `plan --out` saved. Without it, a new plan is made.
    plan: Option<PathBuf>,
    /// Refuse a saved plan that is older than this.
    #[arg(long, default_value = "24h", value_parser = super::parse_span, value_name = "TIME")]
    max_age: Span,
    /// Exit 8 when the verdict is DEGRADED too: an objective missed or not measured, something unprotected, suspect or expiring.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    pub(super) consent: Consent,
}

#[derive(Debug, Args)]
pub(super) struct BackupArguments {
    /// Only these services; every service of the policies if none is given.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Only by this policy; by every policy if none is given. May be repeated.
    #[arg(long, value_name = "POLICY")]
    policy: Vec<PolicyName>,
    /// Read everything afresh, comparing with no earlier run.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    pub(super) consent: Consent,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArguments {
    /// The runs to forget: their ids, or beginnings of them that no other run has.
    #[arg(required_unless_present_any = ["policy", "service"])]
    runs: Vec<RunId>,
    /// Runs of this policy.
    #[arg(long)]
    policy: Option<PolicyName>,
    /// Runs that hold this service, such as one that was taken out of the file.
    #[arg(long)]
    service: Option<ServiceName>,
    /// Only in this repository.
    #[arg(long)]
    repository: Option<RepositoryName>,
    #[command(flatten)]
    pub(super) consent: Consent,
}

pub(super) fn run(file: &Path, arguments: &ApplyArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    if let Some(path) = &arguments.plan {
        // A saved plan is what somebody has read, and neither a recovery nor a drill is in it.
        let origin = Origin::Saved(Box::new(read_saved(path)?), arguments.max_age);
        return carry_out(&session, &Request::Converge, origin, &arguments.consent, arguments.strict);
    }
    // What is lost comes back first, if somebody says so: else what is taken next would be without it.
    let mut consent = arguments.consent.clone();
    let is_recovery = |word: &String| word == recover::WORD;
    let approved = consent.approve.iter().any(is_recovery);
    consent.approve.retain(|word| !is_recovery(word));
    if approved {
        let exit = recover::whole(&session, &consent)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    let carried = carried(&session, &Request::Converge, Origin::Request, &consent, arguments.strict)?;
    if carried.ends {
        return Ok(carried.exit);
    }
    drill::after_apply(&session, &consent, carried.exit)
}

pub(super) fn backup(file: &Path, arguments: &BackupArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    let (policies, services) = asked_for(&session, arguments)?;
    let request = Request::Backup { policies, services, full: arguments.full };
    // Asking for a backup is saying yes to it; what is held stays held.
    let consent = Consent { yes: true, ..arguments.consent.clone() };
    carry_out(&session, &request, Origin::Request, &consent, false)
}

/// Policies and services. Names of policies stood where services do, once: they are taken as long as nothing else can be meant.
fn asked_for(session: &Session, arguments: &BackupArguments) -> Result<(Vec<PolicyName>, Vec<ServiceName>), Failure> {
    let spec = &session.loaded.spec;
    let is_service = |name: &&String| spec.services.contains_key(&ServiceName::new(name.as_str()));
    let is_policy = |name: &&String| spec.backup.contains_key(&PolicyName::new(name.as_str()));
    for name in arguments.services.iter().filter(is_service).filter(is_policy) {
        eprintln!(
            "note: {name} is a service and a policy: the service is taken; for the policy: `devstack backup --policy {name}`"
        );
    }
    let (services, others): (Vec<&String>, Vec<&String>) = arguments.services.iter().partition(is_service);
    if services.is_empty() && !others.is_empty() && arguments.policy.is_empty() && others.iter().all(is_policy) {
        let words: Vec<String> = others.iter().map(|name| format!("--policy {name}")).collect();
        eprintln!(
            "note: taken for a policy, since no service is called so; write `devstack backup {}`",
            words.join(" ")
        );
        return Ok((others.into_iter().map(PolicyName::new).collect(), Vec::new()));
    }
    for name in others {
        known_service(session, &ServiceName::new(name.as_str())).map_err(|failure| match is_policy(&name) {
            true => failure.hint(format!("{name} is a policy: `--policy {name}`")),
            false => failure,
        })?;
    }
    if let Some(policy) = arguments.policy.iter().find(|policy| !spec.backup.contains_key(*policy)) {
        let names: Vec<&str> = spec.backup.keys().map(PolicyName::as_str).collect();
        let text = format!("there is no policy {policy} in {}", session.loaded.path.display());
        return Err(Failure::new(Exit::Input, text).hint(format!("its policies are: {}", names.join(", "))));
    }
    Ok((arguments.policy.clone(), services.into_iter().map(ServiceName::new).collect()))
}

pub(super) fn forget(file: &Path, arguments: &ForgetArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    let request = Request::Forget(ForgetSelection {
        repository: arguments.repository.clone(),
        policy: arguments.policy.clone(),
        service: arguments.service.clone(),
        runs: arguments.runs.clone(),
    });
    carry_out(&session, &request, Origin::Request, &arguments.consent, false)
}

fn read_saved(path: &Path) -> Result<Plan, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::caused(Exit::Input, &format!("reading the plan {}", path.display()), &error))?;
    saved::read(&bytes).map_err(|error| {
        Failure::caused(Exit::Input, &format!("{} is not a plan that can be applied", path.display()), &error)
            .hint("make a new one: `devstack plan --out FILE`")
    })
}

/// Where the plan that is carried out comes from.
pub(super) enum Origin {
    /// It is made now.
    Request,
    /// Somebody has saved and read it; refused when it is older than this.
    Saved(Box<Plan>, Span),
    /// A recovery that was interrupted goes on.
    Interrupted(Box<Plan>),
}

/// What came of a plan.
struct Carried {
    exit: Exit,
    /// Nothing is done after it: something is lost, and nobody has said that it is to come back; or somebody has said no.
    ends: bool,
}

impl Carried {
    fn of(exit: Exit, ends: bool) -> Self {
        Self { exit: if ends { exit.or_worse(Exit::NotApproved) } else { exit }, ends }
    }
}

/// From request, or a plan that is there, to exit code.
pub(super) fn carry_out(
    session: &Session,
    request: &Request,
    origin: Origin,
    consent: &Consent,
    strict: bool,
) -> Result<Exit, Failure> {
    carried(session, request, origin, consent, strict).map(|carried| carried.exit)
}

fn carried(
    session: &Session,
    request: &Request,
    origin: Origin,
    consent: &Consent,
    strict: bool,
) -> Result<Carried, Failure> {
    if matches!(request, Request::Converge | Request::Backup { .. }) {
        refuse_amid_recovery(session)?;
        session.must_know_its_history()?;
    }
    let running = Running::start()?;
    let Running { runtime, cancel } = &running;
    session.ground.secrets.apply();
    let access = match request {
        Request::Restore { .. } | Request::Recover(_) | Request::Rollback(_) => Access::Reads,
        Request::Converge | Request::Backup { .. } | Request::Forget(_) => Access::Writes,
    };
    let lease = session.lease(access, cancel)?;
    if let Err(error) = session.rooms().sweep() {
        eprintln!("warning: what killed commands left in .devstack/work could not be removed: {error}");
    }
    start_left_behind(session, cancel)?;
    let now = Timestamp::now();
    let own = lease.id().clone();
    let mut observation = session.observe_beside(now, Some(&own), request);
    observation.unwritable = lease.unwritable().into_keys().collect();
    let is_saved = matches!(origin, Origin::Saved(..));
    let past = match &origin {
        Origin::Saved(..) => Past::Reviewed,
        Origin::Interrupted(_) => Past::Begun,
        Origin::Request if *request == Request::Converge => Past::CanBeSaved,
        Origin::Request => Past::None,
    };
    let resumed = match &origin {
        Origin::Interrupted(plan) => resume::progress(plan, &read_journal(session)?),
        Origin::Request | Origin::Saved(..) => Resumed::default(),
    };
    let plan = match origin {
        Origin::Saved(plan, max_age) => {
            refuse_stale(session, &plan, &observation, now, max_age)?;
            *plan
        }
        Origin::Interrupted(plan) => *plan,
        Origin::Request => session.plan(&observation, request, now)?,
    };
    consent::must_be_words(&plan, consent, &names(session, &observation))?;
    // A saved plan is what somebody has read, and no recovery is in it.
    let held = match request {
        Request::Converge if !is_saved => recover::held_by(session, &plan)?,
        _ => None,
    };
    if consent.format == TextOrJson::Text {
        if *request == Request::Converge {
            println!("{}", render::printable(&Standing::of_plan(&plan).line()));
        }
        if let Some(text) = &held {
            println!("\n{text}");
        }
        if !resumed.is_empty() {
            println!("Going on with the recovery {}: {} of its steps were begun.\n", plan.id.short(), resumed.len());
        }
        if is_saved {
            println!("Applying the saved plan {}: every step in it is approved, held ones too.\n", plan.id.short());
        }
        let shown = match request {
            Request::Recover(_) | Request::Rollback(_) => session.recovery_text(&plan),
            _ => render::text(&plan, &session.layout(false)),
        };
        print!("{shown}");
    }
    if plan.is_empty() {
        consent::note_unused(&plan, consent);
        if matches!(request, Request::Recover(_)) {
            resume::forget(&session.state)
                .map_err(|error| Failure::caused(Exit::Unexpected, "the recovery", &error))?;
        }
        release(lease)?;
        let exit = finish(session, request, &observation, &plan, None, consent, strict)?;
        return Ok(Carried::of(exit, held.is_some()));
    }
    let (approvals, how) = match consent::ask(&plan, consent, past)? {
        Answer::Approved(approvals, how) => (approvals, how),
        Answer::Cancelled => {
            release(lease)?;
            eprintln!("Cancelled, nothing changed.");
            return Ok(Carried { exit: Exit::NotApproved, ends: true });
        }
    };
    let _listening = running.listen()?;
    let mut made = World::new(
        session.loaded.spec.clone(),
        session.loaded.text.clone(),
        session.ground.clone(),
        Arc::clone(&session.stores),
        session.rooms(),
        Some(lease),
        plan.clone(),
        is_saved,
    );
    made.resumed = resumed;
    made.origin = Some(session.origin.clone());
    let world = Arc::new(made);
    if is_saved {
        world.mark_used()?;
    }
    // One that goes on is on record since it began.
    let approved = consent::on_record(&plan, &approvals, how).filter(|_| past != Past::Begun);
    let on_record = |anew| {
        // What brings data back must not wait for a disk to become writable.
        if let Some(Err(error)) = approved.as_ref().map(|approved| world.note_approval(approved, anew)) {
            eprintln!("warning: who approved this could not be put on record: {error}");
        }
    };
    on_record(false);
    let journal = journal(session);
    let is_recovery = matches!(request, Request::Recover(_));
    // Without a journal nobody could tell how far it came, so there is nothing to go on with.
    if is_recovery && !journal.is_nowhere() {
        remember_recovery(session, &plan)?;
    }
    note_repositories(&journal, &observation);
    let kind = match consent.format {
        TextOrJson::Json => ProgressKind::Json,
        TextOrJson::Text => ProgressKind::for_people(),
    };
    let meter = Meter::default();
    let events = meter.beside(&plan, progress::receiver(kind, &plan));
    let options = ExecuteOptions { parallel: usize::from(consent.parallel), ..ExecuteOptions::default() };
    let runner: Arc<dyn crate::apply::runner::StepRunner> = Arc::clone(&world) as _;
    let outcome = runtime.block_on(execute(&plan, &approvals, runner, &journal, options, cancel.clone(), events));

    if world.lease.as_ref().is_some_and(Lease::lost) {
        eprintln!(
            "error: the lease was lost while the plan was carried out, so it was stopped; somebody unlocked it, or this machine stood still for over a minute"
        );
    }
    let ended_well = outcome.steps.iter().all(|(_, _, outcome)| outcome.is_success());
    if is_recovery && ended_well {
        resume::forget(&session.state).map_err(|error| Failure::caused(Exit::Unexpected, "the recovery", &error))?;
    }
    on_record(true);
    if let (Access::Reads, Some(lease)) = (access, &world.lease) {
        meter.keep(session, lease, &outcome);
    }
    // Looked at again, with the lease still held: what is printed at the end is what is there, not what was hoped for.
    let after = session.observe_beside(Timestamp::now(), Some(&own), &Request::Converge);
    note_repositories(&journal, &after);
    drop(world);
    let exit = finish(session, request, &after, &plan, Some(&outcome), consent, strict)?;
    Ok(Carried::of(exit, held.is_some()))
}

/// All that a word of approval may name: what the file declares, and what repositories hold of before.
fn names(session: &Session, observation: &Observation) -> BTreeSet<String> {
    let spec = &session.loaded.spec;
    let services = spec.services.keys().map(ToString::to_string);
    let places = spec.repositories.keys().map(ToString::to_string);
    let policies = spec.backup.keys().map(ToString::to_string);
    let runs = observation.present().flat_map(|(_, facts)| &facts.runs);
    let held = runs.flat_map(|run| {
        let expected = run.manifest.expected.iter().map(ToString::to_string);
        expected.chain([run.manifest.policy.whole().to_string()])
    });
    services.chain(places).chain(policies).chain(held).collect()
}

/// What a recovery has put back half-way must not be backed up as if it were the data.
fn refuse_amid_recovery(session: &Session) -> Result<(), Failure> {
    match session.interrupted_recovery() {
        None => Ok(()),
        Some(text) => Err(Failure::new(Exit::NotApproved, format!("nothing was done: {text}"))
            .hint("to go on with it: `devstack recover --resume`; to leave it: `devstack recover --afresh`")),
    }
}

pub(super) fn read_journal(session: &Session) -> Result<Contents, Failure> {
    Journal::read(&session.state).map_err(|error| Failure::caused(Exit::Unexpected, "reading the journal", &error))
}

/// Until it has come to its end, so that it can be gone on with.
fn remember_recovery(session: &Session, plan: &Plan) -> Result<(), Failure> {
    const DOING: &str = "keeping the plan of the recovery";
    let text = render::json(plan).map_err(|error| Failure::caused(Exit::Unexpected, DOING, &error))?;
    write_private(&resume::place(&session.state), text.as_bytes())
        .map_err(|error| Failure::caused(Exit::Unexpected, DOING, &error))
}

/// A server that replays its log is up within this, or somebody must look.
const STARTS: Duration = Duration::from_secs(60);

/// An apply that was killed may have left containers stopped, that it had stopped to read their data.
fn start_left_behind(session: &Session, cancel: &Cancel) -> Result<(), Failure> {
    let book = &session.ground.stopped;
    if book.is_empty() {
        return Ok(());
    }
    let failed = |error: RuntimeError| {
        Failure::caused(
            Exit::of(error.kind()),
            "starting the containers that an interrupted apply left stopped",
            &error,
        )
        .hint("start them by hand (`docker compose up -d`), then try again")
    };
    let docker = session.ground.containers.docker().map_err(failed)?;
    for container in book.start_left_behind(&docker).map_err(failed)? {
        eprintln!("note: started the container {}, which an interrupted apply had left stopped", container.name);
        // So that the look that follows finds a server and not its start. One that does not get well is seen by that look.
        drop(docker.wait_healthy(&container, STARTS, cancel));
    }
    Ok(())
}

/// A lease that could not be taken away is said so: the next apply would wait for it.
pub(super) fn release(lease: Lease) -> Result<(), Failure> {
    lease.release().map_err(|error| Failure::caused(Exit::Unexpected, "releasing the lease", &error))
}

fn refuse_stale(
    session: &Session,
    plan: &Plan,
    observation: &Observation,
    now: Timestamp,
    max_age: Span,
) -> Result<(), Failure> {
    let used: Vec<PlanId> = observation.present().flat_map(|(_, facts)| facts.used_plans.iter().cloned()).collect();
    let served = served_slots(observation, now);
    // What a plan made now would be made against.
    let lineage = session.plan(observation, &Request::Converge, now)?.lineage;
    let context = saved::SavedContext {
        spec_digest: &session.loaded.digest,
        stack: &session.loaded.spec.stack,
        lineage: &lineage,
        served: &served,
        used_plans: &used,
        now,
        max_age,
        devstack_version: env!("CARGO_PKG_VERSION"),
    };
    saved::refuse(plan, &context).map_err(|stale| Failure::caused(Exit::Stale, "the saved plan is stale", &stale))
}

fn served_slots(observation: &Observation, now: Timestamp) -> Vec<(PolicyName, Timestamp)> {
    let slots = observation.present().flat_map(|(_, facts)| &facts.runs).filter_map(|run| {
        let (policy, slot) = (&run.manifest.policy, run.manifest.slot?);
        run.serves(policy, slot, now).then(|| (policy.clone(), slot))
    });
    slots.collect()
}

/// What lies in `.devstack` is a cache: where it can't be written, that is said, and the work is done.
fn journal(session: &Session) -> Journal {
    Journal::open_with_room(&session.state).unwrap_or_else(|error| {
        eprintln!(
            "warning: {}. Going on without it: `devstack log` and time estimates will not know of this command, and a recovery \
             that is interrupted can't be gone on with",
            crate::model::chain(&error)
        );
        Journal::nowhere(&session.state)
    })
}

fn note_repositories(journal: &Journal, observation: &Observation) {
    for (name, facts) in observation.present() {
        if let Err(error) = journal.note_repository(name, &facts.id) {
            eprintln!("warning: repository {name} could not be noted in the journal: {}", crate::model::chain(&error));
        }
    }
}

/// Says what came of it, remembers the state for `status`, and gives the exit code.
fn finish(
    session: &Session,
    request: &Request,
    observation: &Observation,
    plan: &Plan,
    outcome: Option<&ApplyOutcome>,
    consent: &Consent,
    strict: bool,
) -> Result<Exit, Failure> {
    let now = observation.at;
    // With what this apply has measured.
    let history = Journal::history(&session.state).unwrap_or_else(|_| session.history.clone());
    let left = session.plan_with(&history, observation, &Request::Converge, now)?;
    status::remember(session, observation, &left, now);
    let standing = standing(request, plan, outcome, &left);
    match consent.format {
        TextOrJson::Text => {
            if let Some(outcome) = outcome {
                print!("{}", outcome::text(request, outcome, &left, &standing));
            }
        }
        TextOrJson::Json => println!("{}", outcome::json(plan, outcome, &left, &standing)),
    }
    if let Some(reason) = outcome.and_then(|outcome| outcome.unjournalled.as_ref()) {
        eprintln!("error: {reason}");
    }
    let exit = outcome.map_or(Exit::Done, |outcome| Exit::from_code(exit_code(outcome))).or_worse(session.unseen());
    let exit = exit.or_worse(with_missing(plan));
    // What was asked of the other verbs is one thing; how the whole stack stands is told by those that look at it.
    Ok(if *request == Request::Converge { exit.or_worse(session.judged(&standing, strict)) } else { exit })
}

/// A recovery leaves single files that are not there as they are, and says so: it is not the whole stack that is back.
pub(super) fn with_missing(plan: &Plan) -> Exit {
    if plan.report.missing.is_empty() { Exit::Done } else { Exit::Verification }
}

/// What came of it, and where the stack stands now.
fn standing(request: &Request, plan: &Plan, outcome: Option<&ApplyOutcome>, left: &Plan) -> Standing {
    let came = outcome.map(outcome::findings).unwrap_or_default();
    if *request != Request::Converge {
        let missing = plan.report.missing.iter().map(|it| Finding::new(Kind::Missing, &it.resource, &it.text));
        return Standing::of(came.into_iter().chain(missing));
    }
    let troubled_before: BTreeSet<&str> = plan.report.troubles().collect();
    // A source that was well before the work is not judged by a look just after it: a server that was stopped to be read may
    // still be starting.
    let is_starting = |it: &Finding| {
        matches!(it.kind, Kind::Lost | Kind::Renamed | Kind::Unknown)
            && outcome.is_some()
            && !troubled_before.contains(it.resource.as_str())
    };
    let stands = Standing::of_plan(left).findings().iter().filter(|it| !is_starting(it)).cloned().collect();
    Standing::of([came, stands].concat())
}
