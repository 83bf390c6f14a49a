//! The reconciler with effects that record what was asked of them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::oneshot;
use wgha_proto::{Doubt, Reason};

use super::*;
use crate::setup::Setup;

type Log = Arc<Mutex<Vec<String>>>;

struct Fake {
    log: Log,
    enter: Vec<Result<Phases, String>>,
    keep: Vec<Result<(), String>>,
    leave: Vec<Result<(), String>>,
    rest: Vec<Result<Ability, String>>,
    slow: Duration,
    found: Result<(), Doubt>,
}

impl Fake {
    fn new() -> (Fake, Log) {
        let log = Log::default();
        let fake = Fake {
            log: Arc::clone(&log),
            enter: vec![],
            keep: vec![],
            leave: vec![],
            rest: vec![],
            slow: Duration::ZERO,
            found: Ok(()),
        };
        (fake, log)
    }

    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }
}

#[async_trait]
impl Effects for Fake {
    async fn enter(&mut self, term: Term, _: &Wanted) -> Result<Phases, String> {
        self.note(format!("enter {term}"));
        tokio::time::sleep(self.slow).await;
        if self.enter.is_empty() { Ok(Phases::default()) } else { self.enter.remove(0) }
    }

    async fn keep(&mut self, term: Term) -> Result<(), String> {
        self.note(format!("keep {term}"));
        if self.keep.is_empty() { Ok(()) } else { self.keep.remove(0) }
    }

    async fn leave(&mut self) -> Result<(), String> {
        self.note("leave");
        if self.leave.is_empty() { Ok(()) } else { self.leave.remove(0) }
    }

    async fn rest(&mut self) -> Result<Ability, String> {
        self.note("rest");
        if self.rest.is_empty() { Ok(Ability::Ready) } else { self.rest.remove(0) }
    }

    async fn examine(&mut self, from: &str) -> Result<(), Doubt> {
        self.note(format!("examine for {from}"));
        tokio::time::sleep(self.slow).await;
        self.found
    }

    async fn flush(&mut self, to: &str) {
        self.note(format!("flush to {to}"));
        tokio::time::sleep(self.slow).await;
    }

    async fn reassert(&mut self) {
        self.note("reassert");
    }

    async fn kick(&mut self, term: Term) {
        self.note(format!("kick {term}"));
    }

    async fn reconfigure(&mut self, _: Arc<Setup>) {
        self.note("reconfigure");
    }

    async fn finish(&mut self, _: Duration) {
        self.note("finish");
    }

    async fn changed(&mut self) {
        std::future::pending().await
    }
}

struct Rig {
    level: watch::Sender<RoleLevel>,
    orders: mpsc::Sender<Order>,
    notices: mpsc::Receiver<Notice>,
    reports: mpsc::Receiver<Input>,
}

fn level(role: Role, term: Term) -> RoleLevel {
    RoleLevel { role, term, reason: Reason::NoMaster, master: None, errand: None }
}

fn start(fake: Fake, first: RoleLevel) -> Rig {
    let (level, level_rx) = watch::channel(first);
    let (orders, orders_rx) = mpsc::channel(4);
    let (notices_tx, notices) = mpsc::channel(64);
    let (reports_tx, reports) = mpsc::channel(64);
    tokio::spawn(Gateway::new(fake, level_rx, orders_rx, notices_tx, reports_tx).run());
    Rig { level, orders, notices, reports }
}

