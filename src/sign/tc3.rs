//! Tencent Cloud's signature v3, TC3-HMAC-SHA256.
//!
//! <https://www.tencentcloud.com/document/product/845/32207>

use ring::hmac;
use zeroize::Zeroizing;

use super::{Credentials, Header, Request, SignError, Target, checked, header, hex, sha256, time};

const ALGORITHM: &str = "TC3-HMAC-SHA256";

/// Which call of which API.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The product, such as `vpc`.
    pub service: &'a str,
    /// The operation, such as `DescribeAddresses`.
    pub action: &'a str,
    /// The API's version, such as `2017-03-12`.
    pub version: &'a str,
    /// Where; some calls have none.
    pub region: Option<&'a str>,
}

/// The headers that sign `request` at `unix` (seconds since 1970, UTC). The parameters are its body, as JSON.
///
/// # Errors
/// If something cannot be sent, or the URL is not understood.
pub fn sign(
    request: &Request<'_>,
    call: &Call<'_>,
    credentials: &Credentials,
    unix: u64,
) -> Result<Vec<Header>, SignError> {
    if request.method != "POST" {
        return Err(SignError::Method("not POST"));
    }
    let target = Target::of(request.url)?;
    let content_type = checked("content-type", request.content_type)?;
    let mut headers = vec![
        header("Content-Type", content_type)?,
        header("X-TC-Action", call.action)?,
        header("X-TC-Version", call.version)?,
        header("X-TC-Timestamp", &unix.to_string())?,
    ];
    if let Some(region) = call.region {
        headers.push(header("X-TC-Region", region)?);
    }
    if let Some(token) = &credentials.token {
        headers.push(header("X-TC-Token", token)?);
    }
    let date = time::date(unix)?;
    let service = checked("service", call.service)?;
    let scope = format!("{date}/{service}/tc3_request");
    let (path, query, host) = (target.path, target.canonical_query()?, target.host);
    let hash = hex(sha256(request.body.unwrap_or_default()).as_ref());
    let canonical = format!(
        "POST\n{path}\n{query}\ncontent-type:{content_type}\nhost:{host}\n\ncontent-type;host\n{hash}"
    );
    let hash = hex(sha256(canonical.as_bytes()).as_ref());
    let text = format!("{ALGORITHM}\n{unix}\n{scope}\n{hash}");
    let signature = hex(hmac::sign(&key(credentials, &date, service), text.as_bytes()).as_ref());
    let id = checked("key id", &credentials.id)?;
    headers.push((
        "Authorization",
        format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders=content-type;host, Signature={signature}"),
    ));
    Ok(headers)
}

/// The key of one day and one service.
fn key(credentials: &Credentials, date: &str, service: &str) -> hmac::Key {
    let secret = Zeroizing::new(format!("TC3{}", credentials.secret.as_str()));
    let first = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    [date, service, "tc3_request"].into_iter().fold(first, |key, part| {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
    })
}
