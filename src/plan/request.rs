//! What a verb asks of the planner, and why it may have to say no.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::model::ids::{Misnamed, PolicyName, RepositoryName, RunId, ServiceName, StackName};
use crate::model::observation::Observation;
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::spec::schedule::ScheduleError;

/// What the verb asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// `plan`, `apply`: whatever is missing for the declared state.
    Converge,
    /// `backup`: runs now, due or not.
    Backup {
        /// Of these policies; of all where none is named.
        policies: Vec<PolicyName>,
        /// Only these services of them; all where none is named.
        services: Vec<ServiceName>,
        /// Reads everything afresh, with no parent.
        full: bool,
    },
    /// `restore`: services, each out of the run that is selected for it.
    Restore {
        services: BTreeMap<ServiceName, RestoreTarget>,
        selection: Selection,
        from: Option<RepositoryName>,
        /// What is overwritten is copied first.
        safety: bool,
    },
    /// `recover`: whatever of the stack is gone.
    Recover(Recover),
    /// `recover --rollback`: what was overwritten last.
    Rollback(Rollback),
    /// `forget`: runs that somebody names.
    Forget(ForgetSelection),
}

impl Request {
    /// The same with the ids of the runs that are meant: a person writes the beginning of one. What names no run stays as it
    /// is, for the planner to say so.
    pub fn with_whole_ids(&self, observation: &Observation) -> Result<Self, Misnamed> {
        let mut request = self.clone();
        let whole = |given: &mut RunId| {
            let runs = observation.present().flat_map(|(_, facts)| &facts.runs).map(|run| &run.manifest.run);
            if let Some(run) = given.among(runs)? {
                *given = run;
            }
            Ok::<(), Misnamed>(())
        };
        match &mut request {
            Self::Restore { selection: Selection::Run(run), .. } => whole(run)?,
            Self::Recover(Recover { selection: Selection::Run(run), .. }) => whole(run)?,
            Self::Forget(asked) => asked.runs.iter_mut().try_for_each(whole)?,
            Self::Converge | Self::Backup { .. } | Self::Restore { .. } | Self::Recover(_) | Self::Rollback(_) => {}
        }
        Ok(request)
    }
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
    /// The newest that holds the service, verified or not; a safety copy is none.
    Latest,
}

/// What is brought back, and from which runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Recover {
    /// These services with what they need; all where none is named.
    pub only: Vec<ServiceName>,
    pub selection: Selection,
    pub from: Option<RepositoryName>,
    /// Also what has data, or can't be looked into: it is overwritten.
    pub replace: bool,
    /// What is overwritten is copied first.
    pub safety: bool,
    /// Also where less is free than the data has bytes.
    pub accept_room: bool,
    /// Single files of what is there are looked for too.
    pub missing: bool,
    /// What the file asserts is asked even where nothing is gone: a recovery before this one had not come to its end.
    pub verify: bool,
    /// Their restore of that recovery did not come to its end: what is there is half of a run, and a run is put over it.
    pub unfinished: Vec<ServiceName>,
}

/// What is put back of what was overwritten last.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollback {
    /// These services; all where none is named.
    pub only: Vec<ServiceName>,
    pub from: Option<RepositoryName>,
    /// What is there now is copied first, so that the rollback can be undone too.
    pub safety: bool,
}

impl Recover {
    /// What is gone, and nothing that is there.
    pub fn everything() -> Self {
        Self::lost(Vec::new(), Selection::Newest, None)
    }

    /// As [`Self::everything`], narrowed.
    pub fn lost(only: Vec<ServiceName>, selection: Selection, from: Option<RepositoryName>) -> Self {
        Self {
            only,
            selection,
            from,
            replace: false,
            safety: true,
            accept_room: false,
            missing: false,
            verify: false,
            unfinished: Vec::new(),
        }
    }

