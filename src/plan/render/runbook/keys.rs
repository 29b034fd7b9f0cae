//! How a repository is opened with plain restic: where each of its keys lies, never what it is.

use std::path::Path;

use super::shell::{path, quoted, secret};
use crate::model::ids::RepositoryName;
use crate::model::observation::RepositoryFacts;
use crate::spec::file::{Key, Passphrase, Repository, SecretRef};

/// One way to the password of a repository.
pub(super) struct Way {
    /// For people: what is needed for it.
    pub needs: String,
    /// Puts the password into the file `"$PRIVATE"/NAME`.
    pub command: String,
}

/// The shell function that is restic with this repository.
pub(super) fn function(name: &RepositoryName) -> String {
    format!("restic_{}", name.as_str().replace('-', "_"))
}

/// The ways by which `repository` opens, the ones that need least first. Keys that are declared and not yet in it are none.
pub(super) fn ways(name: &RepositoryName, repository: &Repository, facts: Option<&RepositoryFacts>) -> Vec<Way> {
    let mut ways: Vec<(u8, Way)> =
        repository.keys.iter().filter_map(|key| way(name, &repository.path, key, facts)).collect();
    ways.sort_by_key(|(rank, _)| *rank);
    ways.into_iter().map(|(_, way)| way).collect()
}

fn way(name: &RepositoryName, place: &Path, key: &Key, facts: Option<&RepositoryFacts>) -> Option<(u8, Way)> {
    let to = format!("\"$PRIVATE\"/{name}");
    let printed = |reference: &SecretRef| format!("printf '%s\\n' {} >{to}", secret(reference));
    let label = key.label();
    let id = facts.and_then(|facts| facts.keys.iter().find(|it| it.label.as_deref() == Some(label.as_str())));
    let sidecar = |ending: &str| {
        let id = &id?.id;
        Some(path(&place.join(format!("devstack/keys/{id}.{ending}"))))
    };
    let way = |rank, needs: String, command: String| Some((rank, Way { needs, command }));
    match key {
        Key::Passphrase(Passphrase { file: Some(file), .. }) => {
            way(0, format!("the passphrase in the file `{}`", file.display()), format!("cat {} >{to}", path(file)))
        }
        Key::Passphrase(Passphrase { env: Some(env), .. }) => {
            let reference = SecretRef { env: Some(env.clone()), ..SecretRef::default() };
            way(1, format!("the passphrase that the variable `{env}` held"), printed(&reference))
        }
        Key::Passphrase(Passphrase { env_file: Some(file), name: Some(variable), .. }) => {
            let needs = format!("the passphrase in the variable `{variable}` of the file `{}`", file.display());
            let reference =
                SecretRef { env_file: Some(file.clone()), name: Some(variable.clone()), ..SecretRef::default() };
            way(1, needs, printed(&reference))
        }
        Key::Passphrase(Passphrase { vault: Some(vault), .. }) => {
            let reference = SecretRef { vault: Some(vault.clone()), ..SecretRef::default() };
            let needs =
                format!("the passphrase in Vault, `{vault}` (not of a Vault that is lost together with the stack)");
            way(7, needs, printed(&reference))
        }
        Key::Passphrase(_) => {
            let ask = format!("read -rsp 'Passphrase: ' REPLY && printf '%s\\n' \"$REPLY\" >{to}; unset REPLY");
            way(6, "the passphrase that somebody remembers".to_owned(), ask)
        }
        Key::AgeIdentity(reference) => {
            let from = sidecar("age")?;
            let (needs, identity) = match reference {
                SecretRef { file: Some(file), .. } => {
                    (format!("the age identity in the file `{}`", file.display()), path(file))
                }
                other => {
                    let needs = format!("the age identity that is found in `{}`", other.place());
                    (needs, format!("<(printf '%s\\n' {})", secret(other)))
                }
            };
            way(2, needs, format!("age --decrypt --identity {identity} --output {to} {from}"))
        }
        Key::GpgSymmetric(reference) => {
            let needs = format!("gpg, and the passphrase that is found in `{}`", reference.place());
            way(3, needs, format!("gpg --decrypt --output {to} {}", sidecar("gpg")?))
        }
        Key::Gpg(recipient) => {
            let needs = format!("gpg with the secret key of `{recipient}`");
            way(4, needs, format!("gpg --decrypt --output {to} {}", sidecar("gpg")?))
        }
        Key::Age(recipient) => {
            let needs = format!("the age identity that belongs to `{recipient}`, as the file `identity.txt`");
            way(
                5,
                needs,
                format!("age --decrypt --identity {} --output {to} {}", quoted("identity.txt"), sidecar("age")?),
            )
        }
    }
}
