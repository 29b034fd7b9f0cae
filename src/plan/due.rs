//! Which policies are due, and how that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::projection::{Place, Projected};
use super::request::PlanError;
use super::{Planner, projection::State};
use crate::model::ids::{PolicyName, RepositoryName, ServiceName};
use crate::model::plan::Note;
use crate::model::units::Span;
use crate::spec::file::{Policy, Spec};
use crate::spec::schedule::{Slots, time_zone};

/// More missed slots than this are counted, not listed.
const LISTED_SLOTS: usize = 3;
/// More missed slots than this are not even counted: "more than 99" says it.
const COUNTED_SLOTS: usize = 99;

/// The schedules of all policies, each read once.
pub(super) struct Calendar {
    slots: BTreeMap<PolicyName, Rc<Slots>>,
    zones: BTreeMap<PolicyName, TimeZone>,
}

impl Calendar {
    pub(super) fn read(spec: &Spec) -> Result<Self, PlanError> {
        let mut calendar = Self { slots: BTreeMap::new(), zones: BTreeMap::new() };
        // A thousand policies with one schedule cost one reading.
        let mut seen: BTreeMap<(&str, &str), (Rc<Slots>, TimeZone)> = BTreeMap::new();
        for (name, policy) in &spec.backup {
            let Some(schedule) = &policy.schedule else { continue };
            let zone_name = schedule.timezone.as_deref().unwrap_or("UTC");
            let key = (schedule.cron.as_str(), zone_name);
            let (slots, zone) = match seen.get(&key) {
                Some(found) => found.clone(),
                None => {
                    let slots =
                        schedule.slots().map_err(|source| PlanError::Schedule { policy: name.clone(), source })?;
                    // `slots` has just found this very zone.
                    let fresh = (Rc::new(slots), time_zone(zone_name).unwrap_or(TimeZone::UTC));
                    seen.insert(key, fresh.clone());
                    fresh
                }
            };
            calendar.slots.insert(name.clone(), slots);
            calendar.zones.insert(name.clone(), zone);
        }
        Ok(calendar)
    }

    pub(super) fn slots(&self, policy: &PolicyName) -> Option<&Slots> {
        self.slots.get(policy).map(Rc::as_ref)
    }

    /// The zone that a policy's days and weeks are reckoned in.
    pub(super) fn zone(&self, policy: &PolicyName) -> TimeZone {
        self.zones.get(policy).cloned().unwrap_or(TimeZone::UTC)
    }
}

/// A run that is to be taken.
pub(super) struct Intent {
    pub slot: Option<Timestamp>,
    pub cause: String,
    pub full: bool,
    /// Only these services; all of the policy where nothing is said.
    pub only: Option<Vec<ServiceName>>,
    /// The repository that the services are read into; the others of `to` get copies.
    pub primary: RepositoryName,
}

pub(super) type Intents = BTreeMap<PolicyName, Intent>;

/// Why a policy is due, and for which slot.
struct Due {
    slot: Option<Timestamp>,
    cause: String,
}

impl<'a> Planner<'a> {
    /// The runs that the schedules ask for.
    pub(super) fn due_runs(&mut self) -> Intents {
        let spec = self.spec;
        let due: Vec<_> =
            spec.backup.iter().filter_map(|(name, policy)| Some((name, self.due(name, policy)?))).collect();
        let mut intents = Intents::new();
        for (name, Due { slot, cause }) in due {
            match self.primary(&spec.backup[name]) {
                Some(primary) => {
                    drop(intents.insert(name.clone(), Intent { slot, cause, full: false, only: None, primary }))
                }
                None => self.no_primary(name),
            }
        }
        intents
    }

    /// The runs that somebody asks for, whether due or not.
    pub(super) fn asked_runs(
        &mut self,
        policies: &[PolicyName],
        services: &[ServiceName],
        full: bool,
    ) -> Result<Intents, PlanError> {
        let spec = self.spec;
        if let Some(policy) = policies.iter().find(|name| !spec.backup.contains_key(name)) {
            return Err(PlanError::NoSuchPolicy { policy: policy.clone() });
        }
        if let Some(service) = services.iter().find(|name| !spec.services.contains_key(name)) {
            return Err(PlanError::NoSuchService { service: service.clone() });
        }
        let mut left: BTreeSet<&ServiceName> = services.iter().collect();
        let mut intents = Intents::new();
        for (name, policy) in spec.backup.iter().filter(|(name, _)| policies.is_empty() || policies.contains(name)) {
            let all = spec.services_of(policy);
            left.retain(|service| !all.contains(service));
            let named: Vec<ServiceName> = all.iter().filter(|service| services.contains(service)).cloned().collect();
            let only = match (services, named.len()) {
                ([], _) => None,
                (_, 0) => continue,
                (_, some) => (some < all.len()).then_some(named),
            };
            // A run by hand serves the slot that is open, so that the next apply does not take it again; unless it lacks something.
            let slot = self.due(name, policy).and_then(|due| due.slot).filter(|_| only.is_none());
            let cause = if full { "asked for, in full" } else { "asked for" }.to_owned();
            match self.primary(policy) {
                Some(primary) => drop(intents.insert(name.clone(), Intent { slot, cause, full, only, primary })),
                None => self.no_primary(name),
            }
        }
        match left.first() {
            None => Ok(intents),
            Some(service) if policies.is_empty() => Err(PlanError::NotBackedUp { service: (*service).clone() }),
            Some(service) => Err(PlanError::NotOfPolicies { service: (*service).clone(), policies: policies.to_vec() }),
        }
    }

