use super::*;
use crate::wire::node_tag;

const L: Duration = Duration::from_millis(300);

fn timing() -> Timing {
    Timing::new(L, L / 3, Duration::ZERO)
}

fn at(ms: u64) -> Time {
    Time::from_nanos((1_000_000 + ms) * 1_000_000)
}

fn set(names: &[&str]) -> VoterSet {
    VoterSet::new("edge", names.iter().copied())
}

fn parts(notes: &[(&str, u64)]) -> Parts {
    let mut parts = Parts::default();
    for (name, sent) in notes {
        parts.note(node_tag("edge", name), at(*sent), L, &timing());
    }
    parts
}

#[test]
fn the_lease_is_the_kth_latest_part() {
    let (three, four, five) =
        (set(&["a", "b", "c"]), set(&["a", "b", "c", "d"]), set(&["a", "b", "c", "d", "e"]));
    // (voters, sendings of the asks granted, end)
    let table = [
        (&three, vec![("a", 0)], None),
        (&three, vec![("a", 0), ("b", 10)], Some(300)),
        (&three, vec![("a", 0), ("b", 10), ("c", 20)], Some(310)),
        (&three, vec![("a", 50), ("x", 60)], None),
        (&four, vec![("a", 0), ("b", 10)], None),
        (&four, vec![("a", 0), ("b", 10), ("c", 5)], Some(300)),
        (&five, vec![("a", 0), ("b", 10), ("c", 5), ("d", 40), ("e", 30)], Some(310)),
    ];
    for (set, notes, end) in table {
        assert_eq!(parts(&notes).end(set), end.map(at), "{notes:?}");
    }
}

#[test]
fn a_part_is_counted_from_the_sending_and_no_longer_than_granted_or_asked() {
    let (one, a) = (set(&["a"]), node_tag("edge", "a"));
    for (granted, end) in [(300, 300), (120, 120), (5_000, 300), (0, 0)] {
        let mut parts = Parts::default();
        parts.note(a, at(0), Duration::from_millis(granted), &timing());
        assert_eq!(parts.end(&one), Some(at(end)), "{granted}");
    }
    // A grant of an older ask that comes late takes nothing back.
    let mut parts = parts(&[("a", 100)]);
    parts.note(a, at(40), L, &timing());
    assert_eq!(parts.end(&one), Some(at(400)));
    assert_eq!(parts.live(at(399)).count(), 1);
    assert_eq!(parts.live(at(400)).count(), 0);
}

#[test]
fn it_acts_until_the_margin() {
    let three = set(&["a", "b", "c"]);
    let holder = Holder::new(5, parts(&[("a", 0), ("b", 0)]), None);
    // 2.5 ρ L = 7.5 ms, and 20 ms for the effects.
    assert_eq!(holder.permitted_until(&three, &timing()), at(300) - Duration::from_micros(27_500));
    let slow = Timing::new(L, L / 3, Duration::from_millis(50));
    assert_eq!(holder.permitted_until(&three, &slow), at(300) - Duration::from_micros(57_500));
    assert_eq!(Holder::new(5, parts(&[("a", 0)]), None).end(&three), Time::ZERO);
}

#[test]
fn an_inherited_lease_counts_from_my_own_sending_and_by_a_clock_that_may_be_slower() {
    let three = set(&["a", "b", "c"]);
    let inherited = Inherited::new([1; 16], 4, at(0), Duration::from_millis(200), &timing());
    assert_eq!(inherited.end(), at(195));
    let mut holder = Holder::new(5, Parts::default(), Some(inherited));
    assert_eq!(holder.end(&three), at(195));
    // My own votes are in.
    holder.parts = parts(&[("a", 10), ("b", 20)]);
    assert_eq!(holder.end(&three), at(310));
    // No longer than a lease may be, whatever is said.
    let long = Inherited::new([1; 16], 4, at(0), Duration::from_secs(9), &timing());
    assert_eq!(long.end(), at(300) - Duration::from_micros(7_500));
}
