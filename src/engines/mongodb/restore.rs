//! Putting databases back into a running server. Each collection is loaded beside the one that is there, under another
//! name, and counted; only when all of a database are in are they exchanged, by renaming. Where anything fails, what was
//! there is there again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::archive::{DOCUMENTS, INDEXES, TIME_SERIES, VIEW};
use super::shell::Database;
use super::{ADMIN, Mongodb, Session, database_of, inspector};
use crate::engines::server::{ANSWER, Server};
use crate::engines::{EngineError, Restored, Work, streams};
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::Reader;

/// Begins the name of a collection while it is loaded.
const LOADING: &str = "devstack_loading_";
/// Begins the name of the collection that was there, until all of its database are exchanged.
const ASIDE: &str = "devstack_aside_";

/// Counting a large collection takes as long as reading it.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// What users and roles are kept in. They are merged and never dropped: a login that is not in the backup stays.
const USERS: [&str; 3] = ["admin.system.users", "admin.system.roles", "admin.system.version"];

/// Undoes what a restore has begun. Collections are aside while others are loaded: the exchange was cut off, and what is
/// aside is what was there. Collections are aside and nothing is loaded any more: it had been done.
const CLEAN: &str = r#"
const [name, loading, aside] = JSON.parse(process.env.DEVSTACK_RESTORE);
const all = names(name), home = database(name);
const rename = (from, to) => admin.runCommand({renameCollection: name + "." + from, to: name + "." + to});
const cutOff = all.some((it) => it.startsWith(loading));
for (const it of all.filter((it) => it.startsWith(aside))) {
  if (cutOff) {
    home.getCollection(it.slice(aside.length)).drop();
    rename(it, it.slice(aside.length));
  } else home.getCollection(it).drop();
}
for (const it of all.filter((it) => it.startsWith(loading))) home.getCollection(it).drop();
answer(cutOff);
"#;

/// What has been loaded. A collection whose documents expire may have lost some already.
const COUNT: &str = r#"
const [name, loading] = JSON.parse(process.env.DEVSTACK_RESTORE);
answer(database(name).getCollectionInfos({name: {$regex: "^" + loading}}).map(({name: it, options}) => {
  const collection = database(name).getCollection(it), indexes = collection.getIndexes();
  const expires = indexes.some((it) => it.expireAfterSeconds !== undefined) || options?.expireAfterSeconds !== undefined;
  return {name: it.slice(loading.length), documents: Number(collection.countDocuments({})), indexes: indexes.length, expires};
}));
"#;

/// Exchanges what is loaded for what is there. No name has two collections at any time, and the old ones go last.
const EXCHANGE: &str = r#"
const [name, loading, aside] = JSON.parse(process.env.DEVSTACK_RESTORE);
const all = names(name), loaded = all.filter((it) => it.startsWith(loading)).map((it) => it.slice(loading.length));
const rename = (from, to) => admin.runCommand({renameCollection: name + "." + from, to: name + "." + to});
const made = [];
try {
  for (const it of loaded) {
    if (all.includes(it)) rename(it, aside + it);
    rename(loading + it, it);
    made.push(it);
  }
} catch (error) {
  // Back to being loaded, so that whoever cleans up knows what is old.
  for (const it of made) rename(it, loading + it);
  throw error;
}
for (const it of loaded.filter((it) => all.includes(it))) database(name).getCollection(aside + it).drop();
answer(loaded.length);
"#;

const USERS_NOW: &str = r#"
const count = (name) => Number(admin.getCollection(name).countDocuments({}));
answer({"admin.system.users": count("system.users"), "admin.system.roles": count("system.roles")});
"#;

#[derive(Debug, Deserialize)]
struct Loaded {
    name: String,
    documents: u64,
    indexes: u64,
    expires: bool,
}

/// Whether a collection is what a restore that was cut off has left behind.
pub(super) fn is_left_behind(collection: &str) -> bool {
    collection.starts_with(LOADING) || collection.starts_with(ASIDE)
}

