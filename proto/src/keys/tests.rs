use super::*;

const KEY: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

#[test]
fn a_key_file_is_read_in_order() {
    let text = format!("# the cluster's keys\n\n gateway 3 {KEY} # sends\ngateway 65535 {KEY}\n");
    let ring = Keyring::parse(&text).unwrap();
    assert_eq!(ring.ids().collect::<Vec<_>>(), [3, 65535]);
    assert_eq!(ring.sending(), Some(3));
    assert!(!ring.is_witness());
}

#[test]
fn bad_key_files_are_refused_with_the_line() {
    let short = STANDARD.encode([1; 31]);
    let long = STANDARD.encode([1; 33]);
    let table = [
        (String::new(), KeyFileError::Empty),
        ("# nothing\n".into(), KeyFileError::Empty),
        (format!("gateway {KEY}"), KeyFileError::Form { line: 1 }),
        (format!("gateway 1 {KEY} x"), KeyFileError::Form { line: 1 }),
        (format!("\nmaster 1 {KEY}"), KeyFileError::Form { line: 2 }),
        (format!("gateway 65536 {KEY}"), KeyFileError::Id { line: 1 }),
        (format!("gateway -1 {KEY}"), KeyFileError::Id { line: 1 }),
        ("gateway 1 !!!".into(), KeyFileError::Base64 { line: 1 }),
        (format!("gateway 1 {short}"), KeyFileError::TooShort { line: 1, bytes: 31 }),
        (format!("gateway 1 {long}"), KeyFileError::TooLong { line: 1, bytes: 33 }),
        (format!("gateway 1 {KEY}\ngateway 1 {KEY}"), KeyFileError::DuplicateId { line: 2, id: 1 }),
        (format!("gateway 1 {KEY}\nwitness 2 {KEY}"), KeyFileError::Mixed { line: 2 }),
    ];
    for (text, error) in table {
        assert_eq!(Keyring::parse(&text).unwrap_err(), error, "{text}");
        assert!(!error.to_string().contains(KEY));
    }
}

#[test]
fn text_and_witness_survive_a_round_trip() {
    let ring = Keyring::generate(7, [9; 32]);
    assert_eq!(*ring.to_text(), format!("gateway 7 {KEY}\n"));
    let witness = ring.to_witness();
    assert!(witness.is_witness());
    let again = Keyring::parse(&witness.to_text()).unwrap();
    assert!(again.is_witness());
    assert_eq!(*again.to_text(), *witness.to_text());
    assert_eq!(*again.to_witness().to_text(), *witness.to_text());
    // One way: the witness has no gateway key, and its secret is another one.
    assert!(again.find(7, false).is_none());
    assert!(!witness.to_text().contains(KEY));
    assert!(ring.find(7, false).is_some() && ring.find(7, true).is_some());
    assert!(ring.find(8, true).is_none());
}

#[test]
fn debug_shows_ids_only() {
    let text = format!("{:?}", Keyring::generate(7, [9; 32]));
    assert_eq!(text, "Keyring { witness: false, ids: [7], .. }");
}

#[test]
fn derived_secrets_are_bound_to_key_and_purpose() {
    let text = format!("gateway 3 {KEY}\ngateway 9 {}\n", STANDARD.encode([1; 32]));
    let ring = Keyring::parse(&text).unwrap();
    let one = ring.derive("sync");
    assert_eq!(one.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 9], "in the file's order");
    assert_eq!(one, Keyring::parse(&text).unwrap().derive("sync"));
    let mut all: Vec<[u8; 32]> = ["sync", "sync 2", ""]
        .into_iter()
        .flat_map(|purpose| ring.derive(purpose))
        .map(|(_, secret)| *secret)
        .chain([[9; 32], [1; 32], *ring.to_witness().keys[0].secret])
        .collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 9, "no two are equal");
}

#[test]
fn a_witness_derives_nothing() {
    assert!(Keyring::generate(7, [9; 32]).to_witness().derive("sync").is_empty());
}
