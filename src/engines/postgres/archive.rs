//! PostgreSQL's custom archive format, read from its first byte to its last: a dump is whole when every entry of its table
//! of contents that has data is followed by that data, ended as it should be. Rows are counted on the way.
//!
//! The format has no document; this is what `pg_dump` of versions 12 to 18 writes (archive versions 1.14 to 1.16), seen from the
//! outside and in the declarations of its source, under the PostgreSQL licence.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use crate::engines::inspect::{Counts, cut, exactly, kept, skip};

/// The oldest archive version that is read: PostgreSQL 12's.
const OLDEST: (u8, u8) = (1, 14);
/// The newest one that is known.
const NEWEST: (u8, u8) = (1, 16);

/// A string of a table of contents is a statement at most; more than this is no archive.
const LONGEST_TEXT: i64 = 1 << 30;

/// Begins a block of a table's rows.
const ROWS: u8 = 1;
/// Begins a block of large objects.
const LARGE_OBJECTS: u8 = 3;

/// Looks through an archive of `pg_dump --format=custom`, uncompressed.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut archive = Archive::open(from)?;
    let contents = archive.contents()?;
    let mut counts = Counts::new();
    let mut due: BTreeMap<i64, Entry> = contents.into_iter().map(|entry| (entry.id, entry)).collect();
    let (mut tables, mut objects) = (0_u64, 0_u64);
    while let Some(kind) = archive.next_block()? {
        let id = archive.number("the number of a block")?;
        let entry = due.remove(&id).ok_or_else(|| format!("block {id} belongs to no entry, or stands there twice"))?;
        match kind {
            ROWS => {
                let rows = archive.rows(&entry.name)?;
                tables += 1;
                counts.push((format!("rows {}", entry.name), rows));
            }
            LARGE_OBJECTS => objects += archive.large_objects(&entry.name)?,
            other => return Err(format!("a block of the unknown kind {other}")),
        }
    }
    if let Some(missing) = due.values().next() {
        return Err(format!("the data of {} is missing ({} of its entries have none)", missing.name, due.len()));
    }
    counts.push(("tables with data".to_owned(), tables));
    counts.push(("large objects".to_owned(), objects));
    Ok(counts)
}

/// An entry of the table of contents that has data.
struct Entry {
    id: i64,
    name: String,
}

struct Archive<'a> {
    from: &'a mut dyn Read,
    version: (u8, u8),
    bytes_of_number: usize,
    bytes_of_offset: usize,
}

impl<'a> Archive<'a> {
    fn open(from: &'a mut dyn Read) -> Result<Self, String> {
        if exactly::<5>(from, "the first bytes")? != *b"PGDMP" {
            return Err("it does not begin as an archive of pg_dump does".to_owned());
        }
        let [major, minor, _, bytes_of_number, bytes_of_offset, format] = exactly(from, "the header")?;
        let version = (major, minor);
        if !(OLDEST..=NEWEST).contains(&version) {
            return Err(format!("archive version {major}.{minor} is not one that this devstack can check"));
        }
        if format != 1 || bytes_of_number != 4 || bytes_of_offset != 8 {
            return Err(format!("an archive of format {format} with numbers of {bytes_of_number} bytes"));
        }
        let mut archive = Self {
            from,
            version,
            bytes_of_number: usize::from(bytes_of_number),
            bytes_of_offset: usize::from(bytes_of_offset),
        };
        // The compression: an algorithm since 1.15, a zlib level before.
        let compression = match version {
            (1, 14) => archive.number("the compression")?,
            _ => i64::from(exactly::<1>(archive.from, "the compression")?[0]),
        };
        if compression != 0 {
            return Err("it is compressed, and dumps are asked for uncompressed".to_owned());
        }
        for _ in 0..7 {
            archive.number("the time of the dump")?;
        }
        for what in ["the database's name", "the server's version", "pg_dump's version"] {
            archive.text(what)?;
        }
        Ok(archive)
    }

    /// A sign and four bytes, the least first.
    fn number(&mut self, what: &str) -> Result<i64, String> {
        let sign = exactly::<1>(self.from, what)?[0];
        let bytes = kept(self.from, self.bytes_of_number as u64, what)?;
        let value = bytes.iter().rev().fold(0_i64, |value, byte| value << 8 | i64::from(*byte));
        Ok(if sign == 0 { value } else { -value })
    }

