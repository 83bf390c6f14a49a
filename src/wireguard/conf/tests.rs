use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// From RFC 7748: the public key of `PRIVATE` is `PUBLIC`.
const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const PEER: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
const OTHER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PSK: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

fn parse(text: &str) -> Result<Parsed, Vec<ConfError>> {
    WgConf::parse("wg0", text)
}

fn interface(lines: &str) -> String {
    format!("[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 51820\n{lines}\n")
}

/// `lines` begin on line 7.
fn with_peer(lines: &str) -> String {
    format!("{}[Peer]\nPublicKey = {PEER}\n{lines}\n", interface("Address = 10.9.0.1/24"))
}

fn nets(list: &[&str]) -> BTreeSet<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

#[test]
fn every_key() {
    let text = format!(
        "# the gateway\n\
         [interface]\n\
         privatekey = {PRIVATE} # secret\n\
         LISTENPORT=51820\n\
         FwMark = 0xca6c\n\
         Address = 10.9.0.1/24, fd00:9::1/64\n\
         Address = 10.9.1.1\n\
         MTU = 1380\n\
         Table = 77\n\
         PreUp = echo pre %i # kept\n\
         PostUp = first %i\n\
         PostUp = second\n\
         PreDown = c\n\
         PostDown = d\n\
         SaveConfig = false\n\
         \n\
         [Peer]\n\
         PublicKey = {PEER}\n\
         PresharedKey = {PSK}\n\
         AllowedIPs = 10.9.0.2/32, 10.20.3.4/16\n\
         AllowedIPs = +fd00:9::2, 0.0.0.0/0, -0.0.0.0/0\n\
         Endpoint = [2001:db8::1]:4000\n\
         PersistentKeepalive = 25\n\
         [Peer]\n\
         PublicKey = {OTHER}\n\
         AllowedIPs = 10.9.0.3\n\
         PersistentKeepalive = off\n"
    );
    let Parsed { conf, warnings } = parse(&text).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(conf.public_key.to_string(), PUBLIC);
    assert_eq!((conf.listen_port, conf.fwmark, conf.mtu), (51820, 0xca6c, 1380));
    let addresses: Vec<_> = conf.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.9.0.1/24", "fd00:9::1/64", "10.9.1.1/32"]);
    assert_eq!(conf.table, Table::Number(77));
    assert_eq!(conf.pre_up, ["echo pre wg0 # kept"]);
    assert_eq!(conf.post_up, ["first wg0", "second"]);
    assert_eq!((&conf.pre_down[..], &conf.post_down[..]), (&["c".into()][..], &["d".into()][..]));
    let [first, second] = &conf.peers[..] else { panic!("two peers") };
    assert_eq!(first.public_key.to_string(), PEER);
    assert_eq!(first.preshared_key, SecretKey::from_base64(PSK));
    assert_eq!(first.allowed_ips, nets(&["10.9.0.2/32", "10.20.0.0/16", "fd00:9::2/128"]));
    assert_eq!(first.endpoint, Some("[2001:db8::1]:4000".parse().unwrap()));
    assert_eq!(first.keepalive, 25);
    assert_eq!((second.endpoint, second.keepalive), (None, 0));
    assert!(second.preshared_key.is_none());
}

#[test]
fn what_is_not_given() {
    let conf = parse(&interface("")).unwrap().conf;
    assert_eq!((conf.fwmark, conf.mtu, conf.table), (0, DEFAULT_MTU, Table::Auto));
    assert!(conf.addresses.is_empty() && conf.peers.is_empty());
}

#[test]
fn values_with_several_spellings() {
    let fwmark = |v: &str| parse(&interface(&format!("FwMark = {v}"))).unwrap().conf.fwmark;
    assert_eq!([fwmark("off"), fwmark("0xFF"), fwmark("255"), fwmark("0")], [0, 255, 255, 0]);
    let table = |v: &str| parse(&interface(&format!("Table = {v}"))).unwrap().conf.table;
    assert_eq!([table("auto"), table("OFF")], [Table::Auto, Table::Off]);
    assert_eq!([table("main"), table("51820")], [Table::Number(254), Table::Number(51820)]);
    // A key of zeros is none, as for the kernel.
    let zeros = "A".repeat(43) + "=";
    let text = with_peer(&format!("AllowedIPs = 10.9.0.2\nPresharedKey = {zeros}"));
    assert!(parse(&text).unwrap().conf.peers[0].preshared_key.is_none());
    // A default route is fine where it does not touch the main table.
    for table in ["off", "77"] {
        let text = with_peer("AllowedIPs = 0.0.0.0/0, ::/0")
            .replace("Address", &format!("Table = {table}\nAddress"));
        assert_eq!(parse(&text).unwrap().conf.peers[0].allowed_ips.len(), 2);
    }
}

