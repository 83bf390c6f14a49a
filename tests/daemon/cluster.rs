//! Clusters of daemons, each in a directory of its own, with addresses that no other test has.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// No test waits longer for one thing; all of them normally take well below a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Heartbeats of 100 ms and a detection time of 800 ms: failovers are short, and a busy machine may
/// bring one that nobody asked for.
pub(crate) const QUICK: (&str, u8) = ("100ms", 8);

/// A detection time of 1.6 s, for tests in which nothing may be missed.
pub(crate) const CALM: (&str, u8) = ("200ms", 8);

/// Waits until `condition` has something, and returns it.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "still not so after {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` is true.
#[track_caller]
pub(crate) fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// One `[[node]]`.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) priority: u8,
    pub(crate) witness: bool,
    /// What it binds.
    pub(crate) bind: SocketAddr,
    /// What others send to.
    pub(crate) send: SocketAddr,
}

/// A cluster: its files and its nodes.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    pub(crate) name: &'static str,
    timing: (&'static str, u8),
    pub(crate) nodes: Vec<Spec>,
    /// More lines for every config.
    pub(crate) more: String,
    /// The part of the loopback that is ours.
    net: u8,
}

impl Cluster {
    /// Gateways with these priorities.
    pub(crate) fn new(timing: (&'static str, u8), gateways: &[(&'static str, u8)]) -> Cluster {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let dir = tempfile::Builder::new().prefix("wgha-daemon-").tempdir().unwrap();
        let net = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut cluster =
            Cluster { dir, name: "edge", timing, nodes: vec![], more: String::new(), net };
        for (name, priority) in gateways {
            cluster.add(name, *priority, false);
        }
        let made = run(["keygen", "--out", cluster.path("cluster.key").to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        cluster
    }

    /// One more node.
    pub(crate) fn add(&mut self, name: &'static str, priority: u8, witness: bool) {
        let host = u8::try_from(self.nodes.len() + 1).unwrap();
        let bind = self.address(host);
        self.nodes.push(Spec { name, priority, witness, bind, send: bind });
    }

    /// Makes the key file of a witness.
    pub(crate) fn witness_key(&self, name: &str) {
        let (out, from) = (self.path(&format!("{name}.key")), self.path("cluster.key"));
        let paths = (out.to_str().unwrap(), from.to_str().unwrap());
        let made = run(["keygen", "--out", paths.0, "--witness-from", paths.1]);
        assert!(made.status.success(), "{made:?}");
    }

    /// An address on the loopback. The port is below the ephemeral ones, and together with the
    /// second byte stands for this process.
    pub(crate) fn address(&self, host: u8) -> SocketAddr {
        let pid = std::process::id();
        let second = u8::try_from(64 + pid / 20_000 % 64).unwrap();
        let port = u16::try_from(10_000 + pid % 20_000).unwrap();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, second, self.net, host)), port)
    }

    /// A file of this cluster.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The node's line of the config.
    pub(crate) fn spec(&self, name: &str) -> &Spec {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    /// The key file of a node: the cluster's, unless a test made one for it.
    fn key_file(&self, name: &str) -> PathBuf {
        let own = self.path(&format!("{name}.key"));
        if own.exists() { own } else { self.path("cluster.key") }
    }

    /// The config of a node, as text.
    pub(crate) fn config(&self, name: &str) -> String {
        let (heartbeat, misses) = self.timing;
        let state = self.path(&format!("{name}.state"));
        let socket = self.path(&format!("{name}.sock"));
        let mut text = format!(
            "[cluster]\nname = \"{}\"\nkey_file = {:?}\nheartbeat = \"{heartbeat}\"\n\
             misses = {misses}\nquorum = \"none\"\nstate_dir = {state:?}\n[control]\nsocket = {socket:?}\n",
            self.name,
            self.key_file(name)
        );
        for node in &self.nodes {
            text += &format!(
                "[[node]]\nname = \"{}\"\naddresses = [{{ send = \"{}\", bind = \"{}\" }}]\n\
                 priority = {}\nwitness = {}\n",
                node.name, node.send, node.bind, node.priority, node.witness
            );
        }
        text + &self.more
    }

    /// Starts a node with the cluster's config.
    pub(crate) fn start(&self, name: &'static str) -> Daemon {
        self.start_with(name, &self.config(name))
    }

    /// Starts a node with a config of its own.
    pub(crate) fn start_with(&self, name: &'static str, config: &str) -> Daemon {
        self.start_as(name, name, config)
    }

    /// Starts a node whose files have another name.
    pub(crate) fn start_as(&self, files: &str, name: &'static str, config: &str) -> Daemon {
        self.launch(&[], files, name, config)
    }

    /// Starts a node by programs that become it: setpriv, prlimit and such, with their arguments.
    pub(crate) fn start_under(&self, wrapper: &[&str], name: &'static str, config: &str) -> Daemon {
        self.launch(wrapper, name, name, config)
    }

    fn launch(&self, wrapper: &[&str], files: &str, name: &'static str, config: &str) -> Daemon {
        let path = self.path(&format!("{files}.toml"));
        fs::write(&path, config).unwrap();
        Daemon::start(wrapper, name, path, self.path(&format!("{files}.log")))
    }

    /// Starts a node and waits until it has a role.
    pub(crate) fn settle(&self, name: &'static str, role: &str) -> Daemon {
        let daemon = self.start(name);
        daemon.becomes(role);
        daemon
    }

    /// gw1 as master and gw2 as its backup, who know each other.
    pub(crate) fn pair(&self) -> (Daemon, Daemon) {
        let gw1 = self.settle("gw1", "master");
        let gw2 = self.settle("gw2", "backup");
        gw1.hears("gw2");
        gw2.hears("gw1");
        until_true("gw2 could take over", || gw1.node("gw2")["ready"] == true);
        (gw1, gw2)
    }
}

