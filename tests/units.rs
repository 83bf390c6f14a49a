//! The systemd units: systemd accepts them without a word, and they stay closed to the outside.
//! Needs `systemd-analyze` (package `systemd`), but no running systemd.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `systemd-analyze security` may say at most, of 100: of the units, and with the drop-in that makes them root's.
const MAX_EXPOSURE: &str = "20";
const MAX_AS_ROOT: &str = "29";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd")
}

fn analyze(args: &[&str]) -> Output {
    Command::new("systemd-analyze").args(args).output().expect("install systemd (systemd-analyze)")
}

fn is_exposed_at_most(max: &str, path: &str) {
    let threshold = format!("--threshold={max}");
    let output = analyze(&["security", "--offline=true", "--no-pager", &threshold, path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Copies of the units that name a program which exists here.
fn copies() -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (from, to) in [("wgha.service", "wgha.service"), ("wgha@.service", "wgha@edge.service")] {
        let text = fs::read_to_string(units().join(from)).unwrap();
        assert!(text.contains("/usr/bin/wgha"));
        let path = dir.path().join(to);
        fs::write(&path, text.replace("/usr/bin/wgha", "/usr/bin/true")).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
    }
    (dir, paths)
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let (_dir, paths) = copies();
    for path in &paths {
        let output = analyze(&["verify", "--man=no", "--recursive-errors=no", path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{path}: {said}");
    }
}

#[test]
fn the_units_stay_closed() {
    let (_dir, paths) = copies();
    for path in &paths {
        is_exposed_at_most(MAX_EXPOSURE, path);
    }
}

#[test]
fn as_root_they_stay_closed_as_well() {
    let (_dir, paths) = copies();
    let drop_in = fs::read_to_string(units().join("root.conf")).unwrap();
    for path in &paths {
        // Offline it reads no drop-ins.
        let unit = fs::read_to_string(path).unwrap();
        fs::write(path, format!("{unit}\n{drop_in}")).unwrap();
        is_exposed_at_most(MAX_AS_ROOT, path);
    }
}

/// The two units are one, but for the names that come from the instance.
#[test]
fn the_template_differs_in_names_alone() {
    let read = |name: &str| fs::read_to_string(units().join(name)).unwrap();
    let template = read("wgha@.service")
        .replace(", instance %i", "")
        .replace("/etc/wgha/%i.toml", "/etc/wgha/wgha.toml")
        .replace("wgha/%i", "wgha/wgha")
        .replace("wgha@.service", "wgha.service");
    assert_eq!(template, read("wgha.service"));
}
