//! Putting databases back into a running server. Every collection is loaded beside the one that is there, under another
//! name, and counted; only when all of the backup are in are they exchanged, by renaming. Where anything fails, what was
//! there is there again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

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
/// Begins the name of the collection that was there, until all are exchanged.
const ASIDE: &str = "devstack_aside_";

/// Counting a large collection takes as long as reading it.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// What users and roles are kept in. They are merged and never dropped: a login that is not in the backup stays.
const USERS: [&str; 3] = ["admin.system.users", "admin.system.roles", "admin.system.version"];

const RESTORE: &str = r#"
const [databases, loading, aside] = JSON.parse(process.env.DEVSTACK_RESTORE);
const rename = (home, from, to) => admin.runCommand({renameCollection: home + "." + from, to: home + "." + to});
const drop = (home, name) => database(home).getCollection(name).drop();
"#;

/// Undoes what a restore has begun. Collections of a database are aside while others are loaded: their exchange was cut
/// off, and what is aside is what was there. Some are aside and nothing is loaded any more: it had been done.
const CLEAN: &str = r#"
for (const home of databases) {
  const all = names(home), cutOff = all.some((it) => it.startsWith(loading));
  for (const it of all.filter((it) => it.startsWith(aside))) {
    drop(home, cutOff ? it.slice(aside.length) : it);
    if (cutOff) rename(home, it, it.slice(aside.length));
  }
  for (const it of all.filter((it) => it.startsWith(loading))) drop(home, it);
}
answer(true);
"#;

/// What has been loaded. A collection whose documents expire may have lost some already.
const COUNT: &str = r#"
answer(databases.flatMap((home) => database(home).getCollectionInfos().filter((it) => it.name.startsWith(loading))
  .map(({name, options}) => {
    const collection = database(home).getCollection(name), indexes = collection.getIndexes();
    const expires = indexes.some((it) => it.expireAfterSeconds !== undefined) || options?.expireAfterSeconds !== undefined;
    return {namespace: home + "." + name.slice(loading.length), documents: Number(collection.countDocuments({})),
      indexes: indexes.length, expires};
  })));
"#;

/// Exchanges what is loaded for what is there. The old collections go when all new ones are in their places.
const EXCHANGE: &str = r#"
const made = [], old = [];
try {
  for (const home of databases) {
    const all = names(home);
    for (const it of all.filter((it) => it.startsWith(loading)).map((it) => it.slice(loading.length))) {
      if (all.includes(it)) {
        rename(home, it, aside + it);
        old.push([home, aside + it]);
      }
      rename(home, loading + it, it);
      made.push([home, it]);
    }
  }
} catch (error) {
  // Back to being loaded: that tells whoever cleans up that the old ones are wanted.
  for (const [home, it] of made) rename(home, it, loading + it);
  throw error;
}
for (const [home, it] of old) drop(home, it);
answer(true);
"#;

/// The role `restore` may read the users and not the roles.
const USERS_NOW: &str = r#"
const count = (name) => { try { return Number(admin.getCollection(name).countDocuments({})); } catch { return null; } };
answer({"admin.system.users": count("system.users"), "admin.system.roles": count("system.roles")});
"#;

#[derive(Debug, Deserialize)]
struct Loaded {
    namespace: String,
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
        let bytes = streams::must_be_whole(reader, taken, work, inspector)?;
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.restorer()?;
        let named = taken.artifacts.iter().filter_map(|artifact| Some((database_of(&artifact.name)?, artifact)));
        let parts = named.map(|(database, artifact)| Part { database, artifact }).collect();
        let restore = Restore { engine: self, server: &server, session: &session, reader, taken, work, parts };
        let notes = restore.run()?;
        Ok(Restored { to: format!("the container {}", server.container.name), bytes, notes })
    }
}

/// One database of a restore.
struct Part<'a> {
    database: String,
    artifact: &'a Artifact,
}

impl Part<'_> {
    /// The names whose counts begin with `kind`, as `database.name`, with what was counted.
    fn counted(&self, kind: &str) -> impl Iterator<Item = (&str, u64)> {
        let counts = self.artifact.counts.iter();
        counts.filter_map(move |(name, count)| Some((name.strip_prefix(kind)?, count.value)))
    }

    fn is_systems(&self, namespace: &str) -> bool {
        namespace[self.database.len() + 1..].starts_with("system.")
    }

    /// The collections that are loaded beside those that are there.
    fn plain(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counted(DOCUMENTS).filter(|(namespace, _)| !self.is_systems(namespace))
    }

    /// What cannot be renamed: views, time series, the functions in `system.js`. Users are no matter of this.
    fn others(&self) -> Vec<&str> {
        let functions = self.counted(DOCUMENTS).filter(|(namespace, _)| namespace.ends_with(".system.js"));
        let others = self.counted(VIEW).chain(self.counted(TIME_SERIES)).chain(functions);
        others.map(|(namespace, _)| namespace).filter(|namespace| !namespace.starts_with("admin.system.")).collect()
    }
}

