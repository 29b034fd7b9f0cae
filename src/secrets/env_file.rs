//! A variable of a file such as `.env`, with the value that Compose gives it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Secret, SecretError};
use crate::spec::dotenv::{self, Variables};
use crate::spec::file::{DockerRuntime, variable_files};

/// The files that Compose takes its own variables from. In these a variable of the environment goes before, as it does for
/// Compose: devstack and the container get one password. In any other file, such as the `env_file` of a Compose service,
/// the file's value holds.
#[derive(Debug, Clone, Default)]
pub(super) struct ComposeVariables {
    groups: Vec<Vec<PathBuf>>,
    /// Somebody has declared them, so they must be there.
    declared: bool,
}

impl ComposeVariables {
    pub fn of(docker: Option<&DockerRuntime>, base: &Path, home: Option<&Path>) -> Self {
        let declared = docker.is_some_and(|docker| !docker.env_files.is_empty());
        Self { groups: variable_files(docker, base, home), declared }
    }

    /// The variable `name` of the file at `path`, which is absolute.
    pub fn value(&self, path: &Path, name: &str) -> Result<Secret, SecretError> {
        let own = self.groups.iter().flatten().any(|file| file == path);
        if own && let Some(value) = of_environment(name) {
            let place =
                || format!("the environment variable {name}, which goes before {} as for Compose,", path.display());
            return not_empty(&value, place);
        }
        if own && !path.exists() {
            return Err(SecretError::NoFile { path: path.to_owned() });
        }
        let all = self.all()?;
        if own {
            return found(all.iter().find_map(|variables| variables.get(name)), path, name);
        }
        let outside = |name: &str| {
            let ours =
                || all.iter().find_map(|variables| variables.get(name)).map(|value| Zeroizing::new(value.to_owned()));
            of_environment(name).or_else(ours)
        };
        let mut variables = Variables::default();
        read(path, &mut variables, &outside)?;
        found(variables.get(name), path, name)
    }

    fn all(&self) -> Result<Vec<Variables>, SecretError> {
        let mut all: Vec<Variables> = Vec::new();
        for group in &self.groups {
            let mut variables = Variables::default();
            for file in group.iter().filter(|file| self.declared || file.is_file()) {
                let outside = |name: &str| {
                    let earlier =
                        || all.iter().find_map(|before| before.get(name)).map(|value| Zeroizing::new(value.to_owned()));
                    of_environment(name).or_else(earlier)
                };
                read(file, &mut variables, &outside)?;
            }
            all.push(variables);
        }
        Ok(all)
    }
}

fn of_environment(name: &str) -> Option<Zeroizing<String>> {
    std::env::var(name).ok().map(Zeroizing::new)
}

fn found(value: Option<&str>, path: &Path, name: &str) -> Result<Secret, SecretError> {
    match value {
        Some(value) => not_empty(value, || format!("the variable {name} of {}", path.display())),
        None => Err(SecretError::NotInFile { path: path.to_owned(), name: name.to_owned() }),
    }
}

fn not_empty(value: &str, place: impl Fn() -> String) -> Result<Secret, SecretError> {
    match value.is_empty() {
        true => Err(SecretError::Empty { place: place() }),
        false => Ok(Secret::new(value.to_owned())),
    }
}

fn read(
    path: &Path,
    into: &mut Variables,
    outside: &dyn Fn(&str) -> Option<Zeroizing<String>>,
) -> Result<(), SecretError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SecretError::NoFile { path: path.to_owned() },
        _ => SecretError::Unreadable { path: path.to_owned(), source },
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(about.len().min(dotenv::LARGEST) as usize));
    file.take(dotenv::LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > dotenv::LARGEST {
        return Err(SecretError::TooLarge { path: path.to_owned() });
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::FileNotText { path: path.to_owned() })?;
    dotenv::read(text, into, outside).map_err(|source| SecretError::Variables { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        fn value(&self, docker: DockerRuntime, file: &str, name: &str) -> String {
            let base = self.0.path();
            match ComposeVariables::of(Some(&docker), base, None).value(&base.join(file), name) {
                Ok(secret) => secret.expose().to_owned(),
                Err(error) => crate::model::chain(&error).replace(&*base.to_string_lossy(), "."),
            }
        }
    }

    #[test]
    fn a_password_is_what_compose_gives_the_container() {
        let folder = Folder::with(&[
            (".env", "BASE=k3y\nPASSWORD=${BASE}$$with$$dollars\nEMPTY=\n"),
            ("db.env", "PASSWORD=\"${BASE} & B\"\nHOME=file\n"),
            ("broken.env", "A=1\nhunter2 hunter2!\n"),
        ]);
        let value = |file: &str, name: &str| folder.value(DockerRuntime::default(), file, name);
        assert_eq!(value(".env", "PASSWORD"), "k3y$with$dollars");
        assert_eq!(value("db.env", "PASSWORD"), "k3y & B");
        // The environment goes before Compose's own files only.
        assert_eq!(value(".env", "PATH"), std::env::var("PATH").unwrap());
        assert_eq!(value("db.env", "HOME"), "file");
        assert_eq!(
            [value(".env", "EMPTY"), value(".env", "PASWORD"), value("no.env", "A"), value("broken.env", "A")],
            [
                "the secret in the variable EMPTY of ./.env is empty: put the value there",
                "./.env sets no variable PASWORD: add it there, or correct `name` in the file",
                "the secret file ./no.env does not exist: put it there, or name another place in the file",
                "the variables in ./broken.env cannot be read: line 2: no `=` follows what should be a variable's name: \
                 begin a comment with #, and put a value of several lines in quotes",
            ]
        );
    }

    #[test]
    fn several_files_are_read_as_compose_reads_them() {
        let folder = Folder::with(&[
            (".env", "A=root\nB=root\n"),
            ("one.env", "A=one\nB=one\n"),
            ("two.env", "B=two-$A\n"),
            ("deploy/.env", "A=deploy\nC=deploy-$A\n"),
        ]);
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect();
        let declared = || DockerRuntime { env_files: files(&["one.env", "two.env"]), ..DockerRuntime::default() };
        assert_eq!(folder.value(declared(), "one.env", "B"), "two-one");
        // `.env` is none of Compose's own then.
        assert_eq!(folder.value(declared(), ".env", "B"), "root");
        let below = || DockerRuntime { compose: files(&["deploy/compose.yml"]), ..DockerRuntime::default() };
        assert_eq!(folder.value(below(), "deploy/.env", "C"), "deploy-root");
        assert_eq!(folder.value(below(), "deploy/.env", "A"), "root");
    }
}
