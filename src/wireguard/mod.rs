//! WireGuard on a gateway: the config file, and two implementations behind one trait.
//!
//! [`open`] chooses the implementation; [`Backend`] drives it. What both share (inner addresses,
//! MTU, link state, routes) is in `device`, what is to change on a live device is computed by
//! `plan`, free of any I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::config::BackendChoice;
use crate::net::gate::Permit;
use key::KEY_LEN;

pub mod conf;
mod device;
mod embedded;
mod engine;
mod kernel;
pub mod key;
mod plan;
pub mod port;
mod uapi;
mod udp;
mod wgnl;

/// More peers than this are served by the embedded implementation, but not promised (timers and
/// changes walk all peers).
pub const EMBEDDED_PEERS: usize = 1_000;

/// One WireGuard interface, staged (configured and silent) or up.
///
/// Order of calls: [`stage`](Backend::stage) first, and again whenever the file changes; then
/// [`up`](Backend::up) and [`down`](Backend::down) any number of times. Every call compares with
/// what is and does the least: a repeated call changes nothing. Neither `stage` nor `down` deletes
/// the device: a deleted device forgets endpoints and the time stamps that stop replays.
///
/// Every call ends within a bounded time. Scripts (`PreUp` and the like) are the caller's.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Which implementation this is.
    fn kind(&self) -> wgha_proto::WireguardKind;

    /// The addresses that WireGuard's packets leave from. Used by the embedded implementation at
    /// the next [`up`](Backend::up); the kernel's follows the policy rules.
    fn set_source(&mut self, source: Source);

    /// Nothing is sent past this deadline. Used by the embedded implementation at the next
    /// [`up`](Backend::up); the kernel's packets pass the gate.
    fn set_permit(&mut self, _: Permit) {}

    /// Makes the device exist with the file's key, port and peers, and (while not up) without
    /// socket and traffic. On a device that is up, applies the difference alone. A device left
    /// over from an earlier run is taken over with its peers and endpoints; before the first
    /// `stage` of this process was called it counts as not up, and is brought down.
    async fn stage(&mut self, conf: &conf::WgConf) -> Result<(), WgError>;

    /// Tells a staged device where its peers are; those that it does not have are left out.
    /// Returns how many it did not know.
    ///
    /// # Errors
    /// [`WgError::Up`] on a device that is up: it knows better.
    async fn set_endpoints(
        &mut self,
        endpoints: &[([u8; KEY_LEN], SocketAddr)],
    ) -> Result<usize, WgError>;

    /// Starts the traffic: addresses, MTU, link up, routes. Staged before. On a device that is up,
    /// puts back what others removed.
    ///
    /// The peers have no keepalive yet, so nothing is sent by itself: [`Live::kick`] gives them
    /// theirs, at its pace, and after [`Live::settle`] this call does.
    async fn up(&mut self) -> Result<(), WgError>;

    /// Ends the traffic at once, and nothing else: link down, no socket. [`down`](Backend::down)
    /// is to follow.
    async fn silence(&mut self) -> Result<(), WgError>;

    /// Ends the traffic: link down, no socket, no inner address. The device stays, with its peers
    /// and endpoints. Needs no `stage` before.
    async fn down(&mut self) -> Result<(), WgError>;

    /// Forgets that handshakes were begun, on a device that is up: those that [`Live::kick`] begins next are sent, although
    /// others are unanswered, which an implementation repeats after 5 s and not before. Sessions may end: for devices where no
    /// client is back.
    async fn forget_unanswered(&mut self) -> Result<(), WgError>;

    /// What the device is now, asked from the system, not remembered.
    async fn state(&mut self) -> Result<DeviceState, WgError>;

    /// Every peer with endpoint and last handshake.
    ///
    /// # Errors
    /// [`WgError::NotStaged`] if there is no device: that nobody is known to it says nothing of where peers are.
    async fn peers(&mut self) -> Result<Vec<PeerState>, WgError>;

    /// The device for those who speak to it while it is up, beside the owner of this.
    fn live(&self) -> Arc<dyn Live>;

    /// The clock that stamps handshakes, where it is not the wall clock itself: nanoseconds since
    /// 1970 minus those of the boot clock.
    fn stamp_offset(&self) -> Option<i64>;

    /// Removes the device with everything it knows.
    async fn delete(&mut self) -> Result<(), WgError>;

    /// Why the implementation stopped working by itself, as soon as it does; `None` while it
    /// works. A later [`stage`](Backend::stage) starts it afresh.
    fn failure(&self) -> watch::Receiver<Option<String>>;
}

