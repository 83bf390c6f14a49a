//! The daemon's side of the control socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio::time::timeout;

use super::{
    ANSWER_TIME, CLIENT_TIME, Call, MAX_CONNECTIONS, MAX_FOLLOWERS, MAX_REQUEST, Reply, Request,
    Response,
};
use crate::control::client;
use crate::events::Event;

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A daemon answers there.
    #[error("another daemon answers on {}", .0.display())]
    InUse(PathBuf),
    /// A file of another kind has that name.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("control socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Which file is ours, in case another took the name.
    inode: u64,
}

/// Makes the socket with mode 0600, and its directory (0755) if missing. The socket of a dead
/// daemon is replaced. To be called within a tokio runtime.
///
/// # Errors
///
/// A live daemon has it, the name is taken by something else, or the system refuses.
pub fn bind(path: &Path) -> Result<Listener, BindError> {
    refuse_if_taken(path)?;
    let io = |source| BindError::Io { path: path.to_owned(), source };
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(io)?;
    }
    // Made under another name, so that nobody can connect before the mode is right.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(name);
    let made = listen_at(&new, path).map_err(io);
    if made.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&new);
    }
    made
}

fn listen_at(new: &Path, path: &Path) -> io::Result<Listener> {
    let _ = fs::remove_file(new);
    let socket = UnixListener::bind(new)?;
    fs::set_permissions(new, Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(new)?.ino();
    fs::rename(new, path)?;
    Ok(Listener { socket, path: path.to_owned(), inode })
}

fn refuse_if_taken(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::Io { path: path.to_owned(), source }),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match client::connect_now(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // WouldBlock: its queue is full, so someone listens.
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode);
        if ours && let Err(e) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), "control socket not removed: {e}");
        }
    }
}

/// Serves clients until the receiver of `calls` is gone. Never waits for a client or for the
/// receiver longer than [`CLIENT_TIME`] and [`ANSWER_TIME`].
pub async fn serve(listener: Listener, calls: mpsc::Sender<Call>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let followers = Arc::new(Semaphore::new(MAX_FOLLOWERS));
    loop {
        let stream = tokio::select! {
            accepted = listener.socket.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of descriptors, most likely: others need a moment to close theirs.
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = calls.closed() => return,
        };
        match connections.clone().try_acquire_owned() {
            Ok(permit) => {
                let connection = Connection::new(stream, calls.clone(), followers.clone());
                tokio::spawn(connection.run(permit));
            }
            Err(_) => turn_away(&stream),
        }
    }
}

fn turn_away(stream: &UnixStream) {
    let text = line_of(&Response::refused("too many connections"));
    // A new socket has room for a line; if not, the client sees the end alone.
    let _ = stream.try_write(&text);
}

fn line_of(response: &Response) -> Vec<u8> {
    let mut line = serde_json::to_vec(response)
        .unwrap_or_else(|_| br#"{"ok":false,"error":"the answer is no JSON"}"#.to_vec());
    line.push(b'\n');
    line
}

/// The connection is over: the client is gone, too slow, or sends what is no request.
struct Over;

struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    calls: mpsc::Sender<Call>,
    followers: Arc<Semaphore>,
}

impl Connection {
    fn new(stream: UnixStream, calls: mpsc::Sender<Call>, followers: Arc<Semaphore>) -> Self {
        let (reader, writer) = stream.into_split();
        Connection { reader: BufReader::with_capacity(512, reader), writer, calls, followers }
    }

    async fn run(mut self, _permit: OwnedSemaphorePermit) {
        while let Ok(line) = self.request_line().await {
            let served = match Request::parse(&line) {
                Ok(request) => self.serve(request).await,
                Err(why) => self.send(&Response::refused(why)).await,
            };
            if served.is_err() {
                return;
            }
        }
    }

    /// The next line, without its newline.
    async fn request_line(&mut self) -> Result<Vec<u8>, Over> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_REQUEST).map_or(u64::MAX, |max| max + 1);
        let mut bounded = (&mut self.reader).take(limit);
        match timeout(CLIENT_TIME, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(_)) if line.pop_if(|last| *last == b'\n').is_some() => Ok(line),
            Ok(Ok(_)) if line.len() > MAX_REQUEST => {
                let why = format!("a request has at most {MAX_REQUEST} bytes");
                self.send(&Response::refused(why)).await?;
                Err(Over)
            }
            // The end, half a line and the end, an error, or silence.
            _ => Err(Over),
        }
    }

    async fn serve(&mut self, request: Request) -> Result<(), Over> {
        let follower = match request {
            Request::Events { follow: true } => match self.followers.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return self.send(&Response::refused("too many followers")).await,
            },
            _ => None,
        };
        let (reply, answer) = oneshot::channel();
        match self.calls.try_send(Call { request, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return self.send(&Response::refused("busy")).await,
            Err(TrySendError::Closed(_)) => return self.stopping().await,
        }
        match timeout(ANSWER_TIME, answer).await {
            Ok(Ok(Reply::Status(status))) => self.send(&Response::status(status)).await,
            Ok(Ok(Reply::Done(message))) => self.send(&Response::done(message)).await,
            Ok(Ok(Reply::Refused(why))) => self.send(&Response::refused(why)).await,
            Ok(Ok(Reply::Events { past, follow })) => {
                let served = self.events(past, follow).await;
                drop(follower);
                served
            }
            Ok(Err(_)) => self.stopping().await,
            Err(_) => {
                let why = format!("no answer within {} s", ANSWER_TIME.as_secs());
                self.send(&Response::refused(why)).await
            }
        }
    }

    async fn stopping(&mut self) -> Result<(), Over> {
        self.send(&Response::refused("the daemon is stopping")).await
    }

    async fn events(
        &mut self,
        past: Vec<Event>,
        follow: Option<broadcast::Receiver<Event>>,
    ) -> Result<(), Over> {
        for event in past {
            self.send(&Response::event(event)).await?;
        }
        let Some(mut later) = follow else { return self.send(&Response::end()).await };
        loop {
            let event = tokio::select! {
                event = later.recv() => event,
                // The client closed its side, or breaks the rules by sending more.
                _ = self.reader.fill_buf() => return Err(Over),
                () = self.calls.closed() => Err(RecvError::Closed),
            };
            match event {
                Ok(event) => self.send(&Response::event(event)).await?,
                Err(RecvError::Lagged(n)) => {
                    self.send(&Response::refused(format!("too slow: {n} events missed"))).await?;
                    return Err(Over);
                }
                Err(RecvError::Closed) => return self.stopping().await.and(Err(Over)),
            }
        }
    }

    async fn send(&mut self, response: &Response) -> Result<(), Over> {
        match timeout(CLIENT_TIME, self.writer.write_all(&line_of(response))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Over),
        }
    }
}