struct Restore<'a> {
    engine: &'a Mongodb,
    server: &'a Server,
    session: &'a Session,
    reader: &'a Reader,
    taken: &'a Taken,
    work: &'a Work<'a>,
    parts: Vec<Part<'a>>,
}

impl Restore<'_> {
    fn run(&self) -> Result<Vec<String>, EngineError> {
        let mut notes = Vec::new();
        self.asked::<bool>(CLEAN, ANSWER)?;
        if let Err(error) = self.exchange(&mut notes) {
            let after = match self.asked::<bool>(CLEAN, ANSWER) {
                Ok(_) => "every database is as it was before".to_owned(),
                Err(failed) => format!(
                    "what was there before is still there, some of it perhaps under names that begin with {ASIDE} ({}); the \
                     next restore tidies up first",
                    crate::model::chain(&failed)
                ),
            };
            return Err(failed("loading the collections", after, error));
        }
        for part in &self.parts {
            self.restore_others(part)?;
        }
        notes.extend(self.left_alone()?);
        // Users last: the login of the restore may be another one afterwards.
        for part in self.parts.iter().filter(|part| part.database == ADMIN) {
            self.restore_users(part, &mut notes)?;
        }
        Ok(notes)
    }

    fn asked<T: DeserializeOwned>(&self, script: &str, limit: Duration) -> Result<T, EngineError> {
        let databases: Vec<&str> = self.parts.iter().map(|part| part.database.as_str()).collect();
        let told = serde_json::json!([databases, LOADING, ASIDE]).to_string();
        let script = format!("{RESTORE}{script}");
        self.engine.asked(self.server, self.session, &script, &[("DEVSTACK_RESTORE", &told)], limit)
    }

    fn exchange(&self, notes: &mut Vec<String>) -> Result<(), EngineError> {
        let mut before = ByteSize(0);
        for part in &self.parts {
            self.load(part, before)?;
            before = before + part.artifact.bytes;
        }
        self.compare(notes)?;
        self.asked::<bool>(EXCHANGE, ANSWER).map(|_| ())
    }

    /// Loads a part of an archive. The tool's own checks of it come too late, so it was looked through before.
    fn pour(
        &self,
        part: &Part<'_>,
        arguments: impl Iterator<Item = String>,
        work: &Work<'_>,
        before: ByteSize,
    ) -> Result<(), EngineError> {
        // What was let into a collection once is let in again, whatever its validator says today.
        let always = ["--stopOnError", "--bypassDocumentValidation"];
        let command = self.engine.tool(self.session, "mongorestore").args(always).args(arguments);
        let input = self.server.docker.input(&self.server.container, &command, work.cancel)?;
        streams::pour(self.reader, self.taken, part.artifact, input, work, before).map(|_| ())
    }

    fn load(&self, part: &Part<'_>, before: ByteSize) -> Result<(), EngineError> {
        let renamed = part.plain().flat_map(|(namespace, _)| {
            let (home, name) = namespace.split_at(part.database.len() + 1);
            let (from, to) = (escaped(namespace), escaped(&format!("{home}{LOADING}{name}")));
            [format!("--nsInclude={from}"), format!("--nsFrom={from}"), format!("--nsTo={to}")]
        });
        let arguments: Vec<String> = renamed.collect();
        // Told to include nothing, it would include everything.
        if arguments.is_empty() { Ok(()) } else { self.pour(part, arguments.into_iter(), self.work, before) }
    }

    fn compare(&self, notes: &mut Vec<String>) -> Result<(), EngineError> {
        let loaded: Vec<Loaded> = self.asked(COUNT, A_DAY)?;
        let there: BTreeMap<&str, &Loaded> = loaded.iter().map(|one| (one.namespace.as_str(), one)).collect();
        let mut findings = Vec::new();
        for part in &self.parts {
            let mut indexes = 0;
            for (namespace, documents) in part.plain() {
                let Some(one) = there.get(namespace) else {
                    findings.push(format!("{namespace} is missing"));
                    continue;
                };
                indexes += one.indexes;
                let now = one.documents;
                if one.expires && now < documents {
                    notes.push(format!(
                        "{namespace} has {now} of {documents} documents: an index of it lets old ones expire"
                    ));
                } else if now != documents {
                    findings.push(format!("{namespace} has {now} documents, and {documents} in the backup"));
                }
            }
            let expected = part.counted(INDEXES).map(|(_, count)| count).sum::<u64>();
            // In the sum are those of the server's own collections, which are not loaded beside.
            if indexes != expected && !part.counted(DOCUMENTS).any(|(namespace, _)| part.is_systems(namespace)) {
                findings.push(format!("{} has {indexes} indexes, and {expected} in the backup", part.database));
            }
        }
        match findings.is_empty() {
            true => Ok(()),
            false => Err(EngineError::Differs { what: "what was loaded".to_owned(), findings }),
        }
    }

    fn restore_others(&self, part: &Part<'_>) -> Result<(), EngineError> {
        let others = part.others();
        if others.is_empty() {
            return Ok(());
        }
        let included = others.iter().map(|namespace| format!("--nsInclude={}", escaped(namespace)));
        let arguments = std::iter::once("--drop".to_owned()).chain(included);
        let silent = Work { progress: &|_| {}, ..*self.work };
        self.pour(part, arguments, &silent, ByteSize(0)).map_err(|error| {
            let after = format!(
                "the collections of every database are restored; {} may be missing or half there: correct the cause and \
                 restore again",
                others.join(", ")
            );
            failed(&format!("restoring the views, time series and functions of {}", part.database), after, error)
        })
    }

    /// Collections of the server that the backup does not hold, and whole databases.
    fn left_alone(&self) -> Result<Option<String>, EngineError> {
        let kinds = [DOCUMENTS, VIEW, TIME_SERIES];
        let held = |namespace: &str| {
            let holds = |part: &Part<'_>, kind: &&str| part.artifact.counts.contains_key(&format!("{kind}{namespace}"));
            self.parts.iter().any(|part| kinds.iter().any(|kind| holds(part, kind)))
        };
        let mut left = Vec::new();
        for database in self.engine.databases(self.server, self.session)? {
            if self.parts.iter().any(|part| part.database == database.name) {
                let namespaces = database.collections.iter().map(|name| format!("{}.{name}", database.name));
                left.extend(namespaces.filter(|namespace| !held(namespace)));
            } else if !database.collections.is_empty() {
                left.push(database.name);
            }
        }
        let told = || format!("left as they are, since the backup does not hold them: {}", left.join(", "));
        Ok((!left.is_empty()).then(told))
    }

    /// Merges users and roles into those that are there.
    fn restore_users(&self, part: &Part<'_>, notes: &mut Vec<String>) -> Result<(), EngineError> {
        let held: Vec<(&str, u64)> =
            part.counted(DOCUMENTS).filter(|(namespace, _)| USERS[..2].contains(namespace)).collect();
        if held.iter().all(|(_, count)| *count == 0) {
            return Ok(());
        }
        let silent = Work { progress: &|_| {}, ..*self.work };
        let arguments = USERS.iter().map(|namespace| format!("--nsInclude={namespace}"));
        self.pour(part, arguments, &silent, ByteSize(0)).map_err(|error| {
            let after = "the databases are restored; users and roles are as they were, or partly those of the backup";
            failed("restoring users and roles", after.to_owned(), error)
        })?;
        let now: BTreeMap<String, Option<u64>> = match self.asked(USERS_NOW, ANSWER) {
            Ok(now) => now,
            Err(error) => {
                notes.push(format!(
                    "users and roles are those of the backup now, and the login of this restore could not count them: {}",
                    crate::model::chain(&error)
                ));
                return Ok(());
            }
        };
        let fewer = held.iter().filter_map(|(namespace, count)| {
            let there = now.get(*namespace).copied().flatten()?;
            (there < *count).then(|| format!("{namespace} has {there} documents, and {count} in the backup"))
        });
        let findings: Vec<String> = fewer.collect();
        match findings.is_empty() {
            true => Ok(()),
            false => Err(EngineError::Differs { what: "users and roles".to_owned(), findings }),
        }
    }
}

fn failed(doing: &str, after: String, error: EngineError) -> EngineError {
    EngineError::Restore { doing: doing.to_owned(), after, source: Box::new(error) }
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
