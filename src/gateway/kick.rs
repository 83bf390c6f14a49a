//! The kick: after a takeover the gateway speaks first.
//!
//! A client whose gateway died goes on sending into a session that the new one does not have, and
//! begins a new handshake only after 15 s (idle ones after minutes). So the new master begins it,
//! with every client that was there a moment ago, the most recent one first.
//!
//! Paced: answers that come faster than they are worked through are lost, or limited by their
//! source address, and a lost one costs 5 s.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};
use wgha_proto::WireguardKind;

use crate::wireguard::{Kick, Live, PeerState, WgError};

/// A session lives this long without a new handshake (WireGuard's REJECT_AFTER_TIME): a peer that
/// is silent for longer has none to lose.
pub const SESSION_LIFE: Duration = Duration::from_secs(180);

/// Kicks of one call to the device, which does nothing else meanwhile.
const BATCH: usize = 16;

/// Handshakes are looked for this often at first, and then; never more than a tenth of the time.
const LOOK_SOON: Duration = Duration::from_millis(10);
const LOOK_LATER: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(2);
const LOOK_COST: u32 = 10;

/// After the last kick answers are counted for so long: two tries of 5 s, and some.
const COUNT: Duration = Duration::from_secs(12);

/// How fast handshakes are begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all, a second. One core answers some thousands.
    pub per_second: u32,
    /// With one source address (of IPv6: one /64), a second.
    pub per_source: u32,
    /// With one source address, at once.
    pub burst: u32,
}

impl Limits {
    /// The limits of an implementation.
    #[must_use]
    pub const fn of(kind: WireguardKind) -> Limits {
        match kind {
            // It limits a source to 20 a second when 512 messages are queued, and not before:
            // half of that may come at once.
            WireguardKind::Kernel | WireguardKind::None => {
                Limits { per_second: 1_000, per_source: 20, burst: 256 }
            }
            // gotatun takes 100 handshake messages a second from one address.
            WireguardKind::Embedded => Limits { per_second: 500, per_source: 80, burst: 10 },
        }
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

/// How clients came back after entering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Clients that were there on the old master.
    pub expected: usize,
    /// Those of them that are back.
    pub confirmed: usize,
    /// From the change of role until the first handshake, of any client.
    pub first: Option<Duration>,
    /// From the change of role until 90 % of the expected ones were back.
    pub ninety_percent: Option<Duration>,
}

/// A kick and when it is due, after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    at: Duration,
    kick: Kick,
}

/// The order and times of all kicks: first who has a session to lose, most recent first; then
/// those that only get their keepalive back. A source that is over its limit waits, others pass it.
fn schedule(targets: &[Target], now: SystemTime, limits: &Limits) -> Vec<Slot> {
    let recent = |t: &Target| is_recent(t.last_handshake, now);
    let mut ordered: Vec<&Target> =
        targets.iter().filter(|t| recent(t) || t.keepalive != 0).collect();
    ordered.sort_by_key(|t| (!recent(t), Reverse(t.last_handshake)));
    let mut of_source: HashMap<IpAddr, u32> = HashMap::new();
    let mut slots: Vec<Slot> = Vec::with_capacity(ordered.len());
    for target in ordered {
        let nth = of_source.entry(source(target.endpoint.ip())).or_default();
        let at = Duration::from_secs(1) * nth.saturating_sub(limits.burst - 1) / limits.per_source;
        *nth += 1;
        let Target { public_key, keepalive, .. } = *target;
        slots.push(Slot { at, kick: Kick { public_key, keepalive, handshake: recent(target) } });
    }
    // Stable: among those due together the order stays.
    slots.sort_by_key(|slot| slot.at);
    let mut free = Duration::ZERO;
    for slot in &mut slots {
        slot.at = slot.at.max(free);
        free = slot.at + Duration::from_secs(1) / limits.per_second;
    }
    slots
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

/// Kicks and counts until all clients are back or enough time has passed. `entered` is when the
/// role changed; `tell` hears of the first handshake, of 90 %, and of the end. May be dropped at
/// any time.
pub async fn run(
    interface: &str,
    live: Arc<dyn Live>,
    limits: Limits,
    targets: Vec<Target>,
    entered: SystemTime,
    tell: impl Fn(Handshakes),
) {
    let slots = schedule(&targets, SystemTime::now(), &limits);
    let expected: Vec<[u8; 32]> =
        slots.iter().filter(|s| s.kick.handshake).map(|s| s.kick.public_key).collect();
    let last = slots.last().map_or(Duration::ZERO, |slot| slot.at);
    let start = Instant::now();
    let kicks = async {
        if let Err(e) = send(&*live, &slots, start).await {
            warn!("{interface}: handshakes were not begun, clients do it in 15 s: {e}");
        }
        live.settle();
    };
    let count = count(interface, &*live, &expected, entered, start + last + COUNT, tell);
    let ((), result) = tokio::join!(kicks, count);
    if result.expected == 0 {
        return;
    }
    info!(
        "{interface}: {} of {} clients are back, the first after {}, 90 % after {}",
        result.confirmed,
        result.expected,
        millis(result.first),
        millis(result.ninety_percent),
    );
}

fn millis(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "?".to_owned(), |d| format!("{} ms", d.as_millis()))
}

