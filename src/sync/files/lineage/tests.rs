use super::*;

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

/// `"a2 b1 = x"`: two edits of a, one of b, content x; `"a1 = -"`: deleted.
fn state(text: &str) -> State {
    let (edits, content) = text.split_once(" = ").unwrap();
    let count = |word: &str| {
        let (name, count) = word.split_at(1);
        (
            if name == "r" { format!("{ROOT}{count}") } else { name.to_owned() },
            count.parse().unwrap(),
        )
    };
    let edits = Edits(edits.split_whitespace().map(count).collect());
    let by = text[..1].to_owned();
    let version = Version { edits, by, at: 7, beaten: Vec::new() };
    State { version, content: (content != "-").then(|| hash(content)) }
}

/// A decision in a few words.
fn word(decision: &Decision) -> String {
    let edits = |v: &Version| {
        let all: Vec<_> = v.edits.0.iter().map(|(n, c)| format!("{n}{c}")).collect();
        all.join(" ")
    };
    match decision {
        Decision::Nothing => "nothing".to_owned(),
        Decision::Open => "open".to_owned(),
        Decision::Agree(version) => format!("agree {}", edits(version)),
        Decision::Take { version, keep } => {
            format!("take{} {}", if *keep { ", keep" } else { "" }, edits(version))
        }
    }
}

#[test]
fn every_order_of_two_versions() {
    for (mine, theirs, order) in [
        ("a1", "a1", Order::Same),
        ("a1", "a2", Order::Older),
        ("a2", "a1", Order::Newer),
        ("a1", "a1 b1", Order::Older),
        ("a1 b1", "b1", Order::Newer),
        ("a1", "b1", Order::Conflict),
        ("a2 b1", "a1 b2", Order::Conflict),
        ("a2 b1 c1", "a1 b2", Order::Conflict),
    ] {
        let edits = |text: &str| state(&format!("{text} = x")).version.edits;
        assert_eq!(edits(mine).compare(&edits(theirs)), order, "{mine} {theirs}");
    }
}

#[test]
fn what_a_node_does_about_another_ones_version() {
    use Favour::{Mine, Nobody, Theirs, Wait};
    for (mine, theirs, favour, expected) in [
        // One contains the other: roles have no say.
        ("a1 = x", "a2 = y", Mine, "take a2"),
        ("a2 = y", "a1 = x", Theirs, "nothing"),
        ("a1 = x", "a1 b1 = y", Mine, "take a1 b1"),
        // The same content.
        ("a1 = x", "a1 = x", Mine, "nothing"),
        ("a1 = x", "a2 = x", Mine, "agree a2"),
        ("a2 = x", "a1 = x", Mine, "nothing"),
        ("a1 = x", "b1 = x", Mine, "agree a1 b1"),
        // Two edits of one version.
        ("a2 b1 = x", "a1 b2 = y", Mine, "open"),
        ("a2 b1 = x", "a1 b2 = y", Theirs, "take, keep a2 b2"),
        ("a2 b1 = x", "a1 b2 = y", Wait, "open"),
        ("a2 b1 = x", "a1 b4 = y", Nobody, "take, keep a2 b4"),
        ("a4 b1 = x", "a1 b2 = y", Nobody, "open"),
        // Both decided for the other at once.
        ("a1 b1 = x", "a1 b1 = y", Mine, "open"),
        ("a1 b1 = x", "a1 b1 = y", Theirs, "take, keep a1 b1"),
        // A file without history against one with history, whoever is master.
        ("r1 = x", "a1 = y", Mine, "take, keep a1 root-11"),
        ("a1 = y", "r1 = x", Theirs, "open"),
        ("r1 = x", "r2 = y", Theirs, "take, keep root-11 root-22"),
        // Deletions.
        ("a1 = x", "a2 = -", Mine, "take a2"),
        ("a2 = -", "a1 = x", Theirs, "nothing"),
        ("a2 = x", "a1 b1 = -", Theirs, "open"),
        ("a2 = -", "a1 b1 = y", Mine, "take a2 b1"),
        ("a2 = -", "a1 b1 = -", Mine, "agree a2 b1"),
    ] {
        let found = word(&decide(Some(&state(mine)), &state(theirs), favour));
        assert_eq!(found, expected, "{mine} | {theirs} | {favour:?}");
    }
    assert_eq!(word(&decide(None, &state("a3 = x"), Wait)), "take a3");
}

