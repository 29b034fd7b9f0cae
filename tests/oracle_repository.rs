//! What programs that we did not write make of our repositories. Run with `--ignored`.

mod repository_support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use devstack::repository::*;
use devstack::secrets::Secret;
use repository_support::*;

fn run(program: &str, arguments: &[&str], input: &[u8], environment: &[(&str, &str)]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(environment.iter().copied());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// restic with its own cache off.
fn restic(site: &Site, password: &str, arguments: &[&str]) -> Vec<u8> {
    let repository = ["--no-cache", "-r", site.path().to_str().unwrap()];
    run("restic", &[&repository, arguments].concat(), b"", &[("RESTIC_PASSWORD", password)])
}

fn sidecar(site: &Site, extension: &str) -> Vec<u8> {
    let found = files(&site.path().join("devstack/keys"));
    fs::read(found.iter().find(|path| path.extension().is_some_and(|e| e == extension)).unwrap()).unwrap()
}

#[test]
#[ignore = "needs restic"]
fn restic_checks_and_restores_what_we_wrote() {
    let bench = bench();
    let folder = |path: &str| Entry {
        path: path.into(),
        meta: EntryMeta { mode: 0o750, mtime: Some(at(3)), ..Default::default() },
        kind: EntryKind::Folder,
    };
    let link = Entry { kind: EntryKind::Symlink("../shop.db".into()), ..folder("/site/link") };
    let content = noise(9 << 20, 8);
    let entries = vec![bytes("/shop.db", content.clone()), folder("/site"), bytes("/site/a", "A"), link];
    let archived = archive(&bench.store, entries).unwrap();
    let again =
        archive_at(&bench.store, 5, Some(archived.snapshot.clone()), vec![bytes("/shop.db", content.clone())]).unwrap();
    restic(&bench.site, PASSPHRASE, &["check", "--read-data"]);
    let target = bench.folder.path().join("restored");
    restic(&bench.site, PASSPHRASE, &["restore", archived.snapshot.as_str(), "--target", target.to_str().unwrap()]);
    assert!(fs::read(target.join("shop.db")).unwrap() == content);
    assert_eq!(fs::read(target.join("site/a")).unwrap(), b"A");
    assert_eq!(fs::read_link(target.join("site/link")).unwrap(), Path::new("../shop.db"));
    let listed = String::from_utf8(restic(&bench.site, PASSPHRASE, &["snapshots", "--json"])).unwrap();
    assert!(listed.contains("stack:shop") && listed.contains(again.snapshot.as_str()));
    bench.store.discard(&again.snapshot).unwrap();
    let _ = bench.store.prune(devstack::model::units::Span::ZERO).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let _ = bench.store.prune(devstack::model::units::Span::ZERO).unwrap();
    restic(&bench.site, PASSPHRASE, &["check", "--read-data"]);
}

#[test]
#[ignore = "needs restic"]
fn restic_reads_chunks_of_other_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path().join("repo"));
    let chunks = Some(ChunkSizes { min: 16 << 10, average: 64 << 10, max: 1 << 20 });
    let store = Store::create(&site, &passphrase("p"), &StoreOptions { compression: 1, chunks }).unwrap();
    let content = noise(5 << 20, 8);
    let archived = archive(&store, vec![bytes("/a", content.clone())]).unwrap();
    restic(&site, "p", &["check", "--read-data"]);
    let dumped = restic(&site, "p", &["dump", archived.snapshot.as_str(), "/a"]);
    assert!(
        dumped == content,
        "{} bytes of {}: {:?}",
        dumped.len(),
        content.len(),
        String::from_utf8_lossy(&dumped[..80])
    );
}

#[test]
#[ignore = "needs restic and age"]
fn the_password_that_age_gives_opens_it_with_restic() {
    let bench = bench();
    let identity = run("age-keygen", &[], b"", &[]);
    let file = bench.folder.path().join("identity");
    fs::write(&file, &identity).unwrap();
    let material = KeyMaterial::AgeIdentity { identity: Secret::new(String::from_utf8(identity).unwrap()) };
    let key = DeclaredKey { label: "age-identity file identity".into(), material };
    bench.store.add_key(&key).unwrap();
    let password = run("age", &["-d", "-i", file.to_str().unwrap()], &sidecar(&bench.site, "age"), &[]);
    restic(&bench.site, std::str::from_utf8(&password).unwrap(), &["check"]);
    assert!(Store::open(&bench.site, &[key]).is_ok());
}

#[test]
#[ignore = "needs restic and gpg"]
fn the_password_that_gpg_gives_opens_it_with_restic() {
    let bench = bench();
    let symmetric = DeclaredKey {
        label: "gpg-symmetric env G".into(),
        material: KeyMaterial::GpgSymmetric { passphrase: Secret::new("one line".into()) },
    };
    let id = bench.store.add_key(&symmetric).unwrap();
    assert_eq!(Store::open(&bench.site, std::slice::from_ref(&symmetric)).unwrap().opened_with(), Some(id.clone()));
    let plain = ["--batch", "--pinentry-mode", "loopback", "--passphrase", "one line", "-d"];
    let password = run("gpg", &plain, &sidecar(&bench.site, "gpg"), &[]);
    restic(&bench.site, std::str::from_utf8(&password).unwrap(), &["check"]);
    let wrong = KeyMaterial::GpgSymmetric { passphrase: Secret::new("another".into()) };
    let wrong = Store::open(&bench.site, &[DeclaredKey { material: wrong, ..symmetric }]).err().unwrap();
    assert!(matches!(wrong, RepositoryError::NoOperableKey { .. }), "{wrong}");
    bench.store.remove_key(&id).unwrap();

    // The agent's socket needs a short path; the variable is this test program's own.
    let home = tempfile::Builder::new().prefix("g").tempdir_in("/tmp").unwrap();
    let home_text = home.path().to_str().unwrap().to_owned();
    let environment = [("GNUPGHOME", home_text.as_str())];
    let make = ["--batch", "--passphrase", "", "--quick-gen-key", "ops@example.com", "default", "default", "never"];
    run("gpg", &make, b"", &environment);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "gpg_recipient_in_its_own_home", "--nocapture"])
        .envs(environment)
        .env("DEVSTACK_TEST_REPOSITORY", bench.site.path())
        .status()
        .unwrap();
    assert!(status.success());
    let password = run("gpg", &["--batch", "-d"], &sidecar(&bench.site, "gpg"), &environment);
    restic(&bench.site, std::str::from_utf8(&password).unwrap(), &["check"]);
}

/// Run by the test above, with a keyring of its own.
#[test]
#[ignore = "needs gpg, and the test that calls it"]
fn gpg_recipient_in_its_own_home() {
    let Some(path) = std::env::var_os("DEVSTACK_TEST_REPOSITORY") else { return };
    let site = Site::new(path.into());
    let store = Store::open(&site, &[passphrase(PASSPHRASE)]).unwrap();
    let recipient = KeyMaterial::Gpg { recipient: "ops@example.com".into() };
    let key = DeclaredKey { label: "gpg ops@example.com".into(), material: recipient };
    let id = store.add_key(&key).unwrap();
    assert_eq!(Store::open(&site, &[key]).unwrap().opened_with(), Some(id));
    let unknown = KeyMaterial::Gpg { recipient: "nobody@example.com".into() };
    let refused = store.add_key(&DeclaredKey { label: "gpg nobody".into(), material: unknown }).err().unwrap();
    assert!(matches!(refused, RepositoryError::Key { .. }), "{refused}");
}
