//! What the kernel has of the gate's tables, to be compared with what it had when they were built.

use std::io;

use crate::net::nft::{Connection, Family, Kind, attribute};

/// Tables, chains, sets and rules, each by the attributes that make it what it is, with the handle that
/// the kernel gave it. Not the elements, which come and go, nor the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot(Vec<Vec<u8>>);

/// What is listed, and which attributes count.
const LISTS: [(Kind, &[u16]); 4] = [
    // Name, flags (dormant), handle.
    (Kind::GetTable, &[1, 2, 4]),
    // Handle, name, hook, policy, type.
    (Kind::GetChain, &[2, 3, 4, 5, 7]),
    // Name, flags, type and length of the key; handle.
    (Kind::GetSet, &[2, 3, 4, 5, 16]),
    // Chain, handle, expressions.
    (Kind::GetRule, &[2, 3, 4]),
];
/// `NFTA_RULE_EXPRESSIONS`.
const EXPRESSIONS: u16 = 4;

impl Snapshot {
    /// Looks at the tables of this name.
    ///
    /// # Errors
    /// The kernel refused; `Interrupted`: the lists change all the time.
    pub(super) fn take(
        nft: &mut Connection,
        name: &str,
        families: &[Family],
    ) -> io::Result<Snapshot> {
        let mut all = Vec::new();
        for family in families {
            for (kind, wanted) in LISTS {
                for attributes in nft.list(kind, *family, name)? {
                    all.push(essence(*family, kind, &attributes, wanted));
                }
            }
        }
        Ok(Snapshot(all))
    }

    /// There is nothing of this name.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn essence(family: Family, kind: Kind, attributes: &[u8], wanted: &[u16]) -> Vec<u8> {
    let mut out = vec![family as u8, kind as u8];
    for number in wanted {
        let value = attribute(attributes, *number).unwrap_or_default();
        out.extend(number.to_be_bytes());
        if kind == Kind::GetRule && *number == EXPRESSIONS {
            out.extend(without_counters(value));
        } else {
            out.extend(value);
        }
    }
    out
}

/// The expressions, with the name alone of those that count.
fn without_counters(list: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let all = netlink_packet_core::NlasIterator::new(list).map_while(Result::ok);
    for element in all {
        let name = attribute(element.value(), 1).unwrap_or_default();
        out.extend(name);
        if name != b"counter\0" {
            out.extend(attribute(element.value(), 2).unwrap_or_default());
        }
    }
    out
}
