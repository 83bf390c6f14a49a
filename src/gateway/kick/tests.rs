use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;

use super::count::{SOON, confirmed};
use super::*;
use crate::wireguard::PeerState;

const NOW: Duration = Duration::from_secs(1_000_000);

fn now() -> SystemTime {
    UNIX_EPOCH + NOW
}

/// A peer at 10.0.0.HOST whose last handshake is so many seconds ago.
fn target(n: u8, host: u8, ago: Option<u64>, keepalive: u16) -> Target {
    Target {
        public_key: [n; 32],
        endpoint: ([10, 0, 0, host], 4000).into(),
        last_handshake: ago.map(|s| now() - Duration::from_secs(s)),
        keepalive,
    }
}

fn first() -> Round {
    Round { entered: now(), again: false }
}

const FAST: Limits = Limits { unanswered: 1_000, per_source: None };

fn order(slots: &[Slot]) -> Vec<(u8, bool, u16)> {
    slots.iter().map(|s| (s.kick.public_key[0], s.kick.handshake, s.kick.keepalive)).collect()
}

#[test]
fn most_recent_first_then_keepalives_alone() {
    let targets = [
        target(1, 1, Some(179), 0),
        target(2, 2, Some(180), 0),
        target(3, 3, None, 25),
        target(4, 4, Some(1), 25),
        target(5, 5, None, 0),
        target(6, 6, Some(3_600), 15),
    ];
    let slots = schedule(&targets, now(), &FAST);
    // 2 has no session to lose and no keepalive, so that nothing is to be done; nor for 5.
    let expected = [(4, true, 25), (1, true, 0), (6, false, 15), (3, false, 25)];
    assert_eq!(order(&slots), expected);
    assert!(slots.iter().all(|s| s.at.is_zero()));
}

#[test]
fn a_handshake_in_the_future_is_a_recent_one() {
    let ahead = Target { last_handshake: Some(now() + NOW), ..target(1, 1, None, 0) };
    assert!(schedule(&[ahead], now(), &FAST)[0].kick.handshake);
}

#[test]
fn a_source_that_is_over_its_limit_waits_and_others_pass_it() {
    let limits = Limits { per_source: Some(PerSource { rate: 2, burst: 3 }), ..FAST };
    let mut targets: Vec<Target> = (1..=6).map(|n| target(n, 1, Some(u64::from(n)), 0)).collect();
    targets.push(target(7, 2, Some(100), 0));
    let slots = schedule(&targets, now(), &limits);
    let times: Vec<(u8, u128)> =
        slots.iter().map(|s| (s.kick.public_key[0], s.at.as_millis())).collect();
    assert_eq!(times, [(1, 0), (2, 0), (3, 0), (7, 0), (4, 500), (5, 1_000), (6, 1_500)]);
}

#[test]
fn ipv6_sources_are_networks() {
    let limits = Limits { per_source: Some(PerSource { rate: 1, burst: 1 }), ..FAST };
    let at = |n: u8, address: &str| Target {
        endpoint: address.parse().unwrap(),
        ..target(n, 0, Some(u64::from(n)), 0)
    };
    let targets =
        [at(1, "[2001:db8::1]:1"), at(2, "[2001:db8::ffff:2]:1"), at(3, "[2001:db8:0:1::1]:1")];
    let slots = schedule(&targets, now(), &limits);
    assert_eq!(slots.iter().map(|s| s.kick.public_key[0]).collect::<Vec<_>>(), [1, 3, 2]);
}

#[test]
fn those_behind_one_nat_are_within_what_gotatun_takes() {
    let limits = Limits::of(WireguardKind::Embedded);
    let targets: Vec<Target> = (0..500_u64).map(|n| target(1, 1, Some(n % 180), 0)).collect();
    let slots = schedule(&targets, now(), &limits);
    assert!(slots.windows(100).all(|w| w[99].at - w[0].at >= Duration::from_secs(1)));
    assert!(slots.last().unwrap().at < Duration::from_millis(6_500));
    let slots = schedule(&targets, now(), &Limits::of(WireguardKind::Kernel));
    assert!(slots.iter().all(|s| s.at.is_zero()), "nothing queues, so nothing is limited");
}

