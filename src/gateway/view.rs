//! What the reconciler last saw on the machine, for `wgha status`.

use wgha_proto::Time;

/// A picture of the machine.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// For each floating IP, in the order of the config: whether the machine has it.
    pub floating_ips: Vec<bool>,
    /// For each WireGuard interface, in the order of the config.
    pub tunnels: Vec<TunnelView>,
    /// How often something that others removed was put back, or something that others put up was
    /// taken off.
    pub restored: u64,
}

/// A picture of one WireGuard interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelView {
    /// Its link is up.
    pub up: bool,
    /// Configured.
    pub staged: bool,
    /// Configured peers.
    pub peers: u64,
    /// Peers with a handshake in the last 180 s.
    pub recent_handshakes: u64,
    /// Peers whose endpoint is known.
    pub endpoints_known: u64,
    /// When this node last knew all of where peers are; `None`: not yet in this run.
    pub endpoints_at: Option<Time>,
}

/// The picture, shared: the reconciler draws it, status reads it.
pub type SharedView = crate::shared::Shared<View>;
