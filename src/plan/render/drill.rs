//! The last drill in a line: when, how long, of how much, and what went wrong.

use jiff::Timestamp;

use crate::model::evidence::Verdict;
use crate::model::plan::{DrillReport, LastDrill};
use crate::model::units::Span;

/// `drilled 3 days ago: 2 min 10 s of 30 min`, or that there never was one; and when the next is due.
pub fn drilled(report: &DrillReport, now: Timestamp) -> String {
    let last = report.last.as_ref().map_or_else(|| "never drilled".to_owned(), |last| in_words(last, now));
    match (report.due, report.next) {
        (true, _) => format!("{last}; a drill is due, after the backups of the next apply"),
        (false, Some(next)) => format!("{last}; next in {}", Span::between(now, next)),
        (false, None) => last,
    }
}

fn in_words(last: &LastDrill, now: Timestamp) -> String {
    let ago = Span::between(last.at, now);
    let of = last.rto.map_or_else(String::new, |rto| format!(" of {rto}"));
    let mut part = if last.partial { ", not of every service".to_owned() } else { String::new() };
    if !last.without.is_empty() {
        part.push_str(&format!(", WITHOUT {}", last.without.join(", ")));
    }
    match last.verdict {
        Verdict::Passed => format!("drilled {ago} ago: {}{of}{part}", last.took),
        Verdict::Failed(_) => format!("drilled {ago} ago: FAILED after {}{of}{part}", last.took),
    }
}
