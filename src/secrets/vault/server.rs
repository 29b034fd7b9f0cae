//! The server itself, for whoever looks after it and does not only read secrets from it: its state, its storage, what is
//! set up in it. Nothing here waits or tries again: whoever asks knows what to wait for.

use std::future::Future;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Body, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::connection::{Answer, Connection};
use super::{VaultError, kv};

/// A question is answered within this, or the server hangs.
const ANSWER: Duration = Duration::from_secs(15);

/// A stream may take as long as the longest run.
const STREAM: Duration = Duration::from_secs(24 * 3600);

/// Pieces of an upload that may wait for the server.
const WAITING: usize = 8;
const GATHERED: usize = 256 * 1024;

/// A way to the server, with a token or without.
#[derive(Clone)]
pub struct VaultServer {
    connection: Arc<Connection>,
}

/// What `sys/seal-status` says, which anybody may ask.
#[derive(Debug, Clone, Deserialize)]
pub struct SealStatus {
    /// `shamir`, or what unseals it by itself.
    #[serde(rename = "type")]
    pub kind: String,
    pub initialized: bool,
    pub sealed: bool,
    /// How many shares open it.
    pub t: u32,
    /// How many there are.
    pub n: u32,
    pub version: String,
    #[serde(default)]
    pub storage_type: Option<String>,
    /// Known while it is unsealed.
    #[serde(default)]
    pub cluster_id: Option<String>,
    #[serde(default)]
    pub cluster_name: Option<String>,
}

impl SealStatus {
    /// Opened by shares that somebody holds, and not by itself.
    pub fn by_shares(&self) -> bool {
        self.kind == "shamir"
    }
}

impl VaultServer {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Arc::new(connection) }
    }

    /// The address, as the file has it.
    pub fn address(&self) -> &str {
        self.connection.address()
    }

    pub fn seal_status(&self) -> Result<SealStatus, VaultError> {
        self.understood("sys/seal-status", &self.ask("GET", "sys/seal-status", None)?)
    }

    /// One question, whatever the answer's status is below 500.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<VaultAnswer, VaultError> {
        let mut request = self.request(method, path)?;
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = self.wait(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok(Answer { status, body: Zeroizing::new(response.bytes().await?.into()) })
        })?;
        match answer.status {
            500.. => Err(self.connection.answered(&format!("{path} of Vault"), answer.status, answer.errors())),
            _ => Ok(VaultAnswer(answer)),
        }
    }

    /// What lies at a path. A right that is missing is named with the path and the capability.
    pub fn read(&self, path: &str) -> Result<Value, VaultError> {
        let answer = self.ask("GET", path, None)?;
        match answer.status() {
            403 => Err(self.denied(path, "read")),
            _ => self.understood(path, &answer),
        }
    }

    /// The names below a path; none where nothing is there.
    pub fn list(&self, path: &str) -> Result<Vec<String>, VaultError> {
        Ok(self.listed(path)?.map(|keys| keys.keys).unwrap_or_default())
    }

    /// The names below a path with what the list itself says of each.
    pub fn list_with_info(&self, path: &str) -> Result<(Vec<String>, Value), VaultError> {
        Ok(self.listed(path)?.map(|keys| (keys.keys, keys.key_info)).unwrap_or_default())
    }

    fn listed(&self, path: &str) -> Result<Option<Keys>, VaultError> {
        let answer = self.ask("LIST", path, None)?;
        match answer.status() {
            403 => Err(self.denied(path, "list")),
            404 => Ok(None),
            _ => self.understood::<Told<Keys>>(path, &answer).map(|told| Some(told.data)),
        }
    }

    pub fn write(&self, path: &str, body: &Value) -> Result<VaultAnswer, VaultError> {
        let answer = self.ask("POST", path, Some(body))?;
        match answer.status() {
            403 => Err(self.denied(path, "update")),
            200..300 => Ok(answer),
            status => Err(self.connection.answered(&format!("writing {path}"), status, answer.errors())),
        }
    }

    /// Why a path is denied.
    pub fn denied(&self, path: &str, capability: &'static str) -> VaultError {
        kv::denied(&self.connection, path, capability)
    }

    /// A path whose answer is a stream. Cut on the way, the stream ends with an error.
    pub fn download(&self, path: &str) -> Result<VaultDownload, VaultError> {
        let request = self.request("GET", path)?.timeout(STREAM);
        // Inside, since it takes the runtime's clock where it is made.
        let response = self.wait(async { request.send().await })?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(VaultDownload { connection: Arc::clone(&self.connection), response, current: Bytes::new() });
        }
        let body = self.wait(response.bytes())?;
        match status {
            403 => Err(self.denied(path, "read")),
            _ => {
                let answer = Answer { status, body: Zeroizing::new(body.into()) };
                Err(self.connection.answered(&format!("reading {path}"), status, answer.errors()))
            }
        }
    }

    /// Begins to write `size` bytes to a path.
    pub fn upload(&self, path: &str, size: u64) -> Result<VaultUpload, VaultError> {
        let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(WAITING);
        let body = futures_util::stream::unfold(pieces, |mut pieces| async {
            pieces.recv().await.map(|piece| (piece, pieces))
        });
        let request =
            self.request("POST", path)?.timeout(STREAM).header("Content-Length", size).body(Body::wrap_stream(body));
        let server = self.clone();
        let end = std::thread::Builder::new()
            .name("vault upload".to_owned())
            .spawn(move || {
                server.wait(async {
                    let response = request.send().await?;
                    let status = response.status().as_u16();
                    Ok(VaultAnswer(Answer { status, body: Zeroizing::new(response.bytes().await?.into()) }))
                })
            })
            .map_err(|source| VaultError::Thread { source })?;
        Ok(VaultUpload { sender: Some(sender), gathered: BytesMut::new(), end: Some(end), whole: false })
    }

    fn request(&self, method: &str, path: &str) -> Result<RequestBuilder, VaultError> {
        let settings = &self.connection.client.settings;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| VaultError::Unreadable {
            doing: format!("asking {path}"),
            why: "no such method".to_owned(),
        })?;
        let mut url = settings.address.clone();
        url.path_segments_mut()
            .map_err(|()| VaultError::Address { address: self.address().to_owned() })?
            .pop_if_empty()
            .push("v1")
            .extend(path.split('/'));
        let mut request = self.connection.client.http.http.request(method, url).timeout(ANSWER);
        if !settings.token.is_empty() {
            let mut token = reqwest::header::HeaderValue::from_str(&settings.token)
                .map_err(|_| VaultError::Token { why: "it holds characters that no token has".to_owned() })?;
            token.set_sensitive(true);
            request = request.header("X-Vault-Token", token);
        }
        if let Some(namespace) = &settings.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        Ok(request)
    }

    fn wait<T>(&self, asked: impl Future<Output = Result<T, reqwest::Error>>) -> Result<T, VaultError> {
        self.connection.runtime.block_on(asked).map_err(|error| self.connection.unreachable(error))
    }

    fn understood<T: for<'a> Deserialize<'a>>(&self, path: &str, answer: &VaultAnswer) -> Result<T, VaultError> {
        match answer.status() {
            200..300 => kv::understood(&answer.0, path),
            status => Err(self.connection.answered(&format!("reading {path}"), status, answer.errors())),
        }
    }
}

