//! Which files a `files` source names, in the order in which a snapshot's tree wants them: depth first, folders before
//! what is in them, siblings by name.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use globset::GlobBuilder;
use walkdir::WalkDir;

use super::EngineError;
use super::files::links::{self, Followed, place_of};
use crate::repository::RESTORING;
use crate::spec::exclude::Excludes;

/// In a snapshot, files below the folder of devstack.yaml stand under `/stack/`, by their path from there, so that they
/// can come back on a machine where that folder is elsewhere; all others under `/host/`, by their full path.
pub(super) const BELOW_BASE: &str = "/stack";
pub(super) const ELSEWHERE: &str = "/host";

/// The patterns of one source, ready to be matched.
pub(super) struct Selection {
    base: PathBuf,
    /// Absolute patterns, as the file gives them after resolving.
    patterns: Vec<PathBuf>,
    exclude: Vec<String>,
    /// Left out wherever a folder leads to it; not where a pattern names it itself.
    own: Arc<[PathBuf]>,
}

/// One thing found, with where it stands in the snapshot.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) inside: PathBuf,
    pub(super) metadata: fs::Metadata,
}

impl Selection {
    pub(super) fn new(base: &Path, patterns: Vec<PathBuf>, exclude: Vec<String>) -> Self {
        Self { base: base.to_owned(), patterns, exclude, own: Arc::new([]) }
    }

    pub(super) fn without(self, own: &[PathBuf]) -> Self {
        Self { own: own.into(), ..self }
    }

