//! A lab: nodes, links, addresses, routes.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::config::ClusterOptions;
use crate::fault::Faults;
use crate::keys::Keys;
use crate::node::Node;
use crate::topology::{self, Pair};

mod access;

/// What to build. Made by [`Lab::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    gateways: u8,
    witness: bool,
    clients: u8,
    swarm: u16,
    nat: bool,
    direct: Vec<u8>,
    cluster: ClusterOptions,
}

impl Builder {
    /// Number of gateways, 1 to 9; 2 unless set.
    #[must_use]
    pub fn gateways(mut self, number: u8) -> Self {
        self.gateways = number.clamp(1, 9);
        self
    }

    /// Number of clients, 0 to 100; 1 unless set.
    #[must_use]
    pub fn clients(mut self, number: u8) -> Self {
        self.clients = number.min(100);
        self
    }

    /// Number of simulated clients, 0 to 10,000, to be run in client1 (see [`Swarm`](crate::Swarm)); 0 unless set.
    #[must_use]
    pub fn swarm(mut self, number: u16) -> Self {
        self.swarm = number.min(10_000);
        self
    }

    /// These clients (from 1) are reached without NAT, whatever the others are.
    #[must_use]
    pub fn direct(mut self, clients: &[u8]) -> Self {
        self.direct = clients.to_vec();
        self
    }

    /// Adds the witness `w1`.
    #[must_use]
    pub fn witness(mut self) -> Self {
        self.witness = true;
        self
    }

    /// Whether the router translates the clients' addresses; yes unless set.
    #[must_use]
    pub fn nat(mut self, nat: bool) -> Self {
        self.nat = nat;
        self
    }

    /// What goes into wgha.toml.
    #[must_use]
    pub fn cluster(mut self, options: ClusterOptions) -> Self {
        self.cluster = options;
        self
    }

    /// Builds the network. Nothing runs in it yet.
    ///
    /// # Errors
    /// Without the power to make namespaces, or when `ip` or `nft` refuse something.
    pub fn build(self) -> Result<Lab> {
        let dir = tempfile::Builder::new().prefix(&crate::clean::dir_prefix()).tempdir()?;
        let start =
            |name: &str| Node::start(dir.path(), name).with_context(|| format!("node {name}"));
        let lab = Lab {
            gateways: (1..=self.gateways)
                .map(|n| start(&format!("gw{n}")))
                .collect::<Result<_>>()?,
            witness: if self.witness { Some(start("w1")?) } else { None },
            switch: start("sw")?,
            router: start("router")?,
            host: start("host")?,
            clients: (1..=self.clients)
                .map(|n| start(&format!("client{n}")))
                .collect::<Result<_>>()?,
            keys: Keys::generate(self.clients, self.swarm)?,
            faults: Mutex::new(Faults::default()),
            options: self,
            dir,
        };
        lab.connect().context("building the network")?;
        Ok(lab)
    }
}

/// A network of namespaces. Dropping it (also by a panic) removes everything; drop processes and probes first or later, as you like.
pub struct Lab {
    gateways: Vec<Node>,
    witness: Option<Node>,
    switch: Node,
    router: Node,
    host: Node,
    clients: Vec<Node>,
    keys: Keys,
    pub(crate) faults: Mutex<Faults>,
    options: Builder,
    dir: TempDir,
}

impl Lab {
    /// Two gateways, one client, NAT, no witness, unless told otherwise.
    pub fn builder() -> Builder {
        Builder {
            gateways: 2,
            witness: false,
            clients: 1,
            swarm: 0,
            nat: true,
            direct: Vec::new(),
            cluster: ClusterOptions::default(),
        }
    }

    /// Gateway `number`, from 1.
    ///
    /// # Panics
    /// When there is none.
    pub fn gateway(&self, number: usize) -> &Node {
        &self.gateways[number - 1]
    }

    /// All gateways.
    pub fn gateways(&self) -> &[Node] {
        &self.gateways
    }

    /// The witness.
    pub fn witness(&self) -> Option<&Node> {
        self.witness.as_ref()
    }

    /// The nodes that run the daemon: gateways, then the witness.
    pub fn members(&self) -> impl Iterator<Item = &Node> {
        self.gateways.iter().chain(&self.witness)
    }

