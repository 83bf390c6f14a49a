//! Depth first, with the states that were seen.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::choice::Choice;
use crate::world::{LEASE, STEP, Seen, World};

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Faults in one schedule.
    pub(crate) faults: u8,
    /// Depth, in lease times.
    pub(crate) leases: u32,
    /// States that are remembered.
    pub(crate) states: u64,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Distinct states, each at a step with so many faults left.
    states: u64,
    steps: u64,
    counts: [u64; Seen::ALL.len()],
    /// The way to a state with two open gates.
    pub(crate) trail: Option<Vec<String>>,
    /// There were more states than can be remembered.
    pub(crate) full: bool,
}

impl Found {
    pub(crate) fn add(&mut self, other: &Found) {
        self.states += other.states;
        self.steps += other.steps;
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }

    pub(crate) fn count(&self, seen: Seen) -> u64 {
        self.counts[seen as usize]
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} distinct states, {} steps", self.states, self.steps)?;
        for seen in Seen::ALL {
            write!(f, ", {} {seen:?}", self.count(seen))?;
        }
        Ok(())
    }
}

/// Prints are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Shard = Mutex<HashSet<u64, BuildHasherDefault<AsIs>>>;

struct Search<'a> {
    bounds: &'a Bounds,
    choices: Vec<Choice>,
    depth: u32,
    seen: Vec<Shard>,
    states: AtomicU64,
    steps: AtomicU64,
    counts: [AtomicU64; Seen::ALL.len()],
    trail: Mutex<Option<Vec<String>>>,
    stop: AtomicBool,
}

/// A state on the way: what may still happen before its step, and how many faults are left.
struct Place {
    world: World,
    step: u32,
    faults: u8,
    /// Of the choices of this moment, those before this one were passed over.
    next: usize,
    trail: Vec<(u32, Choice)>,
}

/// Tries all schedules from `root` on.
pub(crate) fn search(root: &World, bounds: &Bounds) -> Found {
    let search = Search {
        bounds,
        choices: Choice::all(),
        depth: u32::try_from(u64::from(bounds.leases) * LEASE / STEP).unwrap_or(u32::MAX),
        seen: (0..256).map(|_| Shard::default()).collect(),
        states: AtomicU64::new(0),
        steps: AtomicU64::new(0),
        counts: Default::default(),
        trail: Mutex::new(None),
        stop: AtomicBool::new(false),
    };
    let place =
        Place { world: root.clone(), step: 0, faults: bounds.faults, next: 0, trail: Vec::new() };
    // The first fault decides which worker goes on: what both come to is done by the first.
    let starts = Mutex::new(search.first_branches(place));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let start = starts.lock().expect("no worker panics").pop();
                    let Some(start) = start else { return };
                    search.explore(start);
                }
            });
        }
    });
    Found {
        states: search.states.load(Ordering::Relaxed),
        steps: search.steps.load(Ordering::Relaxed),
        counts: search.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
        full: search.states.load(Ordering::Relaxed) > bounds.states,
        trail: search.trail.into_inner().expect("no worker panics"),
    }
}

impl Search<'_> {
    /// The schedules by their first fault, the late ones first: those are short.
    fn first_branches(&self, mut place: Place) -> Vec<Place> {
        let mut branches = Vec::new();
        loop {
            branches.extend(self.choices_of(&place));
            if !self.advance(&mut place) {
                return branches;
            }
        }
    }

    fn explore(&self, start: Place) {
        let mut open = vec![start];
        while let Some(mut place) = open.pop() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if !self.is_new(&place) {
                continue;
            }
            open.extend(self.choices_of(&place));
            if self.advance(&mut place) {
                open.push(place);
            }
        }
    }

    /// Everything that can happen now. Of one moment each combination comes once: in the order of the list.
    fn choices_of(&self, place: &Place) -> Vec<Place> {
        let mut places = Vec::new();
        for (index, choice) in self.choices.iter().enumerate().skip(place.next) {
            if choice.costs() > place.faults {
                continue;
            }
            let Some(world) = choice.apply(&place.world) else { continue };
            let (faults, mut trail) = (place.faults - choice.costs(), place.trail.clone());
            trail.push((place.step, *choice));
            let mut next = Place { world, step: place.step, faults, next: index + 1, trail };
            self.look(&mut next);
            places.push(next);
        }
        places
    }

    /// Lets a step pass; false at the end.
    fn advance(&self, place: &mut Place) -> bool {
        if place.step >= self.depth {
            return false;
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        place.world.step();
        (place.step, place.next) = (place.step + 1, 0);
        self.look(place);
        !self.stop.load(Ordering::Relaxed)
    }

    fn look(&self, place: &mut Place) {
        for seen in place.world.take_seen() {
            self.counts[seen as usize].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(what) = &place.world.broken {
            let line = |(step, choice): &(u32, Choice)| {
                format!("  {:>5} ms  {choice:?}", u64::from(*step) * STEP / 1_000_000)
            };
            let mut trail: Vec<String> = place.trail.iter().map(line).collect();
            trail.push(format!("  {what}"));
            *self.trail.lock().expect("no worker panics") = Some(trail);
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn is_new(&self, place: &Place) -> bool {
        let mut hasher = DefaultHasher::new();
        (place.world.print(), place.step, place.faults, place.next).hash(&mut hasher);
        let print = hasher.finish();
        let shard = &self.seen[(print >> 24) as usize % 256];
        let new = shard.lock().expect("no worker panics").insert(print);
        if new && self.states.fetch_add(1, Ordering::Relaxed) >= self.bounds.states {
            self.stop.store(true, Ordering::Relaxed);
        }
        new
    }
}
