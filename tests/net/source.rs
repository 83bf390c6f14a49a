//! Where the packets of WireGuard's port leave from, shown by sending and receiving them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use wgha::config::FloatingIp;
use wgha::net::source::{self, Extent, OWNER, SourcePlan, table_of};
use wgha::net::{NetError, Netlink, address};

use crate::namespace::{Ns, as_root, ip};

const PORT: u16 = 51820;
const OWN: [&str; 2] = ["10.0.0.2", "fd00::2"];
const VIP: [&str; 2] = ["10.0.0.10", "fd00::10"];
/// On the link, and behind the default route.
const NEAR: [&str; 2] = ["10.0.0.1", "fd00::1"];
const FAR: [&str; 2] = ["198.51.100.1", "2001:db8:99::1"];

/// Waited for what should arrive.
const PATIENCE: Duration = Duration::from_secs(20);
/// What has not arrived by then is sent once more: a packet is lost while its neighbour is not found.
const AGAIN: Duration = Duration::from_secs(3);

/// A gateway, a router with the world behind it, and a host behind the gateway.
struct Lab {
    gateway: Ns,
    router: Ns,
    host: Ns,
    /// The world's ears, IPv4 and IPv6.
    ears: [UdpSocket; 2],
}

impl Lab {
    fn new() -> Lab {
        let (gateway, router, host) = (Ns::new(), Ns::new(), Ns::new());
        gateway.cable("eth0", &router, "r0");
        gateway.cable("eth1", &host, "h0");
        for (ns, name, addresses) in [
            (&gateway, "eth0", ["10.0.0.2/24", "fd00::2/64"]),
            (&router, "r0", ["10.0.0.1/24", "fd00::1/64"]),
            (&router, "r0", ["10.0.0.251/24", "fd00::251/64"]),
            (&router, "lo", ["198.51.100.1/32", "2001:db8:99::1/128"]),
            (&gateway, "eth1", ["10.1.0.1/24", "fd01::1/64"]),
            (&host, "h0", ["10.1.0.2/24", "fd01::2/64"]),
        ] {
            addresses.iter().for_each(|address| ns.address(name, address));
        }
        for (ns, via) in [(&gateway, NEAR), (&host, ["10.1.0.1", "fd01::1"])] {
            ns.ip(&format!("route add default via {}", via[0]));
            ns.ip(&format!("-6 route add default via {}", via[1]));
        }
        gateway.sysctl("ipv4/ip_forward", "1");
        gateway.sysctl("ipv6/conf/all/forwarding", "1");
        let ears = router.run(|| [0, 1].map(|family| listen(any(family, 7000))));
        Lab { gateway, router, host, ears }
    }

    /// Sends from a wildcard socket with that source port: the source that arrives, if any does.
    fn sends(&self, from: &Ns, port: u16, to: &str) -> Sent {
        let to = SocketAddr::new(to.parse().unwrap(), 7000);
        let mouth = from.run(move || listen(any(usize::from(to.is_ipv6()), port)));
        self.send_by(&mouth, to)
    }

    fn send_by(&self, mouth: &UdpSocket, to: SocketAddr) -> Sent {
        let ear = &self.ears[usize::from(to.is_ipv6())];
        ear.set_nonblocking(true).unwrap();
        while ear.recv(&mut [0; 16]).is_ok() {}
        ear.set_nonblocking(false).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Err(e) = mouth.send_to(b"hello", to) {
                return Sent::Refused(e.kind());
            }
            if let Some(from) = hear(ear) {
                return Sent::From(from);
            }
        }
        Sent::Lost
    }

    fn both(&self, port: u16, expected: impl Fn(usize) -> Sent) {
        for family in 0..2 {
            for to in [NEAR[family], FAR[family]] {
                assert_eq!(self.sends(&self.gateway, port, to), expected(family), "to {to}");
            }
        }
    }

    fn claim(&self) {
        self.gateway.run_async(|| async {
            let nl = Netlink::open().unwrap();
            for vip in floating_ips() {
                address::claim(&nl, &vip).await.unwrap();
            }
        });
    }

    fn install(&self) -> bool {
        self.gateway.run_async(|| async {
            source::install(&Netlink::open().unwrap(), &plan()).await.unwrap()
        })
    }

    fn guard(&self) -> bool {
        self.gateway.run_async(|| async {
            source::guard(&Netlink::open().unwrap(), &plan()).await.unwrap()
        })
    }

    fn verify(&self, extent: Extent) -> Vec<String> {
        self.gateway.run_async(move || async move {
            source::verify(&Netlink::open().unwrap(), &plan(), extent).await.unwrap()
        })
    }
}

