//! What befalls the cluster: drawn when it strikes, so that it can hit the master of that moment.

use wgha_proto::{Ability, Command, Keyring};

use crate::options::{MS, Nanos, Options, Remaining};
use crate::stats::Situation;
use crate::voters::{self, Joining};
use crate::world::{World, host_name};

/// A fault that stands. What is needed to undo it is kept with it.
#[derive(Clone, Debug)]
enum Fault {
    Waiting,
    Over,
    Links(Vec<(usize, usize)>),
    Path(u8, Vec<(usize, usize)>),
    Loss(usize, usize, u64),
    Slow(usize, usize, u8, Nanos),
    Deaf(usize, bool),
    Mute(usize, bool),
    Isolated(usize),
    Router(Vec<usize>),
    Down(usize),
    Paused(usize, bool, bool),
    Unhealthy(usize),
    Unable(usize),
    FailLeave(usize),
    Maintenance(usize),
    Rotation(u8, String, String),
    Second,
    /// Longer intervals everywhere; with somebody whose asks were lost since before.
    Stretched(Option<usize>),
    /// A master and a gateway that do not hear each other: the rest knows better, until it is restarted.
    Squeeze(usize, usize),
    /// A master and a gateway that do not hear each other, until each has counted the other as silent; then [`Fault::Blind`].
    Estranged(usize, usize),
    Blind(Blind),
    /// Members that join.
    Joining(Joining),
    EtcdDown,
    EtcdCut(usize),
    EtcdSlow(Nanos),
    None,
}

/// A successor that hears only the old master, and that late; then nobody hears it any more.
#[derive(Clone, Copy, Debug)]
struct Blind {
    master: usize,
    to: usize,
    /// A gateway that the release does not reach.
    stranger: Option<usize>,
    delay: Nanos,
    /// The successor acts.
    done: bool,
    /// Not even the old master hears it.
    mute: bool,
    /// The old master ends meanwhile, and says so itself or by its guard.
    ends: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    next_key: u16,
}

/// Kinds and their weights.
const KINDS: &[(Kind, u64)] = &[
    (Kind::Cut, 10),
    (Kind::OneWay, 8),
    (Kind::Isolate, 8),
    (Kind::Deaf, 6),
    (Kind::Mute, 5),
    (Kind::Path, 4),
    (Kind::Loss, 5),
    (Kind::Slow, 5),
    (Kind::Router, 6),
    (Kind::Crash, 14),
    (Kind::Pause, 10),
    (Kind::Unhealthy, 6),
    (Kind::Unable, 5),
    (Kind::FailEnter, 5),
    (Kind::FailLeave, 3),
    (Kind::FailKeep, 3),
    (Kind::Handover, 14),
    (Kind::Maintenance, 6),
    (Kind::Stop, 6),
    (Kind::Reload, 6),
    (Kind::Rotation, 6),
    (Kind::Second, 4),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Cut,
    OneWay,
    Isolate,
    Deaf,
    Mute,
    Path,
    Loss,
    Slow,
    Router,
    Crash,
    Pause,
    Unhealthy,
    Unable,
    FailEnter,
    FailLeave,
    FailKeep,
    Handover,
    Maintenance,
    Stop,
    Reload,
    Rotation,
    Second,
    /// Only where members wait for it.
    Join,
    /// Only where an etcd votes.
    Etcd,
}

impl Faults {
    pub(crate) fn new() -> Faults {
        Faults { list: Vec::new(), next_key: 2 }
    }

    /// Spreads the faults of a schedule; returns when the last one has struck and quiet has followed.
    pub(crate) fn plan(w: &mut World) -> Nanos {
        let detection = w.o.detection();
        let mut at = 3 * detection;
        for fault in 0..w.o.faults {
            w.faults.list.push(Fault::Waiting);
            w.fault_at(at, fault);
            // Close together, or with quiet between.
            let gap = if w.rng.permille(400) {
                w.rng.within(0, detection * 3 / 2)
            } else {
                w.rng.within(5 * detection, 9 * detection)
            };
            at += gap;
        }
        (at + 8 * detection).max(30 * detection)
    }

    /// A victim: the master more often than not.
    fn victim(w: &mut World) -> usize {
        let master = w.gateways().find(|&host| w.hosts[host].is_master());
        match master {
            Some(master) if w.rng.permille(550) => master,
            _ => w.rng.index(w.o.members()),
        }
    }

