//! Dumps as streams: from the server's own tool into the repository without a copy on disk, looked through on the way;
//! read back and looked through again; or written beside as files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::inspect::{Counts, Inspect, InspectingSink, Inspection};
use super::{EngineError, Proven, Restored, TakeRequest, Work, count_findings, exact};
use crate::model::cancel::Cancel;
use crate::model::run::{Artifact, ArtifactKind, Taken};
use crate::model::units::{ByteSize, Span};
use crate::repository::{ArchiveRequest, Entry, EntryKind, EntryMeta, Reader};
use crate::runtime::{Output, Patience, RuntimeError};

/// Starts a dump when its turn comes.
pub(super) type Open = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>, EngineError> + Send>;

/// One dump of a service.
pub(super) struct DumpStream {
    /// Its path in the snapshot: `/databases/shop.dump`.
    pub name: String,
    pub open: Open,
    pub inspect: Inspect,
}

/// Who took it: what the manifest says beside the streams.
pub(super) struct Taker {
    pub engine: &'static str,
    pub version: String,
    pub image: Option<String>,
}

/// Takes every stream into one snapshot. A stream that fails, ends early, or is not whole fails the take, and no
/// snapshot is left behind.
pub(super) fn take(
    request: TakeRequest<'_>,
    work: &Work<'_>,
    taker: Taker,
    streams: Vec<DumpStream>,
) -> Result<Taken, EngineError> {
    take_noting(request, work, taker, streams, &Notes::default())
}

/// What is told of a take, gathered while it goes on.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    /// More than this tells nobody anything.
    const MOST: usize = 20;

    pub(super) fn add(&self, notes: impl IntoIterator<Item = String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = Self::MOST.saturating_sub(all.len());
        all.extend(notes.into_iter().take(room));
    }

    fn all(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As [`take`], with what its programs warn of.
pub(super) fn take_noting(
    request: TakeRequest<'_>,
    work: &Work<'_>,
    taker: Taker,
    streams: Vec<DumpStream>,
    notes: &Notes,
) -> Result<Taken, EngineError> {
    let since = Instant::now();
    let seen = Arc::new(Seen::default());
    let entries = entries(streams, request.at, &seen);
    let archived = request.store.archive(
        ArchiveRequest {
            tags: request.tags,
            at: request.at,
            // A stream is always read; its chunks are compared by content, whichever snapshot they came with.
            parent: None,
            small_files: false,
            entries: Box::new(entries.into_iter()),
        },
        work.cancel,
        work.progress,
    );
    let archived = match (archived, seen.error()) {
        (Ok(archived), None) => archived,
        (Ok(archived), Some(error)) => {
            request.store.discard(&archived.snapshot)?;
            return Err(error);
        }
        (Err(_), Some(_)) if work.cancel.is_cancelled() => return Err(EngineError::Interrupted),
        // The repository says only that a stream could not be read; the stream itself has said why.
        (Err(_), Some(error)) => return Err(error),
        (Err(error), None) => return Err(error.into()),
    };
    let mut artifacts = Vec::with_capacity(archived.streams.len());
    for account in archived.streams {
        let name = account.path.to_string_lossy().into_owned();
        let counts = seen.counts(&name).unwrap_or_default();
        artifacts.push(Artifact {
            kind: ArtifactKind::Stream,
            bytes: account.bytes,
            sha256: account.sha256,
            counts: exact(counts),
            name,
        });
    }
    Ok(Taken {
        snapshot: archived.snapshot,
        tree: None,
        engine: taker.engine.to_owned(),
        engine_version: taker.version,
        artifacts,
        started: request.at,
        took: Span::from(since.elapsed()),
        added: archived.added,
        suspect: None,
        empty: false,
        image: taker.image,
        certificates: Vec::new(),
        notes: notes.all(),
    })
}

/// The streams and their folders, in the order of their paths.
fn entries(streams: Vec<DumpStream>, at: jiff::Timestamp, seen: &Arc<Seen>) -> Vec<Entry> {
    let meta = |mode| EntryMeta { mode, mtime: Some(at), links: 1, ..EntryMeta::default() };
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    let mut entries: BTreeMap<PathBuf, Entry> = BTreeMap::new();
    for stream in streams {
        let path = PathBuf::from(&stream.name);
        folders.extend(path.ancestors().skip(1).filter(|folder| folder.parent().is_some()).map(Path::to_owned));
        let inspected = Inspected {
            name: stream.name,
            open: Some(stream.open),
            reader: None,
            inspect: stream.inspect,
            inspection: None,
            seen: seen.clone(),
            over: false,
        };
        let entry = Entry { path: path.clone(), meta: meta(0o600), kind: EntryKind::Stream(Box::new(inspected)) };
        entries.insert(path, entry);
    }
    for folder in folders {
        entries.insert(folder.clone(), Entry { path: folder, meta: meta(0o700), kind: EntryKind::Folder });
    }
    entries.into_values().collect()
}

/// What the streams of one take have come to.
#[derive(Default)]
struct Seen {
    counts: Mutex<BTreeMap<String, Counts>>,
    error: Mutex<Option<EngineError>>,
}

impl Seen {
    fn fail(&self, error: EngineError) -> io::Error {
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        io::Error::other("the stream failed")
    }

    fn error(&self) -> Option<EngineError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn counts(&self, name: &str) -> Option<Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}

/// A dump that is opened at its first read and looked through as it is read. Its end is reached only when its source
/// says that it ended well and the inspector says that it is whole.
struct Inspected {
    name: String,
    open: Option<Open>,
    reader: Option<Box<dyn Read + Send>>,
    inspect: Inspect,
    inspection: Option<Inspection>,
    seen: Arc<Seen>,
    over: bool,
}

impl Inspected {
    fn begin(&mut self) -> Result<(), EngineError> {
        if let Some(open) = self.open.take() {
            self.reader = Some(open()?);
            let begun = Inspection::begin(self.inspect);
            self.inspection = Some(begun.map_err(|source| EngineError::Stream { name: self.name.clone(), source })?);
        }
        Ok(())
    }

    fn not_whole(&self, why: String) -> EngineError {
        EngineError::NotWhole { name: self.name.clone(), why }
    }

    fn end(&mut self) -> Result<(), EngineError> {
        self.over = true;
        self.reader = None;
        let Some(inspection) = self.inspection.take() else { return Ok(()) };
        let counts = inspection.end().map_err(|why| self.not_whole(why))?;
        self.seen.counts.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone(), counts);
        Ok(())
    }

    /// An inspector has stopped reading. Where the dump tool itself failed, that is the cause, and it says so within
    /// the rest of its stream.
    fn cause(&mut self, why: String) -> EngineError {
        let rest = self.reader.take().map(|mut reader| io::copy(&mut reader, &mut io::sink()));
        match rest {
            Some(Err(source)) => EngineError::Stream { name: self.name.clone(), source },
            Some(Ok(_)) | None => self.not_whole(why),
        }
    }
}

