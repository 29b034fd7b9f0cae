//! The exit code that an apply earns.

use crate::model::outcome::{ApplyOutcome, FailureKind, StepOutcome};

/// By section "Exit codes" of the documentation. Where several hold, the cause that a person must act on first wins:
/// a wrong key (3), somebody else's lease (6), a stale plan (5), a missing approval (4), a failed or interrupted part
/// (7), damage or an assertion that does not hold (8). An unwritten journal is a failed part, also where every step is done.
pub fn exit_code(outcome: &ApplyOutcome) -> u8 {
    const PRECEDENCE: [u8; 6] = [3, 6, 5, 4, 7, 8];
    let cut_short = (outcome.interrupted || outcome.unjournalled.is_some()).then_some(7);
    let codes: Vec<u8> = outcome.steps.iter().filter_map(|(_, _, step)| step_code(step)).chain(cut_short).collect();
    PRECEDENCE.into_iter().find(|code| codes.contains(code)).unwrap_or(0)
}

fn step_code(outcome: &StepOutcome) -> Option<u8> {
    match outcome {
        StepOutcome::Done(done) if done.damage.is_empty() => None,
        StepOutcome::Done(_) => Some(8),
        StepOutcome::AlreadyDone { .. } => None,
        StepOutcome::Failed { kind, .. } => Some(match kind {
            FailureKind::Key => 3,
            FailureKind::Locked => 6,
            FailureKind::NeedsReplan => 5,
            FailureKind::Permanent | FailureKind::Transient => 7,
            FailureKind::Damage | FailureKind::Unmet => 8,
        }),
        StepOutcome::Held { .. } => Some(4),
        // Its root cause is a step of its own in the same outcome, and has its code.
        StepOutcome::Skipped { .. } => None,
        StepOutcome::Interrupted => Some(7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::plans::prove;
    use crate::model::ids::PlanId;
    use crate::model::outcome::Done;
    use crate::model::step::StepId;
    use crate::model::units::Span;

    fn outcome(steps: &[StepOutcome]) -> ApplyOutcome {
        ApplyOutcome {
            plan: PlanId::new("p"),
            started: jiff::Timestamp::UNIX_EPOCH,
            took: Span::ZERO,
            steps: steps.iter().map(|step| (StepId(1), prove("local"), step.clone())).collect(),
            interrupted: false,
            unjournalled: None,
        }
    }

    fn failed(kind: FailureKind) -> StepOutcome {
        StepOutcome::Failed { kind, reason: "because".into() }
    }

    #[test]
    fn each_end_has_its_code() {
        let damaged = Done { damage: vec!["pack 0a is truncated".into()], ..Done::default() };
        for (step, code) in [
            (StepOutcome::Done(Done::default()), 0),
            (StepOutcome::AlreadyDone { reason: "slot taken".into() }, 0),
            (StepOutcome::Done(damaged), 8),
            (failed(FailureKind::Key), 3),
            (failed(FailureKind::Locked), 6),
            (failed(FailureKind::NeedsReplan), 5),
            (failed(FailureKind::Permanent), 7),
            (failed(FailureKind::Transient), 7),
            (failed(FailureKind::Damage), 8),
            (failed(FailureKind::Unmet), 8),
            (StepOutcome::Held { token: "forget:local".into() }, 4),
            (StepOutcome::Interrupted, 7),
        ] {
            assert_eq!(exit_code(&outcome(&[StepOutcome::Done(Done::default()), step.clone()])), code, "{step:?}");
        }
        assert_eq!(exit_code(&outcome(&[])), 0);
    }

    #[test]
    fn the_most_pressing_code_wins_in_any_order() {
        let by_precedence = [
            (failed(FailureKind::Key), 3),
            (failed(FailureKind::Locked), 6),
            (failed(FailureKind::NeedsReplan), 5),
            (StepOutcome::Held { token: "t".into() }, 4),
            (failed(FailureKind::Permanent), 7),
            (failed(FailureKind::Damage), 8),
        ];
        for (place, (_, code)) in by_precedence.iter().enumerate() {
            let mut rest: Vec<StepOutcome> = by_precedence[place..].iter().map(|(step, _)| step.clone()).collect();
            assert_eq!(exit_code(&outcome(&rest)), *code);
            rest.reverse();
            assert_eq!(exit_code(&outcome(&rest)), *code);
        }
    }

    #[test]
    fn an_interruption_and_an_unwritten_journal_are_not_success() {
        let done = outcome(&[StepOutcome::Done(Done::default())]);
        assert_eq!(exit_code(&ApplyOutcome { interrupted: true, ..done.clone() }), 7);
        assert_eq!(exit_code(&ApplyOutcome { unjournalled: Some("disk full".into()), ..done }), 7);
    }
}
