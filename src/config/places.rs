//! Where a daemon's socket and state are, as far as its config file can be read.
//!
//! `wgha status` and `wgha release` must work while the config is broken: they take these two paths
//! from a file whose other keys may be wrong, and their defaults from its name.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

/// Socket and state directory of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `[control] socket`, or `/run/wgha/NAME.sock`.
    pub control_socket: PathBuf,
    /// `[cluster] state_dir`, or `/var/lib/wgha/NAME`.
    pub state_dir: PathBuf,
}

impl Places {
    /// The places of the daemon that is configured by the file at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Places {
        Places::in_text(&super::read(path).unwrap_or_default(), path)
    }

    fn in_text(text: &str, path: &Path) -> Places {
        // Reads on behind mistakes of syntax.
        let (root, _) = DeTable::parse_recoverable(text);
        let given = |table: &str, key: &str| {
            let value = root.get_ref().get(table)?.get_ref().as_table()?.get(key)?;
            Some(PathBuf::from(value.get_ref().as_str()?)).filter(|path| path.is_absolute())
        };
        let instance = path.file_stem().unwrap_or_default().to_string_lossy();
        Places {
            control_socket: given("control", "socket").unwrap_or_else(|| default_socket(&instance)),
            state_dir: given("cluster", "state_dir").unwrap_or_else(|| default_state(&instance)),
        }
    }
}

/// The control socket of `wgha@instance`.
pub(super) fn default_socket(instance: &str) -> PathBuf {
    Path::new("/run/wgha").join(format!("{instance}.sock"))
}

/// The state directory of `wgha@instance`.
pub(super) fn default_state(instance: &str) -> PathBuf {
    Path::new("/var/lib/wgha").join(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_paths_are_found_in_a_config_with_other_mistakes() {
        let text = "[cluster]\nname = = 1\nmisses = \"many\"\nstate_dir = \"/s\"\n[control]\nsocket = \"/x\"\n";
        let places = Places::in_text(text, Path::new("/etc/wgha/a.toml"));
        assert_eq!(places, Places { control_socket: "/x".into(), state_dir: "/s".into() });
    }

    #[test]
    fn the_name_gives_the_defaults() {
        for text in ["", "not toml", "[control]\nsocket = 5\n", "[cluster]\nstate_dir = \"r\"\n"] {
            let places = Places::in_text(text, Path::new("/etc/wgha/edge.toml"));
            assert_eq!(places.control_socket, Path::new("/run/wgha/edge.sock"), "{text}");
            assert_eq!(places.state_dir, Path::new("/var/lib/wgha/edge"), "{text}");
        }
    }
}
