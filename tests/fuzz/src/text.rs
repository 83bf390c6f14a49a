//! Text that people and programs write: the config, wg0.conf, requests to the control socket.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use wgha::config::{Config, Machine};
use wgha::control::Request;
use wgha::wireguard::conf::WgConf;

/// The machine of the examples' gw1.
struct Gw1;

impl Machine for Gw1 {
    fn node_variable(&self) -> Option<String> {
        None
    }

    fn hostname(&self) -> Option<String> {
        Some("gw1".to_owned())
    }

    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::new(10, 0, 1, 10).into()])
    }

    fn interfaces(&self) -> io::Result<BTreeSet<String>> {
        Ok(BTreeSet::from(["eth0".to_owned()]))
    }

    fn default_routes(&self, v6: bool) -> io::Result<BTreeSet<String>> {
        if v6 { Ok(BTreeSet::new()) } else { self.interfaces() }
    }

    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// wgha.toml: what is wrong is named with a line that the file has, and what is right has a local node and timing
/// within the documented bounds.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, Path::new("/etc/wgha/edge.toml"), None, &Gw1) {
        Ok(config) => {
            assert_eq!(config.node().name, config.nodes[config.me].name);
            let heartbeat = config.cluster.heartbeat.as_millis();
            assert!((10..=10_000).contains(&heartbeat), "a heartbeat of {heartbeat} ms");
            assert!(config.peers().count() + 1 == config.nodes.len());
        }
        Err(errors) => {
            let lines = text.split('\n').count();
            let named = &errors.errors;
            assert!(!named.is_empty(), "refused without a word");
            for error in named {
                assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}");
            }
        }
    }
}

/// wg0.conf: errors name a line that the file has, and hold no key.
pub(crate) fn wgconf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match WgConf::parse("wg0", text) {
        Ok(parsed) => {
            let _ = parsed.conf.fingerprint_material();
            // What is printed for a log holds no secret.
            let shown = format!("{:?}", parsed.conf);
            for secret in secrets(text) {
                assert!(!shown.contains(secret), "a secret is shown");
            }
        }
        Err(errors) => {
            let lines = text.split('\n').count();
            assert!(!errors.is_empty(), "refused without a word");
            for error in errors {
                assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}");
                let shown = error.to_string();
                for secret in secrets(text) {
                    assert!(!shown.contains(secret), "a secret is shown");
                }
            }
        }
    }
}

/// The values of lines that hold a secret: long enough to be one, in one word, and on no other line. (The fuzzer learns the words of
/// our errors and puts them in as keys; and an error may show what another line says.)
fn secrets(text: &str) -> Vec<&str> {
    let mut values = Vec::new();
    let mut others = Vec::new();
    for line in text.lines() {
        match line.split_once('=').filter(|(key, _)| is_secret(key)) {
            Some((_, value)) => values.push(value.split('#').next().unwrap_or_default().trim()),
            None => others.push(line),
        }
    }
    values.retain(|value| {
        let one_word = value.len() >= 40 && !value.contains(char::is_whitespace);
        one_word && !others.iter().any(|line| line.contains(value))
    });
    values
}

fn is_secret(key: &str) -> bool {
    matches!(key.trim().to_ascii_lowercase().as_str(), "privatekey" | "presharedkey")
}

/// A line to the control socket: what is understood is the same when it is printed and read again.
pub(crate) fn control(data: &[u8]) {
    match Request::parse(data) {
        Ok(request) => {
            let line = serde_json::to_vec(&request).expect("a request can be printed");
            assert_eq!(Request::parse(&line).as_ref(), Ok(&request));
        }
        Err(why) => assert!(why.len() < 4_096, "an answer of {} bytes", why.len()),
    }
}
