//! Talks to the daemon on a member: orders go through its command line, looks at its status through its control socket.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::config::CONFIG_PATH;
use crate::lab::Lab;
use crate::node::Node;
use crate::process::Process;
use crate::timeline::{Event, parse_rfc3339};

/// The members' daemons. Dropping it kills them.
pub struct Cluster {
    program: PathBuf,
    daemons: Vec<(Node, Option<Process>)>,
}

impl Cluster {
    /// Writes the config and starts `wgha run` on all members.
    ///
    /// # Errors
    /// When the config cannot be written or a daemon cannot be started.
    pub fn start(lab: &Lab, program: &Path) -> Result<Self> {
        lab.write_config(program)?;
        let mut cluster = Self {
            program: program.to_owned(),
            daemons: lab.members().map(|node| (node.clone(), None)).collect(),
        };
        for node in lab.members() {
            cluster.start_on(lab, node.name())?;
        }
        Ok(cluster)
    }

    /// Starts the daemon on a member where it does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_on(&mut self, lab: &Lab, name: &str) -> Result<()> {
        let program = self.program.clone();
        let slot = self
            .daemons
            .iter_mut()
            .find(|(node, _)| node.name() == name)
            .context("no such member")?;
        slot.1 = Some(lab.start_daemon(&program, &slot.0)?);
        Ok(())
    }

    /// The daemon's process on a member, to signal, wait for or kill.
    ///
    /// # Panics
    /// When there is none.
    pub fn process(&mut self, name: &str) -> &mut Process {
        let found = self.daemons.iter_mut().find(|(node, _)| node.name() == name);
        found.and_then(|(_, process)| process.as_mut()).expect("a daemon of that name")
    }

    /// Members' nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.daemons.iter().map(|(node, _)| node)
    }

    /// Runs `wgha ARGS --config ...` on a member and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn command(&self, node: &Node, args: &[&str]) -> Result<String> {
        let program = self.program.display().to_string();
        let argv: Vec<&str> = std::iter::once(program.as_str())
            .chain(args.iter().copied())
            .chain(["--config", CONFIG_PATH])
            .collect();
        node.exec(&argv)
    }

    /// What `wgha status --json` prints on a member, but asked over the control socket: those who wait
    /// ask often, and starting a program takes far longer than the answer.
    ///
    /// # Errors
    /// When no daemon answers, or not in JSON.
    pub fn status(&self, node: &Node) -> Result<Value> {
        crate::control::status(node)
    }

    /// The gateways that say that they are master.
    pub fn masters(&self) -> Vec<Node> {
        let is_master = |node: &&Node| self.status(node).is_ok_and(|s| s["role"] == "master");
        self.nodes().filter(is_master).cloned().collect()
    }

    /// Waits until exactly one member says that it is master, in two looks one after the other.
    ///
    /// # Errors
    /// When that does not come to be in time.
    pub fn wait_master(&self, timeout: Duration) -> Result<Node> {
        let end = Instant::now() + timeout;
        let mut before = None;
        loop {
            let masters = self.masters();
            if let [one] = masters.as_slice() {
                if before.as_deref() == Some(one.name()) {
                    return Ok(one.clone());
                }
                before = Some(one.name().to_owned());
            } else {
                before = None;
            }
            if Instant::now() > end {
                let names: Vec<&str> = masters.iter().map(Node::name).collect();
                bail!("masters after {timeout:?}: {names:?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until every member hears every other and is ready.
    ///
    /// # Errors
    /// When that does not come to be in time; says who lacks what.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let lacking: Vec<String> = self.nodes().filter_map(|n| self.lack(n)).collect();
            if lacking.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("not ready after {timeout:?}: {}", lacking.join("; "));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the backup `heir` was told where so many clients are, at a time after this call.
    ///
    /// # Errors
    /// When it does not answer, or was not told in time.
    pub fn wait_told(&self, heir: &Node, clients: u64, timeout: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let status = self.status(heir)?;
            let of = |name: &str| status["wireguard"][0][name].as_u64();
            let age = of("endpoints_age_ms").map(Duration::from_millis);
            if of("endpoints_known") >= Some(clients)
                && age < Some(start.elapsed())
                && age.is_some()
            {
                return Ok(());
            }
            if start.elapsed() > timeout {
                bail!(
                    "{} was not told where its {clients} clients are: {}",
                    heir.name(),
                    status["wireguard"]
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn lack(&self, node: &Node) -> Option<String> {
        let status = match self.status(node) {
            Ok(status) => status,
            Err(e) => return Some(format!("{}: {e:#}", node.name())),
        };
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let missing: Vec<String> = nodes
            .iter()
            .filter(|n| n["name"] != node.name() && n["alive"] != true)
            .map(|n| n["name"].to_string())
            .collect();
        let ready = status["ready"] == true
            || nodes.iter().any(|n| n["name"] == node.name() && n["witness"] == true);
        (!missing.is_empty() || !ready)
            .then(|| format!("{}: ready {ready}, does not hear {missing:?}", node.name()))
    }

    /// How often each member changed its role.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn changes(&self) -> Result<Vec<(String, usize)>> {
        let count = |node: &Node| {
            let events = self.command(node, &["events", "--json"])?;
            Ok((node.name().to_owned(), events.lines().count()))
        };
        self.nodes().map(count).collect()
    }

    /// The role changes that the members recorded (`wgha events --json`); members that do not answer are left out.
    pub fn events(&self) -> Vec<Event> {
        self.nodes()
            .filter_map(|n| Some((n, self.command(n, &["events", "--json"]).ok()?)))
            .flat_map(|(n, t)| parse_events(n.name(), &t))
            .collect()
    }
}

fn parse_events(node: &str, lines: &str) -> Vec<Event> {
    let one = |line: &str| {
        let v: Value = serde_json::from_str(line).ok()?;
        let what = format!(
            "{} -> {}, term {}: {}",
            v["from"].as_str()?,
            v["to"].as_str()?,
            v["term"],
            v["reason"].as_str().unwrap_or_default()
        );
        Some(Event { at: parse_rfc3339(v["at"].as_str()?)?, node: node.to_owned(), what })
    };
    lines.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read() {
        let line = r#"{"at":"2026-11-22T00:00:00.500Z","from":"backup","to":"master","term":3,"reason":"gw1 is silent","phases_ms":{"detect":600.1}}"#;
        let events = parse_events("gw2", &format!("{line}\nnot json\n"));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].at, 1_795_305_600_500_000_000);
        assert_eq!(events[0].what, "backup -> master, term 3: gw1 is silent");
    }
}
