//! A run of a policy: taken service by service, then sealed by its manifest, and copied to where else it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use jiff::Timestamp;

use super::world::{World, engine_error, now, repository_error};
use crate::apply::runner::{StepContext, StepError};
use crate::engines::{Ground, TakeRequest, Work, idle_excludes, own_left_out};
use crate::model::chain;
use crate::model::compose::{Bound, ComposeModel, Seen};
use crate::model::ids::{PolicyName, RepositoryName, RunId, ServiceName, SnapshotId};
use crate::model::observation::{ContainerState, Health, Observed, SourceState};
use crate::model::origin::Origin;
use crate::model::outcome::{Done, FailureKind, StepOutcome};
use crate::model::record::{Adopted, Record, RuleApproved, ShrinkAccepted};
use crate::model::resolved;
use crate::model::retention::Rule;
use crate::model::run::{Manifest, RECORD_FORMAT, Sealed, ServiceResult, Shrink, Taken};
use crate::model::shrink;
use crate::model::step::{Action, Approval, Step, Take};
use crate::model::units::ByteSize;
use crate::repository::Tags;
use crate::runtime::KeptCompose;
use crate::spec::file::{Shrinking, Source};

pub(super) fn take(world: &World, step: &Step, take: &Take, context: &StepContext<'_>) -> Result<Done, StepError> {
    world.check_lease(&take.repository)?;
    let store = world.store(&take.repository)?;
    if world.ground.containers.compose().is_some() {
        // Before this take, or one beside it, stops anything.
        world.before();
    }
    let tags = Tags {
        stack: world.spec.stack.clone(),
        run: take.run.clone(),
        service: take.service.clone(),
        policy: take.policy.clone(),
    };
    // The only word that a take is ever held for: it runs now, so it was given.
    let allow_empty = matches!(step.approval, Approval::Needed { .. }) || take.may_be_empty;
    let request = TakeRequest { store: &store, tags, at: now(), parent: take.parent.clone(), allow_empty };
    let progress = |bytes| context.progress(bytes);
    let work = Work { cancel: &context.cancel, progress: &progress, rooms: &world.rooms };
    let engine = world.engine(&take.service)?;
    let mut taken = engine.take(request, &work).map_err(engine_error)?;
    taken.tree = Some(store.tree_of(&taken.snapshot).map_err(repository_error)?);
    taken.empty = allow_empty && engine.observe() == Observed::Known(SourceState::Empty);
    taken.suspect = shrunk(world, take, &taken)?;
    world.forget_facts(&take.repository);

    let mut advice: Vec<String> = taken.notes.iter().map(|note| format!("warning: {}: {note}", take.service)).collect();
    for pattern in idle_excludes(world.source(&take.service)?, &world.ground) {
        advice.push(format!(
            "warning: {}: no path matches the exclude `{pattern}`, so it leaves nothing out",
            take.service
        ));
    }
    if take.parent.is_none() {
        advice.extend(without_own(&world.ground, &take.service, world.source(&take.service)?));
    }
    if let Some(shrink) = &taken.suspect {
        advice.push(format!(
            "{0}: {shrink}. Older runs are kept and restored from until somebody looks; if that is right: `devstack apply --approve accept:{0}`.",
            take.service
        ));
    }
    Ok(Done {
        bytes: taken.bytes(),
        added: taken.added,
        summary: format!("{}, {} new", taken.bytes(), taken.added),
        advice,
        taken: Some(Box::new(taken)),
        ..Done::default()
    })
}

/// Said once, with the first run: what is devstack's own is no data of the stack, and a key would lie in what it opens.
fn without_own(ground: &Ground, service: &ServiceName, source: &Source) -> Option<String> {
    let own = own_left_out(source, ground);
    let shown = |path: &PathBuf| path.strip_prefix(&ground.base).unwrap_or(path).display().to_string();
    let shown: Vec<String> = own.iter().map(shown).collect();
    let what = "devstack's own folder, its repositories and the key files that open them";
    (!shown.is_empty()).then(|| format!("{service}: {} left out: {what} are not taken with a folder", shown.join(", ")))
}

