//! Which storage the server has, and the folder of file storage.

use std::io::Read;

use crate::engines::EngineError;
use crate::engines::inspect::{Counts, cut};
use crate::engines::server::{ANSWER, Server};
use crate::engines::volume::Tar;
use crate::runtime::Command;
use crate::secrets::SealStatus;
use crate::spec::file::VaultSource;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    Raft,
    File,
}

impl Storage {
    /// As the server itself says.
    pub fn of(status: &SealStatus) -> Result<Self, EngineError> {
        Self::named(status.storage_type.as_deref().unwrap_or("a storage that it does not name"))
    }

    pub fn named(name: &str) -> Result<Self, EngineError> {
        match name {
            "raft" => Ok(Self::Raft),
            "file" => Ok(Self::File),
            other => Err(EngineError::Refused {
                what: format!(
                    "this Vault has {other}, and devstack takes integrated storage (raft) and file storage; back its \
                     storage up by its own means"
                ),
            }),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::File => "file",
        }
    }
}

/// The settings in JSON, where the official image looks for them and puts VAULT_LOCAL_CONFIG.
const SETTINGS: &str =
    r#"for file in /vault/config/*.json; do [ -f "$file" ] && cat "$file" && printf '\000'; done; true"#;

/// The folder of file storage in the container: what the file says, or else the server's settings.
pub(super) fn folder(source: &VaultSource, server: &Server) -> Result<String, EngineError> {
    if let Some(path) = &source.path {
        return Ok(path.clone());
    }
    let settings = server.docker.run(&server.container, &Command::script(SETTINGS, [""; 0]), b"", ANSWER)?.stdout;
    let found = settings.split(|byte| *byte == 0).find_map(|file| path_in(&serde_json::from_slice(file).ok()?));
    found.ok_or_else(|| EngineError::Refused {
        what: format!(
            "no settings in JSON in /vault/config of the container {} name the folder of its file storage; write \
             `path: /FOLDER` into the service's source",
            server.container.name
        ),
    })
}

fn path_in(settings: &serde_json::Value) -> Option<String> {
    let storage = ["storage", "backend"].iter().find_map(|name| settings.get(name))?;
    // HCL's blocks may be lists in JSON.
    let one = |value: &serde_json::Value| value.as_array().and_then(|list| list.first()).unwrap_or(value).clone();
    let path = one(one(storage).get("file")?).get("path")?.as_str()?.trim_end_matches('/').to_owned();
    path.starts_with('/').then_some(path)
}

/// Without these no Vault can be opened, and no other folder has them.
const NEEDED: [&str; 2] = ["core/_keyring", "core/_seal-config"];

/// Reads the archive of file storage to its end and counts what is in it.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut tar = Tar::new(false);
    let mut needed = NEEDED.to_vec();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = from.read(&mut buffer).map_err(|error| cut("the archive", &error))?;
        if count == 0 {
            let tally = tar.end()?;
            return match needed.first() {
                None => Ok(tally.counts()),
                Some(missing) => Err(format!("it holds no {missing}, so it is not the storage of a Vault")),
            };
        }
        tar.feed(&buffer[..count], &mut |entry| needed.retain(|name| name.as_bytes() != entry.path))?;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engines::redis::tar::{Owner, Tar as Writer};

    #[test]
    fn the_folder_is_what_the_settings_say() {
        let path = |settings| path_in(&settings);
        assert_eq!(path(json!({"storage": {"file": {"path": "/vault/file/"}}})).as_deref(), Some("/vault/file"));
        assert_eq!(path(json!({"backend": [{"file": [{"path": "/data"}]}]})).as_deref(), Some("/data"));
        assert_eq!(path(json!({"storage": {"raft": {"path": "/vault/file"}}})), None);
        assert_eq!(path(json!({"storage": {"file": {"path": "relative"}}})), None);
        assert_eq!(path(json!({"listener": {}})), None);
    }

    fn archive(files: &[&str]) -> Vec<u8> {
        let owner = Owner { uid: 100, gid: 1000, mode: 0o600 };
        let mut tar = Writer::default();
        tar.folder("file", owner).unwrap();
        for name in files {
            tar.file(&format!("file/{name}"), b"content", owner).unwrap();
        }
        tar.finish()
    }

    #[test]
    fn an_archive_without_a_keyring_is_no_vault_and_cut_it_is_not_whole() {
        let whole = archive(&["core/_keyring", "core/_seal-config", "logical/x"]);
        assert_eq!(inspect(&mut whole.as_slice()).unwrap()[0], ("files".to_owned(), 3));
        for end in 0..whole.len() {
            assert!(inspect(&mut &whole[..end]).is_err(), "cut at {end}");
        }
        let other = archive(&["core/_keyring", "logical/x"]);
        assert!(inspect(&mut other.as_slice()).unwrap_err().contains("_seal-config"));
    }
}
