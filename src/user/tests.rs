use std::os::unix::fs::{PermissionsExt, chown};

use super::*;
use crate::config::System;

/// On every Debian, with a number and a group of its own.
const SOMEBODY: &str = "nobody";

struct Bench(tempfile::TempDir);

impl Bench {
    /// Files as they are when everything is as it should be.
    fn new() -> Bench {
        assert!(geteuid().is_root(), "run this test as root");
        let bench = Bench(tempfile::tempdir().unwrap());
        fs::set_permissions(bench.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["state", "run", "synced"] {
            fs::create_dir(bench.path(directory)).unwrap();
            bench.give(directory);
        }
        for file in ["cluster.key", "wg0.conf"] {
            fs::write(bench.path(file), "").unwrap();
            bench.mode(file, 0o600);
            bench.give(file);
        }
        fs::write(bench.path("wgha.toml"), "").unwrap();
        bench.mode("wgha.toml", 0o644);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn give(&self, name: &str) {
        let account = Account::find(SOMEBODY).unwrap();
        chown(self.path(name), Some(account.uid()), None).unwrap();
    }

    fn take_back(&self, name: &str) {
        chown(self.path(name), Some(0), Some(0)).unwrap();
    }

    fn config(&self, more: &str) -> Config {
        let d = self.0.path().display();
        let text = format!(
            "[cluster]\nname = \"edge\"\nkey_file = \"{d}/cluster.key\"\nstate_dir = \"{d}/state\"\nuser = \"{SOMEBODY}\"\n\
             [control]\nsocket = \"{d}/run/s\"\n[[node]]\nname = \"gw1\"\naddresses = [\"10.0.1.10\"]\n\
             [[wireguard]]\ninterface = \"wg0\"\nconfig = \"{d}/wg0.conf\"\n\
             [sync]\nfiles = [\"{d}/synced/a\"]\n{more}"
        );
        Config::parse(&text, &self.path("wgha.toml"), Some("gw1"), &System).unwrap()
    }

    fn refusals(&self, more: &str) -> Vec<String> {
        let all = access::refusals(&self.config(more));
        let here = format!("{}/", self.0.path().display());
        all.into_iter().map(|line| line.replace(&here, "")).collect()
    }
}

#[test]
fn every_file_that_the_user_cannot_use_is_named_with_its_cure() {
    let bench = Bench::new();
    assert_eq!(bench.refusals(""), [""; 0]);
    for (name, expected) in [
        ("wgha.toml", "cannot read it: chgrp"),
        ("cluster.key", "cannot read it: chown nobody: cluster.key"),
        ("wg0.conf", "cannot read it: chown nobody: wg0.conf"),
        ("state", "cannot write it: chown -R nobody: state"),
        ("run", "cannot write it: chown nobody: run"),
        ("synced", "cannot write it: chown nobody: synced"),
    ] {
        let bench = Bench::new();
        bench.take_back(name);
        bench.mode(name, if bench.path(name).is_dir() { 0o755 } else { 0o600 });
        let found = bench.refusals("");
        let named = format!("{name}: the user nobody {expected}");
        assert!(found.len() == 1 && found[0].starts_with(&named), "{name}: {found:?}");
    }
}

#[test]
fn a_directory_on_the_way_and_what_root_left() {
    let bench = Bench::new();
    fs::write(bench.path("state/highest_term"), "1").unwrap();
    let found = bench.refusals("");
    let expected = "state/highest_term: does not belong to the user nobody: chown -R nobody: state";
    assert_eq!(found, [expected]);
    let bench = Bench::new();
    fs::set_permissions(bench.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let found = bench.refusals("");
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|line| line.contains("cannot pass") && line.contains("g+x")),
        "{found:?}"
    );
}

#[test]
fn ports_that_are_roots() {
    let bench = Bench::new();
    let found = bench.refusals("[http]\nlisten = \"127.0.0.1:80\"\n");
    assert!(
        found.len() == 1 && found[0].starts_with("[http] listen: port 80 is root's"),
        "{found:?}"
    );
    assert_eq!(bench.refusals("[http]\nlisten = \"127.0.0.1:8080\"\n"), [""; 0]);
}

#[test]
fn users_that_are_none() {
    let missing = Account::find("wgha-no-such-user").unwrap_err();
    assert!(missing.contains("useradd --system"), "{missing}");
    assert!(Account::find("root").unwrap_err().contains("root"));
    assert!(Account::find(SOMEBODY).is_ok_and(|account| !account.is_me()));
}

/// The thread that asked is gone, and nobody else became another.
#[test]
fn asking_as_somebody_changes_nobody_else() {
    let bench = Bench::new();
    bench.take_back("cluster.key");
    let account = Account::find(SOMEBODY).unwrap();
    let read = |path: &Path| access::may(&account, path, nix::unistd::AccessFlags::R_OK);
    assert!(read(&bench.path("cluster.key")).is_err());
    assert!(read(&bench.path("wg0.conf")).is_ok());
    assert!(fs::read(bench.path("cluster.key")).is_ok(), "root reads on");
}
