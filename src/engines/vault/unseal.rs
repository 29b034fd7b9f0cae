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

/// Waits until it serves requests itself.
pub(super) fn active(server: &VaultServer, work: &Work<'_>) -> Result<(), EngineError> {
    until("Vault to be active", work, || {
        Ok(server.ask("GET", "sys/health", None)?).map(|answer| (answer.status() == 200).then_some(()))
    })
}
