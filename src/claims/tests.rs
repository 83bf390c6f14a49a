use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use tempfile::TempDir;
use tokio::time::sleep;

use super::schedule::{Answer, Schedule};
use super::*;
use crate::process::tests::{lives, until, write_program};
use crate::process::{NotStarted, Outcome};

const MINUTE: Duration = Duration::from_secs(60);

fn schedule() -> (Schedule, Instant) {
    let now = Instant::now();
    let mut schedule = Schedule::new(MINUTE, 3);
    assert!(schedule.next().is_none(), "nothing is asked before this node is master");
    schedule.begin(now);
    assert_eq!(schedule.next(), Some((Verb::Assert, now)));
    (schedule, now)
}

#[test]
fn exit_codes_mean_what_the_contract_says() {
    let of = |code| Answer::of(&Outcome::Exit(code));
    assert_eq!([of(0), of(3), of(4)], [Answer::Mine, Answer::NotMine, Answer::Unknown]);
    assert_eq!([of(75), of(78), of(1)], [Answer::Again, Answer::GiveUp, Answer::Again]);
    assert_eq!(Answer::of(&Outcome::TimedOut), Answer::Again);
    assert_eq!(Answer::of(&Outcome::Signal(9)), Answer::Again);
    assert_eq!(Answer::of(&Outcome::NotStarted(NotStarted::Missing)), Answer::GiveUp);
}

#[test]
fn what_is_held_is_verified_every_while() {
    let (mut s, now) = schedule();
    s.ended(Verb::Assert, Answer::Mine, now, 0.0);
    assert_eq!((s.held, s.next()), (Held::Yes, Some((Verb::Verify, now + MINUTE))));
    s.ended(Verb::Verify, Answer::Mine, now, 0.5);
    assert_eq!(s.next(), Some((Verb::Verify, now + Duration::from_secs(57))));
}

#[test]
fn what_was_lost_is_asserted_at_once() {
    let (mut s, now) = schedule();
    s.ended(Verb::Assert, Answer::Mine, now, 0.0);
    s.ended(Verb::Verify, Answer::NotMine, now, 0.0);
    assert_eq!((s.held, s.next()), (Held::No, Some((Verb::Assert, now))));
}

#[test]
fn an_unknown_is_never_a_loss() {
    let (mut s, now) = schedule();
    s.ended(Verb::Assert, Answer::Mine, now, 0.0);
    for _ in 0..20 {
        s.ended(Verb::Verify, Answer::Unknown, now, 1.0);
        assert_eq!(s.held, Held::Unknown);
        assert_eq!(s.next().map(|(verb, _)| verb), Some(Verb::Verify));
    }
    s.ended(Verb::Verify, Answer::Mine, now, 0.0);
    assert_eq!((s.held, s.failures), (Held::Yes, 0));
}

#[test]
fn failures_wait_longer_each_time_and_then_at_the_pace_of_verify() {
    let (mut s, now) = schedule();
    let mut wait = |chance| {
        s.ended(Verb::Assert, Answer::Again, now, chance);
        let (verb, at) = s.next().unwrap();
        assert_eq!(verb, Verb::Assert);
        at - now
    };
    let seconds = Duration::from_secs_f64;
    assert_eq!([wait(1.0), wait(0.0), wait(1.0)], [seconds(1.0), seconds(1.0), seconds(4.0)]);
    assert_eq!(wait(0.0), MINUTE, "three quick tries");
    for _ in 0..100 {
        assert_eq!(wait(1.0), MINUTE);
    }
}

#[test]
fn giving_up_lasts_until_the_next_beginning() {
    let (mut s, now) = schedule();
    s.ended(Verb::Assert, Answer::GiveUp, now, 0.0);
    assert_eq!((s.given_up, s.next()), (true, None));
    s.begin(now);
    assert_eq!((s.given_up, s.next()), (false, Some((Verb::Assert, now))));
    s.end();
    assert_eq!((s.held, s.next()), (Held::Unknown, None));
}

/// A directory with a claim's program and what it wrote.
struct Lab(TempDir);

impl Lab {
    fn new() -> Lab {
        Lab(tempfile::tempdir().unwrap())
    }

