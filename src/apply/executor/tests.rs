use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use proptest::prelude::*;

use super::*;
use crate::apply::journal::{Ended as JournalEnd, Journal};
use crate::apply::plans::{end, needing, plan, prove, prune, restore, step, success};
use crate::apply::runner::StepContext;
use crate::model::outcome::Done;
use crate::model::step::{Wait, WaitOn};
use crate::model::units::ByteSize;

type Run = dyn Fn(&Step, &StepContext<'_>) -> Result<Done, StepError> + Send + Sync;
type Precheck = dyn Fn(&Step) -> Result<Option<String>, StepError> + Send + Sync;

/// A runner that does what the test says, and writes down which steps it was given.
struct Scripted {
    run: Box<Run>,
    precheck: Box<Precheck>,
    ran: Mutex<Vec<u32>>,
}

impl Scripted {
    fn new(run: impl Fn(&Step, &StepContext<'_>) -> Result<Done, StepError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { run: Box::new(run), precheck: Box::new(|_| Ok(None)), ran: Mutex::default() })
    }

    fn ran(&self) -> Vec<u32> {
        self.ran.lock().unwrap().clone()
    }
}

impl StepRunner for Scripted {
    fn precheck(&self, step: &Step) -> Result<Option<String>, StepError> {
        (self.precheck)(step)
    }

    fn run(&self, step: &Step, context: &StepContext<'_>) -> Result<Done, StepError> {
        self.ran.lock().unwrap().push(step.id.0);
        (self.run)(step, context)
    }
}

/// What an apply came to, with its journal and events.
struct Trial {
    outcome: ApplyOutcome,
    events: Vec<Event>,
    folder: tempfile::TempDir,
}

impl Trial {
    fn of(&self, step: u32) -> &StepOutcome {
        &self.outcome.steps.iter().find(|(id, _, _)| id.0 == step).unwrap().2
    }

    fn reason(&self, step: u32) -> &str {
        match self.of(step) {
            StepOutcome::Failed { reason, .. } => reason,
            other => panic!("{other:?} is no failure"),
        }
    }
}

fn options() -> ExecuteOptions {
    let backoff = Backoff { first: Duration::ZERO, ..Backoff::default() };
    ExecuteOptions { backoff, ..ExecuteOptions::default() }
}

async fn apply_with(
    steps: Vec<Step>,
    runner: Arc<Scripted>,
    approvals: &Approvals,
    options: ExecuteOptions,
    cancel: Cancel,
) -> Trial {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let events = Mutex::new(Vec::new());
    let record = |event| events.lock().unwrap().push(event);
    let outcome = execute(&plan(steps), approvals, runner, &journal, options, cancel, record).await;
    Trial { outcome, events: events.into_inner().unwrap(), folder }
}

async fn apply(steps: Vec<Step>, runner: Arc<Scripted>) -> Trial {
    apply_with(steps, runner, &Approvals::default(), options(), Cancel::new()).await
}

fn done() -> Result<Done, StepError> {
    Ok(Done::default())
}

fn permanent(text: &str) -> Result<Done, StepError> {
    Err(StepError::permanent(text))
}

/// A place where threads wait for one another; a minute without the others is a failure and not a hang.
#[derive(Default)]
struct Meeting {
    here: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    fn arrive_and_wait_for(&self, count: usize) {
        let mut here = self.here.lock().unwrap();
        *here += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(here, Duration::from_secs(60), |here| *here < count);
        assert!(!waited.unwrap().1.timed_out(), "the other step never came");
    }
}

fn wait_for(cancel: &Cancel) {
    let clock = Instant::now();
    while !cancel.is_cancelled() {
        assert!(clock.elapsed() < Duration::from_secs(60), "never told to stop");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn steps_run_side_by_side() {
    let meeting = Meeting::default();
    let runner = Scripted::new(move |_, _| {
        meeting.arrive_and_wait_for(3);
        done()
    });
    let steps = (1..=3).map(|id| step(id, prove("local"), &[])).collect();
    let trial = apply(steps, runner).await;
    assert!((1..=3).all(|id| trial.of(id).is_success()), "{:?}", trial.outcome);
}

#[tokio::test]
async fn no_more_steps_run_at_once_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let pair = Meeting::default();
    let runner = Scripted::new(move |step, _| {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // The first two overlap for certain, so that the limit is reached.
        if step.id.0 <= 2 {
            pair.arrive_and_wait_for(2);
        }
        now.fetch_sub(1, Ordering::SeqCst);
        done()
    });
    let steps = (1..=20).map(|id| step(id, prove("local"), &[])).collect();
    let limited = ExecuteOptions { parallel: 2, ..options() };
    let trial = apply_with(steps, runner, &Approvals::default(), limited, Cancel::new()).await;
    assert!(trial.outcome.steps.iter().all(|(_, _, outcome)| outcome.is_success()));
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_exclusive_step_has_its_repository_for_itself() {
    let inside: Arc<Mutex<Vec<(u32, bool)>>> = Arc::default();
    let log = inside.clone();
    let runner = Scripted::new(move |step, _| {
        log.lock().unwrap().push((step.id.0, true));
        std::thread::yield_now();
        log.lock().unwrap().push((step.id.0, false));
        done()
    });
    let steps = (1..=30).map(|id| step(id, if id % 3 == 0 { prune("a") } else { prove("a") }, &[])).collect();
    let many = ExecuteOptions { parallel: 8, ..options() };
    let trial = apply_with(steps, runner, &Approvals::default(), many, Cancel::new()).await;
    assert!(trial.outcome.steps.iter().all(|(_, _, outcome)| outcome.is_success()));
    let mut running = BTreeSet::new();
    for (id, entered) in inside.lock().unwrap().iter() {
        if *entered {
            running.insert(*id);
        } else {
            running.remove(id);
        }
        assert!(running.len() <= 1 || running.iter().all(|id| id % 3 != 0), "{running:?}");
    }
}

#[tokio::test]
async fn a_failure_stops_those_who_need_its_success_and_names_the_root() {
    let runner = Scripted::new(|step, _| if step.id.0 == 1 { permanent("disk full") } else { done() });
    let steps = vec![
        step(1, prove("a"), &[]),
        step(2, prove("a"), &[success(1)]),
        step(3, prove("a"), &[success(2)]),
        step(4, prove("a"), &[end(1)]),
        step(5, prove("a"), &[end(3), success(4)]),
        step(6, prove("b"), &[]),
    ];
    let trial = apply(steps, runner.clone()).await;
    let skipped = StepOutcome::Skipped { because: StepId(1) };
    assert_eq!(trial.reason(1), "disk full");
    assert_eq!([trial.of(2), trial.of(3)], [&skipped, &skipped]);
    assert!([4, 5, 6].iter().all(|id| trial.of(*id).is_success()));
    let mut ran = runner.ran();
    ran.sort();
    assert_eq!(ran, [1, 4, 5, 6]);
}

#[tokio::test]
async fn a_held_step_needs_its_own_token_or_a_word_for_everything() {
    let steps = || vec![needing("forget:a", step(1, prune("a"), &[])), step(2, prove("a"), &[success(1)])];
    let token = |token: &str| Approvals { tokens: [token.to_owned()].into(), everything: false };
    for (approvals, runs) in [
        (Approvals::default(), false),
        (token("forget:b"), false),
        (token("forget:a"), true),
        (Approvals { everything: true, ..Approvals::default() }, true),
    ] {
        let runner = Scripted::new(|_, _| done());
        let trial = apply_with(steps(), runner.clone(), &approvals, options(), Cancel::new()).await;
        assert_eq!(runner.ran(), if runs { vec![1, 2] } else { vec![] }, "{approvals:?}");
        if !runs {
            assert_eq!(trial.of(1), &StepOutcome::Held { token: "forget:a".into() });
            assert_eq!(trial.of(2), &StepOutcome::Skipped { because: StepId(1) });
        }
    }
    let mut by_rule = step(1, prune("a"), &[]);
    by_rule.approval = Approval::ByRule;
    let trial = apply(vec![by_rule], Scripted::new(|_, _| done())).await;
    assert!(trial.of(1).is_success());
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again_and_not_for_ever() {
    for (kind, tries) in [
        (FailureKind::Transient, 4),
        (FailureKind::Permanent, 1),
        (FailureKind::NeedsReplan, 1),
        (FailureKind::Damage, 1),
        (FailureKind::Key, 1),
        (FailureKind::Locked, 1),
        (FailureKind::Unmet, 1),
    ] {
        let runner = Scripted::new(move |_, _| Err(StepError::new(kind, "no")));
        let trial = apply(vec![step(1, prove("a"), &[])], runner.clone()).await;
        assert_eq!(runner.ran().len(), tries, "{kind:?}");
        assert!(matches!(trial.of(1), StepOutcome::Failed { kind: ended, .. } if *ended == kind));
        let retrying = trial.events.iter().filter(|event| matches!(event, Event::Retrying { .. })).count();
        assert_eq!(retrying, tries - 1);
    }
    let count = AtomicUsize::new(0);
    let runner = Scripted::new(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(StepError::transient("busy")),
        _ => done(),
    });
    assert!(apply(vec![step(1, prove("a"), &[])], runner).await.of(1).is_success());
}

#[tokio::test]
async fn the_precondition_is_looked_at_before_every_try() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let runner = Arc::new(Scripted {
        run: Box::new(|_, _| Err(StepError::transient("the answer was lost"))),
        precheck: Box::new(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(None),
            _ => Ok(Some("slot 02:15 is taken".into())),
        }),
        ran: Mutex::default(),
    });
    let trial = apply(vec![step(1, prove("a"), &[]), step(2, prove("a"), &[success(1)])], runner.clone()).await;
    assert_eq!(trial.of(1), &StepOutcome::AlreadyDone { reason: "slot 02:15 is taken".into() });
    assert_eq!((runner.ran(), looks.load(Ordering::SeqCst)), (vec![1], 3), "already done counts as success");

    let runner = Arc::new(Scripted {
        run: Box::new(|_, _| done()),
        precheck: Box::new(|_| Err(StepError::needs_replan("the keeper is gone"))),
        ran: Mutex::default(),
    });
    let trial = apply(vec![step(1, prove("a"), &[])], runner.clone()).await;
    assert_eq!((trial.reason(1), runner.ran()), ("the keeper is gone", vec![]));
    assert!(matches!(trial.of(1), StepOutcome::Failed { kind: FailureKind::NeedsReplan, .. }));
}

#[tokio::test]
async fn a_step_out_of_time_is_told_awaited_and_failed() {
    let finished = Arc::new(AtomicUsize::new(0));
    let counted = finished.clone();
    let runner = Scripted::new(move |step, context| match step.id.0 {
        1 => {
            wait_for(&context.cancel);
            counted.fetch_add(1, Ordering::SeqCst);
            permanent("interrupted")
        }
        2 => {
            wait_for(&context.cancel);
            done()
        }
        _ => done(),
    });
    let limits = TimeLimits { data: Duration::from_millis(1), small: Duration::from_secs(60) };
    let steps = vec![
        step(1, prove("a"), &[]),
        step(2, restore("a"), &[]),
        step(3, Action::GenerateKey { repository: "a".parse().unwrap(), key: 0 }, &[end(1)]),
    ];
    let trial =
        apply_with(steps, runner, &Approvals::default(), ExecuteOptions { limits, ..options() }, Cancel::new()).await;
    assert_eq!(finished.load(Ordering::SeqCst), 1, "the step was awaited");
    assert!(trial.reason(1).starts_with("timed out after 0.1 s"), "{}", trial.reason(1));
    assert!(trial.reason(2).contains("finished later"), "{}", trial.reason(2));
    assert!(trial.of(3).is_success(), "one step's time is not another's");
    assert!(!trial.outcome.interrupted);
}

#[tokio::test]
async fn a_panic_is_a_failed_step_and_no_more() {
    let runner = Scripted::new(|step, _| if step.id.0 == 1 { panic!("index out of bounds") } else { done() });
    let steps = vec![step(1, prove("a"), &[]), step(2, prove("a"), &[]), step(3, prove("a"), &[success(1)])];
    let trial = apply(steps, runner).await;
    assert!(trial.reason(1).contains("index out of bounds"));
    assert!(trial.of(2).is_success());
    assert_eq!(trial.of(3), &StepOutcome::Skipped { because: StepId(1) });
}

#[tokio::test]
async fn an_interruption_ends_what_runs_and_starts_nothing_more() {
    let cancel = Cancel::new();
    let (interrupt, meeting) = (cancel.clone(), Meeting::default());
    let runner = Scripted::new(move |step, context| {
        meeting.arrive_and_wait_for(3);
        if step.id.0 == 1 {
            interrupt.cancel();
        }
        wait_for(&context.cancel);
        match step.id.0 {
            1 => done(),
            2 => Err(StepError::transient("interrupted")),
            _ => Err(StepError::damage("pack 0a is truncated")),
        }
    });
    let waits: [&[Wait]; 6] = [&[], &[], &[], &[success(1)], &[success(2)], &[end(2)]];
    let steps = (1..).zip(waits).map(|(id, waits)| step(id, prove("a"), waits)).collect();
    let trial = apply_with(steps, runner.clone(), &Approvals::default(), options(), cancel).await;
    assert!(trial.outcome.interrupted);
    assert!(trial.of(1).is_success(), "a step that finished is done");
    assert_eq!(trial.of(2), &StepOutcome::Interrupted);
    assert!(matches!(trial.of(3), StepOutcome::Failed { kind: FailureKind::Damage, .. }), "damage stays found");
    assert!([4, 5, 6].iter().all(|id| trial.of(*id) == &StepOutcome::Interrupted), "{:?}", trial.outcome);
    assert_eq!(runner.ran().len(), 3, "and no retry");
}

#[tokio::test]
async fn an_interruption_ends_a_wait_between_two_tries() {
    let cancel = Cancel::new();
    let interrupt = cancel.clone();
    let runner = Scripted::new(|_, _| Err(StepError::transient("busy")));
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    // Long tries, so that only the interruption can end this test in time; full jitter may make one of them short.
    let backoff = Backoff { tries: 1_000, first: Duration::from_secs(3_600), cap: Duration::from_secs(3_600) };
    let events = move |event| {
        if matches!(event, Event::Retrying { .. }) {
            interrupt.cancel();
        }
    };
    let one = plan(vec![step(1, prove("a"), &[])]);
    let options = ExecuteOptions { backoff, ..options() };
    let outcome = execute(&one, &Approvals::default(), runner, &journal, options, cancel, events).await;
    assert_eq!(outcome.steps[0].2, StepOutcome::Interrupted);
}

#[tokio::test]
async fn an_apply_that_was_interrupted_before_it_began_runs_nothing() {
    let cancel = Cancel::new();
    cancel.cancel();
    let runner = Scripted::new(|_, _| done());
    let steps = vec![needing("t", step(1, prove("a"), &[])), step(2, prove("a"), &[])];
    let trial = apply_with(steps, runner.clone(), &Approvals::default(), options(), cancel).await;
    assert_eq!(runner.ran(), Vec::<u32>::new());
    assert_eq!([trial.of(1), trial.of(2)], [&StepOutcome::Held { token: "t".into() }, &StepOutcome::Interrupted]);
}

#[tokio::test]
async fn a_steps_start_is_on_the_disk_before_it_runs_and_its_end_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let seen = move |id: StepId| {
        let records = Journal::read(&path).unwrap().records;
        let started = |entry: &Entry| matches!(entry, Entry::StepStarted { step, .. } if *step == id);
        let ended = |entry: &Entry| matches!(entry, Entry::StepEnded { step, .. } if *step == id);
        let has = |what: &dyn Fn(&Entry) -> bool| records.iter().any(|record| what(&record.entry));
        (has(&started), has(&ended))
    };
    let runner = Arc::new(Scripted {
        run: Box::new(move |step, _| {
            assert_eq!(seen(step.id), (true, false));
            let before = StepId(step.id.0 - 1);
            assert_eq!(seen(before), (before.0 > 0, before.0 > 0), "the step before has its end written");
            done()
        }),
        precheck: Box::new(|_| Ok(None)),
        ran: Mutex::default(),
    });
    let journal = Journal::open(folder.path()).unwrap();
    let chain =
        plan(vec![step(1, prove("a"), &[]), step(2, prove("a"), &[success(1)]), step(3, prove("a"), &[end(2)])]);
    let outcome =
        execute(&chain, &Approvals::default(), runner, &journal, options(), Cancel::new(), |_: Event| {}).await;
    assert!(outcome.steps.iter().all(|(_, _, outcome)| outcome.is_success()), "{outcome:?}");
    let records = Journal::read(folder.path()).unwrap().records;
    assert!(matches!(records[0].entry, Entry::ApplyStarted { steps: 3, .. }));
    assert!(matches!(records[2].entry, Entry::StepEnded { ended: JournalEnd::Done, .. }));
    let counts = Counts { done: 3, ..Counts::default() };
    assert!(
        matches!(records[7].entry, Entry::ApplyEnded { counts: c, interrupted: false, .. } if c == counts),
        "{records:?}"
    );
    assert_eq!(records.len(), 8);
}

#[tokio::test]
async fn nothing_runs_that_cannot_be_journalled() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("devstack");
    let journal = Journal::open(&inside).unwrap();
    let gone = inside.clone();
    let runner = Scripted::new(move |_, _| {
        std::fs::remove_dir_all(&gone).unwrap();
        done()
    });
    let chain = plan(vec![
        step(1, prove("a"), &[]),
        step(2, prove("a"), &[end(1)]),
        step(3, prove("a"), &[success(2)]),
        step(4, prove("a"), &[end(3)]),
    ]);
    let outcome =
        execute(&chain, &Approvals::default(), runner.clone(), &journal, options(), Cancel::new(), |_: Event| {}).await;
    assert_eq!(runner.ran(), [1]);
    assert!(outcome.steps[0].2.is_success(), "it was done, whatever became of its record");
    assert!(
        matches!(&outcome.steps[1].2, StepOutcome::Failed { reason, .. } if reason.starts_with("not started: the journal"))
    );
    assert_eq!(outcome.steps[2].2, StepOutcome::Skipped { because: StepId(2) });
    assert!(matches!(&outcome.steps[3].2, StepOutcome::Failed { .. }));
    assert!(outcome.unjournalled.is_some());
}

