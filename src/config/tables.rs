//! From the text to a [`Config`], table by table.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::schema::{self, TABLES, Table};
use super::section::{At, Section, Sink, shown, unknown};
use super::{
    Arbiter, Check, Claim, Cluster, Config, ConfigError, FloatingIp, Hook, Machine, Node, SyncFile,
    Wireguard, local, places, rules, values,
};

mod arbiter;
mod check;
mod cluster;
mod gateway;

/// The most `[[floating_ip]]`, `[[wireguard]]`, `[[check]]`, `[[hook]]` or `[[claim]]` tables.
const MAX_TABLES: usize = 64;
/// The most words of a hook's command.
const MAX_WORDS: usize = 64;

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
    checks: Vec<Check>,
    hooks: Vec<Hook>,
    claims: Vec<Claim>,
    sync: Vec<SyncFile>,
    control_socket: PathBuf,
    http: Option<SocketAddr>,
    probe: Option<SocketAddr>,
    arbiter: Option<Arbiter>,
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
        let cluster = cluster::cluster(sink, root, &instance);

        let before = sink.errors.len();
        let nodes = tables(sink, root, &schema::NODE, cluster::node);
        if nodes.is_empty() && !root.contains_key("node") {
            sink.whole("[[node]]", "missing; expected one for each node of the cluster");
        }
        rules::nodes(sink, &nodes);
        if let Some(cluster) = &cluster {
            rules::node_tags(sink, &nodes, |name| wgha_proto::node_tag(&cluster.name, name));
            rules::lease(sink, cluster, nodes.len(), root.contains_key(schema::ARBITER.name));
        }
        let nodes_complete = sink.errors.len() == before;

        let floating = tables(sink, root, &schema::FLOATING_IP, gateway::floating_ip);
        rules::floating_ips(sink, &floating, &nodes);
        let floating_ips: Vec<FloatingIp> = floating.into_iter().map(|f| f.value).collect();

        let wireguard = tables(sink, root, &schema::WIREGUARD, |sink, section| {
            gateway::wireguard(sink, section, &floating_ips, machine)
        });
        rules::wireguard(sink, &wireguard, &floating_ips);
        let checks = tables(sink, root, &schema::CHECK, check::check);
        rules::checks(sink, &checks, &wireguard);
        let hooks = tables(sink, root, &schema::HOOK, gateway::hook);
        let claims = tables(sink, root, &schema::CLAIM, gateway::claim);
        rules::users(sink, cluster.as_ref(), &hooks, &claims);
        let sync = table(sink, root, &schema::SYNC);
        let sync = gateway::sync(sink, sync);
        rules::sync(sink, &sync, cluster.as_ref());
        let control_socket = control(sink, root, &instance);
        let http = listen(sink, root, &schema::HTTP, "127.0.0.1:9112");
        let probe = listen(sink, root, &schema::PROBE, "0.0.0.0:9113");
        rules::listeners(sink, http.as_ref(), probe.as_ref(), &nodes);
        let arbiter = arbiter::arbiter(sink, root);
        Some(File {
            instance,
            cluster: cluster?,
            nodes: nodes.into_iter().map(|n| n.value).collect(),
            nodes_complete,
            floating_ips,
            wireguard: wireguard.into_iter().map(|w| w.value).collect(),
            checks: checks.into_iter().map(|c| c.value).collect(),
            hooks: hooks.into_iter().map(|h| h.value).collect(),
            claims: claims.into_iter().map(|c| c.value).collect(),
            sync: sync.into_iter().map(|s| s.value).collect(),
            control_socket,
            http: http.map(|at| at.value),
            probe: probe.map(|at| at.value),
            arbiter,
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
            checks: self.checks,
            hooks: self.hooks,
            claims: self.claims,
            sync: self.sync,
            control_socket: self.control_socket,
            http: self.http,
            probe: self.probe,
            arbiter: self.arbiter,
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

/// Notes every name of the top level that is no table's.
fn known_tables(sink: &mut Sink<'_>, root: &DeTable<'_>) {
    for key in root.keys() {
        let (name, line) = (key.get_ref().as_ref(), sink.line(key.span().start));
        if TABLES.iter().any(|table| table.name == name) {
            continue;
        }
        let known = TABLES.iter().map(|table| table.name);
        sink.at(line, "", unknown("table or key", name, known));
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
    optional_duration(sink, section, key, (low, high)).unwrap_or(default)
}

fn optional_duration(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    key: &str,
    (low, high): (Duration, Duration),
) -> Option<Duration> {
    let expected = values::duration_expected(low, high);
    let read = section.text(sink, key, &expected, |text| values::duration(text, low, high));
    read.map(|at| at.value)
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

/// `listen` of `[http]` and `[probe]`.
fn listen(
    sink: &mut Sink<'_>,
    root: &DeTable<'_>,
    schema: &'static Table,
    example: &str,
) -> Option<At<SocketAddr>> {
    let section = table(sink, root, schema)?;
    let expected = format!("an address and port, such as {example:?}");
    section.required(sink, "listen", &expected, |text| values::listen_address(text, example))
}
