//! Writes wgha.toml, cluster.key, wg0.conf and the notify script into the members' directories.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::node::Node;
use crate::process::{Process, Spec};
use crate::topology::{self, HEARTBEAT_PORT, WG_PORT};
use crate::wgconf::{PeerConf, WgConf};

/// Where a member sees its config.
pub const CONFIG_PATH: &str = "/etc/wgha/wgha.toml";

/// The choices of wgha.toml.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Heartbeats missed before a takeover.
    pub misses: u32,
    /// A higher priority takes the role back.
    pub preempt: bool,
    /// `auto`, `majority` or `none`. `none` unless given: members that start for the first time do not vote for half a
    /// minute.
    pub quorum: String,
    /// Once it was fit for so long; whole milliseconds.
    pub preempt_delay: Duration,
    /// Of gw1, gw2 ...; 100 where the list ends.
    pub priorities: Vec<u8>,
    /// `auto`, `kernel` or `embedded`.
    pub backend: String,
    /// Of gw1, gw2 ..., where they differ; `backend` where the list ends.
    pub backends: Vec<String>,
    /// A floating IP of this family.
    pub floating_v4: bool,
    /// A floating IP of this family.
    pub floating_v6: bool,
    /// A floating IP on the inner side, the host's gateway.
    pub floating_inner: bool,
    /// Each member keeps a `notify.log` of its hook.
    pub notify_hook: bool,
    /// Written to the end of the file, as it is.
    pub extra: String,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            misses: 3,
            preempt: false,
            quorum: "none".to_owned(),
            preempt_delay: Duration::ZERO,
            priorities: vec![150, 100],
            backend: "auto".to_owned(),
            backends: Vec::new(),
            floating_v4: true,
            floating_v6: true,
            floating_inner: true,
            notify_hook: true,
            extra: String::new(),
        }
    }
}

impl Lab {
    /// wgha.toml, the same on every member but for [`ClusterOptions::backends`].
    pub fn wgha_toml(&self) -> String {
        self.toml_with(&self.cluster().backend)
    }

    fn toml_with(&self, backend: &str) -> String {
        let o = self.cluster();
        let mut t = format!(
            "[cluster]\nname = \"lab\"\nkey_file = \"/etc/wgha/cluster.key\"\nheartbeat = \"{}ms\"\nmisses = {}\npreempt = {}\npreempt_delay = \"{}ms\"\nquorum = \"{}\"\n",
            o.heartbeat.as_millis(),
            o.misses,
            o.preempt,
            o.preempt_delay.as_millis(),
            o.quorum
        );
        for (n, node) in (1..).zip(self.gateways()) {
            let priority = o.priorities.get(usize::from(n) - 1).unwrap_or(&100);
            let address = topology::gateway(n).v4;
            let _ = write!(
                t,
                "\n[[node]]\nname = \"{}\"\naddresses = [\"{address}:{HEARTBEAT_PORT}\"]\npriority = {priority}\n",
                node.name()
            );
        }
        if let Some(node) = self.witness() {
            let address = topology::witness().v4;
            let _ = write!(
                t,
                "\n[[node]]\nname = \"{}\"\naddresses = [\"{address}:{HEARTBEAT_PORT}\"]\nwitness = true\n",
                node.name()
            );
        }
        for (address, interface) in self.floating_ips() {
            let _ = write!(
                t,
                "\n[[floating_ip]]\naddress = \"{address}\"\ninterface = \"{interface}\"\n"
            );
        }
        let _ = write!(
            t,
            "\n[[wireguard]]\ninterface = \"wg0\"\nconfig = \"/etc/wireguard/wg0.conf\"\nbackend = \"{backend}\"\n"
        );
        if o.notify_hook {
            t += "\n[[hook]]\non = [\"master\", \"backup\", \"fault\", \"stop\"]\nrun = [\"/etc/wgha/notify.sh\"]\n";
        }
        t + &o.extra
    }

    /// The floating IPs of the config, with prefix, and their interfaces.
    pub fn floating_ips(&self) -> Vec<(String, &'static str)> {
        let o = self.cluster();
        let (outer, inner) = (topology::floating(), topology::inner_floating());
        let mut all = Vec::new();
        for (wanted, pair, interface) in [(true, outer, "eth0"), (o.floating_inner, inner, "eth1")]
        {
            if wanted && o.floating_v4 {
                all.push((format!("{}/32", pair.v4), interface));
            }
            if wanted && o.floating_v6 {
                all.push((format!("{}/128", pair.v6), interface));
            }
        }
        all
    }

