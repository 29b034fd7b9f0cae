//! As much of the tar format as it takes to put a few files into a container that does not run, and to see whose they are.

use std::io::{self, Read};

const BLOCK: usize = 512;

/// Whose a file is, and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engines) struct Owner {
    pub uid: u64,
    pub gid: u64,
    pub mode: u64,
}

/// What the first entry of a stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engines) struct First {
    pub owner: Owner,
    pub size: u64,
}

/// Entries in the making, without the end.
#[derive(Default)]
pub(in crate::engines) struct Tar {
    pub bytes: Vec<u8>,
}

impl Tar {
    /// The header of a file whose `size` bytes follow.
    pub(in crate::engines) fn header(&mut self, name: &str, size: u64, owner: Owner) -> io::Result<()> {
        self.entry(name, size, owner, b'0', "")
    }

    pub(in crate::engines) fn file(&mut self, name: &str, content: &[u8], owner: Owner) -> io::Result<()> {
        self.header(name, content.len() as u64, owner)?;
        self.bytes.extend_from_slice(content);
        self.bytes.extend(padding(content.len() as u64));
        Ok(())
    }

    #[cfg(test)]
    pub(in crate::engines) fn folder(&mut self, name: &str, owner: Owner) -> io::Result<()> {
        self.entry(name, 0, owner, b'5', "")
    }

    /// A second name for a file that is there. Whatever the name stood for before is taken away first.
    pub(in crate::engines) fn link(&mut self, name: &str, to: &str) -> io::Result<()> {
        self.entry(name, 0, Owner { uid: 0, gid: 0, mode: 0o600 }, b'1', to)
    }

    fn entry(&mut self, name: &str, size: u64, owner: Owner, kind: u8, to: &str) -> io::Result<()> {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
        if name.len() > 100 || to.len() > 100 {
            return Err(io::Error::other(format!("the name {name} is longer than an archive takes")));
        }
        put(0, name.as_bytes());
        put(100, &number::<8>(owner.mode & 0o7777));
        put(108, &number::<8>(owner.uid));
        put(116, &number::<8>(owner.gid));
        put(124, &number::<12>(size));
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        put(136, &number::<12>(now));
        put(148, b"        ");
        put(156, &[kind]);
        put(157, to.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        Ok(())
    }

    /// Everything, with the end behind it.
    pub(in crate::engines) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend(END);
        self.bytes
    }
}

/// Two empty blocks.
pub(in crate::engines) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What fills up the last block of a file.
pub(in crate::engines) fn padding(size: u64) -> Vec<u8> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    vec![0; (BLOCK - over) % BLOCK]
}

/// In octal digits; what does not fit, as a binary number with the first bit set.
fn number<const N: usize>(value: u64) -> [u8; N] {
    let mut field = [0; N];
    let digits = format!("{value:0width$o}", width = N - 1);
    if digits.len() < N {
        field[..N - 1].copy_from_slice(digits.as_bytes());
    } else {
        let bytes = value.to_be_bytes();
        let from = bytes.len().saturating_sub(N);
        field[N - (bytes.len() - from)..].copy_from_slice(&bytes[from..]);
        field[0] |= 0x80;
    }
    field
}

fn read_number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return Some(field[1..].iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

/// The first entry of a stream; its content, where it is a file, is next to be read.
pub(in crate::engines) fn first(from: &mut dyn Read) -> io::Result<First> {
    named(from).map(|(_, first)| first)
}

/// As [`first`], with the name that its header has.
pub(in crate::engines) fn named(from: &mut dyn Read) -> io::Result<(String, First)> {
    let wrong = |what: &str| io::Error::other(format!("the archive of the container's files {what}"));
    let (mut size, mut uid, mut gid) = (None, None, None);
    loop {
        let mut header = [0_u8; BLOCK];
        from.read_exact(&mut header)?;
        let field = |at: usize, length: usize| read_number(&header[at..at + length]);
        let length = field(124, 12).ok_or_else(|| wrong("has no size"))?;
        match header[156] {
            // Records for the entry that follows: what does not fit into its header.
            b'x' | b'g' | b'L' | b'K' => {
                if length > 1 << 20 {
                    return Err(wrong("has records that are too long"));
                }
                let mut records = vec![0; usize::try_from(length).unwrap_or_default() + padding(length).len()];
                from.read_exact(&mut records)?;
                let text = String::from_utf8_lossy(&records);
                let record = |name: &str| {
                    let value = text.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix(name))?;
                    value.strip_prefix('=')?.parse().ok()
                };
                if header[156] == b'x' {
                    (size, uid, gid) = (record("size"), record("uid"), record("gid"));
                }
            }
            _ => {
                let owner = Owner {
                    uid: uid.or_else(|| field(108, 8)).ok_or_else(|| wrong("has no owner"))?,
                    gid: gid.or_else(|| field(116, 8)).ok_or_else(|| wrong("has no group"))?,
                    mode: field(100, 8).ok_or_else(|| wrong("has no mode"))? & 0o7777,
                };
                let end = header[..100].iter().position(|byte| *byte == 0).unwrap_or(100);
                let name = String::from_utf8_lossy(&header[..end]).into_owned();
                return Ok((name, First { owner, size: size.unwrap_or(length) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let owner = Owner { uid: 999, gid: 4_000_000, mode: 0o640 };
        for size in [0, 5, 512, 9_000_000_000, u64::MAX >> 2] {
            let mut tar = Tar::default();
            tar.header("dump.rdb", size, owner).unwrap();
            assert_eq!(first(&mut tar.bytes.as_slice()).unwrap(), First { owner, size });
        }
        let mut tar = Tar::default();
        tar.file("a", b"content", owner).unwrap();
        tar.link("b", "a").unwrap();
        let bytes = tar.finish();
        assert_eq!(bytes.len(), 3 * BLOCK + END.len());
        let mut rest = bytes.as_slice();
        assert_eq!(first(&mut rest).unwrap().size, 7);
        assert!(rest.starts_with(b"content"));
        assert!(Tar::default().link(&"long".repeat(30), "a").is_err());
        assert!(first(&mut &bytes[..100]).is_err());
    }

    #[test]
    fn records_before_an_entry_count() {
        let mut tar = Tar::default();
        let records = b"19 uid=5000000000\n25 size=9000000000000000\n";
        tar.entry("records", records.len() as u64, Owner { uid: 0, gid: 0, mode: 0 }, b'x', "").unwrap();
        tar.bytes.extend_from_slice(records);
        tar.bytes.extend(padding(records.len() as u64));
        tar.header("dump.rdb", 7, Owner { uid: 1, gid: 2, mode: 0o600 }).unwrap();
        let read = first(&mut tar.bytes.as_slice()).unwrap();
        assert_eq!(read.owner, Owner { uid: 5_000_000_000, gid: 2, mode: 0o600 });
        assert_eq!(read.size, 9_000_000_000_000_000);
    }
}
