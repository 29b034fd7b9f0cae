//! The token of a login: how long it is good, and what keeps it so.

use std::convert::Infallible;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use vaultrs::api::AuthInfo;
use vaultrs::token;

use super::connection::Connection;
use super::{Session, VaultError, held};

pub(super) enum Token {
    /// Made by devstack's own login. `lifetime` is what the login gave.
    Own { renewable: bool, until: Option<Instant>, lifetime: Duration },
    /// Given by the file: used as it is, and left alone.
    Given,
}

impl Token {
    pub fn own(auth: &AuthInfo) -> Self {
        let lifetime = Duration::from_secs(auth.lease_duration);
        // Vault says 0 of a token that does not expire.
        let until = (!lifetime.is_zero()).then(|| Instant::now() + lifetime);
        Self::Own { renewable: auth.renewable, until, lifetime }
    }

    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own { .. })
    }

    /// Less than a third of its time is left.
    pub fn runs_out(&self) -> bool {
        self.time_left().is_some_and(|left| left.is_zero())
    }

    /// Until less than a third of its time is left; none for one that does not expire.
    fn time_left(&self) -> Option<Duration> {
        match self {
            Self::Own { until: Some(until), lifetime, .. } => {
                Some(until.saturating_duration_since(Instant::now()).saturating_sub(*lifetime / 3))
            }
            Self::Own { until: None, .. } | Self::Given => None,
        }
    }

    /// Asks for as much time as the login gave. One that has reached its largest age gets the rest of it only, and is not
    /// asked for again.
    pub fn renew(&mut self, connection: &Connection) -> Result<(), VaultError> {
        let Self::Own { renewable: renewable @ true, until: until @ Some(_), lifetime } = self else { return Ok(()) };
        let auth = connection.wait("renewing the token", || token::renew_self(&connection.client, None))?;
        let gained = Duration::from_secs(auth.lease_duration);
        *until = Some(Instant::now() + gained);
        *renewable = auth.renewable && gained > *lifetime / 3;
        Ok(())
    }

    pub fn revoke(&self, connection: &Connection) -> Result<(), VaultError> {
        match self {
            Self::Given => Ok(()),
            Self::Own { .. } => connection.wait("revoking the token", || token::revoke_self(&connection.client)),
        }
    }
}

/// Renews the token while nothing is asked: a dump may take longer than the token lives, and a secret-id may be good for
/// one login only. Ends with its session.
pub(super) struct Keeper {
    _alive: mpsc::Sender<Infallible>,
}

impl Keeper {
    /// For a token that can be renewed. The session that holds it is found in `session` when its time has come.
    pub fn of(token: &Token, session: &Arc<Mutex<Option<Session>>>) -> Option<Self> {
        let Token::Own { renewable: true, .. } = token else { return None };
        let first = token.time_left()?;
        let (alive, ended) = mpsc::channel();
        let session = Arc::downgrade(session);
        // Without a thread the token is renewed by the next question that finds it running out.
        thread::Builder::new().name("vault token".to_owned()).spawn(move || keep(&session, &ended, first)).ok()?;
        Some(Self { _alive: alive })
    }
}

fn keep(session: &Weak<Mutex<Option<Session>>>, ended: &Receiver<Infallible>, first: Duration) {
    let mut pause = Some(first);
    while let Some(time) = pause {
        match ended.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(session) = session.upgrade() else { return };
        pause = held(&session).as_mut().and_then(renewed);
    }
}

/// Renews, and says when to do so again, if ever.
fn renewed(session: &mut Session) -> Option<Duration> {
    if session.token.runs_out() {
        // Whoever asks next is told what hinders it.
        drop(session.token.renew(&session.connection));
    }
    match &session.token {
        // One that could not be renewed is tried again for as long as there is something left of it.
        Token::Own { renewable: true, until: Some(until), lifetime } => {
            (*until > Instant::now()).then(|| session.token.time_left().unwrap_or_default().max(*lifetime / 12))
        }
        Token::Own { .. } | Token::Given => None,
    }
}
