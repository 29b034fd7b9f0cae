//! The files that Compose reads for a stack, beyond those that it is given: what they include, what they extend, and where
//! their variables come from. Compose itself does not tell them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::holdings::ReadAs;
use crate::spec::{paths, yaml};

/// Files that lead to each other go no deeper than this.
const DEEPEST: usize = 16;

/// All that was found, and what could not be followed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub files: Vec<(PathBuf, ReadAs)>,
    pub unread: Vec<String>,
}

/// What stands in place of `${…}`: the value of a variable, where it is set.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Written {
    /// Follows the given files. One that is not there is named all the same, as Compose asks for it.
    pub fn follow(files: &[PathBuf], env_files: &[PathBuf], variables: Variables<'_>) -> Self {
        let mut written = Self::default();
        for path in env_files {
            written.add(path, ReadAs::Variables);
        }
        let mut seen = BTreeSet::new();
        for path in files {
            written.add(path, ReadAs::Compose);
            written.look_into(path, None, variables, &mut seen, DEEPEST);
        }
        written
    }

    fn add(&mut self, path: &Path, read_as: ReadAs) {
        let entry = (path.to_owned(), read_as);
        if !self.files.contains(&entry) {
            self.files.push(entry);
        }
    }

    /// `only` is the one service of the file that somebody extends.
    fn look_into(
        &mut self,
        path: &Path,
        only: Option<&str>,
        variables: Variables<'_>,
        seen: &mut BTreeSet<(PathBuf, Option<String>)>,
        depth: usize,
    ) {
        if depth == 0 || !seen.insert((path.to_owned(), only.map(str::to_owned))) {
            return;
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            // That one is missing is told by whoever compares, since it is named.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.unread.push(format!("{}: {error}", path.display())),
        };
        let file = match yaml::compose(&text) {
            Ok(file) => file,
            Err(why) => return self.unread.push(format!("{}: {why}", path.display())),
        };
        if only.is_none() {
            for entry in one_or_many(&file["include"]) {
                let named = one_or_many(if entry.is_object() { &entry["path"] } else { entry });
                let paths: Vec<PathBuf> =
                    named.filter_map(|path| self.local(folder, path, "include", variables)).collect();
                let mut usual = paths.first().and_then(|path| path.parent()).map(|folder| folder.join(".env"));
                for path in one_or_many(&entry["env_file"]) {
                    usual = None;
                    if let Some(path) = self.local(folder, path, "env_file", variables) {
                        self.add(&path, ReadAs::Variables);
                    }
                }
                if let Some(path) = usual.filter(|path| path.exists()) {
                    self.add(&path, ReadAs::Variables);
                }
                for path in paths {
                    self.add(&path, ReadAs::Include);
                    self.look_into(&path, None, variables, seen, depth - 1);
                }
            }
        }
        for (name, service) in file["services"].as_object().into_iter().flatten() {
            if only.is_some_and(|only| only != name) {
                continue;
            }
            let extends = &service["extends"];
            let of = extends["service"].as_str().or_else(|| extends.as_str());
            match (&extends["file"], of) {
                (Value::Null, Some(of)) => self.look_into(path, Some(of), variables, seen, depth - 1),
                (Value::Null, None) => {}
                (file, of) => {
                    if let Some(path) = self.local(folder, file, "extends", variables) {
                        self.add(&path, ReadAs::Extends);
                        self.look_into(&path, Some(of.unwrap_or(name)), variables, seen, depth - 1);
                    }
                }
            }
        }
    }

    /// The file of this machine that an entry names; none for one that lies afar.
    fn local(&mut self, folder: &Path, entry: &Value, key: &str, variables: Variables<'_>) -> Option<PathBuf> {
        let given = entry.as_str()?;
        let Some(path) = filled(given, variables) else {
            self.unread.push(format!("{key} {given}: what its variables are is not known"));
            return None;
        };
        let afar = path.contains("://") || path.starts_with("git@") || path.starts_with("github.com/");
        (!afar).then(|| paths::resolve(folder, None, Path::new(&path)))
    }
}

