//! Where a server's password is found: by the variable, the file of variables or the secret file that Compose takes it
//! from. The value itself is never kept, and never written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::quoted;

/// The names in files of variables, and what each takes its value from, where that is another variable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    /// Compose's own, in order: the last that has a name gives its value.
    pub own: Vec<VariableFile>,
    /// Those that a service's `env_file` names.
    pub of_services: Vec<VariableFile>,
    /// Those of the environment that devstack runs in.
    pub environment: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VariableFile {
    /// As devstack.yaml should name it.
    pub path: PathBuf,
    /// Where Compose finds it.
    pub absolute: PathBuf,
    pub names: BTreeMap<String, Option<String>>,
}

impl VariableFile {
    /// The names in `text`, without a value.
    pub fn read(path: &Path, absolute: &Path, text: &str) -> Self {
        let mut names = BTreeMap::new();
        for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')) {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let Some((name, value)) = line.split_once(['=', ':']) else { continue };
            let name = name.trim();
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
                names.insert(name.to_owned(), variable_of(value.trim().trim_matches('"')));
            }
        }
        Self { path: path.to_owned(), absolute: absolute.to_owned(), names }
    }
}

/// Where a value is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `{ env: NAME }`.
    Environment(String),
    /// `{ env_file: FILE, name: NAME }`.
    Variable(PathBuf, String),
    /// `{ file: PATH }`.
    File(PathBuf),
    /// The Compose file holds the value itself, under this name: devstack.yaml can't refer to it.
    Literal(String),
    /// A secret that Compose expects the engine to have.
    External(String),
}

impl Place {
    /// The text for devstack.yaml; None where there is nothing to refer to.
    pub fn reference(&self) -> Option<String> {
        match self {
            Self::Environment(name) => Some(format!("{{ env: {name} }}")),
            Self::Variable(file, name) => Some(variable_reference(file, name)),
            Self::File(path) => Some(format!("{{ file: {} }}", quoted(&path.to_string_lossy()))),
            Self::Literal(_) | Self::External(_) => None,
        }
    }
}

fn variable_reference(file: &Path, name: &str) -> String {
    format!("{{ env_file: {}, name: {name} }}", quoted(&file.to_string_lossy()))
}

/// A service as it is written, with what its values are taken from.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The service, with no variable filled in.
    pub written: &'a Value,
    /// The service with its mounts and secrets resolved.
    pub resolved: &'a Value,
    /// All secrets of the project, resolved.
    pub secrets: &'a Value,
    pub variables: &'a Variables,
    /// The folder of devstack.yaml.
    pub base: &'a Path,
}

