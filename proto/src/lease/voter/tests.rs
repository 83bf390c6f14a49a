use super::*;

const L: Duration = Duration::from_millis(300);
const A: Tag = [1; 8];
const B: Tag = [2; 8];
const SA: SessionId = [11; 16];
const SB: SessionId = [22; 16];

fn timing() -> Timing {
    Timing::new(L, L / 3, Duration::ZERO)
}

fn at(ms: u64) -> Time {
    Time::from_nanos((1_000_000 + ms) * 1_000_000)
}

/// A voter that has nothing to wait for.
fn voter() -> Voter {
    Voter::new(at(0), Duration::ZERO, (0, [0; 16]))
}

fn ask(node: Tag, session: SessionId, number: u64, term: Term) -> Ask {
    Ask { node, session, number, term, transfer: None, timely: true, same_voters: true }
}

/// Bound to A, of term 5, by its ask 1 at 0 ms.
fn bound() -> Voter {
    let mut voter = voter();
    assert_eq!(voter.ask(at(0), &ask(A, SA, 1, 5), &timing()), Verdict::Granted);
    voter
}

fn remaining(ms: u64) -> Verdict {
    Verdict::Refused(Duration::from_millis(ms))
}

#[test]
fn a_grant_lasts_l_from_receipt_and_each_ask_renews_it() {
    let mut voter = bound();
    let grant = *voter.grant(at(299)).unwrap();
    assert_eq!((grant.node, grant.session, grant.term, grant.ask), (A, SA, 5, 1));
    assert_eq!(grant.until, at(300));
    assert!(voter.grant(at(300)).is_none());
    assert_eq!(voter.ask(at(100), &ask(A, SA, 2, 5), &timing()), Verdict::Granted);
    assert_eq!(voter.grant(at(399)).map(|grant| grant.ask), Some(2));
    assert_eq!(voter.highest(), (5, SA));
}

#[test]
fn what_each_ask_gets() {
    let late = Ask { timely: false, ..ask(A, SA, 2, 5) };
    let others = Ask { same_voters: false, ..ask(A, SA, 2, 5) };
    let heir = |session, term| Ask { transfer: Some((session, term)), ..ask(B, SB, 1, 6) };
    // (what, when, ask, verdict), all on a voter bound to A in term 5 until 300 ms.
    let table = [
        ("the holder again", 100, ask(A, SA, 2, 5), Verdict::Granted),
        ("the holder, a higher term", 100, ask(A, SA, 2, 7), Verdict::Granted),
        ("the holder, an earlier term", 100, ask(A, SA, 2, 4), remaining(0)),
        ("the same ask again", 100, ask(A, SA, 1, 5), Verdict::Ignored),
        ("an older ask", 100, ask(A, SA, 0, 5), Verdict::Ignored),
        ("not timely", 100, late, remaining(100)),
        ("other voters in force", 100, others, remaining(100)),
        ("another, a higher term", 100, ask(B, SB, 1, 9), remaining(200)),
        ("another, at the last moment", 299, ask(B, SB, 1, 9), remaining(1)),
        ("another, when it is over", 300, ask(B, SB, 1, 7), Verdict::Granted),
        ("another, the term of A's successor", 300, ask(B, SB, 1, 6), remaining(0)),
        ("A's successor, when it is over", 300, heir(SA, 5), Verdict::Granted),
        ("the successor of one that won this term without me", 300, heir(SB, 5), Verdict::Granted),
        ("the successor of an earlier term", 300, heir(SA, 4), remaining(0)),
        ("A itself, the term after", 300, ask(A, SA, 2, 6), Verdict::Granted),
        ("another, the term that A had", 300, ask(B, SB, 1, 5), remaining(0)),
        ("another, a lower term", 300, ask(B, SB, 1, 4), remaining(0)),
        ("A after a restart", 100, ask(A, SB, 1, 6), remaining(200)),
        ("the successor of this session and term", 100, heir(SA, 5), Verdict::Granted),
        ("the successor of another term", 100, heir(SA, 4), remaining(200)),
        ("the successor of another session", 100, heir(SB, 5), remaining(200)),
    ];
    for (what, ms, ask, verdict) in table {
        assert_eq!(bound().ask(at(ms), &ask, &timing()), verdict, "{what}");
    }
}

#[test]
fn a_refusal_leaves_everything_as_it_was() {
    let mut voter = bound();
    assert_eq!(voter.ask(at(100), &ask(B, SB, 9, 9), &timing()), remaining(200));
    assert_eq!(voter.highest(), (5, SA));
    assert_eq!(voter.grant(at(100)).map(|grant| grant.until), Some(at(300)));
    // Its number is not used up: the same message could not come again, but nothing hangs on that.
    assert_eq!(voter.ask(at(300), &ask(B, SB, 9, 9), &timing()), Verdict::Granted);
}

