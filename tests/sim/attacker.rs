//! Someone who sees every datagram, keeps some, and sends them again, elsewhere or damaged. It does not
//! delay: what it replays was delivered before, so that none of it may have any effect.

use std::collections::VecDeque;

use wgha_proto::{PeerSnapshot, Snapshot};

use crate::audit::Rule;
use crate::host::{Attack, Input, Origin};
use crate::network::Datagram;
use crate::rng::Rng;
use crate::stats::Situation;
use crate::world::{Mutation, World, host_name};

/// So many datagrams are kept; a new one replaces one by chance.
const KEPT: usize = 256;
/// And so many of the last ones.
const RECENT: usize = 24;

#[derive(Clone, Debug)]
struct Record {
    datagram: Datagram,
    /// The run of the receiver that read it.
    to_boot: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Attacker {
    kept: Vec<Record>,
    /// The last ones: still timely, if they were.
    recent: VecDeque<Record>,
    rng: Option<Rng>,
}

impl Attacker {
    /// A datagram is delivered to a node that runs.
    pub(crate) fn record(&mut self, host: usize, datagram: &Datagram, bytes: &[u8], to_boot: u32) {
        let rng = self.rng.get_or_insert_with(|| Rng::new(7));
        let mut datagram = datagram.clone();
        datagram.bytes = bytes.to_vec();
        datagram.to = host;
        let record = Record { datagram, to_boot };
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(record.clone());
        if self.kept.len() < KEPT {
            self.kept.push(record);
        } else if rng.permille(200) {
            let at = rng.index(KEPT);
            self.kept[at] = record;
        }
    }

    /// Sends something that must have no effect.
    pub(crate) fn strike(w: &mut World) {
        if w.attacker.kept.is_empty() {
            return;
        }
        let recent = w.rng.permille(500);
        let index =
            w.rng.index(if recent { w.attacker.recent.len() } else { w.attacker.kept.len() });
        let record =
            if recent { w.attacker.recent[index].clone() } else { w.attacker.kept[index].clone() };
        let mut datagram = record.datagram;
        // A second process of a name is no part of what must hold here.
        let second = w.o.members();
        if datagram.from >= second || datagram.to >= second || datagram.bytes.len() < 80 {
            return;
        }
        let again = w.hosts[datagram.to].boots != record.to_boot || w.audit.usurped.is_some();
        let attack = match w.rng.below(6) {
            0 => {
                std::mem::swap(&mut datagram.from, &mut datagram.to);
                Attack::Reflection
            }
            1 => {
                let third = w.rng.index(w.o.members());
                if third == datagram.to || third == datagram.from {
                    return;
                }
                datagram.to = third;
                Attack::WrongReceiver
            }
            2 => {
                let bit = w.rng.index(datagram.bytes.len() * 8);
                datagram.bytes[bit / 8] ^= 1 << (bit % 8);
                Attack::Flipped
            }
            3 => {
                let len = w.rng.index(datagram.bytes.len());
                datagram.bytes.truncate(len);
                Attack::Truncated
            }
            4 => {
                for byte in &mut datagram.bytes[68..] {
                    *byte = w.rng.next() as u8;
                }
                Attack::Forged
            }
            // The receiver may have forgotten that it saw this.
            _ if again => Attack::OldReceiver,
            _ if w.hosts[datagram.from].boots != datagram.from_boot
                || w.hosts[datagram.from].process.is_none() =>
            {
                Attack::OldBoot
            }
            _ => Attack::Replay,
        };
        w.feed(datagram.to, Input::Datagram(datagram, Origin::Attack(attack)));
    }

    /// The attacker's datagram reaches a node: nothing may move but counters.
    pub(crate) fn delivered(w: &mut World, host: usize, mut datagram: Datagram, attack: Attack) {
        let boots = w.hosts[host].boots;
        // What is due anyway comes before, so that it is not taken for an effect.
        for _ in 0..2 {
            w.drain(host, None);
            w.with_node(host, |node, now| node.handle_timeout(now));
        }
        w.drain(host, None);
        // What it had seen before it slept, its new session has not.
        let renewed = w.hosts[host].boots > boots;
        let attack = if renewed && attack == Attack::Replay { Attack::OldReceiver } else { attack };
        let h = &mut w.hosts[host];
        let now = h.clock.local(w.now);
        let Some(process) = &mut h.process else { return };
        let before = process.node.snapshot(now);
        let result = process.node.handle_datagram(now, &mut datagram.bytes);
        if w.mutation == Mutation::AttackHelped {
            process
                .node
                .handle_health(now, wgha_proto::Health { ok: !h.healthy, last_pass_began: None });
        }
        let after = process.node.snapshot(now);
        let event = process.node.poll_event();
        let mut answers = 0;
        let mut out = Vec::new();
        while let Some(to) = process.node.poll_transmit(now, &mut out) {
            answers += if to == wgha_proto::Destination::Sender { 1 } else { 100 };
        }
        let moved = difference(&before, &after);
        // The one thing that is not refused by its bytes alone: the newest session that a node without
        // memory can know of. It must show that it lives before it counts for anything.
        let (may_answer, may_be_taken) = match attack {
            Attack::OldBoot | Attack::OldReceiver => (true, attack == Attack::OldReceiver),
            _ => (false, false),
        };
        let what = if let Some(event) = event {
            Some(format!("event {event:?}"))
        } else if let Some(field) = moved.filter(|_| !may_be_taken) {
            Some(format!("{field} moved"))
        } else if before.level != after.level {
            Some("the level moved".to_owned())
        } else if answers > u32::from(may_answer) {
            Some(format!("{answers} datagrams sent"))
        } else if result.is_ok() && !may_be_taken {
            Some("it was taken".to_owned())
        } else {
            None
        };
        if let Some(what) = what {
            let from = host_name(datagram.from);
            w.audit
                .broken(Rule::Unmoved, format!("{attack:?} {from} to {}: {what}", host_name(host)));
        }
        w.stats.add(match attack {
            Attack::Replay => Situation::ReplayRefused,
            Attack::OldBoot => Situation::OldBootRefused,
            Attack::OldReceiver => Situation::OldReceiverRefused,
            Attack::Reflection => Situation::ReflectionRefused,
            Attack::WrongReceiver => Situation::WrongReceiverRefused,
            Attack::Flipped => Situation::FlippedRefused,
            Attack::Truncated => Situation::TruncatedRefused,
            Attack::Forged => Situation::ForgedRefused,
        });
        w.drain(host, None);
    }
}

/// The first field in which two pictures differ, refusals apart.
fn difference(before: &Snapshot, after: &Snapshot) -> Option<String> {
    let fields = [
        ("level", before.level == after.level),
        ("since", before.since == after.since),
        ("healthy", before.healthy == after.healthy),
        ("maintenance", before.maintenance == after.maintenance),
        ("ready", before.ready == after.ready),
        ("held_back", before.held_back == after.held_back),
    ];
    if let Some((name, _)) = fields.iter().find(|(_, same)| !same) {
        return Some((*name).to_owned());
    }
    let peers = before.peers.iter().zip(&after.peers);
    peers.filter_map(|(b, a)| peer_difference(b, a)).next()
}

fn peer_difference(b: &PeerSnapshot, a: &PeerSnapshot) -> Option<String> {
    // Every field is public and shown: comparing what is shown leaves none out.
    let (b, a) = (format!("{b:#?}"), format!("{a:#?}"));
    let mut lines = b.lines().zip(a.lines());
    let first = lines.find(|(b, a)| b != a);
    first.map(|(b, a)| format!("peer: {} to {},", b.trim(), a.trim()))
}
