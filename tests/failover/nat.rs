//! A client's TCP connection through the gateways' NAT lives on when the role moves, with the real
//! conntrackd and the files of dist/ as they are shipped; without the hook it does not.
//!
//! The gateways translate the tunnel's addresses to the inner floating IP, and drop what belongs to no
//! connection that they know (docs/nat.md).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netns_lab::{ClusterOptions, Lab, Node, Process, Spec, etc, find_program, topology};

use crate::pair::{BOUND, Pair, eventually, network, options};

const HOOK: &str = include_str!("../../dist/hooks/conntrackd");
const CONFIG: &str = include_str!("../../dist/examples/conntrackd.conf");
const DOCS: &str = include_str!("../../docs/nat.md");
/// Between two numbers that the server sends.
const SEND_EVERY: Duration = Duration::from_millis(20);
/// So many numbers in a row are a connection that works.
const ENOUGH: u64 = 50;
/// Of the hook in wgha.toml.
const HOOK_TABLE: &str = "\n[[hook]]\non = [\"master\", \"backup\", \"fault\", \"stop\"]\n\
    run = [\"/usr/bin/env\", \"CONNTRACKD_CONF=/etc/wgha/conntrackd.conf\", \"/etc/wgha/conntrackd\"]\n";

#[test]
fn connections_through_nat_live_on() {
    let (mut pair, replicas) = replicated(HOOK_TABLE);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let connection = Connection::open(&pair.lab);
    connection.goes_on("through gw1");

    knows(&gw2, &connection);
    pair.lab.cut_link(&gw1, true).expect("cut");
    pair.is_master(&gw2, "the link of gw1 is cut");
    connection.goes_on("the link of gw1 is cut");
    pair.lab.heal_link(&gw1, true).expect("heal");
    pair.settled_on(&gw2, "the link of gw1 is back");
    connection.goes_on("the link of gw1 is back");

    knows(&gw1, &connection);
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "handover");
    connection.goes_on("handover");

    knows(&gw2, &connection);
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "gw1 was killed");
    connection.goes_on("gw1 was killed");
    hooks_went_well(&pair, &gw2);
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 is back");
    drop(replicas);
}

#[test]
fn without_the_hook_they_do_not() {
    let (pair, replicas) = replicated("");
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let connection = Connection::open(&pair.lab);
    connection.goes_on("through gw1");
    knows(&gw2, &connection);
    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "handover");
    // conntrackd on gw2 could tell its kernel of the connection, and nobody asked it to.
    let before = connection.received();
    std::thread::sleep(SEND_EVERY * 250);
    assert_eq!(connection.received(), before, "it goes on by itself");
    // It is this one that is lost: another one works.
    Connection::open(&pair.lab).goes_on("a new connection through gw2");
    drop(replicas);
}

/// A pair that translates and replicates, gw1 as master; `hook` goes into wgha.toml.
fn replicated(hook: &str) -> (Pair, Vec<Process>) {
    let cluster = ClusterOptions { extra: hook.to_owned(), ..options() };
    let lab = network(Lab::builder().cluster(cluster));
    install(&lab);
    let pair = Pair::unsettled(lab);
    let replicas = pair.lab.gateways().iter().map(start_conntrackd).collect();
    pair.settled("the start");
    pair.lead(&pair.gateway(1));
    (pair, replicas)
}

/// What docs/nat.md tells to load, with the lab's addresses.
fn ruleset() -> String {
    let text = DOCS.split("```nft\n").nth(1).and_then(|t| t.split("```").next());
    text.expect("the rules in docs/nat.md")
        .replace("10.8.0.0/24", "10.9.0.0/24")
        .replace("172.16.0.1", &topology::inner_floating().v4.to_string())
}

