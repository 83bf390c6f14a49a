//! What a node knows about one other node, and what it has said to it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use crate::api::{PeerConfig, Role};
use crate::budget::Budget;
use crate::election::Standing;
use crate::freshness::{ClockFilter, ClockWatch, SendLog, Session};
use crate::node::PeerLease;
use crate::seal::SealKeys;
use crate::time::Time;
use crate::wire::body::{Body, Echo, Handover};
use crate::wire::{MAX_PATHS, Tag, node_tag};

/// Ended sessions of a peer that are remembered. Each takes a restart of its process.
const ENDED_LEN: usize = 32;

/// A peer's word that it is master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) term: u64,
    /// When it was last heard, timely.
    pub(crate) last: Time,
    /// The peer's own interval and detection time.
    pub(crate) interval: Duration,
    pub(crate) detection: Duration,
}

/// Another node.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) tag: Tag,

    /// Sealing keys to this peer, and of which key they are made.
    pub(crate) tx: Option<(u16, SealKeys)>,
    /// Datagrams sent on each path.
    pub(crate) counters: [u64; MAX_PATHS as usize],
    pub(crate) log: SendLog,
    /// When a datagram that claims the role of master was last made for it; at first, when it became
    /// one of the cluster.
    pub(crate) claim_sent: Time,
    /// Paths on which the next message is still to be sent, one bit each.
    pub(crate) pending: u8,
    /// The floating paths on which it is sent to as well.
    pub(crate) floating: u8,
    /// The number of that message once its first datagram was made.
    pub(crate) batch: Option<u64>,
    /// The first message to it that carried the release being said, and whether it has echoed it.
    pub(crate) release_number: Option<u64>,
    pub(crate) release_answered: bool,
    /// My answer to its request for a handover.
    pub(crate) reply: Option<Handover>,

    /// What may still be opened in vain. Decides nothing below thousands of forged datagrams a second, so no part of the fingerprint.
    pub(crate) budget: Budget,
    /// Opening keys: key id, session, keys.
    pub(crate) rx: Option<(u16, [u8; 16], SealKeys)>,
    pub(crate) session: Option<Session>,
    /// When its session ended by its own word or its obituary, if none has followed: it is no
    /// hidden master then.
    pub(crate) gone_at: Option<Time>,
    /// Sessions that are over for ever, oldest first.
    pub(crate) ended: VecDeque<[u8; 16]>,
    /// When a session that is not the established one was last answered.
    pub(crate) answered_at: Option<Time>,

    pub(crate) last_heard: Option<Time>,
    pub(crate) last_timely: Option<Time>,
    /// Timely within the detection time; follows [`Peer::last_timely`] with an event.
    pub(crate) alive: bool,
    /// When an authentic datagram last came on each of its paths to me, timely or not.
    pub(crate) path_heard: [Option<Time>; MAX_PATHS as usize],
    /// When a timely datagram last came on each of its paths to me.
    pub(crate) path_timely: [Option<Time>; MAX_PATHS as usize],
    /// Its last sign before I last lost it (or my start): evidence counts if it is newer.
    pub(crate) lost_since: Time,
    pub(crate) rtt: Option<Duration>,
    pub(crate) clock: ClockFilter,
    /// Its clock is too far from mine; outlives its sessions, so that it is told once.
    pub(crate) clock_watch: ClockWatch,
    /// It runs another WireGuard than I.
    pub(crate) wireguard_differs: bool,

    /// Its newest timely message, and when it came.
    pub(crate) said: Option<(Body, Time)>,
    pub(crate) claim: Option<Claim>,
    /// Since when it has been fit to take the role by preemption.
    pub(crate) better_since: Option<Time>,
    /// The highest term of its session whose release I honoured.
    pub(crate) released: u64,
    /// The highest term of its session whose yield I answered.
    pub(crate) yielded: u64,
    /// About its asks and my vote.
    pub(crate) lease: PeerLease,
}

