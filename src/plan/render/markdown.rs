//! A plan as a comment on a pull request: danger first, then the counts, the graph and the detail in folds.

use jiff::tz::TimeZone;

use super::describe::{approval, bytes, count, what};
use super::escape::code_span;
use super::mermaid::{edges, mermaid};
use super::summary::summary;
use super::text::{TextOptions, text};
use crate::model::ids::StackName;
use crate::model::plan::{Note, Plan};
use crate::model::standing::{Kind, Standing, folded};
use crate::model::step::{Approval, Effect, Step};

/// GitHub refuses comments of more than 65,536 characters; the rest is room for what a caller puts around it.
pub const LONGEST_COMMENT: usize = 60_000;
/// GitHub's mermaid draws no graph with more edges than 500.
const MOST_EDGES: usize = 400;
/// What the parts before the detail may use together.
const BEFORE_DETAIL: usize = 20_000;

/// What a comment begins with, so that the next plan of the stack replaces it instead of adding one more.
pub fn marker(stack: &StackName) -> String {
    // `check` allows nothing else in a name; a name that was not checked must not end the comment.
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    format!("<!-- devstack-plan stack={} -->", stack.as_str().chars().map(plain).collect::<String>())
}

/// The comment, at most [`LONGEST_COMMENT`] characters; what was cut is said where it was cut.
pub fn markdown(plan: &Plan, zone: &TimeZone) -> String {
    let mut out = Page { text: String::new(), length: 0 };
    out.push(&format!("{}\n", marker(&plan.stack)));
    let now = plan.now.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z");
    let standing = Standing::of_plan(plan);
    let line = standing.line();
    let rest = line.strip_prefix(standing.word()).map(|rest| rest.trim_start_matches(": ")).unwrap_or_default();
    // In a code span, so that no name in it draws or mentions anything.
    let rest = if rest.is_empty() { String::new() } else { format!(": {}", code_span(rest)) };
    out.push(&format!("**{}**{rest}\n\n", standing.word()));
    out.push(&format!("### devstack plan: {}\n\n", code_span(plan.stack.as_str())));

    let held: Vec<_> = plan.held().collect();
    let by_effect = |effect: Effect| -> Vec<&Step> {
        let open = plan.steps.iter().filter(|step| !matches!(step.approval, Approval::Needed { .. }));
        open.filter(|step| step.effect == effect).collect()
    };
    for kind in Kind::ALL {
        // Held steps are listed as steps, below.
        let of_kind = standing.findings().iter().filter(|finding| finding.kind == kind && kind != Kind::Held);
        let notes: Vec<Note> = of_kind.map(|it| Note::new(it.resource.clone(), it.text.clone())).collect();
        out.notes(heading(kind), &notes);
    }
    out.steps("Held until somebody approves", &held);
    out.steps("Deletes data", &by_effect(Effect::DeletesData));
    out.steps("Overwrites data", &by_effect(Effect::OverwritesData));
    out.steps("Restarts", &by_effect(Effect::Restarts));
    out.push(&format!("**{}**\n\n", summary(plan)));
    out.notes("Waiting", &plan.report.waiting);

    let foot = format!(
        "\n<sub>plan {} · file {} · observed {now} · devstack {}</sub>\n",
        code_span(plan.id.as_str()),
        code_span(plan.spec_digest.short()),
        code_span(&plan.devstack_version)
    );
    let room = LONGEST_COMMENT - out.length - foot.chars().count();
    out.graph(plan, room / 2);
    let room = LONGEST_COMMENT - out.length - foot.chars().count();
    out.detail(&text(plan, &TextOptions { zone: zone.clone(), all: true }), room);
    out.push(&foot);
    out.text
}

fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::Damaged => "Damaged",
        Kind::Hurt => "Runs that hold damaged data",
        Kind::FailedProof => "Verification failed",
        Kind::Removed => "Runs that somebody else removed",
        Kind::Lost => "Lost",
        Kind::Renamed => "Project renamed",
        Kind::Shut => "Key missing or wrong",
        Kind::Unknown => "Could not be inspected",
        Kind::FailedStep => "Failed",
        Kind::FailedRun => "Newest run incomplete",
        Kind::FailedHook => "Hooks after a backup that failed or never ran",
        Kind::FailedDrill => "The last drill failed",
        Kind::Stopped => "Stopped",
        Kind::Unfinished => "Recovery unfinished",
        Kind::Interrupted => "Newest run interrupted",
        Kind::MissedPoint => "Recovery point objective missed",
        Kind::MissedTime => "Recovery time objective missed",
        Kind::MissedDrill => "The last drill missed an objective",
        Kind::DrilledWithout => "The last drill did without",
        Kind::MissedSlot => "Schedule missed",
        Kind::Unprotected => "Unprotected",
        Kind::Unscheduled => "Nothing takes it again",
        Kind::Missing => "Files that are not there",
        Kind::Suspect => "Shrank",
        Kind::Foreign => "Runs of another origin",
        Kind::Unmeasured => "Recovery time not measured",
        Kind::Expiring => "Expires before it is needed again",
        Kind::Held => "Held until somebody approves",
    }
}

struct Page {
    text: String,
    /// In characters.
    length: usize,
}

impl Page {
    fn push(&mut self, text: &str) {
        self.length += text.chars().count();
        self.text.push_str(text);
    }

    /// A heading and lines, as many as there is room for, with a word on how many there was none for.
    /// `about`: how many things its lines are about.
    fn list(&mut self, heading: &str, about: usize, lines: impl ExactSizeIterator<Item = String>) {
        let total = lines.len();
        if total == 0 {
            return;
        }
        self.push(&format!("**{heading}** ({about})\n\n"));
        for (index, line) in lines.enumerate() {
            if self.length + line.chars().count() > BEFORE_DETAIL {
                self.push(&format!(
                    "- … and {} more, left out for length: `devstack plan` shows them\n",
                    total - index
                ));
                break;
            }
            self.push(&line);
        }
        self.push("\n");
    }

    fn steps(&mut self, heading: &str, steps: &[&Step]) {
        self.list(
            heading,
            steps.len(),
            steps.iter().map(|step| {
                let why = approval(step).unwrap_or_else(|| step.causes.join("; "));
                let bytes = bytes(step);
                let what =
                    if bytes.is_empty() { what(&step.action) } else { format!("{}, {bytes}", what(&step.action)) };
                let id = step.id.0;
                // Not `#4`, which a forge would make a link to its own issue of that number.
                format!("- {id}. {} {}: {}\n", code_span(&step.action.resource()), code_span(&what), code_span(&why))
            }),
        );
    }

    fn notes(&mut self, heading: &str, notes: &[Note]) {
        self.list(
            heading,
            notes.len(),
            folded(notes.iter().map(|note| ((), note.resource.as_str(), note.text.as_str()))).into_iter().map(
                |((), resources, text)| {
                    let resources: Vec<String> = resources.into_iter().map(code_span).collect();
                    format!("- {}: {}\n", resources.join(", "), code_span(text))
                },
            ),
        );
    }

    fn graph(&mut self, plan: &Plan, room: usize) {
        if plan.steps.is_empty() {
            return;
        }
        let drawn = edges(&plan.steps).len();
        let graph = mermaid(plan);
        if drawn > MOST_EDGES || graph.chars().count() + 200 > room {
            let size = count(plan.steps.len(), "step");
            self.push(&format!(
                "The graph ({size}, {drawn} edges) is too large to be drawn here: `devstack plan --format mermaid`.\n\n"
            ));
            return;
        }
        self.push(&format!("<details><summary>Graph</summary>\n\n```mermaid\n{graph}```\n\n</details>\n\n"));
    }

    fn detail(&mut self, detail: &str, room: usize) {
        // The fence is longer than any run of backticks inside it.
        let longest = detail.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        let frame = 200 + 2 * fence.len();
        let mut kept = String::new();
        let (mut used, mut cut) = (frame, 0);
        for line in detail.lines() {
            let length = line.chars().count() + 1;
            if cut > 0 || used + length > room {
                cut += 1;
                continue;
            }
            used += length;
            kept.push_str(line);
            kept.push('\n');
        }
        let note = match cut {
            0 => String::new(),
            cut => format!("{} left out for length: `devstack plan --all` shows everything.\n\n", count(cut, "line")),
        };
        self.push(&format!("<details><summary>Detail</summary>\n\n{fence}text\n{kept}{fence}\n\n{note}</details>\n"));
    }
}
