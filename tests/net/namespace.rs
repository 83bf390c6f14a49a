//! Network namespaces without names: each belongs to a thread and ends with it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{geteuid, gettid};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, with `lo` up.
pub(crate) struct Ns {
    tid: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Ns {
    pub(crate) fn new() -> Ns {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
            tell.send(gettid().as_raw()).unwrap();
            for job in inbox {
                job();
            }
        });
        let tid = told.recv().expect("a network namespace (needs root)");
        let ns = Ns { tid, jobs: Some(jobs), thread: Some(thread) };
        ns.ip("link set lo up");
        // Link-local addresses serve at once; otherwise the first second's packets are lost.
        ns.sysctl("ipv6/conf/default/accept_dad", "0");
        ns
    }

    /// Runs something inside, and waits for it. A panic inside is a panic here.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job: Job = Box::new(move || {
            tell.send(catch_unwind(AssertUnwindSafe(work))).unwrap();
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs something asynchronous inside, on a runtime of its own.
    pub(crate) fn run_async<F, T>(&self, work: impl FnOnce() -> F + Send + 'static) -> T
    where
        F: Future<Output = T>,
        T: Send + 'static,
    {
        self.run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        })
    }

    /// `ip ARGUMENTS` inside.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/net/{path}"), value.to_owned());
        self.run(move || std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}")));
    }

    /// A cable from `name` here to `peer_name` there, both up.
    pub(crate) fn cable(&self, name: &str, peer: &Ns, peer_name: &str) {
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {}", peer.tid));
        self.ip(&format!("link set {name} up"));
        peer.ip(&format!("link set {peer_name} up"));
        self.await_up(name);
        peer.await_up(peer_name);
    }

    /// The kernel may take a second to open the queue of a fresh link; until then packets are lost.
    fn await_up(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.ip(&format!("link show {name}")).contains("state UP") {
            assert!(Instant::now() < deadline, "{name} does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An address without duplicate address detection.
    pub(crate) fn address(&self, interface: &str, address: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {interface} {nodad}"));
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `ip ARGUMENTS` in the namespace of this thread.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", "iproute2", arguments)
}

/// `nft ARGUMENTS` in the namespace of this thread.
pub(crate) fn nft(arguments: &str) -> String {
    run("nft", "nftables", arguments)
}

fn run(program: &str, package: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|e| panic!("{program} (install {package}): {e}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments}: {err}");
    out.into_owned()
}

/// Runs a test that needs root: here, or in this program anew inside a user namespace.
pub(crate) fn as_root(test: &str, body: impl FnOnce()) {
    if geteuid().is_root() {
        return body();
    }
    inside(Command::new("unshare").args(["--user", "--map-root-user", "--net"]), test);
}

/// Runs a test in this program anew, by a program of util-linux that changes what it may do.
pub(crate) fn inside(by: &mut Command, test: &str) {
    by.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = by.output();
    let output = output.unwrap_or_else(|e| panic!("{by:?}: {e} (install util-linux)"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

/// Every frame of an interface of the namespace that this thread is in.
pub(crate) fn frames_of(name: &str) -> Box<dyn DataLinkReceiver> {
    let interface = datalink::interfaces().into_iter().find(|i| i.name == name).unwrap();
    let config = Config {
        promiscuous: false,
        read_timeout: Some(Duration::from_secs(10)),
        ..Config::default()
    };
    match datalink::channel(&interface, config).unwrap() {
        Channel::Ethernet(_, receiver) => receiver,
        _ => panic!("not an Ethernet channel"),
    }
}

/// Waits for it, bounded.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
