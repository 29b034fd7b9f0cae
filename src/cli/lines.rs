//! Small pieces of what is printed: times in the reader's zone, safe text, terminals.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::model::record::Approved;
use crate::model::units::Span;

/// `2026-11-23 14:54:36 +01:00`.
pub(super) fn time(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `3 h 5 min ago`; `in 2 h` for a time to come.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", Span::between(now, at)) } else { format!("{} ago", Span::between(at, now)) }
}

/// The length of `2026-11-23`.
const DAY: usize = 10;

/// A point in time as people give it: RFC 3339, `2026-11-23 14:54` or `2026-11-23` in their own zone, or `3h` for that
/// long ago.
pub(super) fn parse_time(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    // A day alone means its end: "what did we have on Monday" includes Monday.
    let local = match text.len() {
        DAY => text.parse::<Date>().map(|day| day.at(23, 59, 59, 999_000_000)),
        _ => text.parse::<DateTime>(),
    };
    if let Ok(local) = local {
        return local.to_zoned(zone.clone()).map(|at| at.timestamp()).map_err(|error| error.to_string());
    }
    match text.parse::<Span>() {
        Ok(span) => Ok(span.before(now)),
        Err(_) => Err(format!(
            "{text:?} is not a time: write 2026-11-23T14:54:00Z, \"2026-11-23 14:54\", 2026-11-23, or 3h for three hours ago"
        )),
    }
}

/// `ops@tower, at a terminal: restore:postgres (restore postgres/data)`.
pub(super) fn approved(approved: &Approved) -> String {
    let words = approved.words.iter().map(|it| format!("{} ({})", it.word, it.steps.join(", ")));
    format!("{}, {}: {}", approved.by, approved.how.as_str(), words.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_give_them() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let read = |text: &str| parse_time(text, &zone, now).unwrap().to_string();
        assert_eq!(read("2026-11-23T10:00:00Z"), "2026-11-23T10:00:00Z");
        assert_eq!(read("2026-11-23 10:00"), "2026-11-23T09:00:00Z");
        assert_eq!(read("2026-11-22"), "2026-11-22T22:59:59.999Z");
        assert_eq!(read("3h"), "2026-11-23T09:00:00Z");
        assert!(parse_time("yesterday", &zone, now).is_err());
    }
}