/// (text, line, key, a word of the message)
#[test]
fn every_error_with_line_and_key() {
    let i = |lines: &str| interface(lines);
    let p = |lines: &str| with_peer(lines);
    let none = "[Interface]\nListenPort = 1\n".to_owned();
    let no_port = format!("\n[Interface]\nPrivateKey = {PRIVATE}\n");
    let bad_key = "[Interface]\nListenPort = 1\nPrivateKey = c2VjcmV0\n".to_owned();
    let zero_key = format!("[Interface]\nListenPort = 1\nPrivateKey = {}=\n", "A".repeat(43));
    let port_0 = format!("[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 0\n");
    let port_bad = format!("[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 65536\n");
    let moved =
        format!("AllowedIPs = 10.1.0.0/16\n[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.1.2.3/16");
    let table: Vec<(String, Option<usize>, &str, &str)> = vec![
        (String::new(), None, "[Interface]", "missing"),
        (none, Some(1), "PrivateKey", "missing"),
        (no_port, Some(2), "ListenPort", "missing"),
        (bad_key, Some(3), "PrivateKey", "base64"),
        (zero_key, Some(3), "PrivateKey", "zero"),
        (port_0, Some(3), "ListenPort", "0"),
        (port_bad, Some(3), "ListenPort", "65535"),
        (i("ListenPort = 2"), Some(4), "ListenPort", "line 3"),
        (i("FwMark = 0xgg"), Some(4), "FwMark", "expected"),
        (i("FwMark = 4294967296"), Some(4), "FwMark", "expected"),
        (i("Address = 10.9.0.1/33"), Some(4), "Address", "10.9.0.1/33"),
        (i("Address = gw.example"), Some(4), "Address", "expected"),
        (i("Address = 10.9.0.1/24\nAddress = 10.9.0.1/16"), Some(5), "Address", "line 4"),
        (i("MTU = 100"), Some(4), "MTU", "576"),
        (i("MTU = big"), Some(4), "MTU", "576"),
        (i("Address = fd00::1/64\nMTU = 1000"), Some(5), "MTU", "1280"),
        (i("Table = wireguard"), Some(4), "Table", "number"),
        (i("Table = 0"), Some(4), "Table", "number"),
        (i("PreUp ="), Some(4), "PreUp", "command"),
        (i("SaveConfig = true"), Some(4), "SaveConfig", "must not"),
        (i("SaveConfig = 1"), Some(4), "SaveConfig", "true or false"),
        (i("Jc = 4"), Some(4), "Jc", "unknown key"),
        (i("PublicKey = x"), Some(4), "PublicKey", "[Peer]"),
        (i("hello"), Some(4), "line", "Key = Value"),
        (i("[Wgha]\nfoo = bar"), Some(4), "[Wgha]", "unknown section"),
        (format!("MTU = 1420\n{}", i("")), Some(1), "MTU", "before"),
        (p("MTU = 1420"), Some(7), "MTU", "[Interface]"),
        (p("Foo = 1"), Some(7), "Foo", "unknown key in [Peer]"),
        (p(&format!("PublicKey = {OTHER}")), Some(7), "PublicKey", "line 6"),
        (p("PresharedKey = short"), Some(7), "PresharedKey", "base64"),
        (p("AllowedIPs = 10.0.0.0/8, nowhere"), Some(7), "AllowedIPs", "nowhere"),
        (p("AllowedIPs = 0.0.0.0/0"), Some(7), "AllowedIPs", "Table"),
        (p("AllowedIPs = ::/0"), Some(7), "AllowedIPs", "Table"),
        (p("Endpoint = 192.0.2.1"), Some(7), "Endpoint", "ADDRESS:PORT"),
        (p("Endpoint = 192.0.2.1:0"), Some(7), "Endpoint", "ADDRESS:PORT"),
        (p("Endpoint = 192.0.2.300:1"), Some(7), "Endpoint", "ADDRESS:PORT"),
        (p("Endpoint = 2001:db8::1:51820"), Some(7), "Endpoint", "ADDRESS:PORT"),
        (p("PersistentKeepalive = -1"), Some(7), "PersistentKeepalive", "seconds"),
        (p("PersistentKeepalive = 65536"), Some(7), "PersistentKeepalive", "seconds"),
        (p(&format!("[Peer]\nPublicKey = {PEER}")), Some(8), "PublicKey", "line 6"),
        (p(&format!("[Peer]\nPublicKey = {PUBLIC}")), Some(8), "PublicKey", "own key"),
        (p("[Peer]\nAllowedIPs = 10.9.0.3"), Some(7), "PublicKey", "missing"),
        (p("[Peer]\nPublicKey = bad"), Some(8), "PublicKey", "base64"),
        (p(&moved), Some(10), "AllowedIPs", "10.1.0.0/16 already belongs to the peer on line 7"),
    ];
    for (text, line, key, word) in table {
        let errors = parse(&text).expect_err(&text);
        let [error] = &errors[..] else { panic!("one error in {text:?}: {errors:?}") };
        assert_eq!((error.line, error.key.as_str()), (line, key), "{text}\n{error}");
        assert!(error.what.contains(word), "{error}");
    }
}

