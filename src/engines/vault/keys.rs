//! The files without which a restored Vault stays shut: a tar of them, encrypted before it enters a repository, since every
//! key of a repository opens all of it.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use zeroize::Zeroizing;

use crate::engines::inspect::{Counts, cut};
use crate::engines::redis::tar::{self, Owner, Tar};
use crate::engines::streams::{self, DumpStream};
use crate::engines::{EngineError, Ground, KeyFiles, Work};
use crate::model::run::Taken;
use crate::repository::{Reader, gpg};
use crate::secrets::{Attributes, write_whole};
use crate::spec::file::{Recipient, SecretRef, VaultSource};

pub(super) const AGE: &str = "/keys.age";
pub(super) const GPG: &str = "/keys.gpg";

/// Key files are small; whatever is larger is a mistake in the path.
const LARGEST: u64 = 4 << 20;

/// The encrypted streams, one for each kind of recipient.
pub(super) fn streams(source: &VaultSource, ground: &Ground) -> Result<Vec<DumpStream>, EngineError> {
    if source.key_files.is_empty() {
        return Ok(Vec::new());
    }
    let plain = packed(source, ground)?;
    let escrow = ground.secrets.vault().map(|vault| vault.escrow.as_slice()).unwrap_or_default();
    let (mut age, mut gpg) = (Vec::new(), Vec::new());
    for recipient in escrow {
        match recipient {
            Recipient::Age(recipient) => age.push(recipient.clone()),
            Recipient::Gpg(recipient) => gpg.push(recipient.clone()),
        }
    }
    let refused = |what: String| EngineError::Refused { what };
    let mut streams = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        streams.push(DumpStream { name: name.to_owned(), open: streams::from_bytes(bytes), inspect });
    };
    if !age.is_empty() {
        let encrypted = to_age(&age, &plain);
        add(AGE, encrypted.map_err(|why| refused(format!("the key files could not be encrypted with age: {why}")))?);
    }
    if !gpg.is_empty() {
        let encrypted = gpg::encrypt_bytes(&gpg, &plain);
        add(GPG, encrypted.map_err(|(why, _)| refused(format!("the key files could not be encrypted: {why}")))?);
    }
    if streams.is_empty() {
        return Err(refused("there are key files and nobody in `vault.escrow` to encrypt them to".to_owned()));
    }
    Ok(streams)
}

/// What a file is called in the archive: where it lies, whoever's home folder that is.
fn entry(path: &Path) -> String {
    let place = match path.strip_prefix("~") {
        Ok(below) => Path::new("home").join(below),
        Err(_) => match path.strip_prefix("/") {
            Ok(below) => Path::new("root").join(below),
            Err(_) => Path::new("stack").join(path),
        },
    };
    // Without `.`, as tar itself would write it.
    place.components().collect::<PathBuf>().to_string_lossy().replace("/./", "/")
}

fn packed(source: &VaultSource, ground: &Ground) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    // Not moved while it grows: what is left behind would not be wiped.
    let mut whole = Tar { bytes: Vec::with_capacity(64 * 1024) };
    for declared in &source.key_files {
        let path = ground.path(declared);
        let failed = || EngineError::io("reading the key file", &path);
        let file = fs::File::open(&path).map_err(failed())?;
        let meta = file.metadata().map_err(failed())?;
        if !meta.is_file() || meta.len() > LARGEST {
            let what = format!("{} is no key file: name a regular file of at most 4 MiB", path.display());
            return Err(EngineError::Refused { what });
        }
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1));
        file.take(LARGEST).read_to_end(&mut content).map_err(failed())?;
        let owner = Owner { uid: meta.uid().into(), gid: meta.gid().into(), mode: u64::from(meta.mode() & 0o7777) };
        whole.file(&entry(declared), &content, owner).map_err(failed())?;
    }
    Ok(Zeroizing::new(whole.finish()))
}

fn to_age(recipients: &[String], plain: &[u8]) -> Result<Vec<u8>, String> {
    let parsed: Result<Vec<age::x25519::Recipient>, _> = recipients.iter().map(|one| one.trim().parse()).collect();
    let parsed = parsed.map_err(|why: &str| why.to_owned())?;
    let encryptor = age::Encryptor::with_recipients(parsed.iter().map(|one| one as &dyn age::Recipient))
        .map_err(|error| error.to_string())?;
    let encrypt = || {
        let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armor)?;
        writer.write_all(plain)?;
        writer.finish()?.finish()
    };
    encrypt().map_err(|error| error.to_string())
}

