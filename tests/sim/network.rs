//! The network: who reaches whom on which path, how fast, and with what losses.

use wgha_proto::{Role, Term};

use crate::options::{Nanos, Options};
use crate::rng::Rng;

/// A datagram under way, with what only the world knows about it.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: usize,
    pub(crate) from_boot: u32,
    pub(crate) to: usize,
    pub(crate) path: u8,
    pub(crate) sent: Nanos,
    /// Of all messages of the world; the same for copies on several paths.
    pub(crate) message: u64,
    /// The sender's role and term when it sent this.
    pub(crate) role: Role,
    pub(crate) term: Term,
    /// The sender was no longer master, but its effects may not have been off yet.
    pub(crate) leaving: bool,
    /// The sender heard some other node claim master within the detection time.
    pub(crate) hears_master: bool,
    /// The same, with every doubt on the other side.
    pub(crate) hears_maybe: bool,
    /// The newest datagram of the receiver that the sender had read: the receiver's boot, and when it
    /// was sent.
    pub(crate) echo: Option<(u32, Nanos)>,
    /// It is no word of its sender, but of the guard that outlived it.
    pub(crate) obituary: bool,
    pub(crate) bytes: Vec<u8>,
}

/// One direction of one path between two hosts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// How many faults cut it now.
    pub(crate) cuts: u8,
    /// Loss that faults add, in a thousand.
    pub(crate) loss: u64,
    /// Delay that faults add.
    pub(crate) delay: Nanos,
}

/// What becomes of one datagram: the delays after which copies of it arrive.
pub(crate) type Fate = Vec<Nanos>;

#[derive(Clone, Debug)]
pub(crate) struct Network {
    hosts: usize,
    paths: u8,
    links: Vec<Link>,
    /// How many faults make a host deaf, mute.
    pub(crate) deaf: Vec<u8>,
    pub(crate) mute: Vec<u8>,
    /// Losses of chance stop in the liveness phase.
    pub(crate) healed: bool,
}

impl Network {
    pub(crate) fn new(hosts: usize, paths: u8) -> Network {
        Network {
            hosts,
            paths,
            links: vec![Link::default(); hosts * hosts * usize::from(paths)],
            deaf: vec![0; hosts],
            mute: vec![0; hosts],
            healed: false,
        }
    }

    pub(crate) fn link(&mut self, from: usize, to: usize, path: u8) -> &mut Link {
        let at = (from * self.hosts + to) * usize::from(self.paths) + usize::from(path);
        &mut self.links[at]
    }

    /// Changes every path from `from` to `to`.
    pub(crate) fn each_path(&mut self, from: usize, to: usize, change: impl Fn(&mut Link)) {
        for path in 0..self.paths {
            change(self.link(from, to, path));
        }
    }

    pub(crate) fn fate(&mut self, rng: &mut Rng, o: &Options, d: &Datagram) -> Fate {
        let link = *self.link(d.from, d.to, d.path);
        let loss = link.loss + if self.healed { 0 } else { o.loss };
        if link.cuts > 0 || self.mute[d.from] > 0 || self.deaf[d.to] > 0 || rng.permille(loss) {
            return Fate::new();
        }
        let mut copies = vec![self.delay(rng, o, d.path, link)];
        if !self.healed && rng.permille(o.duplicates) {
            copies.push(self.delay(rng, o, d.path, link));
        }
        copies
    }

    /// The delay that faults add to this datagram.
    pub(crate) fn added(&mut self, d: &Datagram) -> Nanos {
        self.link(d.from, d.to, d.path).delay
    }

    fn delay(&self, rng: &mut Rng, o: &Options, path: u8, link: Link) -> Nanos {
        let straggles = !self.healed && rng.permille(o.stragglers);
        o.delay
            + link.delay
            + rng.within(1, o.jitter.max(1))
            + if path > 0 { o.second } else { 0 }
            + if straggles { rng.within(0, o.interval) } else { 0 }
    }
}
