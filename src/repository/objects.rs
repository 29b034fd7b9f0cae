//! The small objects that lie beside the restic files: key sidecars and leases. Four operations, so that a store of any
//! kind can offer them; a store that cannot put-if-absent can hold neither.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Objects under `devstack/` of a repository, by slash-separated names such as `keys/0a1b….age` or `leases/shop.9f…`.
pub trait Objects: Send + Sync {
    /// None when there is no such object.
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Full names of the objects whose name starts with `prefix`, sorted.
    fn list(&self, prefix: &str) -> io::Result<Vec<String>>;

    /// False when an object of that name is there already; exactly one of several callers at once gets true.
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> io::Result<bool>;

    /// Replaces as a whole: a reader sees the old bytes or the new ones. For objects that only one process may write.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Deleting what is not there is success.
    fn delete(&self, name: &str) -> io::Result<()>;
}

/// Objects in a folder of the local disk. Files are 0600, folders 0700.
#[derive(Debug, Clone)]
pub struct LocalObjects {
    root: PathBuf,
}

impl LocalObjects {
    /// `root` is the repository's folder; objects lie in `devstack/` in it.
    pub fn new(repository: &Path) -> Self {
        Self { root: repository.join("devstack") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A private file beside the target, synced, ready to be linked or renamed into place.
    fn staged(&self, path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
        let folder = path.parent().unwrap_or(&self.root);
        create_private_folder(folder)?;
        let mut unique = [0_u8; 8];
        getrandom::fill(&mut unique).map_err(io::Error::other)?;
        // The dot keeps a leftover of a killed process out of `list`.
        let staged = folder.join(format!(".staged-{}", hex::encode(unique)));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        match file.write_all(bytes).and_then(|()| file.sync_all()) {
            Ok(()) => Ok(staged),
            // A disk that is full is not filled further at each try.
            Err(error) => {
                let _ = fs::remove_file(&staged);
                Err(error)
            }
        }
    }
}

fn create_private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

impl Objects for LocalObjects {
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in walkdir::WalkDir::new(&self.root) {
            let entry = match entry {
                Ok(entry) => entry,
                // The folder, or a file in it, is gone: there is nothing there to list.
                Err(error) if error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            if !entry.file_type().is_file() || entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let name = entry.path().strip_prefix(&self.root).map_err(io::Error::other)?.to_string_lossy().into_owned();
            if name.starts_with(prefix) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let path = self.path(name);
        let staged = self.staged(&path, bytes)?;
        // A hard link appears whole or not at all, and fails if the name is taken.
        let linked = fs::hard_link(&staged, &path);
        fs::remove_file(&staged)?;
        match linked {
            Ok(()) => sync_folder(&path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let staged = self.staged(&path, bytes)?;
        fs::rename(&staged, &path)?;
        sync_folder(&path)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_of_two_puts_wins() {
        let folder = tempfile::tempdir().unwrap();
        let objects = LocalObjects::new(folder.path());
        assert!(objects.put_if_absent("leases/shop.1", b"one").unwrap());
        assert!(!objects.put_if_absent("leases/shop.1", b"two").unwrap());
        assert_eq!(objects.get("leases/shop.1").unwrap().unwrap(), b"one");
        objects.replace("leases/shop.1", b"three").unwrap();
        assert_eq!(objects.get("leases/shop.1").unwrap().unwrap(), b"three");
        assert_eq!(objects.list("leases/").unwrap(), ["leases/shop.1"]);
        assert_eq!(objects.list("keys/").unwrap(), Vec::<String>::new());
        objects.delete("leases/shop.1").unwrap();
        objects.delete("leases/shop.1").unwrap();
        assert_eq!(objects.get("leases/shop.1").unwrap(), None);
    }
}
