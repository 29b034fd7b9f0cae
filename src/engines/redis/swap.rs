//! The files of one server: the RDB of the backup laid beside its own while it runs, and put in their place once it is
//! stopped. Nothing is copied or deleted for that: the archive interface of Docker makes second names (hard links) in a
//! volume whose container does not run, so that the old files stay under names of their own.

use std::io::{self, Read, Write};

use super::tar::{self, First, Owner, Tar};
use super::{Redis, Session, rdb};
use crate::engines::server::Server;
use crate::engines::{EngineError, Work};
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::{Reader, RepositoryError};
use crate::runtime::{Command, RuntimeError};

/// Behind a file's name: the backup's, until the server has loaded it.
const NEW: &str = ".devstack-new";
/// Behind a file's name: what it was before.
const BEFORE: &str = ".devstack-before";

/// A manifest names a handful of files.
const LONGEST_MANIFEST: u64 = 1 << 20;

/// Where a server keeps its data.
pub(super) struct Files {
    folder: String,
    /// The RDB that it writes and, without an append-only file, loads.
    dump: String,
    /// The folder of the append-only files, and how their names begin.
    append_only: Option<(String, String)>,
    pub is_append_only: bool,
    /// What was put in place, and what for.
    swapped: Option<Swapped>,
}

struct Swapped {
    had_dump: bool,
    had_manifest: bool,
    /// The append-only files that were in use before.
    old: Vec<String>,
}

impl Redis {
    /// Where the server that runs keeps its files.
    pub(super) fn files(&self, server: &Server, session: &Session) -> Result<Files, EngineError> {
        let setting = |name: &str| -> Result<Option<String>, EngineError> {
            let answer = self.ask(server, session, &["CONFIG", "GET", name])?;
            Ok(answer.split_once('\n').map(|(_, value)| value.trim().to_owned()))
        };
        let needed = |name: &'static str| {
            setting(name)?.ok_or_else(|| EngineError::Answer {
                what: format!("CONFIG GET {name} in the container {}", server.container.name),
                why: "it is empty".to_owned(),
            })
        };
        let is_append_only = needed("appendonly")? == "yes";
        let names = setting("appenddirname")?.zip(setting("appendfilename")?);
        let files = Files {
            folder: needed("dir")?,
            dump: needed("dbfilename")?,
            append_only: names,
            is_append_only,
            swapped: None,
        };
        if is_append_only && files.append_only.is_none() {
            return Err(EngineError::Refused {
                what: format!(
                    "Redis in the container {} is older than 7.0 and keeps an append-only file; set `appendonly no` for the restore",
                    server.container.name
                ),
            });
        }
        let plain =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        let names = files.append_only.iter().flat_map(|(folder, name)| [folder, name]).chain([&files.dump]);
        if let Some(name) = names.into_iter().find(|name| !plain(name)) {
            return Err(EngineError::Refused {
                what: format!("the file name {name} of Redis in the container {} is not plain", server.container.name),
            });
        }
        Ok(files)
    }
}

impl Files {
    fn new_name(&self) -> String {
        format!("{}{NEW}", self.dump)
    }

    /// `appendonlydir/appendonly.aof.manifest`
    fn manifest(&self) -> Option<String> {
        self.append_only.as_ref().map(|(folder, name)| format!("{folder}/{name}.manifest"))
    }

