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
use crate::runtime::{Command, Download, Patience, RuntimeError};

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
    /// None where nothing in the image could list them.
    expected: Option<Expected>,
    quiet: bool,
    over: bool,
}

impl Compared {
    /// `quiet`: nobody writes there.
    pub fn begin(site: Site, quiet: bool) -> Result<Self, EngineError> {
        let (mut expected, mut left) = (Expected::default(), false);
        let listed = list(&site, quiet, &mut |name| {
            left |= name == FOLDER.as_bytes();
            expected.add(name);
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
        Ok(Self { download, site, tar: Tar::new(false), expected: listed.then_some(expected), quiet, over: false })
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
        let Some(expected) = self.expected.take().filter(|expected| expected.missing() > 0) else { return Ok(()) };
        let mut left_out = LeftOut::default();
        list(&self.site, self.quiet, &mut |name| left_out.look(&expected, name))
            .map_err(|error| io::Error::other(crate::model::chain(&error)))?;
        left_out.verdict(&expected, self.quiet).map_err(io::Error::other)
    }
}

/// The names that have not come yet, as hashes: a million of them are 16 MB.
#[derive(Default)]
struct Expected {
    hasher: RandomState,
    names: HashSet<u64>,
}

impl Expected {
    fn add(&mut self, name: &[u8]) {
        self.names.insert(self.hasher.hash_one(name));
    }

    fn came(&mut self, name: &[u8]) {
        self.names.remove(&self.hasher.hash_one(name));
    }

    fn missing(&self) -> usize {
        self.names.len()
    }
}

/// What did not come and is still there.
#[derive(Default)]
struct LeftOut {
    count: usize,
    shown: Vec<String>,
}

impl LeftOut {
    fn look(&mut self, expected: &Expected, name: &[u8]) {
        if expected.names.contains(&expected.hasher.hash_one(name)) {
            self.count += 1;
            if self.shown.len() < SHOWN {
                self.shown.push(name.escape_ascii().to_string());
            }
        }
    }

    fn verdict(&self, expected: &Expected, quiet: bool) -> Result<(), String> {
        match (self.count, quiet) {
            (0, false) => Ok(()),
            (0, true) => {
                Err(format!("{} files went away although everybody who writes is stopped", expected.missing()))
            }
            (count, _) => {
                Err(format!("Docker left out {count} of what is there ({}); its log says why", self.shown.join(", ")))
            }
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
        let expected = &mut self.expected;
        let fed = self.tar.feed(&buffer[..count], &mut |entry| {
            if let Some(expected) = expected {
                expected.came(&entry.path);
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
    let mut output = site.docker.output(&site.container, &command, Patience::default())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(before: &[&[u8]], came: &[&[u8]], after: &[&[u8]], quiet: bool) -> Result<(), String> {
        let (mut expected, mut left_out) = (Expected::default(), LeftOut::default());
        before.iter().for_each(|name| expected.add(name));
        came.iter().for_each(|name| expected.came(name));
        if expected.missing() == 0 {
            return Ok(());
        }
        after.iter().for_each(|name| left_out.look(&expected, name));
        left_out.verdict(&expected, quiet)
    }

    #[test]
    fn what_was_there_all_the_time_and_did_not_come_was_left_out() {
        let (a, b, odd): (&[u8], &[u8], &[u8]) = (b"a", b"a/b", b"new\nline \xff");
        for quiet in [true, false] {
            assert_eq!(verdict(&[a, b, odd], &[a, b, odd], &[a], quiet), Ok(()));
            let left_out = verdict(&[a, b, odd], &[a, b], &[a, b, odd], quiet).unwrap_err();
            assert!(left_out.contains("left out 1") && left_out.contains(r"new\nline \xff"), "{left_out}");
        }
        // Removed meanwhile, new meanwhile: that is what a writer does, where there may be one.
        assert_eq!(verdict(&[a, b], &[a, odd], &[a, odd], false), Ok(()));
        assert!(verdict(&[a, b], &[a], &[a], true).is_err());
    }
}