#[test]
fn the_interface_has_a_name_that_linux_takes() {
    for name in ["", "a/b", "..", "wg 0", "sixteen-bytes-xx", "wg0\n"] {
        let errors = WgConf::parse(name, &interface("")).unwrap_err();
        assert!(errors[0].what.contains("interface name"), "{name:?}");
    }
    assert!(WgConf::parse("wg-fifteen.byte", &interface("")).is_ok());
}

#[test]
fn all_errors_at_once_in_order() {
    let errors = parse("[Interface]\nMTU = x\nFoo = 1\nListenPort = 0\n").unwrap_err();
    let lines: Vec<_> = errors.iter().map(|e| (e.line, e.key.as_str())).collect();
    let expected = [(1, "PrivateKey"), (2, "MTU"), (3, "Foo"), (4, "ListenPort")];
    assert_eq!(lines, expected.map(|(line, key)| (Some(line), key)));
    assert_eq!(errors[1].to_string(), "line 2, MTU: expected a number of bytes, 576 to 65455");
}

#[test]
fn what_is_odd_is_a_warning() {
    let text = with_peer("Endpoint = vpn.example.org:51820").replace("Address", "DNS = 1.1.1.1\n#");
    let warnings = parse(&text).unwrap().warnings;
    let found: Vec<_> = warnings.iter().map(|w| (w.line.unwrap(), w.key.as_str())).collect();
    assert_eq!(found, [(1, "Address"), (4, "DNS"), (6, "AllowedIPs"), (8, "Endpoint")]);
    assert_eq!(parse(&with_peer("AllowedIPs = -10.0.0.0/8")).unwrap().warnings.len(), 2);
}

#[test]
fn no_key_is_ever_shown() {
    let text = with_peer(&format!("PresharedKey = {PSK}\nAllowedIPs = 10.9.0.2"));
    let conf = parse(&text).unwrap().conf;
    let shown = format!("{conf:?} {:?}", conf.private_key);
    let bytes = format!("{:?}", conf.private_key.expose());
    assert!(!shown.contains(PRIVATE) && !shown.contains(PSK) && !shown.contains(&bytes));
    assert!(shown.contains(PEER));
    // A key that lost its name, or stands in the wrong place, is not repeated in the error.
    for text in [
        format!("[Interface]\n{PRIVATE}\n"),
        format!("[Interface]\nPrivateKey = {PRIVATE}x\nListenPort = {PSK}\n"),
        format!("PrivateKey = {PRIVATE}\n"),
    ] {
        let errors: String = parse(&text).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(!errors.contains(PRIVATE) && !errors.contains(PSK), "{errors}");
    }
}

#[test]
fn fingerprint_follows_identity_and_peers_alone() {
    let base = with_peer(&format!("PresharedKey = {PSK}\nAllowedIPs = 10.9.0.2, 10.9.0.3"));
    let of = |text: &str| parse(text).unwrap().conf.fingerprint_material();
    let same = base.replace("10.9.0.2, 10.9.0.3", "10.9.0.3,10.9.0.2").replace("/24", "/25");
    assert_eq!(of(&base), of(&same));
    for (old, new) in [
        ("51820", "51821"),
        ("10.9.0.3", "10.9.0.4"),
        (PSK, OTHER),
        (PEER, OTHER),
        (PRIVATE, PSK),
        ("PresharedKey", "#"),
    ] {
        assert_ne!(of(&base), of(&base.replace(old, new)), "{old} -> {new}");
    }
    let material = of(&base);
    let psk = SecretKey::from_base64(PSK).unwrap();
    assert!(!material.windows(32).any(|w| w == psk.expose()));
}

