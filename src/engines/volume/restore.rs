//! Putting an archive back where data may be. It is unpacked beside what is there, in a folder of the volume itself, and
//! read back; only then are the two exchanged, by renames within one file system. What was there is removed last. So it
//! needs the room for both, and what was there before outlives everything that can fail.
//!
//! The folder says how far it is: `new` is unpacked into; `moving` takes what was there; called `aside`, it has all of
//! it; called `done`, the new data is in place. The exchange runs in the container, so that it goes on when devstack is
//! killed.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::place::{Place, Site};
use super::tar::{Entry, Tally, Tar};
use crate::engines::{EngineError, Work};
use crate::model::run::{Artifact, Taken};
use crate::model::units::ByteSize;
use crate::repository::{Reader, RepositoryError};
use crate::runtime::{Command, Upload};

/// In the volume, while something is restored into it.
pub(super) const FOLDER: &str = ".devstack-restore";

/// Moving and removing many files takes its time.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Puts back what an earlier restore has moved and did not finish; then nothing is left of it.
const CLEAR: &str = r#"set -e
cd "$1"; d=.devstack-restore
back() { find "$1" -mindepth 1 -maxdepth 1 -exec sh -c 'mv -- "$@" "$0"' . {} +; rmdir "$1"; }
if [ -d $d/aside ]; then
  find . -mindepth 1 -maxdepth 1 ! -name $d -exec rm -rf -- {} +
  back $d/aside
elif [ -d $d/moving ]; then
  back $d/moving
fi
rm -rf $d
"#;

/// `$2` is the archive's folder.
const EXCHANGE: &str = r#"set -e
cd "$1"; d=.devstack-restore
mkdir $d/moving
find . -mindepth 1 -maxdepth 1 ! -name $d -exec sh -c 'mv -- "$@" "$0"' $d/moving {} +
test -z "$(find . -mindepth 1 -maxdepth 1 ! -name $d | head -n 1)"
mv $d/moving $d/aside
find "$d/new/$2" -mindepth 1 -maxdepth 1 -exec sh -c 'mv -- "$@" "$0"' . {} +
rmdir "$d/new/$2"
chown "$3" . && chmod "$4" .
mv $d/aside $d/done
rm -rf $d
touch -d "@$5" . 2>/dev/null || true
"#;

/// What came of it.
pub(in crate::engines) struct PutBack {
    pub bytes: ByteSize,
    pub notes: Vec<String>,
}

/// Replaces what is at a place, opened for writing, with an archive of the backup. Whoever writes there must be stopped.
pub(in crate::engines) fn put_back(
    place: &Place,
    site: &Site,
    reader: &Reader,
    taken: &Taken,
    artifact: &Artifact,
    work: &Work<'_>,
) -> Result<PutBack, EngineError> {
    if !site.has_shell()? {
        return Err(EngineError::Refused {
            what: format!(
                "{} can be filled but not emptied: the image of {} has no shell, or the container does not run; \
                 restore beside, and unpack the archive with `docker cp -a`",
                place.name, site.container.name
            ),
        });
    }
    run(site, CLEAR, &[]).map_err(|source| EngineError::Restore {
        doing: format!("clearing up {} after an earlier restore", place.name),
        after: format!("what was there before lies in its folder {FOLDER}; restore again"),
        source: Box::new(source),
    })?;
    let done = unpack(site, reader, taken, artifact, work)
        .and_then(|unpacked| exchange(site, &unpacked).map(|()| unpacked.notes(artifact)));
    match done {
        Ok(put) => Ok(put),
        Err(error) => {
            let after = match run(site, CLEAR, &[]) {
                Ok(()) => "what was there before is there, as it was".to_owned(),
                Err(failed) => format!(
                    "what was there before may lie in its folder {FOLDER} ({}); the next restore puts it back first",
                    crate::model::chain(&failed)
                ),
            };
            Err(EngineError::Restore { doing: format!("restoring {}", place.name), after, source: Box::new(error) })
        }
    }
}

