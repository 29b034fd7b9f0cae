//! Where secrets are found: exactly one place, and a place it must be.

use std::path::Path;

use super::super::file::{Passphrase, SecretRef};
use super::super::node::Place;
use super::Findings;

pub(super) fn reference(place: &Place, secret: &SecretRef, findings: &mut Findings<'_>) {
    let given = [secret.env.is_some(), secret.file.is_some(), secret.env_file.is_some(), secret.vault.is_some()];
    one_of(place, &given, "`env`, `file`, `env_file` or `vault`", findings);
    parts(place, secret.env.as_deref(), secret.file.as_deref(), findings);
    variable(place, secret.env_file.as_deref(), secret.name.as_deref(), findings);
    if let Some(reference) = &secret.vault {
        in_vault(&place.key("vault"), reference, findings);
    }
}

/// A secret that must be at hand before there is a login to Vault.
pub(super) fn outside_of_vault(place: &Place, secret: &SecretRef, findings: &mut Findings<'_>) {
    if secret.vault.is_some() {
        let at = place.key("vault");
        findings.error(
            &at,
            format!("`{place}` opens Vault, and lies in it"),
            "behind its own lock",
            "write where it is found outside of Vault: `env`, `file` or `env_file`",
        );
        return;
    }
    let given = [secret.env.is_some(), secret.file.is_some(), secret.env_file.is_some()];
    one_of(place, &given, "`env`, `file` or `env_file`", findings);
    parts(place, secret.env.as_deref(), secret.file.as_deref(), findings);
    variable(place, secret.env_file.as_deref(), secret.name.as_deref(), findings);
}

pub(super) fn passphrase(place: &Place, secret: &Passphrase, findings: &mut Findings<'_>) {
    let given =
        [secret.env.is_some(), secret.file.is_some(), secret.env_file.is_some(), secret.vault.is_some(), secret.prompt];
    one_of(place, &given, "`env`, `file`, `env_file`, `vault` or `prompt`", findings);
    parts(place, secret.env.as_deref(), secret.file.as_deref(), findings);
    variable(place, secret.env_file.as_deref(), secret.name.as_deref(), findings);
    if let Some(reference) = &secret.vault {
        in_vault(&place.key("vault"), reference, findings);
    }
    if secret.generate && secret.file.is_none() {
        findings.error(
            &place.key("generate").itself(),
            format!("`{place}` is to be generated, and has no file to be put in"),
            "needs `file`",
            "write `file: ~/.config/devstack/passphrase` beside it, or remove `generate`",
        );
    }
}

pub(super) fn one_of(place: &Place, given: &[bool], which: &str, findings: &mut Findings<'_>) {
    match given.iter().filter(|given| **given).count() {
        1 => {}
        0 => {
            let message = format!("`{place}` does not say where the secret is found");
            findings.error(place, message, "found nowhere", format!("write exactly one of {which}"));
        }
        more => {
            let message = format!("`{place}` says {more} places where the secret is found");
            findings.error(place, message, "which one holds?", format!("keep exactly one of {which}"));
        }
    }
}

/// A variable of a file: the two go together.
fn variable(place: &Place, env_file: Option<&Path>, name: Option<&str>, findings: &mut Findings<'_>) {
    match (env_file, name) {
        (Some(file), _) if file.as_os_str().is_empty() => {
            let at = place.key("env_file");
            findings.error(
                &at,
                format!("`{at}` is empty"),
                "no path",
                "write the path of the file of variables: `.env`",
            );
        }
        (Some(file), None) => findings.error(
            &place.key("env_file").itself(),
            format!("`{place}` names the file {} and none of its variables", file.display()),
            "needs `name`",
            format!("write the variable's name beside it: {{ env_file: {}, name: NAME }}", file.display()),
        ),
        (None, Some(_)) => findings.error(
            &place.key("name").itself(),
            format!("`{place}` names a variable and no file that it is in"),
            "needs `env_file`",
            "write the file beside it: `env_file: .env`; for a variable of the environment write `env: NAME`",
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
    called(&place.key("name"), name, findings);
}

/// The name of a variable.
fn called(at: &Place, name: Option<&str>, findings: &mut Findings<'_>) {
    let letters = |c: char| c.is_ascii_alphabetic() || c == '_';
    if name.is_some_and(|name| !name.starts_with(letters) || !name.chars().all(|c| letters(c) || c.is_ascii_digit())) {
        // Somebody may have put the secret itself here.
        findings.mask(at);
        findings.error(
            at,
            format!("`{at}` is not the name of an environment variable"),
            "not a name, and not shown in case it is the secret itself",
            "write the variable's name without `$`: letters, digits and `_`, no digit first",
        );
    }
}

pub(super) fn parts(place: &Place, env: Option<&str>, file: Option<&Path>, findings: &mut Findings<'_>) {
    called(&place.key("env"), env, findings);
    if file.is_some_and(|path| path.as_os_str().is_empty()) {
        let at = place.key("file");
        findings.error(&at, format!("`{at}` is empty"), "no path", "write the path of the file that holds the secret");
    }
}

/// `PATH#FIELD` of the file's Vault.
pub(super) fn in_vault(at: &Place, reference: &str, findings: &mut Findings<'_>) {
    let (path, field) = reference.rsplit_once('#').unwrap_or((reference, ""));
    let names_both = path.split('/').count() > 1 && path.split('/').all(|part| !part.is_empty()) && !field.is_empty();
    if !names_both {
        // Somebody may have put the secret itself here.
        findings.mask(at);
        findings.error(
            at,
            format!("`{at}` is no field of a secret in Vault"),
            "not PATH#FIELD, and not shown in case it is the secret itself",
            "write the path as `vault kv get` takes it, `#`, and the field: secret/postgres#password",
        );
    }
    if !findings.has_vault {
        findings.error(
            at,
            format!("`{at}` lies in Vault, and the file does not say where that is"),
            "no `vault` section",
            "write `vault: { address: …, login: … }` at the top of the file",
        );
    }
}
