//! Floating IPs.

use wgha::config::FloatingIp;
use wgha::link;
use wgha::net::{Lifetime, NetError, Netlink, address};

use crate::namespace::{Ns, as_root, eventually, ip};

fn floating(address: &str) -> FloatingIp {
    FloatingIp { address: address.parse().unwrap(), interface: "eth0".into() }
}

/// A namespace with `eth0` that has addresses of its own.
fn machine() -> Ns {
    let ns = Ns::new();
    ns.ip("link add eth0 type veth peer name eth0p");
    ns.ip("link set eth0 up");
    ns.ip("link set eth0p up");
    ns.address("eth0", "10.0.0.2/24");
    ns.address("eth0", "fd00::2/64");
    ns
}

#[test]
fn claim_and_release_change_once() {
    as_root("address::claim_and_release_change_once", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            for vip in [floating("10.0.0.10/32"), floating("fd00::10/128"), floating("10.9.0.1/24")]
            {
                assert!(!address::held(&nl, &vip).await.unwrap());
                assert!(!address::release(&nl, &vip).await.unwrap());
                assert!(address::claim(&nl, &vip).await.unwrap());
                assert!(address::held(&nl, &vip).await.unwrap());
                assert!(!address::claim(&nl, &vip).await.unwrap());
                assert!(ip("addr show dev eth0").contains(&vip.address.to_string()));
                assert!(address::release(&nl, &vip).await.unwrap());
                assert!(!address::release(&nl, &vip).await.unwrap());
                assert!(!ip("addr show dev eth0").contains(&vip.address.to_string()));
            }
            let rest = ip("addr show dev eth0");
            assert!(rest.contains("10.0.0.2/24") && rest.contains("fd00::2/64"), "{rest}");
        });
    });
}

/// The kernel gives any free port of its range, which WireGuard's lies in.
#[test]
fn no_port_of_wireguard_for_heartbeats_that_may_have_any() {
    as_root("address::no_port_of_wireguard_for_heartbeats_that_may_have_any", || {
        machine().run_async(|| async {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "51819 51821").unwrap();
            for any in ["0.0.0.0:0", "[::]:0"] {
                let any = any.parse().unwrap();
                let bound = |others: &[u16]| link::bind_beside(any, [7; 8], others);
                let socket = bound(&[51819, 51820]).unwrap();
                assert_eq!(socket.local_addr().unwrap().port(), 51821);
                assert!(bound(&[51819, 51820]).is_err(), "no other is left, and it ends");
                drop(socket);
                assert!(bound(&[]).is_ok());
            }
        });
    });
}

#[test]
fn ipv6_is_usable_at_once_and_never_a_source_of_its_own() {
    as_root("address::ipv6_is_usable_at_once_and_never_a_source_of_its_own", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let vip = floating("fd00::10/128");
            address::claim(&nl, &vip).await.unwrap();
            let shown = ip("-6 addr show dev eth0 to fd00::10");
            assert!(shown.contains("nodad") && shown.contains("preferred_lft 0sec"), "{shown}");
            assert!(shown.contains("valid_lft forever"), "{shown}");
            assert!(!shown.contains("tentative"), "{shown}");
            let route = ip("-6 route get fd00::99");
            assert!(route.contains("src fd00::2 "), "{route}");
        });
    });
}

#[test]
fn an_address_removed_or_spoilt_by_others_is_restored() {
    as_root("address::an_address_removed_or_spoilt_by_others_is_restored", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let (v4, v6) = (floating("10.0.0.10/32"), floating("fd00::10/128"));
            for vip in [&v4, &v6] {
                address::claim(&nl, vip).await.unwrap();
                ip(&format!("addr del {} dev eth0", vip.address));
                assert!(!address::held(&nl, vip).await.unwrap());
                assert!(address::claim(&nl, vip).await.unwrap());
                assert!(address::held(&nl, vip).await.unwrap());
            }
            // Someone makes it an address like any other: the machine's own traffic would use it.
            ip("addr change fd00::10/128 dev eth0 preferred_lft forever valid_lft forever");
            assert!(!address::held(&nl, &v6).await.unwrap());
            assert!(address::claim(&nl, &v6).await.unwrap());
            assert!(address::held(&nl, &v6).await.unwrap());
        });
    });
}

