//! An RDB, read from its first byte to its checksum: every opcode, every type and encoding of a value. Keys, expiries and
//! function libraries are counted on the way.
//!
//! The format has no document; this is what Redis up to 8.2 writes (RDB version 12), as `redis-check-rdb` reads it.

use std::io::Read;

use super::crc64;
use crate::engines::inspect::{Counts, cut};

/// The newest version that is known.
const NEWEST: u32 = 12;
/// From this version on there is a checksum behind the end.
const WITH_CHECKSUM: u32 = 5;

/// Read at once.
const PIECE: usize = 64 * 1024;

pub(super) const KEYS: &str = "keys";
pub(super) const EXPIRING: &str = "keys with an expiry";
pub(super) const LIBRARIES: &str = "function libraries";

/// Looks through an RDB as `redis-cli --rdb -` gives it, without the mark behind it.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut rdb = Rdb { from, piece: vec![0; PIECE], at: 0, end: 0, added: 0, crc: 0 };
    let version = rdb.version()?;
    let (mut keys, mut expiring, mut libraries) = (0_u64, 0_u64, 0_u64);
    let mut expires = false;
    loop {
        match rdb.byte("what comes next")? {
            opcode::END => break,
            opcode::DATABASE => {
                rdb.length("a database's number")?;
            }
            opcode::EXPIRES_SECONDS => {
                rdb.skip(4, "an expiry")?;
                expires = true;
            }
            opcode::EXPIRES_MILLISECONDS => {
                rdb.skip(8, "an expiry")?;
                expires = true;
            }
            opcode::SIZES => rdb.lengths(2, "a database's size")?,
            opcode::FIELD => rdb.strings(2, "a field of the header")?,
            opcode::FREQUENCY => rdb.skip(1, "a key's frequency")?,
            opcode::IDLE => rdb.lengths(1, "a key's idle time")?,
            opcode::SLOT => rdb.lengths(3, "a slot's size")?,
            opcode::FUNCTIONS => {
                rdb.string("a library of functions")?;
                libraries += 1;
            }
            opcode::MODULE => {
                // The module, and when its data is to be loaded, as an annotated number.
                rdb.lengths(3, "a module's data")?;
                rdb.module("a module's data")?;
            }
            kind => {
                rdb.string("a key")?;
                rdb.value(kind)?;
                keys += 1;
                expiring += u64::from(std::mem::take(&mut expires));
            }
        }
    }
    if version >= WITH_CHECKSUM {
        rdb.checksum()?;
    }
    rdb.nothing_behind()?;
    Ok([(KEYS, keys), (EXPIRING, expiring), (LIBRARIES, libraries)].map(|(name, it)| (name.to_owned(), it)).into())
}

/// What stands where a value's type may stand.
mod opcode {
    pub const SLOT: u8 = 244;
    pub const FUNCTIONS: u8 = 245;
    pub const MODULE: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQUENCY: u8 = 249;
    pub const FIELD: u8 = 250;
    pub const SIZES: u8 = 251;
    pub const EXPIRES_MILLISECONDS: u8 = 252;
    pub const EXPIRES_SECONDS: u8 = 253;
    pub const DATABASE: u8 = 254;
    pub const END: u8 = 255;
}

/// A length, or the way in which a string is packed.
enum Length {
    Plain(u64),
    Packed(u8),
}

struct Rdb<'a> {
    from: &'a mut dyn Read,
    piece: Vec<u8>,
    /// How far `piece` has been read, how far it is filled, and how far it is in the checksum.
    at: usize,
    end: usize,
    added: usize,
    crc: u64,
}

