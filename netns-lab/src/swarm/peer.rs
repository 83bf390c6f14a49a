//! One simulated client, without sockets: gotatun's Noise tunnel and what it carries.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::tun::MtuWatcher;
use gotatun::x25519::{PublicKey, StaticSecret};

use super::inner;

/// Of the tunnel; the packets are far shorter.
const MTU: u16 = 1380;

const NOT_YET: u64 = u64::MAX;

/// Who a simulated client is.
pub(super) struct Identity {
    pub(super) private: StaticSecret,
    pub(super) preshared: [u8; 32],
    pub(super) gateway: PublicKey,
    /// Its address in the tunnel.
    pub(super) tunnel: Ipv4Addr,
    /// The echo server behind the gateway.
    pub(super) echo: SocketAddrV4,
}

/// What a datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing that could be authenticated.
    Nothing,
    /// Authentic: it moves the endpoint.
    Authentic,
    /// Authentic, and a handshake is complete on this side.
    Handshake,
    /// The answer to a request that was sent into the newest session.
    Answer,
}

/// A client. What it wants to send is appended to the list that each call is given. It asks the echo
/// server by itself in each new session, as soon as the session may be used.
pub(super) struct Peer {
    tunn: Tunn,
    limiter: Arc<RateLimiter>,
    identity: Identity,
    mtu: MtuWatcher,
    /// Of the next request.
    number: u64,
    /// The first request in the newest session; the greatest number until that may be used.
    first_of_session: u64,
}

impl Peer {
    pub(super) fn new(identity: Identity) -> Self {
        // A client never defends itself against its gateway.
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&identity.private), u64::MAX));
        let tunn = Tunn::new(
            identity.private.clone(),
            identity.gateway,
            Some(identity.preshared),
            None,
            IndexTable::from_os_rng(),
            Arc::clone(&limiter),
        );
        Self {
            tunn,
            limiter,
            identity,
            mtu: MtuWatcher::new(MTU),
            number: 0,
            first_of_session: NOT_YET,
        }
    }

    /// Sends a request; without a session it begins a handshake, and the request waits.
    pub(super) fn ask(&mut self, send: &mut Vec<Packet>) {
        let request = inner::request(self.identity.tunnel, self.identity.echo, self.number);
        self.number += 1;
        let packet = Packet::copy_from(&request[..]);
        send.extend(self.tunn.handle_outgoing_packet(packet, Some(&mut self.mtu)).map(Into::into));
    }

    /// To be called a few times a second: retries and new handshakes, by WireGuard's rules.
    pub(super) fn tick(&mut self, send: &mut Vec<Packet>) {
        if let Ok(Some(packet)) = self.tunn.update_timers() {
            send.push(packet.into());
        }
    }

    /// A datagram from the network.
    pub(super) fn hear(
        &mut self,
        from: std::net::SocketAddr,
        datagram: &[u8],
        send: &mut Vec<Packet>,
    ) -> Heard {
        let packet = match self.limiter.verify_packet(from, Packet::copy_from(datagram)) {
            Ok(packet) => packet,
            Err(_) => return Heard::Nothing,
        };
        let (is_initiation, is_response) = (
            matches!(packet, WgKind::HandshakeInit(_)),
            matches!(packet, WgKind::HandshakeResp(_)),
        );
        match self.tunn.handle_incoming_packet(packet) {
            TunnResult::Err(_) => Heard::Nothing,
            TunnResult::Done => Heard::Authentic,
            TunnResult::WriteToNetwork(packet) => {
                send.push(packet.into());
                if is_response {
                    send.extend(self.tunn.get_queued_packets(&mut self.mtu).map(Into::into));
                    self.begin_session(send);
                }
                if is_initiation {
                    // Until the gateway uses the session, what is sent goes into the old one.
                    self.first_of_session = NOT_YET;
                }
                if is_initiation || is_response { Heard::Handshake } else { Heard::Authentic }
            }
            TunnResult::WriteToTunnel(packet) => {
                if self.first_of_session == NOT_YET {
                    self.begin_session(send);
                }
                match inner::answer(&packet, self.identity.echo, self.identity.tunnel) {
                    Some(number) if number >= self.first_of_session => Heard::Answer,
                    _ => Heard::Authentic,
                }
            }
        }
    }

    fn begin_session(&mut self, send: &mut Vec<Packet>) {
        self.first_of_session = self.number;
        self.ask(send);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Peer, Tunn) {
        let client = StaticSecret::from([1; 32]);
        let gateway = StaticSecret::from([2; 32]);
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&gateway), u64::MAX));
        let far = Tunn::new(
            gateway.clone(),
            PublicKey::from(&client),
            Some([3; 32]),
            None,
            IndexTable::from_os_rng(),
            limiter,
        );
        let near = Peer::new(Identity {
            private: client,
            preshared: [3; 32],
            gateway: PublicKey::from(&gateway),
            tunnel: Ipv4Addr::new(10, 9, 1, 1),
            echo: "172.16.0.100:7007".parse().unwrap(),
        });
        (near, far)
    }

    /// Hands what the client sent to the gateway, which echoes what comes out of the tunnel.
    fn exchange(near: &mut Peer, far: &mut Tunn, sent: Vec<Packet>) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut queue = sent;
        let from = "203.0.113.100:51820".parse().unwrap();
        while !queue.is_empty() {
            let mut next = Vec::new();
            for packet in queue.drain(..) {
                let back: Option<Packet> =
                    match far.handle_incoming_packet(packet.try_into_wg().unwrap()) {
                        TunnResult::WriteToNetwork(packet) => Some(packet.into()),
                        TunnResult::WriteToTunnel(packet) if packet.is_empty() => None,
                        TunnResult::WriteToTunnel(mut packet) => {
                            let bytes = packet.buf_mut();
                            let (source, destination) =
                                (bytes[12..16].to_vec(), bytes[16..20].to_vec());
                            bytes[12..16].copy_from_slice(&destination);
                            bytes[16..20].copy_from_slice(&source);
                            far.handle_outgoing_packet(packet, None).map(Into::into)
                        }
                        other => panic!("{other:?}"),
                    };
                if let Some(packet) = back {
                    heard.push(near.hear(from, &packet, &mut next));
                }
            }
            queue = next;
        }
        heard
    }

    #[test]
    fn the_client_begins() {
        let (mut near, mut far) = pair();
        let mut sent = Vec::new();
        near.ask(&mut sent);
        // The response; the answer to the request that waited, older than the session; the one of the session.
        let expected = [Heard::Handshake, Heard::Authentic, Heard::Answer];
        assert_eq!(exchange(&mut near, &mut far, sent), expected);
    }

    #[test]
    fn the_gateway_begins_and_a_forgery_is_not_heard() {
        let (mut near, mut far) = pair();
        let from = "203.0.113.100:51820".parse().unwrap();
        let mut sent = Vec::new();
        let initiation: Packet = far.format_handshake_initiation(true).unwrap().into();
        let mut forged = initiation.to_vec();
        forged[50] ^= 1;
        assert_eq!(near.hear(from, &forged, &mut sent), Heard::Nothing);
        assert_eq!(near.hear(from, &initiation, &mut sent), Heard::Handshake);
        assert_eq!(near.first_of_session, NOT_YET);
        // The gateway's keepalive confirms the session, which the client uses at once.
        assert_eq!(exchange(&mut near, &mut far, sent), [Heard::Authentic, Heard::Answer]);
    }
}