    fn no_primary(&mut self, policy: &PolicyName) {
        let to: Vec<_> = self.spec.backup[policy].to.iter().map(RepositoryName::as_str).collect();
        let text = format!("due, but none of its repositories is known: {}", to.join(", "));
        self.report.waiting.push(Note::new(format!("{policy}/backup"), text));
    }

    /// The first repository of `to` that can be written to at once; one whose creation is held only if there is no other.
    fn primary(&self, policy: &Policy) -> Option<RepositoryName> {
        let known = || policy.to.iter().filter_map(|name| Some((name, self.places.known.get(name)?)));
        let usable = |(name, place): &(&RepositoryName, &Place)| match place.state {
            State::Present(_) => true,
            State::Absent { .. } => super::keys::first_operable(&self.spec.repositories[*name].keys).is_some(),
        };
        let at_once = known().find(|entry| usable(entry) && !entry.1.is_doubtful());
        at_once.or_else(|| known().find(usable)).map(|(name, _)| name.clone())
    }

    /// Every known run of a policy in the repositories that it writes to. One of another place protects nothing of this one.
    pub(super) fn runs_in_its_repositories(&self, name: &PolicyName) -> impl Iterator<Item = &Projected<'a>> {
        let places = self.spec.backup[name].to.iter().filter_map(|to| self.places.known.get(to));
        places.flat_map(|place| place.runs_of(name).iter()).filter(|run| !run.foreign)
    }

    /// The last slot is newer than the newest slot that a complete run carries. A run or slot dated in the future comes
    /// from a clock that was wrong, and must not stop today's backup.
    fn due(&self, name: &PolicyName, policy: &Policy) -> Option<Due> {
        let now = self.now;
        let complete = || self.runs_in_its_repositories(name).filter(|run| run.is_complete() && run.started <= now);
        let last_run = complete().map(|run| run.started).max();
        let served = complete().filter_map(|run| run.slot).filter(|slot| *slot <= now).max();
        let slots = self.calendar.slots(name);
        let slot = slots.and_then(|slots| slots.last_at_or_before(now));
        let Some(last_run) = last_run else {
            let tried = self.runs_in_its_repositories(name).next().is_some();
            let cause = if tried { "no complete run yet" } else { "never taken" }.to_owned();
            return Some(Due { slot, cause });
        };
        let slot = slot.filter(|slot| served.is_none_or(|served| *slot > served));
        // What was put into the file since is as unprotected as on the first day, and does not wait for the next slot.
        let never: Vec<_> = self.spec.services_of(policy).into_iter().filter(|it| !self.was_taken(name, it)).collect();
        if !never.is_empty() {
            let names: Vec<&str> = never.iter().map(ServiceName::as_str).collect();
            return Some(Due { slot, cause: format!("{} never taken", names.join(", ")) });
        }
        let slot = slot?;
        debug_assert!(policy.schedule.is_some());
        let missed = self.missed(name, slots?, slot, served.unwrap_or(last_run));
        let cause = format!("last run {} old, {missed}", Span::between(last_run, now));
        Some(Due { slot: Some(slot), cause })
    }

    fn was_taken(&self, policy: &PolicyName, service: &ServiceName) -> bool {
        let took = |run: &Projected<'_>| run.seen.is_some_and(|run| run.manifest.taken_of(service).is_some());
        self.runs_in_its_repositories(policy).any(|run| run.is_complete() && took(run))
    }

    /// `slot 02:15 missed`, `slots 02:15 and 14:15 missed`, `12 slots missed`: in the schedule's own zone.
    fn missed(&self, policy: &PolicyName, slots: &Slots, last: Timestamp, served: Timestamp) -> String {
        let earlier = |slot: &Timestamp| slots.last_at_or_before(Span::from_millis(1).before(*slot));
        let missed: Vec<_> = std::iter::successors(Some(last), earlier)
            .take_while(|slot| *slot > served || *slot == last)
            .take(COUNTED_SLOTS + 1)
            .collect();
        if missed.len() > COUNTED_SLOTS {
            return format!("more than {COUNTED_SLOTS} slots missed");
        }
        if missed.len() > LISTED_SLOTS {
            return format!("{} slots missed", missed.len());
        }
        let zone = self.calendar.zone(policy);
        let today = zone.to_datetime(self.now).date();
        let texts: Vec<String> = missed
            .iter()
            .rev()
            .map(|slot| {
                let local = zone.to_datetime(*slot);
                let format = if local.date() == today { "%H:%M" } else { "%a %H:%M" };
                local.strftime(format).to_string()
            })
            .collect();
        match texts.as_slice() {
            [one] => format!("slot {one} missed"),
            [init @ .., last] => format!("slots {} and {last} missed", init.join(", ")),
            [] => "slot missed".to_owned(),
        }
    }
}
