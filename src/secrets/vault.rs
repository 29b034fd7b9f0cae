//! Secrets that lie in Vault: one login for a command, made when the first secret is needed, renewed while it is, revoked
//! at the end. Values are read when a step needs them and wiped after.

mod connection;
mod error;
mod kv;
mod lifetime;
mod patience;
mod server;
mod stand_in;
mod token;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use vaultrs::api::AuthInfo;
use vaultrs::{auth, sys};
use zeroize::Zeroizing;

pub use error::VaultError;
pub use lifetime::Rotated;
pub use server::{SealStatus, VaultAnswer, VaultDownload, VaultServer, VaultUpload};
pub use stand_in::{VaultStandIn, Whereabouts};

use self::connection::Connection;
use self::patience::Patience;
use self::token::{Keeper, Token};
use super::resolve::Here;
use super::{Secret, SecretError, resolve, write_whole};
use crate::model::login::LoginState;
use crate::spec::file::{Approle, SecretId, SecretRef, Vault as Declared, VaultLogin};
use crate::spec::paths;

/// For how long an apply asks a Vault that does not answer: a container that is started again needs a few seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// The Vault of the file.
pub(super) struct Vault {
    declared: Declared,
    here: Here,
    home: Option<PathBuf>,
    session: Arc<Mutex<Option<Session>>>,
    /// Whether this command changes things: then a wrapped secret-id may be spent, and Vault is waited for.
    applies: AtomicBool,
    patience: Arc<Patience>,
    /// The secret-id out of its wrapping, which gives it once: a second login of the command needs it again.
    unwrapped: Mutex<Option<Secret>>,
    /// Why Vault refused the login. It is not tried again: after five refusals Vault locks the role out, for others too.
    turned_away: Mutex<Option<String>>,
    /// Asked in its place.
    stand_in: Option<VaultStandIn>,
}

/// A login, and the thread that keeps it good.
struct Session {
    connection: Connection,
    token: Token,
    /// The role of the AppRole method that it belongs to.
    role: Option<String>,
    /// Ends with the session.
    _keeper: Option<Keeper>,
}

impl Vault {
    pub fn new(declared: &Declared, here: &Here, home: Option<&Path>) -> Self {
        Self {
            declared: declared.clone(),
            here: here.clone(),
            home: home.map(Path::to_owned),
            session: Arc::default(),
            applies: AtomicBool::new(false),
            patience: Arc::new(Patience::new(PATIENCE)),
            unwrapped: Mutex::default(),
            turned_away: Mutex::default(),
            stand_in: None,
        }
    }

    /// The same declaration, with another server in its place and a login of its own.
    pub fn instead(&self, stand_in: VaultStandIn) -> Self {
        let mut other = Self::new(&self.declared, &self.here, self.home.as_deref());
        other.stand_in = Some(stand_in);
        other
    }

