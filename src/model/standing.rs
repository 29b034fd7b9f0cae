//! Where a stack stands: one word and a line for a person at 3 a.m., and the exit code that agrees with it.
//!
//! Every word that may be printed over a finding has its row in `Kind::row`; every list of a [`Report`] that is judged has
//! its line in `lists`. To have a new list judged, add a line there (and a kind, if none fits).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::evidence::Verdict;
use super::plan::{Exposure, LastDrill, Note, Plan, RecoveryForecast, Report};
use super::step::Approval;
use super::units::Span;

/// The line of a verdict stays within this, where its names allow it.
const WIDTH: usize = 110;
/// Of one kind so many are named in the line of a verdict, and the rest is counted.
const NAMED: usize = 3;

/// The verdict on a stack, on what a command did, or on what it looked at.
#[must_use = "a verdict that nobody reads warns nobody"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Ok,
    /// It would come back, but not as the file promises, or nobody knows whether it would.
    Degraded(Vec<Finding>),
    /// Something is damaged, lost, failed, or could not be looked at.
    Failed(Vec<Finding>),
}

/// Something that a person must know of, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    pub kind: Kind,
    pub resource: String,
    pub text: String,
}

/// What sort of thing a finding is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bytes of a backup are wrong or missing.
    Damaged,
    /// A run holds damaged bytes.
    Hurt,
    /// A run was read back, and is not what its manifest says.
    FailedProof,
    /// Runs that somebody else removed.
    Removed,
    /// A source or a repository is gone.
    Lost,
    /// Nothing runs under the project's name in the file, and something under another from the same folder.
    Renamed,
    /// Its key is missing or wrong, so that it could not be looked at.
    Shut,
    /// It could not be looked at.
    Unknown,
    /// A step of this command.
    FailedStep,
    /// The newest run of a policy is incomplete.
    FailedRun,
    /// What is to be undone after a backup was not: its hook failed, or never ran.
    FailedHook,
    FailedDrill,
    /// The command was stopped before its end.
    Stopped,
    /// A recovery has begun and has not ended.
    Unfinished,
    /// The newest run of a service was cut off, and no later one has taken it.
    Interrupted,
    /// The recovery point objective.
    MissedPoint,
    /// The recovery time objective.
    MissedTime,
    /// A drill came back whole, and too late or too old.
    MissedDrill,
    /// A drill did without a service, so that it proves nothing of it.
    DrilledWithout,
    /// A slot of a schedule went by.
    MissedSlot,
    /// Nothing protects it.
    Unprotected,
    /// It was taken, and nothing takes it again.
    Unscheduled,
    /// Files that the newest run has, and that are not there.
    Missing,
    /// A source shrank, and nobody has said that this is right.
    Suspect,
    /// Runs that another host, folder or project has taken under this stack's name.
    Foreign,
    /// An objective that no measurement stands behind.
    Unmeasured,
    /// What stops being good before it is needed again.
    Expiring,
    /// A step waits for somebody's word.
    Held,
}

/// How bad a kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// FAILED: what backups hold is wrong.
    Damage,
    /// FAILED, and nothing but a key in the person's hand mends it.
    Key,
    /// FAILED.
    Failure,
    /// DEGRADED.
    Degraded,
}

impl Severity {
    /// As docs/exit-codes.md has it.
    pub fn code(self) -> u8 {
        match self {
            Self::Damage | Self::Degraded => 8,
            Self::Key => 3,
            Self::Failure => 7,
        }
    }
}

impl Kind {
    pub const ALL: [Self; 28] = [
        Self::Damaged,
        Self::Hurt,
        Self::FailedProof,
        Self::Removed,
        Self::Lost,
        Self::Renamed,
        Self::Shut,
        Self::Unknown,
        Self::FailedStep,
        Self::FailedRun,
        Self::FailedHook,
        Self::FailedDrill,
        Self::Stopped,
        Self::Unfinished,
        Self::Interrupted,
        Self::MissedPoint,
        Self::MissedTime,
        Self::MissedDrill,
        Self::DrilledWithout,
        Self::MissedSlot,
        Self::Unprotected,
        Self::Unscheduled,
        Self::Missing,
        Self::Suspect,
        Self::Foreign,
        Self::Unmeasured,
        Self::Expiring,
        Self::Held,
    ];

