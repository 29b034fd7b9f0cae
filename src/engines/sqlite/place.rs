//! The place of a database as it is found: well, broken, or in the middle of something when its program ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{BUSY, CopyError, copy_database, open_at_rest, sqlite_error};
use crate::engines::{EngineError, Workroom};
use crate::model::cancel::Cancel;

/// What may lie beside a database and is a part of it.
const BESIDE: [&str; 3] = ["-journal", "-wal", "-shm"];

/// The bytes of the file are no database, or one that is damaged.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// A program ended in the middle of a transaction, and whoever opens the database to write undoes or finishes that first. A
/// reader can't.
pub(super) fn wants_recovery(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_READONLY_RECOVERY, SQLITE_READONLY_ROLLBACK};
    let rusqlite::Error::SqliteFailure(error, _) = error else { return false };
    [SQLITE_READONLY_ROLLBACK, SQLITE_READONLY_RECOVERY].contains(&error.extended_code)
}

/// A private copy in which that is done. The database itself is for its own program to put right.
pub(super) fn recovered_copy(path: &Path, room: &Workroom) -> Result<PathBuf, EngineError> {
    let io = |doing| move |error| EngineError::io(doing, path)(error);
    let copy = room.file("recovered.db").map_err(io("making a private copy of"))?;
    let before = state(path).map_err(io("looking at"))?;
    fs::copy(path, &copy).map_err(io("copying"))?;
    // What a journal of memory says is made anew.
    for ending in BESIDE.into_iter().filter(|ending| *ending != "-shm") {
        let beside = with_ending(path, ending);
        match fs::copy(&beside, with_ending(&copy, ending)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(EngineError::io("copying", &beside)(error)),
        }
    }
    if state(path).map_err(io("looking at"))? != before {
        return Err(EngineError::Unready {
            what: format!(
                "{} is being recovered by a program that has just opened it; try again in a moment",
                path.display()
            ),
        });
    }
    let recover = || -> rusqlite::Result<()> {
        let database = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        database.close().map_err(|(_, error)| error)
    };
    recover().map_err(|source| sqlite_error(path, "undoing what its program did not finish", source))?;
    Ok(copy)
}

/// Size and time of the database and of its journals.
fn state(path: &Path) -> io::Result<Vec<Option<(u64, std::time::SystemTime)>>> {
    let of = |path: PathBuf| match fs::metadata(&path) {
        Ok(metadata) => Ok(Some((metadata.len(), metadata.modified()?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    ["", "-journal", "-wal"].into_iter().map(|ending| of(with_ending(path, ending))).collect()
}

/// Puts a database over another through the backup interface: one transaction in the live file, since a file renamed over it
/// would have its -wal replayed into it. False where what is there is broken, and has to be moved out of the way.
pub(super) fn put_over(copy: &Path, to: &Path, cancel: &Cancel) -> Result<bool, EngineError> {
    if !fs::metadata(to).is_ok_and(|there| there.is_file()) {
        return Ok(false);
    }
    let failed = |doing: &'static str| move |source| sqlite_error(to, doing, source);
    let from = open_at_rest(copy).map_err(failed("opening the restored copy"))?;
    let was_wal = match in_reach_of_its_pages(&from, to) {
        Ok(was_wal) => was_wal,
        Err(error) if is_broken(&error) => return Ok(false),
        Err(error) => return Err(failed("looking at what is there")(error)),
    };
    match copy_database(&from, to, cancel) {
        Ok(()) => {}
        Err(CopyError::Interrupted) => return Err(EngineError::Interrupted),
        Err(CopyError::Sqlite(error)) if is_broken(&error) => return Ok(false),
        Err(CopyError::Sqlite(error)) => return Err(failed("restoring into it")(error)),
    }
    if was_wal {
        let wal = || Connection::open(to)?.pragma_update(None, "journal_mode", "wal");
        wal().map_err(failed("setting its journal mode again"))?;
    }
    Ok(true)
}

/// A database with a -wal keeps the size of its pages, and takes no copy of another one. Gives whether it was changed to do so.
fn in_reach_of_its_pages(from: &Connection, to: &Path) -> rusqlite::Result<bool> {
    // Only looked at as long as it may be broken: who opens a database to write takes its -wal away with it.
    match super::begin_to_read(to) {
        Err(error) if !wants_recovery(&error) => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let there = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    there.busy_timeout(BUSY)?;
    there.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    let size = |of: &Connection| of.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0));
    let mode: String = there.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" || size(from)? == size(&there)? {
        return Ok(false);
    }
    there.pragma_update_and_check(None, "journal_mode", "delete", |row| row.get::<_, String>(0))?;
    Ok(true)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Moves aside what is at the place of a database, and what lies beside it: a -wal or -journal of another database would be
/// replayed into the one that is put there. Gives where all of it is now.
pub(in crate::engines) fn set_aside_with_journals(database: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut moved = Vec::new();
    for ending in ["", "-journal", "-wal", "-shm"] {
        let there = with_ending(database, ending);
        match fs::symlink_metadata(&there) {
            Ok(_) => {
                let aside = free_name(&there);
                fs::rename(&there, &aside).map_err(EngineError::io("moving aside", &there))?;
                moved.push(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(EngineError::io("looking at", &there)(error)),
        }
    }
    Ok(moved)
}

/// What an earlier restore has moved aside stays.
fn free_name(path: &Path) -> PathBuf {
    let first = with_ending(path, ".before-restore");
    let others = (2_u32..).map(|number| with_ending(path, &format!(".before-restore-{number}")));
    std::iter::once(first.clone()).chain(others).find(|name| fs::symlink_metadata(name).is_err()).unwrap_or(first)
}
