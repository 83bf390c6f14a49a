//! Two gateways' threads in one process. Each has its files in a directory of its own; the cable
//! between them, which stands for the sync channel, translates the paths.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use wgha_proto::{Reason, Role};

use super::*;

mod random;

/// Bound of every wait.
const BOUND: Duration = Duration::from_secs(60);

/// A conf that is whole, with this peer.
fn conf(peer: u8) -> String {
    let key = "YNqHbfBQKaGvzefsSXO6PDJIAVzzaTEPWiGmJUiKlFo=";
    let public = crate::wireguard::key::PublicKey([peer; 32]);
    format!(
        "[Interface]\nPrivateKey={key}\nListenPort=51820\nAddress=10.9.0.1/24\n\
         [Peer]\nPublicKey={public}\nAllowedIPs=10.9.0.{peer}/32\n"
    )
}

/// One gateway's thread, and its files.
struct Gateway {
    name: &'static str,
    files: TempDir,
    state: TempDir,
    level: watch::Sender<RoleLevel>,
    /// None while it is stopped.
    running: Option<(Handle, Hub)>,
}

fn level(role: Role, master: Option<&str>) -> RoleLevel {
    RoleLevel {
        role,
        term: 1,
        reason: Reason::Started,
        master: master.map(str::to_owned),
        errand: None,
    }
}

