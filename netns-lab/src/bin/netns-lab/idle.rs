//! What the idle daemon costs, beside keepalived at the same interval at the same time.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_lab::{Cluster, Lab, Node, Process, Spec, find_program, topology};

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// How long to look.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        find_program("keepalived").is_some(),
        "the program keepalived is missing: install keepalived"
    );
    let ours = Lab::builder().cluster(options.pair.cluster()).build()?;
    let theirs = Lab::builder().clients(0).build()?;
    let mut cluster = Cluster::start(&ours, &options.pair.program()?)?;
    let keepalived = [(1, 150), (2, 100)]
        .map(|(number, priority)| keepalived(&theirs, number, priority, options.pair.heartbeat_ms));
    let keepalived: Vec<Process> = keepalived.into_iter().collect::<Result<_>>()?;
    let master = cluster.wait_master(Duration::from_secs(20))?;
    cluster.wait_ready(Duration::from_secs(20))?;
    wait_keepalived(&theirs)?;

    let mut rows = Vec::new();
    for node in ours.gateways() {
        let role = if node.name() == master.name() { "master" } else { "backup" };
        rows.push((format!("wgha {role}"), cluster.process(node.name()).pid()));
    }
    for (process, role) in keepalived.iter().zip(["master", "backup"]) {
        rows.push((format!("keepalived {role}"), process.pid()));
    }
    println!(
        "idle for {} s at {} ms heartbeats; keepalived: all its processes together",
        options.seconds, options.pair.heartbeat_ms
    );
    let before: Vec<Cost> = rows.iter().map(|(_, pid)| Cost::of(*pid)).collect();
    thread::sleep(Duration::from_secs(options.seconds));
    for ((name, pid), before) in rows.iter().zip(before) {
        let now = Cost::of(*pid);
        ensure!(now.kib > 0, "{name} ended");
        let share =
            (now.cpu_ns.saturating_sub(before.cpu_ns)) as f64 / 1e7 / options.seconds as f64;
        println!("{name:<18} {:>7} KiB resident  {share:>6.3} % of one core", now.kib);
    }
    Ok(())
}

/// Of a process and its children.
pub(crate) struct Cost {
    pub(crate) kib: u64,
    pub(crate) cpu_ns: u64,
}

impl Cost {
    pub(crate) fn of(pid: u32) -> Self {
        let mut total = Self { kib: 0, cpu_ns: 0 };
        for one in ids("/proc").filter(|&one| one == pid || parent(one) == Some(pid)) {
            total.kib += resident_kib(one);
            total.cpu_ns += cpu_ns(one);
        }
        total
    }
}

fn ids(dir: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces; after it come the state and the parent.
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// Time on a processor of all its threads: finer than the ticks in `stat`.
fn cpu_ns(pid: u32) -> u64 {
    let thread = |tid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    ids(&format!("/proc/{pid}/task")).filter_map(thread).sum()
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A pair of keepalived with unicast adverts and one floating IP.
fn keepalived(lab: &Lab, number: u8, priority: u8, interval_ms: u64) -> Result<Process> {
    let node = lab.gateway(number.into());
    let (own, peer) = (topology::gateway(number).v4, topology::gateway(3 - number).v4);
    let path = node.dir().join("keepalived.conf");
    fs::write(
        &path,
        format!(
            "vrrp_instance idle {{\n state BACKUP\n interface eth0\n virtual_router_id 5\n priority {priority}\n \
             advert_int {:.2}\n version 3\n unicast_src_ip {own}\n unicast_peer {{\n {peer}\n }}\n \
             virtual_ipaddress {{\n {}/32\n }}\n}}\n",
            interval_ms as f64 / 1e3,
            topology::floating().v4
        ),
    )?;
    node.spawn(Spec::new([
        "keepalived",
        "--dont-fork",
        "--log-console",
        "--use-file",
        &path.display().to_string(),
    ]))
}

fn wait_keepalived(lab: &Lab) -> Result<()> {
    let holds =
        |node: &Node| node.exec(&["ip", "addr"]).is_ok_and(|t| t.contains("203.0.113.100/32"));
    for _ in 0..100 {
        if holds(lab.gateway(1)) && !holds(lab.gateway(2)) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let log =
        fs::read_to_string(lab.gateway(1).dir().join("log/keepalived.log")).unwrap_or_default();
    anyhow::bail!("keepalived does not become master:\n{log}")
}
