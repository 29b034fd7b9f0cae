//! From a reference in the file to the value, where that lies on this machine.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::env_file::ComposeVariables;
use super::{Secret, SecretError, prompt};
use crate::spec::file::{DockerRuntime, Passphrase, SecretRef};
use crate::spec::paths;

/// A secret is a line or an identity file; whatever is larger is a mistake in the path.
const MAX_BYTES: u64 = 64 * 1024;

/// This machine, as the file sees it.
#[derive(Debug, Clone)]
pub(super) struct Here {
    /// The folder of devstack.yaml, from which relative paths start.
    pub base: PathBuf,
    variables: ComposeVariables,
}

impl Here {
    pub fn new(docker: Option<&DockerRuntime>, base: &Path, home: Option<&Path>) -> Self {
        Self { base: base.to_owned(), variables: ComposeVariables::of(docker, base, home) }
    }

    /// The value that `secret` refers to on this machine.
    pub fn local(&self, secret: &SecretRef) -> Result<Secret, SecretError> {
        match secret {
            SecretRef { env: Some(name), .. } => from_env(name),
            SecretRef { file: Some(path), .. } => from_file(&place(path, &self.base)?, Made::BySomebody),
            SecretRef { env_file: Some(path), name: Some(name), .. } => self.variable(path, name),
            SecretRef { env: None, file: None, .. } => Err(SecretError::Nowhere),
        }
    }

    /// The passphrase, asked for on the terminal where the file says `prompt: true`.
    pub fn passphrase(&self, passphrase: &Passphrase) -> Result<Secret, SecretError> {
        match passphrase {
            Passphrase { env: Some(name), .. } => from_env(name),
            Passphrase { file: Some(path), generate, .. } => {
                let made = if *generate { Made::ByDevstack } else { Made::BySomebody };
                from_file(&place(path, &self.base)?, made)
            }
            Passphrase { env_file: Some(path), name: Some(name), .. } => self.variable(path, name),
            Passphrase { prompt: true, .. } => prompt::ask("Passphrase of the repository: "),
            Passphrase { .. } => Err(SecretError::Nowhere),
        }
    }

    fn variable(&self, path: &Path, name: &str) -> Result<Secret, SecretError> {
        // As it stands among Compose's own files: without `.` and `..`.
        let path = paths::resolve(Path::new("/"), None, &place(path, &self.base)?);
        self.variables.value(&path, name)
    }
}

/// Who has made a secret file, and so says who may read it. Of one that devstack has not made, its owner: the user of a
/// container may have to. The file's check warns of it.
enum Made {
    ByDevstack,
    BySomebody,
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

fn from_file(path: &Path, made: Made) -> Result<Secret, SecretError> {
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
    if matches!(made, Made::ByDevstack) && meta.mode() & 0o077 != 0 {
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

    fn local(secret: &SecretRef, base: &Path) -> Result<Secret, SecretError> {
        Here::new(None, base, None).local(secret)
    }

    #[test]
    fn one_final_newline_is_not_part_of_the_secret() {
        let (folder, secret) = written("a b\n\n", 0o600);
        assert_eq!(local(&secret, folder.path()).ok().unwrap().expose(), "a b\n");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_only_where_devstack_made_it() {
        let (folder, secret) = written("hidden", 0o644);
        // A container's user may have to read it: its owner says who may.
        assert_eq!(local(&secret, folder.path()).ok().unwrap().expose(), "hidden");
        let here = Here::new(None, folder.path(), None);
        let passphrase = |generate| Passphrase { file: Some("pass".into()), generate, ..Passphrase::default() };
        assert_eq!(here.passphrase(&passphrase(false)).ok().unwrap().expose(), "hidden");
        let error = here.passphrase(&passphrase(true)).err().unwrap();
        assert!(matches!(error, SecretError::Exposed { mode: 0o644, .. }));
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
