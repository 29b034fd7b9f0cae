//! What a person meant who wrote a cron expression that says something else: the parser takes some of it for another schedule,
//! and refuses the rest in words of its own. Also whether a pattern comes due at all, found with a bounded number of looks.

use croner::Weekday;

/// One of the five fields, in their order.
struct Field {
    name: &'static str,
    smallest: u32,
    largest: u32,
    /// Full names, in the order of the numbers from `smallest` on; the first three letters are what cron reads.
    names: &'static [&'static str],
    /// Letters that mean something by themselves.
    letters: &'static str,
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", smallest: 0, largest: 59, names: &[], letters: "" },
    Field { name: "hour", smallest: 0, largest: 23, names: &[], letters: "" },
    Field { name: "day of month", smallest: 1, largest: 31, names: &[], letters: "LW" },
    Field { name: "month", smallest: 1, largest: 12, names: &MONTHS, letters: "" },
    // 7 is a Sunday as well.
    Field { name: "day of week", smallest: 0, largest: 7, names: &DAYS, letters: "L" },
];

const DAYS: [&str; 7] = ["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"];
const MONTHS: [&str; 12] = [
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];

/// What is wrong with an expression, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: String,
    pub instead: String,
}

/// The first thing in an expression of five fields that is not what it seems. What has none is the parser's to judge.
pub(super) fn fault(cron: &str) -> Option<Fault> {
    FIELDS.iter().zip(cron.split_whitespace()).find_map(|(field, text)| field.fault(&text.to_ascii_uppercase()))
}

impl Field {
    fn fault(&self, text: &str) -> Option<Fault> {
        let name = self.name;
        // Both day fields must hold: a sign of the parser's, before the day of week.
        let text = if self.names.len() == DAYS.len() { text.strip_prefix('+').unwrap_or(text) } else { text };
        if text.split(',').any(str::is_empty) {
            let parts: Vec<&str> = text.split(',').filter(|part| !part.is_empty()).collect();
            let instead = if parts.is_empty() { "*".to_owned() } else { parts.join(",") };
            let reason = format!("its {name}, {text:?}, has a comma with nothing beside it");
            return Some(Fault { reason, instead: format!("write {instead:?} for this {name}, or what is missing") });
        }
        text.split(',').find_map(|part| self.fault_of_word(part).or_else(|| self.fault_of_range(part)))
    }

    fn fault_of_word(&self, part: &str) -> Option<Fault> {
        let name = self.name;
        let words = part.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty());
        for word in words {
            if word.chars().all(|letter| self.letters.contains(letter)) || self.number_of_name(word).is_some() {
                continue;
            }
            let reason = format!("its {name}, {part:?}, has the word {word:?} in it");
            let written_out = (word.len() > 3).then(|| self.number_of_name(word.get(..3)?)).flatten();
            let elsewhere = FIELDS.iter().find(|other| other.name != name && other.number_of_name(word).is_some());
            let instead = match (written_out, elsewhere) {
                (Some(number), _) => format!("write {} or {number}", &word[..3]),
                (None, Some(other)) => format!("{word} is a {}: {ORDER}", other.name),
                (None, None) if self.names.is_empty() => self.numbers(),
                (None, None) => {
                    let names: Vec<&str> = self.names.iter().map(|name| &name[..3]).collect();
                    format!("{}, or a name: {}", self.numbers(), names.join(", "))
                }
            };
            return Some(Fault { reason, instead });
        }
        None
    }

    fn fault_of_range(&self, part: &str) -> Option<Fault> {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let bounds = range.split('#').next().unwrap_or(range);
        let beyond = bounds
            .split('-')
            .find(|text| text.parse::<u32>().is_ok_and(|number| !(self.smallest..=self.largest).contains(&number)));
        if let Some(number) = beyond {
            let (name, smallest, largest) = (self.name, self.smallest, self.largest);
            let reason = format!("its {name}, {number}, is not from {smallest} to {largest}");
            return Some(Fault { reason, instead: self.numbers() });
        }
        let (first, last) = bounds.split_once('-')?;
        let (first, last) = (self.number(first)?, self.number(last)?);
        // Sunday is 7 at the end of a week and 0 at its beginning: `7-1` is `0-1`.
        if self.largest == 7 && first == 7 && last < 7 {
            let reason = format!("its {}, {part:?}, goes backwards: 7 comes after {last}", self.name);
            let instead = part.replacen('7', "0", 1);
            return Some(Fault { reason, instead: format!("write {instead:?}: Sunday is 0 as well") });
        }
        // `SAT-SUN` is read as 6-7.
        if first <= last || (last == 0 && bounds.ends_with("-SUN")) {
            return None;
        }
        let (name, cycle_end) = (self.name, self.largest - u32::from(self.largest == 7));
        let over = self.over_the_end(first.min(cycle_end), last, step.and_then(|step| step.parse().ok()));
        let reason = format!("its {name}, {part:?}, goes backwards: {first} comes after {last}");
        Some(Fault { reason, instead: format!("write {over:?}, which goes over the end and on") })
    }

    /// `22-2` as ranges that go forwards: `22-23,0-2`.
    fn over_the_end(&self, first: u32, last: u32, step: Option<usize>) -> String {
        let end = self.largest - u32::from(self.largest == 7);
        if let Some(step) = step.filter(|step| *step > 1) {
            let hits: Vec<String> =
                (first..=end).chain(self.smallest..=last).step_by(step).map(|number| number.to_string()).collect();
            return hits.join(",");
        }
        let range = |from: u32, to: u32| if from == to { from.to_string() } else { format!("{from}-{to}") };
        format!("{},{}", range(first, end), range(self.smallest, last))
    }

    fn number(&self, text: &str) -> Option<u32> {
        text.parse().ok().or_else(|| self.number_of_name(text))
    }

    /// Of its first three letters, as cron reads them, perhaps with an `L` behind.
    fn number_of_name(&self, word: &str) -> Option<u32> {
        let word =
            if self.letters.contains('L') && word.len() == 4 { word.strip_suffix('L').unwrap_or(word) } else { word };
        let at = self.names.iter().position(|name| name[..3] == *word)?;
        Some(self.smallest + u32::try_from(at).ok()?)
    }

    fn numbers(&self) -> String {
        format!("write a number from {} to {} for the {}", self.smallest, self.largest, self.name)
    }
}

