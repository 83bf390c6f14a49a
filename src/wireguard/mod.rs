//! WireGuard on a gateway: the config file, and two implementations behind one trait.

use std::net::SocketAddr;
use std::time::SystemTime;

use async_trait::async_trait;

pub mod conf;

/// One WireGuard interface, staged (configured and silent) or up.
///
/// Order of calls: [`stage`](Backend::stage) first, and again whenever the file changes; then
/// [`up`](Backend::up) and [`down`](Backend::down) any number of times. Every call compares with
/// what is and does the least: a repeated call changes nothing. Neither `stage` nor `down` deletes
/// the device: a deleted device forgets endpoints and the time stamps that stop replays.
#[async_trait]
pub trait Backend: Send {
    /// Which implementation this is.
    fn kind(&self) -> wgha_proto::WireguardKind;

    /// Makes the device exist with the file's key, port and peers, and (while not up) without
    /// socket and traffic. On a device that is up, applies the difference alone.
    async fn stage(&mut self, conf: &conf::WgConf) -> Result<(), WgError>;

    /// Starts the traffic: addresses, MTU, link up, routes. Staged before.
    async fn up(&mut self) -> Result<(), WgError>;

    /// Ends the traffic: link down, no socket. The device stays, with its peers and endpoints.
    async fn down(&mut self) -> Result<(), WgError>;

    /// What the device is now, asked from the system, not remembered.
    async fn state(&mut self) -> Result<DeviceState, WgError>;

    /// Every peer with endpoint and last handshake.
    async fn peers(&mut self) -> Result<Vec<PeerState>, WgError>;
}

/// What a device is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// It exists.
    pub exists: bool,
    /// Its link is up, or it has a socket.
    pub up: bool,
    /// It carries the key, port and peers of the last [`Backend::stage`].
    pub staged: bool,
}

/// What a device knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its public key.
    pub public_key: [u8; 32],
    /// Where it was last heard from, or the configured endpoint.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake ended, by the wall clock.
    pub last_handshake: Option<SystemTime>,
}

/// Why WireGuard could not be brought to a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WgError {
    /// The machine has no such implementation.
    #[error("{0}")]
    NoBackend(String),
    /// The listen port belongs to another socket.
    #[error("UDP port {0} is taken by another program")]
    PortTaken(u16),
    /// The system refused a step.
    #[error("{what}: {source}")]
    System {
        /// The step.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}