/// A failed test shows what the daemons wrote.
impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in &self.nodes {
            if let Ok(log) = fs::read_to_string(self.path(&format!("{}.log", node.name))) {
                eprintln!("--- {}\n{log}", node.name);
            }
        }
    }
}

/// `wgha` with these arguments.
pub(crate) fn run<'a>(args: impl IntoIterator<Item = &'a str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgha"));
    command.args(args).env_remove("WGHA_NODE").env_remove("WGHA_LOG");
    command.stdin(Stdio::null()).output().unwrap()
}

/// One `wgha run`; killed when dropped.
pub(crate) struct Daemon {
    pub(crate) name: &'static str,
    pub(crate) config: PathBuf,
    log: PathBuf,
    process: Child,
}

impl Daemon {
    fn start(wrapper: &[&str], name: &'static str, config: PathBuf, log: PathBuf) -> Daemon {
        let file = File::options().append(true).create(true).open(&log).unwrap();
        let mut argv = wrapper.iter().chain(&[env!("CARGO_BIN_EXE_wgha")]);
        let process = Command::new(argv.next().unwrap())
            .args(argv)
            .args(["run", "--node", name, "--config"])
            .arg(&config)
            .env_remove("WGHA_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            // Worker and guard, to be killed or stopped together.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{wrapper:?} (install util-linux): {e}"));
        Daemon { name, config, log, process }
    }

    /// Hands over; asks again where the other one is too busy to answer in time. Returns what was said.
    #[track_caller]
    pub(crate) fn hands_over(&self, args: &[&str]) -> String {
        until("a handover", || {
            let (code, said, _) = outcome(&self.wgha(args));
            (code == 0).then_some(said)
        })
    }

    /// A command for this daemon.
    pub(crate) fn wgha(&self, args: &[&str]) -> Output {
        let config = ["--config", self.config.to_str().unwrap()];
        run(args.iter().copied().chain(config))
    }

    /// `wgha status --json`; `None` while the daemon does not answer.
    pub(crate) fn try_status(&self) -> Option<Value> {
        let output = self.wgha(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// `wgha status --json` of a daemon that runs.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        until("the daemon answers", || self.try_status())
    }

    /// What it says of a node.
    #[track_caller]
    pub(crate) fn node(&self, name: &str) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).unwrap().clone()
    }

    /// Waits until it has this role.
    #[track_caller]
    pub(crate) fn becomes(&self, role: &str) {
        until_true(&format!("{} is {role}", self.name), || self.status()["role"] == role);
    }

    /// Waits until it follows this master, in this term.
    #[track_caller]
    pub(crate) fn follows(&self, master: &str, term: u64) {
        until_true(&format!("{} follows {master}, term {term}", self.name), || {
            let status = self.status();
            status["role"] == "backup" && status["master"] == master && status["term"] == term
        });
    }

    /// Waits until the node is alive to this one.
    #[track_caller]
    pub(crate) fn hears(&self, name: &str) {
        until_true(&format!("{} hears {name}", self.name), || self.node(name)["alive"] == true);
    }

    /// How often it refused a datagram, by reason, and how many the kernel dropped, as `dropped`; those that
    /// never happened are left out.
    pub(crate) fn refusals(&self) -> Vec<(String, u64)> {
        let status = self.status();
        let all = status["refusals"].as_object().unwrap().iter();
        let dropped = ("dropped".to_owned(), status["link"]["dropped"].as_u64().unwrap());
        let counts = all.map(|(word, count)| (word.clone(), count.as_u64().unwrap()));
        counts.chain([dropped]).filter(|(_, count)| *count > 0).collect()
    }

    /// A counter of its sockets.
    pub(crate) fn link(&self, word: &str) -> u64 {
        self.status()["link"][word].as_u64().unwrap()
    }

    /// How often it refused a datagram for this reason.
    pub(crate) fn refused(&self, word: &str) -> u64 {
        self.status()["refusals"][word].as_u64().unwrap()
    }

    /// Its events, oldest first.
    pub(crate) fn events(&self) -> Vec<Value> {
        let output = self.wgha(&["events", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What it wrote so far, with all that ran before it under this name.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A crash of worker and guard.
    pub(crate) fn kill(mut self) {
        let worker = self.worker();
        killpg(self.pid(), Signal::SIGKILL).unwrap();
        self.process.wait().unwrap();
        until_true("the worker is dead", || is_dead(worker));
    }

    /// Stops worker and guard, or lets them go on.
    pub(crate) fn signal_all(&self, signal: Signal) {
        killpg(self.pid(), signal).unwrap();
    }

    /// Sends a signal to what was started, which is the guard.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Sends a signal to the worker alone.
    pub(crate) fn signal_worker(&self, signal: Signal) {
        kill(self.worker(), signal).unwrap();
    }

    /// The worker's process id.
    pub(crate) fn worker(&self) -> Pid {
        let children = self.children();
        assert_eq!(children.len(), 1, "{children:?}");
        children[0]
    }

    /// Memory of the worker, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.worker())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn children(&self) -> Vec<Pid> {
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())).collect()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap())
    }

    /// A clean stop.
    pub(crate) fn terminate(self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        until("the daemon ends", || self.process.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let children = self.children();
        // It may have ended already.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.process.wait();
        // Whoever starts it again must not find the lock of a worker that is still being taken apart.
        let end = Instant::now() + PATIENCE;
        while !children.iter().all(|child| is_dead(*child)) && Instant::now() < end {
            sleep(Duration::from_millis(5));
        }
    }
}

/// Gone, or a zombie whose last thread has let go of everything.
pub(crate) fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else { return true };
    // From field 3, the state, on; field 20 is the number of threads (proc(5)).
    let fields: Vec<&str> = rest.split(' ').collect();
    fields[0] == "Z" && matches!(fields[17], "0" | "1")
}

/// A command's exit code, standard output and standard error.
pub(crate) fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
