//! Where an engine stands: the folder of devstack.yaml, the home folder, the stack's containers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::runtime::{Containers, StoppedBook};
use crate::secrets::Secrets;
use crate::spec::file::{Runtime, Vault};
use crate::spec::paths;

#[derive(Clone)]
pub struct Ground {
    /// The folder of devstack.yaml: relative paths start from it.
    pub base: PathBuf,
    pub home: Option<PathBuf>,
    pub containers: Arc<Containers>,
    pub secrets: Arc<Secrets>,
    /// Which containers are stopped for a take.
    pub stopped: StoppedBook,
    pub vault: VaultRestore,
}

/// What the person who restores a Vault has said beside the approval.
#[derive(Debug, Clone, Default)]
pub struct VaultRestore {
    /// The age identity that its key files are encrypted to.
    pub escrow: Option<PathBuf>,
    /// It may replace a Vault that has other keys.
    pub force: bool,
}

impl Ground {
    pub fn new(runtime: Option<&Runtime>, vault: Option<&Vault>, base: &Path, home: Option<&Path>) -> Self {
        Self {
            base: base.to_owned(),
            home: home.map(Path::to_owned),
            containers: Arc::new(Containers::new(runtime, base, home)),
            secrets: Arc::new(Secrets::new(vault, base, home)),
            stopped: StoppedBook::new(base.join(".devstack/stopped")),
            vault: VaultRestore::default(),
        }
    }

    /// A path of the file as it is on this machine.
    pub fn path(&self, path: &Path) -> PathBuf {
        paths::resolve(&self.base, self.home.as_deref(), path)
    }
}