    fn gateway_victim(w: &mut World) -> usize {
        let victim = Faults::victim(w);
        if w.hosts[victim].witness { 0 } else { victim }
    }

    fn other(w: &mut World, than: usize) -> usize {
        let step = 1 + w.rng.index(w.o.members() - 1);
        (than + step) % w.o.members()
    }

    pub(crate) fn strike(w: &mut World, index: usize) {
        let total: u64 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut draw = w.rng.below(total);
        let mut kind = Kind::Cut;
        for (candidate, weight) in KINDS {
            kind = *candidate;
            if draw < *weight {
                break;
            }
            draw -= weight;
        }
        if w.o.spare > 0 && !w.joined && w.rng.permille(400) {
            kind = Kind::Join;
        }
        if w.o.etcd && w.rng.permille(200) {
            kind = Kind::Etcd;
        }
        w.note(|| format!("-- fault {index}: {kind:?}"));
        w.stats.faults += 1;
        let fault = Faults::begin(w, kind);
        let lasts = match fault {
            Fault::None => 0,
            // Each step of a rotation has time to reach everyone.
            Fault::Rotation(..) => w.o.detection(),
            // The request and the answer arrive.
            Fault::Blind(blind) => blind.lasts(w),
            Fault::Estranged(..) => w.o.detection() + w.rng.within(0, w.o.detection()),
            Fault::Joining(_) => 1,
            _ => {
                let longest = w.rng.pick(&[1, 3, 3, 7]) * w.o.detection();
                w.rng.within(w.o.interval / 2, longest)
            }
        };
        w.note(|| format!("-- fault {index}: {} for {} ms", describe(&fault), lasts / 1_000_000));
        w.faults.list[index] = fault;
        w.heal_at(w.now + lasts, index);
    }

    fn begin(w: &mut World, kind: Kind) -> Fault {
        let victim = Faults::victim(w);
        match kind {
            Kind::Cut => {
                let other = Faults::other(w, victim);
                w.stats.add(Situation::Partition);
                Faults::cut(w, both(victim, other))
            }
            Kind::OneWay => {
                let other = Faults::other(w, victim);
                w.stats.add(Situation::OneWayCut);
                Faults::cut(w, vec![(victim, other)])
            }
            Kind::Isolate => Faults::isolate(w, victim),
            Kind::Deaf => {
                let router = w.rng.permille(500);
                Faults::deafen(w, victim, router)
            }
            Kind::Mute => {
                let router = w.rng.permille(500);
                w.stats.add(Situation::Mute);
                w.network.mute[victim] += 1;
                cut_router(w, victim, router);
                Fault::Mute(victim, router)
            }
            Kind::Path => Faults::path(w, victim),
            Kind::Loss => {
                let (other, loss) = (Faults::other(w, victim), w.rng.within(200, 700));
                w.stats.add(Situation::LossBurst);
                w.network.each_path(victim, other, |link| link.loss += loss);
                Fault::Loss(victim, other, loss)
            }
            Kind::Slow => Faults::slow(w, victim),
            Kind::Router => Faults::router(w),
            Kind::Crash => Faults::crash(w, victim),
            Kind::Pause => Faults::pause(w, victim),
            Kind::Join => Fault::Joining(voters::join(w)),
            Kind::Etcd => Faults::etcd(w, victim),
            // A name that runs twice voids what leases promise.
            Kind::Second if w.o.majority => Faults::squeeze(w),
            _ => {
                let victim = Faults::gateway_victim(w);
                Faults::begin_at_gateway(w, kind, victim)
            }
        }
    }

