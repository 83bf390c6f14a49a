//! What can go wrong: links, packets, addresses, rules. Signals are [`Process::signal`](crate::Process::signal).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use crate::holdings::Rule;
use crate::lab::Lab;
use crate::node::Node;
use crate::topology::HEARTBEAT_PORT;

/// Which packets a [`Filter`] concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Every frame, ARP included.
    All,
    /// UDP to the heartbeat's port.
    Heartbeat,
    /// TCP to the same port: the sync channel.
    Sync,
}

/// Frames that the switch drops.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Sent by these nodes; empty: by any.
    pub from: Vec<String>,
    /// To these nodes; empty: to any.
    pub to: Vec<String>,
    /// Which of them.
    pub traffic: Traffic,
    /// How many of them: 100 is all.
    pub percent: u8,
}

impl Filter {
    /// Everything from one node to another, one way.
    pub fn one_way(from: &str, to: &str) -> Self {
        Self {
            from: vec![from.to_owned()],
            to: vec![to.to_owned()],
            traffic: Traffic::All,
            percent: 100,
        }
    }

    /// Everything that a node sends: it hears, and nobody hears it.
    pub fn mute(node: &str) -> Self {
        Self { from: vec![node.to_owned()], to: Vec::new(), traffic: Traffic::All, percent: 100 }
    }

    /// Everything that a node should hear.
    pub fn deaf(node: &str) -> Self {
        Self { from: Vec::new(), to: vec![node.to_owned()], traffic: Traffic::All, percent: 100 }
    }

    /// Random loss of everything, both ways, between all.
    pub fn loss(percent: u8) -> Self {
        Self { from: Vec::new(), to: Vec::new(), traffic: Traffic::All, percent }
    }

    /// The same, of heartbeats only.
    #[must_use]
    pub fn heartbeats(mut self) -> Self {
        self.traffic = Traffic::Heartbeat;
        self
    }

    /// The same, of the sync channel only: on the way to the side that listens.
    #[must_use]
    pub fn sync(mut self) -> Self {
        self.traffic = Traffic::Sync;
        self
    }

    /// Random loss instead of all.
    #[must_use]
    pub fn percent(mut self, percent: u8) -> Self {
        self.percent = percent;
        self
    }

    /// Heartbeats and their answers; those to a floating IP come from another port.
    fn rule(&self) -> String {
        let to = format!("dport {HEARTBEAT_PORT}");
        match self.traffic {
            Traffic::All => self.line(""),
            Traffic::Sync => self.line(&format!("tcp {to} ")),
            Traffic::Heartbeat => {
                let answers = format!("udp dport != {HEARTBEAT_PORT} udp sport {HEARTBEAT_PORT} ");
                self.line(&format!("udp {to} ")) + &self.line(&answers)
            }
        }
    }

    fn line(&self, packets: &str) -> String {
        let mut rule = String::new();
        if !self.from.is_empty() {
            let _ = write!(rule, "iifname {{ {} }} ", ports(&self.from));
        }
        if !self.to.is_empty() {
            let _ = write!(rule, "oifname {{ {} }} ", ports(&self.to));
        }
        rule += packets;
        if self.percent < 100 {
            let _ = write!(rule, "numgen random mod 100 < {} ", self.percent);
        }
        rule + "counter drop\n"
    }
}

/// The switch's ports of nodes; a gateway has a second one, to the inner net.
fn ports(nodes: &[String]) -> String {
    let all: Vec<String> =
        nodes.iter().flat_map(|n| [format!("\"{n}\""), format!("\"{n}i\"")]).collect();
    all.join(", ")
}

/// Names an injected fault, for healing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(u64);

/// Filters in force.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    next: u64,
    filters: BTreeMap<FaultId, Vec<Filter>>,
}

impl Faults {
    fn ruleset(&self) -> String {
        let rules: String = self.filters.values().flatten().map(Filter::rule).collect();
        format!(
            "table bridge lab {{\n}}\ndelete table bridge lab\ntable bridge lab {{\nchain faults {{\ntype filter hook forward priority 0\n{rules}}}\n}}\n"
        )
    }
}

