//! Single values: text in, type out, or what was expected.

mod address;
mod host;

use std::path::PathBuf;
use std::time::Duration;

use super::{BackendChoice, HookState, QuorumChoice, SyncFile};
pub(super) use address::{address, floating_ip, listen_address, machine, socket_address};
pub(super) use host::{endpoint, http_url, target};

/// The longest name of an interface, in bytes (the kernel's `IFNAMSIZ` less its end mark).
const MAX_INTERFACE: usize = 15;

/// The longest path of a unix socket, in bytes (`sun_path` less its end mark).
pub(super) const MAX_SOCKET_PATH: usize = 107;

const NAME: &str = "1 to 64 letters, digits, '.', '_' or '-'";

/// The name of a cluster, a node or an instance.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text != "."
        && text != "..";
    if fits { Ok(text.to_owned()) } else { Err(format!("expected {NAME}, found {text:?}")) }
}

pub(super) const USER: &str = "the name of a user that is not root";

/// A user of the machine, who may come later.
pub(super) fn user(text: &str) -> Result<String, String> {
    match name(text) {
        Ok(name) if name != "root" => Ok(name),
        _ => Err(format!("expected {USER}, found {text:?}")),
    }
}

/// A duration between two bounds, as `"200ms"`.
pub(super) fn duration(text: &str, low: Duration, high: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(d) if (low..=high).contains(&d) => Ok(d),
        _ => Err(format!("expected {}, found {text:?}", duration_expected(low, high))),
    }
}

/// What [`duration`] expects.
pub(super) fn duration_expected(low: Duration, high: Duration) -> String {
    let (low, high) = (humantime::format_duration(low), humantime::format_duration(high));
    format!("a duration of {low} to {high}, such as \"200ms\"")
}

/// An absolute path.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') && text.len() < 4096 {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("expected an absolute path, found {text:?}"))
    }
}

/// The longest path of a synced file, in bytes: it goes over the wire with each version.
const MAX_SYNC_PATH: usize = 512;

/// One entry of `[sync] files`.
pub(super) fn sync_file(text: &str) -> Result<SyncFile, String> {
    let inner = text.strip_suffix('/').unwrap_or(text);
    let mut parts = inner.split('/');
    let absolute = parts.next() == Some("") && inner.len() > 1;
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if text.len() > MAX_SYNC_PATH || !absolute || !parts.all(plain) {
        return Err(format!(
            "expected an absolute path of at most {MAX_SYNC_PATH} bytes, without \".\" and \"..\", \
             found {text:?}"
        ));
    }
    Ok(SyncFile { path: PathBuf::from(inner), directory: inner.len() < text.len() })
}

/// The absolute path of a unix socket.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(format!("expected a path of at most {MAX_SOCKET_PATH} bytes, found {text:?}"));
    }
    path(text)
}

/// The name of an interface that the kernel would accept.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let bad = |b: u8| b.is_ascii_whitespace() || b.is_ascii_control() || b"/:%".contains(&b);
    let fits = (1..=MAX_INTERFACE).contains(&text.len())
        && !text.bytes().any(bad)
        && text != "."
        && text != "..";
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("expected an interface name of 1 to {MAX_INTERFACE} bytes, found {text:?}"))
}

/// The name of a WireGuard interface, with the letters that wg-quick(8) allows.
pub(super) fn wireguard_interface(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b);
    if !text.bytes().all(allowed) {
        return Err(format!("expected letters, digits and _=+.- alone, found {text:?}"));
    }
    interface(text)
}

/// Text that an answer must contain.
pub(super) fn body(text: &str) -> Result<String, String> {
    if (1..=256).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected a text of 1 to 256 bytes, found {} bytes", text.len()))
    }
}

/// `backend`.
pub(super) fn backend(text: &str) -> Result<BackendChoice, String> {
    match text {
        "auto" => Ok(BackendChoice::Auto),
        "kernel" => Ok(BackendChoice::Kernel),
        "embedded" => Ok(BackendChoice::Embedded),
        _ => Err(format!("expected \"auto\", \"kernel\" or \"embedded\", found {text:?}")),
    }
}

/// One word of a hook's `on`.
pub(super) fn hook_state(text: &str) -> Result<HookState, String> {
    match text {
        "master" => Ok(HookState::Master),
        "backup" => Ok(HookState::Backup),
        "fault" => Ok(HookState::Fault),
        "stop" => Ok(HookState::Stop),
        _ => Err(format!("expected \"master\", \"backup\", \"fault\" or \"stop\", found {text:?}")),
    }
}

/// `quorum`.
pub(super) fn quorum(text: &str) -> Result<QuorumChoice, String> {
    match text {
        "auto" => Ok(QuorumChoice::Auto),
        "majority" => Ok(QuorumChoice::Majority),
        "none" => Ok(QuorumChoice::None),
        _ => Err(format!("expected \"auto\", \"majority\" or \"none\", found {text:?}")),
    }
}

/// `gate`: whether it is used where there is one.
pub(super) fn gate(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected \"auto\" or \"off\", found {text:?}")),
    }
}

/// `dead_man`: whether floating IPs have a lifetime.
pub(super) fn dead_man(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected \"on\" or \"off\", found {text:?}")),
    }
}

/// A user of etcd.
pub(super) fn etcd_user(text: &str) -> Result<String, String> {
    if (1..=256).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("expected the name of a user of etcd, found {text:?}"))
}