impl Rig {
    async fn report(&mut self) -> Report {
        loop {
            match self.notices.recv().await.unwrap() {
                Notice::Report(report) => return report,
                Notice::Entered(..) | Notice::Handshakes(..) | Notice::Restarted(..) => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rests_enters_keeps_and_leaves() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Init, 0));
    assert_eq!(rig.report().await, Report::Ability(Ability::Ready));
    rig.level.send(level(Role::Master, 3)).unwrap();
    assert_eq!(rig.report().await, Report::Entered(3));
    tokio::time::sleep(CHECK_EVERY * 2).await;
    rig.level.send(level(Role::Backup, 4)).unwrap();
    assert_eq!(rig.report().await, Report::Left(3));
    let log = log.lock().unwrap().clone();
    assert_eq!(&log[..3], ["rest", "enter 3", "keep 3"]);
    assert!(log.contains(&"leave".to_owned()), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn another_term_is_never_collapsed_into_the_last() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Master, 5));
    assert_eq!(rig.report().await, Report::Entered(5));
    // The level goes through backup faster than the reconciler looks.
    rig.level.send(level(Role::Backup, 6)).unwrap();
    rig.level.send(level(Role::Master, 7)).unwrap();
    assert_eq!(rig.report().await, Report::Left(5));
    assert_eq!(rig.report().await, Report::Entered(7));
    assert_eq!(log.lock().unwrap().clone(), ["enter 5", "leave", "enter 7"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_entry_is_undone_and_not_tried_again_in_the_same_term() {
    let (mut fake, log) = Fake::new();
    fake.enter = vec![Err("port taken".into())];
    let mut rig = start(fake, level(Role::Master, 2));
    assert_eq!(rig.report().await, Report::Failed(2, "port taken".into()));
    assert_eq!(rig.report().await, Report::Left(2));
    tokio::time::sleep(CHECK_EVERY * 3).await;
    assert_eq!(log.lock().unwrap().clone(), ["enter 2", "leave"]);
    rig.level.send(level(Role::Fault, 2)).unwrap();
    assert_eq!(rig.report().await, Report::Ability(Ability::Ready));
    rig.level.send(level(Role::Master, 4)).unwrap();
    assert_eq!(rig.report().await, Report::Entered(4));
}

#[tokio::test(start_paused = true)]
async fn a_role_lost_while_entering_is_left_and_is_no_failure() {
    let (mut fake, _) = Fake::new();
    fake.enter = vec![Err("gave up".into())];
    fake.slow = Duration::from_millis(50);
    let mut rig = start(fake, level(Role::Master, 2));
    tokio::time::sleep(Duration::from_millis(10)).await;
    rig.level.send(level(Role::Backup, 3)).unwrap();
    assert_eq!(rig.report().await, Report::Left(2));
}

#[tokio::test(start_paused = true)]
async fn a_master_that_cannot_put_things_back_fails_after_a_few_tries() {
    let (mut fake, log) = Fake::new();
    fake.keep = vec![Err("gone".into()), Ok(()), Err("gone".into()), Err("gone".into())];
    fake.keep.push(Err("interface eth0 is gone".into()));
    let mut rig = start(fake, level(Role::Master, 9));
    assert_eq!(rig.report().await, Report::Entered(9));
    assert_eq!(rig.report().await, Report::Failed(9, "interface eth0 is gone".into()));
    assert_eq!(rig.report().await, Report::Left(9));
    assert_eq!(log.lock().unwrap().iter().filter(|l| *l == "keep 9").count(), 5);
}

#[tokio::test(start_paused = true)]
async fn left_is_said_only_when_leaving_worked() {
    let (mut fake, log) = Fake::new();
    fake.leave = vec![Err("busy".into()), Err("busy".into())];
    let mut rig = start(fake, level(Role::Master, 1));
    assert_eq!(rig.report().await, Report::Entered(1));
    rig.level.send(level(Role::Backup, 1)).unwrap();
    assert_eq!(rig.report().await, Report::Failed(1, "busy".into()));
    assert_eq!(rig.report().await, Report::Left(1));
    assert_eq!(log.lock().unwrap().iter().filter(|l| *l == "leave").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn finish_leaves_first() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Master, 1));
    assert_eq!(rig.report().await, Report::Entered(1));
    let (done, wait) = oneshot::channel();
    rig.orders.send(Order::Finish(done)).await.unwrap();
    wait.await.unwrap();
    assert_eq!(rig.report().await, Report::Left(1));
    assert_eq!(log.lock().unwrap().clone(), ["enter 1", "leave", "finish"]);
}

#[tokio::test(start_paused = true)]
async fn orders_reach_the_effects() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Master, 1));
    assert_eq!(rig.report().await, Report::Entered(1));
    rig.orders.send(Order::Reassert).await.unwrap();
    tokio::time::sleep(SETTLE).await;
    assert!(log.lock().unwrap().contains(&"reassert".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn only_the_master_of_the_term_kicks() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Master, 2));
    rig.orders.send(Order::Kick(2)).await.unwrap();
    assert_eq!(rig.report().await, Report::Entered(2));
    rig.orders.send(Order::Kick(1)).await.unwrap();
    tokio::time::sleep(SETTLE).await;
    rig.level.send(level(Role::Backup, 2)).unwrap();
    rig.orders.send(Order::Kick(2)).await.unwrap();
    assert_eq!(rig.report().await, Report::Left(2));
    let kicks = |log: &Log| -> Vec<String> {
        log.lock().unwrap().iter().filter(|what| what.starts_with("kick")).cloned().collect()
    };
    assert_eq!(kicks(&log), ["kick 2"]);
}

