//! A pair with clients, for one figure after the other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_lab::{Builder, Cluster, Echo, Lab, Node, WgKind, WgPeer, topology};

use super::Options;

/// Far more than anything takes.
const BOUND: Duration = Duration::from_secs(60);

/// A client of a figure.
pub(super) struct Client {
    /// From 1.
    pub(super) number: u8,
    pub(super) label: String,
    pub(super) peer: WgPeer,
    /// It changes its address before each round.
    pub(super) roams: bool,
}

impl Client {
    pub(super) fn start(lab: &Lab, number: u8, kind: WgKind, keepalive: u16) -> Result<Self> {
        let conf = lab.client_conf(number, false, keepalive);
        let peer = WgPeer::start(lab.client_node(number.into()), kind, &conf)?;
        Ok(Self { number, label: kind.to_string(), peer, roams: false })
    }

    /// Waits until the host behind the gateways answers it.
    pub(super) fn reaches_host(&self) -> Result<()> {
        let to = topology::host().v4.into();
        netns_lab::reach(self.peer.node(), to, Duration::from_millis(500), BOUND)
            .with_context(|| format!("{} ({}) has no tunnel", self.name(), self.label))?;
        Ok(())
    }

    /// A wrong endpoint cuts the client off at the next takeover.
    pub(super) fn check_endpoint(&self) -> Result<()> {
        let (is, right) = (self.peer.endpoint()?, topology::endpoint(false));
        ensure!(
            is == right,
            "the endpoint of {} ({}) is {is}, not {right}",
            self.name(),
            self.label
        );
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        self.peer.node().name()
    }
}

/// Two running daemons.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    _echo: Echo,
    pub(super) lab: Lab,
}

impl Stage {
    pub(super) fn start(options: &Options, heartbeat: Duration, network: Builder) -> Result<Self> {
        let pair = options.pair(heartbeat);
        let lab = network.cluster(pair.cluster()).build()?;
        let cluster = Cluster::start(&lab, &pair.program()?)?;
        let echo = Echo::start(lab.host(), topology::ECHO_PORT)?;
        let stage = Self { cluster, _echo: echo, lab };
        stage.master().map_err(|e| super::super::with_logs(&stage.lab, e))?;
        Ok(stage)
    }

    /// The master, once both gateways are ready.
    pub(super) fn master(&self) -> Result<Node> {
        self.cluster.wait_ready(BOUND)?;
        self.cluster.wait_master(BOUND)
    }

    /// The one that would take over.
    pub(super) fn heir(&self, master: &Node) -> Result<&Node> {
        self.lab.gateways().iter().find(|g| g.name() != master.name()).context("no backup")
    }

    /// Waits until the backup was told where so many clients are, at a time after this call.
    pub(super) fn wait_told(&self, master: &Node, clients: u64) -> Result<()> {
        self.cluster.wait_told(self.heir(master)?, clients, BOUND)
    }

    /// Links up again, both ready.
    pub(super) fn heal(&self) -> Result<()> {
        self.lab.heal_all()?;
        self.cluster.wait_ready(BOUND).context("after the link was healed")
    }

    /// Adds what the daemons said.
    pub(super) fn explain<T>(&self, result: Result<T>, when: &str) -> Result<T> {
        result.map_err(|e| super::super::with_logs(&self.lab, e.context(when.to_owned())))
    }
}
