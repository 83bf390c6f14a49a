//! The kick: after a takeover the gateway speaks first.
//!
//! A client whose gateway died goes on sending into a session that the new one does not have, and
//! begins a new handshake only after 15 s (idle ones after minutes). So the new master begins it,
//! with every client that was there a moment ago, the most recent one first.
//!
//! Where a cloud or a DNS record is to lead clients here first, what is sent before that is lost: then it is done again, with
//! those that are not back.
//!
//! Paced by the answers: those that come faster than they are worked through are lost, or limited by
//! their source address, and a lost one costs 5 s. So only so many may be outstanding, and the machine
//! that answers fast is asked fast.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};
use wgha_proto::WireguardKind;

use self::count::{count, report};
use crate::wireguard::{Kick, Live, WgError};

mod count;

pub use count::Handshakes;

/// A session lives this long without a new handshake (WireGuard's REJECT_AFTER_TIME): a peer that
/// is silent for longer has none to lose.
pub const SESSION_LIFE: Duration = Duration::from_secs(180);

/// Kicks of one call to the device, which does nothing else meanwhile.
const BATCH: usize = 16;

/// A handshake that is not answered for so long does not hold up the others: its client is away.
const AWAY: Duration = Duration::from_millis(500);

/// Those that are not back by then are kicked a second time: a device that was busy may have dropped the first kick, which costs
/// its client 15 s. Where a handshake is under way nothing begins.
const ONCE_MORE: Duration = Duration::from_secs(1);

/// How often it is looked whether another handshake may begin.
const WAIT: Duration = Duration::from_millis(2);

/// After the last kick answers are counted for so long: two tries of 5 s, and some.
const COUNT: Duration = Duration::from_secs(12);

/// How fast handshakes are begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many may be unanswered. As answers come others follow, as fast as this machine works
    /// through them; where none come, so many begin in each [`AWAY`].
    pub unanswered: usize,
    /// What the implementation takes from one source address (of IPv6: one /64).
    pub per_source: Option<PerSource>,
}

/// How fast handshakes are begun with clients of one source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSource {
    /// A second.
    pub rate: u32,
    /// At once, before that.
    pub burst: u32,
}

impl Limits {
    /// The limits of an implementation.
    #[must_use]
    pub const fn of(kind: WireguardKind) -> Limits {
        match kind {
            // It limits a source (to 20 a second) while 512 messages are queued, and not before:
            // half of that never queues.
            WireguardKind::Kernel | WireguardKind::None => {
                Limits { unanswered: 256, per_source: None }
            }
            // gotatun takes 100 handshake messages a second from one address, whatever is queued.
            WireguardKind::Embedded => {
                Limits { unanswered: 128, per_source: Some(PerSource { rate: 80, burst: 10 }) }
            }
        }
    }

    /// How many more may begin now. `begun`: when each one began, in order.
    fn room(&self, begun: &[Instant], answered: usize, now: Instant) -> usize {
        let unanswered = begun.len().saturating_sub(answered);
        let recent = begun.len() - begun.partition_point(|at| now.duration_since(*at) >= AWAY);
        self.unanswered.saturating_sub(unanswered.min(recent))
    }
}

/// A peer that may be kicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its public key.
    pub public_key: [u8; 32],
    /// Where it is.
    pub endpoint: SocketAddr,
    /// Its last handshake with any master, by the wall clock.
    pub last_handshake: Option<SystemTime>,
    /// Its configured keepalive in seconds, 0 for none.
    pub keepalive: u16,
}

/// A kick and the time after the start before which it must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    at: Duration,
    kick: Kick,
}

/// Which kicks of a term they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// When the role changed, or another master yielded: who has shaken hands since is back.
    pub entered: SystemTime,
    /// Not the first: who is back is left alone.
    pub again: bool,
}

/// The order and times of all kicks: first who has a session to lose, most recent first; then
/// those that only get their keepalive back. A source that is over its limit waits, others pass it.
fn schedule(targets: &[Target], now: SystemTime, limits: &Limits) -> Vec<Slot> {
    let recent = |t: &Target| is_recent(t.last_handshake, now);
    let mut ordered: Vec<&Target> =
        targets.iter().filter(|t| recent(t) || t.keepalive != 0).collect();
    ordered.sort_by_key(|t| (!recent(t), Reverse(t.last_handshake)));
    let mut of_source: HashMap<IpAddr, u32> = HashMap::new();
    let mut slot = |target: &Target| {
        let nth = of_source.entry(source(target.endpoint.ip())).or_default();
        let late = |l: PerSource| {
            Duration::from_secs(1) * nth.saturating_sub(l.burst.saturating_sub(1)) / l.rate.max(1)
        };
        let at = limits.per_source.map_or(Duration::ZERO, late);
        *nth += 1;
        let Target { public_key, keepalive, .. } = *target;
        Slot { at, kick: Kick { public_key, keepalive, handshake: recent(target) } }
    };
    let mut slots: Vec<Slot> = ordered.into_iter().map(&mut slot).collect();
    // Stable: among those due together the order stays.
    slots.sort_by_key(|slot| slot.at);
    slots
}

