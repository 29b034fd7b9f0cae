//! One header of 512 bytes, and what pax records and GNU's long names say instead of it.

use super::{Entry, Kind};

pub(super) const BLOCK: usize = 512;

/// The fields of a header that every format has.
pub(super) struct Header {
    pub typeflag: u8,
    /// As the header says it; pax may say otherwise.
    pub size: u64,
}

impl Header {
    pub fn read(block: &[u8]) -> Result<Self, String> {
        if &block[257..262] != b"ustar" {
            return Err("without the mark of a tar header".to_owned());
        }
        let declared = number(&block[148..156]).ok_or("its checksum is no number")?;
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let field: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
        // The checksum's own field counts as spaces.
        if declared != (sum - field + 8 * u64::from(b' ')).cast_signed() {
            return Err("its checksum differs".to_owned());
        }
        let size = number(&block[124..136]).and_then(|size| u64::try_from(size).ok()).ok_or("its size is no number")?;
        Ok(Self { typeflag: block[156], size })
    }

    /// The bytes that follow in the archive, and the entry.
    pub fn entry(&self, block: &[u8], pax: Pax) -> Result<(u64, Entry), String> {
        let kind = match self.typeflag {
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Link,
            b'5' => Kind::Folder,
            b'3' | b'4' | b'6' => Kind::Other,
            other => return Err(format!("an entry is of the unknown kind {}", [other].escape_ascii())),
        };
        let field = |from: usize, to: usize, what: &str| {
            let value = number(&block[from..to]).ok_or_else(|| format!("a header's {what} is no number"));
            value.map(i64::cast_unsigned)
        };
        let stored = match kind {
            Kind::File => pax.size.unwrap_or(self.size),
            _ => 0,
        };
        let bytes = match (kind, pax.real_size) {
            (Kind::File, Some(real)) => real,
            (Kind::File, None) if self.typeflag == b'S' => field(483, 495, "real size")?,
            _ => stored,
        };
        let entry = Entry {
            kind,
            path: pax.path.unwrap_or_else(|| name(block)),
            bytes,
            mode: field(100, 108, "mode")? & 0o7777,
            uid: pax.uid.map_or_else(|| field(108, 116, "owner"), Ok)?,
            gid: pax.gid.map_or_else(|| field(116, 124, "group"), Ok)?,
            mtime: pax.mtime.map_or_else(|| field(136, 148, "time").map(u64::cast_signed), Ok)?,
            target: match kind {
                Kind::Link | Kind::HardLink => pax.target.unwrap_or_else(|| text(&block[157..257]).to_owned()),
                _ => Vec::new(),
            },
            xattrs: pax.xattrs,
        };
        Ok((stored, entry))
    }
}

/// A name of ustar's two parts.
fn name(block: &[u8]) -> Vec<u8> {
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    // GNU's own format has other things where ustar has the prefix.
    if prefix.is_empty() || &block[257..263] != b"ustar\0" {
        return name.to_owned();
    }
    [prefix, b"/", name].concat()
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, or GNU's binary numbers for what is too large for them.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (place, byte) in field.iter().enumerate() {
            let byte = if place == 0 && !negative { byte & 0x7f } else { *byte };
            value = value.checked_mul(256)? | i64::from(byte);
        }
        return Some(value);
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    i64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// What came before an entry's own header and replaces parts of it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    /// Of a sparse file: the length with its holes.
    real_size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<u8>,
    any: bool,
}

impl Pax {
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    pub fn keep(&mut self, typeflag: u8, record: Vec<u8>) -> Result<(), String> {
        match typeflag {
            b'L' => self.path = Some(text(&record).to_owned()),
            b'K' => self.target = Some(text(&record).to_owned()),
            // Global records say nothing of one entry.
            b'g' => return Ok(()),
            _ => self.records(&record)?,
        }
        self.any = true;
        Ok(())
    }

    /// `LENGTH KEY=VALUE\n`, the length being that of the whole line.
    fn records(&mut self, mut rest: &[u8]) -> Result<(), String> {
        while !rest.is_empty() {
            let (line, after) = split(rest).ok_or("a pax record is not one")?;
            let equals = line.iter().position(|byte| *byte == b'=').ok_or("a pax record has no value")?;
            let (key, value) = (&line[..equals], &line[equals + 1..]);
            let number = || -> Result<u64, String> {
                let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                text.ok_or_else(|| format!("the pax record {} is no number", key.escape_ascii()))
            };
            match key {
                b"path" | b"GNU.sparse.name" => self.path = Some(value.to_owned()),
                b"linkpath" => self.target = Some(value.to_owned()),
                b"size" => self.size = Some(number()?),
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => {
                    // Whole seconds: Docker writes no others.
                    let text = String::from_utf8_lossy(value);
                    let whole = text.split('.').next().unwrap_or_default();
                    self.mtime = Some(whole.parse().map_err(|_| format!("the pax time {text} is no number"))?);
                }
                _ if key.starts_with(b"SCHILY.xattr.") => self.xattrs.extend_from_slice(line),
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }
}

/// The first record's key and value, and what follows it.
fn split(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let line = records.get(space + 1..length)?;
    Some((line.strip_suffix(b"\n")?, &records[length..]))
}
