use super::*;

const INTERVAL: Duration = Duration::from_millis(200);

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn key(last: u8) -> Key {
    ("eth0".to_owned(), IpAddr::from([10, 0, 0, last]))
}

/// A judge with one source that answered its first question, asked at 1 ms.
fn settled() -> Judge {
    let mut judge = Judge::new(INTERVAL, Vec::new());
    judge.set_sources(at(1), &[key(1)]);
    assert!(judge.ask(at(1)));
    judge.answered(at(2), &key(1));
    judge
}

/// When it asks from `from` to `to`, looking each millisecond; nothing answers.
fn asks(judge: &mut Judge, from: u64, to: u64) -> Vec<u64> {
    (from..to).filter(|ms| judge.ask(at(*ms))).collect()
}

#[test]
fn what_never_answered_is_no_source() {
    let mut judge = Judge::new(INTERVAL, Vec::new());
    assert_eq!(judge.evidence(at(0), None), Evidence::NoSource);
    assert!(!judge.ask(at(0)), "there is nobody to ask");
    judge.set_sources(at(5), &[key(1)]);
    assert_eq!(asks(&mut judge, 5, 6), [5], "a new one is asked at once");
    judge.want(at(7), true);
    assert_eq!(asks(&mut judge, 7, 300).len(), 6);
    assert_eq!(judge.evidence(at(300), None), Evidence::NoSource);
    judge.answered(at(300), &key(1));
    assert!(matches!(judge.evidence(at(300), None), Evidence::Answered(_)));
}

#[test]
fn it_asks_at_once_when_evidence_is_wanted_and_then_within_the_interval() {
    let mut judge = settled();
    assert_eq!(asks(&mut judge, 2, 10_000), [] as [u64; 0], "at rest each 10 s");
    judge.want(at(10_000), true);
    assert_eq!(asks(&mut judge, 10_000, 10_120), [10_000, 10_050, 10_100]);
    assert_eq!(asks(&mut judge, 10_120, 11_000).len(), 14, "16 fast ones in all, and one slow");
    assert_eq!(asks(&mut judge, 11_000, 11_500), [11_150, 11_350], "silent: each interval");
    judge.answered(at(11_500), &key(1));
    assert_eq!(asks(&mut judge, 11_500, 12_000), [11_550]);
    judge.answered(at(12_000), &key(1));
    assert_eq!(asks(&mut judge, 12_000, 13_000), [12_550], "answered: each second");
}

#[test]
fn the_pace_and_the_patience_have_bounds() {
    for (interval, pause, patience) in [(10, 5, 20), (200, 50, 100), (10_000, 250, 1000)] {
        let mut judge = Judge::new(Duration::from_millis(interval), Vec::new());
        judge.set_sources(at(0), &[key(1)]);
        judge.want(at(0), true);
        let asked = asks(&mut judge, 0, 1000);
        assert_eq!(asked[1] - asked[0], pause, "{interval}");
        assert_eq!(judge.patience(), Duration::from_millis(patience), "{interval}");
        assert!(judge.sources[0].open.len() <= 200, "{interval}");
    }
}

