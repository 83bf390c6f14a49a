//! The thread's loop: whatever wakes it, it compares what is here with what the others have, and
//! does the next thing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use wgha_proto::{Role, RoleLevel};

use super::disk::{self, Found};
use super::fetch::{Fetch, Step};
use super::hash::Hash;
use super::index::Index;
use super::lineage::{Decision, Favour, Version, decide, favour};
use super::local::{self, Disk};
use super::places::{Place, place};
use super::view::Picture;
use super::watch_dirs::Watch;
use super::wire::{Data, Entry, List, MAX_FILES, PART, Part, Want};
use super::{Hub, Settings};
use crate::state::StateDir;
use crate::sync::message::Message;

mod draw;
mod take;

/// Everything is looked at this often, whatever inotify said.
const SLOW_LOOK: Duration = Duration::from_secs(5);

/// After the last sign of a change a file counts as written; after this long in any case.
const QUIET: Duration = Duration::from_millis(100);
const LOUD: Duration = Duration::from_secs(2);

/// A message that did not fit into a queue is sent again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// Without a master for so long there will be none soon: conflicts are decided without.
const MASTERLESS: Duration = Duration::from_secs(30);

/// A content that was served is kept at hand for so long: its next piece will be asked for.
const SERVED: Duration = Duration::from_secs(2);

/// What the loop owns.
pub(super) struct Engine {
    settings: Settings,
    index: Index,
    disk: Disk,
    hub: Hub,
    picture: Arc<Mutex<Picture>>,
    changes: watch::Sender<u64>,
    links: BTreeMap<u64, Peer>,
    fetch: Option<Fetch>,
    served: Option<(String, Found, Instant)>,
    /// What could not be taken.
    failed: BTreeMap<String, Failed>,
    master: Option<String>,
    masterless: Instant,
    /// What the others are told, and a number that grows with it.
    list: Vec<Entry>,
    generation: u64,
    /// What was logged as wrong.
    said: BTreeMap<String, String>,
}

/// A version that could not be taken.
struct Failed {
    content: Option<Hash>,
    why: String,
    /// When it is tried again.
    until: Instant,
}

/// One connection.
struct Peer {
    name: String,
    sender: mpsc::Sender<Message>,
    /// A list that is not complete.
    coming: Vec<Entry>,
    /// The last complete one.
    files: Option<BTreeMap<String, Entry>>,
    /// The generation that it was told.
    told: u64,
}

impl Engine {
    pub(super) fn new(
        settings: Settings,
        state: Arc<StateDir>,
        hub: Hub,
        picture: Arc<Mutex<Picture>>,
        changes: watch::Sender<u64>,
    ) -> Engine {
        Engine {
            index: Index::open(state, &settings.me),
            settings,
            disk: Disk::default(),
            hub,
            picture,
            changes,
            links: BTreeMap::new(),
            fetch: None,
            served: None,
            failed: BTreeMap::new(),
            master: None,
            masterless: Instant::now(),
            list: Vec::new(),
            generation: 1,
            said: BTreeMap::new(),
        }
    }

