//! Who is back, and after how long.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::wireguard::{Live, PeerState};

/// Handshakes are looked for this often at first, and then; never more than a fifth of the time.
const LOOK_SOON: Duration = Duration::from_millis(10);
const LOOK_LATER: Duration = Duration::from_millis(200);
pub(super) const SOON: Duration = Duration::from_secs(2);
const LOOK_COST: u32 = 4;

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

/// Looks until all are back, or `until`. `tell` hears of each look, and whether it is worth telling.
pub(super) async fn count(
    interface: &str,
    live: &dyn Live,
    expected: &[[u8; 32]],
    entered: SystemTime,
    until: Instant,
    tell: impl Fn(Handshakes, bool),
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
                tell(now, news);
            }
            Err(e) => debug!("{interface}: {e}"),
        }
        let done = told.confirmed == told.expected && told.first.is_some();
        if done || Instant::now() >= until {
            tell(told, true);
            return told;
        }
        let pause = if started.elapsed() < SOON { LOOK_SOON } else { LOOK_LATER };
        sleep(pause.max(begun.elapsed() * LOOK_COST)).await;
    }
}

/// What the device says of handshakes since `entered`. It shows one when it is confirmed.
pub(super) fn confirmed(
    peers: &[PeerState],
    expected: &[[u8; 32]],
    entered: SystemTime,
) -> Handshakes {
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

/// Says it in the log, if any were expected.
pub(super) fn report(interface: &str, result: Handshakes) {
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
