//! Saved plans: read with suspicion, and applied only to what they were made against, once, and not too late.

use jiff::Timestamp;
use serde::Deserialize;

use super::graph::{GraphError, PlanGraph};
use crate::model::ids::{Digest, PlanId, PolicyName, RepositoryId, RepositoryName, StackName};
use crate::model::plan::{Lineage, PLAN_FORMAT, Plan};
use crate::model::step::Action;
use crate::model::units::{ByteSize, Span};

/// The largest plan that is read. A plan of 10,000 services is about 10 MiB; more is not a plan.
pub const LARGEST_PLAN: ByteSize = ByteSize::mib(16);

/// How far a plan may be dated ahead of this host's clock: hosts that keep time are closer than this.
const CLOCK_TOLERANCE: Span = Span::from_secs(5 * 60);

/// Why a file is no plan. Each message ends with the command that makes one.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the file has {found} and no plan is larger than {LARGEST_PLAN}; to make one: devstack plan --out FILE")]
    TooLarge { found: ByteSize },
    #[error("the file is not a saved plan; to make one: devstack plan --out FILE")]
    NotAPlan {
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the plan has format {found} and this devstack reads format {PLAN_FORMAT}; to make a new one: devstack plan --out FILE"
    )]
    Format { found: u32 },
    #[error(
        "the plan was changed after it was made: it is named {named} and its content is {found}; to make a new one: devstack plan --out FILE"
    )]
    Changed { named: String, found: String },
    #[error("the steps of the plan can't be carried out; to make a new one: devstack plan --out FILE")]
    Graph {
        #[source]
        source: GraphError,
    },
}

/// Reads a saved plan: its size, its format, its id against its content, and its graph.
pub fn read(bytes: &[u8]) -> Result<Plan, ReadError> {
    let found = ByteSize(bytes.len() as u64);
    if found > LARGEST_PLAN {
        return Err(ReadError::TooLarge { found });
    }
    /// Enough of any plan, also of one of another format, to say which format it is.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let not_a_plan = |source| ReadError::NotAPlan { source };
    let Head { format } = serde_json::from_slice(bytes).map_err(not_a_plan)?;
    if format != PLAN_FORMAT {
        return Err(ReadError::Format { found: format });
    }
    let plan: Plan = serde_json::from_slice(bytes).map_err(not_a_plan)?;
    let id = match super::id_of(&plan) {
        Ok(id) => id,
        Err(super::PlanError::Unnameable { source }) => return Err(not_a_plan(source)),
        Err(_) => PlanId::new(""),
    };
    if id != plan.id {
        return Err(ReadError::Changed { named: plan.id.short().to_owned(), found: id.short().to_owned() });
    }
    PlanGraph::of(&plan).map_err(|source| ReadError::Graph { source })?;
    Ok(plan)
}

/// What a saved plan is held against before it is applied.
#[derive(Debug, Clone)]
pub struct SavedContext<'a> {
    pub spec_digest: &'a Digest,
    pub stack: &'a StackName,
    /// The repositories as they are now; one that can't be looked at is left out.
    pub lineage: &'a [Lineage],
    /// The slots that complete runs carry, by policy.
    pub served: &'a [(PolicyName, Timestamp)],
    /// Plans that were applied, of all repositories.
    pub used_plans: &'a [PlanId],
    pub now: Timestamp,
    pub max_age: Span,
    pub devstack_version: &'a str,
}