    /// Runs until nobody can give orders any more.
    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Settings>,
        mut inputs: mpsc::Receiver<(u64, Message)>,
        mut level: watch::Receiver<RoleLevel>,
    ) -> io::Result<()> {
        let mut watch = Watch::open()?;
        let hub = self.hub.clone();
        watch.set(&local::directories(&self.settings));
        let mut slow = Instant::now();
        // When the change that is not looked at yet began, and was last seen.
        let mut noise: Option<(Instant, Instant)> = None;
        let mut level_gone = false;
        loop {
            let now = Instant::now();
            let settled = noise.map(|(first, last)| (first + LOUD).min(last + QUIET));
            if now >= slow || settled.is_some_and(|at| now >= at) {
                (slow, noise) = (now + SLOW_LOOK, None);
                watch.set(&local::directories(&self.settings));
                self.look(settled.is_some());
            }
            self.follow(&level.borrow_and_update().clone());
            self.turn(noise.is_some());
            let wake = self.wake(slow, noise.map(|(first, last)| (first + LOUD).min(last + QUIET)));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(settings) => {
                        self.settings = settings;
                        slow = now;
                    }
                    None => return Ok(()),
                },
                Some((id, message)) = inputs.recv() => self.receive(id, message),
                () = hub.notify.notified() => {}
                changed = level.changed(), if !level_gone => level_gone = changed.is_err(),
                happened = watch.changed() => {
                    happened?;
                    let now = Instant::now();
                    noise = Some((noise.map_or(now, |(first, _)| first), now));
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    /// When to look again without being woken.
    fn wake(&self, slow: Instant, settled: Option<Instant>) -> Instant {
        let untold = self.links.values().any(|peer| peer.told != self.generation);
        let again = untold.then(|| Instant::now() + AGAIN);
        let deadline = self.fetch.as_ref().and_then(Fetch::deadline);
        let deadline = deadline.filter(|_| settled.is_none());
        [Some(slow), settled, again, deadline].into_iter().flatten().min().unwrap_or(slow)
    }

    /// Who is master decides conflicts.
    fn follow(&mut self, level: &RoleLevel) {
        let master = match level.role {
            Role::Master => Some(self.settings.me.clone()),
            Role::Init | Role::Backup | Role::Fault => level.master.clone(),
        };
        if master.is_some() {
            self.masterless = Instant::now();
        }
        self.master = master;
    }

    fn favour(&self, peer: &str) -> Favour {
        let settled = self.masterless.elapsed() >= MASTERLESS;
        favour(&self.settings.me, peer, self.master.as_deref(), settled)
    }

    /// Looks at the disk.
    fn look(&mut self, closely: bool) {
        if self.disk.look(&self.settings, &mut self.index, closely) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Everything that follows from what is known now. With `busy` a file here is being written:
    /// nothing is taken until that is over.
    fn turn(&mut self, busy: bool) {
        self.meet();
        if !busy {
            self.compare();
        }
        self.tell();
        self.draw();
        if self.served.as_ref().is_some_and(|(_, _, at)| at.elapsed() >= SERVED) {
            self.served = None;
        }
    }

    /// Takes note of connections that came and went.
    fn meet(&mut self) {
        let open = self.hub.open();
        self.links.retain(|id, _| open.contains_key(id));
        for (id, (name, sender)) in open {
            self.links.entry(id).or_insert_with(|| Peer {
                name,
                sender,
                coming: Vec::new(),
                files: None,
                told: 0,
            });
        }
    }

    /// Tells everyone who has not been told what is here.
    fn tell(&mut self) {
        let list = self.entries();
        if list != self.list {
            self.list = list;
            self.generation += 1;
        }
        for peer in self.links.values_mut().filter(|peer| peer.told != self.generation) {
            let messages = List::messages(self.list.clone());
            // All of it or nothing: the rest would belong to no list.
            if peer.sender.capacity() >= messages.len()
                && messages.into_iter().all(|message| peer.sender.try_send(message).is_ok())
            {
                peer.told = self.generation;
            }
        }
    }

    /// What is here, whole and known: a content that is not on the disk any more is not offered.
    fn entries(&self) -> Vec<Entry> {
        let entry = |(path, local): (&String, &local::Local)| {
            let state = self.index.get(path)?.state.clone();
            let here = local.hash == state.content && local.problem.is_none();
            let (path, length, mode) = (path.clone(), local.length, local.mode & 0o777);
            here.then_some(Entry { path, state, length, mode })
        };
        self.disk.files.iter().filter_map(entry).take(MAX_FILES).collect()
    }

    fn receive(&mut self, id: u64, message: Message) {
        // Its connection may have been made since the last turn, or be gone.
        self.meet();
        match message {
            Message::Files(list) => self.learn(id, list),
            Message::FileWant(want) => self.serve(id, &want),
            Message::FilePart(part) => {
                let Some(fetch) = &mut self.fetch else { return };
                if fetch.take(id, &part) == Step::Wrong {
                    debug!("{}: its content changed on its way", part.path);
                }
            }
            Message::Hello { .. }
            | Message::Alive {}
            | Message::Endpoints(_)
            | Message::Whole {}
            | Message::Flush { .. }
            | Message::Flushed { .. }
            | Message::Unknown => {}
        }
    }

    fn learn(&mut self, id: u64, list: List) {
        let Some(peer) = self.links.get_mut(&id) else { return };
        if list.first {
            peer.coming.clear();
        }
        if !list.is_bounded() || peer.coming.len() + list.files.len() > MAX_FILES {
            return warn!("{} sends a list of files that is out of bounds", peer.name);
        }
        peer.coming.extend(list.files);
        if list.last {
            let files = std::mem::take(&mut peer.coming);
            peer.files = Some(files.into_iter().map(|e| (e.path.clone(), e)).collect());
            // What it could not send it may be able to send now.
            self.failed.values_mut().for_each(|failed| failed.until = Instant::now());
        }
    }

    /// Sends a piece of what is here.
    fn serve(&mut self, id: u64, want: &Want) {
        let Some(peer) = self.links.get(&id) else { return };
        if place(&self.settings.files, &want.path).is_none() {
            return debug!("{} asks for {:?}, which is not synced", peer.name, want.path);
        }
        let at_hand = |(path, found, _): &(String, Found, Instant)| {
            *path == want.path && found.hash == want.content
        };
        if !self.served.as_ref().is_some_and(at_hand) {
            let Ok(Some(found)) = disk::read(Path::new(&want.path)) else { return };
            self.served = Some((want.path.clone(), found, Instant::now()));
        }
        let Some((_, found, at)) = &mut self.served else { return };
        *at = Instant::now();
        let from = usize::try_from(want.from).unwrap_or(usize::MAX);
        // Edited meanwhile: it will be told of the new version.
        let Some(rest) = found.bytes.get(from..).filter(|_| found.hash == want.content) else {
            return;
        };
        let data = Data(rest.iter().take(PART).copied().collect::<Vec<u8>>().into());
        let (path, content) = (want.path.clone(), want.content);
        // Asked again if it does not fit in.
        let _ =
            peer.sender.try_send(Message::FilePart(Part { path, content, from: want.from, data }));
    }
}
