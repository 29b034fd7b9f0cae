//! What the stack is started from, as one source, and what is left out of folders that are taken whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::sources::Proposed;
use super::{DEEPEST, MOST_ENTRIES, SKIPPED, Surroundings, quoted};

/// What the stack is started from, as one source.
pub(super) struct Configuration {
    pub paths: Vec<PathBuf>,
    /// As the source writes it.
    without: String,
}

impl Configuration {
    pub fn of(folder: &Path, facts: &Surroundings, proposed: &Proposed, repository: &str) -> Self {
        let all: BTreeSet<&PathBuf> = facts.configuration.iter().chain(&proposed.configuration).collect();
        let is_covered = |path: &Path| proposed.covered.iter().any(|outer| folder.join(path).starts_with(outer));
        let whole = all.iter().any(|path| path.as_path() == Path::new("."));
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in all {
            let within = paths.iter().any(|outer| path.starts_with(outer))
                || whole && path.is_relative() && path != Path::new(".");
            if !is_covered(path) && !within {
                paths.push(path.clone());
            }
        }
        // What is taken otherwise, or is a server's own, is not taken a second time with the folder that it lies in.
        let taken = proposed.covered.iter().map(|path| path.strip_prefix(folder).unwrap_or(path).to_owned());
        let databases = facts.databases.iter().filter(|path| !is_covered(path)).cloned();
        let inside: Vec<PathBuf> = taken.chain(databases).collect();
        let without = excluded(folder, &paths, &inside, repository);
        Self { paths, without }
    }

    pub fn source(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| quoted_glob(&path.to_string_lossy())).collect();
        format!("{{ files: {{ paths: [{}]{} }} }}", paths.join(", "), self.without)
    }
}

/// `, exclude: […]` for folders that are taken whole: of `inside`, what lies in one of them, and where devstack's own things
/// lie in one, these too. Nothing where there is nothing to leave out.
pub(super) fn excluded(base: &Path, paths: &[PathBuf], inside: &[PathBuf], repository: &str) -> String {
    let absolute = |path: &Path| if path == Path::new(".") { base.to_owned() } else { base.join(path) };
    let lies_in = |path: &Path| {
        let path = absolute(path);
        paths.iter().map(|outer| absolute(outer)).any(|outer| path != outer && path.starts_with(outer))
    };
    let mut exclude: Vec<String> =
        inside.iter().filter(|path| lies_in(path)).map(|path| quoted_glob(&pattern(base, path))).collect();
    let whole = paths.iter().any(|outer| base.starts_with(absolute(outer)));
    if whole {
        exclude.extend([repository, ".devstack", ".git", "node_modules", ".venv"].map(str::to_owned));
    }
    exclude.sort();
    exclude.dedup();
    if exclude.is_empty() { String::new() } else { format!(", exclude: [{}]", exclude.join(", ")) }
}

/// A pattern is matched against the end of every path: where another path ends so too, only the whole one is right.
fn pattern(base: &Path, path: &Path) -> String {
    if path.is_absolute() {
        return path.to_string_lossy().into_owned();
    }
    let entries = walkdir::WalkDir::new(base).min_depth(1).max_depth(DEEPEST).into_iter();
    let mut kept =
        entries.filter_entry(|entry| !entry.file_name().to_str().is_some_and(|name| SKIPPED.contains(&name)));
    let whole = base.join(path);
    let is_another = |entry: &walkdir::DirEntry| {
        entry.path().ends_with(path) && entry.path() != whole && !entry.path().starts_with(&whole)
    };
    let is_unclear = kept.by_ref().take(MOST_ENTRIES).flatten().any(|entry| is_another(&entry));
    if is_unclear { whole.to_string_lossy().into_owned() } else { path.to_string_lossy().into_owned() }
}

/// A path of a `files` source: what has a meaning in a glob stands for itself.
pub(super) fn quoted_glob(path: &str) -> String {
    let escaped: String =
        path.chars().map(|c| if "*?[]{}".contains(c) { format!("[{c}]") } else { c.to_string() }).collect();
    if escaped == "." { escaped } else { quoted(&escaped) }
}
