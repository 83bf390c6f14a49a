use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// Longer than anything takes that ends by itself, on a machine without time for it too.
const LONG: Duration = Duration::from_secs(60);

async fn shell(line: &str, limit: Duration) -> (Finished, Vec<String>) {
    let mut lines = Vec::new();
    let finished =
        run(&Job::shell_line(line, limit), pending(), |l| lines.push(l.to_owned())).await;
    (finished, lines)
}

fn script(dir: &Path, name: &str, text: &str, mode: u32) -> String {
    let path = dir.join(name);
    write_program(&path, text, mode);
    path.to_str().unwrap().to_owned()
}

/// Written by another process: a program that another test starts holds all that is open here until it runs, and one that is
/// open for writing cannot be started ("Text file busy").
pub(crate) fn write_program(path: &Path, text: &str, mode: u32) {
    use std::io::Write as _;
    let mut shell = std::process::Command::new("sh");
    let shell = shell.args(["-c", "cat >\"$0\""]).arg(path).stdin(std::process::Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Waits until it holds, for a minute at most.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

/// Whether the process runs; a zombie, which only waits for its parent, does not.
pub(crate) fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|c| c != 'Z')
}

pub(crate) async fn gone(pid: &str) -> bool {
    for _ in 0..3_000 {
        if !lives(pid) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn exit_code_and_both_outputs_in_order() {
    let (finished, lines) = shell("echo one; echo two >&2; echo three; exit 7", LONG).await;
    assert_eq!(finished.outcome, Outcome::Exit(7));
    assert_eq!(lines, ["one", "two", "three"]);
}

#[tokio::test]
async fn arguments_pass_through_no_shell() {
    let mut lines = Vec::new();
    let job = Job::new("printf", &["%s\\n".into(), "$(id) `id`; *".into()], LONG).arg("a b");
    let finished = run(&job, pending(), |l| lines.push(l.to_owned())).await;
    assert_eq!(finished.outcome, Outcome::Exit(0));
    assert_eq!(lines, ["$(id) `id`; *", "a b"]);
}

#[tokio::test]
async fn variables_are_added_and_those_of_systemd_are_not_passed_on() {
    let job = Job::shell_line("echo \"$WGHA_X|$PATH|$NOTIFY_SOCKET|$WATCHDOG_USEC\"", LONG)
        .env("WGHA_X", "a\0b");
    let mut lines = Vec::new();
    run(&job, pending(), |l| lines.push(l.to_owned())).await;
    assert_eq!(lines, [format!("a?b|{}||", std::env::var("PATH").unwrap())]);
}

#[tokio::test]
async fn missing_and_not_executable_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (dir.path().join("none").to_str().unwrap().to_owned(), NotStarted::Missing),
        (script(dir.path(), "lost", "#!/no/interpreter\n", 0o755), NotStarted::Missing),
        (script(dir.path(), "plain", "#!/bin/sh\n", 0o644), NotStarted::NotExecutable),
        (
            script(dir.path(), "no-shebang", "echo a shell ran me\n", 0o755),
            NotStarted::NotExecutable,
        ),
        (dir.path().to_str().unwrap().to_owned(), NotStarted::NotExecutable),
    ];
    for (program, why) in cases {
        let finished = run(&Job::new(&program, &[], LONG), pending(), |_| {}).await;
        assert_eq!(finished.outcome, Outcome::NotStarted(why), "{program}");
    }
}

#[tokio::test]
async fn a_signal_is_named() {
    let (finished, _) = shell("kill -SEGV $$", LONG).await;
    assert_eq!(finished.outcome, Outcome::Signal(11));
    assert_eq!(finished.outcome.to_string(), "killed by SIGSEGV");
}

