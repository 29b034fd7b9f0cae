//! Which runs a verb brings back.

use clap::Args;
use jiff::Timestamp;

use super::error::Failure;
use super::known_service;
use super::session::Session;
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::plan::Selection;

/// The recovery point of `recover` and `drill`.
#[derive(Debug, Args)]
pub(super) struct PointArguments {
    /// The newest runs at or before this time, in place of the newest.
    #[arg(long, value_parser = super::parse_time, conflicts_with = "backup", value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// This run, by its id or the beginning of it; or `latest`: the newest of each service, verified or not.
    #[arg(long, value_name = "RUN")]
    pub backup: Option<RunId>,
    /// Only from this repository.
    #[arg(long, value_name = "REPOSITORY")]
    pub from: Option<RepositoryName>,
    /// Only this service, with what it needs to run. May be repeated.
    #[arg(long, value_name = "SERVICE")]
    pub only: Vec<ServiceName>,
}

impl PointArguments {
    pub fn selection(&self) -> Selection {
        selection(self.backup.as_ref(), self.at)
    }

    pub fn must_be_known(&self, session: &Session) -> Result<(), Failure> {
        self.only.iter().try_for_each(|service| known_service(session, service))
    }
}

/// A run that is named, the newest until a time, or the newest.
pub(super) fn selection(backup: Option<&RunId>, at: Option<Timestamp>) -> Selection {
    match (backup, at) {
        (Some(run), _) if run.is_latest() => Selection::Latest,
        (Some(run), _) => Selection::Run(run.clone()),
        (None, Some(at)) => Selection::At(at),
        (None, None) => Selection::Newest,
    }
}
