//! WireGuard's text protocol on /var/run/wireguard/NAME.sock, and `wg show` for the kernel's devices.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::node::Node;
use crate::wgconf::WgConf;

/// What a device knows of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Hexadecimal.
    pub public_key: String,
    /// Where its packets go.
    pub endpoint: Option<SocketAddr>,
    /// CLOCK_REALTIME of the last handshake in seconds; `None` when there was none.
    pub last_handshake: Option<u64>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// One request and its answer. To be called in the node that has the socket.
pub(crate) fn request(interface: &str, text: &str) -> Result<String> {
    let path = format!("/var/run/wireguard/{interface}.sock");
    let mut socket = UnixStream::connect(&path).with_context(|| path.clone())?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"\n\n") {
        let n = socket.read(&mut buffer).context("reading the UAPI answer")?;
        answer.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if n == 0 || answer.len() > 4 << 20 {
            break;
        }
    }
    let answer = String::from_utf8(answer).context("UAPI answer")?;
    match answer.lines().find_map(|l| l.strip_prefix("errno=")) {
        Some("0") => Ok(answer),
        errno => bail!("UAPI errno {errno:?}"),
    }
}

/// Configures a userspace device over its socket, then addresses, link and routes. To be called in its node.
///
/// # Errors
/// When the device or `ip` refuses something.
pub fn bring_up(interface: &str, conf: &WgConf) -> Result<()> {
    request(interface, &conf.to_uapi()?)?;
    run_ip_batch(&conf.to_ip_batch(interface))
}

/// Feeds `ip -batch -` in this thread's namespaces.
pub(crate) fn run_ip_batch(lines: &str) -> Result<()> {
    let mut command = std::process::Command::new("ip");
    command
        .args(["-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().context("running ip")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("ip: {} in:\n{lines}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Reads the peers of a WireGuard device in `node`, kernel or userspace.
///
/// # Errors
/// When there is neither.
pub fn peers(node: &Node, interface: &str) -> Result<Vec<PeerState>> {
    let name = interface.to_owned();
    let userspace = node.run(move || {
        let there = std::path::Path::new(&format!("/var/run/wireguard/{name}.sock")).exists();
        there.then(|| request(&name, "get=1\n\n"))
    });
    match userspace {
        Some(answer) => Ok(parse_get(&answer?)),
        None => parse_dump(&node.exec(&["wg", "show", interface, "dump"])?),
    }
}

fn parse_get(answer: &str) -> Vec<PeerState> {
    let mut peers: Vec<PeerState> = Vec::new();
    for (key, value) in answer.lines().filter_map(|l| l.split_once('=')) {
        if key == "public_key" {
            peers.push(PeerState { public_key: value.to_owned(), ..PeerState::default() });
        }
        let Some(peer) = peers.last_mut() else { continue };
        match key {
            "endpoint" => peer.endpoint = value.parse().ok(),
            "last_handshake_time_sec" => {
                peer.last_handshake = value.parse().ok().filter(|&s| s > 0)
            }
            "rx_bytes" => peer.rx_bytes = value.parse().unwrap_or(0),
            "tx_bytes" => peer.tx_bytes = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    peers
}

/// `wg show wg0 dump`: the interface, then one peer a line: key, psk, endpoint, allowed ips, handshake, rx, tx, keepalive.
fn parse_dump(dump: &str) -> Result<Vec<PeerState>> {
    let mut peers = Vec::new();
    for line in dump.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [key, _psk, endpoint, _allowed, handshake, rx, tx, ..] = fields.as_slice() else {
            bail!("wg show dump: {line:?}");
        };
        peers.push(PeerState {
            public_key: crate::keys::to_hex(key)?,
            endpoint: endpoint.parse().ok(),
            last_handshake: handshake.parse().ok().filter(|&s| s > 0),
            rx_bytes: rx.parse().unwrap_or(0),
            tx_bytes: tx.parse().unwrap_or(0),
        });
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        let dump = format!(
            "priv\tpub\t51820\toff\n{key}\t(none)\t203.0.113.100:51820\t10.9.0.0/24\t1700000000\t10\t20\toff\n"
        );
        let hex = crate::keys::to_hex(key).unwrap();
        let get = format!(
            "private_key=00\npublic_key={hex}\nendpoint=203.0.113.100:51820\nlast_handshake_time_sec=1700000000\n\
             last_handshake_time_nsec=5\nrx_bytes=10\ntx_bytes=20\nerrno=0\n\n"
        );
        assert_eq!(parse_dump(&dump).unwrap(), parse_get(&get));
        assert_eq!(parse_get(&get)[0].endpoint, Some("203.0.113.100:51820".parse().unwrap()));
    }
}
