//! A secret's file, written as a whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Whose a file is, and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Writes a file so that a reader sees the old one or the new one. It gets the attributes given, or those of the
/// file that is there; a new one is its writer's, and 0600.
pub fn write_whole(path: &Path, content: &[u8], attributes: Option<Attributes>) -> io::Result<()> {
    // A link stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let attributes = match (attributes, fs::metadata(&path)) {
        (Some(given), _) => Some(given),
        (None, Ok(there)) => Some(Attributes { mode: there.mode() & 0o7777, uid: there.uid(), gid: there.gid() }),
        (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
        (None, Err(error)) => return Err(error),
    };
    let mut unique = [0_u8; 8];
    getrandom::fill(&mut unique).map_err(io::Error::other)?;
    let staged = folder.join(format!(".devstack-{}", hex::encode(unique)));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        if let Some(Attributes { mode, uid, gid }) = attributes {
            let made = file.metadata()?;
            // Only root may give files away; who is not root writes them for itself.
            if (made.uid(), made.gid()) != (uid, gid) {
                match fchown(&file, Some(uid), Some(gid)) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    done => done?,
                }
            }
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&staged, &path)
    };
    let written = write();
    if written.is_err() {
        // What cannot be removed was not made.
        let _ = fs::remove_file(&staged);
    }
    written?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_new_one_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/secret-id");
        write_whole(&path, b"one", None).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"one".to_vec(), 0o600));
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_whole(&path, b"two", None).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o640));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_whole(&link, b"three", None).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"three");
        let other = folder.path().join("other");
        let here = fs::metadata(folder.path()).unwrap();
        write_whole(&other, b"x", Some(Attributes { uid: here.uid(), gid: here.gid(), mode: 0o400 })).unwrap();
        assert_eq!(mode(&other), 0o400);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing staged is left");
    }
}
