//! The last drill, and whether the next one is due.

use jiff::Timestamp;

use crate::model::drill::Drill;
use crate::model::observation::{Observation, Observed};
use crate::model::plan::{DrillReport, LastDrill};
use crate::spec::file::Spec;

/// What is known of drills; none for a stack that has no containers to bring back and declares no drills.
pub fn report(spec: &Spec, observation: &Observation, now: Timestamp) -> Option<DrillReport> {
    let drills = || observation.present().flat_map(|(_, facts)| &facts.drills);
    let newest = |whole: bool| {
        drills().filter(move |drill| drill.at <= now && drill.as_scheduled == whole).max_by_key(|drill| drill.at)
    };
    // One of chosen services says nothing of the others: it hides no other that was of all, unless it has failed since.
    let last: Option<&Drill> = match (newest(true), newest(false)) {
        (Some(whole), Some(part)) if part.passed() || part.at < whole.at => Some(whole),
        (whole, part) => part.or(whole),
    };
    let schedule = spec.recovery.as_ref().and_then(|recovery| recovery.drill.as_ref()).map(|drill| &drill.schedule);
    // A schedule that can't be read is told of by the check of the file.
    let slots = schedule.and_then(|schedule| schedule.slots().ok());
    let slot = slots.as_ref().and_then(|slots| slots.last_at_or_before(now));
    let unseen = observation.repositories.values().any(|state| matches!(state, Observed::Unknown { .. }));
    let can_be_drilled = observation.present().any(|(_, facts)| facts.runs.iter().any(|run| run.is_verified()));
    let served = drills().filter(|drill| drill.as_scheduled && drill.at <= now).max_by_key(|drill| drill.at);
    let is_open = match served {
        Some(last) => slot.is_some_and(|slot| last.at < slot),
        // The record of one may lie where nobody could look.
        None => slots.is_some() && !unseen,
    };
    let is_compose = spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref()).is_some_and(|docker| {
        // Without Compose files there is no model that a drill could be made of.
        !docker.compose.is_empty()
    });
    if last.is_none() && schedule.is_none() && !is_compose {
        return None;
    }
    Some(DrillReport {
        last: last.map(|drill| LastDrill {
            id: drill.id.clone(),
            at: drill.at,
            took: drill.took,
            rto: drill.rto,
            partial: drill.partial,
            without: drill.without.iter().map(|note| note.resource.clone()).collect(),
            verdict: drill.verdict.clone(),
        }),
        due: is_open && can_be_drilled,
        next: slots.and_then(|slots| slots.next_after(now)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::evidence::Verdict;
    use crate::model::run::RECORD_FORMAT;
    use crate::model::units::Span;
    use crate::plan::fixtures::{NOW, World, at, repository, run, small};

    fn drill(at: Timestamp, verdict: Verdict) -> Drill {
        Drill {
            format: RECORD_FORMAT,
            id: "drill-1".to_owned(),
            at,
            took: Span::from_secs(130),
            services: vec![],
            steps: vec![],
            measured: vec![],
            verdict,
            rto: None,
            left_out: vec![],
            without: vec![],
            unprotected: vec![],
            partial: false,
            as_scheduled: true,
            escrow: false,
            devstack_version: String::new(),
        }
    }

    fn scheduled() -> World {
        let mut spec = small();
        spec["recovery"]["drill"] = json!({ "schedule": { "cron": "0 4 * * 1" } });
        World::settled(spec).with_run("local", run("daily", Span::from_hours(3).before(at(NOW)), &["shop"]))
    }

    fn asked(world: &World, drills: &[Drill]) -> DrillReport {
        let mut observation = world.observation.clone();
        for state in observation.repositories.values_mut() {
            if let Observed::Known(crate::model::observation::RepositoryState::Present(facts)) = state {
                facts.drills = drills.to_vec();
            }
        }
        report(&world.spec, &observation, at(NOW)).unwrap()
    }

    #[test]
    fn a_drill_is_due_once_for_each_slot_whatever_came_of_it() {
        let world = scheduled();
        assert!(asked(&world, &[]).due, "never drilled");
        let slot = world.spec.recovery.as_ref().unwrap().drill.as_ref().unwrap().schedule.slots().unwrap();
        let slot = slot.last_at_or_before(at(NOW)).unwrap();
        let before = drill(Span::from_secs(1).before(slot), Verdict::Passed);
        assert!(asked(&world, std::slice::from_ref(&before)).due);
        let chosen = Drill { as_scheduled: false, ..drill(slot, Verdict::Passed) };
        assert!(asked(&world, &[before.clone(), chosen]).due, "one of chosen services serves no slot");
        let failed = drill(slot, Verdict::Failed(vec!["x".to_owned()]));
        let after = asked(&world, &[before, failed]);
        assert!(!after.due && after.next.is_some_and(|next| next > at(NOW)));
        assert_eq!(after.last.unwrap().verdict, Verdict::Failed(vec!["x".to_owned()]));
    }

    #[test]
    fn a_drill_of_chosen_services_hides_none_of_all_unless_it_failed() {
        let world = scheduled();
        let at = |seconds| Span::from_secs(seconds).before(at(NOW));
        let failed = || Verdict::Failed(vec!["x".to_owned()]);
        let part = |seconds, verdict| Drill { as_scheduled: false, ..drill(at(seconds), verdict) };
        let told = |drills: &[Drill]| asked(&world, drills).last.unwrap().at;
        assert_eq!(told(&[drill(at(20), failed()), part(10, Verdict::Passed)]), at(20));
        assert_eq!(told(&[drill(at(20), Verdict::Passed), part(10, failed())]), at(10));
        assert_eq!(told(&[drill(at(10), Verdict::Passed), part(20, failed())]), at(10));
        assert_eq!(told(&[part(10, Verdict::Passed)]), at(10));
    }

    #[test]
    fn nothing_is_due_where_the_record_of_a_drill_may_lie_unseen_or_no_run_is_proven() {
        let mut world = scheduled();
        world.observation.repositories.insert(repository("other"), Observed::Unknown { reason: "shut".to_owned() });
        assert!(!asked(&world, &[]).due);
        let mut world = scheduled();
        for state in world.observation.repositories.values_mut() {
            if let Observed::Known(crate::model::observation::RepositoryState::Present(facts)) = state {
                facts.runs.clear();
            }
        }
        assert!(!asked(&world, &[]).due);
    }

    #[test]
    fn a_stack_without_compose_and_without_drills_says_nothing_of_them() {
        let world = World::settled(small());
        assert_eq!(report(&world.spec, &world.observation, at(NOW)), None);
    }
}