/// What it lacks of the run that it is compared with.
fn shrunk(world: &World, take: &Take, after: &Taken) -> Result<Option<Shrink>, StepError> {
    let Some(before) = &take.compared else { return Ok(None) };
    // One that was forgotten meanwhile says nothing more.
    let facts = world.facts(&take.repository)?;
    let before = facts.runs.iter().find(|run| run.manifest.run == *before).map(|run| &run.manifest);
    let Some(before) = before.and_then(|manifest| manifest.taken_of(&take.service)) else { return Ok(None) };
    let declared = world.spec.services.get(&take.service).and_then(|service| service.shrinking.as_ref());
    let limits = declared.map(Shrinking::limits).unwrap_or_default();
    let volatile = declared.map(Shrinking::volatile).transpose();
    let volatile = volatile.map_err(|error| StepError::new(FailureKind::Permanent, error))?.unwrap_or_default();
    Ok(shrink::of(before, after, limits, &volatile))
}

/// Writes the manifest of what the takes came to, failures included: a run that failed is on record as incomplete.
pub(super) fn seal(world: &World, step: &Step, context: &StepContext<'_>) -> Result<Done, StepError> {
    let Action::Seal { repository, run, policy, slot, expected, parent, base } = &step.action else {
        return Err(StepError::new(FailureKind::Permanent, "seal was given another step; this is a fault in devstack"));
    };
    let takes = takes_before(world, step, context);
    if takes.values().all(|outcome| matches!(outcome, StepOutcome::AlreadyDone { .. })) && !takes.is_empty() {
        return Ok(Done { summary: "another apply has served this slot".to_owned(), ..Done::default() });
    }
    if takes.values().all(|outcome| matches!(outcome, StepOutcome::Held { .. })) && !takes.is_empty() {
        return Ok(Done { summary: "nothing was taken, so there is nothing to seal".to_owned(), ..Done::default() });
    }
    let services: BTreeMap<ServiceName, ServiceResult> = expected
        .iter()
        .map(|service| {
            let result = match takes.get(service) {
                Some(StepOutcome::Done(Done { taken: Some(taken), .. })) => ServiceResult::Taken((**taken).clone()),
                Some(outcome) => ServiceResult::Failed { reason: reason(outcome) },
                None => ServiceResult::Failed { reason: "not taken".to_owned() },
            };
            (service.clone(), result)
        })
        .collect();
    let started = services
        .values()
        .filter_map(|result| match result {
            ServiceResult::Taken(taken) => Some(taken.started),
            ServiceResult::Failed { .. } => None,
        })
        .min()
        .unwrap_or(world.plan.now);
    let manifest = Manifest {
        format: RECORD_FORMAT,
        stack: world.spec.stack.clone(),
        run: run.clone(),
        policy: policy.clone(),
        slot: *slot,
        // Never later than the plan's own time, which the schedule is reckoned from.
        started: started.min(world.plan.now),
        finished: now(),
        expected: expected.clone(),
        services,
        parent: parent.clone(),
        base: base.clone(),
        spec_digest: world.spec_digest(),
        devstack_version: env!("CARGO_PKG_VERSION").to_owned(),
        sealed: Sealed::ByItsApply,
        compose: None,
        origin: world.origin.clone(),
        unprotected: Some(world.plan.report.unprotected.clone()),
        hooks: world.hooks_of(run),
    };
    let summary = summary(&manifest);
    let advice = write_manifest_with_compose(world, repository, manifest)?;
    Ok(Done { summary, advice, ..Done::default() })
}

/// With what an empty machine needs before anything else: this file, the Compose files, and what Compose makes of them.
fn write_manifest_with_compose(
    world: &World,
    repository: &RepositoryName,
    mut manifest: Manifest,
) -> Result<Vec<String>, StepError> {
    let mut attachments = vec![("devstack.yaml".to_owned(), world.spec_text.clone().into_bytes())];
    let mut advice = Vec::new();
    if let Some(compose) = world.ground.containers.compose() {
        match compose.kept() {
            Ok(KeptCompose { mut model, resolved, files }) => {
                see(&mut model, world.before());
                model.binds = bound(&resolved);
                manifest.compose = Some(model);
                attachments.extend(files);
            }
            Err(error) => advice.push(format!(
                "the Compose files are not kept with run {}, so `recover` on an empty machine needs them from elsewhere: {}",
                manifest.run,
                chain(&error)
            )),
        }
    }
    write_manifest(world, repository, manifest, &attachments)?;
    Ok(advice)
}

