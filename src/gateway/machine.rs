//! The real effects: floating IPs, source rules, announcements and WireGuard, in the order of
//! docs/architecture.md, "Order".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tracing::{debug, error, warn};
use wgha_proto::Term;

use super::Notice;
use super::attend::Attendance;
use super::ledger::Ledger;
use super::scripts::Scripts;
use super::tunnel::Tunnel;
use super::view::{SharedView, TunnelView};
use crate::clock::Stamps;
use crate::config::FloatingIp;
use crate::net::gate::Gate;
use crate::net::watch::Watch;
use crate::net::{Change, Link, NetError, Netlink, address, announce};
use crate::setup::Setup;
use crate::state::AppliedAddress;
use crate::sync::Endpoints;

mod clients;
mod dead_man;
mod prepare;
mod role;

use dead_man::DeadMan;
use prepare::Entering;

/// The floating IPs are announced again after this, in case the first bursts were lost.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);

/// And then this often: some routers keep a wrong entry for hours.
const ANNOUNCE_REFRESH: Duration = Duration::from_secs(60);

/// Peers are counted for status this often.
const COUNT_PEERS: Duration = Duration::from_secs(5);

/// What the reconciler shares with the rest of the process.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// What it last saw.
    pub view: SharedView,
    /// Where clients are.
    pub endpoints: Endpoints,
    /// The clock that stamps handshakes.
    pub stamps: Stamps,
    /// When the protocol's loop last turned; see [`daemon::Handle`](crate::daemon::Handle).
    pub turns: Arc<AtomicU64>,
}

/// The machine that this process runs on.
pub struct Machine {
    netlink: Netlink,
    watch: Watch,
    gate: Gate,
    ledger: Ledger,
    scripts: Scripts,
    view: SharedView,
    endpoints: Endpoints,
    stamps: Stamps,
    notices: mpsc::Sender<Notice>,
    attendance: Attendance,
    floating_ips: Vec<FloatingIp>,
    dead_man: DeadMan,
    tunnels: Vec<Tunnel>,
    /// Made ready for the next change of role; see `prepare`.
    entering: Option<Entering>,
    leaving: Option<Vec<Change>>,
    announce_at: Option<Instant>,
    /// The term whose endpoints this node publishes.
    acting: Option<Term>,
    /// When the role changed.
    entered: SystemTime,
    /// Clients that have shaken hands since then are back: since the change, or since another master yielded.
    back_since: SystemTime,
    /// When clients are called once more if nobody is back by then, and how often yet.
    recall: Option<(Instant, u8)>,
    count_at: Instant,
    /// The machine has been set right once since the start.
    rested: bool,
    /// A file that this gateway cannot serve without, in words.
    missing: Option<String>,
}

impl Machine {
    /// Opens the machine. Nothing on it changes yet. Call inside a runtime.
    ///
    /// # Errors
    ///
    /// Netlink cannot be used.
    pub fn open(
        setup: &Setup,
        ledger: Ledger,
        shared: Shared,
        notices: mpsc::Sender<Notice>,
        gate: Gate,
    ) -> Result<Machine, NetError> {
        let floating_ips = setup.config.floating_ips.clone();
        let tunnels = setup
            .tunnels()
            .map(|(entry, conf)| {
                Tunnel::new(entry.clone(), conf.clone(), &floating_ips, gate.permit())
            })
            .collect();
        let machine = Machine {
            netlink: Netlink::open()?,
            watch: Watch::open()?,
            gate,
            scripts: Scripts::spawn(ledger.clone()),
            ledger,
            view: shared.view,
            endpoints: shared.endpoints,
            stamps: shared.stamps,
            notices,
            attendance: Attendance::default(),
            floating_ips,
            dead_man: DeadMan::new(&setup.config, shared.turns),
            tunnels,
            entering: None,
            leaving: None,
            announce_at: None,
            acting: None,
            entered: SystemTime::UNIX_EPOCH,
            back_since: SystemTime::UNIX_EPOCH,
            recall: None,
            count_at: Instant::now(),
            rested: false,
            missing: setup.missing(),
        };
        machine.set_lines();
        Ok(machine)
    }

    fn set_lines(&self) {
        let lines: BTreeMap<_, _> =
            self.tunnels.iter().map(|t| (t.interface().to_owned(), t.lines())).collect();
        self.scripts.set_lines(lines);
    }

    /// Floating IPs, then the rules that make WireGuard's packets leave from them. True if anything
    /// was missing.
    async fn put_addresses(&mut self) -> Result<bool, NetError> {
        let mut changed = false;
        let valid = self.dead_man.lifetime();
        for ip in &self.floating_ips {
            changed |= address::claim_for(&self.netlink, ip, valid).await?;
        }
        for tunnel in &self.tunnels {
            changed |= tunnel.source_rules(&self.netlink, true).await?;
        }
        Ok(changed)
    }

    /// The same by the list, if there is one and the kernel takes it: then the interfaces are
    /// returned, and all is to be compared later.
    async fn put_up(&mut self) -> Result<Option<Vec<Link>>, String> {
        self.dead_man.begin();
        if let Some(Entering { changes, links }) = self.entering.take() {
            match self.netlink.flight(changes).await {
                Ok(_) => return Ok(Some(links)),
                Err(e) => debug!("what was prepared does not fit: {e}"),
            }
        }
        self.put_addresses().await.map_err(|e| e.to_string())?;
        Ok(None)
    }