/// The protocol's thread ends just before the process does; the last order must still be answered.
#[tokio::test(start_paused = true)]
async fn finish_is_answered_after_the_protocol_ended() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Master, 1));
    assert_eq!(rig.report().await, Report::Entered(1));
    rig.level = watch::channel(level(Role::Master, 1)).0;
    assert_eq!(rig.report().await, Report::Left(1));
    tokio::time::sleep(CHECK_EVERY).await;
    let (done, wait) = oneshot::channel();
    rig.orders.send(Order::Finish(done)).await.unwrap();
    wait.await.expect("Finish is answered");
    assert_eq!(log.lock().unwrap().clone(), ["enter 1", "leave", "finish"]);
}

#[tokio::test(start_paused = true)]
async fn master_for_a_moment_that_nobody_saw() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Init, 0));
    assert_eq!(rig.report().await, Report::Ability(Ability::Ready));
    // A watch keeps the last level only.
    rig.level.send(level(Role::Master, 3)).unwrap();
    rig.level.send(level(Role::Backup, 4)).unwrap();
    assert_eq!(rig.report().await, Report::Left(4), "or the node would wait for it for ever");
    assert!(!log.lock().unwrap().iter().any(|what| what.starts_with("enter")));
}

#[tokio::test(start_paused = true)]
async fn left_is_not_said_while_something_stands() {
    let (mut fake, _) = Fake::new();
    fake.rest = vec![Ok(Ability::Unable("staging failed".into())), Err("wg0 is up".into())];
    let mut rig = start(fake, level(Role::Init, 0));
    assert_eq!(rig.report().await, Report::Ability(Ability::Unable("staging failed".into())));
    rig.level.send(level(Role::Backup, 4)).unwrap();
    assert_eq!(rig.report().await, Report::Ability(Ability::Unable("wg0 is up".into())));
    assert_eq!(rig.report().await, Report::Left(4), "it could be taken off at the next look");
}

#[tokio::test(start_paused = true)]
async fn left_is_said_by_a_gateway_that_cannot_stage() {
    let (mut fake, _) = Fake::new();
    let unable = || Ability::Unable("eth0 is gone".into());
    fake.rest = vec![Ok(unable()), Ok(unable())];
    let mut rig = start(fake, level(Role::Init, 0));
    assert_eq!(rig.report().await, Report::Ability(unable()));
    rig.level.send(level(Role::Backup, 4)).unwrap();
    assert_eq!(rig.report().await, Report::Left(4), "nothing stands: others must not wait for it");
}

fn asked(role: Role, term: Term, errand: Errand) -> RoleLevel {
    RoleLevel { errand: Some(errand), ..level(role, term) }
}

