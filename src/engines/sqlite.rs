//! SQLite: the online backup of a database file, consistent while others write.
//!
//! The copy goes through a private file, the one declared temporary copy of the project: SQLite's backup interface
//! writes a database, not a stream.

mod look;
mod place;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use self::look::{count, look_into, open_at_rest};
use self::place::put_over;
pub(super) use self::place::set_aside_with_journals;
use super::meta::meta;
use super::{
    Engine, EngineError, Proven, Restored, TakeRequest, Work, Workroom, count_findings, exact, single_artifact, taken,
};
use crate::model::cancel::Cancel;
use crate::model::observation::{Observed, SourceState};
use crate::model::run::{Artifact, ArtifactKind, Taken};
use crate::model::shrink::Present;
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::repository::{ArchiveRequest, Entry, EntryKind, EntryMeta, NodeFacts, Reader};

pub(super) struct Sqlite {
    path: PathBuf,
}

/// Pages copied between two looks at the cancel flag: 4 MiB of the usual 4 KiB pages, some ten milliseconds.
const PAGES_PER_STEP: i32 = 1024;

/// How long a writer that holds the database exclusively is waited for.
const BUSY: Duration = Duration::from_secs(30);

impl Sqlite {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn error(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> EngineError + '_ {
        move |source| sqlite_error(&self.path, doing, source)
    }

    /// The file's name: what the artifact is called.
    fn name(&self) -> String {
        self.path.file_name().map_or_else(|| "database".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// Copies the live database into `copy`, as it was at one moment.
    fn back_up_to(&self, copy: &Path, room: &Workroom, cancel: &Cancel) -> Result<(), EngineError> {
        let reading = match begin_to_read(&self.path) {
            Err(error) if place::wants_recovery(&error) => {
                let recovered = place::recovered_copy(&self.path, room)?;
                begin_to_read(&recovered)
            }
            reading => reading,
        };
        let source = reading.map_err(self.error("reading its schema"))?;
        copy_database(&source, copy, cancel).map_err(|error| self.copy_error("copying it", error))
    }

    fn copy_error(&self, doing: &'static str, error: CopyError) -> EngineError {
        match error {
            CopyError::Interrupted => EngineError::Interrupted,
            CopyError::Sqlite(source) => sqlite_error(&self.path, doing, source),
        }
    }

    /// The backup's bytes in a private file, compared with the manifest and checked by SQLite itself.
    fn read_back(&self, reader: &Reader, taken: &Taken, to: &Path, work: &Work<'_>) -> Result<Proven, EngineError> {
        let artifact = single_artifact(taken)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(to)
            .map_err(EngineError::io("writing", to))?;
        let account = reader.read_stream(&taken.snapshot, &artifact.name, &mut file, work.cancel, work.progress)?;
        file.sync_all().map_err(EngineError::io("writing", to))?;
        let mut proven = Proven { read: account.bytes, ..Proven::default() };
        if account.bytes != artifact.bytes {
            proven.artifacts.push(format!(
                "{}: {} bytes read back, {} in the manifest",
                artifact.name, account.bytes.0, artifact.bytes.0
            ));
        }
        if account.sha256 != artifact.sha256 {
            proven
                .artifacts
                .push(format!("{}: the bytes read back have another SHA-256 than the manifest", artifact.name));
        }
        match look_into(to) {
            Ok(look) => {
                proven.content.extend(look.complaints);
                proven.notes.extend(look.unchecked.into_iter().map(|note| format!("{}: {note}", artifact.name)));
                proven.content.extend(count_findings(artifact, &exact(look.counts)));
            }
            Err(source) => proven.content.push(format!("{}: SQLite cannot read it: {source}", artifact.name)),
        }
        Ok(proven)
    }
}

/// Opens it with a read transaction that is held from the start: without it a writer between two steps would start the copy
/// over, and under a steady writer it would never end.
fn begin_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let source = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    source.busy_timeout(BUSY)?;
    source.execute_batch("BEGIN")?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    Ok(source)
}

fn sqlite_error(path: &Path, doing: &'static str, source: rusqlite::Error) -> EngineError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            EngineError::Busy { path: path.to_owned(), doing, waited_s: BUSY.as_secs() }
        }
        _ => EngineError::Sqlite { path: path.to_owned(), doing, source },
    }
}