    /// Whether the excludes leave a path out, or a folder that it lies in.
    pub(super) fn left_out(&self) -> Result<impl Fn(&Path) -> bool + use<>, EngineError> {
        let (excluded, base) = (self.excluded()?, self.base.clone());
        Ok(move |path: &Path| {
            let mut folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&base));
            excluded.leaves_out(path, path.is_dir()) || folders.any(|folder| excluded.leaves_out(folder, true))
        })
    }

    /// The existing files and folders that the patterns name, sorted, none inside another. Of a path that is a link, or leads
    /// through one: each link, and what lies where they lead. In a snapshot a folder has one place.
    ///
    /// # Errors
    /// When a pattern matches nothing, or a path is a link that leads nowhere: what was declared and is not there must not be
    /// left out silently.
    pub(super) fn roots(&self) -> Result<Vec<PathBuf>, EngineError> {
        let mut roots = BTreeSet::new();
        for pattern in &self.patterns {
            let matched = expand(pattern)?;
            if matched.is_empty() {
                return Err(if has_wildcard(pattern) {
                    EngineError::NoMatch { pattern: pattern.display().to_string() }
                } else {
                    EngineError::Gone { path: pattern.clone() }
                });
            }
            for path in matched {
                roots.extend(self.leads_to(&path, has_wildcard(pattern))?);
            }
        }
        let mut outermost: Vec<PathBuf> = Vec::new();
        for root in roots {
            if !outermost.last().is_some_and(|outer| root.starts_with(outer)) {
                outermost.push(root);
            }
        }
        // By their place in the snapshot, not on the disk: `/stack` comes after `/host` wherever the base lies.
        outermost.sort_by_key(|root| self.inside(root));
        Ok(outermost)
    }

    /// Everything below the roots that is not excluded, with the folders that lead to each root.
    pub(super) fn walk(
        &self,
        roots: Vec<PathBuf>,
    ) -> Result<impl Iterator<Item = io::Result<Found>> + use<>, EngineError> {
        let excluded = Arc::new(self.excluded()?);
        let (base, own) = (self.base.clone(), Arc::clone(&self.own));
        let mut led_to = PathBuf::from("/");
        Ok(roots.into_iter().flat_map(move |root| {
            let ancestors = leading_folders(&base, &root, &mut led_to);
            let (excluded, own) = (Arc::clone(&excluded), Arc::clone(&own));
            let base_of_tree = base.clone();
            let tree = WalkDir::new(&root)
                .follow_links(false)
                // A link among the roots stands for itself: what it leads to is a root of its own.
                .follow_root_links(false)
                .sort_by_file_name()
                .into_iter()
                .filter_entry(move |entry| {
                    let is_own = || own.iter().any(|own| own == entry.path()) || is_left_over(entry);
                    entry.depth() == 0 || !(is_left_out(&excluded, entry) || is_own())
                })
                .filter_map(move |entry| found(entry, &base_of_tree).transpose());
            ancestors.into_iter().chain(tree)
        }))
    }

    fn inside(&self, path: &Path) -> PathBuf {
        inside(&self.base, path)
    }

    /// A path that exists as the links on its way and the place that they lead to.
    fn leads_to(&self, path: &Path, of_pattern: bool) -> Result<Vec<PathBuf>, EngineError> {
        let followed = links::follow(&self.base, path).map_err(EngineError::io("following the links of", path))?;
        let Followed { mut links, place, exists } = followed;
        // The path itself, where it is a link of which a pattern does not say that anything must lie there.
        let is_own = place_of(&self.base, path).is_ok_and(|path| links.contains(&path));
        let may_be_missing = of_pattern && is_own;
        if !(exists || may_be_missing) {
            return Err(EngineError::LeadsNowhere { path: path.to_owned(), to: place });
        }
        // A pattern that finds a link to a folder around itself means the link, and not the whole of that folder once more.
        let is_around = of_pattern && links.iter().any(|link| link.starts_with(&place));
        if exists && !is_around {
            links.push(place);
        }
        Ok(links)
    }

    fn excluded(&self) -> Result<Excludes, EngineError> {
        Ok(Excludes::new(&self.exclude, &self.base)?)
    }

    /// The excludes that match nothing of what is there; none where there is more than is looked through.
    pub(super) fn idle_excludes(&self) -> Result<Vec<String>, EngineError> {
        if self.exclude.is_empty() {
            return Ok(Vec::new());
        }
        let excluded = self.excluded()?;
        let mut idle: BTreeSet<usize> = (0..self.exclude.len()).collect();
        let mut left = MOST_ENTRIES;
        for root in self.roots()? {
            let mut tree = WalkDir::new(root).min_depth(1).follow_links(false).follow_root_links(false).into_iter();
            while let Some(entry) = tree.next() {
                if idle.is_empty() || left == 0 {
                    return Ok(Vec::new());
                }
                left -= 1;
                // What can't be read is told by the take.
                let Ok(entry) = entry else { continue };
                let is_folder = entry.file_type().is_dir();
                for number in excluded.matching(entry.path(), is_folder) {
                    idle.remove(&number);
                }
                if is_folder && is_left_out(&excluded, &entry) {
                    tree.skip_current_dir();
                }
            }
        }
        Ok(idle.into_iter().filter_map(|number| excluded.pattern(number)).map(str::to_owned).collect())
    }
}

/// Looking for what an exclude leaves out costs a look at the source no more than some tenths of a second.
const MOST_ENTRIES: usize = 100_000;

/// What a restore that was killed has left beside a file.
fn is_left_over(entry: &walkdir::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(RESTORING)
}

fn is_left_out(excluded: &Excludes, entry: &walkdir::DirEntry) -> bool {
    excluded.leaves_out(entry.path(), entry.file_type().is_dir())
}

