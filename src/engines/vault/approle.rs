//! Secret-ids issued anew: those that were issued after the backup was taken are none any more.

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::engines::{EngineError, Ground};
use crate::secrets::{Secret, VaultServer, write_whole};
use crate::spec::file::VaultRole;

const MOUNT: &str = "approle";

#[derive(Deserialize)]
struct Told {
    data: Issued,
}

#[derive(Deserialize)]
struct Issued {
    secret_id: Secret,
}

/// A new secret-id for every role, where services read it. Returns the files.
pub(super) fn issue(vault: &VaultServer, roles: &[VaultRole], ground: &Ground) -> Result<Vec<String>, EngineError> {
    let mut written = Vec::new();
    for role in roles {
        let path = format!("auth/{}/role/{}/secret-id", role.mount.as_deref().unwrap_or(MOUNT), role.role);
        let told: Told = vault.write(&path, &json!({}))?.json(&path)?;
        let file = ground.path(&role.secret_id.file);
        let content = Zeroizing::new(format!("{}\n", told.data.secret_id.expose()).into_bytes());
        write_whole(&file, &content, None).map_err(EngineError::io("writing", &file))?;
        written.push(role.secret_id.file.display().to_string());
    }
    Ok(written)
}