/// Each batch is what is due by now: the pace holds however slow the device is.
async fn send(live: &dyn Live, slots: &[Slot], start: Instant) -> Result<(), WgError> {
    let mut rest = slots;
    while let Some(first) = rest.first() {
        // The timer's grain is 1 ms, which a first one does not have.
        if start.elapsed() < first.at {
            sleep_until(start + first.at).await;
        }
        let now = start.elapsed();
        let due = rest.iter().take(BATCH).take_while(|s| s.at <= now).count().max(1);
        let (batch, later) = rest.split_at(due);
        let batch: Vec<Kick> = batch.iter().map(|slot| slot.kick).collect();
        live.kick(&batch).await?;
        rest = later;
    }
    Ok(())
}

async fn count(
    interface: &str,
    live: &dyn Live,
    expected: &[[u8; 32]],
    entered: SystemTime,
    until: Instant,
    tell: impl Fn(Handshakes),
) -> Handshakes {
    let started = Instant::now();
    let mut told = Handshakes { expected: expected.len(), ..Handshakes::default() };
    loop {
        let begun = Instant::now();
        match live.peers().await {
            Ok(peers) => {
                let now = confirmed(&peers, expected, entered);
                let news = now.first.is_some() != told.first.is_some()
                    || now.ninety_percent.is_some() != told.ninety_percent.is_some();
                told = now;
                if news {
                    tell(now);
                }
            }
            Err(e) => debug!("{interface}: {e}"),
        }
        let done = told.confirmed == told.expected && told.first.is_some();
        if done || Instant::now() >= until {
            tell(told);
            return told;
        }
        let pause = if started.elapsed() < SOON { LOOK_SOON } else { LOOK_LATER };
        sleep(pause.max(begun.elapsed() * LOOK_COST)).await;
    }
}

/// What the device says of handshakes since `entered`. It shows one when it is confirmed.
fn confirmed(peers: &[PeerState], expected: &[[u8; 32]], entered: SystemTime) -> Handshakes {
    let since: HashMap<[u8; 32], Duration> = peers
        .iter()
        .filter_map(|p| Some((p.public_key, p.last_handshake?.duration_since(entered).ok()?)))
        .collect();
    let mut times: Vec<Duration> =
        expected.iter().filter_map(|key| since.get(key).copied()).collect();
    times.sort_unstable();
    let ninety = (expected.len() * 9).div_ceil(10);
    Handshakes {
        expected: expected.len(),
        confirmed: times.len(),
        first: since.values().min().copied(),
        ninety_percent: ninety.checked_sub(1).and_then(|index| times.get(index).copied()),
    }
}

#[cfg(test)]
mod tests;