#[test]
fn a_tentative_address_is_not_held_and_made_usable() {
    as_root("address::a_tentative_address_is_not_held_and_made_usable", || {
        let ns = machine();
        ns.sysctl("ipv6/conf/eth0/accept_dad", "1");
        ns.sysctl("ipv6/conf/eth0/dad_transmits", "100");
        ns.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let vip = floating("fd00::10/128");
            ip("addr add fd00::10/128 dev eth0 preferred_lft 0");
            assert!(ip("-6 addr show dev eth0 to fd00::10").contains("tentative"));
            assert!(!address::held(&nl, &vip).await.unwrap());
            assert!(address::claim(&nl, &vip).await.unwrap());
            assert!(address::held(&nl, &vip).await.unwrap());
        });
    });
}

#[test]
fn release_takes_any_prefix_but_no_other_interface() {
    as_root("address::release_takes_any_prefix_but_no_other_interface", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            ip("addr add 10.0.0.10/24 dev eth0");
            ip("addr add 10.0.0.10/32 dev lo");
            let vip = floating("10.0.0.10/32");
            assert!(!address::held(&nl, &vip).await.unwrap());
            assert!(address::release(&nl, &vip).await.unwrap());
            assert!(!ip("addr show dev eth0").contains("10.0.0.10"));
            assert!(ip("addr show dev lo").contains("10.0.0.10/32"));
        });
    });
}

#[test]
fn release_keeps_the_other_addresses_of_the_subnet() {
    as_root("address::release_keeps_the_other_addresses_of_the_subnet", || {
        let ns = machine();
        ns.sysctl("ipv4/conf/all/promote_secondaries", "0");
        ns.sysctl("ipv4/conf/eth0/promote_secondaries", "0");
        ns.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let vip = floating("10.5.0.10/24");
            address::claim(&nl, &vip).await.unwrap();
            ip("addr add 10.5.0.2/24 dev eth0");
            address::release(&nl, &vip).await.unwrap();
            let shown = ip("addr show dev eth0");
            assert!(shown.contains("10.5.0.2/24") && !shown.contains("10.5.0.10"), "{shown}");
        });
    });
}

#[test]
fn an_interface_may_go_and_come_back() {
    as_root("address::an_interface_may_go_and_come_back", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let vip = floating("10.0.0.10/32");
            address::claim(&nl, &vip).await.unwrap();
            let before = nl.existing_link("eth0").await.unwrap();
            ip("link del eth0");
            assert_eq!(nl.link("eth0").await.unwrap(), None);
            assert!(!address::held(&nl, &vip).await.unwrap());
            assert!(!address::release(&nl, &vip).await.unwrap());
            let error = address::claim(&nl, &vip).await.unwrap_err();
            assert!(matches!(&error, NetError::NoInterface(name) if name == "eth0"));
            assert_eq!(error.to_string(), "interface eth0 does not exist");

            ip("link add eth0 type veth peer name eth0p");
            assert!(address::claim(&nl, &vip).await.unwrap());
            assert!(address::held(&nl, &vip).await.unwrap());
            assert_ne!(nl.existing_link("eth0").await.unwrap().index, before.index);
        });
    });
}

#[test]
fn claims_rest_without_link_or_carrier() {
    as_root("address::claims_rest_without_link_or_carrier", || {
        let ns = machine();
        ns.sysctl("ipv6/conf/eth0/accept_dad", "1");
        ns.run_async(|| async {
            let nl = Netlink::open().unwrap();
            for state in ["link set eth0p down", "link set eth0 down"] {
                ip(state);
                for vip in [floating("10.0.0.10/32"), floating("fd00::10/128")] {
                    address::claim(&nl, &vip).await.unwrap();
                    assert!(!address::claim(&nl, &vip).await.unwrap(), "{} {state}", vip.address);
                    assert!(address::held(&nl, &vip).await.unwrap());
                }
            }
        });
    });
}

#[test]
fn links_are_made_changed_and_deleted_once() {
    as_root("address::links_are_made_changed_and_deleted_once", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            assert!(nl.create_link("br9", "bridge").await.unwrap());
            assert!(!nl.create_link("br9", "bridge").await.unwrap());
            assert!(nl.set_mtu("br9", 1420).await.unwrap());
            assert!(!nl.set_mtu("br9", 1420).await.unwrap());
            assert!(nl.set_up("br9", true).await.unwrap());
            assert!(!nl.set_up("br9", true).await.unwrap());
            let link = nl.existing_link("br9").await.unwrap();
            assert_eq!((link.kind.as_deref(), link.mtu, link.up), (Some("bridge"), 1420, true));
            assert!(nl.links().await.unwrap().contains(&link));
            assert!(nl.set_up("br9", false).await.unwrap());
            assert!(nl.delete_link("br9").await.unwrap());
            assert!(!nl.delete_link("br9").await.unwrap());
            assert_eq!(nl.existing_link("lo").await.unwrap().mac, None);
            let unknown = nl.create_link("x0", "nosuchkind").await.unwrap_err();
            assert!(unknown.to_string().contains("create nosuchkind interface x0"), "{unknown}");
        });
    });
}

