//! The floating IPs' lifetime: the kernel removes them by itself unless they are renewed, and they are
//! renewed only while the protocol's loop turns. So a machine whose processes are all dead, or all stopped,
//! does not answer for them for ever.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;
use wgha_proto::Time;

use crate::clock;
use crate::config::{Config, FloatingIp};
use crate::net::{Lifetime, Netlink, address};

/// What the kernel is told, in seconds; it removes them up to half a second later.
const LIFETIME_S: u32 = 4;
const LIFETIME: Duration = Duration::from_secs(LIFETIME_S as u64);

/// Renewed when they were this long ago; a little less than the reconciler's pause between two looks.
const RENEW_AFTER: Duration = Duration::from_millis(900);

/// The loop turns each second at least, and with each heartbeat: who did not for so long hangs.
const TURNS_WITHIN: Duration = Duration::from_secs(2);

/// Keeps the floating IPs alive, or lets them go.
#[derive(Debug)]
pub(super) struct DeadMan {
    on: bool,
    /// When the loop last turned, nanoseconds.
    turns: Arc<AtomicU64>,
    within: Duration,
    /// When their lifetime last began.
    renewed: Time,
}

impl DeadMan {
    pub(super) fn new(config: &Config, turns: Arc<AtomicU64>) -> DeadMan {
        let mut dead_man =
            DeadMan { on: false, turns, within: Duration::ZERO, renewed: clock::now() };
        dead_man.reconfigure(config);
        dead_man
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.on = config.cluster.dead_man;
        self.within = config.detection().min(TURNS_WITHIN);
    }

    /// For how long to put a floating IP up.
    pub(super) fn lifetime(&self) -> Lifetime {
        if self.on { Lifetime::Seconds(LIFETIME_S) } else { Lifetime::Forever }
    }

    /// They are being put up now.
    pub(super) fn begin(&mut self) {
        self.renewed = clock::now();
    }

    /// Whether they are there still; another who removed one does not count, if it was renewed in time.
    ///
    /// # Errors
    /// One was not, and is gone: this machine lost what makes it master.
    pub(super) async fn check(
        &self,
        netlink: &Netlink,
        floating_ips: &[FloatingIp],
    ) -> Result<(), String> {
        if !self.on || clock::now().since(self.renewed) < LIFETIME {
            return Ok(());
        }
        for ip in floating_ips {
            if !address::held(netlink, ip).await.map_err(|e| e.to_string())? {
                let ip = ip.address.addr();
                return Err(format!("floating IP {ip} was not renewed in time, and is gone"));
            }
        }
        Ok(())
    }

    /// Lets their lifetime begin anew, if it is time to and the protocol's loop turns. They must be there.
    pub(super) async fn renew_if_due(&mut self, netlink: &Netlink, floating_ips: &[FloatingIp]) {
        let now = clock::now();
        let turned = Time::from_nanos(self.turns.load(Ordering::Relaxed));
        let due = self.on && now.since(self.renewed) >= RENEW_AFTER;
        if !due || now.since(turned) >= self.within {
            return;
        }
        for ip in floating_ips {
            if let Err(e) = address::renew(netlink, ip, self.lifetime()).await {
                warn!("floating IP {} not renewed: {e}", ip.address.addr());
                return;
            }
        }
        self.renewed = now;
    }

    /// Does `work`, which may take long, and renews meanwhile.
    pub(super) async fn beside<T>(
        &mut self,
        netlink: &Netlink,
        floating_ips: &[FloatingIp],
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep(RENEW_AFTER) => self.renew_if_due(netlink, floating_ips).await,
            }
        }
    }
}
