//! The files on this disk: what they hold, whether that is whole, and whether somebody edited it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::info;

use super::Settings;
use super::disk::{self, Found, Mark};
use super::hash::Hash;
use super::index::{Index, Known};
use super::lineage::State;
use super::places::{self, Place};

/// One file of this disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Local {
    /// As of the last look; `None`: it was not there.
    mark: Option<Mark>,
    /// What it holds.
    pub(super) hash: Option<Hash>,
    pub(super) length: u64,
    pub(super) mode: u32,
    /// It is something that is never touched: a symbolic link, a device, a file that is too long.
    pub(super) refused: bool,
    /// What is wrong with it.
    pub(super) problem: Option<String>,
    /// Contents that lost a conflict lie beside it.
    pub(super) lost: Vec<PathBuf>,
}

/// The most deleted files that are remembered. A node that was away while more were deleted brings
/// the oldest ones back.
const MAX_DELETED: usize = 256;

/// All synced files of this disk.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<String, Local>,
    /// What is wrong with directories, by their paths.
    pub(super) directories: BTreeMap<String, String>,
}

/// Seconds since 1970, for people.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Disk {
    /// Looks at everything that the settings name; with `closely` also at files that seem not to have
    /// changed. True if a whole new content was found.
    pub(super) fn look(&mut self, settings: &Settings, index: &mut Index, closely: bool) -> bool {
        let paths = self.paths(settings, index);
        self.files.retain(|path, _| paths.contains_key(path));
        let mut lost = lost_files(paths.keys());
        let mut changed = false;
        for (path, place) in &paths {
            if closely {
                self.doubt(path);
            }
            changed |= self.look_at(settings, index, path, *place);
            if let Some(local) = self.files.get_mut(path) {
                local.lost = lost.remove(Path::new(path)).unwrap_or_default();
            }
        }
        changed
    }

    /// The next look reads this file again, even if it seems not to have changed.
    pub(super) fn doubt(&mut self, path: &str) {
        if let Some(local) = self.files.get_mut(path) {
            local.mark = None;
        }
    }

    /// All paths that there are, or were.
    fn paths(&mut self, settings: &Settings, index: &mut Index) -> BTreeMap<String, Place> {
        let mut paths = BTreeMap::new();
        self.directories.clear();
        for file in &settings.files {
            let text = file.path.to_string_lossy().into_owned();
            if !places::is_directory(file) {
                paths.insert(text, Place::Named);
                continue;
            }
            let problem = match places::list(&file.path) {
                Ok((found, too_many)) => {
                    let text = |path: PathBuf| path.to_string_lossy().into_owned();
                    paths.extend(found.into_iter().map(|path| (text(path), Place::InDirectory)));
                    let limit = places::MAX_IN_DIRECTORY;
                    let what = || format!("{too_many} files more than {limit} are not synced");
                    (too_many > 0).then(what)
                }
                Err(e) => {
                    // Nobody deletes files by taking their directory away, a disk that is not
                    // mounted least of all: they are new here, and come from the others.
                    index.forget_below(&file.path);
                    Some(e.to_string())
                }
            };
            self.directories.extend(problem.map(|problem| (text, problem)));
        }
        index.forget_deleted(MAX_DELETED);
        for (path, _) in index.iter() {
            if let Some(place) = places::place(&settings.files, path) {
                paths.entry(path.clone()).or_insert(place);
            }
        }
        paths
    }

    /// Looks at one file. True if it has a whole new content.
    pub(super) fn look_at(
        &mut self,
        settings: &Settings,
        index: &mut Index,
        path: &str,
        place: Place,
    ) -> bool {
        let local = self.files.entry(path.to_owned()).or_default();
        let mark = disk::mark(Path::new(path));
        let unchanged = mark.is_ok_and(|now| now == local.mark);
        // A file that is missing, or was refused, is looked at again: nothing is read for it.
        if unchanged && local.mark.is_some() && !local.refused {
            return false;
        }
        let found = disk::read(Path::new(path));
        let before = local.hash;
        *local = Local { lost: std::mem::take(&mut local.lost), ..Local::default() };
        match found {
            Ok(Some(found)) => {
                local.mark = Some(found.mark);
                local.hash = Some(found.hash);
                local.length = found.bytes.len() as u64;
                local.mode = found.mode;
                let known = index.get(path).cloned();
                let adopted = adopt(settings, index, path, &found, known);
                let new = adopted.unwrap_or_else(|problem| {
                    local.problem = Some(problem);
                    false
                });
                new || (local.problem.is_none() && before.is_none())
            }
            Ok(None) => {
                local.problem = gone(settings, index, path, place);
                false
            }
            Err(e) => {
                local.refused = true;
                local.problem = Some(e.to_string());
                false
            }
        }
    }
}