    /// WireGuard, rules, floating IPs, in this order: a tunnel that is up without its floating IP
    /// would move its clients to this machine's own address. Every step is tried even if one
    /// before it failed. Returns what stood.
    async fn take_off(&mut self) -> Result<Vec<String>, String> {
        self.attendance.end();
        // Shut by the protocol's loop the moment that the role went; what is late is shut by what follows.
        self.gate.closed().await;
        let mut stood = Vec::new();
        let mut first_error = None;
        let mut note = |what: &str, result: Result<bool, String>| match result {
            Ok(true) => stood.push(what.to_owned()),
            Ok(false) => {}
            Err(e) => _ = first_error.get_or_insert(e),
        };
        for tunnel in &mut self.tunnels {
            let down = tunnel.down(&self.ledger).await;
            note(tunnel.interface(), down);
            tunnel.last_endpoints(&self.endpoints).await;
        }
        self.acting = None;
        for tunnel in &self.tunnels {
            let rules = tunnel.source_rules(&self.netlink, false).await;
            note("source rules", rules.map_err(|e| e.to_string()));
        }
        for ip in &self.floating_ips {
            let gone = match address::release(&self.netlink, ip).await {
                // It took its addresses along.
                Err(NetError::NoInterface(_)) => Ok(false),
                other => other.map_err(|e| e.to_string()),
            };
            note(&ip.address.addr().to_string(), gone);
        }
        self.announce_at = None;
        self.scripts.set(false);
        first_error.map_or(Ok(stood), Err)
    }

    async fn announce(&mut self) {
        // Frames of our own pass the kernel's gate by.
        if !self.gate.allows() {
            return;
        }
        // A lost announcement is repeated; it is no reason not to serve.
        if let Err(e) = announce::burst(&self.netlink, &self.floating_ips).await {
            warn!("announcing the floating IPs: {e}");
        }
    }

    async fn announce_on(&self, links: &[Link]) {
        if !self.gate.allows() {
            return;
        }
        if let Err(e) = announce::burst_on(links, &self.floating_ips).await {
            warn!("announcing the floating IPs: {e}");
        }
    }

    /// What would keep this gateway from serving, apart from WireGuard.
    async fn missing_interface(&self) -> Option<String> {
        for ip in &self.floating_ips {
            match self.netlink.link(&ip.interface).await {
                Ok(Some(link)) if link.up => {}
                Ok(Some(_)) => return Some(format!("interface {} is down", ip.interface)),
                Ok(None) => return Some(format!("interface {} is gone", ip.interface)),
                Err(e) => return Some(e.to_string()),
            }
        }
        None
    }

    async fn stage(&mut self) -> Result<(), String> {
        if let Some(missing) = &self.missing {
            return Err(missing.clone());
        }
        for tunnel in &mut self.tunnels {
            let (_, staged) = tunnel.look().await;
            if !staged || tunnel.is_stale() {
                tunnel.stage(&self.ledger).await?;
            }
            tunnel.check_port().await?;
        }
        for tunnel in &mut self.tunnels {
            // It could serve without.
            if let Err(e) = tunnel.take_endpoints(&self.endpoints).await {
                warn!("endpoints not set: {e}");
            }
        }
        let addresses: Vec<_> = self.floating_ips.iter().map(AppliedAddress::from).collect();
        if let Err(e) = self.ledger.update(|record| record.floating_ips = addresses) {
            error!("cannot keep the record of what is put up: {e}");
        }
        Ok(())
    }

    fn restored(&self, what: &str) {
        warn!("{what}");
        self.view.draw(|view| view.restored += 1);
    }

    /// A look found that nothing acts; the next picture, with all else, comes when the machine rests.
    fn draw_left(&self) {
        self.view.draw(|view| {
            view.floating_ips.fill(false);
            view.tunnels.iter_mut().for_each(|tunnel| tunnel.up = false);
        });
    }

    async fn draw(&mut self) {
        let mut held = Vec::with_capacity(self.floating_ips.len());
        for ip in &self.floating_ips {
            held.push(address::held(&self.netlink, ip).await.unwrap_or(false));
        }
        let count = Instant::now() >= self.count_at;
        if count {
            self.count_at = Instant::now() + COUNT_PEERS;
        }
        let mut tunnels = self.view.look().tunnels;
        tunnels.resize(self.tunnels.len(), TunnelView::default());
        for (tunnel, view) in self.tunnels.iter_mut().zip(&mut tunnels) {
            (view.up, view.staged) = tunnel.look().await;
            if count {
                tunnel.count_peers(view).await;
            }
            view.endpoints_at = self.endpoints.complete_at(tunnel.interface());
        }
        if let Some(offset) = self.tunnels.iter().find_map(Tunnel::stamp_offset) {
            self.stamps.freeze(offset);
        }
        self.view.draw(|view| {
            view.floating_ips = held;
            view.tunnels = tunnels;
        });
    }
}
