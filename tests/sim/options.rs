//! What one schedule is made of, drawn from its seed.

use std::time::Duration;

use wgha_proto::{NodeConfig, PeerConfig, Preempt, Quorum, WireguardKind};

use crate::rng::Rng;

/// Nanoseconds of the world's own clock, which no node sees.
pub(crate) type Nanos = u64;

pub(crate) const MS: Nanos = 1_000_000;

/// Clock rates differ from the world's by at most this many parts per million.
pub(crate) const RATE_PPM: u64 = 10_000;

/// A gate is shut at most so long after its time.
pub(crate) const REACTION: Nanos = 20 * MS;

/// Options of a schedule: constant while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) gateways: usize,
    pub(crate) witnesses: usize,
    /// Heartbeat interval at the start. Reloads may stretch it by a fifth at most.
    pub(crate) interval: Nanos,
    pub(crate) misses: u8,
    pub(crate) paths: u8,
    /// One-way delay of the first path: base and jitter.
    pub(crate) delay: Nanos,
    pub(crate) jitter: Nanos,
    /// The second path is slower by this.
    pub(crate) second: Nanos,
    /// In a thousand.
    pub(crate) loss: u64,
    pub(crate) duplicates: u64,
    /// One in a thousand datagrams stays behind for up to an interval.
    pub(crate) stragglers: u64,
    pub(crate) evidence: bool,
    pub(crate) preempt: Option<Duration>,
    pub(crate) priorities: Vec<u8>,
    /// Longest time of entering, of leaving.
    pub(crate) enter: Nanos,
    pub(crate) leave: Nanos,
    pub(crate) handover_timeout: Nanos,
    pub(crate) faults: usize,
    /// What stays broken in the liveness phase.
    pub(crate) remaining: Remaining,
    /// Mastership needs a lease from a majority.
    pub(crate) majority: bool,
    /// The last so many members, witnesses, join later.
    pub(crate) spare: usize,
    /// An etcd votes too.
    pub(crate) etcd: bool,
}

/// The fault that the liveness phase keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remaining {
    Nothing,
    DeafNode,
    /// Only with leases: without, nothing can tell a mute master.
    MuteNode,
    BrokenLink,
    OneWayLink,
}

impl Options {
    pub(crate) fn draw(rng: &mut Rng) -> Options {
        let gateways = rng.pick(&[2, 2, 2, 2, 2, 2, 2, 3, 3, 4]);
        let witnesses = usize::from(rng.permille(200));
        let interval = rng.pick(&[10, 20, 100, 100, 200, 1000]) * MS;
        let misses = rng.pick(&[2, 3, 3, 3, 4, 5]);
        let detection = interval * Nanos::from(misses);
        let paths = rng.pick(&[1, 1, 2]);
        // A tenth of the networks is so slow that round trips exceed the interval.
        let slow = misses > 2 && rng.permille(100);
        let delay = if slow {
            rng.within(interval / 2, interval * 3 / 4)
        } else {
            rng.within(interval / 2000, interval / 6)
        };
        let levels: &[u8] = if rng.permille(300) { &[100] } else { &[50, 100, 150, 255, 1] };
        Options {
            gateways,
            witnesses,
            interval,
            misses,
            paths,
            delay,
            jitter: rng.within(0, interval / 6),
            second: rng.within(0, interval / 2),
            loss: rng.pick(&[0, 0, 0, 5, 20, 50]),
            duplicates: rng.pick(&[0, 0, 10, 100]),
            stragglers: rng.pick(&[0, 0, 10, 50]),
            evidence: rng.permille(700),
            preempt: rng.permille(300).then(|| Duration::from_nanos(rng.within(0, 3 * detection))),
            priorities: (0..gateways + witnesses).map(|_| rng.pick(levels)).collect(),
            enter: rng.within(MS / 10, detection / 2),
            leave: rng.within(MS / 10, detection / 3),
            handover_timeout: rng.within(detection, 4 * detection),
            faults: rng.within(5, 10) as usize,
            remaining: rng.pick(&[
                Remaining::Nothing,
                Remaining::Nothing,
                Remaining::DeafNode,
                Remaining::BrokenLink,
                Remaining::OneWayLink,
            ]),
            majority: false,
            spare: 0,
            etcd: false,
        }
    }

