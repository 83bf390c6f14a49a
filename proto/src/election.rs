//! The machine of one node's role, and when a backup takes over. Pure: no peer, no wire, no clock.
//!
//! ```text
//!            Listened              Won                 Leave
//!   Init ─────────────► Standby ─────────► Serving ─────────────► Leaving ──Left──► Standby
//!    │                   │   ▲                │                      │ ▲
//!    │ Unable     Unable │   │ Able           │ Unable        Unable │ │ Able
//!    ▼                   ▼   │                ▼                      ▼ │
//!   Faulty ◄───────────────► Faulty ◄──Left── LeavingForFault ◄──────────┘
//! ```

use std::time::Duration;

use crate::api::{Evidence, Role};
use crate::time::Time;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Listening after the start.
    Init,
    /// Not master, and free to become it if eligible.
    Standby,
    /// Master.
    Serving,
    /// Master no longer, but its effects are not off yet.
    Leaving,
    /// The same, and it cannot serve.
    LeavingForFault,
    /// Cannot serve.
    Faulty,
}

/// What moves a node from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Listened long enough.
    Listened,
    /// The role is mine.
    Won,
    /// I give the role up.
    Leave,
    /// All effects are off.
    Left,
    /// I cannot serve.
    Unable,
    /// I can serve (again).
    Able,
}

impl State {
    /// The state after `input`. A pair that changes nothing gives the state back.
    pub(crate) fn after(self, input: Input) -> State {
        use {Input as I, State as S};
        match (self, input) {
            (S::Init, I::Listened) => S::Standby,
            (S::Init, I::Unable) => S::Faulty,
            (S::Init, I::Won | I::Leave | I::Left | I::Able) => S::Init,

            (S::Standby, I::Won) => S::Serving,
            (S::Standby, I::Unable) => S::Faulty,
            (S::Standby, I::Listened | I::Leave | I::Left | I::Able) => S::Standby,

            (S::Serving, I::Leave) => S::Leaving,
            (S::Serving, I::Unable) => S::LeavingForFault,
            (S::Serving, I::Listened | I::Won | I::Left | I::Able) => S::Serving,

            (S::Leaving, I::Left) => S::Standby,
            (S::Leaving, I::Unable) => S::LeavingForFault,
            (S::Leaving, I::Listened | I::Won | I::Leave | I::Able) => S::Leaving,

            (S::LeavingForFault, I::Left) => S::Faulty,
            (S::LeavingForFault, I::Able) => S::Leaving,
            (S::LeavingForFault, I::Listened | I::Won | I::Leave | I::Unable) => S::LeavingForFault,

            (S::Faulty, I::Able) => S::Standby,
            (S::Faulty, I::Listened | I::Won | I::Leave | I::Left | I::Unable) => S::Faulty,
        }
    }

    /// The role that effects follow: it is given up the moment that leaving begins.
    pub(crate) fn role(self) -> Role {
        match self {
            State::Init => Role::Init,
            State::Standby | State::Leaving => Role::Backup,
            State::Serving => Role::Master,
            State::LeavingForFault | State::Faulty => Role::Fault,
        }
    }

    /// Whether this node still says that it is master: until its effects are off, so that no
    /// successor acts beside it.
    pub(crate) fn claims(self) -> bool {
        matches!(self, State::Serving | State::Leaving | State::LeavingForFault)
    }

    /// Master no longer, but not off yet.
    pub(crate) fn is_leaving(self) -> bool {
        matches!(self, State::Leaving | State::LeavingForFault)
    }
}

/// A claim that could still be good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incumbent {
    /// Its last timely claim, or my last wake from a sleep if that is later.
    pub(crate) last: Time,
    /// The larger of its detection time and mine.
    pub(crate) detection: Duration,
    pub(crate) interval: Duration,
}

/// All that decides whether a standby takes over. Made anew for each decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) now: Time,
    /// The claim that lasts longest, if there is one.
    pub(crate) incumbent: Option<Incumbent>,
    /// Since when there is no master and I could be it.
    pub(crate) vacant_since: Time,
    /// Until when others leave the role to a named successor that is not me.
    pub(crate) reserved_until: Time,
    /// Every gateway is heard, timely.
    pub(crate) all_heard: bool,
    /// When the last of the gateways that are not heard is silent for its detection time.
    pub(crate) silent_at: Time,
    /// How many rank steps to wait: for each better candidate alive, and for a change of their order.
    pub(crate) rank: u32,
    /// What one rank is worth.
    pub(crate) step: Duration,
    pub(crate) evidence: Evidence,
    /// The first heartbeat that I missed of a master or of a gateway that may be it.
    pub(crate) missed_since: Time,
    /// After being cut off from everything: until when to listen for those that were not.
    pub(crate) isolated_until: Time,
    /// Until when the word of a timely node holds that it hears a master.
    pub(crate) heard_until: Time,
    /// The same, of nodes that say that they hear *me*, though I am not master: an earlier run of
    /// mine, or another process of my name.
    pub(crate) namesake_until: Time,
}

/// What a standby does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Takes over: the incumbent is silent, or there is none.
    Act {
        /// By the silence of an incumbent.
        silence: bool,
    },
    /// Looks again at this time at the latest.
    Wait(Time),
    /// Would take over, but for this.
    Held(&'static str),
}

impl View {
    /// Design §5.3 and §5.4.
    pub(crate) fn verdict(&self) -> Verdict {
        let wait = self.step * self.rank;
        let (due, silence) = match self.incumbent {
            Some(master) => (master.last + master.detection + wait, true),
            None if self.all_heard => (self.vacant_since.max(self.reserved_until) + wait, false),
            None => (self.vacant_since.max(self.reserved_until).max(self.silent_at) + wait, true),
        };
        if self.now < due {
            return Verdict::Wait(due);
        }
        // What others hear of my own name binds me even when everyone is heard.
        let hearsay = if silence { self.heard_until } else { self.namesake_until };
        if self.now < hearsay {
            return Verdict::Held("master-heard-by-another");
        }
        if silence && (!self.evidence_suffices() || self.now < self.isolated_until) {
            return Verdict::Held("isolated");
        }
        Verdict::Act { silence: self.incumbent.is_some() }
    }

    /// Evidence must be of a probe sent after the first heartbeat was missed: an answer from before
    /// says nothing about who of us is cut off.
    fn evidence_suffices(&self) -> bool {
        match self.evidence {
            Evidence::NoSource => true,
            Evidence::Answered(sent) => sent >= self.missed_since,
            Evidence::Silent => false,
        }
    }
}

/// How good a candidate is: compared in this order, the greater is the better one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    /// Past `init` for a detection time: one that just came up may not know yet who is master, and
    /// must not race those who do.
    pub(crate) settled: bool,
    pub(crate) healthy: bool,
    pub(crate) priority: u8,
    /// The name that sorts first wins a tie.
    pub(crate) name: std::cmp::Reverse<String>,
}

#[cfg(test)]
mod tests;