impl Rdb<'_> {
    fn version(&mut self) -> Result<u32, String> {
        let header = self.bytes::<9>("the header")?;
        let digits = header.strip_prefix(b"REDIS").and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(version) = digits.and_then(|digits| digits.parse().ok()) else {
            return Err("it does not begin as an RDB does".to_owned());
        };
        match (1..=NEWEST).contains(&version) {
            true => Ok(version),
            false => Err(format!("RDB version {version} is not one that this devstack can check")),
        }
    }

    /// The value of a key.
    fn value(&mut self, kind: u8) -> Result<(), String> {
        match kind {
            0 => self.string("a string"),
            // Plain, and as nodes that are ziplists.
            1 | 14 => self.counted("a list", |rdb| rdb.string("a list")),
            2 => self.counted("a set", |rdb| rdb.string("a set")),
            3 => self.counted("a sorted set", |rdb| {
                rdb.string("a sorted set")?;
                rdb.printed_score()
            }),
            4 => self.counted("a hash", |rdb| rdb.strings(2, "a hash")),
            5 => self.counted("a sorted set", |rdb| {
                rdb.string("a sorted set")?;
                rdb.skip(8, "a score")
            }),
            7 => {
                self.length("a module's value")?;
                self.module("a module's value")
            }
            // Zipmap, ziplist, intset, listpack: one string.
            9 | 13 | 16 | 23 => self.string("a hash"),
            10 => self.string("a list"),
            11 | 20 => self.string("a set"),
            12 | 17 => self.string("a sorted set"),
            // Nodes, each told to be one element or a listpack of many.
            18 => self.counted("a list", |rdb| {
                rdb.length("a list")?;
                rdb.string("a list")
            }),
            15 => self.stream(1),
            19 => self.stream(2),
            21 => self.stream(3),
            // Fields that expire, each with its own time; from the release of 7.4 on with the first of these before them.
            22 => self.counted("a hash", Self::expiring_field),
            24 => {
                self.skip(8, "a hash")?;
                self.counted("a hash", Self::expiring_field)
            }
            25 => {
                self.skip(8, "a hash")?;
                self.string("a hash")
            }
            other => Err(format!("a value of the type {other}, which this devstack does not know")),
        }
    }

    fn expiring_field(&mut self) -> Result<(), String> {
        self.length("a field's expiry")?;
        self.strings(2, "a hash")
    }

    fn stream(&mut self, version: u8) -> Result<(), String> {
        let what = "a stream";
        self.counted(what, |rdb| rdb.strings(2, what))?;
        // How many entries, and the last one's id; then the first one's, the highest deleted one's, and how many ever were.
        self.lengths(if version >= 2 { 8 } else { 3 }, what)?;
        let what = "a consumer group";
        self.counted(what, |rdb| {
            rdb.string(what)?;
            rdb.lengths(if version >= 2 { 3 } else { 2 }, what)?;
            rdb.counted(what, |rdb| {
                // The entry's id, when it was delivered, how often.
                rdb.skip(16 + 8, what)?;
                rdb.lengths(1, what)
            })?;
            rdb.counted(what, |rdb| {
                rdb.string(what)?;
                rdb.skip(if version >= 3 { 16 } else { 8 }, what)?;
                rdb.counted(what, |rdb| rdb.skip(16, what))
            })
        })
    }

    /// A module's data: each part says what it is, so that it can be skipped without the module.
    fn module(&mut self, what: &'static str) -> Result<(), String> {
        loop {
            match self.length(what)? {
                0 => return Ok(()),
                1 | 2 => self.lengths(1, what)?,
                3 => self.skip(4, what)?,
                4 => self.skip(8, what)?,
                5 => self.string(what)?,
                other => return Err(format!("{what} has a part of the unknown kind {other}")),
            }
        }
    }

    /// A score as it was written before version 8: infinities and NaN by a length of their own.
    fn printed_score(&mut self) -> Result<(), String> {
        match self.byte("a score")? {
            253..=255 => Ok(()),
            length => self.skip(u64::from(length), "a score"),
        }
    }

    fn checksum(&mut self) -> Result<(), String> {
        self.add();
        let expected = self.crc;
        let written = u64::from_le_bytes(self.bytes("the checksum")?);
        // Zero is what a server writes that is told to make none (`rdbchecksum no`).
        match written == 0 || written == expected {
            true => Ok(()),
            false => Err(format!("its checksum is {expected:016x}, and {written:016x} is written behind it")),
        }
    }

    fn nothing_behind(&mut self) -> Result<(), String> {
        if self.at == self.end && !self.fill("the end")? {
            return Ok(());
        }
        Err("there is more behind its checksum".to_owned())
    }

    /// A number and as many parts.
    fn counted(
        &mut self,
        what: &'static str,
        mut part: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        for _ in 0..self.length(what)? {
            part(self)?;
        }
        Ok(())
    }

    fn lengths(&mut self, count: u32, what: &'static str) -> Result<(), String> {
        (0..count).try_for_each(|_| self.length(what).map(|_| ()))
    }

    fn length(&mut self, what: &'static str) -> Result<u64, String> {
        match self.any_length(what)? {
            Length::Plain(length) => Ok(length),
            Length::Packed(_) => Err(format!("{what} has a packed string where a number belongs")),
        }
    }

    fn any_length(&mut self, what: &'static str) -> Result<Length, String> {
        let first = self.byte(what)?;
        let low = first & 0x3f;
        Ok(match first >> 6 {
            0 => Length::Plain(u64::from(low)),
            1 => Length::Plain(u64::from(low) << 8 | u64::from(self.byte(what)?)),
            2 if first == 0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.bytes(what)?))),
            2 if first == 0x81 => Length::Plain(u64::from_be_bytes(self.bytes(what)?)),
            2 => return Err(format!("{what} has a length that begins with {first:#04x}")),
            _ => Length::Packed(low),
        })
    }

    fn strings(&mut self, count: u32, what: &'static str) -> Result<(), String> {
        (0..count).try_for_each(|_| self.string(what))
    }

    fn string(&mut self, what: &'static str) -> Result<(), String> {
        match self.any_length(what)? {
            Length::Plain(length) => self.skip(length, what),
            Length::Packed(0) => self.skip(1, what),
            Length::Packed(1) => self.skip(2, what),
            Length::Packed(2) => self.skip(4, what),
            Length::Packed(3) => {
                let packed = self.length(what)?;
                self.length(what)?; // unpacked
                self.skip(packed, what)
            }
            Length::Packed(other) => Err(format!("{what} has a string packed in the unknown way {other}")),
        }
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, String> {
        self.bytes::<1>(what).map(|[byte]| byte)
    }

    fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            self.some(what)?;
            let count = (N - filled).min(self.end - self.at);
            bytes[filled..filled + count].copy_from_slice(&self.piece[self.at..self.at + count]);
            self.at += count;
            filled += count;
        }
        Ok(bytes)
    }

    fn skip(&mut self, mut length: u64, what: &'static str) -> Result<(), String> {
        while length > 0 {
            self.some(what)?;
            let here = self.end - self.at;
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(here);
            self.at += count;
            length -= count as u64;
        }
        Ok(())
    }

    /// Makes sure that a byte is at hand.
    fn some(&mut self, what: &'static str) -> Result<(), String> {
        match self.at < self.end || self.fill(what)? {
            true => Ok(()),
            false => Err(format!("it ends within {what}")),
        }
    }

    /// Reads the next piece. False at the end.
    fn fill(&mut self, what: &str) -> Result<bool, String> {
        self.add();
        let count = loop {
            match self.from.read(&mut self.piece) {
                Ok(count) => break count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cut(what, &error)),
            }
        };
        (self.at, self.end, self.added) = (0, count, 0);
        Ok(count > 0)
    }

    /// Brings the checksum up to what has been read.
    fn add(&mut self) {
        self.crc = crc64::add(self.crc, &self.piece[self.added..self.at]);
        self.added = self.at;
    }
}

