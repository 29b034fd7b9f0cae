//! Backups of a Vault that only its own secrets would open.

use super::super::file::{Key, Passphrase, Repository, SecretRef, Source, Spec};
use super::super::node::Place;
use super::Findings;
use crate::model::ids::RepositoryName;

const WAY_OUT: &str = "add a key that is kept elsewhere: `- age: age1…` or `- gpg: FINGERPRINT`, whose secret half is not \
    on this machine, or `- passphrase: { file: … }` with a copy of that file";

/// Looks at the Vault that is a service of the file; another one may well be there when the stack is not.
pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let mut services = spec.services.iter();
    let Some((vault, _)) = services.find(|(_, service)| matches!(service.source, Source::Vault(_))) else { return };
    let policies = spec.backup.values().filter(|policy| spec.services_of(policy).contains(vault));
    let copies: Vec<&RepositoryName> = policies.flat_map(|policy| &policy.to).collect();
    let shut = |name: &RepositoryName| spec.repositories.get(name).is_some_and(lies_behind_vault);
    let circle = !copies.is_empty() && copies.iter().all(|name| shut(name));
    for (name, _) in spec.repositories.iter().filter(|(name, _)| shut(name)) {
        let place = Place::of(["repositories", name.as_str(), "keys"]);
        if circle && copies.contains(&name) {
            let message = format!("what opens `{name}` lies in Vault alone, and Vault's own backup lies in `{name}`");
            findings.error(&place, message, "shut on the day that Vault is lost", WAY_OUT);
        } else {
            let message = format!("the repository `{name}` opens only once `{vault}` is back");
            findings.warning(&place, message, "all keys lie in Vault", WAY_OUT);
        }
    }
}

fn lies_behind_vault(repository: &Repository) -> bool {
    !repository.keys.is_empty() && repository.keys.iter().all(behind_vault)
}

fn behind_vault(key: &Key) -> bool {
    match key {
        Key::Passphrase(Passphrase { vault, .. })
        | Key::GpgSymmetric(SecretRef { vault, .. })
        | Key::AgeIdentity(SecretRef { vault, .. }) => vault.is_some(),
        // Only the public half is in the file.
        Key::Gpg(_) | Key::Age(_) => false,
    }
}
