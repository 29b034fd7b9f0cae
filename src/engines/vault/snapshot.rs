//! A snapshot of integrated storage: a gzipped tar of `meta.json`, `state.bin`, their SHA-256 and a sealed copy of these.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read};

use flate2::bufread::GzDecoder;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::engines::inspect::{Counts, cut, kept, skip};
use crate::engines::redis::tar;

pub(super) const PATH: &str = "sys/storage/raft/snapshot";
pub(super) const FORCED: &str = "sys/storage/raft/snapshot-force";

const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";
const SEALED: &str = "SHA256SUMS.sealed";

/// All but the state are small.
const SMALL: u64 = 1 << 20;
const BLOCK: usize = 512;

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Index")]
    index: u64,
}

/// What was read of the members.
#[derive(Default)]
struct Members {
    sums: BTreeMap<String, String>,
    meta: Vec<u8>,
    listed: Vec<u8>,
    state: u64,
}

/// Reads a snapshot to its end and compares its members with the digests in it.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut unpacked = GzDecoder::new(BufReader::new(from));
    let mut members = Members::default();
    while let Some((name, size)) = header(&mut unpacked)? {
        members.read(&name, size, &mut unpacked)?;
        let over = size % BLOCK as u64;
        skip(&mut unpacked, if over == 0 { 0 } else { BLOCK as u64 - over }, "the padding of a file")?;
    }
    // What is left are zeros, and gzip's own length and checksum, which are compared when its end is read.
    let mut rest = Vec::new();
    unpacked.by_ref().take(SMALL).read_to_end(&mut rest).map_err(|error| cut("the snapshot's end", &error))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err("there is more behind the end of the archive".to_owned());
    }
    let behind = unpacked.get_mut().fill_buf().map_err(|error| cut("the snapshot's end", &error))?;
    if !behind.is_empty() {
        return Err("there is more behind the end of the snapshot".to_owned());
    }
    members.counts()
}

/// The next file; none at the two blocks of zeros that end an archive.
fn header(from: &mut dyn Read) -> Result<Option<(String, u64)>, String> {
    let mut block = [0; BLOCK];
    let mut read = |block: &mut [u8]| from.read_exact(block).map_err(|error| cut("a header of the snapshot", &error));
    read(&mut block)?;
    if block.iter().any(|byte| *byte != 0) {
        let named = tar::named(&mut (&block[..]).chain(from));
        return named.map(|(name, first)| Some((name, first.size))).map_err(|error| error.to_string());
    }
    read(&mut block)?;
    match block.iter().all(|byte| *byte == 0) {
        true => Ok(None),
        false => Err("a single block of zeros stands within the archive".to_owned()),
    }
}

impl Members {
    fn read(&mut self, name: &str, size: u64, from: &mut dyn Read) -> Result<(), String> {
        let mut hash = Sha256::new();
        match name {
            STATE => {
                let read = io::copy(&mut from.take(size), &mut hash).map_err(|error| cut(STATE, &error))?;
                if read != size {
                    return Err(format!("it ends within {STATE}"));
                }
                self.state = size;
            }
            META | SUMS | SEALED if size <= SMALL => {
                let bytes = kept(from, size, name)?;
                hash.update(&bytes);
                match name {
                    META => self.meta = bytes,
                    SUMS => self.listed = bytes,
                    _ => {}
                }
            }
            _ => return Err(format!("it holds {}, which no snapshot has", name.escape_debug())),
        }
        match self.sums.insert(name.to_owned(), hex::encode(hash.finalize())) {
            None => Ok(()),
            Some(_) => Err(format!("it holds {name} twice")),
        }
    }

    fn counts(self) -> Result<Counts, String> {
        if let Some(missing) = [META, STATE, SUMS, SEALED].into_iter().find(|name| !self.sums.contains_key(*name)) {
            return Err(format!("it holds no {missing}"));
        }
        let listed = String::from_utf8_lossy(&self.listed);
        let listed: BTreeMap<&str, &str> =
            listed.lines().filter_map(|line| line.split_once(' ')).map(|(sum, name)| (name.trim(), sum)).collect();
        for name in [META, STATE] {
            match listed.get(name) {
                Some(sum) if self.sums.get(name).is_some_and(|found| found == sum) => {}
                Some(_) => return Err(format!("{name} has another SHA-256 than {SUMS} gives")),
                None => return Err(format!("{SUMS} does not speak of {name}")),
            }
        }
        let meta: Meta =
            serde_json::from_slice(&self.meta).map_err(|error| format!("{META} cannot be read: {error}"))?;
        Ok(vec![("bytes of the state".to_owned(), self.state), ("log index".to_owned(), meta.index)])
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::engines::redis::tar::{Owner, Tar};

    fn sums(state: &[u8], meta: &[u8]) -> String {
        let line = |name, bytes| format!("{}  {name}\n", hex::encode(Sha256::digest(bytes)));
        line(META, meta) + &line(STATE, state)
    }

    fn snapshot(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Tar::default();
        for (name, content) in files {
            tar.file(name, content, Owner { uid: 0, gid: 0, mode: 0o600 }).unwrap();
        }
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        zipped.write_all(&tar.finish()).unwrap();
        zipped.finish().unwrap()
    }

    fn whole() -> Vec<u8> {
        let (meta, state): (&[u8], Vec<u8>) = (br#"{"Index":42,"Term":3}"#, (0..5000_u32).map(|n| n as u8).collect());
        let sums = sums(&state, meta);
        snapshot(&[(META, meta), (STATE, &state), (SUMS, sums.as_bytes()), (SEALED, b"sealed")])
    }

    fn look(bytes: &[u8]) -> Result<Counts, String> {
        inspect(&mut { bytes })
    }

    #[test]
    fn a_whole_snapshot_is_counted() {
        let counts = look(&whole()).unwrap();
        assert_eq!(counts, [("bytes of the state".to_owned(), 5000), ("log index".to_owned(), 42)]);
    }

    #[test]
    fn cut_anywhere_it_is_not_whole() {
        let whole = whole();
        for end in 0..whole.len() {
            assert!(look(&whole[..end]).is_err(), "cut at {end} of {}", whole.len());
        }
        assert!(look(&[whole, b"more".to_vec()].concat()).is_err());
    }

    #[test]
    fn what_differs_from_its_digests_is_refused() {
        let (meta, state): (&[u8], &[u8]) = (br#"{"Index":42}"#, b"state");
        let right = sums(state, meta);
        let all = |state: &[u8], listed: &str| {
            look(&snapshot(&[(META, meta), (STATE, state), (SUMS, listed.as_bytes()), (SEALED, b"s")]))
        };
        assert!(all(state, &right).is_ok());
        assert!(all(b"stale", &right).unwrap_err().contains("another SHA-256"));
        assert!(all(state, "").unwrap_err().contains("does not speak of"));
        let unsealed = snapshot(&[(META, meta), (STATE, state), (SUMS, right.as_bytes())]);
        assert!(look(&unsealed).unwrap_err().contains(SEALED));
        assert!(look(&snapshot(&[("other", b"x")])).unwrap_err().contains("no snapshot has"));
    }
}