/// A socket; IPv6 ones take IPv6 alone, so that both families can have the same port.
fn listen(address: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    // A program that another test is just starting holds copies of closed sockets until it runs.
    let deadline = Instant::now() + PATIENCE;
    while let Err(e) = socket.bind(&address.into()) {
        assert!(e.kind() == ErrorKind::AddrInUse && Instant::now() < deadline, "{address}: {e}");
        std::thread::sleep(Duration::from_millis(1));
    }
    socket.set_read_timeout(Some(AGAIN)).unwrap();
    socket.into()
}

/// The source of the next packet. A machine that freezes its processes for a moment (a snapshot)
/// interrupts the wait, and that is no loss.
fn hear(ear: &UdpSocket) -> Option<String> {
    let deadline = Instant::now() + AGAIN;
    loop {
        match ear.recv_from(&mut [0; 16]) {
            Ok((_, from)) => return Some(from.ip().to_string()),
            Err(e) if e.kind() == ErrorKind::Interrupted && Instant::now() < deadline => {}
            Err(_) => return None,
        }
    }
}

fn any(family: usize, port: u16) -> SocketAddr {
    SocketAddr::new([IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])][family], port)
}

#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// Arrived, with this source.
    From(String),
    /// The sender got an error.
    Refused(ErrorKind),
    /// Neither.
    Lost,
}

fn from_vip(family: usize) -> Sent {
    Sent::From(VIP[family].into())
}

fn from_own(family: usize) -> Sent {
    Sent::From(OWN[family].into())
}

/// `EINVAL`, upon which WireGuard forgets its cached source and tries again.
fn refused(_: usize) -> Sent {
    Sent::Refused(ErrorKind::InvalidInput)
}

fn floating_ips() -> [FloatingIp; 2] {
    VIP.map(|vip| FloatingIp {
        address: vip.parse::<IpAddr>().unwrap().into(),
        interface: "eth0".into(),
    })
}

fn plan() -> SourcePlan {
    SourcePlan {
        port: PORT,
        v4: Some((VIP[0].parse().unwrap(), "eth0".into())),
        v6: Some((VIP[1].parse().unwrap(), "eth0".into())),
    }
}

#[test]
fn packets_leave_from_the_floating_ip_or_not_at_all() {
    as_root("source::packets_leave_from_the_floating_ip_or_not_at_all", || {
        let lab = Lab::new();
        lab.both(PORT, from_own);
        assert!(lab.guard());
        assert!(!lab.guard());
        lab.both(PORT, refused);
        lab.claim();
        lab.both(PORT, refused);
        assert!(lab.install());
        assert!(!lab.install());
        assert_eq!(lab.verify(Extent::Installed), [""; 0]);
        lab.both(PORT, from_vip);
        lab.both(PORT + 1, from_own);

        let removed = lab.gateway.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let removed = source::remove(&nl, &plan()).await.unwrap();
            (removed, source::remove(&nl, &plan()).await.unwrap())
        });
        assert_eq!(removed, (true, false));
        lab.both(PORT, refused);
        lab.both(PORT + 1, from_own);

        let purged = lab.gateway.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let purged = source::purge(&nl, PORT).await.unwrap();
            (purged, source::purge(&nl, PORT).await.unwrap())
        });
        assert_eq!(purged, (true, false));
        lab.both(PORT, from_own);
        for family in ["-4", "-6"] {
            let rules = lab.gateway.ip(&format!("{family} rule show"));
            assert!(!rules.contains(&PORT.to_string()), "{rules}");
            assert_eq!(lab.gateway.ip(&format!("{family} route show table all proto {OWNER}")), "");
        }
    });
}

#[test]
fn another_source_is_refused_even_when_chosen() {
    as_root("source::another_source_is_refused_even_when_chosen", || {
        let lab = Lab::new();
        lab.claim();
        lab.install();
        for family in 0..2 {
            let to = SocketAddr::new(FAR[family].parse().unwrap(), 7000);
            let bind =
                move |ip: &'static str| move || listen(SocketAddr::new(ip.parse().unwrap(), PORT));
            let own = lab.gateway.run(bind(OWN[family]));
            assert_eq!(lab.send_by(&own, to), refused(family));
            let vip = lab.gateway.run(bind(VIP[family]));
            assert_eq!(lab.send_by(&vip, to), from_vip(family));
        }
    });
}

