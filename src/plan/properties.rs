//! The planner's invariants, held against worlds that nobody would think of.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use super::fixtures::*;
use super::retention::{Candidate, Standing, decide};

use crate::model::evidence::{DataRead, Verdict};
use crate::model::ids::{RepositoryName, RunId};
use crate::model::observation::{Marked, Observed, RepositoryFacts, RepositoryState, Run, SourceState};
use crate::model::retention::Rule;
use crate::model::run::RECORD_FORMAT;
use crate::model::step::{Action, Effect, Precondition};
use crate::model::units::{ByteSize, Span};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(20_261_124), ..ProptestConfig::default() }
}

fn rules() -> impl Strategy<Value = Rule> {
    let count = || prop::option::of(0..5_u32);
    let within = prop::option::of((0..80_u64).prop_map(Span::from_hours));
    (count(), count(), count(), count(), count(), count(), within).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within)| Rule {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        },
    )
}

/// How a run in a generated world came out.
#[derive(Debug, Clone)]
struct Past {
    hours: i64,
    kind: u8,
    policy: bool,
    everywhere: u8,
}

fn pasts() -> impl Strategy<Value = Vec<Past>> {
    let past = (-30..400_i64, 0..12_u8, any::<bool>(), 0..4_u8).prop_map(|(hours, kind, policy, everywhere)| Past {
        hours,
        kind,
        policy,
        everywhere,
    });
    vec(past, 0..14)
}

fn made(past: &Past, nth: usize) -> Run {
    let now = at(NOW).as_second();
    // No two of one second: the id of a run is made of it.
    let started = Timestamp::from_second(now - past.hours * 3_600 - nth as i64).unwrap();
    let of = if past.policy { "daily" } else { "files" };
    let run = run(of, started, if past.policy { &["shop"] } else { &["shop", "web"] });
    match past.kind {
        0 => unproven(run),
        1 => damaged(run),
        2 => incomplete(run),
        3 => suspect(run),
        4 => by_hand(run),
        _ => run,
    }
}

#[derive(Debug, Clone)]
struct Knobs {
    pasts: Vec<Past>,
    rule: Rule,
    approved: u8,
    local: u8,
    offsite: u8,
    sources: (u8, u8),
    unsealed: Vec<(bool, i64, bool)>,
    extra_keys: u8,
    marked: Option<i64>,
    reads: Vec<(i64, u8)>,
    locks: bool,
}

fn knobs() -> impl Strategy<Value = Knobs> {
    let unsealed = vec((any::<bool>(), 1..100_i64, any::<bool>()), 0..3);
    let reads = vec((-5..900_i64, any::<u8>()), 0..6);
    let first = (pasts(), rules(), 0..3_u8, 0..8_u8, 0..8_u8, (0..5_u8, 0..5_u8));
    let second = (unsealed, 0..4_u8, prop::option::of(0..80_i64), reads, prop::bool::weighted(0.1));
    (first, second).prop_map(
        |((pasts, rule, approved, local, offsite, sources), (unsealed, extra_keys, marked, reads, locks))| Knobs {
            pasts,
            rule,
            approved,
            local,
            offsite,
            sources,
            unsealed,
            extra_keys,
            marked,
            reads,
            locks,
        },
    )
}

