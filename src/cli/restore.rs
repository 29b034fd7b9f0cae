//! `restore SERVICE…`: beside the live data by default, over it only with approval.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::point::selection;
use super::session::Session;
use super::{Consent, apply, known_service};
use crate::engines::VaultRestore;
use crate::model::ids::{RepositoryName, RunId, ServiceName};
use crate::model::step::RestoreTarget;
use crate::plan::Request;
use crate::spec::file::Source;

#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    #[arg(required = true)]
    services: Vec<ServiceName>,
    /// The newest verified run that started at or before this time.
    #[arg(long, value_parser = super::parse_time, value_name = "TIME", conflicts_with = "backup")]
    at: Option<Timestamp>,
    /// This run, by its id or the beginning of it; or `latest`: the newest that holds the service, verified or not.
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
    /// Over the live data with no copy of it made first: there is no way back.
    #[arg(long, requires = "in_place")]
    without_safety: bool,
    /// Of a Vault in place: the age identity that its key files were encrypted to. Those that are missing here come back.
    #[arg(long, value_name = "FILE", requires = "in_place")]
    escrow: Option<PathBuf>,
    /// Of a Vault in place: also over one whose keys are not the backup's.
    #[arg(long, requires = "in_place")]
    force: bool,
    #[command(flatten)]
    pub(super) consent: Consent,
}

pub(super) fn run(file: &Path, arguments: &RestoreArguments) -> Result<Exit, Failure> {
    let mut session = Session::open(file)?;
    let restored = |name: &ServiceName| arguments.services.contains(name);
    session.ground.vault = vault(&session, restored, arguments.escrow.as_deref(), arguments.force)?;
    session.stores.read_around_damage();
    for service in &arguments.services {
        known_service(&session, service)?;
    }
    let selection = selection(arguments.backup.as_ref(), arguments.at);
    let services = arguments.services.iter().map(|service| Ok((service.clone(), target(arguments, service)?)));
    let request = Request::Restore {
        services: services.collect::<Result<_, Failure>>()?,
        selection,
        from: arguments.from.clone(),
        safety: !arguments.without_safety,
    };
    // A restore beside touches nothing that is there, so asking for it is enough.
    let consent = Consent { yes: arguments.consent.yes || !arguments.in_place, ..arguments.consent.clone() };
    apply::carry_out(&session, &request, apply::Origin::Request, &consent, false)
}

/// What was said of a Vault, where one is among the services that come back.
pub(super) fn vault(
    session: &Session,
    comes_back: impl Fn(&ServiceName) -> bool,
    escrow: Option<&Path>,
    force: bool,
) -> Result<VaultRestore, Failure> {
    let mut services = session.loaded.spec.services.iter();
    let is_vault = services.any(|(name, service)| matches!(service.source, Source::Vault(_)) && comes_back(name));
    if (escrow.is_some() || force) && !is_vault {
        let option = if force { "--force" } else { "--escrow" };
        return Err(Failure::new(Exit::Input, format!("{option} is for a Vault, and none is restored"))
            .hint("name the service whose source is `vault`, or leave the option out"));
    }
    Ok(VaultRestore { escrow: escrow.map(absolute).transpose()?, force, ..VaultRestore::default() })
}

/// A file of the person's, who stands elsewhere than the relative paths of devstack.yaml start from.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::caused(Exit::Input, &format!("the file {}", path.display()), &error))
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
