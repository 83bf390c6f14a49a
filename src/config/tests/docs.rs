//! What the documentation shows as configuration is accepted by the parser.

use std::path::{Path, PathBuf};

use super::*;

/// What a page may leave out: it stands before a block that has no `[cluster]`.
const REST: &str = r#"
[cluster]
name = "edge"
key_file = "/etc/wgha/cluster.key"
[[node]]
name = "gw1"
addresses = ["10.0.1.10:5112"]
[[node]]
name = "gw2"
addresses = ["10.0.1.11:5112"]
[[wireguard]]
interface = "wg0"
config = "/etc/wireguard/wg0.conf"
"#;

fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_config_in_the_pages_is_valid() {
    let mut found = Vec::new();
    pages(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")), &mut found);
    let bench = Bench { default_routes: vec!["eth0", "ens4"], ..Bench::default() };
    let (mut whole, mut parts) = (0, 0);
    for page in found {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("\n```toml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            let complete = block.contains("[cluster]");
            let config = if complete { block.to_owned() } else { format!("{REST}{block}") };
            for node in ["gw1", "gw2"] {
                if let Err(errors) = Config::parse(&config, &page, Some(node), &bench) {
                    panic!("{}:\n{errors}\nin\n{config}", page.display());
                }
            }
            *(if complete { &mut whole } else { &mut parts }) += 1;
        }
    }
    assert!(
        whole >= 5 && parts >= 8,
        "{whole} whole configs, {parts} parts of one: where are they?"
    );
}
