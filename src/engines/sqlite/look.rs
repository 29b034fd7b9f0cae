//! What a database file at rest says of itself.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// What SQLite says of a database file at rest.
pub(super) struct Look {
    /// From `PRAGMA integrity_check`. `foreign_key_check` is left out: a database may hold what its keys forbid.
    pub complaints: Vec<String>,
    /// What could not be checked, and why: it needs what only its application has. That is no damage.
    pub unchecked: Vec<String>,
    /// Rows of each table, as `rows TABLE`, and the number of tables.
    pub counts: Vec<(String, u64)>,
}

pub(super) fn look_into(path: &Path) -> rusqlite::Result<Look> {
    let database = open_at_rest(path)?;
    let mut look = Look { complaints: Vec::new(), unchecked: Vec::new(), counts: count(&database)? };
    match check(&database, None) {
        Ok(complaints) => look.complaints = complaints,
        Err(error) if !needs_its_application(&error) => return Err(error),
        // One table may keep SQLite from checking any; each is asked about alone.
        Err(_) => {
            for table in tables(&database)? {
                match check(&database, Some(&table)) {
                    Ok(complaints) => look.complaints.extend(complaints),
                    Err(error) if needs_its_application(&error) => {
                        look.unchecked
                            .push(format!("the table {table} can't be checked without its application: {error}"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(look)
}

fn check(database: &Connection, table: Option<&str>) -> rusqlite::Result<Vec<String>> {
    let pragma = match table {
        None => "PRAGMA integrity_check(20)".to_owned(),
        Some(table) => format!("PRAGMA integrity_check({})", quoted(table)),
    };
    let lines: Vec<String> =
        database.prepare(&pragma)?.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").map(|line| format!("integrity_check: {line}")).collect())
}

/// What SQLite says of what an application brings along: collations, functions, modules.
const UNKNOWN: [&str; 4] = ["no such collation sequence", "no such function", "unknown function", "no such module"];

/// Not a word on the file itself.
fn needs_its_application(error: &rusqlite::Error) -> bool {
    let text = match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.as_str(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.as_str(),
        _ => return false,
    };
    UNKNOWN.iter().any(|unknown| text.contains(unknown))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Opens a file that nobody writes to: no lock, no -wal, no -shm beside it.
pub(super) fn open_at_rest(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{}?immutable=1", uri_path(path)), flags)
}

/// A path as a `file:` URI wants it: everything but letters, digits and `/-_.` as percent escapes.
fn uri_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Virtual tables are left out: their modules may not be compiled in here, and their data lies in ordinary ones.
fn tables(database: &Connection) -> rusqlite::Result<Vec<String>> {
    database
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// A table that only its application can read is counted as a table, and its rows are not.
pub(super) fn count(database: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    let tables = tables(database)?;
    let mut counts = vec![("tables".to_owned(), tables.len() as u64)];
    for table in tables {
        let rows =
            database.query_row(&format!("SELECT count(*) FROM {}", quoted(&table)), [], |row| row.get::<_, i64>(0));
        match rows {
            Ok(rows) => counts.push((format!("rows {table}"), u64::try_from(rows).unwrap_or(0))),
            Err(error) if needs_its_application(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(counts)
}
