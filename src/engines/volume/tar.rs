//! A tar stream read as it passes: ustar with pax records, GNU long names and GNU sparse files. Every header's checksum is
//! compared, and the two blocks of zeros that end an archive must be there: cut anywhere, it is not whole.

mod header;

use std::io::Read;

use sha2::{Digest as _, Sha256};

use self::header::{BLOCK, Header, Pax};
use crate::engines::inspect::{Counts, cut};

/// Names and pax records are kept while they are read; nothing sound has more.
const LONGEST_RECORD: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engines) enum Kind {
    File,
    Folder,
    Link,
    HardLink,
    /// A device or a pipe.
    Other,
}

/// One thing in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engines) struct Entry {
    pub kind: Kind,
    /// Below the archive's folder; empty for the folder itself.
    pub path: Vec<u8>,
    /// Of a file: its bytes with its holes.
    pub bytes: u64,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub mtime: i64,
    /// What a link points at, or the entry that a hard link is another name of.
    pub target: Vec<u8>,
    xattrs: Vec<u8>,
}

/// What is in an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engines) struct Tally {
    pub files: u64,
    pub folders: u64,
    pub links: u64,
    pub hard_links: u64,
    pub others: u64,
    pub bytes: u64,
    /// Names, kinds, link targets and contents, whatever their order; only where they were asked for.
    pub content: u128,
    /// Modes, owners, times and attributes.
    pub attributes: u128,
}

impl Tally {
    pub fn entries(&self) -> u64 {
        self.files + self.folders + self.links + self.hard_links + self.others
    }

    pub fn counts(&self) -> Counts {
        let names = ["files", "folders", "links", "hard links", "devices and pipes", "bytes"];
        let values = [self.files, self.folders, self.links, self.hard_links, self.others, self.bytes];
        names.map(str::to_owned).into_iter().zip(values).collect()
    }
}

#[derive(Debug)]
enum State {
    /// Gathering a header.
    Header,
    /// Gathering more of the map of a GNU sparse file.
    SparseMap,
    /// Gathering a name or pax records.
    Record(u8),
    /// A file's bytes, and then its padding.
    Data,
    Padding,
    /// One block of zeros was there.
    FirstZeros,
    Ended,
}

/// The reader: fed with pieces of any length, and told the end.
pub(in crate::engines) struct Tar {
    state: State,
    block: Vec<u8>,
    /// Bytes of the present data that have not come yet.
    left: u64,
    padding: u64,
    record: Vec<u8>,
    pax: Pax,
    /// The archive's folder: the name of its first entry.
    folder: Option<Vec<u8>>,
    root: Option<Entry>,
    current: Option<Entry>,
    prints: bool,
    hash: Sha256,
    tally: Tally,
}

impl Tar {
    /// `prints`: hash names and contents too.
    pub fn new(prints: bool) -> Self {
        Self {
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            left: 0,
            padding: 0,
            record: Vec::new(),
            pax: Pax::default(),
            folder: None,
            root: None,
            current: None,
            prints,
            hash: Sha256::new(),
            tally: Tally::default(),
        }
    }

