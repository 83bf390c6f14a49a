//! What is wrong with a config file.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong with a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The line, from 1; `None` if the trouble is no single line's.
    pub line: Option<usize>,
    /// The key as the file shows it, such as `[cluster] heartbeat`; empty if it is no key's.
    pub key: String,
    /// What was expected and what was found.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(
        line: Option<usize>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> ConfigError {
        ConfigError { line, key: key.into(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    /// `7: [cluster] heartbeat: expected ...`, to stand behind the file's name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with one config file, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(path: &Path, mut errors: Vec<ConfigError>) -> ConfigErrors {
        // Troubles without a line come last: they often follow from one that has one.
        errors.sort_by_key(|e| e.line.unwrap_or(usize::MAX));
        errors.dedup();
        ConfigErrors { path: path.to_owned(), errors }
    }
}

impl fmt::Display for ConfigErrors {
    /// One line for each error: `/etc/wgha/wgha.toml:7: [cluster] heartbeat: expected ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            let space = if error.line.is_some() { "" } else { " " };
            write!(f, "{}:{space}{error}", self.path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
