//! What a gateway has, looks at and runs.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// `[[floating_ip]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIp {
    /// The address with its prefix length; /32 or /128 unless given.
    pub address: IpNet,
    /// The interface that carries it.
    pub interface: String,
}

/// `[[wireguard]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wireguard {
    /// The interface's name, at most 15 bytes.
    pub interface: String,
    /// A file in the format of wg-quick(8).
    pub config: PathBuf,
    /// Which WireGuard to use.
    pub backend: BackendChoice,
    /// The floating IPs that WireGuard's packets leave from, at most one a family; resolved (the
    /// default is applied). Empty: no source rules.
    pub source: Vec<IpAddr>,
    /// Rules that let WireGuard's packets leave from `source` alone.
    pub guard: bool,
}

/// `backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// The kernel's if it has one, else the embedded one; the first choice is kept.
    #[default]
    Auto,
    /// The kernel's module.
    Kernel,
    /// gotatun inside wgha.
    Embedded,
}

/// One entry of `[sync] files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFile {
    /// Absolute, without `.`, `..` and a slash at the end.
    pub path: PathBuf,
    /// It was written with a slash at the end: all regular files in it.
    pub directory: bool,
}

/// `[[check]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Unique among the checks.
    pub name: String,
    /// What is looked at.
    pub kind: CheckKind,
    /// From the beginning of a run to that of the next, 100 ms ..= 1 h.
    pub interval: Duration,
    /// After which a run has failed, 10 ms ..= 10 min.
    pub timeout: Duration,
    /// So many passes in a row make a failing check pass, 1..=100.
    pub rise: u8,
    /// So many failures in a row make a passing check fail, 1..=100.
    pub fall: u8,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// It answers an ICMP echo request.
    Ping(IpAddr),
    /// It is up, has a carrier and, if given, this address.
    Interface(String, Option<IpAddr>),
    /// It takes a TCP connection.
    Tcp(Target),
    /// It answers a GET as expected.
    Http(HttpCheck),
    /// It ends with exit code 0: a program and its arguments, never a shell line.
    Script(Vec<String>),
    /// The WireGuard interface exists and, if given and this node is master, a client shook hands within that time, 3 min ..= 24 h.
    Wireguard(String, Option<Duration>),
}

/// Whom a check connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// An IP address, without brackets, or a name.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// What is asked by HTTP, and what the answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Who is asked.
    pub target: Target,
    /// What for; begins with a slash.
    pub path: String,
    /// The status of the answer; `None`: 200 to 299.
    pub status: Option<u16>,
    /// The answer's body contains it.
    pub body: Option<String>,
}

/// `[[hook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When to run.
    pub on: Vec<HookState>,
    /// Program and arguments; never a shell line.
    pub run: Vec<String>,
    /// After which the process group is ended.
    pub timeout: Duration,
    /// Whose the program is; `None`: the worker's.
    pub user: Option<String>,
}

/// `[[claim]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Program and arguments; never a shell line. The verb comes last.
    pub run: Vec<String>,
    /// Between two looks whether it is still held, 1 s ..= 1 day.
    pub verify_every: Duration,
    /// After which the program's process group is ended.
    pub timeout: Duration,
    /// Quick tries after a failure, 0 ..= 100; then one each `verify_every`.
    pub retries: u32,
    /// Give it up when this node is master no more.
    pub release: bool,
    /// Whose the program is; `None`: the worker's.
    pub user: Option<String>,
}

/// What a hook is told: a role, or the end of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookState {
    /// Became master.
    Master,
    /// Became backup (after `init`, `master` or `fault`).
    Backup,
    /// Cannot serve.
    Fault,
    /// The daemon ends.
    Stop,
}

impl HookState {
    /// The state in one lower-case word, as in the config file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            HookState::Master => "master",
            HookState::Backup => "backup",
            HookState::Fault => "fault",
            HookState::Stop => "stop",
        }
    }
}
