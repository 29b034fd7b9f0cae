//! A Vault's storage put back into its container, and then all that it takes until services can read from it: unsealed,
//! active, the canary read, what is set up compared with the inventory, secret-ids issued anew.

use std::io;

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::inventory::Inventory;
use super::shares::{self, Share};
use super::storage::{self, Storage};
use super::unseal::{self, until};
use super::{FOLDER, INVENTORY, SNAPSHOT, Vault, approle, inspector, keys, snapshot};
use crate::engines::server::Server;
use crate::engines::volume::{self, Place};
use crate::engines::{EngineError, Restored, Work, streams};
use crate::model::observation::ContainerState;
use crate::model::run::{Artifact, Taken};
use crate::repository::{Reader, RepositoryError};
use crate::secrets::{SealStatus, Secret, VaultError, VaultServer};

/// A mark in the token's own cubbyhole: it is in no snapshot, so a restore that has been carried out has taken it away.
const MARK: &str = "cubbyhole/devstack-restore";

/// What is put back, and where.
struct Restoring<'a> {
    vault: &'a Vault,
    reader: &'a Reader,
    taken: &'a Taken,
    storage: &'a Artifact,
    work: &'a Work<'a>,
    container: Server,
    /// Asked without a login.
    server: VaultServer,
    backup: Inventory,
    now: SealStatus,
}

/// What a running Vault is to the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is not initialised.
    Empty,
    /// The one that the backup was taken of.
    Same,
    /// Another one, or one that cannot be told while it is sealed.
    Other,
}

pub(super) fn in_place(
    vault: &Vault,
    reader: &Reader,
    taken: &Taken,
    work: &Work<'_>,
) -> Result<Restored, EngineError> {
    streams::must_be_whole(reader, taken, work, inspector)?;
    let named = |name: &str| taken.artifacts.iter().find(|artifact| artifact.name == name);
    let damaged = |what: &str| EngineError::Damaged { findings: vec![what.to_owned()] };
    let storage = named(SNAPSHOT).or_else(|| named(FOLDER)).ok_or_else(|| damaged("it holds no storage"))?;
    let listed = named(INVENTORY).ok_or_else(|| damaged("it holds no inventory"))?;
    let backup = Inventory::parse(&streams::small(reader, taken, listed, work)?).map_err(|why| damaged(&why))?;
    let container = Server::find(&vault.ground, &vault.source.container)?;
    let server = vault.ground.secrets.vault_server()?;
    let now = unseal::answering(&server, work)?;
    let now = opened_by_its_keys(vault, &server, &container, &backup, now, work)?;
    let restoring = Restoring { vault, reader, taken, storage, work, container, server, backup, now };
    restoring.run()
}

