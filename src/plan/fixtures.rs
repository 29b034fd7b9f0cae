//! A small world to plan for: a stack, two repositories, runs as they come.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{PlanError, Request, plan};
use crate::model::evidence::{Level, Proof, Verdict};
use crate::model::history::History;
use crate::model::ids::{
    Digest, KeyId, PolicyName, RepositoryId, RepositoryName, RunId, ServiceName, SnapshotId, StackName,
};
use crate::model::observation::{
    LeaseFact, Observation, Observed, ObservedKey, RepositoryFacts, RepositoryState, Run, SourceState, UnsealedRun,
};
use crate::model::plan::Plan;
use crate::model::retention::Rule;
use crate::model::run::{Artifact, ArtifactKind, Manifest, RECORD_FORMAT, Sealed, ServiceResult, Shrink, Taken};
use crate::model::step::{Action, Step};
use crate::model::units::{ByteSize, Span};
use crate::spec::file::Spec;

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn policy(name: &str) -> PolicyName {
    PolicyName::new(name)
}

pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name)
}

pub fn repository(name: &str) -> RepositoryName {
    RepositoryName::new(name)
}

/// A Tuesday; the slots of the day are 02:15 and 14:15 in Berlin, 01:15 and 13:15 in UTC.
pub const NOW: &str = "2026-11-24T11:00:00Z";
/// The slot before `NOW`.
pub const SLOT: &str = "2026-11-24T01:15:00Z";

#[derive(Clone)]
pub struct World {
    pub spec: Spec,
    pub observation: Observation,
    pub history: History,
    pub now: Timestamp,
}

/// One service `shop`, one repository `local` with one passphrase, one policy `daily` with a rule.
pub fn small() -> Value {
    json!({
        "version": 1, "stack": "shop",
        "services": { "shop": { "source": { "sqlite": { "path": "shop.db" } } } },
        "repositories": { "local": { "path": "./backups", "keys": [
            { "passphrase": { "file": "key", "generate": true } } ] } },
        "backup": { "daily": { "services": "all",
            "schedule": { "cron": "15 2,14 * * *", "timezone": "Europe/Berlin" },
            "to": ["local"], "retention": { "last": 3 } } }
    })
}

/// `small` with a second repository `offsite`, which gets copies.
pub fn two_places() -> Value {
    let mut spec = small();
    spec["repositories"]["offsite"] =
        json!({ "path": "./offsite", "keys": [ { "passphrase": { "env": "OFFSITE" } } ] });
    spec["backup"]["daily"]["to"] = json!(["local", "offsite"]);
    spec
}

/// `small` with these services.
pub fn with_services(names: &[&str]) -> Value {
    let mut spec = small();
    for name in names {
        spec["services"][*name] = json!({ "source": { "files": { "paths": [*name] } } });
    }
    spec
}

impl World {
    /// Repositories absent, every source with data.
    pub fn new(spec: Value) -> Self {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let absent = || RepositoryState::Absent { ungenerated_keys: vec![], known_before: None };
        let has_data = Observed::Known(SourceState::HasData { bytes: Some(ByteSize::mib(100)) });
        Self {
            observation: Observation {
                at: at(NOW),
                took: Span::from_millis(1_200),
                origin: None,
                carried: Default::default(),
                shut: Default::default(),
                unwritable: Default::default(),
                holding: Default::default(),
                services: spec.services.keys().map(|name| (name.clone(), has_data.clone())).collect(),
                engine: None,
                projects: None,
                left_stopped: Vec::new(),
                unfinished_recovery: None,
                login: None,
                compose: None,
                stack: None,
                up: None,
                idle_excludes: BTreeMap::new(),
                misplaced: BTreeMap::new(),
                missing: BTreeMap::new(),
                gone: BTreeMap::new(),
                room: BTreeMap::new(),
                containers: BTreeMap::new(),
                certificates: BTreeMap::new(),
                repositories: spec.repositories.keys().map(|name| (name.clone(), Observed::Known(absent()))).collect(),
            },
            spec,
            history: History::default(),
            now: at(NOW),
        }
    }

