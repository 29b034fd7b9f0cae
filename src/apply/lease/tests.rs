use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use super::record::{LeaseRecord, name_of};
use super::*;
use crate::apply::clock::SystemClock;
use crate::repository::objects::LocalObjects;

/// A store in memory that can fail, and that tells of renewals.
#[derive(Default)]
struct Memory {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    fails: AtomicBool,
    renewals: Mutex<usize>,
    renewed: Condvar,
}

impl Memory {
    fn answer(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) { Err(io::Error::other("no answer")) } else { Ok(()) }
    }

    fn names(&self) -> Vec<String> {
        self.list("").unwrap()
    }

    fn wait_for_renewals(&self, count: usize) {
        let renewals = self.renewals.lock().unwrap();
        let waited = self.renewed.wait_timeout_while(renewals, Duration::from_secs(60), |renewals| *renewals < count);
        assert!(!waited.unwrap().1.timed_out(), "the heartbeat stands still");
    }
}

impl Objects for Memory {
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.answer()?;
        Ok(self.objects.lock().unwrap().get(name).cloned())
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.answer()?;
        Ok(self.objects.lock().unwrap().keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        self.answer()?;
        let mut objects = self.objects.lock().unwrap();
        let absent = !objects.contains_key(name);
        if absent {
            objects.insert(name.to_owned(), bytes.to_vec());
        }
        Ok(absent)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.answer()?;
        self.objects.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        *self.renewals.lock().unwrap() += 1;
        self.renewed.notify_all();
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.answer()?;
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }
}

/// A clock that stands still until it is told.
struct Stopped(Mutex<Timestamp>);

impl Stopped {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new("2026-11-23T12:00:00Z".parse().unwrap())))
    }

    fn pass(&self, seconds: u64) {
        let mut now = self.0.lock().unwrap();
        *now = Span::from_secs(seconds).after(*now);
    }
}

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::new(text)
}

fn at(repository: &str, objects: &Arc<Memory>) -> (RepositoryName, Arc<dyn Objects>) {
    (name(repository), objects.clone())
}

fn acquire(stack: &str, objects: &Arc<Memory>, clock: &Arc<Stopped>) -> Result<Lease, LeaseError> {
    let (who, stack) = (Holder::here(), StackName::new(stack));
    Lease::acquire(Wanted::on(vec![at("local", objects)]), &who, &stack, clock.clone(), Cancel::new())
}

/// What a holder of another place left behind.
fn forge(objects: &Memory, kind: Kind, stack: &str, holder: Holder, now: Timestamp) -> LeaseId {
    let (id, stack) = (LeaseId::new("0123456789abcdef"), StackName::new(stack));
    let record = LeaseRecord::new(kind, id.clone(), stack.clone(), holder, now);
    objects.put_if_absent(&name_of(kind, &stack, &id), &record.to_bytes().unwrap()).unwrap();
    id
}

fn elsewhere() -> Holder {
    let mut holder = Holder::here();
    holder.host.name = "elsewhere".into();
    holder.host.boot = Some("another boot".into());
    holder
}

fn is_locked(result: &Result<Lease, LeaseError>) -> bool {
    matches!(result, Err(LeaseError::Locked { .. }))
}

fn is_busy<T>(result: &Result<T, LeaseError>) -> bool {
    matches!(result, Err(LeaseError::Busy { .. }))
}

#[test]
fn a_second_apply_is_told_who_holds_the_lease_until_it_is_released() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let first = acquire("shop", &objects, &clock).unwrap();
    let error = acquire("shop", &objects, &clock).err().unwrap();
    assert_eq!(error.kind(), FailureKind::Locked);
    let told = error.to_string();
    assert!(told.contains(first.id().as_str()) && told.contains(&format!("pid {}", std::process::id())), "{told}");
    let neighbour = acquire("blog", &objects, &clock).unwrap();
    first.release().unwrap();
    drop(acquire("shop", &objects, &clock).unwrap());
    drop(neighbour);
    assert_eq!(objects.names(), Vec::<String>::new(), "nothing stays behind");
}

