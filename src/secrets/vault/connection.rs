//! Requests to Vault, one at a time and blocking, its refusals put into words.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use rustify::errors::ClientError as RestError;
use serde::Deserialize;
use vaultrs::client::{Client, VaultClient, VaultClientSettings, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use zeroize::Zeroizing;

use super::VaultError;
use super::patience::Patience;
use super::stand_in::{self, VaultStandIn};
use crate::model::chain;
use crate::spec::file::Vault;

/// A server, and the token that requests carry.
pub(super) struct Connection {
    pub runtime: tokio::runtime::Runtime,
    pub client: VaultClient,
    address: String,
    patience: Arc<Patience>,
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
    /// `ca` is where the authority of its certificate is now. A stand-in is asked in the place of the declared server.
    pub fn open(
        declared: &Vault,
        ca: Option<&Path>,
        patience: Arc<Patience>,
        stand_in: Option<&VaultStandIn>,
    ) -> Result<Self, VaultError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| VaultError::Thread { source })?;
        let address = declared.address.trim_end_matches('/').to_owned();
        let wrong = || VaultError::Address { address: address.clone() };
        if !(address.starts_with("http://") || address.starts_with("https://"))
            || reqwest::Url::parse(&address).is_err()
        {
            return Err(wrong());
        }
        if let Some(path) = ca {
            must_hold_a_certificate(path)?;
        }
        let door = stand_in.map(|stand_in| stand_in.door(&runtime)).transpose();
        let door = door.map_err(|source| VaultError::Thread { source })?;
        let asked = match door {
            None => address.clone(),
            Some(door) => stand_in::through(&address, door)
                .map(|url| url.as_str().trim_end_matches('/').to_owned())
                .ok_or_else(|| VaultError::NoStandIn { address: address.clone() })?,
        };
        // Everything is given, so that no variable of the environment (VAULT_TOKEN, VAULT_SKIP_VERIFY) has a say.
        let settings = VaultClientSettingsBuilder::default()
            .address(&asked)
            .ca_certs(ca.iter().map(|path| path.to_string_lossy().into_owned()).collect())
            .identity(None)
            .token("")
            .verify(true)
            .namespace(declared.namespace.clone())
            .build()
            .map_err(|_| wrong())?;
        // The first in the process decides; a later one is told so, and wants the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = VaultClient::new(settings).map_err(|source| match ca {
            Some(path) => VaultError::Authority { path: path.to_owned(), source: Box::new(source) },
            None => VaultError::Unreachable { address: address.clone(), source: Box::new(source) },
        })?;
        if let Some(door) = door {
            let unusable = |source| VaultError::Unreachable { address: address.clone(), source };
            client.http.http = confined(&client.settings, ca, door).map_err(unusable)?;
        }
        let address = if door.is_some() { format!("{address} (the drill's own)") } else { address };
        Ok(Self { runtime, client, address, patience })
    }

    /// What `ask` comes to. A server that does not answer is asked again for a while.
    pub fn wait<T, F>(&self, doing: &str, ask: impl Fn() -> F) -> Result<T, VaultError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.patience.ask(|| self.in_time(ask())?.map_err(|error| self.failed(doing, error)))
    }

    fn in_time<T>(&self, question: impl Future<Output = T>) -> Result<T, VaultError> {
        // A timer belongs to a runtime, so it is made within.
        let answer = async { tokio::time::timeout(self.patience.for_an_answer(), question).await };
        self.runtime.block_on(answer).map_err(|late| self.unreachable(late))
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
        let token = header(&settings.token)?;
        let asked = || {
            let mut request = method(&self.client.http.http, url.clone()).header("X-Vault-Token", token.clone());
            if let Some(namespace) = &settings.namespace {
                request = request.header("X-Vault-Namespace", namespace);
            }
            self.in_time(async {
                let response = request.send().await?;
                let status = response.status().as_u16();
                Ok(Answer { status, body: Zeroizing::new(response.bytes().await?.into()) })
            })
        };
        self.patience.ask(|| {
            let answer: Answer = asked()?.map_err(|error: reqwest::Error| self.unreachable(error))?;
            match answer.status {
                500.. => Err(self.answered(&format!("{path} of Vault"), answer.status, answer.errors())),
                _ => Ok(answer),
            }
        })
    }

    fn failed(&self, doing: &str, error: ClientError) -> VaultError {
        match error {
            ClientError::APIError { code, errors } => self.answered(doing, code, errors),
            ClientError::RestClientError { source } => match source {
                RestError::ServerResponseError { code: code @ 500.., .. } => self.answered(doing, code, Vec::new()),
                RestError::ServerResponseError { .. }
                | RestError::ResponseParseError { .. }
                | RestError::ResponseConversionError { .. } => self.not_vault(doing),
                source => self.unreachable(source),
            },
            other => VaultError::Unreadable { doing: doing.to_owned(), why: other.to_string() },
        }
    }

    /// Its own words are left out: they could quote what was sent.
    fn not_vault(&self, doing: &str) -> VaultError {
        VaultError::NotVault { address: self.address.clone(), doing: doing.to_owned() }
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

    pub fn set_token(&mut self, token: &str) -> Result<(), VaultError> {
        header(token)?;
        self.client.set_token(token);
        Ok(())
    }
}

/// A client that goes through the door and nowhere else: what is restored knows the address of the Vault that it is a copy
/// of, and a server that is not active yet sends whoever asks there.
fn confined(
    settings: &VaultClientSettings,
    ca: Option<&Path>,
    door: SocketAddr,
) -> Result<reqwest::Client, Box<dyn Error + Send + Sync>> {
    let mut client =
        reqwest::ClientBuilder::new().tls_backend_rustls().redirect(reqwest::redirect::Policy::none()).no_proxy();
    if let Some(host) = settings.address.host_str() {
        client = client.resolve(host, door);
    }
    client = match ca {
        // No system's certificates are read where none is looked at.
        _ if settings.address.scheme() == "http" => client.tls_certs_only(Vec::new()),
        Some(path) => client.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&std::fs::read(path)?)?),
        None => client,
    };
    Ok(client.build()?)
}

/// A file without one would be taken for a list of no authorities.
fn must_hold_a_certificate(path: &Path) -> Result<(), VaultError> {
    let unusable = |source: std::io::Error| VaultError::Authority { path: path.to_owned(), source: Box::new(source) };
    let text = std::fs::read(path).map_err(unusable)?;
    match String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(()),
        false => Err(unusable(std::io::Error::other("there is no certificate in it"))),
    }
}

fn header(token: &str) -> Result<HeaderValue, VaultError> {
    let mut value = HeaderValue::from_str(token)
        .map_err(|_| VaultError::Token { why: "it holds characters that no token has".to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}
