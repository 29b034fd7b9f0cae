//! `vault`: an address, a login that is found outside of it, and nothing that contradicts itself. And Vault as a service:
//! key files only with somebody to encrypt them to.

use std::path::{Component, Path};

use super::super::file::{Approle, Recipient, Source, Spec, UnsealKeys, VaultLogin, VaultSource};
use super::super::node::Place;
use super::{Findings, secrets};

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let Some(vault) = &spec.vault else { return };
    let place = Place::of(["vault"]);
    let encrypted = vault.address.strip_prefix("https://");
    let host = encrypted.or_else(|| vault.address.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(['?', '#', ' '])) {
        findings.error(
            &place.key("address"),
            format!("`{}` is no address of a server", vault.address),
            "not http:// or https:// and a host",
            "write it as VAULT_ADDR has it: https://vault.example.com:8200",
        );
    } else if vault.ca.is_some() && encrypted.is_none() {
        findings.error(
            &place.key("ca"),
            "`vault.ca` is given, and the address has no TLS".to_owned(),
            "would not be used",
            "write the address with https://, or remove `ca`",
        );
    }
    let login = place.key("login");
    match &vault.login {
        VaultLogin::Token(token) => secrets::outside_of_vault(&login.key("token"), token, findings),
        VaultLogin::Approle(login_by) => approle(&login.key("approle"), login_by, findings),
    }
    if let Some(unseal) = &vault.unseal {
        let at = place.key("unseal").key("keys");
        if unseal.keys.is_empty() {
            let help = "say where the unseal keys are: `keys: [ { file: ~/.config/vault/keys.json } ]`";
            findings.error(&at, format!("`{at}` is empty"), "no unseal key", help);
        }
        for (index, keys) in unseal.keys.iter().enumerate() {
            unseal_keys(&at.index(index), keys, findings);
        }
    }
    let at = place.key("escrow");
    for (index, recipient) in vault.escrow.iter().enumerate() {
        escrow(&at.index(index), recipient, findings);
        if vault.escrow[..index].contains(recipient) {
            let message = format!("`{at}` names one recipient twice");
            findings.error(&at.index(index), message, "and again", "remove one of the two");
        }
    }
}

fn unseal_keys(place: &Place, keys: &UnsealKeys, findings: &mut Findings<'_>) {
    let given = [keys.env.is_some(), keys.file.is_some(), keys.gpg.is_some(), keys.prompt];
    secrets::one_of(place, &given, "`env`, `file`, `gpg` or `prompt`", findings);
    secrets::parts(place, keys.env.as_deref(), keys.file.as_deref(), findings);
    if keys.gpg.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        let at = place.key("gpg");
        findings.error(&at, format!("`{at}` is empty"), "no path", "write the path of the file that gpg decrypts");
    }
}

fn escrow(place: &Place, recipient: &Recipient, findings: &mut Findings<'_>) {
    match recipient {
        Recipient::Age(recipient) => {
            if let Err(reason) = recipient.parse::<age::x25519::Recipient>() {
                findings.error(
                    &place.key("age"),
                    format!("`{place}` is no age recipient: {reason}"),
                    "not a recipient",
                    "write the public key, which begins with age1; `age-keygen -y IDENTITY_FILE` prints it",
                );
            }
        }
        Recipient::Gpg(recipient) if recipient.trim().is_empty() || recipient.starts_with('-') => findings.error(
            &place.key("gpg"),
            format!("`{place}` names no gpg recipient"),
            "not a recipient",
            "write a key's fingerprint, or an address that names one key: see gpg --list-keys",
        ),
        Recipient::Gpg(_) => {}
    }
}

/// Vault as a service.
pub(super) fn source(spec: &Spec, place: &Place, source: &VaultSource, findings: &mut Findings<'_>) {
    let Some(vault) = &spec.vault else {
        return findings.error(
            &place.clone().itself(),
            format!("`{place}` is a Vault, and the file does not say where it answers"),
            "no `vault` section",
            "write `vault: { address: …, login: … }` at the top of the file",
        );
    };
    let is_vault = |name: &&crate::model::ids::ServiceName| matches!(spec.services[*name].source, Source::Vault(_));
    if let Some(first) = spec.services.keys().find(is_vault)
        && *place != Place::of(["services", first.as_str(), "source", "vault"])
    {
        findings.error(
            &place.clone().itself(),
            format!("`{place}` is a second Vault, and `vault` of the file speaks of one"),
            "another is declared",
            "declare the other Vault in a file of its own, with its own `vault` section",
        );
    }
    let files = place.key("key_files");
    if !source.key_files.is_empty() && vault.escrow.is_empty() {
        findings.error(
            &files,
            format!("`{files}` would lie in the repository for every one of its keys to read"),
            "nobody to encrypt them to",
            "name who may: `escrow: [ { age: age1… } ]` below `vault`, of an identity that is kept elsewhere",
        );
    }
    if source.key_files.is_empty() && !vault.escrow.is_empty() {
        findings.warning(
            &Place::of(["vault", "escrow"]),
            "`vault.escrow` is given, and nothing is encrypted to it".to_owned(),
            "not used",
            format!("name what opens Vault in `{files}`"),
        );
    }
    for (index, path) in source.key_files.iter().enumerate() {
        file(&files.index(index), path, findings);
    }
    let shown: Vec<String> = source.key_files.iter().map(|path| path.display().to_string()).collect();
    findings.doubles(&files, &shown);
    if let Some(canary) = &source.canary {
        secrets::in_vault(&place.key("canary"), canary, findings);
    }
    for (index, role) in source.approles.iter().enumerate() {
        let at = place.key("approles").index(index);
        if role.role.trim().is_empty() || role.role.contains('/') {
            let named = at.key("role");
            findings.error(
                &named,
                format!("`{named}` is no role"),
                "not a role",
                "write its name: see `vault list auth/approle/role`",
            );
        }
        file(&at.key("secret_id").key("file"), &role.secret_id.file, findings);
    }
    let written: Vec<String> = source.approles.iter().map(|role| role.secret_id.file.display().to_string()).collect();
    findings.doubles(&place.key("approles"), &written);
    if let Some(path) = source.path.as_ref().filter(|path| !path.starts_with('/') || path.as_str() == "/") {
        let at = place.key("path");
        findings.error(
            &at,
            format!("`{at}` is {path}, and must be the whole path of a folder in the container"),
            "not a folder below /",
            "write it from the container's root on: `/vault/file`",
        );
    }
}

/// One file, by a path that leads somewhere whoever reads it.
fn file(place: &Place, path: &Path, findings: &mut Findings<'_>) {
    let ends = path.file_name().is_some() && path != Path::new("~");
    if !ends || path.components().any(|part| part == Component::ParentDir) {
        findings.error(
            place,
            format!("`{place}` is no path of a file"),
            "not a file's path",
            "write it from the folder of this file on, from `~/` or from `/` on, without `..`",
        );
    }
}

fn approle(place: &Place, approle: &Approle, findings: &mut Findings<'_>) {
    secrets::outside_of_vault(&place.key("role_id"), &approle.role_id, findings);
    let at = place.key("secret_id");
    secrets::outside_of_vault(&at, &approle.secret_id.reference(), findings);
    if approle.secret_id.rotate && (approle.secret_id.file.is_none() || approle.secret_id.wrapped) {
        findings.error(
            &at.key("rotate").itself(),
            format!("`{at}` is to be rotated, and has no file that a new one could be put in"),
            "needs `file`, without `wrapped`",
            "write `file: ~/.config/vault/secret-id` beside it, or remove `rotate`",
        );
    }
}
