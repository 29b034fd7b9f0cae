//! A field of a secret in a KV engine, of version 1 or 2.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::VaultError;
use super::connection::{Answer, Connection};
use crate::secrets::Secret;

/// Where a secret lies: `secret/postgres#password` of the file.
pub(super) struct Address<'a> {
    pub path: &'a str,
    pub field: &'a str,
}

impl<'a> Address<'a> {
    /// The field is behind the last `#`. The file's check has made sure that there is one.
    pub fn of(reference: &'a str) -> Self {
        let (path, field) = reference.rsplit_once('#').unwrap_or((reference, "value"));
        Self { path: path.trim_matches('/'), field }
    }
}

#[derive(Deserialize)]
pub(super) struct Told<T> {
    pub data: T,
}

/// What `sys/internal/ui/mounts/PATH` says of the engine that a path lies in. Every token may ask that may read there.
#[derive(Deserialize)]
struct Mount {
    /// `secret/`
    path: String,
    #[serde(rename = "type")]
    kind: String,
    options: Option<BTreeMap<String, String>>,
}

impl Mount {
    fn of(connection: &Connection, path: &str) -> Result<Self, VaultError> {
        let answer = connection.get(&format!("sys/internal/ui/mounts/{path}"))?;
        if answer.status == 403 {
            must_be_alive(connection)?;
            let (mount, rest) = path.split_once('/').unwrap_or((path, ""));
            return Err(VaultError::NoAccess { path: path.to_owned(), data: format!("{mount}/data/{rest}") });
        }
        understood::<Told<Self>>(&answer, &format!("the engine of {path}")).map(|told| told.data)
    }

    /// The path to read: engines of version 2 have the newest version below `data/`.
    fn data(&self, path: &str) -> Result<String, VaultError> {
        let rest = path.strip_prefix(&self.path).unwrap_or_default();
        match (self.kind.as_str(), self.version()) {
            ("kv" | "generic", 2) => Ok(format!("{}data/{rest}", self.path)),
            ("kv" | "generic", _) => Ok(format!("{}{rest}", self.path)),
            _ => Err(VaultError::NotKv { path: path.to_owned(), mount: self.path.clone(), kind: self.kind.clone() }),
        }
    }

    /// What was meant by a path of an engine of version 2 that has its `data/` already.
    fn as_the_api_has_it(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.path)?.strip_prefix("data/")?;
        (self.version() == 2).then(|| format!("{}{rest}", self.path))
    }

    fn version(&self) -> u8 {
        let version = self.options.as_ref().and_then(|options| options.get("version"));
        version.and_then(|version| version.parse().ok()).unwrap_or(1)
    }
}

/// Fields by name, their values as they stand in the answer, so that no copy is made of those that are not asked for.
type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: Option<Fields<'a>>,
}

pub(super) fn read(connection: &Connection, address: &Address<'_>) -> Result<Secret, VaultError> {
    let mount = Mount::of(connection, address.path)?;
    let path = mount.data(address.path)?;
    let answer = connection.get(&path)?;
    match (answer.status, mount.as_the_api_has_it(address.path)) {
        (403 | 404, Some(meant)) => {
            let hint = format!("; leave `data/` out, devstack puts it there: {meant}");
            return Err(VaultError::NoPath { path: address.path.to_owned(), hint });
        }
        (403, None) => return Err(denied(connection, &path, "read")),
        (404, None) => return Err(nothing(&mount, address.path, &answer)),
        _ => {}
    }
    let fields = if mount.version() == 2 {
        understood::<Told<Versioned<'_>>>(&answer, &path)?.data.data
    } else {
        Some(understood::<Told<Fields<'_>>>(&answer, &path)?.data)
    };
    let Some(fields) = fields else { return Err(VaultError::Deleted { path }) };
    let Some(value) = fields.get(address.field) else {
        let names = fields.keys().map(|name| name.clone().into_owned()).collect();
        return Err(VaultError::NoField { path, field: address.field.to_owned(), fields: names });
    };
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => Ok(Secret::new(text)),
        Err(_) => Err(VaultError::NotText { path, field: address.field.to_owned() }),
    }
}