#[tokio::test]
async fn a_hanging_program_is_ended_with_its_children() {
    let line = "trap 'echo asked; exit' TERM; sleep 300 & echo $!; wait";
    let (finished, lines) = shell(line, Duration::from_secs(5)).await;
    assert_eq!(finished.outcome, Outcome::TimedOut);
    assert_eq!(lines[1..], ["asked"], "SIGTERM was enough");
    assert!(gone(&lines[0]).await);
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed() {
    let line = "trap '' TERM; echo $$; while :; do sleep 300; done";
    let (finished, lines) = shell(line, Duration::from_secs(5)).await;
    assert_eq!(finished.outcome, Outcome::TimedOut);
    assert!(finished.duration >= GRACE, "{:?}", finished.duration);
    assert!(gone(&lines[0]).await);
}

#[tokio::test]
async fn background_children_die_with_the_program() {
    let line = "(trap '' TERM HUP; while :; do sleep 300; done) & echo $!";
    let (finished, lines) = shell(line, LONG).await;
    assert_eq!(finished.outcome, Outcome::Exit(0));
    assert!(finished.duration < LONG, "its child was waited for: {:?}", finished.duration);
    assert!(gone(&lines[0]).await);
}

#[tokio::test]
async fn a_child_outside_the_group_does_not_hold_the_run() {
    let (finished, lines) = shell("setsid sleep 300 & echo $!", LONG).await;
    assert_eq!(finished.outcome, Outcome::Exit(0));
    assert!(finished.duration < LONG, "{:?}", finished.duration);
    assert_eq!(lines.len(), 1);
    let child = Pid::from_raw(lines[0].parse().unwrap());
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn cancelling_ends_the_group() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let job = Job::shell_line("sleep 300 & echo $!; wait", LONG);
    let mut pid = String::new();
    let cancel = async {
        told.await.unwrap();
    };
    let finished = run(&job, cancel, |line| {
        pid = line.to_owned();
        tell.take().unwrap().send(()).unwrap();
    })
    .await;
    assert_eq!(finished.outcome, Outcome::Cancelled);
    assert!(gone(&pid).await);
}

#[tokio::test]
async fn dropping_the_run_ends_the_group() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let job = Job::shell_line("trap '' TERM; sleep 300 & echo $!; wait", LONG);
        run(&job, pending(), |l| tell.send(l.to_owned()).unwrap()).await
    });
    let pid = told.recv().await.unwrap();
    assert!(lives(&pid));
    task.abort();
    assert!(gone(&pid).await);
}

#[tokio::test]
async fn megabytes_are_read_and_thrown_away() {
    let before = resident_kib();
    let line = "head -c 100000000 /dev/zero | tr '\\0' x; echo; yes | head -n 5000000; echo end";
    let (finished, lines) = shell(line, Duration::from_secs(60)).await;
    assert_eq!(finished.outcome, Outcome::Exit(0));
    assert_eq!(lines.len() as u64, MAX_LINES);
    assert_eq!(finished.dropped_lines, 5_000_002 - MAX_LINES);
    assert!(resident_kib() < before + 80_000, "110 MB of output must not be kept");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn descriptors_are_not_inherited() {
    // dup() makes a descriptor without close-on-exec, as a careless library would.
    let file = std::fs::File::open("/dev/null").unwrap();
    let leak = nix::unistd::dup(&file).unwrap();
    let (_, lines) = shell("ls -l /proc/$$/fd | grep -c /dev/null; exit 0", LONG).await;
    assert_eq!(lines, ["1"], "only standard input is /dev/null");
    drop(leak);
}

#[tokio::test]
async fn many_short_runs_leave_no_zombie() {
    for _ in 0..50 {
        let (finished, lines) = shell("echo $$", LONG).await;
        assert_eq!(finished.outcome, Outcome::Exit(0));
        assert!(!Path::new(&format!("/proc/{}", lines[0])).exists());
    }
}

/// Only root can: run as root.
#[tokio::test]
async fn a_user_of_its_own_with_its_groups_and_nothing_of_root() {
    let line = "echo $(id -u) $(id -g) $(id -G) $(awk '/^CapEff|^CapPrm/ { print $2 }' /proc/self/status) $HOME $USER";
    let arguments = ["-c".to_owned(), line.to_owned()];
    let job = Job::new("sh", &arguments, LONG).as_user(Some("nobody"));
    let mut lines = Vec::new();
    let finished = run(&job, pending(), |l| lines.push(l.to_owned())).await;
    assert_eq!(finished.outcome, Outcome::Exit(0), "run this test as root: {lines:?}");
    let none = "0000000000000000";
    assert_eq!(lines, [format!("65534 65534 65534 {none} {none} /nonexistent nobody")]);

    // What does not end by itself is ended, whoever's it is.
    let sleeper = Job::new("sleep", &["1000".to_owned()], Duration::from_millis(200));
    let finished = run(&sleeper.as_user(Some("nobody")), pending(), |_| {}).await;
    assert_eq!(finished.outcome, Outcome::TimedOut);

    let unknown = Job::new("true", &[], LONG).as_user(Some("wgha-no-such-user"));
    let finished = run(&unknown, pending(), |_| {}).await;
    let Outcome::NotStarted(NotStarted::Other(why)) = finished.outcome else {
        panic!("{:?}", finished.outcome)
    };
    assert!(why.contains("no user wgha-no-such-user"), "{why}");
}
