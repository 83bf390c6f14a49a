//! Voters that join while the cluster runs.
//!
//! Some schedules with leases begin without their last witnesses. At some time these start, and everyone gets the
//! config that has them. One more comes into force; of two more at once a majority and a majority of the old set may have
//! nobody in common, so they must never. The worst moment follows: as soon as the holder has the new set, one of the old
//! voters, a gateway, hears of nothing any more; then it and a witness that has the new set are cut off from the rest.

use crate::leases::voters_in_force;
use crate::options::Nanos;
use crate::world::World;

/// How far a change of voters has come.
#[derive(Clone, Debug)]
pub(crate) enum Joining {
    /// Everyone has the config, and the lagging gateway hears nobody; when that is over, if nothing comes of it.
    Told(Nanos, Option<Lagging>),
    /// The new set is in force at the holder, and everyone else may hear of it.
    InForce(Lagging),
    /// The lagging one and a witness are cut off.
    Apart(Links),
}

/// An old voter that does not hear of the new set, alone or with a witness, and what keeps it from that.
#[derive(Clone, Debug)]
pub(crate) struct Lagging(usize, Links);

/// Directions that are cut.
pub(crate) type Links = Vec<(usize, usize)>;

/// Everyone gets the config with all members, and those who wait for it start.
pub(crate) fn join(w: &mut World) -> Joining {
    w.joined = true;
    for host in 0..w.o.members() {
        let peers = w.o.config(host).peers;
        w.reload(host, move |config| config.peers.clone_from(&peers), None);
        w.audit.hosts[host].sent.fill(w.now);
    }
    for host in w.o.members() - w.o.spare..w.o.members() {
        w.boot(host);
    }
    let other = w.gateways().find(|&host| !w.hosts[host].is_master());
    let lagging = other.filter(|_| !w.healed && w.rng.permille(600)).map(|lagging| {
        // The first witness was a voter before.
        let mut group = vec![lagging];
        group.extend(w.rng.permille(300).then_some(w.o.gateways));
        let others = (0..w.o.members()).filter(|host| !group.contains(host));
        let to = |from: usize| group.iter().map(move |&to| (from, to));
        let links: Links = others.flat_map(to).collect();
        cut_links(w, &links);
        Lagging(lagging, links)
    });
    Joining::Told(w.now + w.o.detection(), lagging)
}

/// What follows, and for how long; `None` when it is over.
pub(crate) fn go_on(w: &mut World, joining: Joining) -> Option<(Joining, Nanos)> {
    match joining {
        Joining::Told(until, lagging) => told(w, until, lagging),
        Joining::InForce(Lagging(lagging, links)) => {
            join_links(w, &links);
            apart(w, lagging)
        }
        Joining::Apart(links) => {
            join_links(w, &links);
            None
        }
    }
}

fn told(w: &mut World, until: Nanos, lagging: Option<Lagging>) -> Option<(Joining, Nanos)> {
    let lagging = lagging?;
    let old = w.o.members() - w.o.spare;
    let in_force =
        w.gateways().any(|host| w.hosts[host].is_master() && voters_in_force(w, host).len() > old);
    if in_force && !w.healed {
        return Some((Joining::InForce(lagging), w.o.interval / 2));
    }
    if w.now < until && !w.healed {
        return Some((Joining::Told(until, Some(lagging)), w.o.interval / 20));
    }
    join_links(w, &lagging.1);
    None
}

fn apart(w: &mut World, lagging: usize) -> Option<(Joining, Nanos)> {
    if w.healed {
        return None;
    }
    let group = [lagging, w.o.gateways];
    let others = (0..w.o.members()).filter(|host| !group.contains(host));
    let both = |host: usize| group.map(|member| [(host, member), (member, host)]);
    let links: Links = others.flat_map(both).flatten().collect();
    cut_links(w, &links);
    Some((Joining::Apart(links), 4 * w.o.detection()))
}

fn cut_links(w: &mut World, links: &[(usize, usize)]) {
    for &(from, to) in links {
        w.network.each_path(from, to, |link| link.cuts += 1);
    }
}

fn join_links(w: &mut World, links: &[(usize, usize)]) {
    for &(from, to) in links {
        w.network.each_path(from, to, |link| link.cuts -= 1);
    }
}
