//! One step, from its first record in the journal to its last, with all its tries.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinError;

use super::write;
use crate::apply::journal::{ApplyId, Entry, Journal};
use crate::apply::retry::{Backoff, jitter};
use crate::apply::runner::{StepContext, StepError, StepRunner};
use crate::model::cancel::Cancel;
use crate::model::outcome::{Event, FailureKind, StepOutcome};
use crate::model::step::{Step, StepId};
use crate::model::units::{ByteSize, Span};

/// How often a wait between two tries looks whether it is interrupted: at once, to a person.
const GLANCE: Duration = Duration::from_millis(50);

/// All that is needed to carry one step out away from the executor's own task.
#[derive(Clone)]
pub(super) struct Job {
    pub step: Step,
    pub runner: Arc<dyn StepRunner>,
    pub journal: Journal,
    pub apply: ApplyId,
    pub backoff: Backoff,
    /// For all tries together.
    pub limit: Duration,
    pub interruption: Cancel,
    pub outcomes: BTreeMap<StepId, StepOutcome>,
    pub tell: UnboundedSender<Told>,
}

/// What a step tells while it runs.
pub(super) enum Told {
    Event(Event),
    /// The number is read when it is passed on; until then further reports only change it. So a step that reports every
    /// block fills no queue.
    Progress(StepId, Arc<Reported>),
}

#[derive(Default)]
pub(super) struct Reported {
    bytes: AtomicU64,
    on_its_way: AtomicBool,
}

impl Told {
    pub fn into_event(self) -> Event {
        match self {
            Self::Event(event) => event,
            Self::Progress(step, reported) => {
                // First the flag: a report between the two is sent once more, and never lost.
                reported.on_its_way.store(false, Ordering::SeqCst);
                Event::Progress { step, bytes: ByteSize(reported.bytes.load(Ordering::SeqCst)) }
            }
        }
    }
}

/// The end of a step.
pub(super) struct Ended {
    pub outcome: StepOutcome,
    pub at: Timestamp,
    pub took: Span,
    /// Why a record of it could not be written.
    pub unjournalled: Option<String>,
}

impl Ended {
    pub fn failed(kind: FailureKind, reason: String) -> Self {
        let outcome = StepOutcome::Failed { kind, reason };
        Self { outcome, at: Timestamp::now(), took: Span::ZERO, unjournalled: None }
    }

    /// Nothing runs that the journal does not tell of.
    pub fn not_started(unjournalled: String) -> Self {
        let failed = Self::failed(FailureKind::Permanent, format!("not started: {unjournalled}"));
        Self { unjournalled: Some(unjournalled), ..failed }
    }
}

/// How a try ended, where it was not well.
enum Trouble {
    Error(StepError),
    Panic(String),
    /// Out of time; whether it came to a good end all the same.
    TimedOut {
        finished: bool,
    },
}

/// The end of the last try, with words for the journal where the outcome has none.
struct Last {
    outcome: StepOutcome,
    ran: Span,
    detail: String,
}

impl Job {
    pub async fn carry_out(self) -> Ended {
        let clock = Instant::now();
        if let Err(reason) = write(&self.journal, &self.apply, Entry::started(&self.step)).await {
            return Ended::not_started(reason);
        }
        let action = &self.step.action;
        let (verb, resource) = (action.verb().to_owned(), action.resource());
        self.tell(Event::Started { step: self.step.id, verb, resource, at: Timestamp::now() });

        let Last { outcome, ran, detail } = self.tries().await;

        let took = Span::from(clock.elapsed());
        let unjournalled = match Entry::ended(&self.step, &outcome, took, ran, &detail) {
            Some(entry) => write(&self.journal, &self.apply, entry).await.err(),
            None => None,
        };
        Ended { outcome, at: Timestamp::now(), took, unjournalled }
    }

