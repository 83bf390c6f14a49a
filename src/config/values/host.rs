//! Hosts, by address or name, with a port, and URLs of them.

use std::net::Ipv6Addr;

use crate::config::{Endpoint, Target};

/// The longest name of a host, in bytes.
const MAX_HOST: usize = 253;

/// A host, by address or name, and its port; without one it is `port`, if there is such a default.
pub(in crate::config) fn target(text: &str, port: Option<u16>) -> Result<Target, String> {
    let expected = || {
        let example = "\"203.0.113.7:443\", \"[2001:db8::7]:443\" or \"host.example:443\"";
        format!("expected a host and port, such as {example}, found {text:?}")
    };
    let (host, number) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(expected)?;
            let address: Ipv6Addr = host.parse().map_err(|_| expected())?;
            let number = if rest.is_empty() {
                None
            } else {
                Some(rest.strip_prefix(':').ok_or_else(expected)?)
            };
            (address.to_string(), number)
        }
        None => match text.split_once(':') {
            Some((host, number)) => (host.to_owned(), Some(number)),
            None => (text.to_owned(), None),
        },
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let named = (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(is_name);
    let port = match number {
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
        Some(_) => None,
        None => port,
    };
    match port {
        Some(port) if port > 0 && (named || text.starts_with('[')) => Ok(Target { host, port }),
        _ => Err(expected()),
    }
}

/// The longest path of a URL, in bytes.
const MAX_URL_PATH: usize = 1024;

/// Host, port and path of a URL that is asked without encryption.
pub(in crate::config) fn http_url(text: &str) -> Result<(Target, String), String> {
    let expected =
        || format!("expected a URL, such as \"http://10.0.3.4:8080/health\", found {text:?}");
    if text.starts_with("https://") {
        return Err(
            "expected a URL that begins with \"http://\": https is for a script, with curl"
                .to_owned(),
        );
    }
    let rest = text.strip_prefix("http://").ok_or_else(expected)?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let path = if path.is_empty() { "/" } else { path };
    // Nothing that could end the line of the request.
    if path.len() > MAX_URL_PATH || !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(expected());
    }
    let target = target(host, Some(80)).map_err(|_| expected())?;
    Ok((target, path.to_owned()))
}

/// Where etcd listens unless its endpoint says so.
const ETCD_PORT: u16 = 2379;

/// An endpoint of etcd: `https://HOST[:PORT]`.
pub(in crate::config) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let (tls, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, Some(rest)),
        Some(("http", rest)) => (false, Some(rest)),
        _ => (false, None),
    };
    let member = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let member = member.and_then(|rest| target(rest, Some(ETCD_PORT)).ok());
    let Target { host, port } = member.ok_or_else(|| {
        format!("expected an endpoint such as \"https://10.0.3.1:2379\", found {text:?}")
    })?;
    Ok(Endpoint { tls, host, port })
}
