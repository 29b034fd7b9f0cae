//! Pure: what is declared, what was seen, what was measured and a time go in; a plan and a report come out.
//!
//! Invariant: nothing in here does input or output, reads a clock or the environment, or draws a random number. The
//! planner simulates what its own steps will add, so that planning again after a complete apply gives no steps.

mod backup;
mod certificates;
mod copies;
pub mod coverage;
mod data;
mod draft;
pub mod drills;
mod due;
mod exposure;
mod faults;
mod forget;
pub mod graph;
mod hooks;
mod keys;
mod login;
mod lost;
mod measured;
mod missing;
mod origin;
pub mod prediction;
mod projection;
mod recover;
mod recovery;
mod removed;
pub mod render;
mod repositories;
pub mod request;
mod restore;
pub mod retention;
mod runtime;
mod safety;
pub mod saved;
mod sources;
mod undeclared;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod unfinished;
#[cfg(test)]
mod words;

use jiff::Timestamp;

pub use lost::as_if_lost;
pub use request::{ForgetSelection, PlanError, Recover, Request, Rollback, Selection};

use crate::model::history::History;
use crate::model::ids::{Digest, PlanId};
use crate::model::observation::Observation;
use crate::model::plan::{PLAN_FORMAT, Plan, Report};
use crate::model::step::StepId;
use crate::spec::file::Spec;
use draft::Draft;
use due::Calendar;
use projection::Places;

/// Makes the plan for `request`. `now` is the plan's own time: every age, slot and run id in it is reckoned from there.
///
/// Fails only where the request itself can't be met. What could not be seen stands in the report, and nothing that
/// deletes or overwrites is planned on it.
pub fn plan(
    spec: &Spec,
    digest: &Digest,
    observation: &Observation,
    history: &History,
    now: Timestamp,
    request: &Request,
) -> Result<Plan, PlanError> {
    let request = &request.with_whole_ids(observation)?;
    let history = &measured::with_records(history, observation, now);
    let places = Places::read(spec, observation, history);
    let calendar = Calendar::read(spec)?;
    let lineage = places.lineage(spec);
    let planner = Planner {
        spec,
        observation,
        history,
        now,
        calendar,
        places,
        draft: Draft::default(),
        report: Report::default(),
        started: None,
        rotated: None,
    };
    let (steps, mut report) = planner.run(request)?;
    if matches!(request, Request::Converge)
        && let Some(mut whole) = recovery::of_everything(spec, digest, observation, history, now)
    {
        report.recovery.predicted = Some(whole.total);
        report.recovery.steps = whole.path;
        for forecast in &mut report.recovery.services {
            forecast.back_after = whole.back.remove(&forecast.service);
        }
    }
    let mut plan = Plan {
        format: PLAN_FORMAT,
        id: PlanId::new(""),
        devstack_version: env!("CARGO_PKG_VERSION").to_owned(),
        stack: spec.stack.clone(),
        now,
        observed_in: observation.took,
        spec_digest: digest.clone(),
        lineage,
        steps,
        report,
    };
    plan.id = id_of(&plan)?;
    Ok(plan)
}

/// The digest over all that the plan says, its id left empty.
pub(crate) fn id_of(plan: &Plan) -> Result<PlanId, PlanError> {
    let unnamed = Plan { id: PlanId::new(""), ..plan.clone() };
    // Structs serialize in the order of their fields and maps are ordered: equal plans give equal bytes.
    let bytes = serde_json::to_vec(&unnamed).map_err(|source| PlanError::Unnameable { source })?;
    Ok(PlanId::new(Digest::of(bytes).as_str()))
}

/// One planning: what it looks at, and the plan as far as it has come.
struct Planner<'a> {
    spec: &'a Spec,
    observation: &'a Observation,
    history: &'a History,
    now: Timestamp,
    calendar: Calendar,
    places: Places<'a>,
    draft: Draft,
    report: Report,
    /// The step that starts what containers run on.
    started: Option<StepId>,
    /// The step that replaces what devstack logs in to Vault with.
    rotated: Option<StepId>,
}

impl Planner<'_> {
    fn run(mut self, request: &Request) -> Result<(Vec<crate::model::step::Step>, Report), PlanError> {
        self.report_unknown_repositories();
        self.report_foreign();
        self.report_damage();
        self.report_removed();
        self.report_faults();
        self.report_sources();
        self.report_coverage();
        self.report_idle_excludes();
        self.report_containers();
        self.report_certificates();
        match request {
            Request::Converge => {
                self.report_gone();
                self.report_missing_files();
                let intents = self.due_runs();
                self.login(Some(&intents));
                if !intents.is_empty() {
                    self.start_runtime();
                }
                self.adopt();
                self.repositories();
                self.accept_removed();
                self.seal_interrupted(&intents);
                self.accept_shrinks();
                self.approve_rules();
                self.back_up(&intents);
                self.retain();
                self.read_data();
                self.remove_keys();
            }
            Request::Backup { policies, services, full } => {
                let intents = self.asked_runs(policies, services, *full)?;
                self.start_runtime();
                self.adopt();
                self.create_missing();
                self.seal_interrupted(&intents);
                self.take_runs(&intents);
            }
            Request::Restore { services, selection, from, safety } => {
                self.restores(services, selection, from.as_ref(), *safety)?;
            }
            Request::Recover(asked) => {
                self.start_runtime();
                self.recover(asked)?;
            }
            Request::Rollback(asked) => self.roll_back(asked)?,
            Request::Forget(selection) => self.forget_selected(selection)?,
        }
        self.wait_for_adoption();
        if !matches!(request, Request::Converge) {
            self.login(None);
        }
        self.undeclared();
        self.report.recovery = self.forecast()?;
        self.report.exposure = self.exposure();
        self.report.drill = drills::report(self.spec, self.observation, self.now);
        Ok((self.draft.into_steps(), self.report))
    }
}
