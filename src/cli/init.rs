//! `devstack init`: looks around in a folder and writes a starter file that works as it stands.

mod compose;
mod configuration;
mod password;
mod server;
mod sources;
mod vault;

use super::error::{Exit, Failure};
use crate::plan::render::count;
use crate::spec::questions;
use compose::{Looked, Stack};
use configuration::{Configuration, excluded, quoted_glob};
use sources::{LeftOut, Proposed};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The first bytes of every SQLite database: <https://www.sqlite.org/fileformat.html>, section 1.3.1.
const SQLITE_HEADER: &[u8; 16] = b"SQLite format 3\0";

/// Deeper down, a database is more likely somebody's test data than the stack's.
const DEEPEST: usize = 4;
/// A folder of a hundred thousand files is looked through in about a second.
const MOST_ENTRIES: usize = 100_000;
/// More services than this in a starter file hide what it is to show.
const MOST_DATABASES: usize = 12;

/// What others made, or what can be made again.
const SKIPPED: [&str; 6] = [".git", "target", "node_modules", ".devstack", "backups", ".venv"];

const CONFIG_FOLDERS: [&str; 4] = ["config", "configs", "conf", "etc"];

/// What [`look_around`] found. Paths are relative to the folder, sorted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Surroundings {
    /// SQLite databases, told by their first bytes.
    pub databases: Vec<PathBuf>,
    /// Compose files, `.env` files, configuration folders.
    pub configuration: Vec<PathBuf>,
    /// Folders that could not be read, each with the reason: there may be more in them.
    pub unread: Vec<String>,
    /// There was more than is looked through.
    pub cut_short: bool,
    /// The stack that the Compose files describe, where there are some.
    stack: Option<Stack>,
    /// What keeps the Compose files from being used.
    pub questions: Vec<String>,
}

/// Looks through `folder`, a few levels deep. Fails only where the folder itself cannot be read.
pub fn look_around(folder: &Path) -> io::Result<Surroundings> {
    std::fs::read_dir(folder)?;
    let mut found = Surroundings::default();
    let entries = walkdir::WalkDir::new(folder).max_depth(DEEPEST).sort_by_file_name().into_iter();
    let skipped = |entry: &walkdir::DirEntry| {
        entry.depth() > 0 && entry.file_name().to_str().is_some_and(|name| SKIPPED.contains(&name))
    };
    for (count, entry) in entries.filter_entry(|entry| !skipped(entry)).enumerate() {
        if count == MOST_ENTRIES {
            found.cut_short = true;
            break;
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                found.unread.push(error.to_string());
                continue;
            }
        };
        let path = entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_owned();
        let top = entry.depth() == 1;
        if top && is_configuration(&entry) {
            found.configuration.push(path);
        } else if entry.file_type().is_file() {
            match is_database(entry.path()) {
                Ok(true) if found.databases.len() < MOST_DATABASES => found.databases.push(path),
                Ok(true) => found.cut_short = true,
                Ok(false) => {}
                Err(error) => found.unread.push(format!("{}: {error}", path.display())),
            }
        }
    }
    Ok(found)
}

fn is_configuration(entry: &walkdir::DirEntry) -> bool {
    let Some(name) = entry.file_name().to_str() else { return false };
    let compose = (name.starts_with("docker-compose") || name.starts_with("compose"))
        && (name.ends_with(".yml") || name.ends_with(".yaml"));
    match entry.file_type() {
        kind if kind.is_dir() => CONFIG_FOLDERS.contains(&name),
        kind if kind.is_file() => compose || name == ".env" || name.starts_with(".env."),
        _ => false,
    }
}

fn is_database(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(SQLITE_HEADER.len() as u64).read_to_end(&mut start)?;
    Ok(start == SQLITE_HEADER)
}

