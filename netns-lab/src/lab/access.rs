//! How clients reach the router: own nets, NAT, roaming, the net of simulated clients.

use anyhow::{Context, Result};

use super::{Lab, configure};
use crate::node::Node;
use crate::topology;

impl Lab {
    pub(super) fn connect_client(&self, n: u8, node: &Node) -> Result<()> {
        self.router.ip_batch(&format!(
            "link add cl{n} type veth peer name eth0 netns {}\n",
            node.net_path()
        ))?;
        let router = topology::client_net(n, 1);
        configure(&self.router, &format!("cl{n}"), router, None)?;
        configure(node, "eth0", topology::client_net(n, 2), Some(router))
    }

    /// Any address of their net is one of client1.
    pub(super) fn connect_swarm(&self) -> Result<()> {
        let client = self.clients.first().context("simulated clients need a client's node")?;
        let net = topology::SWARM_NET;
        client.ip_batch(&format!("route add local {net} dev lo\n"))?;
        let via = topology::client_net(1, 2).v4;
        self.router.ip_batch(&format!("route add {net} via {via}\n"))
    }

    pub(super) fn translate(&self) -> Result<()> {
        let direct: String = self
            .options
            .direct
            .iter()
            .map(|n| format!("  iifname \"cl{n}\" oifname \"eth0\" accept\n"))
            .collect();
        self.router.nft(&format!(
            "table inet lab_nat {{\n chain post {{\n  type nat hook postrouting priority 100;\n{direct}  \
             iifname \"cl*\" oifname \"eth0\" masquerade\n }}\n}}\n",
        ))
    }

    /// Client `number` (from 1) gets another address in its net: .3 instead of .2, or .2 again.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn roam(&self, number: u8) -> Result<()> {
        let node = self.client_node(number.into());
        let [home, away] = [2, 3].map(|host| topology::client_net(number, host).v4);
        let router = topology::client_net(number, 1).v4;
        let at_home = node.exec(&["ip", "-o", "-4", "addr", "show", "dev", "eth0"])?;
        let home_now = at_home.contains(&format!("{home}/"));
        let (old, new) = if home_now { (home, away) } else { (away, home) };
        node.ip_batch(&format!(
            "addr del {old}/24 dev eth0\naddr add {new}/24 brd + dev eth0\nroute replace default via {router}\n"
        ))
    }
}