    pub fn names(&self, service: &ServiceName) -> bool {
        self.only.is_empty() || self.only.contains(service)
    }
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

/// Why a request can't be met; [`PlanError::next`] says what helps.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the schedule of policy {policy} can't be read")]
    Schedule {
        policy: PolicyName,
        #[source]
        source: ScheduleError,
    },
    #[error("`after` goes round in a circle through service {service}")]
    Cycle { service: ServiceName },
    #[error("there is no policy {policy} in the file")]
    NoSuchPolicy { policy: PolicyName },
    #[error("there is no service {service} in the file")]
    NoSuchService { service: ServiceName },
    #[error("there is no repository {repository} in the file; there are: {}", listed(.declared))]
    NoSuchRepository { repository: RepositoryName, declared: Vec<RepositoryName> },
    #[error("no policy backs up service {service}")]
    NotBackedUp { service: ServiceName },
    #[error("service {service} is not backed up by {}", policies.iter().map(PolicyName::as_str).collect::<Vec<_>>().join(", "))]
    NotOfPolicies { service: ServiceName, policies: Vec<PolicyName> },
    #[error(transparent)]
    Misnamed(#[from] Misnamed),
    #[error("repository {repository} could not be looked at: {reason}")]
    UnknownRepository { repository: RepositoryName, reason: String },
    #[error("no repository could be looked at: {}", reasons(.unknown))]
    NothingKnown { unknown: BTreeMap<RepositoryName, String> },
    #[error("no run {run} is known{}", Places(.unknown))]
    NoSuchRun { run: RunId, unknown: Vec<RepositoryName> },
    #[error("run {run} is not complete ({reason}) and is not restored from")]
    Incomplete { run: RunId, reason: String },
    #[error("run {run} does not hold service {service}")]
    NotInRun { run: RunId, service: ServiceName },
    #[error(
        "no complete and verified run holds service {service}{}{}",
        .at.map(|at| format!(" at or before {}", at.strftime("%Y-%m-%dT%H:%M:%SZ"))).unwrap_or_default(),
        Places(.unknown)
    )]
    NothingToRestore {
        service: ServiceName,
        at: Option<Timestamp>,
        unknown: Vec<RepositoryName>,
        /// Whether a run holds it that is not good.
        any: bool,
        /// Stacks of another name that have runs where this one has none.
        others: Vec<StackName>,
    },
    #[error("service {service} is not in the file, so its place is not known")]
    NoPlace { service: ServiceName },
    #[error("the data of {} could not be inspected, and nothing is overwritten unseen: {reason}", listed_services(.services))]
    UnknownTarget { services: Vec<ServiceName>, reason: String },
    /// It says nothing of the data, which may be as well as ever.
    #[error("the data of {} could not be inspected: {reason}", listed_services(.services))]
    NoEngine { services: Vec<ServiceName>, reason: String },
    /// Of a request for several services: each that can't be met. None of them is begun.
    #[error("{}", each(.refused, *.asked))]
    Several { refused: Vec<PlanError>, asked: usize },
    #[error("the container {container} of service {service} is not there, and no Compose file makes it")]
    NoMaker { service: ServiceName, container: String },
    #[error("no container can be made: {reason}")]
    UnreadCompose { reason: String },
    #[error("{} is a folder with something in it, and a file in the run that {service} comes back from", .path.display())]
    NotAFile { service: ServiceName, path: PathBuf },
    #[error("there is no room for {}: {needed} come back, and {free} are free in {}", listed_services(.services), .path.display())]
    NoRoom { services: Vec<ServiceName>, needed: ByteSize, free: ByteSize, path: PathBuf },
    #[error(
        "repository {repository} can't be written here, so that what {service} holds now can't be copied before it is overwritten"
    )]
    NoCopy { service: ServiceName, repository: RepositoryName },
    #[error("there is no safety copy to go back to: nothing was overwritten in the last two weeks{}", Places(.unknown))]
    NothingToRollBack { unknown: Vec<RepositoryName> },
    #[error("what must come back before what goes round in a circle through {through}")]
    RecoveryCycle { through: String },
    #[error("nothing is selected to be forgotten")]
    NothingSelected,
    #[error("no run matches what was selected{}", Places(.unknown))]
    NoMatch { unknown: Vec<RepositoryName> },
    #[error(
        "run {run} is one of the two newest verified runs of policy {policy} in {repository}, and those are never deleted \
         while the policy is in the file"
    )]
    NeverForgotten { run: RunId, policy: PolicyName, repository: RepositoryName },
    #[error("{holders} work in repository {repository}, and forgetting waits for them")]
    Busy { repository: RepositoryName, holders: String },
    #[error("the plan can't be written as JSON, so it has no id; this is a fault of devstack")]
    Unnameable {
        #[source]
        source: serde_json::Error,
    },
}

