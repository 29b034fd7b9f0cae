//! The stack's containers by the names that the file uses: a service of the Compose project, or a container's own name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Compose, Docker, RuntimeError};
use crate::model::compose::numbered;
use crate::model::observation::{COMPOSE_SERVICE, ContainerState, OtherProjects};
use crate::spec::file::{DockerRuntime, Runtime};

pub(super) const PROJECT: &str = "com.docker.compose.project";
/// Where Compose was when it made the container.
pub(super) const FOLDER: &str = "com.docker.compose.project.working_dir";
const NUMBER: &str = "com.docker.compose.container-number";
const VOLUME: &str = "com.docker.compose.volume";

/// What stands in for the stack where a command must not touch it: other containers and volumes, asked for by the stack's
/// own names. What it does not know is not there: by the same name the engine knows the stack's.
pub trait StandIn: Send + Sync {
    /// The Compose project of all of its containers.
    fn project(&self) -> &str;
    /// The label that each of them carries, and its value.
    fn label(&self) -> (&str, &str);
    /// Its service for a container that the file names.
    fn service_for(&self, container: &str) -> Option<String>;
    /// The real name of its volume for one that the file names.
    fn volume_for(&self, volume: &str) -> Option<String>;
}

/// Connected when first asked, and once per command.
pub struct Containers {
    declared: Option<DockerRuntime>,
    base: PathBuf,
    home: Option<PathBuf>,
    docker: Mutex<Option<Arc<Docker>>>,
    project: Mutex<Option<Option<String>>>,
    /// The project's name, as a run has it, where nothing here says it.
    assumed: Mutex<Option<String>>,
    /// Names that the project had before its folder moved.
    once: Mutex<Vec<String>>,
    stand_in: Option<Arc<dyn StandIn>>,
}

impl Containers {
    pub fn new(runtime: Option<&Runtime>, base: &Path, home: Option<&Path>) -> Self {
        Self {
            declared: runtime.and_then(|runtime| runtime.docker.clone()),
            base: base.to_owned(),
            home: home.map(Path::to_owned),
            docker: Mutex::default(),
            project: Mutex::default(),
            assumed: Mutex::default(),
            once: Mutex::default(),
            stand_in: None,
        }
    }

    /// Those of a stand-in, and no others. There are no Compose files for them.
    pub fn of_stand_in(stand_in: Arc<dyn StandIn>, docker: Option<Arc<Docker>>, base: &Path) -> Self {
        Self {
            declared: None,
            base: base.to_owned(),
            home: None,
            docker: Mutex::new(docker),
            project: Mutex::new(Some(Some(stand_in.project().to_owned()))),
            assumed: Mutex::default(),
            once: Mutex::default(),
            stand_in: Some(stand_in),
        }
    }

    /// The connection to the engine.
    pub fn docker(&self) -> Result<Arc<Docker>, RuntimeError> {
        let mut docker = self.docker.lock().unwrap_or_else(PoisonError::into_inner);
        match &*docker {
            Some(docker) => Ok(Arc::clone(docker)),
            None => Ok(Arc::clone(docker.insert(Arc::new(Docker::connect()?)))),
        }
    }

