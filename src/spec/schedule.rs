//! When a schedule is due: cron in a time zone, made into points in time. Pure: the zones come with the program.
//!
//! A slot is a point in time, so none can be served twice. Where clocks change:
//! - Clocks go forward: a slot whose wall time is skipped is due at the moment the clocks jump (02:30 becomes 03:00), so a
//!   daily run is never lost.
//! - Clocks go back: a wall time that comes twice is due the first time only.
//! - A schedule for every hour of the day (`*` as its hour) means real hours, not wall time: it is due in both of the
//!   repeated hours and leaves out the skipped one.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};

use super::cron::{self, Fault};
use super::file::Schedule;
use crate::model::units::Span;

/// How far a search looks. 29 February on a given weekday comes once in 28 years, and once in 40 across a year such as 2100
/// that is no leap year; what has no slot in this time has none.
const HORIZON_YEARS: i16 = 41;

/// Why a schedule has no slots.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    #[error("{cron:?} has {found} fields, and a schedule has five: minute, hour, day of month, month, day of week")]
    Fields { cron: String, found: usize },
    #[error("{cron:?} is not a cron expression: {reason}")]
    Cron { cron: String, reason: String, instead: Option<String> },
    #[error("{name:?} is not an IANA time zone")]
    TimeZone { name: String },
    #[error("{cron:?} never comes due: no day of the calendar matches it")]
    Never { cron: String },
}

/// The slots of a schedule.
#[derive(Debug, Clone)]
pub struct Slots {
    pattern: croner::CronPattern,
    zone: TimeZone,
    /// Wall times of a day that matches, in order: minutes since midnight.
    minutes: Vec<i16>,
    /// Due in every hour of the day, hence by real hours.
    hourly: bool,
}

impl Schedule {
    /// Fails where the expression or the time zone is wrong, or where no day ever matches.
    pub fn slots(&self) -> Result<Slots, ScheduleError> {
        let found = self.cron.split_whitespace().count();
        if found != 5 {
            return Err(ScheduleError::Fields { cron: self.cron.clone(), found });
        }
        let name = self.timezone.as_deref().unwrap_or("UTC");
        let zone = time_zone(name).ok_or_else(|| ScheduleError::TimeZone { name: name.to_owned() })?;
        if let Some(Fault { reason, instead }) = cron::fault(&self.cron) {
            return Err(ScheduleError::Cron { cron: self.cron.clone(), reason, instead: Some(instead) });
        }
        let parsed = croner::parser::CronParser::builder()
            .seconds(croner::parser::Seconds::Disallowed)
            .year(croner::parser::Year::Disallowed)
            .build()
            .parse(&self.cron)
            .map_err(|error| ScheduleError::Cron { cron: self.cron.clone(), reason: plain(&error), instead: None })?;
        let pattern = parsed.pattern;
        let hours = pattern.hours.values();
        let in_hour = pattern.minutes.values();
        let minutes = hours
            .iter()
            .flat_map(|hour| in_hour.iter().map(move |minute| hour * 60 + minute))
            .filter_map(|minute| i16::try_from(minute).ok())
            .collect();
        if !cron::comes_due(&pattern).comes_due {
            return Err(ScheduleError::Never { cron: self.cron.clone() });
        }
        Ok(Slots { pattern, zone, minutes, hourly: hours.len() == 24 })
    }
}

/// An IANA zone out of the program's own database: the same on every machine, also where the system has none.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// Every name that [`time_zone`] knows.
pub fn zone_names() -> Vec<String> {
    TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect()
}

/// The parser's reason without the name of the error's kind, which tells an operator nothing.
fn plain(error: &croner::errors::CronError) -> String {
    use croner::errors::CronError;
    match error {
        CronError::InvalidPattern(reason)
        | CronError::IllegalCharacters(reason)
        | CronError::ComponentError(reason) => {
            reason.trim_end_matches('.').replace("CronPattern contains", "it contains")
        }
        other => other.to_string().trim_end_matches('.').to_owned(),
    }
}

impl Slots {
    /// The latest slot that is not after `at`.
    pub fn last_at_or_before(&self, at: Timestamp) -> Option<Timestamp> {
        // A slot's wall date and its date at another offset differ by a day at most.
        let start = self.zone.to_datetime(at).date().tomorrow().unwrap_or(Date::MAX);
        self.days_back(start).find_map(|day| self.on(day).into_iter().rev().find(|slot| *slot <= at))
    }

