//! Vault: its storage, an inventory of what is set up in it, and the files without which it stays shut, encrypted.
//!
//! Consistency: integrated storage gives a snapshot of one moment; file storage is read while the container is paused.

mod approle;
mod inventory;
mod keys;
mod restore;
mod shares;
mod snapshot;
mod storage;
mod unseal;

use self::inventory::{Canary, Inventory};
use self::storage::Storage;
use super::inspect::Inspect;
use super::server::Server;
use super::streams::{self, DumpStream, Taker};
use super::volume::{self, Place};
use super::{Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work};
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::repository::Reader;
use crate::secrets::{SealStatus, Secret, VaultError};
use crate::spec::file::{SecretRef, VaultSource};

const ENGINE: &str = "vault";

/// Integrated storage, as its own snapshot.
const SNAPSHOT: &str = "/storage.snapshot";
/// File storage, as the volume engine would take it.
const FOLDER: &str = "/storage.tar";
const INVENTORY: &str = "/inventory.json";

pub(super) struct Vault {
    source: VaultSource,
    ground: Ground,
}

/// What an artifact is, by its name.
fn inspector(name: &str) -> Option<Inspect> {
    match name {
        SNAPSHOT => Some(snapshot::inspect as Inspect),
        FOLDER => Some(storage::inspect as Inspect),
        INVENTORY => Some(inventory::inspect as Inspect),
        keys::AGE | keys::GPG => Some(keys::inspect as Inspect),
        _ => None,
    }
}

impl Vault {
    pub(super) fn new(source: &VaultSource, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone() }
    }

    fn status(&self) -> Result<SealStatus, EngineError> {
        Ok(self.ground.secrets.vault_server()?.seal_status()?)
    }

    fn state(&self) -> Result<SourceState, EngineError> {
        let status = self.status()?;
        let sealed = || VaultError::Sealed { address: self.address() };
        Ok(match (status.initialized, status.sealed, Storage::of(&status)?) {
            (false, ..) => SourceState::Empty,
            (true, false, _) | (true, true, Storage::File) => SourceState::HasData { bytes: None },
            (true, true, Storage::Raft) => return Err(sealed().into()),
        })
    }

    fn address(&self) -> String {
        self.ground.secrets.vault().map(|vault| vault.address.clone()).unwrap_or_default()
    }

    /// A secret that must be there, so that the one who reads it knows that all the others are.
    fn read_canary(&self) -> Result<Option<(&str, Secret)>, EngineError> {
        let Some(canary) = &self.source.canary else { return Ok(None) };
        let reference = SecretRef { vault: Some(canary.clone()), ..SecretRef::default() };
        Ok(Some((canary, self.ground.secrets.resolve(&reference)?)))
    }

    /// File storage. Nobody writes to it while the container is held still.
    fn take_folder(
        &self,
        server: &Server,
        mut all: Vec<DumpStream>,
        taker: Taker,
        request: TakeRequest<'_>,
        work: &Work<'_>,
    ) -> Result<Taken, EngineError> {
        let path = storage::folder(&self.source, server)?;
        let place = Place::folder(&self.ground, server.container.clone(), &path)?;
        // Opened first: it is held still for as long as the archive takes, and no longer.
        let site = place.open(false)?;
        all.push(DumpStream { inspect: storage::inspect, ..volume::stream(FOLDER, site, true) });
        let store = request.store;
        let paused = self.ground.stopped.pause(&server.docker, &server.container)?;
        let taken = streams::take(request, work, taker, all);
        match (taken, paused.go_on()) {
            (taken, Ok(())) => taken,
            (Ok(taken), Err(error)) => {
                store.discard(&taken.snapshot)?;
                Err(error.into())
            }
            (Err(failed), Err(error)) => Err(EngineError::Restore {
                doing: "the take".to_owned(),
                after: format!(
                    "the container {} is still paused ({}); run `docker unpause {}`",
                    server.container.name,
                    crate::model::chain(&error),
                    server.container.name
                ),
                source: Box::new(failed),
            }),
        }
    }
}

impl Engine for Vault {
    /// Gone: there is no such container. Empty: it is not initialised. Unknown: integrated storage that is sealed; file
    /// storage has data then, too, and can be replaced without asking the server.
    fn observe(&self) -> Observed<SourceState> {
        super::server::observe(&self.ground, &self.source.container, |_| self.state())
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let server = Server::find(&self.ground, &self.source.container)?;
        let status = self.status()?;
        if !status.initialized {
            return Err(EngineError::Bare { engine: ENGINE, container: server.container.name });
        }
        if status.sealed {
            return Err(VaultError::Sealed { address: self.address() }.into());
        }
        let vault = self.ground.secrets.vault_server_logged_in()?;
        let mut inventory = Inventory::of(&vault, &status)?;
        if let Some((reference, value)) = self.read_canary()? {
            let canary = Canary::of(reference, &value).map_err(EngineError::io("drawing a salt for", reference))?;
            inventory.canary = Some(canary);
        }
        let mut all = keys::streams(&self.source, &self.ground)?;
        all.push(DumpStream {
            name: INVENTORY.to_owned(),
            open: streams::from_bytes(inventory.to_bytes()?),
            inspect: inventory::inspect,
        });
        let version = format!("Vault {}", status.version);
        let taker = Taker { engine: ENGINE, version, image: Some(server.container.image_digest.clone()) };
        match Storage::of(&status)? {
            Storage::File => self.take_folder(&server, all, taker, request, work),
            Storage::Raft => {
                let open = move || Ok(Box::new(vault.download(snapshot::PATH)?) as Box<dyn std::io::Read + Send>);
                all.push(DumpStream { name: SNAPSHOT.to_owned(), open: Box::new(open), inspect: snapshot::inspect });
                streams::take(request, work, taker, all)
            }
        }
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        streams::prove(reader, taken, work, inspector)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        match target {
            RestoreTarget::Beside { folder } => streams::restore_beside(reader, taken, folder, work),
            RestoreTarget::InPlace | RestoreTarget::Missing => restore::in_place(self, reader, taken, work),
        }
    }
}
