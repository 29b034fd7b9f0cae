//! Where the Docker engine is: what the environment says, then Docker's own context, then the usual sockets.

use std::path::{Path, PathBuf};

use super::RuntimeError;

/// What decides the address, read once: tests give their own.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub host: Option<String>,
    pub context: Option<String>,
    /// Docker's settings: `DOCKER_CONFIG` or `~/.docker`.
    pub settings: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
}

impl Surroundings {
    pub(super) fn here() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let home = variable("HOME").map(PathBuf::from);
        Self {
            host: text("DOCKER_HOST"),
            context: text("DOCKER_CONTEXT"),
            settings: variable("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(".docker"))),
            runtime_dir: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            home,
        }
    }

    /// The addresses to try, in order. One that somebody named is the only one.
    pub(super) fn addresses(&self) -> Result<Vec<String>, RuntimeError> {
        if let Some(host) = &self.host {
            return Ok(vec![host.clone()]);
        }
        if let Some(host) = self.of_context()? {
            return Ok(vec![host]);
        }
        let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
        if let Some(home) = &self.home {
            // Docker Desktop, Colima and OrbStack put theirs into the home folder.
            sockets.extend(
                [".docker/run/docker.sock", ".colima/default/docker.sock", ".orbstack/run/docker.sock"]
                    .map(|path| home.join(path)),
            );
        }
        if let Some(folder) = &self.runtime_dir {
            sockets.extend(["docker.sock", "podman/podman.sock"].map(|path| folder.join(path)));
        }
        sockets.push(PathBuf::from("/run/podman/podman.sock"));
        Ok(sockets.into_iter().map(|socket| format!("unix://{}", socket.display())).collect())
    }

    /// The address of the context in use. `default` stands for the usual sockets.
    fn of_context(&self) -> Result<Option<String>, RuntimeError> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let name = match &self.context {
            Some(name) => Some(name.clone()),
            None => read(&settings.join("config.json"))?
                .and_then(|config| config["currentContext"].as_str().map(str::to_owned)),
        };
        let Some(name) = name.filter(|name| name != "default") else { return Ok(None) };
        // A context's folder is called by the SHA-256 of its name.
        let folder = crate::model::ids::Digest::of(&name);
        let meta = settings.join("contexts/meta").join(folder.as_str()).join("meta.json");
        let missing = || RuntimeError::Settings {
            path: meta.clone(),
            source: std::io::Error::new(std::io::ErrorKind::NotFound, format!("there is no Docker context {name}")),
        };
        let context = read(&meta)?.ok_or_else(missing)?;
        Ok(context["Endpoints"]["docker"]["Host"].as_str().filter(|host| !host.is_empty()).map(str::to_owned))
    }
}

/// A JSON file; None where it is not there.
fn read(path: &Path) -> Result<Option<serde_json::Value>, RuntimeError> {
    let failed = |source| RuntimeError::Settings { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(std::io::Error::other(error))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_names_is_the_only_place() {
        let here = Surroundings { host: Some("tcp://127.0.0.1:2375".into()), ..Surroundings::default() };
        assert_eq!(here.addresses().unwrap(), ["tcp://127.0.0.1:2375"]);
    }

    #[test]
    fn a_context_is_read_from_dockers_settings_and_default_means_the_usual_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().to_owned();
        let name = crate::model::ids::Digest::of("colima");
        let meta = settings.join("contexts/meta").join(name.as_str());
        std::fs::create_dir_all(&meta).unwrap();
        let host = "unix:///home/me/.colima/default/docker.sock";
        std::fs::write(meta.join("meta.json"), format!(r#"{{"Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#)).unwrap();
        std::fs::write(settings.join("config.json"), r#"{"currentContext":"colima"}"#).unwrap();
        let here = Surroundings { settings: Some(settings.clone()), ..Surroundings::default() };
        assert_eq!(here.addresses().unwrap(), [host]);
        let default = Surroundings { context: Some("default".into()), settings: Some(settings.clone()), ..here };
        assert!(default.addresses().unwrap().contains(&"unix:///var/run/docker.sock".to_owned()));
        let missing =
            Surroundings { context: Some("gone".into()), settings: Some(settings), ..Surroundings::default() };
        assert!(crate::model::chain(&missing.addresses().unwrap_err()).contains("there is no Docker context gone"));
    }

    #[test]
    fn podmans_socket_is_looked_at_after_dockers() {
        let here = Surroundings { runtime_dir: Some("/run/user/1000".into()), ..Surroundings::default() };
        let addresses = here.addresses().unwrap();
        let place = |text: &str| addresses.iter().position(|address| address == text).unwrap();
        assert!(place("unix:///var/run/docker.sock") < place("unix:///run/user/1000/podman/podman.sock"));
    }
}