/// Why a saved plan is refused. Each message ends with the command to run next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    #[error("plan {plan} was applied before, and a plan is applied once; to see what is left: devstack plan")]
    Used { plan: String },
    #[error(
        "plan {plan} is for stack {planned} and the file is of stack {declared}; to make one for it: devstack plan --out FILE"
    )]
    OtherStack { plan: String, planned: StackName, declared: StackName },
    #[error(
        "the file has changed since plan {plan} was made ({planned} → {declared}); to make a new one: devstack plan --out FILE"
    )]
    FileChanged { plan: String, planned: String, declared: String },
    #[error(
        "plan {plan} was made by devstack {planned} and this is {running}; to make a new one: devstack plan --out FILE"
    )]
    OtherVersion { plan: String, planned: String, running: String },
    #[error("plan {plan} is {age} old and at most {max_age} is allowed; to make a new one: devstack plan --out FILE")]
    TooOld { plan: String, age: Span, max_age: Span },
    #[error(
        "plan {plan} is dated {ahead} in the future, so its age is not known; set the clock right, then: devstack plan --out FILE"
    )]
    FromTheFuture { plan: String, ahead: Span },
    #[error(
        "plan {plan} was made against repository {repository}, which can't be looked at now; to see why: devstack status"
    )]
    NotThere { plan: String, repository: RepositoryName },
    #[error(
        "repository {repository} was {} when plan {plan} was made and is {} now; to make a new one: devstack plan --out FILE",
        Named(.planned), Named(.found)
    )]
    OtherRepository {
        plan: String,
        repository: RepositoryName,
        planned: Option<RepositoryId>,
        found: Option<RepositoryId>,
    },
    #[error(
        "policy {policy} has had a run since plan {plan} was made, which was to take it; to make a new one: devstack plan --out FILE"
    )]
    Served { plan: String, policy: PolicyName },
    #[error(
        "what is declared has been changed in repository {repository} since plan {plan} was made \
         (generation {planned} → {found}); to make a new one: devstack plan --out FILE"
    )]
    GenerationMoved { plan: String, repository: RepositoryName, planned: u64, found: u64 },
}

struct Named<'a>(&'a Option<RepositoryId>);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(id) => write!(f, "{}", id.short()),
            None => f.write_str("absent"),
        }
    }
}

/// Refuses a plan that was made for another world. Preconditions of single steps are looked at just before each runs.
pub fn refuse(plan: &Plan, context: &SavedContext) -> Result<(), Stale> {
    let name = || plan.id.short().to_owned();
    // First of all: who applies a plan twice has to hear just that, whatever else has moved since.
    if context.used_plans.contains(&plan.id) {
        return Err(Stale::Used { plan: name() });
    }
    if plan.stack != *context.stack {
        return Err(Stale::OtherStack { plan: name(), planned: plan.stack.clone(), declared: context.stack.clone() });
    }
    if plan.spec_digest != *context.spec_digest {
        let (planned, declared) = (plan.spec_digest.short().to_owned(), context.spec_digest.short().to_owned());
        return Err(Stale::FileChanged { plan: name(), planned, declared });
    }
    if plan.devstack_version != context.devstack_version {
        let (planned, running) = (plan.devstack_version.clone(), context.devstack_version.to_owned());
        return Err(Stale::OtherVersion { plan: name(), planned, running });
    }
    let ahead = Span::between(context.now, plan.now);
    if ahead > CLOCK_TOLERANCE {
        return Err(Stale::FromTheFuture { plan: name(), ahead });
    }
    let age = Span::between(plan.now, context.now);
    if age > context.max_age {
        return Err(Stale::TooOld { plan: name(), age, max_age: context.max_age });
    }
    plan.lineage.iter().try_for_each(|planned| {
        let repository = planned.repository.clone();
        let Some(found) = context.lineage.iter().find(|found| found.repository == repository) else {
            return Err(Stale::NotThere { plan: name(), repository });
        };
        if planned.id != found.id {
            let (planned, found) = (planned.id.clone(), found.id.clone());
            return Err(Stale::OtherRepository { plan: name(), repository, planned, found });
        }
        if planned.generation != found.generation {
            let (planned, found) = (planned.generation, found.generation);
            return Err(Stale::GenerationMoved { plan: name(), repository, planned, found });
        }
        Ok(())
    })?;
    let served = plan.steps.iter().find_map(|step| match &step.action {
        Action::Take(take) => {
            context.served.iter().find(|(policy, slot)| *policy == take.policy && Some(*slot) == take.slot)
        }
        _ => None,
    });
    match served {
        Some((policy, _)) => Err(Stale::Served { plan: name(), policy: policy.clone() }),
        None => Ok(()),
    }
}
