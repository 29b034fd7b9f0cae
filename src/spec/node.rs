//! The file as a tree in which everything knows its place. The types of `file.rs` carry no places, so that the rest of the
//! program need not know where a value was written; checks find a place again by its path.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub kind: Kind,
    /// Bytes of the text. Of a mapping or a list only where it begins.
    span: Range<usize>,
    /// Of a mapping, once it is asked for: where the first entry of each name is.
    index: OnceCell<HashMap<String, usize>>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Nothing,
    Bool,
    /// None for what is no whole number, or one beyond 64 bits.
    Number(Option<i128>),
    Text(String),
    List(Vec<Node>),
    /// In the file's order, doubles and all.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub name: String,
    pub span: Range<usize>,
}

/// The keys that say where a secret is found.
const REFERENCES: [&str; 4] = ["env", "file", "prompt", "generate"];

impl Node {
    /// As an error message calls it.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Nothing => "nothing",
            Kind::Bool => "true or false",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// Where to put the caret: the value itself; of a mapping or list its first entry.
    pub fn caret(&self) -> Range<usize> {
        match &self.kind {
            Kind::Map(entries) if self.span.is_empty() => {
                entries.first().map_or(self.span.clone(), |(key, _)| key.span.clone())
            }
            Kind::List(items) if self.span.is_empty() => items.first().map_or(self.span.clone(), Self::caret),
            _ => self.span.clone(),
        }
    }

    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The first entry of this name. Indexed, since each of thousands of findings is looked up here.
    fn get(&self, name: &str) -> Option<&(Key, Node)> {
        let entries = self.entries();
        let index = self.index.get_or_init(|| {
            let mut index = HashMap::new();
            for (at, (key, _)) in entries.iter().enumerate() {
                index.entry(key.name.clone()).or_insert(at);
            }
            index
        });
        index.get(name).and_then(|at| entries.get(*at))
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The spans of all values below that may be secrets: to mask them.
    pub fn scalars(&self, found: &mut Vec<Range<usize>>) {
        match &self.kind {
            Kind::Nothing => {}
            Kind::Bool | Kind::Number(_) | Kind::Text(_) => found.push(self.span.clone()),
            Kind::List(items) => items.iter().for_each(|item| item.scalars(found)),
            Kind::Map(entries) => {
                // Where a secret is found is none.
                let telling = entries.iter().filter(|(key, _)| !REFERENCES.contains(&key.name.as_str()));
                telling.for_each(|(_, value)| value.scalars(found));
            }
        }
    }
}

/// A way through the file: `backup.nightly.to[1]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    segments: Vec<Segment>,
    /// The key itself is meant, and not what it holds.
    key: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

impl Place {
    pub fn of<const N: usize>(keys: [&str; N]) -> Self {
        Self { segments: keys.iter().map(|key| Segment::Key((*key).to_owned())).collect(), key: false }
    }

    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// The last key, and not its value.
    pub fn itself(mut self) -> Self {
        self.key = true;
        self
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.segments.clone();
        segments.push(segment);
        Self { segments, key: false }
    }

    /// The bytes it names. Where the file ends before the path does, the last key that is there.
    pub fn find(&self, root: &Node) -> Range<usize> {
        let (mut node, mut key) = (root, None);
        for segment in &self.segments {
            let next = match (segment, &node.kind) {
                (Segment::Key(name), Kind::Map(_)) => node.get(name).map(|(key, value)| (Some(&key.span), value)),
                (Segment::Index(index), Kind::List(items)) => items.get(*index).map(|item| (None, item)),
                _ => None,
            };
            match next {
                Some((next_key, next)) => (node, key) = (next, next_key),
                None => return key.cloned().unwrap_or_else(|| node.caret()),
            }
        }
        match (key, &node.kind) {
            // What spans many lines is best shown by its key.
            (Some(key), Kind::Map(_) | Kind::List(_) | Kind::Nothing) => key.clone(),
            (Some(key), _) if self.key => key.clone(),
            _ => node.caret(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Key(key) if index == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where `location` is in the text that was read from a string, in which places have byte offsets.
fn bytes(location: &Location) -> Range<usize> {
    let span = location.span();
    let number = |value: Option<u64>| value.and_then(|value| usize::try_from(value).ok()).unwrap_or(0);
    let start = number(span.byte_offset());
    start..start + number(span.byte_len())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `defined`: of an alias, the place where the value is written.
        let Spanned { value: kind, defined, .. } = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { kind, span: bytes(&defined), index: OnceCell::new() })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value: name, defined, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { name, span: bytes(&defined) })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyKind)
    }
}

struct AnyKind;

impl<'de> Visitor<'de> for AnyKind {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Nothing)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Bool)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Kind, E> {
        Ok(Kind::Number(Some(number.into())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Kind, E> {
        Ok(Kind::Number(Some(number.into())))
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Kind, E> {
        Ok(Kind::Number(None))
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Kind, E> {
        Ok(Kind::Number(None))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Number(None))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = items.next_entry()? {
            entries.push(entry);
        }
        Ok(Kind::Map(entries))
    }
}
