//! Requests to Vault, one at a time and blocking, its refusals put into words.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;
use vaultrs::client::{Client, VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use zeroize::Zeroizing;

use super::VaultError;
use crate::model::chain;
use crate::model::outcome::FailureKind;
use crate::spec::file::Vault;
use crate::spec::paths;

/// An answer comes within this, or the server hangs.
const ANSWER: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// A server, and the token that requests carry.
pub(super) struct Connection {
    pub runtime: tokio::runtime::Runtime,
    pub client: VaultClient,
    address: String,
    /// For how long a server that does not answer is asked again.
    patience: Duration,
}

/// What Vault answered to a plain request.
pub(super) struct Answer {
    pub status: u16,
    /// May hold a secret.
    pub body: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl Answer {
    pub fn errors(&self) -> Vec<String> {
        serde_json::from_slice(&self.body).map(|body: Errors| body.errors).unwrap_or_default()
    }

    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Connection {
    pub fn open(
        declared: &Vault,
        base: &Path,
        home: Option<&Path>,
        patience: Duration,
    ) -> Result<Self, VaultError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| VaultError::Thread { source })?;
        let address = declared.address.trim_end_matches('/').to_owned();
        let wrong = || VaultError::Address { address: address.clone() };
        if !(address.starts_with("http://") || address.starts_with("https://")) || reqwest::Url::parse(&address).is_err() {
            return Err(wrong());
        }
        let ca = declared.ca.as_ref().map(|ca| paths::resolve(base, home, ca));
        // Everything is given, so that no variable of the environment (VAULT_TOKEN, VAULT_SKIP_VERIFY) has a say.
        let settings = VaultClientSettingsBuilder::default()
            .address(&address)
            .ca_certs(ca.iter().map(|path| path.to_string_lossy().into_owned()).collect())
            .identity(None)
            .timeout(Some(ANSWER))
            .token("")
            .verify(true)
            .namespace(declared.namespace.clone())
            .build()
            .map_err(|_| wrong())?;
        let client = VaultClient::new(settings).map_err(|source| match ca {
            Some(path) => VaultError::Authority { path, source: Box::new(source) },
            None => VaultError::Unreachable { address: address.clone(), source: Box::new(source) },
        })?;
        Ok(Self { runtime, client, address, patience })
    }


    /// What `ask` comes to. A server that does not answer is asked again for a while.
    pub fn wait<T, F>(&self, doing: &str, ask: impl Fn() -> F) -> Result<T, VaultError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.patiently(|| self.runtime.block_on(ask()).map_err(|error| self.failed(doing, error)))
    }

    /// A request to a path below `/v1/`.
    pub fn get(&self, path: &str) -> Result<Answer, VaultError> {
        self.request(path, |http, url| http.get(url))
    }

    pub fn post(&self, path: &str, body: &serde_json::Value) -> Result<Answer, VaultError> {
        self.request(path, |http, url| http.post(url).json(body))
    }

    fn request(
        &self,
        path: &str,
        method: impl Fn(&reqwest::Client, reqwest::Url) -> reqwest::RequestBuilder,
    ) -> Result<Answer, VaultError> {
        let settings = &self.client.settings;
        let mut url = settings.address.clone();
        url.path_segments_mut()
            .map_err(|()| VaultError::Address { address: self.address.clone() })?
            .pop_if_empty()
            .push("v1")
            .extend(path.split('/'));
        let mut token = reqwest::header::HeaderValue::from_str(&settings.token)
            .map_err(|_| VaultError::Token { why: "it holds characters that no token has".to_owned() })?;
        token.set_sensitive(true);
        let asked = || {
            let mut request = method(&self.client.http.http, url.clone()).header("X-Vault-Token", token.clone());
            if let Some(namespace) = &settings.namespace {
                request = request.header("X-Vault-Namespace", namespace);
            }
            self.runtime.block_on(async {
                let response = request.send().await?;
                let status = response.status().as_u16();
                Ok(Answer { status, body: Zeroizing::new(response.bytes().await?.into()) })
            })
        };
        self.patiently(|| {
            let answer: Answer = asked().map_err(|error: reqwest::Error| self.unreachable(error))?;
            match answer.status {
                500.. => Err(self.answered(&format!("{path} of Vault"), answer.status, answer.errors())),
                _ => Ok(answer),
            }
        })
    }

    fn patiently<T>(&self, ask: impl Fn() -> Result<T, VaultError>) -> Result<T, VaultError> {
        let since = Instant::now();
        loop {
            match ask() {
                Err(error) if may_pass(&error) && since.elapsed() < self.patience => sleep(BETWEEN_TRIES),
                done => return done,
            }
        }
    }

    fn failed(&self, doing: &str, error: ClientError) -> VaultError {
        match error {
            ClientError::APIError { code, errors } => self.answered(doing, code, errors),
            ClientError::RestClientError { source } => self.unreachable(source),
            other => VaultError::Unreadable { doing: doing.to_owned(), why: chain(&other) },
        }
    }

    pub fn answered(&self, doing: &str, status: u16, errors: Vec<String>) -> VaultError {
        let says = |text: &str| errors.iter().any(|error| error.contains(text));
        let address = self.address.clone();
        match status {
            503 if says("not initialized") => VaultError::Uninitialised { address },
            503 if says("sealed") => VaultError::Sealed { address },
            _ => VaultError::Answer { doing: doing.to_owned(), status, errors },
        }
    }

    pub fn unreachable(&self, error: impl Error + Send + Sync + 'static) -> VaultError {
        let (address, text) = (self.address.clone(), chain(&error));
        match text.contains("certificate") {
            true => VaultError::Untrusted { address, source: Box::new(error) },
            false => VaultError::Unreachable { address, source: Box::new(error) },
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn set_token(&mut self, token: &str) {
        self.client.set_token(token);
    }
}

/// One that has just been started is sealed until somebody, or its auto-unseal, has opened it.
fn may_pass(error: &VaultError) -> bool {
    error.kind() == FailureKind::Transient || matches!(error, VaultError::Sealed { .. })
}
