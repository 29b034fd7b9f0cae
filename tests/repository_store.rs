//! Opening, keys, archiving and the ways in which each must fail.

mod repository_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

use devstack::model::cancel::Cancel;
use devstack::model::outcome::FailureKind;
use devstack::model::units::ByteSize;
use devstack::repository::*;
use devstack::secrets::Secret;
use repository_support::*;

#[test]
fn a_repository_opens_with_its_passphrase_and_not_with_another() {
    let bench = bench();
    assert_eq!(bench.site.look().unwrap(), Presence::Present);
    let again = Store::open(&bench.site, &[passphrase(PASSPHRASE)]).unwrap();
    assert_eq!(again.id(), bench.store.id());
    assert_eq!(again.opened_with(), bench.store.opened_with());
    let wrong = Store::open(&bench.site, &[passphrase("wrong")]).err().unwrap();
    assert!(matches!(&wrong, RepositoryError::WrongKey { label, .. } if label == "passphrase env P"), "{wrong}");
    assert_eq!(wrong.kind(), FailureKind::Key);
    let existing = Store::create(&bench.site, &passphrase(PASSPHRASE), &StoreOptions::default()).err().unwrap();
    assert!(matches!(existing, RepositoryError::Exists { .. }));
}

#[test]
fn a_passphrase_opens_wherever_it_is_declared_now() {
    let bench = bench();
    let moved = DeclaredKey { label: "passphrase file elsewhere".into(), ..passphrase(PASSPHRASE) };
    assert!(Store::open(&bench.site, &[moved]).is_ok());
}

#[test]
fn a_damaged_key_or_config_is_damage_and_no_wrong_password() {
    let bench = bench();
    let config = bench.site.path().join("config");
    let whole = fs::read(&config).unwrap();
    flip(&config);
    let error = Store::open(&bench.site, &[passphrase(PASSPHRASE)]).err().unwrap();
    assert!(matches!(&error, RepositoryError::Damaged { file, .. } if *file == config), "{error:?}");
    assert_eq!(error.kind(), FailureKind::Damage);
    fs::write(&config, whole).unwrap();
    let key = files(&bench.site.path().join("keys")).remove(0);
    flip(&key);
    let error = Store::open(&bench.site, &[passphrase(PASSPHRASE)]).err().unwrap();
    assert!(matches!(&error, RepositoryError::Damaged { file, .. } if *file == key), "{error:?}");
}

#[test]
fn absence_is_seen_and_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path().join("repo"));
    assert_eq!(site.look().unwrap(), Presence::Absent);
    fs::create_dir_all(site.path().join("devstack/leases")).unwrap();
    fs::write(site.path().join("devstack/leases/shop.1"), "x").unwrap();
    assert_eq!(site.look().unwrap(), Presence::Absent);
    fs::write(site.path().join("holiday.jpg"), "x").unwrap();
    assert!(matches!(site.look(), Err(RepositoryError::Foreign { .. })));
    let bench = bench();
    let _ = archive(&bench.store, vec![bytes("/a", "a")]).unwrap();
    fs::remove_file(bench.site.path().join("config")).unwrap();
    assert!(matches!(bench.site.look(), Err(RepositoryError::Damaged { .. })));
    let lost = Site::new(folder.path().join("lost"));
    std::os::unix::fs::symlink("/nowhere/at/all", lost.path()).unwrap();
    assert!(matches!(lost.look(), Err(RepositoryError::Foreign { .. })));
}

#[test]
fn a_killed_creation_is_absent_and_creating_again_gives_one_key() {
    let bench = bench();
    fs::remove_file(bench.site.path().join("config")).unwrap();
    assert_eq!(bench.site.look().unwrap(), Presence::Absent);
    let store = Store::create(&bench.site, &passphrase("another"), &StoreOptions::default()).unwrap();
    assert_eq!(bench.site.keys().unwrap().len(), 1);
    assert!(Store::open(&bench.site, &[passphrase("another")]).is_ok());
    drop(store);
}

