//! Taking another gateway's version: fetched, checked, written, in this order.

use super::*;
use crate::sync::files::disk::{Label, Replaced};
use crate::sync::files::index::Known;
use crate::sync::files::lineage::State;

/// What could not be taken is tried again after this.
const LATER: Duration = Duration::from_secs(10);

/// What to take, and from whom.
pub(super) struct Taking {
    link: u64,
    peer: String,
    entry: Entry,
    place: Place,
    version: Version,
    keep: bool,
}

impl Engine {
    /// Compares everything with what the others have, and does one thing about it.
    pub(super) fn compare(&mut self) {
        // What nobody offers any more, or is here, did not fail.
        let offered = |path: &str, content| {
            let files = self.links.values().filter_map(|peer| peer.files.as_ref()?.get(path));
            files.into_iter().any(|entry| entry.state.content == content)
        };
        let here = |path: &str| self.index.get(path).map(|known| known.state.content);
        self.failed.retain(|path, failed| {
            offered(path, failed.content) && here(path) != Some(failed.content)
        });
        // Each pass may change what the next one finds; more than this only another wake-up does.
        for _ in 0..MAX_FILES {
            let Some(taking) = self.next() else { return self.forget_fetch() };
            if !self.advance(taking) {
                return;
            }
        }
    }

    /// The next version to take; what needs no content is agreed to on the way.
    fn next(&mut self) -> Option<Taking> {
        let mut agreed = Vec::new();
        let mut taking = None;
        let offers = self.links.iter().flat_map(|(link, peer)| {
            let files = peer.files.iter().flat_map(BTreeMap::values);
            files.map(move |entry| (*link, peer, entry))
        });
        for (link, peer, entry) in offers {
            let Some(place) = place(&self.settings.files, &entry.path) else { continue };
            match self.decide(&peer.name, entry, place) {
                Decision::Nothing | Decision::Open => {}
                Decision::Agree(version) => agreed.push((entry.clone(), version)),
                Decision::Take { version, keep } => {
                    let (peer, entry) = (peer.name.clone(), entry.clone());
                    let found = Taking { link, peer, entry, place, version, keep };
                    // What has begun goes on.
                    let begun =
                        |t: &Taking| self.fetch.as_ref().is_some_and(|fetch| fetch.is_of(&t.entry));
                    if taking.as_ref().is_none_or(|best| !begun(best) && begun(&found)) {
                        taking = Some(found);
                    }
                }
            }
        }
        for (entry, version) in agreed {
            let state = State { version, content: entry.state.content };
            self.index.set(&entry.path, Some(Known::new(state)));
        }
        taking
    }

    fn decide(&self, peer: &str, entry: &Entry, place: Place) -> Decision {
        let local = self.disk.files.get(&entry.path);
        let failed = self.failed.get(&entry.path);
        let waits = |failed: &Failed| {
            failed.content == entry.state.content && Instant::now() < failed.until
        };
        if local.is_some_and(|local| local.refused) || failed.is_some_and(waits) {
            return Decision::Nothing;
        }
        let known = self.index.get(&entry.path).map(|known| &known.state);
        let here = local.is_some_and(|local| local.hash.is_some());
        match (place, known) {
            // A file that the config names is never deleted by others.
            (Place::Named, _) if entry.state.content.is_none() => Decision::Nothing,
            (Place::Named, Some(known)) if !here => {
                let mut version = entry.state.version.clone();
                version.edits = version.edits.join(&known.version.edits);
                Decision::Take { version, keep: false }
            }
            // Something is here that is not whole: whatever comes, it is kept aside.
            (_, None) if here => match decide(None, &entry.state, self.favour(peer)) {
                Decision::Take { version, .. } => Decision::Take { version, keep: true },
                other => other,
            },
            // Deleted here, and never known: there is nothing to delete.
            (Place::InDirectory, None) if entry.state.content.is_none() => Decision::Nothing,
            (_, known) => decide(known, &entry.state, self.favour(peer)),
        }
    }

    /// The next step of taking a version. True if it is taken, or given up for now.
    fn advance(&mut self, taking: Taking) -> bool {
        let Some(content) = taking.entry.state.content else { return self.delete(&taking) };
        if !self.fetch.as_ref().is_some_and(|fetch| fetch.is_of(&taking.entry)) {
            let Entry { path, length, .. } = &taking.entry;
            self.fetch = Some(Fetch::new(path, content, *length));
        }
        let Some(fetch) = &mut self.fetch else { return false };
        if fetch.is_complete() {
            let Some(fetch) = self.fetch.take() else { return false };
            self.write(&taking, &fetch);
            return true;
        }
        if let Some(want) = fetch.ask(taking.link, Instant::now())
            && let Some(peer) = self.links.get(&taking.link)
        {
            // Asked again if it does not fit in.
            let _ = peer.sender.try_send(Message::FileWant(want));
        } else if fetch.is_stuck() {
            fetch.again();
            self.fail(&taking, format!("{} does not send it", taking.peer));
            return true;
        }
        false
    }