enum CopyError {
    Interrupted,
    Sqlite(rusqlite::Error),
}

/// Page by page through the backup interface, from an open database into the file `to`.
fn copy_database(from: &Connection, to: &Path, cancel: &Cancel) -> Result<(), CopyError> {
    let mut to = Connection::open(to).map_err(CopyError::Sqlite)?;
    to.busy_timeout(BUSY).map_err(CopyError::Sqlite)?;
    {
        let backup = Backup::new(from, &mut to).map_err(CopyError::Sqlite)?;
        let since = Instant::now();
        loop {
            match backup.step(PAGES_PER_STEP).map_err(CopyError::Sqlite)? {
                StepResult::Done => break,
                StepResult::More => {}
                // The target is the only one that can be busy here: the source is held by a read transaction.
                _ if since.elapsed() > BUSY => {
                    return Err(CopyError::Sqlite(rusqlite::Error::SqliteFailure(
                        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                        None,
                    )));
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
            if cancel.is_cancelled() {
                return Err(CopyError::Interrupted);
            }
        }
    }
    to.close().map_err(|(_, error)| CopyError::Sqlite(error))
}

impl Engine for Sqlite {
    /// Gone: no file at the path. Empty: a file without a single table. Broken: something that SQLite says is no database, or a
    /// damaged one. Data otherwise.
    fn observe(&self) -> Observed<SourceState> {
        let size = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            // Docker makes a folder of the name of a file that it was to bind.
            Ok(_) => return Observed::Known(SourceState::Broken),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Observed::Known(SourceState::Gone),
            Err(error) => return unknown(format!("{} cannot be looked at: {error}", self.path.display())),
        };
        // A fresh file of zero bytes is a valid database without tables; so is one after `DROP TABLE`.
        let tables = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(|database| {
            // An observation does not wait long: a database under an exclusive lock has data, or it would not be locked.
            database.busy_timeout(Duration::from_millis(500))?;
            database
                .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get::<_, i64>(0))
        });
        match tables {
            Ok(0) => Observed::Known(SourceState::Empty),
            Ok(_) => Observed::Known(SourceState::HasData { bytes: Some(ByteSize(size)) }),
            Err(error) if place::is_broken(&error) => Observed::Known(SourceState::Broken),
            // What it was in the middle of when it ended is undone on the way.
            Err(error) if place::wants_recovery(&error) => {
                Observed::Known(SourceState::HasData { bytes: Some(ByteSize(size)) })
            }
            Err(error) => unknown(format!("{} cannot be read by SQLite: {error}", self.path.display())),
        }
    }

    fn holding(&self) -> Option<Present> {
        let database = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        database.busy_timeout(Duration::from_millis(500)).ok()?;
        let mut tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").ok()?;
        let tables = tables.query_map([], |row| Ok((None, row.get(0)?))).ok()?;
        Some(Present { databases: BTreeSet::new(), tables: tables.collect::<Result<_, _>>().ok()? })
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let since = Instant::now();
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(EngineError::Gone { path: self.path.clone() });
            }
            Err(error) => return Err(EngineError::io("reading", &self.path)(error)),
        };
        let room = work.rooms.enter().map_err(EngineError::io("making a private folder for", &self.path))?;
        let copy = room.file("copy.db").map_err(EngineError::io("making a private copy of", &self.path))?;
        self.back_up_to(&copy, &room, work.cancel)?;
        let counts =
            open_at_rest(&copy).and_then(|database| count(&database)).map_err(self.error("counting its rows"))?;
        if !request.allow_empty && counts.first().is_none_or(|(_, tables)| *tables == 0) {
            return Err(EngineError::Empty { path: self.path.clone() });
        }

        let file = File::open(&copy).map_err(EngineError::io("reading the private copy of", &self.path))?;
        let size = file.metadata().map_err(EngineError::io("reading the private copy of", &self.path))?.len();
        let entry = Entry {
            path: Path::new("/").join(self.name()),
            // The copy's own size: the live file may have pages in its -wal. restic trusts the size in the tree.
            meta: EntryMeta { size, ..meta(&metadata) },
            kind: EntryKind::Stream(Box::new(BufReader::new(file)) as Box<dyn Read + Send>),
        };
        let archived = request.store.archive(
            ArchiveRequest {
                tags: request.tags,
                at: request.at,
                parent: None,
                small_files: false,
                entries: Box::new(std::iter::once(entry)),
            },
            work.cancel,
            work.progress,
        )?;
        let Some(account) = archived.streams.first() else {
            return Err(EngineError::Manifest { snapshot: archived.snapshot, artifacts: 0 });
        };
        let artifact = Artifact {
            name: format!("/{}", self.name()),
            kind: ArtifactKind::Stream,
            bytes: account.bytes,
            sha256: account.sha256.clone(),
            counts: exact(counts),
        };
        let version = rusqlite::version().to_owned();
        Ok(taken("sqlite", version, archived.snapshot, artifact, archived.added, request.at, since))
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        let room = work.rooms.enter().map_err(EngineError::io("making a private folder for", &self.path))?;
        let copy = room.file("proof.db").map_err(EngineError::io("making a private copy of", &self.path))?;
        self.read_back(reader, taken, &copy, work)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        let to = match target {
            RestoreTarget::Beside { folder } => folder.join(self.name()),
            RestoreTarget::InPlace | RestoreTarget::Missing => self.path.clone(),
        };
        let folder = to.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(EngineError::io("making", folder))?;
        if matches!(target, RestoreTarget::Beside { .. }) && to.exists() {
            return Err(EngineError::NotEmpty { path: to });
        }
        // The private copy lies in the target's own folder, so that a rename puts it in place and the room is there.
        let rooms = super::Workrooms::new(folder.join(".devstack-restore"));
        let room = rooms.enter().map_err(EngineError::io("making a private folder in", folder))?;
        let copy = room.file("restore.db").map_err(EngineError::io("making a private copy in", folder))?;
        let proven = self.read_back(reader, taken, &copy, work)?;
        let findings: Vec<String> = proven.artifacts.into_iter().chain(proven.content).collect();
        if !findings.is_empty() {
            return Err(EngineError::Damaged { findings });
        }

        let mut notes = proven.notes;
        let is_there = fs::symlink_metadata(&to).is_ok();
        if !(is_there && put_over(&copy, &to, work.cancel)?) {
            let aside = set_aside_with_journals(&to)?;
            if is_there {
                let aside: Vec<String> = aside.iter().map(|path| path.display().to_string()).collect();
                notes.push(format!(
                    "what was there is no database that SQLite can read, and was moved to {}",
                    aside.join(", ")
                ));
            }
            let meta = facts(reader, taken)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(meta.mode & 0o7777))
                .map_err(EngineError::io("setting the mode of", &to))?;
            if std::os::unix::fs::chown(&copy, meta.uid, meta.gid).is_err() {
                notes.push(format!("the owner of {} could not be set (not running as root)", to.display()));
            }
            fs::rename(&copy, &to).map_err(EngineError::io("putting in place", &to))?;
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(EngineError::io("writing", folder))?;
        }
        drop(room);
        // Ours, and empty now; another restore beside may still use it.
        let _ = fs::remove_dir(folder.join(".devstack-restore"));
        Ok(Restored { to: to.display().to_string(), bytes: proven.read, notes })
    }
}

/// Mode and owner that the database file had.
fn facts(reader: &Reader, taken: &Taken) -> Result<NodeFacts, EngineError> {
    let name = Path::new(&single_artifact(taken)?.name).to_owned();
    for entry in reader.entries(&taken.snapshot)? {
        let (path, facts) = entry?;
        if path == name {
            return Ok(facts);
        }
    }
    Err(EngineError::Damaged { findings: vec![format!("the snapshot does not hold {}", name.display())] })
}

fn unknown(reason: String) -> Observed<SourceState> {
    Observed::Unknown { reason }
}
