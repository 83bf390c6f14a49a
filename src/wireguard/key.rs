//! WireGuard keys: public ones to be shown, secret ones that never are.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of every WireGuard key in bytes.
pub const KEY_LEN: usize = 32;

/// A public key. Shown and compared as base64, as `wg` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    /// Reads 44 characters of base64; `None` if they are anything else.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A private or preshared key: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; KEY_LEN]);

impl SecretKey {
    /// Takes the bytes over.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads 44 characters of base64; `None` if they are anything else.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        decode(text).map(|bytes| Self(*Zeroizing::new(bytes)))
    }

    /// The bytes, for the one who needs them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// All zero, which WireGuard takes for "no key".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }

    /// The public key that belongs to this private key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let secret = gotatun::x25519::StaticSecret::from(self.0);
        PublicKey(gotatun::x25519::PublicKey::from(&secret).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

fn decode(text: &str) -> Option<[u8; KEY_LEN]> {
    // Decoded in place, so that no copy of a secret stays on the heap.
    let mut bytes = [0; KEY_LEN + 1];
    match STANDARD.decode_slice(text, &mut bytes) {
        Ok(KEY_LEN) => {
            let mut key = [0; KEY_LEN];
            key.copy_from_slice(bytes.get(..KEY_LEN)?);
            bytes.zeroize();
            Some(key)
        }
        _ => {
            bytes.zeroize();
            None
        }
    }
}
