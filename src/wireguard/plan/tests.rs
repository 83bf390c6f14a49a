use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [7; 32];

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn nets(list: &[&str]) -> BTreeSet<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

fn peer(n: u8, allowed: &[&str]) -> Peer {
    let allowed_ips = nets(allowed);
    Peer { public_key: key(n), preshared_key: None, allowed_ips, endpoint: None, keepalive: 0 }
}

fn conf(peers: Vec<Peer>) -> WgConf {
    let text =
        "[Interface]\nPrivateKey=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\nListenPort=51820";
    let conf = WgConf::parse("wg0", text).unwrap().conf;
    WgConf { peers, ..conf }
}

/// The device that the file describes, staged.
fn device(conf: &WgConf) -> Device {
    let peers = conf.peers.iter().map(|p| DevicePeer {
        public_key: p.public_key,
        preshared_key: p.preshared_key.clone(),
        endpoint: p.endpoint,
        keepalive: 0,
        allowed_ips: p.allowed_ips.clone(),
        last_handshake: None,
        received: 0,
    });
    Device {
        public_key: Some(conf.public_key),
        listen_port: conf.listen_port,
        fwmark: conf.fwmark,
        peers: peers.collect(),
    }
}

fn staged(now: &Device, conf: &WgConf) -> Change {
    plan(now, conf, Keepalives::Off, Moves::Taken)
}

fn update(n: u8, fields: Fields) -> PeerChange {
    PeerChange { public_key: key(n), action: Action::Update(fields) }
}

#[test]
fn a_new_device_gets_everything() {
    let psk = SecretKey::new([9; 32]);
    let endpoint = "192.0.2.1:7".parse().unwrap();
    let wanted = Peer {
        preshared_key: Some(psk.clone()),
        endpoint: Some(endpoint),
        keepalive: 25,
        ..peer(1, &["10.0.0.1/32"])
    };
    let conf = conf(vec![wanted]);
    let change = staged(&Device::default(), &conf);
    assert_eq!(change.private_key, Some(SecretKey::new(KEY)));
    assert_eq!(change.listen_port, Some(51820));
    assert_eq!(change.fwmark, None, "0 is what a new device has");
    let fields = Fields {
        preshared_key: Some(Some(psk)),
        endpoint: Some(endpoint),
        keepalive: None,
        replace_allowed_ips: false,
        allowed_ips: vec!["10.0.0.1/32".parse().unwrap()],
    };
    let expected = PeerChange { public_key: key(1), action: Action::Add(fields) };
    assert_eq!(change.peers, [expected]);
}

#[test]
fn no_difference_no_change() {
    let conf = conf(vec![peer(1, &["10.0.0.1/32"]), peer(2, &[])]);
    assert!(staged(&device(&conf), &conf).is_empty());
}

/// FwMark, ListenPort and PrivateKey are sent only if they differ: even an equal mark makes the
/// kernel forget cached sources.
#[test]
fn each_field_of_the_device_alone() {
    let conf = conf(vec![peer(1, &[])]);
    let same = device(&conf);
    let mark = staged(&Device { fwmark: 5, ..same.clone() }, &conf);
    assert_eq!(mark, Change { fwmark: Some(0), ..Change::default() });
    let port = staged(&Device { listen_port: 1, ..same.clone() }, &conf);
    assert_eq!(port, Change { listen_port: Some(51820), ..Change::default() });
    let private = staged(&Device { public_key: Some(key(3)), ..same }, &conf);
    let expected = Change { private_key: Some(SecretKey::new(KEY)), ..Change::default() };
    assert_eq!(private, expected);
}

#[test]
fn a_learned_endpoint_stays() {
    let file: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let learned = "198.51.100.9:4444".parse().unwrap();
    let conf = conf(vec![Peer { endpoint: Some(file), ..peer(1, &[]) }]);
    let mut now = device(&conf);
    now.peers[0].endpoint = Some(learned);
    assert!(staged(&now, &conf).is_empty());
    now.peers[0].endpoint = None;
    let fields = Fields { endpoint: Some(file), ..Fields::default() };
    assert_eq!(staged(&now, &conf).peers, [update(1, fields)]);
}

