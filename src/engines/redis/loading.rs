//! A server that was started and loads its data: until when, and what it has loaded.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::rdb::{EXPIRING, KEYS, LIBRARIES};
use super::{Info, Redis, Session};
use crate::engines::server::Server;
use crate::engines::{EngineError, Work};
use crate::model::run::Artifact;
use crate::runtime::RuntimeError;

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// What a slow disk reads and Redis unpacks in a second, at the least.
const BYTES_A_SECOND: u64 = 2 << 20;

/// A server has said a word by then, however little it loads.
const FIRST_WORD: Duration = Duration::from_secs(120);

impl Redis {
    /// Waits until a server that was started has loaded `bytes`. One that ends, or is started again and again, has not.
    pub(super) fn wait_loaded(
        &self,
        server: &Server,
        session: &Session,
        bytes: u64,
        work: &Work<'_>,
    ) -> Result<Info, EngineError> {
        let (since, limit) = (Instant::now(), FIRST_WORD + Duration::from_secs(bytes / BYTES_A_SECOND));
        let mut restarts = u64::MAX;
        loop {
            let gone = || RuntimeError::NoContainer { name: server.container.name.clone(), project: None };
            let now = server.docker.inspect(server.container.id.as_str())?.ok_or_else(gone)?;
            restarts = restarts.min(now.restarts);
            let has_ended = matches!(now.state.as_str(), "exited" | "dead" | "restarting") || now.restarts > restarts;
            if has_ended {
                let state = format!("{} with exit code {}", now.state, now.exit_code);
                return Err(RuntimeError::NotRunning { name: now.name, state }.into());
            }
            let asked = self.info(server, session).and_then(|info| match info.is("loading", "0") {
                true => Ok(info),
                false => {
                    let what = format!("Redis in the container {} is still loading its data", server.container.name);
                    Err(EngineError::Unready { what })
                }
            });
            match asked {
                // The server's own word. Its container's health check may have half a minute to wait before it looks.
                Ok(info) => return Ok(info),
                Err(error @ EngineError::Refused { .. }) => return Err(error),
                Err(error) if since.elapsed() > limit => return Err(error),
                Err(_) if work.cancel.is_cancelled() => return Err(EngineError::Interrupted),
                Err(_) => sleep(BETWEEN_LOOKS),
            }
        }
    }
}

/// Compares what a server has loaded with what the backup holds. The server has counted while it loaded, so that
/// clients that came back meanwhile don't matter.
pub(super) fn compare(info: &Info, artifact: &Artifact, container: &str) -> Result<(), EngineError> {
    let expected = |name: &str| artifact.counts.get(name).map_or(0, |count| count.value);
    let (keys, expiring, libraries) = (expected(KEYS), expected(EXPIRING), expected(LIBRARIES));
    let mut findings = Vec::new();
    match (info.number("rdb_last_load_keys_loaded"), info.number("rdb_last_load_keys_expired")) {
        (Some(loaded), Some(expired)) => {
            if loaded + expired != keys || expired > expiring {
                findings.push(format!(
                    "{loaded} keys were loaded and {expired} had expired; {keys} are in the backup, {expiring} of them with an expiry"
                ));
            }
        }
        // A server older than 7.0 does not say it.
        _ => {
            let now = info.keys();
            if now > keys || now < keys - expiring.min(keys) {
                findings.push(format!("{now} keys; {keys} are in the backup, {expiring} of them with an expiry"));
            }
        }
    }
    if let Some(now) = info.libraries().filter(|now| *now != libraries) {
        findings.push(format!("{now} libraries of functions; {libraries} are in the backup"));
    }
    match findings.is_empty() {
        true => Ok(()),
        false => Err(EngineError::Differs { what: format!("Redis in the container {container}"), findings }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::exact;
    use crate::model::ids::Digest;
    use crate::model::run::ArtifactKind;
    use crate::model::units::ByteSize;

    fn loads(pairs: &[(&str, &str)]) -> bool {
        let counts = exact([(KEYS.to_owned(), 10), (EXPIRING.to_owned(), 3), (LIBRARIES.to_owned(), 1)]);
        let artifact = Artifact {
            name: "/dump.rdb".to_owned(),
            kind: ArtifactKind::Stream,
            bytes: ByteSize(1),
            sha256: Digest::of("x"),
            counts,
        };
        let info = Info(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        compare(&info, &artifact, "redis").is_ok()
    }

    #[test]
    fn a_key_may_only_be_missing_if_it_has_expired() {
        let loaded = |loaded: &str, expired: &str, libraries: &str| {
            loads(&[
                ("rdb_last_load_keys_loaded", loaded),
                ("rdb_last_load_keys_expired", expired),
                ("number_of_libraries", libraries),
            ])
        };
        assert!(loaded("10", "0", "1") && loaded("7", "3", "1"));
        assert!(!loaded("9", "0", "1") && !loaded("6", "4", "1") && !loaded("0", "0", "1") && !loaded("11", "0", "1"));
        assert!(!loaded("10", "0", "0"));
        assert!(loads(&[("db0", "keys=7,expires=0")]) && loads(&[("db0", "keys=10,expires=3")]));
        assert!(!loads(&[("db0", "keys=6,expires=0")]) && !loads(&[("db0", "keys=11,expires=0")]) && !loads(&[]));
    }
}
