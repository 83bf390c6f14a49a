//! The gate against the real kernel: what it holds back while it is shut and nothing else, that it
//! shuts by itself when it is due, that renewing loses nothing, and that it comes back when others
//! remove it. Needs `nft`.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use wgha::clock;
use wgha::net::gate::{self, Gate, Guarded, Permit, Plan};
use wgha::net::watch::Watch;

use crate::namespace::{Ns, as_root, eventually, inside};

const NAME: &str = "wgha_edge";
const PORT: u16 = 51820;
const VIP: [&str; 2] = ["10.0.0.10", "fd00::10"];

/// So long without a change, and none is under way.
const QUIET: Duration = Duration::from_millis(500);

/// A gateway with floating IPs and a gate, and its neighbour.
struct Lab {
    gateway: Ns,
    neighbour: Ns,
    permit: Permit,
}

impl Lab {
    fn new() -> Lab {
        let (gateway, neighbour) = (Ns::new(), Ns::new());
        gateway.cable("eth0", &neighbour, "eth0");
        for (ns, last) in [(&gateway, "2"), (&neighbour, "1")] {
            ns.address("eth0", &format!("10.0.0.{last}/24"));
            ns.address("eth0", &format!("fd00::{last}/64"));
        }
        // One that never speaks by itself.
        neighbour.address("eth0", "10.0.0.7/32");
        neighbour.address("eth0", "fd00::7/128");
        gateway.address("eth0", "10.0.0.10/32");
        gateway.address("eth0", "fd00::10/128");
        Lab { gateway, neighbour, permit: Permit::new().unwrap() }
    }

    /// The gate, built.
    fn gate(&self) -> Gate {
        let permit = self.permit.clone();
        let gate = self.gateway.run(move || Gate::start(NAME, plan(), permit, false).unwrap());
        assert_eq!(gate.monitor().health().process_only, None);
        gate
    }

    /// Opens for so long, and waits until it is.
    fn open(&self, gate: &Gate, time: Duration) {
        self.permit.set(Some(clock::now() + time));
        eventually("it opens", || gate.monitor().turns().open_until > clock::now());
    }

    fn nft(&self, arguments: &'static [&str]) -> String {
        self.gateway.run(move || nft(arguments))
    }

    /// Gives the neighbour the same tables, which no thread looks after there.
    fn copy(&self) {
        let saved = std::env::temp_dir().join(format!("wgha-gate-{}.nft", std::process::id()));
        std::fs::write(&saved, self.nft(&["list", "ruleset"])).unwrap();
        let path = saved.to_string_lossy().into_owned();
        self.neighbour.run(move || nft(&["-f", &path]));
        std::fs::remove_file(&saved).unwrap();
    }

    /// What the neighbour believes.
    fn believed(&self, vip: &str) -> bool {
        self.neighbour.ip(&format!("neigh show {vip} dev eth0")).contains("lladdr")
    }
}

