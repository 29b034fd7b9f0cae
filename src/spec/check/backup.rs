//! Policies: which services, when, where to, and what stays.

use std::collections::BTreeSet;

use super::super::file::{Policy, Schedule, Services, Spec};
use super::super::nearest::nearest;
use super::super::node::Place;
use super::super::schedule::{ScheduleError, zone_names};
use super::super::structure::did_you_mean;
use super::Findings;
use crate::model::ids::{PolicyName, ServiceName};
use crate::model::units::Span;

/// Reading every byte more often than daily costs more than it tells.
const SHORTEST_DATA_ROUND: Span = Span::from_days(1);

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    for (name, policy) in &spec.backup {
        let place = Place::of(["backup", name.as_str()]);
        if name.is_safety() || name.as_str().starts_with("safety-") {
            findings.error(
                &place,
                format!("a policy can't be called `{name}`"),
                "a name of devstack's own",
                "give it another name: under this one stands what was there before a restore",
            );
        }
        services(spec, name, policy, &place.key("services"), findings);
        to(spec, name, policy, &place.key("to"), findings);
        if let Some(schedule) = &policy.schedule {
            timing(schedule, &place.key("schedule"), findings);
            if policy.manual {
                findings.error(
                    &place.key("manual"),
                    format!("`{name}` has a schedule, and is `manual`"),
                    "one of the two",
                    "remove `manual`: a policy with a schedule can be taken by hand as well, by `devstack backup`",
                );
            }
        }
        if policy.retention.is_some_and(|rule| rule.keeps_nothing()) {
            findings.error(
                &place.key("retention"),
                format!("the retention of `{name}` keeps nothing"),
                "every run may go",
                "write how many runs stay, such as { last: 3, daily: 7, weekly: 4 }, or remove `retention` to keep all",
            );
        }
        let every = policy.verify.as_ref().map(|verify| verify.data_every);
        if let Some(every) = every.filter(|every| *every < SHORTEST_DATA_ROUND) {
            let at = place.key("verify").key("data_every");
            findings.error(
                &at,
                format!("`{at}` is {every}, and the shortest is one day"),
                "too short",
                "write how long one reading of every byte may take, such as 30d",
            );
        }
    }
    if !is_unfinished(spec) {
        unserved(spec, findings);
    }
}

/// A policy names what does not exist, or nothing. What else then seems to be missing is most likely meant by it, and saying
/// so would bury the cause.
pub(super) fn is_unfinished(spec: &Spec) -> bool {
    let no_such_service = |policy: &Policy| match &policy.services {
        Services::All => false,
        Services::Named(names) => names.is_empty() || names.iter().any(|name| !spec.services.contains_key(name)),
    };
    let no_such_repository =
        |policy: &Policy| policy.to.is_empty() || policy.to.iter().any(|name| !spec.repositories.contains_key(name));
    spec.backup.is_empty() || spec.backup.values().any(|policy| no_such_service(policy) || no_such_repository(policy))
}

fn services(spec: &Spec, name: &PolicyName, policy: &Policy, place: &Place, findings: &mut Findings<'_>) {
    let Services::Named(names) = &policy.services else { return };
    if names.is_empty() {
        let help = "write `all`, or the names of services";
        findings.error(place, format!("the policy `{name}` backs up nothing"), "no service in it", help);
    }
    for (index, service) in names.iter().enumerate().filter(|(_, service)| !spec.services.contains_key(*service)) {
        findings.unknown(
            &place.index(index),
            "service",
            service.as_str(),
            spec.services.keys().map(|name| name.as_str()),
        );
    }
    findings.doubles(place, names);
}

fn to(spec: &Spec, name: &PolicyName, policy: &Policy, place: &Place, findings: &mut Findings<'_>) {
    if policy.to.is_empty() {
        let help = "name a repository that the file declares";
        findings.error(place, format!("the policy `{name}` writes nowhere"), "no repository in it", help);
    }
    for (index, repository) in policy.to.iter().enumerate().filter(|(_, name)| !spec.repositories.contains_key(*name)) {
        let known = spec.repositories.keys().map(|name| name.as_str());
        findings.unknown(&place.index(index), "repository", repository.as_str(), known);
    }
    findings.doubles(place, &policy.to);
}

pub(super) fn timing(schedule: &Schedule, place: &Place, findings: &mut Findings<'_>) {
    let Err(error) = schedule.slots() else { return };
    let cron = place.key("cron");
    match &error {
        ScheduleError::Fields { .. } => {
            let help = "for example \"15 2,14 * * *\": twice a day, at 02:15 and 14:15";
            findings.error(&cron, error.to_string(), "not five fields", help);
        }
        ScheduleError::Cron { instead, .. } => {
            let order =
                "minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-7; for example \"15 2,14 * * *\"";
            findings.error(&cron, error.to_string(), "cannot be read", instead.as_deref().unwrap_or(order));
        }
        ScheduleError::Never { .. } => {
            let help = "look at the day of month and the month: there is no 30 February";
            findings.error(&cron, error.to_string(), "never due", help);
        }
        ScheduleError::TimeZone { name } => {
            let zones = zone_names();
            let city = |zone: &&String| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(name));
            let meant = zones.iter().find(city).map(String::as_str);
            let help = did_you_mean(
                meant.or_else(|| nearest(name, zones.iter().map(String::as_str))),
                "write a name from the IANA database, such as Europe/Berlin or UTC",
            );
            findings.error(&place.key("timezone"), error.to_string(), "not a time zone", help);
        }
    }
}

/// Policies that run once, and then never again by themselves.
pub(super) fn unscheduled(spec: &Spec, findings: &mut Findings<'_>) {
    let open = spec.unscheduled();
    for (name, policy) in spec.backup.iter().filter(|(_, policy)| policy.schedule.is_none()) {
        let services: Vec<ServiceName> = spec.services_of(policy).into_iter().filter(|it| open.contains(it)).collect();
        let Some(first) = services.first() else { continue };
        let others = if services.len() == 1 { String::new() } else { format!(" and {} others", services.len() - 1) };
        findings.warning(
            &Place::of(["backup", name.as_str()]).itself(),
            format!("nothing takes `{first}`{others} again: `{name}` has no schedule"),
            "runs once",
            "write a `schedule`, such as { cron: \"15 2 * * *\" }; or `manual: true` where somebody takes it by hand",
        );
    }
}

/// Services that no policy names: declared, and never backed up.
fn unserved(spec: &Spec, findings: &mut Findings<'_>) {
    let served: BTreeSet<ServiceName> = spec.backup.values().flat_map(|policy| spec.services_of(policy)).collect();
    for name in spec.services.keys().filter(|name| !served.contains(*name)) {
        findings.warning(
            &Place::of(["services", name.as_str()]).itself(),
            format!("the service `{name}` is never backed up: no policy names it"),
            "in no policy",
            "name it in a policy's `services`, or write `services: all` there",
        );
    }
}