    pub fn has_stand_in(&self) -> bool {
        self.stand_in.is_some()
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
        let session = held(&self.session).take();
        session.map_or(Ok(()), Session::close)
    }

    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The server itself, asked with this token, or with none.
    pub fn server(&self, token: Option<&Secret>) -> Result<VaultServer, VaultError> {
        let mut connection = self.open(Arc::new(Patience::new(Duration::ZERO)))?;
        if let Some(token) = token {
            connection.set_token(token.expose())?;
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

    /// For how long the login is good, told to a command that has logged in: it is not worth a login of its own.
    pub fn login_state(&self) -> Option<Result<LoginState, SecretError>> {
        let held = held(&self.session);
        let session = held.as_ref()?;
        match &self.declared.login {
            VaultLogin::Token(_) => Some(lifetime::of_token(&session.connection).map_err(SecretError::from)),
            // What was wrapped is not on this machine any more.
            VaultLogin::Approle(approle) if approle.secret_id.wrapped => None,
            VaultLogin::Approle(approle) => {
                let role = session.role.as_deref()?;
                let look = |secret_id| lifetime::of_secret_id(&session.connection, approle.mount(), role, &secret_id);
                let secret_id = self.here.local(&approle.secret_id.reference());
                Some(secret_id.and_then(|secret_id| Ok(look(secret_id)?)))
            }
        }
    }

    /// Puts a new secret-id of `role` in the place of the old one, and destroys that last: wherever it breaks off, the file
    /// holds one that is good.
    pub fn rotate(&self, mount: &str, role: &str) -> Result<Rotated, SecretError> {
        let VaultLogin::Approle(Approle { secret_id: SecretId { file: Some(file), .. }, .. }) = &self.declared.login
        else {
            return Err(SecretError::Nowhere);
        };
        let reference = SecretRef { file: Some(file.clone()), ..SecretRef::default() };
        let old = self.here.local(&reference)?;
        let new = self.with(|connection| lifetime::issue(connection, mount, role))?;
        let path = resolve::place(file, &self.here.base)?;
        let content = Zeroizing::new(format!("{}\n", new.expose()).into_bytes());
        if let Err(source) = write_whole(&path, &content, None) {
            // It lies nowhere, so nobody can use it; it is not left alive either.
            drop(self.with(|connection| lifetime::destroy(connection, mount, role, &new)));
            return Err(SecretError::Unwritable { path, source });
        }
        let destroyed = self.with(|connection| Ok(lifetime::destroy(connection, mount, role, &old)))?;
        Ok(Rotated { file: file.clone(), old_stays: destroyed.err() })
    }

    /// The storage of Vault was replaced: what is left of a login of before is nothing that could be revoked.
    pub fn forget(&self) {
        // Dropped with the lock given back: what keeps its token good may be waiting for it.
        let session = held(&self.session).take();
        drop(session);
    }

    /// Asks with a token that is good for a while yet. One that somebody has revoked meanwhile is replaced once.
    fn with<T>(&self, ask: impl Fn(&Connection) -> Result<T, VaultError>) -> Result<T, SecretError> {
        let mut held = held(&self.session);
        let mut session = held.take().and_then(Session::renewed);
        for last in [false, true] {
            let current = match session.take() {
                Some(current) => current,
                None => self.log_in()?,
            };
            match ask(&current.connection) {
                Err(VaultError::TokenGone) if !last && current.token.is_own() => {}
                done => {
                    *held = Some(current);
                    return Ok(done?);
                }
            }
        }
        Err(VaultError::TokenGone.into())
    }

    fn open(&self, patience: Arc<Patience>) -> Result<Connection, VaultError> {
        let ca =
            self.declared.ca.as_ref().map(|ca| self.place(&paths::resolve(&self.here.base, self.home.as_deref(), ca)));
        Connection::open(&self.declared, ca.as_deref(), patience, self.stand_in.as_ref())
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.stand_in.as_ref().map_or_else(|| path.to_owned(), |stand_in| stand_in.file(path))
    }

    /// A secret of the login, which does not lie in Vault itself.
    fn local(&self, reference: &SecretRef) -> Result<Secret, SecretError> {
        let Some(file) = &reference.file else { return self.here.local(reference) };
        let file = self.place(&resolve::place(file, &self.here.base)?);
        self.here.local(&SecretRef { file: Some(file), ..reference.clone() })
    }

    fn log_in(&self) -> Result<Session, SecretError> {
        let applies = self.applies.load(Ordering::Relaxed);
        let patience = if applies { Arc::clone(&self.patience) } else { Arc::new(Patience::new(Duration::ZERO)) };
        let mut connection = self.open(patience)?;
        let mut role = None;
        let token = match &self.declared.login {
            VaultLogin::Token(reference) => {
                let given = self.local(reference)?;
                connection.set_token(given.expose())?;
                connection
                    .wait("looking at the token", || vaultrs::token::lookup_self(&connection.client))
                    .map_err(refused(|why| VaultError::Token { why }))?;
                Token::Given
            }
            VaultLogin::Approle(approle) => {
                let auth = self.log_in_by(approle, &mut connection, applies)?;
                connection.set_token(&auth.client_token)?;
                role = auth.metadata.as_ref().and_then(|known| known.get("role_name")).cloned();
                Token::own(&auth)
            }
        };
        let keeper = Keeper::of(&token, &self.session);
        Ok(Session { connection, token, role, _keeper: keeper })
    }

    fn log_in_by(
        &self,
        approle: &Approle,
        connection: &mut Connection,
        applies: bool,
    ) -> Result<AuthInfo, SecretError> {
        let mount = approle.mount();
        let refusal = |why| VaultError::Login { mount: mount.to_owned(), why };
        let mut turned_away = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = turned_away.clone() {
            return Err(refusal(why).into());
        }
        let role_id = self.local(&approle.role_id)?;
        let secret_id = match approle.secret_id.wrapped {
            true => self.unwrapped(approle, connection, applies)?,
            false => self.local(&approle.secret_id.reference())?,
        };
        let log_in = || auth::approle::login(&connection.client, mount, role_id.expose(), secret_id.expose());
        connection.wait("logging in", log_in).map_err(|error| {
            let error = refused(refusal)(error);
            if let VaultError::Login { why, .. } = &error {
                *turned_away = Some(why.clone());
            }
            error.into()
        })
    }

    fn unwrapped(&self, approle: &Approle, connection: &mut Connection, applies: bool) -> Result<Secret, SecretError> {
        let mut kept = self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret_id) = kept.as_ref() {
            return Ok(secret_id.clone());
        }
        if !applies {
            return Err(VaultError::NotSpent.into());
        }
        let wrapping = self.local(&approle.secret_id.reference())?;
        Ok(kept.insert(unwrap(connection, &wrapping)?).clone())
    }
}

fn held(session: &Mutex<Option<Session>>) -> MutexGuard<'_, Option<Session>> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Vault {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!("the token of this run is still good in Vault: {}", crate::model::chain(&error));
        }
    }
}

impl Session {
    /// Itself with a token that is good for a while, or none when there is no more to be had from it.
    fn renewed(mut self) -> Option<Self> {
        if self.token.runs_out() {
            // What hinders it shows in the next question.
            drop(self.token.renew(&self.connection));
        }
        if !self.token.runs_out() {
            return Some(self);
        }
        // An expired one cannot be revoked, and need not be.
        drop(self.close());
        None
    }

    fn close(self) -> Result<(), VaultError> {
        self.token.revoke(&self.connection)
    }
}

#[derive(Deserialize)]
struct Wrapped {
    secret_id: String,
}

/// The secret-id behind a wrapping token, which is spent by it. Who has no token yet asks as the wrapping token itself.
fn unwrap(connection: &mut Connection, wrapping: &Secret) -> Result<Secret, VaultError> {
    connection.set_token(wrapping.expose())?;
    let unwrap = || sys::wrapping::unwrap::<Wrapped>(&connection.client, None);
    let unwrapped =
        connection.wait("unwrapping the secret-id", unwrap).map_err(refused(|why| VaultError::Unwrap { why }))?;
    connection.set_token("")?;
    Ok(Secret::new(unwrapped.secret_id))
}

/// Puts a refusal into other words; whatever else went wrong stays what it is.
fn refused(as_error: impl FnOnce(String) -> VaultError) -> impl FnOnce(VaultError) -> VaultError {
    move |error| match error {
        VaultError::Answer { status: 400 | 403, errors, .. } => as_error(errors.join("; ")),
        other => other,
    }
}
