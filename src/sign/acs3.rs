//! Alibaba Cloud's signature V3, ACS3-HMAC-SHA256.
//!
//! <https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature>

use ring::hmac;

use super::{Credentials, Header, Request, SignError, Target, checked, header, hex, sha256, time};

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Which call of which API.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The operation, such as `DescribeEipAddresses`.
    pub action: &'a str,
    /// The API's version, such as `2016-04-28`.
    pub version: &'a str,
}

/// The headers that sign `request` at `unix` (seconds since 1970, UTC). `nonce` must never be the same again.
///
/// # Errors
/// If something cannot be sent, or the URL is not understood.
pub fn sign(
    request: &Request<'_>,
    call: &Call<'_>,
    credentials: &Credentials,
    unix: u64,
    nonce: &str,
) -> Result<Vec<Header>, SignError> {
    let target = Target::of(request.url)?;
    let hash = hex(sha256(request.body.unwrap_or_default()).as_ref());
    let mut headers = vec![
        header("x-acs-action", call.action)?,
        header("x-acs-content-sha256", &hash)?,
        header("x-acs-date", &time::rfc3339(unix)?)?,
        header("x-acs-signature-nonce", nonce)?,
        header("x-acs-version", call.version)?,
    ];
    if let Some(token) = &credentials.token {
        headers.push(header("x-acs-accesskey-id", &credentials.id)?);
        headers.push(header("x-acs-security-token", token)?);
    }
    if request.body.is_some() {
        headers.push(header("content-type", request.content_type)?);
    }
    let (canonical, signed) = canonical(request, &target, &headers, &hash)?;
    let text = format!("{ALGORITHM}\n{}", hex(sha256(canonical.as_bytes()).as_ref()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, credentials.secret.as_bytes());
    let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    let id = checked("key id", &credentials.id)?;
    let value = format!("{ALGORITHM} Credential={id},SignedHeaders={signed},Signature={signature}");
    headers.push(("Authorization", value));
    Ok(headers)
}

/// The request as it is signed, and the names of its headers.
fn canonical(
    request: &Request<'_>,
    target: &Target<'_>,
    headers: &[Header],
    hash: &str,
) -> Result<(String, String), SignError> {
    let mut sorted: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.trim())).collect();
    sorted.push(("host", target.host));
    sorted.sort_unstable();
    let lines: String = sorted.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<&str> = sorted.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let (method, path, query) = (request.method, target.path, target.canonical_query()?);
    Ok((format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{hash}"), names))
}
