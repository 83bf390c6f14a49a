//! Daemons that a fault ended run again.

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_lab::{Cluster, Lab};

use super::fault::{Fault, off};

/// Starts the daemons that ended, as systemd does, half of the time after the release of its `ExecStopPost`; and
/// ends what a dead daemon's maintenance left. What ends later than this looks is for [`revive_once`]. An error if one ended that
/// none of `faults` ends.
pub(crate) fn revive(
    lab: &Lab,
    cluster: &mut Cluster,
    faults: &[Fault],
    rng: &mut fastrand::Rng,
) -> Result<()> {
    // A guard that buries, and a daemon that stops, mostly need no longer.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        start_ended(lab, cluster, faults, rng)?;
    }
    revive_once(lab, cluster, faults, rng)
}

/// The same without waiting for what is about to end.
pub(super) fn revive_once(
    lab: &Lab,
    cluster: &mut Cluster,
    faults: &[Fault],
    rng: &mut fastrand::Rng,
) -> Result<()> {
    start_ended(lab, cluster, faults, rng)?;
    for node in lab.members() {
        if cluster.status(node).is_ok_and(|status| status["maintenance"] == true) {
            off(cluster, node);
        }
    }
    Ok(())
}

fn start_ended(
    lab: &Lab,
    cluster: &mut Cluster,
    faults: &[Fault],
    rng: &mut fastrand::Rng,
) -> Result<()> {
    for node in lab.members() {
        if cluster.process(node.name()).is_running() {
            continue;
        }
        let wanted = faults.iter().any(|fault| fault.ends() == Some(node.name()));
        ensure!(wanted, "{} ended, and no fault ends it", node.name());
        if rng.bool() && lab.witness().is_none_or(|w| w.name() != node.name()) {
            let _ = cluster.command(node, &["release"]);
        }
        cluster.start_on(lab, node.name())?;
    }
    Ok(())
}
