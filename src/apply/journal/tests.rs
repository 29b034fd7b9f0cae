use super::*;
use crate::apply::plans::{prove, step};
use crate::model::history::Sample;
use crate::model::ids::{PlanId, StackName};
use crate::model::outcome::{Done, FailureKind, StepOutcome};
use crate::model::step::StepId;
use crate::model::units::{ByteSize, Span};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join(".devstack");
    (parent, folder)
}

fn apply_started() -> Entry {
    Entry::ApplyStarted {
        plan: PlanId::new("p"),
        stack: StackName::new("shop"),
        pid: 1,
        devstack_version: "0".into(),
        drill: false,
        steps: 1,
    }
}

fn proved(repository: &str, bytes: u64) -> Entry {
    let outcome = StepOutcome::Done(Done { bytes: ByteSize(bytes), ..Done::default() });
    let took = Span::from_secs(9);
    Entry::ended(&step(1, prove(repository), &[]), &outcome, took, Span::from_millis(bytes), "").unwrap()
}

fn known(name: &str, id: &str) -> Entry {
    Entry::RepositoryKnown { name: RepositoryName::new(name), id: RepositoryId::new(id) }
}

#[test]
fn records_come_back_in_order_and_only_their_owner_reads_them() {
    let (_parent, folder) = folder();
    let journal = Journal::open(&folder).unwrap();
    let apply = ApplyId::random();
    journal.append(Some(&apply), apply_started()).unwrap();
    journal.append(Some(&apply), proved("local", 5)).unwrap();
    let contents = Journal::read(&folder).unwrap();
    let entries: Vec<_> = contents.records.iter().map(|record| record.entry.clone()).collect();
    assert_eq!(entries, [apply_started(), proved("local", 5)]);
    assert!(contents.records.iter().all(|record| record.apply == Some(apply.clone())));
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(folder.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_journal_that_is_not_there_is_empty_and_reading_makes_nothing() {
    let (_parent, folder) = folder();
    assert_eq!(Journal::read(&folder).unwrap(), Contents::default());
    assert_eq!(Journal::history(&folder).unwrap(), History::default());
    assert!(!folder.exists());
}

#[test]
fn a_torn_last_line_is_cut_off_at_every_byte_and_the_next_record_is_whole() {
    let (_parent, folder) = folder();
    let path = folder.join(FILE);
    let journal = Journal::open(&folder).unwrap();
    journal.append(None, known("local", "a")).unwrap();
    let whole = fs::read(&path).unwrap();
    journal.append(None, proved("local", 5)).unwrap();
    let both = fs::read(&path).unwrap();
    for cut in whole.len() + 1..both.len() {
        fs::write(&path, &both[..cut]).unwrap();
        let seen = Journal::read(&folder).unwrap();
        assert!(seen.torn && seen.records.len() == 1 && seen.unreadable == 0, "reading needs no repair");
        let journal = Journal::open(&folder).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        if cut == both.len() - 1 {
            journal.append(None, known("local", "b")).unwrap();
            let seen = Journal::read(&folder).unwrap();
            assert!(!seen.torn && seen.records.len() == 2 && seen.unreadable == 0);
        }
    }
}

#[test]
fn garbage_in_the_middle_is_counted_and_hides_nothing() {
    let (_parent, folder) = folder();
    let journal = Journal::open(&folder).unwrap();
    journal.append(None, known("local", "a")).unwrap();
    let mut raw = OpenOptions::new().append(true).open(folder.join(FILE)).unwrap();
    raw.write_all(b"\xff\xfe\x00 not json\n{\"format\":99,\"at\":\"2026-01-01T00:00:00Z\",\"entry\":{}}\n\n").unwrap();
    journal.append(None, known("offsite", "b")).unwrap();
    let contents = Journal::open(&folder).and_then(|_| Journal::read(&folder)).unwrap();
    assert_eq!((contents.records.len(), contents.unreadable, contents.torn), (2, 3, false));
}

#[test]
fn history_has_the_newest_samples_of_good_ends_alone() {
    let (_parent, folder) = folder();
    let journal = Journal::open(&folder).unwrap();
    journal.append(None, apply_started()).unwrap();
    for bytes in 0..25 {
        journal.append(None, proved("local", bytes)).unwrap();
    }
    let failed = StepOutcome::Failed { kind: FailureKind::Permanent, reason: "no".into() };
    let entry = Entry::ended(&step(1, prove("local"), &[]), &failed, Span::ZERO, Span::ZERO, "").unwrap();
    journal.append(None, entry).unwrap();
    let history = Journal::history(&folder).unwrap();
    let samples = &history.samples["prove/local"];
    assert_eq!(samples.len(), SAMPLES);
    assert_eq!(samples[19], Sample { bytes: ByteSize(24), took: Span::from_millis(24) }, "the last try, not the whole");
    assert_eq!(history.last_apply, Some(Journal::read(&folder).unwrap().records[0].at));
}

#[test]
fn an_apply_that_is_dated_in_the_future_is_not_the_last_one() {
    let now: Timestamp = "2026-11-24T11:00:00Z".parse().unwrap();
    let at = |at| JournalRecord { at, ..JournalRecord::now(None, apply_started()) };
    let (before, ahead) = (at(Span::from_hours(1).before(now)), at(Span::from_hours(24).after(now)));
    let last = |records: &[JournalRecord]| record::history_of(records, now).last_apply;
    assert_eq!(last(&[before.clone(), ahead.clone()]), Some(before.at));
    assert_eq!(last(&[ahead]), None);
}

#[test]
fn a_repository_is_noted_once_for_each_id_and_the_last_one_holds() {
    let (_parent, folder) = folder();
    let journal = Journal::open(&folder).unwrap();
    let name = RepositoryName::new("local");
    for id in ["a", "a", "b", "b"] {
        journal.note_repository(&name, &RepositoryId::new(id)).unwrap();
    }
    assert_eq!(Journal::read(&folder).unwrap().records.len(), 2);
    assert_eq!(Journal::history(&folder).unwrap().known_repositories[&name], RepositoryId::new("b"));
}

#[test]
fn compaction_keeps_the_newest_half_and_what_history_counts() {
    let (_parent, folder) = folder();
    let journal = Journal::open_with(&folder, 8_000).unwrap();
    journal.append(None, known("local", "a")).unwrap();
    journal.append(None, proved("rare", 7)).unwrap();
    for bytes in 0..200 {
        journal.append(None, proved("busy", bytes)).unwrap();
    }
    let contents = Journal::read(&folder).unwrap();
    assert!(contents.unreadable == 0 && !contents.torn);
    assert!(fs::metadata(folder.join(FILE)).unwrap().len() < 9_000);
    assert_eq!(contents.records.last().unwrap().entry, proved("busy", 199));
    let history = Journal::history(&folder).unwrap();
    assert_eq!(history.samples["prove/rare"].len(), 1);
    assert_eq!(history.samples["prove/busy"].len(), SAMPLES);
    assert!(history.known_repositories.contains_key(&RepositoryName::new("local")));
    assert_eq!(fs::metadata(folder.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_leftover_of_a_killed_compaction_is_harmless() {
    let (_parent, folder) = folder();
    let journal = Journal::open_with(&folder, 500).unwrap();
    fs::write(folder.join("journal.new"), b"half a l").unwrap();
    for bytes in 0..10 {
        journal.append(None, proved("busy", bytes)).unwrap();
    }
    let contents = Journal::read(&folder).unwrap();
    assert_eq!((contents.unreadable, contents.torn), (0, false));
    assert_eq!(contents.records.last().unwrap().entry, proved("busy", 9));
}

#[test]
fn writers_at_once_lose_no_record_through_compaction_and_deletion() {
    let (_parent, folder) = folder();
    // Each with a handle of its own, as two processes have.
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let folder = &folder;
            scope.spawn(move || {
                let journal = Journal::open_with(folder, 20_000).unwrap();
                for bytes in 0..50 {
                    journal.append(None, proved(&format!("r{writer}"), bytes)).unwrap();
                }
            });
        }
    });
    let contents = Journal::read(&folder).unwrap();
    assert_eq!((contents.unreadable, contents.torn), (0, false));
    for writer in 0..4 {
        let samples = &Journal::history(&folder).unwrap().samples[&format!("prove/r{writer}")];
        assert_eq!(samples.last().unwrap().bytes, ByteSize(49));
    }
    let journal = Journal::open(&folder).unwrap();
    fs::remove_file(folder.join(FILE)).unwrap();
    journal.append(None, known("local", "a")).unwrap();
    assert_eq!(Journal::read(&folder).unwrap().records.len(), 1);
}

fn hook(entry: &str, sample: &str, ended: Option<Ended>) -> Entry {
    let (step, verb, resource, sample) = (StepId(1), "hook".to_owned(), entry.to_owned(), sample.to_owned());
    let (took, ran, bytes, added, detail) = (Span::ZERO, Span::ZERO, ByteSize(0), ByteSize(0), String::new());
    match ended {
        None => Entry::StepStarted { step, verb, resource, sample },
        Some(ended) => Entry::StepEnded { step, verb, resource, sample, ended, took, ran, bytes, added, detail },
    }
}

#[test]
fn a_restore_that_was_cut_off_is_known_until_one_ends_or_what_is_there_was_taken_on_purpose() {
    for end in ["restore/shop", "restore-raw/shop", "take/shop"] {
        let (_parent, folder) = folder();
        let journal = Journal::open(&folder).unwrap();
        let applies = [ApplyId::random(), ApplyId::random()];
        let cut = || Journal::history(&folder).unwrap().cut_off.contains_key("restore/shop");
        journal.append(Some(&applies[0]), apply_started()).unwrap();
        journal.append(Some(&applies[0]), hook("x", "restore-beside/shop", None)).unwrap();
        assert!(!cut(), "nothing was overwritten");
        journal.append(Some(&applies[0]), hook("x", "restore/shop", None)).unwrap();
        assert!(cut());
        journal.append(Some(&applies[1]), apply_started()).unwrap();
        for (sample, ended) in [
            ("restore/shop", Ended::Failed(FailureKind::Permanent)),
            ("restore/wiki", Ended::Done),
            ("restore-beside/shop", Ended::Done),
        ] {
            journal.append(Some(&applies[1]), hook("x", sample, Some(ended))).unwrap();
            assert!(cut(), "{sample} says nothing of it");
        }
        journal.append(Some(&applies[1]), hook("x", end, Some(Ended::Done))).unwrap();
        assert!(!cut(), "{end}");
    }
}

#[test]
fn what_an_apply_had_begun_that_did_not_come_to_its_end_is_known_with_what_was_undone_since() {
    let (_parent, folder) = folder();
    let journal = Journal::open(&folder).unwrap();
    let applies = [ApplyId::random(), ApplyId::random(), ApplyId::random()];
    let begin = |apply: &ApplyId, sample: &str| journal.append(Some(apply), hook("x", sample, None)).unwrap();
    let end =
        |apply: &ApplyId, sample: &str, ended| journal.append(Some(apply), hook("x", sample, Some(ended))).unwrap();
    let cut = || Journal::history(&folder).unwrap().cut_off;
    let ended = |interrupted| Entry::ApplyEnded { took: Span::ZERO, counts: Counts::default(), interrupted };

    journal.append(Some(&applies[0]), apply_started()).unwrap();
    begin(&applies[0], "hook/daily/before/0");
    end(&applies[0], "hook/daily/before/0", Ended::Done);
    begin(&applies[0], "take/shop");
    begin(&applies[0], "prove/local");
    assert_eq!(cut().keys().collect::<Vec<_>>(), ["hook/daily", "take/shop"]);
    begin(&applies[0], "hook/shop/after/0");
    end(&applies[0], "hook/shop/after/0", Ended::Done);
    assert!(cut()["take/shop"].undone.contains("hook/shop/after/0"), "its own hook has ended well");
    journal.append(Some(&applies[0]), ended(true)).unwrap();
    assert_eq!(cut().len(), 3, "interrupted, it had not come to its end");

    journal.append(Some(&applies[1]), apply_started()).unwrap();
    begin(&applies[1], "hook/daily/after/0");
    end(&applies[1], "hook/daily/after/0", Ended::Failed(FailureKind::Permanent));
    assert!(!cut()["hook/daily"].undone.contains("hook/daily/after/0"));
    end(&applies[1], "hook/daily/after/0", Ended::Done);
    journal.append(Some(&applies[1]), ended(false)).unwrap();
    assert!(cut()["hook/daily"].undone.contains("hook/daily/after/0"), "a later apply has undone it");

    let drill = Entry::ApplyStarted {
        plan: PlanId::new("p"),
        stack: StackName::new("shop"),
        pid: 1,
        devstack_version: "0".into(),
        drill: true,
        steps: 1,
    };
    journal.append(Some(&applies[2]), drill).unwrap();
    begin(&applies[2], "take/other");
    assert!(!cut().contains_key("take/other"), "a drill takes nothing");
}