#[tokio::test]
async fn a_step_reads_how_those_it_waits_for_ended() {
    let runner = Scripted::new(|step, context| match step.id.0 {
        1 => Ok(Done { bytes: ByteSize(7), ..Done::default() }),
        2 => permanent("gone"),
        _ => {
            assert!(matches!(context.outcome(StepId(1)), Some(StepOutcome::Done(done)) if done.bytes == ByteSize(7)));
            assert!(matches!(context.outcome(StepId(2)), Some(StepOutcome::Failed { .. })));
            done()
        }
    });
    let steps = vec![step(1, prove("a"), &[]), step(2, prove("a"), &[]), step(3, prove("a"), &[end(1), end(2)])];
    let trial = apply(steps, runner).await;
    assert!(trial.of(3).is_success(), "{:?}", trial.of(3));
}

#[tokio::test]
async fn events_of_a_step_come_in_order_and_the_last_bytes_are_told() {
    let runner = Scripted::new(|_, context| {
        (1..=10_000).for_each(|bytes| context.progress(ByteSize(bytes)));
        done()
    });
    let trial = apply((1..=3).map(|id| step(id, prove("a"), &[])).collect(), runner).await;
    for id in (1..=3).map(StepId) {
        let own: Vec<&Event> = trial
            .events
            .iter()
            .filter(|event| match event {
                Event::Started { step, .. }
                | Event::Progress { step, .. }
                | Event::Retrying { step, .. }
                | Event::Ended { step, .. } => *step == id,
            })
            .collect();
        assert!(matches!(own.first(), Some(Event::Started { .. })));
        assert!(matches!(own[own.len() - 2], Event::Progress { bytes: ByteSize(10_000), .. }), "{own:?}");
        assert!(matches!(own.last(), Some(Event::Ended { .. })));
    }
}

