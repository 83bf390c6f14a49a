//! Entering, keeping and leaving the role: the order of effects.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use tracing::{debug, error, info, warn};
use wgha_proto::{Ability, Doubt, Term};

use super::clients::{RECALL, RECALLS};
use super::{ANNOUNCE_AGAIN, ANNOUNCE_REFRESH, Machine};
use crate::gateway::kick::Round;
use crate::gateway::tunnel::{Kept, Tunnel};
use crate::gateway::{Effects, Notice, Phases, Wanted, gate};
use crate::net::address;
use crate::setup::Setup;

#[async_trait]
impl Effects for Machine {
    async fn enter(&mut self, term: Term, wanted: &Wanted) -> Result<Phases, String> {
        let (start, entered) = (Instant::now(), SystemTime::now());
        let mut phases = Phases::default();
        (self.leaving, self.recall) = (None, None);
        (self.entered, self.back_since) = (entered, entered);
        let links = self.put_up().await?;
        phases.address = Some(start.elapsed());
        // Before link up: otherwise the client's answer to the first handshake goes to the dead
        // master's MAC.
        match &links {
            Some(links) => self.announce_on(links).await,
            None => self.announce().await,
        }
        phases.announce = Some(start.elapsed());
        // Open since the role came, as a rule. Before link up: a first handshake that is dropped costs 5 s.
        if !self.gate.opened().await {
            warn!("the gate is not open yet");
        }
        if !wanted.still() {
            return Err(format!("term {term} is over"));
        }
        for index in 0..self.tunnels.len() {
            let Some(tunnel) = self.tunnels.get_mut(index) else { continue };
            // What came since the last look; the device takes none when it is up.
            if let Err(e) = tunnel.take_endpoints(&self.endpoints).await {
                warn!("endpoints not set: {e}");
            }
            self.dead_man.beside(&self.netlink, &self.floating_ips, tunnel.up()).await?;
            let round = Round { entered, again: false };
            self.attend(index, term, round, Some(self.notices.clone()));
        }
        self.acting = Some(term);
        phases.wireguard = Some(start.elapsed());
        // The clients are being called: time to look whether all that was prepared still fits.
        if links.is_some() {
            self.put_addresses().await.map_err(|e| e.to_string())?;
        }
        self.announce().await;
        self.announce_at = Some(Instant::now() + ANNOUNCE_AGAIN);
        self.scripts.set(true);
        self.count_at = Instant::now();
        self.draw().await;
        Ok(phases)
    }

    async fn keep(&mut self, term: Term) -> Result<(), String> {
        if let Some(why) = self.missing_interface().await {
            return Err(why);
        }
        self.dead_man.check(&self.netlink, &self.floating_ips).await?;
        if self.put_addresses().await.map_err(|e| e.to_string())? {
            self.restored("put back: floating IPs or source rules");
            self.announce().await;
        }
        self.dead_man.renew_if_due(&self.netlink, &self.floating_ips).await;
        for index in 0..self.tunnels.len() {
            let Some(tunnel) = self.tunnels.get_mut(index) else { continue };
            let kept = tunnel.keep_up(&self.endpoints);
            let kept = self.dead_man.beside(&self.netlink, &self.floating_ips, kept).await?;
            let name = tunnel.interface().to_owned();
            match kept {
                Kept::Stood => {}
                Kept::PutBack => {
                    self.attend_again(term);
                    self.restored(&format!("put back: {name}"));
                }
                Kept::Restarted => {
                    self.attend_again(term);
                    let why =
                        format!("{name} restarted: its private key changed, all sessions ended");
                    warn!("{why}");
                    // For the record alone: nobody waits for it.
                    let _ = self.notices.try_send(Notice::Restarted(term, why));
                }
            }
        }
        if self.announce_at.is_some_and(|at| at <= Instant::now()) {
            self.announce().await;
            self.announce_at = Some(Instant::now() + ANNOUNCE_REFRESH);
        }
        self.recall(term).await;
        self.scripts.set(true);
        self.draw().await;
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), String> {
        let start = Instant::now();
        if self.leave_by_list().await {
            for tunnel in &mut self.tunnels {
                tunnel.last_endpoints(&self.endpoints).await;
            }
            self.acting = None;
            self.announce_at = None;
            self.scripts.set(false);
            self.draw_left();
            debug!("left after {} us", start.elapsed().as_micros());
            return Ok(());
        }
        let done = self.take_off().await.map(drop);
        match done {
            Ok(()) => self.draw_left(),
            Err(_) => self.draw().await,
        }
        done
    }

