//! Putting databases back into a running server. Each existing database is moved aside by its name and the backup is loaded
//! under it and counted. Only when all of them are there are the old ones dropped; where anything fails, all are moved back.

use std::time::{Duration, Instant};

use super::globals::{literal, quoted};
use super::unfinished::{Attempt, MARK};
use super::{GLOBALS, MAINTENANCE, NEWER_LIMITS, Postgres, Session, database_of, inspector, rows};
use crate::engines::server::Server;
use crate::engines::{EngineError, Restored, Work, streams};
use crate::model::chain;
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::Reader;

/// Sessions that were told to end have ended within this.
const SESSIONS_END: Duration = Duration::from_secs(30);

/// A database whose name the backup has taken, or was about to.
struct Swapped {
    name: String,
    /// What was there before, if anything was.
    aside: Option<String>,
}

impl Postgres {
    pub(super) fn restore_in_place(
        &self,
        reader: &Reader,
        taken: &Taken,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        streams::must_be_whole(reader, taken, work, inspector)?;
        let server = Server::find(&self.ground, &self.source.container)?;
        let session = self.restoring(&server)?;
        let left = self.unfinished(&server, &session)?;
        let into = Into { engine: self, server: &server, session: &session, attempt: Attempt::new()? };
        into.mark(left.marked)?;
        let (mut swapped, mut notes) = (Vec::new(), Vec::new());
        let bytes = match into.load_all(reader, taken, work, &mut swapped, &mut notes) {
            Ok(bytes) => bytes,
            Err(failed) => return Err(into.undone(*failed, &swapped, left.is_there())),
        };
        let ended = swapped
            .iter()
            .flat_map(|it| it.aside.iter().chain(left.asides_of(&it.name)))
            .try_for_each(|aside| into.drop_old(aside, &mut notes))
            .and_then(|()| into.sql(&format!("DROP ROLE IF EXISTS {MARK};")));
        ended.map_err(|error| EngineError::Restore {
            doing: "dropping what the restore had moved aside".to_owned(),
            after: format!(
                "the databases are restored and compared; drop the databases that begin with _devstack_aside_, and the role {MARK}"
            ),
            source: Box::new(error),
        })?;
        let all = self.databases(&server, &session)?.into_iter().map(|database| database.name);
        let others: Vec<String> = all.filter(|name| !swapped.iter().any(|it| it.name == *name)).collect();
        if !others.is_empty() {
            notes.push(format!("left as they are, since the backup does not hold them: {}", others.join(", ")));
        }
        Ok(Restored { to: format!("the container {}", server.container.name), bytes, notes })
    }
}

/// What failed while something was done.
type Failed = Box<(String, EngineError)>;

/// Where it is restored into.
struct Into<'a> {
    engine: &'a Postgres,
    server: &'a Server,
    session: &'a Session,
    attempt: Attempt,
}

