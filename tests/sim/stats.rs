//! What happened, and how often: a run in which something required did not happen proves nothing about it.

use crate::options::Nanos;

macro_rules! situations {
    ($($name:ident = $text:literal,)*) => {
        /// What a run must have met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Situation {
            $($name,)*
        }

        impl Situation {
            pub(crate) const ALL: &'static [(Situation, &'static str)] =
                &[$((Situation::$name, $text),)*];
        }
    };
}

situations! {
    TakeoverNoMaster = "takeover: nobody is master",
    TakeoverSilence = "takeover: the master is silent",
    TakeoverRelease = "takeover: the master released",
    TakeoverRestart = "takeover: the master restarted",
    TakeoverObituary = "takeover: the master's obituary",
    HandoverDone = "handover done",
    HandoverRefused = "handover refused",
    HandoverAborted = "handover called off",
    Preempt = "preempt",
    UnhealthyHandover = "unhealthy master handed over",
    TwoMasters = "two masters, one yielded",
    Reassert = "the master that stays reasserts",
    Isolated = "held back: isolated",
    HeldBackOther = "held back: another reason",
    Listening = "held back: listening",
    DuplicateName = "duplicate name",
    Slept = "slept",
    Renewed = "new session in a process that slept",
    Failed = "fault: the reconciler failed",
    Unable = "fault: unable",
    Recovered = "recovered",
    LeaveRetried = "leaving failed and was tried again",
    KeepFailed = "keeping failed",
    Maintenance = "maintenance as master",
    MaintenanceRefused = "maintenance refused",
    MaintenanceKept = "restart in maintenance",
    Stop = "stop as master",
    StopBackup = "stop as backup",
    Crash = "crash",
    CrashMaster = "crash of the master",
    CrashLeftovers = "crash that left effects",
    CrashGuarded = "crash that a guard outlived",
    CrashGuardedLate = "crash and restart before the guard was done",
    ObituaryLost = "obituary lost",
    QuickRestart = "restart within the detection time",
    PauseNode = "node paused",
    PauseGateway = "reconciler paused",
    PauseBoth = "process paused",
    Partition = "partition",
    OneWayCut = "one-way cut",
    Isolation = "node cut off",
    Deaf = "deaf node",
    Mute = "mute node",
    PathCut = "one of two paths cut",
    SlowPath = "slow path",
    LossBurst = "burst of losses",
    RouterDown = "router silent",
    Unhealthy = "check fails",
    Reload = "reload",
    KeyRotation = "key rotated",
    Lost = "datagram lost",
    Duplicated = "datagram duplicated",
    Reordered = "datagram overtaken",
    Late = "datagram not timely",
    ReplayRefused = "replay refused",
    OldBootRefused = "replay of an earlier session refused",
    OldReceiverRefused = "replay to a restarted receiver",
    ReflectionRefused = "reflection refused",
    WrongReceiverRefused = "datagram for another receiver refused",
    FlippedRefused = "flipped bit refused",
    TruncatedRefused = "truncated datagram refused",
    ForgedRefused = "forgery refused",
    NoEvidence = "schedule without a source of evidence",
    Witness = "schedule with a witness",
    ThreeGateways = "schedule with three gateways",
    FourGateways = "schedule with four gateways",
    LeaseTakeover = "with leases: takeover",
    LeaseObituary = "with leases: takeover by the holder's obituary",
    LeaseHandover = "with leases: handover done by inheritance",
    SplitVote = "with leases: split vote",
    LostLease = "with leases: lease lost",
    RestartInLease = "with leases: restart inside a lease",
    VotersChanged = "with leases: other voters came into force",
    EndAfterRelease = "with leases: the old master ends while its successor acts on what it inherited",
    Forgot = "with leases: a voter lost its memory",
    EtcdGranted = "with leases: etcd granted its vote",
    EtcdTakeover = "with leases: takeover by the vote of etcd",
    EtcdDown = "with leases: etcd down",
    EtcdCut = "with leases: etcd cut off from a node",
    EtcdSlow = "with leases: etcd slow",
    RemainingMute = "with leases: liveness: one node stays mute",
    RemainingNothing = "liveness: everything healed",
    RemainingDeaf = "liveness: one node stays deaf",
    RemainingLink = "liveness: one link stays broken",
    RemainingOneWay = "liveness: one direction stays broken",
}

#[derive(Clone, Debug)]
pub(crate) struct Stats {
    counts: Vec<u64>,
    pub(crate) virtual_time: u128,
    pub(crate) schedules: u64,
    pub(crate) datagrams: u64,
    pub(crate) faults: u64,
    /// Steps at which the connected, eligible gateways had exactly one master, as they must.
    pub(crate) exactly_one: u64,
}

impl Stats {
    pub(crate) fn new() -> Stats {
        Stats {
            counts: vec![0; Situation::ALL.len()],
            virtual_time: 0,
            schedules: 0,
            datagrams: 0,
            faults: 0,
            exactly_one: 0,
        }
    }

    pub(crate) fn add(&mut self, situation: Situation) {
        self.counts[situation as usize] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Stats) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.virtual_time += other.virtual_time;
        self.schedules += other.schedules;
        self.datagrams += other.datagrams;
        self.faults += other.faults;
        self.exactly_one += other.exactly_one;
    }

    pub(crate) fn ended(&mut self, now: Nanos) {
        self.schedules += 1;
        self.virtual_time += u128::from(now);
    }

    /// The texts of what never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        Situation::ALL
            .iter()
            .filter(|(_, text)| !text.starts_with("with leases"))
            .filter(|(situation, _)| self.counts[*situation as usize] == 0)
            .map(|(_, text)| *text)
            .collect()
    }

    /// What a run with leases must have met, and met less than `least` times.
    pub(crate) fn rare(&self, least: u64) -> Vec<(&'static str, u64)> {
        let required = [
            Situation::LeaseTakeover,
            Situation::LeaseObituary,
            Situation::LeaseHandover,
            Situation::SplitVote,
            Situation::LostLease,
            Situation::RestartInLease,
            Situation::VotersChanged,
            Situation::Forgot,
            Situation::EndAfterRelease,
            Situation::EtcdGranted,
            Situation::EtcdTakeover,
            Situation::EtcdDown,
            Situation::EtcdCut,
            Situation::EtcdSlow,
            Situation::RemainingMute,
            Situation::RemainingNothing,
            Situation::RemainingDeaf,
            Situation::RemainingLink,
            Situation::RemainingOneWay,
        ];
        let text = |s: Situation| Situation::ALL[s as usize].1;
        let counts = required.into_iter().map(|s| (text(s), self.counts[s as usize]));
        counts.filter(|(_, count)| *count < least).collect()
    }

    pub(crate) fn print(&self) {
        let hours = self.virtual_time as f64 / 3.6e12;
        println!(
            "{} schedules, {hours:.1} virtual hours, {} faults, {} datagrams, exactly one master \
             confirmed {} times",
            self.schedules, self.faults, self.datagrams, self.exactly_one
        );
        for (situation, text) in Situation::ALL {
            println!("{:>10}  {text}", self.counts[*situation as usize]);
        }
    }
}

impl Stats {
    /// Differs if anything that is counted differs.
    pub(crate) fn digest(&self) -> String {
        format!("{:?} {} {}", self.counts, self.datagrams, self.virtual_time)
    }
}
