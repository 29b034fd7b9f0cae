//! Where the services run: Docker, its Compose files, and on a Mac the virtual machine beneath it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Files of variables for the Compose files; Compose's own `.env` if not given.
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