/// A commented file for `folder`, which [`crate::spec::parse`] accepts as it stands.
pub fn starter(folder: &Path, facts: &Surroundings) -> String {
    let folder_name = folder.file_name().unwrap_or_default().to_string_lossy();
    let stack = name_of(facts.stack.as_ref().map_or(&*folder_name, |stack| stack.project.as_str()), "stack");
    let repository = repository_folder(folder, facts);
    let proposed = facts.stack.as_ref().map(|stack| sources::propose(stack, repository)).unwrap_or_default();
    let mut text = String::from(
        "# yaml-language-server: $schema=./devstack.schema.json\n\
         # (devstack schema > devstack.schema.json lets an editor complete and check this file.)\n\
         #\n\
         # What is backed up, where to, when, and how long it is kept. Then:\n\
         #   devstack check     is this file right?\n\
         #   devstack plan      what would be done?\n\
         #   devstack apply     do it\n\
         \n",
    );
    let asked = facts.stack.iter().flat_map(|stack| &stack.questions).chain(&proposed.questions);
    let questions: BTreeSet<&String> = asked.chain(&facts.questions).collect();
    if !questions.is_empty() {
        text.push_str("# Not decided yet. Answer each in the file, and remove its line:\n");
        text.extend(questions.iter().map(|question| format!("{}{}\n", questions::MARK, one_line(question))));
        text.push('\n');
    }
    text.push_str(&format!("version: 1\nstack: {stack}\n\n"));
    if let Some(stack) = &facts.stack {
        text.push_str(&runtime(stack));
        if let Some(vault) = &proposed.vault {
            let proposal = vault.proposal(&[]);
            text.push_str(&format!("{}{}\n", proposal.about, proposal.section));
        }
    }
    text.push_str(&services(folder, facts, &proposed, repository));
    text.push_str(&left_out(facts, &proposed));
    text.push_str(&REST.replace("./backups", &format!("./{repository}")));
    text
}

/// What is left out, each with the reason that every look repeats.
fn left_out(facts: &Surroundings, proposed: &Proposed) -> String {
    let of_profiles = facts.stack.iter().flat_map(|stack| &stack.left_out);
    let all: Vec<&LeftOut> = of_profiles.chain(&proposed.left_out).collect();
    if all.is_empty() {
        return String::new();
    }
    let mut text =
        "\n# Not taken. Remove the line of what should be, and add a source for it.\nleave_out:\n".to_owned();
    for LeftOut { key, name, because } in all {
        let because = serde_json::Value::from(one_line(because));
        text.push_str(&format!("  - {{ {key}: {}, because: {because} }}\n", quoted(name)));
    }
    text
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn runtime(stack: &Stack) -> String {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
    let files = list(&mut stack.files.iter().map(|file| quoted(&file.to_string_lossy())));
    let profiles = match stack.profiles.as_slice() {
        [] => String::new(),
        // Without its profiles Compose leaves services out without a word.
        profiles => format!(", profiles: [{}]", list(&mut profiles.iter().map(|profile| quoted(profile)))),
    };
    let others = match stack.never_ran.as_slice() {
        [] => String::new(),
        others => {
            format!("  # Nothing has run of the profiles {}, so a recovery starts none of it.\n", others.join(", "))
        }
    };
    format!("runtime:\n{others}  docker: {{ compose: [{files}]{profiles}, project: {} }}\n\n", quoted(&stack.project))
}

/// Where backups go: a folder that the stack does not use for something else.
fn repository_folder(folder: &Path, facts: &Surroundings) -> &'static str {
    const USUAL: &str = "backups";
    let place = folder.join(USUAL);
    let mut mounted = facts.stack.iter().flat_map(|stack| &stack.held.binds).map(|bind| &bind.path);
    // A repository of devstack's own from before is no reason to make a second.
    let other = place.exists() && !place.join("config").is_file();
    if other || mounted.any(|path| path.starts_with(&place)) { "devstack-backups" } else { USUAL }
}

const REST: &str = r#"
repositories:
  # On the same disk as the data this survives a mistake, not the loss of the disk: put it on another one soon.
  local:
    path: ./backups
    keys:
      # Made at the first apply, readable by you only. Keep a copy of it elsewhere: without it the backups stay shut.
      - passphrase: { file: ~/.config/devstack/passphrase, generate: true }

backup:
  regular:
    services: all
    # Every six hours. Less often than the RPO below and `devstack check` says so.
    schedule: { cron: "15 */6 * * *", timezone: UTC }
    to: [local]
    # A run stays if any of these keeps it; the last two verified ones always do.
    retention: { last: 4, daily: 7, weekly: 4, monthly: 12 }
    # Every byte of the repository is read again within this time.
    verify: { data_every: 30d }

recovery:
  # How much may be lost, and how long the stack may take to come back.
  rpo: 24h
  rto: 30m
"#;