#[test]
fn what_frees_the_vote() {
    type Deed = fn(&mut Voter);
    // (what, deed, what B's ask for term 7 gets at 100 ms)
    let table: [(&str, Deed, Verdict); 10] = [
        ("nothing", |_| {}, remaining(200)),
        ("a release", |v| v.released(A, SA, 2, 5, false), Verdict::Granted),
        ("a release of an earlier term", |v| v.released(A, SA, 2, 4, false), remaining(200)),
        ("a release of another session", |v| v.released(B, SB, 2, 5, false), remaining(200)),
        ("a release to a successor", |v| v.released(A, SA, 2, 5, true), remaining(200)),
        ("a withdrawal", |v| v.withdrawn(A, SA, 2, 5), Verdict::Granted),
        ("a withdrawal of an earlier term", |v| v.withdrawn(A, SA, 2, 4), remaining(200)),
        ("a withdrawal of another", |v| v.withdrawn(B, SB, 0, 5), remaining(200)),
        ("its obituary", |v| v.ended(SA), Verdict::Granted),
        ("another's obituary", |v| v.ended(SB), remaining(200)),
    ];
    for (what, deed, verdict) in table {
        let mut voter = bound();
        deed(&mut voter);
        assert_eq!(voter.ask(at(100), &ask(B, SB, 3, 7), &timing()), verdict, "{what}");
    }
}

#[test]
fn a_vote_that_was_handed_on_is_for_the_successor_alone() {
    let mut voter = bound();
    voter.released(A, SA, 2, 5, true);
    assert_eq!(voter.ask(at(100), &ask(A, SA, 3, 7), &timing()), remaining(200));
    // The old holder may end, by its goodbye or its obituary: the successor acts nevertheless.
    voter.ended(SA);
    assert_eq!(voter.ask(at(100), &ask(B, SB, 1, 7), &timing()), remaining(200));
    let heir = Ask { transfer: Some((SA, 5)), ..ask(B, SB, 1, 6) };
    assert_eq!(voter.ask(at(100), &heir, &timing()), Verdict::Granted);
    // From then on it is B's like any other.
    assert_eq!(voter.ask(at(150), &ask(B, SB, 2, 6), &timing()), Verdict::Granted);
}

#[test]
fn an_ask_from_before_a_withdrawal_or_a_release_counts_for_nothing() {
    for deed in [Voter::withdrawn, |v: &mut Voter, n, s, m, t| v.released(n, s, m, t, false)] {
        let mut voter = bound();
        deed(&mut voter, A, SA, 8, 5);
        assert_eq!(voter.ask(at(10), &ask(A, SA, 7, 5), &timing()), Verdict::Ignored);
        assert!(voter.grant(at(10)).is_none());
        assert_eq!(voter.ask(at(10), &ask(A, SA, 9, 6), &timing()), Verdict::Granted);
    }
}

#[test]
fn a_term_that_was_withdrawn_has_no_successor() {
    for (withdrawn, verdict) in [(4, remaining(0)), (5, Verdict::Granted), (6, Verdict::Granted)] {
        let mut voter = bound();
        voter.withdrawn(A, SA, 2, withdrawn);
        let when = at(300);
        assert_eq!(voter.ask(when, &ask(B, SB, 1, 6), &timing()), verdict, "{withdrawn}");
    }
    // What is granted after that may be won again.
    let mut voter = bound();
    voter.withdrawn(A, SA, 2, 5);
    assert_eq!(voter.ask(at(1), &ask(B, SB, 1, 7), &timing()), Verdict::Granted);
    assert_eq!(voter.ask(at(301), &ask(A, SA, 3, 8), &timing()), remaining(0));
}

#[test]
fn a_voter_abstains_for_the_longest_lease_that_it_may_have_granted() {
    let mut voter = Voter::new(at(0), L, (5, SA));
    // 1 + 2 ρ
    assert_eq!(voter.abstain_until(), at(306));
    assert_eq!(voter.ask(at(5), &ask(A, SA, 1, 5), &timing()), remaining(301));
    assert_eq!(voter.ask(at(306), &ask(A, SA, 2, 5), &timing()), Verdict::Granted);
}

#[test]
fn what_was_granted_before_a_restart_is_known() {
    let after = || Voter::new(at(0), Duration::ZERO, (5, SA));
    assert_eq!(after().ask(at(0), &ask(B, SB, 1, 5), &timing()), remaining(0));
    assert_eq!(after().ask(at(0), &ask(B, SB, 1, 6), &timing()), remaining(0));
    assert_eq!(after().ask(at(0), &ask(B, SB, 1, 7), &timing()), Verdict::Granted);
    // The holder of then may go on.
    assert_eq!(after().ask(at(0), &ask(A, SA, 1, 5), &timing()), Verdict::Granted);
}
