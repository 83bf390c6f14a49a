use super::*;
use crate::net::netlink::MAIN_TABLE;

const PORT: u16 = 51820;

fn v4() -> IpAddr {
    "203.0.113.10".parse().unwrap()
}

fn v6() -> IpAddr {
    "2001:db8::10".parse().unwrap()
}

fn main_route(destination: &str, gateway: Option<&str>, metric: u32) -> Route {
    let mut route = Route::new(destination.parse().unwrap(), MAIN_TABLE, 3, 4);
    route.gateway = gateway.map(|g| g.parse().unwrap());
    route.metric = metric;
    route
}

#[test]
fn table_numbers_can_be_read() {
    assert_eq!(table_of(51820), 511_251_820);
    assert_eq!(table_of(1), 511_200_001);
    assert_eq!(table_of(65535), 511_265_535);
}

#[test]
fn last_rule_drops_and_is_always_wanted() {
    for (family, source) in [(Family::V4, v4()), (Family::V6, v6())] {
        let guarded = wanted_rules(family, PORT, None);
        assert_eq!(guarded, [last_rule(family, PORT)]);
        let installed = wanted_rules(family, PORT, Some(source));
        assert_eq!(installed[0], last_rule(family, PORT));
        assert!(installed[1..].iter().all(|rule| rule.priority < LAST));
        assert!(installed.iter().all(|rule| rule.owner == OWNER && rule.ip_protocol == Some(UDP)));
        assert!(installed.iter().all(|rule| rule.input.as_deref() == Some("lo")));
    }
}

#[test]
fn ipv6_drops_other_sources_before_it_takes_unset_ones() {
    let rules = wanted_rules(Family::V6, PORT, Some(v6()));
    let unset = rules.iter().find(|r| r.from.is_none() && r.action != Action::Blackhole).unwrap();
    let halves: Vec<_> =
        rules.iter().filter(|r| r.from.is_some_and(|from| from.prefix_len() == 1)).collect();
    assert_eq!(halves.len(), 2);
    assert!(halves.iter().all(|r| r.action == Action::Blackhole && r.priority < unset.priority));
}

#[test]
fn mirror_changes_source_and_table_alone() {
    let mut route = main_route("0.0.0.0/0", Some("203.0.113.1"), 100);
    (route.onlink, route.mtu, route.mtu_locked) = (true, Some(1400), true);
    let copies = mirror(vec![route.clone()], 7, v4());
    assert_eq!(copies, [Route { table: 7, source: Some(v4()), owner: OWNER, ..route }]);
}

#[test]
fn mirror_sets_connected_routes_first_and_leaves_the_address_itself_out() {
    let main = vec![
        main_route("0.0.0.0/0", Some("203.0.113.1"), 0),
        main_route("203.0.113.10/32", None, 0),
        main_route("203.0.113.0/24", None, 0),
    ];
    let copies = mirror(main, 7, v4());
    let destinations: Vec<_> = copies.iter().map(|r| r.destination.to_string()).collect();
    assert_eq!(destinations, ["203.0.113.0/24", "0.0.0.0/0"]);
}

#[test]
fn mirror_keeps_metrics_apart_and_takes_one_of_equals() {
    let main = vec![
        main_route("0.0.0.0/0", Some("203.0.113.1"), 100),
        main_route("0.0.0.0/0", Some("203.0.113.2"), 100),
        main_route("0.0.0.0/0", Some("203.0.113.3"), 200),
    ];
    let gateways: Vec<_> = mirror(main, 7, v4()).into_iter().map(|r| r.gateway).collect();
    assert_eq!(
        gateways,
        [Some("203.0.113.1".parse().unwrap()), Some("203.0.113.3".parse().unwrap())]
    );
}

#[test]
fn a_changed_route_is_replaced_in_one_step() {
    let old = main_route("0.0.0.0/0", Some("203.0.113.1"), 0);
    let new = main_route("0.0.0.0/0", Some("203.0.113.2"), 0);
    assert_eq!(
        route_steps(std::slice::from_ref(&new), std::slice::from_ref(&old)),
        [Step::PutRoute(new)]
    );
    assert_eq!(route_steps(&[], std::slice::from_ref(&old)), [Step::RemoveRoute(old.clone())]);
    assert_eq!(route_steps(std::slice::from_ref(&old), std::slice::from_ref(&old)), []);
}

#[test]
fn only_our_rules_of_this_port_are_too_much() {
    let ours = our_rule(Family::V4, PORT, 100, None, Action::Lookup(1));
    let other_port = our_rule(Family::V4, 51821, 100, None, Action::Lookup(1));
    let foreign = Rule { owner: 4, ..ours.clone() };
    let (add, drop) = rule_steps(&[], &[ours.clone(), other_port, foreign], PORT);
    assert_eq!((add, drop), (vec![], vec![Step::RemoveRule(ours)]));
}

#[test]
fn the_same_rule_by_another_hand_is_enough() {
    let ours = last_rule(Family::V4, PORT);
    let foreign = Rule { owner: 3, ..ours.clone() };
    assert_eq!(rule_steps(&[ours], &[foreign], PORT), (vec![], vec![]));
}

#[test]
fn what_lets_through_goes_before_what_drops() {
    let rules = wanted_rules(Family::V6, PORT, Some(v6()));
    let (_, drop) = rule_steps(&[], &rules, PORT);
    let drops: Vec<bool> = drop
        .iter()
        .map(|step| matches!(step, Step::RemoveRule(r) if r.action == Action::Blackhole))
        .collect();
    assert_eq!(drops, [false, false, true, true, true]);
}