#[derive(Deserialize)]
struct Told<T> {
    data: T,
}

#[derive(Deserialize, Default)]
struct Keys {
    keys: Vec<String>,
    #[serde(default)]
    key_info: Value,
}

/// An answer. It may hold a secret, and has no way to be shown.
pub struct VaultAnswer(Answer);

impl VaultAnswer {
    pub fn status(&self) -> u16 {
        self.0.status
    }

    pub fn errors(&self) -> Vec<String> {
        self.0.errors()
    }

    /// Its JSON, read into what is wanted of it.
    pub fn json<T: for<'a> Deserialize<'a>>(&self, doing: &str) -> Result<T, VaultError> {
        kv::understood(&self.0, doing)
    }
}

/// A stream out of Vault.
pub struct VaultDownload {
    connection: Arc<Connection>,
    response: Response,
    current: Bytes,
}

impl Read for VaultDownload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !buffer.is_empty() {
            match self.connection.runtime.block_on(self.response.chunk()) {
                Ok(Some(piece)) => self.current = piece,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(self.connection.unreachable(error))),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// A stream into Vault. Dropped before [`VaultUpload::finish`], the server sees a request that was cut.
pub struct VaultUpload {
    sender: Option<mpsc::Sender<io::Result<Bytes>>>,
    gathered: BytesMut,
    /// None once its answer was taken.
    end: Option<JoinHandle<Result<VaultAnswer, VaultError>>>,
    whole: bool,
}

impl Write for VaultUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// # Errors
    /// A broken pipe where the server has answered already; [`VaultUpload::finish`] then says what.
    fn flush(&mut self) -> io::Result<()> {
        let piece = self.gathered.split().freeze();
        match &self.sender {
            Some(sender) if !piece.is_empty() => {
                sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl VaultUpload {
    /// Ends the stream and waits for the answer.
    pub fn finish(mut self) -> Result<VaultAnswer, VaultError> {
        // Where the server has stopped reading, its answer says why.
        let _ = self.flush();
        self.whole = true;
        self.sender = None;
        match self.end.take().map(JoinHandle::join) {
            Some(Ok(answer)) => answer,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(VaultError::Unreadable { doing: "the upload".to_owned(), why: "it is over".to_owned() }),
        }
    }
}

impl Drop for VaultUpload {
    fn drop(&mut self) {
        if let (false, Some(sender)) = (self.whole, &self.sender) {
            let _ = sender.blocking_send(Err(io::Error::other("the stream was not finished")));
        }
    }
}