#[test]
fn all_repositories_are_taken_or_none() {
    let (a, b, clock) = (Arc::new(Memory::default()), Arc::new(Memory::default()), Stopped::new());
    let (who, stack) = (Holder::here(), StackName::new("shop"));
    let both = || vec![at("b", &b), at("a", &a)];
    let in_b = Lease::acquire(Wanted::on(vec![at("b", &b)]), &who, &stack, clock.clone(), Cancel::new()).unwrap();
    assert!(is_locked(&Lease::acquire(Wanted::on(both()), &who, &stack, clock.clone(), Cancel::new())));
    assert_eq!((a.names().len(), b.names().len()), (0, 1));
    in_b.release().unwrap();
    b.fails.store(true, Ordering::SeqCst);
    let error = Lease::acquire(Wanted::on(both()), &who, &stack, clock.clone(), Cancel::new()).err().unwrap();
    assert!(matches!(error, LeaseError::Store { .. }) && error.kind() == FailureKind::Transient);
    assert_eq!(a.names().len(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_process_is_taken_over_at_once() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let mut holder = Holder::here();
    holder.process.pid = child.id();
    holder.process.started = None;
    let id = forge(&objects, Kind::Shared, "shop", holder.clone(), clock.now());
    forge(&objects, Kind::Exclusive, "shop", holder, clock.now());
    assert!(is_locked(&acquire("shop", &objects, &clock)));
    assert!(list(objects.as_ref(), clock.as_ref()).unwrap().iter().all(|fact| fact.alive));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(list(objects.as_ref(), clock.as_ref()).unwrap().iter().all(|fact| !fact.alive));
    let lease = acquire("shop", &objects, &clock).unwrap();
    assert_ne!(*lease.id(), id);
    assert_eq!(objects.names().len(), 1);
}

#[test]
fn another_hosts_lease_is_kept_until_it_expires() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    forge(&objects, Kind::Shared, "shop", elsewhere(), clock.now());
    clock.pass(59);
    assert!(is_locked(&acquire("shop", &objects, &clock)));
    clock.pass(1);
    assert!(acquire("shop", &objects, &clock).is_ok());
}

#[test]
fn a_lease_that_is_renewed_outlives_its_first_expiry() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let lease = acquire("shop", &objects, &clock).unwrap();
    let _guard = lease.exclusive(&name("local")).unwrap();
    for _ in 0..20 {
        clock.pass(10);
        lease.held.beat();
    }
    lease.check(&name("local")).unwrap();
    let facts = list(objects.as_ref(), clock.as_ref()).unwrap();
    assert!(facts.len() == 2 && facts.iter().all(|fact| fact.expires == EXPIRY.after(clock.now())), "{facts:?}");
}

#[test]
fn the_heartbeat_renews_by_itself_and_notices_a_loss() {
    let (objects, cancel) = (Arc::new(Memory::default()), Cancel::new());
    let (who, stack) = (Holder::here(), StackName::new("shop"));
    let (clock, beat) = (Arc::new(SystemClock), Duration::from_millis(1));
    let lease = Lease::acquire(
        Wanted { heartbeat: beat, ..Wanted::on(vec![at("local", &objects)]) },
        &who,
        &stack,
        clock,
        cancel.clone(),
    )
    .unwrap();
    objects.wait_for_renewals(3);
    // The heartbeat may be about to renew what is removed here, and put it back once: until it is seen.
    let begun = std::time::Instant::now();
    while !cancel.is_cancelled() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the loss goes unnoticed");
        objects.objects.lock().unwrap().clear();
        std::thread::yield_now();
    }
    assert!(lease.lost());
    assert!(matches!(lease.check(&name("local")), Err(LeaseError::Lost { .. })));
}

#[test]
fn a_lease_that_was_removed_or_replaced_is_lost_before_the_next_deletion() {
    for replaced in [false, true] {
        let (objects, clock, cancel) = (Arc::new(Memory::default()), Stopped::new(), Cancel::new());
        let (who, stack) = (Holder::here(), StackName::new("shop"));
        let lease =
            Lease::acquire(Wanted::on(vec![at("local", &objects)]), &who, &stack, clock, cancel.clone()).unwrap();
        lease.check(&name("local")).unwrap();
        let own = objects.names().remove(0);
        if replaced {
            objects.objects.lock().unwrap().insert(own, b"{}".to_vec());
        } else {
            objects.delete(&own).unwrap();
        }
        assert!(matches!(lease.check(&name("local")), Err(LeaseError::Lost { .. })));
        assert!(lease.lost() && cancel.is_cancelled());
    }
}

#[test]
fn an_expired_lease_is_never_renewed() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let lease = acquire("shop", &objects, &clock).unwrap();
    clock.pass(60);
    assert!(matches!(lease.check(&name("local")), Err(LeaseError::Lost { .. })), "fenced before any heartbeat");
    lease.held.beat();
    assert!(!list(objects.as_ref(), clock.as_ref()).unwrap()[0].alive);
    assert_eq!(*objects.renewals.lock().unwrap(), 0);
}

#[test]
fn a_store_that_does_not_answer_loses_the_lease_only_at_its_expiry() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let lease = acquire("shop", &objects, &clock).unwrap();
    objects.fails.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        clock.pass(10);
        lease.held.beat();
        assert!(!lease.lost());
        assert!(matches!(lease.check(&name("local")), Err(LeaseError::Store { .. })), "unread is not still ours");
    }
    clock.pass(10);
    lease.held.beat();
    assert!(lease.lost());
    assert!(lease.release().is_err(), "and that it could not be taken away is told");
}

