//! What a source leaves out: git's rules, as in a `.gitignore` beside devstack.yaml.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The patterns of a source, ready to be asked. The last that matches decides.
pub struct Excludes {
    base: std::path::PathBuf,
    each: Vec<Exclude>,
}

struct Exclude {
    pattern: String,
    /// From the folder of devstack.yaml.
    here: Gitignore,
    /// From the root of the machine: of a pattern that is bound to no folder, for what lies elsewhere; and of one that begins with
    /// `/`, which may be a whole path.
    machine: Option<Gitignore>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no pattern: {reason}")]
pub struct ExcludeError {
    pattern: String,
    reason: String,
}

impl Excludes {
    pub fn new(patterns: &[String], base: &Path) -> Result<Self, ExcludeError> {
        let each = patterns.iter().map(|pattern| Exclude::new(pattern, base)).collect::<Result<_, _>>()?;
        Ok(Self { base: base.to_owned(), each })
    }

    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Whether the path is left out, and with a folder all that is in it. It is absolute.
    pub fn leaves_out(&self, path: &Path, is_folder: bool) -> bool {
        let verdicts = self.each.iter().rev().map(|one| one.verdict(path, is_folder, &self.base));
        verdicts.into_iter().find_map(|verdict| verdict).unwrap_or(false)
    }

    /// The numbers of the patterns that say something of the path, whichever decides.
    pub fn matching(&self, path: &Path, is_folder: bool) -> impl Iterator<Item = usize> {
        let matching = self.each.iter().map(move |one| one.verdict(path, is_folder, &self.base).is_some());
        matching.enumerate().filter_map(|(number, matches)| matches.then_some(number))
    }

    pub fn pattern(&self, number: usize) -> Option<&str> {
        self.each.get(number).map(|one| one.pattern.as_str())
    }
}

impl Exclude {
    fn new(pattern: &str, base: &Path) -> Result<Self, ExcludeError> {
        let (sign, rest) = pattern.strip_prefix('!').map_or(("", pattern), |rest| ("!", rest));
        // To git `./cache` matches nothing at all; what is meant is the one beside the file.
        let bare = rest.trim_start_matches("./");
        let rest = match rest.starts_with("./") {
            true => format!("/{bare}"),
            // In a list of YAML nothing is a comment.
            false if rest.starts_with('#') => format!("\\{rest}"),
            false => rest.to_owned(),
        };
        let line = format!("{sign}{rest}");
        let anywhere = rest.starts_with("**/") || !rest.trim_end_matches('/').contains('/');
        let matcher = |root: &Path| {
            let wrong = |error: ignore::Error| ExcludeError { pattern: pattern.to_owned(), reason: reason(&error) };
            let mut builder = GitignoreBuilder::new(root);
            builder.add_line(None, &line).map_err(wrong)?;
            builder.build().map_err(wrong)
        };
        let machine = (anywhere || rest.starts_with('/')).then(|| matcher(Path::new("/"))).transpose()?;
        Ok(Self { pattern: pattern.to_owned(), here: matcher(base)?, machine })
    }

    /// Whether it leaves the path out or, with `!`, in; nothing where it does not match.
    fn verdict(&self, path: &Path, is_folder: bool, base: &Path) -> Option<bool> {
        let here = path.starts_with(base).then_some(&self.here);
        let said = here.into_iter().chain(&self.machine).map(|matcher| matcher.matched(path, is_folder));
        said.filter(|said| !said.is_none()).map(|said| said.is_ignore()).next()
    }
}

/// Without the pattern, which the sentence around it has.
fn reason(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(patterns: &[&str], path: &str) -> bool {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let (path, is_folder) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        Excludes::new(&patterns, Path::new("/srv/shop")).unwrap().leaves_out(Path::new(path), is_folder)
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        for (pattern, out, stays) in [
            ("node_modules/", "/srv/shop/a/b/node_modules/", "/srv/shop/node_modules"),
            ("./cache", "/srv/shop/cache/", "/srv/shop/data/cache/"),
            ("././cache/", "/srv/shop/cache/", "/srv/shop/cache"),
            ("/cache", "/srv/shop/cache", "/srv/shop/data/cache"),
            ("data/tmp", "/srv/shop/data/tmp/", "/srv/shop/x/data/tmp"),
            ("**/data/tmp", "/srv/shop/x/data/tmp", "/srv/shop/data/tmp2"),
            ("*.log", "/srv/shop/a/b.log", "/srv/shop/a/b.log.1"),
            ("*.{log,tmp}", "/srv/shop/a.tmp", "/srv/shop/a.txt"),
            ("data/*", "/srv/shop/data/x", "/srv/shop/data/"),
            ("data/**/x", "/srv/shop/data/a/b/x", "/srv/shop/x"),
            ("a[0-9]?", "/srv/shop/a1b", "/srv/shop/ab1"),
            ("#1", "/srv/shop/#1", "/srv/shop/1"),
            ("\\!x", "/srv/shop/!x", "/srv/shop/x"),
            // Outside of the file's folder.
            ("*.log", "/var/log/a.log", "/var/log/a"),
            ("node_modules/", "/opt/app/node_modules/", "/opt/app/node_modules"),
            ("/opt/app/cache", "/opt/app/cache/", "/opt/app/x/cache/"),
            ("/srv/shop/cache", "/srv/shop/cache/", "/srv/shop2/cache/"),
            ("data/tmp", "/srv/shop/data/tmp", "/opt/data/tmp"),
            ("/2", "/srv/shop/2", "/srv/shop2"),
        ] {
            assert!(left_out(&[pattern], out), "{pattern} leaves out {out}");
            assert!(!left_out(&[pattern], stays), "{pattern} leaves {stays}");
        }
    }

    #[test]
    fn the_last_pattern_decides() {
        let patterns = ["*.log", "!keep.log", "data/keep.log"];
        assert!(left_out(&patterns, "/srv/shop/a.log"));
        assert!(!left_out(&patterns, "/srv/shop/keep.log"));
        assert!(left_out(&patterns, "/srv/shop/data/keep.log"));
        assert!(!left_out(&["*.log", "!./keep.log"], "/srv/shop/keep.log"));
        assert!(left_out(&["*.log", "!./keep.log"], "/srv/shop/a/keep.log"));
    }

    #[test]
    fn a_pattern_that_is_none_says_why() {
        let wrong = Excludes::new(&["a{b".to_owned()], Path::new("/srv")).err().unwrap().to_string();
        assert!(wrong.starts_with("`a{b` is no pattern: ") && wrong.contains("unclosed"), "{wrong}");
    }
}