#[test]
fn room_is_what_is_neither_unanswered_nor_long_ago() {
    let limits = Limits { unanswered: 10, per_source: None };
    let now = Instant::now();
    let ago = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap();
    assert_eq!(limits.room(&[], 0, now), 10);
    let begun = vec![ago(100); 10];
    assert_eq!(limits.room(&begun, 0, now), 0);
    assert_eq!(limits.room(&begun, 7, now), 7, "as answers come");
    assert_eq!(limits.room(&[ago(500); 30], 0, now), 10, "away, all of them");
    let begun = [vec![ago(500); 30], begun].concat();
    assert_eq!(limits.room(&begun, 0, now), 0);
    assert_eq!(limits.room(&begun, 35, now), 5, "some of those that were long in answering");
    assert_eq!(limits.room(&begun, 99, now), 10, "clients that came by themselves");
}

#[test]
fn what_counts_as_confirmed() {
    let state = |n: u8, ms_after: i64| PeerState {
        public_key: [n; 32],
        endpoint: None,
        last_handshake: Some(if ms_after < 0 {
            now() - Duration::from_millis(ms_after.unsigned_abs())
        } else {
            now() + Duration::from_millis(ms_after.unsigned_abs())
        }),
        received: 0,
    };
    let expected: Vec<[u8; 32]> = (1..=10).map(|n| [n; 32]).collect();
    let mut peers: Vec<PeerState> = (1..=8).map(|n| state(n, i64::from(n) * 10)).collect();
    peers.extend([state(9, -1), state(99, 5)]);
    let ms = |ms| Some(Duration::from_millis(ms));
    let counted = confirmed(&peers, &expected, now());
    let so_far = Handshakes { expected: 10, confirmed: 8, first: ms(5), ninety_percent: None };
    assert_eq!(counted, so_far);
    peers.push(state(10, 500));
    let counted = confirmed(&peers, &expected, now());
    assert_eq!((counted.confirmed, counted.ninety_percent), (9, ms(500)));
    let none = Handshakes { first: ms(5), ..Handshakes::default() };
    assert_eq!(confirmed(&peers, &[], now()), none);
}

/// A device whose peers answer 30 ms after a kick, but for those that are away.
#[derive(Default)]
struct Fake {
    kicked: Mutex<Vec<(Instant, Kick)>>,
    away: Vec<[u8; 32]>,
    /// So many kicks come to nothing.
    dropped: Mutex<usize>,
    settled: Mutex<bool>,
}

#[async_trait]
impl Live for Fake {
    async fn peers(&self) -> Result<Vec<PeerState>, WgError> {
        let answered = |(at, kick): &(Instant, Kick)| {
            let there = at.elapsed() >= Duration::from_millis(30) && kick.handshake;
            (there && !self.away.contains(&kick.public_key)).then(|| PeerState {
                public_key: kick.public_key,
                endpoint: None,
                last_handshake: Some(now() + Duration::from_millis(30)),
                received: 0,
            })
        };
        Ok(self.kicked.lock().unwrap().iter().filter_map(answered).collect())
    }

    async fn kick(&self, kicks: &[Kick]) -> Result<(), WgError> {
        assert!(kicks.len() <= BATCH);
        let at = Instant::now();
        let mut dropped = self.dropped.lock().unwrap();
        let lost = kicks.len().min(*dropped);
        *dropped -= lost;
        self.kicked.lock().unwrap().extend(kicks[lost..].iter().map(|kick| (at, *kick)));
        Ok(())
    }

    fn settle(&self) {
        *self.settled.lock().unwrap() = true;
    }
}

fn recent(count: u8) -> Vec<Target> {
    let fresh = |n| Target { last_handshake: Some(SystemTime::now()), ..target(n, n, None, 0) };
    (0..count).map(fresh).collect()
}

#[tokio::test(start_paused = true)]
async fn kicks_count_and_tell() {
    let fake = Arc::new(Fake { away: vec![[3; 32]], ..Fake::default() });
    let told = Mutex::new(Vec::new());
    let tell = |handshakes| told.lock().unwrap().push(handshakes);
    let few = Limits { unanswered: 5, per_source: None };
    let start = Instant::now();
    run("wg0", Arc::clone(&fake) as Arc<dyn Live>, few, recent(20), first(), tell).await;
    assert!(start.elapsed() >= COUNT, "one is awaited to the end");
    assert!(*fake.settled.lock().unwrap());
    let kicked = fake.kicked.lock().unwrap();
    assert_eq!(kicked.len(), 21, "the one that is away twice");
    assert_eq!(kicked[20].1.public_key, [3; 32]);
    let told = told.into_inner().unwrap();
    let last = told.last().unwrap();
    assert_eq!((last.expected, last.confirmed), (20, 19));
    assert!(told[0].first.is_some() && told[0].ninety_percent.is_none(), "{told:?}");
    assert!(last.ninety_percent.is_some());
}