impl Restoring<'_> {
    fn run(&self) -> Result<Restored, EngineError> {
        let kind = Storage::named(&self.backup.server.storage)?;
        let standing = standing(&self.backup, &self.now);
        self.refuse_unfit(kind, standing)?;
        let mut notes = keys::bring_back(&self.vault.source, &self.vault.ground, self.reader, self.taken, self.work)?;
        let shares = match (kind, standing, self.vault.ground.vault.force) {
            // It keeps its keys and stays open.
            (Storage::Raft, Standing::Same, false) => Vec::new(),
            _ => self.shares()?,
        };
        // Refused above where it may not be, so that nothing was touched until here.
        match (kind, standing) {
            (Storage::File, _) => notes.extend(self.folder()?),
            (Storage::Raft, Standing::Empty) => self.fill_empty()?,
            (Storage::Raft, Standing::Same) if !self.vault.ground.vault.force => self.take_back()?,
            (Storage::Raft, _) => {
                let vault = self.vault.ground.secrets.vault_server_logged_in()?;
                self.forced(&vault)?;
            }
        }
        self.vault.ground.secrets.forget_login();
        self.opened(&shares, &mut notes).map_err(|source| EngineError::Restore {
            doing: "opening the restored Vault".to_owned(),
            after: "its storage is that of the backup. Put right what is said here; then either go on by hand (docs/engines/vault.md, \
                    \"After a restore that stopped half-way\"), or restore again"
                .to_owned(),
            source: Box::new(source),
        })?;
        let to = format!("the container {}", self.container.container.name);
        Ok(Restored { to, bytes: self.taken.bytes(), notes })
    }

    /// Everything that can be known to go wrong, before anything is touched.
    fn refuse_unfit(&self, kind: Storage, standing: Standing) -> Result<(), EngineError> {
        let refused = |what: String| Err(EngineError::Refused { what });
        let name = &self.container.container.name;
        let here = Storage::of(&self.now)?;
        if here != kind {
            return refused(format!(
                "the backup is of {} storage, and the Vault in the container {name} has {} storage; set it up as the other \
                 was, with an empty volume",
                kind.name(),
                here.name()
            ));
        }
        if self.now.kind != self.backup.server.seal {
            return refused(format!(
                "the backup is of a Vault with the seal {}, and the one in the container {name} has the seal {}; set its \
                 seal up as the other's was",
                self.backup.server.seal, self.now.kind
            ));
        }
        let force = self.vault.ground.vault.force;
        match (kind, standing) {
            (Storage::Raft, Standing::Other) if self.now.sealed => refused(format!(
                "the Vault in the container {name} is sealed, and takes a snapshot only when it is open; unseal it, or give \
                 it an empty volume. Nothing was touched"
            )),
            (Storage::File, Standing::Other) if self.now.sealed && !force => refused(format!(
                "the Vault in the container {name} is sealed, so that nobody can tell whether the backup is of it; unseal \
                 it, or say with `--force` that it may be replaced whichever it is. Nothing was touched"
            )),
            (_, Standing::Other) if !force => refused(format!(
                "the Vault in the container {name} is another one ({}) than the backup is of ({}); say with `--force` that \
                 it may be replaced. Nothing was touched",
                shown(&self.now.cluster_name, &self.now.cluster_id),
                shown(&self.backup.server.cluster_name, &self.backup.server.cluster_id),
            )),
            _ => Ok(()),
        }
    }

    /// As many as the backup's Vault wants; none where it unseals itself.
    fn shares(&self) -> Result<Vec<Share>, EngineError> {
        if !self.now.by_shares() {
            return Ok(Vec::new());
        }
        let wanted = usize::try_from(self.backup.server.threshold).unwrap_or(usize::MAX);
        let shares = shares::gather(&self.vault.ground, wanted)?;
        if shares.len() == wanted {
            return Ok(shares);
        }
        let what = format!(
            "the restored Vault will want {wanted} unseal keys, and `vault.unseal` leads to {}; say there where more of \
             them are (`prompt: true` asks for them). Nothing was touched",
            shares.len()
        );
        Err(EngineError::Refused { what })
    }

    /// A server without anything: it takes a snapshot only once it is initialised and open, with keys that end with it.
    fn fill_empty(&self) -> Result<(), EngineError> {
        #[derive(Deserialize)]
        struct Made {
            #[serde(default)]
            keys: Vec<Secret>,
            root_token: Secret,
        }
        let one = if self.now.by_shares() { "secret" } else { "recovery" };
        let body = json!({ format!("{one}_shares"): 1, format!("{one}_threshold"): 1 });
        let answer = self.server.ask("POST", "sys/init", Some(&body))?;
        if answer.status() != 200 {
            let what = format!("Vault was not initialised: {}", answer.errors().join("; "));
            return Err(EngineError::Refused { what });
        }
        let made: Made = answer.json("sys/init")?;
        let done = || {
            if self.now.by_shares() {
                let key = made.keys.first().and_then(|key| hex::decode(key.expose()).ok()).map(Zeroizing::new);
                unseal::open(&self.server, key.as_slice())?;
            }
            unseal::active(&self.server, self.work, || None)?;
            self.forced(&self.vault.ground.secrets.vault_server_as(&made.root_token)?)
        };
        done().map_err(|source| EngineError::Restore {
            doing: "restoring into the empty Vault".to_owned(),
            after: "it may be initialised with keys that nobody has; give it an empty volume, then restore again"
                .to_owned(),
            source: Box::new(source),
        })
    }

    /// The Vault that the backup was taken of, or one with its keys: it stays open.
    fn take_back(&self) -> Result<(), EngineError> {
        let vault = self.vault.ground.secrets.vault_server_logged_in()?;
        vault.write(MARK, &json!({ "restored": "no" }))?;
        self.pour(&vault, snapshot::PATH)?;
        // It is answered before it is carried out.
        until("the snapshot to be applied", self.work, || {
            let there = vault.ask("GET", MARK, None)?.status() == 200;
            Ok((!there).then_some(()))
        })
    }

    /// Whatever is there: it seals itself when it has taken the snapshot. It is started anew, since until then it counts by
    /// the shares that it was initialised with, and may take itself for a node that was removed.
    fn forced(&self, vault: &VaultServer) -> Result<(), EngineError> {
        self.pour(vault, snapshot::FORCED)?;
        until("Vault to take the snapshot and to seal itself", self.work, || {
            Ok(self.server.seal_status()?.sealed.then_some(()))
        })?;
        self.restarted()
    }

    fn restarted(&self) -> Result<(), EngineError> {
        let Server { docker, container } = &self.container;
        self.vault.ground.stopped.stop(docker, std::slice::from_ref(container))?.start_again()?;
        Ok(())
    }

    fn pour(&self, vault: &VaultServer, path: &'static str) -> Result<(), EngineError> {
        let mut upload = vault.upload(path, self.storage.bytes.0)?;
        let poured = self.reader.read_stream(
            &self.taken.snapshot,
            &self.storage.name,
            &mut upload,
            self.work.cancel,
            self.work.progress,
        );
        match poured {
            Ok(_) => {}
            // The server has stopped reading, and its answer says why.
            Err(RepositoryError::Sink { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error.into()),
        }
        let answer = upload.finish()?;
        match answer.status() {
            200..300 => Ok(()),
            403 => Err(vault.denied(path, "update").into()),
            400 if answer.errors().iter().any(|error| error.contains("could not verify hash")) => {
                Err(EngineError::Refused {
                    what: "the snapshot was taken under other keys than this Vault has now (another Vault, or one that was \
                           rekeyed since); say with `--force` that it may be replaced. What was there is there"
                        .to_owned(),
                })
            }
            status => {
                let doing = format!("writing {path}");
                Err(VaultError::Answer { doing, status, errors: answer.errors() }.into())
            }
        }
    }

    /// File storage: replaced while the container is stopped.
    fn folder(&self) -> Result<Vec<String>, EngineError> {
        let Server { docker, container } = &self.container;
        let path = storage::folder(&self.vault.source, &self.container)?;
        let place = Place::folder(&self.vault.ground, container.clone(), &path)?;
        let mut writers: Vec<ContainerState> = place.writers().cloned().collect();
        if !volume::holds(&writers, container) {
            writers.push(container.clone());
        }
        // Opened first: it stops for no longer than it must.
        let site = place.open(true)?;
        let stopped = self.vault.ground.stopped.stop(docker, &writers)?;
        let put = volume::put_back(&place, &site, self.reader, self.taken, self.storage, self.work);
        drop(site);
        Ok(volume::started_again(stopped, put, |_| Ok(()))?.notes)
    }

    /// From a storage in its place to services that can read from it.
    fn opened(&self, shares: &[Share], notes: &mut Vec<String>) -> Result<(), EngineError> {
        let Vault { source, ground } = self.vault;
        let since = jiff::Timestamp::now();
        let now = unseal::answering(&self.server, self.work)?;
        if now.sealed && now.by_shares() {
            let fetched;
            let shares = match shares {
                // One that should have stayed open.
                [] => {
                    fetched = self.shares()?;
                    &fetched
                }
                shares => shares,
            };
            unseal::open(&self.server, shares)?;
        } else if now.sealed {
            until("Vault to unseal itself", self.work, || Ok((!self.server.seal_status()?.sealed).then_some(())))?;
        }
        unseal::active(&self.server, self.work, || says_why(&self.container, since))?;
        let canary = self.vault.read_canary()?;
        let vault = ground.secrets.vault_server_logged_in()?;
        let mut findings = self.backup.differences(&Inventory::of(&vault, &self.server.seal_status()?)?);
        match (&self.backup.canary, canary) {
            (Some(then), Some((reference, now))) if then.reference == reference && !then.is(&now) => {
                findings.push(format!("the canary {reference} is another"));
            }
            _ => {}
        }
        if !findings.is_empty() {
            return Err(EngineError::Differs { what: "what is set up in Vault".to_owned(), findings });
        }
        let issued = approle::issue(&vault, &source.approles, ground)?;
        if !issued.is_empty() {
            let files = issued.join(", ");
            notes.push(format!("secret-ids issued anew: {files}; restart the services that have read the old ones"));
        }
        Ok(())
    }
}

