use std::os::unix::fs::symlink;

use super::*;

fn hash(text: &str) -> Option<Hash> {
    Some(Hash::of(text.as_bytes()))
}

const ME: Label<'_> = Label { node: "gw2", at: 1_795_319_100 };

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_with_its_owner_and_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wg0.conf");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(7), Some(8)).expect("these tests run as root");
    assert_eq!(replace(&path, b"new", hash("old"), 0o600, ME).unwrap(), Replaced::Done);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o640));
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(names(dir.path()), ["wg0.conf"]);
}

#[test]
fn what_is_not_known_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    assert_eq!(replace(&path, b"new", hash("old"), 0o600, ME).unwrap(), Replaced::Changed);
    assert_eq!(replace(&path, b"new", None, 0o644, ME).unwrap(), Replaced::Done);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(replace(&path, b"newer", None, 0o644, ME).unwrap(), Replaced::Changed);
    assert_eq!(replace(&path, b"newer", hash("other"), 0o644, ME).unwrap(), Replaced::Changed);
    assert_eq!(delete(&path, hash("other").unwrap()).unwrap(), Replaced::Changed);
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(delete(&path, hash("new").unwrap()).unwrap(), Replaced::Done);
    assert_eq!(names(dir.path()), [""; 0]);
}

/// Edits race with replacements. Whoever puts a content in place sees the one that comes out; so
/// each edit was seen by one of both, is kept aside, or stands.
#[test]
fn an_edit_at_the_moment_of_writing_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "start").unwrap();
    let edit = |number: u32| format!("edit {number}");
    let editor = {
        let path = path.clone();
        std::thread::spawn(move || {
            let new = path.with_file_name("new");
            let came_out = |number| {
                fs::write(&new, edit(number)).unwrap();
                rename(&new, &path, RenameFlags::RENAME_EXCHANGE).unwrap();
                fs::read_to_string(&new).unwrap()
            };
            (0..500).map(came_out).collect::<Vec<String>>()
        })
    };
    let mut seen = Vec::new();
    let mut kept = 0;
    while !editor.is_finished() {
        let before = read(&path).unwrap().unwrap();
        let text = String::from_utf8(before.bytes.to_vec()).unwrap();
        match replace(&path, b"ours", Some(before.hash), 0o600, ME).unwrap() {
            Replaced::Done => seen.push(text),
            Replaced::Kept(_) => {
                seen.push(text);
                kept += 1;
            }
            Replaced::Changed => {}
        }
    }
    seen.extend(editor.join().unwrap());
    seen.extend(lost_in(dir.path()).iter().map(|lost| fs::read_to_string(lost).unwrap()));
    seen.push(fs::read_to_string(&path).unwrap());
    println!("{kept} edits of the last moment");
    for number in 0..500 {
        assert!(seen.contains(&edit(number)), "edit {number} is lost");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("target"), "secret").unwrap();
    symlink(at("target"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let long = File::create(at("long")).unwrap();
    long.set_len(MAX_LEN + 1).unwrap();
    for (name, why) in [
        ("link", "is a symbolic link"),
        ("dangling", "is a symbolic link"),
        ("dir", "is a directory"),
        ("fifo", "is no regular file"),
        ("socket", "is no regular file"),
        ("long", "is longer than"),
    ] {
        let said = read(&at(name)).err().expect(name).to_string();
        assert!(said.starts_with(why), "{name}: {said}");
        assert!(replace(&at(name), b"x", None, 0o600, ME).is_err(), "{name}");
    }
    drop(socket);
    assert!(read(Path::new("/dev/null")).is_err());
    assert_eq!(fs::read_to_string(at("target")).unwrap(), "secret");
}

#[test]
fn what_lost_is_kept_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wg0.conf");
    let lost = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let found = read(&path).unwrap().unwrap();
        keep_aside(&path, &found, ME).unwrap()
    };
    let first = lost("one");
    assert_eq!(first.file_name().unwrap(), "wg0.conf.conflict-gw2-20261122T034500Z");
    assert_eq!(lost("one"), first, "the same content is kept once");
    let second = lost("two");
    assert_eq!(second.file_name().unwrap(), "wg0.conf.conflict-gw2-20261122T034500Z-2");
    assert_eq!(fs::read_to_string(&first).unwrap(), "one");
    assert_eq!(fs::read_to_string(&second).unwrap(), "two");
    assert_eq!(fs::metadata(&second).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(lost_in(dir.path()), [first, second]);
    assert_eq!(names(dir.path()).len(), 3);
    for (name, over) in [("a.conf", false), (".a", true), ("a~", true), ("a.conflict-b-c", true)] {
        assert_eq!(is_passed_over(name), over, "{name}");
    }
}

#[test]
fn a_mark_changes_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    assert_eq!(mark(&path).unwrap(), None);
    fs::write(&path, "one").unwrap();
    let first = mark(&path).unwrap();
    assert_eq!(first, Some(read(&path).unwrap().unwrap().mark));
    fs::rename(&path, dir.path().join("g")).unwrap();
    fs::write(&path, "two").unwrap();
    assert_ne!(mark(&path).unwrap(), first);
}