fn services(folder: &Path, facts: &Surroundings, proposed: &Proposed, repository: &str) -> String {
    let mut text = String::from("services:\n");
    if facts.cut_short {
        text.push_str("  # There was more here than was looked through: databases may be missing below.\n");
    }
    for unread in &facts.unread {
        text.push_str(&format!("  # Not looked into: {}\n", one_line(unread)));
    }
    for mentioned in &proposed.mentioned {
        text.push_str(&format!("  # Not taken: {}\n", one_line(mentioned)));
    }
    let mut names: Vec<String> = vec!["configuration".to_owned(), "all".to_owned()];
    if proposed.services.iter().any(|found| found.source.contains("{ env: ")) {
        text.push_str(
            "  # `env` is the environment of devstack: set it where devstack runs, or in its systemd unit (EnvironmentFile=).\n",
        );
    }
    for found in &proposed.services {
        let name = unused(&name_of(&found.name, "service"), &names);
        let down = facts.stack.iter().filter_map(|stack| stack.down.as_ref());
        let down = down.flat_map(|down| found.made_of.iter().filter_map(|part| Some((part, down.get(part)?))));
        let state = down.map(|(part, state)| match state.as_str() {
            "has no container" => format!("{part} has no container now."),
            state => format!("{part} is {state} now."),
        });
        for line in found.about.iter().cloned().chain(state) {
            text.push_str(&format!("  # {}\n", one_line(&line)));
        }
        text.push_str(&format!("  {name}:\n    source: {}\n", found.source));
        if !found.after.is_empty() {
            let after: Vec<String> = found.after.iter().map(|name| name_of(name, "service")).collect();
            text.push_str(&format!("    after: [{}]\n", after.join(", ")));
        }
        names.push(name);
    }
    if let Some(vault) = &proposed.vault {
        text.push_str(&vault.proposal(&names).service);
    }
    let covered = |path: &Path| proposed.covered.iter().any(|folder_of| folder.join(path).starts_with(folder_of));
    for path in facts.databases.iter().filter(|path| !covered(path)) {
        let name = unused(&name_of(&path.file_stem().unwrap_or_default().to_string_lossy(), "database"), &names);
        text.push_str(&format!(
            "  # An SQLite database. It is taken through SQLite's own backup, so it may be in use.\n  {name}:\n    \
             source: {{ sqlite: {{ path: {} }} }}\n",
            quoted(&path.to_string_lossy())
        ));
        names.push(name);
    }
    let configuration = Configuration::of(folder, facts, proposed, repository);
    if !configuration.paths.is_empty() {
        text.push_str(&format!(
            "  # What the stack is started from.\n  configuration:\n    source: {}\n",
            configuration.source()
        ));
    }
    if names.len() == 2 && configuration.paths.is_empty() {
        text.push_str(&format!(
            "  # No SQLite database, no Compose file, no .env and no configuration folder was found here, so this takes the\n  \
             # whole folder without what can be made again. Better name what matters.\n  files:\n    source:\n      files:\n        \
             paths: [.]\n        exclude: [{repository}, .devstack, .git, target, node_modules, .venv, \"*.tmp\"]\n",
        ));
    } else {
        text.push_str(
            "  # Other files and folders, such as uploads:\n  # uploads:\n  #   source: { files: { paths: [uploads/], exclude: \
             [\"*.tmp\"] } }\n",
        );
    }
    text
}

/// `text` as a name of the file: lower-case letters, digits, `-` and `_`.
fn name_of(text: &str, otherwise: &str) -> String {
    let letters = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' };
    let name: String = text.to_lowercase().chars().map(letters).take(40).collect();
    match name.trim_matches(['-', '_']) {
        "" => otherwise.to_owned(),
        // YAML would read it as a number.
        digits if !digits.contains(|c: char| c.is_ascii_lowercase()) => format!("{otherwise}-{digits}"),
        name => name.to_owned(),
    }
}

/// `name`, or with the first number that makes it unlike all `names`.
fn unused(name: &str, names: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
    // The numbers never end, so one is found.
    candidates.find(|candidate| !names.contains(candidate)).unwrap_or_default()
}

/// A path as YAML text: a JSON string is one, whatever is in it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./_-".contains(c);
    if path.chars().all(plain) && !path.starts_with('-') && path.contains(|c: char| c.is_ascii_alphabetic()) {
        path.to_owned()
    } else {
        serde_json::Value::from(path).to_string()
    }
}