/// A device that is up, for those who do not own it. What is asked here and of the [`Backend`] is
/// done in the order of asking: nothing asked before [`Backend::down`] acts after it.
#[async_trait]
pub trait Live: Send + Sync {
    /// As [`Backend::peers`].
    async fn peers(&self) -> Result<Vec<PeerState>, WgError>;

    /// Sends handshake initiations and gives the peers their keepalive. Returns when that is done,
    /// not when it is answered; a peer that cannot be reached is no error. Pass a few at a time: the
    /// device does nothing else meanwhile.
    async fn kick(&self, kicks: &[Kick]) -> Result<(), WgError>;

    /// Every peer has its keepalive now: from here on [`Backend::up`] puts keepalives back.
    fn settle(&self);
}

/// What a peer gets after the device came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick {
    /// Its public key.
    pub public_key: [u8; KEY_LEN],
    /// Its configured keepalive in seconds, 0 for none.
    pub keepalive: u16,
    /// A handshake now. Without it a peer with a keepalive gets one too, by the keepalive.
    pub handshake: bool,
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
    pub public_key: [u8; KEY_LEN],
    /// Where it was last heard from, or the configured endpoint.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake ended, by the wall clock.
    pub last_handshake: Option<SystemTime>,
    /// Bytes of authenticated packets from it since the device was made.
    pub received: u64,
}

impl PeerState {
    /// Whether a handshake ended at that time or later.
    #[must_use]
    pub fn is_back(&self, since: SystemTime) -> bool {
        self.last_handshake.is_some_and(|at| at >= since)
    }
}

/// The addresses that WireGuard's packets leave from. With one family alone given, the embedded
/// implementation has no socket of the other; with none, it takes any address of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl FromIterator<IpAddr> for Source {
    /// The last address of each family.
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut source = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => source.v4 = Some(v4),
                IpAddr::V6(v6) => source.v6 = Some(v6),
            }
        }
        source
    }
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
    /// The interface's name belongs to a device that is not ours to configure.
    #[error("interface {interface} exists and is {found}")]
    WrongKind {
        /// The name.
        interface: String,
        /// What it is.
        found: String,
    },
    /// A route for one of the peers' prefixes goes elsewhere already.
    #[error("the route to {0} already goes to another interface")]
    RouteTaken(ipnet::IpNet),
    /// [`Backend::set_endpoints`] on a device that is up.
    #[error("the interface is up and knows itself where its peers are")]
    Up,
    /// [`Backend::up`] before [`Backend::stage`].
    #[error("the interface is not configured yet")]
    NotStaged,
    /// A call took longer than its bound.
    #[error("no answer within {1} s: {0}")]
    Timeout(&'static str, u64),
    /// The implementation stopped working; see [`Backend::failure`].
    #[error("{0}")]
    Failed(String),
    /// The system refused a step.
    #[error("{what}: {source}")]
    System {
        /// The step.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl WgError {
    /// For `map_err`: names the step that the system refused.
    pub(crate) fn step<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: source.into() }
    }
}

/// Opens the chosen implementation for the interface of this name. Nothing on the machine changes
/// before the first call of the backend. `Auto` takes the kernel's where there is one; keep
/// [`Backend::kind`] and ask for that from then on.
///
/// Call it on the thread (that is: in the network namespace) that the interface belongs to, inside
/// a tokio runtime with I/O and time.
///
/// # Errors
/// [`WgError::NoBackend`] if the machine cannot run the chosen implementation.
pub async fn open(choice: BackendChoice, interface: &str) -> Result<Box<dyn Backend>, WgError> {
    let kernel = match choice {
        BackendChoice::Kernel if !kernel_available().await => {
            let why = "this kernel has no WireGuard (module wireguard)";
            return Err(WgError::NoBackend(why.to_owned()));
        }
        BackendChoice::Kernel => true,
        BackendChoice::Auto => kernel_available().await,
        BackendChoice::Embedded => false,
    };
    if kernel {
        return Ok(Box::new(kernel::KernelBackend::open(interface)?));
    }
    if !std::path::Path::new(engine::TUN).exists() {
        let why =
            format!("no kernel WireGuard in use, and {} is missing (module tun)", engine::TUN);
        return Err(WgError::NoBackend(why));
    }
    Ok(Box::new(embedded::EmbeddedBackend::open(interface)?))
}

/// Whether the kernel has WireGuard; asking loads the module where it is allowed to be.
pub async fn kernel_available() -> bool {
    match wgnl::Wgnl::open() {
        Ok(wgnl) => wgnl.available().await,
        Err(_) => false,
    }
}
