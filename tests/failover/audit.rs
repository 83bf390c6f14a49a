//! What must be true at rest: the lab's audit, and what only these tests ask.

use std::net::IpAddr;

use netns_lab::{Holdings, Node, Rule, WgPeer, topology};

use crate::pair::{Pair, eventually};

/// The routing protocol that marks what is wgha's, and the private table of WireGuard's port.
const OWNER: u8 = 151;
const TABLE: u32 = 511_251_820;

/// The kernel's own rules.
const KERNELS: [u32; 3] = [0, 32_766, 32_767];

/// wgha's last rule.
const LAST: u32 = 109;

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
        let held = held(node);
        let mut all = holdings(pair, &held, is_master);
        all.extend(sources(pair, &held, is_master));
        all.extend(last_hook(pair, node));
        wrong.extend(all.into_iter().map(|w| format!("{}: {w}", node.name())));
    }
    for node in pair.silent() {
        let all = holdings(pair, &held(node), false);
        wrong.extend(all.into_iter().map(|w| format!("{} (stopped): {w}", node.name())));
    }
    wrong.extend(neighbours(pair, master));
    wrong
}

fn held(node: &Node) -> Holdings {
    node.holdings().unwrap_or_else(|e| panic!("{}: {e:#}", node.name()))
}

/// Floating IPs and wg0: all of them on the master, none elsewhere.
fn holdings(pair: &Pair, held: &Holdings, is_master: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (address, dev) in pair.lab.floating_ips() {
        let holds = held
            .addresses
            .iter()
            .any(|a| a.interface == dev && format!("{}/{}", a.address, a.prefix_len) == address);
        if holds != is_master {
            wrong.push(format!("{address} on {dev}: {holds}"));
        }
    }
    if is_up(held) != is_master {
        wrong.push(format!("wg0 up: {}", !is_master));
    }
    wrong
}

/// wg0 exists and is administratively up.
pub(crate) fn wg0_up(node: &Node) -> bool {
    is_up(&held(node))
}

fn is_up(held: &Holdings) -> bool {
    held.links.iter().any(|l| l.name == "wg0" && l.up)
}

/// Rules and private table are wgha's and complete on the master; else only the blackhole stands, as it does
/// for a family without floating IP.
fn sources(pair: &Pair, held: &Holdings, is_master: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let options = pair.lab.cluster();
    for (v6, floating) in [(false, options.floating_v4), (true, options.floating_v6)] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let open = is_master && floating;
        let rules: Vec<&Rule> = held.rules.iter().filter(|r| r.v6 == v6).collect();
        let foreign = |r: &&&Rule| !KERNELS.contains(&r.priority) && r.protocol != OWNER;
        wrong.extend(rules.iter().filter(foreign).map(|r| format!("a foreign rule: {r:?}")));
        let lookup = rules.iter().any(|r| r.lookup == Some(TABLE));
        if lookup != open {
            wrong.push(format!("a rule that looks up table {TABLE} ({family}): {lookup}"));
        }
        if !rules.iter().any(|r| r.priority == LAST && r.blackhole) {
            wrong.push(format!("no last rule ({family})"));
        }
        let mut routes = held.routes.iter().filter(|r| r.v6 == v6 && r.table == TABLE);
        let default = routes.any(|r| r.prefix_len == 0 && r.gateway);
        if default != open {
            wrong.push(format!("a default route in table {TABLE} ({family}): {default}"));
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
    let router = pair.lab.router();
    let outer = pair.lab.floating_ips().into_iter().filter(|(_, dev)| *dev == "eth0");
    let addresses: Vec<IpAddr> = outer
        .map(|(a, _)| a.split('/').next().unwrap_or_default().parse().expect("an address"))
        .collect();
    let mut wrong = Vec::new();
    for address in addresses.iter().filter(|a| !router.ping(**a)) {
        wrong.push(format!("router: {address} does not answer"));
    }
    let shown = router.neighbours().expect("the router's neighbours");
    for address in addresses {
        let found = shown.iter().find(|n| n.address == address).map(|n| n.mac.as_str());
        if found != Some(&want) {
            wrong.push(format!("router: {address} is not at {want}: {found:?}"));
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
    // All of it, as an administrator sees it, and one shell for all.
    let looks = [
        "ip -o addr",
        "ip -4 rule",
        "ip -6 rule",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "nft list tables",
        "cat /proc/sys/net/ipv4/ip_local_reserved_ports",
    ];
    let shown = run(node, &looks.join(" && "));
    let lines = shown.lines().filter(|l| !l.contains("wg0"));
    let steady = |l: &str| l.split("valid_lft").next().unwrap_or_default().trim().to_owned();
    let mut all: Vec<String> = lines.map(steady).filter(|l| !l.is_empty()).collect();
    all.sort();
    all
}

/// Runs a line of shell that must succeed.
pub(crate) fn run(node: &Node, line: &str) -> String {
    node.sh(line).unwrap_or_else(|e| panic!("{}: {e:#}", node.name()))
}