    /// How bad it is, the word before its line, and what the verdict calls it.
    fn row(self) -> (Severity, &'static str, &'static str) {
        use Severity::{Damage, Degraded, Failure, Key};
        match self {
            Self::Damaged => (Damage, "DAMAGED", "damaged"),
            Self::Hurt => (Damage, "HURT", "runs hurt"),
            Self::FailedProof => (Damage, "FAILED", "verification failed"),
            Self::Removed => (Damage, "REMOVED", "runs removed by others"),
            Self::Lost => (Failure, "LOST", "lost"),
            Self::Renamed => (Failure, "RENAMED", "project renamed"),
            Self::Shut => (Key, "KEY", "key missing or wrong"),
            Self::Unknown => (Failure, "UNKNOWN", "could not be inspected"),
            Self::FailedStep => (Failure, "FAILED", "failed"),
            Self::FailedRun => (Failure, "FAILED", "newest run incomplete"),
            Self::FailedHook => (Failure, "FAILED", "hook after a backup"),
            Self::FailedDrill => (Damage, "FAILED", "drill failed"),
            Self::Stopped => (Failure, "STOPPED", "stopped"),
            Self::Unfinished => (Failure, "UNFINISHED", "recovery unfinished"),
            Self::Interrupted => (Degraded, "INTERRUPTED", "run interrupted"),
            Self::MissedPoint => (Degraded, "MISSED", "RPO missed"),
            Self::MissedTime => (Degraded, "MISSED", "RTO missed"),
            Self::MissedDrill => (Degraded, "MISSED", "drill missed an objective"),
            Self::DrilledWithout => (Degraded, "WITHOUT", "drilled without"),
            Self::MissedSlot => (Degraded, "MISSED", "schedule missed"),
            Self::Unprotected => (Degraded, "UNPROTECTED", "unprotected"),
            Self::Unscheduled => (Degraded, "UNSCHEDULED", "nothing takes it again"),
            Self::Missing => (Degraded, "MISSING", "files missing"),
            Self::Suspect => (Degraded, "SUSPECT", "suspect"),
            Self::Foreign => (Degraded, "FOREIGN", "runs of another origin"),
            Self::Unmeasured => (Degraded, "UNMEASURED", "RTO not measured"),
            Self::Expiring => (Degraded, "EXPIRES", "expiring"),
            Self::Held => (Degraded, "HELD", "held"),
        }
    }

    pub fn severity(self) -> Severity {
        self.row().0
    }

    /// The word in capitals that stands before it wherever it is printed.
    pub fn word(self) -> &'static str {
        self.row().1
    }

    /// What it is called in the line of a verdict.
    pub fn label(self) -> &'static str {
        self.row().2
    }
}

/// The lists of a report that are judged, and as what: the one place.
fn lists(report: &Report) -> [(Kind, &[Note]); 17] {
    [
        (Kind::Damaged, &report.damaged),
        (Kind::Removed, &report.removed),
        (Kind::Lost, &report.lost),
        (Kind::Renamed, &report.renamed),
        (Kind::Shut, &report.shut),
        (Kind::Unknown, &report.unknown),
        (Kind::FailedRun, &report.failed),
        (Kind::FailedHook, &report.hooks),
        (Kind::Unfinished, &report.unfinished),
        (Kind::Interrupted, &report.interrupted),
        (Kind::MissedSlot, &report.overdue),
        (Kind::Unprotected, &report.unprotected),
        (Kind::Unscheduled, &report.unscheduled),
        (Kind::Missing, &report.missing),
        (Kind::Suspect, &report.suspect),
        (Kind::Foreign, &report.foreign),
        (Kind::Expiring, &report.expiring),
    ]
}

impl Finding {
    pub fn new(kind: Kind, resource: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind, resource: resource.into(), text: text.into() }
    }
}

impl Standing {
    /// What these come to: each once, the worst first.
    pub fn of(findings: impl IntoIterator<Item = Finding>) -> Self {
        let mut findings: Vec<Finding> = findings.into_iter().collect();
        // Of one kind they keep the order that they came in.
        findings.sort_by_key(|finding| finding.kind);
        let mut seen: BTreeSet<Finding> = BTreeSet::new();
        findings.retain(|it| {
            // A word that is waited for is one, whatever waits for it.
            let text = if it.kind == Kind::Held { String::new() } else { it.text.clone() };
            seen.insert(Finding { text, ..it.clone() })
        });
        match findings.first().map(|worst| worst.kind.severity()) {
            None => Self::Ok,
            Some(Severity::Degraded) => Self::Degraded(findings),
            Some(Severity::Damage | Severity::Key | Severity::Failure) => Self::Failed(findings),
        }
    }