/// A restore that stopped after the storage was put back leaves a sealed Vault of which nobody can tell whose it is. If the keys
/// at hand open it, it is known.
fn opened_by_its_keys(
    vault: &Vault,
    server: &VaultServer,
    container: &Server,
    backup: &Inventory,
    now: SealStatus,
    work: &Work<'_>,
) -> Result<SealStatus, EngineError> {
    let wanted = usize::try_from(backup.server.threshold).unwrap_or(usize::MAX);
    if !now.initialized || !now.sealed || !now.by_shares() || vault.ground.vault.force {
        return Ok(now);
    }
    // Their files may come back with this very restore.
    let shares = match shares::at_hand(&vault.ground, wanted) {
        Ok(shares) if shares.len() == wanted => shares,
        Ok(_) | Err(_) => return Ok(now),
    };
    let since = jiff::Timestamp::now();
    match unseal::try_open(server, &shares)? {
        false => Ok(server.seal_status()?),
        true => {
            unseal::active(server, work, || says_why(container, since))?;
            Ok(server.seal_status()?)
        }
    }
}

/// What the server's log says of why it can't be active.
fn says_why(container: &Server, since: jiff::Timestamp) -> Option<String> {
    let log = container.docker.said_since(&container.container, since).ok()?;
    unseal::reason_in(&log)
}

fn standing(backup: &Inventory, now: &SealStatus) -> Standing {
    match (now.initialized, &now.cluster_id, &backup.server.cluster_id) {
        (false, ..) => Standing::Empty,
        (true, Some(here), Some(there)) if !now.sealed && here == there => Standing::Same,
        (true, ..) => Standing::Other,
    }
}

fn shown(name: &Option<String>, id: &Option<String>) -> String {
    let name = name.as_deref().unwrap_or("without a name");
    id.as_deref().map_or_else(|| name.to_owned(), |id| format!("{name}, {id}"))
}