impl Peer {
    pub(crate) fn new(cluster: &str, config: PeerConfig, now: Time) -> Peer {
        Peer {
            tag: node_tag(cluster, &config.name),
            config,
            tx: None,
            counters: [0; MAX_PATHS as usize],
            log: SendLog::default(),
            claim_sent: now,
            pending: 0,
            floating: 0,
            batch: None,
            release_number: None,
            release_answered: false,
            reply: None,
            budget: Budget::new(),
            rx: None,
            session: None,
            gone_at: None,
            ended: VecDeque::new(),
            answered_at: None,
            last_heard: None,
            last_timely: None,
            alive: false,
            path_heard: [None; MAX_PATHS as usize],
            path_timely: [None; MAX_PATHS as usize],
            lost_since: now,
            rtt: None,
            clock: ClockFilter::default(),
            clock_watch: ClockWatch::default(),
            wireguard_differs: false,
            said: None,
            claim: None,
            better_since: None,
            released: 0,
            yielded: 0,
            lease: PeerLease::default(),
        }
    }

    /// Another run of its process is live: what the last one said is void.
    pub(crate) fn establish(&mut self, session: [u8; 16]) {
        self.forget();
        self.gone_at = None;
        self.session = Some(Session::new(session));
    }

    /// Its session is over for ever.
    pub(crate) fn end_session(&mut self, now: Time) {
        self.gone_at = Some(now);
        if let Some(session) = self.session.take() {
            if self.ended.len() >= ENDED_LEN {
                self.ended.pop_front();
            }
            self.ended.push_back(session.id);
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.said = None;
        self.claim = None;
        self.reply = None;
        self.better_since = None;
        self.released = 0;
        self.yielded = 0;
        self.lease = PeerLease::default();
        self.last_timely = None;
        self.path_heard = [None; MAX_PATHS as usize];
        self.path_timely = [None; MAX_PATHS as usize];
        self.rtt = None;
        self.clock = ClockFilter::default();
    }

    /// Whether this is the session that I listen to.
    pub(crate) fn is_established(&self, session: &[u8; 16]) -> bool {
        self.session.as_ref().is_some_and(|s| s.id == *session)
    }

    /// This session, if it is the one that I listen to.
    pub(crate) fn session_of(&self, session: &[u8; 16]) -> Option<&Session> {
        self.session.as_ref().filter(|s| s.id == *session)
    }

    /// Asks for a message on all paths.
    pub(crate) fn queue(&mut self) {
        let own = u8::try_from((1_u16 << self.config.paths.min(MAX_PATHS)) - 1);
        self.pending = own.unwrap_or(u8::MAX) | self.floating;
        self.batch = None;
    }

    /// What I echo to it.
    pub(crate) fn echo(&self, now: Time) -> Option<Echo> {
        let session = self.session.as_ref()?;
        let age_us = micros(now.since(session.newest_at));
        Some(Echo { session: session.id, number: session.newest, age_us })
    }

    /// A gateway that could become master, as far as it says itself.
    pub(crate) fn is_candidate(&self) -> bool {
        self.alive
            && !self.config.witness
            && self.said.as_ref().is_some_and(|(body, _)| {
                !matches!(body.role, Role::Fault | Role::Master)
                    && !body.flags.maintenance
                    && !body.flags.leaving
            })
    }

    /// A gateway that could be a candidate a moment from now: what keeps it from that may have ended.
    pub(crate) fn may_come_back(&self) -> bool {
        self.alive
            && !self.config.witness
            && self
                .said
                .as_ref()
                .is_some_and(|(body, _)| body.role != Role::Master && !body.flags.leaving)
    }

    /// How good a candidate it is.
    pub(crate) fn standing(&self) -> Option<Standing> {
        let (said, _) = self.said.as_ref()?;
        Some(Standing {
            settled: said.flags.settled,
            healthy: said.flags.healthy,
            priority: said.priority,
            name: Reverse(self.config.name.clone()),
        })
    }

    /// When the last pass of its checks began, on my clock.
    ///
    /// Counted back from receipt, so too late by the one-way delay at most; half a round trip is
    /// taken off again, and a millisecond for rounding.
    pub(crate) fn pass_began(&self) -> Option<Time> {
        let (body, at) = self.said.as_ref()?;
        let age = Duration::from_millis(u64::from(body.health_pass_ms?) + 1);
        Some(*at - (age + self.rtt.unwrap_or_default()))
    }
}

/// Milliseconds as the wire has them.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Microseconds as the wire has them.
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
