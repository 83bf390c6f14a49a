use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::process::NotStarted;
use crate::process::tests::{gone, lives, write_program};

const LONG: Duration = Duration::from_secs(60);

/// A directory with hook scripts and what they wrote.
struct Lab(TempDir);

impl Lab {
    fn new() -> Lab {
        Lab(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A bash script that runs for every state; `$LAB` is the directory.
    fn hook(&self, name: &str, body: &str, timeout: Duration) -> Hook {
        let path = self.path(name);
        let text = format!("#!/bin/bash\nLAB={}\n{body}\n", self.0.path().display());
        write_program(&path, &text, 0o755);
        hook(&path, timeout)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn wait_for_lines(&self, name: &str, count: usize) -> Vec<String> {
        for _ in 0..6_000 {
            let lines = self.lines(name);
            if lines.len() >= count {
                return lines;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} has {:?}, not {count} lines", self.lines(name));
    }
}

fn hook(path: &Path, timeout: Duration) -> Hook {
    let on = vec![HookState::Master, HookState::Backup, HookState::Fault, HookState::Stop];
    Hook { on, run: vec![path.to_str().unwrap().to_owned()], timeout, user: None }
}

fn context() -> HookContext {
    HookContext {
        cluster: "edge".into(),
        node: "gw1".into(),
        priority: 150,
        floating_ips: vec!["203.0.113.10/32".into(), "2001:db8::10/128".into()],
        interfaces: vec!["wg0".into(), "wg1".into()],
    }
}

fn level(state: HookState, term: Term) -> HookLevel {
    let reason = "master gw2 is silent".to_owned();
    HookLevel { state, old_role: Role::Backup, term, reason, master: Some("gw1".into()) }
}

async fn done(runner: &HookRunner, state: HookState, term: Term) -> LevelDone {
    let mut done = runner.done();
    let found = done.wait_for(|d| d.as_ref().is_some_and(|d| d.state == state && d.term == term));
    found.await.unwrap().clone().unwrap()
}

#[tokio::test]
async fn a_hook_gets_keepalived_arguments_and_our_variables() {
    let lab = Lab::new();
    let body = r#"printf '%s\n' "$*" >$LAB/args; env | grep ^WGHA_ | sort >$LAB/env"#;
    let mut hook = lab.hook("hook", body, Duration::from_millis(30_500));
    hook.run.push("own arg".into());
    let runner = HookRunner::spawn(context(), vec![hook]);
    runner.set(level(HookState::Master, 7));
    assert!(done(&runner, HookState::Master, 7).await.ok);
    assert_eq!(lab.lines("args"), ["own arg INSTANCE edge MASTER 150"]);
    let expected = [
        "WGHA_CLUSTER=edge",
        "WGHA_DEADLINE_S=30",
        "WGHA_FLOATING_IPS=203.0.113.10/32 2001:db8::10/128",
        "WGHA_INTERFACES=wg0 wg1",
        "WGHA_MASTER=gw1",
        "WGHA_NODE=gw1",
        "WGHA_OLD_ROLE=backup",
        "WGHA_REASON=master gw2 is silent",
        "WGHA_ROLE=master",
        "WGHA_TERM=7",
    ];
    assert_eq!(lab.lines("env"), expected);
}

#[tokio::test]
async fn hooks_run_one_after_the_other_and_only_for_their_states() {
    let lab = Lab::new();
    let body = |n: u8| format!("echo {n} in >>$LAB/log; sleep 0.05; echo {n} out >>$LAB/log");
    let mut hooks: Vec<Hook> =
        (1..=3).map(|n| lab.hook(&format!("h{n}"), &body(n), LONG)).collect();
    hooks[1].on = vec![HookState::Fault];
    let runner = HookRunner::spawn(context(), hooks);
    runner.set(level(HookState::Backup, 1));
    done(&runner, HookState::Backup, 1).await;
    assert_eq!(lab.lines("log"), ["1 in", "1 out", "3 in", "3 out"]);
    assert_eq!(runner.results().len(), 2);
}

#[tokio::test]
async fn every_way_to_fail_is_named_and_the_next_hook_still_runs() {
    let lab = Lab::new();
    let plain = lab.hook("plain", "true", LONG);
    fs::set_permissions(lab.path("plain"), fs::Permissions::from_mode(0o644)).unwrap();
    let hooks = vec![
        plain,
        hook(&lab.path("missing"), LONG),
        lab.hook("failing", "exit 3", LONG),
        lab.hook("dying", "kill -KILL $$", LONG),
        lab.hook("hanging", "sleep 300", Duration::from_millis(100)),
        lab.hook("good", "true", LONG),
    ];
    let runner = HookRunner::spawn(context(), hooks);
    runner.set(level(HookState::Master, 1));
    assert!(!done(&runner, HookState::Master, 1).await.ok);
    let outcomes: Vec<_> = runner.results().into_iter().map(|r| r.outcome.unwrap()).collect();
    let expected = [
        Outcome::NotStarted(NotStarted::NotExecutable),
        Outcome::NotStarted(NotStarted::Missing),
        Outcome::Exit(3),
        Outcome::Signal(9),
        Outcome::TimedOut,
        Outcome::Exit(0),
    ];
    assert_eq!(outcomes, expected);
}

#[tokio::test]
async fn results_are_those_of_the_contract() {
    let lab = Lab::new();
    let hooks = vec![
        lab.hook("failing", "exit 3", LONG),
        lab.hook("hanging", "sleep 300", Duration::from_millis(100)),
    ];
    let runner = HookRunner::spawn(context(), hooks);
    runner.set(level(HookState::Fault, 1));
    done(&runner, HookState::Fault, 1).await;
    let status: Vec<crate::status::Hook> = runner.results().iter().map(Into::into).collect();
    assert_eq!((status[0].on.as_str(), status[0].exit), ("fault", Some(3)));
    assert_eq!((status[1].outcome.as_str(), status[1].exit), ("timed out", None));
    // Of its timeout, not of its sleep.
    assert!((100..LONG.as_millis() as u64).contains(&status[1].duration_ms));
    let at = humantime::parse_rfc3339(&status[1].at).unwrap();
    assert!(at.elapsed().unwrap() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_newer_role_cancels_an_older_hook_with_its_children() {
    let lab = Lab::new();
    let body = "if [ $WGHA_ROLE = master ]; then sleep 300 & echo $! >>$LAB/pid; wait; fi
                echo $WGHA_ROLE $WGHA_TERM >>$LAB/log";
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", body, LONG)]);
    runner.set(level(HookState::Master, 1));
    let pid = lab.wait_for_lines("pid", 1).await.remove(0);
    assert!(lives(&pid));
    assert_eq!(runner.results()[0].outcome, None, "it runs");
    let begun = Instant::now();
    runner.set(level(HookState::Backup, 1));
    done(&runner, HookState::Backup, 1).await;
    assert!(begun.elapsed() < LONG / 2, "cancelled, not timed out");
    assert_eq!(lab.lines("log"), ["backup 1"]);
    assert!(gone(&pid).await);
}

#[tokio::test]
async fn a_new_term_of_the_master_is_a_new_level() {
    let lab = Lab::new();
    let body = "[ $WGHA_TERM = 1 ] && exec sleep 300; echo $WGHA_TERM >>$LAB/log";
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", body, LONG)]);
    runner.set(level(HookState::Master, 1));
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    runner.set(level(HookState::Master, 2));
    done(&runner, HookState::Master, 2).await;
    assert!(begun.elapsed() < LONG / 2, "cancelled, not timed out");
    assert_eq!(lab.lines("log"), ["2"]);
}

#[tokio::test]
async fn the_same_level_again_runs_nothing() {
    let lab = Lab::new();
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", "echo x >>$LAB/log", LONG)]);
    runner.set(level(HookState::Backup, 1));
    done(&runner, HookState::Backup, 1).await;
    runner.set(level(HookState::Backup, 1));
    // Others elected each other: nothing that a backup's hook would care about.
    runner.set(level(HookState::Backup, 9));
    runner.set(level(HookState::Master, 10));
    done(&runner, HookState::Master, 10).await;
    assert_eq!(lab.lines("log").len(), 2);
}

/// The only hook that runs to its end is that of the last role: those in between would take too long, and are cancelled.
#[tokio::test]
async fn a_hundred_flaps_end_with_the_hook_of_the_last_role() {
    let lab = Lab::new();
    let body = "echo start $WGHA_ROLE $WGHA_TERM >>$LAB/log
                [ $WGHA_ROLE$WGHA_TERM = backup50 ] || sleep 300
                echo end $WGHA_ROLE $WGHA_TERM >>$LAB/log";
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", body, LONG)]);
    for term in 1..=50 {
        runner.set(level(HookState::Master, term));
        sleep(Duration::from_millis(term % 4)).await;
        runner.set(level(HookState::Backup, term));
    }
    done(&runner, HookState::Backup, 50).await;
    sleep(Duration::from_millis(300)).await;
    let log = lab.lines("log");
    let last_two: Vec<&str> = log.iter().rev().take(2).map(String::as_str).collect();
    assert_eq!(last_two, ["end backup 50", "start backup 50"], "{log:?}");
    let ended = log.iter().filter(|line| line.starts_with("end")).count();
    assert_eq!(ended, 1, "one was not cancelled: {log:?}");
}

#[tokio::test]
async fn a_storm_without_pause_runs_the_latest_alone() {
    let lab = Lab::new();
    let body = "echo $WGHA_ROLE $WGHA_TERM >>$LAB/log; sleep 0.2";
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", body, LONG)]);
    runner.set(level(HookState::Fault, 0));
    lab.wait_for_lines("log", 1).await;
    for term in 1..=100 {
        runner.set(level(HookState::Backup, term));
        runner.set(level(HookState::Master, term));
    }
    done(&runner, HookState::Master, 100).await;
    assert_eq!(lab.lines("log"), ["fault 0", "master 100"]);
}

#[tokio::test]
async fn stop_cancels_what_runs_and_waits_for_the_stop_hooks() {
    let lab = Lab::new();
    let body = "[ $WGHA_ROLE = stop ] || exec sleep 300; sleep 0.3; echo $3 >>$LAB/log";
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", body, LONG)]);
    runner.set(level(HookState::Master, 1));
    sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    runner.stop(level(HookState::Backup, 1)).await;
    assert_eq!(lab.lines("log"), ["STOP"]);
    assert!(started.elapsed() < LONG, "cancelled, not timed out");
}

#[tokio::test]
async fn a_stop_hook_that_hangs_ends_by_its_timeout() {
    let lab = Lab::new();
    let body = "trap '' TERM; while :; do sleep 300; done";
    let hook = lab.hook("hook", body, Duration::from_millis(200));
    let runner = HookRunner::spawn(context(), vec![hook]);
    let started = Instant::now();
    runner.stop(level(HookState::Stop, 1)).await;
    assert!(started.elapsed() < LONG, "by the timeout of another");
}

#[tokio::test]
async fn nothing_runs_after_the_runner_is_dropped() {
    let lab = Lab::new();
    let body = "sleep 300 & echo $! >>$LAB/pid; wait";
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", body, LONG)]);
    runner.set(level(HookState::Master, 1));
    let pid = lab.wait_for_lines("pid", 1).await.remove(0);
    drop(runner);
    assert!(gone(&pid).await, "the hook's child {pid} is still there");
}

#[tokio::test]
async fn reconfigured_hooks_count_from_the_next_level_on() {
    let lab = Lab::new();
    let old = lab.hook("old", "echo old >>$LAB/log; sleep 0.2; echo old end >>$LAB/log", LONG);
    let new = lab.hook("new", "echo new $2 >>$LAB/log", LONG);
    let runner = HookRunner::spawn(context(), vec![old]);
    runner.set(level(HookState::Backup, 1));
    lab.wait_for_lines("log", 1).await;
    runner.reconfigure(HookContext { cluster: "other".into(), ..context() }, vec![new]);
    done(&runner, HookState::Backup, 1).await;
    runner.set(level(HookState::Master, 2));
    done(&runner, HookState::Master, 2).await;
    assert_eq!(lab.lines("log"), ["old", "old end", "new other"]);
}

#[tokio::test]
async fn a_hook_that_prints_megabytes_costs_no_memory_and_no_time() {
    let lab = Lab::new();
    let body = "yes a line of output | head -c 50000000; echo done >>$LAB/log";
    let runner = HookRunner::spawn(context(), vec![lab.hook("hook", body, LONG)]);
    runner.set(level(HookState::Backup, 1));
    assert!(done(&runner, HookState::Backup, 1).await.ok);
    assert_eq!(lab.lines("log"), ["done"]);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn output_is_logged_line_by_line_and_bounded() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let lab = Lab::new();
    let hook = lab.hook("hook", "echo to out; echo to err >&2; yes | head -n 500", LONG);
    let runner = HookRunner::spawn(context(), vec![hook]);
    runner.set(level(HookState::Backup, 1));
    done(&runner, HookState::Backup, 1).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("INFO hook: to out"), "{}", lines[0]);
    assert!(lines[1].contains("INFO hook: to err"), "{}", lines[1]);
    assert!(lines[1].contains(r#"on="backup""#), "{}", lines[1]);
    assert_eq!(lines.iter().filter(|l| l.contains("hook: y ")).count(), 198);
    assert!(text.contains("dropped=302"), "{text}");
}

#[tokio::test]
async fn the_example_hook_knows_every_state() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/examples/notify.sh");
    let runner = HookRunner::spawn(context(), vec![hook(&path, LONG)]);
    for state in [HookState::Master, HookState::Backup, HookState::Fault] {
        runner.set(level(state, 1));
        assert!(done(&runner, state, 1).await.ok, "{state:?}");
    }
    let stopped = runner.done();
    runner.stop(level(HookState::Stop, 1)).await;
    assert!(stopped.borrow().as_ref().is_some_and(|d| d.ok && d.state == HookState::Stop));
}
