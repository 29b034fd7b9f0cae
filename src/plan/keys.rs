//! Which declared keys can open a repository without a person, and which leave a sidecar.

use crate::spec::file::Key;

/// How well a key serves to open a repository unattended: smaller is better, none not at all.
fn unattended(key: &Key) -> Option<u8> {
    match key {
        Key::Passphrase(passphrase) if passphrase.prompt => Some(1),
        Key::Passphrase(_) | Key::AgeIdentity(_) | Key::GpgSymmetric(_) => Some(0),
        // Works where the secret key is at hand and its agent does not ask; only an attempt tells.
        Key::Gpg(_) => Some(2),
        Key::Age(_) => None,
    }
}

/// The key that a new repository is made with.
pub(super) fn first_operable(keys: &[Key]) -> Option<usize> {
    let ranked = keys.iter().enumerate().filter_map(|(index, key)| unattended(key).map(|rank| (rank, index)));
    ranked.min().map(|(_, index)| index)
}

/// Surely opens the repository, given its secret. A gpg recipient may or may not.
pub(super) fn surely_operable(key: &Key) -> bool {
    unattended(key).is_some_and(|rank| rank < 2)
}

/// Its password is random, and an encrypted copy of it must lie beside the repository.
pub(super) fn has_sidecar(key: &Key) -> bool {
    match key {
        Key::Passphrase(_) => false,
        Key::Gpg(_) | Key::GpgSymmetric(_) | Key::Age(_) | Key::AgeIdentity(_) => true,
    }
}
