//! What a lease holds, and how it is kept: put, renewed, read again, taken away.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::record::{Kind, LeaseRecord, name_of};
use super::{EXPIRY, LeaseError, PUT};
use crate::apply::clock::Clock;
use crate::apply::host::Holder;
use crate::model::cancel::Cancel;
use crate::model::ids::{LeaseId, RepositoryName, StackName};
use crate::repository::objects::Objects;

pub(super) struct Held {
    pub id: LeaseId,
    pub stack: StackName,
    pub holder: Holder,
    objects: BTreeMap<RepositoryName, Arc<dyn Objects>>,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
    /// What lies in the stores. Locked while an object is renewed, so that none comes back that was just taken away.
    records: Mutex<BTreeMap<(RepositoryName, Kind), LeaseRecord>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    /// The repository and the reason.
    lost: Option<(RepositoryName, String)>,
}

impl Held {
    pub fn new(
        id: LeaseId,
        stack: StackName,
        holder: Holder,
        objects: BTreeMap<RepositoryName, Arc<dyn Objects>>,
        clock: Arc<dyn Clock>,
        cancel: Cancel,
    ) -> Self {
        let (records, state) = (Mutex::default(), Mutex::default());
        Self { id, stack, holder, objects, clock, cancel, records, state, changed: Condvar::new() }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn objects(&self, repository: &RepositoryName) -> Result<&Arc<dyn Objects>, LeaseError> {
        self.objects.get(repository).ok_or_else(|| LeaseError::NotHeld { repository: repository.clone() })
    }

    /// Puts our object, and returns when it was acquired.
    pub fn put(&self, repository: &RepositoryName, kind: Kind) -> Result<Timestamp, LeaseError> {
        let record = LeaseRecord::new(kind, self.id.clone(), self.stack.clone(), self.holder.clone(), self.now());
        let objects = self.objects(repository)?;
        let mut records = self.records();
        let name = name_of(kind, &self.stack, &self.id);
        let store = |source| LeaseError::Store { repository: repository.clone(), act: PUT, source };
        let bytes = record.to_bytes().map_err(store)?;
        match objects.put_if_absent(&name, &bytes) {
            Ok(true) => {}
            // A put that failed had arrived all the same. The name has our id in it: nobody else writes there.
            Ok(false) if !records.contains_key(&(repository.clone(), kind)) => {
                objects.replace(&name, &bytes).map_err(store)?;
            }
            // A second exclusive use in this process must not end the first.
            Ok(false) => {
                let (other, id) = ("this same process".to_owned(), self.id.clone());
                return Err(LeaseError::Busy { repository: repository.clone(), other, id });
            }
            Err(source) => {
                // What may have arrived would keep others out until it expires. That it can't be taken away says no
                // more than the first error.
                let _ = objects.delete(&name);
                return Err(store(source));
            }
        }
        let acquired = record.acquired;
        records.insert((repository.clone(), kind), record);
        Ok(acquired)
    }

    /// Renews everything that is held. A store that does not answer is asked again with the next beat, until the
    /// expiry; then the lease is lost, since others may go by it.
    pub fn beat(&self) {
        let mut records = self.records();
        for ((repository, kind), record) in records.iter_mut() {
            match self.renew(repository, *kind, record) {
                Ok(renewed) => *record = renewed,
                Err(LeaseError::Lost { repository, why }) => self.lose(&repository, why),
                Err(error) if self.now() >= record.expires => {
                    self.lose(repository, format!("not renewed in time ({error})"));
                }
                Err(error) => {
                    tracing::warn!("{}; tried again soon", crate::apply::runner::StepError::from(error));
                }
            }
        }
    }

    /// Never what has expired already: others may have gone by it, and a renewal would bring it back beside theirs.
    fn renew(&self, repository: &RepositoryName, kind: Kind, record: &LeaseRecord) -> Result<LeaseRecord, LeaseError> {
        self.check(repository, kind)?;
        let now = self.now();
        let renewed = LeaseRecord { renewed: now, expires: EXPIRY.after(now), ..record.clone() };
        let name = name_of(kind, &self.stack, &self.id);
        let objects = self.objects(repository)?;
        let store = |act| move |source| LeaseError::Store { repository: repository.clone(), act, source };
        let written = renewed.to_bytes().and_then(|bytes| objects.replace(&name, &bytes));
        written.map_err(store("renewed"))?;
        if self.now() >= record.expires {
            objects.delete(&name).map_err(store("taken away"))?;
            let why = "the store took too long to renew it".to_owned();
            return Err(LeaseError::Lost { repository: repository.clone(), why });
        }
        Ok(renewed)
    }

    /// Our object is there, is ours, and has not expired. Otherwise the lease is lost for good.
    pub fn check(&self, repository: &RepositoryName, kind: Kind) -> Result<(), LeaseError> {
        if let Some(error) = self.loss() {
            return Err(error);
        }
        let name = name_of(kind, &self.stack, &self.id);
        let read = self.objects(repository)?.get(&name);
        let bytes =
            read.map_err(|source| LeaseError::Store { repository: repository.clone(), act: "read again", source })?;
        let why = match bytes.as_deref().map(LeaseRecord::parse) {
            None => "it was taken over, or removed by `devstack unlock ID`",
            Some(None) => "its object was overwritten",
            Some(Some(there)) if there.id != self.id => "its object is somebody else's",
            Some(Some(there)) if there.expires <= self.now() => "it was not renewed in time",
            Some(Some(_)) => return Ok(()),
        };
        self.lose(repository, why.to_owned());
        Err(LeaseError::Lost { repository: repository.clone(), why: why.to_owned() })
    }

    /// Once lost it stays lost.
    pub fn loss(&self) -> Option<LeaseError> {
        let lost = self.state().lost.clone();
        lost.map(|(repository, why)| LeaseError::Lost { repository, why })
    }

    fn lose(&self, repository: &RepositoryName, why: String) {
        self.state().lost.get_or_insert_with(|| (repository.clone(), why));
        self.cancel.cancel();
        self.changed.notify_all();
    }

    pub fn take_away(&self, repository: &RepositoryName, kind: Kind) -> Result<(), LeaseError> {
        let mut records = self.records();
        if records.remove(&(repository.clone(), kind)).is_none() {
            return Ok(());
        }
        let deleted = self.objects(repository)?.delete(&name_of(kind, &self.stack, &self.id));
        deleted.map_err(|source| LeaseError::Store { repository: repository.clone(), act: "taken away", source })
    }

    /// Everywhere, also after an error, of which the first is returned.
    pub fn take_away_all(&self) -> Result<(), LeaseError> {
        let keys: Vec<_> = self.records().keys().cloned().collect();
        let results: Vec<_> = keys.iter().map(|(repository, kind)| self.take_away(repository, *kind)).collect();
        results.into_iter().collect()
    }

    pub fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    /// The heartbeat's thread.
    pub fn beat_until_stopped(&self, interval: Duration) {
        loop {
            let goes_on = |state: &mut State| !state.stopped && state.lost.is_none();
            let waited = self.changed.wait_timeout_while(self.state(), interval, goes_on);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if !goes_on(&mut state) {
                return;
            }
            drop(state);
            self.beat();
        }
    }

    // A panic while these are locked leaves whole values behind: they are only ever replaced as such.
    fn records(&self) -> MutexGuard<'_, BTreeMap<(RepositoryName, Kind), LeaseRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
