//! Every wrong file under `tests/wrong_files/` is refused, and the refusal reads as its snapshot says.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use devstack::spec::{self, Look};

/// The literal secret in the files that give one.
const SECRET: &str = "hunter2";

fn wrong_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir("tests/wrong_files")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_wrong_file_is_refused_in_words_that_help() {
    let files = wrong_files();
    assert!(files.len() >= 60, "only {} wrong files", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for path in files {
        let rejected = spec::load(&path).map(|_| ()).expect_err(&path.display().to_string());
        let rendered = rejected.render(Look::Plain);
        let everything =
            format!("{rendered}{rejected:?}{}", rejected.render(Look::Terminal { width: 80, color: true }));
        assert!(!everything.to_lowercase().contains(SECRET), "{}: the secret is shown:\n{rendered}", path.display());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        settings.bind(|| insta::assert_snapshot!(name, rendered));
    }
}

fn refused(name: &str, bytes: &[u8]) -> String {
    spec::parse(name, bytes, Path::new("/srv/shop")).map(|_| ()).expect_err(name).render(Look::Plain)
}

const RIGHT: &str = r#"version: 1
stack: shop
services:
  database:
    source: { sqlite: { path: data/shop.db } }
repositories:
  local:
    path: ./backups
    keys:
      - passphrase: { file: ~/.config/devstack/passphrase, generate: true }
backup:
  nightly:
    services: all
    schedule: { cron: "15 2,14 * * *", timezone: Europe/Berlin }
    to: [local]
"#;

#[test]
fn a_byte_order_mark_and_carriage_returns_are_no_fault() {
    let plain = spec::parse("devstack.yaml", RIGHT.as_bytes(), Path::new("/srv/shop")).unwrap();
    let windows = format!("\u{feff}{}", RIGHT.replace('\n', "\r\n"));
    let windows = spec::parse("devstack.yaml", windows.as_bytes(), Path::new("/srv/shop")).unwrap();
    assert_eq!(plain.spec, windows.spec);
    assert_eq!(plain.digest, windows.digest);
    assert_eq!(plain.warnings, []);
}

#[test]
fn places_are_right_behind_a_byte_order_mark_and_carriage_returns() {
    let wrong = format!("\u{feff}{}", RIGHT.replace("to: [local]", "to: [locale]").replace('\n', "\r\n"));
    let rendered = refused("devstack.yaml", wrong.as_bytes());
    assert!(rendered.contains("devstack.yaml:15:10"), "{rendered}");
    assert!(rendered.contains("did you mean `local`"), "{rendered}");
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    let mut latin1 = RIGHT.replace("stack: shop", "stack: shop # B").into_bytes();
    let at = latin1.windows(2).position(|pair| pair == b"# ").unwrap() + 3;
    latin1.insert(at, 0xfc);
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("invalid_utf8", refused("devstack.yaml", &latin1));
        insta::assert_snapshot!("nul_byte", refused("devstack.yaml", b"version: 1\nstack: sh\0op\n"));
    });
}

