//! A new random passphrase in a file of its own.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Secret, SecretError};

/// As many bits as the repository's own keys have.
const BYTES: usize = 32;

/// Writes 32 random bytes in hexadecimal to `path`, which must not exist, with mode 0600. Folders that are missing are
/// made with mode 0700. It is on disk when this returns: a repository made with a lost key could never be opened.
pub fn generate(path: &Path) -> Result<Secret, SecretError> {
    let mut random = Zeroizing::new([0_u8; BYTES]);
    let unwritable = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => SecretError::Exists { path: path.to_owned() },
        _ => SecretError::Unwritable { path: path.to_owned(), source },
    };
    getrandom::fill(&mut *random).map_err(|error| unwritable(io::Error::other(error)))?;
    let secret = Secret::new(hex::encode(*random));
    write(path, &secret).map_err(unwritable)?;
    Ok(secret)
}

fn write(path: &Path, secret: &Secret) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // Written beside and linked into place: a file cut short by a kill would later be taken for the passphrase.
    let mut unique = [0_u8; 8];
    getrandom::fill(&mut unique).map_err(io::Error::other)?;
    let staged = folder.join(format!(".generating-{}", hex::encode(unique)));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    let written = file.write_all(secret.expose().as_bytes()).and_then(|()| file.write_all(b"\n"));
    let linked = written.and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&staged, path));
    fs::remove_file(&staged)?;
    linked?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_generated_secret_is_private_and_never_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/pass");
        let secret = generate(&path).ok().unwrap();
        assert_eq!(secret.expose().len(), 64);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", secret.expose()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(generate(&path), Err(SecretError::Exists { .. })));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
