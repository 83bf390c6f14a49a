//! The encrypted stream between two gateways: Noise NNpsk0 over TCP.
//!
//! ```text
//! frame:      2 bytes length (big endian), then so many bytes, at most 65535
//! initiator -> responder:  greeting (clear)
//!     +----------------+---------+--------+-----+-----------+
//!     | "wgha sync"  9 | version | key id | len | its name  |
//!     +----------------+---1-----+---2----+--1--+----len----+
//! initiator -> responder:  psk, e            responder -> initiator:  e, ee
//! then both ways: sealed messages; the first is a hello
//! ```
//!
//! The pre-shared key follows from the gateway key, so that both ends prove that they have it, and
//! a witness cannot. The prologue binds greeting, cluster and the responder's name. Both ends give
//! ephemeral keys: who learns the gateway key later still cannot read what was recorded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use snow::{Builder, HandshakeState, StatelessTransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Settings;
use super::message::Message;

/// The protocol's version; another one is refused.
pub const VERSION: u8 = 1;

/// The purpose for [`wgha_proto::Keyring::derive`].
pub const PURPOSE: &str = "sync 1";

/// Noise's name of the pattern.
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";

const MAGIC: &[u8; 9] = b"wgha sync";

/// Bound of everything until the hello has come, in both roles.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Nothing heard for so long: the other end is gone. It says `alive` several times meanwhile.
pub const IDLE: Duration = Duration::from_secs(5);

/// A seal's tag, in bytes.
const TAG: usize = 16;

/// Largest message before sealing, in bytes.
pub const MAX_MESSAGE: usize = u16::MAX as usize - TAG;

/// Longest greeting or handshake message, in bytes.
const MAX_HANDSHAKE: usize = 512;

/// Why a connection is refused. Each is counted under its word.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It does not begin as it should.
    #[error("no greeting of this protocol")]
    Greeting,
    /// It speaks a version that this program does not.
    #[error("sync protocol version {0}, this is {VERSION}")]
    Version(u8),
    /// It names a node that is no gateway, or that is to be connected to.
    #[error("{0:?} is not to connect to this gateway")]
    Name(String),
    /// It names a key that this node does not have.
    #[error("key id {0} is not in the key file")]
    KeyId(u16),
    /// Another key, another cluster, another receiver, or a recording.
    #[error("it does not have the key")]
    Handshake,
    /// It speaks, sealed, but not as it should.
    #[error("a message that cannot be read")]
    Message,
    /// Too slow, or silent.
    #[error("no answer in time")]
    Timeout,
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Refusal {
    /// The refusal in a word, for counters.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Refusal::Greeting => "sync_greeting",
            Refusal::Version(_) => "sync_version",
            Refusal::Name(_) => "sync_name",
            Refusal::KeyId(_) => "sync_key_id",
            Refusal::Handshake => "sync_handshake",
            Refusal::Message => "sync_message",
            Refusal::Timeout => "sync_timeout",
            Refusal::Io(_) => "sync_io",
        }
    }
}

/// A connection whose both ends have shown that they hold the key, now.
pub struct Channel {
    /// The other gateway.
    pub peer: String,
    /// What it sends.
    pub receiver: Receiver,
    /// What it is sent.
    pub sender: Sender,
}

/// One direction: what the other end sends.
pub struct Receiver {
    stream: OwnedReadHalf,
    noise: Arc<StatelessTransportState>,
    count: u64,
}

/// One direction: what the other end is sent.
pub struct Sender {
    stream: OwnedWriteHalf,
    noise: Arc<StatelessTransportState>,
    count: u64,
}

/// Opens a channel on a connection to `peer`, with the key of this number in `settings` (from 0,
/// beyond the last one from the start again).
pub async fn connect(
    stream: TcpStream,
    settings: &Settings,
    peer: &str,
    key: usize,
) -> Result<Channel, Refusal> {
    bounded(HANDSHAKE, initiate(stream, settings, peer, key)).await
}

/// Answers a connection from whoever it is.
pub async fn accept(stream: TcpStream, settings: &Settings) -> Result<Channel, Refusal> {
    bounded(HANDSHAKE, respond(stream, settings)).await
}

async fn initiate(
    mut stream: TcpStream,
    settings: &Settings,
    peer: &str,
    key: usize,
) -> Result<Channel, Refusal> {
    let key = settings.secrets.get(key % settings.secrets.len().max(1));
    let (id, secret) = key.ok_or(Refusal::Handshake)?;
    let greeting = greeting(*id, &settings.me);
    let prologue = prologue(&greeting, &settings.cluster, peer);
    let mut noise = noise(&prologue, secret, true)?;
    write_frame(&mut stream, &greeting).await?;
    send_step(&mut stream, &mut noise).await?;
    receive_step(&mut stream, &mut noise).await?;
    let mut channel = split(stream, noise, peer.to_owned())?;
    channel.sender.send(&hello()).await?;
    channel.expect_hello().await
}

async fn respond(mut stream: TcpStream, settings: &Settings) -> Result<Channel, Refusal> {
    let greeting = read_frame(&mut stream, MAX_HANDSHAKE).await?;
    let (id, name) = parse_greeting(&greeting)?;
    // The lower name connects: so there is one connection, not two.
    let expected = name < settings.me && settings.peers.iter().any(|p| p.name == name);
    if !expected {
        return Err(Refusal::Name(name));
    }
    let secret = settings.secrets.iter().find(|(known, _)| *known == id);
    let (_, secret) = secret.ok_or(Refusal::KeyId(id))?;
    let mut noise = noise(&prologue(&greeting, &settings.cluster, &settings.me), secret, false)?;
    receive_step(&mut stream, &mut noise).await?;
    send_step(&mut stream, &mut noise).await?;
    // Only the hello shows that this is no recording: it needs this connection's keys.
    let mut channel = split(stream, noise, name)?.expect_hello().await?;
    channel.sender.send(&hello()).await?;
    Ok(channel)
}

