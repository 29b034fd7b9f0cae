//! Until when the login is good, and its successor.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::VaultError;
use super::connection::Connection;
use super::kv::{self, Told, understood};
use crate::model::login::{LoginBy, LoginState};
use crate::secrets::Secret;

/// What became of a secret-id that was replaced.
pub struct Rotated {
    /// Where the new one lies.
    pub file: PathBuf,
    /// Why the old one is good yet, if it is.
    pub old_stays: Option<VaultError>,
}

#[derive(Deserialize)]
struct SecretIdFound {
    creation_time: Timestamp,
    /// The first second of the year 1 where it does not expire.
    expiration_time: Timestamp,
    /// Logins that are left; 0 where they are not counted.
    secret_id_num_uses: u64,
}

#[derive(Deserialize)]
struct TokenFound {
    issue_time: Option<Timestamp>,
    creation_time: i64,
    expire_time: Option<Timestamp>,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    num_uses: u64,
}

#[derive(Deserialize)]
struct Issued {
    secret_id: Secret,
}

fn path(mount: &str, role: &str, rest: &str) -> String {
    format!("auth/{mount}/role/{role}/secret-id{rest}")
}

pub(super) fn of_secret_id(
    connection: &Connection,
    mount: &str,
    role: &str,
    secret_id: &Secret,
) -> Result<LoginState, VaultError> {
    let path = path(mount, role, "/lookup");
    let answer = connection.post(&path, &json!({ "secret_id": secret_id.expose() }))?;
    let by = LoginBy::SecretId { mount: mount.to_owned(), role: role.to_owned() };
    match answer.status {
        403 => Err(kv::denied(connection, &path, "update")),
        // Vault removes one with its last login, and then finds nothing to say of it.
        204 | 404 => Ok(LoginState { by, issued: Timestamp::UNIX_EPOCH, expires: None, logins_left: Some(0) }),
        _ => {
            let found: SecretIdFound = understood::<Told<_>>(&answer, &path)?.data;
            Ok(LoginState {
                by,
                issued: found.creation_time,
                expires: Some(found.expiration_time).filter(|time| *time > Timestamp::UNIX_EPOCH),
                logins_left: Some(found.secret_id_num_uses).filter(|left| *left > 0),
            })
        }
    }
}

pub(super) fn of_token(connection: &Connection) -> Result<LoginState, VaultError> {
    let path = "auth/token/lookup-self";
    let answer = connection.get(path)?;
    if answer.status == 403 {
        return Err(VaultError::TokenGone);
    }
    let found: TokenFound = understood::<Told<_>>(&answer, path)?.data;
    let created = Timestamp::from_second(found.creation_time).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(LoginState {
        by: LoginBy::Token { renewable: found.renewable },
        issued: found.issue_time.unwrap_or(created),
        expires: found.expire_time,
        logins_left: Some(found.num_uses).filter(|left| *left > 0),
    })
}

pub(super) fn issue(connection: &Connection, mount: &str, role: &str) -> Result<Secret, VaultError> {
    let path = path(mount, role, "");
    let answer = connection.post(&path, &json!({}))?;
    match answer.status {
        403 => Err(kv::denied(connection, &path, "update")),
        _ => Ok(understood::<Told<Issued>>(&answer, &path)?.data.secret_id),
    }
}

pub(super) fn destroy(connection: &Connection, mount: &str, role: &str, secret_id: &Secret) -> Result<(), VaultError> {
    let path = path(mount, role, "/destroy");
    let answer = connection.post(&path, &json!({ "secret_id": secret_id.expose() }))?;
    match answer.status {
        403 => Err(kv::denied(connection, &path, "update")),
        _ if answer.is_ok() => Ok(()),
        status => Err(connection.answered(&path, status, answer.errors())),
    }
}