fn run(site: &Site, script: &str, arguments: &[String]) -> Result<(), EngineError> {
    let command = Command::script(script, [site.path.clone()]).args(arguments.to_vec()).user("0");
    site.docker.run(&site.container, &command, b"", LONG)?;
    Ok(())
}

/// What was unpacked, as the backup has it and as it reads back.
struct Unpacked {
    folder: String,
    root: Entry,
    backup: Tally,
    there: Tally,
}

impl Unpacked {
    fn notes(&self, artifact: &Artifact) -> PutBack {
        let notes = match self.backup.attributes == self.there.attributes {
            true => Vec::new(),
            false => vec!["owners, modes, times or attributes could not all be set as the backup has them".to_owned()],
        };
        PutBack { bytes: artifact.bytes, notes }
    }
}

fn unpack(
    site: &Site,
    reader: &Reader,
    taken: &Taken,
    artifact: &Artifact,
    work: &Work<'_>,
) -> Result<Unpacked, EngineError> {
    run(site, "cd \"$1\" && mkdir -m 700 .devstack-restore .devstack-restore/new", &[])?;
    let new = format!("{}/{FOLDER}/new", site.path);
    let mut sink = Watched { upload: site.docker.upload(&site.container, &new), tar: Tar::new(true) };
    let poured = reader.read_stream(&taken.snapshot, &artifact.name, &mut sink, work.cancel, work.progress);
    let Watched { upload, mut tar } = sink;
    match poured {
        Ok(_) => upload.finish()?,
        // The engine has stopped reading, and its answer says why.
        Err(RepositoryError::Sink { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => upload.finish()?,
        Err(error) => return Err(error.into()),
    }
    let damaged = |why: String| EngineError::Damaged { findings: vec![format!("{}: {why}", artifact.name)] };
    let backup = tar.end().map_err(damaged)?;
    let (Some(folder), Some(root)) = (tar.folder(), tar.root()) else {
        return Err(damaged("it is empty".to_owned()));
    };
    let folder = String::from_utf8_lossy(folder).into_owned();
    let there = read_back(site, &format!("{new}/{folder}"), work)?;
    if backup.content != there.content {
        let pairs = [
            ("files", backup.files, there.files),
            ("folders", backup.folders, there.folders),
            ("links", backup.links + backup.hard_links, there.links + there.hard_links),
            ("devices and pipes", backup.others, there.others),
            ("bytes", backup.bytes, there.bytes),
        ];
        let differ = pairs.iter().filter(|(_, then, now)| then != now);
        let mut findings: Vec<String> =
            differ.map(|(what, then, now)| format!("{what}: {then} in the backup, {now} there")).collect();
        if findings.is_empty() {
            findings.push("a name or a file's content is another".to_owned());
        }
        return Err(EngineError::Differs { what: "what was unpacked".to_owned(), findings });
    }
    Ok(Unpacked { folder, root: root.clone(), backup, there })
}

fn read_back(site: &Site, path: &str, work: &Work<'_>) -> Result<Tally, EngineError> {
    let mut download = site.docker.download(&site.container, path)?;
    let (mut tar, mut buffer) = (Tar::new(true), vec![0; 128 * 1024]);
    let stream = |source| EngineError::Stream { name: path.to_owned(), source };
    loop {
        if work.cancel.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let count = download.read(&mut buffer).map_err(stream)?;
        let differs = |why| EngineError::Differs { what: "what was unpacked".to_owned(), findings: vec![why] };
        if count == 0 {
            return tar.end().map_err(differs);
        }
        tar.feed(&buffer[..count], &mut |_| {}).map_err(differs)?;
    }
}

fn exchange(site: &Site, unpacked: &Unpacked) -> Result<(), EngineError> {
    let root = &unpacked.root;
    let arguments = [
        unpacked.folder.clone(),
        format!("{}:{}", root.uid, root.gid),
        format!("{:o}", root.mode),
        root.mtime.to_string(),
    ];
    run(site, EXCHANGE, &arguments)
}

/// An upload that is looked through as it passes.
struct Watched {
    upload: Upload,
    tar: Tar,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.upload.write(bytes)?;
        self.tar.feed(&bytes[..count], &mut |_| {}).map_err(io::Error::other)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.upload.flush()
    }
}
