//! Roles and tablespaces, as `pg_dumpall --globals-only` writes them: is the text whole, and how it is loaded into a server
//! that has some of them already.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;

use crate::engines::inspect::{Counts, cut};

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
pub(super) const WHAT_IS_PRESENT: &str = "SELECT json_build_object(\
     'roles', (SELECT json_agg(rolname) FROM pg_catalog.pg_roles), \
     'tablespaces', (SELECT json_agg(spcname) FROM pg_catalog.pg_tablespace));";

/// The text without the statements that make what is there already: a new server has its first role, and a server in
/// use has all of them. What is altered and granted is as in the backup.
pub(super) fn without_what_is_there(dump: &str, present: &Present) -> String {
    let is_there = |line: &&str| {
        let named = |beginning: &str, names: &BTreeSet<String>| {
            line.strip_prefix(beginning).and_then(identifier).is_some_and(|name| names.contains(&name))
        };
        named("CREATE ROLE ", &present.roles) || named("CREATE TABLESPACE ", &present.tablespaces)
    };
    dump.lines().filter(|line| !is_there(line)).flat_map(|line| [line, "\n"]).collect()
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
    fn a_role_is_made_only_where_it_is_missing() {
        let present = Present { roles: ["shop", "o'b \"x"].map(str::to_owned).into(), ..Present::default() };
        let dump = "CREATE ROLE shop;\nALTER ROLE shop WITH LOGIN;\nCREATE ROLE \"o'b \"\"x\";\nCREATE ROLE shop2;\n";
        assert_eq!(without_what_is_there(dump, &present), "ALTER ROLE shop WITH LOGIN;\nCREATE ROLE shop2;\n");
    }

    #[test]
    fn a_text_without_its_last_line_is_not_whole() {
        let whole = format!("CREATE ROLE a;\nCREATE ROLE b;\n--\n{LAST_LINE}\n--\n\n");
        assert_eq!(inspect(&mut whole.as_bytes()), Ok(vec![("roles".to_owned(), 2)]));
        assert!(inspect(&mut "CREATE ROLE a;\n".as_bytes()).is_err());
        assert!(inspect(&mut "".as_bytes()).is_err());
    }
}