impl Read for Inspected {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.over || buffer.is_empty() {
            return Ok(0);
        }
        if let Err(error) = self.begin() {
            return Err(self.seen.fail(error));
        }
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let count = match reader.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(source) => {
                // A program that goes on is ended now, and not when the archive lets go of its reader.
                self.reader = None;
                return Err(self.seen.fail(EngineError::Stream { name: self.name.clone(), source }));
            }
        };
        if count == 0 {
            return match self.end() {
                Ok(()) => Ok(0),
                Err(error) => Err(self.seen.fail(error)),
            };
        }
        let fed = self.inspection.as_mut().is_none_or(|inspection| inspection.feed(&buffer[..count]));
        if !fed {
            let verdict = self.inspection.as_mut().map(Inspection::verdict);
            let why = match verdict {
                Some(Err(why)) => why,
                Some(Ok(_)) | None => "there is more behind the end of the dump".to_owned(),
            };
            let error = self.cause(why);
            return Err(self.seen.fail(error));
        }
        Ok(count)
    }
}

/// Reads every stream back: its bytes against the manifest's digest, its content against the inspector and the counts.
pub(super) fn prove(
    reader: &Reader,
    taken: &Taken,
    work: &Work<'_>,
    inspect: impl Fn(&str) -> Option<Inspect>,
) -> Result<Proven, EngineError> {
    let mut proven = Proven::default();
    if taken.artifacts.is_empty() {
        proven.artifacts.push("the manifest names no stream".to_owned());
    }
    for artifact in &taken.artifacts {
        let before = proven.read;
        let told = |bytes: ByteSize| (work.progress)(before + bytes);
        let Some(inspect) = inspect(&artifact.name) else {
            proven.content.push(format!("{}: this devstack does not know what it is", artifact.name));
            continue;
        };
        let begun = InspectingSink::begin(inspect);
        let mut sink = begun.map_err(|source| EngineError::Stream { name: artifact.name.clone(), source })?;
        let account = reader.read_stream(&taken.snapshot, &artifact.name, &mut sink, work.cancel, &told)?;
        proven.read = proven.read + account.bytes;
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
        match sink.end() {
            Ok(counts) => {
                let findings = count_findings(artifact, &exact(counts));
                proven.content.extend(findings.into_iter().map(|finding| format!("{}: {finding}", artifact.name)));
            }
            Err(why) => proven.content.push(format!("{}: {why}", artifact.name)),
        }
    }
    Ok(proven)
}

/// As [`prove`], with every finding being an error: what is not whole is not restored from.
pub(super) fn must_be_whole(
    reader: &Reader,
    taken: &Taken,
    work: &Work<'_>,
    inspect: impl Fn(&str) -> Option<Inspect>,
) -> Result<ByteSize, EngineError> {
    let silent = Work { progress: &|_| {}, ..*work };
    let proven = prove(reader, taken, &silent, inspect)?;
    let findings: Vec<String> = proven.artifacts.into_iter().chain(proven.content).collect();
    if findings.is_empty() { Ok(proven.read) } else { Err(EngineError::Damaged { findings }) }
}

