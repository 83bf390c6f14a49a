use super::*;

const L: Duration = Duration::from_millis(300);

fn timing() -> Timing {
    Timing::new(L, L / 3, Duration::ZERO)
}

fn at(ms: u64) -> Time {
    Time::from_nanos((1_000_000 + ms) * 1_000_000)
}

/// Began to ask for term 7 at 0 ms.
fn asking() -> Candidate {
    let mut candidate = Candidate::default();
    candidate.begin(at(0), 5, Reason::NoMaster);
    assert_eq!(candidate.bid().map(|bid| bid.term), Some(7));
    candidate
}

#[test]
fn it_asks_each_third_of_an_interval_until_a_lease_has_passed() {
    let mut candidate = asking();
    let mut asked = Vec::new();
    for ms in 0..400 {
        match candidate.step(at(ms), &timing()) {
            Step::Ask => asked.push(ms),
            Step::Wait(until) => assert!(until > at(ms)),
            Step::GiveUp => {
                assert_eq!(ms, 300);
                break;
            }
        }
    }
    assert_eq!(asked, [0, 34, 68, 102, 136, 170, 204, 238, 272]);
}

#[test]
fn it_asks_again_when_a_refusal_is_over() {
    let mut candidate = asking();
    assert_eq!(candidate.step(at(0), &timing()), Step::Ask);
    candidate.refused(at(5), 7, Duration::from_millis(10));
    candidate.refused(at(5), 7, Duration::from_millis(20));
    candidate.refused(at(5), 8, Duration::from_millis(1));
    assert_eq!(candidate.step(at(6), &timing()), Step::Wait(at(15)));
    assert_eq!(candidate.due(&timing()), Some(at(15)));
    assert_eq!(candidate.step(at(15), &timing()), Step::Ask);
    assert_eq!(candidate.due(&timing()), Some(at(15) + timing().interval / 3));
}

#[test]
fn what_it_withdrew_it_never_asks_for_again() {
    let mut candidate = asking();
    assert_eq!(candidate.withdraw(at(50)), Some(7));
    assert_eq!(candidate.withdraw(at(50)), None);
    assert_eq!((candidate.withdrawn(), candidate.not_before()), (7, at(50)));
    candidate.begin(at(60), 3, Reason::NoMaster);
    assert_eq!(candidate.bid().map(|bid| bid.term), Some(9));
    candidate.raise(at(61), 10);
    assert_eq!(candidate.bid().map(|bid| bid.term), Some(12));
    assert_eq!(candidate.withdrawn(), 9);
    assert!(candidate.bid_for(9).is_none() && candidate.bid_for(12).is_some());
}

#[test]
fn a_pause_is_not_shortened() {
    let mut candidate = asking();
    candidate.withdraw(at(90));
    candidate.pause(at(40));
    assert_eq!(candidate.not_before(), at(90));
}

#[test]
fn a_raise_forgets_the_votes_for_the_term_before() {
    let set = super::super::set::VoterSet::new("edge", ["a"].into_iter());
    let mut candidate = asking();
    let voter = crate::wire::node_tag("edge", "a");
    candidate.bid_for(7).unwrap().parts.note(voter, at(0), L, &timing());
    assert!(candidate.bid().unwrap().parts.end(&set).is_some());
    candidate.raise(at(1), 7);
    assert!(candidate.bid().unwrap().parts.end(&set).is_none());
}