    /// Takes the next piece; `seen` is told every entry below the archive's folder when its header has come.
    pub fn feed(&mut self, mut bytes: &[u8], seen: &mut dyn FnMut(&Entry)) -> Result<(), String> {
        while !bytes.is_empty() {
            match self.state {
                State::Header | State::SparseMap | State::FirstZeros => {
                    let part = bytes.len().min(BLOCK - self.block.len());
                    self.block.extend_from_slice(&bytes[..part]);
                    bytes = &bytes[part..];
                    if self.block.len() == BLOCK {
                        self.block(seen)?;
                        self.block.clear();
                    }
                }
                State::Record(_) | State::Data => {
                    let part = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    match self.state {
                        State::Record(_) => self.record.extend_from_slice(&bytes[..part]),
                        _ if self.prints => self.hash.update(&bytes[..part]),
                        _ => {}
                    }
                    bytes = &bytes[part..];
                    self.left -= part as u64;
                    self.after_data()?;
                }
                State::Padding => {
                    let part = bytes.len().min(usize::try_from(self.padding).unwrap_or(usize::MAX));
                    bytes = &bytes[part..];
                    self.padding -= part as u64;
                    self.after_data()?;
                }
                State::Ended => {
                    // Some writers fill up to a record's length.
                    if bytes.iter().any(|byte| *byte != 0) {
                        return Err("there is more behind the end of the archive".to_owned());
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What the whole archive holds.
    pub fn end(&mut self) -> Result<Tally, String> {
        match self.state {
            State::Ended => Ok(self.tally.clone()),
            _ => Err(format!("the archive ends within {}", self.place())),
        }
    }

    /// The archive's folder itself, once it has come.
    pub fn root(&self) -> Option<&Entry> {
        self.root.as_ref()
    }

    /// The name that every entry begins with.
    pub fn folder(&self) -> Option<&[u8]> {
        self.folder.as_deref()
    }

    fn place(&self) -> String {
        match (&self.state, &self.current) {
            (State::FirstZeros, _) => "its last block".to_owned(),
            (State::Data | State::Padding, Some(entry)) => format!("the file {}", entry.path.escape_ascii()),
            (_, Some(entry)) => format!("the header after {}", entry.path.escape_ascii()),
            (_, None) => "its first header".to_owned(),
        }
    }

    fn block(&mut self, seen: &mut dyn FnMut(&Entry)) -> Result<(), String> {
        let zeros = self.block.iter().all(|byte| *byte == 0);
        match self.state {
            State::FirstZeros if zeros => {
                self.print();
                self.state = if self.folder.is_some() { State::Ended } else { return Err("it is empty".to_owned()) };
                Ok(())
            }
            State::FirstZeros => Err("a single block of zeros stands within the archive".to_owned()),
            State::SparseMap => {
                // The last byte but seven says whether the map goes on.
                if self.block[504] == 0 {
                    self.state = State::Data;
                    self.after_data()?;
                }
                Ok(())
            }
            _ if zeros => {
                if !self.pax.is_empty() {
                    return Err("the archive ends between a long name and its entry".to_owned());
                }
                self.state = State::FirstZeros;
                Ok(())
            }
            _ => self.header(seen),
        }
    }

    fn header(&mut self, seen: &mut dyn FnMut(&Entry)) -> Result<(), String> {
        let header =
            Header::read(&self.block).map_err(|why| format!("a header is not one ({why}), within {}", self.place()))?;
        if matches!(header.typeflag, b'x' | b'g' | b'L' | b'K') {
            if header.size > LONGEST_RECORD {
                return Err(format!("a name or attribute of {} bytes is longer than any", header.size));
            }
            self.record.clear();
            self.expect(header.size);
            self.state = State::Record(header.typeflag);
            return self.after_data();
        }
        self.print();
        let pax = std::mem::take(&mut self.pax);
        let goes_on = header.typeflag == b'S' && self.block[482] != 0;
        let (stored, mut entry) = header.entry(&self.block, pax)?;
        self.name(&mut entry)?;
        self.expect(stored);
        self.state = if goes_on { State::SparseMap } else { State::Data };
        if !entry.path.is_empty() {
            let tally = &mut self.tally;
            *match entry.kind {
                Kind::File => &mut tally.files,
                Kind::Folder => &mut tally.folders,
                Kind::Link => &mut tally.links,
                Kind::HardLink => &mut tally.hard_links,
                Kind::Other => &mut tally.others,
            } += 1;
            tally.bytes += entry.bytes;
            seen(&entry);
        }
        self.current = Some(entry);
        if goes_on { Ok(()) } else { self.after_data() }
    }

    /// Takes the archive's folder off the entry's name, and off the one that a hard link names.
    fn name(&mut self, entry: &mut Entry) -> Result<(), String> {
        let shown = entry.path.escape_ascii().to_string();
        while entry.path.last() == Some(&b'/') {
            entry.path.pop();
        }
        let Some(folder) = &self.folder else {
            if entry.kind != Kind::Folder || entry.path.contains(&b'/') || matches!(&*entry.path, b"" | b"." | b"..") {
                return Err(format!("its first entry is {shown}, and not a folder"));
            }
            self.folder = Some(std::mem::take(&mut entry.path));
            self.root = Some(entry.clone());
            return Ok(());
        };
        let below = |path: &[u8]| -> Option<Vec<u8>> {
            let below = path.strip_prefix(&**folder)?.strip_prefix(b"/")?;
            let sound = below.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
            sound.then(|| below.to_owned())
        };
        entry.path =
            below(&entry.path).ok_or_else(|| format!("the entry {shown} lies outside the archive's folder"))?;
        if entry.kind == Kind::HardLink {
            entry.target = below(&entry.target).ok_or_else(|| format!("the hard link {shown} points outside"))?;
        }
        Ok(())
    }

    fn expect(&mut self, bytes: u64) {
        self.left = bytes;
        self.padding = bytes.next_multiple_of(BLOCK as u64) - bytes;
    }

    /// Where the data or its padding has come to its end, goes on to what follows.
    fn after_data(&mut self) -> Result<(), String> {
        if self.left > 0 {
            return Ok(());
        }
        if self.padding > 0 {
            if let State::Record(typeflag) = self.state {
                self.keep(typeflag)?;
            }
            self.state = State::Padding;
        } else {
            if let State::Record(typeflag) = self.state {
                self.keep(typeflag)?;
            }
            self.state = State::Header;
        }
        Ok(())
    }

    fn keep(&mut self, typeflag: u8) -> Result<(), String> {
        let record = std::mem::take(&mut self.record);
        self.pax.keep(typeflag, record)
    }

    /// Adds the entry that has come to its end to the prints.
    fn print(&mut self) {
        let (true, Some(entry)) = (self.prints, self.current.take()) else { return };
        let data = std::mem::replace(&mut self.hash, Sha256::new()).finalize();
        let number = |hash: Sha256| {
            let mut half = [0; 16];
            half.copy_from_slice(&hash.finalize()[..16]);
            u128::from_le_bytes(half)
        };
        let part = |hash: &mut Sha256, bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        let mut content = Sha256::new();
        part(&mut content, &entry.path);
        part(&mut content, &entry.target);
        content.update([entry.kind as u8]);
        content.update(entry.bytes.to_le_bytes());
        content.update(data);
        self.tally.content = self.tally.content.wrapping_add(number(content));
        let mut attributes = Sha256::new();
        part(&mut attributes, &entry.path);
        part(&mut attributes, &entry.xattrs);
        for value in [entry.mode, entry.uid, entry.gid, entry.mtime.cast_unsigned()] {
            attributes.update(value.to_le_bytes());
        }
        // The folder itself is the volume's, and gets its attributes last of all.
        if !entry.path.is_empty() {
            self.tally.attributes = self.tally.attributes.wrapping_add(number(attributes));
        }
    }
}

/// Reads an archive to its end and counts what is in it.
pub(in crate::engines) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut tar = Tar::new(false);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = from.read(&mut buffer).map_err(|error| cut(&tar.place(), &error))?;
        if count == 0 {
            return tar.end().map(|tally| tally.counts());
        }
        tar.feed(&buffer[..count], &mut |_| {})?;
    }
}

#[cfg(test)]
mod tests;