/// Whether any of them has a session to lose.
#[must_use]
pub fn expects_any(targets: &[Target]) -> bool {
    let now = SystemTime::now();
    targets.iter().any(|target| is_recent(target.last_handshake, now))
}

fn is_recent(last_handshake: Option<SystemTime>, now: SystemTime) -> bool {
    // One in the future is one of a node whose clock is ahead.
    last_handshake.is_some_and(|at| now.duration_since(at).unwrap_or_default() < SESSION_LIFE)
}

/// What limits by address counts a /64 as one.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

/// Kicks and counts until all clients are back or enough time has passed. `tell` hears of the first
/// handshake, of 90 %, and of the end. May be dropped at any time.
pub async fn run(
    interface: &str,
    live: Arc<dyn Live>,
    limits: Limits,
    targets: Vec<Target>,
    Round { entered, again }: Round,
    tell: impl Fn(Handshakes),
) {
    let slots = schedule(&targets, SystemTime::now(), &limits);
    let expected: Vec<[u8; 32]> =
        slots.iter().filter(|s| s.kick.handshake).map(|s| s.kick.public_key).collect();
    let slots = if again { missing(slots, interface, &*live, entered).await } else { slots };
    let start = Instant::now();
    let last = slots.last().map_or(Duration::ZERO, |slot| slot.at);
    let turns = slots.len().div_ceil(limits.unanswered.max(1));
    let until = start + last + AWAY * u32::try_from(turns).unwrap_or(u32::MAX) + COUNT;
    let answered = AtomicUsize::new(0);
    let kicks = async {
        if let Err(e) = send(&*live, &slots, &limits, &answered).await {
            warn!("{interface}: handshakes were not begun, clients do it in 15 s: {e}");
        }
        live.settle();
        sleep(ONCE_MORE).await;
        if answered.load(Ordering::Relaxed) >= expected.len() {
            return;
        }
        let mut slots = missing(slots, interface, &*live, entered).await;
        slots.retain(|slot| slot.kick.handshake);
        if let Err(e) = send(&*live, &slots, &limits, &answered).await {
            debug!("{interface}: {e}");
        }
    };
    let count = count(interface, &*live, &expected, entered, until, |handshakes, news| {
        answered.store(handshakes.confirmed, Ordering::Relaxed);
        if news {
            tell(handshakes);
        }
    });
    tokio::join!(kicks, async { report(interface, count.await) });
}

/// The kicks of those that have not shaken hands since.
async fn missing(
    mut slots: Vec<Slot>,
    interface: &str,
    live: &dyn Live,
    since: SystemTime,
) -> Vec<Slot> {
    let peers = live.peers().await.unwrap_or_else(|e| {
        debug!("{interface}: {e}");
        Vec::new()
    });
    let back: HashSet<[u8; 32]> =
        peers.iter().filter(|peer| peer.is_back(since)).map(|peer| peer.public_key).collect();
    slots.retain(|slot| !back.contains(&slot.kick.public_key));
    slots
}

/// Each batch is what may begin by now: the limits hold however slow the device is.
async fn send(
    live: &dyn Live,
    slots: &[Slot],
    limits: &Limits,
    answered: &AtomicUsize,
) -> Result<(), WgError> {
    let start = Instant::now();
    let before = answered.load(Ordering::Relaxed);
    let mut begun: Vec<Instant> = Vec::with_capacity(slots.len());
    let mut rest = slots;
    while let Some(first) = rest.first() {
        // The timer's grain is 1 ms, which a first one does not have.
        if start.elapsed() < first.at {
            sleep_until(start + first.at).await;
        }
        let now = Instant::now();
        let answers = answered.load(Ordering::Relaxed).saturating_sub(before);
        let room = limits.room(&begun, answers, now);
        if room == 0 {
            sleep(WAIT).await;
            continue;
        }
        let due = |slot: &&Slot| start + slot.at <= now;
        let count = rest.iter().take(BATCH.min(room)).take_while(due).count().max(1);
        let (batch, later) = rest.split_at(count);
        let batch: Vec<Kick> = batch.iter().map(|slot| slot.kick).collect();
        live.kick(&batch).await?;
        begun.extend(batch.iter().map(|_| now));
        rest = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
