//! WireGuard keys, made without the `wg` program.

use std::fmt;
use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gotatun::x25519::{PublicKey, StaticSecret};

/// A private key and its public key.
#[derive(Clone)]
pub struct KeyPair {
    private: [u8; 32],
}

impl KeyPair {
    /// A new one, from /dev/urandom.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn generate() -> Result<Self> {
        let mut private = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut private).context("reading /dev/urandom")?;
        Ok(Self { private })
    }

    /// The private key as in config files.
    pub fn private_base64(&self) -> String {
        STANDARD.encode(self.private)
    }

    /// The public key as in config files.
    pub fn public_base64(&self) -> String {
        STANDARD.encode(self.public().as_bytes())
    }

    /// The public key as in [`PeerState`](crate::PeerState).
    pub fn public_hex(&self) -> String {
        hex(self.public().as_bytes())
    }

    /// For the Noise protocol.
    pub(crate) fn secret(&self) -> StaticSecret {
        StaticSecret::from(self.private)
    }

    /// For the Noise protocol.
    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::from(&self.secret())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public_base64()).finish_non_exhaustive()
    }
}

/// All keys of a lab.
#[derive(Debug)]
pub struct Keys {
    /// The gateways' one identity.
    pub gateway: KeyPair,
    /// The clients', in order.
    pub clients: Vec<KeyPair>,
    /// The simulated clients', in order.
    pub swarm: Vec<KeyPair>,
    /// Shared by the gateways and each simulated client.
    pub(crate) preshared: KeyPair,
}

impl Keys {
    pub(crate) fn generate(clients: u8, swarm: u16) -> Result<Self> {
        let some = |n: u16| (0..n).map(|_| KeyPair::generate()).collect::<Result<Vec<_>>>();
        Ok(Self {
            gateway: KeyPair::generate()?,
            clients: some(clients.into())?,
            swarm: some(swarm)?,
            preshared: KeyPair::generate()?,
        })
    }
}

/// Base64 to the hexadecimal form of the UAPI.
pub(crate) fn to_hex(base64: &str) -> Result<String> {
    let bytes = STANDARD
        .decode(base64.trim())
        .ok()
        .filter(|b| b.len() == 32)
        .context("not a WireGuard key")?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748 section 6.1, Alice's key pair.
    #[test]
    fn public_key_of_rfc_7748() {
        let private = STANDARD.decode("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
        let pair = KeyPair { private: private.try_into().unwrap() };
        assert_eq!(pair.public_base64(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        assert_eq!(
            to_hex(&pair.private_base64()).unwrap(),
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
        );
    }
}
