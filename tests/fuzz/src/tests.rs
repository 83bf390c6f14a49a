//! The kept inputs, once through their targets.

use std::fs;
use std::path::Path;

fn corpus(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut count = 0;
    for entry in entries {
        target(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 5, "{name}: only {count} inputs are kept");
}

#[test]
fn wire() {
    corpus("wire", super::wire);
}

#[test]
fn opening() {
    corpus("opening", super::opening);
}

#[test]
fn node() {
    corpus("node", super::node);
}

#[test]
fn config() {
    corpus("config", super::config);
}

#[test]
fn wgconf() {
    corpus("wgconf", super::wgconf);
}

#[test]
fn control() {
    corpus("control", super::control);
}