impl PlanError {
    /// What to do now.
    pub fn next(&self) -> Vec<String> {
        let line = match self {
            Self::Schedule { .. } => "correct it, then `devstack check`".to_owned(),
            Self::Cycle { .. } => "cut it, then `devstack check`".to_owned(),
            Self::NoSuchPolicy { .. } | Self::NoSuchService { .. } => {
                "to see which there are: `devstack status`".to_owned()
            }
            Self::NoSuchRepository { .. } => "name one of those, or none: all are searched".to_owned(),
            Self::NotBackedUp { .. } => "name it in a policy, then `devstack check`".to_owned(),
            Self::NotOfPolicies { service, .. } => format!("by whichever names it: `devstack backup {service}`"),
            Self::Misnamed(Misnamed::Ambiguous { .. }) => "write more of the id".to_owned(),
            Self::Misnamed(Misnamed::TooShort { .. }) => "to see which runs there are: `devstack backups`".to_owned(),
            Self::UnknownRepository { .. } | Self::NothingKnown { .. } => {
                "put that right, then try again; `devstack status` looks at all of them".to_owned()
            }
            Self::NoSuchRun { .. } | Self::Incomplete { .. } | Self::NoMatch { .. } | Self::NothingSelected => {
                "to see which runs there are: `devstack backups`".to_owned()
            }
            Self::NotInRun { run, .. } => format!("to see what it holds: `devstack show {run}`"),
            Self::NothingToRestore { others, .. } if !others.is_empty() => {
                let others: Vec<String> = others.iter().map(|other| format!("`stack: {other}`")).collect();
                return vec![format!(
                    "nothing was touched, and no run is of this stack: was it renamed in the file? The repository holds {}; \
                     `devstack backups` lists them",
                    others.join(", ")
                )];
            }
            Self::NothingToRestore { any: false, .. } => {
                "no run holds it at all; to see what there is: `devstack backups`".to_owned()
            }
            Self::NothingToRestore { service, .. } => format!(
                "one that is not verified is restored by its name: `devstack backups`, then \
                 `devstack restore {service} --backup RUN`"
            ),
            Self::NoPlace { service } => format!("give a folder: `devstack restore {service} --to DIR`"),
            Self::UnknownTarget { services, .. } => {
                let only: String = services.iter().map(|service| format!(" --only {service}")).collect();
                let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
                return vec![
                    format!("put that right, or restore beside it: `devstack restore {} --to DIR`", names.join(" ")),
                    format!(
                        "or begin anew from the backup, with a copy of what is there now: `devstack recover{only} --replace`"
                    ),
                    "or recover the others first: `devstack recover --only NAME`; nothing was touched".to_owned(),
                ];
            }
            Self::NoEngine { .. } => {
                "nothing was touched, and the data may be as well as ever: start Docker, then give the command again"
                    .to_owned()
            }
            Self::NoMaker { .. } => {
                "make it as you made it before, or declare its Compose file in `runtime.docker.compose`; then try again"
                    .to_owned()
            }
            Self::UnreadCompose { .. } => {
                "nothing was touched; `docker compose config` reads the files as devstack does; then `devstack recover`"
                    .to_owned()
            }
            Self::NotAFile { path, .. } => format!(
                "nothing was touched: move it away (`mv {0} {0}.aside`), then `devstack recover`",
                path.display()
            ),
            Self::NoRoom { .. } => {
                return vec![
                    "make room, or recover some of them: `devstack recover --only NAME`; nothing was touched"
                        .to_owned(),
                    "where the file system compresses, or stores doubles once: `devstack recover --accept-room`"
                        .to_owned(),
                ];
            }
            Self::NoCopy { service, .. } => {
                return vec![
                    format!("restore beside it: `devstack restore {service} --to DIR`"),
                    "or give the command --without-safety: there is no way back then".to_owned(),
                ];
            }
            Self::NothingToRollBack { .. } => {
                "what was gone before a recovery has no such copy; to see which runs there are: `devstack backups`"
                    .to_owned()
            }
            Self::RecoveryCycle { .. } => {
                "look at `after` in the file and at `depends_on` in the Compose files: one of the two must go"
                    .to_owned()
            }
            Self::Several { refused, asked } => {
                let mut lines: Vec<String> = Vec::new();
                for line in refused.iter().flat_map(Self::next) {
                    if !lines.contains(&line) {
                        lines.push(line);
                    }
                }
                if services_of(refused) < *asked {
                    lines.push("or leave them out of the command: the others can be restored now".to_owned());
                }
                return lines;
            }
            Self::NeverForgotten { policy, .. } => {
                format!("to have newer ones first: `devstack backup --policy {policy}`")
            }
            Self::Busy { .. } => "to see who: `devstack status`".to_owned(),
            Self::Unnameable { .. } => "to see more: `devstack plan`".to_owned(),
        };
        vec![line]
    }

