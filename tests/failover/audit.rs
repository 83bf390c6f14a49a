//! What must be true at rest: the lab's audit, and what only these tests ask.

use netns_lab::{Node, WgPeer, topology};
use serde_json::Value;

use crate::pair::{Pair, eventually};

/// The routing protocol that marks what is wgha's, and the private table of WireGuard's port.
const OWNER: &str = "proto 151";
const TABLE: &str = "511251820";

/// What is wrong with the gateways, in words.
pub(crate) fn gateways(pair: &Pair) -> Vec<String> {
    let masters: Vec<Node> = pair
        .running()
        .filter(|n| pair.cluster.status(n).is_ok_and(|s| s["role"] == "master"))
        .cloned()
        .collect();
    let [master] = masters.as_slice() else {
        let names: Vec<&str> = masters.iter().map(Node::name).collect();
        return vec![format!("masters by status: {names:?}, expected exactly one")];
    };
    let mut wrong = Vec::new();
    for node in pair.running() {
        let is_master = node.name() == master.name();
        let mut all = holdings(pair, node, is_master);
        all.extend(sources(pair, node, is_master));
        all.extend(last_hook(pair, node));
        wrong.extend(all.into_iter().map(|w| format!("{}: {w}", node.name())));
    }
    for node in pair.silent() {
        let all = holdings(pair, node, false);
        wrong.extend(all.into_iter().map(|w| format!("{} (stopped): {w}", node.name())));
    }
    wrong.extend(neighbours(pair, master));
    wrong
}

/// Floating IPs and wg0: all of them on the master, none elsewhere.
fn holdings(pair: &Pair, node: &Node, is_master: bool) -> Vec<String> {
    let shown = run(node, "ip -o addr");
    let held = |address: &str, dev: &str| {
        shown
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .any(|w| w.get(1) == Some(&dev) && w.get(3) == Some(&address))
    };
    let mut wrong = Vec::new();
    for (address, dev) in pair.lab.floating_ips() {
        if held(&address, dev) != is_master {
            wrong.push(format!("{address} on {dev}: {}", !is_master));
        }
    }
    if wg0_up(node) != is_master {
        wrong.push(format!("wg0 up: {}", !is_master));
    }
    wrong
}

/// wg0 exists and is administratively up.
pub(crate) fn wg0_up(node: &Node) -> bool {
    let links: Value = serde_json::from_str(&run(node, "ip -j link")).expect("JSON of ip");
    let link = links.as_array().and_then(|all| all.iter().find(|l| l["ifname"] == "wg0"));
    link.and_then(|l| l["flags"].as_array()).is_some_and(|f| f.iter().any(|f| f == "UP"))
}

/// Rules and private table are wgha's and complete on the master; else only the blackhole stands, as it does
/// for a family without floating IP.
fn sources(pair: &Pair, node: &Node, is_master: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let options = pair.lab.cluster();
    for (family, floating) in [("-4", options.floating_v4), ("-6", options.floating_v6)] {
        let open = is_master && floating;
        let rules = run(node, &format!("ip -d {family} rule"));
        let foreign = |l: &&str| {
            let number = l.split(':').next().unwrap_or_default();
            !matches!(number, "0" | "32766" | "32767") && !l.contains(OWNER)
        };
        wrong.extend(rules.lines().filter(foreign).map(|l| format!("a foreign rule: {l}")));
        let lookup = rules.lines().any(|l| l.contains(&format!("lookup {TABLE}")));
        if lookup != open {
            wrong.push(format!("a rule that looks up table {TABLE} ({family}): {lookup}"));
        }
        let last = |l: &str| l.starts_with("109:") && l.contains("blackhole");
        if !rules.lines().any(last) {
            wrong.push(format!("no last rule ({family})"));
        }
        // A table that never had a route does not exist, which `ip` calls an error.
        let routes = run(node, &format!("ip {family} route show table {TABLE} 2>&1 || true"));
        if routes.contains("default via") != open {
            wrong.push(format!("table {TABLE} ({family}): {routes:?}"));
        }
    }
    wrong
}

