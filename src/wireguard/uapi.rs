//! `wg show` for the embedded implementation: a unix socket that answers questions and refuses
//! orders.
//!
//! `wg` finds userspace devices by `/var/run/wireguard/NAME.sock`. Changing the device behind
//! wgha's back would undo the staging rules, so `set` is refused.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gotatun::device::uapi::UapiClient;
use gotatun::device::uapi::command::Get;
use nix::errno::Errno;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const DIR: &str = "/var/run/wireguard";

/// Connections served at once; one more is closed unanswered.
const CONNECTIONS: usize = 8;

/// Longest request in bytes: a refused `wg setconf` is read to its end, so that `wg` sees the
/// refusal and not a broken pipe.
const REQUEST: u64 = 1 << 20;

/// Longest life of a connection.
const TIME: Duration = Duration::from_secs(5);

/// Which device to ask; it changes when the device is built again.
pub(super) type Client = Arc<Mutex<Option<UapiClient>>>;

/// The socket; removed when dropped.
pub(super) struct Uapi {
    path: PathBuf,
    listener: JoinHandle<()>,
}

impl Drop for Uapi {
    fn drop(&mut self) {
        self.listener.abort();
        let _ = fs::remove_file(&self.path);
    }
}

impl Uapi {
    /// Opens the socket for root alone. Inside a tokio runtime.
    ///
    /// # Errors
    /// `AddrInUse` if another program serves a device of this name.
    pub(super) fn open(interface: &str, client: Client) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(DIR)?;
        let path = Path::new(DIR).join(format!("{interface}.sock"));
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let listener = tokio::spawn(serve(listener, client));
        Ok(Self { path, listener })
    }
}

/// A socket file that nobody answers on is left over from a crash.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::other(format!("{} is no socket", path.display())));
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => fs::remove_file(path),
    }
}

async fn serve(listener: UnixListener, client: Client) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: wait for some to come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // The file was open to others for the moment between bind and chmod.
        let trusted = stream
            .peer_cred()
            .is_ok_and(|cred| cred.uid() == 0 || cred.uid() == nix::unistd::geteuid().as_raw());
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        if !trusted {
            continue;
        }
        let client = client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(TIME, answer(stream, client)).await;
            drop(slot);
        });
    }
}

/// One request, one answer; then the connection ends.
async fn answer(mut stream: UnixStream, client: Option<UapiClient>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let first = first_line(BufReader::new(read.take(REQUEST))).await?;
    let answer = match (first.as_str(), client) {
        ("get=1", Some(client)) => match client.send(Get::default()).await {
            Ok(response) => format!("{response}\n"),
            Err(_) => errno(Errno::EIO),
        },
        ("get=1", None) => errno(Errno::ENODEV),
        ("set=1", _) => errno(Errno::EPERM),
        _ => errno(Errno::EINVAL),
    };
    let answer = zeroize::Zeroizing::new(answer);
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await
}

/// The first line, once the request is read up to its empty line.
async fn first_line(reader: impl tokio::io::AsyncBufRead + Unpin) -> io::Result<String> {
    let mut lines = reader.lines();
    let mut first = None;
    while let Some(line) = lines.next_line().await? {
        if line.is_empty() {
            break;
        }
        first.get_or_insert(line);
    }
    Ok(first.unwrap_or_default())
}

fn errno(errno: Errno) -> String {
    format!("errno={}\n\n", errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(request: &[u8]) -> String {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let server = tokio::spawn(answer(theirs, None));
        let (mut read, mut write) = mine.into_split();
        write.write_all(request).await.unwrap();
        write.shutdown().await.unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).await.unwrap();
        server.await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn refusals_by_number() {
        assert_eq!(ask(b"set=1\nprivate_key=00\n\n").await, "errno=1\n\n");
        assert_eq!(ask(b"get=1\n\n").await, "errno=19\n\n");
        assert_eq!(ask(b"get=2\n\n").await, "errno=22\n\n");
        assert_eq!(ask(b"").await, "errno=22\n\n");
    }

    #[test]
    fn only_a_stale_socket_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg0.sock");
        remove_stale(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(remove_stale(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(path.exists());
        remove_stale(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(remove_stale(&path).is_err() && path.exists());
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_off() {
        let (mut mine, theirs) = UnixStream::pair().unwrap();
        let server = tokio::spawn(answer(theirs, None));
        let sent = tokio::io::copy(&mut tokio::io::repeat(b'x'), &mut mine).await;
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        server.await.unwrap().unwrap();
    }
}
