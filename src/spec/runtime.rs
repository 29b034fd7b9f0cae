//! Where the services run: Docker, its Compose files, and on a Mac the virtual machine beneath it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::paths;
use crate::model::units::Size;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// The Compose project that the containers belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerRuntime>,
    /// The virtual machine that Docker runs in, on a Mac.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colima: Option<ColimaRuntime>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerRuntime {
    /// The Compose files, in order; relative to the folder of devstack.yaml.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compose: Vec<PathBuf>,
    /// The profiles that are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Files of variables for the Compose files, later ones override earlier ones; Compose's own `.env` if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<PathBuf>,
    /// The project's name; what Compose makes of the files and the folder if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The program that starts the engine where none answers, with its arguments: `[systemctl, start, docker]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColimaRuntime {
    /// `default` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
}

/// The files that Compose takes its own variables from, absolute, in the order in which it reads them. Within one of the
/// inner lists a later file overrides an earlier one; of two lists the first one holds. Those that nobody has declared need
/// not be there.
pub fn variable_files(docker: Option<&DockerRuntime>, base: &Path, home: Option<&Path>) -> Vec<Vec<PathBuf>> {
    if let Some(docker) = docker.filter(|docker| !docker.env_files.is_empty()) {
        return vec![docker.env_files.iter().map(|file| paths::resolve(base, home, file)).collect()];
    }
    // Compose is started in the folder of devstack.yaml. It reads the `.env` there, and then the one beside its first file.
    let beside = docker.and_then(|docker| docker.compose.first()).map(|file| paths::resolve(base, home, file));
    let mut folders = vec![base.to_owned()];
    folders.extend(beside.and_then(|file| file.parent().map(Path::to_owned)).filter(|folder| folder != base));
    folders.into_iter().map(|folder| vec![folder.join(".env")]).collect()
}