    async fn rest(&mut self) -> Result<Ability, String> {
        match self.take_off().await {
            Ok(stood) if stood.is_empty() => {}
            // The first time it is what an earlier run left, and the rules that guard a standby.
            Ok(stood) if !self.rested => info!("not master, so set right: {}", stood.join(", ")),
            Ok(stood) => self.restored(&format!("not master, so set right: {}", stood.join(", "))),
            Err(why) => {
                self.draw().await;
                return Err(why);
            }
        }
        self.rested = true;
        let ability = match self.stage().await {
            Err(why) => Ability::Unable(why),
            Ok(()) => match self.missing_interface().await {
                Some(why) => Ability::Unable(why),
                None => Ability::Ready,
            },
        };
        if ability == Ability::Ready {
            self.prepare_entering().await;
        }
        self.draw().await;
        Ok(ability)
    }

    async fn examine(&mut self, from: &str) -> Result<(), Doubt> {
        self.examine_all(from).await
    }

    async fn flush(&mut self, to: &str) {
        self.flush_to(to).await;
    }

    async fn reassert(&mut self) {
        // Clients may have sessions with the one that yielded.
        self.back_since = SystemTime::now();
        self.announce().await;
        self.announce_at = Some(Instant::now() + ANNOUNCE_AGAIN);
    }

    async fn kick(&mut self, term: Term) {
        if self.acting == Some(term) {
            self.recall = Some((Instant::now() + RECALL, RECALLS));
            self.call_again(term).await;
        }
    }

    async fn reconfigure(&mut self, setup: Arc<Setup>) {
        (self.entering, self.leaving) = (None, None);
        let floating_ips = setup.config.floating_ips.clone();
        for gone in self.floating_ips.iter().filter(|ip| !floating_ips.contains(ip)) {
            if let Err(e) = address::release(&self.netlink, gone).await {
                error!("{e}");
            }
        }
        let mut old = std::mem::take(&mut self.tunnels);
        for (entry, conf) in setup.tunnels() {
            match old.iter().position(|t| t.interface() == entry.interface) {
                Some(index) => {
                    let mut tunnel = old.swap_remove(index);
                    let (entry, conf) = (entry.clone(), conf.clone());
                    tunnel.update(&self.netlink, entry, conf, &floating_ips).await;
                    self.tunnels.push(tunnel);
                }
                None => {
                    let permit = self.gate.permit();
                    let mut tunnel =
                        Tunnel::new(entry.clone(), conf.clone(), &floating_ips, permit);
                    if let Err(e) = tunnel.stage(&self.ledger).await {
                        error!("{e}");
                    }
                    self.tunnels.push(tunnel);
                }
            }
        }
        for tunnel in old {
            if let Err(e) = tunnel.remove(&self.netlink, &self.ledger).await {
                error!("{e}");
            }
        }
        self.floating_ips = floating_ips;
        self.dead_man.reconfigure(&setup.config);
        self.missing = setup.missing();
        self.gate.reconfigure(gate::plan(&setup));
        self.set_lines();
    }

    async fn finish(&mut self, bound: Duration) {
        // What could not be taken off stays behind a gate that is shut, until `wgha release`.
        let clear = self.take_off().await.is_ok();
        if clear && let Err(e) = self.gate.remove().await {
            error!("the gate's nftables rules are still there: {e}");
        }
        if !self.scripts.wait_down(bound).await {
            warn!("PostDown did not end in time");
        }
    }

    async fn changed(&mut self) {
        if let Err(e) = self.watch.changed().await {
            warn!("{e}");
            tokio::time::sleep(ANNOUNCE_AGAIN).await;
        }
    }
}