#[test]
fn keepalives_go_with_the_traffic() {
    let conf = conf(vec![Peer { keepalive: 25, ..peer(1, &[]) }, peer(2, &[])]);
    let mut now = device(&conf);
    assert!(staged(&now, &conf).is_empty());
    let on = Fields { keepalive: Some(25), ..Fields::default() };
    let up = |now: &Device| plan(now, &conf, Keepalives::AsConfigured, Moves::Taken);
    assert_eq!(up(&now).peers, [update(1, on)]);
    now.peers[0].keepalive = 25;
    assert!(up(&now).is_empty());
    let off = Fields { keepalive: Some(0), ..Fields::default() };
    assert_eq!(staged(&now, &conf).peers, [update(1, off)]);
}

#[test]
fn preshared_keys_come_change_and_go() {
    let with =
        |k: Option<u8>| Peer { preshared_key: k.map(|k| SecretKey::new([k; 32])), ..peer(1, &[]) };
    for (before, after) in [(None, Some(1)), (Some(1), Some(2)), (Some(2), None)] {
        let change = staged(&device(&conf(vec![with(before)])), &conf(vec![with(after)]));
        let key = after.map(|k| SecretKey::new([k; 32]));
        let fields = Fields { preshared_key: Some(key), ..Fields::default() };
        assert_eq!(change.peers, [update(1, fields)]);
    }
}

#[test]
fn removals_come_before_what_is_freed() {
    let now = device(&conf(vec![peer(1, &["10.0.0.1/32"]), peer(2, &["10.0.0.2/32"])]));
    let change = staged(&now, &conf(vec![peer(1, &["10.0.0.1/32", "10.0.0.2/32"])]));
    let gained = Fields { allowed_ips: vec!["10.0.0.2/32".parse().unwrap()], ..Fields::default() };
    let removed = PeerChange { public_key: key(2), action: Action::Remove };
    assert_eq!(change.peers, [removed, update(1, gained)]);
}

#[test]
fn a_prefix_that_is_dropped_needs_the_whole_list() {
    let now = device(&conf(vec![peer(1, &["10.0.0.1/32", "10.1.0.0/16"])]));
    let change = staged(&now, &conf(vec![peer(1, &["10.0.0.1/32"])]));
    let fields = Fields {
        replace_allowed_ips: true,
        allowed_ips: vec!["10.0.0.1/32".parse().unwrap()],
        ..Fields::default()
    };
    assert_eq!(change.peers, [update(1, fields)]);
}

#[test]
fn a_prefix_that_moves_is_taken_from_its_owner() {
    let now = device(&conf(vec![peer(1, &["10.0.0.1/32", "10.1.0.0/16"]), peer(2, &[])]));
    let wanted = conf(vec![peer(1, &["10.0.0.1/32"]), peer(2, &["10.1.0.0/16"])]);
    let net = || vec!["10.1.0.0/16".parse().unwrap()];
    let gain = update(2, Fields { allowed_ips: net(), ..Fields::default() });
    assert_eq!(staged(&now, &wanted).peers, std::slice::from_ref(&gain));
    // gotatun's owner would take it back, and is told first.
    let loss = Fields {
        replace_allowed_ips: true,
        allowed_ips: vec!["10.0.0.1/32".parse().unwrap()],
        ..Fields::default()
    };
    let change = plan(&now, &wanted, Keepalives::Off, Moves::TakenBack);
    assert_eq!(change.peers, [update(1, loss), gain]);
}

/// What the kernel does with a change; gotatun differs in `Moves` alone.
fn apply(device: &mut Device, change: &Change) {
    if let Some(key) = &change.private_key {
        device.public_key = Some(key.public());
    }
    device.listen_port = change.listen_port.unwrap_or(device.listen_port);
    device.fwmark = change.fwmark.unwrap_or(device.fwmark);
    for change in &change.peers {
        let at = device.peers.iter().position(|p| p.public_key == change.public_key);
        let fields = match (&change.action, at) {
            (Action::Remove, Some(at)) => {
                device.peers.remove(at);
                continue;
            }
            (Action::Add(fields), None) => {
                device.peers.push(DevicePeer {
                    public_key: change.public_key,
                    preshared_key: None,
                    endpoint: None,
                    keepalive: 0,
                    allowed_ips: BTreeSet::new(),
                    last_handshake: None,
                    received: 0,
                });
                fields
            }
            (Action::Update(fields), Some(_)) => fields,
            (action, at) => panic!("{action:?} of a peer at {at:?}"),
        };
        for peer in &mut device.peers {
            let mine = peer.public_key == change.public_key;
            if mine && fields.replace_allowed_ips {
                peer.allowed_ips.clear();
            }
            for net in &fields.allowed_ips {
                if mine {
                    peer.allowed_ips.insert(*net);
                } else {
                    peer.allowed_ips.remove(net);
                }
            }
            if mine {
                if let Some(psk) = &fields.preshared_key {
                    peer.preshared_key = psk.clone();
                }
                peer.endpoint = fields.endpoint.or(peer.endpoint);
                peer.keepalive = fields.keepalive.unwrap_or(peer.keepalive);
            }
        }
    }
}

