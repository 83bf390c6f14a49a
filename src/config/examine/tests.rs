//! One trouble of the machine each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

const PRIVATE_KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PEER_KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// A pair that has nothing wrong, in a directory of its own, and the machine that it runs on.
struct Bench {
    dir: tempfile::TempDir,
    config: String,
    node: &'static str,
    addresses: Vec<IpAddr>,
    interfaces: Vec<&'static str>,
    default_routes: Vec<&'static str>,
    files: BTreeMap<PathBuf, String>,
}

impl Machine for Bench {
    fn node_variable(&self) -> Option<String> {
        None
    }

    fn hostname(&self) -> Option<String> {
        None
    }

    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(self.addresses.clone())
    }

    fn interfaces(&self) -> io::Result<BTreeSet<String>> {
        Ok(self.interfaces.iter().map(|name| (*name).to_owned()).collect())
    }

    fn default_routes(&self, _v6: bool) -> io::Result<BTreeSet<String>> {
        Ok(self.default_routes.iter().map(|name| (*name).to_owned()).collect())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let inside = |path: &&PathBuf| path.parent() == Some(directory);
        Ok(self.files.keys().filter(inside).cloned().collect())
    }
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path().display();
        let config = format!(
            r#"
[cluster]
name = "edge"
key_file = "{d}/cluster.key"
[[node]]
name = "gw1"
addresses = ["10.0.1.10:5112"]
[[node]]
name = "gw2"
addresses = ["10.0.1.11:5112"]
[[node]]
name = "w1"
addresses = ["10.0.1.12:5112"]
witness = true
[[floating_ip]]
address = "203.0.113.10"
interface = "eth0"
[[wireguard]]
interface = "wg0"
config = "{d}/wg0.conf"
[[hook]]
on = ["master"]
run = ["{d}/notify.sh"]
"#
        );
        let bench = Bench {
            dir,
            config,
            node: "gw1",
            addresses: vec!["10.0.1.10".parse().unwrap()],
            interfaces: vec!["lo", "eth0"],
            default_routes: vec!["eth0"],
            files: BTreeMap::from([
                ("/proc/sys/net/ipv4/ip_local_port_range".into(), "32768\t60999\n".to_owned()),
                ("/proc/sys/net/ipv4/ip_local_reserved_ports".into(), "51820\n".to_owned()),
                ("/proc/sys/net/ipv4/ip_forward".into(), "1\n".to_owned()),
                ("/proc/sys/net/ipv6/conf/all/forwarding".into(), "1\n".to_owned()),
            ]),
        };
        let ring = keyfile::generate(1).unwrap();
        bench.write("cluster.key", 0o600, &ring.to_text());
        bench.write("wg0.conf", 0o600, &wg_conf(51820));
        bench.write("notify.sh", 0o755, "#!/bin/sh\n");
        bench
    }

    fn write(&self, name: &str, mode: u32, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that the machine alone shows.
    fn system(&mut self, path: &str, text: &str) {
        self.files.insert(path.into(), text.to_owned());
    }

    /// What is found, with the directory's name cut out.
    fn examine(&self) -> Findings {
        let path = Path::new("/etc/wgha/wgha.toml");
        let config = Config::parse(&self.config, path, Some(self.node), self).unwrap();
        let mut found = examine(&config, self);
        let directory = format!("{}/", self.dir.path().display());
        for list in [&mut found.errors, &mut found.warnings, &mut found.unseen] {
            list.iter_mut().for_each(|line| *line = line.replace(&directory, ""));
        }
        found
    }

    /// The one error; nothing else is found.
    fn error(&self) -> String {
        let found = self.examine();
        assert_eq!((found.errors.len(), found.unseen.len()), (1, 0), "{found:#?}");
        assert!(found.warnings.is_empty(), "{found:#?}");
        found.errors[0].clone()
    }

    /// The one warning; nothing else is found.
    fn warning(&self) -> String {
        let found = self.examine();
        assert_eq!((found.warnings.len(), found.unseen.len()), (1, 0), "{found:#?}");
        assert!(found.errors.is_empty(), "{found:#?}");
        found.warnings[0].clone()
    }
}

