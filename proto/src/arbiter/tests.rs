use super::*;

const ME: [u8; 16] = [1; 16];
const OTHER: [u8; 16] = [2; 16];
const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Time {
    Time::from_nanos(1_000_000_000_000 + ms * 1_000_000)
}

fn vote(session: [u8; 16], term: Term) -> Vote {
    Vote { term, session, heir: true, node: "gw1".to_owned() }
}

fn kept(vote: Vote, revision: u64) -> Option<Kept> {
    Some(Kept { vote: Some(vote), revision })
}

fn header(revision: u64) -> Header {
    Header { cluster: 7, revision }
}

/// Heartbeats of 200 ms, leases of 600 ms, so of 3 s at etcd.
fn agent() -> Agent {
    let mut agent = Agent::new("edge", "@etcd.00112233", "gw1", ME);
    agent.pace(Duration::from_millis(200), Duration::from_millis(600));
    agent
}

fn words(agent: &mut Agent) -> Vec<Word> {
    std::iter::from_fn(|| agent.word()).collect()
}

fn look(agent: &mut Agent, now: Time, register: Register) {
    assert_eq!(agent.request(now), Some(Request::Look));
    let header = agent.header.unwrap_or(header(10));
    agent.answer(now, Some((header, Answer::Seen(register))));
}

fn lease(agent: &mut Agent, now: Time, id: i64) {
    assert_eq!(agent.request(now), Some(Request::Lease { seconds: 3 }));
    let header = agent.header.unwrap_or(header(10));
    agent.answer(now, Some((header, Answer::Leased { id, seconds: 3 })));
}

/// Takes the free vote of term 5; the request for the lease goes at `now`.
fn take(agent: &mut Agent, now: Time) {
    agent.wish(Wish::Ask { term: 5, of: None });
    look(agent, now, Register::default());
    lease(agent, now, 77);
    let change = Change::Take { lease: 77, vote: vote(ME, 5) };
    assert_eq!(agent.request(now), Some(Request::Write { expected: (0, 0), change }));
}

#[test]
fn a_value_is_read_as_it_was_written_and_nothing_else_is() {
    let vote = Vote { heir: false, ..vote([0xab; 16], 12) };
    let text = format!("wgha1 12 {} 0 gw1", "ab".repeat(16));
    assert_eq!(vote.to_text(), text);
    assert_eq!(Vote::parse(&text), Some(vote));
    let long = format!("{text}{}", "x".repeat(300));
    for bad in ["", "wgha1", "wgha2 1", &text[..40], &format!("{text} more"), &long] {
        assert_eq!(Vote::parse(bad), None, "{bad}");
    }
    assert_eq!(Vote::parse(&text.replace(" 0 ", " 2 ")), None);
    assert_eq!(Vote::parse(&text.replace("ab", "+b")), None);
}

#[test]
fn the_rules_of_every_voter() {
    let (t, a) = (5, Some((OTHER, 5)));
    let bound = |session, term| Register {
        bound: kept(vote(session, term), 3),
        highest: kept(vote(session, term), 3),
    };
    let past = |session, heir| Register {
        bound: None,
        highest: kept(Vote { heir, ..vote(session, t) }, 3),
    };
    for (register, term, of, judgement) in [
        (Register::default(), 1, None, Judgement::Free),
        (bound(OTHER, t), 9, None, Judgement::Bound),
        (bound(OTHER, t), t + 1, a, Judgement::Free),
        (bound(OTHER, t), t + 1, Some((OTHER, 4)), Judgement::Bound),
        (bound(OTHER, t), t + 1, Some((ME, t)), Judgement::Bound),
        (bound(ME, t), t, None, Judgement::Free),
        (bound(ME, t), t + 2, None, Judgement::Free),
        (bound(ME, t), t - 1, None, Judgement::Taken(t)),
        (past(OTHER, true), t - 1, None, Judgement::Taken(t)),
        (past(OTHER, true), t, None, Judgement::Taken(t)),
        (past(OTHER, true), t + 1, None, Judgement::Taken(t)),
        (past(OTHER, true), t + 1, a, Judgement::Free),
        (past(OTHER, false), t + 1, None, Judgement::Free),
        (past(OTHER, true), t + 2, None, Judgement::Free),
        (past(ME, true), t + 1, None, Judgement::Free),
    ] {
        assert_eq!(register.judge(&ME, term, of), judgement, "{register:?} {term} {of:?}");
    }
    let foreign = Some(Kept { vote: None, revision: 3 });
    for register in [
        Register { bound: foreign.clone(), highest: None },
        Register { bound: None, highest: foreign },
    ] {
        assert_eq!(register.judge(&ME, 9, None), Judgement::Bound, "not ours: {register:?}");
    }
}