/// Makes a content that is there a version. True if it is a new one.
fn adopt(
    settings: &Settings,
    index: &mut Index,
    path: &str,
    found: &Found,
    known: Option<Known>,
) -> Result<bool, String> {
    let hash = Some(found.hash);
    let state = match known {
        // What was to be written was written, and then the process ended.
        Some(Known { coming: Some(coming), .. }) if coming.content == hash => coming,
        Some(Known { state, .. }) if state.content == hash => {
            index.set(path, Some(Known::new(state)));
            return Ok(false);
        }
        Some(Known { state, .. }) => {
            settings.check.look(Path::new(path), &found.bytes)?;
            let next = state.edited(hash, index.editor(), &settings.me, now());
            info!("{path}: edited here, version {}", next.version.edits.number());
            next
        }
        None => {
            settings.check.look(Path::new(path), &found.bytes)?;
            State::found(found.hash, &settings.me, now())
        }
    };
    if index.set(path, Some(Known::new(state))) {
        Ok(true)
    } else {
        Err("its version cannot be kept in the state directory".to_owned())
    }
}

/// A file that is not there: what that means, in words if it is wrong.
fn gone(settings: &Settings, index: &mut Index, path: &str, place: Place) -> Option<String> {
    let known = index.get(path).cloned();
    match (place, known) {
        (Place::Named, Some(_)) => {
            Some("is gone: it comes back from the other gateways".to_owned())
        }
        (Place::Named, None) => Some("is not here, and no gateway has sent it yet".to_owned()),
        (Place::InDirectory, Some(Known { state, .. })) if state.content.is_some() => {
            let deleted = state.edited(None, index.editor(), &settings.me, now());
            info!("{path}: deleted here, version {}", deleted.version.edits.number());
            index.set(path, Some(Known::new(deleted)));
            None
        }
        (Place::InDirectory, _) => None,
    }
}

/// What lost a conflict, by the file that it was an edit of.
fn lost_files<'a>(paths: impl Iterator<Item = &'a String>) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let directories: BTreeSet<&Path> = paths.filter_map(|path| Path::new(path).parent()).collect();
    let mut lost = BTreeMap::<PathBuf, Vec<PathBuf>>::new();
    for found in directories.into_iter().flat_map(disk::lost_in) {
        let name = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of = name.split(disk::CONFLICT).next().unwrap_or_default();
        lost.entry(found.with_file_name(of)).or_default().push(found.clone());
    }
    lost
}

/// The directories to watch.
pub(super) fn directories(settings: &Settings) -> BTreeSet<PathBuf> {
    let of = |file: &crate::config::SyncFile| -> Vec<PathBuf> {
        let parent = file.path.parent().map(Path::to_owned);
        let own = places::is_directory(file).then(|| file.path.clone());
        parent.into_iter().chain(own).collect()
    };
    settings.files.iter().flat_map(of).collect()
}

/// Makes the directory of a new file, if the config names it.
pub(super) fn make_directory(settings: &Settings, path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    if settings.files.iter().any(|file| file.directory && file.path == directory) {
        match std::fs::create_dir(directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
