//! Roles and tablespaces, as `pg_dumpall --globals-only` writes them: is the text whole, and how it is loaded into a server
//! that has some of them already.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;

use super::{MAINTENANCE, Postgres, Session};
use crate::engines::EngineError;
use crate::engines::inspect::{Counts, cut};
use crate::engines::server::Server;
use crate::runtime::masked;

const LAST_LINE: &str = "-- PostgreSQL database cluster dump complete";

pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let (mut roles, mut whole) = (0, false);
    for line in BufReader::new(from).split(b'\n') {
        let line = line.map_err(|error| cut("the roles", &error))?;
        roles += u64::from(line.starts_with(b"CREATE ROLE "));
        whole |= line.starts_with(LAST_LINE.as_bytes());
    }
    if whole { Ok(vec![("roles".to_owned(), roles)]) } else { Err("its last line is missing".to_owned()) }
}

/// What a server has before the text is loaded.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Present {
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
}

/// The question that [`Present`] is the answer to.
const WHAT_IS_PRESENT: &str = "SELECT json_build_object(\
     'roles', (SELECT json_agg(rolname) FROM pg_catalog.pg_roles), \
     'tablespaces', (SELECT json_agg(spcname) FROM pg_catalog.pg_tablespace));";

/// The user may not do it at all, so that nothing of the text would be loaded.
const MAY_NOT: &str = "42501";

impl Postgres {
    /// Loads what can be loaded, and tells of the rest. A role that can't be made keeps no database from coming back.
    pub(super) fn load_globals(
        &self,
        server: &Server,
        session: &Session,
        dump: &str,
    ) -> Result<Vec<String>, EngineError> {
        let present: Present = self.asked(server, session, MAINTENANCE, WHAT_IS_PRESENT)?;
        let (script, kept) = for_server(dump, &present);
        let command =
            self.psql(session, MAINTENANCE).args(["--set=ON_ERROR_STOP=0", "--set=VERBOSITY=verbose"]).with_errors();
        let answer = server.ask(&command, &script)?.text();
        let mut notes = Vec::new();
        for Refused { line, code, said } in refused(&answer) {
            let what = script.lines().nth(line.saturating_sub(1)).map_or_else(|| "a statement".to_owned(), named);
            if code == MAY_NOT {
                return Err(EngineError::Refused { what: format!("{what}: {said}; `restore_as` must be a superuser") });
            }
            notes.push(format!("{what} was not possible here and is left out: {said}"));
        }
        if !kept.is_empty() {
            notes.push(format!(
                "roles that were here keep the passwords they have, whatever those in the backup were: {}",
                kept.join(", ")
            ));
        }
        Ok(notes)
    }
}

/// A statement that the server would not do.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    line: usize,
    code: String,
    said: String,
}

/// What psql says of each, whatever the server's language: `psql:<stdin>:7: ERROR:  42704: role "x" does not exist`.
fn refused(answer: &str) -> Vec<Refused> {
    let read = |line: &str| {
        let (line, rest) = line.strip_prefix("psql:<stdin>:")?.split_once(": ")?;
        let (_, rest) = rest.split_once(":  ")?;
        let (code, said) = rest.split_once(": ")?;
        // Classes 00, 01 and 02 are no errors.
        let is_error = code.len() == 5 && !["00", "01", "02"].iter().any(|class| code.starts_with(class));
        let line = line.parse().ok()?;
        is_error.then(|| Refused { line, code: code.to_owned(), said: masked(said) })
    };
    answer.lines().filter_map(read).collect()
}

/// A statement by what it does and to whom, without anything that it says of them.
fn named(statement: &str) -> String {
    let words = ["CREATE ROLE ", "ALTER ROLE ", "CREATE TABLESPACE ", "ALTER TABLESPACE ", "COMMENT ON ROLE "];
    match words.iter().find_map(|verb| Some((verb, identifier(statement.strip_prefix(verb)?)?))) {
        Some((verb, name)) => format!("{verb}{name}"),
        None => masked(statement.trim_end_matches(';')),
    }
}

