//! Names and addresses of the lab's network.
//!
//! ```text
//!   client1 -- 10.8.1.0/24 --+                      +-- eth0 gw1 eth1 --+
//!   client2 -- 10.8.2.0/24 --+ router -- br0 (sw) --+-- eth0 gw2 eth1 --+-- br1 (sw) -- host
//!                    (NAT)       203.0.113.0/24     +-- eth0 w1           172.16.0.0/24
//! ```
//! The tunnel net is 10.9.0.0/24. Every IPv4 net has an IPv6 twin, but for those of simulated clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// WireGuard's port on the gateways.
pub const WG_PORT: u16 = 51820;
/// The heartbeat's port.
pub const HEARTBEAT_PORT: u16 = 5112;
/// The echo server's port.
pub const ECHO_PORT: u16 = 7007;

/// An IPv4 address and its IPv6 twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The IPv6 address reads like the IPv4 one: .100 and ::100.
    fn new(v4: [u8; 4], v6_net: [u16; 4]) -> Self {
        let [a, b, c, d] = v6_net;
        let host = u16::from(v4[3]);
        let host = host / 100 * 0x100 + host / 10 % 10 * 0x10 + host % 10;
        Self { v4: v4.into(), v6: Ipv6Addr::new(a, b, c, d, 0, 0, 0, host) }
    }

    /// Both, as `IpAddr`.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

const UPLINK6: [u16; 4] = [0x2001, 0xdb8, 1, 0];
const INNER6: [u16; 4] = [0xfd00, 0x16, 0, 0];
const TUNNEL6: [u16; 4] = [0xfd00, 9, 0, 0];

/// An address in the uplink net, 203.0.113.0/24 and 2001:db8:1::/64.
pub fn uplink(host: u8) -> Pair {
    Pair::new([203, 0, 113, host], UPLINK6)
}

/// An address in the net behind the gateways, 172.16.0.0/24 and fd00:16::/64.
pub fn inner(host: u8) -> Pair {
    Pair::new([172, 16, 0, host], INNER6)
}

/// An address in the tunnel, 10.9.0.0/24 and fd00:9::/64.
pub fn tunnel(host: u8) -> Pair {
    Pair::new([10, 9, 0, host], TUNNEL6)
}

/// An address in the net of client `number`, 10.8.N.0/24 and fd00:8:N::/64.
pub fn client_net(number: u8, host: u8) -> Pair {
    Pair::new([10, 8, number, host], [0xfd00, 8, number.into(), 0])
}

/// The router on the uplink net.
pub fn router() -> Pair {
    uplink(1)
}

/// Gateway `number` (from 1) on the uplink net.
pub fn gateway(number: u8) -> Pair {
    uplink(10 + number)
}

/// The witness.
pub fn witness() -> Pair {
    uplink(50)
}

/// The floating IP that clients use.
pub fn floating() -> Pair {
    uplink(100)
}

/// The floating IP that the inner host uses as its gateway.
pub fn inner_floating() -> Pair {
    inner(1)
}

/// The host behind the gateways.
pub fn host() -> Pair {
    inner(100)
}

/// wg0's address on the gateways.
pub fn wg_gateway() -> Pair {
    tunnel(1)
}

/// The tunnel address of client `number` (from 1).
pub fn wg_client(number: u8) -> Pair {
    tunnel(1 + number)
}

/// Where the simulated clients' own addresses are: behind client1.
pub const SWARM_NET: &str = "10.64.0.0/16";

/// The own address of simulated client `number` (from 0), 10.64.0.0/16.
pub fn swarm_outer(number: u16) -> Ipv4Addr {
    spread([10, 64], number)
}

/// The tunnel address of simulated client `number` (from 0), in 10.9.1.0 and above.
pub fn swarm_tunnel(number: u16) -> Ipv4Addr {
    spread([10, 9], number + 250)
}

/// 250 hosts in each /24.
fn spread([a, b]: [u8; 2], number: u16) -> Ipv4Addr {
    let byte = |n: u16| u8::try_from(n).unwrap_or(u8::MAX);
    Ipv4Addr::new(a, b, byte(number / 250), byte(number % 250 + 1))
}

/// The endpoint in clients' configs.
pub fn endpoint(v6: bool) -> SocketAddr {
    let floating = floating();
    SocketAddr::new(if v6 { floating.v6.into() } else { floating.v4.into() }, WG_PORT)
}

/// The drawing that the demo prints.
pub fn drawing(gateways: usize, clients: usize, witness: bool) -> String {
    let mut text = String::new();
    for n in 1..=clients {
        text += &format!("  client{n}   10.8.{n}.2 (tunnel 10.9.0.{})\n", n + 1);
    }
    text +=
        "     |\n  router    203.0.113.1, NAT for the clients\n     |\n  sw        203.0.113.0/24";
    text += "        floating IP 203.0.113.100, 2001:db8:1::100\n     |\n";
    for n in 1..=gateways {
        text += &format!(
            "     +-- gw{n}   203.0.113.{} outside, 172.16.0.{} inside, wg0 10.9.0.1 when master\n",
            10 + n,
            10 + n
        );
    }
    if witness {
        text += "     +-- w1    203.0.113.50, votes only\n";
    }
    text + "     |\n  host      172.16.0.100, its gateway is the floating 172.16.0.1\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_families_read_alike() {
        assert_eq!(
            super::floating().both().map(|a| a.to_string()),
            ["203.0.113.100", "2001:db8:1::100"]
        );
        assert_eq!(super::inner(11).v6.to_string(), "fd00:16::11");
    }

    #[test]
    fn simulated_clients_have_an_address_each() {
        assert_eq!(super::swarm_outer(0).to_string(), "10.64.0.1");
        assert_eq!(super::swarm_tunnel(999).to_string(), "10.9.4.250");
        let all: std::collections::HashSet<_> = (0..2_000).map(super::swarm_tunnel).collect();
        assert_eq!(all.len(), 2_000);
        assert!(!all.contains(&super::wg_gateway().v4));
    }
}