#[test]
fn exclusive_use_and_other_stacks_keep_each_other_out() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let shop = acquire("shop", &objects, &clock).unwrap();
    let blog = acquire("blog", &objects, &clock).unwrap();
    let refused = shop.exclusive(&name("local"));
    assert!(is_busy(&refused) && refused.err().unwrap().kind() == FailureKind::Transient);
    assert_eq!(objects.names().len(), 2, "what was put in vain is gone");
    drop(blog);
    let guard = shop.exclusive(&name("local")).unwrap();
    guard.check().unwrap();
    assert!(is_busy(&shop.exclusive(&name("local"))), "not even twice in one process");
    guard.check().unwrap();
    assert!(is_busy(&acquire("blog", &objects, &clock)));
    assert!(matches!(shop.exclusive(&name("elsewhere")), Err(LeaseError::NotHeld { .. })));
    drop(guard);
    assert!(acquire("blog", &objects, &clock).is_ok());
}

#[test]
fn a_stack_named_exclusive_is_a_stack_like_any_other() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let named_so = acquire("exclusive", &objects, &clock).unwrap();
    let shop = acquire("shop", &objects, &clock).unwrap();
    drop(named_so);
    let _guard = shop.exclusive(&name("local")).unwrap();
    assert!(is_busy(&acquire("exclusive", &objects, &clock)));
}

#[test]
fn what_cannot_be_read_counts_as_live_until_it_is_unlocked() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    objects.put_if_absent("leases/shop.77", b"{\"format\":2}").unwrap();
    clock.pass(100 * 24 * 3_600);
    assert!(is_locked(&acquire("shop", &objects, &clock)));
    let blog = acquire("blog", &objects, &clock).unwrap();
    assert!(is_busy(&blog.exclusive(&name("local"))));
    let all = [at("local", &objects)];
    let removed = unlock(&all, &LeaseId::new("77"), clock.as_ref()).unwrap();
    assert_eq!(removed.len(), 1);
    assert!(acquire("shop", &objects, &clock).is_ok());
}

#[test]
fn unlocking_needs_the_exact_id_and_names_those_that_are_there() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let lease = acquire("shop", &objects, &clock).unwrap();
    let all = [at("local", &objects)];
    for wrong in ["", "shop", &lease.id().as_str()[..8], "../keys"] {
        let error = unlock(&all, &LeaseId::new(wrong), clock.as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("no such lease") && error.contains(lease.id().as_str()), "{error}");
    }
    lease.check(&name("local")).unwrap();
    let removed = unlock(&all, lease.id(), clock.as_ref()).unwrap();
    assert_eq!((removed.len(), objects.names().len()), (1, 0));
    assert!(lease.check(&name("local")).is_err());
    let error = unlock(&all, lease.id(), clock.as_ref()).unwrap_err();
    assert!(error.to_string().contains("there is none"));
}