    /// The folder of devstack.yaml.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) fn declared_project(&self) -> Option<String> {
        self.declared.as_ref()?.project.clone()
    }

    pub fn compose(&self) -> Option<Compose> {
        let assumed = self.assumed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(Compose::declared(self.declared.as_ref()?, &self.base, self.home.as_deref())?.called(assumed))
    }

    /// The Compose project that is declared, if one is.
    pub fn project(&self) -> Result<Option<String>, RuntimeError> {
        let mut known = self.project.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(project) = &*known {
            return Ok(project.clone());
        }
        let project = match (&self.declared, self.compose()) {
            (Some(DockerRuntime { project: Some(project), .. }), _) => Some(project.clone()),
            (_, Some(compose)) => Some(compose.project()?),
            (_, None) => None,
        };
        Ok(known.insert(project).clone())
    }

    /// Whether the project is declared, or the declared Compose files are here and say it.
    pub fn knows_project(&self) -> bool {
        let declared = self.declared.as_ref();
        declared.is_none_or(|docker| docker.project.is_some())
            || self.compose().is_none_or(|compose| compose.files_are_here() && self.project().is_ok())
    }

    /// The project's name, as a run has kept it, on a machine where its files are not, or can't be read. Compose is told it too,
    /// so that what it makes is what is then looked for.
    pub fn assume_project(&self, name: &str) {
        *self.assumed.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
        *self.project.lock().unwrap_or_else(PoisonError::into_inner) = Some(Some(name.to_owned()));
    }

    /// Names that the project had when runs were taken: the file may still call a container by one of them.
    pub fn once_called(&self, projects: Vec<String>) {
        *self.once.lock().unwrap_or_else(PoisonError::into_inner) = projects;
    }

    fn once(&self) -> Vec<String> {
        self.once.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The containers that the file calls `name`: of a service with several, all.
    pub fn all_called(&self, name: &str) -> Result<Vec<ContainerState>, RuntimeError> {
        match self.look_for(name) {
            Ok(found) => Ok(found.into_iter().collect()),
            Err(RuntimeError::Ambiguous { .. }) => self.of_service(name),
            Err(error) => Err(error),
        }
    }

    /// The container that the file calls `name`; None where the engine says that there is none.
    pub fn look_for(&self, name: &str) -> Result<Option<ContainerState>, RuntimeError> {
        let docker = self.docker()?;
        let mut found = match self.stand_in.as_ref().map(|stand_in| stand_in.service_for(name)) {
            None => self.of_service(name)?,
            Some(Some(service)) => self.of_service(&service)?,
            Some(None) => return Ok(None),
        };
        match found.len() {
            0 => {}
            1 => return Ok(found.pop()),
            count => {
                let names = found.into_iter().map(|container| container.name).collect();
                return Err(RuntimeError::Ambiguous { name: name.to_owned(), count, names });
            }
        }
        if self.stand_in.is_some() {
            return Ok(None);
        }
        // By its own name, and not by a prefix of its id, which the engine would take too.
        match docker.inspect(name)?.filter(|container| container.name == name) {
            Some(container) => Ok(Some(container)),
            None => self.moved(name),
        }
    }

    /// As Compose called it when the project had another name.
    fn moved(&self, name: &str) -> Result<Option<ContainerState>, RuntimeError> {
        for project in self.once() {
            let Some((service, number)) = numbered(name, &project) else { continue };
            let number = number.to_string();
            let is_it = |it: &ContainerState| it.labels.get(NUMBER).is_none_or(|label| *label == number);
            if let Some(found) = self.of_service(service)?.into_iter().find(is_it) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The containers of a service of the project, none where no project is declared.
    pub fn of_service(&self, service: &str) -> Result<Vec<ContainerState>, RuntimeError> {
        self.labelled(&[(COMPOSE_SERVICE, service)])
    }

    /// All containers of the project.
    pub fn of_project(&self) -> Result<Vec<ContainerState>, RuntimeError> {
        self.labelled(&[])
    }

    /// The services of the project that have a container which runs, or has done its work and ended with 0.
    pub fn up(&self) -> Result<BTreeSet<String>, RuntimeError> {
        let all = self.of_project()?.into_iter();
        let up = all.filter(|it| it.running || (it.state == "exited" && it.exit_code == 0));
        Ok(up.filter_map(|container| container.compose_service().cloned()).collect())
    }

    /// Other projects that run from the folder of the Compose files, where the stack's own has no container at all.
    pub fn projects_here(&self) -> Result<Option<OtherProjects>, RuntimeError> {
        let (Some(own), Some(compose), None) = (self.project()?, self.compose(), &self.stand_in) else {
            return Ok(None);
        };
        if !self.of_project()?.is_empty() {
            return Ok(None);
        }
        let given = std::path::absolute(compose.folder()).unwrap_or_else(|_| compose.folder());
        let real = given.canonicalize().unwrap_or_else(|_| given.clone());
        let mut others: BTreeMap<String, usize> = BTreeMap::new();
        // Compose writes down the folder that it was given.
        for folder in BTreeSet::from([given, real]) {
            let running = self.docker()?.labelled(&[(FOLDER, &folder.to_string_lossy())])?.into_iter();
            for project in running.filter(|it| it.running).filter_map(|it| it.labels.get(PROJECT).cloned()) {
                *others.entry(project).or_default() += 1;
            }
        }
        others.remove(&own);
        Ok((!others.is_empty()).then_some(OtherProjects { own, others }))
    }

    fn labelled(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerState>, RuntimeError> {
        let Some(project) = self.project()? else { return Ok(Vec::new()) };
        let mut all = [&[(PROJECT, project.as_str())], labels].concat();
        all.extend(self.stand_in.as_ref().map(|stand_in| stand_in.label()));
        let found = self.docker()?.labelled(&all)?;
        Ok(found.into_iter().filter(|it| !it.is_one_off()).collect())
    }

    /// As [`Self::look_for`], with its absence being an error.
    pub fn find(&self, name: &str) -> Result<ContainerState, RuntimeError> {
        match self.look_for(name)? {
            Some(container) => Ok(container),
            None => Err(RuntimeError::NoContainer { name: name.to_owned(), project: self.project()? }),
        }
    }

    /// A volume's real name: Compose puts the project's before those that its files name.
    pub fn volume(&self, name: &str) -> Result<String, RuntimeError> {
        if let Some(stand_in) = &self.stand_in {
            let missing = || RuntimeError::NoVolume { name: name.to_owned(), project: stand_in.project().to_owned() };
            return stand_in.volume_for(name).ok_or_else(missing);
        }
        let docker = self.docker()?;
        let Some(project) = self.project()? else { return Ok(name.to_owned()) };
        let once = self.once();
        let before = once.iter().find_map(|project| name.strip_prefix(project.as_str())?.strip_prefix('_'));
        for key in std::iter::once(name).chain(before) {
            let full = format!("{project}_{key}");
            if docker.has_volume(&full)? {
                return Ok(full);
            }
            // One with a `name:` of its own carries its key as a label.
            if let Some(real) = docker.labelled_volume(&[(PROJECT, &project), (VOLUME, key)])? {
                return Ok(real);
            }
        }
        if docker.has_volume(name)? {
            return Ok(name.to_owned());
        }
        // One that somebody else has made carries nothing; only the files say which it is.
        let declared = self.compose().and_then(|compose| compose.resolved().ok());
        let real = declared.and_then(|model| model["volumes"][name]["name"].as_str().map(str::to_owned));
        Ok(real.unwrap_or_else(|| name.to_owned()))
    }
}
