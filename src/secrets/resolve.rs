//! From a reference in the file to the value, where that lies on this machine.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Secret, SecretError, prompt};
use crate::spec::file::{Passphrase, SecretRef};

/// A secret is a line or an identity file; whatever is larger is a mistake in the path.
const MAX_BYTES: u64 = 64 * 1024;

/// The value that `secret` refers to on this machine. Relative paths start from `base`, the folder of devstack.yaml.
pub(super) fn local(secret: &SecretRef, base: &Path) -> Result<Secret, SecretError> {
    match secret {
        SecretRef { env: Some(name), .. } => from_env(name),
        SecretRef { file: Some(path), .. } => from_file(&place(path, base)?),
        SecretRef { env: None, file: None, .. } => Err(SecretError::Nowhere),
    }
}

/// The passphrase, asked for on the terminal where the file says `prompt: true`.
pub(super) fn passphrase(passphrase: &Passphrase, base: &Path) -> Result<Secret, SecretError> {
    match passphrase {
        Passphrase { env: Some(name), .. } => from_env(name),
        Passphrase { file: Some(path), .. } => from_file(&place(path, base)?),
        Passphrase { prompt: true, .. } => prompt::ask("Passphrase of the repository: "),
        Passphrase { .. } => Err(SecretError::Nowhere),
    }
}

/// `~` is the home folder; what is relative starts from `base`.
pub(super) fn place(path: &Path, base: &Path) -> Result<PathBuf, SecretError> {
    let Ok(beneath) = path.strip_prefix("~") else { return Ok(base.join(path)) };
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(Path::new(&home).join(beneath)),
        None => Err(SecretError::NoHome { path: path.to_owned() }),
    }
}

fn from_env(name: &str) -> Result<Secret, SecretError> {
    let value = match std::env::var(name) {
        Ok(value) => value,
        Err(std::env::VarError::NotPresent) => return Err(SecretError::Unset { name: name.to_owned() }),
        Err(std::env::VarError::NotUnicode(_)) => return Err(SecretError::NotText { name: name.to_owned() }),
    };
    if value.is_empty() {
        return Err(SecretError::Empty { place: format!("the environment variable {name}") });
    }
    Ok(Secret::new(value))
}

fn from_file(path: &Path) -> Result<Secret, SecretError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SecretError::NoFile { path: path.to_owned() },
        _ => SecretError::Unreadable { path: path.to_owned(), source },
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    // Asked of the open file, so that what is checked is what is read.
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize));
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::FileNotText { path: path.to_owned() })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(SecretError::Empty { place: format!("the file {}", path.display()) });
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, SecretRef) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pass"), text).unwrap();
        fs::set_permissions(folder.path().join("pass"), fs::Permissions::from_mode(mode)).unwrap();
        (folder, SecretRef { file: Some("pass".into()), ..SecretRef::default() })
    }

    #[test]
    fn one_final_newline_is_not_part_of_the_secret() {
        let (folder, secret) = written("a b\n\n", 0o600);
        assert_eq!(local(&secret, folder.path()).ok().unwrap().expose(), "a b\n");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_way_out() {
        let (folder, secret) = written("hidden", 0o640);
        let error = local(&secret, folder.path()).err().unwrap();
        assert!(matches!(error, SecretError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"));
        assert!(!error.to_string().contains("hidden"));
    }

    #[test]
    fn an_empty_file_and_a_missing_one_are_errors() {
        let (folder, secret) = written("\n", 0o600);
        assert!(matches!(local(&secret, folder.path()), Err(SecretError::Empty { .. })));
        let missing = SecretRef { file: Some("none".into()), ..SecretRef::default() };
        assert!(matches!(local(&missing, folder.path()), Err(SecretError::NoFile { .. })));
        let unset = SecretRef { env: Some("DEVSTACK_TEST_UNSET_VARIABLE".into()), ..SecretRef::default() };
        assert!(matches!(local(&unset, folder.path()), Err(SecretError::Unset { .. })));
    }
}
