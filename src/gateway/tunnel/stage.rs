//! A tunnel while this gateway is not master: its device made ready to go up at once.

use tracing::{debug, error, warn};
use wgha_proto::WireguardKind;

use super::Tunnel;
use crate::config::{BackendChoice, Wireguard};
use crate::gateway::ledger::Ledger;
use crate::gateway::scripts;
use crate::sync::Endpoints;
use crate::sync::endpoints::Origin;
use crate::wireguard::{self, Source, WgError, port};

impl Tunnel {
    /// The device configured and silent; the port reserved and free; PreUp run once.
    pub async fn stage(&mut self, ledger: &Ledger) -> Result<(), String> {
        self.open(ledger).await?;
        let interface = self.entry.interface.clone();
        let listen_port = self.conf.listen_port;
        let reserved = port::reserve(listen_port);
        if let Err(e) = &reserved {
            warn!("{interface}: cannot reserve UDP port {listen_port}: {e}");
        }
        let record = ledger.update(|applied| {
            // What somebody else reserved stays reserved when we go.
            if matches!(reserved, Ok(true)) && !applied.reserved_ports.contains(&listen_port) {
                applied.reserved_ports.push(listen_port);
            }
        });
        let pre_up_ran = ledger.interface(&interface).is_some_and(|i| i.pre_up_ran);
        if !pre_up_ran {
            for (number, line) in (1..).zip(&self.conf.pre_up) {
                if !scripts::run_line("PreUp", number, &interface, line).await {
                    return Err(format!("{interface}: PreUp {number} failed"));
                }
            }
        }
        let record = record.and(ledger.update_interface(&interface, |i| {
            i.pre_up_ran = true;
            i.listen_port = Some(listen_port);
        }));
        if let Err(e) = record {
            error!("cannot keep the record of what is put up: {e}");
        }
        self.restage().await
    }

    /// Applies the file to the device, live if it is up.
    pub async fn restage(&mut self) -> Result<(), String> {
        let Some(backend) = &mut self.backend else { return Err("not opened".to_owned()) };
        backend.set_source(self.entry.source.iter().copied().collect());
        backend.stage(&self.conf).await.map_err(|e| format!("{}: {e}", self.entry.interface))?;
        self.stale = false;
        self.staged_key = Some(self.conf.public_key);
        // Peers may be new.
        self.endpoints = 0;
        Ok(())
    }

    /// Tells the staged device where its peers are, if that changed.
    pub async fn take_endpoints(&mut self, endpoints: &Endpoints) -> Result<(), String> {
        let name = &self.entry.interface;
        let Some(backend) = &mut self.backend else { return Ok(()) };
        if endpoints.moves(name) == self.endpoints {
            return Ok(());
        }
        let table = endpoints.look(name);
        let mut known: Vec<_> =
            table.peers.iter().filter_map(|(key, peer)| Some((key.0, peer.endpoint?))).collect();
        let result = async {
            if table.origin == Origin::Kept {
                // The device may be older than this process and know better.
                let there = backend.peers().await?;
                let has = |key: &[u8; 32]| {
                    there.iter().any(|p| p.public_key == *key && p.endpoint.is_some())
                };
                known.retain(|(key, _)| !has(key));
            }
            backend.set_endpoints(&known).await
        };
        match result.await {
            Ok(0) => {}
            Ok(count) => debug!("{name}: {count} endpoints set"),
            Err(e) => return Err(format!("{name}: {e}")),
        }
        self.endpoints = table.moves;
        Ok(())
    }

    /// The file changed since the device was staged.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// # Errors
    /// Another program has the listen port.
    pub async fn check_port(&mut self) -> Result<(), String> {
        // The kernel's WireGuard listens on every address, gotatun on the source's.
        let source = match self.backend.as_ref().map(|b| b.kind()) {
            Some(WireguardKind::Embedded) => self.entry.source.iter().copied().collect(),
            _ => Source::default(),
        };
        match port::is_free(self.conf.listen_port, source) {
            Ok(true) => Ok(()),
            // By the device itself, if others brought it up meanwhile.
            Ok(false) if self.look().await.0 => Ok(()),
            Ok(false) => Err(WgError::PortTaken(self.conf.listen_port).to_string()),
            // Not being able to look is no reason not to serve.
            Err(_) => Ok(()),
        }
    }

    /// Opens the implementation that was chosen at the first start.
    pub(super) async fn open(&mut self, ledger: &Ledger) -> Result<(), String> {
        if self.backend.is_some() {
            return Ok(());
        }
        let choice = recorded_choice(&self.entry, ledger);
        let name = &self.entry.interface;
        let mut backend =
            wireguard::open(choice, name).await.map_err(|e| format!("{name}: {e}"))?;
        if let Some(permit) = &self.permit {
            backend.set_permit(permit.clone());
        }
        self.backend = Some(backend);
        Ok(())
    }
}

/// `auto` stays with what it chose first.
fn recorded_choice(entry: &Wireguard, ledger: &Ledger) -> BackendChoice {
    let recorded = ledger.interface(&entry.interface).map(|i| i.backend);
    match (entry.backend, recorded.as_deref()) {
        (BackendChoice::Auto, Some("kernel")) => BackendChoice::Kernel,
        (BackendChoice::Auto, Some("embedded")) => BackendChoice::Embedded,
        (choice, _) => choice,
    }
}
