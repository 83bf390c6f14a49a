use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

fn applied() -> Applied {
    Applied {
        interfaces: vec![AppliedInterface {
            name: "wg0".into(),
            backend: "kernel".into(),
            listen_port: Some(51820),
            post_up_ran: true,
            post_down: vec!["nft delete table x".into()],
            ..AppliedInterface::default()
        }],
        floating_ips: vec![AppliedAddress {
            address: "203.0.113.10".parse().unwrap(),
            prefix: 32,
            interface: "eth0".into(),
        }],
        reserved_ports: vec![51820],
        gates: vec!["wgha_edge".into()],
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A directory that this process had. A program that another test starts holds the lock that was let go until it runs.
pub(crate) fn reopen(path: &Path) -> StateDir {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        match StateDir::open(path) {
            Err(StateError::InUse { .. }) if std::time::Instant::now() < end => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn what_is_kept_survives_a_restart() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("deep/wgha");
    let dir = StateDir::open(&path).unwrap();
    assert_eq!((dir.highest_term(), dir.maintenance()), (0, false));
    assert_eq!(dir.applied(), Some(Applied::default()));
    dir.set_highest_term(u64::MAX).unwrap();
    dir.set_maintenance(true).unwrap();
    dir.set_applied(&applied()).unwrap();
    drop(dir);
    let dir = reopen(&path);
    assert_eq!((dir.highest_term(), dir.maintenance()), (u64::MAX, true));
    assert_eq!(dir.applied(), Some(applied()));
}

#[test]
fn others_can_read_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("wgha");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let dir = StateDir::open(&path).unwrap();
    dir.set_applied(&applied()).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("applied.json")), 0o600);
    assert_eq!(mode(&path.join("lock")), 0o600);
}

#[test]
fn a_second_daemon_is_refused_by_name() {
    let tmp = tempfile::tempdir().unwrap();
    let first = StateDir::open(tmp.path()).unwrap();
    let refused = StateDir::open(tmp.path()).unwrap_err().to_string();
    let expected = format!(
        "{} is in use by another wgha (process {})",
        tmp.path().display(),
        std::process::id()
    );
    assert_eq!(refused, expected);
    drop(first);
    reopen(tmp.path());
}

#[test]
fn a_damaged_file_is_kept_aside_and_replaced() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::open(tmp.path()).unwrap();
    let long = vec![b' '; 2 << 20];
    let damages: [&[u8]; 6] = [b"", b"{", b"-1", b"\xff\xfe\0\0", b"[1,2]", &long];
    for damage in damages {
        for name in ["highest_term", "maintenance", "applied.json"] {
            fs::write(tmp.path().join(name), damage).unwrap();
        }
        assert_eq!((dir.highest_term(), dir.maintenance()), (0, false));
        assert_eq!(dir.applied(), None);
        for name in ["highest_term", "maintenance", "applied.json"] {
            assert!(!tmp.path().join(name).exists());
            assert_eq!(fs::read(tmp.path().join(format!("{name}.corrupt"))).unwrap(), damage);
        }
    }
    dir.set_highest_term(5).unwrap();
    assert_eq!(dir.highest_term(), 5);
}

#[test]
fn a_directory_in_place_of_a_file_is_no_panic() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("highest_term")).unwrap();
    assert_eq!(dir.highest_term(), 0);
    dir.set_highest_term(3).unwrap();
    assert_eq!(dir.highest_term(), 3);
}

#[test]
fn fields_of_another_version_do_not_matter() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::open(tmp.path()).unwrap();
    let json = r#"{"reserved_ports":[7],"later":{"x":1},"interfaces":[{"name":"wg0","new":2}]}"#;
    fs::write(tmp.path().join("applied.json"), json).unwrap();
    let read = dir.applied().unwrap();
    assert_eq!((read.reserved_ports, read.interfaces[0].name.as_str()), (vec![7], "wg0"));
}