/// Writes the starter file, or prints it; never over a file that is there.
pub(super) fn run(file: &Path, stdout: bool) -> Result<Exit, Failure> {
    let absolute =
        std::path::absolute(file).map_err(|error| Failure::caused(Exit::Input, "the file's place", &error))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let mut facts = look_around(folder)
        .map_err(|error| Failure::caused(Exit::Input, &format!("looking around in {}", folder.display()), &error))?;
    let mut seen = Exit::Done;
    match compose::look(folder) {
        Ok(Looked::Nothing) => {}
        Ok(Looked::Stack(stack)) => facts.stack = Some(*stack),
        Ok(Looked::Unclear(files)) => {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            facts.questions.push(format!(
                "which Compose files make this stack? There are {}; name them under `runtime: {{ docker: {{ compose: […] }} }}`, or \
                 set COMPOSE_FILE in .env and run `devstack init` again.",
                files.join(", ")
            ));
            seen = Exit::Partly;
        }
        Ok(Looked::Unset(unset)) => {
            facts.questions.extend(unset);
            seen = Exit::Partly;
        }
        // A starter file without the servers is better than none, and says what is missing in it; it is not all that was
        // asked for.
        Err(error) => {
            facts.questions.push(format!(
                "what is in the Compose files? Nothing of them is in this file, because {}; correct that, and run `devstack init` again.",
                crate::model::chain(&error)
            ));
            seen = Exit::Partly;
        }
    }
    let text = starter(folder, &facts);
    if stdout {
        print!("{text}");
        return Ok(seen);
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).open(file).map_err(|error| {
        Failure::caused(Exit::Input, &format!("writing {}", file.display()), &error)
            .hint("a file that is there is never overwritten; print a new one with `devstack init --stdout`")
    })?;
    std::io::Write::write_all(&mut out, text.as_bytes())
        .map_err(|error| Failure::caused(Exit::Unexpected, &format!("writing {}", file.display()), &error))?;
    let services =
        text.lines().filter(|line| line.trim_start().starts_with("source:") && !line.trim_start().starts_with('#'));
    println!("Wrote {}: {}.", file.display(), count(services.count(), "service"));
    for unread in &facts.unread {
        eprintln!("warning: not looked into, so what is in it is not in the file: {unread}");
    }
    let questions = text.lines().filter_map(|line| line.strip_prefix(questions::MARK));
    for question in questions {
        eprintln!("question: {question}");
    }
    println!("Read it, then: devstack check, devstack plan, devstack apply.");
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    fn accepted(folder: &Path, facts: &Surroundings) -> spec::Loaded {
        let text = starter(folder, facts);
        let loaded =
            spec::parse("devstack.yaml", text.as_bytes(), folder).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(loaded.warnings, [], "{text}");
        loaded
    }

    #[test]
    fn databases_are_found_by_their_first_bytes_and_configuration_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        for path in ["data/shop", "data/2024.db", "other/shop.sqlite", "target/x.db", "a/b/c/d/e/deep.db"] {
            write(path, b"SQLite format 3\0 and so on");
        }
        write("data/fake.db", b"SQLite format 2");
        write("data/empty.db", b"");
        write("docker-compose.prod.yml", b"services: {}");
        write(".env", b"A=1");
        write("configs/nginx.conf", b"");
        let facts = look_around(folder.path()).unwrap();
        let names =
            |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>();
        assert_eq!(names(&facts.databases), ["data/2024.db", "data/shop", "other/shop.sqlite"]);
        assert_eq!(names(&facts.configuration), [".env", "configs", "docker-compose.prod.yml"]);
        let spec = accepted(folder.path(), &facts).spec;
        let services: Vec<_> = spec.services.keys().map(|name| name.as_str()).collect();
        assert_eq!(services, ["configuration", "database-2024", "shop", "shop-2"]);
    }

    #[test]
    fn where_nothing_is_found_the_folder_itself_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let facts = look_around(folder.path()).unwrap();
        assert_eq!(facts, Surroundings::default());
        accepted(folder.path(), &facts);
        assert!(starter(folder.path(), &facts).contains("No SQLite database"));
    }

    #[test]
    fn a_name_that_yaml_would_misread_still_gives_a_file_that_is_right() {
        let odd =
            ["a b.db", "x: y.db", "#1.db", "ünï.db", "-dash.db", "'quote\".db", "123", "all.db", "configuration.db"];
        let facts = Surroundings {
            databases: odd.iter().map(PathBuf::from).collect(),
            unread: vec!["odd\nname: denied".to_owned()],
            ..Surroundings::default()
        };
        for folder in ["/srv/My Shop", "/srv/2024", "/", "/srv/ß"] {
            let spec = accepted(Path::new(folder), &facts).spec;
            assert_eq!(spec.services.len(), odd.len());
        }
    }
}
