//! From the text to a [`Config`], table by table.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::schema::{self, LATER_TABLES, TABLES, Table};
use super::section::{At, Section, Sink, shown, unknown};
use super::{
    Cluster, Config, ConfigError, DEFAULT_PORT, FloatingIp, Hook, MAX_ADDRESSES, Machine, Node,
    NodeAddress, Wireguard, local, places, rules, source, values,
};

/// The most `[[floating_ip]]`, `[[wireguard]]` or `[[hook]]` tables.
const MAX_TABLES: usize = 64;
/// The most words of a hook's command.
const MAX_WORDS: usize = 64;

const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
const HANDOVER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
const PREEMPT_DELAY: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(86_400));
const HOOK_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

const DEFAULT_HEARTBEAT: Duration = Duration::from_millis(200);
const DEFAULT_MISSES: u8 = 3;
const DEFAULT_HANDOVER: Duration = Duration::from_millis(500);
const DEFAULT_PRIORITY: u8 = 100;
const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole file.
pub(super) fn config(
    text: &str,
    path: &Path,
    node: Option<&str>,
    machine: &dyn Machine,
) -> Result<Config, Vec<ConfigError>> {
    let mut sink = Sink::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map(|span| sink.line(span.start));
        // The parser goes on in the same line after a mistake, and stumbles over its traces.
        if !sink.errors.iter().any(|earlier| earlier.line == line) {
            sink.errors.push(ConfigError::new(line, "", error.message()));
        }
    }
    if !sink.errors.is_empty() {
        // What a text that is no TOML says of its keys would only mislead.
        return Err(sink.errors);
    }
    let found = File::read(&mut sink, root.get_ref(), path, machine);
    let me = match &found {
        Some(file) if file.nodes_complete => me(&mut sink, &file.nodes, node, machine),
        _ => None,
    };
    match (found, me) {
        (Some(file), Some(me)) if sink.errors.is_empty() => Ok(file.into_config(path, me)),
        _ => Err(sink.errors),
    }
}

/// The socket that `text` names if it does, else the default of `path`.
pub(super) fn control_socket(text: &str, path: &Path) -> PathBuf {
    let mut sink = Sink::new(text);
    let (root, _) = DeTable::parse_recoverable(text);
    let instance = instance(&mut sink, path);
    control(&mut sink, root.get_ref(), &instance)
}

fn me(
    sink: &mut Sink<'_>,
    nodes: &[Node],
    node: Option<&str>,
    machine: &dyn Machine,
) -> Option<usize> {
    match local::locate(nodes, node, machine) {
        Ok((me, _)) => Some(me),
        Err(message) => {
            sink.whole("[[node]]", message);
            None
        }
    }
}

/// A whole file, before it is known whose.
struct File {
    instance: String,
    cluster: Cluster,
    nodes: Vec<Node>,
    /// No `[[node]]` was left out because of an error.
    nodes_complete: bool,
    floating_ips: Vec<FloatingIp>,
    wireguard: Vec<Wireguard>,
    hooks: Vec<Hook>,
    control_socket: PathBuf,
}

impl File {
    fn read(
        sink: &mut Sink<'_>,
        root: &DeTable<'_>,
        path: &Path,
        machine: &dyn Machine,
    ) -> Option<File> {
        known_tables(sink, root);
        let instance = instance(sink, path);
        let cluster = cluster(sink, root, &instance);

        let before = sink.errors.len();
        let nodes = tables(sink, root, &schema::NODE, node);
        if nodes.is_empty() && !root.contains_key("node") {
            sink.whole("[[node]]", "missing; expected one for each node of the cluster");
        }
        rules::nodes(sink, &nodes);
        if let Some(cluster) = &cluster {
            rules::node_tags(sink, &nodes, |name| wgha_proto::node_tag(&cluster.name, name));
        }
        let nodes_complete = sink.errors.len() == before;

        let floating = tables(sink, root, &schema::FLOATING_IP, floating_ip);
        rules::floating_ips(sink, &floating, &nodes);
        let floating_ips: Vec<FloatingIp> = floating.into_iter().map(|f| f.value).collect();

        let wireguard = tables(sink, root, &schema::WIREGUARD, |sink, section| {
            wireguard(sink, section, &floating_ips, machine)
        });
        rules::wireguard(sink, &wireguard, &floating_ips);
        let hooks = tables(sink, root, &schema::HOOK, hook);
        let control_socket = control(sink, root, &instance);
        Some(File {
            instance,
            cluster: cluster?,
            nodes: nodes.into_iter().map(|n| n.value).collect(),
            nodes_complete,
            floating_ips,
            wireguard: wireguard.into_iter().map(|w| w.value).collect(),
            hooks: hooks.into_iter().map(|h| h.value).collect(),
            control_socket,
        })
    }

    fn into_config(self, path: &Path, me: usize) -> Config {
        Config {
            path: path.to_owned(),
            instance: self.instance,
            cluster: self.cluster,
            nodes: self.nodes,
            me,
            floating_ips: self.floating_ips,
            wireguard: self.wireguard,
            hooks: self.hooks,
            control_socket: self.control_socket,
        }
    }
}

/// The file's name without `.toml`.
fn instance(sink: &mut Sink<'_>, path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    values::name(&stem).unwrap_or_else(|message| {
        sink.whole("", format!("the file's name before \".toml\": {message}"));
        String::new()
    })
}