#[test]
fn an_age_identity_opens_through_its_sidecar_and_keys_go_before_theirs() {
    let bench = bench();
    let identity = age::x25519::Identity::generate();
    let recipient = DeclaredKey {
        label: "age r".into(),
        material: KeyMaterial::Age { recipient: identity.to_public().to_string() },
    };
    use age::secrecy::ExposeSecret;
    let secret = Secret::new(format!("# a comment\n{}\n", identity.to_string().expose_secret()));
    let identity =
        DeclaredKey { label: "age-identity i".into(), material: KeyMaterial::AgeIdentity { identity: secret } };
    let id = bench.store.add_key(&recipient).unwrap();
    let keys = bench.site.keys().unwrap();
    assert_eq!(keys.iter().filter(|key| key.sidecar).map(|key| &key.id).collect::<Vec<_>>(), [&id]);
    let opened = Store::open(&bench.site, std::slice::from_ref(&identity)).unwrap();
    assert_eq!(opened.opened_with(), Some(id.clone()));
    let only_encrypts = Store::open(&bench.site, std::slice::from_ref(&recipient)).err().unwrap();
    assert!(matches!(&only_encrypts, RepositoryError::NoOperableKey { .. }), "{only_encrypts}");
    assert!(matches!(opened.remove_key(&id), Err(RepositoryError::LastKey { .. })));
    bench.store.remove_key(&id).unwrap();
    assert_eq!(bench.site.keys().unwrap().len(), 1);
    assert_eq!(files(&bench.site.path().join("devstack")).len(), 0);
    assert!(matches!(
        bench.store.remove_key(&bench.store.opened_with().unwrap()),
        Err(RepositoryError::LastKey { .. })
    ));
    // A kill between sidecar and key leaves the sidecar alone, which nothing minds.
    fs::create_dir_all(bench.site.path().join("devstack/keys")).unwrap();
    fs::write(bench.site.path().join(format!("devstack/keys/{id}.age")), "x").unwrap();
    assert!(Store::open(&bench.site, &[passphrase(PASSPHRASE)]).is_ok());
}

#[test]
fn streams_and_files_come_back_as_they_went_in() {
    let bench = bench();
    let file = bench.folder.path().join("file");
    fs::write(&file, noise(3 << 20, 7)).unwrap();
    let (big, small) = (noise(5 << 20, 1), b"hello".to_vec());
    let entries = vec![bytes("/big", big.clone()), bytes("/empty", ""), local("/local", &file), bytes("/small", small)];
    let archived = archive(&bench.store, entries).unwrap();
    assert_eq!((archived.files, archived.bytes), (4, ByteSize((8 << 20) + 5)));
    assert!(archived.added.0 > 8 << 20);
    let paths: Vec<_> = archived.streams.iter().map(|stream| stream.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/big", "/empty", "/small"]);
    assert_eq!(archived.streams[0].sha256, devstack::model::ids::Digest::of(&big));
    assert_eq!(read(&bench.store, &archived.snapshot, "/big"), big);
    assert_eq!(read(&bench.store, &archived.snapshot, "/local"), noise(3 << 20, 7));
    assert_eq!(read(&bench.store, &archived.snapshot, "/empty"), b"");
    let unchanged = archive_at(&bench.store, 60, None, vec![bytes("/big", big)]).unwrap();
    assert!(unchanged.added.0 < 64 << 10, "{}", unchanged.added);
}

struct Failing(u64);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the dump died"));
        }
        let count = buffer.len().min(self.0 as usize);
        buffer[..count].fill(b'x');
        self.0 -= count as u64;
        Ok(count)
    }
}

#[test]
fn a_reader_that_fails_leaves_no_snapshot_and_names_its_path() {
    let bench = bench();
    for length in [0, 100, 3 << 20] {
        let error = archive(&bench.store, vec![bytes("/a", "fine"), stream("/db.sql", Failing(length))]).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("/db.sql") && text.contains("the dump died"), "{text}");
        assert!(!text.contains("/a "), "{text}");
        assert_eq!(snapshot_count(&bench.site), 0);
    }
}