    async fn tries(&self) -> Last {
        let deadline = tokio::time::Instant::now() + self.limit;
        let mut attempt = 1;
        loop {
            let clock = Instant::now();
            let tried = self.try_once(deadline).await;
            let last = |outcome, detail| Last { outcome, ran: Span::from(clock.elapsed()), detail };
            let error = match tried {
                Ok(outcome) => return last(outcome, String::new()),
                Err(Trouble::Panic(message)) => return last(failed(FailureKind::Permanent, message), String::new()),
                Err(Trouble::TimedOut { finished }) => {
                    let reason = self.timed_out(finished);
                    return last(failed(FailureKind::Permanent, reason), String::new());
                }
                Err(Trouble::Error(error)) => error,
            };
            let reason = error.to_string();
            // Damage that was found stays found, whoever pressed Ctrl-C meanwhile.
            if self.interruption.is_cancelled() && error.kind != FailureKind::Damage {
                return last(StepOutcome::Interrupted, reason);
            }
            let wait = match error.kind {
                FailureKind::Transient => self.backoff.wait(attempt, jitter()),
                FailureKind::Permanent
                | FailureKind::NeedsReplan
                | FailureKind::Damage
                | FailureKind::Key
                | FailureKind::Locked
                | FailureKind::Unmet => None,
            };
            let Some(wait) = wait.filter(|wait| tokio::time::Instant::now() + *wait < deadline) else {
                let tries = if attempt > 1 { format!(" (tried {attempt} times)") } else { String::new() };
                return last(failed(error.kind, format!("{reason}{tries}")), String::new());
            };
            attempt += 1;
            self.tell(Event::Retrying { step: self.step.id, attempt, wait: wait.into(), reason: reason.clone() });
            self.rest(wait).await;
            if self.interruption.is_cancelled() {
                return last(StepOutcome::Interrupted, reason);
            }
        }
    }

    /// Looks at the preconditions and runs the step, on a blocking thread. It is awaited in any case.
    async fn try_once(&self, deadline: tokio::time::Instant) -> Result<StepOutcome, Trouble> {
        let cancel = self.interruption.child();
        let (job, context_cancel) = (self.clone(), cancel.clone());
        let mut thread = tokio::task::spawn_blocking(move || job.check_and_run(context_cancel));
        let joined = tokio::select! {
            biased;
            joined = &mut thread => joined,
            () = tokio::time::sleep_until(deadline) => {
                cancel.cancel();
                return match thread.await {
                    Ok(Ok(_)) => Err(Trouble::TimedOut { finished: true }),
                    // An error after the time was over is that of being stopped.
                    Ok(Err(_)) => Err(Trouble::TimedOut { finished: false }),
                    Err(error) => Err(panicked(error)),
                };
            }
        };
        match joined {
            Ok(result) => result.map_err(Trouble::Error),
            Err(error) => Err(panicked(error)),
        }
    }

    fn check_and_run(&self, cancel: Cancel) -> Result<StepOutcome, StepError> {
        if let Some(reason) = self.runner.precheck(&self.step)? {
            return Ok(StepOutcome::AlreadyDone { reason });
        }
        let reported = Arc::new(Reported::default());
        let progress = |bytes: ByteSize| {
            reported.bytes.store(bytes.0, Ordering::SeqCst);
            if !reported.on_its_way.swap(true, Ordering::SeqCst) {
                // The executor listens until every step has ended; were it gone, nobody would want the number.
                let _ = self.tell.send(Told::Progress(self.step.id, reported.clone()));
            }
        };
        let context = StepContext::new(cancel, &progress, &self.outcomes);
        self.runner.run(&self.step, &context).map(StepOutcome::Done)
    }

    async fn rest(&self, wait: Duration) {
        let end = tokio::time::Instant::now() + wait;
        while !self.interruption.is_cancelled() && tokio::time::Instant::now() < end {
            tokio::time::sleep_until(end.min(tokio::time::Instant::now() + GLANCE)).await;
        }
    }

    fn timed_out(&self, finished: bool) -> String {
        let limit = Span::from(self.limit);
        if finished {
            format!("timed out after {limit}; it finished later, and the next plan will count that")
        } else {
            format!("timed out after {limit}")
        }
    }

    fn tell(&self, event: Event) {
        // As with progress: nobody listens only where nobody is left.
        let _ = self.tell.send(Told::Event(event));
    }
}

fn failed(kind: FailureKind, reason: String) -> StepOutcome {
    StepOutcome::Failed { kind, reason }
}

fn panicked(error: JoinError) -> Trouble {
    let message = match error.try_into_panic() {
        Ok(payload) => panic_message(payload.as_ref()),
        Err(error) => error.to_string(),
    };
    Trouble::Panic(format!("internal error: {message}; this is a fault of devstack, please report it"))
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the step panicked").to_owned()
}