/// `text` with its variables filled in, as Compose does. None where one is not set that must be.
pub(super) fn filled(text: &str, variables: Variables<'_>) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = closing(inner)?;
            out.push_str(&expansion(&inner[..end], variables)?);
            rest = &inner[end + 1..];
        } else {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            out.push_str(&variables(&rest[..end])?);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    Some(out)
}

/// Where the brace closes that stands before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

/// What `${inner}` is.
fn expansion(inner: &str, variables: Variables<'_>) -> Option<String> {
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    let value = variables(name);
    let full = value.clone().filter(|value| !value.is_empty());
    let (operator, otherwise) = match rest.strip_prefix(':') {
        Some(rest) => (rest.chars().next(), rest.get(1..).unwrap_or_default()),
        None => (rest.chars().next(), rest.get(1..).unwrap_or_default()),
    };
    let set = if rest.starts_with(':') { full } else { value };
    match operator {
        None => set,
        Some('-') => set.or_else(|| filled(otherwise, variables)),
        Some('?') => set,
        Some('+') => {
            if set.is_some() {
                filled(otherwise, variables)
            } else {
                Some(String::new())
            }
        }
        Some(_) => None,
    }
}

fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    let one = Some(value).filter(|value| !value.is_array() && !value.is_null());
    value.as_array().into_iter().flatten().chain(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "DIR" => Some("app".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_in_paths_are_filled_in_as_compose_does() {
        for (text, wanted) in [
            ("${DIR}/x.yaml", Some("app/x.yaml")),
            ("$DIR/x", Some("app/x")),
            ("${NO:-${DIR:-y}}/x", Some("app/x")),
            ("${EMPTY:-y}${EMPTY-z}", Some("y")),
            ("${DIR:+there}${NO+no}", Some("there")),
            ("a$$b", Some("a$b")),
            ("${NO}", None),
            ("${DIR:?set it}", Some("app")),
            ("${NO", None),
        ] {
            assert_eq!(filled(text, &variables).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn includes_and_extended_files_are_followed_to_their_end_and_loops_end() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "compose.yaml",
            "include:\n  - inc/a.yaml\n  - { path: [inc/b.yaml, ./c.yaml], env_file: inc/b.env }\n  - https://example.com/x.yaml\n  - ${NO}/y.yaml\n\
             x-base: &base { image: x }\nservices:\n  web: { <<: *base, ports: !override ['80'], extends: { file: '${DIR}/base.yaml', service: one } }\n\
             \x20 two: { extends: web }\n",
        );
        write("inc/a.yaml", "include: [../compose.yaml]\nservices: { a: { image: a } }\n");
        write("inc/.env", "A=1\n");
        write("inc/b.yaml", "services: { b: { extends: { service: a, file: ./more.yaml } } }\n");
        write(
            "app/base.yaml",
            "services:\n  one: { extends: { file: deep.yaml, service: x } }\n  other: { extends: { file: not-used.yaml, service: x } }\n",
        );
        write("app/deep.yaml", "services: { x: { image: x } }\n");
        write("inc/more.yaml", "services: [");
        let at = |path: &str| folder.path().join(path);
        let written = Written::follow(&[at("compose.yaml")], &[at(".env")], &variables);
        let told: Vec<(String, ReadAs)> = written
            .files
            .iter()
            .map(|(path, read_as)| (path.strip_prefix(folder.path()).unwrap().display().to_string(), *read_as))
            .collect();
        let wanted = [
            (".env", ReadAs::Variables),
            ("compose.yaml", ReadAs::Compose),
            ("inc/.env", ReadAs::Variables),
            ("inc/a.yaml", ReadAs::Include),
            ("compose.yaml", ReadAs::Include),
            ("inc/b.env", ReadAs::Variables),
            ("inc/b.yaml", ReadAs::Include),
            ("inc/more.yaml", ReadAs::Extends),
            ("c.yaml", ReadAs::Include),
            ("app/base.yaml", ReadAs::Extends),
            ("app/deep.yaml", ReadAs::Extends),
        ];
        assert_eq!(told, wanted.map(|(path, read_as)| (path.to_owned(), read_as)));
        assert_eq!(written.unread.len(), 2, "{:?}", written.unread);
    }
}
