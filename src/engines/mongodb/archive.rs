//! The archive of `mongodump --archive`, read from its first byte to its last: it is whole when every collection that it
//! announces comes to its end with the sum of its documents. Documents are counted on the way.
//!
//! Magic, a header, one document per collection, a terminator; then blocks: whose documents follow, the documents, a
//! terminator. An end block carries the CRC-64 of all documents of its collection. Nothing marks the end of the whole.
//!
//! What no archive shows: a `mongodump` whose server went away ends the collection that it was reading as if that had been
//! all of it, with the right sum. Only its exit code tells, and no take is good without one.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use crate::engines::inspect::{Counts, cut};

use super::bson::{self, Value};
use super::crc64::Crc64;

const MAGIC: [u8; 4] = [0x6D, 0xE2, 0x99, 0x81];
const TERMINATOR: u32 = u32::MAX;
const VERSION: &str = "0.1";

/// MongoDB's limit for a document is 16 MiB; its own records of changes may be 16 KiB longer.
const LONGEST: u32 = (16 << 20) + (16 << 10);

/// Begins the name of each count of documents.
pub(super) const DOCUMENTS: &str = "documents ";
/// Begins the name of what has no documents of its own, or has them in a form of the server's own.
pub(super) const VIEW: &str = "view ";
pub(super) const TIME_SERIES: &str = "time series ";
/// All indexes of the collections that are counted, those of `_id` included.
pub(super) const INDEXES: &str = "indexes";

/// Looks through the archive of a database that the server has just listed: it must hold a collection, since
/// `mongodump` calls it a success to have dumped a database that is not there.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let counts = inspect_users(from)?;
    match counts.iter().any(|(name, _)| name != INDEXES) {
        true => Ok(counts),
        false => Err("no collection is in it, although the server had listed the database".to_owned()),
    }
}

/// Looks through the archive of `admin`, which a server without users may not have.
pub(super) fn inspect_users(from: &mut dyn Read) -> Result<Counts, String> {
    let mut archive = Archive { from: BufReader::with_capacity(256 * 1024, from), document: Vec::new() };
    let (mut collections, indexes) = archive.announced()?;
    while archive.block(&mut collections)? {}
    let mut counts = Counts::new();
    for (name, collection) in collections {
        if !collection.ended && collection.kind != Kind::View {
            return Err(format!("it ends before the end of the collection {name}"));
        }
        counts.push(match collection.kind {
            Kind::Documents => (format!("{DOCUMENTS}{name}"), collection.documents),
            Kind::View => (format!("{VIEW}{name}"), 1),
            Kind::TimeSeries => (format!("{TIME_SERIES}{}", name.replacen(BUCKETS, ".", 1)), collection.documents),
        });
    }
    counts.push((INDEXES.to_owned(), indexes));
    Ok(counts)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Documents,
    View,
    TimeSeries,
}

/// Where servers before 8.3 keep the data of a time series.
const BUCKETS: &str = ".system.buckets.";

/// A collection that the archive announces, as far as it has come.
struct Collection {
    kind: Kind,
    documents: u64,
    sum: Crc64,
    ended: bool,
}

struct Archive<'a> {
    from: BufReader<&'a mut dyn Read>,
    document: Vec<u8>,
}

