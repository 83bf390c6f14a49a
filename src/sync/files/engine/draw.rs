//! What is said of the files: in status, and in the log when something is wrong.

use std::collections::BTreeSet;

use super::*;
use crate::sync::files::FileView;
use crate::sync::files::local::Local;

impl Engine {
    pub(super) fn draw(&mut self) {
        let files: Vec<FileView> = self.rows();
        for file in &files {
            match &file.problem {
                Some(problem) if self.said.get(&file.file) != Some(problem) => {
                    warn!("{}: {problem}", file.file);
                    self.said.insert(file.file.clone(), problem.clone());
                }
                Some(_) => {}
                None if self.said.remove(&file.file).is_some() => info!("{}: good now", file.file),
                None => {}
            }
        }
        self.said.retain(|path, _| files.iter().any(|file| file.file == *path));
        let agreeing = self.settings.peers.iter().filter(|name| self.agrees(name)).cloned();
        let agreeing: BTreeSet<String> = agreeing.collect();
        let dropped = self.hub.dropped.load(std::sync::atomic::Ordering::Relaxed);
        *super::super::lock(&self.picture) = Picture { files, agreeing, dropped };
    }

    /// One row for each file that is there, or should be; one for a directory with a problem.
    fn rows(&self) -> Vec<FileView> {
        let there = |(path, local): &(&String, &Local)| {
            local.hash.is_some()
                || local.problem.is_some()
                || self.index.get(path).is_some_and(|known| known.state.content.is_some())
        };
        let files = self.disk.files.iter().filter(there).map(|(path, local)| self.row(path, local));
        let row = |(path, problem): (&String, &String)| FileView {
            file: path.clone(),
            version: 0,
            in_sync: false,
            problem: Some(problem.clone()),
        };
        files.chain(self.disk.directories.iter().map(row)).collect()
    }

    fn row(&self, path: &str, local: &Local) -> FileView {
        let known = self.index.get(path).map(|known| &known.state);
        let whole = local.problem.is_none() && local.hash.is_some();
        let same = whole && self.settings.peers.iter().all(|peer| self.has_same(peer, path, local));
        let failed = self.failed.get(path).map(|failed| failed.why.clone());
        let lost = || {
            let names = local.lost.iter().filter_map(|lost| lost.file_name());
            let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
            let what = "an edit that lost is kept as";
            (!names.is_empty()).then(|| {
                format!("{what} {}: take over what is missing, then remove it", names.join(", "))
            })
        };
        FileView {
            file: path.to_owned(),
            version: known.map_or(0, |state| state.version.edits.number()),
            in_sync: same,
            problem: local.problem.clone().or(failed).or_else(lost),
        }
    }

    /// A gateway that is connected and has the content that is here.
    fn has_same(&self, peer: &str, path: &str, local: &Local) -> bool {
        let lists = self.links.values().filter(|link| link.name == peer);
        let mut entries = lists.filter_map(|link| link.files.as_ref()?.get(path));
        entries.any(|entry| entry.state.content == local.hash)
    }

    fn agrees(&self, peer: &str) -> bool {
        let mut lists = self.links.values().filter(|link| link.name == peer);
        let there = lists.any(|link| link.files.is_some());
        let files = self.disk.files.iter().filter(|(_, local)| local.hash.is_some());
        let mut same = files.map(|(path, local)| self.has_same(peer, path, local));
        there && same.all(|same| same)
    }
}
