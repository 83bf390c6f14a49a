//! Whether a content is whole. What is not never travels and is never written.

use std::path::{Path, PathBuf};

use crate::config::{Config, System};
use crate::wireguard::conf::WgConf;

/// The files of which this program knows what they must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Interface and file of each `[[wireguard]]`.
    wireguard: Vec<(String, PathBuf)>,
    /// wgha.toml, and who reads it.
    config: (PathBuf, String),
}

impl Check {
    /// What the config says.
    #[must_use]
    pub fn new(config: &Config) -> Check {
        let tunnel = |w: &crate::config::Wireguard| (w.interface.clone(), w.config.clone());
        Check {
            wireguard: config.wireguard.iter().map(tunnel).collect(),
            config: (config.path.clone(), config.node().name.clone()),
        }
    }

    /// Looks at the content of a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with line and key, and never the value of a key.
    pub fn look(&self, path: &Path, bytes: &[u8]) -> Result<(), String> {
        let text = || std::str::from_utf8(bytes).map_err(|_| "is no UTF-8 text".to_owned());
        if let Some((interface, _)) = self.wireguard.iter().find(|(_, file)| is_same(file, path)) {
            let parsed = WgConf::parse(interface, text()?);
            return parsed.map(drop).map_err(|errors| first(&errors));
        }
        let (config, node) = &self.config;
        if is_same(config, path) {
            let parsed = Config::parse(text()?, config, Some(node), &System);
            return parsed.map(drop).map_err(|all| first(&all.errors));
        }
        Ok(())
    }
}

fn first<E: std::fmt::Display>(errors: &[E]) -> String {
    let more = errors.len().saturating_sub(1);
    let first = errors.first().map(ToString::to_string).unwrap_or_default();
    if more == 0 { first } else { format!("{first} (and {more} more)") }
}

/// Whether two paths name one file, also where a directory on the way is a symbolic link.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

/// The path without symbolic links; the file itself need not exist.
fn real(path: &Path) -> Option<PathBuf> {
    if let Ok(real) = path.canonicalize() {
        return Some(real);
    }
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}
