//! The command line's side of the control socket. Blocking: the command line has no runtime.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{ANSWER_TIME, Request, Response};

/// How long to try to connect to a daemon whose queue is full.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Longest line of an answer, in bytes: a status of a large cluster is a few ten thousand.
const MAX_RESPONSE: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens. Exit code 3.
    #[error("no daemon answers on {} ({source}); is wgha running?", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket belongs to another user.
    #[error("{}: permission denied; run this as the user of the daemon (root)", .0.display())]
    Denied(PathBuf),
    /// The daemon said no; its words.
    #[error("{0}")]
    Refused(String),
    /// The daemon speaks another language.
    #[error("the daemon's answer makes no sense: {0}")]
    Nonsense(String),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects, within 5 s.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoDaemon`] or [`ClientError::Denied`].
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let deadline = Instant::now() + CONNECT_TIME;
        let stream = loop {
            match connect_now(path) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50));
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ClientError::Denied(path.to_owned()));
                }
                Err(source) => {
                    return Err(ClientError::NoDaemon { path: path.to_owned(), source });
                }
                Ok(stream) => break stream,
            }
        };
        Ok(Client { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Sends a request and returns the first line of the answer, which comes within 30 s or not at
    /// all.
    ///
    /// # Errors
    ///
    /// The daemon refuses, or does not answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        // A little longer than the daemon itself waits, so that its own words arrive.
        let patience = ANSWER_TIME + Duration::from_secs(2);
        let mut line =
            serde_json::to_vec(request).map_err(|e| ClientError::Nonsense(e.to_string()))?;
        line.push(b'\n');
        let stream = self.stream.get_mut();
        let sent = stream
            .set_read_timeout(Some(patience))
            .and_then(|()| stream.set_write_timeout(Some(patience)))
            .and_then(|()| stream.write_all(&line));
        // A daemon with too many connections answers and closes before it has read anything.
        match (sent, self.read()) {
            (_, Ok(response)) => Ok(response),
            (Err(source), Err(ClientError::NoDaemon { .. })) => Err(self.silent(source)),
            (_, Err(e)) => Err(e),
        }
    }

    /// The next line of an answer that has several; waits for ever if `follow`.
    ///
    /// # Errors
    ///
    /// The daemon refuses, ends, or does not answer.
    pub fn next(&mut self, follow: bool) -> Result<Response, ClientError> {
        let patience = if follow { None } else { Some(ANSWER_TIME) };
        if let Err(source) = self.stream.get_ref().set_read_timeout(patience) {
            return Err(self.silent(source));
        }
        self.read()
    }

    fn read(&mut self) -> Result<Response, ClientError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_RESPONSE);
        if let Err(e) = bounded.read_until(b'\n', &mut line) {
            let timed_out = e.kind() == io::ErrorKind::WouldBlock;
            let why = if timed_out { io::ErrorKind::TimedOut.into() } else { e };
            return Err(self.silent(why));
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Err(self.silent(io::ErrorKind::UnexpectedEof.into()));
        }
        let response: Response =
            serde_json::from_slice(&line).map_err(|e| ClientError::Nonsense(e.to_string()))?;
        match response {
            Response { ok: false, error, .. } => {
                Err(ClientError::Refused(error.unwrap_or_else(|| "refused".to_owned())))
            }
            response => Ok(response),
        }
    }

    fn silent(&self, source: io::Error) -> ClientError {
        ClientError::NoDaemon { path: self.path.clone(), source }
    }
}

/// Connects at once or says `WouldBlock`: a plain `connect` waits for ever on the full queue of a
/// daemon that hangs.
pub(super) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(UnixStream::from(socket))
}
