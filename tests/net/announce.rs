//! Neighbours learn where a floating IP is now.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use wgha::config::FloatingIp;
use wgha::net::{Netlink, address, announce};

use crate::namespace::{Ns, as_root, frames_of};

const VIP: [&str; 2] = ["10.0.0.10", "fd00::10"];

/// Two gateways at one switch, which is also their neighbour.
struct Lab {
    a: Ns,
    b: Ns,
    neighbour: Ns,
}

impl Lab {
    fn new() -> Lab {
        let (a, b, neighbour) = (Ns::new(), Ns::new(), Ns::new());
        neighbour.ip("link add br0 type bridge");
        neighbour.ip("link set br0 up");
        neighbour.address("br0", "10.0.0.1/24");
        neighbour.address("br0", "fd00::1/64");
        for (gateway, port, last) in [(&a, "pa", 2), (&b, "pb", 3)] {
            gateway.cable("eth0", &neighbour, port);
            neighbour.ip(&format!("link set {port} master br0"));
            gateway.address("eth0", &format!("10.0.0.{last}/24"));
            gateway.address("eth0", &format!("fd00::{last}/64"));
        }
        Lab { a, b, neighbour }
    }

    /// What the neighbour believes.
    fn believed(&self, vip: &str) -> String {
        let shown = self.neighbour.ip(&format!("neigh show {vip} dev br0"));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap_or_default().to_owned()
    }

    /// The neighbour talks to the floating IP until it knows where it is.
    fn warm(&self, vip: &'static str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.believed(vip).is_empty() {
            assert!(Instant::now() < deadline, "{vip} never answered");
            self.neighbour.run(move || {
                let any = if vip.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
                let _ = UdpSocket::bind(any).unwrap().send_to(b"hello", (vip, 9));
                std::thread::sleep(Duration::from_millis(50));
            });
        }
    }
}

fn mac(ns: &Ns) -> String {
    let shown = ns.ip("link show dev eth0");
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).unwrap().to_owned()
}

fn floating_ips() -> Vec<FloatingIp> {
    let one = |vip: &str| FloatingIp {
        address: vip.parse::<IpAddr>().unwrap().into(),
        interface: "eth0".into(),
    };
    VIP.iter().map(|vip| one(vip)).collect()
}

fn claim(ns: &Ns) {
    ns.run_async(|| async {
        let nl = Netlink::open().unwrap();
        for vip in floating_ips() {
            address::claim(&nl, &vip).await.unwrap();
        }
    });
}

fn burst(ns: &Ns) -> usize {
    ns.run_async(|| async {
        announce::burst(&Netlink::open().unwrap(), &floating_ips()).await.unwrap()
    })
}

#[test]
fn the_neighbour_follows_even_while_the_old_holder_keeps_the_address() {
    as_root("announce::the_neighbour_follows_even_while_the_old_holder_keeps_the_address", || {
        let lab = Lab::new();
        claim(&lab.a);
        for vip in VIP {
            lab.warm(vip);
            assert_eq!(lab.believed(vip), mac(&lab.a));
        }
        claim(&lab.b);
        for vip in VIP {
            assert_eq!(lab.believed(vip), mac(&lab.a), "nobody has said anything yet");
        }
        assert_eq!(burst(&lab.b), 3);
        for vip in VIP {
            let deadline = Instant::now() + Duration::from_secs(60);
            while lab.believed(vip) != mac(&lab.b) {
                assert!(Instant::now() < deadline, "{vip}: {}", lab.believed(vip));
            }
        }
    });
}

#[test]
fn all_forms_are_on_the_wire() {
    as_root("announce::all_forms_are_on_the_wire", || {
        let lab = Lab::new();
        claim(&lab.a);
        let (sender, frames) = std::sync::mpsc::channel();
        let mut ear = lab.neighbour.run(|| frames_of("br0"));
        let own = mac(&lab.a);
        std::thread::spawn(move || {
            while let Ok(frame) = ear.next() {
                if sender.send(frame.to_vec()).is_err() {
                    return;
                }
            }
        });
        burst(&lab.a);
        let source: Vec<u8> =
            own.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let (mut request, mut reply, mut advertisement) = (false, false, false);
        while !(request && reply && advertisement) {
            let frame = frames.recv_timeout(Duration::from_secs(60)).expect("all three frames");
            if frame.len() < 42 || frame[6..12] != source[..] {
                continue;
            }
            // Sender's hardware and protocol address, then the target's protocol address.
            let arp = frame[12..14] == [8, 6]
                && frame[22..28] == source[..]
                && frame[28..32] == [10, 0, 0, 10]
                && frame[38..42] == [10, 0, 0, 10];
            request |= arp && frame[20..22] == [0, 1];
            reply |= arp && frame[20..22] == [0, 2];
            advertisement |= frame.len() == 86 && frame[54] == 136 && frame[80..86] == source[..];
        }
    });
}

#[test]
fn interfaces_where_nobody_listens_are_skipped() {
    as_root("announce::interfaces_where_nobody_listens_are_skipped", || {
        let ns = Ns::new();
        ns.ip("link add down0 type veth peer name down1");
        let sent = ns.run_async(|| async {
            let on = |name: &str| FloatingIp {
                address: "10.0.0.10/32".parse().unwrap(),
                interface: name.into(),
            };
            let ips = [on("lo"), on("gone0"), on("down0")];
            announce::burst(&Netlink::open().unwrap(), &ips).await.unwrap()
        });
        assert_eq!(sent, 0);
    });
}
