//! `restore SERVICE`: beside the live data by default, over it only with approval.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::session::Session;
use super::{Consent, apply, known_service};
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::step::RestoreTarget;
use crate::model::units::Span;
use crate::plan::{Request, Selection};

#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    service: ServiceName,
    /// The newest verified run that started at or before this time.
    #[arg(long, value_parser = super::parse_time, value_name = "TIME", conflicts_with = "backup")]
    at: Option<Timestamp>,
    /// This run.
    #[arg(long, value_name = "RUN")]
    backup: Option<RunId>,
    /// From this repository.
    #[arg(long, value_name = "REPOSITORY")]
    from: Option<RepositoryName>,
    /// Into this folder; ./restored/SERVICE-TIME if not given.
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    to: Option<PathBuf>,
    /// Over the live data. Needs a yes of its own, or --approve restore:SERVICE.
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(super) fn run(file: &Path, arguments: &RestoreArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.stores.read_around_damage();
    known_service(&session, &arguments.service)?;
    let selection = match (&arguments.backup, arguments.at) {
        (Some(run), _) => Selection::Run(run.clone()),
        (None, Some(at)) => Selection::At(at),
        (None, None) => Selection::Newest,
    };
    let target =
        if arguments.in_place { RestoreTarget::InPlace } else { RestoreTarget::Beside { folder: folder(arguments)? } };
    let request =
        Request::Restore { service: arguments.service.clone(), selection, target, from: arguments.from.clone() };
    // A restore beside touches nothing that is there, so asking for it is enough.
    let consent = Consent { yes: arguments.consent.yes || !arguments.in_place, ..arguments.consent.clone() };
    apply::carry_out(&session, &request, None, Span::ZERO, &consent, false)
}

/// Absolute, so that the plan says where it goes whoever carries it out.
fn folder(arguments: &RestoreArguments) -> Result<PathBuf, Failure> {
    let given = arguments.to.clone().unwrap_or_else(|| {
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        PathBuf::from("restored").join(format!("{}-{stamp}", arguments.service))
    });
    std::path::absolute(&given)
        .map_err(|error| Failure::caused(Exit::Input, &format!("the folder {}", given.display()), &error))
}