fn world(knobs: &Knobs) -> World {
    let mut spec = two_places();
    spec["services"]["web"] = json!({ "source": { "files": { "paths": ["web"] } }, "after": ["shop"] });
    spec["backup"]["daily"]["services"] = json!(["shop"]);
    spec["backup"]["daily"]["verify"] = json!({ "data_every": "30d" });
    spec["backup"]["files"] =
        json!({ "services": "all", "to": ["offsite", "local"], "retention": { "last": 2, "daily": 2 } });
    let mut world = World::settled(spec);
    world.spec.backup.get_mut(&policy("daily")).unwrap().retention = Some(knobs.rule);
    for (nth, past) in knobs.pasts.iter().enumerate() {
        let run = made(past, nth);
        if past.everywhere != 1 {
            world = world.with_run("local", run.clone());
        }
        if past.everywhere != 2 {
            world = world.with_run("offsite", run);
        }
    }
    match knobs.approved {
        0 => world.approve_declared_rules(),
        1 => world.facts("local").approved_rules.clear(),
        _ => {}
    }
    for (nth, (here, hours, of)) in knobs.unsealed.iter().enumerate() {
        let started = Timestamp::from_second(at(NOW).as_second() - hours * 3_600 - 1_000 - nth as i64).unwrap();
        let run = unsealed(if *of { "daily" } else { "files" }, started, &["shop"]);
        world.facts(if *here { "local" } else { "offsite" }).unsealed.push(run);
    }
    let facts = world.facts("local");
    if knobs.extra_keys & 1 != 0 {
        facts.keys.push(observed_key("gpg gone@example.com"));
    }
    if knobs.extra_keys & 2 != 0 {
        facts.keys.retain(|key| key.label.as_deref() != Some("passphrase file key"));
    }
    facts.marked =
        knobs.marked.map(|hours| Marked { since: Span::from_hours(hours as u64).before(at(NOW)), bytes: ByteSize(7) });
    facts.restic_locks = usize::from(knobs.locks);
    facts.data_reads = knobs
        .reads
        .iter()
        .map(|(hours, part)| DataRead {
            format: RECORD_FORMAT,
            at: Timestamp::from_second(at(NOW).as_second() - hours * 3_600).unwrap(),
            took: Span::ZERO,
            read: ByteSize(1),
            parts: (0..=*part).collect(),
            verdict: Verdict::Passed,
            hurt: vec![],
            remembered: true,
        })
        .collect();
    for (name, state) in [("shop", knobs.sources.0), ("web", knobs.sources.1)] {
        match state {
            0 => world.source(name, SourceState::Empty),
            1 => drop(world.observation.services.insert(service(name), Observed::Unknown { reason: "?".into() })),
            _ => {}
        }
    }
    for (name, state) in [("local", knobs.local), ("offsite", knobs.offsite)] {
        let absent = |known_before| RepositoryState::Absent { ungenerated_keys: vec![0], known_before };
        match state {
            0 => world.lose_sight_of(name),
            1 => world.set(name, absent(None)),
            2 => world.set(name, absent(Some(empty_facts(&repository(name)).id))),
            _ => {}
        }
    }
    world
}

fn present(world: &World) -> impl Iterator<Item = (&RepositoryName, &RepositoryFacts)> {
    world.observation.repositories.iter().filter_map(|(name, state)| match state {
        Observed::Known(RepositoryState::Present(facts)) => Some((name, &**facts)),
        _ => None,
    })
}

/// The two newest verified runs of each policy in each repository, whatever their date.
fn precious(world: &World) -> BTreeSet<(RepositoryName, RunId)> {
    let mut precious = BTreeSet::new();
    for (name, facts) in present(world) {
        for of in ["daily", "files"] {
            let runs = facts.runs.iter().filter(|run| run.manifest.policy == policy(of) && run.is_verified());
            let mut runs: Vec<_> = runs.map(|run| (run.manifest.started, run.manifest.run.clone())).collect();
            runs.sort();
            precious.extend(runs.into_iter().rev().take(2).map(|(_, run)| (name.clone(), run)));
        }
    }
    precious
}