    fn begin_at_gateway(w: &mut World, kind: Kind, victim: usize) -> Fault {
        match kind {
            Kind::Unhealthy => {
                w.stats.add(Situation::Unhealthy);
                w.hosts[victim].healthy = false;
                w.check_health(victim);
                Fault::Unhealthy(victim)
            }
            Kind::Unable => {
                let soft = w.rng.permille(300);
                w.hosts[victim].gateway.ability = if soft {
                    Ability::NotReady("port taken".to_owned())
                } else {
                    Ability::Unable("interface gone".to_owned())
                };
                // A master that loses its interface notices when it looks.
                w.hosts[victim].gateway.fail_keep = if soft { 0 } else { 3 };
                Fault::Unable(victim)
            }
            Kind::FailEnter => {
                w.hosts[victim].gateway.fail_enter = w.rng.within(1, 2) as u32;
                Fault::None
            }
            Kind::FailLeave => {
                w.stats.add(Situation::LeaveRetried);
                w.hosts[victim].gateway.fail_leave = w.rng.within(1, 4) as u32;
                w.audit.hosts[victim].leave_fails_until = Nanos::MAX;
                Fault::FailLeave(victim)
            }
            Kind::FailKeep => {
                w.stats.add(Situation::KeepFailed);
                w.hosts[victim].gateway.fail_keep = w.rng.within(1, 4) as u32;
                Fault::None
            }
            Kind::Handover => Faults::handover(w, victim),
            Kind::Maintenance => {
                let force = w.rng.permille(300);
                w.command(victim, Command::Maintenance { on: true, force });
                Fault::Maintenance(victim)
            }
            Kind::Stop => {
                w.command(victim, Command::Stop);
                Fault::Down(victim)
            }
            Kind::Reload => Faults::reload(w, victim),
            Kind::Rotation => Faults::rotate(w),
            _ => Faults::second(w, victim),
        }
    }

    fn cut(w: &mut World, links: Vec<(usize, usize)>) -> Fault {
        for &(from, to) in &links {
            w.network.each_path(from, to, |link| link.cuts += 1);
        }
        Fault::Links(links)
    }

    fn isolate(w: &mut World, victim: usize) -> Fault {
        w.stats.add(Situation::Isolation);
        cut_etcd(w, victim);
        w.network.deaf[victim] += 1;
        w.network.mute[victim] += 1;
        cut_router(w, victim, true);
        Fault::Isolated(victim)
    }

    fn etcd(w: &mut World, victim: usize) -> Fault {
        let slower = w.rng.within(w.o.interval / 4, 2 * w.o.detection());
        let draw = w.rng.below(3);
        let Some(etcd) = &mut w.etcd else { return Fault::None };
        match draw {
            0 => {
                w.etcd_down();
                Fault::EtcdDown
            }
            1 => {
                etcd.cuts[victim] += 1;
                w.stats.add(Situation::EtcdCut);
                Fault::EtcdCut(victim)
            }
            _ => {
                etcd.slower += slower;
                w.stats.add(Situation::EtcdSlow);
                Fault::EtcdSlow(slower)
            }
        }
    }

    fn deafen(w: &mut World, victim: usize, router: bool) -> Fault {
        w.stats.add(Situation::Deaf);
        w.network.deaf[victim] += 1;
        cut_router(w, victim, router);
        Fault::Deaf(victim, router)
    }

    fn path(w: &mut World, victim: usize) -> Fault {
        if w.o.paths < 2 {
            return Fault::None;
        }
        w.stats.add(Situation::PathCut);
        let (other, path) = (Faults::other(w, victim), w.rng.index(2) as u8);
        let links = both(victim, other);
        for &(from, to) in &links {
            w.network.link(from, to, path).cuts += 1;
        }
        Fault::Path(path, links)
    }

    fn slow(w: &mut World, victim: usize) -> Fault {
        let (other, path) = (Faults::other(w, victim), w.rng.index(usize::from(w.o.paths)) as u8);
        let delay = w.rng.within(w.o.interval / 4, 2 * w.o.detection());
        w.stats.add(Situation::SlowPath);
        w.audit.slower(delay);
        w.network.link(victim, other, path).delay += delay;
        Fault::Slow(victim, other, path, delay)
    }

    fn router(w: &mut World) -> Fault {
        w.stats.add(Situation::RouterDown);
        let all: Vec<usize> = (0..w.hosts.len()).collect();
        for &host in &all {
            cut_router(w, host, true);
        }
        Fault::Router(all)
    }

