//! What the kernel says, as bytes taken apart.

use std::io;

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator};

use super::encode::{HEADER, Kind};

/// Behind the netlink header: family, version, resource.
const NFGEN: usize = 4;

/// A message of the kernel.
pub(super) enum Answer<'a> {
    /// Of a change, or the end of a list.
    Result(io::Result<()>),
    /// Message type and attributes.
    Object(u16, &'a [u8]),
}

/// The messages in what was read, each with whether the list changed meanwhile; what is cut off is left out.
pub(super) fn take_apart(mut rest: &[u8], each: &mut impl FnMut(bool, Answer<'_>)) {
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let changed = message.flags() & NLM_F_DUMP_INTR != 0;
        let length = message.length() as usize;
        let payload = rest.get(HEADER..length).unwrap_or_default();
        let answer = match message.message_type() {
            NLMSG_ERROR | NLMSG_DONE => Answer::Result(code(payload)),
            kind => Answer::Object(kind, payload.get(NFGEN..).unwrap_or_default()),
        };
        each(changed, answer);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The number at the head of an error message, or of the end of a list; zero is the acknowledgement.
fn code(payload: &[u8]) -> io::Result<()> {
    let bytes = payload.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match bytes {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The value of the first attribute of this kind.
pub(in crate::net) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let found = all.find(|a| a.kind() == kind)?;
    let start = found.into_inner();
    start.get(4..usize::from(netlink_packet_core::NlaBuffer::new(start).length()))
}

/// A number.
pub(in crate::net) fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Whether a notification tells of more than elements of sets, which come and go by themselves, and the
/// generation that every transaction ends with. One that cannot be read does.
pub(in crate::net) fn changes_rules(mut rest: &[u8]) -> bool {
    let passing = [Kind::NewElement, Kind::DelElement, Kind::NewGeneration].map(Kind::code);
    while !rest.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else { return true };
        if !passing.contains(&message.message_type()) {
            return true;
        }
        let next = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::encode::{Family, append};
    use super::*;

    /// What is in the bytes, in words.
    fn told(bytes: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        take_apart(bytes, &mut |changed, answer| {
            told.push(match answer {
                Answer::Result(result) => format!("{changed} {:?}", result.map_err(|e| e.kind())),
                Answer::Object(kind, attributes) => {
                    format!(
                        "{changed} {kind} {:?} {:?}",
                        attribute(attributes, 7),
                        attribute(attributes, 9)
                    )
                }
            });
        });
        told
    }

    #[test]
    fn a_renewal_of_the_gate_is_no_change_of_rules() {
        let said = |kinds: &[Kind]| {
            let mut bytes = Vec::new();
            for kind in kinds {
                append(&mut bytes, kind.code(), 0, Family::Inet, 0, |a| a.text(1, "t"));
            }
            bytes
        };
        let renewal =
            [Kind::NewElement, Kind::DelElement, Kind::NewElement, Kind::NewGeneration].as_slice();
        assert!(!changes_rules(&said(renewal)));
        for kind in [Kind::NewTable, Kind::DelTable, Kind::NewChain, Kind::NewRule, Kind::NewSet] {
            let last = said(&[renewal, &[kind]].concat());
            assert!(changes_rules(&last), "{kind:?}");
            assert!(changes_rules(&last[..last.len() - 5]), "cut off");
        }
    }

    #[test]
    fn answers_are_taken_apart() {
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::NewRule.code(), NLM_F_DUMP_INTR, Family::Inet, 0, |a| {
            a.text(1, "wgha_51820");
            a.bytes(7, b"odd");
        });
        let at = bytes.len();
        append(&mut bytes, NLMSG_ERROR, 0, Family::None, 0, |_| {});
        bytes[at + HEADER..].copy_from_slice(&(-2_i32).to_ne_bytes());
        let rule = format!("true {} Some({:?}) None", Kind::NewRule.code(), b"odd");
        assert_eq!(told(&bytes), [rule, "false Err(NotFound)".to_owned()]);
        // Whatever is cut off, nothing panics, and nothing is made up.
        for length in 0..bytes.len() {
            assert!(told(&bytes[..length]).len() < 2, "{length}");
        }
        assert!(told(&[0; 64]).is_empty());
    }
}
