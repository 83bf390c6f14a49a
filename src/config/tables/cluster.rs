//! `[cluster]` and `[[node]]`.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::{duration, table};
use crate::config::section::{At, Section, Sink};
use crate::config::{
    Cluster, DEFAULT_PORT, EvidenceChoice, MAX_ADDRESSES, Node, NodeAddress, QuorumChoice, places,
    schema, values,
};
use crate::evidence::judge::MAX_SOURCES;

const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
const HANDOVER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
const PREEMPT_DELAY: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(86_400));
const DEFAULT_HEARTBEAT: Duration = Duration::from_millis(200);
const DEFAULT_MISSES: u8 = 3;
const DEFAULT_HANDOVER: Duration = Duration::from_millis(500);
const DEFAULT_PRIORITY: u8 = 100;

pub(super) fn cluster(sink: &mut Sink<'_>, root: &DeTable<'_>, instance: &str) -> Option<Cluster> {
    if !root.contains_key(schema::CLUSTER.name) {
        sink.whole("[cluster]", "missing; expected a table with name and key_file");
    }
    let section = table(sink, root, &schema::CLUSTER)?;
    let name = section.required(sink, "name", "the cluster's name", values::name);
    let key_file = section.required(sink, "key_file", "the path of the key file", values::path);
    let heartbeat = duration(sink, &section, "heartbeat", HEARTBEAT, DEFAULT_HEARTBEAT);
    let misses = section.integer(sink, "misses", 2, u8::MAX).unwrap_or(DEFAULT_MISSES);
    let preempt = section.boolean(sink, "preempt").is_some_and(|at| at.value);
    let delay = duration(sink, &section, "preempt_delay", PREEMPT_DELAY, Duration::ZERO);
    let words = "\"auto\", \"majority\" or \"none\"";
    let quorum = section.text(sink, "quorum", words, values::quorum);
    let handover_timeout = duration(sink, &section, "handover_timeout", HANDOVER, DEFAULT_HANDOVER);
    let gate = section.text(sink, "gate", "\"auto\" or \"off\"", values::gate);
    let state_dir = section.text(sink, "state_dir", "an absolute path", values::path);
    let evidence = evidence(sink, &section).unwrap_or_default();
    let dead_man = section.text(sink, "dead_man", "\"on\" or \"off\"", values::dead_man);
    let realtime = section.boolean(sink, "realtime").is_some_and(|at| at.value);
    let user = section.text(sink, "user", values::USER, values::user);
    Some(Cluster {
        name: name?.value,
        key_file: key_file?.value,
        heartbeat,
        misses,
        preempt: preempt.then_some(delay),
        quorum: quorum.map_or(QuorumChoice::Auto, |at| at.value),
        handover_timeout,
        gate: gate.is_none_or(|at| at.value),
        state_dir: state_dir.map_or_else(|| places::default_state(instance), |at| at.value),
        evidence,
        dead_man: dead_man.is_none_or(|at| at.value),
        realtime,
        user: user.map(|at| at.value),
    })
}

const EVIDENCE: &str = "\"auto\", \"off\", or an array of 1 to 8 addresses of neighbours, such as \
                        [\"10.0.1.1\"]";

/// A word, or whom to ask.
fn evidence(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<EvidenceChoice> {
    let value = section.get(sink, "evidence")?;
    match (value.value.as_str(), value.value.as_array()) {
        (Some("auto"), _) => Some(EvidenceChoice::Auto),
        (Some("off"), _) => Some(EvidenceChoice::Off),
        (_, Some(all)) if (1..=MAX_SOURCES).contains(&all.len()) => {
            let named = section.texts(sink, "evidence", EVIDENCE, values::address)?;
            Some(EvidenceChoice::Addresses(named.value.into_iter().map(|at| at.value).collect()))
        }
        _ => {
            section.mistyped(sink, "evidence", &value, EVIDENCE);
            None
        }
    }
}

pub(super) fn node(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Node> {
    let name = section.required(sink, "name", "the node's name", values::name);
    let addresses = addresses(sink, section);
    let priority = section.integer(sink, "priority", 1, u8::MAX);
    let witness = section.boolean(sink, "witness").is_some_and(|at| at.value);
    Some(Node {
        name: name?.value,
        addresses: addresses?,
        priority: priority.unwrap_or(DEFAULT_PRIORITY),
        witness,
    })
}

const ADDRESSES: &str = "an array of addresses, such as [\"10.0.1.10:5112\"]";

fn addresses(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Vec<NodeAddress>> {
    if section.get(sink, "addresses").is_none() {
        section.missing(sink, "addresses", ADDRESSES);
    }
    let array = section.array(sink, "addresses", ADDRESSES)?;
    if !(1..=MAX_ADDRESSES).contains(&array.value.len()) {
        let found = array.value.len();
        let message = format!("expected 1 to {MAX_ADDRESSES} addresses, found {found}");
        sink.at(array.line, section.key("addresses"), message);
        return None;
    }
    let count = array.value.len();
    let good: Vec<NodeAddress> =
        array.value.iter().filter_map(|element| address(sink, section, element)).collect();
    (good.len() == count).then_some(good)
}

fn address(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    element: &At<&DeValue<'_>>,
) -> Option<NodeAddress> {
    match element.value {
        DeValue::String(text) => match values::socket_address(text, DEFAULT_PORT) {
            Ok(address) => Some(NodeAddress { send: address, bind: address }),
            Err(message) => {
                sink.at(element.line, section.key("addresses"), message);
                None
            }
        },
        DeValue::Table(table) => nat_address(sink, table, element.line),
        _ => {
            section.mistyped(
                sink,
                "addresses",
                element,
                "an address, or { send = ..., bind = ... }",
            );
            None
        }
    }
}

/// `{ send = "203.0.113.5:5112", bind = "10.0.2.10:5112" }`.
fn nat_address(sink: &mut Sink<'_>, table: &DeTable<'_>, line: usize) -> Option<NodeAddress> {
    let section = Section::new(sink, &schema::ADDRESS, table, line);
    let send = section.required(sink, "send", "the address that others send to", |text| {
        values::socket_address(text, DEFAULT_PORT)
    });
    // A 1:1 NAT keeps ports.
    let port = send.as_ref().map_or(DEFAULT_PORT, |at| at.value.port());
    let bind = section.required(sink, "bind", "the address that the node itself has", |text| {
        values::socket_address(text, port)
    });
    let (send, bind) = (send?.value, bind?.value);
    if send.is_ipv4() != bind.is_ipv4() {
        let message = format!("expected send and bind of one family, found {send} and {bind}");
        sink.at(line, section.key("bind"), message);
        return None;
    }
    Some(NodeAddress { send, bind })
}