    fn crash(w: &mut World, victim: usize) -> Fault {
        if w.hosts[victim].process.is_none() {
            return Fault::None;
        }
        w.stats.add(Situation::Crash);
        if w.hosts[victim].is_master() {
            w.stats.add(Situation::CrashMaster);
        }
        if w.hosts[victim].disk.maintenance {
            w.stats.add(Situation::MaintenanceKept);
        }
        if w.o.majority && w.rng.permille(30) {
            w.forget(victim);
        }
        // Of the worker alone, or of its guard as well; then what stood stands, unless the machine went down.
        if w.rng.permille(500) {
            w.stats.add(Situation::CrashGuarded);
            w.kill_guarded(victim);
        } else {
            let clean = w.rng.permille(500);
            if !clean && w.hosts[victim].gateway.effects {
                w.stats.add(Situation::CrashLeftovers);
            }
            w.kill(victim, clean);
        }
        if w.rng.permille(400) {
            // It is back before anyone can have noticed.
            w.stats.add(Situation::QuickRestart);
            w.boot(victim);
            return Fault::None;
        }
        Fault::Down(victim)
    }

    fn pause(w: &mut World, victim: usize) -> Fault {
        let (node, gateway, situation) = w.rng.pick(&[
            (true, true, Situation::PauseBoth),
            (true, true, Situation::PauseBoth),
            (true, false, Situation::PauseNode),
            (false, true, Situation::PauseGateway),
        ]);
        w.stats.add(situation);
        w.pause(victim, node, gateway);
        Fault::Paused(victim, node, gateway)
    }

    fn handover(w: &mut World, victim: usize) -> Fault {
        if w.o.majority && w.hosts[victim].is_master() && w.rng.permille(400) {
            return Faults::estrange(w, victim);
        }
        let to = match w.rng.below(3) {
            0 => None,
            _ => Some(Options::name(Faults::other(w, victim))),
        };
        let force = w.rng.permille(200);
        w.command(victim, Command::Handover { to, force });
        Fault::None
    }

    fn estrange(w: &mut World, master: usize) -> Fault {
        let Some(to) = w.gateways().find(|&host| host != master) else { return Fault::None };
        let mut others = w.gateways().filter(|&host| host != master && host != to);
        let stranger = others.next().filter(|_| w.rng.permille(700));
        let Some(stranger) = stranger else { return Faults::blind(w, master, to, None) };
        Faults::cut(w, both(master, stranger));
        Fault::Estranged(master, stranger)
    }

    fn estrange_on(w: &mut World, index: usize, master: usize, stranger: usize) {
        let to = w.gateways().find(|&host| host != master && host != stranger);
        let fault = match to {
            Some(to) if !w.healed && w.hosts[master].is_master() => {
                Faults::blind(w, master, to, Some(stranger))
            }
            _ => Fault::Links(both(master, stranger)),
        };
        let lasts = if let Fault::Blind(blind) = &fault { blind.lasts(w) } else { 0 };
        w.faults.list[index] = fault;
        w.heal_at(w.now + lasts, index);
    }

    /// A handover to a gateway that no voter but the old master hears: what it inherits is all that it has, and the
    /// others choose a master as soon as that is over.
    fn blind(w: &mut World, master: usize, to: usize, stranger: Option<usize>) -> Fault {
        let delay = w.rng.within(w.o.detection() / 8, w.o.detection() / 2);
        w.audit.slower(delay);
        w.network.each_path(master, to, |link| link.delay += delay);
        for (from, to) in blind_links(w, master, to) {
            w.network.each_path(from, to, |link| link.cuts += 1);
        }
        w.command(master, Command::Handover { to: Some(Options::name(to)), force: true });
        Fault::Blind(Blind { master, to, stranger, delay, done: false, mute: false, ends: false })
    }

    fn blind_on(w: &mut World, index: usize, blind: Blind) {
        let Blind { master, to, stranger, delay, done, mute, ends } = blind;
        if !done && !w.healed {
            let ends = w.rng.permille(600) && w.hosts[master].running();
            let killed = w.rng.permille(500);
            // Who stops in order waits for its answer.
            let mute = !ends || killed;
            if mute {
                w.network.mute[to] += 1;
            }
            if ends {
                w.stats.add(Situation::EndAfterRelease);
                if killed {
                    w.kill_guarded(master);
                } else {
                    w.command(master, Command::Stop);
                }
            }
            w.faults.list[index] = Fault::Blind(Blind { done: true, mute, ends, ..blind });
            return w.heal_at(w.now + 2 * w.o.detection(), index);
        }
        if mute {
            w.network.mute[to] -= 1;
        }
        w.network.each_path(master, to, |link| link.delay -= delay);
        let strange = stranger.map_or_else(Vec::new, |stranger| both(master, stranger));
        for (from, to) in blind_links(w, master, to).into_iter().chain(strange) {
            w.network.each_path(from, to, |link| link.cuts -= 1);
        }
        if ends {
            w.faults.list[index] = Fault::Down(master);
            Faults::heal(w, index);
        }
    }