const ORDER: &str = "the order is minute, hour, day of month, month, day of week";

/// A month of each length, of years with and without a leap day.
const LENGTHS: [(i32, u32, u32); 4] = [(2025, 2, 28), (2024, 2, 29), (2025, 4, 30), (2025, 1, 31)];

/// Whether any day of the calendar matches. Asked of each kind of month that there is, by its length and its first weekday:
/// each of them comes for every month of that length, so that what matches none of them never comes. No list of years is as
/// short.
pub(super) fn comes_due(pattern: &croner::CronPattern) -> Looked {
    let mut looked = Looked { at: 0, comes_due: false };
    for (year, month, length) in LENGTHS {
        if !(1..=12).any(|other| has_length(other, length) && pattern.month_match(other).unwrap_or(false)) {
            continue;
        }
        for first in 0..7 {
            for day in 1..=length {
                looked.at += 1;
                let weekday = Weekday::from_days_from_sunday((first + day - 1) % 7);
                // The error is for a day that is none, which these are not.
                if pattern.day_match(year, month, day, weekday).unwrap_or(false) {
                    return Looked { comes_due: true, ..looked };
                }
            }
        }
    }
    looked
}

/// The answer, and the work that it took.
#[derive(Debug)]
pub(super) struct Looked {
    pub at: usize,
    pub comes_due: bool,
}

fn has_length(month: u32, length: u32) -> bool {
    match month {
        2 => length == 28 || length == 29,
        4 | 6 | 9 | 11 => length == 30,
        _ => length == 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead(cron: &str) -> String {
        let Fault { reason, instead } = fault(cron).unwrap_or_else(|| panic!("{cron} is taken"));
        format!("{reason}; {instead}")
    }

    #[test]
    fn what_is_meant_is_what_is_written() {
        for cron in [
            "15 2,14 * * *",
            "*/15 0-23/2 1,15 JAN-MAR Mon-fri",
            "0 3 L * ?",
            "0 3 LW,15W * *",
            "0 3 * * 5L",
            "0 3 * * friL,MON#2,6-7",
            "0 3 * * sat-sun",
            "0 3 1-7 * +MON",
            "0 3 * * 7",
        ] {
            assert_eq!(fault(cron), None, "{cron}");
        }
    }

    #[test]
    fn a_comma_with_nothing_beside_it_is_a_value_that_was_forgotten() {
        insta::assert_snapshot!(["0 3 * * 1,", "0 3 ,15 * *", "0,,30 3 * * *", "0 , * * *"].map(instead).join("\n"));
    }

    #[test]
    fn a_range_that_goes_backwards_goes_over_the_end() {
        insta::assert_snapshot!(
            [
                "0 22-2 * * *",
                "0 22-2/2 * * *",
                "50-10 3 * * *",
                "0 3 25-1 * *",
                "0 3 * NOV-FEB *",
                "0 3 * * FRI-MON",
                "0 3 * * 7-1"
            ]
            .map(instead)
            .join("\n")
        );
    }

    #[test]
    fn a_name_that_cron_does_not_know_is_told_with_the_one_that_it_knows() {
        insta::assert_snapshot!(
            [
                "0 3 * * Sunday",
                "0 3 * * mon-Friday",
                "0 3 * March *",
                "0 3 MON * *",
                "0 3 * * JAN",
                "noon 3 * * *",
                "0 3 * * Caturday",
                "0 3 * Smarch *"
            ]
            .map(instead)
            .join("\n")
        );
    }

    #[test]
    fn a_number_that_a_field_does_not_have_is_named() {
        insta::assert_snapshot!(
            ["60 3 * * *", "0 24 * * *", "0 3 0 * *", "0 3 1-32 * *", "0 3 * 13 *", "0 3 * * 8#2"]
                .map(instead)
                .join("\n")
        );
    }
}
