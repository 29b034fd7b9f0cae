//! What every verb begins with: the file read, the repositories at hand, the history, the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::error::{Exit, Failure};
use super::lines;
use crate::apply::clock::SystemClock;
use crate::apply::host::Holder;
use crate::apply::journal::Journal;
use crate::apply::lease::{self, Lease, LeaseError};
use crate::apply::resume;
use crate::engines::{Ground, Workrooms};
use crate::model::cancel::Cancel;
use crate::model::compose::ComposeModel;
use crate::model::history::History;
use crate::model::ids::{LeaseId, RepositoryName, ServiceName};
use crate::model::observation::{Observation, Observed, RepositoryState};
use crate::model::plan::{Plan, Report};
use crate::observe::{self, Stores};
use crate::plan::render::{self, TextOptions};
use crate::plan::{self, PlanError, Request};
use crate::repository::objects::Objects;
use crate::spec::diagnostic::Look;
use crate::spec::read::{self, Loaded};

pub(super) struct Session {
    pub(super) loaded: Loaded,
    pub(super) ground: Ground,
    pub(super) stores: Arc<Stores>,
    pub(super) history: History,
    /// `.devstack/` beside the file: a cache, whose loss loses no backup.
    pub(super) state: PathBuf,
    pub(super) zone: TimeZone,
}

impl Session {
    pub(super) fn open(file: &Path) -> Result<Self, Failure> {
        let loaded = load(file)?;
        for warning in &loaded.warnings {
            eprintln!("warning: {}: {}", warning.place, warning.message);
        }
        let home = home();
        let spec = &loaded.spec;
        let ground = Ground::new(spec.runtime.as_ref(), spec.vault.as_ref(), &loaded.base, home.as_deref());
        let secrets = Arc::clone(&ground.secrets);
        let stores = Arc::new(Stores::new(&loaded.spec, &loaded.base, home.as_deref(), secrets));
        let state = loaded.base.join(".devstack");
        let history = Journal::history(&state)
            .map_err(|error| Failure::caused(Exit::Unexpected, "reading the journal", &error))?;
        Ok(Self { loaded, ground, stores, history, state, zone: TimeZone::system() })
    }

    pub(super) fn rooms(&self) -> Workrooms {
        Workrooms::new(self.state.join("work"))
    }

    /// How plans are laid out for this reader.
    pub(super) fn layout(&self, all: bool) -> TextOptions {
        TextOptions { zone: self.zone.clone(), all }
    }

    /// That a recovery has begun here and has not come to its end.
    pub(super) fn interrupted_recovery(&self) -> Option<String> {
        let since = match resume::interrupted(&self.state) {
            Ok(plan) => lines::time(plan?.now, &self.zone),
            Err(error) => return Some(crate::model::chain(&error)),
        };
        Some(format!("a recovery that began at {since} has not come to its end"))
    }

    /// Said by what only looks.
    pub(super) fn warn_of_recovery(&self) {
        if let Some(text) = self.interrupted_recovery() {
            eprintln!("warning: {text}: go on with it by `devstack recover --resume`");
        }
    }

    /// The plan of a recovery, for people.
    pub(super) fn recovery_text(&self, plan: &Plan) -> String {
        render::recovery(plan, &self.loaded.spec, &self.layout(true))
    }

    /// Looks at the world. Leases are part of it.
    pub(super) fn observe(&self, now: Timestamp) -> Observation {
        self.observe_beside(now, None, &Request::Converge)
    }

    /// As [`Self::observe`], where the lease `own` is ours: it does not stand in our own way. What the request does not
    /// concern is not waited for: a restore at 3 a.m. looks at what it restores.
    pub(super) fn observe_beside(&self, now: Timestamp, own: Option<&LeaseId>, request: &Request) -> Observation {
        let spec = &self.loaded.spec;
        let concerns = |name: &ServiceName| match request {
            Request::Restore { services, .. } => services.contains_key(name),
            Request::Recover(asked) => asked.names(name),
            Request::Rollback(asked) => asked.only.is_empty() || asked.only.contains(name),
            Request::Converge | Request::Backup { .. } | Request::Forget(_) => true,
        };
        if matches!(request, Request::Recover(_)) && !self.ground.containers.knows_project() {
            self.assume_project();
        }
        let mut observation = observe::observe(spec, &self.ground, &self.stores, &self.history, now, &concerns);
        if matches!(request, Request::Recover(_)) {
            observation.compose = self.ground.containers.compose().map(|compose| match compose.resolved() {
                Ok(resolved) => Observed::Known(ComposeModel::of(&resolved)),
                Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
            });
            let services = spec.services.iter().filter(|(name, _)| concerns(name));
            observation.room = services
                .filter_map(|(name, service)| Some((name.clone(), observe::room(&service.source, &self.ground)?)))
                .collect();
            observation.up = Some(match self.ground.containers.up() {
                Ok(up) => Observed::Known(up),
                Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
            });
        }
        for (name, state) in &mut observation.repositories {
            let Observed::Known(RepositoryState::Present(facts)) = state else { continue };
            let leases = self.objects(name).and_then(|objects| {
                lease::list(objects.as_ref(), &SystemClock)
                    .map_err(|error| Failure::caused(Exit::Unexpected, "leases", &error))
            });
            match leases {
                Ok(leases) => {
                    facts.leases = leases.into_iter().filter(|lease| Some(&lease.id) != own).collect();
                }
                Err(failure) => *state = Observed::Unknown { reason: failure.text().to_owned() },
            }
        }
        if own.is_none() && observation.present().all(|(_, facts)| facts.leases.is_empty()) {
            observation.left_stopped = self.left_stopped();
        }
        observation
    }