fn from_age(encrypted: &[u8], identities: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = age::IdentityFile::from_buffer(identities.as_bytes()).map_err(|error| error.to_string())?;
    let identities = file.into_identities().map_err(|error| error.to_string())?;
    let decryptor = age::Decryptor::new_buffered(ArmoredReader::new(encrypted)).map_err(|error| error.to_string())?;
    let mut reader = decryptor
        .decrypt(identities.iter().map(|one| one.as_ref() as &dyn age::Identity))
        .map_err(|error| error.to_string())?;
    let mut plain = Zeroizing::new(Vec::with_capacity(encrypted.len()));
    reader.read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok(plain)
}

/// An armored message, from its first line to its last. What is in it can be read by the recipients alone.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut lines = io::BufReader::new(from);
    let (mut begun, mut ended, mut bytes) = (None, false, 0_u64);
    loop {
        let mut line = String::new();
        let count = lines.by_ref().take(4096).read_line(&mut line).map_err(|error| cut("the armor", &error))?;
        if count == 0 {
            break;
        }
        if ended || !line.ends_with('\n') {
            return Err("it is no armored message: it ends within a line, or goes on behind its end".to_owned());
        }
        let text = line.trim_end();
        match begun {
            None => match text.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
                Some(kind) => begun = Some(kind.to_owned()),
                None => return Err("it does not begin as an armored message does".to_owned()),
            },
            Some(ref kind) => ended = text == format!("-----END {kind}-----"),
        }
        bytes += count as u64;
    }
    if ended { Ok(vec![("bytes of armor".to_owned(), bytes)]) } else { Err("it ends within the armor".to_owned()) }
}

/// One file of the archive.
struct Packed {
    name: String,
    attributes: Attributes,
    content: Zeroizing<Vec<u8>>,
}

fn unpacked(plain: &[u8]) -> io::Result<Vec<Packed>> {
    let mut rest = plain;
    let mut files = Vec::new();
    while rest.iter().any(|byte| *byte != 0) {
        let (name, first) = tar::named(&mut rest)?;
        let size = usize::try_from(first.size).ok().filter(|size| *size <= rest.len());
        let size = size.ok_or(io::ErrorKind::UnexpectedEof)?;
        let small = |number: u64| u32::try_from(number).map_err(io::Error::other);
        let Owner { uid, gid, mode } = first.owner;
        let attributes = Attributes { mode: small(mode)?, uid: small(uid)?, gid: small(gid)? };
        files.push(Packed { name, attributes, content: Zeroizing::new(rest[..size].to_vec()) });
        rest = &rest[(size + tar::padding(first.size).len()).min(rest.len())..];
    }
    Ok(files)
}

/// Puts the key files that are missing on this machine back to their places, out of the backup. What is there stays.
pub(super) fn bring_back(
    source: &VaultSource,
    ground: &Ground,
    reader: &Reader,
    taken: &Taken,
    work: &Work<'_>,
) -> Result<Vec<String>, EngineError> {
    if ground.vault.keys == KeyFiles::OfMachine {
        return Ok(Vec::new());
    }
    let missing: Vec<&PathBuf> = source.key_files.iter().filter(|path| !ground.path(path).exists()).collect();
    let is_asked = ground.vault.escrow.is_some();
    let named = |name: &str| taken.artifacts.iter().find(|artifact| artifact.name == name);
    if missing.is_empty() && !is_asked {
        return Ok(Vec::new());
    }
    let listed = || missing.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let refused = |what: String| EngineError::Refused { what };
    let plain = match (&ground.vault.escrow, named(AGE), named(GPG)) {
        (Some(identity), Some(artifact), _) => {
            let reference = SecretRef { file: Some(identity.clone()), ..SecretRef::default() };
            let identities = ground.secrets.resolve(&reference)?;
            let encrypted = streams::small(reader, taken, artifact, work)?;
            from_age(&encrypted, identities.expose()).map_err(|why| {
                refused(format!(
                    "the key files in the backup cannot be decrypted with {}: {why}; nothing was touched",
                    identity.display()
                ))
            })?
        }
        (None, _, Some(artifact)) => {
            let encrypted = streams::small(reader, taken, artifact, work)?;
            gpg::decrypt_bytes(&encrypted).map_err(|(why, _)| {
                refused(format!("{} are not on this machine, and {why}; nothing was touched", listed()))
            })?
        }
        (None, Some(_), None) => {
            return Err(refused(format!(
                "{} are not on this machine; give `--escrow FILE` with the age identity that they were encrypted to, or \
                 put them there. Nothing was touched",
                listed()
            )));
        }
        (_, None, None) => {
            return Err(refused(format!(
                "{} are not on this machine, and the backup was taken without them; put them there. Nothing was touched",
                listed()
            )));
        }
        (Some(_), None, Some(_)) => {
            return Err(refused(
                "the key files in the backup are encrypted to gpg recipients only: leave `--escrow` out, gpg itself has \
                 the key. Nothing was touched"
                    .to_owned(),
            ));
        }
    };
    let damaged = |error: io::Error| EngineError::Damaged { findings: vec![format!("the key files: {error}")] };
    placed(source, ground, &unpacked(&plain).map_err(damaged)?)
}