fn wg_conf(port: u16) -> String {
    format!(
        "[Interface]\nPrivateKey = {PRIVATE_KEY}\nListenPort = {port}\nAddress = 10.99.0.1/24\n\n\
         [Peer]\nPublicKey = {PEER_KEY}\nAllowedIPs = 10.99.0.2/32\n"
    )
}

#[test]
fn nothing_wrong() {
    let found = Bench::new().examine();
    assert!(found.errors.is_empty() && found.warnings.is_empty(), "{found:#?}");
    assert!(found.unseen.is_empty(), "{found:#?}");
    assert_eq!(found.listen_ports, [Some(51820)]);
}

#[test]
fn key_file_missing() {
    let bench = Bench::new();
    fs::remove_file(bench.path("cluster.key")).unwrap();
    assert!(bench.error().starts_with("cluster.key: cannot be read: No such file"));
}

#[test]
fn key_file_readable_by_others() {
    let bench = Bench::new();
    fs::set_permissions(bench.path("cluster.key"), Permissions::from_mode(0o644)).unwrap();
    let expected = "cluster.key: can be read or written by others (mode 0644); expected mode 0600";
    assert_eq!(bench.error(), expected);
}

#[test]
fn key_too_short() {
    let bench = Bench::new();
    bench.write("cluster.key", 0o600, "gateway 1 c2hvcnQ=\n");
    let expected = "cluster.key: line 1: the key is too short: 5 bytes, 32 are needed";
    assert_eq!(bench.error(), expected);
}

#[test]
fn a_witness_with_a_gateway_key() {
    let bench = Bench { node: "w1", addresses: vec!["10.0.1.12".parse().unwrap()], ..Bench::new() };
    let message = bench.error();
    assert!(message.starts_with("cluster.key: holds a gateway key, but this node is a witness"));
}

#[test]
fn a_gateway_with_a_witness_key() {
    let bench = Bench::new();
    let ring = keyfile::generate(1).unwrap().to_witness();
    bench.write("cluster.key", 0o600, &ring.to_text());
    let message = bench.error();
    assert!(message.starts_with("cluster.key: holds a witness key, but this node is a gateway"));
}

#[test]
fn a_witness_needs_nothing_of_a_gateway() {
    let mut bench =
        Bench { node: "w1", addresses: vec!["10.0.1.12".parse().unwrap()], ..Bench::new() };
    bench.interfaces.clear();
    bench.files.clear();
    for file in ["wg0.conf", "notify.sh"] {
        fs::remove_file(bench.path(file)).unwrap();
    }
    let ring = keyfile::load(&bench.path("cluster.key")).unwrap().to_witness();
    bench.write("cluster.key", 0o600, &ring.to_text());
    let found = bench.examine();
    assert!(found.errors.is_empty() && found.warnings.is_empty(), "{found:#?}");
}

#[test]
fn wireguard_file_missing() {
    let bench = Bench::new();
    fs::remove_file(bench.path("wg0.conf")).unwrap();
    let found = bench.examine();
    assert_eq!(found.errors.len(), 1, "{found:#?}");
    assert!(found.errors[0].starts_with("wg0.conf: cannot be read: No such file"));
    assert_eq!(found.listen_ports, [None]);
}

#[test]
fn wireguard_file_broken() {
    let bench = Bench::new();
    bench.write("wg0.conf", 0o600, &wg_conf(51820).replace("10.99.0.2/32", "10.99.0.256/32"));
    let message = bench.error();
    assert!(message.starts_with("wg0.conf: line 8, AllowedIPs: "), "{message}");
}

#[test]
fn wireguard_file_with_a_warning() {
    let bench = Bench::new();
    bench.write("wg0.conf", 0o644, &wg_conf(51820));
    assert!(bench.warning().contains("can be read by others"));
}

#[test]
fn two_tunnels_with_one_port() {
    let mut bench = Bench::new();
    let path = bench.path("wg0.conf");
    let second = format!("[[wireguard]]\ninterface = \"wg1\"\nconfig = \"{}\"\n", path.display());
    bench.config.push_str(&second);
    assert_eq!(bench.error(), "wg0 and wg1 both have ListenPort 51820");
}