/// Notes every name of the top level that no version, or only a later one, knows.
fn known_tables(sink: &mut Sink<'_>, root: &DeTable<'_>) {
    for (key, value) in root {
        let (name, line) = (key.get_ref().as_ref(), sink.line(key.span().start));
        if TABLES.iter().any(|table| table.name == name) {
            continue;
        }
        let header =
            if value.get_ref().is_array() { format!("[[{name}]]") } else { format!("[{name}]") };
        if LATER_TABLES.contains(&name) {
            sink.at(line, header, "not available in this version");
        } else {
            let known = TABLES.iter().map(|table| table.name);
            sink.at(line, "", unknown("table or key", name, known));
        }
    }
}

/// Every `[[table]]`, read by `read`; those with errors are left out.
fn tables<T>(
    sink: &mut Sink<'_>,
    root: &DeTable<'_>,
    schema: &'static Table,
    mut read: impl FnMut(&mut Sink<'_>, &Section<'_>) -> Option<T>,
) -> Vec<At<T>> {
    let Some(value) = root.get(schema.name) else { return Vec::new() };
    let line = sink.line(value.span().start);
    let Some(array) = value.get_ref().as_array() else {
        let header = schema.header();
        let message = format!("expected {header}, found {}", shown(value.get_ref()));
        sink.at(line, header, message);
        return Vec::new();
    };
    if array.len() > MAX_TABLES {
        let message = format!("expected at most {MAX_TABLES} tables, found {}", array.len());
        sink.at(line, schema.header(), message);
    }
    let mut all = Vec::new();
    for element in array.iter().take(MAX_TABLES) {
        let line = sink.line(element.span().start);
        let Some(table) = element.get_ref().as_table() else {
            sink.at(line, schema.header(), "expected a table");
            continue;
        };
        let section = Section::new(sink, schema, table, line);
        if let Some(value) = read(sink, &section) {
            all.push(At { line, value });
        }
    }
    all
}

/// A `[table]` that stands at most once.
fn table<'a>(
    sink: &mut Sink<'_>,
    root: &'a DeTable<'a>,
    schema: &'static Table,
) -> Option<Section<'a>> {
    let value = root.get(schema.name)?;
    let line = sink.line(value.span().start);
    match value.get_ref() {
        DeValue::Table(table) => Some(Section::new(sink, schema, table, line)),
        other => {
            let header = schema.header();
            sink.at(line, header.clone(), format!("expected {header}, found {}", shown(other)));
            None
        }
    }
}

fn duration(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    key: &str,
    (low, high): (Duration, Duration),
    default: Duration,
) -> Duration {
    let expected = values::duration_expected(low, high);
    let read = section.text(sink, key, &expected, |text| values::duration(text, low, high));
    read.map_or(default, |at| at.value)
}

fn cluster(sink: &mut Sink<'_>, root: &DeTable<'_>, instance: &str) -> Option<Cluster> {
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
    section.text(sink, "quorum", "\"auto\" or \"none\"", values::quorum);
    let handover_timeout = duration(sink, &section, "handover_timeout", HANDOVER, DEFAULT_HANDOVER);
    let state_dir = section.text(sink, "state_dir", "an absolute path", values::path);
    Some(Cluster {
        name: name?.value,
        key_file: key_file?.value,
        heartbeat,
        misses,
        preempt: preempt.then_some(delay),
        handover_timeout,
        state_dir: state_dir.map_or_else(|| places::default_state(instance), |at| at.value),
    })
}

fn node(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Node> {
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

fn floating_ip(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<FloatingIp> {
    let address = section.required(sink, "address", "an IP address", values::floating_ip);
    let interface =
        section.required(sink, "interface", "the interface that carries it", values::interface);
    Some(FloatingIp { address: address?.value, interface: interface?.value })
}

fn wireguard(
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

fn hook(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Hook> {
    let timeout = duration(sink, section, "timeout", HOOK_TIMEOUT, DEFAULT_HOOK_TIMEOUT);
    let on_expected = "an array of \"master\", \"backup\", \"fault\" and \"stop\"";
    let on = listed(sink, section, "on", on_expected, values::hook_state);
    let run_expected = "a program and its arguments, such as [\"/etc/wgha/notify.sh\"]";
    let run = listed(sink, section, "run", run_expected, |word| {
        if word.len() < 4096 && !word.contains('\0') {
            Ok(word.to_owned())
        } else {
            Err("expected at most 4095 bytes without zero bytes".to_owned())
        }
    });
    if let Some(At { line, value }) = run.as_ref().and_then(|words| words.first())
        && let Err(message) = values::path(value)
    {
        sink.at(*line, section.key("run"), message);
    }
    let mut states = Vec::new();
    for state in on? {
        if states.contains(&state.value) {
            let message = format!("{:?} is named twice", state.value.word());
            sink.at(state.line, section.key("on"), message);
        }
        states.push(state.value);
    }
    Some(Hook { on: states, run: run?.into_iter().map(|word| word.value).collect(), timeout })
}

/// An array that must be there and not be empty.
fn listed<T>(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    key: &str,
    expected: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<At<T>>> {
    let Some(value) = section.get(sink, key) else {
        section.missing(sink, key, expected);
        return None;
    };
    let length = value.value.as_array().map(|array| array.len());
    if length.is_some_and(|length| !(1..=MAX_WORDS).contains(&length)) {
        sink.at(
            value.line,
            section.key(key),
            format!("expected {expected}: 1 to {MAX_WORDS} words"),
        );
        return None;
    }
    section.texts(sink, key, expected, parse).map(|at| at.value)
}

fn control(sink: &mut Sink<'_>, root: &DeTable<'_>, instance: &str) -> PathBuf {
    let default = places::default_socket(instance);
    let socket = table(sink, root, &schema::CONTROL)
        .and_then(|section| section.text(sink, "socket", "an absolute path", values::socket_path));
    socket.map_or(default, |at| at.value)
}
