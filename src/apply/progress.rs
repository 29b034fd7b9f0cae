//! What people and programs see while an apply runs. A verb prints its result on stdout, so what is meant for people
//! goes to stderr; the JSON events are the result of a `--format json` and go to stdout.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::outcome::{Event, FailureKind, StepOutcome};
use crate::model::plan::Plan;
use crate::model::step::{Estimate, StepId};
use crate::model::units::{ByteSize, Span};

mod terminal;

/// A receiver of events, for [`super::executor::execute`].
pub type Receiver = Box<dyn Fn(Event) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressKind {
    /// A line for each running step, redrawn in place, on stderr.
    Terminal,
    /// A line for each start, retry and end, on stderr: for logs.
    Plain,
    /// One JSON object a line, on stdout.
    Json,
    /// Nothing.
    Quiet,
}

impl ProgressKind {
    /// What suits people here: redrawn lines only where somebody looks at them.
    pub fn for_people() -> Self {
        if io::IsTerminal::is_terminal(&io::stderr()) { Self::Terminal } else { Self::Plain }
    }
}

pub fn receiver(kind: ProgressKind, plan: &Plan) -> Receiver {
    match kind {
        ProgressKind::Terminal => terminal::receiver(plan),
        ProgressKind::Plain => plain(plan, io::stderr()),
        ProgressKind::Json => json(io::stdout()),
        ProgressKind::Quiet => Box::new(|_| {}),
    }
}

/// A program that reads bytes once a second can draw as well as one that reads them thousands of times.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

