//! Opening a server with shares, and waiting for what it says of itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::shares::{self, Share};
use crate::engines::{EngineError, Work};
use crate::secrets::{SealStatus, VaultError, VaultServer};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// A single node of integrated storage elects itself within some ten seconds, on a busy machine later.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// Looks until what is waited for is there. A server that does not answer meanwhile is looked at again.
pub(super) fn until<T>(
    what: &str,
    work: &Work<'_>,
    mut look: impl FnMut() -> Result<Option<T>, VaultError>,
) -> Result<T, EngineError> {
    let since = Instant::now();
    loop {
        if work.cancel.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let seen = look();
        if let Ok(Some(there)) = seen {
            return Ok(there);
        }
        if since.elapsed() > LONGEST {
            let what = format!("waited {} s for {what}, in vain; look at its log (`docker logs`)", LONGEST.as_secs());
            return Err(match seen {
                Err(error) => EngineError::Restore {
                    doing: "waiting for Vault".to_owned(),
                    after: what,
                    source: Box::new(error.into()),
                },
                Ok(_) => EngineError::Refused { what },
            });
        }
        sleep(BETWEEN_LOOKS);
    }
}

/// The state of a server that may just have been started.
pub(super) fn answering(server: &VaultServer, work: &Work<'_>) -> Result<SealStatus, EngineError> {
    until("Vault to answer", work, || server.seal_status().map(Some))
}

#[derive(Deserialize)]
struct Progress {
    sealed: bool,
}

/// Whether these are its keys. One that they do not open stays as it was.
pub(super) fn try_open(server: &VaultServer, shares: &[Share]) -> Result<bool, EngineError> {
    match open(server, shares) {
        Ok(()) => Ok(true),
        // Whoever has other keys is told by what follows.
        Err(EngineError::Refused { what }) if !what.contains(CANT_SET_UP) => Ok(false),
        Err(error) => Err(error),
    }
}

const CANT_SET_UP: &str = "can't set up what its storage has";

/// Gives the shares to a server that is sealed. It must be `wanted` of them.
pub(super) fn open(server: &VaultServer, shares: &[Share]) -> Result<(), EngineError> {
    // What somebody has begun counts to nobody's good.
    let reset = || server.ask("POST", "sys/unseal", Some(&json!({ "reset": true })));
    reset()?;
    for share in shares {
        let mut body = json!({ "key": shares::encode(share).as_str() });
        let answer = server.ask("POST", "sys/unseal", Some(&body));
        wipe(&mut body);
        let answer = answer?;
        if answer.status() >= 500 {
            return Err(not_set_up(&answer.errors().join("; ")));
        }
        if answer.status() != 200 {
            reset()?;
            return Err(EngineError::Refused {
                what: format!(
                    "Vault does not take the unseal keys that `vault.unseal` names ({}): they are of another Vault, or of \
                     before its keys were changed. It is sealed; unseal it with the right ones (`vault operator unseal`)",
                    answer.errors().join("; ")
                ),
            });
        }
        if !answer.json::<Progress>("sys/unseal")?.sealed {
            return Ok(());
        }
    }
    reset()?;
    Err(EngineError::Refused {
        what: format!(
            "{} unseal keys were given, and Vault is still sealed: it wants more; unseal it (`vault operator unseal`)",
            shares.len()
        ),
    })
}

/// A request's JSON held a share.
fn wipe(body: &mut serde_json::Value) {
    if let Some(serde_json::Value::String(text)) = body.get_mut("key") {
        zeroize::Zeroize::zeroize(text);
    }
}

/// Waits until it serves requests itself. `says` gives what its log says of why it can't, once it does.
pub(super) fn active(
    server: &VaultServer,
    work: &Work<'_>,
    says: impl Fn() -> Option<String>,
) -> Result<(), EngineError> {
    let since = Instant::now();
    let mut looks = 0_u32;
    let why = until("Vault to be active", work, || {
        if server.ask("GET", "sys/health", None)?.status() == 200 {
            return Ok(Some(None));
        }
        looks += 1;
        // Not asked at each look: it is a longer answer.
        let asked = since.elapsed() > PATIENT && looks.is_multiple_of(10);
        Ok(asked.then(&says).flatten().map(Some))
    })?;
    match why {
        None => Ok(()),
        Some(why) => Err(not_set_up(&why)),
    }
}

/// A single node that elects itself says nothing of this meanwhile.
const PATIENT: Duration = Duration::from_secs(2);

/// What a log has where a Vault that was unsealed can't be active.
pub(super) fn reason_in(log: &[String]) -> Option<String> {
    let errors = || log.iter().filter_map(|line| line.split_once("[ERROR]")).map(|(_, text)| text.trim());
    let is_over = |text: &&str| text.contains("post-unseal setup failed") || text.contains("failed to setup");
    let last = errors().rfind(is_over)?;
    // The line before it has the cause, where it is the audit device.
    let cause = errors().rfind(|text| text.contains("audit") && !is_over(text));
    Some(cause.map_or_else(|| last.to_owned(), |cause| format!("{last}; {cause}")))
}

fn not_set_up(why: &str) -> EngineError {
    EngineError::Refused {
        what: format!(
            "Vault took the unseal keys, and {CANT_SET_UP}: {why}; put that right (the folder that an audit \
             device writes to has to be there, and writable for the user that Vault runs as)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_log_tells_why_a_vault_that_was_unsealed_is_not_active() {
        let log = lines(
            "2026-01-01T00:00:00Z [INFO]  core: vault is unsealed\n\
             2026-01-01T00:00:01Z [ERROR] core: failed to create audit entry: path=file/ error=\"permission denied\"\n\
             2026-01-01T00:00:01Z [ERROR] core: post-unseal setup failed: error=\"failed to setup audit table\"",
        );
        let why = reason_in(&log).unwrap();
        assert!(why.starts_with("core: post-unseal setup failed"), "{why}");
        assert!(why.ends_with("error=\"permission denied\""), "{why}");
        let other = lines("x [ERROR] core: post-unseal setup failed: error=\"loading mounts\"");
        assert_eq!(reason_in(&other).unwrap(), "core: post-unseal setup failed: error=\"loading mounts\"");
        assert_eq!(reason_in(&lines("x [ERROR] expiration: failed to revoke\ny [INFO] core: audit")), None);
        assert_eq!(reason_in(&[]), None);
    }
}