/// Of every two nodes at most one gives way, and not both wait once the roles are clear.
#[test]
fn a_conflict_is_decided_the_same_way_by_both() {
    let states = ["a2 b1 = x", "a1 b2 = y", "a1 b2 = z", "a1 b2 = -", "r7 = x", "r8 = q", "c1 = y"];
    let taken = |d: &Decision| matches!(d, Decision::Take { .. } | Decision::Agree(_));
    for (one, other) in states.iter().flat_map(|a| states.iter().map(move |b| (a, b))) {
        let (a, b) = (state(one), state(other));
        for (of_a, of_b) in [
            (Favour::Mine, Favour::Theirs),
            (Favour::Theirs, Favour::Mine),
            (Favour::Nobody, Favour::Nobody),
        ] {
            let (at_a, at_b) = (decide(Some(&a), &b, of_a), decide(Some(&b), &a, of_b));
            if a == b
                || a.version.edits.compare(&b.version.edits) == Order::Same
                    && a.content == b.content
            {
                assert!(!taken(&at_a) && !taken(&at_b), "{one} | {other}");
            } else if a.content == b.content {
                assert!(taken(&at_a) || taken(&at_b), "{one} | {other}");
            } else {
                assert!(taken(&at_a) != taken(&at_b), "{one} | {other} {at_a:?} {at_b:?}");
            }
        }
    }
}

#[test]
fn whoever_has_a_lost_content_keeps_it_also_when_told_by_a_third() {
    // b edited, c took that, then lost it against a's: now c tells b before a does.
    let (a, b) = (state("a1 = x"), state("b1 = y"));
    let Decision::Take { version, keep: true } = decide(Some(&b), &a, Favour::Theirs) else {
        panic!("c gives way");
    };
    assert_eq!(version.beaten, [hash("y")]);
    let c = State { version, content: a.content };
    let told = decide(Some(&b), &c, Favour::Wait);
    assert_eq!(word(&told), "take, keep a1 b1");
    // The winner agrees, and an edit of it remembers.
    assert_eq!(word(&decide(Some(&a), &c, Favour::Mine)), "agree a1 b1");
    let next = c.edited(Some(hash("w")), "a", "a", 9);
    assert_eq!(word(&decide(Some(&b), &next, Favour::Wait)), "take, keep a2 b1");
    // A content that comes back has not lost.
    let back = State { content: Some(hash("y")), ..next };
    assert_eq!(word(&decide(Some(&b), &back, Favour::Wait)), "agree a2 b1");
}

#[test]
fn the_same_file_on_two_new_nodes_is_one_version() {
    let (a, b) = (State::found(hash("x"), "a", 1), State::found(hash("x"), "b", 2));
    assert_eq!(decide(Some(&a), &b, Favour::Wait), Decision::Nothing);
    let edited = a.edited(Some(hash("y")), "a-1", "a", 3);
    assert_eq!(edited.version.edits.number(), 2);
    assert!(matches!(decide(Some(&b), &edited, Favour::Mine), Decision::Take { keep: false, .. }));
}

#[test]
fn a_lost_state_directory_hides_no_edit() {
    // a's third edit; then a forgets, and edits what b has not seen: never older than what b knows.
    let known = state("a3 b1 = x");
    let again = State::found(hash("v"), "a", 1).edited(Some(hash("w")), "a-other", "a", 2);
    assert_eq!(again.version.edits.compare(&known.version.edits), Order::Conflict);
}

#[test]
fn whom_a_conflict_favours() {
    for (master, settled, expected) in [
        (Some("me"), false, Favour::Mine),
        (Some("peer"), true, Favour::Theirs),
        (Some("third"), true, Favour::Wait),
        (None, false, Favour::Wait),
        (None, true, Favour::Nobody),
    ] {
        assert_eq!(favour("me", "peer", master, settled), expected, "{master:?} {settled}");
    }
}

#[test]
fn versions_are_bounded() {
    let mut edits = Edits::root(&hash("x"));
    for number in 0..200 {
        edits = edits.edited_by(&format!("editor{number}"));
        assert!(edits.is_bounded());
    }
    assert_eq!(edits.0.len(), MAX_EDITORS);
    assert_eq!(edits.join(&state("a1 b1 = x").version.edits).0.len(), MAX_EDITORS);
    let long = Edits(BTreeMap::from([("x".repeat(MAX_EDITOR + 1), 1)]));
    assert!(!long.is_bounded() && !Edits::default().is_bounded());
}