    /// Repositories present with their declared keys, the declared rules approved, no runs.
    pub fn settled(spec: Value) -> Self {
        let mut world = Self::new(spec);
        for (name, declared) in &world.spec.repositories.clone() {
            let approved = world.spec.backup.iter().filter(|(_, policy)| policy.to.contains(name));
            let mut facts = empty_facts(name);
            facts.keys = declared.keys.iter().map(|key| observed_key(&key.label())).collect();
            facts.opened_with = facts.keys.first().map(|key| key.id.clone());
            facts.approved_rules =
                approved.filter_map(|(policy, declared)| Some((policy.clone(), declared.retention?))).collect();
            world.set(name.as_str(), RepositoryState::Present(Box::new(facts)));
        }
        world
    }

    pub fn set(&mut self, name: &str, state: RepositoryState) {
        self.observation.repositories.insert(repository(name), Observed::Known(state));
    }

    pub fn lose_sight_of(&mut self, name: &str) {
        let reason = "the disk does not answer".to_owned();
        self.observation.repositories.insert(repository(name), Observed::Unknown { reason });
    }

    pub fn source(&mut self, name: &str, state: SourceState) {
        self.observation.services.insert(service(name), Observed::Known(state));
    }

    pub fn facts(&mut self, name: &str) -> &mut RepositoryFacts {
        match self.observation.repositories.get_mut(&repository(name)).unwrap() {
            Observed::Known(RepositoryState::Present(facts)) => facts,
            other => panic!("{name} is not present: {other:?}"),
        }
    }

    pub fn with_run(mut self, name: &str, run: Run) -> Self {
        let facts = self.facts(name);
        facts.oldest = Some(facts.oldest.unwrap_or(run.manifest.started).min(run.manifest.started));
        facts.runs.push(run);
        self
    }

    /// Verified runs of `daily` in `local`, one every `hours` back from the slot, oldest first; the newest serves the slot.
    pub fn with_history(mut self, count: u64, hours: u64) -> Self {
        for back in (0..count).rev() {
            let slot = Span::from_hours(back * hours).before(at(SLOT));
            self = self.with_run("local", run("daily", slot, &["shop"]));
        }
        self
    }

    pub fn rule(&mut self, rule: Value) {
        self.spec.backup.get_mut(&policy("daily")).unwrap().retention = Some(serde_json::from_value(rule).unwrap());
    }

    pub fn approve_declared_rules(&mut self) {
        let rules: BTreeMap<PolicyName, Rule> =
            self.spec.backup.iter().filter_map(|(name, policy)| Some((name.clone(), policy.retention?))).collect();
        for state in self.observation.repositories.values_mut() {
            if let Observed::Known(RepositoryState::Present(facts)) = state {
                facts.approved_rules = rules.clone();
            }
        }
    }

    pub fn ask(&self, request: &Request) -> Result<Plan, PlanError> {
        plan(&self.spec, &self.spec.digest(), &self.observation, &self.history, self.now, request)
    }

    pub fn plan(&self) -> Plan {
        self.ask(&Request::Converge).unwrap()
    }
}

pub fn empty_facts(name: &RepositoryName) -> RepositoryFacts {
    RepositoryFacts {
        id: RepositoryId::new(Digest::of(name.as_str()).as_str()),
        keys: vec![],
        opened_with: None,
        runs: vec![],
        unsealed: vec![],
        approved_rules: BTreeMap::new(),
        accepted_shrinks: vec![],
        used_plans: vec![],
        generation: None,
        adopted: vec![],
        others: vec![],
        approvals: vec![],
        data_reads: vec![],
        damage: vec![],
        removed: vec![],
        drills: vec![],
        recoveries: vec![],
        oldest: None,
        size: ByteSize::mib(512),
        marked: None,
        leases: vec![],
        restic_locks: 0,
        lock_holders: vec![],
    }
}

pub fn observed_key(label: &str) -> ObservedKey {
    ObservedKey { id: KeyId::new(Digest::of(label).as_str()), label: Some(label.to_owned()), sidecar: true }
}

pub fn taken(bytes: ByteSize, started: Timestamp, tag: &str) -> Taken {
    Taken {
        snapshot: SnapshotId::new(Digest::of(tag).as_str()),
        tree: None,
        engine: "sqlite".into(),
        engine_version: "3.50".into(),
        artifacts: vec![Artifact {
            name: "/data".into(),
            kind: ArtifactKind::Stream,
            bytes,
            sha256: Digest::of(tag),
            counts: BTreeMap::new(),
        }],
        started,
        took: Span::from_secs(3),
        added: ByteSize(bytes.0 / 10),
        suspect: None,
        empty: false,
        image: None,
        certificates: Vec::new(),
        notes: Vec::new(),
    }
}

