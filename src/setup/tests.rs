use std::fs;

use super::*;

const CONF: &str = "[Interface]\nPrivateKey=YNqHbfBQKaGvzefsSXO6PDJIAVzzaTEPWiGmJUiKlFo=\n\
                    ListenPort=51820\nAddress=10.9.0.1/24\n";

/// A gateway's files in a directory, without wg0.conf.
fn files(synced: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().display();
    let mut toml = format!(
        "[cluster]\nname = \"x\"\nkey_file = \"{d}/key\"\nstate_dir = \"/var/lib/wgha/x\"\n\
         [[node]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\n\
         [[wireguard]]\ninterface = \"wg0\"\nconfig = \"{d}/wg0.conf\"\n"
    );
    if synced {
        toml += &format!("[sync]\nfiles = [\"{d}/wg0.conf\"]\n");
    }
    fs::write(dir.path().join("wgha.toml"), toml).unwrap();
    let key = dir.path().join("key");
    fs::write(&key, keyfile::generate(1).unwrap().to_text().as_bytes()).unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(key, closed).unwrap();
    dir
}

fn load(dir: &tempfile::TempDir) -> Result<Setup, SetupError> {
    Setup::load(&dir.path().join("wgha.toml"), Some("a"))
}

#[test]
fn a_file_that_is_missing_keeps_from_starting_only_if_it_is_not_synced() {
    let error = load(&files(false)).unwrap_err().to_string();
    assert!(error.contains("wg0.conf: cannot be read"), "{error}");
    let setup = load(&files(true)).unwrap();
    assert_eq!(setup.tunnels().count(), 0);
    let missing = setup.missing().unwrap();
    assert!(missing.starts_with("wg0: ") && missing.contains("is not there"), "{missing}");
}

#[test]
fn files_are_read_again_without_the_rest() {
    let dir = files(true);
    let conf = dir.path().join("wg0.conf");
    let setup = load(&dir).unwrap();
    assert!(setup.with_files_of_now().unwrap().is_none(), "still missing");
    fs::write(&conf, CONF).unwrap();
    // Broken, but not read.
    fs::write(dir.path().join("wgha.toml"), "broken").unwrap();
    let setup = setup.with_files_of_now().unwrap().expect("it came");
    assert_eq!((setup.tunnels().count(), setup.missing()), (1, None));
    assert!(setup.with_files_of_now().unwrap().is_none(), "the same");
    fs::write(&conf, CONF.replace("51820", "51821")).unwrap();
    let setup = setup.with_files_of_now().unwrap().expect("it changed");
    assert_eq!(setup.tunnels().next().unwrap().1.listen_port, 51821);
    fs::remove_file(&conf).unwrap();
    assert!(setup.with_files_of_now().unwrap().is_none(), "what is gone stays in force");
    fs::write(&conf, "[Pear]").unwrap();
    let error = setup.with_files_of_now().unwrap_err().to_string();
    assert!(error.contains("wg0.conf: line 1"), "{error}");
}
