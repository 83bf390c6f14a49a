//! The part of wg-quick's file format that the lab's clients and stand-in gateways need.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use crate::keys::to_hex;

/// An interface and its peers.
#[derive(Clone, Default)]
pub struct WgConf {
    /// Base64.
    pub private_key: String,
    /// Any port when not given.
    pub listen_port: Option<u16>,
    /// With prefix lengths.
    pub addresses: Vec<String>,
    /// Of the tunnel interface, in bytes.
    pub mtu: Option<u16>,
    /// The peers.
    pub peers: Vec<PeerConf>,
}

/// One peer.
#[derive(Debug, Clone, Default)]
pub struct PeerConf {
    /// Base64.
    pub public_key: String,
    /// Base64.
    pub preshared_key: Option<String>,
    /// With prefix lengths.
    pub allowed_ips: Vec<String>,
    /// Where to send first.
    pub endpoint: Option<SocketAddr>,
    /// PersistentKeepalive in seconds, 0 is off.
    pub keepalive: u16,
}

impl WgConf {
    /// The file.
    pub fn to_text(&self) -> String {
        let mut t = format!("[Interface]\nPrivateKey = {}\n", self.private_key);
        if let Some(port) = self.listen_port {
            let _ = writeln!(t, "ListenPort = {port}");
        }
        let _ = writeln!(t, "Address = {}", self.addresses.join(", "));
        if let Some(mtu) = self.mtu {
            let _ = writeln!(t, "MTU = {mtu}");
        }
        for peer in &self.peers {
            let _ = write!(
                t,
                "\n[Peer]\nPublicKey = {}\nAllowedIPs = {}\n",
                peer.public_key,
                peer.allowed_ips.join(", ")
            );
            if let Some(key) = &peer.preshared_key {
                let _ = writeln!(t, "PresharedKey = {key}");
            }
            if let Some(endpoint) = peer.endpoint {
                let _ = writeln!(t, "Endpoint = {endpoint}");
            }
            if peer.keepalive > 0 {
                let _ = writeln!(t, "PersistentKeepalive = {}", peer.keepalive);
            }
        }
        t
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Names the line that is not understood.
    pub fn parse(text: &str) -> Result<Self> {
        let mut conf = Self::default();
        let mut in_peer = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.to_ascii_lowercase().as_str() {
                "" => {}
                "[interface]" => in_peer = false,
                "[peer]" => {
                    in_peer = true;
                    conf.peers.push(PeerConf::default());
                }
                _ => {
                    let (key, value) =
                        line.split_once('=').with_context(|| format!("line {number}: no '='"))?;
                    let peer = if in_peer { conf.peers.last_mut() } else { None };
                    let key = key.trim().to_ascii_lowercase();
                    let done = match peer {
                        Some(peer) => peer.set(&key, value.trim()),
                        None => conf.set(&key, value.trim()),
                    };
                    done.with_context(|| format!("line {number}"))?;
                }
            }
        }
        Ok(conf)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "privatekey" => value.clone_into(&mut self.private_key),
            "listenport" => self.listen_port = Some(value.parse()?),
            "address" => self.addresses.extend(list(value)),
            "mtu" => self.mtu = Some(value.parse()?),
            _ => bail!("unknown key {key}"),
        }
        Ok(())
    }

    /// The `set=1` request of the UAPI, which replaces everything.
    pub(crate) fn to_uapi(&self) -> Result<String> {
        let mut t = format!("set=1\nprivate_key={}\n", to_hex(&self.private_key)?);
        if let Some(port) = self.listen_port {
            let _ = writeln!(t, "listen_port={port}");
        }
        t += "replace_peers=true\n";
        for peer in &self.peers {
            let _ = writeln!(t, "public_key={}", to_hex(&peer.public_key)?);
            if let Some(key) = &peer.preshared_key {
                let _ = writeln!(t, "preshared_key={}", to_hex(key)?);
            }
            if let Some(endpoint) = peer.endpoint {
                let _ = writeln!(t, "endpoint={endpoint}");
            }
            t += "replace_allowed_ips=true\n";
            for prefix in &peer.allowed_ips {
                let _ = writeln!(t, "allowed_ip={prefix}");
            }
            let _ = writeln!(t, "persistent_keepalive_interval={}", peer.keepalive);
        }
        Ok(t + "\n")
    }

    /// Addresses, link up and routes, for `ip -batch`.
    pub(crate) fn to_ip_batch(&self, interface: &str) -> String {
        let mut t = String::new();
        for address in &self.addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            let _ = writeln!(t, "addr add {address} dev {interface}{nodad}");
        }
        let _ = writeln!(t, "link set {interface} mtu {} up", self.mtu.unwrap_or(1420));
        for prefix in self.peers.iter().flat_map(|p| &p.allowed_ips) {
            let _ = writeln!(t, "route replace {prefix} dev {interface}");
        }
        t
    }
}

impl PeerConf {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "publickey" => value.clone_into(&mut self.public_key),
            "presharedkey" => self.preshared_key = Some(value.to_owned()),
            "allowedips" => self.allowed_ips.extend(list(value)),
            "endpoint" => self.endpoint = Some(value.parse()?),
            "persistentkeepalive" => self.keepalive = value.parse()?,
            _ => bail!("unknown key {key}"),
        }
        Ok(())
    }
}

fn list(value: &str) -> impl Iterator<Item = String> + '_ {
    value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_back() {
        let text = "[Interface]\nPrivateKey = k # mine\nAddress = 10.0.0.1/24, fd00::1/64\n[Peer]\nPublicKey = p\n\
                    PresharedKey = s\nAllowedIPs = 0.0.0.0/1\nEndpoint = [2001:db8::1]:5\nPersistentKeepalive = 3\n";
        let conf = WgConf::parse(text).unwrap();
        assert_eq!(WgConf::parse(&conf.to_text()).unwrap().to_text(), conf.to_text());
        assert_eq!(conf.addresses.len(), 2);
        assert_eq!(conf.peers[0].endpoint, Some("[2001:db8::1]:5".parse().unwrap()));
    }

    #[test]
    fn the_bad_line_is_named() {
        let error = WgConf::parse("[Interface]\n\nColour = red\n").err().unwrap();
        assert!(format!("{error:#}").contains("line 3: unknown key colour"), "{error:#}");
    }
}
