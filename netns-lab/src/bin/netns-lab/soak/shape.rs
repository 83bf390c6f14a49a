//! Everything that a gateway's kernel holds, and which programs run, as it was in each role before the first fault: what is
//! there later and was not then is left over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netns_lab::{Cluster, Lab, Node, WgPeer, processes_of};

const BOUND: Duration = Duration::from_secs(60);

/// Interfaces, addresses, rules, routes, nf_tables.
const LOOK: &str = "ip -o link; ip -o addr; ip -4 rule; ip -6 rule; ip -4 route show table all; \
                    ip -6 route show table all; nft list ruleset";

type Lines = Vec<String>;

/// Of each member in each role that it can have at rest.
pub(super) struct Shapes {
    of: BTreeMap<(String, bool), Lines>,
    programs: Lines,
}

impl Shapes {
    /// Looks at both gateways in both roles: hands the role over, and back.
    pub(super) fn learn(lab: &Lab, cluster: &Cluster, peer: &WgPeer) -> Result<Shapes> {
        let mut of = BTreeMap::new();
        for _ in 0..2 {
            let master = cluster.wait_master(BOUND)?;
            cluster.wait_ready(BOUND)?;
            lab.wait_clean(cluster, &[peer], BOUND)?;
            // Announcements and the client's last retries are over.
            std::thread::sleep(Duration::from_secs(2));
            for node in lab.members() {
                of.insert((node.name().to_owned(), node.name() == master.name()), look(node)?);
            }
            let end = Instant::now() + BOUND;
            while cluster.command(&master, &["handover"]).is_err() {
                ensure!(Instant::now() < end, "{} does not hand over", master.name());
                std::thread::sleep(Duration::from_millis(200));
            }
            while cluster.wait_master(BOUND)?.name() == master.name() {
                ensure!(Instant::now() < end, "{} stays master", master.name());
            }
        }
        Ok(Shapes { of, programs: programs(lab)? })
    }

    /// What is not as it was, in words; empty is good.
    pub(super) fn compare(&self, lab: &Lab, cluster: &Cluster) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let masters = cluster.masters();
        for node in lab.members() {
            let is_master = masters.iter().any(|master| master.name() == node.name());
            let Some(was) = self.of.get(&(node.name().to_owned(), is_master)) else {
                wrong.push(format!("{} was never master: {is_master} before", node.name()));
                continue;
            };
            wrong.extend(differences(node.name(), was, &look(node)?));
        }
        wrong.extend(differences("programs", &self.programs, &programs(lab)?));
        Ok(wrong)
    }
}

fn differences(name: &str, was: &Lines, is: &Lines) -> Lines {
    let missing =
        was.iter().filter(|line| !is.contains(line)).map(|l| format!("{name}: missing: {l}"));
    let more =
        is.iter().filter(|line| !was.contains(line)).map(|l| format!("{name}: left over: {l}"));
    let count = (was.len() != is.len()
        && was.iter().all(|l| is.contains(l))
        && is.iter().all(|l| was.contains(l)))
    .then(|| format!("{name}: {} entries, not {}: {is:?}", is.len(), was.len()));
    missing.chain(more).chain(count).collect()
}

fn look(node: &Node) -> Result<Lines> {
    let shown = node.sh(LOOK)?;
    let mut lines: Lines = shown.lines().filter_map(steady).collect();
    lines.sort();
    Ok(lines)
}

/// A line without what changes by itself: indices, counters, times left, random link-local addresses.
fn steady(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let link_local = |word: &&str| word.starts_with("fe80:") || word.starts_with("ff00:");
    if words.iter().any(link_local) {
        return None;
    }
    let mut kept = Vec::new();
    let mut skip = 0;
    for word in words {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        match word {
            "packets" | "bytes" | "expires" | "mtu" | "qdisc" | "valid_lft" | "preferred_lft"
            | "qlen" | "state" | "link/ether" | "group" | "age" => skip = 1,
            // Of the gate's elements: what was left of a permission, in ticks of the kernel's clock.
            "timeout" => skip = 1,
            // `ip -o` begins with the index, and breaks lines.
            "\\" => {}
            _ if word.ends_with(':')
                && word.trim_end_matches(':').parse::<u32>().is_ok()
                && kept.is_empty() => {}
            _ => kept.push(word),
        }
    }
    (!kept.is_empty()).then(|| kept.join(" "))
}

/// The programs of the whole lab by name, but for those of this look.
fn programs(lab: &Lab) -> Result<Lines> {
    let name = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let mut names: Lines = processes_of(lab.dir())?
        .into_iter()
        .filter_map(name)
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    Ok(names)
}
