//! Whatever happens in whatever order: in the end both have the same, and no edit is lost.

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::*;

/// A small generator of numbers below a bound.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// As an editor that sees what it replaces. Returns that.
fn edit(gateway: &Gateway, text: &str) -> String {
    let (new, path) = (gateway.at(".plain.new"), gateway.at("plain"));
    fs::write(&new, text).unwrap();
    if renameat2(AT_FDCWD, &new, AT_FDCWD, &path, RenameFlags::RENAME_EXCHANGE).is_err() {
        fs::rename(&new, &path).unwrap();
        return String::new();
    }
    let before = fs::read_to_string(&new).unwrap();
    fs::remove_file(&new).unwrap();
    before
}

fn one(seed: u64) {
    println!("seed {seed}");
    let (mut rng, mut pair) = (Rng(seed), Pair::start());
    let (mut written, mut seen) = (Vec::new(), Vec::new());
    for number in 0..25 {
        match rng.below(10) {
            0..=5 => {
                let gateway = if rng.below(2) == 0 { &pair.a } else { &pair.b };
                let text = format!("edit {number} on {}", gateway.name);
                seen.push(edit(gateway, &text));
                written.push(text);
            }
            6 => pair.cut(),
            7 => pair.connect_losing(rng.below(4) * 3),
            8 => pair.lead(if rng.below(2) == 0 { "gw1" } else { "gw2" }),
            _ => {
                pair.cut();
                let gateway = if rng.below(2) == 0 { &mut pair.a } else { &mut pair.b };
                gateway.stop();
                if rng.below(2) == 0 {
                    let text = format!("edit {number} while {} was down", gateway.name);
                    seen.push(edit(gateway, &text));
                    written.push(text);
                }
                gateway.start();
            }
        }
        thread::sleep(Duration::from_millis(rng.below(4) * 60));
    }
    pair.cut();
    pair.connect();
    let mut last = String::new();
    eventually("both have the same", || {
        last = pair.a.text("plain");
        let same = |g: &Gateway| g.row("plain").is_some_and(|row| row.in_sync);
        let quiet = written.is_empty() || same(&pair.a) && same(&pair.b);
        let view = || format!("{:?} {:?}", pair.a.row("plain"), pair.b.row("plain"));
        if quiet && last == pair.b.text("plain") { Ok(()) } else { Err(view()) }
    });
    seen.push(last);
    let kept = pair.a.lost().into_iter().chain(pair.b.lost());
    seen.extend(kept.map(|(_, text)| text));
    for text in &written {
        assert!(seen.contains(text), "seed {seed}: {text:?} is lost");
    }
}

#[test]
fn no_edit_is_lost_in_any_order() {
    let given = std::env::var("WGHA_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = given.map_or(1..9, |seed| seed..seed + 1);
    for seed in seeds {
        one(seed);
    }
}
