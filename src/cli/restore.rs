//! `restore SERVICE…`: beside the live data by default, over it only with approval.

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
    #[arg(required = true)]
    services: Vec<ServiceName>,
    /// The newest verified run that started at or before this time.
    #[arg(long, value_parser = super::parse_time, value_name = "TIME", conflicts_with = "backup")]
    at: Option<Timestamp>,
    /// This run.
    #[arg(long, value_name = "RUN")]
    backup: Option<RunId>,
    /// From this repository.
    #[arg(long, value_name = "REPOSITORY")]
    from: Option<RepositoryName>,
    /// Into this folder, in a folder of its own for each of several; ./restored/SERVICE-TIME if not given.
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    to: Option<PathBuf>,
    /// Over the live data. Needs a yes of its own, or --approve restore:SERVICE.
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    pub(super) consent: Consent,
}

pub(super) fn run(file: &Path, arguments: &RestoreArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.stores.read_around_damage();
    for service in &arguments.services {
        known_service(&session, service)?;
    }
    let selection = match (&arguments.backup, arguments.at) {
        (Some(run), _) => Selection::Run(run.clone()),
        (None, Some(at)) => Selection::At(at),
        (None, None) => Selection::Newest,
    };
    let services = arguments.services.iter().map(|service| Ok((service.clone(), target(arguments, service)?)));
    let request = Request::Restore {
        services: services.collect::<Result<_, Failure>>()?,
        selection,
        from: arguments.from.clone(),
    };
    // A restore beside touches nothing that is there, so asking for it is enough.
    let consent = Consent { yes: arguments.consent.yes || !arguments.in_place, ..arguments.consent.clone() };
    apply::carry_out(&session, &request, None, Span::ZERO, &consent, false)
}

fn target(arguments: &RestoreArguments, service: &ServiceName) -> Result<RestoreTarget, Failure> {
    if arguments.in_place {
        return Ok(RestoreTarget::InPlace);
    }
    let given = match &arguments.to {
        Some(folder) if arguments.services.len() == 1 => folder.clone(),
        Some(folder) => folder.join(service.as_str()),
        None => {
            let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
            PathBuf::from("restored").join(format!("{service}-{stamp}"))
        }
    };
    // Absolute, so that the plan says where it goes whoever carries it out.
    let folder = std::path::absolute(&given)
        .map_err(|error| Failure::caused(Exit::Input, &format!("the folder {}", given.display()), &error))?;
    Ok(RestoreTarget::Beside { folder })
}
