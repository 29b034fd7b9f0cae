//! The shares that open a Vault, from wherever the file says that they are.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::engines::{EngineError, Ground};
use crate::repository::gpg;
use crate::secrets::{Secret, SecretError};
use crate::spec::file::{SecretRef, UnsealKeys};

/// One share, decoded: the same share may be written in two ways.
pub(super) type Share = Zeroizing<Vec<u8>>;

/// As many different shares as are wanted, or all that there are where these are too few. Asks on the terminal only for
/// what is missing.
pub(super) fn gather(ground: &Ground, wanted: usize) -> Result<Vec<Share>, EngineError> {
    gathered(ground, wanted, true)
}

/// Those that are here, without asking anybody.
pub(super) fn at_hand(ground: &Ground, wanted: usize) -> Result<Vec<Share>, EngineError> {
    gathered(ground, wanted, false)
}

fn gathered(ground: &Ground, wanted: usize, ask: bool) -> Result<Vec<Share>, EngineError> {
    let unseal = ground.secrets.vault().and_then(|vault| vault.unseal.as_ref());
    let mut shares: Vec<Share> = Vec::new();
    let Some(unseal) = unseal else { return Ok(shares) };
    let add = |shares: &mut Vec<Share>, found: Vec<Share>| {
        for share in found {
            if !shares.contains(&share) {
                shares.push(share);
            }
        }
    };
    for keys in unseal.keys.iter().filter(|keys| !keys.prompt) {
        let text = text(keys, ground)?;
        let found = parse(text.expose())
            .map_err(|why| EngineError::Refused { what: format!("the unseal keys in {}: {why}", place(keys)) })?;
        add(&mut shares, found);
    }
    let asks = ask && unseal.keys.iter().any(|keys| keys.prompt);
    while asks && shares.len() < wanted {
        let answer = ground.secrets.ask(&format!("Unseal key {} of {wanted}: ", shares.len() + 1))?;
        let before = shares.len();
        match parse(answer.expose()) {
            Ok(found) => add(&mut shares, found),
            Err(why) => return Err(EngineError::Refused { what: format!("the unseal key that was typed: {why}") }),
        }
        if shares.len() == before {
            let what = "the unseal key that was typed is one of those that are there already".to_owned();
            return Err(EngineError::Refused { what });
        }
    }
    shares.truncate(wanted);
    Ok(shares)
}

fn place(keys: &UnsealKeys) -> String {
    match keys {
        UnsealKeys { env: Some(name), .. } => format!("the environment variable {name}"),
        UnsealKeys { file: Some(path), .. } | UnsealKeys { gpg: Some(path), .. } => path.display().to_string(),
        _ => "the terminal".to_owned(),
    }
}

fn text(keys: &UnsealKeys, ground: &Ground) -> Result<Secret, EngineError> {
    match &keys.gpg {
        Some(path) => decrypted(&ground.key_file(path)),
        None => {
            let file = keys.file.as_deref().map(|path| ground.key_file(path));
            let reference = SecretRef { env: keys.env.clone(), file, ..SecretRef::default() };
            Ok(ground.secrets.resolve(&reference)?)
        }
    }
}

fn decrypted(path: &Path) -> Result<Secret, EngineError> {
    let bytes = std::fs::read(path).map_err(EngineError::io("reading", path))?;
    // `vault operator init -pgp-keys` prints each share encrypted and in base64.
    let encoded: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let message = STANDARD.decode(encoded).unwrap_or(bytes);
    let plain = gpg::decrypt_bytes(&message)
        .map_err(|(why, _)| EngineError::Refused { what: format!("the unseal keys in {}: {why}", path.display()) })?;
    let text = std::str::from_utf8(&plain).map_err(|_| SecretError::FileNotText { path: path.to_owned() })?;
    Ok(Secret::new(text.to_owned()))
}

/// The answer of `vault operator init -format=json`, or that of the API.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    unseal_keys_b64: Vec<Secret>,
    #[serde(default)]
    unseal_keys_hex: Vec<Secret>,
    #[serde(default)]
    keys_base64: Vec<Secret>,
    #[serde(default)]
    keys: Vec<Secret>,
}

/// The shares in a text; an error says nothing of what is in it.
fn parse(text: &str) -> Result<Vec<Share>, String> {
    let text = text.trim();
    if text.starts_with('{') {
        let answer: Answer = serde_json::from_str(text)
            .map_err(|error| format!("not the JSON of `vault operator init`, at line {}", error.line()))?;
        let lists = [answer.unseal_keys_b64, answer.keys_base64, answer.unseal_keys_hex, answer.keys];
        let list = lists.into_iter().find(|list| !list.is_empty()).ok_or("its JSON has no unseal keys")?;
        return list.iter().enumerate().map(|(index, share)| decode(share.expose(), index + 1)).collect();
    }
    let mut shares = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        // As `vault operator init` prints them for people: `Unseal Key 1: …`, and other words around.
        let printed = line.strip_prefix("Unseal Key ").and_then(|rest| rest.split_once(':'));
        let share = match printed {
            Some((_, share)) => share.trim(),
            None if line.is_empty() || line.starts_with('#') || line.contains(' ') => continue,
            None => line,
        };
        shares.push(decode(share, index + 1)?);
    }
    if shares.is_empty() { Err("there is none".to_owned()) } else { Ok(shares) }
}

/// The shortest key that Vault makes is of 16 bytes.
const SHORTEST: usize = 16;

fn decode(share: &str, number: usize) -> Result<Share, String> {
    // In Vault's own order: what can be read in both ways is meant to be hexadecimal.
    let decoded = hex::decode(share).ok().or_else(|| STANDARD.decode(share).ok()).map(Zeroizing::new);
    decoded
        .filter(|share| share.len() >= SHORTEST)
        .ok_or_else(|| format!("number {number} is no unseal key: neither hexadecimal nor base64 of 16 bytes and more"))
}

/// As the server takes it.
pub(super) fn encode(share: &Share) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(byte: u8) -> (String, String) {
        let share = [byte; 33];
        (hex::encode(share), STANDARD.encode(share))
    }

    #[test]
    fn shares_are_read_in_every_form_that_vault_gives() {
        let ((hex, base64), (_, second)) = (both(1), both(2));
        let want = vec![Zeroizing::new(vec![1; 33]), Zeroizing::new(vec![2; 33])];
        for text in [
            format!("{hex}\n{second}\n"),
            format!("# mine\n\n{base64}\n{second}"),
            format!(
                "Unseal Key 1: {base64}\nUnseal Key 2: {second}\n\nInitial Root Token: hvs.x\n\nVault initialized with"
            ),
            format!(r#"{{"unseal_keys_b64": ["{base64}", "{second}"], "unseal_keys_hex": [], "root_token": "x"}}"#),
            format!(r#"{{"keys": ["x"], "keys_base64": ["{base64}", "{second}"]}}"#),
        ] {
            assert_eq!(parse(&text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_share_is_told_without_being_shown() {
        for text in ["hunter2", "{\"keys\": [\"hunter2\"]}", "{hunter2", "{}", "", "# hunter2"] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