    fn reload(w: &mut World, victim: usize) -> Fault {
        w.stats.add(Situation::Reload);
        match w.rng.below(4) {
            0 => {
                let priority = w.rng.within(1, 255) as u8;
                for host in w.gateways() {
                    w.audit.unfit(host, w.now);
                }
                w.audit.reprioritized = Some(w.now);
                w.reload(victim, |config| config.priority = priority, None);
                Fault::None
            }
            1 => {
                let fingerprint = w.rng.bytes();
                w.reload(victim, |config| config.fingerprint = fingerprint, None);
                Fault::None
            }
            2 => {
                // Again and again, with nothing changed.
                for _ in 0..20 {
                    w.reload(victim, |_| {}, None);
                }
                Fault::None
            }
            _ => {
                for host in 0..w.o.members() {
                    let interval = std::time::Duration::from_nanos(w.o.interval * 6 / 5);
                    w.reload(host, move |config| config.interval = interval, None);
                }
                let mute = (w.o.majority && w.rng.permille(500)).then_some(victim);
                if let Some(mute) = mute {
                    w.network.mute[mute] += 1;
                }
                Fault::Stretched(mute)
            }
        }
    }

    /// Add everywhere, then send with it everywhere, then remove the old one everywhere.
    fn rotate(w: &mut World) -> Fault {
        let under_way = w.faults.list.iter().any(|fault| matches!(fault, Fault::Rotation(..)));
        if under_way {
            return Fault::None;
        }
        let old = w.hosts[0].keys.to_text().to_string();
        let id = w.faults.next_key;
        w.faults.next_key += 1;
        let new = Keyring::generate(id, w.rng.bytes()).to_text().to_string();
        Faults::key_everywhere(w, &format!("{old}{new}"));
        Fault::Rotation(0, old, new)
    }

    fn key_everywhere(w: &mut World, text: &str) {
        for host in 0..w.hosts.len() {
            let keys = Keyring::parse(text).expect("made of key files");
            w.reload(host, |_| {}, Some(keys));
        }
    }

    /// A second process of the victim's name, elsewhere.
    fn second(w: &mut World, victim: usize) -> Fault {
        let second = w.o.members();
        if w.hosts[second].process.is_some() {
            return Fault::None;
        }
        w.hosts[second].member = w.hosts[victim].member;
        w.hosts[second].witness = w.hosts[victim].witness;
        w.hosts[second].config = w.hosts[victim].config.clone();
        w.hosts[second].keys = w.hosts[victim].keys.clone();
        w.hosts[second].gateway.effects = false;
        w.boot(second);
        Fault::Second
    }

    /// A master is cut off from another gateway for a while; then from everyone, as all who gave it their vote restart.
    fn squeeze(w: &mut World) -> Fault {
        let Some(master) = w.gateways().find(|&host| w.hosts[host].is_master()) else {
            return Fault::None;
        };
        let Some(other) = w.gateways().find(|&host| host != master) else { return Fault::None };
        Faults::cut(w, both(master, other));
        Fault::Squeeze(master, other)
    }

    fn squeeze_on(w: &mut World, index: usize, master: usize, other: usize) {
        for (from, to) in both(master, other) {
            w.network.each_path(from, to, |link| link.cuts -= 1);
        }
        if w.healed {
            return;
        }
        for voter in (0..w.o.members()).filter(|&host| host != master && host != other) {
            if w.hosts[voter].running() && w.audit.hosts[voter].stopping.is_none() {
                w.kill(voter, true);
                w.boot(voter);
            }
        }
        w.faults.list[index] = Faults::isolate(w, master);
        w.heal_at(w.now + 2 * w.o.detection(), index);
    }

