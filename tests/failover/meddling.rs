//! Others take away what the daemon put up: networkd, a firewall's restart, an administrator.

use netns_lab::{Node, topology};

use crate::audit::{run, wg0_up};
use crate::pair::{Pair, eventually};

/// What wgha put up on a node is gone from both families: addresses, rules, private table.
fn strip(node: &Node, addresses: &[(String, &str)]) {
    for (address, dev) in addresses {
        let _ = netns_lab::remove_address(node, address, dev);
    }
    netns_lab::remove_rules(node).expect("removing rules");
    for family in ["-4", "-6"] {
        run(node, &format!("ip {family} route flush table 511251820 2>/dev/null || true"));
    }
}

#[test]
fn addresses_rules_and_tables_removed() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let changes = pair.changes_of(&[&gw1, &gw2]);
    let addresses = pair.lab.floating_ips();
    for round in 1..=3 {
        strip(&gw1, &addresses);
        pair.settled_on(&gw1, &format!("stripped the master, round {round}"));
    }
    let restored = pair.status(&gw1)["link"]["restored"].as_u64();
    assert!(restored.is_some_and(|n| n >= 3), "counted: {restored:?}");
    // One at a time: each is noticed by itself.
    netns_lab::remove_address(&gw1, &addresses[0].0, addresses[0].1).expect("removing");
    pair.settled_on(&gw1, "one address removed");
    netns_lab::remove_rules(&gw1).expect("removing");
    pair.settled_on(&gw1, "rules removed");
    run(&gw1, "ip -4 route flush table 511251820");
    pair.settled_on(&gw1, "the private table emptied");
    // The backup's only rule is the last one.
    strip(&gw2, &[]);
    pair.settled_on(&gw1, "stripped the backup");
    // Somebody puts an address of the master on the backup.
    let (address, dev) = &addresses[0];
    run(&gw2, &format!("ip addr add {address} dev {dev}"));
    pair.settled_on(&gw1, "the floating IP was put on the backup");
    run(&gw2, "ip link set wg0 up");
    pair.settled_on(&gw1, "wg0 was set up on the backup");
    pair.none_changed(&[&gw1, &gw2], changes, "a role changed");
    pair.end();
}

#[test]
fn wg0_down_deleted_stripped() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let wg = topology::wg_gateway();
    run(&gw1, "ip link set wg0 down");
    pair.settled("wg0 was set down on the master");
    let master = pair.master();
    run(&master, &format!("ip addr del {}/24 dev wg0", wg.v4));
    pair.settled("wg0's address was removed on the master");
    let master = pair.master();
    run(&master, "ip link del wg0");
    pair.settled("wg0 was deleted on the master");
    // The standby needs it as much: a handover to it must work.
    let (master, backup) = if pair.master().name() == "gw1" { (gw1, gw2) } else { (gw2, gw1) };
    run(&backup, "ip link del wg0");
    eventually("the backup has wg0 again", || {
        let good = pair.status(&backup)["ready"] == true
            && !wg0_up(&backup)
            && backup.sh("ip link show wg0").is_ok();
        if good { Vec::new() } else { vec![pair.wgha(&backup, &["status"])] }
    });
    pair.hand_over(&master, &backup);
    pair.settled_on(&backup, "handover to where wg0 was deleted");
    pair.end();
}

#[test]
fn interface_removed_and_back() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    netns_lab::remove_interface(&gw1, "eth1").expect("removing");
    pair.says(&gw1, "fault", "eth1");
    pair.is_master(&gw2, "gw1 has lost the interface of a floating IP");
    let refused = pair.refused(&gw2, &["handover", "--to", "gw1"]);
    assert!(refused.contains("gw1"), "{refused}");
    let inner = topology::inner(11);
    let port = "link add gw1i type veth peer name eth1 netns";
    pair.lab
        .switch()
        .ip_batch(&format!("{port} {}\nlink set gw1i master br1 up\n", gw1.net_path()))
        .expect("a new cable");
    gw1.sysctl("net/ipv6/conf/eth1/accept_dad", "0").expect("sysctl");
    gw1.sysctl("net/ipv6/conf/eth1/accept_ra", "0").expect("sysctl");
    gw1.ip_batch(&format!(
        "addr add {}/24 brd + dev eth1\naddr add {}/64 dev eth1 nodad\nlink set eth1 up\n",
        inner.v4, inner.v6
    ))
    .expect("addresses");
    pair.settled_on(&gw2, "the interface is back");
    pair.is_ready(&gw1);
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "handover to where the interface is back");
    // Down on the backup, down on the master.
    run(&gw2, "ip link set eth1 down");
    pair.says(&gw2, "fault", "eth1");
    run(&gw2, "ip link set eth1 up");
    pair.settled_on(&gw1, "the backup's interface is up again");
    run(&gw1, "ip link set eth1 down");
    pair.is_master(&gw2, "the master's interface is down");
    run(&gw1, "ip link set eth1 up");
    pair.settled_on(&gw2, "the old master's interface is up again");
}

#[test]
fn nft_flushed() {
    let pair = Pair::start();
    for node in [pair.gateway(1), pair.gateway(2)] {
        // A ruleset of the administrator's, so that there is something to flush.
        node.nft("table inet own {\n chain in {\n type filter hook input priority 0;\n counter accept\n }\n}\n")
            .expect("nft");
        netns_lab::flush_nft(&node).expect("nft");
        pair.settled_on(&pair.gateway(1), &format!("nft flush ruleset on {}", node.name()));
    }
    pair.end();
}
