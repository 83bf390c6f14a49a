use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn reply() -> Vec<u8> {
    let mut bytes = arp_request(ROUTER_MAC, v4("10.0.0.1"), v4("10.0.0.2")).to_vec();
    bytes[7] = 2;
    bytes[18..24].copy_from_slice(&MAC);
    // Ethernet pads short frames.
    bytes.extend([0; 18]);
    bytes
}

fn question() -> Question {
    let (from, whom) = (v4("10.0.0.2").into(), v4("10.0.0.1").into());
    Question { index: 3, mac: MAC, from, whom }
}

#[test]
fn an_arp_request_names_its_sender_and_whom_it_asks() {
    let bytes = arp_request(MAC, v4("10.0.0.2"), v4("10.0.0.1"));
    let expected =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1];
    assert_eq!(bytes, expected);
    assert_eq!(parse_arp(&bytes), None, "a request is no answer");
}

#[test]
fn only_the_one_that_was_asked_answers() {
    let answer = parse_arp(&reply()).unwrap();
    let expected = Answer {
        index: None,
        who: v4("10.0.0.1").into(),
        mac: Some(ROUTER_MAC),
        to: Some(v4("10.0.0.2").into()),
    };
    assert_eq!(answer, expected);
    assert!(answer.answers(&question(), &[MAC]));
    let other: IpAddr = v4("10.0.0.7").into();
    for (what, answer, own) in [
        ("another one", Answer { who: other, ..answer }, MAC),
        ("another's question", Answer { to: Some(other), ..answer }, MAC),
        ("another interface", Answer { index: Some(4), ..answer }, MAC),
        ("this machine", answer, ROUTER_MAC),
    ] {
        assert!(!answer.answers(&question(), &[own]), "{what}");
    }
}

#[test]
fn what_is_cut_off_is_no_answer() {
    let arp = reply();
    assert!((0..28).all(|length| parse_arp(&arp[..length]).is_none()));
    let whole = advertisement(SOLICITED);
    assert!((0..whole.len()).all(|length| match parse_advertisement(&whole[..length]) {
        None => length != 24,
        // Without the option, which need not be there.
        Some(answer) => length < 26 && answer.mac.is_none(),
    }));
    let mut endless = whole;
    endless[25] = 0;
    assert!(parse_advertisement(&endless).unwrap().mac.is_none());
}

fn advertisement(flags: u8) -> Vec<u8> {
    let mut bytes = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    bytes.extend("fe80::9".parse::<Ipv6Addr>().unwrap().octets());
    bytes.extend([TARGET_LINK_LAYER, 1]);
    bytes.extend(ROUTER_MAC);
    bytes
}

#[test]
fn an_advertisement_must_answer_a_solicitation() {
    let answer = parse_advertisement(&advertisement(SOLICITED | 0x80)).unwrap();
    assert_eq!(answer.who, "fe80::9".parse::<IpAddr>().unwrap());
    assert_eq!((answer.mac, answer.to), (Some(ROUTER_MAC), None));
    assert_eq!(parse_advertisement(&advertisement(0x20)), None, "an announcement");
}

#[test]
fn a_solicitation_goes_where_its_target_listens() {
    let whom = "2001:db8::12:3456".parse().unwrap();
    assert_eq!(solicited_node(whom), "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
    let message = solicitation(MAC, whom);
    assert_eq!(message[..8], [135, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(message[8..24], whom.octets());
    assert_eq!(message[24..], [1, 1, 2, 0, 0, 0, 0, 1]);
}
