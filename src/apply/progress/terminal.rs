//! A line for each running step, redrawn in place; what ended scrolls up.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Names, Receiver, status};
use crate::model::outcome::Event;
use crate::model::plan::Plan;
use crate::model::step::{Estimate, StepId};
use crate::model::units::ByteSize;

/// Often enough that a clock on the line seems to run.
const REDRAW: Duration = Duration::from_millis(200);

pub(super) fn receiver(plan: &Plan) -> Receiver {
    on(plan, MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
}

fn on(plan: &Plan, lines: MultiProgress) -> Receiver {
    let names = Names::of(plan);
    let running: Mutex<BTreeMap<StepId, ProgressBar>> = Mutex::default();
    Box::new(move |event| {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            Event::Started { step, .. } => {
                let bar = lines.add(ProgressBar::no_length().with_style(style(names.estimate(*step))));
                bar.set_message(names.of_step(*step));
                bar.enable_steady_tick(REDRAW);
                running.insert(*step, bar);
            }
            Event::Progress { step, bytes } => {
                if let Some(bar) = running.get(step) {
                    bar.set_position(bytes.0);
                }
            }
            Event::Retrying { .. } => say(&lines, &names, &event),
            Event::Ended { step, .. } => {
                if let Some(bar) = running.remove(step) {
                    bar.finish_and_clear();
                }
                say(&lines, &names, &event);
            }
        }
    })
}

fn say(lines: &MultiProgress, names: &Names, event: &Event) {
    if let Some(line) = names.line(event) {
        // A terminal that is gone reads nothing; the apply goes on and its exit code says how it ended.
        let _ = lines.println(line);
    }
}

fn style(estimate: Estimate) -> ProgressStyle {
    let status = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Writing into the line's own text does not fail.
        let _ = out.write_str(&status(ByteSize(state.pos()), state.elapsed(), estimate));
    };
    // The template is a constant that the test below parses; without it the default style still shows the step.
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.with_key("status", status)
}

const TEMPLATE: &str = "{spinner} {msg}  {elapsed}  {status}";

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Instant;

    use indicatif::TermLike;

    use super::*;
    use crate::apply::plans::{plan, prove, step};
    use crate::model::outcome::{Done, StepOutcome};
    use crate::model::units::Span;

    /// Keeps all that was ever written to it.
    #[derive(Debug, Clone, Default)]
    struct Scroll(Arc<Mutex<String>>);

    impl Scroll {
        /// A bar is drawn now and then by a thread of its own.
        fn wait_for(&self, text: &str) {
            let clock = Instant::now();
            while !self.0.lock().unwrap().contains(text) {
                assert!(clock.elapsed() < Duration::from_secs(60), "{text:?} is not in {:?}", self.0.lock().unwrap());
                std::thread::yield_now();
            }
        }

        fn write(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
    }

    impl TermLike for Scroll {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write(&format!("{text}\n"))
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.write(text)
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_running_step_has_a_line_and_an_ended_one_is_told_for_good() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let scroll = Scroll::default();
        let mut one = step(1, prove("a"), &[]);
        one.estimate.bytes = Some(ByteSize::mib(4));
        let target = ProgressDrawTarget::term_like(Box::new(scroll.clone()));
        let receive = on(&plan(vec![one]), MultiProgress::with_draw_target(target));
        let (verb, resource, at) = (String::new(), String::new(), jiff::Timestamp::UNIX_EPOCH);
        receive(Event::Started { step: StepId(1), verb: verb.clone(), resource: resource.clone(), at });
        receive(Event::Progress { step: StepId(1), bytes: ByteSize::mib(1) });
        receive(Event::Retrying { step: StepId(1), attempt: 2, wait: Span::ZERO, reason: "no answer".into() });
        scroll.wait_for("retry       #1 prove a/run: no answer");
        scroll.wait_for("1.0 MiB of ~4.0 MiB");
        let outcome = StepOutcome::Done(Done::default());
        receive(Event::Ended { step: StepId(1), verb, resource, at, took: Span::from_secs(2), outcome });
        scroll.wait_for("done        #1 prove a/run (2.0 s)");
    }
}