/// Writes the dumps as files, readable by their owner alone, into a folder that is new or empty.
pub(super) fn restore_beside(
    reader: &Reader,
    taken: &Taken,
    folder: &Path,
    work: &Work<'_>,
) -> Result<Restored, EngineError> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(EngineError::NotEmpty { path: folder.to_owned() });
    }
    let mut bytes = ByteSize(0);
    for artifact in &taken.artifacts {
        let relative = artifact.name.trim_start_matches('/');
        let to = folder.join(relative);
        let parent = to.parent().unwrap_or(folder);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(EngineError::io("making", parent))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&to)
            .map_err(EngineError::io("writing", &to))?;
        let told = |now: ByteSize| (work.progress)(bytes + now);
        let account = reader.read_stream(&taken.snapshot, &artifact.name, &mut file, work.cancel, &told)?;
        file.sync_all().map_err(EngineError::io("writing", &to))?;
        if account.sha256 != artifact.sha256 {
            let finding = format!("{}: the bytes read back have another SHA-256 than the manifest", artifact.name);
            return Err(EngineError::Damaged { findings: vec![finding] });
        }
        bytes = bytes + account.bytes;
    }
    Ok(Restored { to: folder.display().to_string(), bytes, notes: Vec::new() })
}

/// Pours one stream of the backup into a program that reads it, and hears how the program ended.
pub(super) fn pour(
    reader: &Reader,
    taken: &Taken,
    artifact: &Artifact,
    mut input: crate::runtime::Input,
    work: &Work<'_>,
    before: ByteSize,
) -> Result<String, EngineError> {
    let told = |bytes: ByteSize| (work.progress)(before + bytes);
    let poured = reader.read_stream(&taken.snapshot, &artifact.name, &mut input, work.cancel, &told);
    match poured {
        Ok(_) => Ok(input.finish()?),
        // Dropped, the program is ended before its input is closed, so that it does not commit a part.
        Err(error) if !is_broken_pipe(&error) => Err(error.into()),
        Err(error) => match input.finish() {
            Err(ended) => Err(ended.into()),
            Ok(_) => Err(error.into()),
        },
    }
}

/// The program stopped reading: how it ended says why.
fn is_broken_pipe(error: &crate::repository::RepositoryError) -> bool {
    use crate::repository::RepositoryError;
    matches!(error, RepositoryError::Sink { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// A stream that a program in a container writes.
pub(super) fn from_program(
    docker: &Arc<crate::runtime::Docker>,
    container: &crate::model::observation::ContainerState,
    command: crate::runtime::Command,
    cancel: &Cancel,
) -> Open {
    let (docker, container, patience) = (docker.clone(), container.clone(), Patience::until(cancel));
    Box::new(move || {
        let output =
            docker.output(&container, &command, patience).map_err(|error: RuntimeError| EngineError::from(error))?;
        Ok(Box::new(output) as Box<dyn Read + Send>)
    })
}

/// As [`from_program`], of a tool that waits for locks: what it says at its end as a warning is noted.
pub(super) fn from_dump_tool(
    docker: &Arc<crate::runtime::Docker>,
    container: &crate::model::observation::ContainerState,
    command: crate::runtime::Command,
    cancel: &Cancel,
    notes: &Notes,
) -> Open {
    let (docker, container, notes) = (docker.clone(), container.clone(), notes.clone());
    let patience = Patience::of(LONGEST_SILENCE, cancel);
    Box::new(move || {
        let output =
            docker.output(&container, &command, patience).map_err(|error: RuntimeError| EngineError::from(error))?;
        Ok(Box::new(Noting { output, notes: Some(notes) }) as Box<dyn Read + Send>)
    })
}

struct Noting {
    output: Output,
    notes: Option<Notes>,
}

impl Read for Noting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buffer)?;
        if count == 0
            && !buffer.is_empty()
            && let Some(notes) = self.notes.take()
        {
            notes.add(self.output.warnings());
        }
        Ok(count)
    }
}

/// Longer than the tools themselves wait for a lock, where they can be told to.
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

/// A server gives up on a reader that has taken nothing for a while: 60 s for Redis, unless told otherwise. A dump that was
/// opened ahead is not read later than this, to stay clear of that.
const LONGEST_AHEAD: Duration = Duration::from_secs(20);

/// A dump that its server begins only after a pause, opened now, ahead of its turn. Where its turn is too long in coming it
/// is given up, and opened `anew`.
pub(super) fn opened_ahead(now: Open, anew: Open) -> Open {
    let since = Instant::now();
    let opened = std::thread::spawn(now);
    Box::new(move || match opened.join() {
        Ok(Ok(reader)) if since.elapsed() < LONGEST_AHEAD => Ok(reader),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => anew(),
    })
}

/// A small stream whose bytes are at hand.
pub(super) fn from_bytes(bytes: Vec<u8>) -> Open {
    Box::new(move || Ok(Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>))
}

/// Everything of a small stream of the backup.
pub(super) fn small(
    reader: &Reader,
    taken: &Taken,
    artifact: &Artifact,
    work: &Work<'_>,
) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::new();
    let _ = reader.read_stream(&taken.snapshot, &artifact.name, &mut bytes as &mut dyn Write, work.cancel, &|_| {})?;
    Ok(bytes)
}
