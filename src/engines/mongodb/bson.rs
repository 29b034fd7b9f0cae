//! As much of BSON as an archive's own headers have: documents of texts, numbers and truths, with anything else skipped.

use std::collections::BTreeMap;

/// A value of a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Truth(bool),
    /// Of a kind that nobody asks for.
    Other,
}

pub(super) type Elements<'a> = BTreeMap<&'a str, Value<'a>>;

/// The elements of a document whose length has been checked against its frame.
pub(super) fn elements(document: &[u8]) -> Result<Elements<'_>, String> {
    let inner = document.get(4..document.len().saturating_sub(1)).ok_or_else(broken)?;
    let mut rest = Bytes(inner);
    let mut found = BTreeMap::new();
    while let Some((kind, after)) = rest.0.split_first() {
        rest.0 = after;
        let name = rest.until_zero()?;
        let value = match kind {
            0x02 => Value::Text(rest.text()?),
            0x08 => Value::Truth(rest.take(1)? == [1]),
            0x10 => Value::Number(i64::from(i32::from_le_bytes(rest.array()?))),
            0x12 => Value::Number(i64::from_le_bytes(rest.array()?)),
            // A double, a date, a timestamp.
            0x01 | 0x09 | 0x11 => rest.take(8).map(|_| Value::Other)?,
            // A document, an array.
            0x03 | 0x04 => {
                let length = u32::from_le_bytes(rest.array()?) as usize;
                rest.take(length.checked_sub(4).ok_or_else(broken)?).map(|_| Value::Other)?
            }
            0x0A => Value::Other,
            other => return Err(format!("a header has an element of the unknown kind {other:#04x}")),
        };
        found.insert(name, value);
    }
    Ok(found)
}

/// The text that is called `name`.
pub(super) fn text<'a>(elements: &Elements<'a>, name: &str) -> Result<&'a str, String> {
    match elements.get(name) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(format!("a header has no text called {name}")),
    }
}

fn broken() -> String {
    "a header is not the document that it should be".to_owned()
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(broken)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| broken())
    }

    fn until_zero(&mut self) -> Result<&'a str, String> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or_else(broken)?;
        let name = self.take(length + 1)?;
        std::str::from_utf8(&name[..length]).map_err(|_| broken())
    }

    /// A length that counts the final zero, the text, the zero.
    fn text(&mut self) -> Result<&'a str, String> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        match self.take(length)?.split_last() {
            Some((0, text)) => std::str::from_utf8(text).map_err(|_| broken()),
            _ => Err(broken()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elements_of_a_header_are_found_and_others_skipped() {
        let mut document = b"\0\0\0\0\x02db\0\x05\0\0\0shop\0\x08EOF\0\x01\x10n\0\xFF\xFF\xFF\xFF".to_vec();
        document.extend(b"\x12CRC\0\x01\0\0\0\0\0\0\x80\x03in\0\x05\0\0\0\0\x01d\0\0\0\0\0\0\0\0\0\x0Anull\0\0");
        let found = elements(&document).unwrap();
        assert_eq!(found["db"], Value::Text("shop"));
        assert_eq!(found["EOF"], Value::Truth(true));
        assert_eq!(found["n"], Value::Number(-1));
        assert_eq!(found["CRC"], Value::Number(i64::MIN + 1));
        assert_eq!(found.len(), 7);
    }

    #[test]
    fn a_broken_header_is_an_error_and_no_panic() {
        for broken in [
            &b"\0\0"[..],
            b"\0\0\0\0\x02db\0\xFF\xFF\xFF\xFFx\0",
            b"\0\0\0\0\x02db\0\0\0\0\0\0",
            b"\0\0\0\0\x03a\0\x01\0\0\0\0",
        ] {
            assert!(elements(broken).is_err(), "{broken:?}");
        }
    }
}
