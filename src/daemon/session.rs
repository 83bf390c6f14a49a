//! A new session in a process that goes on.

use ring::rand::{SecureRandom, SystemRandom};
use wgha_proto::Time;
use zeroize::Zeroizing;

use super::Daemon;

/// Random bytes: a session, or its secret. `None`: the system has none.
#[must_use]
pub fn draw<const N: usize>() -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut()).ok()?;
    Some(bytes)
}

impl Daemon {
    /// Begins a new session if one is due. Without random numbers there is none, and nothing is said until there are.
    pub(super) fn renew(&mut self, now: Time) -> bool {
        if !self.node.wants_session() {
            return false;
        }
        let (Some(session), Some(secret)) = (draw(), draw()) else { return false };
        self.node.renew(now, *session, &secret);
        // Before anything is said in it: nobody may know a session that the guard could not end.
        self.testament.renew(&self.node, &self.link);
        true
    }
}

#[cfg(test)]
mod tests;
