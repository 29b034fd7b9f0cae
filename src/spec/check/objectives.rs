//! Objectives: a schedule must be able to keep the RPO that the file promises.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::file::{Schedule, Spec};
use super::super::node::Place;
use super::{Findings, backup};
use crate::model::ids::{PolicyName, ServiceName};
use crate::model::units::Span;

/// A year with both of its clock changes and some days more, from a fixed start: the same file gets the same answer on
/// every day.
const WATCHED_DAYS: u32 = 400;
/// 2026-01-01T00:00:00Z.
const WATCHED_FROM: i64 = 1_767_225_600;

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let Some(recovery) = &spec.recovery else { return };
    let place = Place::of(["recovery"]);
    zero(&place, recovery.rpo, recovery.rto, findings);
    if let Some(drill) = &recovery.drill {
        backup::timing(&drill.schedule, &place.clone().key("drill").key("schedule"), findings);
    }
    for (name, objective) in &recovery.services {
        let at = place.key("services").key(name.as_str());
        if !spec.services.contains_key(name) {
            findings.unknown(
                &at.clone().itself(),
                "service",
                name.as_str(),
                spec.services.keys().map(|name| name.as_str()),
            );
        }
        zero(&at, objective.rpo, objective.rto, findings);
        if objective.rpo.is_none() && objective.rto.is_none() {
            let help = "write `rpo` or `rto` below it, or remove it: the stack's objectives hold for every service";
            findings.warning(&at.clone().itself(), format!("`{at}` says nothing"), "no objective", help);
        }
        if let (Some(own), Some(whole)) = (objective.rto, recovery.rto)
            && own > whole
        {
            let message = format!("`{name}` may take {own} to come back, and the whole stack only {whole}");
            findings.warning(
                &at.key("rto"),
                message,
                "longer than the stack's",
                "give the stack more time, or the service less",
            );
        }
    }
    rpo(spec, findings);
}

fn zero(place: &Place, rpo: Option<Span>, rto: Option<Span>, findings: &mut Findings<'_>) {
    for (name, value) in [("rpo", rpo), ("rto", rto)] {
        if value.is_some_and(Span::is_zero) {
            let at = place.key(name);
            let help = "write how much time is allowed, such as 24h; or remove it to promise nothing";
            findings.error(&at, format!("`{at}` is zero, which nothing can keep"), "zero", help);
        }
    }
}

fn rpo(spec: &Spec, findings: &mut Findings<'_>) {
    let start = Timestamp::from_second(WATCHED_FROM).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut gaps: BTreeMap<&PolicyName, Span> = BTreeMap::new();
    let mut served: BTreeMap<ServiceName, (&PolicyName, Span)> = BTreeMap::new();
    let mut unreadable: BTreeSet<ServiceName> = BTreeSet::new();
    // Most policies share a few schedules.
    let mut known: BTreeMap<(&str, Option<&str>), Option<Span>> = BTreeMap::new();
    for (name, policy) in &spec.backup {
        let Some(schedule) = &policy.schedule else { continue };
        // A schedule that cannot be read has its own finding.
        let gap = *known
            .entry((&schedule.cron, schedule.timezone.as_deref()))
            .or_insert_with(|| schedule.slots().ok().and_then(|slots| slots.largest_gap(start, WATCHED_DAYS)));
        for service in spec.services_of(policy) {
            match gap {
                None => {
                    unreadable.insert(service);
                }
                // A service is as safe as its most frequent policy makes it.
                Some(gap) if served.get(&service).is_none_or(|(_, best)| gap < *best) => {
                    served.insert(service, (name, gap));
                    gaps.insert(name, gap);
                }
                Some(_) => {}
            }
        }
    }
    let mut missed: BTreeMap<(&PolicyName, Span), Vec<&str>> = BTreeMap::new();
    let mut unscheduled: Vec<&str> = Vec::new();
    for name in spec.services.keys().filter(|name| !unreadable.contains(*name)) {
        let Some(rpo) = spec.rpo_of(name).filter(|rpo| !rpo.is_zero()) else { continue };
        match served.get(name) {
            None => unscheduled.push(name.as_str()),
            Some((policy, gap)) if *gap >= rpo => missed.entry((policy, rpo)).or_default().push(name.as_str()),
            Some(_) => {}
        }
    }
    for ((policy, rpo), services) in missed {
        let Some(schedule) = &spec.backup[policy].schedule else { continue };
        let at = Place::of(["backup", policy.as_str(), "schedule", "cron"]);
        let gap = gaps[policy];
        let message = format!("the schedule of `{policy}` can never keep an RPO of {rpo} for {}", few(&services));
        let label = format!("up to {gap} between two runs");
        let why = if gap == rpo { ", since a run takes time itself" } else { "" };
        let help = match often_enough(schedule, rpo, start) {
            Some(cron) => {
                format!("two runs must be less than {rpo} apart{why}: write \"{cron}\", or allow a longer `rpo`")
            }
            None => {
                format!("two runs must be less than {rpo} apart{why}; no schedule runs so often: allow a longer `rpo`")
            }
        };
        findings.error(&at, message, &label, help);
        let own = services.first().map(|name| Place::of(["recovery", "services", name, "rpo"]));
        let own = own.filter(|_| services.first().is_some_and(|name| has_own_rpo(spec, name)));
        findings.see(&own.unwrap_or_else(|| Place::of(["recovery", "rpo"])), &format!("{rpo} promised here"));
    }
    if !unscheduled.is_empty() && !backup::is_unfinished(spec) {
        let first = unscheduled[0];
        let place = match has_own_rpo(spec, first) {
            true => Place::of(["recovery", "services", first, "rpo"]),
            false => Place::of(["recovery", "rpo"]),
        };
        let message = format!("nothing keeps the RPO of {}: no policy backs it up on a schedule", few(&unscheduled));
        findings.warning(&place, message, "promised here", "write a `schedule` in a policy that names it");
    }
}

fn has_own_rpo(spec: &Spec, service: &str) -> bool {
    let own = spec.recovery.as_ref().and_then(|recovery| recovery.services.get(&ServiceName::new(service)));
    own.is_some_and(|objective| objective.rpo.is_some())
}

/// The rarest of some usual schedules that keeps `rpo`, at the minute and in the zone of the one that does not.
fn often_enough(schedule: &Schedule, rpo: Span, start: Timestamp) -> Option<String> {
    let minute: u32 = schedule.cron.split_whitespace().next().and_then(|minute| minute.parse().ok()).unwrap_or(0);
    let daily = ["2", "2,14", "*/6", "*/3", "*"].map(|hours| format!("{minute} {hours} * * *"));
    let hourly = ["*/30", "*/15", "*/5", "*"].map(|minutes| format!("{minutes} * * * *"));
    daily.into_iter().chain(hourly).find(|cron| {
        let schedule = Schedule { cron: cron.clone(), timezone: schedule.timezone.clone() };
        let gap = schedule.slots().ok().and_then(|slots| slots.largest_gap(start, WATCHED_DAYS));
        gap.is_some_and(|gap| gap < rpo)
    })
}

/// `a`, `b` and 7 others.
fn few(names: &[&str]) -> String {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names {
        [first, second, rest @ ..] if rest.len() > 1 => {
            format!("{} and {} others", quoted(&[first, second]), rest.len())
        }
        all => quoted(all),
    }
}