fn nothing(mount: &Mount, path: &str, answer: &Answer) -> VaultError {
    // A deleted version is not found either, but what is known of it is told.
    if mount.version() == 2 && understood::<Told<Versioned<'_>>>(answer, path).is_ok() {
        return VaultError::Deleted { path: path.to_owned() };
    }
    let hint = ": write it with `vault kv put`, or correct the path".to_owned();
    VaultError::NoPath { path: path.to_owned(), hint }
}

/// Why a path is denied: which capability is missing, and which are there.
pub(super) fn denied(connection: &Connection, path: &str, capability: &'static str) -> VaultError {
    match capabilities(connection, path) {
        Ok(granted) => VaultError::Denied { path: path.to_owned(), capability, granted },
        Err(error) => error,
    }
}

fn capabilities(connection: &Connection, path: &str) -> Result<Vec<String>, VaultError> {
    let answer = connection.post("sys/capabilities-self", &serde_json::json!({ "paths": [path] }))?;
    if answer.status == 403 {
        must_be_alive(connection)?;
        return Ok(Vec::new());
    }
    let told: Told<BTreeMap<String, serde_json::Value>> = understood(&answer, "sys/capabilities-self")?;
    let granted = told.data.get(path).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    Ok(granted.iter().filter_map(serde_json::Value::as_str).map(str::to_owned).collect())
}

/// A token that was revoked or has expired is denied everything, which says nothing of its rights.
pub(super) fn must_be_alive(connection: &Connection) -> Result<(), VaultError> {
    match connection.get("auth/token/lookup-self")?.status {
        403 => Err(VaultError::TokenGone),
        _ => Ok(()),
    }
}

pub(super) fn understood<'a, T: Deserialize<'a>>(answer: &'a Answer, doing: &str) -> Result<T, VaultError> {
    let unreadable = |why: String| VaultError::Unreadable { doing: format!("reading {doing}"), why };
    if !answer.is_ok() && answer.status != 404 {
        let doing = format!("reading {doing}");
        return Err(VaultError::Answer { doing, status: answer.status, errors: answer.errors() });
    }
    // The parser's own message could quote what it read.
    serde_json::from_slice(&answer.body)
        .map_err(|error| unreadable(format!("not the JSON of Vault, at byte {}", error.column())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(version: &str) -> Mount {
        let options = Some([("version".to_owned(), version.to_owned())].into());
        Mount { path: "team/kv/".to_owned(), kind: "kv".to_owned(), options }
    }

    #[test]
    fn the_field_is_behind_the_last_hash() {
        let address = Address::of("secret/odd#path#password");
        assert_eq!((address.path, address.field), ("secret/odd#path", "password"));
    }

    #[test]
    fn version_2_reads_below_data() {
        assert_eq!(mount("2").data("team/kv/shop/db").unwrap(), "team/kv/data/shop/db");
        assert_eq!(mount("1").data("team/kv/shop/db").unwrap(), "team/kv/shop/db");
        let transit = Mount { kind: "transit".to_owned(), ..mount("1") };
        assert!(matches!(transit.data("team/kv/x"), Err(VaultError::NotKv { .. })));
    }

    #[test]
    fn what_is_not_there_is_told_from_what_was_deleted() {
        let answer = |body: &str| Answer { status: 404, body: body.as_bytes().to_vec().into() };
        let deleted = answer(r#"{"data": {"data": null, "metadata": {"deletion_time": "2026-01-01T00:00:00Z"}}}"#);
        assert!(matches!(nothing(&mount("2"), "team/kv/a", &deleted), VaultError::Deleted { .. }));
        let never = answer(r#"{"errors": []}"#);
        assert!(matches!(nothing(&mount("2"), "team/kv/a", &never), VaultError::NoPath { .. }));
        assert_eq!(mount("2").as_the_api_has_it("team/kv/data/a").as_deref(), Some("team/kv/a"));
        assert_eq!(mount("1").as_the_api_has_it("team/kv/data/a"), None);
    }
}
