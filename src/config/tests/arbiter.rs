//! `[arbiter]`.

use super::*;

/// Gateways alone.
fn pair() -> String {
    let (head, rest) = PAIR.split_once("[[node]]\nname = \"w1\"").unwrap();
    let (_, tail) = rest.split_once("[[floating_ip]]").unwrap();
    format!("{head}[[floating_ip]]{tail}")
}

fn arbiter(lines: &str) -> Result<Config, ConfigErrors> {
    parse(&format!("{}[arbiter]\n{lines}\n", pair()))
}

#[track_caller]
fn wrong(lines: &str, expected: &str) {
    let errors = arbiter(lines).unwrap_err().to_string();
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn an_etcd_makes_two_nodes_three_voters() {
    let pair = parse(&pair()).unwrap();
    assert_eq!((pair.needs_majority(), pair.voters()), (false, 2));
    let all = "etcd = [\"https://etcd1:2379\", \"https://[fd00::1]/\"]\nca_file = \"/ca\"\n\
               cert_file = \"/cert\"\nkey_file = \"/key\"\nuser = \"wgha\"\npassword_file = \"/p\"";
    let config = arbiter(all).unwrap();
    assert_eq!((config.needs_majority(), config.voters()), (true, 3));
    let arbiter = config.arbiter.unwrap();
    let names: Vec<String> = arbiter.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["https://etcd1:2379", "https://[fd00::1]:2379"]);
    assert_eq!(arbiter.ca_file, Some("/ca".into()));
    assert_eq!(arbiter.identity, Some(("/cert".into(), "/key".into())));
    assert_eq!(arbiter.login, Some(("wgha".to_owned(), "/p".into())));
}

#[test]
fn endpoints() {
    for bad in [
        "10.0.3.1:2379",
        "https://",
        "https://a:0",
        "https://a:b",
        "https://[fd00::1",
        "http://a/b",
        "ftp://a",
    ] {
        wrong(&format!("etcd = [{bad:?}]"), ":29: [arbiter] etcd: expected an endpoint such as");
    }
    wrong("etcd = []", ":29: [arbiter] etcd: expected an array of 1 to 8 endpoints");
    wrong("user = \"u\"", ":28: [arbiter] etcd: missing");
    wrong(
        "etcd = [\"http://a\", \"http://a:2379\"]",
        ":29: [arbiter] etcd: http://a:2379 is there twice",
    );
    wrong(
        "etcd = [\"http://a\", \"https://b\"]",
        "expected all endpoints by https, or all by http",
    );
    wrong(
        "ectd = [\"http://a\"]",
        ":29: [arbiter] ectd: unknown key \"ectd\"; did you mean \"etcd\"?",
    );
}

#[test]
fn what_belongs_together() {
    let etcd = "etcd = [\"https://a\"]\n";
    wrong(
        &format!("{etcd}cert_file = \"/c\""),
        ":28: [arbiter] key_file: missing; cert_file needs it",
    );
    wrong(
        &format!("{etcd}key_file = \"/c\""),
        ":28: [arbiter] cert_file: missing; key_file needs it",
    );
    wrong(&format!("{etcd}user = \"u\""), ":28: [arbiter] password_file: missing; user needs it");
    wrong("etcd = [\"http://a\"]\nca_file = \"/c\"", ":28: [arbiter] ca_file: is for https");
    let none = pair().replace("misses = 3", "misses = 3\nquorum = \"none\"");
    let errors = parse(&format!("{none}[arbiter]\n{etcd}")).unwrap_err().to_string();
    assert!(errors.contains("votes where a majority is needed"), "{errors}");
}

#[test]
fn nodes_that_ask_other_etcds_are_told_apart() {
    let of = |lines: &str| fingerprint(&arbiter(lines).unwrap(), None);
    let both = of("etcd = [\"http://a\", \"http://b\"]");
    assert_eq!(both, of("etcd = [\"http://b\", \"http://a\"]"));
    assert_ne!(both, of("etcd = [\"http://a\"]"));
    assert_ne!(of("etcd = [\"http://a\"]"), fingerprint(&parse(&pair()).unwrap(), None));
}
