//! TLS to etcd: whom to trust, and who I am.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::Arbiter;
use crate::keyfile;

/// Whom this system trusts, if the config names nobody (Debian, ca-certificates).
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The longest file of a key, in bytes.
const MAX_KEY: u64 = 64 * 1024;

/// A connector by the files of the config, read now. The key must belong to root, me or `user`.
///
/// # Errors
/// What is wrong with a file.
pub fn connector(arbiter: &Arbiter, user: Option<u32>) -> Result<TlsConnector, String> {
    let ca = arbiter.ca_file.as_deref().unwrap_or(Path::new(SYSTEM));
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(ca)?);
    if added == 0 {
        return Err(format!("{}: has no certificate that can be used", ca.display()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let mut config = match &arbiter.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key, user)?)
            .map_err(|e| format!("{}, {}: {e}", cert.display(), key.display()))?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let why = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let all = CertificateDer::pem_file_iter(path).map_err(|e| why(&e))?;
    all.collect::<Result<_, _>>().map_err(|e| why(&e))
}

fn private_key(path: &Path, user: Option<u32>) -> Result<PrivateKeyDer<'static>, String> {
    let text = keyfile::read_secret(path, MAX_KEY, user).map_err(|e| e.to_string())?;
    // What the parser says of a key's text is not for the log.
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| format!("{}: has no private key in PEM", path.display()))
}