    /// Without Compose files that say it the project has the name that it had in the newest run.
    fn assume_project(&self) {
        let stack = &self.loaded.spec.stack;
        // A repository that cannot be looked at is told of by the look itself.
        let all = self.stores.names().filter_map(|name| self.stores.facts(name, stack).ok());
        let runs = all.flat_map(|facts| facts.runs).map(|run| run.manifest).filter(|run| run.compose.is_some());
        if let Some(compose) = runs.max_by_key(|run| run.started).and_then(|run| run.compose) {
            self.ground.containers.assume_project(&compose.project);
        }
    }

    /// What somebody else's apply has stopped just now would be among them: they are asked for where nobody holds a lease.
    fn left_stopped(&self) -> Vec<String> {
        let book = &self.ground.stopped;
        if book.is_empty() {
            return Vec::new();
        }
        // An engine that does not answer is told of by every service on it.
        self.ground.containers.docker().and_then(|docker| book.still_stopped(&docker)).unwrap_or_default()
    }

    /// What it is to the shell that a declared repository could not be looked at; [`Exit::Done`] when all could.
    pub(super) fn unseen(&self) -> Exit {
        self.stores.troubles().into_iter().fold(Exit::Done, |worst, kind| worst.or_worse(Exit::of(kind)))
    }

    /// What it is to the shell that something declared could not be looked at or is not there, whatever else was done: a
    /// timer that runs `apply` must not stay green over it.
    pub(super) fn troubled(&self, report: &Report) -> Exit {
        let seen = match report.is_troubled() {
            true => self.unseen().or_worse(Exit::Partly),
            // Until it goes on or is left, no backup is taken.
            false if self.interrupted_recovery().is_some() => Exit::Partly,
            false => Exit::Done,
        };
        seen.or_worse(Self::damaged(report))
    }

    /// What it is to the shell that backups are damaged, or were removed by somebody else: said each time, until that is over.
    pub(super) fn damaged(report: &Report) -> Exit {
        if report.is_damaged() { Exit::Verification } else { Exit::Done }
    }

    pub(super) fn plan(&self, observation: &Observation, request: &Request, now: Timestamp) -> Result<Plan, Failure> {
        self.plan_with(&self.history, observation, request, now)
    }

    pub(super) fn plan_with(
        &self,
        history: &History,
        observation: &Observation,
        request: &Request,
        now: Timestamp,
    ) -> Result<Plan, Failure> {
        plan::plan(&self.loaded.spec, &self.loaded.digest, observation, history, now, request).map_err(|error| {
            let exit = match &error {
                PlanError::NeverForgotten { .. } => Exit::NotApproved,
                // A repository that is shut for want of a key is the key's fault; what does not answer is nobody's.
                error if error.is_of_the_world() => self.unseen().or_worse(Exit::Partly),
                _ => self.unseen().or_worse(Exit::Input),
            };
            error.next().into_iter().fold(Failure::new(exit, crate::model::chain(&error)), Failure::hint)
        })
    }

    pub(super) fn objects(&self, name: &RepositoryName) -> Result<Arc<dyn Objects>, Failure> {
        Ok(Arc::new(self.stores.site(name)?.objects()))
    }

    /// The stack's lease in every declared repository that can be reached. Taken before the look that the plan rests
    /// on, so that nothing moves between the two.
    pub(super) fn lease(&self, cancel: &Cancel) -> Result<Lease, Failure> {
        let mut reachable = Vec::new();
        for name in self.stores.names() {
            // One that cannot be looked at is Unknown to the plan, which then has no step for it.
            if self.stores.site(name)?.look().is_ok() {
                reachable.push((name.clone(), self.objects(name)?));
            }
        }
        Lease::acquire(reachable, &Holder::here(), &self.loaded.spec.stack, Arc::new(SystemClock), cancel.clone())
            .map_err(|error| match &error {
                LeaseError::Locked { .. } => Failure::caused(Exit::Locked, "locked", &error)
                    .hint("wait for it, or if that process is gone for good: `devstack unlock ID`"),
                _ => Failure::caused(Exit::of(error.kind()), "taking the lease", &error)
                    .hint("each repository's `path` in the file must be a folder that can be written, or made"),
            })
    }
}

/// The file, or its diagnostics as a failure.
pub(super) fn load(file: &Path) -> Result<Loaded, Failure> {
    read::load(file).map_err(|rejected| Failure::rendered(Exit::Input, rejected.render(look())))
}

/// How diagnostics are drawn for whoever reads standard error.
pub(super) fn look() -> Look {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        Look::Terminal { width: 110, color: std::env::var_os("NO_COLOR").is_none() }
    } else {
        Look::Plain
    }
}

pub(super) fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Writes a private file as a whole: a reader sees the old one or the new one.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let staged = path.with_extension("staged");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, path)
}

/// The token of a login to Vault does not outlive the command.
impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.ground.secrets.close() {
            eprintln!(
                "warning: the token of this command could not be revoked in Vault and lives until it expires: {}",
                crate::model::chain(&error)
            );
        }
    }
}