#[test]
fn a_grant_counts_from_the_sending_of_the_request_for_its_lease() {
    let mut agent = agent();
    take(&mut agent, at(0));
    // The answer takes its time; it does not matter.
    agent.answer(at(700), Some((header(11), Answer::Written)));
    let voter = node_tag("edge", "@etcd.00112233");
    let until = at(0) + (3 * SECOND - drift(3 * SECOND));
    assert_eq!(words(&mut agent), [Word::Present, Word::Granted { voter, term: 5, until }]);
    // Renewed by a lease of its own, when half of it is over.
    assert_eq!(agent.request(at(700)), None);
    assert_eq!(agent.due(), Some(at(1500)));
    lease(&mut agent, at(1500), 78);
    let change = Change::Take { lease: 78, vote: vote(ME, 5) };
    assert_eq!(agent.request(at(1510)), Some(Request::Write { expected: (11, 11), change }));
    agent.answer(at(1600), Some((header(12), Answer::Written)));
    let until = at(1500) + (3 * SECOND - drift(3 * SECOND));
    assert_eq!(words(&mut agent), [Word::Granted { voter, term: 5, until }]);
}

#[test]
fn what_etcd_grants_for_longer_counts_for_no_longer_than_the_longest_lease() {
    let mut agent = agent();
    agent.wish(Wish::Ask { term: 5, of: None });
    look(&mut agent, at(0), Register::default());
    agent.request(at(0));
    agent.answer(at(0), Some((header(10), Answer::Leased { id: 1, seconds: 4_000_000 })));
    agent.request(at(0));
    agent.answer(at(0), Some((header(10), Answer::Written)));
    let until = at(0) + (LONGEST_LEASE - drift(LONGEST_LEASE));
    assert!(matches!(words(&mut agent)[..], [_, Word::Granted { until: end, .. }] if end == until));
}

#[test]
fn a_write_that_came_too_late_is_judged_anew() {
    let mut agent = agent();
    take(&mut agent, at(0));
    let theirs = Register { bound: kept(vote(OTHER, 5), 11), highest: kept(vote(OTHER, 5), 11) };
    agent.answer(at(10), Some((header(11), Answer::Seen(theirs.clone()))));
    assert_eq!(agent.request(at(10)), None);
    assert_eq!(words(&mut agent), [Word::Present, Word::Refused { term: 5, taken: None }]);
    // Asked again after a while, and taken once it is free.
    let later = agent.due().unwrap();
    assert!(later > at(10) && later < at(210));
    let gone = Register { bound: None, ..theirs };
    look(&mut agent, later, gone);
    assert_eq!(agent.request(later), None);
    assert_eq!(words(&mut agent), [Word::Refused { term: 5, taken: Some(5) }]);
    agent.wish(Wish::Ask { term: 7, of: None });
    look(&mut agent, later, Register { bound: None, highest: kept(vote(OTHER, 5), 11) });
    let change = Change::Take { lease: 77, vote: vote(ME, 7) };
    assert_eq!(agent.request(later), Some(Request::Write { expected: (0, 11), change }));
}

