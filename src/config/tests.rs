//! Whole files, right and wrong.

use std::collections::BTreeSet;
use std::io;

use super::schema::{ADDRESS, TABLES};
use super::*;

mod arbiter;
mod docs;

/// A machine as a test wants it.
#[derive(Default)]
struct Bench {
    variable: Option<&'static str>,
    hostname: &'static str,
    addresses: Vec<IpAddr>,
    default_routes: Vec<&'static str>,
}

impl Machine for Bench {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _directory: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn node_variable(&self) -> Option<String> {
        self.variable.map(str::to_owned)
    }

    fn hostname(&self) -> Option<String> {
        Some(self.hostname.to_owned())
    }

    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(self.addresses.clone())
    }

    fn interfaces(&self) -> io::Result<BTreeSet<String>> {
        Ok(BTreeSet::from(["eth0".to_owned()]))
    }

    fn default_routes(&self, _v6: bool) -> io::Result<BTreeSet<String>> {
        Ok(self.default_routes.iter().map(|name| (*name).to_owned()).collect())
    }
}

/// A bench that is gw1 of [`PAIR`].
fn gw1() -> Bench {
    Bench { addresses: vec!["10.0.1.10".parse().unwrap()], ..Bench::default() }
}

const PAIR: &str = r#"
[cluster]
name = "edge"
key_file = "/etc/wgha/cluster.key"
heartbeat = "200ms"
misses = 3

[[node]]
name = "gw1"
addresses = ["10.0.1.10:5112"]
priority = 150

[[node]]
name = "gw2"
addresses = [{ send = "203.0.113.5:5112", bind = "10.0.2.10:5112" }]

[[node]]
name = "w1"
addresses = ["10.0.3.10"]
witness = true

[[floating_ip]]
address = "203.0.113.10/32"
interface = "eth0"

[[wireguard]]
interface = "wg0"
config = "/etc/wireguard/wg0.conf"

[[hook]]
on = ["master", "backup", "fault", "stop"]
run = ["/etc/wgha/notify.sh", "edge"]
"#;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_on(text, None, &gw1())
}

fn parse_on(text: &str, node: Option<&str>, bench: &Bench) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/wgha/wgha.toml"), node, bench)
}

/// The one error of `text`, as it is printed behind the file's name.
fn error(text: &str) -> String {
    error_on(text, None, &gw1())
}

fn error_on(text: &str, node: Option<&str>, bench: &Bench) -> String {
    let errors = parse_on(text, node, bench).expect_err("an error was expected").errors;
    assert_eq!(errors.len(), 1, "one error was expected: {errors:#?}");
    errors[0].to_string()
}

/// [`PAIR`] with `from` replaced by `to`, which must change it.
fn pair(from: &str, to: &str) -> String {
    let changed = PAIR.replacen(from, to, 1);
    assert_ne!(changed, PAIR, "{from:?} is not in the file");
    changed
}

#[test]
fn a_whole_file() {
    let config = parse(PAIR).unwrap();
    assert_eq!(config.instance, "wgha");
    assert_eq!(config.node().name, "gw1");
    assert_eq!(config.node().priority, 150);
    assert_eq!(config.peers().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["gw2", "w1"]);
    assert_eq!(config.gateways().count(), 2);
    assert_eq!(config.detection(), Duration::from_millis(600));
    assert_eq!(
        config.cluster,
        Cluster {
            name: "edge".to_owned(),
            key_file: "/etc/wgha/cluster.key".into(),
            heartbeat: Duration::from_millis(200),
            misses: 3,
            preempt: None,
            quorum: QuorumChoice::Auto,
            handover_timeout: Duration::from_millis(500),
            gate: true,
            state_dir: "/var/lib/wgha/wgha".into(),
            evidence: EvidenceChoice::Auto,
            dead_man: true,
            realtime: false,
            user: None,
        }
    );
    let gw2 = &config.nodes[1];
    assert_eq!(gw2.priority, 100);
    assert_eq!(gw2.addresses[0].send, "203.0.113.5:5112".parse().unwrap());
    assert_eq!(gw2.addresses[0].bind, "10.0.2.10:5112".parse().unwrap());
    let w1 = &config.nodes[2];
    assert!(w1.witness);
    assert_eq!(w1.addresses[0].send, "10.0.3.10:5112".parse().unwrap());
    assert_eq!(config.floating_ips[0].address, "203.0.113.10/32".parse().unwrap());
    let wireguard = &config.wireguard[0];
    assert_eq!(wireguard.backend, BackendChoice::Auto);
    assert_eq!(wireguard.source, ["203.0.113.10".parse::<IpAddr>().unwrap()]);
    assert!(wireguard.guard);
    assert_eq!(config.hooks[0].run, ["/etc/wgha/notify.sh", "edge"]);
    assert_eq!(config.hooks[0].timeout, Duration::from_secs(30));
    assert_eq!(config.control_socket, Path::new("/run/wgha/wgha.sock"));
}

#[test]
fn who_needs_a_majority() {
    let pair = PAIR.split("[[node]]\nname = \"w1\"").next().unwrap();
    // (quorum, of three nodes, of two)
    for (word, three, two) in
        [("", true, false), ("auto", true, false), ("majority", true, true), ("none", false, false)]
    {
        let line = if word.is_empty() { String::new() } else { format!("\nquorum = \"{word}\"") };
        let with = |text: &str| parse(&text.replace("misses = 3", &format!("misses = 3{line}")));
        assert_eq!(with(PAIR).unwrap().needs_majority(), three, "{word}");
        assert_eq!(with(pair).unwrap().needs_majority(), two, "{word}");
    }
}

#[test]
fn a_lease_has_a_longest() {
    let slow = |quorum: &str| {
        let text = PAIR.replace("heartbeat = \"200ms\"", "heartbeat = \"10s\"");
        parse(&text.replace("misses = 3", &format!("misses = 4\nquorum = \"{quorum}\"")))
    };
    assert!(slow("none").is_ok());
    let errors = slow("auto").unwrap_err().to_string();
    assert!(
        errors.contains("misses: heartbeat x misses is 40 s; expected at most 30 s"),
        "{errors}"
    );
}