    fn claim(&self, body: &str) -> Claim {
        let path = self.0.path().join("claim");
        let text = format!("#!/bin/sh\nLAB={}\n{body}\n", self.0.path().display());
        write_program(&path, &text, 0o755);
        Claim {
            run: vec![path.to_str().unwrap().to_owned(), "own".to_owned()],
            verify_every: Duration::from_millis(200),
            timeout: Duration::from_secs(20),
            retries: 3,
            release: false,
            user: None,
        }
    }

    fn spawn(&self, claims: Vec<Claim>) -> Claims {
        Claims::spawn(context(), claims, Marker::beside(&self.0.path().join("wgha.sock")))
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn context() -> HookContext {
    HookContext {
        cluster: "edge".into(),
        node: "gw1".into(),
        priority: 150,
        floating_ips: vec!["203.0.113.10".into()],
        interfaces: vec!["wg0".into()],
    }
}

fn master(term: Term) -> Mastership {
    Mastership { term, reason: "gw2 is silent".into() }
}

#[tokio::test]
async fn a_claim_gets_its_verb_last_and_the_variables_of_the_contract() {
    let lab = Lab::new();
    let claim = lab.claim(
        "[ $WGHA_VERB = assert ] || exit 0
         echo \"$*\" >$LAB/args; cat $WGHA_TERM_FILE >$LAB/term; env | grep ^WGHA_ | sort >$LAB/env",
    );
    let claims = lab.spawn(vec![claim]);
    claims.mark(7, Some("gw1"));
    claims.assert(master(7));
    until("held", || claims.views()[0].held == Held::Yes).await;
    assert_eq!(lab.lines("args"), ["own assert"]);
    assert_eq!(lab.lines("term"), ["7 gw1"]);
    let file = format!("WGHA_TERM_FILE={}", lab.path("wgha.term").display());
    let expected = [
        "WGHA_CLUSTER=edge",
        "WGHA_DEADLINE_S=20",
        "WGHA_FLOATING_IPS=203.0.113.10",
        "WGHA_INTERFACES=wg0",
        "WGHA_MASTER=gw1",
        "WGHA_NODE=gw1",
        "WGHA_REASON=gw2 is silent",
        "WGHA_ROLE=master",
        "WGHA_TERM=7",
        &file,
        "WGHA_VERB=assert",
    ];
    assert_eq!(lab.lines("env"), expected);
    assert!(claims.took(7).is_some() && claims.took(6).is_none());
}

#[tokio::test]
async fn what_is_lost_comes_back_and_status_shows_it() {
    let lab = Lab::new();
    let claim = lab.claim(
        "case $WGHA_VERB in
         assert) touch $LAB/mine; echo assert >>$LAB/log; echo got it;;
         verify) [ -e $LAB/mine ] || { echo gw2 has it; exit 3; };;
         esac",
    );
    let claims = lab.spawn(vec![claim]);
    claims.assert(master(1));
    until("held", || claims.views()[0].held == Held::Yes).await;
    assert_eq!(claims.status()[0].detail, "got it");
    fs::remove_file(lab.path("mine")).unwrap();
    assert_eq!((claims.take_arrived(), claims.take_arrived()), (Some(1), None));
    until("asserted again", || lab.lines("log").len() == 2).await;
    until("held again", || claims.status()[0].held).await;
    assert_eq!(claims.take_arrived(), Some(1));
    assert!(claims.status()[0].checked_at.is_some());
}

#[tokio::test]
async fn clients_are_called_when_it_may_have_led_elsewhere_and_not_otherwise() {
    let lab = Lab::new();
    let mut claims = lab.spawn(vec![lab.claim("echo $WGHA_VERB >>$LAB/log")]);
    let asserted = |times| lab.lines("log").iter().filter(|l| *l == "assert").count() == times;
    claims.assert(master(4));
    until("asserted", || asserted(1) && claims.take_arrived() == Some(4)).await;
    claims.reconfigure(context(), claims.claims.clone());
    until("verified after a reload", || {
        asserted(2) && lab.lines("log").last().is_some_and(|l| l == "verify")
    })
    .await;
    assert_eq!(claims.take_arrived(), None, "nothing says that it was elsewhere");
    claims.assert_again();
    until("asserted again", || asserted(3) && claims.take_arrived() == Some(4)).await;
}

