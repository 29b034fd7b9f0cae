//! What tells that a restore was begun and has not ended: a role as its mark, and the databases that it moved aside. The
//! server itself keeps both, so that every look sees them, from any machine.

use serde::Deserialize;

use super::{MAINTENANCE, Postgres, Session};
use crate::engines::EngineError;
use crate::engines::server::Server;
use crate::model::ids::Digest;

/// There from before the first change until every row is counted. A role, since it costs nothing, and is of the whole server.
pub(super) const MARK: &str = "_devstack_restore";

/// What a database is called while its backup is loaded beside it. PostgreSQL cuts names at 63 bytes.
const ASIDE: &str = "_devstack_aside_";

#[derive(Debug, Deserialize)]
pub(super) struct Unfinished {
    pub marked: bool,
    /// Those of every restore that did not end.
    pub asides: Vec<String>,
}

impl Unfinished {
    pub(super) fn is_there(&self) -> bool {
        self.marked || !self.asides.is_empty()
    }

    /// The databases that a restore of `database` has moved aside, whoever made it.
    pub(super) fn asides_of(&self, database: &str) -> impl Iterator<Item = &String> {
        let of = of(database);
        self.asides.iter().filter(move |aside| aside.starts_with(&of))
    }
}

/// How every aside of `database` begins; yesterday's were called just so.
fn of(database: &str) -> String {
    format!("{ASIDE}{}", &Digest::of(database).as_str()[..16])
}

/// One restore. What it has moved aside carries its number, so that no other takes it for its own: when that one runs, the
/// database may hold what was written since.
pub(super) struct Attempt(String);

impl Attempt {
    pub(super) fn new() -> Result<Self, EngineError> {
        let mut unique = [0; 6];
        getrandom::fill(&mut unique).map_err(|error| EngineError::Io {
            doing: "asking the system for a random number for",
            path: "the restore".into(),
            source: std::io::Error::other(error),
        })?;
        Ok(Self(hex::encode(unique)))
    }

    pub(super) fn aside(&self, database: &str) -> String {
        format!("{}_{}", of(database), self.0)
    }
}

impl Postgres {
    pub(super) fn unfinished(&self, server: &Server, session: &Session) -> Result<Unfinished, EngineError> {
        let sql = format!(
            "SELECT json_build_object('marked', EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{MARK}'), \
             'asides', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_catalog.pg_database \
             WHERE starts_with(datname, '{ASIDE}')));"
        );
        self.asked(server, session, MAINTENANCE, &sql)
    }

    /// Half of a backup must not become the newest one.
    pub(super) fn refuse_unfinished_restore(&self, server: &Server, session: &Session) -> Result<(), EngineError> {
        let left = self.unfinished(server, session)?;
        if !left.is_there() {
            return Ok(());
        }
        let mut marks = Vec::new();
        if left.marked {
            marks.push(format!("the role {MARK}"));
        }
        marks.extend(left.asides.iter().map(|aside| format!("the database {aside}, which was there before it")));
        Err(EngineError::Refused {
            what: format!(
                "a restore into the container {} was not finished (it left {}): restore again; or, if what is there now is right, \
                 drop what it left",
                server.container.name,
                marks.join(" and ")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(marked: bool, asides: Vec<String>) -> Unfinished {
        Unfinished { marked, asides }
    }

    #[test]
    fn an_aside_belongs_to_the_restore_that_made_it_and_every_one_is_seen() {
        let (one, other) = (Attempt::new().unwrap(), Attempt::new().unwrap());
        assert_ne!(one.aside("shop"), other.aside("shop"));
        assert!(one.aside(&"x".repeat(63)).len() <= 63);
        // As yesterday's version called it.
        let older = format!("{ASIDE}{}", &Digest::of("shop").as_str()[..16]);
        let seen = left(false, vec![one.aside("shop"), other.aside("shop"), older.clone(), one.aside("shop2")]);
        assert_eq!(seen.asides_of("shop").collect::<Vec<_>>(), [&one.aside("shop"), &other.aside("shop"), &older]);
    }

    #[test]
    fn a_mark_or_an_aside_alone_is_an_unfinished_restore() {
        assert!(left(true, Vec::new()).is_there());
        assert!(left(false, vec!["_devstack_aside_0".to_owned()]).is_there());
        assert!(!left(false, Vec::new()).is_there());
    }
}