/// A file that went away between the listing and the look at it is left out: it is gone, as it would be a moment later.
fn found(entry: walkdir::Result<walkdir::DirEntry>, base: &Path) -> io::Result<Option<Found>> {
    let gone = |error: &walkdir::Error| {
        error.depth() > 0 && error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    match entry.and_then(|entry| entry.metadata().map(|metadata| (entry, metadata))) {
        Ok((entry, metadata)) => {
            let path = entry.into_path();
            Ok(Some(Found { inside: inside(base, &path), path, metadata }))
        }
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn inside(base: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(base) {
        Ok(below) if below.as_os_str().is_empty() => PathBuf::from(BELOW_BASE),
        Ok(below) => Path::new(BELOW_BASE).join(below),
        Err(_) => {
            let from_root: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            Path::new(ELSEWHERE).join(from_root)
        }
    }
}

/// The folders between the snapshot's top and `root` that the last root did not lead through already.
fn leading_folders(base: &Path, root: &Path, led_to: &mut PathBuf) -> Vec<io::Result<Found>> {
    let target = inside(base, root);
    let top = if target.starts_with(BELOW_BASE) { base.to_owned() } else { PathBuf::from("/") };
    let mut folders = Vec::new();
    // The path on the disk that stands for `/stack` or `/host`, then one part after the other.
    let mut on_disk = top;
    let mut inside_snapshot = PathBuf::from("/");
    let mut parts = target.components().skip(1).peekable();
    let mut first = true;
    while let Some(part) = parts.next() {
        inside_snapshot.push(part);
        if !first {
            on_disk.push(part);
        }
        first = false;
        if parts.peek().is_none() {
            break; // the root itself: the walk yields it
        }
        if !led_to.starts_with(&inside_snapshot) {
            folders.push(fs::metadata(&on_disk).map(|metadata| Found {
                path: on_disk.clone(),
                inside: inside_snapshot.clone(),
                metadata,
            }));
        }
    }
    *led_to = target;
    folders
}

fn has_wildcard(pattern: &Path) -> bool {
    pattern.to_string_lossy().contains(['*', '?', '[', '{'])
}

fn glob(pattern: &str) -> Result<globset::Glob, EngineError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|source| EngineError::Pattern { path: pattern.to_owned(), source })
}

/// The paths that a pattern names; a path without wildcards names itself if it exists.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, EngineError> {
    if !has_wildcard(pattern) {
        return match fs::symlink_metadata(pattern) {
            Ok(_) => Ok(vec![pattern.to_owned()]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(EngineError::io("looking at", pattern)(error)),
        };
    }
    let literal: PathBuf = pattern.components().take_while(|part| !has_wildcard(Path::new(part.as_os_str()))).collect();
    let depth = if pattern.to_string_lossy().contains("**") {
        usize::MAX
    } else {
        pattern.components().count() - literal.components().count()
    };
    let matcher = glob(&pattern.to_string_lossy())?.compile_matcher();
    let mut matched = Vec::new();
    // As a shell does it: `*/data` looks through linked folders, `**` does not, since links may lead round and round.
    for entry in WalkDir::new(&literal).max_depth(depth).follow_links(depth != usize::MAX) {
        match entry {
            Ok(entry) if matcher.is_match(entry.path()) => matched.push(entry.into_path()),
            Ok(_) => {}
            // A link that leads nowhere, or to a folder around it, is there all the same.
            Err(error) if leads_no_further(&error) => {
                let is_link = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
                matched.extend(error.path().filter(is_link).filter(|path| matcher.is_match(path)).map(Path::to_owned));
            }
            Err(error) => return Err(EngineError::io("looking into", &literal)(error.into())),
        }
    }
    Ok(matched)
}

fn leads_no_further(error: &walkdir::Error) -> bool {
    let around = rustix::io::Errno::LOOP.raw_os_error();
    error.loop_ancestor().is_some()
        || error
            .io_error()
            .is_some_and(|error| error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(around))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn listed(base: &Path, patterns: &[&str], exclude: &[&str]) -> Vec<String> {
        let selection = Selection::new(
            base,
            patterns.iter().map(|pattern| base.join(pattern)).collect(),
            exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
        );
        let roots = selection.roots().unwrap();
        selection.walk(roots).unwrap().map(|found| found.unwrap().inside.display().to_string()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        for file in
            ["site/index.html", "site/img/logo.svg", "site/debug.log", "conf/a.yml", "conf/b.yml", "conf/c.txt", ".env"]
        {
            let path = base.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        base
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_siblings_by_name() {
        let base = tree();
        assert_eq!(
            listed(base.path(), &["site", ".env"], &[]),
            [
                "/stack",
                "/stack/.env",
                "/stack/site",
                "/stack/site/debug.log",
                "/stack/site/img",
                "/stack/site/img/logo.svg",
                "/stack/site/index.html"
            ]
        );
    }

    #[test]
    fn globs_name_several_and_share_their_leading_folders() {
        let base = tree();
        assert_eq!(
            listed(base.path(), &["conf/*.yml", "site/**/*.svg"], &[]),
            [
                "/stack",
                "/stack/conf",
                "/stack/conf/a.yml",
                "/stack/conf/b.yml",
                "/stack/site",
                "/stack/site/img",
                "/stack/site/img/logo.svg"
            ]
        );
    }

    #[test]
    fn excludes_match_trailing_parts_and_whole_folders() {
        let base = tree();
        assert_eq!(
            listed(base.path(), &["site"], &["*.log", "img"]),
            ["/stack", "/stack/site", "/stack/site/index.html"]
        );
    }

    #[test]
    fn excludes_are_git_s_and_one_that_matches_nothing_is_named() {
        let base = tree();
        for file in ["site/node_modules/x.js", "site/cache/a", "cache/a", "site/keep.log"] {
            let path = base.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let exclude = ["node_modules/", "./cache", "*.log", "!keep.log", "img/", "nowhere/", "./index.html"];
        assert_eq!(
            listed(base.path(), &["site", "cache"], &exclude),
            [
                "/stack",
                "/stack/cache",
                "/stack/cache/a",
                "/stack/site",
                "/stack/site/cache",
                "/stack/site/cache/a",
                "/stack/site/index.html",
                "/stack/site/keep.log"
            ],
            "what is named itself is taken whatever is left out"
        );
        let selection = |exclude: &[&str]| {
            let exclude = exclude.iter().map(|pattern| (*pattern).to_owned()).collect();
            Selection::new(base.path(), vec![base.path().join("site")], exclude)
        };
        assert_eq!(selection(&exclude).idle_excludes().unwrap(), ["./cache", "nowhere/", "./index.html"]);
        assert_eq!(selection(&exclude[2..5]).idle_excludes().unwrap(), [""; 0]);
    }

    #[test]
    fn a_root_inside_another_is_walked_once() {
        let base = tree();
        let all = listed(base.path(), &["site", "site/img"], &[]);
        assert_eq!(all.iter().filter(|path| path.ends_with("logo.svg")).count(), 1);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        let base = tree();
        let of = |pattern: &str| Selection::new(base.path(), vec![base.path().join(pattern)], vec![]).roots();
        assert!(matches!(of("conf/*.json"), Err(EngineError::NoMatch { .. })));
        assert!(matches!(of("nowhere"), Err(EngineError::Gone { .. })));
    }

    #[test]
    fn what_lies_outside_the_base_keeps_its_full_path() {
        let base = tree();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("x"), "x").unwrap();
        let selection =
            Selection::new(base.path(), vec![base.path().join(".env"), elsewhere.path().to_owned()], vec![]);
        let roots = selection.roots().unwrap();
        let all: Vec<PathBuf> = selection.walk(roots).unwrap().map(|found| found.unwrap().inside).collect();
        let host = Path::new("/host").join(elsewhere.path().strip_prefix("/").unwrap());
        assert!(all.contains(&host.join("x")));
        assert!(all.contains(&PathBuf::from("/stack/.env")));
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(all, sorted);
    }

    #[test]
    fn of_a_link_that_is_named_the_link_is_taken_and_what_it_leads_to() {
        let base = tree();
        let at = |path: &str| base.path().join(path);
        symlink("site", at("to-folder")).unwrap();
        symlink(at("conf/a.yml"), at("to-file")).unwrap();
        symlink("to-folder", at("to-link")).unwrap();
        let site = ["/stack/site/debug.log", "/stack/site/img", "/stack/site/img/logo.svg", "/stack/site/index.html"];
        let with_site = |before: &[&str], after: &[&str]| -> Vec<String> {
            [before, &["/stack/site"], &site, after].concat().iter().map(|path| (*path).to_owned()).collect()
        };
        assert_eq!(listed(base.path(), &["to-folder"], &[]), with_site(&["/stack"], &["/stack/to-folder"]));
        assert_eq!(
            listed(base.path(), &["to-link"], &[]),
            with_site(&["/stack"], &["/stack/to-folder", "/stack/to-link"]),
            "a link to a link"
        );
        assert_eq!(
            listed(base.path(), &["to-f*"], &[]),
            with_site(&["/stack", "/stack/conf", "/stack/conf/a.yml"], &["/stack/to-file", "/stack/to-folder"]),
            "a pattern that matches links"
        );
        assert_eq!(listed(base.path(), &["site", "to-folder"], &[]), with_site(&["/stack"], &["/stack/to-folder"]));
        assert_eq!(
            listed(base.path(), &["to-file"], &[]),
            ["/stack", "/stack/conf", "/stack/conf/a.yml", "/stack/to-file"]
        );
    }

    #[test]
    fn a_path_that_leads_through_a_linked_folder_is_taken_where_it_lies() {
        let base = tree();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir_all(elsewhere.path().join("5/data")).unwrap();
        fs::write(elsewhere.path().join("5/data/x"), "x").unwrap();
        symlink(elsewhere.path().join("5"), base.path().join("current")).unwrap();
        let host = Path::new("/host").join(elsewhere.path().canonicalize().unwrap().strip_prefix("/").unwrap());
        for pattern in ["current/data", "current/*", "curren?/data/x", "*/data"] {
            let all = listed(base.path(), &[pattern], &[]);
            assert!(all.contains(&host.join("5/data/x").display().to_string()), "{pattern}: {all:?}");
            assert!(all.contains(&"/stack/current".to_owned()), "{pattern}: {all:?}");
            assert!(!all.iter().any(|path| path.starts_with("/stack/current/")), "{pattern}: {all:?}");
        }
        // A folder of devstack.yaml that is itself reached through a link stays what it is called.
        let linked = elsewhere.path().join("stack");
        symlink(base.path(), &linked).unwrap();
        assert_eq!(listed(&linked, &["conf/a.yml"], &[]), ["/stack", "/stack/conf", "/stack/conf/a.yml"]);
        symlink(base.path().canonicalize().unwrap().join("conf/b.yml"), base.path().join("b")).unwrap();
        assert_eq!(listed(&linked, &["b"], &[]), ["/stack", "/stack/b", "/stack/conf", "/stack/conf/b.yml"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_or_around_itself_is_no_reason_to_take_anything_else() {
        let base = tree();
        symlink("nowhere/at/all", base.path().join("site/dangling")).unwrap();
        symlink("..", base.path().join("site/up")).unwrap();
        symlink("round", base.path().join("round")).unwrap();
        let roots = |pattern: &str| Selection::new(base.path(), vec![base.path().join(pattern)], vec![]).roots();
        assert!(matches!(roots("site/dangling"), Err(EngineError::LeadsNowhere { .. })));
        assert!(matches!(roots("round"), Err(EngineError::LeadsNowhere { .. })));
        assert_eq!(listed(base.path(), &["roun?"], &[]), ["/stack", "/stack/round"]);
        assert_eq!(
            listed(base.path(), &["site/d*", "site/u*"], &[]),
            ["/stack", "/stack/site", "/stack/site/dangling", "/stack/site/debug.log", "/stack/site/up"]
        );
    }
}
