//! Key files that are refused, and those that are written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use super::*;

/// A file of this text and mode in a directory of its own.
fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.key");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    (dir, path)
}

fn good() -> String {
    generate(7).unwrap().to_text().to_string()
}

/// What is said of the file, without its path.
fn refusal(path: &Path) -> String {
    let message = load(path).unwrap_err().to_string();
    let prefix = format!("{}: ", path.display());
    message.strip_prefix(&prefix).expect("the path comes first").to_owned()
}

#[test]
fn a_generated_key_is_read_back() {
    for mode in [0o600, 0o400] {
        let (_dir, path) = file(&good(), mode);
        let ring = load(&path).unwrap();
        assert!(!ring.is_witness());
        assert_eq!(ring.ids().collect::<Vec<_>>(), [7]);
    }
    assert_ne!(good(), good(), "two keys are alike");
}

#[test]
fn missing() {
    let dir = tempfile::tempdir().unwrap();
    let message = refusal(&dir.path().join("cluster.key"));
    assert!(message.starts_with("cannot be read: No such file"), "{message}");
}

#[test]
fn readable_or_writable_by_others() {
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o660] {
        let (_dir, path) = file(&good(), mode);
        let expected =
            format!("can be read or written by others (mode {mode:04o}); expected mode 0600");
        assert_eq!(refusal(&path), expected);
    }
}

#[test]
fn owned_by_somebody_else() {
    assert!(nix::unistd::geteuid().is_root(), "this test gives a file away: run it as root");
    let (_dir, path) = file(&good(), 0o600);
    chown(&path, Some(4711), None).unwrap();
    let expected = "belongs to user 4711; expected root or the user that runs wgha";
    assert_eq!(refusal(&path), expected);
}

#[test]
fn no_regular_file() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(refusal(dir.path()), "is no regular file");
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(refusal(&pipe), "is no regular file");
}

#[test]
fn wrong_text() {
    let long = "# comment\n".repeat(2000);
    for (text, expected) in [
        ("", "no key in the file"),
        ("gateway 1 c2hvcnQ=\n", "line 1: the key is too short: 5 bytes, 32 are needed"),
        (long.as_str(), "is longer than 16384 bytes"),
    ] {
        let (_dir, path) = file(text, 0o600);
        assert_eq!(refusal(&path), expected);
    }
}

#[test]
fn the_kind_of_key_fits_the_node() {
    let gateway = generate(1).unwrap();
    let (_dir, gateway_file) = file(&gateway.to_text(), 0o600);
    let (_dir, witness_file) = file(&gateway.to_witness().to_text(), 0o600);
    assert!(load_for(&gateway_file, false, None).is_ok());
    assert!(load_for(&witness_file, true, None).is_ok());
    let why = |path: &Path, witness| load_for(path, witness, None).unwrap_err().why;
    assert!(matches!(why(&gateway_file, true), Why::GatewayKeyOnWitness));
    assert!(matches!(why(&witness_file, false), Why::WitnessKeyOnGateway));
}

#[test]
fn a_new_file_is_closed_to_others_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.key");
    let ring = generate(3).unwrap();
    create(&path, &ring).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(*load(&path).unwrap().to_text(), *ring.to_text());

    let before = fs::read_to_string(&path).unwrap();
    let error = create(&path, &generate(4).unwrap()).unwrap_err();
    assert!(matches!(error.why, Why::Exists), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);

    let nowhere = dir.path().join("missing/cluster.key");
    assert!(matches!(create(&nowhere, &ring).unwrap_err().why, Why::Write(_)));
}

#[test]
fn no_error_shows_a_key() {
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ=";
    let (_dir, path) = file(&format!("gateway 1 {secret}\n"), 0o600);
    let error = load(&path).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret));
    let ring = generate(1).unwrap();
    let text = ring.to_text();
    let key = text.split_whitespace().nth(2).unwrap();
    assert!(!format!("{ring:?}").contains(key));
}