/// How the containers were: a recovery starts no profile that was not in use, and waits for no health check that was red.
fn see(model: &mut ComposeModel, before: &[ContainerState]) {
    for (name, service) in &mut model.services {
        let of = before.iter().filter(|it| it.compose_service() == Some(name));
        let unhealthy = of.clone().any(|it| it.running && it.health == Health::Unhealthy);
        service.seen = Some(Seen { containers: of.count(), unhealthy });
    }
}

/// What stands at the paths that containers bind. Of an engine elsewhere it is another machine's, and nothing is known of it.
fn bound(resolved: &serde_json::Value) -> BTreeMap<PathBuf, Bound> {
    let paths = resolved::paths(resolved).into_values().flatten().map(|needed| needed.path);
    let known = paths.filter_map(|path| {
        let metadata = std::fs::metadata(&path).ok()?;
        let folder = Bound::Folder { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() };
        Some((path, if metadata.is_dir() { folder } else { Bound::File }))
    });
    known.collect()
}

pub(super) fn write_manifest(
    world: &World,
    repository: &RepositoryName,
    manifest: Manifest,
    attachments: &[(String, Vec<u8>)],
) -> Result<(), StepError> {
    let attachments: Vec<_> = attachments.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    world.record(repository, &Record::Manifest(Box::new(manifest)), &attachments)
}

fn summary(manifest: &Manifest) -> String {
    let missing: Vec<String> = manifest.missing().map(|(service, _)| service.to_string()).collect();
    if missing.is_empty() {
        format!("complete, {}", manifest.bytes())
    } else {
        format!("INCOMPLETE, without {}", missing.join(", "))
    }
}

fn reason(outcome: &StepOutcome) -> String {
    match outcome {
        StepOutcome::Done(_) => "taken without an account of it".to_owned(),
        StepOutcome::AlreadyDone { reason } | StepOutcome::Failed { reason, .. } => reason.clone(),
        StepOutcome::Held { token } => format!("held: not approved ({token})"),
        StepOutcome::Skipped { because } => format!("skipped, because step {because} did not succeed"),
        StepOutcome::Interrupted => "interrupted".to_owned(),
    }
}

/// The outcomes of the takes that the step waits for, by service.
fn takes_before(world: &World, step: &Step, context: &StepContext<'_>) -> BTreeMap<ServiceName, StepOutcome> {
    step.waits
        .iter()
        .filter_map(|wait| {
            let Action::Take(take) = &world.plan.step(wait.step)?.action else { return None };
            Some((take.service.clone(), context.outcome(wait.step)?.clone()))
        })
        .collect()
}

/// The manifest of a run whose own apply never wrote one: incomplete for good, with what was found of it.
pub(super) fn seal_interrupted(
    world: &World,
    repository: &RepositoryName,
    run: &RunId,
    policy: &PolicyName,
    snapshots: &[(SnapshotId, ServiceName, Timestamp)],
) -> Result<Done, StepError> {
    let started = snapshots.iter().map(|(_, _, at)| *at).min().unwrap_or(world.plan.now);
    let reason = "its apply was interrupted before the run was sealed";
    let services = snapshots
        .iter()
        .map(|(snapshot, service, _)| {
            let reason = format!("{reason}; snapshot {} holds what was taken", snapshot.short());
            (service.clone(), ServiceResult::Failed { reason })
        })
        .collect::<BTreeMap<_, _>>();
    let declared = world.spec.backup.get(policy).map(|policy| world.spec.services_of(policy)).unwrap_or_default();
    let expected: BTreeSet<ServiceName> = services.keys().cloned().chain(declared).collect();
    let manifest = Manifest {
        format: RECORD_FORMAT,
        stack: world.spec.stack.clone(),
        run: run.clone(),
        policy: policy.clone(),
        slot: None,
        started,
        finished: now(),
        expected: expected.into_iter().collect(),
        services,
        parent: None,
        base: run.clone(),
        spec_digest: world.spec_digest(),
        devstack_version: env!("CARGO_PKG_VERSION").to_owned(),
        sealed: Sealed::AfterInterruption,
        compose: None,
        origin: world.origin.clone(),
        unprotected: None,
        hooks: Vec::new(),
    };
    let text = [("devstack.yaml".to_owned(), world.spec_text.clone().into_bytes())];
    write_manifest(world, repository, manifest, &text)?;
    Ok(Done { summary: format!("incomplete, {} snapshots of it found", snapshots.len()), ..Done::default() })
}