/// The text for a server that has some of it already: a new server has its first role, and one in use has all of them. What
/// is there is not made, and keeps its password; the names of the roles of which that is so come with it. Else a restore of
/// older data would lock out whoever uses today's.
fn for_server(dump: &str, present: &Present) -> (String, Vec<String>) {
    let is_there = |line: &str| {
        let named = |beginning: &str, names: &BTreeSet<String>| {
            line.strip_prefix(beginning).and_then(identifier).is_some_and(|name| names.contains(&name))
        };
        named("CREATE ROLE ", &present.roles) || named("CREATE TABLESPACE ", &present.tablespaces)
    };
    let (mut text, mut kept) = (String::with_capacity(dump.len()), Vec::new());
    for line in dump.lines().filter(|line| !is_there(line)) {
        let altered = line.strip_prefix("ALTER ROLE ").and_then(identifier).filter(|name| present.roles.contains(name));
        match altered.and_then(|name| Some((name, without_password(line)?))) {
            Some((name, without)) => {
                kept.push(name);
                text.push_str(&without);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    (text, kept)
}

/// `ALTER ROLE … PASSWORD '…'` without it; None where it has none. A hash holds no quote.
fn without_password(line: &str) -> Option<String> {
    let name = line.strip_prefix("ALTER ROLE ")?;
    // A name may hold anything.
    let behind = match name.strip_prefix('"') {
        Some(_) => line.rfind("\" WITH ")? + 1,
        None => line.find(" WITH ")?,
    };
    let at = behind + line[behind..].find(" PASSWORD '")?;
    let value = at + " PASSWORD '".len();
    let end = value + line[value..].find('\'')? + 1;
    Some(format!("{}{}", &line[..at], &line[end..]))
}

/// The name at the beginning of `text`, without its quotes.
fn identifier(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ';']).unwrap_or(text.len());
        return Some(text[..end].to_owned()).filter(|name| !name.is_empty());
    };
    let (mut name, mut letters) = (String::new(), quoted.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' if letters.peek() == Some(&'"') => name.extend(letters.next()),
            '"' => return Some(name),
            other => name.push(other),
        }
    }
    None
}

/// A string constant that means the same whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_made_only_where_it_is_missing_and_keeps_its_password_where_it_is_there() {
        let present =
            Present { roles: ["shop", "o'b \"x", "a\" WITH b"].map(str::to_owned).into(), ..Present::default() };
        let dump = "CREATE ROLE shop;\nALTER ROLE shop WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:a' VALID UNTIL 'infinity';\n\
                    CREATE ROLE \"o'b \"\"x\";\nCREATE ROLE shop2;\nALTER ROLE shop2 WITH LOGIN PASSWORD 'md5aa';\n\
                    ALTER ROLE \"a\"\" WITH b\" WITH NOLOGIN PASSWORD 'x';\nALTER ROLE shop SET work_mem TO '1MB';\n";
        let (text, kept) = for_server(dump, &present);
        assert_eq!(
            text,
            "ALTER ROLE shop WITH LOGIN VALID UNTIL 'infinity';\nCREATE ROLE shop2;\nALTER ROLE shop2 WITH LOGIN PASSWORD 'md5aa';\n\
             ALTER ROLE \"a\"\" WITH b\" WITH NOLOGIN;\nALTER ROLE shop SET work_mem TO '1MB';\n"
        );
        assert_eq!(kept, ["shop", "a\" WITH b"]);
    }

    #[test]
    fn what_a_server_would_not_do_is_read_in_any_language() {
        let said = "psql:<stdin>:7: ERROR:  42704: role \"x\" does not exist\nLOCATION:  get_role_oid, acl.c:5430\n\
                    psql:<stdin>:8: NOTICE:  00000: nothing\npsql:<stdin>:9: FEHLER:  58P01: directory \"/gone\" does not exist\n";
        let of = |line, code: &str, said: &str| Refused { line, code: code.to_owned(), said: said.to_owned() };
        let expected =
            [of(7, "42704", "role \"x\" does not exist"), of(9, "58P01", "directory \"/gone\" does not exist")];
        assert_eq!(refused(said), expected);
        assert_eq!(named("ALTER ROLE app WITH LOGIN PASSWORD 'hunter2';"), "ALTER ROLE app");
        assert_eq!(named("GRANT a TO b GRANTED BY c;"), "GRANT a TO b GRANTED BY c");
    }

    #[test]
    fn a_text_without_its_last_line_is_not_whole() {
        let whole = format!("CREATE ROLE a;\nCREATE ROLE b;\n--\n{LAST_LINE}\n--\n\n");
        assert_eq!(inspect(&mut whole.as_bytes()), Ok(vec![("roles".to_owned(), 2)]));
        assert!(inspect(&mut "CREATE ROLE a;\n".as_bytes()).is_err());
        assert!(inspect(&mut "".as_bytes()).is_err());
    }
}