    /// Where the stack stands by this plan.
    pub fn of_plan(plan: &Plan) -> Self {
        Self::of_report(&plan.report, &held(plan), plan.now)
    }

    /// As [`Self::of_plan`], of a plan that is no longer at hand: `held` is what [`held`] said of it, and objectives are held
    /// against `now`.
    pub fn of_report(report: &Report, held: &[Note], now: Timestamp) -> Self {
        Self::of(judged(report, held, now))
    }

    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Ok => &[],
            Self::Degraded(findings) | Self::Failed(findings) => findings,
        }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Degraded(_) => "DEGRADED",
            Self::Failed(_) => "FAILED",
        }
    }

    /// `OK`, or the word and the shortest true summary, the worst first.
    pub fn line(&self) -> String {
        let word = self.word();
        let groups = self.groups();
        if groups.is_empty() {
            return word.to_owned();
        }
        let all = (1..=NAMED).rev().map(|named| (named, groups.len()));
        // Then the worst keep their names, and the others are counted.
        let worst = (0..groups.len()).rev().map(|first| (1, first));
        let lines = all.chain(worst).map(|(named, first)| format!("{word}: {}", summary(&groups, named, first)));
        let fits = |line: &String| line.chars().count() <= WIDTH;
        // Counts alone are short enough for any terminal, so that the last of them is given when none fits.
        lines.clone().find(fits).or_else(|| lines.clone().next_back()).unwrap_or_default()
    }

    /// Whether anything of this kind was found.
    pub fn has(&self, kind: Kind) -> bool {
        self.findings().iter().any(|finding| finding.kind == kind)
    }

    fn groups(&self) -> Vec<(Kind, Vec<&str>)> {
        let mut groups: BTreeMap<Kind, Vec<&str>> = BTreeMap::new();
        for finding in self.findings() {
            groups.entry(finding.kind).or_default().push(&finding.resource);
        }
        groups.into_iter().collect()
    }

    /// The exit code that it earns: 0, 3, 7 or 8; DEGRADED is 0 where nobody asked for it to count.
    pub fn code(&self, degraded_counts: bool) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Degraded(_) => {
                if degraded_counts {
                    Severity::Degraded.code()
                } else {
                    0
                }
            }
            // 3 before 7 before 8, as everywhere.
            Self::Failed(findings) => {
                let has = |severity: &Severity| findings.iter().any(|it| it.kind.severity() == *severity);
                [Severity::Key, Severity::Failure].into_iter().find(has).unwrap_or(Severity::Damage).code()
            }
        }
    }
}

/// As printed in JSON.
impl Serialize for Standing {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Standing", 3)?;
        out.serialize_field("word", self.word())?;
        out.serialize_field("line", &self.line())?;
        out.serialize_field("findings", self.findings())?;
        out.end()
    }
}

/// One cause is one line: of what is said in the same words, the resources together. `key` tells apart what may not be folded.
pub fn folded<'a, K: PartialEq>(
    notes: impl IntoIterator<Item = (K, &'a str, &'a str)>,
) -> Vec<(K, Vec<&'a str>, &'a str)> {
    let mut folded: Vec<(K, Vec<&str>, &str)> = Vec::new();
    for (key, resource, text) in notes {
        match folded.iter_mut().find(|(known, _, said)| *known == key && *said == text) {
            Some((_, resources, _)) => resources.push(resource),
            None => folded.push((key, vec![resource], text)),
        }
    }
    folded
}

/// A folded line's two parts: what it is about, in a word, and what is said of it, with all that it concerns.
pub fn told_together(resources: &[&str], text: &str) -> (String, String) {
    match resources {
        [one] => ((*one).to_owned(), text.to_owned()),
        many => (format!("{} with one cause", many.len()), format!("{}: {text}", many.join(", "))),
    }
}

/// The steps of a plan that wait for somebody's word, each word once.
pub fn held(plan: &Plan) -> Vec<Note> {
    let mut held: Vec<Note> = Vec::new();
    for step in plan.held() {
        let Approval::Needed { token, reason } = &step.approval else { continue };
        if held.iter().all(|note| note.resource != *token) {
            let text = format!("{} {}: {reason}", step.action.verb(), step.action.resource());
            held.push(Note::new(token.clone(), text));
        }
    }
    held
}

