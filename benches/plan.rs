//! How long planning takes, and how it grows: a file of 1,000 services and one of 10,000, each backed up once before and
//! due again. `cargo bench --bench plan`. Planning only: no repository is read here.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use devstack::model::evidence::{Level, Proof, Verdict};
use devstack::model::history::History;
use devstack::model::ids::{Digest, RepositoryId, RunId, SnapshotId};
use devstack::model::observation::{Observation, Observed, RepositoryFacts, RepositoryState, Run, SourceState};
use devstack::model::run::{Artifact, ArtifactKind, Manifest, RECORD_FORMAT, Sealed, ServiceResult, Taken};
use devstack::model::units::{ByteSize, Span};
use devstack::plan::{Request, plan};
use devstack::spec::file::Spec;
use devstack::spec::read;
use jiff::Timestamp;

fn main() -> Result<(), Box<dyn Error>> {
    let small = measure(1_000)?;
    let large = measure(10_000)?;
    println!("| services | reading and checking the file | planning | both |\n|---|---|---|---|");
    for (services, times) in [("1,000", &small), ("10,000", &large)] {
        let [read, planned] = times.map(|time| time.as_secs_f64());
        println!("| {services} | {read:.3} s | {planned:.3} s | {:.3} s |", read + planned);
    }
    let ratio = |of: fn(&[Duration; 2]) -> Duration| of(&large).as_secs_f64() / of(&small).as_secs_f64();
    println!(
        "ten times the services: {:.1} times the time for both, {:.1} times for planning alone",
        ratio(|[read, planned]| *read + *planned),
        ratio(|[_, planned]| *planned)
    );
    Ok(())
}

/// Medians of five: from the text to a checked file, and from there to a plan.
fn measure(services: usize) -> Result<[Duration; 2], Box<dyn Error>> {
    let text = file(services);
    let now: Timestamp = "2026-11-23T12:00:00Z".parse()?;
    let (mut read_times, mut plan_times) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let since = Instant::now();
        let loaded = read::parse("bench.yaml", text.as_bytes(), Path::new("/srv"))
            .map_err(|rejected| format!("{} diagnostics", rejected.diagnostics.len()))?;
        read_times.push(since.elapsed());
        let observation = observation(&loaded.spec, now)?;
        let since = Instant::now();
        let made = plan(&loaded.spec, &loaded.digest, &observation, &History::default(), now, &Request::Converge)?;
        plan_times.push(since.elapsed());
        assert!(made.steps.len() > services, "every service is due");
    }
    read_times.sort();
    plan_times.sort();
    Ok([read_times[2], plan_times[2]])
}

fn file(services: usize) -> String {
    let mut text = String::from("version: 1\nstack: bench\nservices:\n");
    for number in 0..services {
        let after = if number % 10 == 0 { String::new() } else { format!(", after: [s{}]", number - number % 10) };
        let _ = writeln!(text, "  s{number}: {{ source: {{ sqlite: {{ path: s{number}.db }} }}{after} }}");
    }
    text.push_str(
        "repositories:\n  local: { path: /srv/backups, keys: [ { passphrase: { env: BENCH } } ] }\n\
         backup:\n  all:\n    services: all\n    schedule: { cron: \"0 */6 * * *\" }\n    to: [local]\n    retention: { last: 3 }\n\
         recovery: { rpo: 24h, rto: 30m }\n",
    );
    text
}

fn observation(spec: &Spec, now: Timestamp) -> Result<Observation, Box<dyn Error>> {
    let started: Timestamp = "2026-11-22T12:00:00Z".parse()?;
    let id = RunId::new("20261122T120000Z-all");
    let digest = Digest::of("bench");
    let taken = |name: &str| Taken {
        snapshot: SnapshotId::new(Digest::of(name).as_str()),
        tree: None,
        engine: "sqlite".to_owned(),
        engine_version: "3".to_owned(),
        artifacts: vec![Artifact {
            name: "/s.db".to_owned(),
            kind: ArtifactKind::Stream,
            bytes: ByteSize::mib(10),
            sha256: digest.clone(),
            counts: Default::default(),
        }],
        started,
        took: Span::from_secs(1),
        added: ByteSize::mib(1),
        suspect: None,
        empty: false,
        image: None,
        certificates: Vec::new(),
        notes: Vec::new(),
    };
    let manifest = Manifest {
        format: RECORD_FORMAT,
        stack: spec.stack.clone(),
        run: id.clone(),
        policy: "all".parse()?,
        slot: Some(started),
        started,
        finished: started,
        expected: spec.services.keys().cloned().collect(),
        services: spec.services.keys().map(|name| (name.clone(), ServiceResult::Taken(taken(name.as_str())))).collect(),
        parent: None,
        base: id.clone(),
        spec_digest: digest.clone(),
        devstack_version: "0".to_owned(),
        sealed: Sealed::ByItsApply,
        compose: None,
        origin: None,
        unprotected: None,
        hooks: vec![],
    };
    let proof = Proof {
        format: RECORD_FORMAT,
        run: id,
        at: started,
        took: Span::from_secs(1),
        read: ByteSize::mib(10),
        levels: Level::PROOF.into_iter().map(|level| (level, Verdict::Passed)).collect(),
        services: Default::default(),
        snapshots: Vec::new(),
        notes: Vec::new(),
    };
    let facts = RepositoryFacts {
        id: RepositoryId::new(digest.as_str()),
        keys: Vec::new(),
        opened_with: None,
        runs: vec![Run {
            manifest,
            record: SnapshotId::new(digest.as_str()),
            proofs: vec![proof],
            lost: Vec::new(),
            hurt: Vec::new(),
        }],
        unsealed: Vec::new(),
        approved_rules: Default::default(),
        accepted_shrinks: Vec::new(),
        used_plans: Vec::new(),
        generation: None,
        adopted: Vec::new(),
        approvals: Vec::new(),
        others: Vec::new(),
        data_reads: Vec::new(),
        damage: Vec::new(),
        removed: Vec::new(),
        drills: Vec::new(),
        recoveries: Vec::new(),
        oldest: Some(started),
        size: ByteSize::mib(100),
        marked: None,
        leases: Vec::new(),
        restic_locks: 0,
        lock_holders: Vec::new(),
    };
    let data = SourceState::HasData { bytes: Some(ByteSize::mib(10)) };
    Ok(Observation {
        idle_excludes: Default::default(),
        missing: BTreeMap::new(),
        gone: BTreeMap::new(),
        misplaced: BTreeMap::new(),
        room: BTreeMap::new(),
        at: now,
        took: Span::ZERO,
        origin: None,
        carried: Default::default(),
        shut: Default::default(),
        unwritable: Default::default(),
        services: spec.services.keys().map(|name| (name.clone(), Observed::Known(data))).collect(),
        holding: BTreeMap::new(),
        engine: None,
        projects: None,
        left_stopped: Vec::new(),
        unfinished_recovery: None,
        login: None,
        compose: None,
        stack: None,
        up: None,
        containers: BTreeMap::new(),
        certificates: BTreeMap::new(),
        repositories: [("local".parse()?, Observed::Known(RepositoryState::Present(Box::new(facts))))].into(),
    })
}
