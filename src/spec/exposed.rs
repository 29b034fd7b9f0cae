//! Secret files that every user of this machine can read. It is told and nothing more: of a file that devstack has not made its
//! owner says who may read it, and the user of a container may have to.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};
use super::file::{Key, Login, SecretRef, Source, Spec, VaultLogin};
use super::node::{Node, Place};
use super::paths;

/// Others than the owner and the group.
const OTHERS: u32 = 0o006;

pub(super) fn files(spec: &Spec, tree: &Node, base: &Path, home: Option<&Path>) -> Vec<Diagnostic> {
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for (place, file) in declared(spec) {
        let path = paths::resolve(base, home, &file);
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if about.mode() & OTHERS == 0 || !about.is_file() || !told.insert(path) {
            continue;
        }
        let file = file.display();
        found.push(Diagnostic {
            severity: Severity::Warning,
            place: place.to_string(),
            message: format!("{file} holds a secret, and every user of this machine can read it (mode {:04o})", about.mode() & 0o7777),
            label: "readable by others".to_owned(),
            help: Some(format!(
                "`chmod o= {file}`; where the user of a container must read it, give it that user's group: `chgrp GID {file}`, and `chmod 640 {file}`"
            )),
            span: place.find(tree),
            related: None,
        });
    }
    found
}

/// Every file that a secret is in, but for a passphrase that devstack has made: with that it refuses to work.
fn declared(spec: &Spec) -> Vec<(Place, PathBuf)> {
    let mut found = Vec::new();
    let mut add = |place: &Place, file: Option<&PathBuf>, env_file: Option<&PathBuf>| {
        let both = [("file", file), ("env_file", env_file)].into_iter();
        found.extend(both.filter_map(|(field, path)| Some((place.key(field), path?.clone()))));
    };
    for (name, service) in &spec.services {
        let at = Place::of(["services", name.as_str(), "source", service.source.engine()]);
        let (password, restoring) = passwords(&service.source);
        if let Some(secret) = password {
            add(&at.key("password"), secret.file.as_ref(), secret.env_file.as_ref());
        }
        if let Some(Login { password: Some(secret), .. }) = restoring {
            add(&at.key("restore_as").key("password"), secret.file.as_ref(), secret.env_file.as_ref());
        }
    }
    for (name, repository) in &spec.repositories {
        for (index, key) in repository.keys.iter().enumerate() {
            let at = Place::of(["repositories", name.as_str(), "keys"]).index(index);
            match key {
                Key::Passphrase(secret) if secret.generate => {}
                Key::Passphrase(secret) => add(&at.key("passphrase"), secret.file.as_ref(), secret.env_file.as_ref()),
                Key::GpgSymmetric(secret) => {
                    add(&at.key("gpg_symmetric"), secret.file.as_ref(), secret.env_file.as_ref())
                }
                Key::AgeIdentity(secret) => {
                    add(&at.key("age_identity"), secret.file.as_ref(), secret.env_file.as_ref())
                }
                Key::Gpg(_) | Key::Age(_) => {}
            }
        }
    }
    let Some(vault) = &spec.vault else { return found };
    let login = Place::of(["vault", "login"]);
    match &vault.login {
        VaultLogin::Token(secret) => add(&login.key("token"), secret.file.as_ref(), secret.env_file.as_ref()),
        VaultLogin::Approle(approle) => {
            let (role, secret) = (&approle.role_id, &approle.secret_id);
            add(&login.key("approle").key("role_id"), role.file.as_ref(), role.env_file.as_ref());
            add(&login.key("approle").key("secret_id"), secret.file.as_ref(), secret.env_file.as_ref());
        }
    }
    for (index, keys) in vault.unseal.iter().flat_map(|unseal| &unseal.keys).enumerate() {
        add(&Place::of(["vault", "unseal", "keys"]).index(index), keys.file.as_ref(), None);
    }
    found
}

fn passwords(source: &Source) -> (Option<&SecretRef>, Option<&Login>) {
    match source {
        Source::Postgres(source) => (source.password.as_ref(), source.restore_as.as_ref()),
        Source::Mysql(source) | Source::Mariadb(source) => (source.password.as_ref(), source.restore_as.as_ref()),
        Source::Mongodb(source) => (source.password.as_ref(), source.restore_as.as_ref()),
        Source::Redis(source) => (source.password.as_ref(), source.restore_as.as_ref()),
        Source::Sqlite(_)
        | Source::Files(_)
        | Source::Certificates(_)
        | Source::Rabbitmq(_)
        | Source::Vault(_)
        | Source::Volume(_) => (None, None),
    }
}
