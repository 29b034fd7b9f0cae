//! A server in a container, as its engine talks to it: through the server's own programs, run where it runs.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{EngineError, Ground};
use crate::model::observation::{ContainerState, Observed, SourceState};
use crate::runtime::{Command, Docker, Finished, RuntimeError};
use crate::spec::file::{Choice, Login, SecretRef};
use crate::spec::paths;

/// A question to a server is answered within this, or the server hangs.
pub(super) const ANSWER: Duration = Duration::from_secs(60);

/// A container that runs, and the engine it runs on.
pub(super) struct Server {
    pub docker: Arc<Docker>,
    pub container: ContainerState,
}

impl Server {
    /// The container that the file calls `name`, which must run.
    pub(super) fn find(ground: &Ground, name: &str) -> Result<Self, EngineError> {
        let container = ground.containers.find(name)?;
        if !container.running {
            return Err(RuntimeError::NotRunning { name: container.name, state: container.state }.into());
        }
        Ok(Self { docker: ground.containers.docker()?, container })
    }

    /// Runs a program that answers soon.
    pub(super) fn ask(&self, command: &Command, input: &str) -> Result<Finished, EngineError> {
        Ok(self.docker.run(&self.container, command, input.as_bytes(), ANSWER)?)
    }
}

/// The state of a source whose server is `name`: gone when the engine says that there is no such container, unknown when
/// it does not run, and else what `look` sees.
pub(super) fn observe(
    ground: &Ground,
    name: &str,
    look: impl FnOnce(&Server) -> Result<SourceState, EngineError>,
) -> Observed<SourceState> {
    let seen = match ground.containers.look_for(name) {
        Ok(None) => return Observed::Known(SourceState::Gone),
        Ok(Some(_)) => Server::find(ground, name).and_then(|server| look(&server)),
        Err(error) => Err(error.into()),
    };
    match seen {
        Ok(state) => Observed::Known(state),
        Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
    }
}

/// A server that was made anew does not know the user that takes backups, nor anything to take: whoever restores may look
/// at it. Where there is data, that user is missing, and that is what is to be told.
pub(super) fn or_seen_by_the_restorer(
    seen: Result<SourceState, EngineError>,
    has_restorer: bool,
    look: impl FnOnce() -> Result<SourceState, EngineError>,
) -> Result<SourceState, EngineError> {
    let is_refused = matches!(&seen, Err(EngineError::Runtime(RuntimeError::Exit { .. })));
    if !has_restorer || !is_refused {
        return seen;
    }
    match look() {
        Ok(state @ (SourceState::Empty | SourceState::Unfinished { .. })) => Ok(state),
        Ok(SourceState::HasData { .. } | SourceState::Broken | SourceState::Gone) | Err(_) => seen,
    }
}

/// A login with its password at hand. `User` is `Option<String>` for servers that may be used without one.
pub(super) struct Session<User> {
    pub user: User,
    pub password: Option<Zeroizing<String>>,
}

impl<User: From<String>> Session<User> {
    pub(super) fn open(user: User, password: Option<&SecretRef>, ground: &Ground) -> Result<Self, EngineError> {
        Ok(Self { user, password: secret(password, ground)? })
    }

    /// The login that the file gives for restores, if it does.
    pub(super) fn restoring(login: Option<&Login>, ground: &Ground) -> Option<Result<Self, EngineError>> {
        login.map(|login| Self::open(login.user.clone().into(), login.password.as_ref(), ground))
    }
}

/// The value of a declared secret, for the environment or the input of one program.
pub(super) fn secret(reference: Option<&SecretRef>, ground: &Ground) -> Result<Option<Zeroizing<String>>, EngineError> {
    let Some(reference) = reference else { return Ok(None) };
    let secret = ground.secrets.resolve(reference)?;
    Ok(Some(Zeroizing::new(secret.expose().to_owned())))
}

/// Whether a database is among those that the file chooses. The globs were checked with the file.
pub(super) fn is_chosen(choice: Option<&Choice>, database: &str) -> bool {
    let Some(choice) = choice else { return true };
    let matches = |patterns: &[String]| {
        patterns.iter().any(|pattern| paths::glob(pattern).is_ok_and(|glob| glob.is_match(database)))
    };
    (choice.include.is_empty() || matches(&choice.include)) && !matches(&choice.exclude)
}

/// A database's name as a file's: what a path can't hold, and `%`, as percent escapes.
pub(super) fn file_name(database: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') || *byte >= 0x80;
    let first = database.as_bytes().first() == Some(&b'.');
    let mut name = Vec::with_capacity(database.len());
    for (place, byte) in database.bytes().enumerate() {
        if plain(&byte) && !(first && place == 0) {
            name.push(byte);
        } else {
            name.extend(format!("%{byte:02X}").bytes());
        }
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// The name behind [`file_name`].
pub(super) fn database_name(file: &str) -> String {
    let mut name = Vec::with_capacity(file.len());
    let mut bytes = file.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = (byte == b'%').then(|| [bytes.next(), bytes.next()]);
        let decoded = escaped.and_then(|pair| match pair {
            [Some(high), Some(low)] => u8::from_str_radix(std::str::from_utf8(&[high, low]).ok()?, 16).ok(),
            _ => None,
        });
        name.push(decoded.unwrap_or(byte));
    }
    String::from_utf8_lossy(&name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_databases_name_survives_being_a_files() {
        for name in ["shop", "Größe", "a/b", "..", ".hidden", "50%", "with space", "new\nline", "a.b-c_d"] {
            let file = file_name(name);
            assert!(!file.contains('/') && !file.starts_with('.'), "{file}");
            assert_eq!(database_name(&file), name);
        }
    }

    #[test]
    fn a_new_server_is_looked_at_by_whoever_restores_and_only_a_new_one() {
        let refused = || {
            let (container, program, said) = ("pg".to_owned(), "psql".to_owned(), "role does not exist".to_owned());
            Err(EngineError::Runtime(RuntimeError::Exit { container, program, code: 2, said }))
        };
        let data = SourceState::HasData { bytes: None };
        let unfinished = SourceState::Unfinished { bytes: None };
        let by = |seen, has_restorer, look| or_seen_by_the_restorer(seen, has_restorer, || Ok(look)).ok();
        assert_eq!(by(refused(), true, SourceState::Empty), Some(SourceState::Empty));
        assert_eq!(by(refused(), true, unfinished), Some(unfinished));
        // The user that takes the backups is missing: that is what is to be told.
        assert_eq!(by(refused(), true, data), None);
        assert_eq!(by(refused(), false, SourceState::Empty), None);
        assert_eq!(by(Ok(data), true, SourceState::Empty), Some(data));
        let hangs = Err(EngineError::Runtime(RuntimeError::TimedOut { doing: "psql".to_owned(), seconds: 60 }));
        assert_eq!(by(hangs, true, SourceState::Empty), None);
    }

    #[test]
    fn databases_are_chosen_by_globs() {
        let choice = |include: &[&str], exclude: &[&str]| Choice {
            include: include.iter().map(|glob| (*glob).to_owned()).collect(),
            exclude: exclude.iter().map(|glob| (*glob).to_owned()).collect(),
        };
        assert!(is_chosen(None, "shop"));
        assert!(is_chosen(Some(&choice(&["shop*"], &[])), "shop_eu"));
        assert!(!is_chosen(Some(&choice(&["shop*"], &["*_test"])), "shop_test"));
        assert!(!is_chosen(Some(&choice(&["shop"], &[])), "other"));
    }
}
