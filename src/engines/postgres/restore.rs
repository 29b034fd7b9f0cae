//! Putting databases back into a running server. Each existing database is moved aside by its name, the backup is loaded
//! beside it and counted, and only then is the old one dropped; where anything fails, it is moved back.

use std::time::{Duration, Instant};

use super::globals::{WHAT_IS_PRESENT, literal, quoted, without_what_is_there};
use super::{GLOBALS, MAINTENANCE, Postgres, Session, database_of, inspector, rows};
use crate::engines::server::Server;
use crate::engines::{EngineError, Restored, Work, streams};
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::Reader;

/// What a database is called while its backup is loaded beside it. PostgreSQL cuts names at 63 bytes.
const ASIDE: &str = "_devstack_aside_";

/// Sessions that were told to end have ended within this.
const SESSIONS_END: Duration = Duration::from_secs(30);

pub(super) fn is_aside(database: &str) -> bool {
    database.starts_with(ASIDE)
}

fn aside(database: &str) -> String {
    let digest = crate::model::ids::Digest::of(database);
    format!("{ASIDE}{}", &digest.as_str()[..16])
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
        let session = self.restorer()?;
        let mut bytes = ByteSize(0);
        for artifact in taken.artifacts.iter().filter(|artifact| artifact.name == GLOBALS) {
            let dump = streams::small(reader, taken, artifact, work)?;
            self.load_globals(&server, &session, &String::from_utf8_lossy(&dump))?;
            bytes = bytes + artifact.bytes;
        }
        let mut restored = Vec::new();
        for artifact in &taken.artifacts {
            let Some(database) = database_of(&artifact.name) else { continue };
            let one = OneDatabase { engine: self, server: &server, session: &session, name: &database };
            one.restore(reader, taken, artifact, work, bytes)?;
            bytes = bytes + artifact.bytes;
            restored.push(database);
        }
        let notes = match self.left_alone(&server, &session, &restored)?.as_slice() {
            [] => Vec::new(),
            names => vec![format!("left as they are, since the backup does not hold them: {}", names.join(", "))],
        };
        Ok(Restored { to: format!("the container {}", server.container.name), bytes, notes })
    }

    fn load_globals(&self, server: &Server, session: &Session, dump: &str) -> Result<(), EngineError> {
        let present = self.asked(server, session, MAINTENANCE, WHAT_IS_PRESENT)?;
        let loaded = server.ask(&self.psql(session, MAINTENANCE), &without_what_is_there(dump, &present));
        loaded.map(|_| ()).map_err(|error| EngineError::Restore {
            doing: "loading roles and tablespaces".to_owned(),
            after: "no database was touched".to_owned(),
            source: Box::new(error),
        })
    }

    fn left_alone(&self, server: &Server, session: &Session, restored: &[String]) -> Result<Vec<String>, EngineError> {
        let all = self.databases(server, session)?;
        Ok(all.into_iter().map(|database| database.name).filter(|name| !restored.contains(name)).collect())
    }
}

struct OneDatabase<'a> {
    engine: &'a Postgres,
    server: &'a Server,
    session: &'a Session,
    name: &'a str,
}

impl OneDatabase<'_> {
    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        artifact: &Artifact,
        work: &Work<'_>,
        before: ByteSize,
    ) -> Result<(), EngineError> {
        let aside = aside(self.name);
        if self.exists(&aside)? {
            // A restore that was killed: what is under the name is half of a backup, what is aside was there before.
            self.drop(self.name)?;
            self.rename(&aside, self.name)?;
        }
        let existed = self.exists(self.name)?;
        if existed {
            self.rename(self.name, &aside)?;
        }
        let loaded = self.load(reader, taken, artifact, work, before).and_then(|()| self.compare(artifact));
        match loaded {
            Ok(()) if existed => self.drop(&aside),
            Ok(()) => Ok(()),
            Err(error) => {
                let back = self.drop(self.name).and_then(|()| match existed {
                    true => self.rename(&aside, self.name),
                    false => Ok(()),
                });
                let after = match (back, existed) {
                    (Ok(()), true) => "the database is as it was before".to_owned(),
                    (Ok(()), false) => "nothing of it was left behind".to_owned(),
                    (Err(failed), _) => format!(
                        "the old database is kept under the name {aside} ({}); the next restore puts it back first",
                        crate::model::chain(&failed)
                    ),
                };
                let doing = format!("restoring the database {}", self.name);
                Err(EngineError::Restore { doing, after, source: Box::new(error) })
            }
        }
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
        let input = self.server.docker.input(&self.server.container, &command)?;
        streams::pour(reader, taken, artifact, input, work, before).map(|_| ())
    }

    /// Counts the rows of every table as the server now has them.
    fn compare(&self, artifact: &Artifact) -> Result<(), EngineError> {
        let expected: Vec<(&str, u64)> = rows(&artifact.counts).collect();
        let mut findings = Vec::new();
        // A question of a thousand tables is still one that a server reads at once.
        for some in expected.chunks(1000) {
            let counts: Vec<String> =
                some.iter().map(|(table, _)| format!("(SELECT count(*) FROM ONLY {})", table_name(table))).collect();
            let there = self.counted(&format!("SELECT to_json(ARRAY[{}]::bigint[]);", counts.join(", ")))?;
            for ((table, rows), now) in some.iter().zip(&there) {
                if rows != now {
                    findings.push(format!("{table} has {now} rows, and {rows} in the backup"));
                }
            }
        }
        match findings.is_empty() {
            true => Ok(()),
            false => Err(EngineError::Differs { what: format!("the database {}", self.name), findings }),
        }
    }

    /// Counting a large table takes as long as reading it.
    fn counted(&self, sql: &str) -> Result<Vec<u64>, EngineError> {
        let command = self.engine.psql(self.session, self.name);
        let day = Duration::from_secs(24 * 3600);
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