#[test]
fn forwarded_packets_are_none_of_our_business() {
    as_root("source::forwarded_packets_are_none_of_our_business", || {
        let lab = Lab::new();
        lab.forwards();
        for rp_filter in ["0", "1", "2"] {
            for interface in ["all", "eth0", "eth1"] {
                lab.gateway.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), rp_filter);
            }
            lab.claim();
            lab.install();
            lab.forwards();
            lab.gateway.run_async(|| async {
                source::remove(&Netlink::open().unwrap(), &plan()).await.unwrap()
            });
            lab.forwards();
        }
    });
}

impl Lab {
    /// With WireGuard's port at either end.
    fn forwards(&self) {
        let expected = ["10.1.0.2", "fd01::2"];
        for family in 0..2 {
            let from = Sent::From(expected[family].into());
            assert_eq!(self.sends(&self.host, PORT, FAR[family]), from);
            assert_eq!(self.sends(&self.host, 4000, FAR[family]), from);
            let ear = self.router.run(move || listen(any(family, PORT)));
            let to = SocketAddr::new(FAR[family].parse().unwrap(), PORT);
            self.host.run(move || listen(any(family, 4000)).send_to(b"hello", to).unwrap());
            assert_eq!(hear(&ear).as_deref(), Some(expected[family]));
        }
    }
}

#[test]
fn what_comes_to_the_floating_ip_is_received_under_strict_filters() {
    as_root("source::what_comes_to_the_floating_ip_is_received_under_strict_filters", || {
        let lab = Lab::new();
        for interface in ["all", "eth0"] {
            lab.gateway.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "1");
        }
        lab.claim();
        lab.install();
        for family in 0..2 {
            let ear = lab.gateway.run(move || listen(any(family, PORT)));
            for from in [NEAR[family], FAR[family]] {
                let to = SocketAddr::new(VIP[family].parse().unwrap(), PORT);
                lab.router.run(move || {
                    let mouth = listen(SocketAddr::new(from.parse().unwrap(), 0));
                    mouth.send_to(b"hello", to).unwrap();
                });
                assert_eq!(hear(&ear).as_deref(), Some(from));
            }
        }
    });
}

#[test]
fn the_main_table_is_followed() {
    as_root("source::the_main_table_is_followed", || {
        let lab = Lab::new();
        lab.claim();
        lab.install();
        let table = table_of(PORT);
        // Another default router, with metric and MTU, as a DHCP renewal may bring it.
        for (family, via) in [("-4", "10.0.0.251"), ("-6", "fd00::251")] {
            let gateway = &lab.gateway;
            gateway.ip(&format!("{family} route del default"));
            gateway.ip(&format!(
                "{family} route add default via {via} dev eth0 metric 77 mtu lock 1400"
            ));
            gateway.ip(&format!(
                "{family} route add {} via {via} dev eth0",
                ["198.51.100.0/24", "2001:db8:99::/64"][usize::from(family == "-6")]
            ));
        }
        assert!(!lab.verify(Extent::Installed).is_empty());
        assert!(lab.install());
        assert!(!lab.install());
        for (family, via, vip) in [("-4", "10.0.0.251", VIP[0]), ("-6", "fd00::251", VIP[1])] {
            let shown = lab.gateway.ip(&format!("{family} route show table {table}"));
            let default = shown.lines().find(|line| line.starts_with("default")).unwrap();
            for part in
                [&format!("via {via} "), "metric 77", "mtu lock 1400", &format!("src {vip} ")]
            {
                assert!(default.contains(part), "{part} in {default}");
            }
            assert_eq!(shown.matches("default").count(), 1, "{shown}");
        }
        lab.both(PORT, from_vip);
    });
}

#[test]
fn onlink_gateways_of_clouds_are_followed() {
    as_root("source::onlink_gateways_of_clouds_are_followed", || {
        let lab = Lab::new();
        let gateway = &lab.gateway;
        for family in ["-4", "-6"] {
            gateway.ip(&format!("{family} route flush dev eth0 scope link"));
            gateway.ip(&format!("{family} route flush table main dev eth0"));
        }
        gateway.ip("route add default via 10.0.0.1 dev eth0 onlink");
        gateway.ip("-6 route add default via fd00::1 dev eth0 onlink");
        lab.claim();
        assert!(lab.install());
        assert!(!lab.install());
        lab.both(PORT, from_vip);
    });
}

