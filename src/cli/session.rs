//! What every verb begins with: the file read, the repositories at hand, the history, the time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::error::{Exit, Failure};
use super::lines;
use crate::apply::clock::SystemClock;
use crate::apply::host::{self, Holder};
use crate::apply::journal::Journal;
use crate::apply::lease::{self, Lease, LeaseError, Wanted};
use crate::apply::resume;
use crate::engines::{self, Ground, Workrooms};
use crate::model::cancel::Cancel;
use crate::model::compose::ComposeModel;
use crate::model::history::History;
use crate::model::ids::{LeaseId, RepositoryName, ServiceName};
use crate::model::observation::{
    Misplaced, MissingFiles, Observation, Observed, RepositoryState, Run, SeenStack, SourceState,
};
use crate::model::origin::Origin;
use crate::model::plan::Plan;
use crate::model::run::{Manifest, Taken};
use crate::model::standing::Standing;
use crate::observe::{self, Stores};
use crate::plan::render::{self, TextOptions};
use crate::plan::{self, PlanError, Recover, Request, Selection};
use crate::repository::objects::Objects;
use crate::repository::{Presence, Reader};
use crate::spec::diagnostic::Look;
use crate::spec::file::{Source, Spec};
use crate::spec::read::{self, Loaded};

pub(super) struct Session {
    pub(super) loaded: Loaded,
    pub(super) ground: Ground,
    pub(super) stores: Arc<Stores>,
    pub(super) history: History,
    /// Why nothing is known of earlier applies: somebody else's `.devstack`, for one who may only read.
    unread: Option<String>,
    /// Where runs are taken.
    pub(super) origin: Origin,
    /// `.devstack/` beside the file: a cache, whose loss loses no backup.
    pub(super) state: PathBuf,
    pub(super) zone: TimeZone,
    /// What the stack holds, once it was seen: no command changes that.
    stack: OnceLock<Option<SeenStack>>,
}

impl Session {
    pub(super) fn open(file: &Path) -> Result<Self, Failure> {
        let loaded = load(file)?;
        for warning in &loaded.warnings {
            eprintln!("warning: {}: {}", warning.place, warning.message);
        }
        let home = home();
        let spec = &loaded.spec;
        let mut ground = Ground::new(spec.runtime.as_ref(), spec.vault.as_ref(), &loaded.base, home.as_deref());
        ground.own = own_paths(spec, &ground);
        let secrets = Arc::clone(&ground.secrets);
        let stores = Arc::new(Stores::new(&loaded.spec, &loaded.base, home.as_deref(), secrets));
        let state = loaded.base.join(".devstack");
        let (history, unread) = match Journal::history(&state) {
            Ok(history) => (history, None),
            Err(error) => (History::default(), Some(crate::model::chain(&error))),
        };
        let docker = loaded.spec.runtime.as_ref().and_then(|runtime| runtime.docker.as_ref());
        let origin = host::origin(&loaded.base, docker.and_then(|docker| docker.project.as_deref()));
        Ok(Self {
            loaded,
            ground,
            stores,
            history,
            unread,
            origin,
            state,
            zone: TimeZone::system(),
            stack: OnceLock::new(),
        })
    }

    pub(super) fn rooms(&self) -> Workrooms {
        Workrooms::new(self.state.join("work"))
    }

    /// Without it a repository that was here before would be made anew on a disk that is not mounted.
    pub(super) fn must_know_its_history(&self) -> Result<(), Failure> {
        match &self.unread {
            None => Ok(()),
            Some(why) => Err(Failure::new(Exit::Unexpected, format!("reading the journal: {why}"))),
        }
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
        Some(format!("the recovery that began at {since} is unfinished"))
    }