fn holds_all(world: &World, precious: &BTreeSet<(RepositoryName, RunId)>) -> bool {
    let there: BTreeSet<_> = present(world)
        .flat_map(|(name, facts)| facts.runs.iter().map(|run| (name.clone(), run.manifest.run.clone())))
        .collect();
    precious.is_subset(&there)
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn planning_again_after_a_complete_apply_gives_no_steps(knobs in knobs()) {
        let mut world = world(&knobs);
        let plan = world.plan();
        // Emptiness can't be taken in a world that stays empty: approved, it becomes the state that is backed up.
        world.apply(&plan);
        let again = world.plan();
        prop_assert!(again.is_empty(), "{:#?}\nafter\n{:#?}", short(&again), short(&plan));
    }

    #[test]
    fn interrupted_after_any_step_and_planned_again_it_converges_and_keeps_the_two_newest(
        knobs in knobs(),
        stops in vec((0..30_u32, any::<u64>()), 1..5),
    ) {
        let mut world = world(&knobs);
        for (last, failing) in stops {
            let plan = world.plan();
            let before = precious(&world);
            world.apply_some(&plan, |step| failing >> (step.id.0 % 64) & 1 == 0 || failing % 2 == 0, last);
            // Nothing that was among the two newest is gone unless two newer ones are there: and then it may be.
            let after = precious(&world);
            for (name, facts) in present(&world) {
                for of in ["daily", "files"] {
                    let of = policy(of);
                    let count = |set: &BTreeSet<(RepositoryName, RunId)>| {
                        set.iter().filter(|(it, run)| it == name && run.as_str().ends_with(of.as_str())).count()
                    };
                    prop_assert!(count(&after) >= count(&before), "{name} {of}");
                }
                let lost: Vec<_> = before.iter().filter(|(it, run)| {
                    it == name && !facts.runs.iter().any(|there| there.manifest.run == *run)
                }).collect();
                for (_, lost) in lost {
                    let newer = after.iter().filter(|(it, run)| it == name && run > lost).count();
                    prop_assert!(newer >= 2, "{lost} went from {name}");
                }
            }
            world.now = Span::from_secs(61).after(world.now);
        }
        let plan = world.plan();
        world.apply(&plan);
        let again = world.plan();
        prop_assert!(again.is_empty(), "{:#?}\nafter\n{:#?}", short(&again), short(&plan));
    }

    #[test]
    fn nothing_that_deletes_or_overwrites_rests_on_an_unknown(knobs in knobs()) {
        let mut world = world(&knobs);
        world.lose_sight_of("offsite");
        let plan = world.plan();
        let known: BTreeSet<_> = present(&world).map(|(name, facts)| (name.clone(), facts.id.clone())).collect();
        for step in plan.steps.iter().filter(|step| step.effect >= Effect::OverwritesData) {
            let on = step.action.writes().cloned();
            prop_assert!(known.iter().any(|(name, _)| Some(name) == on.as_ref()), "{step:?}");
            let guarded = step.preconditions.iter().any(|given| {
                matches!(given, Precondition::RepositoryIs { repository, id } if known.contains(&(repository.clone(), id.clone())))
            });
            prop_assert!(guarded, "{step:?}");
        }
        prop_assert!(plan.report.unknown.iter().any(|note| note.resource == "repository/offsite"));
    }

    #[test]
    fn the_order_in_which_facts_are_listed_changes_nothing(knobs in knobs(), seed in any::<u64>()) {
        let world = world(&knobs);
        let mut other = world.clone();
        for state in other.observation.repositories.values_mut() {
            if let Observed::Known(RepositoryState::Present(facts)) = state {
                let turn = |length: usize| if length == 0 { 0 } else { seed as usize % length };
                let by = turn(facts.runs.len());
                facts.runs.rotate_left(by);
                let by = turn(facts.unsealed.len());
                facts.unsealed.rotate_left(by);
                facts.keys.reverse();
                facts.data_reads.reverse();
            }
        }
        prop_assert_eq!(world.plan(), other.plan());
        prop_assert_eq!(world.plan().id, world.plan().id);
    }

    #[test]
    fn a_forget_is_never_of_a_run_among_the_two_newest_verified(knobs in knobs()) {
        let mut world = world(&knobs);
        let plan = world.plan();
        let before = precious(&world);
        // Only the forgetting, as if all the takes before it had failed but somebody ran it all the same.
        for step in &plan.steps {
            if let Action::Forget { repository, runs, .. } = &step.action {
                world.facts(repository.as_str()).runs.retain(|run| !runs.contains(&run.manifest.run));
            }
        }
        let takes = plan.steps.iter().any(|step| matches!(step.action, Action::Seal { .. } | Action::Copy { .. } | Action::Prove { .. }));
        prop_assert!(takes || holds_all(&world, &before));
    }
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        4 => Just(Standing::Verified),
        1 => Just(Standing::Unproven),
        1 => Just(Standing::Damaged),
        1 => Just(Standing::Incomplete),
    ]
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn the_last_two_verified_complete_runs_survive_every_rule(
        rule in rules(),
        runs in vec((-100_000..4_000_000_i64, standings(), prop::bool::weighted(0.05), prop::bool::weighted(0.05)), 0..40),
    ) {
        let now = at(NOW);
        let runs: Vec<Candidate> = runs.into_iter().enumerate().map(|(nth, (ago, standing, suspect, undeclared))| Candidate {
            run: RunId::new(format!("{nth:03}")),
            started: Timestamp::from_second(now.as_second() - ago).unwrap(),
            standing, suspect, undeclared, serving: false,
        }).collect();
        let verdicts = decide(&runs, &rule, now, &TimeZone::UTC);
        let mut verified: Vec<_> = runs.iter().zip(&verdicts).filter(|(run, _)| run.standing == Standing::Verified).collect();
        verified.sort_by_key(|(run, _)| (run.started, run.run.clone()));
        for (run, (_, verdict)) in verified.iter().rev().take(2) {
            prop_assert!(verdict.is_keep(), "{run:?} {verdict:?}");
        }
        // Nor is the newest pair of today lost to runs that a wrong clock has dated ahead of it.
        for (run, (_, verdict)) in verified.iter().rev().filter(|(run, _)| run.started <= now).take(2) {
            prop_assert!(verdict.is_keep(), "{run:?} {verdict:?}");
        }
        for (run, (_, verdict)) in runs.iter().zip(&verdicts) {
            let newer = verified.iter().filter(|(it, _)| it.started >= run.started && it.run != run.run).count();
            prop_assert!(verdict.is_keep() || (run.started <= now && newer >= 2), "{run:?}");
        }
        // What stays is kept again: forgetting settles in one go.
        let stay: Vec<Candidate> = runs.iter().zip(&verdicts).filter(|(_, (_, it))| it.is_keep()).map(|(run, _)| run.clone()).collect();
        prop_assert!(decide(&stay, &rule, now, &TimeZone::UTC).iter().all(|(_, verdict)| verdict.is_keep()));
    }
}
