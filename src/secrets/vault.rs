//! Secrets that lie in Vault: one login for a command, made when the first secret is needed, renewed while it is, revoked
//! at the end. Values are read when a step needs them and wiped after.

mod connection;
mod error;
mod kv;
mod server;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use vaultrs::api::AuthInfo;
use vaultrs::{auth, sys, token};

pub use error::VaultError;
pub use server::{SealStatus, VaultAnswer, VaultDownload, VaultServer, VaultUpload};

use self::connection::Connection;
use super::{Secret, SecretError, resolve};
use crate::spec::file::{Approle, Vault as Declared, VaultLogin};

/// For how long an apply asks a Vault that does not answer: a container that is started again needs a few seconds.
const PATIENCE: Duration = Duration::from_secs(15);

const APPROLE: &str = "approle";

/// The Vault of the file.
pub(super) struct Vault {
    declared: Declared,
    base: PathBuf,
    home: Option<PathBuf>,
    session: Mutex<Option<Session>>,
    /// Whether this command changes things: then a wrapped secret-id may be spent, and Vault is waited for.
    applies: AtomicBool,
}

struct Session {
    connection: Connection,
    token: Token,
}

enum Token {
    /// Made by devstack's own login. `until` is when it expires if it does at all.
    Own { renewable: bool, until: Option<Instant>, lifetime: Duration },
    /// Given by the file: used as it is, and left alone.
    Given,
}

impl Token {
    fn own(auth: &AuthInfo) -> Self {
        let lifetime = Duration::from_secs(auth.lease_duration);
        // Vault says 0 of a token that does not expire.
        let until = (!lifetime.is_zero()).then(|| Instant::now() + lifetime);
        Self::Own { renewable: auth.renewable, until, lifetime }
    }

    /// Less than a third of its time is left.
    fn runs_out(&self) -> bool {
        match self {
            Self::Own { until: Some(until), lifetime, .. } => {
                until.saturating_duration_since(Instant::now()) < *lifetime / 3
            }
            Self::Own { until: None, .. } | Self::Given => false,
        }
    }
}

impl Vault {
    pub fn new(declared: &Declared, base: &Path, home: Option<&Path>) -> Self {
        Self {
            declared: declared.clone(),
            base: base.to_owned(),
            home: home.map(Path::to_owned),
            session: Mutex::default(),
            applies: AtomicBool::new(false),
        }
    }

    pub fn apply(&self) {
        self.applies.store(true, Ordering::Relaxed);
    }

    /// The value of `PATH#FIELD`.
    pub fn read(&self, reference: &str) -> Result<Secret, SecretError> {
        self.with(|connection| kv::read(connection, &kv::Address::of(reference)))
    }

