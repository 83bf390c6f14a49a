//! The kernel's WireGuard over generic netlink: reading a device, setting differences.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use genetlink::{GenetlinkError, GenetlinkHandle};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage};

use super::plan::{Change, Device};
use absorb::absorb;
use messages::messages;

mod absorb;
mod messages;

/// Longest wait for one answer, and for a whole dump.
const ANSWER: Duration = Duration::from_secs(10);

/// A dump during which the device changed is read again, at most this often.
const DUMPS: usize = 10;

/// A generic netlink socket.
pub(super) struct Wgnl {
    handle: GenetlinkHandle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Wgnl {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Wgnl {
    /// Opens a socket in the network namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = genetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Whether the kernel knows WireGuard; the question loads the module.
    pub(super) async fn available(&self) -> bool {
        let family = self.handle.resolve_family::<WireguardMessage>();
        matches!(tokio::time::timeout(ANSWER, family).await, Ok(Ok(_)))
    }

    /// The device as it is.
    pub(super) async fn get(&self, interface: &str) -> io::Result<Device> {
        for _ in 0..DUMPS {
            if let Some(device) = bounded(self.dump(interface)).await? {
                return Ok(device);
            }
        }
        Err(io::Error::other("the device kept changing while it was read"))
    }

    /// Applies a change, in as many messages as it needs.
    pub(super) async fn set(&self, interface: &str, change: &Change) -> io::Result<()> {
        for message in messages(interface, change) {
            bounded(self.send(message)).await?;
        }
        Ok(())
    }

    /// `None` if the device changed meanwhile.
    async fn dump(&self, interface: &str) -> io::Result<Option<Device>> {
        let attributes = vec![WireguardAttribute::IfName(interface.to_owned())];
        let request = message(WireguardCmd::GetDevice, attributes, NLM_F_DUMP);
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).await.map_err(failed)?;
        let mut device = Device::default();
        let mut interrupted = false;
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(io::Error::other)?;
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(part) => absorb(&mut device, part.payload),
                NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                _ => {}
            }
        }
        Ok((!interrupted).then_some(device))
    }

    async fn send(&self, attributes: Vec<WireguardAttribute>) -> io::Result<()> {
        let request = message(WireguardCmd::SetDevice, attributes, NLM_F_ACK);
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).await.map_err(failed)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(e) = answer.map_err(io::Error::other)?.payload
                && e.code.is_some()
            {
                return Err(e.to_io());
            }
        }
        Ok(())
    }
}

fn message(
    cmd: WireguardCmd,
    attributes: Vec<WireguardAttribute>,
    flags: u16,
) -> NetlinkMessage<GenlMessage<WireguardMessage>> {
    let inner = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
    let mut message = NetlinkMessage::from(inner);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

fn failed(e: GenetlinkError) -> io::Error {
    match e {
        GenetlinkError::NetlinkError(e) => e,
        other => io::Error::other(other),
    }
}

async fn bounded<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests;