fn examine(id: u32) -> Errand {
    Errand::Examine { id, from: "gw1".into() }
}

#[tokio::test(start_paused = true)]
async fn a_standby_looks_once_and_then_waits_for_the_role_alone() {
    let (mut fake, log) = Fake::new();
    fake.found = Err(Doubt::PortTaken);
    let mut rig = start(fake, level(Role::Backup, 3));
    assert_eq!(rig.report().await, Report::Ability(Ability::Ready));
    rig.level.send(asked(Role::Backup, 3, examine(7))).unwrap();
    assert_eq!(rig.report().await, Report::Examined(7, Err(Doubt::PortTaken)));
    // Other news of the level are no other question.
    let other = RoleLevel { master: Some("gw1".into()), ..asked(Role::Backup, 3, examine(7)) };
    rig.level.send(other).unwrap();
    tokio::time::sleep(CHECK_EVERY * 3).await;
    assert_eq!(log.lock().unwrap().clone(), ["rest", "examine for gw1"]);
    rig.level.send(level(Role::Master, 4)).unwrap();
    assert_eq!(rig.report().await, Report::Entered(4));
    rig.level.send(level(Role::Backup, 5)).unwrap();
    assert_eq!(rig.report().await, Report::Left(4));
    rig.level.send(asked(Role::Backup, 5, examine(8))).unwrap();
    assert_eq!(rig.report().await, Report::Left(5), "of the new term too, by a look");
    assert_eq!(rig.report().await, Report::Ability(Ability::Ready));
    assert_eq!(rig.report().await, Report::Examined(8, Err(Doubt::PortTaken)));
}

#[tokio::test(start_paused = true)]
async fn what_stands_is_taken_off_before_a_standby_looks() {
    let (fake, log) = Fake::new();
    let mut rig = start(fake, level(Role::Init, 0));
    assert_eq!(rig.report().await, Report::Ability(Ability::Ready));
    rig.level.send(level(Role::Master, 3)).unwrap();
    rig.level.send(asked(Role::Backup, 4, examine(1))).unwrap();
    assert_eq!(rig.report().await, Report::Left(4));
    assert_eq!(rig.report().await, Report::Examined(1, Ok(())));
    assert_eq!(log.lock().unwrap().clone(), ["rest", "rest", "examine for gw1"]);
}

#[tokio::test(start_paused = true)]
async fn a_master_flushes_once_and_the_role_does_not_wait_for_it() {
    let (mut fake, log) = Fake::new();
    fake.slow = Duration::from_millis(50);
    let mut rig = start(fake, level(Role::Master, 2));
    assert_eq!(rig.report().await, Report::Entered(2));
    let flush = |id| asked(Role::Master, 2, Errand::Flush { id, to: "gw2".into() });
    rig.level.send(flush(1)).unwrap();
    assert_eq!(rig.report().await, Report::Flushed(1));
    tokio::time::sleep(CHECK_EVERY * 2).await;
    assert_eq!(log.lock().unwrap().clone(), ["enter 2", "flush to gw2"]);
    rig.level.send(flush(2)).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let asked = Instant::now();
    rig.level.send(level(Role::Backup, 2)).unwrap();
    assert_eq!(rig.report().await, Report::Left(2), "the second flush was cut short");
    assert!(asked.elapsed() < Duration::from_millis(30));
}

/// The detour over the main thread, which writes the log, would be in every handover.
#[tokio::test(start_paused = true)]
async fn the_node_hears_at_first_hand() {
    let (fake, _) = Fake::new();
    let mut rig = start(fake, level(Role::Master, 1));
    for expected in [Report::Entered(1), Report::Left(1)] {
        match rig.reports.recv().await.unwrap() {
            Input::Report(report) => assert_eq!(report, expected),
            other => panic!("{other:?}"),
        }
        rig.level.send_replace(level(Role::Backup, 2));
    }
}