impl Archive<'_> {
    /// Everything before the blocks: what is announced, by the names that the blocks will have, and its indexes.
    fn announced(&mut self) -> Result<(BTreeMap<String, Collection>, u64), String> {
        let what = "the beginning of the archive";
        let mut magic = [0; 4];
        self.from.read_exact(&mut magic).map_err(|error| cut(what, &error))?;
        if magic != MAGIC {
            return Err("it does not begin as an archive of mongodump does".to_owned());
        }
        if !self.document(what)? {
            return Err("it has no header".to_owned());
        }
        let header = bson::elements(&self.document)?;
        match bson::text(&header, "version")? {
            VERSION => {}
            other => return Err(format!("archive version {other} is not one that this devstack can check")),
        }
        let (mut collections, mut indexes) = (BTreeMap::new(), 0);
        while self.document("the list of collections")? {
            let announced = bson::elements(&self.document)?;
            let (database, name) = (bson::text(&announced, "db")?, bson::text(&announced, "collection")?);
            let kind = match announced.get("type") {
                Some(Value::Text("view")) => Kind::View,
                Some(Value::Text("timeseries")) => Kind::TimeSeries,
                _ => Kind::Documents,
            };
            if kind == Kind::Documents {
                indexes += indexes_in(bson::text(&announced, "metadata")?)?;
            }
            let collection = Collection { kind, documents: 0, sum: Crc64::new(), ended: false };
            if collections.insert(format!("{database}.{name}"), collection).is_some() {
                return Err(format!("the collection {database}.{name} is announced twice"));
            }
        }
        Ok((collections, indexes))
    }

    /// Reads one block. False where the archive ends.
    fn block(&mut self, collections: &mut BTreeMap<String, Collection>) -> Result<bool, String> {
        // An archive ends between two blocks or not at all.
        let mut first = [0];
        loop {
            match self.from.read(&mut first) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cut("the beginning of a block", &error)),
            }
        }
        if !self.document_after(&first, "the beginning of a block")? {
            return Err("a block has no header".to_owned());
        }
        let header = bson::elements(&self.document)?;
        let name = format!("{}.{}", bson::text(&header, "db")?, bson::text(&header, "collection")?);
        let (ends, sum) = match (header.get("EOF"), header.get("CRC")) {
            (Some(Value::Truth(ends)), Some(Value::Number(sum))) => (*ends, *sum),
            _ => return Err(format!("a block of {name} does not say whether it is the last")),
        };
        let collection = find(collections, &name)?;
        if collection.ended {
            return Err(format!("{name} goes on after its end"));
        }
        while self.document(&name)? {
            if ends {
                return Err(format!("documents follow the end of {name}"));
            }
            collection.sum.add(&self.document);
            collection.documents += 1;
        }
        collection.ended = ends;
        if ends && collection.sum.sum() != sum.cast_unsigned() {
            return Err(format!("the documents of {name} have another sum than the archive says"));
        }
        Ok(true)
    }

    /// Reads the next document. False where a terminator stands in its place.
    fn document(&mut self, what: &str) -> Result<bool, String> {
        self.document_after(&[], what)
    }

    /// As [`Self::document`], where its first bytes have been read.
    fn document_after(&mut self, begun: &[u8], what: &str) -> Result<bool, String> {
        let mut length = [0; 4];
        length[..begun.len()].copy_from_slice(begun);
        self.from.read_exact(&mut length[begun.len()..]).map_err(|error| cut(what, &error))?;
        let bytes = u32::from_le_bytes(length);
        if bytes == TERMINATOR {
            return Ok(false);
        }
        if !(5..=LONGEST).contains(&bytes) {
            return Err(format!("in {what} stands {bytes}, which is no length of a document"));
        }
        self.document.clear();
        self.document.extend_from_slice(&length);
        self.document.resize(bytes as usize, 0);
        self.from.read_exact(&mut self.document[4..]).map_err(|error| cut(what, &error))?;
        match self.document.last() {
            Some(0) => Ok(true),
            _ => Err(format!("a document in {what} does not end as documents do")),
        }
    }
}

/// The announced collection that a block belongs to. The blocks of a time series bear the name of its buckets.
fn find<'a>(collections: &'a mut BTreeMap<String, Collection>, block: &str) -> Result<&'a mut Collection, String> {
    let unknown = || format!("a block belongs to {block}, which the archive does not announce");
    if collections.contains_key(block) {
        return collections.get_mut(block).ok_or_else(unknown);
    }
    let plain = block.replacen(BUCKETS, ".", 1);
    collections.get_mut(&plain).filter(|collection| collection.kind == Kind::TimeSeries).ok_or_else(unknown)
}