    pub(crate) fn heal(w: &mut World, index: usize) {
        let fault = std::mem::replace(&mut w.faults.list[index], Fault::Over);
        if !matches!(fault, Fault::Over | Fault::None | Fault::Waiting | Fault::Joining(_)) {
            w.note(|| format!("-- fault {index} ends: {}", describe(&fault)));
        }
        match fault {
            Fault::Waiting | Fault::Over | Fault::None => {}
            Fault::Links(links) => {
                for (from, to) in links {
                    w.network.each_path(from, to, |link| link.cuts -= 1);
                }
            }
            Fault::Path(path, links) => {
                for (from, to) in links {
                    w.network.link(from, to, path).cuts -= 1;
                }
            }
            Fault::Loss(from, to, loss) => w.network.each_path(from, to, |link| link.loss -= loss),
            Fault::Slow(from, to, path, delay) => w.network.link(from, to, path).delay -= delay,
            Fault::Deaf(host, router) => {
                w.network.deaf[host] -= 1;
                join_router(w, host, router);
            }
            Fault::Mute(host, router) => {
                w.network.mute[host] -= 1;
                join_router(w, host, router);
            }
            Fault::EtcdDown => w.etcd_up(),
            Fault::EtcdCut(host) => join_etcd(w, host),
            Fault::EtcdSlow(slower) => {
                if let Some(etcd) = &mut w.etcd {
                    etcd.slower -= slower;
                }
            }
            Fault::Isolated(host) => {
                join_etcd(w, host);
                w.network.deaf[host] -= 1;
                w.network.mute[host] -= 1;
                join_router(w, host, true);
            }
            Fault::Estranged(master, stranger) => Faults::estrange_on(w, index, master, stranger),
            Fault::Blind(blind) => Faults::blind_on(w, index, blind),
            Fault::Squeeze(master, other) => Faults::squeeze_on(w, index, master, other),
            Fault::Joining(joining) => {
                if let Some((next, lasts)) = voters::go_on(w, joining) {
                    w.faults.list[index] = Fault::Joining(next);
                    w.heal_at(w.now + lasts, index);
                }
            }
            Fault::Router(hosts) => hosts.into_iter().for_each(|host| join_router(w, host, true)),
            other => Faults::heal_host(w, index, other),
        }
    }

    fn heal_host(w: &mut World, index: usize, fault: Fault) {
        match fault {
            Fault::Down(host) => {
                if w.hosts[host].process.is_none() {
                    w.boot(host);
                } else if w.audit.hosts[host].stopping.is_some() || w.hosts[host].node_paused > 0 {
                    // Not stopped yet, or paused and not told yet: the start waits for the end.
                    w.faults.list[index] = Fault::Down(host);
                    w.heal_at(w.now + w.o.interval, index);
                }
            }
            Fault::Paused(host, node, gateway) => w.resume(host, node, gateway),
            Fault::Unhealthy(host) => {
                w.hosts[host].healthy = true;
                w.check_health(host);
            }
            Fault::Unable(host) => {
                w.hosts[host].gateway.ability = Ability::Ready;
                w.hosts[host].gateway.fail_keep = 0;
                w.audit.unfit(host, w.now);
            }
            Fault::FailLeave(host) => {
                w.hosts[host].gateway.fail_leave = 0;
                let leaves = w.now + 2 * w.o.leave + w.o.interval;
                w.audit.hosts[host].leave_fails_until = leaves;
            }
            Fault::Maintenance(host) => {
                if w.hosts[host].process.is_none() {
                    w.hosts[host].disk.maintenance = false;
                } else if w.audit.hosts[host].stopping.is_some() {
                    // It refuses orders now, and is in maintenance when it starts again.
                    w.faults.list[index] = Fault::Maintenance(host);
                    w.heal_at(w.now + w.o.interval, index);
                } else {
                    w.command(host, Command::Maintenance { on: false, force: false });
                }
            }
            Fault::Rotation(step, old, new) => Faults::rotate_on(w, index, step, old, new),
            Fault::Second => {
                let second = w.o.members();
                w.kill(second, true);
            }
            Fault::Stretched(mute) => {
                if let Some(mute) = mute {
                    w.network.mute[mute] -= 1;
                }
                for host in 0..w.o.members() {
                    let interval = std::time::Duration::from_nanos(w.o.interval);
                    w.reload(host, move |config| config.interval = interval, None);
                }
            }
            _ => {}
        }
    }

