//! A way to a TCP server that takes its time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

#[derive(Default)]
struct Shared {
    /// Milliseconds, each way.
    delay: AtomicU64,
    end: AtomicBool,
}

/// Hands on what comes, later. It ends when dropped, with the connections that are open then.
pub(crate) struct Delay {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Delay {
    /// Whoever connects to `address` reaches `server`.
    pub(crate) fn start(address: SocketAddr, server: SocketAddr) -> Delay {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_thread.end.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let ways = [(&client, &server), (&server, &client)];
                for (from, to) in
                    ways.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
                {
                    let shared = Arc::clone(&of_thread);
                    thread::spawn(move || hand_on(&shared, from, to));
                }
            }
        });
        Delay { shared, address }
    }

    /// From now on it takes so long, each way.
    pub(crate) fn set(&self, delay: Duration) {
        self.shared.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        // It waits for a client.
        drop(TcpStream::connect(self.address));
    }
}

fn hand_on(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        thread::sleep(Duration::from_millis(shared.delay.load(Ordering::Relaxed)));
        if shared.end.load(Ordering::Relaxed) || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