    /// A cluster in which mastership needs a lease: three to seven voters.
    pub(crate) fn draw_leases(rng: &mut Rng) -> Options {
        let mut o = Options::draw(rng);
        o.majority = true;
        (o.gateways, o.witnesses) = rng.pick(&[
            (2, 1),
            (2, 1),
            (2, 1),
            (2, 1),
            (1, 2),
            (2, 2),
            (2, 3),
            (3, 0),
            (3, 0),
            (3, 2),
            (4, 0),
            (4, 1),
            (5, 0),
            (5, 2),
        ]);
        o.etcd = rng.permille(350);
        if o.etcd {
            (o.gateways, o.witnesses) =
                rng.pick(&[(2, 0), (2, 0), (2, 0), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (4, 0)]);
        }
        if !o.etcd && o.gateways > 1 && o.witnesses > 1 && rng.permille(600) {
            o.spare = rng.within(1, o.witnesses as u64 - 1) as usize;
        }
        // L − M > 2 I + round trip, as `wgha check` asks for.
        o.interval = rng.pick(&[100, 100, 200, 1000]) * MS;
        o.misses = rng.pick(&[3, 3, 3, 4, 5]);
        let detection = o.detection();
        o.delay = rng.within(o.interval / 2000, o.interval / 6);
        o.jitter = rng.within(0, o.interval / 6);
        o.second = rng.within(0, o.interval / 2);
        o.preempt = rng.permille(300).then(|| Duration::from_nanos(rng.within(0, 3 * detection)));
        o.priorities = (0..o.members()).map(|_| rng.pick(&[50, 100, 150, 255, 1])).collect();
        o.enter = rng.within(MS / 10, detection / 2);
        o.leave = rng.within(MS / 10, detection / 3);
        o.handover_timeout = rng.within(detection, 4 * detection);
        o.remaining = rng.pick(&[
            Remaining::Nothing,
            Remaining::DeafNode,
            Remaining::MuteNode,
            Remaining::BrokenLink,
            Remaining::OneWayLink,
        ]);
        o
    }

    pub(crate) fn members(&self) -> usize {
        self.gateways + self.witnesses
    }

    pub(crate) fn is_witness(&self, member: usize) -> bool {
        member >= self.gateways
    }

    /// The detection time, by the config that all nodes start with.
    pub(crate) fn detection(&self) -> Nanos {
        self.interval * Nanos::from(self.misses)
    }

    /// The longest one-way delay of a datagram that meets no fault.
    pub(crate) fn delay_most(&self) -> Nanos {
        self.delay + self.jitter + if self.paths > 1 { self.second } else { 0 }
    }

    /// A process that is not paused wakes at most this late.
    pub(crate) fn latency(&self) -> Nanos {
        self.interval / 50
    }

    pub(crate) fn name(member: usize) -> String {
        ["ann", "bob", "cat", "dan", "eve", "fay", "gil"][member].to_owned()
    }

    /// The config that a member starts with: those who join later are not in those of the others.
    pub(crate) fn first_config(&self, member: usize) -> NodeConfig {
        let mut config = self.config(member);
        let old = self.members() - self.spare;
        if member < old {
            config.peers.truncate(old - 1);
        }
        config
    }

    /// The config with all members.
    pub(crate) fn config(&self, member: usize) -> NodeConfig {
        NodeConfig {
            cluster: "sim".to_owned(),
            name: Options::name(member),
            witness: self.is_witness(member),
            priority: self.priorities[member],
            interval: Duration::from_nanos(self.interval),
            misses: self.misses,
            preempt: self.preempt.map(|delay| Preempt { delay }),
            handover_timeout: Duration::from_nanos(self.handover_timeout),
            // The simulated network has no neighbours to find.
            neighbour_retry: Duration::ZERO,
            fingerprint: [7; 16],
            wireguard: if self.is_witness(member) {
                WireguardKind::None
            } else {
                WireguardKind::Kernel
            },
            quorum: if self.majority {
                Quorum::Majority { reaction: Duration::from_nanos(REACTION), arbiter: self.etcd }
            } else {
                Quorum::None
            },
            peers: (0..self.members())
                .filter(|&peer| peer != member)
                .map(|peer| PeerConfig {
                    name: Options::name(peer),
                    witness: self.is_witness(peer),
                    paths: self.paths,
                })
                .collect(),
        }
    }
}

/// The member that the `index`-th peer of `member` is.
pub(crate) fn member_of_peer(member: usize, index: usize) -> usize {
    if index < member { index } else { index + 1 }
}
