//! What a verb asks of the planner, and why it may have to say no.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::ids::{PolicyName, RepositoryName, RunId, ServiceName};
use crate::model::step::RestoreTarget;
use crate::spec::schedule::ScheduleError;

/// What the verb asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// `plan`, `apply`: whatever is missing for the declared state.
    Converge,
    /// `backup`: runs now, due or not. A run takes every service of its policy, so naming a service asks for every
    /// policy that names it. Nothing named: every policy.
    Backup {
        policies: Vec<PolicyName>,
        services: Vec<ServiceName>,
        /// Reads everything afresh, with no parent.
        full: bool,
    },
    /// `restore`: services, each out of the run that is selected for it.
    Restore { services: BTreeMap<ServiceName, RestoreTarget>, selection: Selection, from: Option<RepositoryName> },
    /// `forget`: runs that somebody names.
    Forget(ForgetSelection),
}

/// Which run is restored.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// The newest complete and verified one that holds the service.
    Newest,
    /// The newest such that was started at or before this time.
    At(Timestamp),
    /// This one. Verified or not: who names a run has looked at it.
    Run(RunId),
}

/// Which runs are forgotten: those that meet every condition that is set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ForgetSelection {
    pub repository: Option<RepositoryName>,
    pub policy: Option<PolicyName>,
    /// Runs that hold this service; meant for services that were taken out of the file.
    pub service: Option<ServiceName>,
    /// Any of these; empty means that runs are not chosen by id.
    pub runs: Vec<RunId>,
}

/// Why a request can't be met. Each message ends with the command that helps.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the schedule of policy {policy} can't be read; correct it and run: devstack check")]
    Schedule {
        policy: PolicyName,
        #[source]
        source: ScheduleError,
    },
    #[error("`after` goes round in a circle through service {service}; cut it and run: devstack check")]
    Cycle { service: ServiceName },
    #[error("there is no policy {policy} in the file; to see which there are: devstack status")]
    NoSuchPolicy { policy: PolicyName },
    #[error("there is no service {service} in the file; to see which there are: devstack status")]
    NoSuchService { service: ServiceName },
    #[error("there is no repository {repository} in the file; to see which there are: devstack status")]
    NoSuchRepository { repository: RepositoryName },
    #[error("no policy backs up service {service}; name it in one and run: devstack check")]
    NotBackedUp { service: ServiceName },
    #[error("repository {repository} could not be looked at: {reason}; put that right and run: devstack status")]
    UnknownRepository { repository: RepositoryName, reason: String },
    #[error("no repository could be looked at; to see the reasons: devstack status")]
    NothingKnown,
    #[error("no run {run} is known{}; to see which there are: devstack backups", Places(.unknown))]
    NoSuchRun { run: RunId, unknown: Vec<RepositoryName> },
    #[error("run {run} is not complete ({reason}) and is not restored from; to see which are: devstack backups")]
    Incomplete { run: RunId, reason: String },
    #[error("run {run} does not hold service {service}; to see what it holds: devstack show {run}")]
    NotInRun { run: RunId, service: ServiceName },
    #[error(
        "no complete and verified run holds service {service}{}{}; another is restored only by name: devstack backups, \
         then devstack restore {service} --backup RUN",
        .at.map(|at| format!(" at or before {at}")).unwrap_or_default(), Places(.unknown)
    )]
    NothingToRestore { service: ServiceName, at: Option<Timestamp>, unknown: Vec<RepositoryName> },
    #[error(
        "service {service} is not in the file, so its place is not known; give a folder: devstack restore {service} --to DIR"
    )]
    NoPlace { service: ServiceName },
    #[error(
        "the data of service {service} could not be looked at: {reason}; nothing is overwritten unseen; \
         give a folder: devstack restore {service} --to DIR"
    )]
    UnknownTarget { service: ServiceName, reason: String },
    #[error("nothing is selected to be forgotten; to see which runs there are: devstack backups")]
    NothingSelected,
    #[error("no run matches what was selected{}; to see which there are: devstack backups", Places(.unknown))]
    NoMatch { unknown: Vec<RepositoryName> },
    #[error(
        "run {run} is one of the two newest verified runs of policy {policy} in {repository}, and those are never deleted \
         while the policy is in the file; to have newer ones first: devstack backup {policy}"
    )]
    NeverForgotten { run: RunId, policy: PolicyName, repository: RepositoryName },
    #[error("{holders} work in repository {repository}, and forgetting waits for them; to see who: devstack status")]
    Busy { repository: RepositoryName, holders: String },
    #[error(
        "the plan can't be written as JSON, so it has no id; this is a fault of devstack; to see more: devstack plan"
    )]
    Unnameable {
        #[source]
        source: serde_json::Error,
    },
}

/// Says which repositories were left out of a search, so that "none" is not taken for "none anywhere".
struct Places<'a>(&'a Vec<RepositoryName>);

impl std::fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            names => {
                let names: Vec<_> = names.iter().map(RepositoryName::as_str).collect();
                write!(f, " (not looked at: {})", names.join(", "))
            }
        }
    }
}
