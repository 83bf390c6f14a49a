use super::*;

fn config(node: &str, cluster: &str, port: u16) -> Config {
    let text = format!(
        "[cluster]\nname = \"{cluster}\"\nkey_file = \"/k\"\nstate_dir = \"/s/{cluster}\"\n\
         [control]\nsocket = \"/r/{cluster}\"\n\
         [[node]]\nname = \"gw1\"\naddresses = [\"192.0.2.1:{port}\"]\n\
         [[node]]\nname = \"gw2\"\naddresses = [\"192.0.2.2:{port}\"]\n\
         [[node]]\nname = \"w1\"\naddresses = [\"192.0.2.3:{port}\"]\nwitness = true\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path, Some(node)).unwrap()
}

fn wrong(configs: &[Config]) -> String {
    let paths: Vec<PathBuf> = (0..configs.len()).map(|n| format!("/{n}.toml").into()).collect();
    conflicts(&paths.iter().zip(configs).collect::<Vec<_>>()).join("\n")
}

#[test]
fn clusters_with_places_of_their_own_fit() {
    assert_eq!(wrong(&[config("w1", "a", 5112), config("w1", "b", 5113)]), "");
}

#[test]
fn what_two_clusters_cannot_share_is_named() {
    let same = config("w1", "a", 5112);
    let all = "/0.toml and /1.toml: each needs a [control] socket of its own, not /r/a\n\
               /0.toml and /1.toml: each needs a state_dir of its own, not /s/a\n\
               /0.toml and /1.toml: each needs a port of its own, not 192.0.2.3:5112";
    assert_eq!(wrong(&[same.clone(), same]), all);
    let port = wrong(&[config("w1", "a", 5112), config("w1", "b", 5112)]);
    assert_eq!(port, "/0.toml and /1.toml: each needs a port of its own, not 192.0.2.3:5112");
}

#[test]
fn a_gateway_is_never_one_of_several() {
    let said = wrong(&[config("w1", "a", 5112), config("gw1", "b", 5113)]);
    assert_eq!(
        said,
        "/1.toml: gw1 is a gateway of b: a process with --also serves witnesses alone"
    );
}
