//! What drills and recoveries have measured, from their records in the repositories: a machine that has measured nothing itself
//! predicts by them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::history::{History, Measured, Sample};
use crate::model::observation::Observation;

/// The history, and of what it never measured the samples of the records. What this machine has measured itself counts alone: the
/// others may be faster or slower.
pub(super) fn with_records<'a>(history: &'a History, observation: &Observation, now: Timestamp) -> Cow<'a, History> {
    let mut records: BTreeSet<(Timestamp, &[Measured])> = BTreeSet::new();
    for (_, facts) in observation.present() {
        let drills = facts.drills.iter().map(|drill| (drill.at, drill.measured.as_slice()));
        let recoveries = facts.recoveries.iter().map(|recovery| (recovery.at, recovery.measured.as_slice()));
        // One lies in every repository that its runs came from, and counts once.
        records.extend(drills.chain(recoveries).filter(|(at, _)| *at <= now));
    }
    let mut added: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for Measured { key, bytes, took } in records.into_iter().flat_map(|(_, measured)| measured) {
        if history.samples.get(key).is_none_or(Vec::is_empty) {
            added.entry(key.clone()).or_default().push(Sample { bytes: *bytes, took: *took });
        }
    }
    if added.is_empty() {
        return Cow::Borrowed(history);
    }
    let mut history = history.clone();
    history.samples.extend(added);
    Cow::Owned(history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::evidence::Verdict;
    use crate::model::plan::Basis;
    use crate::model::record::Recovery;
    use crate::model::run::RECORD_FORMAT;
    use crate::model::units::{ByteSize, Span};
    use crate::plan::fixtures::{NOW, World, at, small};

    fn recovery(hours: u64, secs: u64) -> Recovery {
        let measured =
            |key: &str| Measured { key: key.to_owned(), bytes: ByteSize::mib(100), took: Span::from_secs(secs) };
        Recovery {
            format: RECORD_FORMAT,
            at: Span::from_hours(hours).before(at(NOW)),
            took: Span::from_secs(secs),
            measured: vec![measured("restore/shop"), measured("prove/local")],
            devstack_version: String::new(),
        }
    }

    fn forecast(world: &World) -> (Option<Span>, Basis) {
        let plan = world.plan();
        (plan.report.recovery.services[0].predicted, plan.report.recovery.services[0].basis)
    }

    #[test]
    fn a_machine_without_a_journal_predicts_by_what_recoveries_and_drills_have_put_on_record() {
        let mut world = World::settled(small()).with_history(2, 12);
        assert_eq!(forecast(&world), (None, Basis::NeverMeasured), "proofs alone predict nothing");
        world.facts("local").recoveries.push(recovery(5, 87));
        let (predicted, basis) = forecast(&world);
        assert_eq!(basis, Basis::Restored);
        assert_eq!(predicted, Some(Span::from_secs(87)));
        assert!(
            world.plan().report.recovery.predicted.is_some(),
            "all steps of a recovery of this stack are on record"
        );

        let mut world = World::settled(small()).with_history(2, 12);
        let drill = serde_json::json!({
            "format": RECORD_FORMAT, "id": "drill-1", "at": Span::from_hours(3).before(at(NOW)), "took": Span::from_secs(90),
            "services": [], "steps": [], "measured": recovery(3, 60).measured, "verdict": Verdict::Passed, "left_out": [],
            "partial": false, "as_scheduled": true, "escrow": false, "devstack_version": "",
        });
        world.facts("local").drills.push(serde_json::from_value(drill).unwrap());
        assert_eq!(forecast(&world).0, Some(Span::from_secs(60)));
    }

    #[test]
    fn what_this_machine_measured_counts_alone_and_one_record_in_two_repositories_once() {
        let mut world = World::settled(small()).with_history(2, 12);
        world.facts("local").recoveries.push(recovery(5, 87));
        let own = Sample { bytes: ByteSize::mib(100), took: Span::from_secs(20) };
        world.history.samples.insert("restore/shop".to_owned(), vec![own]);
        assert_eq!(forecast(&world).0, Some(Span::from_secs(20)));

        let mut observation = world.observation.clone();
        let twin = observation.repositories.values().next().cloned().unwrap();
        observation.repositories.insert(crate::plan::fixtures::repository("offsite"), twin);
        let history = with_records(&world.history, &observation, at(NOW)).into_owned();
        assert_eq!(history.samples["prove/local"].len(), 1);
        assert_eq!(history.samples["restore/shop"], [own]);
    }

    #[test]
    fn a_record_that_is_dated_in_the_future_predicts_nothing_yet() {
        let mut world = World::settled(small()).with_history(2, 12);
        let ahead = Recovery { at: Span::from_hours(30).after(at(NOW)), ..recovery(0, 5) };
        world.facts("local").recoveries.push(ahead);
        assert_eq!(forecast(&world), (None, Basis::NeverMeasured));
    }
}