    /// The first slot after `at`.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let start = self.zone.to_datetime(at).date().yesterday().unwrap_or(Date::MIN);
        self.days_from(start).find_map(|day| self.on(day).into_iter().find(|slot| *slot > at))
    }

    /// The longest time between two successive slots, of those that touch the `days` after `from`. None where no slot
    /// follows another.
    pub fn largest_gap(&self, from: Timestamp, days: u32) -> Option<Span> {
        let until = Span::from_days(days.into()).after(from);
        let mut previous = self.last_at_or_before(from);
        let mut largest = None;
        // Within a day on which no clock changes the gaps are those of the wall times, however many these are.
        let inside = self.minutes.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let inside = Span::from_secs(u64::try_from(inside).unwrap_or(0) * 60);
        let mut change = None;
        for day in self.days_from(self.zone.to_datetime(from).date()) {
            let plain = self.has_no_change(day, &mut change);
            let slots = if plain { self.ends_of(day) } else { self.on(day) };
            for (index, slot) in slots.iter().copied().enumerate().filter(|(_, slot)| *slot > from) {
                if let Some(previous) = previous {
                    let gap = if plain && index == 1 { inside } else { Span::between(previous, slot) };
                    largest = largest.max(Some(gap));
                }
                previous = Some(slot);
            }
            if previous.is_some_and(|slot| slot >= until) {
                break;
            }
        }
        largest
    }

    /// First and last slot of a day without a clock change.
    fn ends_of(&self, day: Date) -> Vec<Timestamp> {
        let (Some(first), Some(last)) = (self.minutes.first(), self.minutes.last()) else { return Vec::new() };
        let mut ends: Vec<_> = [*first, *last].iter().flat_map(|minute| self.at(day, *minute)).collect();
        ends.dedup();
        ends
    }

    /// No transition from a day before `day` to a day after. `change` remembers the next one, for calls in order of days.
    fn has_no_change(&self, day: Date, change: &mut Option<Timestamp>) -> bool {
        let margin = 36.hours();
        let noon = day.at(12, 0, 0, 0);
        let (Ok(start), Ok(end)) = (
            noon.checked_sub(margin).and_then(|start| self.zone.to_timestamp(start)),
            noon.checked_add(margin).and_then(|end| self.zone.to_timestamp(end)),
        ) else {
            return false;
        };
        if change.is_none_or(|change| change < start) {
            *change = self.zone.following(start).next().map(|next| next.timestamp()).or(Some(Timestamp::MAX));
        }
        change.is_some_and(|change| change > end)
    }

    /// The slots of a day that matches, in order.
    fn on(&self, day: Date) -> Vec<Timestamp> {
        let mut slots: Vec<_> = self.minutes.iter().flat_map(|minute| self.at(day, *minute)).collect();
        slots.sort();
        slots.dedup();
        slots
    }

    /// The points in time of a wall time: none or two only for a schedule that means real hours.
    fn at(&self, day: Date, minute: i16) -> Vec<Timestamp> {
        let wall: DateTime = day.at((minute / 60) as i8, (minute % 60) as i8, 0, 0);
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        let points = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => vec![ambiguous.earlier()],
            AmbiguousOffset::Gap { .. } if self.hourly => vec![],
            // Read with the later offset, a skipped wall time lies just before the jump.
            AmbiguousOffset::Gap { .. } => vec![ambiguous.earlier().map(|before| self.jump_after(before))],
            AmbiguousOffset::Fold { .. } if self.hourly => vec![ambiguous.earlier(), ambiguous.later()],
            AmbiguousOffset::Fold { .. } => vec![ambiguous.earlier()],
        };
        // Only wall times at the very ends of what a timestamp can say fail here.
        points.into_iter().filter_map(Result::ok).collect()
    }

    fn jump_after(&self, before: Timestamp) -> Timestamp {
        self.zone.following(before).next().map_or(before, |change| change.timestamp())
    }

    /// Days that match, from `start` on, as far as the horizon.
    fn days_from(&self, start: Date) -> impl Iterator<Item = Date> + '_ {
        let end = start.saturating_add(HORIZON_YEARS.years());
        let mut next = Some(start);
        std::iter::from_fn(move || {
            while let Some(day) = next.filter(|day| *day <= end) {
                if !self.month_matches(day) {
                    next = day.last_of_month().tomorrow().ok();
                    continue;
                }
                next = day.tomorrow().ok();
                if self.day_matches(day) {
                    return Some(day);
                }
            }
            None
        })
    }

    /// Days that match, from `start` back, as far as the horizon.
    fn days_back(&self, start: Date) -> impl Iterator<Item = Date> + '_ {
        let end = start.saturating_sub(HORIZON_YEARS.years());
        let mut next = Some(start);
        std::iter::from_fn(move || {
            while let Some(day) = next.filter(|day| *day >= end) {
                if !self.month_matches(day) {
                    next = day.first_of_month().yesterday().ok();
                    continue;
                }
                next = day.yesterday().ok();
                if self.day_matches(day) {
                    return Some(day);
                }
            }
            None
        })
    }

    fn month_matches(&self, day: Date) -> bool {
        // The error is for a month that is none, which a Date cannot hold.
        self.pattern.month_match(day.month().unsigned_abs().into()).unwrap_or(false)
    }

    fn day_matches(&self, day: Date) -> bool {
        let weekday =
            croner::Weekday::from_days_from_sunday(day.weekday().to_sunday_zero_offset().unsigned_abs().into());
        let (month, number) = (day.month().unsigned_abs().into(), day.day().unsigned_abs().into());
        // The error is for a day that is none, which a Date cannot hold.
        self.pattern.day_match(day.year().into(), month, number, weekday).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(cron: &str, zone: &str) -> Slots {
        Schedule { cron: cron.to_owned(), timezone: Some(zone.to_owned()) }.slots().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// All slots after `from` up to `to`, found forwards; and the same backwards, which must agree.
    fn between(slots: &Slots, from: &str, to: &str) -> Vec<String> {
        let (from, to) = (at(from), at(to));
        let mut forward = Vec::new();
        let mut now = from;
        while let Some(next) = slots.next_after(now).filter(|next| *next <= to) {
            forward.push(next);
            now = next;
        }
        let mut backward = Vec::new();
        let mut now = to;
        while let Some(last) = slots.last_at_or_before(now).filter(|last| *last > from) {
            backward.push(last);
            now = last - 1.nanosecond();
        }
        backward.reverse();
        assert_eq!(forward, backward);
        forward.iter().map(|slot| slot.to_zoned(slots.zone.clone()).strftime("%d. %H:%M%:z").to_string()).collect()
    }

    #[test]
    fn a_slot_that_clocks_skip_is_due_when_they_jump() {
        let berlin = slots("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            between(&berlin, "2026-03-28T00:00Z", "2026-03-30T12:00Z"),
            ["28. 02:30+01:00", "29. 03:00+02:00", "30. 02:30+02:00"]
        );
        let new_york = slots("15 2 * * *", "America/New_York");
        assert_eq!(
            between(&new_york, "2026-03-07T12:00Z", "2026-03-09T12:00Z"),
            ["08. 03:00-04:00", "09. 02:15-04:00"]
        );
    }

    #[test]
    fn a_wall_time_that_comes_twice_is_due_once() {
        let berlin = slots("30 2 * * *", "Europe/Berlin");
        assert_eq!(between(&berlin, "2026-10-24T12:00Z", "2026-10-26T12:00Z"), ["25. 02:30+02:00", "26. 02:30+01:00"]);
        let new_york = slots("30 1 * * *", "America/New_York");
        assert_eq!(
            between(&new_york, "2026-10-31T12:00Z", "2026-11-02T12:00Z"),
            ["01. 01:30-04:00", "02. 01:30-05:00"]
        );
    }

    #[test]
    fn every_hour_means_real_hours() {
        let hourly = slots("30 * * * *", "Europe/Berlin");
        assert_eq!(
            between(&hourly, "2026-10-24T23:00Z", "2026-10-25T02:45Z"),
            ["25. 01:30+02:00", "25. 02:30+02:00", "25. 02:30+01:00", "25. 03:30+01:00"]
        );
        assert_eq!(between(&hourly, "2026-03-29T00:00Z", "2026-03-29T02:00Z"), ["29. 01:30+01:00", "29. 03:30+02:00"]);
        assert_eq!(hourly.largest_gap(at("2026-01-01T00:00Z"), 400), Some(Span::from_hours(1)));
    }

    #[test]
    fn two_slots_that_fall_on_the_jump_are_one() {
        let both = slots("0,30 2,3 * * *", "Europe/Berlin");
        assert_eq!(between(&both, "2026-03-29T00:00Z", "2026-03-29T12:00Z"), ["29. 03:00+02:00", "29. 03:30+02:00"]);
    }

    #[test]
    fn the_largest_gap_sees_the_day_on_which_clocks_go_back() {
        let start = at("2026-01-01T00:00Z");
        assert_eq!(slots("0 3 * * *", "UTC").largest_gap(start, 400), Some(Span::from_hours(24)));
        assert_eq!(slots("0 3 * * *", "Europe/Berlin").largest_gap(start, 400), Some(Span::from_hours(25)));
        assert_eq!(slots("15 2,14 * * *", "Europe/Berlin").largest_gap(start, 400), Some(Span::from_hours(13)));
        assert_eq!(slots("0 9-17 * * *", "UTC").largest_gap(start, 400), Some(Span::from_hours(16)));
        assert_eq!(slots("0 3 * * 1-5", "UTC").largest_gap(start, 400), Some(Span::from_days(3)));
        assert_eq!(slots("0 0 1 1 *", "UTC").largest_gap(start, 400), Some(Span::from_days(365)));
        assert_eq!(slots("0 0 29 2 *", "UTC").largest_gap(start, 400), Some(Span::from_days(1_461)));
    }

    #[test]
    fn the_largest_gap_is_what_walking_every_slot_finds() {
        for (cron, zone) in [
            ("*/15 * * * *", "America/New_York"),
            ("7 */5 * * *", "Europe/Berlin"),
            ("0,45 1-3 * * 0", "Europe/Berlin"),
            ("0 0 L * *", "Pacific/Apia"),
            ("30 0 * * *", "Africa/Cairo"),
        ] {
            let slots = slots(cron, zone);
            let (from, until) = (at("2026-01-01T00:00Z"), at("2027-02-05T00:00Z"));
            let mut previous = slots.last_at_or_before(from).unwrap();
            let mut largest = Span::ZERO;
            while previous < until {
                let next = slots.next_after(previous).unwrap();
                largest = largest.max(Span::between(previous, next));
                previous = next;
            }
            assert_eq!(slots.largest_gap(from, 400), Some(largest), "{cron} {zone}");
        }
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        let wrong = |cron: &str, zone: &str| {
            Schedule { cron: cron.to_owned(), timezone: Some(zone.to_owned()) }.slots().unwrap_err()
        };
        assert!(matches!(wrong("0 0 3 * * *", "UTC"), ScheduleError::Fields { found: 6, .. }));
        assert!(matches!(wrong("@daily", "UTC"), ScheduleError::Fields { found: 1, .. }));
        assert!(matches!(wrong("61 3 * * *", "UTC"), ScheduleError::Cron { .. }));
        assert!(matches!(wrong("0 3 * * *", "Europe/Berln"), ScheduleError::TimeZone { .. }));
        for never in NEVER {
            assert!(matches!(wrong(never, "UTC"), ScheduleError::Never { .. }), "{never}");
        }
    }

    /// Each is asked of every day that it could mean.
    const NEVER: [&str; 5] = ["0 3 30 2 *", "0 3 31 2,4,6,9,11 *", "* * 31 2-2 *", "0 3 1W * +SAT", "0 3 31 4 +FRI#5"];

    #[test]
    fn a_slot_that_never_comes_is_looked_for_in_no_more_days_than_there_are_kinds_of() {
        let looked = |cron: &str| {
            let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Disallowed).build();
            cron::comes_due(&parser.parse(cron).unwrap().pattern)
        };
        for never in NEVER {
            let looked = looked(never);
            assert!(!looked.comes_due && looked.at <= (28 + 29 + 30 + 31) * 7, "{never}: {looked:?}");
        }
        for seldom in
            ["0 3 29 2 *", "0 3 29 2 +MON", "0 3 29 2 +SUN#5", "0 3 LW 2 +FRI", "0 3 31W * +THU", "0 3 * 2 TUE#5"]
        {
            assert!(looked(seldom).comes_due, "{seldom}");
        }
    }

    #[test]
    fn what_is_said_to_come_due_does_and_what_is_not_does_not() {
        let days = ["*", "29", "30", "31", "L", "LW", "1W", "15W", "31W", "1-7"];
        let months = ["*", "2", "4", "2,4"];
        let weekdays = ["*", "1", "+0", "+6", "+5#5", "3#5", "+1L", "1-5", "+6L", "0#1"];
        for (day, month, weekday) in days
            .iter()
            .flat_map(|day| months.iter().flat_map(move |month| weekdays.map(|weekday| (*day, *month, weekday))))
        {
            let cron = format!("0 3 {day} {month} {weekday}");
            let schedule = Schedule { cron: cron.clone(), timezone: None };
            match schedule.slots() {
                Ok(slots) => assert!(slots.next_after(at("2026-01-01T00:00Z")).is_some(), "{cron} comes"),
                Err(ScheduleError::Never { .. }) => {
                    let parser =
                        croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Disallowed).build();
                    let pattern = parser.parse(&cron).unwrap().pattern;
                    let slots = Slots { pattern, zone: TimeZone::UTC, minutes: vec![180], hourly: false };
                    assert_eq!(slots.next_after(at("2026-01-01T00:00Z")), None, "{cron} never comes");
                }
                Err(other) => panic!("{cron}: {other}"),
            }
        }
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        let daily = slots("0 3 * * *", "Europe/Berlin");
        assert_eq!(daily.next_after(Timestamp::MAX), None);
        assert_eq!(daily.last_at_or_before(Timestamp::MIN), None);
    }
}
