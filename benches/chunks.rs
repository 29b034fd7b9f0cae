//! What chunk sizes cost and save: an SQLite database with 1 % of its rows changed, in one place and scattered.
//! `cargo bench --bench chunks -- [MiB]` prints a table for docs/benchmarks.md.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use devstack::model::cancel::Cancel;
use devstack::model::ids::{PolicyName, RunId, ServiceName, StackName};
use devstack::model::units::ByteSize;
use devstack::repository::{
    ArchiveRequest, ChunkSizes, DeclaredKey, Entry, EntryKind, EntryMeta, KeyMaterial, Site, Store, StoreOptions, Tags,
};
use devstack::secrets::Secret;
use rusqlite::Connection;

fn main() -> Result<(), Box<dyn Error>> {
    let size = std::env::args().skip(1).find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(500);
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("bench.db");
    let rows = fill(&database, size)?;
    println!("database of {} with {rows} rows", ByteSize(std::fs::metadata(&database)?.len()));
    println!("| chunk | first | time | unchanged | 1 % in one place | 1 % scattered |");
    println!("|---|---|---|---|---|---|");
    for kib in [1024_u64, 512, 256, 128, 64] {
        let copy = folder.path().join("copy.db");
        std::fs::copy(&database, &copy)?;
        let store = store(&folder.path().join(format!("repository-{kib}")), kib)?;
        let since = Instant::now();
        let first = take(&store, &copy)?;
        let took = since.elapsed();
        let unchanged = take(&store, &copy)?;
        let middle = rows / 2;
        change(&copy, &format!("id BETWEEN {middle} AND {}", middle + rows / 100))?;
        let contiguous = take(&store, &copy)?;
        change(&copy, "(id * 2654435761) % 100 = 7")?;
        let scattered = take(&store, &copy)?;
        let percent = |bytes: ByteSize| format!("{bytes} ({:.1} %)", bytes.0 as f64 * 100.0 / first.0 as f64);
        println!(
            "| {kib} KiB | {first} | {:.1} s | {unchanged} | {} | {} |",
            took.as_secs_f64(),
            percent(contiguous),
            percent(scattered)
        );
    }
    Ok(())
}

/// Rows of 200 bytes that compress about as well as names, addresses and numbers do.
fn fill(path: &Path, mib: u64) -> Result<u64, Box<dyn Error>> {
    let mut database = Connection::open(path)?;
    database.execute_batch("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, note TEXT, price REAL)")?;
    let rows = mib * 1024 * 1024 / 215;
    let transaction = database.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO item VALUES (?1, ?2, ?3, ?4)")?;
        let mut state = 88_172_645_463_325_252_u64;
        for id in 0..rows {
            let mut word = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let name = format!("customer {:08x} of street {}", word() as u32, word() % 900);
            let note: String = (0..8).map(|_| format!("{:012x} lorem ", word() & 0xffff_ffff_ffff)).collect();
            insert.execute((i64::try_from(id)?, name, note, word() as f64 / 1e15))?;
        }
    }
    transaction.commit()?;
    Ok(rows)
}

fn change(path: &Path, which: &str) -> Result<(), Box<dyn Error>> {
    let database = Connection::open(path)?;
    database.execute(&format!("UPDATE item SET price = price + 1 WHERE {which}"), [])?;
    Ok(())
}

fn store(folder: &Path, kib: u64) -> Result<Store, Box<dyn Error>> {
    let key = DeclaredKey {
        label: "passphrase env BENCH".to_owned(),
        material: KeyMaterial::Passphrase(Secret::new("made for a bench".to_owned())),
    };
    let average = usize::try_from(kib * 1024)?;
    let chunks = ChunkSizes { min: average / 2, average, max: average * 8 };
    let options = StoreOptions { chunks: Some(chunks), ..StoreOptions::default() };
    Ok(Store::create(&Site::new(folder.to_owned()), &key, &options)?)
}

fn take(store: &Store, database: &Path) -> Result<ByteSize, Box<dyn Error>> {
    let file = File::open(database)?;
    let entry = Entry {
        path: "/bench.db".into(),
        meta: EntryMeta { mode: 0o600, ..EntryMeta::default() },
        kind: EntryKind::Stream(Box::new(file)),
    };
    let tags = Tags {
        stack: StackName::new("bench"),
        run: RunId::new("bench"),
        service: ServiceName::new("db"),
        policy: PolicyName::new("bench"),
    };
    let request = ArchiveRequest {
        tags,
        at: jiff::Timestamp::now(),
        parent: None,
        small_files: false,
        entries: Box::new(std::iter::once(entry)),
    };
    Ok(store.archive(request, &Cancel::new(), &|_| {})?.added)
}