    fn rotate_on(w: &mut World, index: usize, step: u8, old: String, new: String) {
        // Who has not read the last key file yet is waited for.
        let behind = w.hosts.iter().any(|host| host.process.is_some() && host.node_paused > 0);
        let step = if behind { step } else { step + 1 };
        match step {
            1 if !behind => Faults::key_everywhere(w, &format!("{new}{old}")),
            2 if !behind => {
                Faults::key_everywhere(w, &new);
                w.stats.add(Situation::KeyRotation);
                return;
            }
            _ => {}
        }
        w.faults.list[index] = Fault::Rotation(step, old, new);
        w.heal_at(w.now + w.o.detection(), index);
    }

    /// Ends every fault and every chance, but for what remains.
    pub(crate) fn heal_all(w: &mut World, remaining: Remaining) {
        w.note(|| format!("-- everything heals, but for {remaining:?}"));
        w.network.healed = true;
        w.healed = true;
        for index in 0..w.faults.list.len() {
            Faults::heal(w, index);
        }
        if w.o.spare > 0 && !w.joined {
            voters::join(w);
        }
        for host in 0..w.o.members() {
            w.hosts[host].gateway.fail_enter = 0;
            w.hosts[host].gateway.fail_keep = 0;
        }
        let (victim, other) = if w.o.majority {
            // Whoever it is, enough are left. The only gateway cannot be the one.
            let victim = if w.o.gateways == 1 { 1 } else { Faults::victim(w) };
            (victim, Faults::other(w, victim))
        } else {
            let victim = Faults::gateway_victim(w);
            (victim, (victim + 1) % w.o.gateways)
        };
        match remaining {
            Remaining::Nothing => w.stats.add(Situation::RemainingNothing),
            Remaining::DeafNode => {
                w.stats.add(Situation::RemainingDeaf);
                Faults::deafen(w, victim, true);
            }
            Remaining::MuteNode => {
                w.stats.add(Situation::RemainingMute);
                w.network.mute[victim] += 1;
                cut_router(w, victim, true);
            }
            Remaining::BrokenLink => {
                w.stats.add(Situation::RemainingLink);
                Faults::cut(w, both(victim, other));
            }
            Remaining::OneWayLink => {
                w.stats.add(Situation::RemainingOneWay);
                Faults::cut(w, vec![(victim, other)]);
            }
        }
    }
}

impl Blind {
    /// Until the request and the answer have arrived.
    fn lasts(&self, w: &World) -> Nanos {
        self.delay + w.o.interval * 2 / 3 + 10 * MS
    }
}

/// Both directions between two.
fn both(a: usize, b: usize) -> Vec<(usize, usize)> {
    vec![(a, b), (b, a)]
}

fn cut_etcd(w: &mut World, host: usize) {
    if let Some(etcd) = &mut w.etcd {
        etcd.cuts[host] += 1;
    }
}

fn join_etcd(w: &mut World, host: usize) {
    if let Some(etcd) = &mut w.etcd {
        etcd.cuts[host] -= 1;
    }
}

fn cut_router(w: &mut World, host: usize, really: bool) {
    if really {
        w.hosts[host].router_cuts += 1;
        if w.hosts[host].router_cuts == 1 {
            w.audit.router(host, w.now);
        }
    }
}

fn join_router(w: &mut World, host: usize, really: bool) {
    if really {
        w.hosts[host].router_cuts -= 1;
        if w.hosts[host].router_cuts == 0 {
            w.audit.router(host, w.now);
        }
    }
}

fn describe(fault: &Fault) -> String {
    match fault {
        Fault::Links(links) => {
            let each = links.iter().map(|(a, b)| format!("{}-{}", host_name(*a), host_name(*b)));
            format!("cut {}", each.collect::<Vec<_>>().join(" "))
        }
        Fault::Rotation(step, ..) => format!("key rotation, step {step}"),
        other => format!("{other:?}"),
    }
}

/// Both directions between the successor and all but the old master.
fn blind_links(w: &World, master: usize, to: usize) -> Vec<(usize, usize)> {
    let others = (0..w.o.members()).filter(|&host| host != master && host != to);
    others.flat_map(|host| [(host, to), (to, host)]).collect()
}
