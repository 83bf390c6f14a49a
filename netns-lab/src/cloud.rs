//! A cloud for the lab: the fake of tests/hooks behind an API and a metadata service in each gateway, and a router that
//! leads the clients' address to whoever has it in that cloud.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::config::etc;
use crate::lab::Lab;
use crate::node::Node;
use crate::topology;

/// Of the hook, as the gateways see it.
const CONFIG: &str = "/etc/wgha/claim.conf";

/// A running cloud. Dropping it ends its services.
pub struct Cloud {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

/// Where the clients' address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The gateway that has it in the cloud, by name; "x" for something else, or for several.
    pub owner: Option<String>,
    /// Where the router leads it.
    pub led: Option<String>,
}

impl Cloud {
    /// A `[[claim]]` with this hook of dist/hooks, for [`ClusterOptions::extra`](crate::ClusterOptions::extra); `more` are
    /// further keys.
    pub fn claim(hook: &str, more: &str) -> String {
        let program = repository().join("dist/hooks").join(hook);
        format!("\n[[claim]]\nrun = [\"{}\", \"{CONFIG}\"]\n{more}\n", program.display())
    }

    /// Starts the fake cloud of a hook, before the daemons, and writes the hook's config into the gateways. For labs of two
    /// gateways without NAT; the address is that of [`topology::endpoint`].
    ///
    /// # Errors
    /// When Python is missing, there is no fake for this hook, or the router or a gateway refuses something.
    pub fn start(lab: &Lab, hook: &str) -> Result<Self> {
        let (program, log) = (repository().join("tests/hooks/lab.py"), lab.dir().join("cloud.log"));
        let log = fs::File::create(log)?;
        // By a thread that lives as long as the lab: the kernel kills the child with it.
        let child = lab.router().run(move || {
            let mut command = Command::new("python3");
            command.arg(program).env("PYTHONDONTWRITEBYTECODE", "1");
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
            crate::sys::die_with_parent(&mut command);
            command.spawn()
        });
        let mut child = child.context("python3 is missing: apt-get install python3")?;
        let input = child.stdin.take().context("no pipe")?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        let cloud = Self { child, pipes: Mutex::new((input, output)) };
        let answer = cloud.ask(&site(lab, hook)?)?;
        let config = answer["config"].as_str().context("no config")?;
        for node in lab.gateways() {
            let path = etc(node).join("claim.conf");
            fs::write(&path, config)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
        Ok(cloud)
    }

    /// Gives an order of tests/hooks/lab.py and returns the answer.
    ///
    /// # Errors
    /// When it is refused, or the router could not follow.
    pub fn ask(&self, order: &Value) -> Result<Value> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let (input, output) = &mut *pipes;
        writeln!(input, "{order}")?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("{order}: the fake cloud says {line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => bail!("{order}: {error}"),
            None => Ok(answer),
        }
    }

    /// Where the address is now.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn look(&self) -> Result<Whereabouts> {
        let answer = self.ask(&json!({"do": "look"}))?;
        let name = |key: &str| answer[key].as_str().map(str::to_owned);
        Ok(Whereabouts { owner: name("owner"), led: name("led") })
    }

    /// Somebody gives it to a gateway, to something else ("x"), or to nobody.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn give(&self, to: Option<&str>) -> Result<()> {
        self.ask(&json!({"do": "give", "to": to})).map(drop)
    }

    /// So many calls fail in one of the ways of tests/hooks/fake/cloud.py. `only`: `read`, `change` or `any`.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn fault(&self, kind: &str, times: u32, only: &str) -> Result<()> {
        self.ask(&json!({"do": "fault", "kind": kind, "times": times, "only": only})).map(drop)
    }

    /// Sets attributes of the fake, such as `{"operation_seconds": 1.5}`.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn set(&self, values: &Value) -> Result<()> {
        self.ask(&json!({"do": "set", "values": values})).map(drop)
    }

    /// These gateways do not reach the API: what they send is lost.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn unreachable(&self, gateways: &[&str]) -> Result<()> {
        self.ask(&json!({"do": "unreachable", "gateways": gateways})).map(drop)
    }

    /// Ends everything that [`fault`](Cloud::fault), [`set`](Cloud::set) and [`unreachable`](Cloud::unreachable) began.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn heal(&self) -> Result<()> {
        self.ask(&json!({"do": "heal"})).map(drop)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The hooks of dist/hooks that run in a node now, by what leads their process groups.
///
/// # Errors
/// When /proc cannot be read.
pub fn running_hooks(node: &Node) -> Result<Vec<Pid>> {
    let home = fs::read_link(node.net_path())?;
    let hooks = repository().join("dist/hooks").display().to_string();
    let is_hook = |process: &Path| {
        let there = fs::read_link(process.join("ns/net")).is_ok_and(|net| net == home);
        let line = || fs::read(process.join("cmdline")).unwrap_or_default();
        there && String::from_utf8_lossy(&line()).contains(&hooks)
    };
    let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let numbered = all.filter_map(|path| {
        let pid: i32 = path.file_name()?.to_str()?.parse().ok()?;
        is_hook(&path).then(|| nix::unistd::getpgid(Some(Pid::from_raw(pid))).ok())?
    });
    let mut groups: Vec<Pid> = numbered.collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

fn site(lab: &Lab, hook: &str) -> Result<Value> {
    let gateway = |(number, node): (u8, &Node)| {
        let address = topology::gateway(number).v4;
        let mac = crate::observe::mac(node, "eth0")?;
        Ok(json!({"name": node.name(), "net": node.net_path(), "address": address, "mac": mac}))
    };
    let gateways: Vec<Value> = (1..).zip(lab.gateways()).map(gateway).collect::<Result<_>>()?;
    Ok(json!({
        "hook": hook, "address": topology::floating().v4, "port": "eth0",
        "router": lab.router().net_path(), "gateways": gateways,
    }))
}

/// What tests are run from.
fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