#[tokio::test]
async fn a_newer_role_ends_what_runs_with_its_children() {
    let lab = Lab::new();
    let claim = lab.claim("sleep 300 & echo $! >>$LAB/pid; wait");
    let claims = lab.spawn(vec![claim]);
    claims.assert(master(1));
    until("started", || lab.lines("pid").len() == 1).await;
    claims.leave();
    let pid = lab.lines("pid").remove(0);
    until("its child is gone", || !lives(&pid)).await;
    assert_eq!(claims.views()[0].held, Held::Unknown);
    claims.assert(master(3));
    until("started anew", || lab.lines("pid").len() == 2).await;
}

#[tokio::test]
async fn a_slow_claim_delays_no_other() {
    let lab = Lab::new();
    let slow = lab.claim("[ $1 = slow ] && sleep 300; exit 0");
    let quick = slow.clone();
    let slow = Claim { run: vec![slow.run[0].clone(), "slow".into()], ..slow };
    let claims = lab.spawn(vec![slow, quick]);
    claims.assert(master(1));
    until("the second is held", || claims.views()[1].held == Held::Yes).await;
    assert_eq!(claims.views()[0].held, Held::Unknown);
    assert!(claims.took(1).is_none(), "not all are there");
}

#[tokio::test]
async fn a_permanent_error_is_not_tried_again() {
    let lab = Lab::new();
    let claim = lab.claim("echo x >>$LAB/log; echo no credentials >&2; exit 78");
    let claims = lab.spawn(vec![claim]);
    claims.assert(master(1));
    until("given up", || claims.views()[0].given_up).await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(lab.lines("log").len(), 1);
    assert_eq!(claims.status()[0].detail, "no credentials");
    claims.assert_again();
    until("asked again", || lab.lines("log").len() == 2).await;
}

#[tokio::test]
async fn a_backup_asks_nobody_and_release_is_opt_in() {
    let lab = Lab::new();
    // A release is not refused because another is master: that is why it runs.
    let keeps = lab.claim(
        "echo $2 $WGHA_VERB >>$LAB/log
         [ $WGHA_VERB != release ] || [ -z \"$WGHA_TERM_FILE\" ] || echo checked >>$LAB/log",
    );
    let mut gives = keeps.clone();
    gives.run.insert(1, "gives".into());
    gives.release = true;
    let claims = lab.spawn(vec![keeps, gives]);
    claims.assert_again();
    claims.leave();
    sleep(Duration::from_millis(300)).await;
    assert!(lab.lines("log").is_empty());
    claims.assert(master(2));
    until("held", || claims.took(2).is_some()).await;
    claims.leave();
    let released = |lab: &Lab| lab.lines("log").iter().filter(|l| l.ends_with("release")).count();
    until("released", || released(&lab) == 1).await;
    let count = lab.lines("log").len();
    sleep(Duration::from_millis(600)).await;
    assert_eq!(lab.lines("log").len(), count, "a backup asks nobody");
    claims.assert(master(4));
    until("held", || claims.took(4).is_some()).await;
    claims.mark(4, Some("gw1"));
    claims.stop().await;
    assert_eq!(released(&lab), 2);
    assert!(!lab.lines("log").contains(&"checked".to_owned()));
    assert!(!lab.path("wgha.term").exists(), "who still runs is not to act");
}

#[tokio::test]
async fn other_claims_begin_anew() {
    let lab = Lab::new();
    let first = lab.claim("echo $1 >>$LAB/log");
    let mut second = first.clone();
    second.run[1] = "other".into();
    let mut claims = lab.spawn(vec![first]);
    claims.assert(master(1));
    until("held", || claims.took(1).is_some()).await;
    claims.reconfigure(context(), vec![second]);
    until("the other is held", || {
        claims.views()[0].held == Held::Yes && lab.lines("log").contains(&"other".to_owned())
    })
    .await;
}
