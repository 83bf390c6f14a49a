//! A gateway learns from its router whether it is cut off, and the router learns nothing wrong from it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wgha::config::EvidenceChoice;
use wgha::evidence::{self, Parts, Picture, Settings, View};
use wgha_proto::Evidence;

use crate::namespace::{Ns, as_root, frames_of};

const INTERVAL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

const OWN: [&str; 2] = ["10.0.0.2", "fd00::2"];
const VIP: [&str; 2] = ["10.0.0.10", "fd00::10"];
const ROUTER: [&str; 2] = ["10.0.0.1", "fd00::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A gateway with a floating IP, and its router.
struct Lab {
    gateway: Ns,
    router: Ns,
}

impl Lab {
    /// `families`: which of IPv4 and IPv6 there is.
    fn new(families: &[usize]) -> Lab {
        let lab = Lab { gateway: Ns::new(), router: Ns::new() };
        lab.gateway.cable("eth0", &lab.router, "eth0");
        for &f in families {
            let length = ["24", "64"][f];
            lab.gateway.address("eth0", &format!("{}/{length}", OWN[f]));
            lab.gateway.address("eth0", &format!("{}/{length}", VIP[f]));
            lab.router.address("eth0", &format!("{}/{length}", ROUTER[f]));
            lab.gateway.ip(&format!("route add default via {}", ROUTER[f]));
        }
        lab
    }

    /// The router goes on, but its address is another's.
    fn silence(&self, families: &[usize]) {
        for &f in families {
            self.router.ip(&format!("addr del {}/{} dev eth0", ROUTER[f], ["24", "64"][f]));
        }
    }

    fn speak(&self, families: &[usize]) {
        for &f in families {
            self.router.address("eth0", &format!("{}/{}", ROUTER[f], ["24", "64"][f]));
        }
    }
}

/// Evidence at work inside a namespace, and what it said.
struct Running {
    wanted: watch::Sender<bool>,
    settings: watch::Sender<Settings>,
    said: Arc<Mutex<Vec<Evidence>>>,
    view: View,
    kept: watch::Receiver<Vec<evidence::judge::Key>>,
    _thread: std::thread::JoinHandle<()>,
}

fn settings(choice: EvidenceChoice) -> Settings {
    Settings {
        choice,
        interval: INTERVAL,
        mine: OWN.map(ip).to_vec(),
        nodes: [OWN[0], OWN[1], "10.0.0.3", "fd00::3"].map(ip).to_vec(),
        floating: VIP.map(ip).to_vec(),
        interfaces: vec!["eth0".to_owned()],
    }
}

impl Running {
    fn start(ns: &Ns) -> Running {
        Running::with(ns, EvidenceChoice::Auto)
    }

    fn with(ns: &Ns, choice: EvidenceChoice) -> Running {
        let (wanted, wanted_rx) = watch::channel(false);
        let (settings, settings_rx) = watch::channel(settings(choice));
        let (_, tunnel) = watch::channel(None);
        let (keep, kept) = watch::channel(Vec::new());
        let said = Arc::new(Mutex::new(Vec::new()));
        let (saying, view) = (Arc::clone(&said), View::default());
        let parts = Parts {
            settings: settings_rx,
            wanted: wanted_rx,
            tunnel,
            tell: Box::new(move |evidence| {
                saying.lock().unwrap().push(evidence);
                true
            }),
            view: view.clone(),
            remembered: Vec::new(),
            keep,
        };
        // A thread that is started inside belongs to the namespace.
        let thread = ns.run(move || {
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(evidence::run(parts));
            })
        });
        Running { wanted, settings, said, view, kept, _thread: thread }
    }

    fn last(&self) -> Option<Evidence> {
        self.said.lock().unwrap().last().copied()
    }

    /// Waits until what was said last is so.
    fn until(&self, what: &str, holds: impl Fn(Option<Evidence>) -> bool) -> Duration {
        self.until_seen(what, |picture| holds(picture.evidence))
    }

    fn until_seen(&self, what: &str, holds: impl Fn(&Picture) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            let picture = self.view.look();
            if holds(&picture) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {picture:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the answer to a question that was asked from now on.
    fn until_answered(&self, what: &str) -> Duration {
        let since = wgha::clock::now();
        self.until(what, |e| matches!(e, Some(Evidence::Answered(at)) if at >= since))
    }
}

fn answered(evidence: Option<Evidence>) -> bool {
    matches!(evidence, Some(Evidence::Answered(_)))
}

fn starts_and_stops(families: &[usize]) {
    let lab = Lab::new(families);
    let running = Running::start(&lab.gateway);
    running.until_seen("every router usually answers", |picture| {
        picture.sources.len() == families.len() && picture.sources.iter().all(|s| s.usual)
    });
    let kept: BTreeSet<IpAddr> = running.kept.borrow().iter().map(|key| key.1).collect();
    assert!(!kept.is_empty() && kept.iter().all(|ip| ROUTER.iter().any(|r| ip.to_string() == *r)));

    running.wanted.send(true).unwrap();
    let took = running.until_answered("asked at once");
    println!("{families:?}: answered {took:?} after it was wanted");
    assert!(took < Duration::from_secs(8), "{took:?}: long before the next question at rest");

    lab.silence(families);
    let took = running.until("silent", |e| e == Some(Evidence::Silent));
    println!("{families:?}: silent {took:?} after the router went");
    lab.speak(families);
    running.until_answered("the router is back");
    running.wanted.send(false).unwrap();
    running.until_seen("at rest", |picture| !picture.wanted);
    running.until("answered", answered);
}

#[test]
fn an_ipv4_router_starts_and_stops_answering() {
    as_root("evidence::an_ipv4_router_starts_and_stops_answering", || starts_and_stops(&[0]));
}

#[test]
fn an_ipv6_router_starts_and_stops_answering() {
    as_root("evidence::an_ipv6_router_starts_and_stops_answering", || starts_and_stops(&[1]));
}

#[test]
fn both_routers_start_and_stop_answering() {
    as_root("evidence::both_routers_start_and_stop_answering", || starts_and_stops(&[0, 1]));
}

#[test]
fn one_of_two_is_enough() {
    as_root("evidence::one_of_two_is_enough", || {
        let lab = Lab::new(&[0, 1]);
        let running = Running::start(&lab.gateway);
        running.until_seen("both", |p| p.sources.iter().filter(|s| s.usual).count() == 2);
        for gone in [0, 1] {
            lab.silence(&[gone]);
            running.wanted.send_replace(true);
            running.until_answered("by the other one");
            std::thread::sleep(INTERVAL * 4);
            running.until_answered("still by the other one");
            lab.speak(&[gone]);
            running.until_seen("both again", |p| {
                let recent =
                    |s: &evidence::judge::Known| s.answered.is_some() && s.answered == s.asked;
                p.sources.iter().all(recent)
            });
        }
    });
}

#[test]
fn a_router_that_never_answered_is_no_source() {
    as_root("evidence::a_router_that_never_answered_is_no_source", || {
        let lab = Lab::new(&[0, 1]);
        lab.silence(&[0, 1]);
        let running = Running::start(&lab.gateway);
        running.wanted.send(true).unwrap();
        let asked =
            |p: &Picture| p.sources.len() == 2 && p.sources.iter().all(|s| s.asked.is_some());
        running.until_seen("it is asked", asked);
        std::thread::sleep(INTERVAL * 10);
        assert_eq!(running.last(), None, "the protocol begins with no source");
        lab.speak(&[0]);
        running.until_answered("it speaks");
    });
}

#[test]
fn without_a_router_there_is_no_source() {
    as_root("evidence::without_a_router_there_is_no_source", || {
        let lab = Lab::new(&[0]);
        lab.gateway.ip("route del default");
        let running = Running::start(&lab.gateway);
        running.wanted.send(true).unwrap();
        std::thread::sleep(INTERVAL * 10);
        assert_eq!(running.last(), None);
        assert!(running.view.look().sources.is_empty());
        // A node of the cluster is no outside, whatever the routes say; a route that comes is found.
        lab.router.address("eth0", "10.0.0.3/24");
        lab.gateway.ip("route add default via 10.0.0.3");
        std::thread::sleep(Duration::from_secs(2));
        assert!(running.view.look().sources.is_empty(), "{:?}", running.view.look());
        lab.gateway.ip("route replace default via 10.0.0.1");
        running.until_answered("a router");
    });
}

#[test]
fn a_cut_cable_is_silence_even_when_the_routes_go_with_it() {
    as_root("evidence::a_cut_cable_is_silence_even_when_the_routes_go_with_it", || {
        let lab = Lab::new(&[0]);
        let running = Running::start(&lab.gateway);
        running.until("it answers", answered);
        lab.gateway.ip("link set eth0 down");
        assert_eq!(lab.gateway.ip("route"), "");
        running.wanted.send(true).unwrap();
        running.until("isolated", |e| e == Some(Evidence::Silent));
        running.until_seen("the route is gone", |p| p.sources.iter().all(|s| !s.present));
        assert_eq!(running.last(), Some(Evidence::Silent));
        lab.gateway.ip("link set eth0 up");
        lab.gateway.ip("route replace default via 10.0.0.1");
        running.until_answered("it is back");
    });
}

#[test]
fn what_the_config_names_is_asked_instead() {
    as_root("evidence::what_the_config_names_is_asked_instead", || {
        let lab = Lab::new(&[0, 1]);
        lab.router.address("eth0", "10.0.0.77/24");
        let named = EvidenceChoice::Addresses(vec![ip("10.0.0.77"), ip("192.0.2.1")]);
        let running = Running::with(&lab.gateway, named);
        running.until("it answers", answered);
        let asked =
            || -> Vec<IpAddr> { running.view.look().sources.iter().map(|s| s.key.1).collect() };
        assert_eq!(asked(), [ip("10.0.0.77")], "and nobody who is no neighbour");
        running.settings.send(settings(EvidenceChoice::Off)).unwrap();
        running.until_seen("off", |p| p.off && p.evidence == Some(Evidence::NoSource));
        assert!(asked().is_empty());
        running.settings.send(settings(EvidenceChoice::Auto)).unwrap();
        running.until("on again", answered);
        assert!(asked().contains(&ip("10.0.0.1")));
    });
}

#[test]
fn it_asks_as_itself_and_never_as_the_floating_ip() {
    as_root("evidence::it_asks_as_itself_and_never_as_the_floating_ip", || {
        let lab = Lab::new(&[0, 1]);
        let (sender, frames) = std::sync::mpsc::channel();
        let mut ear = lab.router.run(|| frames_of("eth0"));
        std::thread::spawn(move || {
            while let Ok(frame) = ear.next() {
                if sender.send(frame.to_vec()).is_err() {
                    return;
                }
            }
        });
        let running = Running::start(&lab.gateway);
        running.wanted.send(true).unwrap();
        let (mut arp, mut ndp) = (0, 0);
        let end = Instant::now() + PATIENCE;
        while arp < 5 || ndp < 5 {
            assert!(Instant::now() < end, "{arp} requests, {ndp} solicitations");
            let frame = frames.recv_timeout(PATIENCE).expect("a frame");
            // Sender's and target's address of an ARP request.
            if frame.len() >= 42 && frame[12..14] == [8, 6] && frame[38..42] == [10, 0, 0, 1] {
                assert_eq!(frame[28..32], [10, 0, 0, 2], "the sender");
                arp += 1;
            }
            // An ICMPv6 solicitation: source, hop limit.
            if frame.len() >= 86 && frame[12..14] == [0x86, 0xdd] && frame[54] == 135 {
                let source = IpAddr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap());
                let target = IpAddr::from(<[u8; 16]>::try_from(&frame[62..78]).unwrap());
                assert_ne!(source, ip(VIP[1]));
                if target == ip(ROUTER[1]) && source == ip(OWN[1]) {
                    assert_eq!(frame[21], 255, "the hop limit");
                    ndp += 1;
                }
            }
        }
        for vip in VIP {
            assert_eq!(lab.router.ip(&format!("neigh show {vip}")), "", "the router learnt {vip}");
        }
    });
}
