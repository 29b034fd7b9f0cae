//! Folders of a container as a tar stream, out and in. Works on containers that do not run, volumes included.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::{Docker, RuntimeError};
use crate::model::observation::ContainerState;

/// Pieces that may wait for a slow side.
const WAITING: usize = 8;
const GATHERED: usize = 256 * 1024;

impl Docker {
    /// A path of the container as a tar stream whose entries begin with the path's last name.
    ///
    /// The engine leaves out what it can't read and says nothing: compare what comes with what was expected.
    pub fn download(self: &Arc<Self>, container: &ContainerState, path: &str) -> Result<Download, RuntimeError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let doing = format!("reading {path} of the container {}", container.name);
        // Asked first: the stream itself says of a missing path only that it ended.
        let (client, id) = (self.client.clone(), container.id.as_str().to_owned());
        let (sender, pieces) = mpsc::channel(WAITING);
        self.spawn(async move {
            let mut stream = client.download_from_container(&id, Some(options));
            while let Some(piece) = stream.next().await {
                let failed = piece.is_err();
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Download { docker: self.clone(), doing, pieces, current: Bytes::new() })
    }

    /// Unpacks a tar stream below a folder of the container. Owners, modes and times are those of the stream.
    pub fn upload(self: &Arc<Self>, container: &ContainerState, path: &str) -> Upload {
        let options = UploadToContainerOptionsBuilder::default().path(path).no_overwrite_dir_non_dir("true").build();
        let (client, id) = (self.patient.clone(), container.id.as_str().to_owned());
        let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(WAITING);
        let (ended, end) = oneshot::channel();
        self.spawn(async move {
            let body = futures_util::stream::unfold(pieces, |mut pieces| async {
                pieces.recv().await.map(|piece| (piece, pieces))
            });
            let _ = ended.send(client.upload_to_container(&id, Some(options), bollard::body_try_stream(body)).await);
        });
        let doing = format!("writing {path} of the container {}", container.name);
        Upload { docker: self.clone(), doing, sender: Some(sender), end, gathered: BytesMut::new(), whole: false }
    }
}

/// A tar stream out of a container.
pub struct Download {
    docker: Arc<Docker>,
    doing: String,
    pieces: mpsc::Receiver<Result<Bytes, bollard::errors::Error>>,
    current: Bytes,
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.docker.wait(self.pieces.recv()) {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(source)) => {
                    return Err(io::Error::other(RuntimeError::Docker { doing: self.doing.clone(), source }));
                }
                // Whether the archive is whole is for its reader to tell: a tar stream has an end of its own.
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// A tar stream into a container. Dropped before [`Upload::finish`], the engine sees a connection that was cut.
pub struct Upload {
    docker: Arc<Docker>,
    doing: String,
    sender: Option<mpsc::Sender<io::Result<Bytes>>>,
    end: oneshot::Receiver<Result<(), bollard::errors::Error>>,
    gathered: BytesMut,
    whole: bool,
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// # Errors
    /// A broken pipe where the engine has refused; [`Upload::finish`] then says why.
    fn flush(&mut self) -> io::Result<()> {
        let piece = self.gathered.split().freeze();
        match &self.sender {
            Some(sender) if !piece.is_empty() => {
                self.docker.wait(sender.send(Ok(piece))).map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Upload {
    /// Ends the stream and waits until the engine has unpacked it.
    pub fn finish(mut self) -> Result<(), RuntimeError> {
        let _ = self.flush();
        self.whole = true;
        self.sender = None;
        let end = self.docker.clone().wait(&mut self.end);
        match end {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(RuntimeError::Docker { doing: self.doing.clone(), source }),
            Err(_) => {
                Err(RuntimeError::Io { doing: self.doing.clone(), source: io::Error::other("the connection was lost") })
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (false, Some(sender)) = (self.whole, &self.sender) {
            let cut = io::Error::other("the stream was not finished");
            let _ = self.docker.wait(sender.send(Err(cut)));
        }
    }
}
