//! A real etcd that votes: killed, stopped, compacted, slow; with TLS, client certificates, users and passwords.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cluster::{Cluster, Daemon, until_true};
use super::delay::Delay;
use super::voters::remember;

/// A detection time of a second: etcd waits for a disk that other tests use too.
const TIMING: (&str, u8) = ("200ms", 5);

/// One etcd of one member; killed when dropped.
struct Etcd {
    process: Child,
    /// Where the files are: in memory, as etcd waits for its disk, and this machine has other things to write.
    dir: PathBuf,
    _files: tempfile::TempDir,
    client: String,
    peer: String,
    tls: bool,
}

impl Etcd {
    fn start(cluster: &Cluster, tls: bool) -> Etcd {
        let files = tempfile::tempdir_in("/dev/shm").expect("memory for files");
        let dir = files.path().to_owned();
        if tls {
            certificates(&dir, cluster.address(200).ip().to_string());
        }
        let scheme = if tls { "https" } else { "http" };
        let client = format!("{scheme}://{}", cluster.address(200));
        let peer = format!("http://{}", cluster.address(201));
        let process = Etcd::spawn(&dir, &client, &peer, tls);
        let etcd = Etcd { process, dir, _files: files, client, peer, tls };
        etcd.answers();
        etcd
    }

    fn spawn(dir: &Path, client: &str, peer: &str, tls: bool) -> Child {
        let file = |name: &str| dir.join(name).display().to_string();
        let mut command = Command::new("etcd");
        command.args(["--data-dir", &file("data"), "--listen-client-urls", client]);
        command.args(["--advertise-client-urls", client, "--listen-peer-urls", peer]);
        command.args(["--initial-advertise-peer-urls", peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        if tls {
            command.args(["--cert-file", &file("server.pem"), "--key-file", &file("server.key")]);
            command.args(["--client-cert-auth", "--trusted-ca-file", &file("ca.pem")]);
        }
        let log = fs::File::options().append(true).create(true).open(dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().expect("etcd (install etcd-server)")
    }

    /// Killed, and started again.
    fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Etcd::spawn(&self.dir, &self.client, &self.peer, self.tls);
        self.answers();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
    }

    fn answers(&self) {
        let address = self.client.split_once("://").unwrap().1;
        until_true("etcd listens", || std::net::TcpStream::connect(address).is_ok());
        if self.tls {
            return;
        }
        until_true("etcd answers", || self.ctl(&["endpoint", "health"]).is_some());
    }

    /// `etcdctl` with these arguments; `None` if it fails.
    fn ctl(&self, args: &[&str]) -> Option<String> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.client]);
        if self.tls {
            command.args(["--cacert", &file("ca.pem"), "--cert", &file("client.pem")]);
            command.args(["--key", &file("client.key")]);
        }
        let output = command.args(args).output().expect("etcdctl (install etcd-client)");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    #[track_caller]
    fn must(&self, args: &[&str]) {
        until_true(&format!("etcdctl {args:?}"), || self.ctl(args).is_some());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let from = log.lines().count().saturating_sub(30);
            log.lines().skip(from).for_each(|line| eprintln!("etcd: {line}"));
        }
    }
}

