//! GPG through the `gpg` program, so that agents and smart cards work. Secrets travel by stdin only.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::keys::Refusal;
use crate::secrets::Secret;

pub(super) fn encrypt_to(recipient: &str, password: &Secret) -> Result<Vec<u8>, Refusal> {
    // The user named the recipient in a reviewed file: that is the trust, and no web of it is asked.
    let arguments = ["--trust-model", "always", "--armor", "--encrypt", "--recipient", recipient];
    run(&arguments, password.expose().as_bytes())
}

/// Any bytes, to every one of the recipients.
pub fn encrypt_bytes(recipients: &[String], bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut arguments = vec!["--trust-model", "always", "--armor", "--encrypt"];
    for recipient in recipients {
        arguments.extend(["--recipient", recipient]);
    }
    run(&arguments, bytes)
}

/// Any bytes, with whatever secret key gpg and its agent have.
pub fn decrypt_bytes(encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    run(&["--decrypt"], encrypted).map(Zeroizing::new)
}

pub(super) fn encrypt_with(passphrase: &Secret, password: &Secret) -> Result<Vec<u8>, Refusal> {
    let input = after_passphrase(passphrase, password.expose().as_bytes())?;
    let arguments =
        ["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--armor", "--cipher-algo", "AES256", "--symmetric"];
    run(&arguments, &input)
}

/// With the passphrase given, or with whatever secret key gpg and its agent have.
pub(super) fn decrypt(sidecar: &[u8], passphrase: Option<&Secret>) -> Result<Secret, Refusal> {
    let plain = match passphrase {
        Some(passphrase) => {
            let input = after_passphrase(passphrase, sidecar)?;
            run(&["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--decrypt"], &input)?
        }
        None => run(&["--decrypt"], sidecar)?,
    };
    let text = String::from_utf8(plain).map_err(|_| ("gpg gave back bytes that are no password".to_owned(), None))?;
    Ok(Secret::new(text))
}

/// gpg takes the first line of stdin for the passphrase and reads on behind it.
fn after_passphrase(passphrase: &Secret, data: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    if passphrase.expose().contains('\n') {
        return Err(("gpg takes a passphrase of one line only".to_owned(), None));
    }
    let mut input = Zeroizing::new(Vec::with_capacity(passphrase.expose().len() + 1 + data.len()));
    input.extend_from_slice(passphrase.expose().as_bytes());
    input.push(b'\n');
    input.extend_from_slice(data);
    Ok(input)
}

fn run(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Refusal> {
    let child = Command::new("gpg")
        .args(["--batch", "--no-tty", "--quiet"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(("the program `gpg` is not installed: install GnuPG".to_owned(), Some(error)));
        }
        Err(error) => return Err(("the program `gpg` could not be started".to_owned(), Some(error))),
    };
    // Fed from a thread of its own, so that neither side waits for the other when a pipe is full.
    let stdin = child.stdin.take();
    let (fed, output) = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input)));
        let output = child.wait_with_output();
        (feeding.join().unwrap_or_else(|_| Err(io::Error::other("the thread that fed it panicked"))), output)
    });
    let output = output.map_err(|error| ("`gpg` could not be waited for".to_owned(), Some(error)))?;
    if !output.status.success() {
        // gpg names keys and files there, never a secret.
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason").to_owned();
        let next = if last.ends_with("No name") || last.contains("No public key") {
            "; import the recipient's public key first: `gpg --import FILE`"
        } else {
            ""
        };
        return Err((format!("gpg failed ({}): {last}{next}", output.status), None));
    }
    fed.map_err(|error| ("`gpg` did not take its input".to_owned(), Some(error)))?;
    Ok(output.stdout)
}
