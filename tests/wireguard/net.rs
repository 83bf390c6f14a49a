//! Two network namespaces joined by a cable: a gateway under test, and WireGuard clients.

use std::fs::File;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use wgha::config::BackendChoice;

pub(crate) const GATEWAY_OWN: &str = "10.77.0.2";
pub(crate) const FLOATING: &str = "10.77.0.10";
pub(crate) const CLIENT: &str = "10.77.0.100";
pub(crate) const PORT: u16 = 51820;

/// Which backend the tests drive: `WGHA_TEST_BACKEND`, `embedded` unless given.
pub(crate) fn choice() -> BackendChoice {
    match std::env::var("WGHA_TEST_BACKEND").as_deref() {
        Ok("kernel") => BackendChoice::Kernel,
        Ok("embedded") | Err(_) => BackendChoice::Embedded,
        Ok(other) => panic!("WGHA_TEST_BACKEND is {other:?}, expected kernel or embedded"),
    }
}

pub(crate) fn kernel() -> bool {
    choice() == BackendChoice::Kernel
}

/// Runs a program and returns what it printed; its failure is the test's.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let (ok, text) = attempt(program, args);
    assert!(ok, "{program} {}: {text}", args.join(" "));
    text
}

/// Whether a program succeeded, and what it printed.
pub(crate) fn attempt(program: &str, args: &[&str]) -> (bool, String) {
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).output().unwrap_or_else(|e| {
            panic!("{program}: {e} (install iproute2, iputils-ping, wireguard-tools)")
        });
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8_lossy(&text).trim().to_owned())
}

fn input(program: &str, args: &[&str], stdin: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e} (install wireguard-tools)"));
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A private key and its public key.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) private: String,
    pub(crate) public: String,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let private = run("wg", &["genkey"]);
        let public = input("wg", &["pubkey"], &private);
        Self { private, public }
    }
}

/// The two namespaces; gone when dropped.
pub(crate) struct Net {
    pub(crate) gateway: String,
    pub(crate) client: String,
    /// The name of the gateway's WireGuard interface: `wg` looks for sockets by name, machine-wide.
    pub(crate) interface: String,
    number: String,
    clients: Vec<Client>,
}

impl Net {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (gateway, client) = (format!("wg-gw-{number}"), format!("wg-cl-{number}"));
        let net =
            Self { interface: format!("g{number}"), gateway, client, number, clients: vec![] };
        for ns in [&net.gateway, &net.client] {
            run("ip", &["netns", "add", ns]);
            net.ip(ns, "link set lo up");
        }
        let gateway = net.gateway.clone();
        let peer = format!("link add gw0 type veth peer name cl0 netns {}", net.client);
        net.ip(&gateway, &peer);
        net.ip(&gateway, &format!("address add {GATEWAY_OWN}/24 dev gw0"));
        net.ip(&gateway, "link set gw0 up");
        net.ip(&net.client, &format!("address add {CLIENT}/24 dev cl0"));
        net.ip(&net.client, "link set cl0 up");
        net
    }

    /// Puts the floating IP on the gateway. The kernel's WireGuard follows routes, so it gets one.
    pub(crate) fn add_floating(&self) {
        self.ip(&self.gateway, &format!("address add {FLOATING}/32 dev gw0"));
        if kernel() {
            let route = format!("route replace 10.77.0.0/24 dev gw0 src {FLOATING}");
            self.ip(&self.gateway, &route);
        }
    }

    pub(crate) fn ip(&self, ns: &str, args: &str) -> String {
        let args: Vec<&str> = ["-n", ns].into_iter().chain(args.split(' ')).collect();
        run("ip", &args)
    }

    pub(crate) fn exec(&self, ns: &str, args: &[&str]) -> (bool, String) {
        attempt("ip", &[&["netns", "exec", ns], args].concat())
    }

    pub(crate) fn wg(&self, ns: &str, args: &[&str]) -> String {
        let (ok, text) = self.exec(ns, &[&["wg"], args].concat());
        assert!(ok, "wg {}: {text}", args.join(" "));
        text
    }

    /// A socket in the client's namespace.
    pub(crate) fn client_socket(&self, port: u16) -> UdpSocket {
        self.socket(&self.client, CLIENT, port)
    }

    pub(crate) fn socket(&self, ns: &str, address: &str, port: u16) -> UdpSocket {
        std::thread::scope(|s| {
            let open = || {
                enter(ns);
                UdpSocket::bind((address, port)).unwrap()
            };
            s.spawn(open).join().unwrap()
        })
    }

    /// A WireGuard client with an address in the tunnel, speaking to the floating IP.
    pub(crate) fn add_client(
        &mut self,
        keys: &Keys,
        gateway: &str,
        inner: &[&str],
        port: u16,
    ) -> String {
        let name = format!("c{}{}", self.clients.len(), self.number);
        let child =
            if attempt("ip", &["-n", &self.client, "link", "add", &name, "type", "wireguard"]).0 {
                None
            } else {
                Some(self.wireguard_go(&name))
            };
        let config = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {port}\n[Peer]\nPublicKey = {gateway}\n\
             AllowedIPs = 10.99.0.0/16\nEndpoint = {FLOATING}:{PORT}\n",
            keys.private
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config).unwrap();
        self.wg(&self.client, &["setconf", &name, file.path().to_str().unwrap()]);
        for address in inner {
            self.ip(&self.client, &format!("address add {address}/32 dev {name}"));
        }
        self.ip(&self.client, &format!("link set {name} mtu 1420 up"));
        // Several clients live in one namespace: each address leaves by its own tunnel.
        let table = 100 + self.clients.len();
        self.ip(&self.client, &format!("route add 10.99.0.0/16 dev {name} table {table}"));
        for address in inner {
            self.ip(&self.client, &format!("rule add from {address} lookup {table}"));
        }
        self.clients.push(Client { child });
        name
    }

    fn wireguard_go(&self, name: &str) -> Child {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.client, "wireguard-go", "-f", name])
            .env("WG_PROCESS_FOREGROUND", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let exists =
            || attempt("wg", &["show", name]).0 || self.exec(&self.client, &["wg", "show", name]).0;
        assert!(within(Duration::from_secs(5), exists), "no client {name}: install wireguard-go");
        child
    }

    /// Pings from one namespace, out of a certain address; whether one answer came.
    pub(crate) fn ping(&self, ns: &str, from: &str, to: &str, wait_s: u32) -> bool {
        let wait = wait_s.to_string();
        self.exec(ns, &["ping", "-n", "-c", "1", "-W", &wait, "-I", from, to]).0
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for client in &mut self.clients {
            if let Some(child) = &mut client.child {
                // SIGTERM lets wireguard-go remove its socket file.
                let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                let _ = child.wait();
            }
        }
        for ns in [&self.gateway, &self.client] {
            let _ = attempt("ip", &["netns", "del", ns]);
        }
    }
}

struct Client {
    child: Option<Child>,
}

/// Moves this thread, and what it starts from now on, into a namespace.
pub(crate) fn enter(ns: &str) {
    let file = File::open(format!("/run/netns/{ns}"))
        .or_else(|_| File::open(format!("/var/run/netns/{ns}")));
    setns(file.unwrap(), CloneFlags::CLONE_NEWNET).expect("setns needs root");
}

/// Waits for something to become true.
pub(crate) fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    condition()
}