    /// Of several, those with one cause as one. `asked` services were to come back; none of them is begun.
    pub(super) fn together(refused: Vec<Self>, asked: usize) -> Self {
        let mut together: Vec<Self> = Vec::new();
        for error in refused {
            let more = error.unseen().map(|(services, reason)| (services.to_vec(), reason.to_owned()));
            let same = together.iter_mut().find(
                |known| matches!((known.unseen(), &more), (Some((_, known)), Some((_, reason))) if known == reason),
            );
            match (same.and_then(Self::unseen_mut), more) {
                (Some(services), Some((more, _))) => services.extend(more),
                _ => together.push(error),
            }
        }
        match (together.len(), together.pop()) {
            (1, Some(one)) if asked == 1 || matches!(one, Self::NoEngine { .. }) => one,
            (_, last) => {
                together.extend(last);
                Self::Several { refused: together, asked }
            }
        }
    }

    /// Whose data nobody could look at, and why.
    fn unseen(&self) -> Option<(&[ServiceName], &str)> {
        match self {
            Self::UnknownTarget { services, reason } | Self::NoEngine { services, reason } => Some((services, reason)),
            _ => None,
        }
    }

    fn unseen_mut(&mut self) -> Option<&mut Vec<ServiceName>> {
        match self {
            Self::UnknownTarget { services, .. } | Self::NoEngine { services, .. } => Some(services),
            _ => None,
        }
    }

    /// How many services it speaks of.
    fn services(&self) -> usize {
        self.unseen().map_or(1, |(services, _)| services.len())
    }

    /// Whether it is the world that stands in the way, and not what was asked.
    pub fn is_of_the_world(&self) -> bool {
        match self {
            Self::UnknownRepository { .. }
            | Self::NothingKnown { .. }
            | Self::UnknownTarget { .. }
            | Self::NoEngine { .. }
            | Self::UnreadCompose { .. }
            | Self::NoCopy { .. }
            | Self::NotAFile { .. }
            | Self::NoRoom { .. } => true,
            Self::Several { refused, .. } => refused.iter().any(Self::is_of_the_world),
            _ => false,
        }
    }
}

fn listed(names: &[RepositoryName]) -> String {
    names.iter().map(RepositoryName::as_str).collect::<Vec<_>>().join(", ")
}

fn listed_services(names: &[ServiceName]) -> String {
    names.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

fn reasons(unknown: &BTreeMap<RepositoryName, String>) -> String {
    unknown.iter().map(|(name, reason)| format!("{name}: {reason}")).collect::<Vec<_>>().join("; ")
}

fn services_of(refused: &[PlanError]) -> usize {
    refused.iter().map(PlanError::services).sum()
}

fn each(refused: &[PlanError], asked: usize) -> String {
    let lines: Vec<String> = refused.iter().map(|error| format!("\n  {error}")).collect();
    format!("{} of {asked} services can't be restored, so none was begun:{}", services_of(refused), lines.concat())
}

/// Says which repositories were left out of a search, so that "none" is not taken for "none anywhere".
struct Places<'a>(&'a Vec<RepositoryName>);

impl std::fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            names => write!(f, " (could not be searched: {})", listed(names)),
        }
    }
}