impl Asked<'_> {
    /// Where the first of `names` that the service has is found: in its `environment`, its `env_file`, or as `NAME_FILE`.
    pub fn find(&self, names: &[&str]) -> Option<Place> {
        names.iter().find_map(|name| self.named(name).or_else(|| self.in_file(&format!("{name}_FILE"))))
    }

    fn named(&self, name: &str) -> Option<Place> {
        match variable(&self.written["environment"], name) {
            Some(Some(value)) => return Some(self.value(&value, name)),
            // `- NAME` passes it on.
            Some(None) => return Some(self.refer(name)),
            None => {}
        }
        let (file, from) = self.env_files().find_map(|file| Some((file, file.names.get(name)?)))?;
        Some(match from {
            Some(other) => self.refer(other),
            None => Place::Variable(file.path.clone(), name.to_owned()),
        })
    }

    /// Those that the service reads, the one that counts first.
    fn env_files(&self) -> impl Iterator<Item = &VariableFile> {
        let entries = self.resolved["env_file"].as_array().into_iter().flatten().rev();
        // A `$` is printed twice there.
        let paths = entries.filter_map(|entry| Some(PathBuf::from(entry["path"].as_str()?.replace("$$", "$"))));
        paths.filter_map(|path| self.variables.of_services.iter().find(|file| file.absolute == path))
    }

    /// Where `value`, which the Compose file gives `name`, comes from.
    pub fn value(&self, value: &str, name: &str) -> Place {
        match variable_of(value) {
            Some(variable) => self.refer_or(&variable, value),
            None => Place::Literal(name.to_owned()),
        }
    }

    fn refer(&self, name: &str) -> Place {
        let own = self.variables.own.iter().rev().find_map(|file| Some((file, file.names.get(name)?)));
        match own {
            Some((file, _)) => Place::Variable(file.path.clone(), name.to_owned()),
            None => Place::Environment(name.to_owned()),
        }
    }

    /// As [`Self::refer`], where `written` may say what the value is if nobody sets the variable: `${NAME:-otherwise}`.
    fn refer_or(&self, name: &str, written: &str) -> Place {
        match self.refer(name) {
            Place::Environment(name) if has_default(written) && !self.variables.environment.contains(&name) => {
                Place::Literal(name)
            }
            place => place,
        }
    }

    fn in_file(&self, name: &str) -> Option<Place> {
        let path = match variable(&self.written["environment"], name) {
            Some(Some(path)) => path,
            _ => variable(&self.resolved["environment"], name).flatten()?,
        };
        Some(self.file_at(&path).unwrap_or_else(|| Place::Literal(name.to_owned())))
    }

    /// What lies at `path` in the container: a secret of Compose, or a file that it mounts.
    pub fn file_at(&self, path: &str) -> Option<Place> {
        let used = self.resolved["secrets"].as_array().into_iter().flatten();
        for secret in used {
            let source = secret.as_str().or_else(|| secret["source"].as_str()).unwrap_or_default();
            let target = secret["target"].as_str().unwrap_or(source);
            let whole = if target.starts_with('/') { target.to_owned() } else { format!("/run/secrets/{target}") };
            if whole == path {
                let declared = &self.secrets[source];
                return match (declared["file"].as_str(), declared["environment"].as_str()) {
                    (Some(file), _) => Some(Place::File(self.relative(file))),
                    (None, Some(name)) => Some(self.refer(name)),
                    (None, None) => Some(Place::External(source.to_owned())),
                };
            }
        }
        let mounts = self.resolved["volumes"].as_array().into_iter().flatten();
        mounts.filter(|mount| mount["type"] == "bind").find_map(|mount| {
            let (source, target) = (mount["source"].as_str()?, mount["target"].as_str()?);
            let rest = path.strip_prefix(target)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| Place::File(self.relative(&format!("{source}{rest}"))))
        })
    }

    fn relative(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        path.strip_prefix(self.base).unwrap_or(path).to_owned()
    }
}

/// A variable of an `environment`, a mapping or a list: None where it is not there, its value where it has one.
pub fn variable(environment: &Value, name: &str) -> Option<Option<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    match environment {
        Value::Object(map) => map.get(name).map(text),
        Value::Array(items) => {
            items.iter().filter_map(Value::as_str).rev().find_map(|item| match item.split_once('=') {
                Some((key, value)) if key == name => Some(Some(value.to_owned())),
                None if item == name => Some(None),
                _ => None,
            })
        }
        _ => None,
    }
}

/// The name in `${NAME}`, `${NAME:-otherwise}` or `$NAME`, where that is all of the value.
pub fn variable_of(value: &str) -> Option<String> {
    let rest = value.strip_prefix('$')?;
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    match rest.strip_prefix('{') {
        Some(inner) => {
            let inner = inner.strip_suffix('}')?;
            let name: String = inner.chars().take_while(is_name).collect();
            let rest = &inner[name.len()..];
            let modified = rest.is_empty() || rest.starts_with([':', '-', '?', '+']);
            (!name.is_empty() && modified).then_some(name)
        }
        None => (!rest.is_empty() && rest.chars().all(|c| is_name(&c))).then(|| rest.to_owned()),
    }
}

