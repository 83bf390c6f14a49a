//! The limit: how many handshakes one core of this machine does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::WgKind;

use crate::keys::KeyPair;
use crate::sys::thread_cpu_ns;

/// Handshakes a second that one core does with gotatun, without any socket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HandshakeRate {
    /// The part of the one that begins: initiation, and the response worked through.
    pub gateway: f64,
    /// Both sides on the one core.
    pub both: f64,
}

impl HandshakeRate {
    /// Shakes hands with itself for so long. Counts the time on a processor: other work does not matter.
    ///
    /// # Errors
    /// When a handshake fails, which it cannot.
    pub fn measure(time: Duration) -> Result<Self> {
        let (near, far) = (KeyPair::generate()?, KeyPair::generate()?);
        let (mut near, mut far) = (tunnel(&near, &far), tunnel(&far, &near));
        let (mut gateway, mut client) = (0, 0);
        let mut count = 0;
        while Duration::from_nanos(gateway + client) < time {
            let start = thread_cpu_ns();
            let initiation = near.format_handshake_initiation(true).context("no initiation")?;
            let begun = thread_cpu_ns();
            let response = answer(&mut far, initiation.into())?;
            let responded = thread_cpu_ns();
            let keepalive = answer(&mut near, response)?;
            let ended = thread_cpu_ns();
            let TunnResult::WriteToTunnel(_) = far.handle_incoming_packet(keepalive) else {
                bail!("the session does not work");
            };
            gateway += (begun - start) + (ended - responded);
            client += (responded - begun) + (thread_cpu_ns() - ended);
            count += 1;
        }
        let rate = |spent: u64| f64::from(count) / Duration::from_nanos(spent).as_secs_f64();
        Ok(Self { gateway: rate(gateway), both: rate(gateway + client) })
    }
}

fn tunnel(own: &KeyPair, other: &KeyPair) -> Tunn {
    let limiter = Arc::new(RateLimiter::new(&own.public(), u64::MAX));
    Tunn::new(own.secret(), other.public(), None, None, IndexTable::from_os_rng(), limiter)
}

fn answer(tunnel: &mut Tunn, packet: WgKind) -> Result<WgKind> {
    match tunnel.handle_incoming_packet(packet) {
        TunnResult::WriteToNetwork(packet) => Ok(packet),
        other => bail!("a handshake failed: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_is_faster_than_both() {
        let rate = HandshakeRate::measure(Duration::from_millis(20)).unwrap();
        assert!(rate.gateway > rate.both && rate.both > 1.0, "{rate:?}");
    }
}