#[test]
fn nothing_that_may_have_been_done_is_taken_for_done() {
    let mut agent = agent();
    take(&mut agent, at(0));
    agent.answer(at(600), None);
    assert_eq!(words(&mut agent), [Word::Present, Word::Lost]);
    assert_eq!(agent.request(at(600)), None, "a pause");
    let again = agent.due().unwrap();
    // It had been done: the key is mine, and is taken under a new lease.
    let mine = Register { bound: kept(vote(ME, 5), 11), highest: kept(vote(ME, 5), 11) };
    look(&mut agent, again, mine);
    lease(&mut agent, again, 78);
    let change = Change::Take { lease: 78, vote: vote(ME, 5) };
    assert_eq!(agent.request(again), Some(Request::Write { expected: (11, 11), change }));
}

#[test]
fn what_is_mine_is_freed_once_and_what_is_not_stays() {
    let mut agent = agent();
    take(&mut agent, at(0));
    agent.answer(at(10), Some((header(11), Answer::Written)));
    agent.wish(Wish::Keep);
    assert_eq!(agent.request(at(20)), Some(Request::Look), "kept until its time is over");
    let mine = Register { bound: kept(vote(ME, 5), 11), highest: kept(vote(ME, 5), 11) };
    agent.answer(at(20), Some((header(11), Answer::Seen(mine.clone()))));
    assert_eq!(agent.request(at(20)), None);
    agent.wish(Wish::Free { withdrawn: 5 });
    let barren = Vote { heir: false, ..vote(ME, 5) };
    let free =
        |highest| Some(Request::Write { expected: (11, 11), change: Change::Free { highest } });
    assert_eq!(agent.request(at(30)), free(Some(barren.clone())));
    agent.answer(at(40), Some((header(12), Answer::Written)));
    look(&mut agent, at(40), Register { bound: None, highest: kept(barren, 12) });
    assert_eq!(agent.request(at(50)), None, "there is nothing left");
    // A term that was won may have an heir.
    assert_eq!(mine.freed(&ME, 4), Some(None));
    assert_eq!(mine.freed(&OTHER, 9), None);
    assert_eq!(Register::default().freed(&ME, 9), None);
}

#[test]
fn an_etcd_that_forgot_is_not_believed_until_others_do_not_count_on_it_either() {
    for other in [Header { cluster: 7, revision: 2 }, Header { cluster: 8, revision: 99 }] {
        let mut agent = agent();
        take(&mut agent, at(0));
        agent.answer(at(10), Some((header(11), Answer::Written)));
        words(&mut agent);
        assert_eq!(agent.request(at(1500)), Some(Request::Lease { seconds: 3 }));
        agent.answer(at(1510), Some((other, Answer::Leased { id: 1, seconds: 3 })));
        assert_eq!(words(&mut agent), [Word::Void]);
        let mut now = at(1510);
        let until = now + (LONGEST_LEASE + LONGEST_LEASE / 50);
        while now < until {
            if let Some(request) = agent.request(now) {
                assert_eq!(request, Request::Look, "nothing is taken");
                agent.answer(now, Some((other, Answer::Seen(Register::default()))));
            }
            now = now + SECOND / 10;
        }
        assert!(!words(&mut agent).iter().any(|word| matches!(word, Word::Granted { .. })));
        let asked = std::iter::from_fn(|| {
            now = now + SECOND / 10;
            Some(agent.request(now))
        });
        assert_eq!(asked.take(40).flatten().next(), Some(Request::Lease { seconds: 3 }));
    }
}

#[test]
fn an_answer_to_another_request_is_none() {
    let mut agent = agent();
    agent.answer(at(0), Some((header(1), Answer::Written)));
    assert_eq!(words(&mut agent), []);
    assert_eq!(agent.request(at(0)), Some(Request::Look));
    agent.answer(at(0), Some((header(1), Answer::Written)));
    assert_eq!(words(&mut agent), [Word::Present, Word::Lost]);
}

#[test]
fn the_vote_is_another_one_for_other_nodes() {
    let of = |nodes: &[&str]| arbiter_voter("edge", nodes.iter().copied());
    assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
    assert_ne!(of(&["a", "b"]), of(&["a", "b", "c"]));
    assert_ne!(of(&["a", "b"]), arbiter_voter("core", ["a", "b"].into_iter()));
    assert!(of(&["a"]).starts_with("@etcd.") && of(&["a"]).len() == 14);
}
