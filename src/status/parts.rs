//! What this node has and runs.

use serde::{Deserialize, Serialize};

/// One floating IP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// The address with its prefix length.
    pub address: String,
    /// The interface that carries it.
    pub interface: String,
    /// This machine has it now.
    pub held: bool,
}

/// One WireGuard interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wireguard {
    /// Its name.
    pub interface: String,
    /// `kernel` or `embedded`.
    pub backend: String,
    /// Serving.
    pub up: bool,
    /// Configured, ready to be brought up.
    pub staged: bool,
    /// Its peers.
    pub peers: u64,
    /// Peers with a handshake in the last 180 s.
    pub recent_handshakes: u64,
    /// Peers whose endpoint is known.
    pub endpoints_known: u64,
    /// Extension: milliseconds since this node last knew all that the master knows of where peers
    /// are; on the master: since it last looked. `None`: never since the start.
    #[serde(default)]
    pub endpoints_age_ms: Option<u64>,
    /// The floating IPs that its packets leave from.
    pub source: Vec<String>,
}

/// One health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// It passes.
    pub ok: bool,
    /// Its last result, for people.
    pub detail: String,
}

/// The last run of one hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Program and arguments.
    pub run: Vec<String>,
    /// The state it ran for.
    pub on: String,
    /// Its exit code; `None` if it did not end by itself.
    pub exit: Option<i32>,
    /// How long it ran.
    pub duration_ms: u64,
    /// When it started: RFC 3339, UTC.
    pub at: String,
    /// Extension: how it ended, for people: `exit 0`, `timed out`, `running`, ...
    #[serde(default)]
    pub outcome: String,
}

/// One claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Program and arguments.
    pub run: Vec<String>,
    /// This node has it.
    pub held: bool,
    /// When an answer last said yes or no: RFC 3339, UTC.
    pub checked_at: Option<String>,
    /// Extension: `held`, `not held` or `unknown`.
    #[serde(default)]
    pub state: String,
    /// Extension: the last line that the program said.
    #[serde(default)]
    pub detail: String,
    /// Extension: how long the last run took.
    #[serde(default)]
    pub duration_ms: u64,
    /// Extension: runs that failed since the last that did not.
    #[serde(default)]
    pub failures: u32,
    /// Extension: the program said that trying again is useless.
    #[serde(default)]
    pub given_up: bool,
}

/// One synchronised file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Its path.
    pub file: String,
    /// Its version.
    pub version: u64,
    /// All gateways are connected and have the same.
    pub in_sync: bool,
    /// Extension: what is wrong with it, for people: why it does not travel, or an edit that lost.
    #[serde(default)]
    pub problem: Option<String>,
}