prop_compose! {
    /// Up to six peers that share twelve prefixes, so that most changes move some.
    fn any_conf()(
        present in proptest::collection::vec(any::<bool>(), 6),
        owners in proptest::collection::vec(0_usize..8, 12),
        keepalives in proptest::collection::vec(0_u16..3, 6),
        psks in proptest::collection::vec(0_u8..3, 6),
        fwmark in 0_u32..2,
    ) -> WgConf {
        let peers = (0..6).filter(|n| present[*n]).map(|n| {
            let mine = owners.iter().enumerate().filter(|(_, owner)| **owner == n);
            let net = |at: usize| format!("10.0.0.{at}/32").parse().unwrap();
            Peer {
                public_key: key(u8::try_from(n).unwrap() + 1),
                preshared_key: (psks[n] > 0).then(|| SecretKey::new([psks[n]; 32])),
                allowed_ips: mine.map(|(at, _)| net(at)).collect(),
                endpoint: None,
                keepalive: keepalives[n],
            }
        });
        WgConf { fwmark, ..conf(peers.collect()) }
    }
}

proptest! {
    #[test]
    fn a_change_leads_where_it_should(
        confs in proptest::collection::vec((any_conf(), any::<bool>(), any::<bool>()), 1..6),
    ) {
        let mut now = Device::default();
        for (conf, up, taken_back) in confs {
            let keepalives = if up { Keepalives::AsConfigured } else { Keepalives::Off };
            let moves = if taken_back { Moves::TakenBack } else { Moves::Taken };
            let change = plan(&now, &conf, keepalives, moves);
            apply(&mut now, &change);
            let again = plan(&now, &conf, keepalives, moves);
            prop_assert!(again.is_empty(), "{again:?}");
            for peer in &conf.peers {
                let there = now.peers.iter().find(|p| p.public_key == peer.public_key).unwrap();
                prop_assert_eq!(&there.allowed_ips, &peer.allowed_ips);
                prop_assert_eq!(there.keepalive, if up { peer.keepalive } else { 0 });
            }
            prop_assert_eq!(now.peers.len(), conf.peers.len());
        }
    }
}

#[test]
fn endpoints_are_set_where_they_differ_and_for_known_peers_alone() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (here, there) = (at("192.0.2.1:7"), at("[2001:db8::1]:8"));
    let conf = conf(vec![peer(1, &[]), peer(2, &[]), peer(3, &[])]);
    let mut now = device(&conf);
    now.peers[1].endpoint = Some(here);
    now.peers[2].endpoint = Some(here);
    let known = [([1; 32], here), ([2; 32], here), ([3; 32], there), ([4; 32], there)];
    let set = |endpoint| Fields { endpoint: Some(endpoint), ..Fields::default() };
    let change = endpoints(&now, &known);
    assert_eq!(change.peers, [update(1, set(here)), update(3, set(there))]);
    assert_eq!(Change { peers: Vec::new(), ..change }, Change::default());
    assert!(endpoints(&now, &[]).is_empty());
}

#[test]
fn keepalives_as_found_are_left_alone_but_a_new_peer_gets_its_own() {
    let mut wanted = conf(vec![peer(1, &[]), peer(2, &[])]);
    let mut now = device(&wanted);
    now.peers[0].keepalive = 1;
    wanted.peers[0].keepalive = 25;
    wanted.peers[1].keepalive = 25;
    let as_found = |conf: &WgConf| plan(&now, conf, Keepalives::AsFound, Moves::Taken);
    assert!(as_found(&wanted).is_empty());
    wanted.peers.push(Peer { keepalive: 5, ..peer(3, &[]) });
    let fields = Fields { keepalive: Some(5), ..Fields::default() };
    let added = PeerChange { public_key: key(3), action: Action::Add(fields) };
    assert_eq!(as_found(&wanted).peers, [added]);
    let set = |seconds| Fields { keepalive: Some(seconds), ..Fields::default() };
    let change = keepalives([([2; 32], 0), ([1; 32], 9)].into_iter());
    assert_eq!(change.peers, [update(2, set(0)), update(1, set(9))]);
}
