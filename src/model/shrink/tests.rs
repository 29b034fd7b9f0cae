use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::ids::{Digest, SnapshotId};
use crate::model::run::{ArtifactKind, Count};
use crate::model::units::{ByteSize, Span};

fn stream(name: &str, bytes: u64, counts: &[(&str, u64)]) -> Artifact {
    let counts = counts.iter().map(|(name, value)| ((*name).to_owned(), Count { value: *value, exact: true }));
    let (kind, sha256) = (ArtifactKind::Stream, Digest::of(name));
    Artifact { name: name.to_owned(), kind, bytes: ByteSize(bytes), sha256, counts: counts.collect() }
}

fn taken(engine: &str, artifacts: Vec<Artifact>) -> Taken {
    Taken {
        snapshot: SnapshotId::new("0"),
        engine: engine.to_owned(),
        engine_version: "1".to_owned(),
        artifacts,
        tree: None,
        started: "2026-11-24T11:00:00Z".parse().unwrap(),
        took: Span::from_secs(1),
        added: ByteSize(0),
        suspect: None,
        empty: false,
        image: None,
        certificates: Vec::new(),
        notes: Vec::new(),
    }
}

fn told(before: &Taken, after: &Taken) -> Vec<String> {
    told_but(before, after, &[])
}

fn told_but(before: &Taken, after: &Taken, volatile: &[&str]) -> Vec<String> {
    let volatile =
        if volatile.is_empty() { Volatile::default() } else { Volatile::those(|name| volatile.contains(&name)) };
    match of(before, after, Limits::default(), &volatile) {
        None => Vec::new(),
        Some(shrink) if shrink.things.is_empty() => vec![shrink.to_string()],
        Some(shrink) => shrink.things.iter().map(ToString::to_string).collect(),
    }
}

fn postgres(orders: Option<u64>, customers: u64) -> Taken {
    let orders = orders.map(|rows| ("rows public.orders", rows));
    let counts: Vec<_> =
        orders.into_iter().chain([("rows public.customers", customers), ("tables with data", 2)]).collect();
    taken(
        "postgres",
        vec![stream("/databases/shop.dump", 1_000_000, &counts), stream("/roles.sql", 10, &[("roles", 3)])],
    )
}

/// 20,000 of 55,000 rows, 46 % of the bytes: nothing of this halves the whole.
#[test]
fn a_table_that_is_dropped_is_told_by_its_name_and_its_rows() {
    let before = postgres(Some(20_000), 35_000);
    assert_eq!(told(&before, &postgres(None, 35_000)), ["shop: public.orders: gone, had 20,000 rows"]);
    assert_eq!(told(&before, &postgres(Some(9_999), 35_000)), ["shop: public.orders: 9,999 rows, had 20,000"]);
    assert_eq!(told(&before, &postgres(Some(10_000), 70_000)), [""; 0]);
    // However few it held, one that is gone is gone; of so few rows a fall says nothing.
    let few = postgres(Some(3), 999);
    assert_eq!(told(&few, &postgres(None, 1)), ["shop: public.orders: gone, had 3 rows"]);
    for volatile in ["public.orders", "orders", "shop", "shop.public.orders"] {
        assert_eq!(told_but(&before, &postgres(None, 35_000), &[volatile]), [""; 0], "{volatile}");
    }
    assert_eq!(told_but(&before, &postgres(None, 1), &["customers"]), ["shop: public.orders: gone, had 20,000 rows"]);
}

#[test]
fn a_database_that_is_gone_is_told_once() {
    let two = |other: &[(&str, u64)]| {
        let mut all = postgres(Some(5), 7);
        all.artifacts.push(stream("/databases/books.dump", 10, other));
        all
    };
    let before = two(&[("rows public.a", 2_000), ("rows public.b", 300)]);
    assert_eq!(told(&before, &postgres(Some(5), 7)), ["the database books: gone, had 2,300 rows"]);
    assert_eq!(
        told(&before, &two(&[])),
        ["books: public.a: gone, had 2,000 rows", "books: public.b: gone, had 300 rows"]
    );
    let mysql = |counts: &[(&str, u64)]| taken("mysql", vec![stream("/databases.sql", 1_000, counts)]);
    let before =
        mysql(&[("tables in shop", 2), ("rows shop.orders", 4), ("rows shop.customers", 1), ("tables in x", 0)]);
    assert_eq!(
        told(&before, &mysql(&[("tables in shop", 2), ("rows shop.orders", 4)])).len(),
        2,
        "a table and a database"
    );
    assert_eq!(told(&before, &mysql(&[("tables in x", 0)])), ["the database shop: gone, had 5 rows"]);
}

#[test]
fn what_comes_and_goes_by_itself_is_left_out() {
    let redis = |keys: u64, expiring: u64, bytes: u64| {
        taken("redis", vec![stream("/single.rdb", bytes, &[("keys", keys), ("keys with an expiry", expiring)])])
    };
    assert_eq!(told(&redis(50_000, 49_000, 1_000_000), &redis(1_000, 0, 1_000)), [""; 0]);
    assert_eq!(told(&redis(5_000, 1_000, 9), &redis(2_900, 1_000, 9)), ["1,900 keys without an expiry, had 4,000"]);
    let node = |name: &str, keys: u64| stream(name, 10, &[("keys", keys), ("keys with an expiry", 0)]);
    let cluster = |keys: [u64; 2]| taken("redis", vec![node("/0.rdb", keys[0]), node("/1.rdb", keys[1])]);
    // Slots move from node to node.
    assert_eq!(told(&cluster([2_000, 0]), &cluster([0, 2_000])), [""; 0]);
    let rabbit = |counts: &[(&str, u64)]| taken("rabbitmq", vec![stream("/definitions.json", 100, counts)]);
    let before = rabbit(&[("queues", 3), ("queue orders", 1), ("queue mail", 1)]);
    assert_eq!(told(&before, &rabbit(&[("queues", 1), ("queue mail", 1)])), ["the queue orders: gone"]);
    assert_eq!(told(&before, &rabbit(&[("queues", 5)])).len(), 2);
    assert_eq!(told(&rabbit(&[("queues", 9)]), &rabbit(&[("queues", 0)])), [""; 0], "taken before queues were named");
}