#[test]
fn an_answer_counts_for_the_oldest_question_of_the_last_second() {
    let mut judge = settled();
    judge.want(at(5000), true);
    asks(&mut judge, 5000, 5110);
    judge.answered(at(5110), &key(1));
    assert_eq!(judge.evidence(at(5110), None), Evidence::Answered(at(5000)));
    judge.answered(at(5111), &key(1));
    assert_eq!(judge.evidence(at(5111), None), Evidence::Answered(at(5000)), "nothing was asked");
    judge.answered(at(5112), &key(2));
    assert_eq!(judge.evidence(at(5112), None), Evidence::Answered(at(5000)), "a stranger");
    let last = *asks(&mut judge, 5113, 9000).last().unwrap();
    judge.answered(at(9000), &key(1));
    match judge.evidence(at(9000), None) {
        Evidence::Answered(asked) => assert!(asked > at(8000) && asked <= at(last)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn silence_is_told_after_the_patience_and_ends_with_an_answer() {
    let mut judge = settled();
    judge.want(at(5000), true);
    judge.ask(at(5000));
    assert_eq!(judge.evidence(at(5099), None), Evidence::Answered(at(1)));
    assert_eq!(judge.next(at(5000)), at(5050));
    assert_eq!(judge.evidence(at(5100), None), Evidence::Silent);
    judge.answered(at(5101), &key(1));
    assert_eq!(judge.evidence(at(5101), None), Evidence::Answered(at(5000)));
}

#[test]
fn a_source_is_given_up_at_rest_alone() {
    let mut judge = settled();
    judge.want(at(5000), true);
    asks(&mut judge, 5000, 300_000);
    assert_eq!(judge.evidence(at(300_000), None), Evidence::Silent, "five minutes, and wanted");
    judge.want(at(300_000), false);
    let rest = asks(&mut judge, 300_000, 400_000);
    let given_up = |judge: &Judge, now| judge.evidence(at(now), None) == Evidence::NoSource;
    assert!(given_up(&judge, 400_000));
    assert!(rest.len() > 6, "it is still asked: {rest:?}");
    let asked = asks(&mut judge, 400_000, 410_000)[0];
    judge.answered(at(asked + 1), &key(1));
    assert!(!given_up(&judge, asked + 1), "it is back");

    let mut judge = settled();
    let mut now = 10_001;
    for miss in 1..=MISSES {
        assert_eq!(asks(&mut judge, now, now + 10_000).len(), 1);
        now += 10_000;
        assert!(!given_up(&judge, now), "after {miss}");
        assert_eq!(judge.evidence(at(now), None), Evidence::Silent);
    }
    assert_eq!(asks(&mut judge, now, now + 1).len(), 1);
    assert!(given_up(&judge, now + 1));
}

#[test]
fn a_router_that_vanished_with_the_link_is_silent_not_absent() {
    let mut judge = settled();
    judge.set_sources(at(5000), &[]);
    judge.want(at(5300), true);
    assert!(judge.ask(at(5300)));
    assert_eq!(judge.evidence(at(5500), None), Evidence::Silent);
    assert!(!judge.sources()[0].present);
    // It comes back with the link.
    judge.set_sources(at(6000), &[key(1)]);
    asks(&mut judge, 6000, 6300);
    judge.answered(at(6300), &key(1));
    assert!(matches!(judge.evidence(at(6300), None), Evidence::Answered(_)));
}

#[test]
fn another_router_takes_the_place_of_one_that_went() {
    let mut judge = settled();
    judge.set_sources(at(5000), &[key(2)]);
    assert_eq!(asks(&mut judge, 5000, 5001), [5000]);
    judge.answered(at(5001), &key(2));
    assert_eq!(judge.evidence(at(7000), None), Evidence::Answered(at(5000)), "any is enough");
    asks(&mut judge, 7000, 16_000);
    let keys: Vec<&Key> = judge.sources().iter().map(|s| &s.key).collect();
    assert_eq!(keys, [&key(2)]);
}

#[test]
fn the_number_of_sources_is_bounded() {
    let mut judge = Judge::new(INTERVAL, Vec::new());
    let many: Vec<Key> = (0..100).map(key).collect();
    judge.set_sources(at(0), &many);
    assert_eq!(judge.sources().len(), MAX_SOURCES);
}

#[test]
fn what_an_earlier_run_knew_counts_from_the_start() {
    let mut judge = Judge::new(INTERVAL, vec![key(1)]);
    assert_eq!(judge.evidence(at(0), None), Evidence::NoSource, "it may be no router any more");
    judge.set_sources(at(0), &[key(1), key(2)]);
    judge.want(at(0), true);
    judge.ask(at(0));
    assert_eq!(judge.evidence(at(200), None), Evidence::Silent);
}

#[test]
fn a_tunnel_that_receives_is_evidence_too() {
    let none = Judge::new(INTERVAL, Vec::new());
    assert_eq!(none.evidence(at(90_000), Some(at(1))), Evidence::Answered(at(1)));
    let mut judge = settled();
    assert_eq!(judge.evidence(at(500), Some(at(400))), Evidence::Answered(at(400)));
    assert_eq!(judge.evidence(at(500), Some(at(0))), Evidence::Answered(at(1)));
    judge.want(at(5000), true);
    judge.ask(at(5000));
    assert_eq!(judge.evidence(at(6000), Some(at(5500))), Evidence::Answered(at(5500)));
    assert_eq!(judge.evidence(at(60_000), Some(at(5500))), Evidence::Silent, "an old word");
}
