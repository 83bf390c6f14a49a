//! Many routes at once, and addresses that others gave.

use wgha::net::{Family, NetError, Netlink, Route};

use crate::namespace::{Ns, as_root, ip};

/// Routes to 10.N.0.0/16 and fdN::/16 for each number, in a table of their own.
fn routes(numbers: std::ops::Range<u8>, interface: u32) -> Vec<Route> {
    let route = |net: String| Route::new(net.parse().unwrap(), 77, interface, 3);
    numbers
        .flat_map(|n| [route(format!("10.{n}.0.0/16")), route(format!("fd{n:02x}::/16"))])
        .collect()
}

#[test]
fn many_routes_are_added_and_removed_and_taken_places_named() {
    as_root("netlink::many_routes_are_added_and_removed_and_taken_places_named", || {
        let ns = Ns::new();
        ns.ip("link add eth0 type veth peer name eth1");
        ns.ip("link set eth0 up");
        ns.ip("link set eth1 up");
        ns.ip("route add 10.200.0.0/16 dev eth1 table 77");
        ns.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let index = nl.existing_link("eth0").await.unwrap().index;
            let wanted = routes(0..250, index);
            let taken = nl.add_routes(wanted.clone()).await.unwrap();
            assert_eq!(taken, [wanted[400].clone()], "another's alone");
            for family in Family::ALL {
                let there = nl.routes(family, 77, Some(index)).await.unwrap().len();
                assert_eq!(there, if family == Family::V4 { 249 } else { 250 });
            }
            assert_eq!(nl.add_routes(routes(3..5, index)).await.unwrap(), routes(3..5, index));

            nl.remove_routes(wanted).await.unwrap();
            assert!(nl.routes(Family::V6, 77, None).await.unwrap().is_empty());
            assert_eq!(nl.routes(Family::V4, 77, None).await.unwrap().len(), 1);
            assert!(ip("route show table 77").contains("10.200.0.0/16 dev eth1"));
        });
    });
}

#[test]
fn a_refused_route_ends_it() {
    as_root("netlink::a_refused_route_ends_it", || {
        Ns::new().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let error = nl.add_routes(routes(0..1, 4_000)).await.unwrap_err();
            assert!(matches!(error, NetError::Refused { .. }), "{error}");
            assert!(error.to_string().contains("10.0.0.0/16"), "{error}");
        });
    });
}

#[test]
fn an_address_with_a_far_end_can_be_removed() {
    as_root("netlink::an_address_with_a_far_end_can_be_removed", || {
        let ns = Ns::new();
        ns.ip("link add eth0 type veth peer name eth1");
        ns.ip("addr add 10.1.0.1 peer 10.2.0.1/32 dev eth0");
        ns.ip("addr add fd00::1 peer fd00::2/128 dev eth0");
        ns.ip("addr add 10.3.0.1/24 dev eth0");
        ns.run_async(|| async {
            let nl = Netlink::open().unwrap();
            let mut found = nl.addresses(Some("eth0")).await.unwrap();
            assert_eq!(found.len(), 3);
            assert_eq!(found.iter().filter(|a| a.far_end.is_some()).count(), 2);
            for address in found.drain(..) {
                assert!(nl.remove_found(&address).await.unwrap(), "{address:?}");
                assert!(!nl.remove_found(&address).await.unwrap(), "{address:?}");
            }
            assert!(nl.addresses(Some("eth0")).await.unwrap().is_empty());
        });
    });
}
