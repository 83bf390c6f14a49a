//! Which direction of a path works. Pure: what came on it, and what the peer says that came to it.

use crate::api::{Broken, PathSnapshot};

/// What is known of one path to a peer, all of it within the detection time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signs {
    /// An authentic datagram came on this path, timely or not.
    pub(crate) heard: bool,
    /// One came on any path.
    pub(crate) heard_any: bool,
    /// A timely one came on any path, so that what the peer says is of now.
    pub(crate) timely: bool,
    /// It said that it hears me on this path.
    pub(crate) said: bool,
}

impl Signs {
    /// What follows. A peer that is not heard at all may be gone: no direction is broken then.
    pub(crate) fn path(self) -> PathSnapshot {
        let receives = self.heard;
        let sends = match self {
            Signs { timely: true, said, .. } => Some(said),
            // It speaks, but what it echoes of me is old: nothing of mine arrives, on any path.
            Signs { heard_any: true, .. } => Some(false),
            Signs { heard_any: false, .. } => None,
        };
        let broken = match (receives, sends) {
            (true, Some(true)) | (_, None) => None,
            (true, Some(false)) => Some(Broken::Send),
            (false, Some(true)) => Some(Broken::Receive),
            // Of a message that is not timely only the first copy is taken, so nothing is known of
            // what comes on the other paths.
            (false, Some(false)) if !self.timely => Some(Broken::Send),
            (false, Some(false)) => Some(Broken::Both),
        };
        PathSnapshot { alive: receives && sends == Some(true), receives, sends, broken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_signs() {
        let cases = [
            // (heard, heard on any, timely on any, said) -> (alive, sends, broken)
            ((false, false, false, false), (false, None, None)),
            ((false, false, false, true), (false, None, None)),
            ((true, true, false, false), (false, Some(false), Some(Broken::Send))),
            ((true, true, false, true), (false, Some(false), Some(Broken::Send))),
            ((false, true, false, false), (false, Some(false), Some(Broken::Send))),
            ((false, true, false, true), (false, Some(false), Some(Broken::Send))),
            ((true, true, true, true), (true, Some(true), None)),
            ((true, true, true, false), (false, Some(false), Some(Broken::Send))),
            ((false, true, true, true), (false, Some(true), Some(Broken::Receive))),
            ((false, true, true, false), (false, Some(false), Some(Broken::Both))),
        ];
        for ((heard, heard_any, timely, said), (alive, sends, broken)) in cases {
            let signs = Signs { heard, heard_any, timely, said };
            let expected = PathSnapshot { alive, receives: heard, sends, broken };
            assert_eq!(signs.path(), expected, "{signs:?}");
        }
    }
}
