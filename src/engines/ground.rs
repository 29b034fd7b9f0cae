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
    /// What stands for `/`: every path of the file lies below it. A drill has a folder of its own here.
    pub root: PathBuf,
    /// What of this machine is devstack's own, and is not taken with the folders that it lies in.
    pub own: Vec<PathBuf>,
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
    pub keys: KeyFiles,
}

/// Where the files are that open a restored Vault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyFiles {
    /// Below what stands for `/`. Those that are missing there come out of the backup, by the escrow.
    #[default]
    InPlace,
    /// Those of the machine, whatever stands for `/`: a drill that is given no escrow.
    OfMachine,
}

impl Ground {
    pub fn new(runtime: Option<&Runtime>, vault: Option<&Vault>, base: &Path, home: Option<&Path>) -> Self {
        let docker = runtime.and_then(|runtime| runtime.docker.as_ref());
        Self {
            base: base.to_owned(),
            home: home.map(Path::to_owned),
            root: PathBuf::from("/"),
            own: vec![base.join(".devstack")],
            containers: Arc::new(Containers::new(runtime, base, home)),
            secrets: Arc::new(Secrets::new(docker, vault, base, home)),
            stopped: StoppedBook::new(base.join(".devstack/stopped")),
            vault: VaultRestore::default(),
        }
    }

    /// The same stack with its files below `root` and with other containers. Its secrets are found where they are, until
    /// others are given.
    pub fn apart(&self, root: &Path, containers: Containers, stopped: StoppedBook) -> Self {
        Self {
            base: below(root, &self.base),
            home: self.home.as_deref().map(|home| below(root, home)),
            root: root.to_owned(),
            own: self.own.iter().map(|path| below(root, path)).collect(),
            containers: Arc::new(containers),
            secrets: Arc::clone(&self.secrets),
            stopped,
            vault: VaultRestore::default(),
        }
    }

    /// Whether it is another than the live stack's.
    pub fn is_apart(&self) -> bool {
        self.root != Path::new("/")
    }

    /// A path of the file below what stands for `/`.
    pub fn path(&self, path: &Path) -> PathBuf {
        // Worked out where the stack is, so that `..` leads to the same place.
        let live = self.live_path(path);
        if self.root == Path::new("/") { live } else { below(&self.root, &live) }
    }

    /// A path of the file as it is on this machine.
    pub fn live_path(&self, path: &Path) -> PathBuf {
        if self.root == Path::new("/") {
            return paths::resolve(&self.base, self.home.as_deref(), path);
        }
        let live = |place: &Path| Path::new("/").join(place.strip_prefix(&self.root).unwrap_or(place));
        let home = self.home.as_deref().map(live);
        paths::resolve(&live(&self.base), home.as_deref(), path)
    }

    /// A key file of Vault, where it is to be found.
    pub fn key_file(&self, path: &Path) -> PathBuf {
        match self.vault.keys {
            KeyFiles::InPlace => self.path(path),
            KeyFiles::OfMachine => self.live_path(path),
        }
    }
}

/// The place of a path of this machine below another root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Containers;

    #[test]
    fn apart_no_path_of_the_file_leads_out_of_the_root() {
        let live = Ground::new(None, None, Path::new("/srv/shop"), Some(Path::new("/home/shop")));
        assert_eq!(live.path(Path::new("data")), Path::new("/srv/shop/data"));
        let none = Containers::new(None, Path::new("/"), None);
        let apart = live.apart(Path::new("/scratch/r"), none, StoppedBook::new("/scratch/s".into()));
        for (given, there) in [
            ("data", "/scratch/r/srv/shop/data"),
            ("../other", "/scratch/r/srv/other"),
            ("/etc/shop.conf", "/scratch/r/etc/shop.conf"),
            ("~/x", "/scratch/r/home/shop/x"),
            ("../../../../../../etc/shadow", "/scratch/r/etc/shadow"),
            ("../../../s", "/scratch/r/s"),
        ] {
            assert_eq!(apart.path(Path::new(given)), Path::new(there), "{given}");
        }
    }
}