    /// A fetch that nobody wants any more.
    fn forget_fetch(&mut self) {
        // While its gateway is away it is kept: it goes on when that is back.
        if self.links.values().any(|peer| peer.files.is_some()) {
            self.fetch = None;
        } else if let Some(fetch) = &mut self.fetch {
            fetch.again();
        }
    }

    fn fail(&mut self, taking: &Taking, why: String) {
        let entry = &taking.entry;
        let failed = Failed { content: entry.state.content, why, until: Instant::now() + LATER };
        self.failed.insert(entry.path.clone(), failed);
    }

    /// Deletes a file that another gateway deleted.
    fn delete(&mut self, taking: &Taking) -> bool {
        let path = &taking.entry.path;
        let known = self.index.get(path).and_then(|known| known.state.content);
        let local = self.disk.files.get(path).and_then(|local| local.hash);
        let done = match (local, known) {
            (None, _) => Ok(Replaced::Done),
            (Some(here), Some(known)) if here == known => disk::delete(Path::new(path), known),
            // Edited, and not whole: not taken for the version that was deleted.
            (Some(_), _) => Ok(Replaced::Changed),
        };
        match done {
            Ok(Replaced::Done | Replaced::Kept(_)) => {
                info!("{path}: deleted, as on {}", taking.peer);
                self.settle(taking);
            }
            Ok(Replaced::Changed) => {
                self.fail(taking, "was edited while it was deleted".to_owned())
            }
            Err(e) => self.fail(taking, e.to_string()),
        }
        true
    }

    fn write(&mut self, taking: &Taking, fetch: &Fetch) {
        if let Err(why) = self.try_write(taking, fetch.bytes()) {
            self.fail(taking, why);
        }
    }

    fn try_write(&mut self, taking: &Taking, bytes: &[u8]) -> Result<(), String> {
        let Taking { peer, entry, place, .. } = taking;
        let path = Path::new(&entry.path);
        let whole = self.settings.check.look(path, bytes);
        whole.map_err(|why| format!("what {peer} sends cannot be used here: {why}"))?;
        local::make_directory(&self.settings, path).map_err(|e| e.to_string())?;
        let before = self.disk.files.get(&entry.path).and_then(|local| local.hash);
        let here = disk::read(path).map_err(|e| e.to_string())?;
        if here.as_ref().map(|found| found.hash) != before {
            // An edit of its own: seen first, then compared anew.
            self.disk.doubt(&entry.path);
            self.look(false);
            return Ok(());
        }
        let known = self.index.get(&entry.path).cloned();
        if let Some(here) = &here {
            self.keep(taking, here, known.as_ref())?;
        }
        let coming = State { version: taking.version.clone(), content: entry.state.content };
        let base = known.clone().map_or_else(|| coming.clone(), |known| known.state);
        let intent = Known { state: base, coming: Some(coming) };
        if known.is_some() && !self.index.set(&entry.path, Some(intent)) {
            return Err("its version cannot be kept in the state directory".to_owned());
        }
        let me = Label { node: &self.settings.me, at: local::now() };
        let done = disk::replace(path, bytes, before, entry.mode, me);
        match done.map_err(|e| e.to_string())? {
            Replaced::Changed => {
                self.disk.doubt(&entry.path);
                self.look(false);
                return Ok(());
            }
            Replaced::Kept(lost) => warn!("{}: an edit is kept as {}", entry.path, lost.display()),
            Replaced::Done => {}
        }
        let number = taking.version.edits.number();
        info!("{}: version {number} from {peer}, edited on {}", entry.path, taking.version.by);
        self.settle(taking);
        self.disk.look_at(&self.settings, &mut self.index, &entry.path, *place);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Keeps aside what is about to be replaced and would be lost.
    fn keep(&self, taking: &Taking, here: &Found, known: Option<&Known>) -> Result<(), String> {
        let version = known.filter(|known| known.state.content == Some(here.hash));
        let label = match version {
            Some(known) if taking.keep => {
                Label { node: &known.state.version.by, at: known.state.version.at }
            }
            Some(_) => return Ok(()),
            // Not whole, so never a version.
            None => Label { node: &self.settings.me, at: local::now() },
        };
        let path = &taking.entry.path;
        let kept = disk::keep_aside(Path::new(path), here, label).map_err(|e| e.to_string())?;
        let by = &taking.version.by;
        warn!("{path}: the edit of {by} wins, that of {} is {}", label.node, kept.display());
        Ok(())
    }

    /// The version stands.
    fn settle(&mut self, taking: &Taking) {
        let state = State { version: taking.version.clone(), content: taking.entry.state.content };
        if self.index.set(&taking.entry.path, Some(Known::new(state))) {
            self.failed.remove(&taking.entry.path);
        } else {
            self.fail(taking, "its version cannot be kept in the state directory".to_owned());
        }
    }
}