    /// Gives back the token of devstack's own login. The next question logs in anew.
    pub fn close(&self) -> Result<(), VaultError> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        session.map_or(Ok(()), |session| session.close())
    }

    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The server itself, asked with this token, or with none.
    pub fn server(&self, token: Option<&Secret>) -> Result<VaultServer, VaultError> {
        let mut connection = Connection::open(&self.declared, &self.base, self.home.as_deref(), Duration::ZERO)?;
        if let Some(token) = token {
            connection.set_token(token.expose());
        }
        Ok(VaultServer::new(connection))
    }

    /// The token of the login, which is alive.
    pub fn token(&self) -> Result<Secret, SecretError> {
        self.with(|connection| {
            kv::must_be_alive(connection)?;
            Ok(Secret::new(connection.client.settings.token.clone()))
        })
    }

    /// The storage of Vault was replaced: what is left of a login of before is nothing that could be revoked.
    pub fn forget(&self) {
        drop(self.session.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Asks with a token that is good for a while yet. One that somebody has revoked meanwhile is replaced once.
    fn with<T>(&self, ask: impl Fn(&Connection) -> Result<T, VaultError>) -> Result<T, SecretError> {
        let mut held = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut session = match held.take() {
            Some(session) => session.renewed()?,
            None => None,
        };
        for last in [false, true] {
            let current = match session.take() {
                Some(current) => current,
                None => self.log_in()?,
            };
            match ask(&current.connection) {
                Err(VaultError::TokenGone) if !last && matches!(current.token, Token::Own { .. }) => {}
                done => {
                    *held = Some(current);
                    return Ok(done?);
                }
            }
        }
        Err(VaultError::TokenGone.into())
    }

    fn log_in(&self) -> Result<Session, SecretError> {
        let applies = self.applies.load(Ordering::Relaxed);
        let patience = if applies { PATIENCE } else { Duration::ZERO };
        let mut connection = Connection::open(&self.declared, &self.base, self.home.as_deref(), patience)?;
        let token = match &self.declared.login {
            VaultLogin::Token(reference) => {
                let given = resolve::local(reference, &self.base)?;
                connection.set_token(given.expose());
                connection.wait("looking at the token", || token::lookup_self(&connection.client)).map_err(refused(
                    |why| VaultError::Token { why },
                ))?;
                Token::Given
            }
            VaultLogin::Approle(approle) => {
                let auth = self.log_in_by(approle, &mut connection, applies)?;
                connection.set_token(&auth.client_token);
                Token::own(&auth)
            }
        };
        Ok(Session { connection, token })
    }

    fn log_in_by(
        &self,
        approle: &Approle,
        connection: &mut Connection,
        applies: bool,
    ) -> Result<AuthInfo, SecretError> {
        let role_id = resolve::local(&approle.role_id, &self.base)?;
        let mut secret_id = resolve::local(&approle.secret_id.reference(), &self.base)?;
        if approle.secret_id.wrapped {
            if !applies {
                return Err(VaultError::NotSpent.into());
            }
            secret_id = unwrapped(connection, &secret_id)?;
        }
        let mount = approle.mount.as_deref().unwrap_or(APPROLE);
        let log_in = || auth::approle::login(&connection.client, mount, role_id.expose(), secret_id.expose());
        Ok(connection
            .wait("logging in", log_in)
            .map_err(refused(|why| VaultError::Login { mount: mount.to_owned(), why }))?)
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!("the token of this run is still good in Vault: {}", crate::model::chain(&error));
        }
    }
}

impl Session {
    /// Itself with a renewed token, or none when there is no more to be had from it.
    fn renewed(mut self) -> Result<Option<Self>, VaultError> {
        if !self.token.runs_out() {
            return Ok(Some(self));
        }
        if let Token::Own { renewable: true, .. } = self.token {
            let renewed =
                self.connection.wait("renewing the token", || token::renew_self(&self.connection.client, None));
            // One that has reached its largest age is renewed for the rest of it only.
            if let Ok(auth) = renewed {
                self.token = Token::own(&auth);
                if !self.token.runs_out() {
                    return Ok(Some(self));
                }
            }
        }
        // An expired one cannot be revoked, and need not be.
        drop(self.close());
        Ok(None)
    }

    fn close(self) -> Result<(), VaultError> {
        match self.token {
            Token::Given => Ok(()),
            Token::Own { .. } => {
                self.connection.wait("revoking the token", || token::revoke_self(&self.connection.client))
            }
        }
    }
}

#[derive(Deserialize)]
struct Wrapped {
    secret_id: String,
}

/// The secret-id behind a wrapping token, which is spent by it. Who has no token yet asks as the wrapping token itself.
fn unwrapped(connection: &mut Connection, wrapping: &Secret) -> Result<Secret, VaultError> {
    connection.set_token(wrapping.expose());
    let unwrap = || sys::wrapping::unwrap::<Wrapped>(&connection.client, None);
    let unwrapped =
        connection.wait("unwrapping the secret-id", unwrap).map_err(refused(|why| VaultError::Unwrap { why }))?;
    connection.set_token("");
    Ok(Secret::new(unwrapped.secret_id))
}

/// Puts a refusal into other words; whatever else went wrong stays what it is.
fn refused(as_error: impl FnOnce(String) -> VaultError) -> impl FnOnce(VaultError) -> VaultError {
    move |error| match error {
        VaultError::Answer { status: 400 | 403, errors, .. } => as_error(errors.join("; ")),
        other => other,
    }
}