#[test]
fn defaults_follow_the_files_name() {
    let config = Config::parse(PAIR, Path::new("/etc/wgha/site-a.toml"), None, &gw1()).unwrap();
    assert_eq!(config.instance, "site-a");
    assert_eq!(config.cluster.state_dir, Path::new("/var/lib/wgha/site-a"));
    assert_eq!(config.control_socket, Path::new("/run/wgha/site-a.sock"));
}

#[test]
fn every_key_can_be_given() {
    let text = pair(
        "misses = 3",
        "misses = 3\npreempt = true\npreempt_delay = \"5s\"\nquorum = \"none\"\n\
         handover_timeout = \"2s\"\ngate = \"off\"\nstate_dir = \"/srv/wgha\"\n\
         evidence = [\"10.0.1.1\", \"fe80::1\"]\ndead_man = \"off\"\nrealtime = true",
    )
    .replace("wg0.conf\"", "wg0.conf\"\nbackend = \"embedded\"\nsource = []\nguard = false")
    .replace("\"edge\"]", "\"edge\"]\ntimeout = \"3s\"\n[control]\nsocket = \"/run/x.sock\"");
    let config = parse(&text).unwrap();
    assert_eq!(config.cluster.preempt, Some(Duration::from_secs(5)));
    assert_eq!(config.cluster.handover_timeout, Duration::from_secs(2));
    assert!(!config.cluster.gate);
    assert_eq!(config.cluster.state_dir, Path::new("/srv/wgha"));
    let named = ["10.0.1.1", "fe80::1"].map(|ip| ip.parse().unwrap()).to_vec();
    assert_eq!(config.cluster.evidence, EvidenceChoice::Addresses(named));
    assert!(!config.cluster.dead_man);
    assert!(config.cluster.realtime);
    assert_eq!(config.wireguard[0].backend, BackendChoice::Embedded);
    assert!(config.wireguard[0].source.is_empty());
    assert!(!config.wireguard[0].guard);
    assert_eq!(config.hooks[0].timeout, Duration::from_secs(3));
    assert_eq!(config.control_socket, Path::new("/run/x.sock"));
}