/// A CA, a server's certificate and a client's.
fn certificates(dir: &Path, address: String) {
    let script = format!(
        "set -e; new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'
        openssl req -x509 $new -subj /CN=ca -keyout ca.key -out ca.pem
        for who in server client; do
            openssl req $new -subj /O=$who -keyout $who.key -out $who.csr
            printf 'subjectAltName=IP:{address}\\nextendedKeyUsage=serverAuth,clientAuth\\n' >$who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile $who.ext -out $who.pem
        done; chmod 600 *.key"
    );
    let made = Command::new("sh").args(["-c", &script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "openssl (install openssl): {made:?}");
}

/// The config of a gateway, with an etcd.
fn config(cluster: &Cluster, name: &str, arbiter: &str) -> String {
    let text = cluster.config(name).replace("quorum = \"none\"", "quorum = \"auto\"");
    format!("{text}[arbiter]\n{arbiter}\n")
}

fn start(cluster: &Cluster, name: &'static str, arbiter: &str) -> Daemon {
    remember(cluster, name);
    cluster.start_with(name, &config(cluster, name, arbiter))
}

#[track_caller]
fn votes(daemon: &Daemon, expected: &[&str]) {
    until_true(&format!("{} has the votes {expected:?}", daemon.name), || {
        daemon.status()["lease"]["votes"] == serde_json::json!(expected)
    });
}

#[track_caller]
fn reaches(daemon: &Daemon, reachable: bool) {
    until_true(&format!("{} reaches etcd: {reachable}", daemon.name), || {
        daemon.status()["arbiter"]["reachable"] == reachable
    });
}

#[track_caller]
fn fails(daemon: &Daemon, why: &str) {
    until_true(&format!("{} has no vote of etcd: {why}", daemon.name), || {
        daemon.status()["arbiter"]["last_error"].to_string().contains(why)
    });
}

#[test]
fn losing_etcd_costs_one_vote_and_no_more() {
    let cluster = Cluster::new(TIMING, &[("gw1", 150), ("gw2", 100)]);
    let mut etcd = Etcd::start(&cluster, false);
    let arbiter = format!("etcd = [\"{}\"]", etcd.client);
    let [gw1, gw2] = ["gw1", "gw2"].map(|name| start(&cluster, name, &arbiter));
    gw1.becomes("master");
    votes(&gw1, &["gw1", "gw2"]);
    let lease = gw1.status()["lease"].clone();
    assert_eq!(lease["voters"], serde_json::json!(["@etcd", "gw1", "gw2"]));
    let exclusive = "yes (lease of 2 of 3 voters) while its process runs";
    assert_eq!(gw1.status()["exclusive"], exclusive);

    // History is nothing that anyone asks for.
    etcd.must(&["put", "x", "1"]);
    etcd.must(&["put", "x", "2"]);
    etcd.must(&["compaction", "2"]);
    etcd.must(&["defrag"]);
    // gw1 is killed with its guard: nobody says so, and gw2 needs the vote of etcd.
    gw1.kill();
    gw2.becomes("master");
    votes(&gw2, &["@etcd", "gw2"]);
    let kept = etcd.ctl(&["get", "--prefix", "/wgha/edge/"]).unwrap();
    let values = kept.lines().filter(|line| line.starts_with("wgha1 ") && line.ends_with(" gw2"));
    assert_eq!(values.count(), 2, "{kept}");

    // A whole lease long it stands still, then it goes on: the lease is lost, and comes back.
    etcd.signal(Signal::SIGSTOP);
    gw2.becomes("backup");
    assert_eq!(gw2.status()["reason"], "no majority renewed the lease");
    reaches(&gw2, false);
    etcd.signal(Signal::SIGCONT);
    gw2.becomes("master");
    // Without it two gateways are a majority.
    let gw1 = start(&cluster, "gw1", &arbiter);
    votes(&gw2, &["gw1", "gw2"]);
    etcd.kill();
    reaches(&gw2, false);
    assert!(gw2.status()["arbiter"]["last_error"].is_string());
    // Longer than a lease: these are votes of later.
    std::thread::sleep(Duration::from_secs(2));
    until_true("gw2 holds its lease without etcd", || {
        let status = gw2.status();
        status["role"] == "master"
            && status["lease"]["held"] == true
            && status["lease"]["votes"] == serde_json::json!(["gw1", "gw2"])
    });
    // And the last gateway alone is none.
    gw1.kill();
    gw2.becomes("backup");
    etcd.start_again();
    gw2.becomes("master");
    votes(&gw2, &["@etcd", "gw2"]);
}

/// A gateway alone needs the vote of etcd, so its role shows whether it gets it.
#[test]
fn a_slow_etcd_votes_while_it_answers_in_time() {
    let cluster = Cluster::new(TIMING, &[("gw1", 150), ("gw2", 100)]);
    let etcd = Etcd::start(&cluster, false);
    let way = Delay::start(cluster.address(202), cluster.address(200));
    way.set(Duration::from_millis(80));
    let arbiter = format!("etcd = [\"http://{}\"]", cluster.address(202));
    let gw1 = start(&cluster, "gw1", &arbiter);
    gw1.becomes("master");
    votes(&gw1, &["@etcd", "gw1"]);
    // Longer than etcd's lease, which is four of ours: it was renewed. A machine that stands still for a second costs a term, so
    // there is more than one try.
    let renewed = (0..5).any(|_| {
        gw1.becomes("master");
        let term = gw1.status()["term"].clone();
        std::thread::sleep(Duration::from_secs(6));
        let status = gw1.status();
        status["role"] == "master" && status["term"] == term
    });
    assert!(renewed, "each time the lease ended: {}", gw1.status());
    gw1.becomes("master");
    votes(&gw1, &["@etcd", "gw1"]);
    way.set(Duration::from_secs(2));
    gw1.becomes("backup");
    assert_eq!(gw1.status()["reason"], "no majority renewed the lease");
    fails(&gw1, "no answer within");
    way.set(Duration::ZERO);
    gw1.becomes("master");
    votes(&gw1, &["@etcd", "gw1"]);
    drop(etcd);
}

/// The same with what etcd wants to know of who asks.
#[test]
fn certificates_and_passwords() {
    let cluster = Cluster::new(TIMING, &[("gw1", 150), ("gw2", 100)]);
    let mut etcd = Etcd::start(&cluster, true);
    let file = |name: &str| etcd.dir.join(name).display().to_string();
    let secret = "wgha-test-password";
    let password = cluster.path("password");
    fs::write(&password, format!("{secret}\n")).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    for args in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "wgha"],
        &["role", "grant-permission", "wgha", "--prefix=true", "readwrite", "/wgha/edge/"],
        &["user", "add", &format!("wgha:{secret}")],
        &["user", "grant-role", "wgha", "wgha"],
        &["auth", "enable"],
    ] {
        etcd.must(args);
    }
    let tls = format!(
        "etcd = [\"{}\"]\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"",
        etcd.client,
        file("ca.pem"),
        file("client.pem"),
        file("client.key"),
    );
    let whole = format!("{tls}\nuser = \"wgha\"\npassword_file = \"{}\"", password.display());
    let nobody = format!("etcd = [\"{}\"]\nca_file = \"{}\"", etcd.client, file("ca.pem"));
    let gw1 = start(&cluster, "gw1", &whole);
    gw1.becomes("master");
    votes(&gw1, &["@etcd", "gw1"]);
    // The tokens of an etcd that restarts are forgotten.
    etcd.restart();
    reaches(&gw1, true);
    gw1.becomes("master");
    votes(&gw1, &["@etcd", "gw1"]);

    for (arbiter, why) in [(&tls, "permission denied"), (&nobody, "alert")] {
        fs::write(&gw1.config, config(&cluster, "gw1", arbiter)).unwrap();
        assert!(gw1.wgha(&["reload"]).status.success());
        fails(&gw1, why);
    }
    fs::write(&password, "another\n").unwrap();
    fs::write(&gw1.config, config(&cluster, "gw1", &whole)).unwrap();
    assert!(gw1.wgha(&["reload"]).status.success());
    fails(&gw1, "authentication failed");
    fs::write(&password, secret).unwrap();
    gw1.becomes("master");
    let (status, log) = (gw1.status().to_string(), gw1.log());
    assert!(!status.contains(secret) && !log.contains(secret), "a secret is shown");
}
