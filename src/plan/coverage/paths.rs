//! Which paths of the machine a source of the file takes. Lexical: links are not followed, nothing is looked up.

use std::path::{Path, PathBuf};

use super::Reach;
use crate::model::holdings::{Backing, HeldVolume, Use};
use crate::spec::file::Source;
use crate::spec::paths::{before_wildcard, glob, has_wildcard, resolve};

/// Something that can be taken: a volume, a path of the machine, or both.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub path: Option<&'a Path>,
    pub volume: Option<&'a HeldVolume>,
    pub uses: &'a [Use],
}

impl<'a> Place<'a> {
    pub fn of_volume(volume: &'a HeldVolume) -> Self {
        let path = match &volume.backing {
            Backing::Folder(path) => Some(path.as_path()),
            Backing::Local | Backing::Memory | Backing::Remote(_) => None,
        };
        Self { path, volume: Some(volume), uses: &volume.uses }
    }

    pub fn of_bind(path: &'a Path, uses: &'a [Use]) -> Self {
        Self { path: Some(path), volume: None, uses }
    }

    pub fn of_nameless(at: &'a Use) -> Self {
        Self { path: None, volume: None, uses: std::slice::from_ref(at) }
    }
}

/// How much of `path` the source takes, if any.
pub(super) fn reach(source: &Source, (base, home): (&Path, Option<&Path>), path: &Path) -> Option<Reach> {
    let place = |given: &Path| resolve(base, home, given);
    let one = |file: PathBuf| of_pattern(&file, &[], path, base);
    match source {
        Source::Sqlite(sqlite) => one(place(&sqlite.path)),
        Source::Files(it) => best(it.paths.iter().map(|given| place(Path::new(given))), &it.exclude, path, base),
        Source::Certificates(it) => best(it.paths.iter().map(|given| place(Path::new(given))), &it.exclude, path, base),
        // Its key files lie in its escrow, and a secret-id is issued anew.
        Source::Vault(vault) => {
            let issued = vault.approles.iter().map(|role| &role.secret_id.file);
            best(vault.key_files.iter().chain(issued).map(|file| place(file)), &[], path, base)
        }
        Source::Postgres(_)
        | Source::Mysql(_)
        | Source::Mariadb(_)
        | Source::Mongodb(_)
        | Source::Redis(_)
        | Source::Rabbitmq(_)
        | Source::Volume(_) => None,
    }
}

/// The first pattern that takes all of it, or else a part.
fn best(patterns: impl Iterator<Item = PathBuf>, exclude: &[String], path: &Path, base: &Path) -> Option<Reach> {
    let mut part = None;
    for pattern in patterns {
        match of_pattern(&pattern, exclude, path, base) {
            Some(Reach::Whole) => return Some(Reach::Whole),
            reach => part = part.or(reach),
        }
    }
    part
}

fn of_pattern(pattern: &Path, exclude: &[String], path: &Path, base: &Path) -> Option<Reach> {
    let text = pattern.to_string_lossy();
    let root = match has_wildcard(&text) {
        false => path.starts_with(pattern).then(|| pattern.to_owned()),
        true => {
            let glob = glob(&text).ok()?;
            path.ancestors().filter(|outer| glob.is_match(outer)).last().map(Path::to_owned)
        }
    };
    if let Some(root) = root {
        return (!is_excluded(exclude, path, &root)).then_some(Reach::Whole);
    }
    // All that lies directly in it.
    let rest = pattern.strip_prefix(path).ok()?;
    match rest.to_str() {
        Some("*" | "**" | "**/*") => Some(Reach::Whole),
        _ if before_wildcard(pattern).starts_with(path) => {
            let shown = pattern.strip_prefix(base).unwrap_or(pattern);
            Some(Reach::Part(shown.display().to_string()))
        }
        _ => None,
    }
}

/// Whether the source's own excludes leave out `path`, or a folder around it below the root that it takes.
fn is_excluded(exclude: &[String], path: &Path, root: &Path) -> bool {
    let matchers = exclude.iter().filter_map(|pattern| {
        let anywhere = if pattern.starts_with('/') { pattern.clone() } else { format!("**/{pattern}") };
        glob(&anywhere).ok()
    });
    let below: Vec<&Path> = path.ancestors().take_while(|outer| *outer != root).collect();
    matchers.into_iter().any(|matcher| below.iter().any(|outer| matcher.is_match(outer)))
}
