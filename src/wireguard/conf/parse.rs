//! Lines into fields, every value checked where it stands.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::check;
use super::lines::{Content, lines};
use super::values;
use super::{ConfError, ConfWarning, Parsed, Table};
use crate::wireguard::key::{PublicKey, SecretKey};

/// Errors reported for one file; more would not be read.
const MAX_ERRORS: usize = 100;

/// A value and the line it stands on.
pub(super) type At<T> = Option<(usize, T)>;

/// `[Interface]` as far as it could be read.
#[derive(Default)]
pub(super) struct RawInterface {
    /// The line of the section.
    pub(super) line: Option<usize>,
    pub(super) private_key: At<SecretKey>,
    pub(super) listen_port: At<u16>,
    pub(super) fwmark: At<u32>,
    pub(super) addresses: Vec<(usize, IpNet)>,
    pub(super) mtu: At<u32>,
    pub(super) table: At<Table>,
    pub(super) hooks: [Vec<String>; 4],
}

/// `[Peer]` as far as it could be read.
#[derive(Default)]
pub(super) struct RawPeer {
    pub(super) line: usize,
    /// A `PublicKey` line was there, good or bad.
    pub(super) key_given: bool,
    pub(super) public_key: At<PublicKey>,
    pub(super) preshared_key: At<SecretKey>,
    pub(super) allowed_ips: BTreeMap<IpNet, usize>,
    pub(super) endpoint: At<Option<SocketAddr>>,
    pub(super) keepalive: At<u16>,
}

/// Everything read so far.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) interface: RawInterface,
    pub(super) peers: Vec<RawPeer>,
    section: Section,
    /// Keys that take one value, with the line of the first, of the open section.
    seen: BTreeMap<&'static str, usize>,
    pub(super) errors: Vec<ConfError>,
    pub(super) warnings: Vec<ConfWarning>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// Before the first section.
    #[default]
    None,
    Interface,
    Peer,
    /// An unknown one: named once, its lines passed over.
    Unknown,
}

pub(super) fn parse(interface: &str, text: &str) -> Result<Parsed, Vec<ConfError>> {
    let mut reader = Reader { name: interface.to_owned(), ..Reader::default() };
    for line in lines(text) {
        match line.content {
            Content::Section(name) => reader.section(line.number, name),
            Content::Pair(key, value) => reader.pair(line.number, key, value),
            // The text is not shown: it may be a key that lost its name.
            Content::Other => reader.error(line.number, "line", "expected `Key = Value`"),
        }
    }
    let checked = check::check(&mut reader);
    let Reader { mut errors, mut warnings, .. } = reader;
    errors.sort();
    errors.truncate(MAX_ERRORS);
    warnings.sort();
    match checked {
        Some(conf) if errors.is_empty() => Ok(Parsed { conf, warnings }),
        _ => Err(errors),
    }
}

impl Reader {
    pub(super) fn error(&mut self, line: usize, key: &str, what: impl Into<String>) {
        self.errors.push(ConfError { line: Some(line), key: key.to_owned(), what: what.into() });
    }

    pub(super) fn warn(&mut self, line: usize, key: &str, what: impl Into<String>) {
        let what = what.into();
        self.warnings.push(ConfWarning { line: Some(line), key: key.to_owned(), what });
    }

    fn section(&mut self, line: usize, name: &str) {
        self.section = if name.eq_ignore_ascii_case("interface") {
            self.interface.line.get_or_insert(line);
            Section::Interface
        } else if name.eq_ignore_ascii_case("peer") {
            self.peers.push(RawPeer { line, ..RawPeer::default() });
            Section::Peer
        } else {
            self.error(line, &format!("[{}]", values::shown(name)), "unknown section");
            Section::Unknown
        };
        // A second [Interface] continues the first, as wg reads it.
        if self.section == Section::Peer {
            self.seen.retain(|key, _| !PEER_KEYS.contains(key));
        }
    }

    fn pair(&mut self, line: usize, key: &str, value: &str) {
        match self.section {
            Section::None => {
                self.error(line, &values::shown(key), "stands before the first section")
            }
            Section::Unknown => {}
            Section::Interface => match canonical(INTERFACE_KEYS, key) {
                Some(key) => self.interface_pair(line, key, value),
                None if canonical(PEER_KEYS, key).is_some() => {
                    self.error(line, &values::shown(key), "belongs into [Peer]");
                }
                None => self.error(line, &values::shown(key), "unknown key in [Interface]"),
            },
            Section::Peer => match canonical(PEER_KEYS, key) {
                Some(key) => self.peer_pair(line, key, value),
                None if canonical(INTERFACE_KEYS, key).is_some() => {
                    self.error(line, &values::shown(key), "belongs into [Interface]");
                }
                None => self.error(line, &values::shown(key), "unknown key in [Peer]"),
            },
        }
    }

