//! Messages of nf_tables over netlink, as few as the table needs (linux/netfilter/nf_tables.h,
//! nfnetlink.h). Numbers inside attributes are in network order, those of headers are the machine's.

use std::net::IpAddr;

use super::super::Family;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bytes of `struct nlmsghdr` and of `struct nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const GET_RULE: u16 = NFTABLES << 8 | 7;

/// `NFPROTO_INET`: both families.
const INET: u8 = 1;
/// `NF_INET_LOCAL_OUT`.
const LOCAL_OUT: u32 = 3;
const UDP: u8 = 17;
/// The first register, and the one of verdicts.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const NESTED: u16 = 0x8000;
/// `NFTA_RULE_TABLE`, `NFTA_RULE_USERDATA`.
const RULE_TABLE: u16 = 1;
const RULE_USERDATA: u16 = 7;

const CHAIN: &str = "output";

/// Changes that the kernel makes all together or not at all.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Messages so far: each is answered.
    count: usize,
}

impl Batch {
    pub(super) fn table(&mut self, table: &str) -> &mut Batch {
        self.push(NEW_TABLE, NLM_F_CREATE, |m| m.text(1, table))
    }

    pub(super) fn delete_table(&mut self, table: &str) -> &mut Batch {
        self.push(DELETE_TABLE, 0, |m| m.text(1, table))
    }

    pub(super) fn chain(&mut self, table: &str) -> &mut Batch {
        self.push(NEW_CHAIN, NLM_F_CREATE, |m| {
            m.text(1, table);
            m.text(3, CHAIN);
            m.nest(4, |hook| {
                hook.number(1, LOCAL_OUT);
                hook.number(2, 0);
            });
            m.text(7, "filter");
        })
    }

    /// Drops what leaves from `port` of any address of the family but `allowed`.
    pub(super) fn rule(
        &mut self,
        table: &str,
        family: Family,
        port: u16,
        allowed: Option<IpAddr>,
        comment: &[u8],
    ) -> &mut Batch {
        self.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |m| {
            m.text(RULE_TABLE, table);
            m.text(2, CHAIN);
            m.nest(4, |list| {
                // `NFPROTO_IPV4`, `NFPROTO_IPV6`.
                let number = if family == Family::V4 { 2 } else { 10 };
                list.expression("meta", |e| load_meta(e, META_FAMILY));
                list.expression("cmp", |e| compare(e, EQUAL, &[number]));
                list.expression("meta", |e| load_meta(e, META_PROTOCOL));
                list.expression("cmp", |e| compare(e, EQUAL, &[UDP]));
                list.expression("payload", |e| load_payload(e, TRANSPORT_HEADER, 0, 2));
                list.expression("cmp", |e| compare(e, EQUAL, &port.to_be_bytes()));
                match allowed {
                    Some(IpAddr::V4(ip)) => {
                        list.expression("payload", |e| load_payload(e, NETWORK_HEADER, 12, 4));
                        list.expression("cmp", |e| compare(e, NOT_EQUAL, &ip.octets()));
                    }
                    Some(IpAddr::V6(ip)) => {
                        list.expression("payload", |e| load_payload(e, NETWORK_HEADER, 8, 16));
                        list.expression("cmp", |e| compare(e, NOT_EQUAL, &ip.octets()));
                    }
                    None => {}
                }
                list.expression("counter", |_| {});
                // The verdict's code for "drop" is 0.
                list.expression("immediate", |e| {
                    e.number(1, VERDICT);
                    e.nest(2, |data| data.nest(2, |verdict| verdict.number(1, 0)));
                });
            });
            m.bytes(RULE_USERDATA, comment);
        })
    }

    fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer)) -> &mut Batch {
        self.count += 1;
        self.bytes.extend(message(kind, flags | NLM_F_ACK, INET, 0, fill));
        self
    }

    /// The whole, and how many answers it gets.
    pub(super) fn finish(self) -> (Vec<u8>, usize) {
        let edge = |kind| message(kind, 0, 0, NFTABLES, |_| {});
        ([edge(BATCH_BEGIN), self.bytes, edge(BATCH_END)].concat(), self.count)
    }
}

/// Asks for the rules of a table.
pub(super) fn list_rules(table: &str) -> Vec<u8> {
    message(GET_RULE, NLM_F_DUMP, INET, 0, |m| m.text(RULE_TABLE, table))
}

/// Says what a rule does, for people and for the next look: a comment as `nft` writes it.
pub(super) fn comment(family: Family, allowed: Option<IpAddr>) -> Vec<u8> {
    let text = match allowed {
        Some(ip) => format!("wgha: from {ip} only\0"),
        None => format!("wgha: nothing of IP{family:?}\0").to_lowercase(),
    };
    // Type 0 is a comment; its length, and the text with a zero at the end.
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes()].concat()
}

fn load_meta(e: &mut Writer, key: u32) {
    e.number(1, REGISTER);
    e.number(2, key);
}

fn load_payload(e: &mut Writer, header: u32, offset: u32, length: u32) {
    e.number(1, REGISTER);
    e.number(2, header);
    e.number(3, offset);
    e.number(4, length);
}

fn compare(e: &mut Writer, how: u32, value: &[u8]) {
    e.number(1, REGISTER);
    e.number(2, how);
    e.nest(3, |data| data.bytes(1, value));
}

fn message(
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    fill: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut body = Writer::default();
    fill(&mut body);
    let length = u32::try_from(HEADER + GENERIC + body.0.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + GENERIC + body.0.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    // Sequence number and port: the socket is asked one thing at a time.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body.0);
    bytes
}

/// Attributes, one after the other.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0);
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        self.nest(1, |element| {
            element.text(1, name);
            element.nest(2, fill);
        });
    }
}

/// What the kernel says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A rule of a list.
    Rule { of: String, comment: Vec<u8> },
    /// The end of a list or of a change: 0, or an error number.
    Result(i32),
}

/// The messages in what was read; what is cut off or of no interest is left out.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut found = Vec::new();
    while let Some((kind, body, rest)) = split(bytes) {
        bytes = rest;
        match kind {
            NLMSG_ERROR | NLMSG_DONE => {
                let number = body.first_chunk::<4>().map_or(0, |n| i32::from_ne_bytes(*n));
                found.push(Answer::Result(number.saturating_neg()));
            }
            NEW_RULE => found.extend(rule(body)),
            _ => {}
        }
    }
    found
}

/// Kind and body of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn rule(body: &[u8]) -> Option<Answer> {
    let mut attributes = body.get(GENERIC..)?;
    let (mut of, mut comment) = (String::new(), Vec::new());
    while let Some((kind, value, rest)) = attribute(attributes) {
        attributes = rest;
        match kind {
            RULE_TABLE => {
                of = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
            }
            RULE_USERDATA => comment = value.to_vec(),
            _ => {}
        }
    }
    Some(Answer::Rule { of, comment })
}

fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !NESTED;
    let value = bytes.get(4..length)?;
    Some((kind, value, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let rule = message(NEW_RULE, 0, INET, 0, |m| {
            m.text(RULE_TABLE, "wgha_51820");
            m.bytes(RULE_USERDATA, b"odd");
            m.number(3, 7);
        });
        let mut error = message(NLMSG_ERROR, 0, 0, 0, |_| {});
        error.truncate(HEADER);
        error.extend((-2_i32).to_ne_bytes());
        let both = [rule.as_slice(), &error].concat();
        let expected =
            [Answer::Rule { of: "wgha_51820".into(), comment: b"odd".into() }, Answer::Result(2)];
        assert_eq!(answers(&both), expected);
        // Whatever is cut off, nothing panics, and nothing is made up.
        for length in 0..both.len() {
            assert!(answers(&both[..length]).len() < 2, "{length}");
        }
        assert_eq!(answers(&[0; 64]), []);
    }

    #[test]
    fn comments_tell_rules_apart() {
        let all = [
            comment(Family::V4, None),
            comment(Family::V6, None),
            comment(Family::V4, Some("10.0.0.1".parse().unwrap())),
            comment(Family::V4, Some("10.0.0.2".parse().unwrap())),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(all[0], b"\0\x16wgha: nothing of ipv4\0");
    }
}
