//! What the proxies forward to: one thread that answers every HTTP/1.1 request alike, or sends back what it gets.
//!
//! As little work as possible, so that the other core has room for the load: the answer is one prepared block of bytes.
//! It understands requests without a body, which is what the load sends.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::affinity;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of every body and of every TCP message.
pub const BODY_BYTES: usize = 1024;

/// What a backend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers each HTTP/1.1 request with 200 and [`body`].
    Http1,
    /// Sends back what it gets.
    Echo,
}

/// The body of every response, and the message of every TCP round trip.
pub fn body() -> Vec<u8> {
    (0..BODY_BYTES).map(|index| b'a' + (index % 26) as u8).collect()
}

/// A running backend. Dropping it ends the thread.
pub struct Backend {
    waker: Waker,
    thread: Option<std::thread::JoinHandle<io::Result<()>>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Backend {
    /// Serves connections of `listener` on a thread of its own on `core`.
    ///
    /// # Errors
    /// When the thread or its event queue cannot be made.
    pub fn start(listener: std::net::TcpListener, manner: Manner, core: usize) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let poll = Poll::new().context("an event queue")?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let thread = std::thread::Builder::new()
            .name("backend".to_owned())
            .spawn(move || {
                affinity::pin(core).map_err(io::Error::other)?;
                Loop {
                    poll,
                    listener,
                    manner,
                    connections: Vec::new(),
                    answer: answer(),
                }
                .run()
            })?;
        Ok(Self {
            waker,
            thread: Some(thread),
            address,
        })
    }

    /// The same on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn local(manner: Manner, core: usize) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port for the backend")?;
        Self::start(listener, manner, core)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("backend: {error}");
        }
    }
}

fn answer() -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY_BYTES}\r\n\r\n")
            .into_bytes();
    answer.extend(body());
    answer
}

struct Loop {
    poll: Poll,
    listener: TcpListener,
    manner: Manner,
    connections: Vec<Option<Connection>>,
    answer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// How many bytes of the end of a head the last read ended with.
    matched: usize,
}

impl Loop {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.poll.poll(&mut events, Some(Duration::from_secs(3600))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    WAKER => return Ok(()),
                    LISTENER => self.accept()?,
                    Token(place) => self.turn(place, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The other side gave up, or files ran out; the next one may do better.
                Err(_) => continue,
            };
            stream.set_nodelay(true)?;
            let free = self.connections.iter().position(Option::is_none);
            let place = free.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll
                .registry()
                .register(&mut stream, Token(place), Interest::READABLE)?;
            self.connections[place] = Some(Connection { stream, matched: 0 });
        }
    }

    /// Closes the connection when the other side did, or when it does not go on as expected.
    fn turn(&mut self, place: usize, buffer: &mut [u8]) {
        let Some(Some(connection)) = self.connections.get_mut(place) else {
            return;
        };
        if connection.turn(self.manner, &self.answer, buffer).is_err() {
            self.connections[place] = None;
        }
    }
}

impl Connection {
    fn turn(&mut self, manner: Manner, answer: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            match manner {
                Manner::Echo => self.stream.write_all(&buffer[..read])?,
                Manner::Http1 => {
                    for _ in 0..ends(&buffer[..read], &mut self.matched) {
                        self.stream.write_all(answer)?;
                    }
                }
            }
            // What comes later raises an event of its own, so one read is enough unless the buffer was too small.
            if read < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// How many request heads end within `bytes`; `matched` carries a half-seen end from one read to the next.
fn ends(bytes: &[u8], matched: &mut usize) -> usize {
    const END: &[u8] = b"\r\n\r\n";
    let mut found = 0;
    for byte in bytes {
        *matched = match (*byte, *matched) {
            (byte, at) if byte == END[at] => at + 1,
            (b'\r', _) => 1,
            _ => 0,
        };
        if *matched == END.len() {
            found += 1;
            *matched = 0;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_also_when_cut_anywhere() {
        let two = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        for cut in 0..two.len() {
            let mut matched = 0;
            let found = ends(&two[..cut], &mut matched) + ends(&two[cut..], &mut matched);
            assert_eq!(found, 2, "cut at {cut}");
        }
    }
}