fn judged(report: &Report, held: &[Note], now: Timestamp) -> Vec<Finding> {
    let noted = |(kind, notes): (Kind, &[Note])| -> Vec<Finding> {
        notes.iter().map(|note| Finding::new(kind, note.resource.clone(), note.text.clone())).collect()
    };
    let mut findings: Vec<Finding> = lists(report).into_iter().flat_map(noted).collect();
    findings.extend(noted((Kind::Held, held)));
    let last = report.drill.as_ref().and_then(|drill| drill.last.as_ref());
    findings.extend(last.and_then(|last| drilled(last, now)));
    findings.extend(last.into_iter().flat_map(|last| &last.without).map(|service| {
        Finding::new(Kind::DrilledWithout, service, "it could not be isolated; the last drill proves nothing of it")
    }));
    // Where a repository could not be looked at, that is what is told: nobody knows which runs lie in it.
    let all_seen = report.no_good_run() == "never";
    findings.extend(report.exposure.iter().filter_map(|exposure| exposed(exposure, all_seen, now)));
    findings.extend(in_time(&report.recovery, report.can_be_drilled()));
    findings
}

/// What the last drill says, if it did not pass.
fn drilled(last: &LastDrill, now: Timestamp) -> Option<Finding> {
    let Verdict::Failed(findings) = &last.verdict else { return None };
    let only_late = !findings.is_empty() && findings.iter().all(|finding| finding.starts_with(MISSED));
    let kind = if only_late { Kind::MissedDrill } else { Kind::FailedDrill };
    let more = match findings.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let first = findings.first().map_or("nothing was said", String::as_str);
    let first = first.strip_prefix(MISSED).unwrap_or(first);
    let ended = if only_late { "missed an objective" } else { "failed" };
    Some(Finding::new(kind, "drill", format!("the drill {} ago {ended}: {first}{more}", Span::between(last.at, now))))
}

/// What a drill's finding begins with, where the stack came back and an objective was not met.
pub const MISSED: &str = "MISSED: ";

fn exposed(exposure: &Exposure, all_seen: bool, now: Timestamp) -> Option<Finding> {
    let name = exposure.service.as_str();
    match (exposure.age(now), exposure.rpo) {
        (None, _) if !all_seen => None,
        (None, None) => Some(Finding::new(Kind::Unprotected, name, "no good run yet")),
        (None, Some(rpo)) => Some(Finding::new(Kind::MissedPoint, name, format!("no good run yet, objective {rpo}"))),
        (Some(age), Some(rpo)) if age > rpo => {
            Some(Finding::new(Kind::MissedPoint, name, format!("last good run {age} old, objective {rpo}")))
        }
        (Some(_), _) => None,
    }
}

/// What the recovery time objectives rest on.
fn in_time(forecast: &RecoveryForecast, can_be_drilled: bool) -> Vec<Finding> {
    let one = |resource: &str, predicted: Option<Span>, rto: Option<Span>| -> Option<Finding> {
        let rto = rto?;
        match predicted {
            None => {
                let next = if can_be_drilled { ": `devstack drill`" } else { "" };
                let text = format!("objective {rto}, and no recovery or drill has measured it{next}");
                Some(Finding::new(Kind::Unmeasured, resource, text))
            }
            Some(time) if time > rto => {
                Some(Finding::new(Kind::MissedTime, resource, format!("predicted {time}, objective {rto}")))
            }
            Some(_) => None,
        }
    };
    let services = forecast.services.iter().filter_map(|it| one(it.service.as_str(), it.back(), it.rto));
    one(WHOLE, forecast.predicted, forecast.rto).into_iter().chain(services).collect()
}

/// What the objective of everything is called among those of services.
const WHOLE: &str = "the stack";

/// `lost: shop/data; RPO missed: shop, site and 3 more`: up to `named` names of each of the `first` kinds; of the others, counts.
fn summary(groups: &[(Kind, Vec<&str>)], named: usize, first: usize) -> String {
    let told = |(index, (kind, resources)): (usize, &(Kind, Vec<&str>))| {
        let named = if index < first { named } else { 0 };
        let mut names: Vec<&str> = Vec::new();
        for resource in resources {
            if !names.contains(resource) {
                names.push(resource);
            }
        }
        // One name too many is as long as its count.
        let shown = if names.len() == named + 1 && named > 0 { names.len() } else { named.min(names.len()) };
        match (shown, names.len() - shown) {
            (0, _) => format!("{}: {}", kind.label(), resources.len()),
            (_, 0) => format!("{}: {}", kind.label(), names.join(", ")),
            (_, more) => format!("{}: {} and {more} more", kind.label(), names[..shown].join(", ")),
        }
    };
    groups.iter().enumerate().map(told).collect::<Vec<_>>().join("; ")
}