#[test]
fn files_are_counted_and_their_bytes_too() {
    let files =
        |count: u64, bytes: u64| taken("files", vec![stream("/tree", bytes, &[("files", count), ("folders", 1)])]);
    assert_eq!(told(&files(2_000, 1_000), &files(900, 900)), ["900 files, had 2,000"]);
    assert_eq!(told(&files(20, 1 << 30), &files(20, 1 << 20)), ["it shrank from 1.0 GiB to 1.0 MiB"]);
    let other = taken("volume", vec![stream("/tree", 1, &[("files", 1)])]);
    assert_eq!(told(&files(2_000, 1), &other), [""; 0], "another kind of source is compared with nothing");
}

#[test]
fn the_file_sets_the_limits() {
    let (before, after) = (postgres(Some(600), 10), postgres(Some(500), 10));
    let limits = |at_least, by: &str| Limits { at_least, by: by.parse().unwrap() };
    let found = |limits| shrunk(&before, &after, limits, &Volatile::default()).len();
    assert_eq!([found(limits(500, "10%")), found(limits(500, "20%")), found(limits(601, "10%"))], [1, 0, 0]);
    for wrong in ["0%", "100%", "50", "half", "-1%", "1.5%", "%"] {
        assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
    }
}

#[test]
fn many_things_are_counted_and_the_first_named() {
    let tables: Vec<String> = (1..=7).map(|n| format!("rows t{n}")).collect();
    let counts: Vec<_> = tables.iter().map(|name| (name.as_str(), 12)).collect();
    let sqlite = |counts: &[(&str, u64)]| taken("sqlite", vec![stream("/shop.db", 9, counts)]);
    let after = sqlite(&[("tables", 0)]);
    let shrink = of(&sqlite(&counts), &after, Limits::default(), &Volatile::default()).unwrap();
    assert_eq!(shrink.things.len(), 7);
    assert!(shrink.to_string().ends_with("t5: gone, had 12 rows; and 2 more"), "{shrink}");
}

fn tables() -> impl Strategy<Value = BTreeMap<String, u64>> {
    proptest::collection::btree_map("[a-e]", 0_u64..5_000, 0..6)
}

fn server(tables: &BTreeMap<String, u64>) -> Taken {
    let counts: Vec<(String, u64)> = tables.iter().map(|(name, rows)| (format!("rows {name}"), *rows)).collect();
    let counts: Vec<(&str, u64)> = counts.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    taken("postgres", vec![stream("/databases/shop.dump", 1_000, &counts)])
}

proptest! {
    /// Told is exactly what is gone, and what fell by more than half from a thousand on; each once.
    #[test]
    fn exactly_what_is_gone_or_fell_is_told(before in tables(), after in tables()) {
        let found = shrunk(&server(&before), &server(&after), Limits::default(), &Volatile::default());
        let names: BTreeSet<String> = found.iter().map(|it| it.name.clone()).collect();
        prop_assert_eq!(names.len(), found.len());
        let wanted = before.iter().filter(|(name, rows)| match after.get(*name) {
            None => true,
            Some(now) => **rows >= 1000 && now * 2 < **rows,
        });
        let wanted: BTreeSet<String> = wanted.map(|(name, _)| format!("shop: {name}")).collect();
        prop_assert_eq!(names, wanted);
    }

    /// What only grows, and what is compared with itself, is never suspect; and what is volatile is never told.
    #[test]
    fn growth_is_never_suspect(before in tables(), more in tables()) {
        let mut after = before.clone();
        for (name, rows) in &more {
            *after.entry(name.clone()).or_default() += rows;
        }
        prop_assert_eq!(of(&server(&before), &server(&after), Limits::default(), &Volatile::default()), None);
        let all = Volatile::those(|_| true);
        prop_assert_eq!(of(&server(&after), &server(&BTreeMap::new()), Limits::default(), &all), None);
    }
}

#[test]
fn what_is_gone_now_is_told_before_a_run_finds_it() {
    let before = server(&BTreeMap::from([("public.orders".to_owned(), 2_000), ("public.notes".to_owned(), 3)]));
    let tables = |names: &[&str]| names.iter().map(|name| (Some("shop".to_owned()), (*name).to_owned())).collect();
    let found = |databases: &[&str], names: &[&str], volatile: &Volatile<'_>| -> Vec<String> {
        let databases = databases.iter().map(|name| (*name).to_owned()).collect();
        gone(&before, &Present { databases, tables: tables(names) }, volatile).iter().map(ToString::to_string).collect()
    };
    let none = Volatile::default();
    let all = ["public.notes", "public.orders", "public.new"];
    assert_eq!(found(&["shop", "more"], &all, &none), Vec::<String>::new());
    // However few rows it held.
    assert_eq!(found(&["shop"], &["public.orders"], &none), ["shop: public.notes: gone, had 3 rows"]);
    assert_eq!(found(&["more"], &[], &none), ["the database shop: gone, had 2,003 rows"]);
    assert_eq!(found(&["shop"], &["public.orders"], &Volatile::those(|name| name == "notes")), Vec::<String>::new());
}
