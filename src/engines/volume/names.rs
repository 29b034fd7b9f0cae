//! Whether an archive holds everything that is there. Docker leaves out what it cannot read and says so only in its own
//! log, so the names are listed by another program, `find` in the same container, and compared with those that came.
//!
//! A name that was there before the archive and is there after it, and did not come, was left out. Where nobody writes
//! that is every name but those of sockets, which no archive can hold and every server makes anew.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::time::Duration;

use super::place::Site;
use super::restore::FOLDER;
use super::tar::Tar;
use crate::engines::EngineError;
use crate::runtime::{Command, Download, RuntimeError};

/// Without writers, whatever `find` has to say is an error.
const STRICT: &str = "cd \"$1\" && exec find . -mindepth 1 ! -type s -print0";

/// With writers, what goes between being seen and being looked at is none.
const LENIENT: &str = "cd \"$1\" && { find . -mindepth 1 ! -type s -print0 2>/dev/null || true; }";

const ANSWER: Duration = Duration::from_secs(60);

/// How many of the missing names a message says.
const SHOWN: usize = 3;

/// An archive whose end is reached only when all that was expected has come.
pub(super) struct Compared {
    download: Download,
    site: Site,
    tar: Tar,
    /// The hashes of the names that have not come yet; None where nothing in the image could list them.
    expected: Option<HashSet<u64>>,
    hasher: RandomState,
    quiet: bool,
    over: bool,
}

impl Compared {
    /// `quiet`: nobody writes there.
    pub fn begin(site: Site, quiet: bool) -> Result<Self, EngineError> {
        let (hasher, mut expected, mut left) = (RandomState::new(), HashSet::new(), false);
        let listed = list(&site, quiet, &mut |name| {
            left |= name == FOLDER.as_bytes();
            expected.insert(hasher.hash_one(name));
        })?;
        if left {
            return Err(EngineError::Refused {
                what: format!(
                    "a restore into it was interrupted, and what was there before may lie in its folder {FOLDER}; \
                     restore again (it first puts back what was there), or remove that folder"
                ),
            });
        }
        let download = site.docker.download(&site.container, &site.path)?;
        Ok(Self {
            download,
            site,
            tar: Tar::new(false),
            expected: listed.then_some(expected),
            hasher,
            quiet,
            over: false,
        })
    }

    fn end(&mut self) -> io::Result<()> {
        self.over = true;
        match self.tar.end() {
            Ok(_) => {}
            // The inspector says the same, as an error that does not pass by itself.
            Err(_) if self.quiet => return Ok(()),
            Err(why) => {
                return Err(io::Error::other(format!(
                    "{why}: it was written to or could not be read meanwhile; name who writes to it in `stop`"
                )));
            }
        }
        let Some(missing) = self.expected.take().filter(|expected| !expected.is_empty()) else { return Ok(()) };
        let (mut count, mut shown) = (0_usize, Vec::new());
        let hasher = &self.hasher;
        let listed = list(&self.site, self.quiet, &mut |name| {
            if missing.contains(&hasher.hash_one(name)) {
                count += 1;
                if shown.len() < SHOWN {
                    shown.push(name.escape_ascii().to_string());
                }
            }
        });
        listed.map_err(|error| io::Error::other(crate::model::chain(&error)))?;
        match (count, self.quiet) {
            (0, false) => Ok(()),
            (0, true) => {
                let gone = missing.len();
                Err(io::Error::other(format!("{gone} files went away although everybody who writes is stopped")))
            }
            (count, _) => Err(io::Error::other(format!(
                "Docker left out {count} of what is there ({}); its log says why",
                shown.join(", ")
            ))),
        }
    }
}

impl Read for Compared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.over || buffer.is_empty() {
            return Ok(0);
        }
        let count = self.download.read(buffer)?;
        if count == 0 {
            return self.end().map(|()| 0);
        }
        let (expected, hasher) = (&mut self.expected, &self.hasher);
        let fed = self.tar.feed(&buffer[..count], &mut |entry| {
            if let Some(expected) = expected {
                expected.remove(&hasher.hash_one(&*entry.path));
            }
        });
        fed.map_err(io::Error::other)?;
        Ok(count)
    }
}

/// Tells every name below the folder but those of sockets. False where nothing can list them: a container that does not
/// run, an image without a shell or without `find`.
fn list(site: &Site, quiet: bool, each: &mut dyn FnMut(&[u8])) -> Result<bool, EngineError> {
    if !site.has_shell()? {
        return Ok(false);
    }
    let look = Command::script("command -v find", [""; 0]);
    if site.docker.run_any(&site.container, &look, b"", ANSWER)?.code != 0 {
        return Ok(false);
    }
    let command = Command::script(if quiet { STRICT } else { LENIENT }, [&*site.path]);
    let mut output = site.docker.output(&site.container, &command)?;
    let (mut buffer, mut name) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let count = output.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(true);
        }
        for byte in &buffer[..count] {
            if *byte == 0 {
                each(name.strip_prefix(b"./").unwrap_or(&name));
                name.clear();
            } else {
                name.push(*byte);
            }
        }
    }
}

fn failed(error: io::Error) -> EngineError {
    match error.downcast::<RuntimeError>() {
        Ok(error) => error.into(),
        Err(source) => EngineError::Stream { name: "the list of names".to_owned(), source },
    }
}
