//! Trees back on disk, records, runs, forgetting and pruning.

mod repository_support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use devstack::model::cancel::Cancel;
use devstack::model::evidence::{Level, Proof, Verdict};
use devstack::model::ids::{Digest, PlanId, SnapshotId, StackName};
use devstack::model::record::{Generation, PlanUsed, Record};
use devstack::model::run::{Artifact, ArtifactKind, Manifest, RECORD_FORMAT, Sealed, ServiceResult, Taken};
use devstack::model::units::{ByteSize, Span};
use devstack::repository::*;
use jiff::Timestamp;
use repository_support::*;

/// Every entry beneath `root` as the files engine would list it.
fn tree(root: &Path) -> Vec<Entry> {
    let walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name();
    walk.into_iter()
        .map(|found| {
            let found = found.unwrap();
            let path = Path::new("/").join(found.path().strip_prefix(root).unwrap());
            let entry = local(path.to_str().unwrap_or("/"), found.path());
            let kind = match found.file_type() {
                kind if kind.is_dir() => EntryKind::Folder,
                kind if kind.is_symlink() => EntryKind::Symlink(fs::read_link(found.path()).unwrap()),
                kind if kind.is_file() => EntryKind::LocalFile(found.path().to_owned()),
                _ => EntryKind::Fifo,
            };
            Entry { path, kind, ..entry }
        })
        .collect()
}

/// What must be the same after a restore.
fn picture(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let walk = walkdir::WalkDir::new(root).min_depth(1);
    walk.into_iter()
        .map(|found| {
            let found = found.unwrap();
            let meta = found.path().symlink_metadata().unwrap();
            let content = match meta.file_type() {
                kind if kind.is_file() => fs::read(found.path()).unwrap(),
                kind if kind.is_symlink() => fs::read_link(found.path()).unwrap().as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            };
            let path = found.path().strip_prefix(root).unwrap().to_owned();
            (path, (meta.mode(), meta.mtime(), meta.mtime_nsec(), content))
        })
        .collect()
}