#[tokio::test(start_paused = true)]
async fn all_back_ends_it_and_being_dropped_ends_it_at_once() {
    let fake = Arc::new(Fake::default());
    let start = Instant::now();
    run("wg0", Arc::clone(&fake) as Arc<dyn Live>, FAST, recent(5), first(), |_| {}).await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let fake = Arc::new(Fake {
        away: recent(100).iter().map(|t| t.public_key).collect(),
        ..Fake::default()
    });
    let slow = Limits { unanswered: 5, per_source: None };
    let live = Arc::clone(&fake) as Arc<dyn Live>;
    let work = run("wg0", live, slow, recent(100), first(), |_| {});
    assert!(tokio::time::timeout(AWAY + AWAY / 2, work).await.is_err());
    tokio::time::sleep(COUNT).await;
    assert_eq!(fake.kicked.lock().unwrap().len(), 10, "nothing after it was dropped");
    assert!(!*fake.settled.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_answers_set_the_pace() {
    let few = Limits { unanswered: 5, per_source: None };
    let everybody: Vec<[u8; 32]> = recent(100).iter().map(|t| t.public_key).collect();
    let time = async |away: Vec<[u8; 32]>| {
        let fake = Arc::new(Fake { away, ..Fake::default() });
        let live = Arc::clone(&fake) as Arc<dyn Live>;
        run("wg0", live, few, recent(100), first(), |_| {}).await;
        let kicked = fake.kicked.lock().unwrap();
        let again = if fake.away.is_empty() { 0 } else { 100 };
        assert_eq!(kicked.len(), 100 + again);
        // Never more than five unanswered, of those that do answer.
        let answered = |at: Instant| {
            kicked.iter().filter(|(k, _)| at >= *k + Duration::from_millis(30)).count()
        };
        if fake.away.is_empty() {
            assert!(kicked.iter().zip(1..).all(|((at, _), nth)| nth - answered(*at) <= 5));
        }
        kicked[99].0 - kicked[0].0
    };
    // Looked for each 10 ms, an answer is seen after 40 ms at most: twenty turns of five.
    let took = time(Vec::new()).await;
    assert!(took <= Duration::from_millis(20 * 45), "{took:?}");
    let took = time(everybody).await;
    assert!(took >= AWAY * 19 && took < AWAY * 20, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kick_that_the_device_dropped_is_made_again() {
    let fake = Arc::new(Fake { dropped: Mutex::new(3), ..Fake::default() });
    let told = Mutex::new(None);
    let tell = |handshakes| *told.lock().unwrap() = Some(handshakes);
    let start = Instant::now();
    run("wg0", Arc::clone(&fake) as Arc<dyn Live>, FAST, recent(5), first(), tell).await;
    assert!(start.elapsed() < ONCE_MORE * 2, "{:?}", start.elapsed());
    let told = told.into_inner().unwrap().unwrap();
    assert_eq!((told.expected, told.confirmed), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn who_is_back_is_left_alone_and_counted() {
    let fake = Arc::new(Fake { away: vec![[3; 32]], ..Fake::default() });
    let live = Arc::clone(&fake) as Arc<dyn Live>;
    run("wg0", Arc::clone(&live), FAST, recent(5), first(), |_| {}).await;
    let so_far = fake.kicked.lock().unwrap().len();
    let told = Mutex::new(None);
    let tell = |handshakes| *told.lock().unwrap() = Some(handshakes);
    run("wg0", live, FAST, recent(5), Round { again: true, ..first() }, tell).await;
    let kicked: Vec<u8> =
        fake.kicked.lock().unwrap()[so_far..].iter().map(|(_, k)| k.public_key[0]).collect();
    assert_eq!(kicked, [3, 3]);
    let told = told.into_inner().unwrap().unwrap();
    assert_eq!((told.expected, told.confirmed), (5, 4));
}