    /// Said by what only looks.
    pub(super) fn warn_of_recovery(&self) {
        if let Some(text) = self.interrupted_recovery() {
            eprintln!("warning: {text}; to continue: `devstack recover --resume`");
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
        self.remember_names(matches!(request, Request::Converge | Request::Backup { .. } | Request::Forget(_)));
        let (mut observation, stack) = std::thread::scope(|scope| {
            // A restore brings back what it names, whatever else there is.
            let is_whole = !matches!(request, Request::Restore { .. } | Request::Rollback(_));
            let stack = is_whole.then(|| scope.spawn(|| self.stack()));
            let seen = observe::observe(spec, &self.ground, &self.stores, &self.history, now, &concerns);
            let panicked = |_| Some(Observed::Unknown { reason: "looking at it panicked".to_owned() });
            (seen, stack.and_then(|stack| stack.join().unwrap_or_else(panicked)))
        });
        observation.stack = stack;
        observation.origin = Some(self.origin.clone());
        let is_gone = |name: &ServiceName| {
            let source = spec.services.get(name).map(|service| &service.source);
            let gone = matches!(observation.services.get(name), Some(Observed::Known(SourceState::Gone)));
            gone && source.is_some_and(Source::needs_docker)
        };
        if spec.services.keys().any(is_gone) {
            // An engine that does not answer is told of by every service on it.
            observation.projects = self.ground.containers.projects_here().ok().flatten();
        }
        observation.carried = self.stores.names().filter(|name| self.is_carried(name)).cloned().collect();
        if matches!(request, Request::Recover(_)) {
            observation.compose = self.ground.containers.compose().map(|compose| match compose.resolved_here() {
                Ok(resolved) => Observed::Known(resolved.known()),
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
        if let Request::Recover(asked) = request {
            observation.misplaced = self.misplaced(&observation, asked);
            if asked.missing {
                observation.missing = self.missing(&observation, asked);
            }
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
        observation.unfinished_recovery = self.interrupted_recovery();
        if own.is_none() && observation.present().all(|(_, facts)| facts.leases.is_empty()) {
            observation.left_stopped = self.left_stopped();
        }
        observation
    }

    /// What the stack holds. One that could not be looked at is looked at again: its files may come back meanwhile.
    fn stack(&self) -> Option<Observed<SeenStack>> {
        if let Some(known) = self.stack.get() {
            return known.clone().map(Observed::Known);
        }
        let seen = observe::stack(&self.ground, home().as_deref());
        match &seen {
            Some(Observed::Known(known)) => drop(self.stack.set(Some(known.clone()))),
            None => drop(self.stack.set(None)),
            Some(Observed::Unknown { .. }) => {}
        }
        seen
    }

    /// Whether a repository lies in the stack's own folder, wherever links lead to.
    fn is_carried(&self, name: &RepositoryName) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.stores.site(name).is_ok_and(|site| real(site.path()).starts_with(real(&self.loaded.base)))
    }

    /// Without Compose files that say it the project has the name that it had in the newest run, of this place if there is one, or
    /// where its name is that of a folder which is now another, the name of this one.
    fn assume_project(&self) {
        let Some(compose) = self.models_of_runs().into_iter().next_back() else { return };
        let here = self.ground.containers.compose().map(|compose| compose.folder());
        let name = match (&compose.folder, here) {
            (Some(then), Some(here)) if *then != here && project_of(then) == compose.project => project_of(&here),
            _ => compose.project,
        };
        self.ground.containers.assume_project(&name);
    }

    /// The file may call a container by a name that it had before the stack's folder moved. `cheaply`: only where it calls one by
    /// a name that has a number at its end, which no service of Compose needs.
    fn remember_names(&self, cheaply: bool) {
        let mut named = self.loaded.spec.services.values().flat_map(|service| service.source.containers());
        let is_numbered = |name: &str| {
            name.rsplit_once(['-', '_'])
                .is_some_and(|(_, end)| !end.is_empty() && end.bytes().all(|it| it.is_ascii_digit()))
        };
        let is_compose = self.ground.containers.compose().is_some();
        if !is_compose || (cheaply && !named.any(is_numbered)) {
            return;
        }
        let mut projects: Vec<String> = self.models_of_runs().into_iter().map(|model| model.project).collect();
        projects.sort();
        projects.dedup();
        self.ground.containers.once_called(projects);
    }

    /// Files of the newest run of a service that are not there, although the service is. What the file leaves out today, or calls
    /// volatile, is not missed; a repository that can't be read is told of by itself.
    fn missing(&self, observation: &Observation, asked: &Recover) -> BTreeMap<ServiceName, MissingFiles> {
        let mut found = BTreeMap::new();
        for (name, service) in self.loaded.spec.services.iter().filter(|(name, _)| asked.names(name)) {
            let is_there = matches!(observation.services.get(name), Some(Observed::Known(SourceState::HasData { .. })));
            if !is_there {
                continue;
            }
            let is_meant = |_: &RepositoryName, run: &Run| run.is_verified() && !run.manifest.policy.is_safety();
            let Some((place, run, taken)) = newest_of(observation, name, is_meant) else { continue };
            let volatile = service.shrinking.as_ref().and_then(|it| it.volatile().ok()).unwrap_or_default();
            let is_volatile = |path: &Path| {
                let named = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
                let whole = named(Some(path.as_os_str()));
                [named(path.file_name()), whole].into_iter().flatten().any(|name| volatile.has(None, &name))
            };
            let id = &run.manifest.run;
            let looked = self.reader_of(place).and_then(|reader| {
                engines::missing(&service.source, &self.ground, &reader, (id, taken), &is_volatile).ok()
            });
            found.extend(looked.filter(|missing| missing.count > 0).map(|missing| (name.clone(), missing)));
        }
        found
    }

    /// A repository that can't be read is told of by its own look.
    fn reader_of(&self, place: &RepositoryName) -> Option<Reader> {
        self.stores.open(place).ok()?.reader().ok()
    }

    /// Folders that stand where the run that is meant has files. A run that can't be read is told of by its proof.
    fn misplaced(&self, observation: &Observation, asked: &Recover) -> BTreeMap<ServiceName, Vec<Misplaced>> {
        let mut found = BTreeMap::new();
        for (name, service) in self.loaded.spec.services.iter().filter(|(name, _)| asked.names(name)) {
            let is_there = matches!(
                observation.services.get(name),
                Some(Observed::Known(
                    SourceState::HasData { .. } | SourceState::Unfinished { .. } | SourceState::Empty
                ))
            );
            if !is_there || !matches!(service.source, Source::Files(_) | Source::Certificates(_)) {
                continue;
            }
            let is_chosen = |run: &Run| match &asked.selection {
                Selection::Run(id) => id.may_mean(&run.manifest.run),
                // What was there before a restore is no point to come back to, unless somebody names it.
                _ if run.manifest.policy.is_safety() => false,
                Selection::At(at) => run.is_verified() && run.manifest.started <= *at,
                Selection::Newest => run.is_verified(),
                Selection::Latest => true,
            };
            let is_meant = |place: &RepositoryName, run: &Run| {
                is_chosen(run) && asked.from.as_ref().is_none_or(|from| from == place)
            };
            let Some((place, _, taken)) = newest_of(observation, name, is_meant) else { continue };
            let misplaced = self
                .reader_of(place)
                .and_then(|reader| engines::out_of_place(&service.source, &self.ground, &reader, taken).ok());
            found
                .extend(misplaced.filter(|misplaced| !misplaced.is_empty()).map(|misplaced| (name.clone(), misplaced)));
        }
        found
    }

    /// What the runs say of the Compose files, the newest last.
    fn models_of_runs(&self) -> Vec<ComposeModel> {
        let stack = &self.loaded.spec.stack;
        // A repository that cannot be looked at is told of by the look itself.
        let all = self.stores.names().filter_map(|name| self.stores.facts(name, stack).ok());
        let mut runs: Vec<_> = all.flat_map(|facts| facts.runs).map(|run| run.manifest).collect();
        // Those of this place are the last word on it.
        let is_here = |run: &Manifest| run.origin.as_ref().is_none_or(|origin| origin.is_same(&self.origin));
        runs.sort_by_key(|run| (is_here(run), run.started));
        runs.into_iter().filter_map(|run| run.compose).collect()
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

    /// What a verdict is to the shell, whatever else was done: a timer that runs `apply` must not stay green over what the
    /// first line says. A repository that could not be opened has a reason of its own (3 for a wrong key). `strict`: DEGRADED
    /// counts.
    pub(super) fn judged(&self, standing: &Standing, strict: bool) -> Exit {
        self.unseen().or_worse(Exit::from_code(standing.code(strict)))
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
    pub(super) fn lease(&self, access: Access, cancel: &Cancel) -> Result<Lease, Failure> {
        let mut wanted = Wanted { reads: access == Access::Reads, ..Wanted::on(Vec::new()) };
        for name in self.stores.names() {
            match self.stores.site(name)?.look() {
                Ok(Presence::Present) => wanted.present.push((name.clone(), self.objects(name)?)),
                // Put there when it is made, and not before: an unmounted disk looks the same.
                Ok(Presence::Absent) => wanted.absent.push((name.clone(), self.objects(name)?)),
                // One that cannot be looked at is Unknown to the plan, which then has no step for it.
                Err(_) => {}
            }
        }
        let lease =
            Lease::acquire(wanted, &Holder::here(), &self.loaded.spec.stack, Arc::new(SystemClock), cancel.clone());
        let lease = lease.map_err(|error| match &error {
            LeaseError::Locked { .. } => Failure::caused(Exit::Locked, "locked", &error)
                .hint("wait for it, or if that process is gone for good: `devstack unlock ID`"),
            _ => Failure::caused(Exit::of(error.kind()), "taking the lease", &error)
                .hint("each repository's `path` in the file must be a folder that can be written, or made"),
        })?;
        for (name, why) in lease.unwritable() {
            eprintln!(
                "warning: repository {name} can be read here and not written ({why}): no lease is held in it, so who forgets or \
                 prunes there does not see this command, and nothing is put on record there"
            );
        }
        Ok(lease)
    }
}

/// What a command does to repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Writes,
    /// It goes on where nothing can be written: what brings data back must not wait for a disk to become writable.
    Reads,
}

/// The newest of the runs that are meant and have the service, with the repository that it lies in.
fn newest_of<'o>(
    observation: &'o Observation,
    service: &ServiceName,
    is_meant: impl Fn(&RepositoryName, &Run) -> bool,
) -> Option<(&'o RepositoryName, &'o Run, &'o Taken)> {
    let runs = observation.present().flat_map(|(place, facts)| facts.runs.iter().map(move |run| (place, run)));
    runs.filter(|(place, run)| is_meant(place, run))
        .filter_map(|(place, run)| Some((place, run, run.manifest.taken_of(service)?)))
        .max_by_key(|(_, run, _)| run.manifest.started)
}

/// What is devstack's own and no data of the stack: its folder, the repositories, and the key files that open them, which would
/// lie in what they open.
fn own_paths(spec: &Spec, ground: &Ground) -> Vec<PathBuf> {
    let places = spec.repositories.values().map(|repository| repository.path.clone());
    let keys = spec.repositories.values().flat_map(|repository| &repository.keys);
    let files = keys.filter_map(|key| key.secret()?.file);
    let all = places.chain(files).map(|path| ground.path(&path));
    std::iter::once(ground.base.join(".devstack")).chain(all).collect()
}

/// The name that Compose gives to the project of a folder.
fn project_of(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let kept: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    kept.trim_start_matches(['-', '_']).to_owned()
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
    read::home()
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
