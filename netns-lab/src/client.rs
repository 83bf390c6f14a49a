//! WireGuard in a node, for clients and for stand-in gateways: the kernel's, wireguard-go, or the embedded one.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::node::Node;
use crate::privilege::find_program;
use crate::process::{Process, Spec};
use crate::uapi::{self, PeerState};
use crate::wgconf::WgConf;

/// An implementation of WireGuard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WgKind {
    /// The kernel's, configured with the `wg` program.
    Kernel,
    /// wireguard-go.
    WireguardGo,
    /// gotatun, in this crate's program `lab-client`.
    Embedded,
}

impl fmt::Display for WgKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::WireguardGo => "wireguard-go",
            Self::Embedded => "embedded",
        })
    }
}

impl FromStr for WgKind {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "kernel" => Ok(Self::Kernel),
            "wireguard-go" => Ok(Self::WireguardGo),
            "embedded" => Ok(Self::Embedded),
            _ => bail!("{s:?} is not kernel, wireguard-go or embedded"),
        }
    }
}

impl WgKind {
    /// `NETNS_LAB_WG` when set, else the first that this machine has: kernel, wireguard-go, embedded.
    ///
    /// # Errors
    /// When `NETNS_LAB_WG` is none of the three.
    pub fn choose(node: &Node) -> Result<Self> {
        if let Ok(wanted) = std::env::var("NETNS_LAB_WG") {
            return wanted.parse().context("NETNS_LAB_WG");
        }
        let kernel = find_program("wg").is_some()
            && node.sh("ip link add wgprobe type wireguard && ip link del wgprobe").is_ok();
        Ok(match (kernel, find_program("wireguard-go")) {
            (true, _) => Self::Kernel,
            (false, Some(_)) => Self::WireguardGo,
            (false, None) => Self::Embedded,
        })
    }
}

/// A WireGuard interface `wg0` in a node. Dropping it ends its process; a kernel device goes with the node or by [`WgPeer::stop`].
pub struct WgPeer {
    node: Node,
    kind: WgKind,
    process: Option<Process>,
}

/// Name of the interface in clients.
const INTERFACE: &str = "wg0";

impl WgPeer {
    /// Makes wg0 in `node` as `conf` says.
    ///
    /// # Errors
    /// When the implementation is missing or refuses the config.
    pub fn start(node: &Node, kind: WgKind, conf: &WgConf) -> Result<Self> {
        let path = node.dir().join("wg0.conf");
        std::fs::write(&path, conf.to_text())?;
        let mut peer = Self { node: node.clone(), kind, process: None };
        match kind {
            WgKind::Kernel => peer.start_kernel(conf)?,
            WgKind::WireguardGo => {
                peer.process = Some(node.spawn(
                    Spec::new(["wireguard-go", "-f", INTERFACE]).env("LOG_LEVEL", "error"),
                )?);
                peer.wait_socket()?;
                let conf = conf.clone();
                node.run(move || uapi::bring_up(INTERFACE, &conf))?;
            }
            WgKind::Embedded => {
                let program = lab_client_path()?.display().to_string();
                let mut process = node.spawn(Spec::new([
                    program,
                    INTERFACE.to_owned(),
                    path.display().to_string(),
                ]))?;
                process.wait_log("lab-client: ready", Duration::from_secs(10))?;
                peer.process = Some(process);
            }
        }
        Ok(peer)
    }

    fn start_kernel(&self, conf: &WgConf) -> Result<()> {
        // `wg setconf` knows neither Address nor MTU.
        let plain = WgConf { addresses: Vec::new(), mtu: None, ..conf.clone() }.to_text();
        let path = self.node.dir().join("wg0.setconf");
        std::fs::write(&path, plain.replace("Address = \n", ""))?;
        self.node.ip_batch(&format!("link add {INTERFACE} type wireguard\n"))?;
        self.node.exec(&["wg", "setconf", INTERFACE, &path.display().to_string()])?;
        self.node.ip_batch(&conf.to_ip_batch(INTERFACE))
    }

    fn wait_socket(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if self.node.run(|| uapi::request(INTERFACE, "get=1\n\n").is_ok()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} on {} did not open its socket", self.kind, self.node.name())
    }

    /// Its implementation.
    pub fn kind(&self) -> WgKind {
        self.kind
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What it knows of its peers.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn peers(&self) -> Result<Vec<PeerState>> {
        uapi::peers(&self.node, INTERFACE)
    }

    /// The current endpoint of its first peer: for a client, the gateway.
    ///
    /// # Errors
    /// When the device is gone or has no endpoint.
    pub fn endpoint(&self) -> Result<SocketAddr> {
        self.peers()?.first().and_then(|p| p.endpoint).context("no endpoint")
    }

    /// CLOCK_REALTIME of the last handshake with the first peer, in seconds.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn latest_handshake(&self) -> Result<Option<u64>> {
        Ok(self.peers()?.first().and_then(|p| p.last_handshake))
    }

    /// Removes the interface.
    ///
    /// # Errors
    /// When its process cannot be ended.
    pub fn stop(mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(Duration::from_secs(5)).map(|_| ()),
            None => self.node.ip_batch(&format!("link del {INTERFACE}\n")),
        }
    }
}

impl Lab {
    /// Starts client `number` (from 1) with the implementation that this machine has, keepalive off.
    ///
    /// # Errors
    /// As [`WgPeer::start`].
    pub fn start_client(&self, number: u8) -> Result<WgPeer> {
        let node = self.client_node(number.into());
        // Without any floating IP something outside leads the IPv4 address to a gateway.
        let over_v6 = self.cluster().floating_v6 && !self.cluster().floating_v4;
        WgPeer::start(node, WgKind::choose(node)?, &self.client_conf(number, over_v6, 0))
    }
}

/// `lab-client`: `NETNS_LAB_CLIENT`, or beside this program, where cargo builds it.
fn lab_client_path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NETNS_LAB_CLIENT") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    exe.ancestors().skip(1).take(3).map(|dir| dir.join("lab-client")).find(|p| p.is_file()).context(
        "the program lab-client is missing: cargo build -p netns-lab (with the same profile)",
    )
}