#[test]
fn the_record_of_a_dead_process_is_read_without_its_lock() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::open(tmp.path()).unwrap();
    assert_eq!(StateDir::applied_of(tmp.path()).unwrap(), Some(Applied::default()));
    let record = Applied { gates: vec!["wgha_edge".to_owned()], ..Applied::default() };
    dir.set_applied(&record).unwrap();
    assert_eq!(StateDir::applied_of(tmp.path()).unwrap(), Some(record));
    let file = tmp.path().join("applied.json");
    fs::write(&file, "{").unwrap();
    assert_eq!(StateDir::applied_of(tmp.path()).unwrap(), None);
    assert!(file.exists(), "whoever has the lock sets it aside");
    // What cannot be read is not a machine that has nothing.
    for no_directory in [tmp.path().join("missing"), file] {
        let refused = StateDir::applied_of(&no_directory);
        assert!(matches!(refused, Err(StateError::Io { .. })), "{refused:?}");
    }
}

#[test]
fn what_acts_is_compared_and_nothing_else() {
    let interface = |name: &str, listen_port| AppliedInterface {
        name: name.to_owned(),
        listen_port,
        ..AppliedInterface::default()
    };
    let ip = AppliedAddress {
        address: "203.0.113.10".parse().unwrap(),
        prefix: 32,
        interface: "eth0".to_owned(),
    };
    let all = Applied {
        interfaces: vec![interface("wg0", Some(51820))],
        floating_ips: vec![ip.clone()],
        reserved_ports: vec![51820],
        gates: vec!["wgha_edge".to_owned()],
    };
    let with = |change: fn(&mut Applied)| {
        let mut other = all.clone();
        change(&mut other);
        other
    };
    let same: [fn(&mut Applied); 4] = [
        |_| {},
        |a| *a = Applied::default(),
        |a| a.reserved_ports.push(1),
        |a| a.interfaces[0].post_up_ran = true,
    ];
    for change in same {
        assert!(with(change).acts_within(&all), "{:?}", with(change));
    }
    let more: [fn(&mut Applied); 5] = [
        |a| a.interfaces[0].name = "wg1".to_owned(),
        |a| a.interfaces[0].listen_port = Some(51821),
        |a| a.interfaces[0].listen_port = None,
        |a| a.floating_ips[0].interface = "eth1".to_owned(),
        |a| a.gates.push("wgha_other".to_owned()),
    ];
    for change in more {
        assert!(!with(change).acts_within(&all), "{:?}", with(change));
    }
}

/// A file system of 64 KiB, unmounted at the end. Needs root, as all of wgha does.
pub(crate) struct SmallDisk(pub(crate) tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn mount() -> SmallDisk {
        use nix::mount::{MsFlags, mount};
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
            .expect("mounting a tmpfs needs root (CAP_SYS_ADMIN)");
        SmallDisk(dir)
    }

    pub(crate) fn fill(&self) {
        let mut file = File::create(self.0.path().join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.0.path());
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_old_value_stays() {
    let disk = SmallDisk::mount();
    let dir = StateDir::open(disk.0.path()).unwrap();
    dir.set_highest_term(41).unwrap();
    disk.fill();
    let error = dir.set_highest_term(42).unwrap_err().to_string();
    assert!(error.contains("highest_term: No space left on device"), "{error}");
    assert_eq!(dir.highest_term(), 41);
    disk.empty();
    dir.set_highest_term(43).unwrap();
    assert_eq!(dir.highest_term(), 43);
}

#[test]
fn the_writer_keeps_the_latest_of_a_storm() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = Arc::new(StateDir::open(tmp.path()).unwrap());
    let writer = StateWriter::start(Arc::clone(&dir)).unwrap();
    for term in 1..=100_000 {
        writer.highest_term(term);
        writer.maintenance(term % 2 == 1);
    }
    drop(writer);
    assert_eq!((dir.highest_term(), dir.maintenance()), (100_000, false));
}

#[test]
fn the_writer_does_not_wait_to_be_dropped() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = Arc::new(StateDir::open(tmp.path()).unwrap());
    let writer = StateWriter::start(Arc::clone(&dir)).unwrap();
    writer.highest_term(7);
    let begun = Instant::now();
    while dir.highest_term() != 7 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_full_disk_refused_is_written_when_it_can_be() {
    let disk = SmallDisk::mount();
    let dir = Arc::new(StateDir::open(disk.0.path()).unwrap());
    disk.fill();
    let writer = StateWriter::start(Arc::clone(&dir)).unwrap();
    writer.highest_term(7);
    // Long enough for the attempt to fail.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(dir.highest_term(), 0);
    disk.empty();
    writer.maintenance(true);
    drop(writer);
    assert_eq!((dir.highest_term(), dir.maintenance()), (7, true));
}