/// Four threads, each a holder of its own, and never two in the same place at a time. Returns how often one got in.
fn race(objects: Arc<dyn Objects>, tries: usize, enter: impl Fn(&Lease, usize) -> bool + Sync) -> usize {
    let entered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (objects, entered, enter) = (objects.clone(), &entered, &enter);
            scope.spawn(move || {
                let who = Holder::here();
                let stack = StackName::new(if thread % 2 == 0 { "shop" } else { "blog" });
                for _ in 0..tries {
                    let all = vec![(name("local"), objects.clone())];
                    match Lease::acquire(Wanted::on(all), &who, &stack, Arc::new(SystemClock), Cancel::new()) {
                        Ok(lease) if enter(&lease, thread % 2) => {
                            entered.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(_) | Err(LeaseError::Locked { .. } | LeaseError::Busy { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(objects.list("").unwrap(), Vec::<String>::new(), "nothing stays behind");
    entered.into_inner()
}

/// One flag for each stack: set while one of its threads holds the lease.
fn one_holder_of_each_stack() -> impl Fn(&Lease, usize) -> bool + Sync {
    let inside = [AtomicBool::new(false), AtomicBool::new(false)];
    move |_: &Lease, stack: usize| {
        assert!(!inside[stack].swap(true, Ordering::SeqCst), "two holders of one stack at a time");
        std::thread::yield_now();
        inside[stack].store(false, Ordering::SeqCst);
        true
    }
}

#[test]
fn of_many_who_come_at_once_one_holds_it_in_memory() {
    assert!(race(Arc::new(Memory::default()), 500, one_holder_of_each_stack()) > 0);
}

#[test]
fn of_many_who_come_at_once_one_holds_it_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    assert!(race(Arc::new(LocalObjects::new(folder.path())), 50, one_holder_of_each_stack()) > 0);
}

#[test]
fn exclusive_use_is_never_beside_another_stacks_lease() {
    let holders = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let alone = AtomicUsize::new(0);
    let enter = |lease: &Lease, stack: usize| {
        holders[stack].fetch_add(1, Ordering::SeqCst);
        if let Ok(_guard) = lease.exclusive(&name("local")) {
            assert_eq!(holders[1 - stack].load(Ordering::SeqCst), 0, "the other stack is in");
            std::thread::yield_now();
            assert_eq!(holders[1 - stack].load(Ordering::SeqCst), 0, "the other stack came in");
            alone.fetch_add(1, Ordering::SeqCst);
        }
        holders[stack].fetch_sub(1, Ordering::SeqCst);
        true
    };
    race(Arc::new(Memory::default()), 500, enter);
    assert!(alone.into_inner() > 0);
}

/// A store that can be read, and not written.
struct ReadOnly(Arc<Memory>);

impl Objects for ReadOnly {
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.get(name)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.0.list(prefix)
    }

    fn put_if_absent(&self, _: &str, _: &[u8]) -> io::Result<bool> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn delete(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[test]
fn what_only_reads_goes_without_a_lease_where_none_can_be_put_and_heeds_those_of_others() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let (who, stack) = (Holder::here(), StackName::new("shop"));
    let wanted = |reads| {
        let read_only: Arc<dyn Objects> = Arc::new(ReadOnly(objects.clone()));
        Wanted { reads, ..Wanted::on(vec![(name("local"), read_only)]) }
    };
    let acquire = |reads| Lease::acquire(wanted(reads), &who, &stack, clock.clone(), Cancel::new());
    assert!(matches!(acquire(false), Err(LeaseError::Store { .. })), "what writes does not");
    // One of a process that is gone is in nobody's way, though it can't be taken away.
    let dead = forge(&objects, Kind::Shared, "shop", elsewhere(), clock.now());
    clock.pass(120);
    let lease = acquire(true).unwrap();
    assert_eq!(lease.unwritable().into_keys().collect::<Vec<_>>(), [name("local")]);
    assert!(matches!(lease.check(&name("local")), Err(LeaseError::Unwritable { .. })));
    assert!(!lease.lost(), "nothing was held that could be lost");
    lease.release().unwrap();
    assert!(objects.names().iter().any(|name| name.contains(dead.as_str())));
    objects.delete(&name_of(Kind::Shared, &stack, &dead)).unwrap();
    forge(&objects, Kind::Shared, "shop", elsewhere(), clock.now());
    assert!(is_locked(&acquire(true)), "a live one is heeded");
}

#[test]
fn nothing_is_put_into_a_repository_that_is_not_there_before_it_is_made() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let (who, stack) = (Holder::here(), StackName::new("shop"));
    let wanted = || Wanted { absent: vec![at("new", &objects)], ..Wanted::on(Vec::new()) };
    let acquire = || Lease::acquire(wanted(), &who, &stack, clock.clone(), Cancel::new()).unwrap();
    let (first, second) = (acquire(), acquire());
    assert!(objects.names().is_empty());
    assert!(matches!(first.check(&name("new")), Err(LeaseError::NotHeld { .. })));
    first.extend(&name("new")).unwrap();
    first.extend(&name("new")).unwrap();
    first.check(&name("new")).unwrap();
    assert!(matches!(second.extend(&name("new")), Err(LeaseError::Locked { .. })));
    drop((first, second));
    assert!(objects.names().is_empty());
}

#[test]
fn a_lease_dated_in_the_future_that_nobody_renews_is_taken_over() {
    let (objects, clock) = (Arc::new(Memory::default()), Stopped::new());
    let (who, stack) = (Holder::here(), StackName::new("shop"));
    let wanted = || Wanted { watch: Duration::ZERO, ..Wanted::on(vec![at("local", &objects)]) };
    let tomorrow = Span::from_hours(24).after(clock.now());
    forge(&objects, Kind::Shared, "shop", elsewhere(), tomorrow);
    let facts = list(objects.as_ref(), &*clock).unwrap();
    assert!(facts[0].owner.contains("24 h ahead") || facts[0].owner.contains("1 d ahead"), "{}", facts[0].owner);
    drop(Lease::acquire(wanted(), &who, &stack, clock.clone(), Cancel::new()).unwrap());
    // Clocks that differ by less than an expiry are everyday.
    forge(&objects, Kind::Shared, "shop", elsewhere(), Span::from_secs(50).after(clock.now()));
    assert!(is_locked(&Lease::acquire(wanted(), &who, &stack, clock.clone(), Cancel::new())));
}