#[tokio::test]
async fn a_malformed_plan_runs_nothing_and_fails_whole() {
    let runner = Scripted::new(|_, _| done());
    let trial =
        apply(vec![step(1, prove("a"), &[success(2)]), step(2, prove("a"), &[success(1)])], runner.clone()).await;
    assert_eq!(runner.ran(), Vec::<u32>::new());
    assert!(trial.reason(2).contains("waits for itself"));
    assert_eq!(Journal::read(trial.folder.path()).unwrap().records, []);
}

/// What a step of a random plan does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Succeed,
    Fail,
    Held,
}

fn any_plan() -> impl Strategy<Value = Vec<(Act, bool, Vec<Option<WaitOn>>)>> {
    let act = prop_oneof![6 => Just(Act::Succeed), 2 => Just(Act::Fail), 1 => Just(Act::Held)];
    let wait = prop_oneof![3 => Just(None), 1 => Just(Some(WaitOn::Success)), 1 => Just(Some(WaitOn::End))];
    // Step n has a wait, or none, for each step before it.
    prop::collection::vec((act, any::<bool>(), prop::collection::vec(wait, 8)), 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_any_plan_each_step_ends_once_after_its_waits_and_is_skipped_only_for_cause(shape in any_plan()) {
        let steps: Vec<Step> = (1_u32..).zip(&shape).map(|(id, (act, exclusive, waits))| {
            let waits: Vec<Wait> = (1..id)
                .zip(waits)
                .filter_map(|(earlier, on)| Some(Wait { step: StepId(earlier), on: (*on)? }))
                .collect();
            let step = step(id, if *exclusive { prune("a") } else { prove("a") }, &waits);
            if *act == Act::Held { needing("t", step) } else { step }
        }).collect();
        let acts: Vec<Act> = shape.iter().map(|(act, _, _)| *act).collect();
        let runner = Scripted::new(move |step, _| match acts[step.id.0 as usize - 1] {
            Act::Succeed => done(),
            Act::Fail | Act::Held => permanent("no"),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let trial = runtime.block_on(apply(steps.clone(), runner.clone()));

        let mut ended = BTreeMap::new();
        for (place, event) in trial.events.iter().enumerate() {
            match event {
                Event::Started { step, .. } => {
                    let waits = &steps[step.0 as usize - 1].waits;
                    prop_assert!(waits.iter().all(|wait| ended.contains_key(&wait.step)), "{step} started too early");
                }
                Event::Ended { step, .. } => {
                    let waits = &steps[step.0 as usize - 1].waits;
                    prop_assert!(waits.iter().all(|wait| ended.contains_key(&wait.step)), "{step} ended too early");
                    prop_assert_eq!(ended.insert(*step, place), None, "{} ended twice", step);
                }
                Event::Progress { .. } | Event::Retrying { .. } => {}
            }
        }
        prop_assert_eq!(ended.len(), steps.len());
        for step in &steps {
            let outcome = trial.of(step.id.0);
            let mut needed = step.waits.iter().filter(|wait| wait.on == WaitOn::Success);
            let let_down = needed.any(|wait| !trial.of(wait.step.0).is_success());
            let held = matches!(outcome, StepOutcome::Held { .. });
            prop_assert_eq!(matches!(outcome, StepOutcome::Skipped { .. }), let_down && !held);
            if let StepOutcome::Skipped { because } = outcome {
                let root = trial.of(because.0);
                let is_root = matches!(root, StepOutcome::Failed { .. } | StepOutcome::Held { .. });
                prop_assert!(is_root, "{root:?}");
            }
        }
        let ran: BTreeSet<u32> = runner.ran().into_iter().collect();
        prop_assert_eq!(ran.len(), runner.ran().len(), "nothing runs twice");
    }
}