#[test]
fn a_lifetime_ends_unless_it_is_renewed() {
    as_root("address::a_lifetime_ends_unless_it_is_renewed", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            for vip in [floating("10.0.0.10/32"), floating("fd00::10/128")] {
                nl.put_address("eth0", vip.address, Lifetime::Seconds(1), true).await.unwrap();
                assert!(address::held(&nl, &vip).await.unwrap());
                nl.put_address("eth0", vip.address, Lifetime::Seconds(100), true).await.unwrap();
                let all = nl.addresses(Some("eth0")).await.unwrap();
                let found = all.iter().find(|a| a.address == vip.address).unwrap();
                assert!(matches!(found.valid, Lifetime::Seconds(90..=100)), "{found:?}");
                nl.put_address("eth0", vip.address, Lifetime::Seconds(1), true).await.unwrap();
                let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
                while address::held(&nl, &vip).await.unwrap() {
                    assert!(tokio::time::Instant::now() < deadline, "it never expired");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        });
    });
}

#[test]
fn a_floating_ip_for_a_time() {
    as_root("address::a_floating_ip_for_a_time", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let (short, long) = (Lifetime::Seconds(1), Lifetime::Seconds(100));
            for vip in [floating("10.0.0.10/32"), floating("fd00::10/128"), floating("10.9.0.1/24")]
            {
                assert!(address::claim(&nl, &vip).await.unwrap());
                // One for ever is no dead man's, and the other way round.
                assert!(address::claim_for(&nl, &vip, short).await.unwrap());
                assert!(!address::claim_for(&nl, &vip, long).await.unwrap(), "it lasts a time");
                address::renew(&nl, &vip, long).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                assert!(address::held(&nl, &vip).await.unwrap(), "{}: renewed", vip.address);
                let all = nl.addresses(Some("eth0")).await.unwrap();
                let own = |a: &&wgha::net::Address| a.address == vip.address;
                let valid = all.iter().find(own).unwrap().valid;
                assert!(matches!(valid, Lifetime::Seconds(90..=100)), "{valid:?}");
                assert!(address::claim(&nl, &vip).await.unwrap());
                let all = nl.addresses(Some("eth0")).await.unwrap();
                assert_eq!(all.iter().find(own).unwrap().valid, Lifetime::Forever);
                assert!(address::release(&nl, &vip).await.unwrap());
            }
        });
    });
}

/// The kernel's routes of prefixes: none stays behind, and the machine's own are not taken along.
#[test]
fn a_floating_ip_for_a_time_leaves_no_route() {
    as_root("address::a_floating_ip_for_a_time_leaves_no_route", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let routes = || {
                let all = ip("-6 route show table all") + &ip("-4 route show table all");
                let mut all: Vec<String> = all.lines().map(|l| l.trim().to_owned()).collect();
                all.sort();
                all
            };
            // The kernel's own come some time after the links.
            eventually("link-local addresses", || {
                let shown = ip("-6 -o addr show");
                shown.matches("fe80::").count() == 2 && !shown.contains("tentative")
            });
            let before = routes();
            let valid = Lifetime::Seconds(100);
            for vip in ["10.0.0.10/32", "10.0.0.11/24", "fd00::10/128", "fd00::11/64"] {
                let vip = floating(vip);
                // One that stood for ever, as with the dead man's switch off.
                assert!(address::claim(&nl, &vip).await.unwrap());
                assert!(address::claim_for(&nl, &vip, valid).await.unwrap());
                address::renew(&nl, &vip, valid).await.unwrap();
                let expiring: Vec<_> =
                    routes().into_iter().filter(|route| route.contains("expires")).collect();
                assert!(expiring.is_empty(), "{}: {expiring:?}", vip.address);
                assert!(address::release(&nl, &vip).await.unwrap());
                assert_eq!(routes(), before, "{}", vip.address);
            }
        });
    });
}
