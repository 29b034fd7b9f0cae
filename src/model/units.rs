//! Durations and sizes as the file writes them (`15m`, `24h`, `30d`, `8GiB`) and as people read them.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in whole milliseconds. Days are 24 hours and weeks seven days: an objective is a length, not a
/// calendar date. Months and years are refused, since nobody agrees on theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    millis: u64,
}

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnitError {
    #[error("{0:?} is not a duration: write a number and a unit, such as 15m, 24h or 30d (units: ms, s, m, h, d, w)")]
    Span(String),
    #[error("{0:?} is not a size: write a number and a unit, such as 512MiB or 8GiB (units: B, KiB, MiB, GiB, TiB)")]
    Size(String),
    #[error("{0:?} is too large")]
    TooLarge(String),
}

impl Span {
    pub const ZERO: Self = Self { millis: 0 };

    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self { millis: secs.saturating_mul(1_000) }
    }

    pub const fn from_hours(hours: u64) -> Self {
        Self::from_secs(hours.saturating_mul(3_600))
    }

    pub const fn from_days(days: u64) -> Self {
        Self::from_hours(days.saturating_mul(24))
    }

    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    pub fn as_secs_f64(self) -> f64 {
        self.millis as f64 / 1_000.0
    }

    pub const fn is_zero(self) -> bool {
        self.millis == 0
    }

    pub const fn saturating_add(self, other: Self) -> Self {
        Self { millis: self.millis.saturating_add(other.millis) }
    }

    /// The time from `earlier` to `later`; zero when `later` is not later, as with a clock that was set back.
    pub fn between(earlier: jiff::Timestamp, later: jiff::Timestamp) -> Self {
        Self { millis: u64::try_from(later.as_millisecond() - earlier.as_millisecond()).unwrap_or(0) }
    }

    /// `at` moved back by this span; saturates at the start of time.
    pub fn before(self, at: jiff::Timestamp) -> jiff::Timestamp {
        at.checked_sub(self.to_duration()).unwrap_or(jiff::Timestamp::MIN)
    }

    /// `at` moved on by this span; saturates at the end of time.
    pub fn after(self, at: jiff::Timestamp) -> jiff::Timestamp {
        at.checked_add(self.to_duration()).unwrap_or(jiff::Timestamp::MAX)
    }

    fn to_duration(self) -> jiff::SignedDuration {
        jiff::SignedDuration::from_millis(i64::try_from(self.millis).unwrap_or(i64::MAX))
    }
}

impl From<std::time::Duration> for Span {
    fn from(duration: std::time::Duration) -> Self {
        Self { millis: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        Self::from_millis(span.millis)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    /// One or more number-unit pairs without spaces between: `90s`, `1h30m`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || UnitError::Span(text.to_owned());
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut millis: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            millis = number
                .checked_mul(*factor)
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
            rest = after;
        }
        Ok(Self { millis })
    }
}

impl fmt::Display for Span {
    /// The two largest units that say something: `26 h`, `2 min 10 s`, `3 d 4 h`; under ten seconds with one decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = (self.millis + 500) / 1_000;
        let text = match self.millis {
            0 => "0 s".to_owned(),
            1..10_000 => format!("{:.1} s", (self.millis.max(50)) as f64 / 1_000.0),
            _ if secs < 60 => format!("{secs} s"),
            _ if secs < 3_600 => pair(secs / 60, "min", secs % 60, "s"),
            _ if secs < 48 * 3_600 => pair(secs / 3_600, "h", (secs % 3_600) / 60, "min"),
            _ => pair(secs / 86_400, "d", (secs % 86_400) / 3_600, "h"),
        };
        f.pad(&text)
    }
}

fn pair(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

impl Span {
    /// As the file writes it, exact: `1d12h`, `15m`; what JSON carries.
    pub fn to_file_text(self) -> String {
        if self.millis == 0 {
            return "0s".to_owned();
        }
        let mut rest = self.millis;
        let mut text = String::new();
        // Weeks are read but never written: 30d must come back as 30d and not as 4w2d.
        for (unit, factor) in UNITS.iter().rev().skip(1) {
            if rest >= *factor {
                text.push_str(&format!("{}{unit}", rest / factor));
                rest %= factor;
            }
        }
        text
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_file_text())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|d|w))+$",
            "description": "A length of time with its unit: 15m, 24h, 30d."
        })
    }
}

/// A number of bytes, printed in binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// A size as the file writes it, with its unit: `8GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub ByteSize);

const SIZE_UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || UnitError::Size(text.to_owned());
        let (unit, shift) = SIZE_UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
        let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
        Ok(Self(ByteSize(bytes)))
    }
}

impl From<Size> for ByteSize {
    fn from(size: Size) -> Self {
        size.0
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.0;
        let whole = |shift: &u32| bytes.trailing_zeros() >= *shift && bytes >> shift > 0;
        let (unit, shift) = SIZE_UNITS.iter().find(|(_, shift)| whole(shift)).unwrap_or(&("B", 0));
        serializer.serialize_str(&format!("{}{unit}", bytes >> shift))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$",
            "description": "A size with its unit: 512MiB, 8GiB."
        })
    }
}

impl ByteSize {
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl std::ops::Add for ByteSize {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for ByteSize {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self(0), |sum, size| sum + size)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            bytes if bytes < 1 << 10 => format!("{bytes} B"),
            bytes => {
                let (unit, shift) = match bytes {
                    _ if bytes < 1 << 20 => ("KiB", 10),
                    _ if bytes < 1 << 30 => ("MiB", 20),
                    _ if bytes < 1 << 40 => ("GiB", 30),
                    _ => ("TiB", 40),
                };
                let value = bytes as f64 / (1_u64 << shift) as f64;
                if value < 100.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
            }
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!("1h30m".parse::<Span>(), Ok(Span::from_secs(5_400)));
        assert_eq!("30d".parse::<Span>(), Ok(Span::from_days(30)));
        for wrong in ["", "15", "h", "1y", "1 h 5", "-3m", "1.5h"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong:?}");
        }
        assert_eq!("99999999999999999w".parse::<Span>(), Err(UnitError::TooLarge("99999999999999999w".into())));
    }

    #[test]
    fn sizes_are_read_with_their_units_and_written_back() {
        assert_eq!("8GiB".parse::<Size>(), Ok(Size(ByteSize(8 << 30))));
        for wrong in ["8", "8GB", "GiB", "-1MiB", "1.5GiB", ""] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
        for text in ["8GiB", "1536MiB", "7B", "0B"] {
            assert_eq!(serde_json::to_value(text.parse::<Size>().unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn durations_are_written_back_as_they_were_read() {
        for text in ["30d", "1h30m", "15m", "24h", "500ms"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_file_text().parse::<Span>().unwrap(), span);
        }
        assert_eq!("30d".parse::<Span>().unwrap().to_file_text(), "30d");
    }

    #[test]
    fn people_read_two_units_at_most() {
        assert_eq!(Span::from_secs(130).to_string(), "2 min 10 s");
        assert_eq!(Span::from_hours(26).to_string(), "26 h");
        assert_eq!(Span::from_days(3).to_string(), "3 d");
        assert_eq!(Span::from_millis(640).to_string(), "0.6 s");
        assert_eq!(ByteSize(412 << 20).to_string(), "412 MiB");
        assert_eq!(ByteSize(1_181_116_006).to_string(), "1.1 GiB");
    }
}
