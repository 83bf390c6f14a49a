//! wg0.conf, in the format of wg-quick(8) and wg(8), read into types that cannot be wrong.
//!
//! Where the two programs leave room, a gateway decides:
//!
//! - Keys and sections are taken in any case; `#` starts a comment, except inside a hook line.
//! - A key that takes one value may be given once; the programs silently take the last.
//! - An `Endpoint` by name is never resolved (the resolver could hang a takeover): a warning says
//!   so, and the peer has to speak first. Clients of a gateway do.
//! - `MTU` is 1420 unless given, on every node alike; wg-quick guesses from the routes.
//! - `Table` takes `auto`, `off`, a number, or one of the names `main`, `default`, `local`.
//! - What makes no sense on a gateway is an error (`SaveConfig`, a default route with `Table`
//!   auto, no `ListenPort`) or a warning (`DNS`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::key::{PublicKey, SecretKey};
use crate::bounded;

mod check;
mod lines;
mod parse;
#[cfg(test)]
mod tests;
mod values;

/// `MTU` where the file has none: 1500 less what WireGuard over IPv6 adds.
pub const DEFAULT_MTU: u32 = 1420;

/// Longest file that is read, in bytes: some 20,000 peers.
pub const MAX_FILE_LEN: u64 = 4 << 20;

/// A whole, valid file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgConf {
    /// `PrivateKey`.
    pub private_key: SecretKey,
    /// The public key that belongs to it.
    pub public_key: PublicKey,
    /// `ListenPort`, never 0.
    pub listen_port: u16,
    /// `FwMark`; 0 is none.
    pub fwmark: u32,
    /// `Address`, with the length of the subnet.
    pub addresses: Vec<IpNet>,
    /// `MTU` in bytes, or [`DEFAULT_MTU`].
    pub mtu: u32,
    /// `Table`: where routes for `AllowedIPs` go.
    pub table: Table,
    /// `PreUp`, in order, `%i` replaced.
    pub pre_up: Vec<String>,
    /// `PostUp`.
    pub post_up: Vec<String>,
    /// `PreDown`.
    pub pre_down: Vec<String>,
    /// `PostDown`.
    pub post_down: Vec<String>,
    /// `[Peer]`, in the order of the file; no two with one key or one allowed prefix.
    pub peers: Vec<Peer>,
}

/// `[Peer]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `PublicKey`.
    pub public_key: PublicKey,
    /// `PresharedKey`; a key of zeros counts as none.
    pub preshared_key: Option<SecretKey>,
    /// `AllowedIPs`, host bits cleared.
    pub allowed_ips: BTreeSet<IpNet>,
    /// `Endpoint`, if it is an address.
    pub endpoint: Option<SocketAddr>,
    /// `PersistentKeepalive` in seconds; 0 is off.
    pub keepalive: u16,
}

/// `Table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The main table; prefixes that an `Address` covers already need no route.
    Auto,
    /// No routes.
    Off,
    /// This table; every prefix gets its route.
    Number(u32),
}

/// A valid file, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The file.
    pub conf: WgConf,
    /// What was ignored or looks wrong, in the order of the file.
    pub warnings: Vec<ConfWarning>,
}

/// What is wrong with a file. The text never holds the value of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{}{key}: {what}", At(*.line))]
pub struct ConfError {
    /// The line, counted from 1; `None` if the whole file is meant.
    pub line: Option<usize>,
    /// The key or section as the manual spells it.
    pub key: String,
    /// What is wrong and what was expected.
    pub what: String,
}

/// What is odd about a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfWarning {
    /// The line, counted from 1; `None` if the whole file is meant.
    pub line: Option<usize>,
    /// The key or section.
    pub key: String,
    /// What is odd.
    pub what: String,
}

impl std::fmt::Display for ConfWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}: {}", At(self.line), self.key, self.what)
    }
}

struct At(Option<usize>);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}, "))
    }
}

impl WgConf {
    /// Reads the text of a file for the interface of this name.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the lines.
    pub fn parse(interface: &str, text: &str) -> Result<Parsed, Vec<ConfError>> {
        parse::parse(interface, text)
    }

    /// Reads the file at `path`; others being able to read it is a warning, as with wg-quick.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if the file cannot be read.
    pub fn load(interface: &str, path: &Path) -> Result<Parsed, Vec<ConfError>> {
        let (text, open_to_others) = read(path).map_err(|e| {
            let (key, what) = (path.display().to_string(), format!("cannot be read: {e}"));
            vec![ConfError { line: None, key, what }]
        })?;
        let mut parsed = Self::parse(interface, &text)?;
        if open_to_others {
            let (key, what) = (path.display().to_string(), "can be read by others".to_owned());
            parsed.warnings.insert(0, ConfWarning { line: None, key, what });
        }
        Ok(parsed)
    }

    /// What two nodes must agree on, as bytes that depend on nothing else: public key, port, and
    /// of each peer its key, prefixes and a hash of its preshared key. Holds no secret.
    #[must_use]
    pub fn fingerprint_material(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.public_key.0);
        out.extend_from_slice(&self.listen_port.to_be_bytes());
        let mut peers: Vec<&Peer> = self.peers.iter().collect();
        peers.sort_by_key(|p| p.public_key);
        for peer in peers {
            peer.fingerprint_into(&mut out);
        }
        out
    }
}

impl Peer {
    fn fingerprint_into(&self, out: &mut Vec<u8>) {
        out.push(b'P');
        out.extend_from_slice(&self.public_key.0);
        if let Some(psk) = &self.preshared_key {
            let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
            hash.update(b"wgha preshared key");
            hash.update(&self.public_key.0);
            hash.update(psk.expose());
            out.push(b'K');
            out.extend_from_slice(hash.finish().as_ref());
        }
        for net in &self.allowed_ips {
            // Text, so that no address of one family reads like the other's.
            out.push(b'A');
            out.extend_from_slice(net.to_string().as_bytes());
        }
    }
}

fn read(path: &Path) -> std::io::Result<(Zeroizing<String>, bool)> {
    use std::os::unix::fs::PermissionsExt as _;

    let file = std::fs::File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let text = bounded::secret_text(&file, MAX_FILE_LEN)?;
    Ok((text, meta.permissions().mode() & 0o007 != 0))
}
