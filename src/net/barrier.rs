//! The second line: an nftables table that drops what WireGuard's port would send from any other
//! address than the floating IP.
//!
//! The policy rules of [`source`](super::source) choose the right source; who takes them away (a
//! restart of networkd, `ip rule flush`) opens a gap of some milliseconds until they are put back, in which the
//! kernel's WireGuard would speak from the machine's own address. This table stands at all times,
//! master or not, and never changes with the role:
//!
//! ```text
//! table inet wgha_51820 {
//!     chain output {
//!         type filter hook output priority filter
//!         meta nfproto ipv4 udp sport 51820 ip saddr != 203.0.113.10 counter drop
//!         meta nfproto ipv6 udp sport 51820 counter drop                    a family without one
//!     }
//! }
//! ```
//!
//! It is looked at whenever the rules are. A kernel without nf_tables goes without: the rules are the
//! first line.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::Family;
use super::nft::{self, Batch, Connection, Expressions, Kind, Side, attribute, is_unsupported};
use super::source::SourcePlan;

const CHAIN: &str = "output";
/// `NF_INET_LOCAL_OUT`, and the priority "filter".
const OUT: (u32, i32) = (3, 0);
/// `NFTA_RULE_USERDATA`.
const RULE_NOTE: u16 = 7;
/// Both families in one table.
const INET: nft::Family = nft::Family::Inet;

/// What was last complained about: once is enough for what is tried again each second.
static COMPLAINT: Mutex<Option<String>> = Mutex::new(None);

/// The table's name.
#[must_use]
pub fn table_of(port: u16) -> String {
    format!("wgha_{port}")
}

/// What a family's rule lets through; `None`: nothing.
type Allowed = Option<IpAddr>;

/// Makes the table what it should be. `true`: it was not.
///
/// Never an error: it is the second line, and what keeps it from standing is in the log. The kernel may let it wait
/// for others' transactions.
pub fn install(plan: &SourcePlan) -> bool {
    let allowed: [(Family, Allowed); 2] = [
        (Family::V4, plan.v4.as_ref().map(|(ip, _)| IpAddr::V4(*ip))),
        (Family::V6, plan.v6.as_ref().map(|(ip, _)| IpAddr::V6(*ip))),
    ];
    tell(plan.port, stand(plan.port, &allowed))
}

/// Removes the table. `true`: it was there.
pub fn remove(port: u16) -> bool {
    tell(port, fall(port))
}

fn tell(port: u16, result: io::Result<bool>) -> bool {
    let complaint = result.as_ref().err().filter(|e| !is_unsupported(e)).map(ToString::to_string);
    let mut last = COMPLAINT.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != complaint {
        if let Some(why) = &complaint {
            warn!("nftables table {}: {why}", table_of(port));
        }
        *last = complaint;
    }
    result.unwrap_or(false)
}

fn stand(port: u16, allowed: &[(Family, Allowed)]) -> io::Result<bool> {
    let table = table_of(port);
    let wanted: Vec<Vec<u8>> = allowed.iter().map(|(f, ip)| comment(*f, *ip)).collect();
    let mut connection = Connection::open()?;
    if comments(&mut connection, &table)? == wanted {
        return Ok(false);
    }
    let mut batch = Batch::new(0);
    // Whatever it is, it goes; one that is not there cannot be deleted, so it is made first.
    batch.table(INET, &table);
    batch.delete_table(INET, &table);
    batch.table(INET, &table);
    batch.chain(INET, &table, CHAIN, OUT);
    for ((family, ip), comment) in allowed.iter().zip(&wanted) {
        batch.rule(INET, (&table, CHAIN), Some(comment), |e| others(e, *family, port, *ip));
    }
    connection.commit(&batch.finish())?;
    Ok(true)
}

fn fall(port: u16) -> io::Result<bool> {
    let mut batch = Batch::new(0);
    batch.delete_table(INET, &table_of(port));
    match Connection::open()?.commit(&batch.finish()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Drops what leaves from `port` of any address of the family but the allowed one.
fn others(e: &mut Expressions<'_, '_>, family: Family, port: u16, allowed: Allowed) {
    e.version(family == Family::V6);
    e.udp(port, Side::Source);
    if let Some(ip) = allowed {
        e.not_ip(ip, Side::Source);
    }
    e.count_and_drop();
}

/// The comments of the table's rules, in order; none where there is no such table.
fn comments(connection: &mut Connection, table: &str) -> io::Result<Vec<Vec<u8>>> {
    let rules = connection.list(Kind::GetRule, INET, table)?;
    Ok(rules.iter().map(|rule| attribute(rule, RULE_NOTE).unwrap_or_default().to_vec()).collect())
}

/// Says what a rule does, for people and for the next look: a comment as `nft` writes it.
fn comment(family: Family, allowed: Allowed) -> Vec<u8> {
    let text = match allowed {
        Some(ip) => format!("wgha: from {ip} only\0"),
        None => format!("wgha: nothing of IP{family:?}\0").to_lowercase(),
    };
    // Type 0 is a comment; its length, and the text with a zero at the end.
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

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
