//! Sealing and opening: ChaCha20-Poly1305 (RFC 8439) with a synthetic nonce.
//!
//! The nonce is an HMAC of header and plaintext, so equal nonces mean equal messages: a machine
//! that was cloned or rolled back, and counts from an old state, still never seals two different
//! messages with one nonce. The receiver computes it again: a sender that makes nonces in another
//! way would lack that protection unnoticed.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::keys::expand;
use crate::refusal::Refusal;
use crate::wire::{HEADER_LEN, NONCE_AT, array, name_len};

/// What keeps these keys apart from others that may follow from the same secret.
const LABEL: &[u8] = b"heartbeat";

/// The keys of one direction between two nodes in one session of the sender.
#[derive(Clone)]
pub(crate) struct SealKeys {
    body: LessSafeKey,
    nonce: hmac::Key,
}

impl SealKeys {
    /// Derives the keys. Lengths stand before names, so no two inputs look alike.
    pub(crate) fn derive(
        prk: &hkdf::Prk,
        cluster: &str,
        session: &[u8; 16],
        sender: &str,
        receiver: &str,
    ) -> SealKeys {
        let mut okm = Zeroizing::new([0; 64]);
        let info: [&[u8]; 8] = [
            LABEL,
            &name_len(cluster),
            cluster.as_bytes(),
            session,
            &name_len(sender),
            sender.as_bytes(),
            &name_len(receiver),
            receiver.as_bytes(),
        ];
        expand(prk, &info, okm.as_mut_slice());
        let (body, nonce) = okm.split_at(32);
        let body = UnboundKey::new(&CHACHA20_POLY1305, body).expect("32 bytes are a key");
        SealKeys { body: LessSafeKey::new(body), nonce: hmac::Key::new(hmac::HMAC_SHA256, nonce) }
    }

    /// Turns `datagram`, header and plaintext, into what goes on the wire. The header's nonce is
    /// filled in. `None` if it is shorter than a header.
    pub(crate) fn seal(&self, datagram: &mut Vec<u8>) -> Option<()> {
        let nonce = self.synthetic_nonce(datagram.get(..NONCE_AT)?, datagram.get(HEADER_LEN..)?);
        datagram.get_mut(NONCE_AT..HEADER_LEN)?.copy_from_slice(&nonce);
        let (header, body) = datagram.split_at_mut_checked(HEADER_LEN)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&*header);
        let tag = self.body.seal_in_place_separate_tag(nonce, aad, body).ok()?;
        datagram.extend_from_slice(tag.as_ref());
        Some(())
    }

    /// Opens a datagram in place and returns its plaintext.
    pub(crate) fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refusal> {
        let (header, sealed) = datagram.split_at_mut_checked(HEADER_LEN).ok_or(Refusal::Length)?;
        let nonce: [u8; 12] = array(header, NONCE_AT).ok_or(Refusal::Length)?;
        let aead_nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&*header);
        let plain = self.body.open_in_place(aead_nonce, aad, sealed).map_err(|_| Refusal::Seal)?;
        let clear = header.get(..NONCE_AT).ok_or(Refusal::Length)?;
        if self.synthetic_nonce(clear, plain) != nonce {
            return Err(Refusal::Nonce);
        }
        Ok(plain)
    }

    fn synthetic_nonce(&self, clear: &[u8], plain: &[u8]) -> [u8; 12] {
        let mut context = hmac::Context::with_key(&self.nonce);
        context.update(clear);
        context.update(plain);
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&context.sign().as_ref()[..12]);
        nonce
    }
}