/// Every (change of [`PAIR`], what the error says). Lines count from the empty first one.
#[test]
fn one_mistake_each() {
    for (from, to, expected) in [
        // Keys and tables.
        (
            "heartbeat",
            "hartbeat",
            r#"5: [cluster] hartbeat: unknown key "hartbeat"; did you mean "heartbeat"?"#,
        ),
        (
            "priority = 150",
            "colour = 1",
            r#"11: [[node]] colour: unknown key "colour"; expected one of name, addresses, priority, witness"#,
        ),
        (
            "bind =",
            "bin = \"\", bind =",
            r#"15: [[node.addresses]] bin: unknown key "bin"; did you mean "bind"?"#,
        ),
        ("[[hook]]", "[[hooks]]", r#"30: unknown table or key "hooks"; did you mean "hook"?"#),
        (
            "[cluster]",
            "colour = 1\n[cluster]",
            r#"2: unknown table or key "colour"; expected one of cluster, node, floating_ip, wireguard, check, hook, claim, sync, control, http, probe, arbiter"#,
        ),
        ("[[hook]]\n", "[hook]\n", "30: [[hook]]: expected [[hook]], found a value of type table"),
        ("misses = 3", "misses = 3\nmisses = 4", "7: duplicate key"),
        ("name = \"edge\"", "", "2: [cluster] name: missing; expected the cluster's name"),
        (
            "key_file = \"/etc/wgha/cluster.key\"",
            "",
            "2: [cluster] key_file: missing; expected the path of the key file",
        ),
        // Values of [cluster].
        (
            "\"edge\"",
            "\"ed ge\"",
            r#"3: [cluster] name: expected 1 to 64 letters, digits, '.', '_' or '-', found "ed ge""#,
        ),
        ("\"edge\"", "7", "3: [cluster] name: expected the cluster's name, found 7"),
        (
            "/etc/wgha/cluster.key",
            "cluster.key",
            r#"4: [cluster] key_file: expected an absolute path, found "cluster.key""#,
        ),
        (
            "200ms",
            "9ms",
            r#"5: [cluster] heartbeat: expected a duration of 10ms to 10s, such as "200ms", found "9ms""#,
        ),
        (
            "200ms",
            "11s",
            r#"5: [cluster] heartbeat: expected a duration of 10ms to 10s, such as "200ms", found "11s""#,
        ),
        (
            "200ms",
            "fast",
            r#"5: [cluster] heartbeat: expected a duration of 10ms to 10s, such as "200ms", found "fast""#,
        ),
        (
            "\"200ms\"",
            "200",
            r#"5: [cluster] heartbeat: expected a duration of 10ms to 10s, such as "200ms", found 200"#,
        ),
        (
            "misses = 3",
            "misses = 1",
            "6: [cluster] misses: expected a whole number of 2 to 255, found 1",
        ),
        (
            "misses = 3",
            "misses = 256",
            "6: [cluster] misses: expected a whole number of 2 to 255, found 256",
        ),
        ("misses = 3", "preempt = 1", "6: [cluster] preempt: expected true or false, found 1"),
        (
            "misses = 3",
            "quorum = \"most\"",
            r#"6: [cluster] quorum: expected "auto", "majority" or "none", found "most""#,
        ),
        (
            "misses = 3",
            "gate = \"on\"",
            r#"6: [cluster] gate: expected "auto" or "off", found "on""#,
        ),
        (
            "misses = 3",
            "evidence = \"none\"",
            r#"6: [cluster] evidence: expected "auto", "off", or an array of 1 to 8 addresses of neighbours, such as ["10.0.1.1"], found "none""#,
        ),
        (
            "misses = 3",
            "evidence = []",
            r#"6: [cluster] evidence: expected "auto", "off", or an array of 1 to 8 addresses of neighbours, such as ["10.0.1.1"], found a value of type array"#,
        ),
        (
            "misses = 3",
            "evidence = [\"router\"]",
            r#"6: [cluster] evidence: expected an IP address without port or prefix, such as "203.0.113.10", found "router""#,
        ),
        (
            "misses = 3",
            "dead_man = \"4s\"",
            r#"6: [cluster] dead_man: expected "on" or "off", found "4s""#,
        ),
        (
            "misses = 3",
            "handover_timeout = \"9ms\"",
            r#"6: [cluster] handover_timeout: expected a duration of 10ms to 1m, such as "200ms", found "9ms""#,
        ),
        // [[node]].
        (
            "\"gw2\"",
            "\"gw1\"",
            r#"13: [[node]] name: "gw1" is the name of another node, at line 8"#,
        ),
        (
            "\"gw2\"",
            "\"../gw2\"",
            r#"14: [[node]] name: expected 1 to 64 letters, digits, '.', '_' or '-', found "../gw2""#,
        ),
        (
            "priority = 150",
            "priority = 0",
            "11: [[node]] priority: expected a whole number of 1 to 255, found 0",
        ),
        (
            "addresses = [\"10.0.1.10:5112\"]",
            "",
            r#"8: [[node]] addresses: missing; expected an array of addresses, such as ["10.0.1.10:5112"]"#,
        ),
        (
            "[\"10.0.1.10:5112\"]",
            "[]",
            "10: [[node]] addresses: expected 1 to 8 addresses, found 0",
        ),
        (
            "10.0.1.10:5112",
            "10.0.1.300:5112",
            r#"10: [[node]] addresses: expected an IP address and port, such as "10.0.1.10:5112", found "10.0.1.300:5112""#,
        ),
        (
            "10.0.1.10:5112",
            "gw1.example:5112",
            r#"10: [[node]] addresses: expected an IP address and port, such as "10.0.1.10:5112", found "gw1.example:5112""#,
        ),
        (
            "10.0.1.10:5112",
            "10.0.1.10:0",
            r#"10: [[node]] addresses: expected a port of 1 to 65535, found "10.0.1.10:0""#,
        ),
        (
            "10.0.1.10:5112",
            "0.0.0.0:5112",
            r#"10: [[node]] addresses: expected the address of one machine, found "0.0.0.0:5112""#,
        ),
        (
            "10.0.1.10:5112",
            "fd00::1:5112",
            r#"10: [[node]] addresses: expected an IPv6 address in brackets, such as "[fd00::1]:5112", found "fd00::1:5112""#,
        ),
        (
            "10.0.1.10:5112",
            "[fe80::1]:5112",
            r#"10: [[node]] addresses: expected an address that is not link-local, found "[fe80::1]:5112""#,
        ),
        (
            "10.0.3.10",
            "10.0.1.10:5112",
            r#"17: [[node]] addresses: 10.0.1.10:5112 is also an address of node "gw1""#,
        ),
        (
            "bind = \"10.0.2.10:5112\"",
            "bind = \"[fd00::2]:5112\"",
            "15: [[node.addresses]] bind: expected send and bind of one family, found 203.0.113.5:5112 and [fd00::2]:5112",
        ),
        (
            ", bind = \"10.0.2.10:5112\"",
            "",
            "15: [[node.addresses]] bind: missing; expected the address that the node itself has",
        ),
        // [[floating_ip]].
        (
            "203.0.113.10/32",
            "203.0.113.10/33",
            r#"23: [[floating_ip]] address: expected an IP address, such as "203.0.113.10/32", found "203.0.113.10/33""#,
        ),
        (
            "203.0.113.10/32",
            "127.0.0.1",
            r#"23: [[floating_ip]] address: expected an address that other machines can reach, found "127.0.0.1""#,
        ),
        (
            "203.0.113.10/32",
            "10.0.1.10",
            r#"22: [[floating_ip]] address: 10.0.1.10 is an address of node "gw1""#,
        ),
        (
            "203.0.113.10/32",
            "10.0.2.10",
            r#"22: [[floating_ip]] address: 10.0.2.10 is an address of node "gw2""#,
        ),
        (
            "interface = \"eth0\"",
            "interface = \"a-name-too-long0\"",
            r#"24: [[floating_ip]] interface: expected an interface name of 1 to 15 bytes, found "a-name-too-long0""#,
        ),
        (
            "\n[[wireguard]]",
            "[[floating_ip]]\naddress = \"203.0.113.10\"\ninterface = \"eth1\"\n[[wireguard]]\nsource = []",
            "25: [[floating_ip]] address: 203.0.113.10 is also the floating IP of line 22",
        ),
        // [[wireguard]].
        (
            "\"wg0\"",
            "\"wireguard-long-0\"",
            r#"27: [[wireguard]] interface: expected an interface name of 1 to 15 bytes, found "wireguard-long-0""#,
        ),
        (
            "\"wg0\"",
            "\"wg 0\"",
            r#"27: [[wireguard]] interface: expected letters, digits and _=+.- alone, found "wg 0""#,
        ),
        ("\"wg0\"", "\"eth0\"", r#"26: [[wireguard]] interface: "eth0" carries a floating IP"#),
        (
            "/etc/wireguard/wg0.conf",
            "wg0.conf",
            r#"28: [[wireguard]] config: expected an absolute path, found "wg0.conf""#,
        ),
        (
            "config = \"/etc",
            "backend = \"fast\"\nconfig = \"/etc",
            r#"28: [[wireguard]] backend: expected "auto", "kernel" or "embedded", found "fast""#,
        ),
        (
            "config = \"/etc",
            "source = [\"203.0.113.11\"]\nconfig = \"/etc",
            r#"28: [[wireguard]] source: expected one of the floating IPs, found "203.0.113.11""#,
        ),
        (
            "config = \"/etc",
            "source = [\"203.0.113.10/32\"]\nconfig = \"/etc",
            r#"28: [[wireguard]] source: expected an IP address without port or prefix, such as "203.0.113.10", found "203.0.113.10/32""#,
        ),
        (
            "config = \"/etc",
            "source = \"203.0.113.10\"\nconfig = \"/etc",
            r#"28: [[wireguard]] source: expected an array of floating IPs, such as ["203.0.113.10"], found "203.0.113.10""#,
        ),
        (
            "\n[[hook]]",
            "[[wireguard]]\ninterface = \"wg0\"\nconfig = \"/etc/wireguard/wg1.conf\"\n[[hook]]",
            r#"29: [[wireguard]] interface: "wg0" is also the interface of line 26"#,
        ),
        // [[hook]].
        (
            "run = [\"/etc/wgha/notify.sh\", \"edge\"]",
            "",
            r#"30: [[hook]] run: missing; expected a program and its arguments, such as ["/etc/wgha/notify.sh"]"#,
        ),
        (
            "run = [\"/etc/wgha/notify.sh\", \"edge\"]",
            "run = []",
            r#"32: [[hook]] run: expected a program and its arguments, such as ["/etc/wgha/notify.sh"]: 1 to 64 words"#,
        ),
        (
            "run = [\"/etc/wgha/notify.sh\", \"edge\"]",
            "run = \"/etc/wgha/notify.sh\"",
            r#"32: [[hook]] run: expected a program and its arguments, such as ["/etc/wgha/notify.sh"], found "/etc/wgha/notify.sh""#,
        ),
        (
            "/etc/wgha/notify.sh",
            "notify.sh",
            r#"32: [[hook]] run: expected an absolute path, found "notify.sh""#,
        ),
        (
            "\"stop\"",
            "\"init\"",
            r#"31: [[hook]] on: expected "master", "backup", "fault" or "stop", found "init""#,
        ),
        ("\"stop\"", "\"master\"", r#"31: [[hook]] on: "master" is named twice"#),
        (
            "[[hook]]",
            "[[hook]]\ntimeout = \"1h\"",
            r#"31: [[hook]] timeout: expected a duration of 100ms to 10m, such as "200ms", found "1h""#,
        ),
        // [sync].
        (
            "[[hook]]",
            "[sync]\nfiles = [\"wg0.conf\"]\n[[hook]]",
            r#"31: [sync] files: expected an absolute path of at most 512 bytes, without "." and "..", found "wg0.conf""#,
        ),
        (
            "[[hook]]",
            "[sync]\nfiles = [\"/etc/../etc/x\"]\n[[hook]]",
            r#"31: [sync] files: expected an absolute path of at most 512 bytes, without "." and "..", found "/etc/../etc/x""#,
        ),
        (
            "[[hook]]",
            "[sync]\nfiles = [\"/etc/d/\", \"/etc/d/x\"]\n[[hook]]",
            "31: [sync] files: /etc/d/x: is in a directory that is named as well",
        ),
        (
            "[[hook]]",
            "[sync]\nfiles = [\"/etc/x\", \"/etc/x/\"]\n[[hook]]",
            "31: [sync] files: /etc/x: is named twice",
        ),
        (
            "[[hook]]",
            "[sync]\nfiles = [\"/etc/wgha/cluster.key\"]\n[[hook]]",
            "31: [sync] files: /etc/wgha/cluster.key: the key file is not synced: copy it as docs/operations.md says",
        ),
        (
            "[[hook]]",
            "[sync]\nfiles = [\"/var/lib/\"]\n[[hook]]",
            "31: [sync] files: /var/lib: the state directory is this node's own",
        ),
        // [control].
        (
            "[[hook]]",
            "[control]\nsocket = \"wgha.sock\"\n[[hook]]",
            r#"31: [control] socket: expected an absolute path, found "wgha.sock""#,
        ),
    ] {
        assert_eq!(error(&pair(from, to)), expected, "{from:?} -> {to:?}");
    }
}

#[test]
fn all_mistakes_at_once() {
    let text =
        pair("200ms", "1ms").replace("priority = 150", "prority = 1").replace("/wg0.conf", "");
    let text = text.replace("\"/etc/wireguard\"", "3").replace("\"w1\"", "\"w 1\"");
    let errors = parse(&text).unwrap_err();
    let lines: Vec<_> = errors.errors.iter().map(|e| e.line).collect();
    assert_eq!(lines, [Some(5), Some(11), Some(18), Some(28)], "{errors}");
    let shown = errors.to_string();
    assert_eq!(shown.lines().count(), 4);
    assert!(shown.starts_with("/etc/wgha/wgha.toml:5: [cluster] heartbeat: expected"), "{shown}");
}

#[test]
fn what_is_no_toml() {
    let text = pair("misses = 3", "misses = = 3");
    assert_eq!(error(&text), "6: extra `=`, expected nothing");
    let errors = parse(&text.replace("priority = ", "priority ")).unwrap_err().errors;
    assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [Some(6), Some(11)]);
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let errors = parse("").unwrap_err().to_string();
    assert_eq!(
        errors,
        "/etc/wgha/wgha.toml: [cluster]: missing; expected a table with name and key_file\n\
         /etc/wgha/wgha.toml: [[node]]: missing; expected one for each node of the cluster"
    );
}

/// Real tags have 64 bits, and nobody has found two names with one; here they have one letter.
#[test]
fn names_with_one_tag() {
    let node = |name: &str| Node {
        name: name.to_owned(),
        addresses: Vec::new(),
        priority: 100,
        witness: false,
    };
    let named = [("a1", 5), ("b1", 8), ("a2", 11)];
    let nodes = named.map(|(name, line)| section::At { line, value: node(name) });
    let mut sink = section::Sink::new("");
    rules::node_tags(&mut sink, &nodes, |name| name.chars().next());
    let errors: Vec<String> = sink.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [r#"11: [[node]] name: "a2" cannot be told from "a1" on the wire; rename one"#]
    );
}

#[test]
fn witnesses_only() {
    let text = "[cluster]\nname = \"a\"\nkey_file = \"/k\"\n[[node]]\nname = \"w\"\n\
                addresses = [\"10.0.1.10\"]\nwitness = true\n";
    assert_eq!(
        error(text),
        "[[node]] witness: all nodes are witnesses; expected at least one gateway"
    );
}

#[test]
fn too_many_nodes_and_addresses() {
    let node = |i: usize| format!("[[node]]\nname = \"n{i}\"\naddresses = [\"10.0.1.{i}\"]\n");
    let head = "[cluster]\nname = \"a\"\nkey_file = \"/k\"\n";
    let nodes: String = (1..=17).map(node).collect();
    assert_eq!(
        error(&format!("{head}{nodes}")),
        "52: [[node]]: expected at most 16 nodes, found 17"
    );
    let nodes: String = (1..=16).map(node).collect();
    assert_eq!(parse(&format!("{head}{nodes}")).unwrap().nodes.len(), 16);
    let nine = ["\"10.0.1.10\""; 9].join(", ");
    assert_eq!(
        error(&pair("\"10.0.1.10:5112\"", &nine)),
        "10: [[node]] addresses: expected 1 to 8 addresses, found 9"
    );
}

#[test]
fn synced_files_and_directories() {
    let files = r#"["/etc/wireguard/wg0.conf", "/etc/wgha/conf.d/"]"#;
    let config = parse(&pair("[[hook]]", &format!("[sync]\nfiles = {files}\n[[hook]]"))).unwrap();
    let file = |path: &str, directory| SyncFile { path: path.into(), directory };
    let expected = [file("/etc/wireguard/wg0.conf", false), file("/etc/wgha/conf.d", true)];
    assert_eq!(config.sync, expected);
    for (path, synced) in [
        ("/etc/wireguard/wg0.conf", true),
        ("/etc/wgha/conf.d/x", true),
        ("/etc/wgha/conf.d", false),
        ("/etc/wireguard/wg1.conf", false),
    ] {
        assert_eq!(config.is_synced(Path::new(path)), synced, "{path}");
    }
    assert_eq!(parse(PAIR).unwrap().sync, []);
}

#[test]
fn http_listens_where_it_is_told() {
    assert_eq!(parse(PAIR).unwrap().http, None);
    let listen = |text: &str| parse(&format!("{PAIR}[http]\nlisten = {text}\n"));
    for good in ["127.0.0.1:9112", "0.0.0.0:80", "[::]:9112", "[fd00::1]:9112", "203.0.113.10:9112"]
    {
        let config = listen(&format!("{good:?}")).unwrap();
        assert_eq!(config.http, Some(good.parse().unwrap()), "{good}");
    }
    for bad in [
        "127.0.0.1",
        ":9112",
        "localhost:9112",
        "127.0.0.1:0",
        "224.0.0.1:9112",
        "[fe80::1%2]:9112",
    ] {
        let errors = listen(&format!("{bad:?}")).unwrap_err().to_string();
        assert!(errors.contains(":34: [http] listen: expected an"), "{errors}");
        assert!(errors.ends_with(&format!("found {bad:?}")), "{errors}");
    }
    // The sync channel listens there.
    for taken in ["10.0.1.10:5112", "0.0.0.0:5112", "10.0.2.10:5112"] {
        let errors = listen(&format!("{taken:?}")).unwrap_err().to_string();
        assert!(errors.contains("[http] listen: the nodes' own port"), "{errors}");
    }
    listen("\"127.0.0.1:5112\"").unwrap();
}

#[test]
fn the_probe_listens_beside_http() {
    assert_eq!(parse(PAIR).unwrap().probe, None);
    let config = parse(&format!("{PAIR}[probe]\nlisten = \"203.0.113.10:9113\"\n")).unwrap();
    assert_eq!(config.probe, Some("203.0.113.10:9113".parse().unwrap()));
    let said = error(&format!("{PAIR}[probe]\nlisten = \"here\"\n"));
    assert!(said.starts_with("34: [probe] listen: expected an address and port"), "{said}");
    let said = error(&format!("{PAIR}[probe]\nlisten = \"0.0.0.0:5112\"\n"));
    assert!(said.starts_with("34: [probe] listen: the nodes' own port"), "{said}");
    for (http, probe) in [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "10.0.1.10:1")] {
        for (http, probe) in [(http, probe), (probe, http)] {
            let tables = format!("[http]\nlisten = \"{http}\"\n[probe]\nlisten = \"{probe}\"\n");
            let said = error(&format!("{PAIR}{tables}"));
            let expected = format!("36: [probe] listen: {probe} is that of [http]");
            assert!(said.starts_with(&expected), "{said}");
        }
    }
}

/// [`PAIR`] with a check of this text behind its name, at line 35.
fn with_check(text: &str) -> String {
    format!("{PAIR}[[check]]\nname = \"uplink\"\n{text}\n")
}

#[test]
fn checks_of_each_kind() {
    let target = |host: &str, port| Target { host: host.to_owned(), port };
    let http = |host, port, path: &str, status, body: Option<&str>| {
        let (target, body) = (target(host, port), body.map(str::to_owned));
        CheckKind::Http(HttpCheck { target, path: path.to_owned(), status, body })
    };
    for (text, kind) in [
        ("ping = \"203.0.113.1\"", CheckKind::Ping("203.0.113.1".parse().unwrap())),
        ("ping = \"fd00::1\"", CheckKind::Ping("fd00::1".parse().unwrap())),
        ("interface = \"eth0\"", CheckKind::Interface("eth0".to_owned(), None)),
        (
            "interface = \"eth0\"\naddress = \"10.0.1.10\"",
            CheckKind::Interface("eth0".to_owned(), Some("10.0.1.10".parse().unwrap())),
        ),
        ("tcp = \"10.0.3.4:22\"", CheckKind::Tcp(target("10.0.3.4", 22))),
        ("tcp = \"[fd00::1]:22\"", CheckKind::Tcp(target("fd00::1", 22))),
        ("tcp = \"db.example:5432\"", CheckKind::Tcp(target("db.example", 5432))),
        ("http = \"http://10.0.3.4\"", http("10.0.3.4", 80, "/", None, None)),
        (
            "http = \"http://[fd00::1]:8080/a?b=c\"\nstatus = 204\nbody = \"up\"",
            http("fd00::1", 8080, "/a?b=c", Some(204), Some("up")),
        ),
        (
            "script = [\"/etc/wgha/check\", \"x\"]",
            CheckKind::Script(vec!["/etc/wgha/check".to_owned(), "x".to_owned()]),
        ),
        ("wireguard = \"wg0\"", CheckKind::Wireguard("wg0".to_owned(), None)),
        (
            "wireguard = \"wg0\"\nhandshake_within = \"5m\"",
            CheckKind::Wireguard("wg0".to_owned(), Some(Duration::from_secs(300))),
        ),
    ] {
        let config = parse(&with_check(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
        let default = Check {
            name: "uplink".to_owned(),
            kind,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        assert_eq!(config.checks, [default], "{text}");
    }
    let own = "ping = \"10.0.0.1\"\ninterval = \"10s\"\ntimeout = \"5s\"\nrise = 1\nfall = 100";
    let config = parse(&with_check(own)).unwrap();
    let Check { interval, timeout, rise, fall, .. } = config.checks[0].clone();
    assert_eq!((interval.as_secs(), timeout.as_secs(), rise, fall), (10, 5, 1, 100));
}

#[test]
fn checks_that_cannot_be() {
    for (text, expected) in [
        (
            "",
            "33: [[check]]: expected one of ping, interface, tcp, http, script, wireguard, found 0",
        ),
        (
            "ping = \"10.0.0.1\"\ntcp = \"10.0.0.1:1\"",
            "33: [[check]]: expected one of ping, interface, tcp, http, script, wireguard, found 2",
        ),
        ("ping = \"router\"", "35: [[check]] ping: expected an IP address"),
        ("ping = \"fe80::1\"", "35: [[check]] ping: expected an address that is not link-local"),
        ("ping = \"224.0.0.1\"", "35: [[check]] ping: expected the address of one machine"),
        ("tcp = \"10.0.0.1\"", "35: [[check]] tcp: expected a host and port"),
        ("tcp = \"fd00::1:22\"", "35: [[check]] tcp: expected a host and port"),
        ("tcp = \"[fd00::1\"", "35: [[check]] tcp: expected a host and port"),
        ("tcp = \"[10.0.0.1]:22\"", "35: [[check]] tcp: expected a host and port"),
        ("tcp = \"a b:22\"", "35: [[check]] tcp: expected a host and port"),
        ("tcp = \"host:0\"", "35: [[check]] tcp: expected a host and port"),
        ("tcp = \"host:+22\"", "35: [[check]] tcp: expected a host and port"),
        ("http = \"https://host/\"", "35: [[check]] http: expected a URL that begins with"),
        ("http = \"http://host/a b\"", "35: [[check]] http: expected a URL"),
        ("http = \"http://host/\\r\\nX: y\"", "35: [[check]] http: expected a URL"),
        ("http = \"http://user@host/\"", "35: [[check]] http: expected a URL"),
        ("http = \"http://host\"\nstatus = 600", "36: [[check]] status: expected a whole number"),
        ("http = \"http://host\"\nbody = \"\"", "36: [[check]] body: expected a text"),
        ("script = [\"check\"]", "35: [[check]] script: expected an absolute path"),
        ("wireguard = \"wg1\"", "33: [[check]] wireguard: expected the interface of a [[wireg"),
        (
            "ping = \"10.0.0.1\"\nhandshake_within = \"5m\"",
            "36: [[check]] handshake_within: expected wireguard beside it",
        ),
        (
            "wireguard = \"wg0\"\nhandshake_within = \"2m\"",
            "36: [[check]] handshake_within: expected a duration",
        ),
        ("ping = \"10.0.0.1\"\nbody = \"x\"", "36: [[check]] body: expected http beside it"),
        ("ping = \"10.0.0.1\"\nstatus = 200", "36: [[check]] status: expected http beside it"),
        (
            "ping = \"10.0.0.1\"\naddress = \"10.0.0.2\"",
            "36: [[check]] address: expected interface beside it",
        ),
        ("ping = \"10.0.0.1\"\nrise = 0", "36: [[check]] rise: expected a whole number of 1"),
        ("ping = \"10.0.0.1\"\ninterval = \"1ms\"", "36: [[check]] interval: expected a dur"),
        (
            "ping = \"10.0.0.1\"\n[[check]]\nname = \"uplink\"\nping = \"10.0.0.1\"",
            "36: [[check]] name: \"uplink\" is also the check of line 33",
        ),
    ] {
        // A kind that cannot be read is not missing as well.
        let errors = parse(&with_check(text)).expect_err(text).errors;
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|s| s.starts_with(expected)), "{text:?}: {said:?}");
        assert_eq!(said.len(), 1, "{text:?}: {said:?}");
    }
}

#[test]
fn users_of_the_daemon_and_of_programs() {
    let of = |worker: &str, hook: &str| {
        let text = PAIR.replacen("[cluster]\n", &format!("[cluster]\n{worker}"), 1);
        text.replacen("[[hook]]\n", &format!("[[hook]]\n{hook}"), 1)
    };
    let (wgha, other) = ("user = \"wgha\"\n", "user = \"other\"\n");
    for (worker, hook, users) in [
        ("", "", (None, None)),
        (wgha, "", (Some("wgha"), None)),
        (wgha, wgha, (Some("wgha"), Some("wgha"))),
        ("", other, (None, Some("other"))),
    ] {
        let config = parse(&of(worker, hook)).unwrap();
        let found = (config.cluster.user.as_deref(), config.hooks[0].user.as_deref());
        assert_eq!(found, users);
    }
    let message = error(&of(wgha, other));
    assert!(
        message.contains("[[hook]] user: \"other\" is not the user of [cluster], \"wgha\""),
        "{message}"
    );
    let claim = format!("{}[[claim]]\nrun = [\"/x\"]\n{other}", of(wgha, ""));
    let message = error(&claim);
    assert!(message.contains("[[claim]] user: \"other\" is not the user"), "{message}");
    for bad in ["root", "", "a b", "../x"] {
        let message = error(&of(&format!("user = {bad:?}\n"), ""));
        assert!(message.contains("expected the name of a user that is not root"), "{message}");
    }
}

/// A key that the schema has but nobody reads would be ignored silently.
#[test]
fn every_key_of_the_schema_is_read() {
    let wrong_type = "1979-05-27";
    for table in TABLES {
        for key in table.keys {
            let header = table.header();
            let errors =
                parse(&format!("{header}\n{key} = {wrong_type}\n")).unwrap_err().to_string();
            let expected = format!("wgha.toml:2: {header} {key}: expected");
            assert!(errors.contains(&expected), "{expected}\n{errors}");
        }
    }
    for key in ADDRESS.keys {
        let text = format!("[[node]]\naddresses = [{{ {key} = {wrong_type} }}]\n");
        let errors = parse(&text).unwrap_err().to_string();
        let expected = format!("wgha.toml:2: [[node.addresses]] {key}: expected");
        assert!(errors.contains(&expected), "{expected}\n{errors}");
    }
}

#[test]
fn the_local_node() {
    let found = |node: Option<&str>, bench: &Bench| {
        let config = parse_on(PAIR, node, bench).unwrap();
        (config.node().name.clone(), config.found(node, bench).unwrap().to_string())
    };
    let pairs = [
        // Each row has everything that the rows below it have.
        (
            Some("w1"),
            Bench { variable: Some("gw2"), hostname: "gw2", ..gw1() },
            "w1",
            "--node names it",
        ),
        (
            None,
            Bench { variable: Some("gw2"), hostname: "w1", ..gw1() },
            "gw2",
            "WGHA_NODE names it",
        ),
        (None, Bench { hostname: "w1", ..gw1() }, "gw1", "this machine has its address 10.0.1.10"),
        (None, Bench { hostname: "w1", ..Bench::default() }, "w1", "this host's name is w1"),
        (
            None,
            Bench { hostname: "w1.example.org", ..Bench::default() },
            "w1",
            "this host's name is w1.example.org",
        ),
        // Behind a NAT it is the address that is bound.
        (
            None,
            Bench { addresses: vec!["10.0.2.10".parse().unwrap()], ..Bench::default() },
            "gw2",
            "this machine has its address 10.0.2.10",
        ),
    ];
    for (node, bench, name, why) in pairs {
        assert_eq!(found(node, &bench), (name.to_owned(), why.to_owned()));
    }
}

#[test]
fn no_node_of_mine() {
    let stranger = Bench { hostname: "db", ..Bench::default() };
    assert_eq!(
        error_on(PAIR, None, &stranger),
        "[[node]]: none of the nodes is this machine: it has no address of gw1, gw2, w1 and its \
         name is \"db\"; expected --node, WGHA_NODE, or an address or name of this machine"
    );
    assert_eq!(
        error_on(PAIR, Some("gw3"), &gw1()),
        "[[node]]: --node is \"gw3\"; expected one of gw1, gw2, w1"
    );
    let variable = Bench { variable: Some("gw3"), ..gw1() };
    assert_eq!(
        error_on(PAIR, None, &variable),
        "[[node]]: WGHA_NODE is \"gw3\"; expected one of gw1, gw2, w1"
    );
}

#[test]
fn two_matches_for_mine() {
    let both = Bench {
        addresses: vec!["10.0.1.10".parse().unwrap(), "10.0.3.10".parse().unwrap()],
        ..Bench::default()
    };
    assert_eq!(
        error_on(PAIR, None, &both),
        "[[node]]: two nodes are this machine: it has 10.0.1.10 of gw1 and 10.0.3.10 of w1; \
         expected --node or WGHA_NODE to say which"
    );
    assert_eq!(parse_on(PAIR, Some("w1"), &both).unwrap().node().name, "w1");
}

/// A second floating IP of IPv4, on eth1, and one of IPv6, on eth0.
fn three_floating_ips() -> String {
    let more = "[[floating_ip]]\naddress = \"203.0.113.11\"\ninterface = \"eth1\"\n\
                [[floating_ip]]\naddress = \"2001:db8::10\"\ninterface = \"eth0\"\n";
    format!("{PAIR}{more}")
}

#[test]
fn the_default_source() {
    let sources = |text: &str, routes: &[&'static str]| {
        let bench = Bench { default_routes: routes.to_vec(), ..gw1() };
        let config = parse_on(text, None, &bench)?;
        Ok(config.wireguard[0].source.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let three = three_floating_ips();
    assert_eq!(sources(&three, &["eth0"]), Ok(vec!["203.0.113.10".into(), "2001:db8::10".into()]));
    // The default routes are elsewhere: no floating IP faces the clients.
    assert_eq!(sources(PAIR, &["eth7"]), Ok(vec![]));
    assert_eq!(sources(PAIR, &[]), Ok(vec!["203.0.113.10".into()]));
    for routes in [&["eth0", "eth1"][..], &[]] {
        let errors: ConfigErrors = sources(&three, routes).unwrap_err();
        assert_eq!(
            errors.errors[0].to_string(),
            "26: [[wireguard]] source: ambiguous: 203.0.113.10 and 203.0.113.11 both could be it; \
             expected source to name at most one floating IP of each family"
        );
    }
}

#[test]
fn a_named_source() {
    let text = three_floating_ips();
    let with = |source: &str| text.replace("wg0.conf\"", &format!("wg0.conf\"\nsource = {source}"));
    let config = parse(&with(r#"["2001:db8::10", "203.0.113.11"]"#)).unwrap();
    let named: Vec<String> = config.wireguard[0].source.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["2001:db8::10", "203.0.113.11"]);
    assert_eq!(
        error(&with(r#"["203.0.113.10", "203.0.113.11"]"#)),
        "29: [[wireguard]] source: expected at most one address of a family, \
         found 203.0.113.10 and 203.0.113.11"
    );
}

#[test]
fn the_fingerprint_covers_what_must_agree() {
    let material = [vec![1, 2, 3]];
    let print = |text: &str, node: &str| {
        fingerprint(&parse_on(text, Some(node), &gw1()).unwrap(), Some(&material))
    };
    let original = print(PAIR, "gw1");
    for (from, to) in [
        ("\"gw1\"", "\"gw1\" # comment"),
        ("/etc/wgha/cluster.key", "/etc/other.key"),
        ("interface = \"eth0\"", "interface = \"ens5\""),
        ("\"/etc/wgha/notify.sh\"", "\"/bin/true\""),
        ("misses = 3", "misses = 3\nstate_dir = \"/srv\""),
        ("bind = \"10.0.2.10:5112\"", "bind = \"10.0.2.11:5112\""),
        ("10.0.3.10", "10.0.3.10:5112"),
    ] {
        assert_eq!(print(&pair(from, to), "gw1"), original, "{from:?} -> {to:?}");
    }
    assert_eq!(print(PAIR, "gw2"), original);
    for (from, to) in [
        ("\"edge\"", "\"edgy\""),
        ("200ms", "201ms"),
        ("misses = 3", "misses = 4"),
        ("misses = 3", "misses = 3\npreempt = true"),
        ("misses = 3", "misses = 3\nhandover_timeout = \"501ms\""),
        ("priority = 150", "priority = 151"),
        ("\"gw2\"", "\"gw3\""),
        ("10.0.3.10", "10.0.3.11"),
        ("witness = true", "witness = false"),
        ("203.0.113.10/32", "203.0.113.11/32"),
        ("wg0.conf\"", "wg0.conf\"\nsource = []"),
    ] {
        assert_ne!(print(&pair(from, to), "gw1"), original, "{from:?} -> {to:?}");
    }
    let config = parse(PAIR).unwrap();
    assert_ne!(fingerprint(&config, Some(&[vec![1, 2], vec![3]])), original);
    assert_ne!(fingerprint(&config, Some(&[])), original);
    // A witness cannot know: its half is zero, and the other one agrees.
    let witness = fingerprint(&config, None);
    assert_eq!((&witness[..8], &witness[8..]), (&original[..8], &[0; 8][..]));
}

#[test]
fn files_are_read_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgha.toml");
    let message = Config::load(&path, None).unwrap_err().to_string();
    assert!(message.contains("wgha.toml: cannot be read: No such file"), "{message}");
    std::fs::write(&path, "#".repeat(MAX_FILE as usize + 1)).unwrap();
    let message = Config::load(&path, None).unwrap_err().to_string();
    assert!(message.contains("longer than 1048576 bytes"), "{message}");
    std::fs::write(&path, PAIR).unwrap();
    assert_eq!(Config::load(&path, Some("gw2")).unwrap().node().name, "gw2");
}

const DOCUMENTATION: &str = include_str!("../../docs/configuration.md");

/// (header, key, default) of every row of the documentation's tables.
fn documented() -> Vec<(String, String, String)> {
    let (mut rows, mut header) = (Vec::new(), "");
    for line in DOCUMENTATION.lines() {
        if let Some(rest) = line.strip_prefix("## `") {
            header = rest.trim_end_matches('`');
        } else if let Some(rest) = line.strip_prefix("| `") {
            let (key, _) = rest.split_once('`').unwrap();
            let default = line.split(" | ").nth(2).unwrap();
            rows.push((header.to_owned(), key.to_owned(), default.to_owned()));
        }
    }
    rows
}

/// The documentation and the schema name the same keys, in the same order.
#[test]
fn the_documentation_names_every_key() {
    let found: Vec<_> = documented().into_iter().map(|(header, key, _)| (header, key)).collect();
    let [cluster, node, rest @ ..] = TABLES;
    let mut known = Vec::new();
    for table in [cluster, node, &ADDRESS].into_iter().chain(rest) {
        known.extend(table.keys.iter().map(|key| (table.header(), (*key).to_owned())));
    }
    assert_eq!(found, known);
}

/// What the documentation calls required is what the parser requires, and nothing else.
#[test]
fn the_documentation_says_what_is_required() {
    for (header, key, default) in documented() {
        let empty = match header.as_str() {
            "[[node.addresses]]" => "[[node]]\naddresses = [{}]\n".to_owned(),
            _ => format!("{header}\n"),
        };
        let errors = parse(&empty).unwrap_err().to_string();
        let missing = errors.contains(&format!("{header} {key}: missing"));
        assert_eq!(missing, default == "required", "{header} {key}\n{errors}");
    }
}

/// Every example is accepted, as each of its nodes.
#[test]
fn the_examples_are_valid() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/examples");
    let bench = Bench { default_routes: vec!["eth0"], ..Bench::default() };
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let names: Vec<String> = ["gw1", "gw2", "w1"]
            .into_iter()
            .filter(|name| text.contains(&format!("name = \"{name}\"")))
            .map(str::to_owned)
            .collect();
        for name in &names {
            let config = Config::parse(&text, &path, Some(name), &bench)
                .unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(config.nodes.len(), names.len(), "{}", path.display());
        }
        files += 1;
    }
    assert_eq!(files, 7, "an example came or went: see docs/configuration.md");
}
