//! Which runs of a policy stay in a repository: a pure rule over how the runs stand, with the reason for each.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::model::ids::RunId;
use crate::model::retention::{NEVER_FORGOTTEN, PRUNE_GRACE, Rule};
use crate::model::units::Span;

/// How a run stands in its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Complete, and the last word on every level of the proof is that it passed.
    Verified,
    /// Complete, and not yet proven.
    Unproven,
    /// Complete as written; something of it has since been lost or found wrong.
    Damaged,
    Incomplete,
}

/// A run as retention looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub run: RunId,
    pub started: Timestamp,
    pub standing: Standing,
    /// A source in it has shrunk and nobody has said that this is right.
    pub suspect: bool,
    /// It holds a service that the file no longer names.
    pub undeclared: bool,
    /// The newest complete run that carries a slot of the schedule: without it the slot would be due again at once.
    pub serving: bool,
}

/// What becomes of a run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every reason that keeps it.
    Keep(Vec<Reason>),
    Forget(Cause),
}

impl Verdict {
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

/// Why a run stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
    Within,
    /// One of the two newest verified ones.
    NeverForgotten,
    /// Dated in the future: some clock was wrong, so its age says nothing.
    Future,
    /// Holds a shrunken source, or is older than a run that does.
    Suspicion,
    /// Holds a service that was taken out of the file.
    Undeclared,
    /// Not verified, and not yet older than two that are.
    NoBetter,
    /// Not verified, but the rule would keep it if it were.
    WouldBeKept,
    /// Incomplete, and younger than the grace.
    Grace,
    /// Carries the slot of the schedule that was served last.
    Serving,
}

/// Why a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// No line of the rule keeps it.
    Rule,
    /// Complete but not verified; no line would keep it if it were, and two newer ones are verified.
    Unproven,
    /// Incomplete, older than the grace, and two newer ones are verified.
    Incomplete,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Within => "within",
            Self::NeverForgotten => "one of the two newest verified",
            Self::Future => "dated in the future",
            Self::Suspicion => "shrink not accepted",
            Self::Undeclared => "holds a service that the file no longer names",
            Self::NoBetter => "not verified, but no two newer ones are",
            Self::WouldBeKept => "not verified, but would be kept if it were",
            Self::Grace => "incomplete, within the grace",
            Self::Serving => "carries the slot that was served last",
        })
    }
}

/// The counted lines of a rule, each with the bucket that a local time falls into.
const LINES: [Reason; 6] =
    [Reason::Last, Reason::Hourly, Reason::Daily, Reason::Weekly, Reason::Monthly, Reason::Yearly];

/// One counted line while the runs go by, newest first.
struct Line {
    reason: Reason,
    left: u32,
    bucket: Option<(Date, i32)>,
}

impl Line {
    fn of(rule: &Rule) -> [Self; 6] {
        let Rule { last, hourly, daily, weekly, monthly, yearly, within: _ } = *rule;
        let counts = [last, hourly, daily, weekly, monthly, yearly];
        std::array::from_fn(|i| Self { reason: LINES[i], left: counts[i].unwrap_or(0), bucket: None })
    }

    /// Where a run falls for this line; runs of one bucket compete, and the newest wins.
    fn bucket(&self, started: Timestamp, zone: &TimeZone, nth: i32) -> (Date, i32) {
        let local = zone.to_datetime(started);
        let date = local.date();
        match self.reason {
            Reason::Hourly => {
                // Where the clock repeats an hour these are two hours, told apart by the offset.
                (date, i32::from(local.hour()) * 1_000_000 + zone.to_offset(started).seconds())
            }
            Reason::Daily => (date, 0),
            Reason::Weekly => {
                let week = date.iso_week_date();
                (Date::ZERO, i32::from(week.year()) * 100 + i32::from(week.week()))
            }
            Reason::Monthly => (date.first_of_month(), 0),
            Reason::Yearly => (date.first_of_year(), 0),
            // Every run is a bucket of its own.
            _ => (Date::ZERO, nth),
        }
    }

    fn would_keep(&self, bucket: (Date, i32)) -> bool {
        self.left > 0 && self.bucket != Some(bucket)
    }

    fn take(&mut self, bucket: (Date, i32)) {
        self.left -= 1;
        self.bucket = Some(bucket);
    }
}

/// Decides about all runs of one policy in one repository; the answer is in the order of `runs`, which may be any.
///
/// Only verified complete runs fill the places of the rule. Buckets of the calendar are those of `zone`.
pub fn decide(runs: &[Candidate], rule: &Rule, now: Timestamp, zone: &TimeZone) -> Vec<(RunId, Verdict)> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|a, b| (runs[*b].started, &runs[*b].run).cmp(&(runs[*a].started, &runs[*a].run)));

    let mut lines = Line::of(rule);
    let within = rule.within.filter(|within| !within.is_zero()).map(|within| within.before(now));
    // Of the runs gone by, how many are verified: among all, and among those that are not dated in the future.
    let (mut verified, mut verified_past) = (0, 0);
    let mut suspicion = false;
    let mut verdicts: Vec<Option<Verdict>> = vec![None; runs.len()];
    for (nth, index) in order.into_iter().enumerate() {
        let run = &runs[index];
        let future = run.started > now;
        suspicion |= run.suspect;
        let mut reasons = Vec::new();

        if !future && run.standing != Standing::Incomplete {
            for line in &mut lines {
                let bucket = line.bucket(run.started, zone, i32::try_from(nth).unwrap_or(i32::MAX));
                if line.would_keep(bucket) {
                    reasons.push(line.reason);
                    if run.standing == Standing::Verified {
                        line.take(bucket);
                    }
                }
            }
            if within.is_some_and(|since| run.started >= since) {
                reasons.push(Reason::Within);
            }
        }
        let by_rule = !reasons.is_empty();
        let superseded = verified_past >= NEVER_FORGOTTEN;
        let cause = match run.standing {
            Standing::Verified => {
                if verified < NEVER_FORGOTTEN || (!future && verified_past < NEVER_FORGOTTEN) {
                    reasons.push(Reason::NeverForgotten);
                }
                verified += 1;
                verified_past += usize::from(!future);
                Cause::Rule
            }
            Standing::Unproven | Standing::Damaged => {
                if by_rule {
                    reasons = vec![Reason::WouldBeKept];
                }
                if !superseded {
                    reasons.push(Reason::NoBetter);
                }
                Cause::Unproven
            }
            Standing::Incomplete => {
                if Span::between(run.started, now) <= PRUNE_GRACE {
                    reasons.push(Reason::Grace);
                }
                if !superseded {
                    reasons.push(Reason::NoBetter);
                }
                Cause::Incomplete
            }
        };
        if future {
            reasons.push(Reason::Future);
        }
        if suspicion {
            reasons.push(Reason::Suspicion);
        }
        if run.undeclared {
            reasons.push(Reason::Undeclared);
        }
        if run.serving {
            reasons.push(Reason::Serving);
        }
        verdicts[index] = Some(if reasons.is_empty() { Verdict::Forget(cause) } else { Verdict::Keep(reasons) });
    }
    runs.iter()
        .zip(verdicts)
        // The loop above visits every index once; were one missed, its run would stay.
        .map(|(run, verdict)| (run.run.clone(), verdict.unwrap_or(Verdict::Keep(Vec::new()))))
        .collect()
}