fn placed(source: &VaultSource, ground: &Ground, files: &[Packed]) -> Result<Vec<String>, EngineError> {
    let mut notes = Vec::new();
    let (mut back, mut kept) = (Vec::new(), Vec::new());
    for declared in &source.key_files {
        let path = ground.path(declared);
        let Some(file) = files.iter().find(|file| file.name == entry(declared)) else {
            if !path.exists() {
                notes.push(format!("{} is not in the backup, and not here", declared.display()));
            }
            continue;
        };
        match fs::read(&path).map(Zeroizing::new) {
            Ok(there) if there == file.content => {}
            Ok(_) => kept.push(declared.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_whole(&path, &file.content, Some(file.attributes)).map_err(EngineError::io("writing", &path))?;
                back.push(declared.display().to_string());
            }
            Err(error) => return Err(EngineError::io("reading", path)(error)),
        }
    }
    if !back.is_empty() {
        notes.push(format!("out of escrow: {}", back.join(", ")));
    }
    if !kept.is_empty() {
        notes.push(format!("left as they are, and others in the backup: {}", kept.join(", ")));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> Vec<u8> {
        let mut tar = Tar::default();
        tar.file(name, content, Owner { uid: 1, gid: 2, mode: 0o640 }).unwrap();
        tar.finish()
    }

    #[test]
    fn a_file_is_called_by_its_place() {
        for (path, name) in [
            ("~/.config/vault/keys.json", "home/.config/vault/keys.json"),
            ("./vault/ca.pem", "stack/vault/ca.pem"),
            ("vault/ca.pem", "stack/vault/ca.pem"),
            ("/etc/vault/keys", "root/etc/vault/keys"),
        ] {
            assert_eq!(entry(Path::new(path)), name);
        }
    }

    #[test]
    fn what_is_encrypted_is_read_by_any_of_the_recipients_and_by_nobody_else() {
        let [one, two, other] = [(); 3].map(|()| age::x25519::Identity::generate());
        let plain = file("home/keys", b"share");
        let recipients = [one.to_public().to_string(), two.to_public().to_string()];
        let encrypted = to_age(&recipients, &plain).unwrap();
        assert!(!encrypted.windows(5).any(|window| window == b"share"));
        use age::secrecy::ExposeSecret as _;
        for identity in [&one, &two] {
            let text = format!("# created\n{}\n", identity.to_string().expose_secret());
            let files = unpacked(&from_age(&encrypted, &text).unwrap()).unwrap();
            assert_eq!(files.len(), 1);
            assert_eq!((files[0].name.as_str(), files[0].content.as_slice()), ("home/keys", &b"share"[..]));
            assert_eq!(files[0].attributes.mode, 0o640);
        }
        assert!(from_age(&encrypted, other.to_string().expose_secret()).is_err());
        assert!(inspect(&mut encrypted.as_slice()).is_ok());
        for end in 0..encrypted.len() {
            assert!(inspect(&mut &encrypted[..end]).is_err(), "cut at {end}");
        }
        assert!(inspect(&mut [encrypted, b"x\n".to_vec()].concat().as_slice()).is_err());
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let whole = file("a", &[7; 700]);
        assert!(unpacked(&whole[..600]).is_err());
        assert!(unpacked(&[]).unwrap().is_empty());
    }
}
