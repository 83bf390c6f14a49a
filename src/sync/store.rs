//! The tables in the state directory: a pair that restarts still knows where its clients are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::error;

use super::endpoints::{Endpoints, Known, MAX_PEERS, Peers};
use crate::state::StateDir;
use crate::wireguard::key::PublicKey;

/// The file's name in the state directory.
const FILE: &str = "endpoints.json";

/// It is written at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// The file: interfaces by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Kept(BTreeMap<String, Vec<KeptPeer>>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeptPeer {
    key: String,
    #[serde(flatten)]
    known: Known,
}

/// Takes up what an earlier run kept.
pub(super) fn restore(state: &StateDir, endpoints: &Endpoints) {
    let Kept(interfaces) = state.load(FILE);
    for (interface, peers) in interfaces {
        let peer = |p: KeptPeer| Some((PublicKey::from_base64(&p.key)?, p.known));
        endpoints.restore(&interface, peers.into_iter().take(MAX_PEERS).filter_map(peer).collect());
    }
}

/// Keeps the tables until `end` is dropped or sent to, and once more then.
pub(super) async fn keep(
    state: Arc<StateDir>,
    endpoints: Endpoints,
    mut end: oneshot::Receiver<()>,
) {
    let mut changed = endpoints.changed();
    changed.mark_changed();
    let mut kept = Kept::default();
    loop {
        let ended = tokio::select! {
            biased;
            _ = &mut end => true,
            _ = changed.changed() => false,
        };
        write(&state, &endpoints, &mut kept).await;
        if ended {
            return;
        }
        tokio::select! {
            _ = &mut end => return write(&state, &endpoints, &mut kept).await,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Writes what is not written yet.
async fn write(state: &Arc<StateDir>, endpoints: &Endpoints, kept: &mut Kept) {
    let peer =
        |(key, known): (&PublicKey, &Known)| KeptPeer { key: key.to_string(), known: *known };
    let list = |peers: &Peers| peers.iter().map(peer).collect();
    let tables = endpoints.look_all();
    let now = Kept(tables.iter().map(|(name, table)| (name.clone(), list(&table.peers))).collect());
    if now == *kept {
        return;
    }
    let (state, file) = (Arc::clone(state), now.clone());
    let written = tokio::task::spawn_blocking(move || state.store(FILE, &file)).await;
    match written {
        Ok(Ok(())) => *kept = now,
        Ok(Err(e)) => error!("endpoints not kept: {e}"),
        Err(e) => error!("endpoints not kept: {e}"),
    }
}

#[cfg(test)]
mod tests;