impl Into<'_> {
    fn mark(&self, is_there: bool) -> Result<(), EngineError> {
        if is_there {
            return Ok(());
        }
        self.sql(&format!("CREATE ROLE {MARK} NOLOGIN;")).map_err(|error| EngineError::Restore {
            doing: "preparing the restore".to_owned(),
            after: "nothing was touched".to_owned(),
            source: Box::new(error),
        })
    }

    fn load_all(
        &self,
        reader: &Reader,
        taken: &Taken,
        work: &Work<'_>,
        swapped: &mut Vec<Swapped>,
        notes: &mut Vec<String>,
    ) -> Result<ByteSize, Failed> {
        let mut bytes = ByteSize(0);
        for artifact in taken.artifacts.iter().filter(|artifact| artifact.name == GLOBALS) {
            let doing = || "loading roles and tablespaces".to_owned();
            let dump = streams::small(reader, taken, artifact, work).map_err(|error| Box::new((doing(), error)))?;
            let loaded = self.engine.load_globals(self.server, self.session, &String::from_utf8_lossy(&dump));
            notes.extend(loaded.map_err(|error| Box::new((doing(), error)))?);
            bytes = bytes + artifact.bytes;
        }
        for artifact in &taken.artifacts {
            let Some(name) = database_of(&artifact.name) else { continue };
            let doing = |error| Box::new((format!("restoring the database {name}"), error));
            let aside = self.attempt.aside(&name);
            let existed = self.exists(&name).map_err(doing)?;
            if existed {
                self.rename(&name, &aside).map_err(doing)?;
            }
            swapped.push(Swapped { name: name.clone(), aside: existed.then_some(aside) });
            self.load(reader, taken, artifact, work, bytes).map_err(doing)?;
            self.compare(&name, artifact).map_err(doing)?;
            bytes = bytes + artifact.bytes;
        }
        Ok(bytes)
    }

    /// Puts everything back that this restore moved aside, and nothing that another did.
    fn undone(&self, (doing, error): (String, EngineError), swapped: &[Swapped], was_unfinished: bool) -> EngineError {
        let mut kept = Vec::new();
        for it in swapped {
            let back = self.drop(&it.name).and_then(|()| match &it.aside {
                Some(aside) => self.rename(aside, &it.name),
                None => Ok(()),
            });
            if let Err(failed) = back {
                let aside = it.aside.as_deref().unwrap_or("nothing");
                kept.push(format!("{} is half restored, and was kept as {aside} ({})", it.name, chain(&failed)));
            }
        }
        // A state that was half of another restore's before is that again.
        if kept.is_empty() && !was_unfinished {
            kept.extend(self.sql(&format!("DROP ROLE IF EXISTS {MARK};")).err().map(|failed| chain(&failed)));
        }
        let existed = swapped.iter().any(|it| it.aside.is_some());
        let after = match (kept.as_slice(), existed, swapped.is_empty()) {
            ([], _, true) => "no database was touched".to_owned(),
            ([], true, false) => "every database is as it was before".to_owned(),
            ([], false, false) => "nothing of it was left behind".to_owned(),
            (kept, ..) => format!(
                "not everything could be put back: {}. Until a restore has ended nothing is backed up from this server",
                kept.join("; ")
            ),
        };
        let after = match was_unfinished && kept.is_empty() {
            true => format!("{after}, which is what an earlier restore left that did not end: restore again"),
            false => after,
        };
        EngineError::Restore { doing, after, source: Box::new(error) }
    }

    /// A database that nobody needs any more. What would keep it alive goes first: it belongs to the database and not to what
    /// has its name now.
    fn drop_old(&self, aside: &str, notes: &mut Vec<String>) -> Result<(), EngineError> {
        if !self.exists(aside)? {
            return Ok(());
        }
        let subscriptions: Vec<String> = self.engine.asked(
            self.server,
            self.session,
            MAINTENANCE,
            &format!(
                "SELECT coalesce(json_agg(s.subname), '[]') FROM pg_catalog.pg_subscription s \
                 JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = {};",
                literal(aside)
            ),
        )?;
        for name in subscriptions {
            // Its slot is on another server and stays there: what was restored goes on with it.
            let name = quoted(&name);
            let sql = format!(
                "ALTER SUBSCRIPTION {name} DISABLE;\nALTER SUBSCRIPTION {name} SET (slot_name = NONE);\nDROP SUBSCRIPTION {name};"
            );
            let command = self.engine.psql(self.session, aside);
            self.server.ask(&command, &sql)?;
        }
        let slots: Vec<String> = self.engine.asked(
            self.server,
            self.session,
            MAINTENANCE,
            &format!(
                "SELECT coalesce(json_agg(slot_name), '[]') FROM pg_catalog.pg_replication_slots WHERE database = {};",
                literal(aside)
            ),
        )?;
        for slot in slots {
            self.sql(&format!(
                "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots WHERE slot_name = {0} AND active;\n\
                 SELECT pg_catalog.pg_drop_replication_slot({0});",
                literal(&slot)
            ))?;
            notes.push(format!(
                "the replication slot {slot} went with the database that it was of: whoever read from it must be set up anew"
            ));
        }
        self.drop(aside)
    }

    fn sql(&self, sql: &str) -> Result<(), EngineError> {
        self.server.ask(&self.engine.psql(self.session, MAINTENANCE), sql).map(|_| ())
    }

    fn exists(&self, name: &str) -> Result<bool, EngineError> {
        let sql =
            format!("SELECT to_json(EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {}));", literal(name));
        self.engine.asked(self.server, self.session, MAINTENANCE, &sql)
    }

    fn drop(&self, name: &str) -> Result<(), EngineError> {
        self.sql(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE);", quoted(name)))
    }

    /// Keeps everybody out, renames, lets them in again.
    fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        let (old, new) = (quoted(from), quoted(to));
        self.sql(&format!("ALTER DATABASE {old} WITH ALLOW_CONNECTIONS false;"))?;
        let since = Instant::now();
        loop {
            let renamed = self.sql(&format!(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = {};\n\
                 ALTER DATABASE {old} RENAME TO {new};",
                literal(from)
            ));
            match renamed {
                Ok(()) => break,
                Err(error) if since.elapsed() > SESSIONS_END => {
                    self.sql(&format!("ALTER DATABASE {old} WITH ALLOW_CONNECTIONS true;"))?;
                    return Err(error);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        self.sql(&format!("ALTER DATABASE {new} WITH ALLOW_CONNECTIONS true;"))
    }

    fn load(
        &self,
        reader: &Reader,
        taken: &Taken,
        artifact: &Artifact,
        work: &Work<'_>,
        before: ByteSize,
    ) -> Result<(), EngineError> {
        // The archive makes the database itself, with its owner, encoding, locale, rights and settings.
        let command = self.engine.program(self.session, MAINTENANCE, "pg_restore").args([
            "--create",
            "--exit-on-error",
            "--dbname",
            MAINTENANCE,
        ]);
        let input = self.server.docker.input(&self.server.container, &command, work.cancel)?;
        streams::pour(reader, taken, artifact, input, work, before).map(|_| ())
    }

    /// Counts the rows of every table as the server now has them.
    fn compare(&self, name: &str, artifact: &Artifact) -> Result<(), EngineError> {
        let expected: Vec<(&str, u64)> = rows(&artifact.counts).collect();
        let mut findings = Vec::new();
        // A question of a thousand tables is still one that a server reads at once.
        for some in expected.chunks(1000) {
            let counts: Vec<String> =
                some.iter().map(|(table, _)| format!("(SELECT count(*) FROM ONLY {})", table_name(table))).collect();
            let there = self.counted(name, &format!("SELECT to_json(ARRAY[{}]::bigint[]);", counts.join(", ")))?;
            for ((table, rows), now) in some.iter().zip(&there) {
                if rows != now {
                    findings.push(format!("{table} has {now} rows, and {rows} in the backup"));
                }
            }
        }
        match findings.is_empty() {
            true => Ok(()),
            false => Err(EngineError::Differs { what: format!("the database {name}"), findings }),
        }
    }

    /// Counting a large table takes as long as reading it.
    fn counted(&self, name: &str, sql: &str) -> Result<Vec<u64>, EngineError> {
        let command = self.engine.psql(self.session, name);
        let day = Duration::from_secs(24 * 3600);
        let sql = format!("{NEWER_LIMITS}{sql}");
        let answer = self.server.docker.run(&self.server.container, &command, sql.as_bytes(), day)?;
        serde_json::from_str(&answer.text())
            .map_err(|error| EngineError::Answer { what: "psql".to_owned(), why: error.to_string() })
    }
}

/// `public.orders`, or with parts that are in quotes already, as SQL writes it.
fn table_name(table: &str) -> String {
    let mut quotes = false;
    let dot = table.char_indices().find(|(_, letter)| {
        quotes ^= *letter == '"';
        *letter == '.' && !quotes
    });
    let part = |name: &str| if name.starts_with('"') { name.to_owned() } else { quoted(name) };
    match dot {
        Some((at, _)) => format!("{}.{}", part(&table[..at]), part(&table[at + 1..])),
        None => part(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_name_is_quoted_part_by_part() {
        assert_eq!(table_name("public.Orders"), r#""public"."Orders""#);
        assert_eq!(table_name(r#""a.b".c"#), r#""a.b"."c""#);
        assert_eq!(table_name(r#"a."x.""y""#), r#""a"."x.""y""#);
    }
}
