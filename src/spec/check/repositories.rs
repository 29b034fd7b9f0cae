//! Repositories: what opens them, and who writes to them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::file::{Key, Repository, Spec};
use super::super::node::Place;
use super::{Findings, backup, secrets};
use crate::model::ids::RepositoryName;

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let used: BTreeSet<&RepositoryName> = spec.backup.values().flat_map(|policy| &policy.to).collect();
    let unfinished = backup::is_unfinished(spec);
    for (name, repository) in &spec.repositories {
        let place = Place::of(["repositories", name.as_str()]);
        if repository.path.to_string_lossy().trim().is_empty() {
            let at = place.key("path");
            findings.error(
                &at,
                format!("`{at}` is empty"),
                "no path",
                "write the folder of the repository, such as ./backups",
            );
        }
        keys(spec, name, repository, &place.key("keys"), findings);
        if !used.contains(name) && !unfinished {
            findings.warning(
                &place.itself(),
                format!("nothing is written to the repository `{name}`: no policy names it in `to`"),
                "unused",
                "name it in a policy's `to`, or remove it",
            );
        }
    }
}

fn keys(spec: &Spec, name: &RepositoryName, repository: &Repository, place: &Place, findings: &mut Findings<'_>) {
    if repository.keys.is_empty() {
        let help = "write one, such as `- passphrase: { file: ~/.config/devstack/passphrase, generate: true }`";
        return findings.error(place, format!("the repository `{name}` has no keys"), "no key", help);
    }
    let mut labels: BTreeMap<String, usize> = BTreeMap::new();
    for (index, key) in repository.keys.iter().enumerate() {
        let at = place.index(index);
        match key {
            Key::Passphrase(secret) => secrets::passphrase(&at.key("passphrase"), secret, findings),
            Key::GpgSymmetric(secret) => secrets::reference(&at.key("gpg_symmetric"), secret, findings),
            Key::AgeIdentity(secret) => secrets::reference(&at.key("age_identity"), secret, findings),
            Key::Gpg(recipient) if recipient.trim().is_empty() || recipient.starts_with('-') => findings.error(
                &at.key("gpg"),
                format!("`{at}` names no gpg recipient"),
                "not a recipient",
                "write a key's fingerprint, or an address that names one key: see gpg --list-keys",
            ),
            Key::Gpg(_) => {}
            Key::Age(recipient) => {
                if let Err(reason) = recipient.parse::<age::x25519::Recipient>() {
                    findings.error(
                        &at.key("age"),
                        format!("`{at}` is no age recipient: {reason}"),
                        "not a recipient",
                        "write the public key, which begins with age1; `age-keygen -y IDENTITY_FILE` prints it",
                    );
                }
            }
        }
        match labels.get(&key.label()) {
            Some(first) => {
                let message = format!("the repository `{name}` has the key `{}` twice", key.label());
                findings.error(&at, message, "and again", "remove one of the two");
                findings.see(&place.index(*first), "first here");
            }
            None => {
                labels.insert(key.label(), index);
            }
        }
    }
    operable(spec, name, &repository.keys, place, findings);
}

/// The format needs a password to write too: recipients alone can only be encrypted to.
fn operable(spec: &Spec, name: &RepositoryName, keys: &[Key], place: &Place, findings: &mut Findings<'_>) {
    let alone = |key: &Key| match key {
        Key::Passphrase(secret) => !secret.prompt,
        Key::GpgSymmetric(_) | Key::AgeIdentity(_) => true,
        Key::Gpg(_) | Key::Age(_) => false,
    };
    let add =
        "add a key that works by itself, such as `passphrase: { file: ~/.config/devstack/passphrase, generate: true }`";
    let prompts = |key: &Key| matches!(key, Key::Passphrase(secret) if secret.prompt);
    let gpg = |key: &Key| matches!(key, Key::Gpg(_));
    let scheduled = || spec.backup.iter().find(|(_, policy)| policy.schedule.is_some() && policy.to.contains(name));
    if keys.iter().any(alone) {
    } else if keys.iter().any(gpg) {
        findings.warning(
            place,
            format!("the repository `{name}` opens only where gpg has a secret key that asks for nothing"),
            "only gpg recipients open it",
            add,
        );
    } else if !keys.iter().any(prompts) {
        findings.error(
            place,
            format!("devstack cannot open the repository `{name}`: its keys are recipients only"),
            "none of these opens it",
            add,
        );
    } else if let Some((policy, _)) = scheduled() {
        findings.warning(
            place,
            format!("a scheduled run of `{policy}` cannot open the repository `{name}`: its passphrase is asked for"),
            "needs a person at a terminal",
            add,
        );
    }
}
