//! Where things lie: a repository that is part of what it backs up grows with every run, and two on one path destroy each
//! other's leases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::exclude::Excludes;
use super::super::file::{Key, Passphrase, SecretRef, Source, Spec};
use super::super::node::Place;
use super::super::paths;
use super::Findings;

pub(super) fn check(spec: &Spec, base: &Path, home: Option<&Path>, findings: &mut Findings<'_>) {
    // Where nobody says what the home folder is, `~` is a place of its own, apart from all others.
    let home = home.unwrap_or(Path::new("~"));
    let resolve = |given: &Path| paths::resolve(base, Some(home), given);
    let mut stores: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for (name, repository) in &spec.repositories {
        let path = resolve(&repository.path);
        let place = Place::of(["repositories", name.as_str(), "path"]);
        match stores.get(&path) {
            Some(first) => {
                let message = format!("the repositories `{first}` and `{name}` lie on one path");
                findings.error(
                    &place,
                    message,
                    "the same folder",
                    "give each a folder of its own; a copy on the same disk is none",
                );
                findings.see(&Place::of(["repositories", first, "path"]), "first here");
            }
            None => {
                stores.insert(path, name.as_str());
            }
        }
    }
    for (path, name) in &stores {
        let place = Place::of(["repositories", name, "path"]);
        if let Some((_, outer)) = around(path, &stores) {
            let message = format!("the repository `{name}` lies inside the repository `{outer}`");
            findings.error(&place, message, "inside another", "give each a folder of its own, side by side");
            findings.see(&Place::of(["repositories", outer, "path"]), "the outer one");
        }
    }
    for (name, service) in &spec.services {
        let place = Place::of(["services", name.as_str(), "source"]);
        let (given, exclude) = match &service.source {
            Source::Sqlite(sqlite) => {
                inside_store(&place.key("sqlite").key("path"), &resolve(&sqlite.path), &stores, findings);
                continue;
            }
            Source::Files(files) => (&files.paths, &files.exclude),
            Source::Certificates(certificates) => (&certificates.paths, &certificates.exclude),
            // What lies in containers is not on this machine's file system as far as devstack is concerned.
            _ => continue,
        };
        for (index, given) in given.iter().enumerate() {
            let at = place.key(service.source.engine()).key("paths").index(index);
            let path = resolve(Path::new(given));
            inside_store(&at, &paths::before_wildcard(&path), &stores, findings);
            for (store, repository) in &stores {
                if reaches(&path, store) && !left_out(exclude, base, store) {
                    backs_up_itself(&at, name.as_str(), repository, base, store, findings);
                }
            }
        }
    }
    for (name, repository) in &spec.repositories {
        for (index, key) in repository.keys.iter().enumerate() {
            let (kind, file, env_file) = match key {
                Key::Passphrase(Passphrase { file, env_file, .. }) => ("passphrase", file, env_file),
                Key::GpgSymmetric(SecretRef { file, env_file, .. }) => ("gpg_symmetric", file, env_file),
                Key::AgeIdentity(SecretRef { file, env_file, .. }) => ("age_identity", file, env_file),
                Key::Gpg(_) | Key::Age(_) => continue,
            };
            let within = [("file", file), ("env_file", env_file)]
                .into_iter()
                .find_map(|(field, file)| Some((field, around(&resolve(file.as_ref()?), &stores)?.1)));
            let Some((field, store)) = within else { continue };
            let at = Place::of(["repositories", name.as_str(), "keys"]).index(index).key(kind).key(field);
            findings.error(
                &at,
                format!("the key of `{name}` lies inside the repository `{store}`"),
                "a key in its own lock",
                "keep it elsewhere, such as ~/.config/devstack/passphrase: who takes the repository must not get its key",
            );
        }
    }
}

/// The repository that `path` lies in, not at.
fn around<'s>(path: &Path, stores: &'s BTreeMap<PathBuf, &'s str>) -> Option<(&'s PathBuf, &'s str)> {
    path.ancestors().skip(1).find_map(|outer| stores.get_key_value(outer)).map(|(path, name)| (path, *name))
}

fn inside_store(place: &Place, path: &Path, stores: &BTreeMap<PathBuf, &str>, findings: &mut Findings<'_>) {
    let own = stores.get(path).copied();
    if let Some(name) = own.or_else(|| around(path, stores).map(|(_, name)| name)) {
        let message = format!("`{place}` lies inside the repository `{name}`");
        findings.error(place, message, "part of a repository", "move the data or the repository to another folder");
        findings.see(&Place::of(["repositories", name, "path"]), "the repository");
    }
}

/// Whether a source's path, perhaps a glob, takes `store` along: as a part of a folder that it names or matches. A path at
/// the store itself is another finding.
fn reaches(path: &Path, store: &Path) -> bool {
    let text = path.to_string_lossy();
    let mut outer = store.ancestors().skip(1);
    match paths::has_wildcard(&text).then(|| paths::glob(&text)) {
        None => outer.any(|folder| folder == path),
        Some(Ok(glob)) => store.ancestors().any(|folder| glob.is_match(folder)),
        // A glob that cannot be read has its own finding.
        Some(Err(_)) => false,
    }
}

/// Whether the source's own excludes leave `store` out: itself, a folder around it, or all that is in it.
fn left_out(exclude: &[String], base: &Path, store: &Path) -> bool {
    // No pattern names this by itself: only one that matches all the content does.
    let content = store.join("\u{1}");
    // A pattern that cannot be read has its own finding.
    let Ok(excludes) = Excludes::new(exclude, base) else { return false };
    // An exclude says nothing about folders that the file itself lies in.
    let inside = store.ancestors().filter(|folder| !base.starts_with(folder));
    excludes.leaves_out(&content, false) || inside.into_iter().any(|folder| excludes.leaves_out(folder, true))
}

fn backs_up_itself(place: &Place, service: &str, name: &str, base: &Path, store: &Path, findings: &mut Findings<'_>) {
    let shown = store.strip_prefix(base).unwrap_or(store).display();
    let message = format!("the repository `{name}` would be backed up into itself by `{service}`");
    let help = format!("leave it out: `exclude: [{shown}]`; or move the repository out of what is backed up");
    findings.error(place, message, "the repository lies in here", help);
    findings.see(&Place::of(["repositories", name, "path"]), "the repository");
}