#[test]
fn files_that_vanish_are_told_and_those_that_cannot_be_read_fail() {
    let bench = bench();
    let path = bench.folder.path().join("f");
    fs::write(&path, "12345").unwrap();
    let gone = local("/gone", &path);
    fs::remove_file(&path).unwrap();
    let archived = archive(&bench.store, vec![bytes("/a", "x"), gone]).unwrap();
    assert_eq!(archived.vanished, [std::path::PathBuf::from("/gone")]);
    assert_eq!(archived.files, 1);

    fs::write(&path, "12345").unwrap();
    let shrunk = local("/shrunk", &path);
    fs::write(&path, "123").unwrap();
    let error = archive(&bench.store, vec![shrunk]).err().unwrap();
    assert!(error.to_string().contains("/shrunk gave 3 bytes and had 5"), "{error}");
    assert_eq!(error.kind(), FailureKind::Transient);

    fs::write(&path, "12345").unwrap();
    let grown = local("/grown", &path);
    fs::write(&path, "1234567").unwrap();
    let archived = archive(&bench.store, vec![grown]).unwrap();
    assert_eq!(read(&bench.store, &archived.snapshot, "/grown"), b"12345");

    let swapped = local("/swapped", &path);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    let error = archive(&bench.store, vec![swapped]).err().unwrap();
    assert!(error.to_string().contains("/swapped cannot be opened"), "{error}");
    assert_eq!(snapshot_count(&bench.site), 2);
}

#[test]
fn a_stream_of_another_length_than_announced_is_refused_and_an_unknown_one_is_not() {
    let bench = bench();
    let entry = bytes("/db", "12345");
    let error =
        archive(&bench.store, vec![Entry { meta: EntryMeta { size: 6, ..entry.meta }, ..entry }]).err().unwrap();
    assert!(error.to_string().contains("/db gave 5 bytes and had 6"), "{error}");
    assert_eq!(archive(&bench.store, vec![stream("/db", io::Cursor::new("12345"))]).unwrap().bytes, ByteSize(5));
}

#[test]
fn entries_out_of_order_or_twice_are_refused() {
    let bench = bench();
    for paths in [["/b", "/a"], ["/a", "/a"], ["/a", "relative"]] {
        let error = archive(&bench.store, paths.map(|path| bytes(path, "x")).into()).err().unwrap();
        assert!(matches!(error, RepositoryError::Incomplete { changed: false, .. }), "{error}");
    }
    assert_eq!(snapshot_count(&bench.site), 0);
}

#[test]
fn a_stream_is_read_though_the_parent_has_one_of_the_same_name_size_and_time() {
    let bench = bench();
    let first = archive(&bench.store, vec![bytes("/db", "old!")]).unwrap();
    // Also at the very time of the parent.
    for second in [0, 1] {
        let parent = Some(first.snapshot.clone());
        let next = archive_at(&bench.store, second, parent, vec![bytes("/db", "new!")]).unwrap();
        assert_eq!(read(&bench.store, &next.snapshot, "/db"), b"new!");
    }
}

#[test]
fn an_unchanged_local_file_is_not_read_again() {
    let bench = bench();
    let path = bench.folder.path().join("f");
    fs::write(&path, noise(1 << 20, 3)).unwrap();
    let first = archive(&bench.store, vec![local("/f", &path)]).unwrap();
    let entry = local("/f", &path);
    // Proof that it is not opened: it is not there.
    fs::remove_file(&path).unwrap();
    let second = archive_at(&bench.store, 1, Some(first.snapshot), vec![entry]).unwrap();
    assert_eq!((second.files, second.vanished.len()), (1, 0));
    assert_eq!(read(&bench.store, &second.snapshot, "/f"), noise(1 << 20, 3));
}