/// The last line of the hook's log names the role that status shows.
fn last_hook(pair: &Pair, node: &Node) -> Vec<String> {
    if !pair.lab.cluster().notify_hook {
        return Vec::new();
    }
    let role = pair.cluster.status(node).map(|s| s["role"].clone()).unwrap_or_default();
    let log = std::fs::read_to_string(node.dir().join("state/notify.log")).unwrap_or_default();
    let last = log.lines().last().unwrap_or("none");
    let said = last.split_whitespace().nth(1).unwrap_or_default();
    if role == said { Vec::new() } else { vec![format!("role {role}, last hook: {last}")] }
}

/// The router takes the master for the owner of the floating IPs.
fn neighbours(pair: &Pair, master: &Node) -> Vec<String> {
    let want = netns_lab::mac(master, "eth0").expect("a MAC");
    let mut wrong = Vec::new();
    for (address, _) in pair.lab.floating_ips().iter().filter(|(_, dev)| *dev == "eth0") {
        let address = address.split('/').next().unwrap_or_default();
        let router = pair.lab.router();
        if !router.ping(address.parse().expect("an address")) {
            wrong.push(format!("router: {address} does not answer"));
        }
        let shown = run(router, &format!("ip neigh show {address}"));
        if !shown.contains(&want) {
            wrong.push(format!("router: {address} is not at {want}: {}", shown.trim()));
        }
    }
    wrong
}

/// The client sends to the floating IP and gets answers through the tunnel.
pub(crate) fn tunnel(pair: &Pair, client: &WgPeer, when: &str) {
    at_floating_ip(client, when);
    if !answers(client) {
        // The client waits 15 s before it gives its session up. That is WireGuard's own, and no test's subject but
        // one: here it forgets the session, and only that.
        renew(pair, client);
    }
    answers_soon(client, when);
}

/// The client gets answers through the tunnel, however long WireGuard takes; nobody helps.
pub(crate) fn answers_soon(client: &WgPeer, when: &str) {
    eventually(&format!("{when}: ping from {}", client.node().name()), || {
        if answers(client) { Vec::new() } else { vec!["no answer".to_owned()] }
    });
    at_floating_ip(client, when);
}

/// One ping through the tunnel.
pub(crate) fn answers(client: &WgPeer) -> bool {
    client.node().ping(topology::wg_gateway().v4.into())
}

fn at_floating_ip(client: &WgPeer, when: &str) {
    let name = client.node().name();
    let endpoint = client.endpoint().unwrap_or_else(|e| panic!("{name}: {e:#}"));
    let good = [false, true].map(topology::endpoint).contains(&endpoint);
    assert!(good, "{when}: {name} sends to {endpoint}");
}

fn renew(pair: &Pair, client: &WgPeer) {
    let endpoint = client.endpoint().expect("an endpoint");
    let conf = pair.lab.client_conf(1, endpoint.is_ipv6(), 0);
    let peer = conf.peers.first().expect("the gateway");
    let (key, ips) = (&peer.public_key, peer.allowed_ips.join(","));
    let remove = format!("wg set wg0 peer '{key}' remove");
    let add = format!("wg set wg0 peer '{key}' endpoint {endpoint} allowed-ips {ips}");
    run(client.node(), &format!("{remove} && {add}"));
}

/// Addresses, rules, routes, nftables tables and reserved ports, without wg0's and without life times.
pub(crate) fn network_of(node: &Node) -> Vec<String> {
    let mut all = Vec::new();
    for what in [
        "ip -o addr",
        "ip -4 rule",
        "ip -6 rule",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "nft list tables",
        "cat /proc/sys/net/ipv4/ip_local_reserved_ports",
    ] {
        let shown = run(node, what);
        let lines = shown.lines().filter(|l| !l.contains("wg0"));
        let steady = |l: &str| l.split("valid_lft").next().unwrap_or_default().trim().to_owned();
        all.extend(lines.map(steady).filter(|l| !l.is_empty()));
    }
    all.sort();
    all
}

/// Runs a line of shell that must succeed.
pub(crate) fn run(node: &Node, line: &str) -> String {
    node.sh(line).unwrap_or_else(|e| panic!("{}: {e:#}", node.name()))
}
