//! What the gateways send on their uplinks, counted where no packet can be missed: by nftables in the
//! switch, at the ports of the gateways.

use std::fmt::Write as _;

use netns_lab::{Lab, Node, topology};
use serde_json::Value;

use crate::audit::run;
use crate::pair::eventually;

/// Counts since it was made.
pub(crate) struct Uplink {
    switch: Node,
}

/// Packets of one gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// From WireGuard's port of the floating IP.
    pub(crate) floating: u64,
    /// From WireGuard's port of any other address, through any interface.
    pub(crate) stray: u64,
    /// ICMP "port unreachable" from the floating IP.
    pub(crate) refusals: u64,
}

impl Uplink {
    /// Begins to count.
    pub(crate) fn watch(lab: &Lab) -> Uplink {
        let mut rules = String::new();
        let mut counters = String::new();
        for gateway in lab.gateways().iter().map(Node::name) {
            for what in ["floating", "stray", "refusals"] {
                let _ = writeln!(counters, "counter {gateway}_{what} {{}}");
            }
            rules += &rules_of(gateway);
        }
        let switch = lab.switch().clone();
        switch
            .nft(&format!(
                "table bridge uplink {{\n{counters}\
                 set strays {{ type ipv4_addr . ipv4_addr; size 64; flags dynamic; }}\n\
                 set strays6 {{ type ipv6_addr . ipv6_addr; size 64; flags dynamic; }}\n\
                 chain seen {{\ntype filter hook prerouting priority -300\n{rules}}}\n}}\n"
            ))
            .expect("counting in the switch");
        Uplink { switch }
    }

    /// What a gateway has sent so far.
    pub(crate) fn sent(&self, gateway: &Node) -> Sent {
        let listed = run(&self.switch, "nft -j list counters table bridge uplink");
        let listed: Value = serde_json::from_str(&listed).expect("JSON of nft");
        let all = listed["nftables"].as_array().expect("a list");
        let count = |what: &str| {
            let name = format!("{}_{what}", gateway.name());
            let counter = all.iter().map(|c| &c["counter"]).find(|c| c["name"] == *name);
            counter.and_then(|c| c["packets"].as_u64()).unwrap_or_else(|| panic!("no {name}"))
        };
        Sent { floating: count("floating"), stray: count("stray"), refusals: count("refusals") }
    }

    /// Waits until a gateway has sent this: what needs a neighbour first leaves later.
    pub(crate) fn comes_to(&self, gateway: &Node, expected: Sent) {
        eventually("the packets have left", || {
            let sent = self.sent(gateway);
            if sent == expected { Vec::new() } else { vec![format!("{sent:?}")] }
        });
    }

    /// Sources and destinations of the packets that left from another address than the floating IP.
    pub(crate) fn strays(&self) -> String {
        let list = |set: &str| run(&self.switch, &format!("nft list set bridge uplink {set}"));
        list("strays") + &list("strays6")
    }
}

fn rules_of(gateway: &str) -> String {
    let topology::Pair { v4, v6 } = topology::floating();
    let port = format!("udp sport {}", topology::WG_PORT);
    let outside = format!("iifname \"{gateway}\"");
    let any = format!("iifname {{ \"{gateway}\", \"{gateway}i\" }}");
    [
        format!("{outside} ip saddr {v4} {port} counter name \"{gateway}_floating\""),
        format!("{outside} ip6 saddr {v6} {port} counter name \"{gateway}_floating\""),
        format!("{any} ip saddr != {v4} {port} counter name \"{gateway}_stray\" add @strays {{ ip saddr . ip daddr }}"),
        format!("{any} ip6 saddr != {v6} {port} counter name \"{gateway}_stray\" add @strays6 {{ ip6 saddr . ip6 daddr }}"),
        format!("{outside} ip saddr {v4} icmp type destination-unreachable icmp code port-unreachable counter name \"{gateway}_refusals\""),
        format!("{outside} ip6 saddr {v6} icmpv6 type destination-unreachable icmpv6 code port-unreachable counter name \"{gateway}_refusals\""),
    ]
    .map(|rule| rule + "\n")
    .concat()
}