    /// Lays the backup's RDB beside the files of the running server, owned as they are.
    pub(super) fn lay_beside(
        &self,
        server: &Server,
        reader: &Reader,
        taken: &Taken,
        artifact: &Artifact,
        work: &Work<'_>,
        before: ByteSize,
    ) -> Result<(), EngineError> {
        let folder = self.first(server, "")?.ok_or_else(|| EngineError::Refused {
            what: format!("there is no folder {} in the container {}", self.folder, server.container.name),
        })?;
        let owner = self.first(server, &self.dump)?.map_or(Owner { mode: 0o600, ..folder.owner }, |it| it.owner);
        let mut tar = Tar::default();
        tar.header(&self.new_name(), artifact.bytes.0, owner).map_err(|source| self.failed(server, source))?;
        let mut upload = server.docker.upload(&server.container, &self.folder);
        let told = |bytes: ByteSize| (work.progress)(before + bytes);
        let written = (|| {
            let refused = |source| RepositoryError::Sink { path: artifact.name.clone(), source };
            upload.write_all(&tar.bytes).map_err(refused)?;
            let account = reader.read_stream(&taken.snapshot, &artifact.name, &mut upload, work.cancel, &told)?;
            upload.write_all(&tar::padding(artifact.bytes.0)).map_err(refused)?;
            upload.write_all(&tar::END).map_err(refused)?;
            Ok(account)
        })();
        match written {
            Ok(_) => Ok(upload.finish()?),
            Err(RepositoryError::Sink { path, source }) if source.kind() == io::ErrorKind::BrokenPipe => {
                // The engine stopped reading: its answer says why.
                upload.finish()?;
                Err(RepositoryError::Sink { path, source }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the backup's files in the place of those that the stopped server has, which stay under other names.
    pub(super) fn swap(&mut self, server: &Server) -> Result<(), EngineError> {
        let mut tar = Tar::default();
        let dump = self.first(server, &self.dump)?;
        let manifest = self.read_manifest(server)?;
        let build = |tar: &mut Tar| -> io::Result<Vec<String>> {
            if dump.is_some() {
                tar.link(&format!("{}{BEFORE}", self.dump), &self.dump)?;
            }
            tar.link(&self.dump, &self.new_name())?;
            let (Some((folder, name)), Some((owner, old))) = (&self.append_only, &manifest) else {
                return Ok(Vec::new());
            };
            let path = format!("{folder}/{name}.manifest");
            let manifest = Manifest::read(old);
            let base = format!("{name}.{}.base.rdb", manifest.base + 1);
            let incr = format!("{name}.{}.incr.aof", manifest.incr + 1);
            tar.link(&format!("{path}{BEFORE}"), &path)?;
            tar.link(&format!("{folder}/{base}"), &self.new_name())?;
            // Without a new one the server would go on writing into the old one of the same number.
            tar.file(&format!("{folder}/{incr}"), b"", *owner)?;
            let text =
                format!("file {base} seq {} type b\nfile {incr} seq {} type i\n", manifest.base + 1, manifest.incr + 1);
            // Last, so that an archive that is cut off before it changes nothing.
            tar.file(&path, text.as_bytes(), *owner)?;
            Ok(manifest.files.iter().map(|file| format!("{folder}/{file}")).collect())
        };
        let old = build(&mut tar).map_err(|source| self.failed(server, source))?;
        self.swapped = Some(Swapped { had_dump: dump.is_some(), had_manifest: manifest.is_some(), old });
        self.upload(server, tar)
    }

    /// Undoes [`Self::swap`] on a stopped server. What was not there before is there and empty afterwards.
    pub(super) fn swap_back(&mut self, server: &Server) -> Result<(), EngineError> {
        let Some(swapped) = &self.swapped else { return Ok(()) };
        let mut tar = Tar::default();
        let failed = |source| self.failed(server, source);
        if swapped.had_dump {
            tar.link(&self.dump, &format!("{}{BEFORE}", self.dump)).map_err(failed)?;
        } else {
            let owner = self.first(server, &self.new_name())?.map(|it| it.owner);
            let owner = owner.unwrap_or(Owner { uid: 0, gid: 0, mode: 0o644 });
            tar.file(&self.dump, &rdb::empty(), owner).map_err(failed)?;
        }
        if let Some(manifest) = self.manifest().filter(|_| swapped.had_manifest) {
            tar.link(&manifest, &format!("{manifest}{BEFORE}")).map_err(failed)?;
        }
        self.upload(server, tar)?;
        self.swapped = None;
        Ok(())
    }

    /// Removes from a running server what is no longer needed. Returns what could not be removed.
    pub(super) fn clean_up(&self, server: &Server) -> Option<String> {
        let mut files = vec![self.new_name(), format!("{}{BEFORE}", self.dump)];
        if let Some(manifest) = self.manifest() {
            files.push(format!("{manifest}{BEFORE}"));
        }
        files.extend(self.swapped.iter().flat_map(|swapped| swapped.old.iter().cloned()));
        let remove = Command::script("cd \"$1\" && shift && rm -f -- \"$@\"", [self.folder.clone()]).args(files);
        let removed = server.ask(&remove, "");
        removed.err().map(|error| {
            format!(
                "files named *{BEFORE} and *{NEW} are left in {} of the container {} ({}); remove them",
                self.folder,
                server.container.name,
                crate::model::chain(&error)
            )
        })
    }

    fn upload(&self, server: &Server, tar: Tar) -> Result<(), EngineError> {
        let mut upload = server.docker.upload(&server.container, &self.folder);
        let written = upload.write_all(&tar.finish());
        upload.finish()?;
        written.map_err(|source| self.failed(server, source))
    }

    fn failed(&self, server: &Server, source: io::Error) -> EngineError {
        RuntimeError::Io {
            doing: format!("putting files into {} of the container {}", self.folder, server.container.name),
            source,
        }
        .into()
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.trim_end_matches('/'))
    }

    /// The owner and size of a file; None where it is not there.
    fn first(&self, server: &Server, name: &str) -> Result<Option<First>, EngineError> {
        Ok(self.open(server, name)?.map(|(first, _)| first))
    }

    fn open(&self, server: &Server, name: &str) -> Result<Option<(First, crate::runtime::Download)>, EngineError> {
        let mut download = server.docker.download(&server.container, &self.path(name))?;
        match tar::first(&mut download) {
            Ok(first) => Ok(Some((first, download))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(source) => Err(EngineError::Stream { name: self.path(name), source }),
        }
    }

    fn read_manifest(&self, server: &Server) -> Result<Option<(Owner, String)>, EngineError> {
        let Some(name) = self.manifest() else { return Ok(None) };
        let Some((first, mut download)) = self.open(server, &name)? else { return Ok(None) };
        let mut text = vec![0; usize::try_from(first.size.min(LONGEST_MANIFEST)).unwrap_or_default()];
        let read = download.read_exact(&mut text);
        read.map_err(|source| EngineError::Stream { name: self.path(&name), source })?;
        Ok(Some((first.owner, String::from_utf8_lossy(&text).into_owned())))
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<RuntimeError>()).is_some_and(RuntimeError::is_missing)
}

/// What a manifest of append-only files says: the highest numbers, and the files in use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Manifest {
    base: u64,
    incr: u64,
    files: Vec<String>,
}

impl Manifest {
    /// `file appendonly.aof.1.incr.aof seq 1 type i startoffset 0`
    fn read(text: &str) -> Self {
        let mut manifest = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words.iter().position(|it| *it == word).and_then(|at| words.get(at + 1));
            let number = after("seq").and_then(|number| number.parse().ok()).unwrap_or(0);
            let kind = after("type").copied().unwrap_or_default();
            // Of a file that is no longer in use it does not say which of the two it was.
            if matches!(kind, "b" | "h") {
                manifest.base = manifest.base.max(number);
            }
            if matches!(kind, "i" | "h") {
                manifest.incr = manifest.incr.max(number);
            }
            // They are removed at the end: nothing outside their folder is named.
            let file = after("file").filter(|file| !file.contains('/') && !file.starts_with('.'));
            manifest.files.extend(file.map(|file| (*file).to_owned()));
        }
        manifest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_gives_its_highest_numbers_and_files() {
        let text = "file a.aof.3.base.rdb seq 3 type b\nfile a.aof.2.incr.aof seq 2 type h\n\
                    file a.aof.7.incr.aof seq 7 type i startoffset 12\n";
        let files = ["a.aof.3.base.rdb", "a.aof.2.incr.aof", "a.aof.7.incr.aof"].map(str::to_owned).to_vec();
        assert_eq!(Manifest::read(text), Manifest { base: 3, incr: 7, files });
        assert_eq!(Manifest::read(""), Manifest::default());
    }
}
