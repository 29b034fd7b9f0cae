//! From the file to a [`Spec`], or to everything that is wrong with it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::check::{self, Home};
use super::diagnostic::{Diagnostic, Rejected, Severity};
use super::file::Spec;
use super::node::Place;
use super::{exposed, mask, paths, structure, yaml};
use crate::model::ids::Digest;

/// A file that was read and found right.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub spec: Spec,
    pub digest: Digest,
    /// The folder of the file, absolute: what is relative in the file is relative to it.
    pub base: PathBuf,
    pub path: PathBuf,
    /// As it stands on disk, without a byte order mark.
    pub text: String,
    /// Render them with [`super::diagnostic::render`].
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks the file. `~` is the home folder of the user who runs this.
pub fn load(path: &Path) -> Result<Loaded, Rejected> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|refusal| {
        let diagnostic = whole(refusal.message, &refusal.label, Some(refusal.help));
        Rejected::new(&name, "", vec![diagnostic], Vec::new())
    })?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let home = home();
    let mut loaded = parsed(&name, &bytes, &base, home.as_deref().map_or(Home::Unset, Home::At))?;
    loaded.path = absolute;
    let absent = absent_compose_files(&loaded, home.as_deref());
    loaded.warnings.extend(absent);
    if let Ok(tree) = yaml::tree(&loaded.text) {
        loaded.warnings.extend(exposed::files(&loaded.spec, &tree, &loaded.base, home.as_deref()));
    }
    Ok(loaded)
}

/// Nothing is wrong with the file: on an empty machine they are what `recover` brings back. On any other it is a slip of the
/// pen that everything else would be silent about.
fn absent_compose_files(loaded: &Loaded, home: Option<&Path>) -> Vec<Diagnostic> {
    let docker = loaded.spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref());
    let (Some(docker), Ok(tree)) = (docker, yaml::tree(&loaded.text)) else { return Vec::new() };
    let files = [("compose", &docker.compose), ("env_files", &docker.env_files)];
    let declared = files.into_iter().flat_map(|(key, files)| {
        files.iter().enumerate().map(move |(index, file)| (Place::of(["runtime", "docker", key]).index(index), file))
    });
    let absent = declared.filter(|(_, file)| !paths::resolve(&loaded.base, home, file).exists());
    absent
        .map(|(place, file)| Diagnostic {
            severity: Severity::Warning,
            place: place.to_string(),
            message: format!(
                "{} is not there, so no container can be made, and runs are taken without what the Compose files say{}",
                file.display(),
                match docker.project {
                    Some(_) => "",
                    None => "; no container is found by the name of its Compose service",
                }
            ),
            label: "no such file".to_owned(),
            help: Some(
                "correct the path; where the file is lost, `devstack recover` brings it back with the `files` service that holds it"
                    .to_owned(),
            ),
            span: place.find(&tree),
            related: None,
        })
        .collect()
}

/// Checks `bytes` as the file `name` in the folder `base`. What `~` is stays open, so a path under it is only ever compared
/// with others under it.
pub fn parse(name: &str, bytes: &[u8], base: &Path) -> Result<Loaded, Rejected> {
    parse_with_home(name, bytes, base, None)
}

/// As [`parse`], where `~` is `home`.
pub fn parse_with_home(name: &str, bytes: &[u8], base: &Path, home: Option<&Path>) -> Result<Loaded, Rejected> {
    parsed(name, bytes, base, home.map_or(Home::Open, Home::At))
}

/// The home folder as the environment says it; one that is empty or relative says nothing.
pub fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
}

