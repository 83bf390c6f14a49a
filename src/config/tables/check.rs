//! `[[check]]`.

use std::time::Duration;

use super::gateway::program;
use super::{duration, optional_duration};
use crate::config::section::{Section, Sink};
use crate::config::{Check, CheckKind, HttpCheck, values};

const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(600));
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// A session of a client that sends is renewed after two minutes (WireGuard's REKEY_AFTER_TIME).
const HANDSHAKE_WITHIN: (Duration, Duration) =
    (Duration::from_secs(180), Duration::from_secs(24 * 3600));
/// The most runs in a row that `rise` and `fall` count.
const MAX_RUNS: u8 = 100;
const DEFAULT_RISE: u8 = 2;
const DEFAULT_FALL: u8 = 3;

/// The keys of which each check has one.
const KINDS: [&str; 6] = ["ping", "interface", "tcp", "http", "script", "wireguard"];

pub(super) fn check(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Check> {
    let name = section.required(sink, "name", "the check's name", values::name);
    let kind = kind(sink, section);
    let interval = duration(sink, section, "interval", INTERVAL, DEFAULT_INTERVAL);
    let timeout = duration(sink, section, "timeout", TIMEOUT, DEFAULT_TIMEOUT);
    let rise = section.integer(sink, "rise", 1, MAX_RUNS).unwrap_or(DEFAULT_RISE);
    let fall = section.integer(sink, "fall", 1, MAX_RUNS).unwrap_or(DEFAULT_FALL);
    Some(Check { name: name?.value, kind: kind?, interval, timeout, rise, fall })
}

fn kind(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<CheckKind> {
    let ping = section.text(sink, "ping", "an IP address", values::machine);
    let interface = section.text(sink, "interface", "the interface's name", values::interface);
    let address = section.text(sink, "address", "an IP address", values::address);
    let tcp = section.text(sink, "tcp", "a host and port", |text| values::target(text, None));
    let http = http(sink, section);
    let script = section.get(sink, "script").and_then(|_| {
        let expected = "a program and its arguments, such as [\"/etc/wgha/check.sh\"]";
        program(sink, section, "script", expected)
    });
    let expected = "the name of a WireGuard interface";
    let wireguard = section.text(sink, "wireguard", expected, values::wireguard_interface);

    let within = optional_duration(sink, section, "handshake_within", HANDSHAKE_WITHIN);

    belongs_to(sink, section, "handshake_within", "wireguard");
    belongs_to(sink, section, "address", "interface");
    belongs_to(sink, section, "status", "http");
    belongs_to(sink, section, "body", "http");
    let given = KINDS.iter().filter(|key| section.get(sink, key).is_some()).count();
    if given != 1 {
        let message = format!("expected one of {}, found {given} of them", KINDS.join(", "));
        sink.at(section.line, section.schema.header(), message);
        return None;
    }
    let address = address.map(|at| at.value);
    (ping.map(|at| CheckKind::Ping(at.value)))
        .or(interface.map(|at| CheckKind::Interface(at.value, address)))
        .or(tcp.map(|at| CheckKind::Tcp(at.value)))
        .or(http.map(CheckKind::Http))
        .or(script.map(CheckKind::Script))
        .or(wireguard.map(|at| CheckKind::Wireguard(at.value, within)))
}

fn http(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<HttpCheck> {
    let url = section.text(sink, "http", "a URL", values::http_url);
    let status = section.integer(sink, "status", 100_u16, 599);
    let body = section.text(sink, "body", "a text", values::body);
    let (target, path) = url?.value;
    Some(HttpCheck { target, path, status, body: body.map(|at| at.value) })
}

/// `key` says something only together with `kind`.
fn belongs_to(sink: &mut Sink<'_>, section: &Section<'_>, key: &str, kind: &str) {
    if let Some(at) = section.get(sink, key)
        && section.get(sink, kind).is_none()
    {
        sink.at(at.line, section.key(key), format!("expected {kind} beside it"));
    }
}