    /// wg0.conf of the gateways.
    pub fn wg0_conf(&self) -> WgConf {
        let inner = topology::wg_gateway();
        let peers = (1..).zip(&self.keys().clients).map(|(n, key)| {
            let address = topology::wg_client(n);
            PeerConf {
                public_key: key.public_base64(),
                allowed_ips: vec![format!("{}/32", address.v4), format!("{}/128", address.v6)],
                ..PeerConf::default()
            }
        });
        let swarm = (0..).zip(&self.keys().swarm).map(|(n, key)| PeerConf {
            public_key: key.public_base64(),
            preshared_key: Some(self.keys().preshared.private_base64()),
            allowed_ips: vec![format!("{}/32", topology::swarm_tunnel(n))],
            ..PeerConf::default()
        });
        let prefix = if self.keys().swarm.is_empty() { 24 } else { 16 };
        WgConf {
            private_key: self.keys().gateway.private_base64(),
            listen_port: Some(WG_PORT),
            addresses: vec![format!("{}/{prefix}", inner.v4), format!("{}/64", inner.v6)],
            mtu: Some(1380),
            peers: peers.chain(swarm).collect(),
        }
    }

    /// The config of client `number`, from 1.
    ///
    /// # Panics
    /// When there is none.
    pub fn client_conf(&self, number: u8, over_v6: bool, keepalive: u16) -> WgConf {
        let key = &self.keys().clients[usize::from(number) - 1];
        let address = topology::wg_client(number);
        WgConf {
            private_key: key.private_base64(),
            listen_port: None,
            addresses: vec![format!("{}/32", address.v4), format!("{}/128", address.v6)],
            mtu: Some(1380),
            peers: vec![PeerConf {
                public_key: self.keys().gateway.public_base64(),
                preshared_key: None,
                allowed_ips: ["10.9.0.0/24", "172.16.0.0/24", "fd00:9::/64", "fd00:16::/64"]
                    .map(str::to_owned)
                    .to_vec(),
                endpoint: Some(topology::endpoint(over_v6)),
                keepalive,
            }],
        }
    }

    /// Writes everything the members' daemons read. `wgha` makes the cluster key.
    ///
    /// # Errors
    /// When a file cannot be written or `wgha keygen` fails.
    pub fn write_config(&self, wgha: &Path) -> Result<()> {
        let key = self.dir().join("cluster.key");
        if !key.exists() {
            keygen(wgha, &[], &key)?;
        }
        for node in self.gateways() {
            fs::copy(&key, etc(node).join("cluster.key"))?;
            secret(&etc(node).join("cluster.key"))?;
            self.write_wg0(node)?;
        }
        if let Some(node) = self.witness() {
            keygen(
                wgha,
                &["--witness-from".as_ref(), key.as_os_str()],
                &etc(node).join("cluster.key"),
            )?;
        }
        let o = self.cluster();
        let backends = o.backends.iter().chain(std::iter::repeat(&o.backend));
        for (node, backend) in self.members().zip(backends) {
            fs::write(etc(node).join("wgha.toml"), self.toml_with(backend))?;
            write_notify(node)?;
        }
        Ok(())
    }

    /// Writes /etc/wireguard/wg0.conf of a gateway.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_wg0(&self, node: &Node) -> Result<()> {
        let path = node.dir().join("etc-wireguard/wg0.conf");
        fs::write(&path, self.wg0_conf().to_text())?;
        secret(&path)
    }

    /// Starts `wgha run` on a member.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&self, wgha: &Path, node: &Node) -> Result<Process> {
        let program = wgha.display().to_string();
        node.spawn(
            Spec::new([&program, "run", "--config", CONFIG_PATH, "--node", node.name()])
                .named("wgha"),
        )
    }
}

/// A member's /etc/wgha, seen from outside.
pub fn etc(node: &Node) -> PathBuf {
    node.dir().join("etc-wgha")
}

fn keygen(wgha: &Path, args: &[&std::ffi::OsStr], out: &Path) -> Result<()> {
    let _ = fs::remove_file(out);
    let done = Command::new(wgha).arg("keygen").args(args).arg("--out").arg(out).output();
    let done = done.with_context(|| format!("running {}", wgha.display()))?;
    if !done.status.success() {
        bail!("wgha keygen: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    secret(out)
}

fn secret(path: &Path) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

/// The hook appends a line to `state/notify.log`: time, keepalived's arguments, role and term.
fn write_notify(node: &Node) -> Result<()> {
    let path = etc(node).join("notify.sh");
    fs::write(
        &path,
        "#!/bin/sh\necho \"$(date +%s.%N) ${WGHA_ROLE:-?} ${WGHA_TERM:-?} ${WGHA_REASON:-} args: $*\" >> /var/lib/wgha/notify.log\n",
    )?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