    fn interface_pair(&mut self, line: usize, key: &'static str, value: &str) {
        if !REPEATABLE.contains(&key) && !self.first(line, key) {
            return;
        }
        let i = &mut self.interface;
        let result = match key {
            "PrivateKey" => {
                set(&mut i.private_key, line, SecretKey::from_base64(value).ok_or(BAD_KEY))
            }
            "ListenPort" => set(&mut i.listen_port, line, value.parse().or(Err(BAD_PORT))),
            "FwMark" => set(&mut i.fwmark, line, values::fwmark(value)),
            "MTU" => set(&mut i.mtu, line, values::mtu(value)),
            "Table" => set(&mut i.table, line, values::table(value)),
            "Address" => return self.addresses(line, value),
            "SaveConfig" => values::save_config(value),
            "DNS" => {
                self.warn(line, key, "ignored: a gateway does not change the resolver");
                Ok(())
            }
            hook => {
                let line = value.replace("%i", &self.name);
                let at = HOOKS.iter().position(|name| *name == hook);
                if let Some(list) = at.and_then(|at| i.hooks.get_mut(at)) {
                    list.push(line);
                }
                if value.is_empty() { Err("expected a shell command") } else { Ok(()) }
            }
        };
        if let Err(what) = result {
            self.error(line, key, what);
        }
    }

    fn peer_pair(&mut self, line: usize, key: &'static str, value: &str) {
        if !REPEATABLE.contains(&key) && !self.first(line, key) {
            return;
        }
        let Some(peer) = self.peers.last_mut() else { return };
        let result = match key {
            "PublicKey" => {
                peer.key_given = true;
                set(&mut peer.public_key, line, PublicKey::from_base64(value).ok_or(BAD_KEY))
            }
            "PresharedKey" => {
                set(&mut peer.preshared_key, line, SecretKey::from_base64(value).ok_or(BAD_KEY))
            }
            "PersistentKeepalive" => set(&mut peer.keepalive, line, values::keepalive(value)),
            "Endpoint" => return self.endpoint(line, value),
            _ => return self.allowed_ips(line, value),
        };
        if let Err(what) = result {
            self.error(line, key, what);
        }
    }

    /// Whether `key` has not been given in this section; names both lines if it has.
    fn first(&mut self, line: usize, key: &'static str) -> bool {
        match self.seen.insert(key, line) {
            None => true,
            Some(before) => {
                self.error(line, key, format!("already given on line {before}"));
                false
            }
        }
    }

    fn addresses(&mut self, line: usize, value: &str) {
        for item in values::list(value) {
            match values::net(item) {
                Some(net) => self.interface.addresses.push((line, net)),
                None => self.error(line, "Address", values::bad_net(item)),
            }
        }
    }

    fn allowed_ips(&mut self, line: usize, value: &str) {
        for item in values::list(value) {
            // `+` adds, as a bare prefix does; `-` takes back what an earlier line added.
            let (remove, bare) = match item.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, item.strip_prefix('+').unwrap_or(item)),
            };
            let Some(net) = values::net(bare).map(|net| net.trunc()) else {
                self.error(line, "AllowedIPs", values::bad_net(item));
                continue;
            };
            let Some(peer) = self.peers.last_mut() else { return };
            if remove && peer.allowed_ips.remove(&net).is_none() {
                self.warn(line, "AllowedIPs", format!("-{net} takes back what was not given"));
            } else if !remove {
                peer.allowed_ips.entry(net).or_insert(line);
            }
        }
    }

    fn endpoint(&mut self, line: usize, value: &str) {
        let Some(endpoint) = values::endpoint(value) else {
            return self.error(line, "Endpoint", "expected ADDRESS:PORT or [ADDRESS]:PORT");
        };
        if endpoint.is_none() {
            let what = "is a name, which a gateway does not resolve: the peer has to speak first";
            self.warn(line, "Endpoint", what);
        }
        if let Some(peer) = self.peers.last_mut() {
            peer.endpoint = Some((line, endpoint));
        }
    }
}

const INTERFACE_KEYS: &[&str] = &[
    "PrivateKey",
    "ListenPort",
    "FwMark",
    "Address",
    "DNS",
    "MTU",
    "Table",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];
const PEER_KEYS: &[&str] =
    &["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"];
const REPEATABLE: &[&str] =
    &["Address", "DNS", "PreUp", "PostUp", "PreDown", "PostDown", "AllowedIPs"];
/// In the order of [`RawInterface::hooks`].
const HOOKS: [&str; 4] = ["PreUp", "PostUp", "PreDown", "PostDown"];

const BAD_KEY: &str = "expected 32 bytes in base64 (44 characters)";
const BAD_PORT: &str = "expected a port, 1 to 65535";

/// The key as the manual spells it.
fn canonical(known: &[&'static str], key: &str) -> Option<&'static str> {
    known.iter().copied().find(|name| name.eq_ignore_ascii_case(key))
}

fn set<T>(
    slot: &mut At<T>,
    line: usize,
    value: Result<T, &'static str>,
) -> Result<(), &'static str> {
    *slot = Some((line, value?));
    Ok(())
}
