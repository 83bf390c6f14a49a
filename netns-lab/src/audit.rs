//! What must be true of a pair at rest, whatever happened before.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::client::WgPeer;
use crate::daemon::Cluster;
use crate::lab::Lab;
use crate::node::Node;
use crate::topology;

impl Lab {
    /// Looks at everything once and returns what is wrong, in words; empty is good.
    pub fn audit(&self, cluster: &Cluster, clients: &[&WgPeer]) -> Vec<String> {
        let mut wrong = Vec::new();
        let masters = cluster.masters();
        let names: Vec<&str> = masters.iter().map(Node::name).collect();
        let [master] = masters.as_slice() else {
            return vec![format!("masters by status: {names:?}, expected exactly one")];
        };
        for node in self.gateways() {
            let is_master = node.name() == master.name();
            let checks = [
                self.addresses(node, is_master),
                rules(node, is_master),
                wg0(node, is_master),
                self.hook(cluster, node),
            ];
            for check in checks {
                match check {
                    Ok(found) => {
                        wrong.extend(found.into_iter().map(|w| format!("{}: {w}", node.name())))
                    }
                    Err(e) => wrong.push(format!("{}: {e:#}", node.name())),
                }
            }
        }
        wrong.extend(self.neighbours(master).unwrap_or_else(|e| vec![format!("router: {e:#}")]));
        wrong.extend(clients.iter().flat_map(|c| client(c)));
        wrong
    }

    /// Audits again and again until nothing is wrong.
    ///
    /// # Errors
    /// With what is still wrong when the time is over.
    pub fn wait_clean(
        &self,
        cluster: &Cluster,
        clients: &[&WgPeer],
        timeout: Duration,
    ) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let wrong = self.audit(cluster, clients);
            if wrong.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < end, "after {timeout:?}: {}", wrong.join("; "));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn addresses(&self, node: &Node, is_master: bool) -> Result<Vec<String>> {
        let shown = node.exec(&["ip", "-o", "addr"])?;
        let held = |address: &str, dev: &str| {
            shown
                .lines()
                .map(|l| l.split_whitespace().collect::<Vec<_>>())
                .any(|w| w.get(1) == Some(&dev) && w.get(3) == Some(&address))
        };
        let wrong = |(address, dev): &(String, &str)| match (held(address, dev), is_master) {
            (true, false) => Some(format!("holds {address} without being master")),
            (false, true) => Some(format!("is master without {address}")),
            _ => None,
        };
        Ok(self.floating_ips().iter().filter_map(wrong).collect())
    }

    /// Whom the router takes for the owner of the floating addresses.
    fn neighbours(&self, master: &Node) -> Result<Vec<String>> {
        let want = crate::observe::mac(master, "eth0")?;
        let mut wrong = Vec::new();
        for (address, _) in self.floating_ips().into_iter().filter(|(_, dev)| *dev == "eth0") {
            let address = address.split('/').next().unwrap_or_default();
            self.router().ping(address.parse()?);
            let shown = self.router().exec(&["ip", "neigh", "show", address])?;
            if !shown.contains(&want) {
                wrong.push(format!(
                    "router: {address} is not at {} ({want}): {}",
                    master.name(),
                    shown.trim()
                ));
            }
        }
        Ok(wrong)
    }

    /// The last line of the hook's log names the role that status shows.
    fn hook(&self, cluster: &Cluster, node: &Node) -> Result<Vec<String>> {
        if !self.cluster().notify_hook {
            return Ok(Vec::new());
        }
        let role = cluster.status(node)?["role"].as_str().unwrap_or_default().to_owned();
        let log = std::fs::read_to_string(node.dir().join("state/notify.log"))
            .context("no hook ran: notify.log")?;
        let last = log.lines().last().unwrap_or_default();
        let good = last.split_whitespace().nth(1).is_some_and(|r| r.eq_ignore_ascii_case(&role));
        Ok(if good {
            Vec::new()
        } else {
            vec![format!("role {role}, but the last hook was: {last}")]
        })
    }
}

/// Policy rules and private tables: only on the master, except a rule that is a blackhole.
fn rules(node: &Node, is_master: bool) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for family in ["-4", "-6"] {
        let shown = node.exec(&["ip", family, "rule", "show"])?;
        let own =
            shown.lines().filter(|l| !matches!(l.split(':').next(), Some("0" | "32766" | "32767")));
        let lookups: Vec<&str> = own.filter(|l| l.contains("lookup")).collect();
        if is_master && lookups.is_empty() {
            wrong.push(format!("is master without source rules ({family})"));
        }
        if !is_master {
            wrong.extend(lookups.iter().map(|l| format!("keeps the rule {l}")));
            let routes = node.exec(&["ip", family, "route", "show", "table", "all"])?;
            let private =
                |l: &&str| l.split_once(" table ").is_some_and(|(_, t)| !t.starts_with("local"));
            wrong.extend(
                routes.lines().filter(private).map(|l| format!("keeps the route {}", l.trim())),
            );
        }
    }
    Ok(wrong)
}

fn wg0(node: &Node, is_master: bool) -> Result<Vec<String>> {
    let links: Value = serde_json::from_str(&node.exec(&["ip", "-j", "link"])?)?;
    let link = links.as_array().and_then(|all| all.iter().find(|l| l["ifname"] == "wg0"));
    let up = link.and_then(|l| l["flags"].as_array()).is_some_and(|f| f.iter().any(|f| f == "UP"));
    Ok(match (up, is_master) {
        (true, false) => vec!["wg0 is up without being master".to_owned()],
        (false, true) => vec!["is master without wg0 up".to_owned()],
        _ => Vec::new(),
    })
}

/// Its endpoint is the floating IP, and the gateway answers through the tunnel.
fn client(client: &WgPeer) -> Vec<String> {
    let name = client.node().name();
    let mut wrong = Vec::new();
    match client.endpoint() {
        Ok(at) if at == topology::endpoint(at.is_ipv6()) => {}
        Ok(at) => wrong.push(format!("{name}: its endpoint is {at}")),
        Err(e) => wrong.push(format!("{name}: {e:#}")),
    }
    if !client.node().ping(topology::wg_gateway().v4.into()) {
        wrong.push(format!("{name}: no ping through the tunnel"));
    }
    wrong
}