impl Channel {
    async fn expect_hello(mut self) -> Result<Channel, Refusal> {
        match self.receiver.receive().await? {
            Message::Hello { .. } => Ok(self),
            _ => Err(Refusal::Message),
        }
    }
}

impl Receiver {
    /// The next message.
    ///
    /// # Errors
    /// Silence, a connection that ended, a message that cannot be opened or read.
    pub async fn receive(&mut self) -> Result<Message, Refusal> {
        let sealed = bounded(IDLE, read_frame(&mut self.stream, usize::from(u16::MAX))).await?;
        let mut bytes = vec![0; sealed.len()];
        let opened = self.noise.read_message(self.count, &sealed, &mut bytes);
        let length = opened.map_err(|_| Refusal::Handshake)?;
        self.count += 1;
        bytes.get(..length).and_then(Message::parse).ok_or(Refusal::Message)
    }
}

impl Sender {
    /// Sends a message.
    ///
    /// # Errors
    /// A connection that ended or does not take it, a message that is too long.
    pub async fn send(&mut self, message: &Message) -> Result<(), Refusal> {
        let bytes = message.to_bytes();
        if bytes.len() > MAX_MESSAGE {
            return Err(Refusal::Message);
        }
        let mut sealed = vec![0; bytes.len() + TAG];
        let length = self.noise.write_message(self.count, &bytes, &mut sealed);
        sealed.truncate(length.map_err(|_| Refusal::Message)?);
        self.count += 1;
        bounded(IDLE, write_frame(&mut self.stream, &sealed)).await
    }
}

fn hello() -> Message {
    Message::Hello { version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn greeting(id: u16, name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend(id.to_be_bytes());
    // Names have at most 64 bytes.
    bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    bytes.extend(name);
    bytes
}

fn parse_greeting(bytes: &[u8]) -> Result<(u16, String), Refusal> {
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or(Refusal::Greeting)?;
    let (&version, rest) = rest.split_first().ok_or(Refusal::Greeting)?;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let (id, rest) = rest.split_first_chunk::<2>().ok_or(Refusal::Greeting)?;
    let (&length, name) = rest.split_first().ok_or(Refusal::Greeting)?;
    let name = std::str::from_utf8(name).ok().filter(|n| n.len() == usize::from(length));
    Ok((u16::from_be_bytes(*id), name.ok_or(Refusal::Greeting)?.to_owned()))
}

/// Lengths stand before names, so that no two look alike; the greeting contains its own.
fn prologue(greeting: &[u8], cluster: &str, responder: &str) -> Vec<u8> {
    let mut bytes = greeting.to_vec();
    for name in [cluster, responder] {
        bytes.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(name.as_bytes());
    }
    bytes
}

fn noise(
    prologue: &[u8],
    secret: &Zeroizing<[u8; 32]>,
    initiator: bool,
) -> Result<HandshakeState, Refusal> {
    let wrong = |_| Refusal::Handshake;
    let builder = Builder::new(PATTERN.parse().map_err(wrong)?);
    let builder = builder.prologue(prologue).and_then(|b| b.psk(0, secret)).map_err(wrong)?;
    let state = if initiator { builder.build_initiator() } else { builder.build_responder() };
    state.map_err(wrong)
}

async fn send_step(stream: &mut TcpStream, noise: &mut HandshakeState) -> Result<(), Refusal> {
    let mut bytes = [0; MAX_HANDSHAKE];
    let length = noise.write_message(&[], &mut bytes).map_err(|_| Refusal::Handshake)?;
    write_frame(stream, bytes.get(..length).unwrap_or_default()).await
}

async fn receive_step(stream: &mut TcpStream, noise: &mut HandshakeState) -> Result<(), Refusal> {
    let bytes = read_frame(stream, MAX_HANDSHAKE).await?;
    let mut payload = [0; MAX_HANDSHAKE];
    noise.read_message(&bytes, &mut payload).map(drop).map_err(|_| Refusal::Handshake)
}

fn split(stream: TcpStream, noise: HandshakeState, peer: String) -> Result<Channel, Refusal> {
    let noise = noise.into_stateless_transport_mode().map_err(|_| Refusal::Handshake)?;
    let noise = Arc::new(noise);
    let (read, write) = stream.into_split();
    Ok(Channel {
        peer,
        receiver: Receiver { stream: read, noise: Arc::clone(&noise), count: 0 },
        sender: Sender { stream: write, noise, count: 0 },
    })
}

/// Reads one frame of at most `max` bytes. Not to be cancelled and called again.
async fn read_frame(
    stream: &mut (impl AsyncReadExt + Unpin),
    max: usize,
) -> Result<Vec<u8>, Refusal> {
    let length = usize::from(stream.read_u16().await?);
    if length > max {
        return Err(Refusal::Greeting);
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_frame(
    stream: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
) -> Result<(), Refusal> {
    let length = u16::try_from(bytes.len()).map_err(|_| Refusal::Message)?;
    // In one piece: the other end needs all of it.
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    Ok(stream.write_all(&frame).await?)
}

async fn bounded<T>(
    bound: Duration,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    timeout(bound, work).await.unwrap_or(Err(Refusal::Timeout))
}

#[cfg(test)]
mod tests;