#[test]
fn a_tunnel_on_the_port_of_heartbeats() {
    let bench = Bench::new();
    bench.write("wg0.conf", 0o600, &wg_conf(5112));
    assert_eq!(bench.error(), "wg0 has ListenPort 5112, the port of heartbeats");
}

#[test]
fn floating_ip_on_an_interface_that_does_not_exist() {
    let bench = Bench { interfaces: vec!["lo"], ..Bench::new() };
    assert_eq!(bench.error(), "floating IP 203.0.113.10: there is no interface eth0");
}

#[test]
fn hooks_that_cannot_run() {
    let bench = Bench::new();
    fs::set_permissions(bench.path("notify.sh"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(bench.error(), "hook notify.sh: is not executable");
    fs::remove_file(bench.path("notify.sh")).unwrap();
    assert!(bench.error().starts_with("hook notify.sh: No such file"));
    fs::create_dir(bench.path("notify.sh")).unwrap();
    assert_eq!(bench.error(), "hook notify.sh: is no regular file");
}

#[test]
fn checks_whose_script_cannot_run() {
    let mut bench = Bench::new();
    let script = bench.path("check.sh").display().to_string();
    bench.config += &format!("[[check]]\nname = \"own\"\nscript = [\"{script}\"]\n");
    assert!(bench.error().starts_with("check check.sh: No such file"));
}

/// Leaves out the table of this node.
fn without(config: &str, name: &str) -> String {
    let tables = config.split_inclusive("[[node]]\n");
    let named = format!("name = \"{name}\"");
    let kept: Vec<&str> = tables
        .map(|table| {
            if table.contains(&named) {
                table.find("[[").map_or("", |at| &table[at..])
            } else {
                table
            }
        })
        .collect();
    // Two headers in a row are left where the table stood.
    kept.concat().replace("[[node]]\n[[", "[[")
}

#[test]
fn leases_that_do_not_outlive_two_lost_heartbeats() {
    let timing = |heartbeat: &str, misses: u8, quorum: &str| {
        let mut bench = Bench::new();
        let lines = format!(
            "[cluster]\nheartbeat = \"{heartbeat}\"\nmisses = {misses}\nquorum = \"{quorum}\"\n"
        );
        bench.config = bench.config.replacen("[cluster]\n", &lines, 1);
        bench
    };
    let least = |bench: &mut Bench| {
        let warning = bench.warning();
        let (what, misses) = warning.split_once("use misses = ").expect("a hint");
        assert!(what.starts_with("two heartbeats lost in a row cost the lease: "), "{warning}");
        misses.to_owned()
    };
    // 2.5 % of the lease and 20 ms are the margin.
    assert_eq!(least(&mut timing("200ms", 2, "auto")), "3 or more");
    assert_eq!(least(&mut timing("20ms", 3, "auto")), "4 or more");
    assert_eq!(least(&mut timing("10ms", 3, "auto")), "5 or more");
    assert!(timing("200ms", 2, "none").warning().starts_with("quorum is \"none\": "));
}

#[test]
fn clusters_that_could_be_better() {
    let mut bench = Bench::new();
    bench.config = without(&bench.config, "w1");
    assert!(bench.warning().starts_with("there are two nodes: "));
    bench.config = without(&bench.config, "gw2");
    assert!(bench.warning().starts_with("there is one gateway: "));

    let mut bench = Bench::new();
    bench.config.push_str("[[node]]\nname = \"gw3\"\naddresses = [\"10.0.1.13\"]\n");
    assert!(bench.warning().starts_with("the number of nodes is even: 4 nodes"));
}

#[test]
fn an_etcd_that_cannot_be_asked_or_trusted() {
    let with = |arbiter: &str| {
        let mut bench = Bench::new();
        bench.config = without(&bench.config, "w1");
        bench.config.push_str(&format!("[arbiter]\n{arbiter}\n"));
        bench
    };
    let warning = with("etcd = [\"http://10.0.3.1:2379\"]").warning();
    let plain = "[arbiter] etcd = \"http://10.0.3.1:2379\": without TLS whoever is on the way";
    assert!(warning.starts_with(plain), "{warning}");
    for loopback in ["http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:2379"] {
        // Three voters.
        assert!(with(&format!("etcd = [\"{loopback}\"]")).examine().warnings.is_empty());
    }
    let bench = with("etcd = [\"https://10.0.3.1\"]\nca_file = \"/no/such.pem\"");
    assert!(bench.examine().errors[0].starts_with("[arbiter]: /no/such.pem: "));
    let mut bench =
        with("etcd = [\"http://127.0.0.1\"]\nuser = \"u\"\npassword_file = \"PASSWORD\"");
    let file = bench.dir.path().join("password");
    bench.config = bench.config.replace("PASSWORD", &file.display().to_string());
    fs::write(&file, "secret\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let errors = bench.examine().errors;
    assert!(errors[0].contains("can be read or written by others"), "{errors:?}");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.examine().errors, Vec::<String>::new());
    fs::write(&file, "\n").unwrap();
    assert!(bench.examine().errors[0].contains("has no password in its first line"));
}

#[test]
fn an_address_that_this_machine_does_not_have() {
    let bench = Bench { addresses: Vec::new(), ..Bench::new() };
    let expected = "this machine has no address 10.0.1.10, which node gw1 binds";
    assert_eq!(bench.warning(), expected);
}

#[test]
fn ports_that_others_may_be_given() {
    let mut bench = Bench::new();
    let reserved = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    bench.system(reserved, "8080,50000-51000\n");
    assert!(bench.examine().warnings.is_empty(), "the daemon reserves WireGuard's port itself");
    bench.config = bench.config.replace(":5112", ":40000");
    assert!(bench.warning().starts_with("UDP port 40000 (heartbeats) lies in the range"));
    bench.system(reserved, "8080,39000-41000\n");
    assert!(bench.examine().warnings.is_empty());
    bench.config = bench.config.replace(":40000", ":123");
    assert!(bench.warning().starts_with("UDP port 123 (heartbeats) is below 1024"));
}

#[test]
fn sources_that_lead_nowhere() {
    let mut bench = Bench { default_routes: Vec::new(), ..Bench::new() };
    assert_eq!(
        bench.warning(),
        "wg0: its source 203.0.113.10 is on eth0, which has no default route"
    );
    bench.config = bench.config.replace("wg0.conf\"", "wg0.conf\"\nsource = []");
    assert!(bench.warning().starts_with("wg0: no floating IP is its source"));
}

#[test]
fn a_machine_that_does_not_forward() {
    let mut bench = Bench::new();
    bench.system("/proc/sys/net/ipv4/ip_forward", "0\n");
    // No peer has an IPv6 prefix, so this one matters to nobody.
    bench.system("/proc/sys/net/ipv6/conf/all/forwarding", "0\n");
    assert!(bench.warning().starts_with("net.ipv4.ip_forward is 0"));
    let both = wg_conf(51820).replace("10.99.0.2/32", "10.99.0.2/32, fd00::2/128");
    bench.write("wg0.conf", 0o600, &both);
    let warnings = bench.examine().warnings;
    assert!(warnings.iter().any(|w| w.starts_with("net.ipv6.conf.all.forwarding is 0")));
}

#[test]
fn other_programs_that_want_the_interface() {
    for (path, text, expected) in [
        (
            "/etc/systemd/system/multi-user.target.wants/wg-quick@wg0.service",
            "",
            "wg-quick@wg0.service is enabled and would bring wg0 up at boot; disable it: \
             systemctl disable wg-quick@wg0.service",
        ),
        (
            "/etc/systemd/network/50-wg.netdev",
            "[NetDev]\nName = wg0\nKind = wireguard\n",
            "wg0 is also configured by systemd-networkd, in /etc/systemd/network/50-wg.netdev",
        ),
        (
            "/etc/NetworkManager/system-connections/wg.nmconnection",
            "[connection]\ninterface-name=wg0\n",
            "wg0 is also configured by NetworkManager, in \
             /etc/NetworkManager/system-connections/wg.nmconnection",
        ),
    ] {
        let mut bench = Bench::new();
        bench.system(path, text);
        assert_eq!(bench.warning(), expected);
        bench.config = bench.config.replace("\"wg0\"", "\"wg1\"");
        assert!(bench.examine().warnings.is_empty(), "{path} names another interface");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut bench = Bench::new();
    bench.files.remove(Path::new("/proc/sys/net/ipv4/ip_forward"));
    let found = bench.examine();
    assert!(found.errors.is_empty() && found.warnings.is_empty(), "{found:#?}");
    assert_eq!(found.unseen, ["/proc/sys/net/ipv4/ip_forward: entity not found"]);
}

/// A bench with this in `[sync] files`, below its directory.
fn synced(entry: &str) -> Bench {
    let mut bench = Bench::new();
    bench.config += &format!("[sync]\nfiles = [\"{}/{entry}\"]\n", bench.dir.path().display());
    bench
}

#[test]
fn a_synced_file_that_is_there_or_comes_later() {
    let bench = synced("wg0.conf");
    assert!(bench.examine().warnings.is_empty());
    fs::remove_file(bench.path("wg0.conf")).unwrap();
    let found = bench.warning();
    assert!(
        found.starts_with("wg0.conf: is not there: it comes from the other gateways"),
        "{found}"
    );
}

#[test]
fn synced_files_that_are_links() {
    let bench = synced("wg0.conf");
    fs::rename(bench.path("wg0.conf"), bench.path("real.conf")).unwrap();
    std::os::unix::fs::symlink("real.conf", bench.path("wg0.conf")).unwrap();
    let expected =
        "wg0.conf is a symbolic link to real.conf, which is not synced: name the file itself";
    assert_eq!(bench.error(), expected);
    // The link is what [[wireguard]] names, the file what is synced.
    let bench = synced("real.conf");
    fs::rename(bench.path("wg0.conf"), bench.path("real.conf")).unwrap();
    std::os::unix::fs::symlink("real.conf", bench.path("wg0.conf")).unwrap();
    let found = bench.warning();
    assert!(found.starts_with("wg0.conf is real.conf, which is synced"), "{found}");
    // A directory on the way.
    let bench = synced("link/f");
    fs::create_dir(bench.path("real")).unwrap();
    std::os::unix::fs::symlink("real", bench.path("link")).unwrap();
    assert!(bench.warning().starts_with("link/f lies in "), "{}", bench.warning());
}

#[test]
fn synced_directories_and_what_is_neither() {
    for (entry, expected) in [
        ("d", "is a directory: write d/ in [sync] files"),
        ("wg0.conf/", "wg0.conf/ in [sync] files is no directory"),
        ("socket", "socket is no regular file, and not synced"),
    ] {
        let bench = synced(entry);
        fs::create_dir(bench.path("d")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
        let found = bench.examine();
        let all: Vec<_> = found.errors.iter().chain(&found.warnings).collect();
        assert!(all.len() == 1 && all[0].ends_with(expected), "{entry}: {all:?}");
        drop(socket);
    }
}

#[test]
fn edits_that_lost_a_conflict() {
    let bench = synced("wg0.conf");
    bench.write("wg0.conf.conflict-gw2-20261122T034500Z", 0o600, "x");
    bench.write("other.conflict-gw2-20261122T034500Z", 0o600, "x");
    let found = bench.warning();
    assert!(found.starts_with("wg0.conf.conflict-gw2-20261122T034500Z is an edit"), "{found}");
}

#[test]
fn http_beyond_the_loopback_is_open_to_all() {
    for (listen, warned) in [
        ("127.0.0.1:9112", false),
        ("[::1]:9112", false),
        ("10.0.1.10:9112", true),
        ("[::]:9112", true),
    ] {
        let mut bench = Bench::new();
        bench.config += &format!("[http]\nlisten = {listen:?}\n");
        let found = bench.examine();
        assert!(found.errors.is_empty(), "{found:#?}");
        let named = found.warnings.iter().any(|w| w.contains(listen) && w.contains("no password"));
        assert_eq!((named, found.warnings.len()), (warned, usize::from(warned)), "{found:#?}");
    }
}