/// A database in the middle of an exchange is partly a backup and partly what it was before: nothing to back up.
pub(super) fn must_not_be_half_restored(database: &Database, server: &Server) -> Result<(), EngineError> {
    let has = |beginning: &str| database.collections.iter().any(|name| name.starts_with(beginning));
    if !has(LOADING) || !has(ASIDE) {
        return Ok(());
    }
    Err(EngineError::Refused {
        what: format!(
            "a restore of the database {} in the container {} was cut off while it exchanged collections; restore it again \
             (what was there before has the names {ASIDE}…)",
            database.name, server.container.name
        ),
    })
}

impl Mongodb {
    pub(super) fn restore_in_place(
        &self,
        reader: &Reader,
        taken: &Taken,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        streams::must_be_whole(reader, taken, work, inspector)?;
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.restorer()?;
        let mut notes = Vec::new();
        let mut bytes = ByteSize(0);
        // Users last: the login of the restore may be another one afterwards.
        let mut artifacts: Vec<(String, &Artifact)> = taken
            .artifacts
            .iter()
            .filter_map(|artifact| Some((database_of(&artifact.name)?, artifact)))
            .collect();
        artifacts.sort_by_key(|(database, _)| database == ADMIN);
        let parts = |database: &str, artifact| Part {
            engine: self,
            server: &server,
            session: &session,
            database: database.to_owned(),
            reader,
            taken,
            artifact,
            work,
        };
        for (database, artifact) in &artifacts {
            let part = parts(database, artifact);
            part.restore(bytes, &mut notes)?;
            bytes = bytes + artifact.bytes;
        }
        let left_alone = self.left_alone(&server, &session, &artifacts)?;
        if !left_alone.is_empty() {
            notes.push(format!("left as they are, since the backup does not hold them: {}", left_alone.join(", ")));
        }
        for (database, artifact) in artifacts.iter().filter(|(database, _)| database == ADMIN) {
            parts(database, artifact).restore_users(&mut notes)?;
        }
        Ok(Restored { to: format!("the container {}", server.container.name), bytes, notes })
    }

    /// Collections of the server that the backup does not hold, and whole databases.
    fn left_alone(
        &self,
        server: &Server,
        session: &Session,
        artifacts: &[(String, &Artifact)],
    ) -> Result<Vec<String>, EngineError> {
        let restored: BTreeMap<&str, Vec<&str>> =
            artifacts.iter().map(|(database, artifact)| (database.as_str(), collections(artifact))).collect();
        let mut left = Vec::new();
        for database in self.databases(server, session)? {
            match restored.get(database.name.as_str()) {
                None if database.collections.is_empty() => {}
                None => left.push(database.name),
                Some(known) => left.extend(
                    database
                        .collections
                        .iter()
                        .map(|collection| format!("{}.{collection}", database.name))
                        .filter(|namespace| !known.contains(&namespace.as_str())),
                ),
            }
        }
        Ok(left)
    }
}

/// Everything that an artifact holds: collections, views, time series, as `database.name`.
fn collections(artifact: &Artifact) -> Vec<&str> {
    let kinds = [DOCUMENTS, VIEW, TIME_SERIES];
    artifact.counts.keys().filter_map(|name| kinds.iter().find_map(|kind| name.strip_prefix(kind))).collect()
}

/// One database of a restore.
struct Part<'a> {
    engine: &'a Mongodb,
    server: &'a Server,
    session: &'a Session,
    database: String,
    reader: &'a Reader,
    taken: &'a Taken,
    artifact: &'a Artifact,
    work: &'a Work<'a>,
}