impl Gateway {
    fn new(name: &'static str) -> Gateway {
        let (files, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let level = watch::Sender::new(level(Role::Backup, None));
        Gateway { name, files, state, level, running: None }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn start(&mut self) {
        let file = |name: &str, directory| SyncFile { path: self.at(name), directory };
        let toml = format!(
            "[cluster]\nname = \"x\"\nkey_file = \"/k\"\n[[node]]\nname = \"{}\"\naddresses = [\"192.0.2.1\"]\n\
             [[wireguard]]\ninterface = \"wg0\"\nconfig = \"{}\"\n",
            self.name,
            self.at("wg0.conf").display()
        );
        let path = Path::new("/etc/wgha/wgha.toml");
        let system = crate::config::System;
        let config = crate::config::Config::parse(&toml, path, Some(self.name), &system).unwrap();
        let settings = Settings {
            me: self.name.to_owned(),
            peers: vec![if self.name == "gw1" { "gw2" } else { "gw1" }.to_owned()],
            files: vec![file("wg0.conf", false), file("plain", false), file("d", true)],
            check: Check::new(&config),
        };
        let state = Arc::new(crate::state::tests::reopen(self.state.path()));
        self.running = Some(start(settings, state, self.level.subscribe()).unwrap());
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    /// As an editor that makes a new file, and renames.
    fn rename(&self, name: &str, text: &str) {
        let new = self.files.path().join(format!(".{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.at(name)).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    fn row(&self, name: &str) -> Option<FileView> {
        let path = self.at(name).to_string_lossy().into_owned();
        let (handle, _) = self.running.as_ref()?;
        handle.view().files.into_iter().find(|row| row.file == path)
    }

    fn problem(&self, name: &str) -> String {
        self.row(name).and_then(|row| row.problem).unwrap_or_default()
    }

    /// The kept contents that lost, by their names.
    fn lost(&self) -> Vec<(String, String)> {
        let read = |path: PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        disk::lost_in(self.files.path()).into_iter().map(read).collect()
    }
}

/// Two gateways, gw1 as master, and the cable between them.
struct Pair {
    a: Gateway,
    b: Gateway,
    cable: Option<Cable>,
}

struct Cable {
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.end = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The same file in the other one's directory.
fn translate(message: Message, from: &str, to: &str) -> Message {
    let path = |path: String| path.replace(from, to);
    match message {
        Message::Files(list) => {
            let entry = |e: wire::Entry| wire::Entry { path: path(e.path), ..e };
            let files = list.files.into_iter().map(entry).collect();
            Message::Files(wire::List { files, ..list })
        }
        Message::FileWant(want) => Message::FileWant(wire::Want { path: path(want.path), ..want }),
        Message::FilePart(part) => Message::FilePart(wire::Part { path: path(part.path), ..part }),
        other => other,
    }
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair { a: Gateway::new("gw1"), b: Gateway::new("gw2"), cable: None };
        pair.lead("gw1");
        pair
    }

    /// Both running and connected.
    fn start() -> Pair {
        let mut pair = Pair::new();
        pair.a.write("wg0.conf", &conf(1));
        pair.b.write("wg0.conf", &conf(1));
        pair.a.start();
        pair.b.start();
        pair.connect();
        pair.settled("wg0.conf", &conf(1));
        pair
    }

    fn lead(&self, master: &str) {
        for gateway in [&self.a, &self.b] {
            let role = if gateway.name == master { Role::Master } else { Role::Backup };
            gateway.level.send_replace(level(role, Some(master)));
        }
    }

    fn connect(&mut self) {
        self.connect_losing(0);
    }

    /// A cable that loses every so many-th message; 0: none.
    fn connect_losing(&mut self, every: u64) {
        let hub = |g: &Gateway| g.running.as_ref().expect("running").1.clone();
        let (a, b) = (hub(&self.a), hub(&self.b));
        let dir = |g: &Gateway| g.files.path().to_string_lossy().into_owned();
        let (dir_a, dir_b) = (dir(&self.a), dir(&self.b));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (mut to_b, mut to_a) = (a.join("gw2"), b.join("gw1"));
            let (deliver_a, deliver_b) = (to_b.deliverer(), to_a.deliverer());
            let (mut ended, mut count) = (ended, 0);
            runtime.block_on(async {
                loop {
                    let (message, forth) = tokio::select! {
                        _ = &mut ended => return,
                        message = to_b.next() => (message, true),
                        message = to_a.next() => (message, false),
                    };
                    count += 1;
                    let wire = message.to_bytes();
                    assert!(wire.len() <= crate::sync::channel::MAX_MESSAGE);
                    let message = Message::parse(&wire).unwrap();
                    match forth {
                        _ if every != 0 && count % every == 0 => {}
                        true => deliver_b(translate(message, &dir_a, &dir_b)),
                        false => deliver_a(translate(message, &dir_b, &dir_a)),
                    }
                }
            });
        });
        self.cable = Some(Cable { end: Some(end), thread: Some(thread) });
    }

    fn cut(&mut self) {
        self.cable = None;
    }

    /// Waits until both have this, and say so.
    fn settled(&self, name: &str, text: &str) {
        eventually(&format!("{name} is the same on both"), || {
            let same =
                |g: &Gateway| g.text(name) == text && g.row(name).is_some_and(|row| row.in_sync);
            let view = |g: &Gateway| format!("{}: {:?} {:?}", g.name, g.text(name), g.row(name));
            if same(&self.a) && same(&self.b) {
                Ok(())
            } else {
                Err(format!("{}\n{}", view(&self.a), view(&self.b)))
            }
        });
        let version = |g: &Gateway| g.row(name).unwrap().version;
        assert_eq!(version(&self.a), version(&self.b));
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let end = std::time::Instant::now() + BOUND;
    loop {
        let Err(why) = holds() else { return };
        assert!(std::time::Instant::now() < end, "never: {what}: {why}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn says(gateway: &Gateway, name: &str, text: &str) {
    eventually(&format!("{} says {text:?}", gateway.name), || {
        let said = gateway.problem(name);
        if said.contains(text) { Ok(()) } else { Err(said) }
    });
}

#[test]
fn an_edit_travels_from_either_node_however_it_is_made() {
    let pair = Pair::start();
    let start = pair.a.row("wg0.conf").unwrap().version;
    pair.a.rename("wg0.conf", &conf(2));
    pair.settled("wg0.conf", &conf(2));
    pair.b.write("wg0.conf", &conf(3));
    pair.settled("wg0.conf", &conf(3));
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(pair.a.at("wg0.conf"), mode).unwrap();
    std::os::unix::fs::chown(pair.a.at("wg0.conf"), Some(5), Some(6)).unwrap();
    pair.b.rename("wg0.conf", &conf(4));
    pair.settled("wg0.conf", &conf(4));
    let meta = fs::metadata(pair.a.at("wg0.conf")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (5, 6, 0o640));
    assert_eq!(pair.a.row("wg0.conf").unwrap().version, start + 3, "three edits");
    assert_eq!(pair.a.lost().len() + pair.b.lost().len(), 0);
    let (handle, _) = pair.a.running.as_ref().unwrap();
    assert!(handle.view().agreeing.contains("gw2"));
}

#[test]
fn edits_while_the_other_is_away_arrive_when_it_is_back() {
    let mut pair = Pair::start();
    // The connection is gone, then the process.
    pair.cut();
    pair.a.rename("wg0.conf", &conf(2));
    eventually("gw1 has seen it", || {
        pair.a.row("wg0.conf").filter(|r| r.version == 2).map(drop).ok_or_else(String::new)
    });
    assert!(!pair.a.row("wg0.conf").unwrap().in_sync, "nobody can say so");
    pair.connect();
    pair.settled("wg0.conf", &conf(2));
    pair.cut();
    pair.a.stop();
    pair.b.write("wg0.conf", &conf(3));
    pair.a.start();
    pair.connect();
    pair.settled("wg0.conf", &conf(3));
    // Edited while its own daemon was down.
    pair.cut();
    pair.b.stop();
    pair.b.write("wg0.conf", &conf(4));
    pair.b.start();
    pair.connect();
    pair.settled("wg0.conf", &conf(4));
    assert_eq!(pair.a.lost().len() + pair.b.lost().len(), 0);
}

#[test]
fn a_missing_file_is_fetched_and_a_deleted_one_comes_back() {
    let mut pair = Pair::new();
    pair.a.write("wg0.conf", &conf(1));
    fs::set_permissions(pair.a.at("wg0.conf"), fs::Permissions::from_mode(0o600)).unwrap();
    pair.a.start();
    pair.b.start();
    says(&pair.b, "wg0.conf", "is not here");
    pair.connect();
    pair.settled("wg0.conf", &conf(1));
    let mode = fs::metadata(pair.b.at("wg0.conf")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(pair.a.at("wg0.conf")).unwrap();
    pair.settled("wg0.conf", &conf(1));
    pair.cut();
    fs::remove_file(pair.b.at("wg0.conf")).unwrap();
    says(&pair.b, "wg0.conf", "is gone");
    pair.a.rename("wg0.conf", &conf(2));
    pair.connect();
    pair.settled("wg0.conf", &conf(2));
}

#[test]
fn of_two_edits_the_masters_wins_and_the_other_is_kept() {
    let mut pair = Pair::start();
    for (master, winner, loser) in [("gw1", 2, 3), ("gw2", 5, 4)] {
        pair.lead(master);
        pair.cut();
        let (of_a, of_b) = if master == "gw1" { (winner, loser) } else { (loser, winner) };
        pair.a.rename("wg0.conf", &conf(of_a));
        pair.b.rename("wg0.conf", &conf(of_b));
        pair.connect();
        pair.settled("wg0.conf", &conf(winner));
        let at = if master == "gw1" { &pair.b } else { &pair.a };
        let lost = at.lost();
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert!(lost[0].0.starts_with(&format!("wg0.conf.conflict-{}-2", at.name)), "{lost:?}");
        assert_eq!(lost[0].1, conf(loser));
        says(at, "wg0.conf", &lost[0].0);
        fs::remove_file(at.at(&lost[0].0)).unwrap();
        eventually("it is forgotten", || match at.problem("wg0.conf") {
            none if none.is_empty() => Ok(()),
            said => Err(said),
        });
        // And the next edit is no conflict.
        at.rename("wg0.conf", &conf(9));
        pair.settled("wg0.conf", &conf(9));
    }
    assert_eq!(pair.a.lost().len() + pair.b.lost().len(), 0);
}

#[test]
fn two_nodes_that_begin_with_different_files_lose_none() {
    let mut pair = Pair::new();
    pair.lead("gw2");
    pair.a.write("wg0.conf", &conf(1));
    pair.b.write("wg0.conf", &conf(2));
    pair.a.start();
    pair.b.start();
    pair.connect();
    pair.settled("wg0.conf", &conf(2));
    assert_eq!(pair.a.lost()[0].1, conf(1));
}

#[test]
fn a_broken_file_stays_where_it_is_and_says_where_it_is_broken() {
    let pair = Pair::start();
    let secret = "YNqHbfBQKaGvzefsSXO6PDJIAVzzaTEPWiGmJUiKlFo";
    pair.b.rename("wg0.conf", &conf(2).replace("AllowedIPs=", "AllowedIPs=10.9.0.300/32,"));
    says(&pair.b, "wg0.conf", "line 7, AllowedIPs");
    pair.b.rename("wg0.conf", &conf(2).replace("PrivateKey=", "PrivateKey=x"));
    says(&pair.b, "wg0.conf", "line 2, PrivateKey");
    assert!(!pair.b.problem("wg0.conf").contains(secret), "a key is shown");
    assert!(!pair.b.row("wg0.conf").unwrap().in_sync);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(pair.a.text("wg0.conf"), conf(1), "it travelled");
    pair.b.rename("wg0.conf", &conf(2));
    pair.settled("wg0.conf", &conf(2));
    // Broken here, and a version comes: what is broken is kept.
    pair.b.rename("wg0.conf", "broken");
    says(&pair.b, "wg0.conf", "[Interface]: is missing");
    pair.a.rename("wg0.conf", &conf(3));
    pair.settled("wg0.conf", &conf(3));
    assert_eq!(pair.b.lost().iter().map(|l| l.1.as_str()).collect::<Vec<_>>(), ["broken"]);
}

#[test]
fn files_of_a_directory_come_and_go() {
    let mut pair = Pair::start();
    fs::create_dir(pair.a.at("d")).unwrap();
    pair.a.write("d/one", "1");
    pair.a.write("d/two", "2");
    pair.a.write("d/.hidden", "no");
    pair.settled("d/one", "1");
    pair.settled("d/two", "2");
    assert!(!pair.b.at("d/.hidden").exists());
    fs::remove_file(pair.b.at("d/one")).unwrap();
    eventually("deleted on gw1", || {
        if pair.a.at("d/one").exists() { Err(String::new()) } else { Ok(()) }
    });
    // One deletes, the other edits: the edit stays.
    pair.cut();
    fs::remove_file(pair.a.at("d/two")).unwrap();
    pair.b.write("d/two", "edited");
    eventually("gw1 has seen it", || {
        pair.a.row("d/two").map_or(Ok(()), |row| Err(format!("{row:?}")))
    });
    pair.connect();
    pair.settled("d/two", "edited");
    // It comes back under its old name.
    pair.b.write("d/one", "again");
    pair.settled("d/one", "again");
    // The whole directory is lost: nobody meant to delete all files.
    fs::rename(pair.a.at("d"), pair.a.at("elsewhere")).unwrap();
    pair.settled("d/one", "again");
    pair.settled("d/two", "edited");
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_replaced() {
    let pair = Pair::start();
    pair.a.write("elsewhere", "precious");
    symlink(pair.a.at("elsewhere"), pair.a.at("plain")).unwrap();
    says(&pair.a, "plain", "is a symbolic link");
    pair.b.write("plain", "text");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(pair.a.text("elsewhere"), "precious");
    assert!(fs::symlink_metadata(pair.a.at("plain")).unwrap().is_symlink());
    assert_eq!(pair.b.text("plain"), "text");
    fs::remove_file(pair.a.at("plain")).unwrap();
    pair.settled("plain", "text");
}

#[test]
fn a_large_file_arrives_over_a_connection_that_loses_and_breaks() {
    let mut pair = Pair::start();
    pair.cut();
    pair.connect_losing(5);
    let large: String = (0..60_000).map(|n| format!("line {n}\n")).collect();
    pair.a.write("plain", &large);
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(300));
        pair.cut();
        pair.connect_losing(4);
    }
    pair.cut();
    pair.connect();
    pair.settled("plain", &large);
}

/// Killed between writing the file and taking note of it: no edit of its own, also when the other
/// has gone on since.
#[test]
fn a_file_that_was_written_just_before_a_crash_is_no_edit() {
    let mut pair = Pair::start();
    pair.cut();
    pair.b.stop();
    pair.a.rename("wg0.conf", &conf(2));
    eventually("seen", || {
        pair.a.row("wg0.conf").filter(|r| r.version == 2).map(drop).ok_or_else(String::new)
    });
    let read = |g: &Gateway| -> serde_json::Value {
        serde_json::from_slice(&fs::read(g.state.path().join("files.json")).unwrap()).unwrap()
    };
    let path = |g: &Gateway| g.at("wg0.conf").to_string_lossy().into_owned();
    let mut kept = read(&pair.b);
    let coming = read(&pair.a)["files"][path(&pair.a)].clone();
    kept["files"][path(&pair.b)]["coming"] = coming;
    fs::write(pair.b.state.path().join("files.json"), kept.to_string()).unwrap();
    pair.b.rename("wg0.conf", &conf(2));
    pair.a.rename("wg0.conf", &conf(3));
    // If it were one, it would win.
    pair.lead("gw2");
    pair.b.start();
    pair.connect();
    pair.settled("wg0.conf", &conf(3));
    assert_eq!(pair.a.lost().len() + pair.b.lost().len(), 0);
}
