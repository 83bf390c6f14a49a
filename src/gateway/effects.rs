//! What the reconciler does, is asked and tells: the seam between deciding and doing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use wgha_proto::{Ability, Doubt, Report, Role, RoleLevel, Term};

use super::kick;
use crate::setup::Setup;

/// How long each step of entering took, from the change of role on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Until the floating IPs and their rules stood.
    pub address: Option<Duration>,
    /// Until they were announced.
    pub announce: Option<Duration>,
    /// Until every WireGuard interface was up.
    pub wireguard: Option<Duration>,
}

/// What being master means on this machine, and undoing it. Every method may be called again and
/// again and then changes nothing.
#[async_trait]
pub trait Effects: Send {
    /// Puts everything up, in the order of docs/architecture.md, "Order". `wanted` turns false when the role has
    /// changed meanwhile: then it may stop early, with any result.
    async fn enter(&mut self, term: Term, wanted: &Wanted) -> Result<Phases, String>;

    /// As master: puts back what somebody else removed.
    async fn keep(&mut self, term: Term) -> Result<(), String>;

    /// Takes off what acts, and verifies that nothing does any more. What does not act may stay for
    /// [`rest`](Effects::rest): the successor waits for this.
    async fn leave(&mut self) -> Result<(), String>;

    /// As anything but master: verifies that nothing acts, stages, and says whether this gateway
    /// could serve. An error: something stands that could not be taken off.
    async fn rest(&mut self) -> Result<Ability, String>;

    /// As a standby that `from` asks to take the role: whether everything is there to do so at once.
    async fn examine(&mut self, from: &str) -> Result<(), Doubt>;

    /// As master, before it hands over to `to`: tells it what it does not know yet, and waits until
    /// it has it. A bounded time; what fails is left out.
    async fn flush(&mut self, to: &str);

    /// Announces the floating IPs again.
    async fn reassert(&mut self);

    /// As master of this term: begins handshakes again with clients that are not back, since something outside leads to this
    /// machine only now.
    async fn kick(&mut self, term: Term);

    /// Takes up a new config. The role stays.
    async fn reconfigure(&mut self, setup: Arc<Setup>);

    /// The process ends: waits at most `bound` for what still runs beside (PostDown).
    async fn finish(&mut self, bound: Duration);

    /// Waits until something on the machine changed that may concern us.
    async fn changed(&mut self);
}

/// Whether master of a term is still what the node wants.
#[derive(Debug)]
pub struct Wanted {
    pub(super) level: watch::Receiver<RoleLevel>,
    pub(super) term: Term,
}

impl Wanted {
    /// Still master of this term.
    #[must_use]
    pub fn still(&self) -> bool {
        let level = self.level.borrow();
        level.role == Role::Master && level.term == self.term
    }
}

/// What others ask of the reconciler.
#[derive(Debug)]
pub enum Order {
    /// Another master yielded: announce again.
    Reassert,
    /// Clients can be reached only now, in this term.
    Kick(Term),
    /// A new config.
    Reconfigure(Arc<Setup>),
    /// The daemon ends: leave, then answer whether that was verified.
    Finish(oneshot::Sender<bool>),
}

/// What the reconciler tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// What the node was told.
    Report(Report),
    /// How long entering took.
    Entered(Term, Phases),
    /// How clients come back, of one interface; again when more is known.
    Handshakes(Term, kick::Handshakes),
    /// An interface was restarted within a term, and why.
    Restarted(Term, String),
}