impl Part<'_> {
    fn restore(&self, before: ByteSize, notes: &mut Vec<String>) -> Result<(), EngineError> {
        self.clean()?;
        let plain = self.plain();
        let exchanged = match plain.is_empty() {
            true => Ok(()),
            false => {
                self.load(&plain, before).and_then(|()| self.compare(&plain, notes)).and_then(|()| self.exchange())
            }
        };
        if let Err(error) = exchanged {
            let after = match self.clean() {
                Ok(()) => "the database is as it was before".to_owned(),
                Err(failed) => format!(
                    "what was there before is still there, part of it perhaps under names that begin with {ASIDE} ({}); \
                     the next restore tidies up first",
                    crate::model::chain(&failed)
                ),
            };
            return Err(self.failed(format!("restoring the database {}", self.database), after, error));
        }
        self.restore_others()
    }

    fn failed(&self, doing: String, after: String, error: EngineError) -> EngineError {
        EngineError::Restore { doing, after, source: Box::new(error) }
    }

    /// The names of this database whose counts begin with `kind`, as `database.name`, with what was counted. What the
    /// server keeps for itself has no other name to be loaded under.
    fn counted(&self, kind: &str) -> impl Iterator<Item = (&str, u64)> {
        self.artifact
            .counts
            .iter()
            .filter_map(move |(name, count)| Some((name.strip_prefix(kind)?, count.value)))
    }

    fn is_systems(&self, namespace: &str) -> bool {
        namespace[self.database.len() + 1..].starts_with("system.")
    }

    /// The collections that are loaded beside those that are there.
    fn plain(&self) -> BTreeMap<&str, u64> {
        self.counted(DOCUMENTS).filter(|(namespace, _)| !self.is_systems(namespace)).collect()
    }

    /// What cannot be renamed: views, time series, the functions in `system.js`. Users are no matter of this.
    fn others(&self) -> Vec<&str> {
        let functions = self.counted(DOCUMENTS).filter(|(namespace, _)| namespace.ends_with(".system.js"));
        let renamed_never = self.counted(VIEW).chain(self.counted(TIME_SERIES)).chain(functions);
        renamed_never.map(|(namespace, _)| namespace).filter(|namespace| !namespace.starts_with("admin.system.")).collect()
    }

    fn asked<T: serde::de::DeserializeOwned>(&self, script: &str, limit: Duration) -> Result<T, EngineError> {
        let told = serde_json::json!([self.database, LOADING, ASIDE]).to_string();
        self.engine.asked(self.server, self.session, script, &[("DEVSTACK_RESTORE", &told)], limit)
    }

    fn clean(&self) -> Result<(), EngineError> {
        self.asked::<bool>(CLEAN, ANSWER).map(|_| ())
    }

    fn exchange(&self) -> Result<(), EngineError> {
        self.asked::<u64>(EXCHANGE, ANSWER).map(|_| ())
    }

    /// Loads part of the archive. The archive's own checks come too late, so it was looked through before.
    fn pour(&self, arguments: Vec<String>, work: &Work<'_>, before: ByteSize) -> Result<(), EngineError> {
        // What was let into a collection once is let in again, whatever its validator says today.
        let always = ["--stopOnError", "--bypassDocumentValidation"];
        let command = self.engine.tool(self.session, "mongorestore").args(always).args(arguments);
        let input = self.server.docker.input(&self.server.container, &command)?;
        streams::pour(self.reader, self.taken, self.artifact, input, work, before).map(|_| ())
    }

    fn load(&self, plain: &BTreeMap<&str, u64>, before: ByteSize) -> Result<(), EngineError> {
        let mut arguments = Vec::new();
        for namespace in plain.keys() {
            let name = &namespace[self.database.len() + 1..];
            let pattern = escaped(namespace);
            arguments.push(format!("--nsInclude={pattern}"));
            arguments.push(format!("--nsFrom={pattern}"));
            arguments.push(format!("--nsTo={}", escaped(&format!("{}.{LOADING}{name}", self.database))));
        }
        self.pour(arguments, self.work, before)
    }

    fn compare(&self, plain: &BTreeMap<&str, u64>, notes: &mut Vec<String>) -> Result<(), EngineError> {
        let loaded: Vec<Loaded> = self.asked(COUNT, A_DAY)?;
        let mut findings = Vec::new();
        let now: BTreeMap<String, &Loaded> =
            loaded.iter().map(|one| (format!("{}.{}", self.database, one.name), one)).collect();
        for (namespace, documents) in plain {
            match now.get(*namespace) {
                None => findings.push(format!("{namespace} is missing")),
                Some(one) if one.documents == *documents => {}
                Some(one) if one.expires && one.documents < *documents => notes.push(format!(
                    "{namespace} has {} of {documents} documents: its index lets old ones expire",
                    one.documents
                )),
                Some(one) => {
                    findings.push(format!("{namespace} has {} documents, and {documents} in the backup", one.documents));
                }
            }
        }
        let indexes: u64 = loaded.iter().map(|one| one.indexes).sum();
        let systems = self.counted(DOCUMENTS).any(|(namespace, _)| self.is_systems(namespace));
        let expected = self.counted(INDEXES).map(|(_, count)| count).sum::<u64>();
        // The indexes of the server's own collections are in the sum, and are not loaded here.
        if !systems && indexes != expected {
            findings.push(format!("there are {indexes} indexes, and {expected} in the backup"));
        }
        match findings.is_empty() {
            true => Ok(()),
            false => Err(EngineError::Differs { what: format!("the database {}", self.database), findings }),
        }
    }

    fn restore_others(&self) -> Result<(), EngineError> {
        let others = self.others();
        if others.is_empty() {
            return Ok(());
        }
        let included = others.iter().map(|namespace| format!("--nsInclude={}", escaped(namespace)));
        let arguments = std::iter::once("--drop".to_owned()).chain(included).collect();
        let silent = Work { progress: &|_| {}, ..*self.work };
        self.pour(arguments, &silent, ByteSize(0)).map_err(|error| {
            let doing = format!("restoring the views, time series and functions of {}", self.database);
            let after = format!(
                "its collections are restored; {} may be missing or half there: correct the cause and restore again",
                others.join(", ")
            );
            self.failed(doing, after, error)
        })
    }

    /// Merges users and roles into those that are there.
    fn restore_users(&self, notes: &mut Vec<String>) -> Result<(), EngineError> {
        let in_backup: Vec<(&str, u64)> =
            self.counted(DOCUMENTS).filter(|(namespace, _)| USERS[..2].contains(namespace)).collect();
        if in_backup.iter().all(|(_, count)| *count == 0) {
            return Ok(());
        }
        let silent = Work { progress: &|_| {}, ..*self.work };
        let arguments = USERS.iter().map(|namespace| format!("--nsInclude={namespace}")).collect();
        self.pour(arguments, &silent, ByteSize(0)).map_err(|error| {
            let after = "the databases are restored; users and roles are as they were, or partly those of the backup";
            self.failed("restoring users and roles".to_owned(), after.to_owned(), error)
        })?;
        let now: BTreeMap<String, u64> =
            match self.engine.asked(self.server, self.session, USERS_NOW, &[], ANSWER) {
                Ok(now) => now,
                Err(error) => {
                    notes.push(format!(
                        "users and roles are those of the backup now, and the login of this restore could not count them: {}",
                        crate::model::chain(&error)
                    ));
                    return Ok(());
                }
            };
        let findings: Vec<String> = in_backup
            .iter()
            .filter_map(|(namespace, count)| {
                let there = now.get(*namespace).copied().unwrap_or_default();
                (there < *count).then(|| format!("{namespace} has {there} documents, and {count} in the backup"))
            })
            .collect();
        match findings.is_empty() {
            true => Ok(()),
            false => Err(EngineError::Differs { what: "users and roles".to_owned(), findings }),
        }
    }
}

/// A name as a pattern that means itself.
fn escaped(namespace: &str) -> String {
    namespace.replace('\\', "\\\\").replace('*', "\\*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restore_leaves_behind_is_known_by_its_name() {
        assert!(is_left_behind("devstack_loading_orders") && is_left_behind("devstack_aside_orders"));
        assert!(!is_left_behind("orders") && !is_left_behind("my_devstack_aside_orders"));
    }

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(escaped(r"shop.a*b\c"), r"shop.a\*b\\c");
    }
}