#[test]
fn the_order_of_peers_does_not_matter_to_the_fingerprint() {
    let peer = |key: &str, ip: &str| format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {ip}\n");
    let (a, b) = (peer(PEER, "10.9.0.2"), peer(OTHER, "10.9.0.3"));
    let of = |text: &str| parse(text).unwrap().conf.fingerprint_material();
    assert_eq!(of(&(interface("") + &a + &b)), of(&(interface("") + &b + &a)));
}

#[test]
fn a_file_is_read_with_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wg0.conf");
    let missing = WgConf::load("wg0", &path).unwrap_err();
    assert!(missing[0].to_string().contains("cannot be read"), "{missing:?}");
    std::fs::write(&path, interface("Address = 10.9.0.1/24")).unwrap();
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o600);
    assert_eq!(WgConf::load("wg0", &path).unwrap().warnings, []);
    mode(0o644);
    assert_eq!(WgConf::load("wg0", &path).unwrap().warnings.len(), 1);
    assert!(WgConf::load("wg0", dir.path()).is_err());
}

/// Lines that lead somewhere, mixed with noise.
fn any_line() -> impl Strategy<Value = String> {
    let keys = "[Ii]nterface|PrivateKey|ListenPort|FwMark|Address|DNS|MTU|Table|PreUp|PostDown|\
                SaveConfig|PublicKey|PresharedKey|AllowedIPs|Endpoint|PersistentKeepalive|[a-z]{1,4}";
    let values = prop_oneof![
        Just(PRIVATE.to_owned()),
        Just(PEER.to_owned()),
        any::<u32>().prop_map(|n| n.to_string()),
        any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
        (any::<std::net::IpAddr>(), any::<u8>()).prop_map(|(ip, n)| format!("-{ip}/{n}")),
        any::<std::net::SocketAddr>().prop_map(|addr| addr.to_string()),
        ".*",
    ];
    prop_oneof![
        4 => (keys, values).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => Just("[Interface]".to_owned()),
        1 => Just("[Peer]".to_owned()),
        1 => ".*",
    ]
}

prop_compose! {
    fn any_peer()(
        key in any::<[u8; 32]>(),
        psk in proptest::option::of(any::<[u8; 32]>()),
        nets in proptest::collection::btree_set((any::<std::net::Ipv6Addr>(), 1_u8..=128), 1..5),
        endpoint in proptest::option::of((any::<std::net::Ipv4Addr>(), 1_u16..)),
        keepalive: u16,
    ) -> Peer {
        let net = |(ip, len): (std::net::Ipv6Addr, u8)| IpNet::new(ip.into(), len).unwrap().trunc();
        Peer {
            public_key: PublicKey(key),
            preshared_key: psk.map(SecretKey::new).filter(|k| !k.is_zero()),
            allowed_ips: nets.into_iter().map(net).collect(),
            endpoint: endpoint.map(Into::into),
            keepalive,
        }
    }
}

fn print(peer: &Peer) -> String {
    use base64::Engine as _;
    let base64 = |bytes: &[u8; 32]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut text = format!("[Peer]\nPublicKey={}\n", peer.public_key);
    if let Some(psk) = &peer.preshared_key {
        text += &format!("PresharedKey={}\n", base64(psk.expose()));
    }
    for net in &peer.allowed_ips {
        text += &format!("AllowedIPs={net}\n");
    }
    if let Some(endpoint) = peer.endpoint {
        text += &format!("Endpoint={endpoint}\n");
    }
    text + &format!("PersistentKeepalive={}\n", peer.keepalive)
}

proptest! {
    #[test]
    fn never_panics(lines in proptest::collection::vec(any_line(), 0..20), text in "\\PC*") {
        let _ = parse(&lines.join("\n"));
        let _ = parse(&text);
    }

    #[test]
    fn what_is_printed_is_read(peers in proptest::collection::vec(any_peer(), 0..4)) {
        let mut seen = BTreeSet::new();
        let unique = |p: &Peer| p.allowed_ips.iter().all(|net| seen.insert(*net));
        let peers: Vec<Peer> = peers.into_iter().filter(unique).collect();
        let text = interface("") + &peers.iter().map(print).collect::<String>();
        prop_assert_eq!(parse(&text).unwrap().conf.peers, peers);
    }
}