fn has_default(value: &str) -> bool {
    value.contains(":-")
        || value
            .trim_start_matches("${")
            .trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_')
            .starts_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables() -> Variables {
        let own = VariableFile::read(
            Path::new(".env"),
            Path::new("/srv/.env"),
            "# DB=no\nDB_PASSWORD=hunter2\nexport TOKEN='x'\n\nbad line\n",
        );
        let service = VariableFile::read(
            Path::new("db.env"),
            Path::new("/srv/db.env"),
            "MYSQL_ROOT_PASSWORD=hunter3\nFROM_OTHER=${DB_PASSWORD}\n",
        );
        Variables { own: vec![own], of_services: vec![service], environment: BTreeSet::from(["SET".to_owned()]) }
    }

    fn place(environment: Value, names: &[&str]) -> Option<Place> {
        let variables = variables();
        let written = json!({ "environment": environment });
        let resolved = json!({ "environment": environment, "env_file": [{ "path": "/srv/other.env" }, { "path": "/srv/db.env" }], "secrets": [{ "source": "pw", "target": "/run/secrets/pw" }, { "source": "ext" }, { "source": "var" }],
            "volumes": [{ "type": "bind", "source": "/srv/keys", "target": "/keys" }] });
        let secrets = json!({ "pw": { "file": "/srv/secrets/pw.txt" }, "ext": { "external": true }, "var": { "environment": "TOKEN" } });
        let base = Path::new("/srv");
        Asked { written: &written, resolved: &resolved, secrets: &secrets, variables: &variables, base }.find(names)
    }

    #[test]
    fn a_password_is_referred_to_wherever_compose_takes_it_from() {
        let env_file = |path: &str, name: &str| Some(Place::Variable(path.into(), name.to_owned()));
        let env = |name: &str| Some(Place::Environment(name.to_owned()));
        let literal = |name: &str| Some(Place::Literal(name.to_owned()));
        for (environment, names, found) in [
            (json!({ "PASS": "${DB_PASSWORD}" }), vec!["PASS"], env_file(".env", "DB_PASSWORD")),
            (json!(["A=1", "PASS=$DB_PASSWORD"]), vec!["PASS"], env_file(".env", "DB_PASSWORD")),
            (json!(["DB_PASSWORD"]), vec!["DB_PASSWORD"], env_file(".env", "DB_PASSWORD")),
            (json!(["UNSET"]), vec!["UNSET"], env("UNSET")),
            (json!({ "PASS": "${UNSET:?set it}" }), vec!["PASS"], env("UNSET")),
            (json!({ "PASS": "${TOKEN:-secret}" }), vec!["PASS"], env_file(".env", "TOKEN")),
            (json!({ "PASS": "${UNSET:-secret}" }), vec!["PASS"], literal("UNSET")),
            (json!({ "PASS": "${SET-secret}" }), vec!["PASS"], env("SET")),
            (json!({ "PASS": "hunter2" }), vec!["PASS"], literal("PASS")),
            (json!({ "PASS": 1234 }), vec!["PASS"], literal("PASS")),
            (json!({ "PASS": "pre${TOKEN}" }), vec!["PASS"], literal("PASS")),
            (json!({ "PASS": "${TOKEN}post" }), vec!["PASS"], literal("PASS")),
            (json!({}), vec!["MYSQL_ROOT_PASSWORD"], env_file("db.env", "MYSQL_ROOT_PASSWORD")),
            (json!({}), vec!["FROM_OTHER"], env_file(".env", "DB_PASSWORD")),
            (json!({ "PASS_FILE": "/run/secrets/pw" }), vec!["NO", "PASS"], Some(Place::File("secrets/pw.txt".into()))),
            (json!({ "PASS_FILE": "/run/secrets/var" }), vec!["PASS"], env_file(".env", "TOKEN")),
            (json!({ "PASS_FILE": "/run/secrets/ext" }), vec!["PASS"], Some(Place::External("ext".into()))),
            (json!({ "PASS_FILE": "/keys/a" }), vec!["PASS"], Some(Place::File("keys/a".into()))),
            (json!({ "PASS_FILE": "/elsewhere" }), vec!["PASS"], literal("PASS_FILE")),
            (json!({}), vec!["PASS"], None),
            (json!(null), vec!["PASS"], None),
        ] {
            let place = place(environment.clone(), &names);
            assert_eq!(place, found, "{environment}");
            assert!(!format!("{:?}", place.map(|place| place.reference())).contains("hunter"));
        }
    }

    #[test]
    fn of_a_file_of_variables_the_names_alone_are_kept() {
        let text = format!("{:?}", variables());
        assert!(!text.contains("hunter"), "{text}");
        assert_eq!(variables().own[0].names.keys().collect::<Vec<_>>(), ["DB_PASSWORD", "TOKEN"]);
    }
}
