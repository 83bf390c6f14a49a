//! A handover, and what can stand against it.
//!
//! ```text
//!   master                                  successor
//!     │ request(term, id) ─────────────────────► │  healthy, the same config? looks: staged, in sync?
//!     │ ◄───────────────────────── ready(id)     │  or refuse(id, reason): called off
//!     │ last differences ──────(sync channel)──► │
//!     │ gate shut, effects off, `Left`           │
//!     │ release(term, successor) ──────────────► │  master of term + 1 at once
//! ```

use crate::api::Doubt;
use crate::time::Time;

/// Why a gateway does not take the role. The numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    NotReady = 1,
    Unhealthy = 2,
    Maintenance = 3,
    UnknownAbility = 4,
    Wireguard = 5,
    Config = 6,
    NotBackup = 7,
    Fault = 8,
    Stopping = 9,
    NotStaged = 10,
    PortTaken = 11,
    NotInSync = 12,
    StaleEndpoints = 13,
}

impl From<Doubt> for Objection {
    fn from(doubt: Doubt) -> Objection {
        match doubt {
            Doubt::NotStaged => Objection::NotStaged,
            Doubt::PortTaken => Objection::PortTaken,
            Doubt::NotInSync => Objection::NotInSync,
            Doubt::StaleEndpoints => Objection::StaleEndpoints,
        }
    }
}

impl Objection {
    const ALL: [Objection; 13] = [
        Objection::NotReady,
        Objection::Unhealthy,
        Objection::Maintenance,
        Objection::UnknownAbility,
        Objection::Wireguard,
        Objection::Config,
        Objection::NotBackup,
        Objection::Fault,
        Objection::Stopping,
        Objection::NotStaged,
        Objection::PortTaken,
        Objection::NotInSync,
        Objection::StaleEndpoints,
    ];

    /// What a refusal on the wire says; a reason that is not known here has a text too.
    pub(crate) fn text_of(byte: u8) -> &'static str {
        match Objection::ALL.into_iter().find(|objection| *objection as u8 == byte) {
            Some(objection) => objection.text(),
            None => "it refuses",
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Objection::NotReady => "not ready",
            Objection::Unhealthy => "unhealthy",
            Objection::Maintenance => "in maintenance",
            Objection::UnknownAbility => "not yet examined",
            Objection::Wireguard => "its WireGuard implementation differs (force passes over that)",
            Objection::Config => "its config differs (force passes over that)",
            Objection::NotBackup => "not a backup",
            Objection::Fault => "in fault",
            Objection::Stopping => "stopping",
            Objection::NotStaged => "not staged",
            Objection::PortTaken => "without WireGuard's port, which another program has",
            Objection::NotInSync => "not connected to sync with this node (force passes over that)",
            Objection::StaleEndpoints => {
                "behind in what it knows of the clients (force passes over that)"
            }
        }
    }
}

/// What is known about a gateway that could take the role.
pub(crate) struct Fitness {
    pub(crate) ability_known: bool,
    pub(crate) fault: bool,
    pub(crate) backup: bool,
    pub(crate) stopping: bool,
    pub(crate) maintenance: bool,
    pub(crate) healthy: bool,
    pub(crate) ready: bool,
    pub(crate) same_wireguard: bool,
    pub(crate) same_config: bool,
    /// What it found when it looked; `None` before.
    pub(crate) doubt: Option<Doubt>,
}

impl Fitness {
    /// The gravest objection. `force` passes over differences, never over what a gateway says
    /// about itself.
    pub(crate) fn objection(&self, force: bool) -> Option<Objection> {
        let all = [
            (self.stopping, Objection::Stopping),
            (self.fault, Objection::Fault),
            (self.maintenance, Objection::Maintenance),
            (!self.ability_known, Objection::UnknownAbility),
            (!self.backup, Objection::NotBackup),
            (!self.healthy, Objection::Unhealthy),
            (!self.ready, Objection::NotReady),
            (!self.same_wireguard && !force, Objection::Wireguard),
            (!self.same_config && !force, Objection::Config),
        ];
        let passed_over = |doubt: &Doubt| match doubt {
            Doubt::NotStaged | Doubt::PortTaken => false,
            Doubt::NotInSync | Doubt::StaleEndpoints => force,
        };
        let doubt = self.doubt.filter(|doubt| !passed_over(doubt)).map(Objection::from);
        all.into_iter().find(|(holds, _)| *holds).map(|(_, objection)| objection).or(doubt)
    }
}

/// Why the master hands over: decides what happens if it comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An operator asked: stays master.
    Command,
    /// A better node is there: stays master, tries again later.
    Preempt,
    /// A check fails here: stays master, tries again later.
    Unhealthy,
    /// Maintenance: leaves the role to whoever takes it.
    Maintenance,
    /// The process ends: the same.
    Stop,
}

impl Cause {
    /// Whether an operator wants it: then preemption must not undo it.
    pub(crate) fn is_manual(self) -> bool {
        match self {
            Cause::Command | Cause::Maintenance => true,
            Cause::Preempt | Cause::Unhealthy | Cause::Stop => false,
        }
    }

    /// Whether the master leaves even without a successor.
    pub(crate) fn leaves_anyway(self) -> bool {
        match self {
            Cause::Maintenance | Cause::Stop => true,
            Cause::Command | Cause::Preempt | Cause::Unhealthy => false,
        }
    }
}

/// The handover that is under way at the master.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Index of the successor among the peers.
    pub(crate) to: usize,
    pub(crate) id: u32,
    /// The number of the errand of [`Step::Flushing`].
    pub(crate) errand: u32,
    pub(crate) term: u64,
    pub(crate) force: bool,
    pub(crate) cause: Cause,
    pub(crate) step: Step,
    /// When the present step is given up.
    pub(crate) deadline: Option<Time>,
    /// When the request is said again.
    pub(crate) repeat_at: Time,
}

impl Outgoing {
    /// Nothing was given up yet.
    pub(crate) fn is_reversible(&self) -> bool {
        match self.step {
            Step::Asking | Step::Flushing => true,
            Step::Leaving | Step::Released => false,
        }
    }
}

/// How far a handover has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Asked; no answer yet.
    Asking,
    /// The successor is ready: it is being told what it does not know yet. Nothing is given up.
    Flushing,
    /// The effects are being taken off.
    Leaving,
    /// Released: the successor's claim is awaited.
    Released,
}