fn plan() -> Plan {
    let ips: Vec<IpAddr> = VIP.iter().map(|ip| ip.parse().unwrap()).collect();
    Plan { tunnels: vec![Guarded { port: PORT, addresses: ips.clone() }], floating_ips: ips }
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().expect("nft (install nftables)");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn socket(ip: &str, port: u16) -> UdpSocket {
    let ip: IpAddr = ip.parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let socket = loop {
        match UdpSocket::bind((ip, port)) {
            // A program that another test starts holds all our sockets for the moment before its exec, the
            // one that was just closed among them.
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => break other.unwrap(),
        }
    };
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// One datagram from `from` to `to`; whether it came.
fn passes(sender: &Ns, from: (&'static str, u16), receiver: &Ns, to: (&'static str, u16)) -> bool {
    let ear = receiver.run(move || socket(to.0, to.1));
    let sent = sender.run(move || socket(from.0, from.1).send_to(b"hello", to));
    match sent {
        // What the output hook drops is an error to the sender.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return false,
        other => other.unwrap(),
    };
    receiver.run(move || ear.recv_from(&mut [0; 16]).is_ok())
}

#[test]
fn shut_it_holds_back_wireguards_port_both_ways_and_nothing_else() {
    as_root("gate::shut_it_holds_back_wireguards_port_both_ways_and_nothing_else", || {
        let lab = Lab::new();
        let (gw, nb) = (&lab.gateway, &lab.neighbour);
        // Neighbours know each other, or the gate would hold back what leads to the floating IP.
        for (vip, own) in [(VIP[0], "10.0.0.1"), (VIP[1], "fd00::1")] {
            eventually("in, before there is a gate", || passes(nb, (own, 4000), gw, (vip, PORT)));
            eventually("out, before there is a gate", || passes(gw, (vip, PORT), nb, (own, 4000)));
        }
        let gate = lab.gate();
        for (vip, own, other) in [(VIP[0], "10.0.0.1", "10.0.0.2"), (VIP[1], "fd00::1", "fd00::2")]
        {
            assert!(!passes(nb, (own, 4000), gw, (vip, PORT)), "in, {vip}");
            assert!(!passes(gw, (vip, PORT), nb, (own, 4000)), "out, {vip}");
            assert!(passes(nb, (own, 4000), gw, (vip, 5000)), "another port, in");
            assert!(passes(gw, (vip, 5000), nb, (own, 4000)), "another port, out");
            assert!(passes(nb, (own, 4000), gw, (other, PORT)), "another address, in");
            assert!(passes(gw, (other, PORT), nb, (own, 4000)), "another address, out");
            assert!(passes(gw, (other, 5000), nb, (own, PORT)), "another's port");
        }
        lab.open(&gate, Duration::from_secs(60));
        for (vip, own) in [(VIP[0], "10.0.0.1"), (VIP[1], "fd00::1")] {
            assert!(passes(nb, (own, 4000), gw, (vip, PORT)), "open, in, {vip}");
            assert!(passes(gw, (vip, PORT), nb, (own, 4000)), "open, out, {vip}");
        }
        lab.permit.set(None);
        eventually("it shuts", || gate.monitor().turns().open_until <= clock::now());
        assert!(!passes(nb, ("10.0.0.1", 4000), gw, (VIP[0], PORT)), "shut again");
    });
}

#[test]
fn shut_nobody_learns_where_the_floating_ip_is() {
    as_root("gate::shut_nobody_learns_where_the_floating_ip_is", || {
        let lab = Lab::new();
        let gate = lab.gate();
        let ask = || {
            lab.neighbour.ip("neigh flush dev eth0");
            for (vip, own) in [(VIP[0], "10.0.0.1"), (VIP[1], "fd00::1")] {
                passes(&lab.neighbour, (own, 4000), &lab.gateway, (vip, 5000));
            }
        };
        ask();
        assert!(!lab.believed(VIP[0]) && !lab.believed(VIP[1]), "asked, and answered");
        // From the floating IP to someone whose place is not known: asking would tell.
        for (vip, unknown) in [(VIP[0], "10.0.0.7"), (VIP[1], "fd00::7")] {
            assert!(!passes(&lab.gateway, (vip, 5000), &lab.neighbour, (unknown, 4000)));
        }
        assert!(!lab.believed(VIP[0]) && !lab.believed(VIP[1]), "told by asking");
        // The machine's own addresses answer as ever.
        assert!(passes(&lab.neighbour, ("10.0.0.1", 4000), &lab.gateway, ("10.0.0.2", 5000)));
        assert!(passes(&lab.neighbour, ("fd00::1", 4000), &lab.gateway, ("fd00::2", 5000)));
        lab.open(&gate, Duration::from_secs(60));
        eventually("both are found", || {
            ask();
            lab.believed(VIP[0]) && lab.believed(VIP[1])
        });
    });
}

/// A gate that heeds its time is wrong by the kernel's tick and the sender's turn, and one that does not by tens.
const TIMELY: Duration = Duration::from_millis(20);

/// Passes all on to the first that is timely.
fn once_timely(done: &mut bool, wrong: Duration) -> Option<Duration> {
    (!std::mem::replace(done, wrong < TIMELY)).then_some(wrong)
}

/// Opens the gate for so long, and says how long before or after the end the last packet passed.
fn shuts(lab: &Lab, ms: u64) -> Duration {
    let until = clock::now() + Duration::from_millis(ms);
    lab.permit.set(Some(until));
    let last = lab.gateway.run(move || {
        let socket = socket(VIP[0], PORT);
        let mut last = None;
        loop {
            // The packet passes after this, so a late one is seen to be late at most too little.
            let now = clock::now();
            if now.since(until) > Duration::from_millis(50) {
                return last;
            }
            if socket.send_to(b"x", ("10.0.0.1", 9)).is_ok() {
                last = Some(now);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    // On a machine with more to do the gate may not have opened in time: all of it too early.
    let Some(last) = last else { return Duration::from_millis(ms) };
    until.since(last).max(last.since(until))
}

#[test]
fn it_shuts_by_itself_when_it_is_due() {
    as_root("gate::it_shuts_by_itself_when_it_is_due", || {
        let lab = Lab::new();
        let gate = lab.gate();
        for ms in [50, 100, 150, 300] {
            // The sender may not have run at the end, or the gate, or a processor that the kernel counts its
            // ticks on; some time all will have.
            let tries: Vec<Duration> =
                (0..40).map(|_| shuts(&lab, ms)).scan(false, once_timely).collect();
            println!("{ms} ms: shut early or late by {tries:?}");
            assert!(tries.last().is_some_and(|wrong| *wrong < TIMELY), "{tries:?} early or late");
        }
        assert!(gate.monitor().turns().renewed >= 4);
    });
}

#[test]
fn renewing_loses_nothing() {
    as_root("gate::renewing_loses_nothing", || {
        let lab = Lab::new();
        let gate = lab.gate();
        lab.open(&gate, Duration::from_secs(60));
        let before = gate.monitor().turns();
        let permit = lab.permit.clone();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let renewing = std::thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                permit.set(Some(clock::now() + Duration::from_secs(60)));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let lost = lab.gateway.run(|| {
            let socket = socket(VIP[0], PORT);
            let mut lost = 0;
            for sent in 0..100_000 {
                lost += usize::from(socket.send_to(b"x", ("10.0.0.1", 9)).is_err());
                if sent % 50 == 0 {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
            lost
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        renewing.join().unwrap();
        let turns = gate.monitor().turns();
        let renewed = turns.renewed - before.renewed;
        println!("{renewed} renewals, slowest {:?}", turns.slowest);
        assert_eq!(lost, 0, "of 100,000, in {renewed} renewals");
        assert!(renewed > 300, "{renewed} renewals");
        assert_eq!(turns.lapsed, 0);
    });
}

/// Who looks at the whole machine after each change must not do so with each heartbeat.
#[test]
fn renewing_is_no_change_for_the_watch() {
    as_root("gate::renewing_is_no_change_for_the_watch", || {
        let lab = Lab::new();
        let gate = lab.gate();
        lab.open(&gate, Duration::from_secs(60));
        let (permit, monitor) = (lab.permit.clone(), gate.monitor());
        lab.gateway.run_async(|| async move {
            let mut watch = Watch::open().unwrap();
            while timeout(QUIET, watch.changed()).await.is_ok() {}
            let before = monitor.turns().renewed;
            for _ in 0..50 {
                permit.set(Some(clock::now() + Duration::from_secs(60)));
                let told = timeout(Duration::from_millis(10), watch.changed()).await;
                assert!(told.is_err(), "after {} renewals", monitor.turns().renewed - before);
            }
            assert!(monitor.turns().renewed > before, "nothing was renewed");
            nft(&["add", "table", "inet", "own"]);
            timeout(Duration::from_secs(60), watch.changed()).await.expect("a table").unwrap();
        });
    });
}

#[test]
fn it_follows_the_permit_at_once() {
    as_root("gate::it_follows_the_permit_at_once", || {
        let lab = Lab::new();
        let gate = lab.gate();
        let monitor = gate.monitor();
        let mut costs: Vec<Duration> = (0..500)
            .map(|n| {
                let open = n % 2 == 0;
                let began = Instant::now();
                lab.permit.set(open.then(|| clock::now() + Duration::from_secs(60)));
                while (monitor.turns().open_until > clock::now()) != open {
                    assert!(began.elapsed() < Duration::from_secs(10), "turn {n}");
                    std::thread::yield_now();
                }
                began.elapsed()
            })
            .collect();
        costs.sort();
        println!("permit to kernel: median {:?}, 99 % {:?}", costs[250], costs[495]);
    });
}

#[test]
fn it_comes_back_when_others_remove_or_bend_it() {
    as_root("gate::it_comes_back_when_others_remove_or_bend_it", || {
        let lab = Lab::new();
        let gate = lab.gate();
        let handle = || {
            let listed = lab.nft(&["-a", "list", "chain", "inet", NAME, "output"]);
            let rule = listed.lines().find(|l| l.contains("udp sport")).unwrap_or_default();
            rule.rsplit(' ').next().unwrap_or_default().to_owned()
        };
        let shown = || {
            let listed = lab.nft(&["-s", "list", "ruleset"]);
            let lines: Vec<&str> = listed.lines().filter(|l| !l.contains("elements")).collect();
            lines.join("\n")
        };
        let good = shown();
        let rule = handle();
        let bends: Vec<Vec<String>> = [
            "flush ruleset".to_owned(),
            format!("delete table inet {NAME}"),
            format!("delete table arp {NAME}"),
            format!("flush chain inet {NAME} output"),
            format!("add table inet {NAME} {{ flags dormant; }}"),
            format!("delete rule inet {NAME} output handle {rule}"),
            format!("insert rule inet {NAME} input accept"),
        ]
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .into();
        for open in [false, true] {
            for bend in &bends {
                lab.permit.set(open.then(|| clock::now() + Duration::from_secs(60)));
                eventually("it follows", || {
                    (gate.monitor().turns().open_until > clock::now()) == open
                });
                let before = gate.monitor().health().restored;
                let mut bend = bend.clone();
                if bend[0] == "delete" && bend[1] == "rule" {
                    *bend.last_mut().unwrap() = handle();
                }
                let words = bend.clone();
                lab.gateway.run(move || nft(&words.iter().map(String::as_str).collect::<Vec<_>>()));
                let ended = Instant::now();
                eventually("it is put back", || gate.monitor().health().restored > before);
                println!("{}: put back {:?} after nft ended", bend.join(" "), ended.elapsed());
                assert_eq!(shown(), good, "after {bend:?}");
                assert_eq!(
                    passes(&lab.gateway, (VIP[0], PORT), &lab.neighbour, ("10.0.0.1", 4000)),
                    open,
                    "after {bend:?}"
                );
            }
        }
        // Opened by somebody else: shut again, without a restoration.
        lab.permit.set(None);
        eventually("it shuts", || gate.monitor().turns().open_until <= clock::now());
        lab.nft(&["add", "element", "inet", NAME, "open", "{ udp }"]);
        eventually("it is shut again", || {
            !passes(&lab.gateway, (VIP[0], PORT), &lab.neighbour, ("10.0.0.1", 4000))
        });
        // What does not concern it is left alone.
        let before = gate.monitor().health().restored;
        lab.nft(&["add", "table", "inet", "own"]);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(gate.monitor().health().restored, before);
    });
}

#[test]
fn nft_reads_it_and_it_goes_without_a_trace() {
    as_root("gate::nft_reads_it_and_it_goes_without_a_trace", || {
        let lab = Lab::new();
        let mut gate = lab.gate();
        let listed = lab.nft(&["-s", "list", "ruleset"]);
        for line in [
            "table inet wgha_edge {",
            "table arp wgha_edge {",
            "type filter hook input priority raw; policy accept;",
            "type filter hook output priority raw; policy accept;",
            "ip daddr 10.0.0.10 udp dport 51820 meta l4proto != @open counter drop",
            "ip saddr 10.0.0.10 udp sport 51820 meta l4proto != @open counter drop",
            "ip6 daddr fd00::10 udp dport 51820 meta l4proto != @open counter drop",
            "ip6 saddr fd00::10 udp sport 51820 meta l4proto != @open counter drop",
            "nd-neighbor-solicit ip6 saddr fd00::10 meta l4proto != @open counter drop",
            "arp saddr ip 10.0.0.10 meta protocol != @open counter drop",
        ] {
            assert!(listed.contains(line), "{line}\nin\n{listed}");
        }
        // Old versions of nft show the target as bytes.
        let advert = listed.lines().find(|l| l.contains("nd-neighbor-advert")).unwrap();
        assert!(advert.contains("fd00::10") || advert.contains("0xfd00"), "{advert}");
        // A saved ruleset with it must load, or the machine's firewall would not.
        lab.copy();

        lab.gateway.run_async(|| async move { gate.remove().await.unwrap() });
        assert_eq!(lab.nft(&["list", "ruleset"]), "");
        assert!(!lab.gateway.run(|| gate::remove(NAME).unwrap()), "nothing is left");
        // As after a crash.
        drop(lab.gate());
        assert!(lab.nft(&["list", "ruleset"]).contains(NAME));
        assert!(lab.gateway.run(|| gate::remove(NAME).unwrap()));
        assert_eq!(lab.nft(&["list", "ruleset"]), "");
    });
}

#[test]
fn a_renewal_never_counts_from_too_late() {
    as_root("gate::a_renewal_never_counts_from_too_late", || {
        let lab = Lab::new();
        let gate = lab.gate();
        // Somebody loads rulesets all the time, each of which holds the kernel's lock for long.
        let mut rules = String::from(
            "table inet other\ndelete table inet other\ntable inet other {\n chain c {\n",
        );
        for n in 0..10_000 {
            rules += &format!(
                "  ip saddr 10.{}.{}.1 udp dport {} counter accept\n",
                n / 250,
                n % 250,
                n + 1
            );
        }
        rules += " }\n}\n";
        let file = std::env::temp_dir().join(format!("wgha-rules-{}.nft", std::process::id()));
        std::fs::write(&file, rules).unwrap();
        let path = file.to_string_lossy().into_owned();
        let began = gate.monitor().turns();
        let end = Instant::now() + Duration::from_secs(6);
        let permit = lab.permit.clone();
        let renewing = std::thread::spawn(move || {
            while Instant::now() < end {
                permit.set(Some(clock::now() + Duration::from_millis(100)));
                std::thread::sleep(Duration::from_millis(170));
            }
        });
        let (permit, socket) = (lab.permit.clone(), lab.gateway.run(|| socket(VIP[0], PORT)));
        let sending = std::thread::spawn(move || {
            let (mut passed, mut late) = (0, HashMap::new());
            while Instant::now() < end {
                // What is sent after this was passed by a gate that should have been shut since.
                let (now, until) = (clock::now(), permit.until());
                if socket.send_to(b"x", ("10.0.0.1", 9)).is_ok() && permit.until() == until {
                    passed += 1;
                    let most = late.entry(until).or_insert(Duration::ZERO);
                    *most = now.since(until).max(*most);
                }
                std::thread::sleep(Duration::from_micros(300));
            }
            (passed, late)
        });
        let (loads, load) = lab.gateway.run(move || {
            let (mut loads, began) = (0, Instant::now());
            while Instant::now() < end {
                nft(&["-f", &path]);
                loads += 1;
            }
            (loads, began.elapsed() / loads)
        });
        renewing.join().unwrap();
        let (passed, late) = sending.join().unwrap();
        // One at a time may be late because a processor stood still; by the lock, most would be.
        let mut late: Vec<Duration> = late.into_values().collect();
        late.sort();
        let median = late.get(late.len() / 2).copied().expect("no packet passed");
        std::fs::remove_file(&file).unwrap();
        let turns = gate.monitor().turns();
        println!(
            "{loads} rulesets of 10,000 rules loaded, {load:?} each, beside {} renewals: slowest {:?}, lapsed {}, {passed} packets, median {median:?} late, worst {:?}",
            turns.renewed - began.renewed,
            turns.slowest,
            turns.lapsed,
            late.last()
        );
        assert!(loads > 0 && passed > 0, "{loads} loads, {passed} packets");
        assert!(
            median < load / 4,
            "{median:?} late in the median, of {load:?} that a ruleset takes"
        );
        assert_eq!(gate.monitor().health().restored, 0);
    });
}

#[test]
fn where_it_is_not_allowed_it_says_so_and_nothing_waits_for_it() {
    const TEST: &str = "gate::where_it_is_not_allowed_it_says_so_and_nothing_waits_for_it";
    const INSIDE: &str = "WGHA_TEST_WITHOUT_NET_ADMIN";
    if std::env::var_os(INSIDE).is_none() {
        return as_root(TEST, || {
            let mut setpriv = Command::new("setpriv");
            inside(setpriv.args(["--bounding-set", "-net_admin"]).env(INSIDE, "1"), TEST);
        });
    }
    let permit = Permit::new().unwrap();
    let mut gate = Gate::start(NAME, plan(), permit.clone(), false).unwrap();
    let why = gate.monitor().health().process_only.expect("no gate");
    assert!(why.contains("not permitted"), "{why}");
    permit.set(Some(clock::now() + Duration::from_secs(60)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Either would be false after waiting for a gate that there is not.
        assert!(gate.opened().await && gate.closed().await);
        assert!(gate.allows(), "what the daemon itself asks");
        permit.set(None);
        assert!(!gate.allows());
        gate.remove().await.unwrap();
    });
}

/// What a guard does when the process that held the gate open is dead.
#[test]
fn shut_by_another_process() {
    as_root("gate::shut_by_another_process", || {
        let lab = Lab::new();
        let gate = lab.gate();
        lab.open(&gate, Duration::from_secs(3600));
        lab.copy();
        let elements = || {
            let list = lab.neighbour.run(|| nft(&["list", "ruleset"]));
            assert!(list.contains("table inet wgha_edge") && list.contains("table arp wgha_edge"));
            list.matches("elements").count()
        };
        assert_eq!(elements(), 2);
        lab.neighbour.run(|| gate::shut(NAME).unwrap());
        assert_eq!(elements(), 0);
        // Again, and where nothing is.
        lab.neighbour.run(|| gate::shut(NAME).unwrap());
        lab.neighbour.run(|| gate::shut("wgha_other").unwrap());
        // What never expires.
        lab.neighbour.run(|| nft(&["add", "element", "inet", NAME, "open", "{ udp }"]));
        assert_eq!(elements(), 1);
        lab.neighbour.run(|| gate::shut(NAME).unwrap());
        assert_eq!(elements(), 0);
    });
}

/// Whatever keeps it from looking, but for a kernel without nf_tables, is no proof that nothing is open.
#[test]
fn who_cannot_look_does_not_say_that_it_is_shut() {
    const TEST: &str = "gate::who_cannot_look_does_not_say_that_it_is_shut";
    const INSIDE: &str = "WGHA_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(INSIDE).is_none() {
        return inside(Command::new("prlimit").arg("--nofile=64").env(INSIDE, "1"), TEST);
    }
    let all: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let (shut, removed) = (gate::shut(NAME), gate::remove(NAME));
    assert!(!all.is_empty());
    drop(all);
    assert_eq!(shut.unwrap_err().raw_os_error(), Some(nix::libc::EMFILE));
    assert_eq!(removed.unwrap_err().raw_os_error(), Some(nix::libc::EMFILE));
}
