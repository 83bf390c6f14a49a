use super::*;

const STATES: [State; 6] = [
    State::Init,
    State::Standby,
    State::Serving,
    State::Leaving,
    State::LeavingForFault,
    State::Faulty,
];
const INPUTS: [Input; 6] =
    [Input::Listened, Input::Won, Input::Leave, Input::Left, Input::Unable, Input::Able];

#[test]
fn every_state_and_input() {
    use State::{Faulty, Init, Leaving, LeavingForFault as ForFault, Serving, Standby};
    // Rows are states, columns inputs, in the order above.
    let table = [
        [Standby, Init, Init, Init, Faulty, Init],
        [Standby, Serving, Standby, Standby, Faulty, Standby],
        [Serving, Serving, Leaving, Serving, ForFault, Serving],
        [Leaving, Leaving, Leaving, Standby, ForFault, Leaving],
        [ForFault, ForFault, ForFault, Faulty, ForFault, Leaving],
        [Faulty, Faulty, Faulty, Faulty, Faulty, Standby],
    ];
    for (state, row) in STATES.into_iter().zip(table) {
        for (input, after) in INPUTS.into_iter().zip(row) {
            assert_eq!(state.after(input), after, "{state:?} on {input:?}");
        }
    }
}

#[test]
fn roles_and_claims() {
    let table = [
        (State::Init, Role::Init, false, false),
        (State::Standby, Role::Backup, false, false),
        (State::Serving, Role::Master, true, false),
        (State::Leaving, Role::Backup, true, true),
        (State::LeavingForFault, Role::Fault, true, true),
        (State::Faulty, Role::Fault, false, false),
    ];
    for (state, role, claims, leaving) in table {
        assert_eq!((state.role(), state.claims(), state.is_leaving()), (role, claims, leaving));
    }
}

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

/// A backup at 1000 ms whose master was last heard at 700 ms, with a detection time of 300 ms.
fn silence() -> View {
    View {
        now: at(1000),
        incumbent: Some(Incumbent {
            last: at(700),
            detection: Duration::from_millis(300),
            interval: Duration::from_millis(100),
        }),
        vacant_since: at(0),
        reserved_until: at(0),
        all_heard: false,
        silent_at: at(1000),
        rank: 0,
        step: Duration::from_millis(25),
        evidence: Evidence::NoSource,
        missed_since: at(800),
        isolated_until: at(0),
        heard_until: at(0),
        namesake_until: at(0),
    }
}

#[test]
fn verdicts() {
    let act = |silence| Verdict::Act { silence };
    let vacant = View { incumbent: None, all_heard: true, vacant_since: at(990), ..silence() };
    let half = View { all_heard: false, ..vacant };
    let table = [
        ("the detection time is over", silence(), act(true)),
        ("a moment before", View { now: at(999), ..silence() }, Verdict::Wait(at(1000))),
        ("second in rank", View { rank: 1, ..silence() }, Verdict::Wait(at(1025))),
        ("third, later", View { rank: 2, now: at(1050), ..silence() }, act(true)),
        (
            "heard by another",
            View { heard_until: at(1001), ..silence() },
            Verdict::Held("master-heard-by-another"),
        ),
        ("heard until now", View { heard_until: at(1000), ..silence() }, act(true)),
        (
            "nothing answers",
            View { evidence: Evidence::Silent, ..silence() },
            Verdict::Held("isolated"),
        ),
        (
            "an old answer",
            View { evidence: Evidence::Answered(at(799)), ..silence() },
            Verdict::Held("isolated"),
        ),
        (
            "a moment after being cut off",
            View { isolated_until: at(1001), ..silence() },
            Verdict::Held("isolated"),
        ),
        ("a new answer", View { evidence: Evidence::Answered(at(800)), ..silence() }, act(true)),
        ("nobody is master", vacant, act(false)),
        ("without evidence too", View { evidence: Evidence::Silent, ..vacant }, act(false)),
        ("rumours do not count then", View { heard_until: at(2000), ..vacant }, act(false)),
        (
            "but my namesake does",
            View { namesake_until: at(2000), ..vacant },
            Verdict::Held("master-heard-by-another"),
        ),
        ("worse in rank", View { rank: 1, ..vacant }, Verdict::Wait(at(1015))),
        (
            "kept for a successor",
            View { reserved_until: at(1200), ..vacant },
            Verdict::Wait(at(1200)),
        ),
        ("a gateway is missing", View { silent_at: at(1100), ..half }, Verdict::Wait(at(1100))),
        ("it is missing for long", half, act(false)),
        (
            "it is missing, or I am",
            View { evidence: Evidence::Silent, ..half },
            Verdict::Held("isolated"),
        ),
    ];
    for (case, view, verdict) in table {
        assert_eq!(view.verdict(), verdict, "{case}");
    }
}

#[test]
fn order_of_candidates() {
    let standing = |settled, healthy, priority, name: &str| Standing {
        settled,
        healthy,
        priority,
        name: std::cmp::Reverse(name.to_owned()),
    };
    // From the best to the worst.
    let order = [
        standing(true, true, 200, "b"),
        standing(true, true, 100, "a"),
        standing(true, true, 100, "b"),
        standing(true, false, 255, "a"),
        standing(false, true, 255, "a"),
        standing(false, false, 255, "a"),
    ];
    assert!(order.is_sorted_by(|better, worse| better > worse));
}
