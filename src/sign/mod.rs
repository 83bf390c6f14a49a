//! Signatures of clouds' APIs that curl cannot make: Alibaba's ACS3, Tencent's TC3, Oracle's HTTP signatures.
//!
//! Each takes a request, credentials and the time, and gives the header lines to add to the request.
//! Nothing here reads a clock or the network. tests/vectors/sign has what the providers' own clients make.

use ring::digest;
use zeroize::Zeroizing;

pub mod acs3;
pub mod oci;
mod target;
pub mod tc3;
mod time;

use target::Target;

/// A request as it is going to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// `https://host[:port]/path?query`, the query percent-encoded.
    pub url: &'a str,
    /// What is sent as body; none is not the same as an empty one.
    pub body: Option<&'a [u8]>,
    /// The body's media type; without effect where there is no body.
    pub content_type: &'a str,
}

/// Who signs. Neither shown nor printed.
pub struct Credentials {
    /// The public name of the secret.
    pub id: String,
    /// The secret itself.
    pub secret: Zeroizing<String>,
    /// What goes with a secret of limited life.
    pub token: Option<Zeroizing<String>>,
}

/// A header to add to the request.
pub type Header = (&'static str, String);

/// Why a request is not signed. No variant shows any part of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// It cannot be told what would be asked for.
    #[error("the URL is not http(s)://host/path?query: {0}")]
    Url(&'static str),
    /// It would end the header, or could not be sent.
    #[error("{0}: expected printable ASCII, at least one character")]
    Header(&'static str),
    /// Every API that signs this way takes only this method.
    #[error("the method is {0}")]
    Method(&'static str),
    /// The time cannot be written.
    #[error("the time is out of range")]
    Time,
    /// The key file.
    #[error("the private key {0}")]
    Key(&'static str),
}

/// `name: value`, if the value can stand in a header.
fn header(name: &'static str, value: &str) -> Result<Header, SignError> {
    Ok((name, checked(name, value)?.to_owned()))
}

fn checked<'a>(name: &'static str, value: &'a str) -> Result<&'a str, SignError> {
    let good = !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if good { Ok(value) } else { Err(SignError::Header(name)) }
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
