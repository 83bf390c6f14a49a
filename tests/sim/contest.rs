//! With leases: for how long two gateways may ask for one against each other.
//!
//! `Contest`: of two that hear each other and ask, one makes way as soon as it has heard the other ask: within the third of an interval in which each asks
//! again, and a round trip, if no datagram is lost meanwhile. So a split vote costs that, and not the lease
//! after which a candidate without a majority gives up.

use crate::audit::Rule;
use crate::options::Nanos;
use crate::world::{World, host_name};

/// Looks a few times in each interval.
pub(crate) fn look(w: &mut World) {
    let asking: Vec<bool> = (0..w.o.gateways).map(|x| asks(w, x)).collect();
    for x in w.gateways() {
        for y in 0..x {
            let at = x * w.o.gateways + y;
            if !asking[x] || !asking[y] || !hear_each_other(w, x, y) {
                w.audit.contests[at] = None;
                continue;
            }
            let began = *w.audit.contests[at].get_or_insert(w.now);
            let lasts = w.now - began.max(w.audit.lost_at).min(w.now);
            if lasts > patience(w) {
                let what = format!("{} and {} ask for {lasts} ns", host_name(y), host_name(x));
                w.audit.broken(Rule::Contest, what);
            }
        }
    }
}

fn asks(w: &World, x: usize) -> bool {
    let host = &w.hosts[x];
    let Some(process) = host.process.as_ref().filter(|_| host.running()) else { return false };
    process.node.snapshot(host.clock.local(w.now)).held_back == Some("asking")
}

fn hear_each_other(w: &World, x: usize, y: usize) -> bool {
    let heard = |from: usize, to: usize| w.audit.hears_since(from, to, w.now).is_some();
    w.audit.usurped.is_none() && heard(x, y) && heard(y, x)
}

/// A third of an interval that a reload may have stretched, wake-ups on both sides, and the round trip.
fn patience(w: &World) -> Nanos {
    let one_way = w.o.delay_most() + w.audit.slowest;
    w.o.interval * 2 / 5 + 2 * (one_way + w.o.latency())
}
