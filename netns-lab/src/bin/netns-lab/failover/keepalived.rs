//! The same fault with keepalived and wg-quick, as most set them up today.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{Echo, Lab, Node, Process, Spec, find_program, topology};

use super::Options;
use super::outage::probe;
use super::stage::Client;
use super::table::{Row, Table};

const BOUND: Duration = Duration::from_secs(60);

/// Brings wg0 up on the master and down on the other.
const NOTIFY: &str = "#!/bin/sh
export WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go
case $3 in
MASTER) exec wg-quick up wg0 ;;
*) if ip link show wg0 >/dev/null 2>&1; then exec wg-quick down wg0; fi ;;
esac
";

pub(super) fn run(options: &Options, table: &mut Table) -> Result<()> {
    for (program, package) in [("keepalived", "keepalived"), ("wg-quick", "wireguard-tools")] {
        ensure!(find_program(program).is_some(), "{program} is missing: install {package}");
    }
    let lab = Lab::builder().clients(1).build()?;
    let pair = Pair::start(options, lab)?;
    let kind = options.kinds(&pair.lab)?[0];
    let client = Client::start(&pair.lab, 1, kind, 0)?;
    let name =
        format!("keepalived + wg-quick, adverts {} ms: {kind}, NAT", options.heartbeat_ms.max(10));
    let mut row = Row::new(name, None);
    for number in 1..=options.keepalived_rounds {
        let done = pair.round(&client);
        let outage =
            done.with_context(|| format!("keepalived, round {number}\n{}", pair.logs()))?;
        table.endpoints_right(1);
        row.add_outage(&outage)?;
    }
    table.add(row);
    Ok(())
}

struct Pair {
    _echo: Echo,
    _processes: Vec<Process>,
    lab: Lab,
}

impl Pair {
    fn start(options: &Options, lab: Lab) -> Result<Self> {
        let echo = Echo::start(lab.host(), topology::ECHO_PORT)?;
        let start = |number| start(&lab, number, options.heartbeat_ms.max(10));
        let processes = vec![start(1)?, start(2)?];
        let pair = Self { _echo: echo, _processes: processes, lab };
        pair.settled().with_context(|| pair.logs())?;
        Ok(pair)
    }

    fn round(&self, client: &Client) -> Result<netns_lab::Outage> {
        let master = self.settled()?;
        client.reaches_host()?;
        self.lab.warm_neighbours();
        let mut outages = probe(std::slice::from_ref(client), || self.lab.cut_link(&master, true))?;
        client.check_endpoint()?;
        self.lab.heal_all()?;
        outages.pop().context("no client")
    }

    /// Waits until one gateway has the addresses and wg0, and the other has neither.
    fn settled(&self) -> Result<Node> {
        let end = Instant::now() + BOUND;
        loop {
            let [one, two] = [1, 2].map(|n| holds(self.lab.gateway(n)));
            match (one?, two?) {
                ([true, true], [false, false]) => return Ok(self.lab.gateway(1).clone()),
                ([false, false], [true, true]) => return Ok(self.lab.gateway(2).clone()),
                (one, two) => ensure!(
                    Instant::now() < end,
                    "keepalived does not settle: [floating IP, wg0] is {one:?} on gw1, {two:?} on gw2"
                ),
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn logs(&self) -> String {
        let log = |node: &Node| {
            let text = fs::read_to_string(node.dir().join("log/keepalived.log"));
            let text = text.unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
            format!("log of {}:\n{}\n", node.name(), tail.join("\n"))
        };
        self.lab.gateways().iter().map(log).collect()
    }
}

/// The floating IP, and wg0.
fn holds(node: &Node) -> Result<[bool; 2]> {
    let shown = node.exec(&["ip", "-o", "addr"])?;
    let floating = format!(" {}/32 ", topology::floating().v4);
    Ok([shown.contains(&floating), shown.contains(" wg0 ")])
}

fn start(lab: &Lab, number: u8, advert_ms: u64) -> Result<Process> {
    let node = lab.gateway(number.into());
    lab.write_wg0(node)?;
    let (own, peer) = (topology::gateway(number).v4, topology::gateway(3 - number).v4);
    let (config, notify) = (node.dir().join("keepalived.conf"), node.dir().join("notify.sh"));
    fs::write(&notify, NOTIFY)?;
    fs::set_permissions(&notify, fs::Permissions::from_mode(0o755))?;
    let addresses: String = lab
        .floating_ips()
        .iter()
        .filter(|(address, _)| !address.contains(':'))
        .map(|(address, interface)| format!(" {address} dev {interface}\n "))
        .collect();
    fs::write(
        &config,
        format!(
            "global_defs {{\n script_user root\n}}\nvrrp_instance lab {{\n state BACKUP\n nopreempt\n interface eth0\n \
             virtual_router_id 5\n priority {}\n advert_int {:.2}\n version 3\n unicast_src_ip {own}\n \
             unicast_peer {{\n {peer}\n }}\n virtual_ipaddress {{\n {addresses}}}\n notify \"{}\"\n}}\n",
            if number == 1 { 150 } else { 100 },
            advert_ms as f64 / 1e3,
            notify.display(),
        ),
    )?;
    let config = config.display().to_string();
    let argv = ["keepalived", "--dont-fork", "--log-console", "--use-file", &config];
    // Its files of the process id lie in /run, which each node has for itself.
    node.spawn(Spec::new(argv))
}
