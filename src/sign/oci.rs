//! Oracle Cloud's request signatures: draft-cavage-http-signatures-08 with RSA-SHA256.
//!
//! <https://docs.oracle.com/en-us/iaas/Content/API/Concepts/signingrequests.htm>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use zeroize::Zeroizing;

use super::{Credentials, Header, Request, SignError, Target, checked, header, sha256, time};

/// The headers that sign `request` at `unix` (seconds since 1970, UTC).
///
/// The id of the credentials is `TENANCY/USER/FINGERPRINT`, the secret an RSA key in PEM (PKCS#1 or PKCS#8, 2048 bits or
/// more, without a passphrase). A request with a body also needs its `Content-Length`, which curl sends by itself.
///
/// # Errors
/// If something cannot be sent, the URL is not understood, or the key is none.
pub fn sign(
    request: &Request<'_>,
    credentials: &Credentials,
    unix: u64,
) -> Result<Vec<Header>, SignError> {
    let target = Target::of(request.url)?;
    let date = time::http_date(unix)?;
    let (method, path) = (request.method.to_ascii_lowercase(), target.path_and_query());
    let mut headers = vec![header("date", &date)?];
    let mut names = String::from("date (request-target) host");
    let mut text =
        format!("date: {date}\n(request-target): {method} {path}\nhost: {}", target.host);
    if matches!(request.method, "POST" | "PUT" | "PATCH") {
        let body = request.body.unwrap_or_default();
        let (kind, length) = (checked("content-type", request.content_type)?, body.len());
        let hash = STANDARD.encode(sha256(body));
        names.push_str(" content-length content-type x-content-sha256");
        text.push_str(&format!(
            "\ncontent-length: {length}\ncontent-type: {kind}\nx-content-sha256: {hash}"
        ));
        headers.push(header("content-type", kind)?);
        headers.push(header("x-content-sha256", &hash)?);
    }
    let id = checked("key id", &credentials.id)?;
    if id.contains('"') {
        return Err(SignError::Header("key id"));
    }
    let signature = rsa(&credentials.secret, text.as_bytes())?;
    headers.push((
        "Authorization",
        format!(
            "Signature algorithm=\"rsa-sha256\",headers=\"{names}\",keyId=\"{id}\",\
             signature=\"{signature}\",version=\"1\""
        ),
    ));
    Ok(headers)
}

fn rsa(pem: &str, text: &[u8]) -> Result<String, SignError> {
    let (label, der) = read_pem(pem)?;
    let pair = match label {
        "RSA PRIVATE KEY" => KeyPair::from_der(&der),
        _ => KeyPair::from_pkcs8(&der),
    };
    let pair = pair.map_err(|_| SignError::Key("is no RSA key of 2048 to 4096 bits"))?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
        .map_err(|_| SignError::Key("cannot sign"))?;
    Ok(STANDARD.encode(signature))
}

/// The first private key in a PEM file, with its label.
fn read_pem(pem: &str) -> Result<(&'static str, Zeroizing<Vec<u8>>), SignError> {
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY"] {
        let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
        let Some((_, rest)) = pem.split_once(&begin) else { continue };
        let (body, _) = rest.split_once(&end).ok_or(SignError::Key("has no end"))?;
        if body.contains("ENCRYPTED") {
            return Err(SignError::Key("has a passphrase; expected one without"));
        }
        let body: Zeroizing<String> =
            Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let der = STANDARD.decode(body.as_bytes()).map_err(|_| SignError::Key("is no base64"))?;
        return Ok((label, Zeroizing::new(der)));
    }
    if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Err(SignError::Key("has a passphrase; expected one without"));
    }
    Err(SignError::Key("is not in PEM"))
}
