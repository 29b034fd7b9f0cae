//! Reading every pack within `data_every`, a part at each apply.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Planner;
use super::draft::NewStep;
use crate::model::evidence::DATA_PARTS;
use crate::model::ids::RepositoryName;
use crate::model::observation::RepositoryFacts;
use crate::model::step::{Action, Estimate};
use crate::model::units::{ByteSize, Span};

impl Planner<'_> {
    pub(super) fn read_data(&mut self) {
        let mut every: BTreeMap<&RepositoryName, Span> = BTreeMap::new();
        for policy in self.spec.backup.values() {
            let Some(verify) = policy.verify.as_ref().filter(|verify| !verify.data_every.is_zero()) else { continue };
            for name in &policy.to {
                let least = every.entry(name).or_insert(verify.data_every);
                *least = verify.data_every.min(*least);
            }
        }
        for (name, every) in every {
            let Some(place) = self.places.known.get(name) else { continue };
            let Some(facts) = place.facts() else { continue };
            let parts = due_parts(facts, every, self.now);
            if parts.is_empty() {
                continue;
            }
            let share = u128::from(facts.size.0) * parts.len() as u128 / u128::from(DATA_PARTS);
            let bytes = ByteSize(u64::try_from(share).unwrap_or(u64::MAX));
            let cause = format!("{} of {DATA_PARTS} parts not read for {}", parts.len(), every.to_file_text());
            let action = Action::ReadData { repository: name.clone(), parts };
            let Estimate { time, .. } = self.estimate_of(&action.sample_key(), Some(bytes));
            let step = NewStep::new(action)
                .because(cause)
                .given(place.is(name))
                .estimate(Estimate { time, bytes: Some(bytes) })
                // After a prune, so that it does not read what is about to go.
                .after_end_of(place.pruned);
            let id = self.draft.add(step);
            self.wrote(name, [id]);
        }
    }
}

/// Part b comes due at the times t ≡ b/256 · every (mod every) since the epoch: spread evenly, the same for everyone.
/// It is due when such a time has passed since it was last read, or since there was anything to read.
fn due_parts(facts: &RepositoryFacts, every: Span, now: Timestamp) -> Vec<u8> {
    let Some(oldest) = facts.oldest else { return Vec::new() };
    let mut read: [Option<Timestamp>; DATA_PARTS as usize] = [None; DATA_PARTS as usize];
    // A reading dated in the future was made under a wrong clock; taken at its word it would stop all reading.
    for reading in facts.data_reads.iter().filter(|reading| reading.at <= now) {
        for part in &reading.parts {
            let last = &mut read[usize::from(*part)];
            *last = (*last).max(Some(reading.at));
        }
    }
    let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let now = now.as_millisecond();
    (0..=u8::MAX)
        .filter(|part| {
            let offset = i64::try_from(i128::from(every) * i128::from(*part) / i128::from(DATA_PARTS)).unwrap_or(0);
            let slot = now - (now - offset).rem_euclid(every);
            // A reading from before the oldest snapshot read packs that are gone by now.
            slot > read[usize::from(*part)].map_or(oldest, |read| read.max(oldest)).as_millisecond()
        })
        .collect()
}
