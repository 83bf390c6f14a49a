//! Connecting to a gateway of a higher name, again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::channel::{self, Channel, Refusal};
use super::files::Hub;
use super::{Connected, Endpoints, Settings, View, session};
use crate::config::Node;
use crate::link;

/// Bound of one connection attempt.
const CONNECT: Duration = Duration::from_secs(2);

/// Wait after the first failure; doubled with each, up to the last. A gateway that is back gets no
/// handover before it is connected, and hears nothing of the clients; an attempt costs one packet.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Keeps a connection to `peer` for ever.
pub(super) async fn run(
    settings: Arc<Settings>,
    peer: Node,
    endpoints: Endpoints,
    files: Hub,
    view: View,
) {
    let mut attempt = 0;
    let mut failures = 0;
    loop {
        match connect(&settings, &peer, attempt).await {
            Ok(channel) => {
                info!("sync: connected to {}", peer.name);
                failures = 0;
                let connected = Connected::new(&view, &peer.name);
                let why = session::run(channel, &endpoints, &files).await;
                drop(connected);
                view.ended(&why);
                info!("sync: connection to {} ended: {why}", peer.name);
            }
            Err(why) => {
                view.ended(&why);
                // Once for each outage is enough.
                if failures == 0 {
                    warn!("sync: no connection to {}: {why}", peer.name);
                } else {
                    debug!("sync: no connection to {}: {why}", peer.name);
                }
                failures += 1;
                // Another path, then another key.
                attempt += 1;
            }
        }
        sleep(wait(failures)).await;
    }
}

/// The wait before the next attempt after so many failures in a row.
fn wait(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_WAIT * (1 << doublings)).min(LAST_WAIT)
}

async fn connect(settings: &Settings, peer: &Node, attempt: usize) -> Result<Channel, Refusal> {
    let paths = link::path_count(settings.addresses.len(), peer.addresses.len()).max(1);
    let path = attempt % paths;
    let local = settings.addresses.get(path).or(settings.addresses.last()).map(|a| a.bind);
    let remote = peer.addresses.get(path).or(peer.addresses.last()).map(|a| a.send);
    let (Some(local), Some(remote)) = (local, remote) else { return Err(Refusal::Timeout) };
    let stream = timeout(CONNECT, open(local, remote)).await.map_err(|_| Refusal::Timeout)??;
    channel::connect(stream, settings, &peer.name, attempt / paths).await
}

/// From the node's own address: never from a floating IP, which may leave.
async fn open(local: SocketAddr, remote: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(local.ip(), 0))?;
    let stream = socket.connect(remote).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let waits: Vec<u128> = (0..9).map(|n| wait(n).as_millis()).collect();
        assert_eq!(waits, [100, 100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        assert_eq!(wait(u32::MAX), LAST_WAIT);
    }
}
