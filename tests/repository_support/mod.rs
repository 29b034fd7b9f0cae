//! A repository in a temporary folder and entries to put into it.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use devstack::model::cancel::Cancel;
use devstack::model::ids::{PolicyName, RunId, ServiceName, SnapshotId, StackName};
use devstack::repository::{
    ArchiveRequest, Archived, DeclaredKey, Entry, EntryKind, EntryMeta, KeyMaterial, RepositoryError, Site, Store,
    StoreOptions, Tags,
};
use devstack::secrets::Secret;
use jiff::Timestamp;

pub const PASSPHRASE: &str = "correct horse";

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub site: Site,
    pub store: Store,
}

pub fn passphrase(text: &str) -> DeclaredKey {
    DeclaredKey { label: "passphrase env P".into(), material: KeyMaterial::Passphrase(Secret::new(text.into())) }
}

pub fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path().join("repo"));
    let store = Store::create(&site, &passphrase(PASSPHRASE), &StoreOptions::default()).unwrap();
    Bench { folder, site, store }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub fn tags() -> Tags {
    Tags {
        stack: StackName::new("shop"),
        run: RunId::new("20261123T000000Z-nightly"),
        service: ServiceName::new("db"),
        policy: PolicyName::new("nightly"),
    }
}

/// Reproducible bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn stream(path: &str, reader: impl Read + Send + 'static) -> Entry {
    let meta = EntryMeta { mode: 0o600, mtime: Some(at(0)), ..EntryMeta::default() };
    Entry { path: path.into(), meta, kind: EntryKind::Stream(Box::new(reader)) }
}

pub fn bytes(path: &str, content: impl Into<Vec<u8>>) -> Entry {
    let content = content.into();
    let size = content.len() as u64;
    let entry = stream(path, io::Cursor::new(content));
    Entry { meta: EntryMeta { size, ..entry.meta }, ..entry }
}

/// A local file as the files engine lists it.
pub fn local(path: &str, file: &Path) -> Entry {
    use std::os::unix::fs::MetadataExt;
    let meta = file.symlink_metadata().unwrap();
    let time = |seconds, nanos: i64| Timestamp::new(seconds, nanos as i32).unwrap();
    let meta = EntryMeta {
        mode: meta.mode() & 0o7777,
        mtime: Some(time(meta.mtime(), meta.mtime_nsec())),
        ctime: Some(time(meta.ctime(), meta.ctime_nsec())),
        inode: meta.ino(),
        size: meta.size(),
        ..EntryMeta::default()
    };
    Entry { path: path.into(), meta, kind: EntryKind::LocalFile(file.to_owned()) }
}

pub fn archive_at(
    store: &Store,
    second: i64,
    parent: Option<SnapshotId>,
    entries: Vec<Entry>,
) -> Result<Archived, RepositoryError> {
    let request = ArchiveRequest {
        tags: tags(),
        at: at(second),
        parent,
        small_files: false,
        entries: Box::new(entries.into_iter()),
    };
    store.archive(request, &Cancel::new(), &|_| {})
}

pub fn archive(store: &Store, entries: Vec<Entry>) -> Result<Archived, RepositoryError> {
    archive_at(store, 0, None, entries)
}

pub fn read(store: &Store, snapshot: &SnapshotId, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    store.reader().unwrap().read_stream(snapshot, path, &mut out, &Cancel::new(), &|_| {}).unwrap();
    out
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(folder).sort_by_file_name();
    walk.into_iter().map(Result::unwrap).filter(|e| e.file_type().is_file()).map(|e| e.into_path()).collect()
}

pub fn snapshot_count(site: &Site) -> usize {
    files(&site.path().join("snapshots")).len()
}

/// Changes one byte in the middle of a file.
pub fn flip(file: &Path) {
    let mut content = std::fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x40;
    std::fs::write(file, content).unwrap();
}
