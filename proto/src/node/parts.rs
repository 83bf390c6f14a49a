//! Small pieces of a node's state.

use std::time::Duration;

use crate::api::{Doubt, Reason, Term};
use crate::time::Time;
use crate::wire::Tag;
use crate::wire::body::Echo;

/// Since when and why there is no master.
#[derive(Clone, Debug)]
pub(super) struct Vacancy {
    pub(super) since: Time,
    pub(super) reason: Reason,
    /// A successor that is not me was named; it has until then.
    pub(super) reserved_until: Time,
}

/// The hold-off after being master failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure {
    /// Not able again before this time, and why.
    pub(super) hold: Option<(Time, String)>,
    /// What the next failure costs; doubles.
    pub(super) next: Duration,
}

/// Notices that another live process has my name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Duplicate {
    pub(super) first: Option<Time>,
    pub(super) last: Time,
    pub(super) fault: bool,
}

/// [`Command::Stop`](crate::api::Command::Stop) is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    /// Handing over, leaving, releasing.
    UnderWay,
    /// Goodbye is said; nothing follows.
    Done,
}

/// A handover to me was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    pub(super) peer: usize,
    pub(super) session: [u8; 16],
    pub(super) manual: bool,
    /// The request's id and whether it has force.
    pub(super) id: u32,
    pub(super) force: bool,
    /// What both sides are, as compared when it came.
    pub(super) same_wireguard: bool,
    pub(super) same_config: bool,
    /// The number of the errand that looks.
    pub(super) errand: u32,
    /// What it found.
    pub(super) examined: Option<Result<(), Doubt>>,
    /// Until when the machine is kept ready for the role to come.
    pub(super) expected_until: Time,
}

/// How long not to try a handover of my own accord again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    pub(super) until: Time,
    pub(super) next: Duration,
}

/// A release that is being said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Releasing {
    pub(super) term: Term,
    pub(super) successor: Tag,
    pub(super) sequence: u32,
    /// Until when it is said.
    pub(super) until: Time,
    /// Until when the role is left to the successor.
    pub(super) reserved_until: Time,
    pub(super) repeat_at: Time,
    pub(super) repeats: u32,
}

/// What goes back to where a datagram came from: to a session that is not established, or on a floating path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) peer: usize,
    pub(super) path: u8,
    /// What is echoed instead of the established session's newest message.
    pub(super) echo: Option<Echo>,
    pub(super) duplicate: bool,
}