    /// The switch: bridges br0 (uplink) and br1 (inner), ports named after the nodes.
    pub fn switch(&self) -> &Node {
        &self.switch
    }

    /// The router between uplink net and clients.
    pub fn router(&self) -> &Node {
        &self.router
    }

    /// The host behind the gateways.
    pub fn host(&self) -> &Node {
        &self.host
    }

    /// The namespace of client `number`, from 1.
    ///
    /// # Panics
    /// When there is none.
    pub fn client_node(&self, number: usize) -> &Node {
        &self.clients[number - 1]
    }

    /// All client namespaces.
    pub fn client_nodes(&self) -> &[Node] {
        &self.clients
    }

    /// The WireGuard keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What goes into wgha.toml.
    pub fn cluster(&self) -> &ClusterOptions {
        &self.options.cluster
    }

    /// The directory with everything; removed on drop.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The drawing of this lab.
    pub fn drawing(&self) -> String {
        topology::drawing(self.gateways.len(), self.clients.len(), self.witness.is_some())
    }

    /// Fills the neighbour caches of router and members: a gateway always knows its router's MAC,
    /// and failover with cold caches works by luck.
    pub fn warm_neighbours(&self) {
        for node in self.members() {
            for address in topology::router().both() {
                node.ping(address);
            }
        }
        let gateways = 1..=u8::try_from(self.gateways.len()).unwrap_or(u8::MAX);
        for address in
            gateways.flat_map(|n| topology::gateway(n).both()).chain(topology::floating().both())
        {
            crate::ping::ping(&self.router, address, std::time::Duration::from_millis(200)).ok();
        }
    }

    /// The faults in force.
    pub(crate) fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> Result<()> {
        self.switch.ip_batch(
            "link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink add br1 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\nlink set br1 up\n",
        )?;
        for (n, node) in (1..).zip(&self.gateways) {
            self.plug(
                node,
                "br0",
                node.name(),
                "eth0",
                topology::gateway(n),
                Some(topology::router()),
            )?;
            self.plug(
                node,
                "br1",
                &format!("{}i", node.name()),
                "eth1",
                topology::inner(10 + n),
                None,
            )?;
            node.sysctl("net/ipv4/ip_forward", "1")?;
            node.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        if let Some(node) = &self.witness {
            self.plug(node, "br0", "w1", "eth0", topology::witness(), Some(topology::router()))?;
        }
        self.plug(
            &self.host,
            "br1",
            "host",
            "eth0",
            topology::host(),
            Some(topology::inner_floating()),
        )?;
        self.plug(&self.router, "br0", "router", "eth0", topology::router(), None)?;
        self.router.sysctl("net/ipv4/ip_forward", "1")?;
        self.router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for (n, node) in (1..).zip(&self.clients) {
            self.connect_client(n, node)?;
        }
        if self.options.swarm > 0 {
            self.connect_swarm()?;
        }
        // Without NAT the members' default route already leads back to the clients.
        if self.options.nat { self.translate() } else { Ok(()) }
    }

    /// A cable from the switch to a node.
    fn plug(
        &self,
        node: &Node,
        bridge: &str,
        port: &str,
        interface: &str,
        address: Pair,
        via: Option<Pair>,
    ) -> Result<()> {
        self.switch.ip_batch(&format!(
            "link add {port} type veth peer name {interface} netns {}\nlink set {port} master {bridge} up\n",
            node.net_path()
        ))?;
        configure(node, interface, address, via)
    }
}

/// Addresses, link and default route of one interface.
fn configure(node: &Node, interface: &str, address: Pair, via: Option<Pair>) -> Result<()> {
    // Duplicate address detection would keep IPv6 waiting for a second.
    node.sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0")?;
    node.sysctl(&format!("net/ipv6/conf/{interface}/accept_ra"), "0")?;
    let Pair { v4, v6 } = address;
    let mut lines = format!(
        "addr add {v4}/24 brd + dev {interface}\naddr add {v6}/64 dev {interface} nodad\nlink set {interface} up\n"
    );
    if let Some(Pair { v4, v6 }) = via {
        let _ = write!(
            lines,
            "route add default via {v4}\nroute add default via {v6} dev {interface}\n"
        );
    }
    node.ip_batch(&lines)
}
