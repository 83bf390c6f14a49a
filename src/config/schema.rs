//! Which tables and keys a config file may have: the one list that reading, "did you mean" and
//! `docs/configuration.md` share.

/// A table of the config file.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// `[[name]]`, any number of times, instead of `[name]` once.
    pub many: bool,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [&'static str],
}

impl Table {
    /// The table's header as it stands in the file.
    #[must_use]
    pub fn header(&self) -> String {
        if self.many { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

pub(super) static CLUSTER: Table = Table {
    name: "cluster",
    many: false,
    keys: &[
        "name",
        "key_file",
        "heartbeat",
        "misses",
        "preempt",
        "preempt_delay",
        "quorum",
        "handover_timeout",
        "gate",
        "state_dir",
        "evidence",
        "dead_man",
        "realtime",
        "user",
    ],
};

pub(super) static NODE: Table =
    Table { name: "node", many: true, keys: &["name", "addresses", "priority", "witness"] };

pub(super) static FLOATING_IP: Table =
    Table { name: "floating_ip", many: true, keys: &["address", "interface"] };

pub(super) static WIREGUARD: Table = Table {
    name: "wireguard",
    many: true,
    keys: &["interface", "config", "backend", "source", "guard"],
};

pub(super) static CHECK: Table = Table {
    name: "check",
    many: true,
    keys: &[
        "name",
        "ping",
        "interface",
        "tcp",
        "http",
        "script",
        "wireguard",
        "handshake_within",
        "address",
        "status",
        "body",
        "interval",
        "timeout",
        "rise",
        "fall",
    ],
};

pub(super) static HOOK: Table =
    Table { name: "hook", many: true, keys: &["on", "run", "timeout", "user"] };

pub(super) static CLAIM: Table = Table {
    name: "claim",
    many: true,
    keys: &["run", "verify_every", "timeout", "retries", "release", "user"],
};

pub(super) static CONTROL: Table = Table { name: "control", many: false, keys: &["socket"] };

pub(super) static HTTP: Table = Table { name: "http", many: false, keys: &["listen"] };

pub(super) static PROBE: Table = Table { name: "probe", many: false, keys: &["listen"] };

pub(super) static SYNC: Table = Table { name: "sync", many: false, keys: &["files"] };

pub(super) static ARBITER: Table = Table {
    name: "arbiter",
    many: false,
    keys: &["etcd", "ca_file", "cert_file", "key_file", "user", "password_file"],
};

/// The keys of an address that is written as a table: `{ send = "...", bind = "..." }`.
pub(super) static ADDRESS: Table =
    Table { name: "node.addresses", many: true, keys: &["send", "bind"] };

/// Every table of the top level, in the order of the documentation.
pub static TABLES: [&Table; 12] = [
    &CLUSTER,
    &NODE,
    &FLOATING_IP,
    &WIREGUARD,
    &CHECK,
    &HOOK,
    &CLAIM,
    &SYNC,
    &CONTROL,
    &HTTP,
    &PROBE,
    &ARBITER,
];

/// The known name that `name` was probably meant to be.
pub(super) fn nearest(
    name: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
