//! The paths of the file, made absolute. Lexical: nothing is looked up, links are not followed.

use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// `given` as the file means it: `~` is `home`, what is relative lies in `base`, `.` and `..` are worked out. Without a
/// home folder `~` stays as it is, in `base`.
pub fn resolve(base: &Path, home: Option<&Path>, given: &Path) -> PathBuf {
    let path = match (home, given.strip_prefix("~")) {
        (Some(home), Ok(rest)) => home.join(rest),
        _ => base.join(given),
    };
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // `/..` is `/`; a relative base keeps what leads out of it.
            Component::ParentDir => match resolved.components().next_back() {
                Some(Component::Normal(_)) => {
                    resolved.pop();
                }
                Some(Component::RootDir | Component::Prefix(_)) => {}
                Some(Component::ParentDir | Component::CurDir) | None => resolved.push(".."),
            },
            other => resolved.push(other),
        }
    }
    resolved
}

/// Compiles a glob of the file: `*` and `?` stay within one part of a path, `**` spans parts.
pub fn glob(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build().map(|glob| glob.compile_matcher())
}

/// Whether a path of a files source is a glob.
pub fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// The folder that a glob starts from; a path without a wildcard as a whole.
pub fn before_wildcard(path: &Path) -> PathBuf {
    path.components().take_while(|part| !has_wildcard(&part.as_os_str().to_string_lossy())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_without_looking() {
        let resolve = |given: &str| {
            resolve(Path::new("/srv/shop"), Some(Path::new("/home/ada")), Path::new(given))
                .to_string_lossy()
                .into_owned()
        };
        assert_eq!(resolve("./backups/"), "/srv/shop/backups");
        assert_eq!(resolve("../other/./x/.."), "/srv/other");
        assert_eq!(resolve("~/.config/key"), "/home/ada/.config/key");
        assert_eq!(resolve("~"), "/home/ada");
        assert_eq!(resolve("~ada/x"), "/srv/shop/~ada/x");
        assert_eq!(resolve("/a/../../../b"), "/b");
        assert_eq!(resolve("."), "/srv/shop");
    }
}