fn odd_tree(root: &Path) {
    fs::create_dir_all(root.join("a/empty folder")).unwrap();
    fs::create_dir_all(root.join("a.d/deep/deeper")).unwrap();
    fs::write(root.join("a/zero"), "").unwrap();
    fs::write(root.join("a/ünïcode \"quoted\"\n\\name"), "x").unwrap();
    fs::write(root.join("a").join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), "y").unwrap();
    fs::write(root.join("a.d/deep/deeper/large"), noise(40 << 20, 9)).unwrap();
    let mut sparse = vec![0; 8 << 20];
    sparse[4 << 20] = 1;
    fs::write(root.join("sparse"), sparse).unwrap();
    symlink("../somewhere/else", root.join("a/link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff-target"), root.join("raw-link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
    fs::set_permissions(root.join("sparse"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("a/zero"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(root.join("a.d/deep"), fs::Permissions::from_mode(0o2555)).unwrap();
    let when = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    fs::File::open(root.join("a/empty folder")).unwrap().set_modified(when).unwrap();
    fs::File::open(root.join("sparse")).unwrap().set_modified(when).unwrap();
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let bench = bench();
    let (source, target) = (bench.folder.path().join("source"), bench.folder.path().join("target"));
    fs::create_dir(&source).unwrap();
    odd_tree(&source);
    let archived = archive(&bench.store, tree(&source)).unwrap();
    let reader = bench.store.reader().unwrap();
    let options = RestoreOptions { ownership: true, ..RestoreOptions::default() };
    let restored = reader.restore_tree(&archived.snapshot, &target, &options, &Cancel::new(), &|_| {}).unwrap();
    assert_eq!((restored.files, restored.bytes), (archived.files, archived.bytes));
    assert_eq!(picture(&target), picture(&source));
    assert!(fs::metadata(target.join("sparse")).unwrap().blocks() * 512 < 1 << 20);
    // Once more over what is there.
    let _ = reader.restore_tree(&archived.snapshot, &target, &options, &Cancel::new(), &|_| {}).unwrap();
    assert_eq!(picture(&target), picture(&source));

    let only = RestoreOptions { only: Some("/a.d/deep/deeper".into()), ..RestoreOptions::default() };
    let part = bench.folder.path().join("part");
    assert_eq!(reader.restore_tree(&archived.snapshot, &part, &only, &Cancel::new(), &|_| {}).unwrap().files, 1);
    assert_eq!(picture(&part).len(), 4);

    let plain = reader.listing(&archived.snapshot, false, &Cancel::new(), &|_| {}).unwrap();
    assert_eq!(plain, reader.listing(&archived.snapshot, true, &Cancel::new(), &|_| {}).unwrap());
    assert_eq!((plain.files, plain.bytes, plain.symlinks), (archived.files, archived.bytes, 2));
    let again = archive_at(&bench.store, 9, Some(archived.snapshot.clone()), tree(&source)).unwrap();
    let reader = bench.store.reader().unwrap();
    assert_eq!(reader.listing(&again.snapshot, false, &Cancel::new(), &|_| {}).unwrap().digest, plain.digest);
    assert_eq!(reader.entries(&again.snapshot).unwrap().filter(Result::is_ok).count(), picture(&source).len());
}

#[test]
fn a_restore_never_follows_a_link_out_of_its_target() {
    let bench = bench();
    let folder = |path: &str| Entry {
        path: path.into(),
        meta: EntryMeta { mode: 0o755, ..Default::default() },
        kind: EntryKind::Folder,
    };
    let archived = archive(&bench.store, vec![folder("/in"), bytes("/in/file", "inside")]).unwrap();
    let (target, outside) = (bench.folder.path().join("target"), bench.folder.path().join("outside"));
    fs::create_dir_all(&target).unwrap();
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, target.join("in")).unwrap();
    let reader = bench.store.reader().unwrap();
    // Who wants nothing moved is told, and nothing is written.
    let keep = RestoreOptions { keep: true, ..RestoreOptions::default() };
    let outcome = reader.restore_tree(&archived.snapshot, &target, &keep, &Cancel::new(), &|_| {});
    assert!(matches!(outcome, Err(RepositoryError::Restore { .. })), "{outcome:?}");
    let put = reader.restore_tree(&archived.snapshot, &target, &RestoreOptions::default(), &Cancel::new(), &|_| {});
    assert_eq!(put.unwrap().aside, [Path::new("/in.before-restore")]);
    assert_eq!(fs::read_link(target.join("in.before-restore")).unwrap(), outside);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // A link where a file is to be is replaced, not written through.
    fs::remove_file(target.join("in/file")).unwrap();
    symlink(outside.join("victim"), target.join("in/file")).unwrap();
    let _ =
        reader.restore_tree(&archived.snapshot, &target, &RestoreOptions::default(), &Cancel::new(), &|_| {}).unwrap();
    assert_eq!(fs::read(target.join("in/file")).unwrap(), b"inside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn what_a_restore_that_stopped_half_way_leaves_is_open_to_its_owner_and_swept_by_the_next() {
    let bench = bench();
    let (source, target) = (bench.folder.path().join("source"), bench.folder.path().join("target"));
    fs::create_dir_all(source.join("sub/inner")).unwrap();
    for (path, mode) in [("sub/inner", 0o2750), ("sub", 0o755)] {
        fs::set_permissions(source.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(source.join("sub/inner/it"), vec![7; 100]).unwrap();
    fs::write(
        source.join("sub/large"),
        (0..3 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    let archived = archive(&bench.store, tree(&source)).unwrap();
    let reader = bench.store.reader().unwrap();
    let put = |target: &Path, keep| {
        let options = RestoreOptions { keep, ..RestoreOptions::default() };
        reader.restore_tree(&archived.snapshot, target, &options, &Cancel::new(), &|_| {})
    };
    for keep in [false, true] {
        let left = [target.join("sub/.devstack-restoring-00"), target.join("sub/inner/.devstack-restoring-11")];
        fs::create_dir_all(target.join("sub/inner")).unwrap();
        left.iter().for_each(|path| fs::write(path, "half").unwrap());
        let _ = put(&target, keep).unwrap();
        assert!(!left.iter().any(|path| path.exists()), "keep: {keep}");
    }
    let packs = files(&bench.site.path().join("data"));
    flip(packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap());
    let half = bench.folder.path().join("half");
    put(&half, true).unwrap_err();
    let mode = |path: &str| fs::metadata(half.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("sub"), mode("sub/inner")), (0o755, 0o2750));
}

#[test]
fn what_became_of_another_kind_is_moved_aside_and_nothing_of_it_is_lost() {
    let make = |path: &Path, kind: &str| match kind {
        "file" => fs::write(path, "a file").unwrap(),
        "folder" => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("inner"), "in a folder").unwrap();
        }
        "link" => symlink("inner", path).unwrap(),
        _ => rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap(),
    };
    for then in ["file", "folder", "link", "pipe"] {
        for now in ["file", "folder", "link", "pipe"] {
            let bench = bench();
            let (source, target) = (bench.folder.path().join("source"), bench.folder.path().join("target"));
            fs::create_dir_all(source.join("sub")).unwrap();
            fs::create_dir_all(target.join("sub")).unwrap();
            make(&source.join("sub/it"), then);
            make(&target.join("sub/it"), now);
            let was = picture(&target.join("sub"));
            let archived = archive(&bench.store, tree(&source)).unwrap();
            let reader = bench.store.reader().unwrap();
            let put = |options: &RestoreOptions| {
                reader.restore_tree(&archived.snapshot, &target, options, &Cancel::new(), &|_| {})
            };
            let changed = (then == "folder") != (now == "folder");
            let keep = RestoreOptions { keep: true, ..RestoreOptions::default() };
            assert_eq!(put(&keep).is_err(), changed, "{then} over {now}");
            assert_eq!(picture(&target.join("sub")), was, "{then} over {now}: what is there was not left alone");
            let options = RestoreOptions::default();
            let aside = put(&options).unwrap().aside;
            assert_eq!(aside.len(), usize::from(changed), "{then} over {now}: {aside:?}");
            if changed {
                assert_eq!(aside, [Path::new("/sub/it.before-restore")]);
                fs::rename(target.join("sub/it.before-restore"), target.join("it")).unwrap();
                let moved: BTreeMap<_, _> =
                    picture(&target).into_iter().filter(|(path, _)| path.starts_with("it")).collect();
                assert_eq!(moved, was, "{then} over {now}");
                // Once more, where that name is taken.
                make(&target.join("sub/it.before-restore"), "file");
                drop(fs::remove_dir_all(target.join("sub/it")).or_else(|_| fs::remove_file(target.join("sub/it"))));
                make(&target.join("sub/it"), now);
                assert_eq!(put(&options).unwrap().aside, [Path::new("/sub/it.before-restore-2")]);
                fs::remove_dir_all(target.join("sub")).unwrap();
                fs::remove_dir_all(target.join("it")).or_else(|_| fs::remove_file(target.join("it"))).unwrap();
                let _ = put(&options).unwrap();
            }
            let (ours, theirs) = (picture(&target), picture(&source));
            assert_eq!(ours.get(Path::new("sub/it")), theirs.get(Path::new("sub/it")), "{then} over {now}");
        }
    }
}

#[test]
fn a_damaged_pack_is_never_read_back_as_good() {
    let bench = bench();
    let archived = archive(&bench.store, vec![bytes("/a", noise(3 << 20, 2))]).unwrap();
    let packs = files(&bench.site.path().join("data"));
    flip(packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap());
    let reader = bench.store.reader().unwrap();
    let cancel = Cancel::new();
    let failures = [
        reader.read_stream(&archived.snapshot, "/a", &mut Vec::new(), &cancel, &|_| {}).err().unwrap(),
        reader.listing(&archived.snapshot, true, &cancel, &|_| {}).err().unwrap(),
        reader
            .restore_tree(
                &archived.snapshot,
                &bench.folder.path().join("t"),
                &RestoreOptions::default(),
                &cancel,
                &|_| {},
            )
            .err()
            .unwrap(),
    ];
    for failure in failures {
        assert!(matches!(&failure, RepositoryError::Content { path, .. } if path == Path::new("/a")), "{failure:?}");
    }
    assert_eq!(fs::read_dir(bench.folder.path().join("t")).unwrap().count(), 0);
}

fn manifest(snapshot: &SnapshotId) -> Manifest {
    let Tags { stack, run, service, policy } = tags();
    let artifact = Artifact {
        name: "/a".into(),
        kind: ArtifactKind::Stream,
        bytes: ByteSize(1),
        sha256: Digest::of("a"),
        counts: BTreeMap::new(),
    };
    let taken = Taken {
        snapshot: snapshot.clone(),
        tree: None,
        engine: "sqlite".into(),
        engine_version: "3".into(),
        artifacts: vec![artifact],
        started: at(0),
        took: Span::from_secs(1),
        added: ByteSize(1),
        suspect: None,
        empty: false,
        image: None,
        certificates: Vec::new(),
        notes: Vec::new(),
    };
    Manifest {
        format: RECORD_FORMAT,
        stack,
        run: run.clone(),
        policy,
        slot: None,
        started: at(0),
        finished: at(5),
        expected: vec![service.clone()],
        services: BTreeMap::from([(service, ServiceResult::Taken(taken))]),
        parent: None,
        base: run,
        spec_digest: Digest::of("spec"),
        devstack_version: "0".into(),
        sealed: Sealed::ByItsApply,
        compose: None,
        origin: None,
        unprotected: None,
        hooks: vec![],
    }
}

fn proof(second: i64) -> Proof {
    let levels = Level::PROOF.into_iter().map(|level| (level, Verdict::Passed)).collect();
    let (run, took, read) = (tags().run, Span::ZERO, ByteSize(1));
    Proof {
        format: RECORD_FORMAT,
        run,
        at: at(second),
        took,
        read,
        levels,
        services: BTreeMap::new(),
        snapshots: vec![],
        notes: vec![],
    }
}

#[test]
fn records_pair_into_runs_and_go_in_order() {
    let bench = bench();
    let (store, shop) = (&bench.store, StackName::new("shop"));
    let archived = archive(store, vec![bytes("/a", noise(2 << 20, 4))]).unwrap();
    let facts = store.facts(&shop).unwrap();
    assert_eq!(facts.unsealed.len(), 1);
    assert_eq!(facts.unsealed[0].snapshots, [(archived.snapshot.clone(), tags().service, at(0))]);

    let sealed = Record::Manifest(Box::new(manifest(&archived.snapshot)));
    let record =
        store.write_record(&shop, &sealed, &[("devstack.yaml", b"version: 1\n"), ("z/compose.yml", b"")]).unwrap();
    for second in [20, 10] {
        store.write_record(&shop, &Record::Proof(proof(second)), &[]).unwrap();
    }
    let plan = PlanId::new("p");
    store.write_record(&shop, &Record::PlanUsed(PlanUsed { format: 1, plan: plan.clone(), at: at(1) }), &[]).unwrap();
    for number in [2, 3, 1] {
        let spec_digest = Digest::of("s");
        let generation = Generation { format: 1, number, spec_digest, plan: plan.clone(), at: at(1) };
        store.write_record(&shop, &Record::Generation(generation), &[]).unwrap();
    }
    let facts = Store::open(&bench.site, &[passphrase(PASSPHRASE)]).unwrap().facts(&shop).unwrap();
    assert!(facts.unsealed.is_empty());
    assert_eq!(facts.runs.len(), 1);
    assert_eq!((&facts.runs[0].record, &facts.runs[0].manifest), (&record, &manifest(&archived.snapshot)));
    // Written last, whatever its clock said.
    assert_eq!(facts.runs[0].proofs, [proof(10)]);
    assert!(facts.runs[0].is_verified());
    assert_eq!((facts.used_plans, facts.generation.unwrap().number, facts.oldest), (vec![plan], 3, Some(at(0))));
    assert!(store.facts(&StackName::new("other")).unwrap().runs.is_empty());
    assert_eq!(read(store, &record, "/devstack.yaml"), b"version: 1\n");
    assert_eq!(read(store, &record, "/z/compose.yml"), b"");

    let all = store.snapshots_of(&shop, &tags().run).unwrap();
    assert_eq!((all.len(), &all[0], &all[2]), (3, &record, &archived.snapshot));
    assert_eq!(store.snapshots_of_records_for(&shop, &tags().run).unwrap(), all[..2]);
    store.discard(&archived.snapshot).unwrap();
    assert_eq!(store.facts(&shop).unwrap().runs[0].lost, std::slice::from_ref(&archived.snapshot));
    store.forget(&all).unwrap();
    store.forget(&all).unwrap();
    assert!(store.facts(&shop).unwrap().runs.is_empty());
}

#[test]
fn a_record_of_a_newer_format_is_an_error_that_names_its_snapshot() {
    let bench = bench();
    let newer = Record::PlanUsed(PlanUsed { format: RECORD_FORMAT + 1, plan: PlanId::new("p"), at: at(0) });
    let id = bench.store.write_record(&StackName::new("shop"), &newer, &[]).unwrap();
    let error = bench.store.facts(&StackName::new("shop")).err().unwrap();
    assert!(matches!(&error, RepositoryError::Record { snapshot, .. } if *snapshot == id), "{error}");
    assert!(error.to_string().contains("newer"));
}

#[test]
fn a_prune_marks_first_and_deletes_after_the_grace() {
    let bench = bench();
    let store = &bench.store;
    let kept = archive(store, vec![bytes("/kept", noise(2 << 20, 1))]).unwrap();
    let gone = archive_at(store, 1, None, vec![bytes("/gone", noise(4 << 20, 2))]).unwrap();
    store.discard(&gone.snapshot).unwrap();
    fs::write(bench.site.path().join("locks/a"), "").unwrap();
    assert!(matches!(store.prune(Span::ZERO), Err(RepositoryError::ResticLocked { count: 1, .. })));
    fs::remove_file(bench.site.path().join("locks/a")).unwrap();

    let day = Span::from_days(1);
    let marked = store.prune(day).unwrap();
    assert!(marked.marked.0 > 4 << 20 && marked.freed.0 == 0, "{marked:?}");
    let facts = store.facts(&StackName::new("shop")).unwrap();
    assert!(facts.marked.unwrap().bytes.0 > 4 << 20);
    assert_eq!(store.prune(day).unwrap().freed, ByteSize(0));
    // A take after the mark must not lean on what is about to go.
    let again = archive_at(store, 2, None, vec![bytes("/gone", noise(4 << 20, 2))]).unwrap();
    assert!(again.added.0 > 4 << 20);
    let before = store.site().size().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(store.prune(Span::from_millis(1)).unwrap().freed.0 > 4 << 20);
    assert!(store.site().size().unwrap().0 + (4 << 20) < before.0);
    assert_eq!(store.facts(&StackName::new("shop")).unwrap().marked, None);
    assert_eq!(read(store, &kept.snapshot, "/kept"), noise(2 << 20, 1));
    assert_eq!(read(store, &again.snapshot, "/gone"), noise(4 << 20, 2));
}

#[test]
fn a_prune_sweeps_proofs_that_an_interrupted_forget_left() {
    let bench = bench();
    let archived = archive(&bench.store, vec![bytes("/a", "a")]).unwrap();
    let shop = StackName::new("shop");
    bench.store.write_record(&shop, &Record::Proof(proof(1)), &[]).unwrap();
    let _ = bench.store.prune(Span::ZERO).unwrap();
    assert_eq!(snapshot_count(&bench.site), 2, "its run's data is there, and may yet be sealed");
    bench.store.discard(&archived.snapshot).unwrap();
    let _ = bench.store.prune(Span::ZERO).unwrap();
    assert_eq!(snapshot_count(&bench.site), 0);
    assert!(Timestamp::now() > at(1));
}

#[test]
fn a_snapshots_folder_that_cannot_be_listed_stops_a_prune() {
    let bench = bench();
    let archived = archive(&bench.store, vec![bytes("/a", noise(1 << 20, 1))]).unwrap();
    let (folder, away) = (bench.site.path().join("snapshots"), bench.folder.path().join("away"));
    fs::rename(&folder, &away).unwrap();
    assert!(bench.store.prune(Span::ZERO).is_err());
    fs::rename(&away, &folder).unwrap();
    assert_eq!(read(&bench.store, &archived.snapshot, "/a"), noise(1 << 20, 1));
}
