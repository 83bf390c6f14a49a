//! Connections to hosts by address or name.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::config::Target;

/// The most addresses of a name that are tried, all at once.
const ADDRESSES: usize = 4;

type Answer = io::Result<Vec<SocketAddr>>;

/// The look-ups of one check, of which one runs at a time: the system takes as long as it likes for one.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Maybe begun by an earlier run, which had no time to wait for it.
    running: Option<oneshot::Receiver<Answer>>,
}

impl Names {
    /// Connects to the first address that accepts. Can be dropped at any time.
    pub(super) async fn connect(
        &mut self,
        target: &Target,
    ) -> Result<(TcpStream, SocketAddr), String> {
        let addresses = self.addresses(target).await.map_err(|e| format!("{target}: {e}"))?;
        let mut tries = JoinSet::new();
        for address in addresses.into_iter().take(ADDRESSES) {
            tries.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        let mut why = format!("{target}: no address");
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok((address, Ok(stream))) => return Ok((stream, address)),
                Ok((address, Err(e))) => why = format!("{address}: {e}"),
                Err(e) => why = e.to_string(),
            }
        }
        Err(why)
    }

    async fn addresses(&mut self, target: &Target) -> Answer {
        if let Ok(address) = target.host.parse() {
            return Ok(vec![SocketAddr::new(address, target.port)]);
        }
        if self.running.is_none() {
            self.running = Some(ask(target)?);
        }
        let Some(running) = &mut self.running else { return Ok(Vec::new()) };
        let answer = running.await;
        self.running = None;
        answer.unwrap_or_else(|_| Err(io::Error::other("the look-up died")))
    }
}

/// Asks the system, on a thread that nobody has to wait for: the daemon can end meanwhile.
fn ask(target: &Target) -> io::Result<oneshot::Receiver<Answer>> {
    let (tell, answer) = oneshot::channel();
    let (host, port) = (target.host.clone(), target.port);
    let body = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Whoever asked may be gone.
        let _ = tell.send(found);
    };
    thread::Builder::new().name("names".to_owned()).spawn(body)?;
    Ok(answer)
}
