//! What comes from addresses that the config does not name: heartbeats of a peer behind a NAT that it does
//! not know of, or anybody's. All of them share one small rate.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wgha_proto::Time;

use super::peers;
use crate::config::Config;

/// What passes at least, in datagrams a second.
const LEAST: u32 = 50;

/// How much may come at once, as the time in which the rate allows as much.
const BURST: Duration = Duration::from_secs(1);

/// The addresses of the peers, and what is left for everybody else.
#[derive(Debug)]
pub(super) struct Strangers {
    known: Vec<(IpAddr, u16)>,
    /// Between two datagrams at the full rate.
    step: Duration,
    /// When as much as came would have come at that rate.
    paid_until: Time,
}

impl Strangers {
    /// The rate is twice what all peers send if all of them come from unknown addresses.
    pub(super) fn new(config: &Config) -> Strangers {
        let floating = peers(config).flat_map(|peer| super::floating_routes(config, peer));
        let known = peers(config).flat_map(|peer| &peer.addresses).map(|a| key(a.send));
        let known: Vec<_> = known.chain(floating.map(|(_, address)| key(address))).collect();
        let mine = config.nodes.get(config.me).map_or(0, |me| me.addresses.len());
        let paths = peers(config).map(|p| {
            // What comes to a floating IP comes from an address that leads there.
            super::path_count(mine, p.addresses.len()) + usize::from(super::floating_count(config))
        });
        let paths: usize = paths.sum();
        let all = u32::try_from(paths.max(1)).unwrap_or(u32::MAX);
        let step = (config.cluster.heartbeat / all / 2).min(Duration::from_secs(1) / LEAST);
        Strangers { known, step, paid_until: Time::ZERO }
    }

    /// Whether the config names the address.
    pub(super) fn knows(&self, from: SocketAddr) -> bool {
        self.known.contains(&key(from))
    }

    /// Whether one more of a stranger's datagrams may be looked at.
    pub(super) fn admit(&mut self, now: Time) -> bool {
        let paid = self.paid_until.max(now);
        if paid.since(now) >= BURST {
            return false;
        }
        self.paid_until = paid + self.step;
        true
    }
}

/// Without scope and flow label, which the config does not have.
fn key(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strangers(step: Duration) -> Strangers {
        Strangers { known: vec![], step, paid_until: Time::ZERO }
    }

    fn admitted(s: &mut Strangers, now: Time, offered: usize) -> usize {
        (0..offered).filter(|_| s.admit(now)).count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut s = strangers(Duration::from_millis(20));
        let start = Time::from_nanos(1_000_000_000_000);
        assert_eq!(admitted(&mut s, start, 10_000), 50);
        assert_eq!(admitted(&mut s, start + Duration::from_millis(100), 10_000), 5);
        // However long nothing came, a burst is a burst.
        assert_eq!(admitted(&mut s, start + Duration::from_secs(1000), 10_000), 50);
    }

    #[test]
    fn a_peer_that_moved_is_heard_in_full() {
        let mut s = strangers(Duration::from_millis(20));
        let beat = |i| Time::from_nanos(1_000_000_000) + Duration::from_millis(25) * i;
        assert!((0..10_000).all(|i| s.admit(beat(i))));
    }
}
