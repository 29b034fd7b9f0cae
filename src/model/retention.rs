//! A retention rule as the file declares it and as a repository remembers it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Span;

/// The longest that one apply may take: no step outlives it, and a lease that is older belongs to nobody. A first full
/// backup of a few TiB over a slow link takes most of a day; what takes longer than a day misses every objective anyway.
pub const LONGEST_RUN: Span = Span::from_hours(24);

/// How long packs that nothing refers to stay marked before a prune deletes them, and how long snapshots without a
/// complete run stay. Longer than [`LONGEST_RUN`], so that whatever a running apply has written, and has not yet named
/// in a manifest, is still there when it ends; twice as long, so that clocks of two hosts a day apart do no harm.
pub const PRUNE_GRACE: Span = Span::from_hours(48);

// The whole safety of the two-phase prune hangs on this order.
const _: () = assert!(PRUNE_GRACE.as_millis() > LONGEST_RUN.as_millis());

/// Of the verified complete runs of a policy in a repository, this many of the newest stay whatever a rule says: one to
/// restore from, and one more for the day when that one turns out to be bad.
pub const NEVER_FORGOTTEN: usize = 2;

/// How many runs of a policy stay. A run stays if any line keeps it. Counts are of runs that are complete and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The newest this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// The newest of each of the last this many hours that have a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// The newest of each of the last this many days that have a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// The newest of each of the last this many ISO weeks that have a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// The newest of each of the last this many months that have a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// The newest of each of the last this many years that have a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// Everything younger than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

impl Rule {
    /// The fields by name, in the order in which they are written: for causes such as `retention.daily 7 → 14`.
    pub fn fields(&self) -> [(&'static str, Option<String>); 7] {
        let Self { last, hourly, daily, weekly, monthly, yearly, within } = self;
        let number = |value: &Option<u32>| value.map(|n| n.to_string());
        [
            ("last", number(last)),
            ("hourly", number(hourly)),
            ("daily", number(daily)),
            ("weekly", number(weekly)),
            ("monthly", number(monthly)),
            ("yearly", number(yearly)),
            ("within", within.map(Span::to_file_text)),
        ]
    }

    /// Nothing in it keeps a run: absent and zero are the same here.
    pub fn keeps_nothing(&self) -> bool {
        let Self { last, hourly, daily, weekly, monthly, yearly, within } = self;
        [last, hourly, daily, weekly, monthly, yearly].iter().all(|count| count.unwrap_or(0) == 0)
            && within.is_none_or(Span::is_zero)
    }

    /// Whether this rule keeps less than `approved` in any of its lines, so that forgetting under it needs approval anew.
    pub fn is_tighter_than(&self, approved: &Self) -> bool {
        let Self { last, hourly, daily, weekly, monthly, yearly, within } = self;
        let less = |new: &Option<u32>, old: &Option<u32>| new.unwrap_or(0) < old.unwrap_or(0);
        less(last, &approved.last)
            || less(hourly, &approved.hourly)
            || less(daily, &approved.daily)
            || less(weekly, &approved.weekly)
            || less(monthly, &approved.monthly)
            || less(yearly, &approved.yearly)
            || within.unwrap_or_default() < approved.within.unwrap_or_default()
    }
}
