//! Why a datagram is refused.

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a datagram is refused. One variant, one counter, one log word, one test.
        ///
        /// In the order of the checks: cheap ones first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The reason as one lower-case word with `-`, as in log and status.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Refusal::$name => $word,)*
                }
            }
        }
    };
}

refusals! {
    /// Shorter than an empty datagram or longer than 1200 bytes.
    Length = "length",
    /// Not a datagram of wgha.
    Magic = "magic",
    /// A version that this node does not speak.
    Version = "version",
    /// Of another cluster.
    Cluster = "cluster",
    /// It says that I sent it: my own, come back.
    Reflection = "reflection",
    /// For another node.
    Receiver = "receiver",
    /// From a node that the config does not name.
    Sender = "sender",
    /// A path number beyond the most that two nodes may have.
    Path = "path",
    /// Sealed with a key that the key file does not hold.
    Key = "key",
    /// Of a session that said goodbye or whose obituary was shown.
    Ended = "ended-session",
    /// Too many in this sender's name were opened in vain, and this is not the next of its session.
    Flooded = "flooded",
    /// Not sealed by who it says, or changed on its way.
    Seal = "seal",
    /// Authentic, but its nonce was not made as it must be.
    Nonce = "nonce",
    /// Seen before, or too old to tell.
    Replayed = "replayed",
    /// Authentic, but not a body that this version permits.
    Malformed = "malformed",
    /// Echoes a message of mine that I never sent.
    NeverSent = "never-sent",
    /// Of a session that has not shown yet that it is live: a node that just started, or a replay.
    UnknownSession = "unknown-session",
}

/// How often each refusal happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts([u64; Refusal::ALL.len()]);

impl Counts {
    pub(crate) fn add(&mut self, refusal: Refusal) {
        if let Some(count) = self.0.get_mut(refusal as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// (word, count) of every refusal, in the order of the checks.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        Refusal::ALL.iter().zip(self.0).map(|(refusal, n)| (refusal.word(), n)).collect()
    }
}