/// Files made to exhaust a reader; each ends in an error. What makes each of them cheap is counted where it is done: the reader's
/// own limits (`spec::yaml`), days looked at for a slot that never comes (`spec::cron`), bytes gone through for what may be a
/// secret (`spec::mask`), faults found (`spec::structure`). None is timed: a busy machine is no fault of theirs.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let laughs = (1..12).fold("a0: &a0 [lol, lol]\n".to_owned(), |text, n| {
        let before = n - 1;
        let aliases = vec![format!("*a{before}"); 9].join(", ");
        format!("{text}a{n}: &a{n} [{aliases}]\n")
    });
    let deep_block = (0..5_000).map(|depth| format!("{}a:\n", " ".repeat(depth.min(180)))).collect::<String>();
    let deeper = (0..400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
    let unknown = (0..60_000).map(|n| format!("key{n}: 1\n")).collect::<String>();
    let policies = (0..9_000)
        .map(|n| format!("  p{n}: {{ services: all, to: [l], schedule: {{ cron: \"{} * * * *\" }} }}\n", n % 60));
    let policies = RIGHT.split("backup:").next().unwrap().to_owned() + "backup:\n" + &policies.collect::<String>();
    let never = policies.replace("* * * *", "3 30 2 *");
    let services = (0..12_000)
        .map(|n| format!("  s{n}: {{ source: {{ sqlite: {{ path: s{n} }} }}, after: [s{}] }}\n", (n + 1) % 12_000));
    let chain = RIGHT.split("services:").next().unwrap().to_owned() + "services:\n" + &services.collect::<String>();
    let strays = policies.replace("services: all", "services: [x]").replace("to: [l]", "to: [local]");
    let objectives = format!("{policies}recovery: {{ rpo: 1m }}\n");
    let anchors = (0..20_000).map(|n| format!("- &x{n} a\n")).collect::<String>();
    vec![
        ("laughs", laughs.into_bytes()),
        ("deep_flow", "[".repeat(1 << 20).into_bytes()),
        ("deep_mapping", "{a: ".repeat(200_000).into_bytes()),
        ("deep_block", deep_block.into_bytes()),
        ("deeper_block", deeper.into_bytes()),
        ("deep_sequence", "- ".repeat(500_000).into_bytes()),
        ("unknown_keys", unknown.into_bytes()),
        ("policies", policies.into_bytes()),
        ("strays", strays.into_bytes()),
        ("objectives", objectives.into_bytes()),
        ("never", never.into_bytes()),
        ("chain", chain.into_bytes()),
        ("anchors", anchors.into_bytes()),
        ("long_scalar", [b"stack: ".as_slice(), &vec![b'a'; 1_000_000]].concat()),
        ("long_key", [vec![b'a'; 1_000_000].as_slice(), b": 1\n"].concat()),
        ("questions", "? ".repeat(500_000).into_bytes()),
        ("stars", "*".repeat(1 << 20).into_bytes()),
        ("exclamations", "!".repeat(1 << 20).into_bytes()),
        ("spaces", " ".repeat(1 << 20).into_bytes()),
        ("passphrases", "passphrase:\n".repeat(80_000).into_bytes()),
        ("one_line", "passphrase:".repeat(90_000).into_bytes()),
        ("identities", "AGE-SECRET-KEY-".repeat(69_000).into_bytes()),
        ("identities_in_comments", "# AGE-SECRET-KEY-1QQ\n".repeat(49_000).into_bytes()),
        ("passphrases_below_each_other", "  passphrase:\n".repeat(74_000).into_bytes()),
        ("too_large", vec![b'a'; (1 << 20) + 1]),
    ]
}

/// In a process of its own, so that its peak of memory is that of the reading alone.
#[test]
#[cfg(target_os = "linux")]
fn hostile_files_end_in_an_error_within_200_megabytes() {
    const AGAIN: &str = "DEVSTACK_TEST_HOSTILE";
    if std::env::var_os(AGAIN).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["hostile_files_end_in_an_error_within_200_megabytes", "--nocapture"])
            .env(AGAIN, "1")
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        return;
    }
    for (name, bytes) in hostile() {
        let rendered = refused(name, &bytes);
        assert!(rendered.contains("error"), "{name}: {rendered}");
        eprintln!("{name}\n{}", rendered.chars().take(600).collect::<String>());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devstack.yaml");
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..100 {
        file.write_all(&b"a: [b, c]\n".repeat(100_000)).unwrap();
    }
    let rendered = spec::load(&path).map(|_| ()).unwrap_err().render(Look::Plain);
    assert!(rendered.contains("95.4 MiB"), "{rendered}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200 * 1024, "{peak} KiB");
    eprintln!("peak {peak} KiB");
}

#[test]
fn what_is_no_file_is_not_read() {
    for path in ["tests/wrong_files", "tests/wrong_files/not-there.yaml", "/dev/zero"] {
        let rendered = spec::load(Path::new(path)).map(|_| ()).unwrap_err().render(Look::Plain);
        assert!(rendered.contains(path), "{rendered}");
    }
}
