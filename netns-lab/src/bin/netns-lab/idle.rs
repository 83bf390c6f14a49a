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
        let ms_per_s = (now.ticks - before.ticks) as f64 * 10.0 / options.seconds as f64;
        println!("{name:<18} {:>7} KiB resident  {:>6.2} % of one core", now.kib, ms_per_s / 10.0);
    }
    Ok(())
}

/// Of a process and its children.
struct Cost {
    kib: u64,
    /// Hundredths of a second, user and system.
    ticks: u64,
}

impl Cost {
    fn of(pid: u32) -> Self {
        let mut total = Self { kib: 0, ticks: 0 };
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        for one in pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
            let Ok(stat) = fs::read_to_string(format!("/proc/{one}/stat")) else { continue };
            // The name may hold spaces; fields after it: state, parent, ... utime (12th), stime (13th).
            let fields: Vec<&str> =
                stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            let number = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
            if one == pid || number(1) == u64::from(pid) {
                total.ticks += number(11) + number(12);
                total.kib += resident_kib(one);
            }
        }
        total
    }
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
