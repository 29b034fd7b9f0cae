//! age: a password encrypted to an X25519 recipient, armored, as the `age` program reads it.

use std::io::{self, Read};

use age::x25519::{Identity, Recipient};

use super::keys::Refusal;
use crate::secrets::Secret;

pub(super) fn encrypt_to(recipient: &str, password: &Secret) -> Result<Vec<u8>, Refusal> {
    let recipient: Recipient =
        recipient.trim().parse().map_err(|why| (format!("it is no age recipient (age1…): {why}"), None))?;
    let armored = age::encrypt_and_armor(&recipient, password.expose().as_bytes())
        .map_err(|error| ("age could not encrypt to it".to_owned(), Some(io::Error::other(error))))?;
    Ok(armored.into_bytes())
}

pub(super) fn decrypt(sidecar: &[u8], identity: &Secret) -> Result<Secret, Refusal> {
    let identity = parse(identity)?;
    let failed = |error| ("age could not decrypt with this identity".to_owned(), Some(error));
    let armored = age::armor::ArmoredReader::new(sidecar);
    let decryptor = age::Decryptor::new_buffered(armored).map_err(|error| failed(io::Error::other(error)))?;
    let mut plain = decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(|error| failed(io::Error::other(error)))?;
    let mut password = String::with_capacity(128);
    plain.read_to_string(&mut password).map_err(failed)?;
    Ok(Secret::new(password))
}

pub(super) fn recipient_of(identity: &Secret) -> Result<String, Refusal> {
    Ok(parse(identity)?.to_public().to_string())
}

/// An identity file has comments; the first line that is none is the identity.
fn parse(identity: &Secret) -> Result<Identity, Refusal> {
    let line = identity.expose().lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.and_then(|line| line.parse().ok())
        .ok_or_else(|| ("it holds no age identity (AGE-SECRET-KEY-1…)".to_owned(), None))
}