    /// A length and as many bytes; none for a length below zero.
    fn text(&mut self, what: &str) -> Result<Option<String>, String> {
        let length = self.number(what)?;
        if length > LONGEST_TEXT {
            return Err(format!("{what} is {length} bytes long"));
        }
        let Ok(length) = u64::try_from(length) else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(&kept(self.from, length, what)?).into_owned()))
    }

    /// The table of contents; the entries that have data.
    fn contents(&mut self) -> Result<Vec<Entry>, String> {
        let what = "the table of contents";
        let entries = self.number(what)?;
        let mut with_data = Vec::new();
        let mut seen = BTreeSet::new();
        for _ in 0..entries {
            let id = self.number(what)?;
            let has_data = self.number(what)? != 0;
            self.text(what)?; // oid of its catalogue
            self.text(what)?; // oid
            let tag = self.text(what)?.unwrap_or_default();
            let kind = self.text(what)?.unwrap_or_default();
            self.number(what)?; // section
            for _ in 0..3 {
                self.text(what)?; // statements: create, drop, copy
            }
            let schema = self.text(what)?.filter(|schema| !schema.is_empty());
            self.text(what)?; // tablespace
            self.text(what)?; // access method
            if self.version >= (1, 16) {
                self.number(what)?; // kind of relation
            }
            self.text(what)?; // owner
            self.text(what)?; // with oids
            while self.text(what)?.is_some() {} // what it depends on
            skip(self.from, 1 + self.bytes_of_offset as u64, what)?; // where its data is, unknown in a stream
            if !seen.insert(id) {
                return Err(format!("entry {id} stands twice in the table of contents"));
            }
            if has_data {
                let name = match (kind.as_str(), schema) {
                    ("TABLE DATA", Some(schema)) => table(&schema, &tag),
                    (kind, Some(schema)) => format!("{kind} {schema}.{tag}"),
                    (kind, None) => format!("{kind} {tag}"),
                };
                with_data.push(Entry { id, name });
            }
        }
        Ok(with_data)
    }

    /// The kind of the next block; none at the end of the archive.
    fn next_block(&mut self) -> Result<Option<u8>, String> {
        let mut kind = [0];
        match self.from.read(&mut kind) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(kind[0])),
            Err(error) => Err(cut("the beginning of a block", &error)),
        }
    }

    /// The rows of a table in COPY's text form: a line each, then `\.` on a line of its own. A newline within a value
    /// is written as `\n`.
    fn rows(&mut self, name: &str) -> Result<u64, String> {
        let what = format!("the rows of {name}");
        let (mut lines, mut tail) = (0_u64, Vec::new());
        while let Some(length) = self.piece(&what)? {
            let piece = kept(self.from, length, &what)?;
            lines += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            tail.extend_from_slice(&piece[piece.len().saturating_sub(TAIL)..]);
            tail.drain(..tail.len().saturating_sub(TAIL));
        }
        // The end mark and two empty lines close the data of every table.
        match tail.strip_suffix(b"\\.\n\n\n") {
            Some(before) if before.is_empty() || before.ends_with(b"\n") => Ok(lines - 3),
            _ => Err(format!("{what} do not end with their end mark")),
        }
    }

    /// Large objects, each with its number and its pieces, until the number 0.
    fn large_objects(&mut self, name: &str) -> Result<u64, String> {
        let what = format!("the data of {name}");
        let mut objects = 0;
        while self.number(&what)? != 0 {
            while let Some(length) = self.piece(&what)? {
                skip(self.from, length, &what)?;
            }
            objects += 1;
        }
        Ok(objects)
    }

    /// The length of the next piece of data; none where the data ends.
    fn piece(&mut self, what: &str) -> Result<Option<u64>, String> {
        match self.number(what)? {
            0 => Ok(None),
            length @ 1..=LONGEST_TEXT => Ok(Some(length.unsigned_abs())),
            length => Err(format!("a piece of {length} bytes in {what}")),
        }
    }
}

/// A table as counts call it.
pub(super) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", part(schema), part(name))
}

/// Part of a table's name: in quotes where it could not be told from the rest.
fn part(name: &str) -> String {
    if name.contains(['.', '"']) { super::globals::quoted(name) } else { name.to_owned() }
}

/// The end mark with the newline before it.
const TAIL: usize = b"\n\\.\n\n\n".len();

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: i32) -> Vec<u8> {
        [&[u8::from(value < 0)][..], &value.unsigned_abs().to_le_bytes()].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [number(text.len() as i32), text.as_bytes().to_vec()].concat()
    }

    fn entry(id: i32, kind: &str, tag: &str, schema: &str, has_data: bool) -> Vec<u8> {
        let mut bytes = [number(id), number(i32::from(has_data)), text("0"), text("0"), text(tag), text(kind)].concat();
        bytes.extend([number(3), text(""), text(""), text("COPY"), text(schema), number(-1), number(-1)].concat());
        bytes.extend([number(114), text("shop"), text("false"), text("1"), number(-1)].concat());
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn archive() -> Vec<u8> {
        let mut bytes = b"PGDMP\x01\x10\x00\x04\x08\x01\x00".to_vec();
        bytes.extend((0..7).flat_map(|_| number(1)));
        bytes.extend(["shop", "17.1", "17.1"].iter().flat_map(|word| text(word)));
        bytes.extend(number(4));
        bytes.extend(entry(1, "TABLE", "orders", "public", false));
        bytes.extend(entry(2, "TABLE DATA", "orders", "public", true));
        bytes.extend(entry(3, "TABLE DATA", "empty", "public", true));
        bytes.extend(entry(4, "BLOBS", "BLOBS", "", true));
        // Pieces end anywhere, within the end mark too.
        bytes.extend([vec![ROWS], number(2), text("1\tone\n2\ttwo\\nlines\n\\"), text(".\n\n\n"), number(0)].concat());
        bytes.extend([vec![ROWS], number(3), text("\\.\n\n\n"), number(0)].concat());
        bytes.extend([vec![LARGE_OBJECTS], number(4), number(77), text("blob"), number(0), number(0)].concat());
        bytes
    }

    #[test]
    fn rows_and_large_objects_are_counted() {
        let counts = inspect(&mut archive().as_slice()).unwrap();
        let expected =
            [("rows public.orders", 2), ("rows public.empty", 0), ("tables with data", 2), ("large objects", 1)];
        assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn an_archive_cut_anywhere_is_not_whole() {
        let whole = archive();
        for length in 0..whole.len() {
            assert!(inspect(&mut &whole[..length]).is_err(), "cut after {length} bytes of {}", whole.len());
        }
    }

    #[test]
    fn what_follows_an_archive_or_is_compressed_is_refused() {
        let mut longer = archive();
        longer.push(9);
        assert!(inspect(&mut longer.as_slice()).is_err());
        let mut compressed = archive();
        compressed[11] = 1;
        assert!(inspect(&mut compressed.as_slice()).unwrap_err().contains("compressed"));
    }
}