fn parsed(name: &str, bytes: &[u8], base: &Path, home: Home<'_>) -> Result<Loaded, Rejected> {
    if bytes.len() as u64 > yaml::LARGEST {
        let refusal = too_large(name, bytes.len() as u64);
        return Err(Rejected::new(
            name,
            "",
            vec![whole(refusal.message, &refusal.label, Some(refusal.help))],
            Vec::new(),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(name, bytes, error.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = yaml::tree(text).map_err(|error| Rejected::new(name, text, vec![*error], Vec::new()))?;
    let mut found = structure::check(&tree, text);
    found.diagnostics.extend(identities(text, &found.secrets));
    if !found.diagnostics.is_empty() {
        return Err(Rejected::new(name, text, found.diagnostics, found.secrets));
    }
    let spec: Spec = yaml::typed(text).map_err(|error| Rejected::new(name, text, vec![*error], Vec::new()))?;
    let checked = check::check(&spec, &tree, base, home);
    if checked.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(Rejected::new(name, text, checked.diagnostics, checked.secrets));
    }
    Ok(Loaded {
        digest: spec.digest(),
        spec,
        base: base.to_owned(),
        path: base.join(name),
        text: text.to_owned(),
        warnings: checked.diagnostics,
    })
}

/// The secret half of an age key has a shape that cannot be mistaken, so it is found even in a comment.
fn identities(text: &str, known: &[std::ops::Range<usize>]) -> Vec<Diagnostic> {
    let mut known = known.to_vec();
    known.sort_by_key(|range| range.start);
    let mut known = known.into_iter().peekable();
    let mut covered = 0;
    // Both in order of their beginnings, so that neither is gone through twice.
    let new = |range: &std::ops::Range<usize>| {
        while let Some(known) = known.next_if(|known| known.start <= range.start) {
            covered = covered.max(known.end);
        }
        range.end > covered
    };
    let found = mask::identities(text).into_iter().filter(new).take(structure::MOST);
    found
        .map(|span| Diagnostic {
            span,
            ..whole(
                "an age identity, which is a secret, is given as a literal".to_owned(),
                "the value itself, which is not shown here",
                Some(
                    "write `age_identity: { file: PATH }`, or `age:` with the recipient, age1…, which is no secret. Take the \
                     identity that stood here for known, and make a new one: this file is meant to be shared"
                        .to_owned(),
                ),
            )
        })
        .collect()
}

/// Why the file's bytes are not even looked at.
struct Refusal {
    message: String,
    label: String,
    help: String,
}

fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let shown = path.display();
    let failed = |error: std::io::Error| Refusal {
        message: format!("{shown} cannot be read: {error}"),
        label: "not read".to_owned(),
        help: match error.kind() {
            std::io::ErrorKind::NotFound => "write one with `devstack init`, or name another with --file".to_owned(),
            std::io::ErrorKind::PermissionDenied => format!("see who may read it: ls -l {shown}"),
            _ => "name the file with --file".to_owned(),
        },
    };
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        // A folder has no text, and reading a pipe or a device might never end.
        return Err(Refusal {
            message: format!("{shown} is not a file"),
            label: "not read".to_owned(),
            help: "name the file itself with --file".to_owned(),
        });
    }
    if about.len() > yaml::LARGEST {
        return Err(too_large(&shown.to_string(), about.len()));
    }
    let mut bytes = Vec::new();
    // It may have grown since.
    File::open(path).map_err(failed)?.take(yaml::LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn too_large(name: &str, bytes: u64) -> Refusal {
    use crate::model::units::ByteSize;
    Refusal {
        message: format!("{name} has {}, and a stack's file has {} at most", ByteSize(bytes), ByteSize(yaml::LARGEST)),
        label: "not read".to_owned(),
        help: "this is probably another file; name the right one with --file".to_owned(),
    }
}

fn not_utf8(name: &str, bytes: &[u8], valid: usize) -> Rejected {
    let text = String::from_utf8_lossy(bytes);
    // Up to the wrong byte nothing is replaced, so its offset holds in the text that is shown.
    let mut diagnostic = whole(
        format!("the file is not UTF-8: byte {} is none of a letter's", valid + 1),
        "not UTF-8 from here",
        Some("save the file as UTF-8; most editors offer this as its encoding".to_owned()),
    );
    diagnostic.span = valid..valid + char::REPLACEMENT_CHARACTER.len_utf8();
    Rejected::new(name, &text, vec![diagnostic], Vec::new())
}

fn whole(message: String, label: &str, help: Option<String>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        place: String::new(),
        message,
        label: label.to_owned(),
        help,
        span: 0..0,
        related: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"version: 1
stack: shop
runtime:
  docker: { compose: [docker-compose.yml, more.yml], project: shop }
services:
  database: { source: { postgres: { container: db } } }
repositories:
  local: { path: ./backups, keys: [ { passphrase: { file: key } } ] }
backup:
  nightly: { services: all, schedule: { cron: "15 2 * * *" }, to: [local] }
"#;

    #[test]
    fn a_compose_file_that_is_not_there_is_a_warning_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devstack.yaml");
        std::fs::write(&path, FILE).unwrap();
        std::fs::write(folder.path().join("docker-compose.yml"), "services: {}").unwrap();
        let warnings = load(&path).unwrap().warnings;
        let told: Vec<(&str, &str)> = warnings.iter().map(|it| (it.place.as_str(), &FILE[it.span.clone()])).collect();
        assert_eq!(told, [("runtime.docker.compose[1]", "more.yml")]);
        assert!(warnings[0].message.contains("more.yml is not there") && warnings[0].severity == Severity::Warning);
        std::fs::write(folder.path().join("more.yml"), "services: {}").unwrap();
        assert_eq!(load(&path).unwrap().warnings, []);
    }

    #[test]
    fn without_a_home_folder_every_path_below_it_is_an_error_that_names_its_field() {
        let text = r#"version: 1
stack: shop
runtime:
  docker: { compose: [~/compose.yml], project: shop }
vault: { address: "https://vault:8200", ca: ~/ca.pem, login: { token: { file: ~/token } } }
services:
  site: { source: { files: { paths: [data, ~/site], exclude: [~/site/cache] } } }
  shop: { source: { sqlite: { path: ~/shop.db } } }
repositories:
  local: { path: ~/x, keys: [ { passphrase: { file: ~/key } }, { age_identity: { file: "~" } } ] }
  other: { path: ./~x, keys: [ { passphrase: { file: ~ada/key } } ] }
backup:
  nightly: { services: all, schedule: { cron: "15 2 * * *" }, to: [local, other] }
recovery:
  assert: [ { command: { container: web, run: [cat, ~/x] } } ]
"#;
        let refused = parsed("devstack.yaml", text.as_bytes(), Path::new("/srv/shop"), Home::Unset).unwrap_err();
        let said = refused.render(super::super::diagnostic::Look::Plain);
        for field in [
            "runtime.docker.compose[0]",
            "vault.ca",
            "vault.login.token.file",
            "services.site.source.files.paths[1]",
            "services.shop.source.sqlite.path",
            "repositories.local.path",
            "repositories.local.keys[0].passphrase.file",
            "repositories.local.keys[1].age_identity.file",
        ] {
            assert!(
                said.contains(&format!("`{field}` lies in the home folder, and HOME is not set")),
                "{field}:\n{said}"
            );
        }
        assert_eq!(said.matches("HOME is not set").count(), 8, "{said}");
        for home in [Home::Open, Home::At(Path::new("/home/ada"))] {
            let said = match parsed("devstack.yaml", text.as_bytes(), Path::new("/srv/shop"), home) {
                Ok(_) => String::new(),
                Err(refused) => refused.render(super::super::diagnostic::Look::Plain),
            };
            assert!(!said.contains("HOME"), "{said}");
        }
    }

    #[test]
    fn a_secret_file_that_everybody_can_read_is_a_warning_and_no_more() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devstack.yaml");
        let password = "{ container: db, password: { env_file: .env, name: PW } }";
        let text = FILE.replace("{ container: db }", password).replace("[docker-compose.yml, more.yml]", "[]");
        std::fs::write(&path, &text).unwrap();
        let written = |name: &str, mode: u32| {
            std::fs::write(folder.path().join(name), "PW=x").unwrap();
            std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        written("key", 0o644);
        written(".env", 0o664);
        let told: Vec<String> = load(&path).unwrap().warnings.into_iter().map(|it| it.message).collect();
        assert_eq!(
            told,
            [
                ".env holds a secret, and every user of this machine can read it (mode 0664)",
                "key holds a secret, and every user of this machine can read it (mode 0644)"
            ]
        );
        // A group is a choice that somebody has made.
        written("key", 0o640);
        written(".env", 0o600);
        assert_eq!(load(&path).unwrap().warnings, []);
    }
}