fn json(out: impl Write + Send + 'static) -> Receiver {
    let state = Mutex::new((out, BTreeMap::<StepId, Instant>::new()));
    Box::new(move |event| {
        let (out, told) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Progress { step, .. } = &event {
            if told.get(step).is_some_and(|last| last.elapsed() < JSON_INTERVAL) {
                return;
            }
            told.insert(*step, Instant::now());
        }
        // An event is plain data and always becomes JSON. A reader who has gone misses events, and the apply goes on:
        // its exit code says how it ended.
        if let Ok(line) = serde_json::to_string(&event) {
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    })
}

fn plain(plan: &Plan, out: impl Write + Send + 'static) -> Receiver {
    let names = Names::of(plan);
    let out = Mutex::new(out);
    Box::new(move |event| {
        if let Some(line) = names.line(&event) {
            // As with JSON: nobody to read it is no reason to stop.
            let _ = writeln!(out.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        }
    })
}

/// What the steps are called, how long they should take, and for which reasons tries were repeated: each is told once, however
/// many steps it stops and however often.
struct Names(BTreeMap<StepId, (String, Estimate)>, Mutex<BTreeSet<String>>);

impl Names {
    fn of(plan: &Plan) -> Self {
        let name = |step: &crate::model::step::Step| {
            (step.id, (format!("{} {} {}", step.id, step.action.verb(), step.action.resource()), step.estimate))
        };
        Self(plan.steps.iter().map(name).collect(), Mutex::default())
    }

    fn of_step(&self, id: StepId) -> String {
        self.0.get(&id).map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }

    fn estimate(&self, id: StepId) -> Estimate {
        self.0.get(&id).map(|(_, estimate)| *estimate).unwrap_or_default()
    }

    /// The one line of a start, a retry or an end; none for bytes.
    fn line(&self, event: &Event) -> Option<String> {
        match event {
            Event::Started { step, .. } => {
                let estimate = expectation(self.estimate(*step));
                Some(format!("start       {}{estimate}", self.of_step(*step)))
            }
            Event::Progress { .. } => None,
            Event::Retrying { step, attempt, wait, reason } => {
                let name = self.of_step(*step);
                let is_new = self.1.lock().unwrap_or_else(PoisonError::into_inner).insert(reason.clone());
                let reason = if is_new { reason.as_str() } else { "as before" };
                Some(format!("retry       {name}: {reason}; try {attempt} in {wait}"))
            }
            Event::Ended { step, took, outcome, .. } => {
                Some(format!("{:<11} {}{}", word(outcome), self.of_step(*step), said(outcome, *took)))
            }
        }
    }
}

fn word(outcome: &StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Done(done) if done.damage.is_empty() => "done",
        StepOutcome::Done(_) => "DAMAGED",
        StepOutcome::AlreadyDone { .. } => "already",
        StepOutcome::Failed { kind: FailureKind::Damage, .. } => "DAMAGED",
        StepOutcome::Failed { .. } => "FAILED",
        StepOutcome::Held { .. } => "HELD",
        StepOutcome::Skipped { .. } => "skipped",
        StepOutcome::Interrupted => "interrupted",
    }
}

fn said(outcome: &StepOutcome, took: Span) -> String {
    match outcome {
        StepOutcome::Done(done) => {
            let summary = if done.summary.is_empty() { String::new() } else { format!(": {}", done.summary) };
            let damage: String = done.damage.iter().map(|finding| format!("\n            {finding}")).collect();
            format!("{summary} ({took}){damage}")
        }
        StepOutcome::AlreadyDone { reason } => format!(": {reason}"),
        StepOutcome::Failed { reason, .. } => format!(": {reason} ({took})"),
        StepOutcome::Held { token } => format!(": needs --approve {token}, or a reviewed saved plan"),
        StepOutcome::Skipped { because } => format!(": because of {because}"),
        StepOutcome::Interrupted => String::new(),
    }
}

fn expectation(Estimate { time, bytes }: Estimate) -> String {
    let parts = [bytes.map(|bytes| format!("~{bytes}")), time.map(|time| format!("~{time}"))];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// Bytes so far, their rate, and how long it will still take: by the bytes where their number is expected and some have
/// come, else by the expected time. A step that is over its estimate says nothing of time.
fn status(bytes: ByteSize, elapsed: Duration, estimate: Estimate) -> String {
    let secs = elapsed.as_secs_f64();
    let mut parts = Vec::new();
    if bytes.0 > 0 {
        parts.push(match estimate.bytes {
            Some(expected) => format!("{bytes} of ~{expected}"),
            None => bytes.to_string(),
        });
        // Before the first second a rate is noise.
        if secs >= 1.0 {
            parts.push(format!("{}/s", ByteSize((bytes.0 as f64 / secs) as u64)));
        }
    }
    let by_bytes = estimate.bytes.filter(|expected| bytes.0 > 0 && secs >= 1.0 && expected.0 > bytes.0);
    let left = match (by_bytes, estimate.time) {
        (Some(expected), _) => Some(Duration::from_secs_f64(secs * (expected.0 - bytes.0) as f64 / bytes.0 as f64)),
        (None, Some(time)) => Duration::from(time).checked_sub(elapsed),
        (None, None) => None,
    };
    if let Some(left) = left.filter(|left| !left.is_zero()) {
        parts.push(format!("~{} left", Span::from(left)));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::apply::plans::{plan, prove, step};
    use crate::model::outcome::Done;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ended(outcome: StepOutcome) -> Event {
        let (verb, resource) = ("prove".to_owned(), "a/run".to_owned());
        let at = jiff::Timestamp::UNIX_EPOCH;
        Event::Ended { step: StepId(1), verb, resource, at, took: Span::from_millis(1_200), outcome }
    }

    fn events() -> Vec<Event> {
        let (verb, resource) = ("prove".to_owned(), "a/run".to_owned());
        let at = jiff::Timestamp::UNIX_EPOCH;
        let done = Done { summary: "12.4 MiB read".into(), ..Done::default() };
        vec![
            Event::Started { step: StepId(1), verb, resource, at },
            Event::Progress { step: StepId(1), bytes: ByteSize(7) },
            Event::Progress { step: StepId(1), bytes: ByteSize(8) },
            Event::Retrying { step: StepId(1), attempt: 2, wait: Span::from_millis(300), reason: "no answer".into() },
            ended(StepOutcome::Done(done)),
        ]
    }

    #[test]
    fn plain_lines_tell_start_retry_and_end() {
        let paper = Paper::default();
        let mut one = step(1, prove("a"), &[]);
        one.estimate = Estimate { time: Some(Span::from_secs(6)), bytes: Some(ByteSize::mib(412)) };
        let receive = plain(&plan(vec![one]), paper.clone());
        events().into_iter().for_each(&receive);
        receive(ended(StepOutcome::Skipped { because: StepId(3) }));
        let expected = [
            "start       #1 prove a/run (~412 MiB, ~6.0 s)",
            "retry       #1 prove a/run: no answer; try 2 in 0.3 s",
            "done        #1 prove a/run: 12.4 MiB read (1.2 s)",
            "skipped     #1 prove a/run: because of #3",
        ];
        assert_eq!(paper.text().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_reason_for_trying_again_is_told_once_and_another_too() {
        let paper = Paper::default();
        let receive = plain(&plan(vec![step(1, prove("a"), &[]), step(2, prove("b"), &[])]), paper.clone());
        for (id, attempt, reason) in [(1, 2, "no engine"), (2, 2, "no engine"), (1, 3, "no engine"), (1, 4, "busy")] {
            let (wait, reason) = (Span::from_millis(300), reason.to_owned());
            receive(Event::Retrying { step: StepId(id), attempt, wait, reason });
        }
        let expected = [
            "retry       #1 prove a/run: no engine; try 2 in 0.3 s",
            "retry       #2 prove b/run: as before; try 2 in 0.3 s",
            "retry       #1 prove a/run: as before; try 3 in 0.3 s",
            "retry       #1 prove a/run: busy; try 4 in 0.3 s",
        ];
        assert_eq!(paper.text().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_is_one_object_a_line_with_few_of_the_bytes() {
        let paper = Paper::default();
        let receive = json(paper.clone());
        events().into_iter().for_each(&receive);
        let text = paper.text();
        let read: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut expected = events();
        expected.remove(2);
        assert_eq!(read, expected);
    }

    #[test]
    fn time_left_is_told_from_bytes_or_from_the_expected_time() {
        let both = Estimate { time: Some(Span::from_secs(60)), bytes: Some(ByteSize::mib(100)) };
        let time = Estimate { bytes: None, ..both };
        let at = |mib: u64, secs: u64, estimate| status(ByteSize::mib(mib), Duration::from_secs(secs), estimate);
        assert_eq!(at(25, 10, both), "25.0 MiB of ~100 MiB  2.5 MiB/s  ~30 s left");
        assert_eq!(at(0, 10, both), "~50 s left", "no bytes yet");
        assert_eq!(at(25, 10, time), "25.0 MiB  2.5 MiB/s  ~50 s left");
        assert_eq!(at(120, 10, Estimate { time: None, ..both }), "120 MiB of ~100 MiB  12.0 MiB/s");
        assert_eq!(at(0, 70, time), "", "over its estimate");
        assert_eq!(at(0, 3, Estimate::default()), "");
    }
}