#[test]
fn a_cancelled_archive_is_interrupted_and_leaves_no_snapshot() {
    let bench = bench();
    let cancel = Cancel::new();
    let request = ArchiveRequest {
        tags: tags(),
        at: at(0),
        parent: None,
        small_files: false,
        entries: Box::new(vec![bytes("/a", noise(1 << 20, 1))].into_iter()),
    };
    cancel.cancel();
    let error = bench.store.archive(request, &cancel, &|_| {}).err().unwrap();
    assert!(matches!(error, RepositoryError::Interrupted));
    assert_eq!(snapshot_count(&bench.site), 0);
}

#[test]
fn every_kind_of_damaged_file_is_named() {
    let bench = bench();
    let archived = archive(&bench.store, vec![bytes("/a", noise(1 << 20, 1))]).unwrap();
    let kinds: Vec<_> =
        [FileKind::Key, FileKind::Snapshot, FileKind::Index].into_iter().chain(FileKind::packs()).collect();
    let look = || bench.site.hash_files(&kinds, &|_| {}, &Cancel::new()).unwrap();
    assert_eq!(look(), []);
    let mut told = BTreeMap::new();
    for file in files(bench.site.path()).into_iter().filter(|file| !file.ends_with("config")) {
        let whole = fs::read(&file).unwrap();
        flip(&file);
        let damages = look();
        assert_eq!(damages.len(), 1, "{damages:?}");
        assert_eq!(
            (damages[0].name.as_str(), &damages[0].what),
            (file.file_name().unwrap().to_str().unwrap(), &What::HashMismatch)
        );
        *told.entry(damages[0].kind).or_insert(0) += 1;
        fs::write(&file, "").unwrap();
        assert_eq!(look()[0].what, What::Empty);
        fs::write(&file, whole).unwrap();
    }
    assert!(told.contains_key(&FileKind::Key) && told.contains_key(&FileKind::Index));
    let reader = bench.store.reader().unwrap();
    assert_eq!(reader.check_structure(std::slice::from_ref(&archived.snapshot)).unwrap(), Vec::<String>::new());
    let pack = files(&bench.site.path().join("data")).remove(0);
    let id = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let hurt = reader.snapshots_using_packs(&[id], std::slice::from_ref(&archived.snapshot)).unwrap();
    assert_eq!(hurt, std::slice::from_ref(&archived.snapshot));
    fs::remove_file(&pack).unwrap();
    let findings = reader.check_structure(std::slice::from_ref(&archived.snapshot)).unwrap();
    assert!(!findings.is_empty() && findings[0].contains(archived.snapshot.short()), "{findings:?}");
    fs::write(bench.site.path().join("config"), "").unwrap();
    assert_eq!(look()[0].kind, FileKind::Config);
}

#[test]
fn chunk_sizes_can_be_chosen_and_impossible_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path().join("repo"));
    let options =
        |min, average, max| StoreOptions { chunks: Some(ChunkSizes { min, average, max }), ..Default::default() };
    for wrong in [(10, 1024, 4096), (1024, 1000, 4096), (2048, 1024, 4096), (64, 1024, 512)] {
        let options = options(wrong.0, wrong.1, wrong.2);
        let error = Store::create(&site, &passphrase("p"), &options).err().unwrap();
        assert!(matches!(error, RepositoryError::Setting { .. }));
    }
    let store = Store::create(&site, &passphrase("p"), &options(4096, 16384, 65536)).unwrap();
    let content = noise(2 << 20, 5);
    let archived = archive(&store, vec![bytes("/a", content.clone())]).unwrap();
    let again = archive(&Store::open(&site, &[passphrase("p")]).unwrap(), vec![bytes("/a", content.clone())]).unwrap();
    assert!(again.added.0 < 20_000);
    assert_eq!(read(&store, &archived.snapshot, "/a"), content);
}

#[test]
fn nothing_in_a_repository_is_readable_by_others() {
    let bench = bench();
    let _ = archive(&bench.store, vec![bytes("/a", "a")]).unwrap();
    for entry in walkdir::WalkDir::new(bench.site.path()) {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", entry.path().display());
    }
}
