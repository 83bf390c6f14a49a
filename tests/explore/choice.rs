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

    /// Lets it happen; false if it cannot, or would change nothing.
    pub(crate) fn apply(self, w: &mut World) -> bool {
        match self {
            Choice::Cut(a, b) => w.set_cut(a, b, true),
            Choice::Join(a, b) => w.set_cut(a, b, false),
            Choice::CutOff(a) => w.set_cut_off(a, true),
            Choice::JoinAll(a) => w.set_cut_off(a, false),
            Choice::Kill(a) => w.kill(a),
            Choice::Start(a) => w.start(a),
            Choice::Pause(a) => w.pause(a),
            Choice::Resume(a) => w.resume(a),
            Choice::Handover(a) => w.command(a, Command::Handover { to: None, force: true }),
            Choice::Late(a, b) => w.set_late(a, b),
            Choice::Twice(a, b) => w.set_twice(a, b),
        }
    }
}