#[test]
fn what_others_remove_is_put_back() {
    as_root("source::what_others_remove_is_put_back", || {
        let lab = Lab::new();
        lab.claim();
        lab.install();
        let table = table_of(PORT);
        for wreck in [
            "-4 rule flush".to_owned(),
            "-6 rule flush".to_owned(),
            format!("-4 route flush table {table}"),
            format!("-6 route flush table {table}"),
            format!("-4 rule del pref 100 protocol {OWNER}"),
            "-6 rule del pref 109".to_owned(),
            format!("-4 rule add pref 105 ipproto udp sport {PORT} lookup main protocol {OWNER}"),
        ] {
            lab.gateway.ip(&wreck);
            // Flushing takes the system's own rules too; whoever did it has to put those back.
            if wreck.ends_with("rule flush") {
                let family = &wreck[..2];
                lab.gateway.ip(&format!("{family} rule add pref 32766 lookup main"));
            }
            assert!(!lab.verify(Extent::Installed).is_empty(), "{wreck}");
            assert!(lab.install(), "{wreck}");
            assert_eq!(lab.verify(Extent::Installed), [""; 0], "{wreck}");
            lab.both(PORT, from_vip);
        }
    });
}

#[test]
fn an_address_that_left_and_came_back_is_the_source_again() {
    as_root("source::an_address_that_left_and_came_back_is_the_source_again", || {
        let lab = Lab::new();
        lab.claim();
        lab.install();
        lab.gateway.ip("addr del 10.0.0.10/32 dev eth0");
        lab.gateway.ip("addr del fd00::10/128 dev eth0");
        let error = lab.gateway.run_async(|| async {
            source::install(&Netlink::open().unwrap(), &plan()).await.unwrap_err()
        });
        assert!(matches!(error, NetError::NoAddress { .. }), "{error}");
        lab.both(PORT, refused);
        lab.claim();
        assert!(lab.install());
        lab.both(PORT, from_vip);
        // Gone and back before anyone looked: IPv6 has lost the source from the table's routes.
        lab.gateway.ip("addr del fd00::10/128 dev eth0");
        lab.claim();
        assert!(lab.install());
        lab.both(PORT, from_vip);
    });
}

#[test]
fn an_interface_made_anew_is_installed_anew() {
    as_root("source::an_interface_made_anew_is_installed_anew", || {
        let lab = Lab::new();
        lab.claim();
        lab.install();
        lab.gateway.ip("link del eth0");
        let error = lab.gateway.run_async(|| async {
            source::install(&Netlink::open().unwrap(), &plan()).await.unwrap_err()
        });
        assert!(matches!(error, NetError::NoInterface(_)), "{error}");
        assert_eq!(lab.verify(Extent::Guarded), [""; 0]);
        lab.gateway.cable("eth0", &lab.router, "r0");
        for (ns, name, addresses) in [
            (&lab.gateway, "eth0", ["10.0.0.2/24", "fd00::2/64"]),
            (&lab.router, "r0", ["10.0.0.1/24", "fd00::1/64"]),
        ] {
            addresses.iter().for_each(|address| ns.address(name, address));
        }
        lab.gateway.ip("route add default via 10.0.0.1");
        lab.gateway.ip("-6 route add default via fd00::1");
        lab.claim();
        assert!(lab.install());
        lab.both(PORT, from_vip);
    });
}

#[test]
fn a_family_without_floating_ip_stays_silent() {
    as_root("source::a_family_without_floating_ip_stays_silent", || {
        let lab = Lab::new();
        lab.claim();
        lab.gateway.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let only_v4 = SourcePlan { v6: None, ..plan() };
            assert!(source::install(&nl, &only_v4).await.unwrap());
            assert!(!source::install(&nl, &only_v4).await.unwrap());
        });
        for family in 0..2 {
            let expected = [from_vip, refused][family](family);
            assert_eq!(lab.sends(&lab.gateway, PORT, FAR[family]), expected);
        }
        lab.gateway.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let none = SourcePlan { v4: None, v6: None, ..plan() };
            assert!(!source::guard(&nl, &none).await.unwrap());
            assert!(source::install(&nl, &none).await.unwrap());
        });
        lab.both(PORT, from_own);
    });
}

#[test]
fn two_ports_do_not_disturb_each_other() {
    as_root("source::two_ports_do_not_disturb_each_other", || {
        let lab = Lab::new();
        lab.claim();
        lab.install();
        lab.gateway.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let other = SourcePlan { port: PORT + 1, ..plan() };
            assert!(source::install(&nl, &other).await.unwrap());
            assert!(!source::install(&nl, &plan()).await.unwrap());
            assert!(source::purge(&nl, PORT + 1).await.unwrap());
            assert!(!source::install(&nl, &plan()).await.unwrap());
        });
        lab.both(PORT, from_vip);
        lab.both(PORT + 1, from_own);
        assert_eq!(ip_rules(&lab).matches("51821").count(), 0);
    });
}

fn ip_rules(lab: &Lab) -> String {
    lab.gateway.run(|| ip("-4 rule show") + &ip("-6 rule show"))
}