impl Lab {
    /// Takes the link of a node down at the switch; the node sees the carrier go. Inner link of gateways too when `inner`.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn cut_link(&self, node: &Node, inner: bool) -> Result<()> {
        self.set_link(node, inner, "down")
    }

    /// Puts back what [`Lab::cut_link`] took down.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn heal_link(&self, node: &Node, inner: bool) -> Result<()> {
        self.set_link(node, inner, "up")
    }

    fn set_link(&self, node: &Node, inner: bool, state: &str) -> Result<()> {
        let name = node.name();
        let mut lines = format!("link set {name} {state}\n");
        if inner {
            let _ = writeln!(lines, "link set {name}i {state}");
        }
        self.switch().ip_batch(&lines)
    }

    /// Makes the switch drop frames until healed. Nodes see no change of carrier.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn inject(&self, filters: Vec<Filter>) -> Result<FaultId> {
        let mut faults = self.faults();
        let id = FaultId(faults.next);
        faults.next += 1;
        faults.filters.insert(id, filters);
        self.switch().nft(&faults.ruleset())?;
        Ok(id)
    }

    /// Cuts two sets of nodes from each other, both ways.
    ///
    /// # Errors
    /// As [`Lab::inject`].
    pub fn partition(&self, left: &[&str], right: &[&str]) -> Result<FaultId> {
        let names = |set: &[&str]| set.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let cut = |from, to| Filter { from, to, traffic: Traffic::All, percent: 100 };
        self.inject(vec![cut(names(left), names(right)), cut(names(right), names(left))])
    }

    /// Ends a fault. One that is healed already stays so.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn heal(&self, id: FaultId) -> Result<()> {
        let mut faults = self.faults();
        faults.filters.remove(&id);
        self.switch().nft(&faults.ruleset())
    }

    /// Ends all faults and brings all links up.
    ///
    /// # Errors
    /// When `nft` or `ip` refuse.
    pub fn heal_all(&self) -> Result<()> {
        let mut faults = self.faults();
        faults.filters.clear();
        self.switch().nft(&faults.ruleset())?;
        for node in self.members() {
            self.heal_link(node, self.witness().is_none_or(|w| w.name() != node.name()))?;
        }
        Ok(())
    }
}

/// Removes an address, with prefix length, as an administrator or networkd would.
///
/// # Errors
/// When it is not there.
pub fn remove_address(node: &Node, address: &str, interface: &str) -> Result<()> {
    node.ip_batch(&format!("addr del {address} dev {interface}\n"))
}

/// Removes every policy rule except the kernel's own, as a restart of networkd does with foreign rules. Returns how many.
///
/// # Errors
/// When `ip` refuses.
pub fn remove_rules(node: &Node) -> Result<usize> {
    let rules = node.holdings()?.rules;
    let foreign = |r: &&Rule| !matches!(r.priority, 0 | 32766 | 32767);
    for (v6, family) in [(false, "-4"), (true, "-6")] {
        let lines: String = rules
            .iter()
            .filter(|r| r.v6 == v6)
            .filter(foreign)
            .map(|r| format!("rule del pref {}\n", r.priority))
            .collect();
        node.feed("ip-batch", &lines, &["ip", family, "-batch"])?;
    }
    Ok(rules.iter().filter(foreign).count())
}

/// Deletes an interface.
///
/// # Errors
/// When it is not there.
pub fn remove_interface(node: &Node, interface: &str) -> Result<()> {
    node.ip_batch(&format!("link del {interface}\n"))
}

/// `nft flush ruleset`, as a restart of the firewall does.
///
/// # Errors
/// When `nft` refuses.
pub fn flush_nft(node: &Node) -> Result<()> {
    node.exec(&["nft", "flush", "ruleset"]).map(|_| ())
}