fn install(lab: &Lab) {
    for (number, node) in (1..).zip(lab.gateways()) {
        let hook = etc(node).join("conntrackd");
        std::fs::write(&hook, HOOK).expect("the hook");
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        let (own, other) = (topology::inner(10 + number), topology::inner(13 - number));
        let swap = CONFIG
            .replace(
                "IPv4_address 10.0.1.10\n        IPv4_Dest",
                "IPv4_address OWN\n        IPv4_Dest",
            )
            .replace("Destination_Address 10.0.1.11", "Destination_Address OTHER")
            .replace("10.0.1.10", &topology::gateway(1).v4.to_string())
            .replace("10.0.1.11", &topology::gateway(2).v4.to_string())
            .replace("203.0.113.10\n", &format!("{}\n", topology::floating().v4))
            .replace("OWN", &own.v4.to_string())
            .replace("OTHER", &other.v4.to_string())
            .replace("Interface eth0", "Interface eth1");
        std::fs::write(etc(node).join("conntrackd.conf"), swap).expect("its config");
        node.nft(&ruleset()).expect("the rules of docs/nat.md");
        node.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0").expect("sysctl");
    }
}

fn start_conntrackd(node: &Node) -> Process {
    let program =
        find_program("conntrackd").expect("conntrackd is missing: apt-get install conntrackd");
    let program = program.display().to_string();
    let process =
        node.spawn(Spec::new([&program, "-C", "/etc/wgha/conntrackd.conf"])).expect("conntrackd");
    eventually(&format!("conntrackd on {}", node.name()), || {
        ask(node, "-s").err().map(|e| format!("{e}\n{}", process.log())).into_iter().collect()
    });
    process
}

fn ask(node: &Node, what: &str) -> Result<String, String> {
    node.sh(&format!("PATH=$PATH:/usr/sbin conntrackd -C /etc/wgha/conntrackd.conf {what}"))
        .map_err(|e| format!("{e:#}"))
}

/// The other gateway has told this one of the connection.
fn knows(node: &Node, connection: &Connection) {
    let port = format!("sport={}", connection.port);
    eventually(&format!("{} was told of the connection", node.name()), || {
        let known = ask(node, "-e").expect("the external cache");
        let there = known.lines().any(|l| l.contains("ESTABLISHED") && l.contains(&port));
        if there { Vec::new() } else { vec![known] }
    });
}

fn hooks_went_well(pair: &Pair, node: &Node) {
    eventually("the hook ends well", || {
        let hooks = pair.status(node)["hooks"].clone();
        let all = hooks.as_array().expect("a list");
        let ours = all.iter().find(|h| h["run"].to_string().contains("conntrackd"));
        let well = ours.is_some_and(|h| h["outcome"] == "exit 0");
        if well { Vec::new() } else { vec![hooks.to_string()] }
    });
}

/// A server that sends a number again and again, and a client that answers each.
struct Connection {
    /// The client's.
    port: u16,
    received: Arc<AtomicU64>,
}

impl Connection {
    fn open(lab: &Lab) -> Connection {
        let host = lab.host();
        // Each connection has a port of its own.
        let listener = host.run(|| TcpListener::bind(("0.0.0.0", 0))).expect("a server");
        let server = SocketAddr::new(
            topology::host().v4.into(),
            listener.local_addr().expect("bound").port(),
        );
        host.thread(move || serve(&listener));
        let client = lab.client_node(1);
        let stream = client
            .run(move || TcpStream::connect_timeout(&server, BOUND))
            .expect("a connection through the tunnel");
        let port = stream.local_addr().expect("connected").port();
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        client.thread(move || receive(stream, &count));
        Connection { port, received }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Numbers arrive, from now on.
    fn goes_on(&self, when: &str) {
        let wanted = self.received() + ENOUGH;
        eventually(&format!("{when}: the connection goes on"), || match self.received() {
            n if n >= wanted => Vec::new(),
            n => vec![format!("{n} numbers arrived instead of {wanted}")],
        });
    }
}

fn serve(listener: &TcpListener) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    for number in 0_u64.. {
        stream.write_all(&number.to_be_bytes())?;
        std::thread::sleep(SEND_EVERY);
    }
    Ok(())
}

/// Counts numbers as long as none is missing.
fn receive(mut stream: TcpStream, count: &AtomicU64) -> std::io::Result<()> {
    let mut number = [0; 8];
    loop {
        stream.read_exact(&mut number)?;
        assert_eq!(u64::from_be_bytes(number), count.load(Ordering::SeqCst), "in order");
        count.fetch_add(1, Ordering::SeqCst);
    }
}
