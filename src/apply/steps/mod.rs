//! The acts themselves: one file per kind of step. Each does what its step says and decides nothing.

mod assertions;
mod containers;
mod hooks;
mod keys;
mod login;
mod preconditions;
mod proof;
mod read_data;
mod removal;
mod restore;
mod run;
mod runtime;
mod safety;
mod stack;
mod world;

pub use proof::{ProofOf, prove_run};
pub use read_data::{Reading, hurt_runs, in_short, read_parts};
pub use world::World;

use super::runner::{StepContext, StepError, StepRunner};
use crate::model::outcome::Done;
use crate::model::step::{Action, Step};

impl StepRunner for World {
    fn precheck(&self, step: &Step) -> Result<Option<String>, StepError> {
        preconditions::check(self, step)
    }

    fn run(&self, step: &Step, context: &StepContext<'_>) -> Result<Done, StepError> {
        match &step.action {
            Action::GenerateKey { repository, key } => keys::generate(self, repository, *key),
            Action::CreateRepository { repository, key } => keys::create(self, repository, *key),
            Action::Adopt { repository, origin, from } => run::adopt(self, repository, origin, from),
            Action::AddKey { repository, key, label } => keys::add(self, repository, *key, label),
            Action::RemoveKey { repository, id, label } => keys::remove(self, repository, id, label),
            Action::ApproveRule { repository, policy, rule } => run::approve_rule(self, repository, policy, *rule),
            Action::SealInterrupted { repository, run, policy, snapshots } => {
                run::seal_interrupted(self, repository, run, policy, snapshots)
            }
            Action::Take(take) => run::take(self, step, take, context),
            Action::Hook(hook) => hooks::run(self, step, hook, context),
            Action::Seal { .. } => run::seal(self, step, context),
            Action::Copy { run, from, to, policy: _ } => run::copy(self, run, from, to, context),
            Action::Prove { repository, run } => proof::prove(self, repository, run, context),
            Action::ReadData { repository, parts } => read_data::read_data(self, repository, parts, context),
            Action::AcceptShrink { repository, run, service, .. } => run::accept_shrink(self, repository, run, service),
            Action::AcceptRemoved { repository, runs } => removal::accept(self, repository, runs),
            Action::Forget { repository, runs, .. } => removal::forget(self, step, repository, runs, context),
            Action::Prune { repository } => removal::prune(self, repository),
            Action::StartColima { .. } => runtime::start_colima(self),
            Action::StartDocker { command } => runtime::start_docker(self, command, &context.cancel),
            Action::CreateContainers { services, held, replaced } => {
                containers::create(self, services, held.as_ref(), replaced)
            }
            Action::StartContainer { service, until } => stack::start(self, service, *until, context),
            Action::VerifyStack { services, assertions, red } => {
                stack::verify(self, services, assertions, red, context)
            }
            Action::RotateSecretId { mount, role } => login::rotate(self, mount, role),
            Action::SafetyCopy(copy) => safety::copy(self, copy, context),
            Action::Clear { service } => safety::clear(self, service),
            Action::Restore(restore) => restore::restore(self, restore, context),
        }
    }
}
