//! What can happen before a step.

use wgha_proto::Command;

use crate::world::{HOSTS, World};

/// One thing that happens. The first index is the sender, or the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Cut(usize, usize),
    Join(usize, usize),
    /// Both directions with all others.
    CutOff(usize),
    JoinAll(usize),
    /// The process is gone; its gate closes when it closes.
    Kill(usize),
    Start(usize),
    Pause(usize),
    Resume(usize),
    Handover(usize),
    /// What is sent in this step takes most of a lease longer.
    Late(usize, usize),
    /// What is sent in this step comes once more, as late.
    Twice(usize, usize),
}

impl Choice {
    /// All, in the order in which those of one moment are taken.
    pub(crate) fn all() -> Vec<Choice> {
        let mut all = Vec::new();
        for node in 0..HOSTS {
            all.extend([Choice::CutOff(node), Choice::JoinAll(node), Choice::Kill(node)]);
            all.extend([Choice::Start(node), Choice::Pause(node), Choice::Resume(node)]);
            all.push(Choice::Handover(node));
            for other in (0..HOSTS).filter(|other| *other != node) {
                all.extend([Choice::Cut(node, other), Choice::Join(node, other)]);
                all.extend([Choice::Late(node, other), Choice::Twice(node, other)]);
            }
        }
        all
    }

    /// How many faults it is.
    pub(crate) fn costs(self) -> u8 {
        match self {
            Choice::Join(..) | Choice::JoinAll(_) | Choice::Start(_) | Choice::Resume(_) => 0,
            Choice::Cut(..) | Choice::CutOff(_) | Choice::Kill(_) | Choice::Pause(_) => 1,
            Choice::Handover(_) | Choice::Late(..) | Choice::Twice(..) => 1,
        }
    }

    /// Lets it happen; `None` if it cannot, or would change nothing.
    pub(crate) fn apply(self, w: &World) -> Option<World> {
        if !self.is_possible(w) {
            return None;
        }
        let mut w = w.clone();
        match self {
            Choice::Cut(a, b) | Choice::Join(a, b) => w.cut[a][b] = !w.cut[a][b],
            Choice::CutOff(a) | Choice::JoinAll(a) => w.off[a] = !w.off[a],
            Choice::Kill(a) => w.kill(a),
            Choice::Start(a) => w.boot(a),
            Choice::Pause(a) => w.pause(a),
            Choice::Resume(a) => w.resume(a),
            Choice::Handover(a) => w.command(a, Command::Handover { to: None, force: true }),
            Choice::Late(a, b) => w.late[a][b] = true,
            Choice::Twice(a, b) => w.twice[a][b] = true,
        }
        Some(w)
    }

    fn is_possible(self, w: &World) -> bool {
        match self {
            Choice::Cut(a, b) => !w.cut[a][b],
            Choice::Join(a, b) => w.cut[a][b],
            Choice::CutOff(a) => !w.off[a],
            Choice::JoinAll(a) => w.off[a],
            Choice::Kill(a) => !w.is_down(a),
            Choice::Start(a) => w.is_down(a),
            Choice::Pause(a) => w.runs(a),
            Choice::Resume(a) => !w.is_down(a) && !w.runs(a),
            Choice::Handover(a) => w.runs(a) && w.is_master(a),
            Choice::Late(a, b) => w.runs(a) && !w.late[a][b],
            Choice::Twice(a, b) => w.runs(a) && !w.twice[a][b],
        }
    }
}
