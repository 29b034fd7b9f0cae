//! What a recovery has measured goes into the repositories that its runs came from: any machine predicts the next one by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{Exit, Failure};
use super::session::Session;
use crate::apply::lease::Lease;
use crate::apply::progress::Receiver;
use crate::model::history::Measured;
use crate::model::ids::RepositoryName;
use crate::model::outcome::{ApplyOutcome, Event};
use crate::model::plan::Plan;
use crate::model::record::{Record, Recovery};
use crate::model::run::RECORD_FORMAT;
use crate::model::step::{Action, Step, StepId};

/// Notes what steps measure while they end.
#[derive(Default)]
pub(super) struct Meter(Arc<Mutex<Vec<Measured>>>);

impl Meter {
    /// As `show`, and it notes.
    pub fn beside(&self, plan: &Plan, show: Receiver) -> Receiver {
        let steps: BTreeMap<StepId, Step> = plan.steps.iter().map(|step| (step.id, step.clone())).collect();
        let noted = Arc::clone(&self.0);
        Box::new(move |event| {
            if let Event::Ended { step, took, outcome, .. } = &event
                && let Some(step) = steps.get(step)
            {
                let measured = outcome.measured(&step.action, *took);
                noted.lock().unwrap_or_else(PoisonError::into_inner).extend(measured);
            }
            show(event);
        })
    }

    /// Writes it, with the lease held. Nothing that was brought back depends on it, so that what fails is a warning.
    pub fn keep(&self, session: &Session, lease: &Lease, outcome: &ApplyOutcome) {
        let measured = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Files that were written beside, and copies that were put back, predict no recovery.
        if !measured.iter().any(|one| one.key.starts_with("restore/")) {
            return;
        }
        let mut places: Vec<&RepositoryName> = outcome
            .steps
            .iter()
            .filter_map(|(_, action, _)| match action {
                Action::Restore(restore) => Some(&restore.repository),
                _ => None,
            })
            .collect();
        places.sort();
        places.dedup();
        let record = Record::Recovery(Recovery {
            format: RECORD_FORMAT,
            at: outcome.started,
            took: outcome.took,
            measured,
            devstack_version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let unwritable = lease.unwritable();
        for name in places.into_iter().filter(|name| !unwritable.contains_key(*name)) {
            let written =
                lease.check(name).map_err(|error| Failure::caused(Exit::Locked, "the lease", &error)).and_then(|()| {
                    Ok(session.stores.open(name)?.write_record(&session.loaded.spec.stack, &record, &[])?)
                });
            if let Err(failure) = written {
                eprintln!(
                    "warning: what this recovery measured could not be kept in {name}: {}; predictions on other machines will \
                     not know of it",
                    failure.text()
                );
            }
        }
    }
}
