//! The parts of a URL that are signed.

use super::SignError;

/// A URL, taken apart.
pub(super) struct Target<'a> {
    /// Host, and port if one is named: what curl sends as `Host`.
    pub(super) host: &'a str,
    /// From the first `/` on, as it is sent.
    pub(super) path: &'a str,
    /// After the `?`, as it is sent; empty if there is none.
    pub(super) query: &'a str,
}

impl<'a> Target<'a> {
    pub(super) fn of(url: &'a str) -> Result<Self, SignError> {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let rest = rest.ok_or(SignError::Url("it begins otherwise"))?;
        if !rest.bytes().all(|byte| matches!(byte, b'!'..=b'~')) || rest.contains('#') {
            return Err(SignError::Url("expected printable ASCII without # and spaces"));
        }
        let (host, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host.is_empty() || host.contains('@') {
            return Err(SignError::Url("expected a host, without a user"));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Ok(Self { host, path: if path.is_empty() { "/" } else { path }, query })
    }

    /// Path and query, as they are sent.
    pub(super) fn path_and_query(&self) -> String {
        if self.query.is_empty() {
            self.path.into()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }

    /// The query with its keys sorted and everything encoded as RFC 3986 has it.
    pub(super) fn canonical_query(&self) -> Result<String, SignError> {
        let mut pairs = Vec::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(key)?, decode(value)?));
        }
        pairs.sort();
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        Ok(pairs.join("&"))
    }
}

/// Some servers take `+` for a space and some do not, so that it has no meaning here.
fn decode(text: &str) -> Result<Vec<u8>, SignError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let value =
                    digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or(SignError::Url("% without two hexadecimal digits"))?
            }
            b'+' => return Err(SignError::Url("write + in the query as %2B, and a space as %20")),
            other => other,
        });
    }
    Ok(decoded)
}

fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
