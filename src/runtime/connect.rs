//! Where the Docker engine is: what the environment says, then Docker's own context, then the usual sockets. The same order as
//! that of the `docker` program, so that both talk to one engine.

use std::path::{Path, PathBuf};

use super::RuntimeError;

/// What decides the address, read once: tests give their own.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub host: Option<String>,
    pub context: Option<String>,
    /// `DOCKER_TLS_VERIFY` or `DOCKER_TLS` is set: an address over TCP is spoken to with certificates.
    pub tls: bool,
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
            tls: variable("DOCKER_TLS_VERIFY").is_some() || variable("DOCKER_TLS").is_some(),
            settings: variable("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(".docker"))),
            runtime_dir: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            home,
        }
    }

    /// The places to try, in order. One that somebody named is the only one.
    pub(super) fn places(&self) -> Result<Vec<Place>, RuntimeError> {
        if let Some(host) = &self.host {
            return Ok(vec![Place::of(host.clone(), self.tls)]);
        }
        if let Some(place) = self.of_context()? {
            return Ok(vec![place]);
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
        Ok(sockets.into_iter().map(|socket| Place::of(format!("unix://{}", socket.display()), false)).collect())
    }

    /// The place of the context in use. `default` stands for the usual sockets.
    fn of_context(&self) -> Result<Option<Place>, RuntimeError> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let name = match &self.context {
            Some(name) => Some(name.clone()),
            None => read(&settings.join("config.json"))?
                .and_then(|config| config["currentContext"].as_str().map(str::to_owned)),
        };
        let Some(name) = name.filter(|name| name != "default") else { return Ok(None) };
        // A context's folder is called by the SHA-256 of its name.
        let folder = crate::model::ids::Digest::of(&name);
        let contexts = settings.join("contexts");
        let meta = contexts.join("meta").join(folder.as_str()).join("meta.json");
        let missing = || RuntimeError::Settings {
            path: meta.clone(),
            source: std::io::Error::new(std::io::ErrorKind::NotFound, format!("there is no Docker context {name}")),
        };
        let context = read(&meta)?.ok_or_else(missing)?;
        let endpoint = &context["Endpoints"]["docker"];
        let has_certificates = contexts.join("tls").join(folder.as_str()).join("docker").is_dir();
        let tls = has_certificates || endpoint["SkipTLSVerify"].as_bool().unwrap_or_default();
        let host = endpoint["Host"].as_str().filter(|host| !host.is_empty());
        Ok(host.map(|host| Place::of(host.to_owned(), tls)))
    }
}

/// Where an engine may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// As `DOCKER_HOST` takes it.
    pub address: String,
    pub way: Way,
}

/// How it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A socket of this machine, or plain TCP.
    Direct,
    /// Through the `docker` program, which knows ssh, certificates and whatever its next version brings.
    Program,
}

impl Place {
    fn of(address: String, tls: bool) -> Self {
        let is_plain = address.starts_with("unix://")
            || (!tls && (address.starts_with("tcp://") || address.starts_with("http://")));
        Self { address, way: if is_plain { Way::Direct } else { Way::Program } }
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

    fn addresses(here: &Surroundings) -> Vec<String> {
        here.places().unwrap().into_iter().map(|place| place.address).collect()
    }

    #[test]
    fn what_is_neither_a_socket_nor_plain_tcp_is_reached_by_dockers_program() {
        for (host, tls, way) in [
            ("unix:///var/run/docker.sock", true, Way::Direct),
            ("tcp://127.0.0.1:2375", false, Way::Direct),
            ("http://127.0.0.1:2375", false, Way::Direct),
            ("tcp://10.0.0.2:2376", true, Way::Program),
            ("https://10.0.0.2:2376", false, Way::Program),
            ("ssh://me@10.0.0.2", false, Way::Program),
        ] {
            let here = Surroundings { host: Some(host.into()), tls, ..Surroundings::default() };
            assert_eq!(here.places().unwrap(), [Place { address: host.into(), way }]);
        }
    }

    #[test]
    fn a_context_with_certificates_is_reached_by_dockers_program_whatever_the_environment_says() {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().to_owned();
        let name = crate::model::ids::Digest::of("far");
        let meta = settings.join("contexts/meta").join(name.as_str());
        std::fs::create_dir_all(&meta).unwrap();
        let write = |skip: bool| {
            let text =
                format!(r#"{{"Endpoints":{{"docker":{{"Host":"tcp://10.0.0.2:2376","SkipTLSVerify":{skip}}}}}}}"#);
            std::fs::write(meta.join("meta.json"), text).unwrap();
        };
        write(false);
        let here =
            Surroundings { context: Some("far".into()), settings: Some(settings.clone()), ..Surroundings::default() };
        let way = || here.places().unwrap()[0].way;
        assert_eq!(way(), Way::Direct);
        write(true);
        assert_eq!(way(), Way::Program);
        write(false);
        std::fs::create_dir_all(settings.join("contexts/tls").join(name.as_str()).join("docker")).unwrap();
        assert_eq!(way(), Way::Program);
    }

    #[test]
    fn what_the_environment_names_is_the_only_place() {
        let here = Surroundings { host: Some("tcp://127.0.0.1:2375".into()), ..Surroundings::default() };
        assert_eq!(addresses(&here), ["tcp://127.0.0.1:2375"]);
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
        assert_eq!(addresses(&here), [host]);
        let default = Surroundings { context: Some("default".into()), settings: Some(settings.clone()), ..here };
        assert!(addresses(&default).contains(&"unix:///var/run/docker.sock".to_owned()));
        let missing =
            Surroundings { context: Some("gone".into()), settings: Some(settings), ..Surroundings::default() };
        assert!(crate::model::chain(&missing.places().unwrap_err()).contains("there is no Docker context gone"));
    }

    #[test]
    fn podmans_socket_is_looked_at_after_dockers() {
        let here = Surroundings { runtime_dir: Some("/run/user/1000".into()), ..Surroundings::default() };
        let addresses = addresses(&here);
        let place = |text: &str| addresses.iter().position(|address| address == text).unwrap();
        assert!(place("unix:///var/run/docker.sock") < place("unix:///run/user/1000/podman/podman.sock"));
    }
}