/// An RDB without a key, as any server since 3.2 loads it.
pub(super) fn empty() -> Vec<u8> {
    let mut bytes = b"REDIS0007\xff".to_vec();
    bytes.extend(crc64::add(0, &bytes).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Redis 8.0.2 made of every type in every encoding, a library of functions, expiries and two databases
    /// (`tests/scenarios/engine_redis.py` has the commands).
    const ALL: &[u8] = include_bytes!("all_types.rdb");

    fn counts(bytes: &[u8]) -> Result<[u64; 3], String> {
        let mut bytes = bytes;
        let counts = inspect(&mut bytes)?;
        Ok([counts[0].1, counts[1].1, counts[2].1])
    }

    /// With a header before it, and the end and the checksum behind it.
    fn sealed(version: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = [b"REDIS", version.as_bytes(), content, b"\xff"].concat();
        bytes.extend(crc64::add(0, &bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn what_a_server_wrote_is_counted_as_redis_check_rdb_counts_it() {
        assert_eq!(counts(ALL), Ok([26, 3, 2]));
    }

    #[test]
    fn an_rdb_cut_anywhere_is_not_whole() {
        for length in 0..ALL.len() {
            assert!(counts(&ALL[..length]).is_err(), "cut after {length} bytes of {}", ALL.len());
        }
    }

    #[test]
    fn one_wrong_bit_anywhere_is_seen() {
        // Where the checksum itself becomes zero it would be taken for none; that takes more than one bit.
        for place in 0..ALL.len() {
            let mut wrong = ALL.to_vec();
            wrong[place] ^= 1 << (place % 8);
            assert!(counts(&wrong).is_err(), "byte {place}");
        }
    }

    #[test]
    fn what_follows_the_checksum_is_refused() {
        let mut longer = ALL.to_vec();
        longer.push(b'a');
        assert!(counts(&longer).unwrap_err().contains("behind its checksum"));
    }

    #[test]
    fn older_encodings_are_read() {
        let string = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
        let key = |kind: u8, value: &[u8]| [&[kind][..], &string(b"key"), value].concat();
        let two = [string(b"a"), string(b"b")].concat();
        let long = [&[0x81, 0, 0, 0, 0, 0, 0, 0, 3][..], b"abc"].concat();
        let lzf = [&[0xc3, 4, 20][..], b"abcd"].concat();
        let id = [0; 16];
        let group = |lengths: &[u8], seen: &[u8]| {
            let pending = [&[1][..], &id, &[0; 8], &[5]].concat();
            let consumer = [&[1][..], &string(b"c"), seen, &[1], &id].concat();
            [&[1][..], &string(b"g"), lengths, &pending, &consumer].concat()
        };
        let node = [&[1][..], &string(&id), &string(b"listpack")].concat();
        let values: Vec<Vec<u8>> = vec![
            key(0, &lzf),
            key(0, &long),
            key(0, &[0xc0, 7]),
            key(0, &[0xc1, 7, 7]),
            key(0, &[0xc2, 7, 7, 7, 7]),
            key(1, &[&[2][..], &two].concat()),
            key(2, &[&[2][..], &two].concat()),
            key(3, &[&[3][..], &string(b"a"), &[253], &string(b"b"), &[254], &string(b"c"), b"\x031.5"].concat()),
            key(4, &[&[1][..], &two].concat()),
            key(5, &[&[1][..], &string(b"a"), &[0; 8]].concat()),
            key(7, &[&[9][..], &[1, 1, 2, 2, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, b'x', 0]].concat()),
            key(9, &string(b"zipmap")),
            key(10, &string(b"ziplist")),
            key(12, &string(b"ziplist")),
            key(13, &string(b"ziplist")),
            key(14, &[&[2][..], &two].concat()),
            key(15, &[&node[..], &[1, 2, 3], &group(&[1, 2], &[0; 8])].concat()),
            key(19, &[&node[..], &[1, 2, 3, 4, 5, 6, 7, 8], &group(&[1, 2, 3], &[0; 8])].concat()),
            key(21, &[&node[..], &[1, 2, 3, 4, 5, 6, 7, 8], &group(&[1, 2, 3], &[0; 16])].concat()),
            key(22, &[&[1, 0][..], &two].concat()),
            key(23, &string(b"listpack")),
            [&[253][..], &[0; 4], &[248, 9], &key(0, &string(b"expires"))].concat(),
            [&[252][..], &[0; 8], &[249, 9], &key(0, &string(b"expires"))].concat(),
            [&[247][..], &[9, 2, 2, 5, 1, b'x', 0]].concat(),
            vec![244, 0x40, 100, 1, 0],
        ];
        let whole = sealed("0012", &values.concat());
        assert_eq!(counts(&whole), Ok([23, 2, 0]));
        for length in 0..whole.len() {
            assert!(counts(&whole[..length]).is_err(), "cut after {length} bytes");
        }
        for value in values {
            let short = sealed("0012", &value[..value.len() - 1]);
            assert!(counts(&short).is_err(), "{value:?} without its last byte");
        }
    }

    #[test]
    fn versions_and_types_that_are_not_known_are_refused() {
        assert!(counts(&sealed("0080", b"")).unwrap_err().contains("RDB version 80"));
        assert!(counts(&sealed("0012", b"\x1a\x01k\x01v")).unwrap_err().contains("type 26"));
        assert!(counts(b"-NOAUTH Authentication required.\r\n").is_err());
        assert_eq!(counts(b"REDIS0004\xff"), Ok([0; 3]));
        let mut unchecked = sealed("0011", b"");
        unchecked[10..].fill(0);
        assert_eq!(counts(&unchecked), Ok([0; 3]));
    }

    #[test]
    fn the_empty_one_is_whole() {
        assert_eq!(counts(&empty()), Ok([0; 3]));
    }
}
