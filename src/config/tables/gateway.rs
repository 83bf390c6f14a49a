//! `[[floating_ip]]`, `[[wireguard]]`, `[[hook]]`, `[[claim]]` and `[sync]`.

use std::net::IpAddr;
use std::time::Duration;

use super::{duration, listed};
use crate::config::section::{At, Section, Sink};
use crate::config::{Claim, FloatingIp, Hook, Machine, SyncFile, Wireguard, source, values};

const HOOK_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(30);

const VERIFY_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));
const DEFAULT_VERIFY_EVERY: Duration = Duration::from_secs(60);
const DEFAULT_RETRIES: u8 = 10;
const MAX_RETRIES: u8 = 100;

pub(super) fn floating_ip(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<FloatingIp> {
    let address = section.required(sink, "address", "an IP address", values::floating_ip);
    let interface =
        section.required(sink, "interface", "the interface that carries it", values::interface);
    Some(FloatingIp { address: address?.value, interface: interface?.value })
}

pub(super) fn wireguard(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    floating: &[FloatingIp],
    machine: &dyn Machine,
) -> Option<Wireguard> {
    let interface =
        section.required(sink, "interface", "the interface's name", values::wireguard_interface);
    let config = section.required(sink, "config", "the path of a wg-quick file", values::path);
    let backend =
        section.text(sink, "backend", "\"auto\", \"kernel\" or \"embedded\"", values::backend);
    let guard = section.boolean(sink, "guard").is_none_or(|at| at.value);
    let source = sources(sink, section, floating, machine);
    Some(Wireguard {
        interface: interface?.value,
        config: config?.value,
        backend: backend.map(|at| at.value).unwrap_or_default(),
        source,
        guard,
    })
}

fn sources(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    floating: &[FloatingIp],
    machine: &dyn Machine,
) -> Vec<IpAddr> {
    if section.get(sink, "source").is_none() {
        return source::default(sink, section.line, floating, machine);
    }
    let expected = "an array of floating IPs, such as [\"203.0.113.10\"]";
    match section.texts(sink, "source", expected, values::address) {
        Some(named) => source::named(sink, &named.value, floating),
        None => Vec::new(),
    }
}

pub(super) fn hook(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Hook> {
    let timeout = duration(sink, section, "timeout", HOOK_TIMEOUT, DEFAULT_HOOK_TIMEOUT);
    let on_expected = "an array of \"master\", \"backup\", \"fault\" and \"stop\"";
    let on = listed(sink, section, "on", on_expected, values::hook_state);
    let run_expected = "a program and its arguments, such as [\"/etc/wgha/notify.sh\"]";
    let run = program(sink, section, "run", run_expected);
    let user = section.text(sink, "user", values::USER, values::user);
    let mut states = Vec::new();
    for state in on? {
        if states.contains(&state.value) {
            let message = format!("{:?} is named twice", state.value.word());
            sink.at(state.line, section.key("on"), message);
        }
        states.push(state.value);
    }
    Some(Hook { on: states, run: run?, timeout, user: user.map(|at| at.value) })
}

pub(super) fn claim(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Claim> {
    let expected = "a program and its arguments, such as [\"/usr/share/wgha/hooks/aws-eip\"]";
    let run = program(sink, section, "run", expected);
    let verify_every = duration(sink, section, "verify_every", VERIFY_EVERY, DEFAULT_VERIFY_EVERY);
    let timeout = duration(sink, section, "timeout", HOOK_TIMEOUT, DEFAULT_HOOK_TIMEOUT);
    let retries = section.integer(sink, "retries", 0, MAX_RETRIES).unwrap_or(DEFAULT_RETRIES);
    let release = section.boolean(sink, "release").is_some_and(|at| at.value);
    let user = section.text(sink, "user", values::USER, values::user).map(|at| at.value);
    Some(Claim { run: run?, verify_every, timeout, retries: u32::from(retries), release, user })
}

/// A program by its path, and its arguments.
pub(super) fn program(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    key: &str,
    expected: &str,
) -> Option<Vec<String>> {
    let run = listed(sink, section, key, expected, |word| {
        if word.len() < 4096 && !word.contains('\0') {
            Ok(word.to_owned())
        } else {
            Err("expected at most 4095 bytes without zero bytes".to_owned())
        }
    });
    if let Some(At { line, value }) = run.as_ref().and_then(|words| words.first())
        && let Err(message) = values::path(value)
    {
        sink.at(*line, section.key(key), message);
    }
    Some(run?.into_iter().map(|word| word.value).collect())
}

pub(super) fn sync(sink: &mut Sink<'_>, section: Option<Section<'_>>) -> Vec<At<SyncFile>> {
    let expected = "an array of absolute paths, such as [\"/etc/wireguard/wg0.conf\"]";
    let listed = section.and_then(|s| listed(sink, &s, "files", expected, values::sync_file));
    listed.unwrap_or_default()
}