pub fn proof(run: &RunId, at: Timestamp, services: &[ServiceName], verdict: &Verdict) -> Proof {
    Proof {
        format: RECORD_FORMAT,
        run: run.clone(),
        at,
        took: Span::from_secs(5),
        read: ByteSize::mib(100),
        levels: Level::PROOF.iter().map(|level| (*level, verdict.clone())).collect(),
        services: services.iter().map(|name| (name.clone(), Span::from_secs(4))).collect(),
        snapshots: vec![],
        notes: vec![],
    }
}

/// A complete and verified run that serves the slot of its start.
pub fn run(of: &str, started: Timestamp, services: &[&str]) -> Run {
    let id = RunId::at(started, &policy(of));
    let names: Vec<ServiceName> = services.iter().map(|name| service(name)).collect();
    let results = names
        .iter()
        .map(|name| (name.clone(), ServiceResult::Taken(taken(ByteSize::mib(100), started, &format!("{id}/{name}")))));
    Run {
        manifest: Manifest {
            format: RECORD_FORMAT,
            stack: StackName::new("shop"),
            run: id.clone(),
            policy: policy(of),
            slot: Some(started),
            started,
            finished: Span::from_secs(10).after(started),
            expected: names.clone(),
            services: results.collect(),
            parent: None,
            base: id.clone(),
            spec_digest: Digest::of("spec"),
            devstack_version: "0.1.0".into(),
            sealed: Sealed::ByItsApply,
            compose: None,
            origin: None,
            unprotected: None,
            hooks: vec![],
        },
        record: SnapshotId::new(Digest::of(id.as_str()).as_str()),
        proofs: vec![proof(&id, Span::from_secs(20).after(started), &names, &Verdict::Passed)],
        lost: vec![],
        hurt: vec![],
    }
}

pub fn unproven(mut run: Run) -> Run {
    run.proofs.clear();
    run
}

pub fn damaged(mut run: Run) -> Run {
    let names: Vec<ServiceName> = run.manifest.expected.clone();
    let failed = Verdict::Failed(vec!["a byte is wrong".into()]);
    run.proofs.push(proof(&run.manifest.run, run.manifest.finished, &names, &failed));
    run
}

pub fn incomplete(mut run: Run) -> Run {
    for result in run.manifest.services.values_mut() {
        *result = ServiceResult::Failed { reason: "the file is gone".into() };
    }
    run.proofs.clear();
    run
}

pub fn by_hand(mut run: Run) -> Run {
    run.manifest.slot = None;
    run
}

pub fn suspect(mut run: Run) -> Run {
    for result in run.manifest.services.values_mut() {
        if let ServiceResult::Taken(taken) = result {
            taken.suspect = Some(Shrink { from: ByteSize::mib(400), to: ByteSize::mib(100), things: vec![] });
        }
    }
    run
}

pub fn unsealed(of: &str, started: Timestamp, services: &[&str]) -> UnsealedRun {
    let run = RunId::at(started, &policy(of));
    let snapshot = |name: &&str| (SnapshotId::new(Digest::of(format!("{run}{name}")).as_str()), service(name), started);
    UnsealedRun { policy: policy(of), snapshots: services.iter().map(snapshot).collect(), run }
}

pub fn lease(stack: &str, alive: bool) -> LeaseFact {
    LeaseFact {
        id: crate::model::ids::LeaseId::new("77fe"),
        stack: StackName::new(stack),
        owner: "ops@host pid 4711".into(),
        expires: at(NOW),
        alive,
    }
}

/// The steps in short: `take shop/backup`.
pub fn short(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{} {}", step.action.verb(), step.action.resource())).collect()
}

pub fn find<'p>(plan: &'p Plan, verb: &str) -> Vec<&'p Step> {
    plan.steps.iter().filter(|step| step.action.verb() == verb).collect()
}

pub fn only<'p>(plan: &'p Plan, verb: &str) -> &'p Step {
    match find(plan, verb).as_slice() {
        [step] => step,
        other => panic!("{} steps {verb:?} in {:#?}", other.len(), short(plan)),
    }
}

pub fn forgotten(plan: &Plan) -> Vec<RunId> {
    let runs = |step: &Step| match &step.action {
        Action::Forget { runs, .. } => runs.clone(),
        _ => vec![],
    };
    plan.steps.iter().flat_map(runs).collect()
}