/// Copies a complete run, chunk by chunk, and writes its manifest in the other repository with the ids it has there.
pub(super) fn copy(
    world: &World,
    run: &RunId,
    from: &RepositoryName,
    to: &RepositoryName,
    context: &StepContext<'_>,
) -> Result<Done, StepError> {
    world.check_lease(to)?;
    let held = world.run(from, run)?;
    if !held.is_complete() {
        return Err(StepError::new(
            FailureKind::NeedsReplan,
            format!("run {run} in {from} is not complete and is not copied"),
        ));
    }
    if world.facts(to)?.runs.iter().any(|known| known.manifest.run == *run) {
        return Ok(Done { summary: "there already".to_owned(), ..Done::default() });
    }
    let (source, target) = (world.store(from)?, world.store(to)?);
    let mut manifest = held.manifest.clone();
    let mut added = ByteSize(0);
    for (_, taken) in manifest.services.iter_mut().filter_map(taken_mut) {
        let copied = source.copy_to(&target, &taken.snapshot, &context.cancel).map_err(repository_error)?;
        taken.snapshot = copied.snapshot;
        taken.added = copied.added;
        added = added + copied.added;
    }
    let bytes = manifest.bytes();
    let known = world.facts(to)?;
    manifest.parent = manifest.parent.filter(|parent| known.runs.iter().any(|known| known.manifest.run == *parent));
    if manifest.parent.is_none() {
        manifest.base = run.clone();
    }
    manifest.finished = now();
    manifest.sealed = Sealed::ByCopy;
    let attachments = source.reader().and_then(|reader| reader.attachments(&held.record)).map_err(repository_error)?;
    write_manifest(world, to, manifest, &attachments)?;
    Ok(Done { bytes, added, summary: format!("{bytes}, {added} new"), ..Done::default() })
}

fn taken_mut<'a>(
    (service, result): (&'a ServiceName, &'a mut ServiceResult),
) -> Option<(&'a ServiceName, &'a mut Taken)> {
    match result {
        ServiceResult::Taken(taken) => Some((service, taken)),
        ServiceResult::Failed { .. } => None,
    }
}

/// The stack has its place here from now on. What was planned at another place is not said of this one.
pub(super) fn adopt(
    world: &World,
    repository: &RepositoryName,
    origin: &Origin,
    from: &[Origin],
) -> Result<Done, StepError> {
    if !world.origin.as_ref().is_some_and(|here| here.is_same(origin)) {
        let text = format!("the plan was made at {origin}, and this is another place; run `devstack plan` here");
        return Err(StepError::new(FailureKind::NeedsReplan, text));
    }
    let number = world.facts(repository)?.adopted.iter().map(|known| known.number).max().unwrap_or(0) + 1;
    let (origin, from, at) = (origin.clone(), from.to_vec(), world.plan.now);
    let summary = format!("the stack has its place at {origin} now");
    let adopted = Adopted { format: RECORD_FORMAT, number, origin, from, at };
    world.record(repository, &Record::Adopted(Box::new(adopted)), &[])?;
    world.next_generation(repository)?;
    Ok(Done { summary, ..Done::default() })
}

pub(super) fn approve_rule(
    world: &World,
    repository: &RepositoryName,
    policy: &PolicyName,
    rule: Rule,
) -> Result<Done, StepError> {
    let approved = RuleApproved { format: RECORD_FORMAT, policy: policy.clone(), rule, at: world.plan.now };
    world.record(repository, &Record::RuleApproved(approved), &[])?;
    world.next_generation(repository)?;
    let lines: Vec<String> = rule
        .fields()
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}")))
        .collect();
    Ok(Done { summary: lines.join(", "), ..Done::default() })
}

pub(super) fn accept_shrink(
    world: &World,
    repository: &RepositoryName,
    run: &RunId,
    service: &ServiceName,
) -> Result<Done, StepError> {
    let mark = ShrinkAccepted { format: RECORD_FORMAT, run: run.clone(), service: service.clone(), at: world.plan.now };
    world.record(repository, &Record::ShrinkAccepted(mark), &[])?;
    Ok(Done { summary: format!("{service} in run {run}"), ..Done::default() })
}