/// How many indexes a collection's description has. A collection that went away while it was dumped has none.
fn indexes_in(metadata: &str) -> Result<u64, String> {
    #[derive(serde::Deserialize)]
    struct Described {
        #[serde(default)]
        indexes: Vec<serde::de::IgnoredAny>,
    }
    if metadata.is_empty() {
        return Ok(0);
    }
    let described: Described =
        serde_json::from_str(metadata).map_err(|error| format!("the description of a collection: {error}"))?;
    Ok(described.indexes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(elements: &[Vec<u8>]) -> Vec<u8> {
        let inner = elements.concat();
        [&(inner.len() as u32 + 5).to_le_bytes()[..], &inner, &[0]].concat()
    }

    fn text(name: &str, value: &str) -> Vec<u8> {
        let length = value.len() as u32 + 1;
        [b"\x02", name.as_bytes(), b"\0", &length.to_le_bytes(), value.as_bytes(), b"\0"].concat()
    }

    fn number(name: &str, value: u64) -> Vec<u8> {
        [b"\x12", name.as_bytes(), b"\0", &value.to_le_bytes()].concat()
    }

    fn announced(name: &str, kind: &str) -> Vec<u8> {
        let metadata = r#"{"indexes":[{"v":{"$numberInt":"2"},"name":"_id_"},{"name":"a_1"}],"type":"collection"}"#;
        let metadata = if kind == "collection" { metadata } else { "" };
        let size = [b"\x10size\0".to_vec(), vec![0; 4]].concat();
        document(&[text("db", "shop"), text("collection", name), text("metadata", metadata), size, text("type", kind)])
    }

    fn block(name: &str, end: Option<u64>, documents: &[Vec<u8>]) -> Vec<u8> {
        let end_mark = [&b"\x08EOF\0"[..], &[u8::from(end.is_some())]].concat();
        let header =
            document(&[text("db", "shop"), text("collection", name), end_mark, number("CRC", end.unwrap_or(0))]);
        [header, documents.concat(), vec![0xFF; 4]].concat()
    }

    fn sum(documents: &[Vec<u8>]) -> u64 {
        let mut sum = Crc64::new();
        sum.add(&documents.concat());
        sum.sum()
    }

    fn beginning(collections: &[Vec<u8>]) -> Vec<u8> {
        let header = document(&[text("version", "0.1"), text("server_version", "8.0.4")]);
        [MAGIC.to_vec(), header, collections.concat(), vec![0xFF; 4]].concat()
    }

    fn orders() -> [Vec<u8>; 3] {
        [1, 2, 3].map(|order| document(&[number("_id", order)]))
    }

    /// Two collections whose blocks are mixed, an empty one, a view, a time series.
    fn archive() -> Vec<u8> {
        let customers = [document(&[text("_id", "ada")])];
        let mut bytes = beginning(&[
            announced("orders", "collection"),
            announced("customers", "collection"),
            announced("empty", "collection"),
            announced("open orders", "view"),
            announced("weather", "timeseries"),
        ]);
        bytes.extend(block("orders", None, &orders()[..2]));
        bytes.extend(block("customers", None, &customers));
        bytes.extend(block("customers", Some(sum(&customers)), &[]));
        bytes.extend(block("orders", None, &orders()[2..]));
        bytes.extend(block("empty", Some(0), &[]));
        bytes.extend(block("system.buckets.weather", None, &customers));
        bytes.extend(block("system.buckets.weather", Some(sum(&customers)), &[]));
        bytes.extend(block("orders", Some(sum(&orders())), &[]));
        bytes
    }

    #[test]
    fn documents_are_counted_collection_by_collection() {
        let expected = [
            ("documents shop.customers", 1),
            ("documents shop.empty", 0),
            ("view shop.open orders", 1),
            ("documents shop.orders", 3),
            ("time series shop.weather", 1),
            ("indexes", 6),
        ];
        assert_eq!(inspect(&mut archive().as_slice()).unwrap(), expected.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn an_archive_cut_anywhere_is_not_whole() {
        let whole = archive();
        for length in 0..whole.len() {
            assert!(inspect(&mut &whole[..length]).is_err(), "cut after {length} bytes of {}", whole.len());
        }
    }

    #[test]
    fn a_flipped_bit_in_a_document_is_found() {
        let mut bytes = archive();
        let order = orders()[1].clone();
        let at = bytes.windows(order.len()).position(|window| window == order).unwrap();
        bytes[at + 10] ^= 1;
        assert!(inspect(&mut bytes.as_slice()).unwrap_err().contains("another sum"));
    }

    #[test]
    fn what_an_archive_must_not_have_is_refused() {
        let after_end = [archive(), block("orders", None, &orders())].concat();
        let unknown = [archive(), block("strange", Some(0), &[])].concat();
        let more = [archive(), b"\xFF\xFF\xFF\xFF".to_vec()].concat();
        let compressed = b"\x1F\x8B\x08\0\0\0\0\0".to_vec();
        let twice = beginning(&[announced("orders", "collection"), announced("orders", "collection")]);
        for bytes in [after_end, unknown, more, compressed, twice] {
            assert!(inspect(&mut bytes.as_slice()).is_err());
        }
    }

    #[test]
    fn a_database_without_a_collection_is_not_whole_and_admin_may_be_so() {
        let bare = beginning(&[]);
        assert!(inspect(&mut bare.as_slice()).is_err());
        assert_eq!(inspect_users(&mut bare.as_slice()).unwrap(), [(INDEXES.to_owned(), 0)]);
    }
}
