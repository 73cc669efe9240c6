//! The load: a fixed number of connections, each with one request under way, and every response compared.
//!
//! Closed loop: the next request of a connection goes out when its last response is whole. Meant for CPU time per
//! request. With a pace it is an open loop: requests have times at which they should go out, whatever happened to those
//! before, and a response time counts from that moment (no coordinated omission).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// What is said on a connection.
#[derive(Clone, Debug)]
pub enum Speech {
    /// A request head; each response must be 200 with this body.
    Http1 {
        /// Sent as it is.
        request: Vec<u8>,
        /// Expected.
        body: Vec<u8>,
    },
    /// A message that must come back.
    Echo(Vec<u8>),
}

impl Speech {
    /// `GET target` for `authority`.
    pub fn get(authority: &str, target: &str, body: Vec<u8>) -> Self {
        let request =
            format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: outrigger-bench\r\n\r\n");
        Self::Http1 {
            request: request.into_bytes(),
            body,
        }
    }

    fn sent(&self) -> &[u8] {
        match self {
            Self::Http1 { request, .. } => request,
            Self::Echo(message) => message,
        }
    }

    /// Whether `received` is a whole answer.
    fn is_whole(&self, received: &[u8]) -> anyhow::Result<bool> {
        let (head, body) = match self {
            Self::Echo(message) => return whole(received, message),
            Self::Http1 { body, .. } => (received, body),
        };
        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
            ensure!(
                received.len() < MAX_HEAD_BYTES,
                "a response head of more than {MAX_HEAD_BYTES} bytes"
            );
            return Ok(false);
        };
        let (head, rest) = (&received[..end], &received[end + 4..]);
        ensure!(
            head.starts_with(b"HTTP/1.1 200 "),
            "not a 200: {}",
            shown(received)
        );
        whole(rest, body)
    }
}

const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Of a response, in a message.
const SHOWN_BYTES: usize = 300;

fn whole(received: &[u8], expected: &[u8]) -> anyhow::Result<bool> {
    ensure!(
        expected.starts_with(received),
        "{} bytes that differ from what the backend sends: {}",
        received.len(),
        shown(received)
    );
    Ok(received.len() == expected.len())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)])
        .escape_debug()
        .to_string()
}

/// Longer than this no sleep is late; it was something else.
const SLEPT_TOO_LONG: Duration = Duration::from_millis(4);

/// Connections that are ready to speak.
pub struct Client {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    speech: Speech,
    buffer: Vec<u8>,
    pace: Option<Pace>,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request under way should have gone out; none under way without.
    began: Option<Instant>,
}

struct Pace {
    every: Duration,
    next: Instant,
    /// Intended moments of requests that wait for a connection.
    waiting: VecDeque<Instant>,
    latencies: Vec<Duration>,
}

impl Client {
    /// Over these connections.
    ///
    /// # Errors
    /// When the system refuses to watch them.
    pub fn new(streams: Vec<std::net::TcpStream>, speech: Speech) -> anyhow::Result<Self> {
        let poll = Poll::new().context("an event queue")?;
        let mut connections = Vec::new();
        for (place, stream) in streams.into_iter().enumerate() {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(place), Interest::READABLE)?;
            connections.push(Connection {
                stream,
                received: Vec::new(),
                began: None,
            });
        }
        let (events, buffer) = (Events::with_capacity(1024), vec![0; 64 * 1024]);
        Ok(Self {
            poll,
            events,
            connections,
            speech,
            buffer,
            pace: None,
        })
    }

    /// Runs the closed loop for so long and returns the number of answers.
    ///
    /// # Errors
    /// When an answer is wrong or does not come, or a connection ends.
    pub fn run(&mut self, duration: Duration) -> anyhow::Result<u64> {
        let start = Instant::now();
        for place in 0..self.connections.len() {
            if self.connections[place].began.is_none() {
                self.send(place, start)?;
            }
        }
        let mut answers = 0;
        loop {
            let left = duration.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(answers);
            }
            answers += self.turn(left)?;
        }
    }

    /// Gets so many answers, one after the other on each connection.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_count(&mut self, requests: u64) -> anyhow::Result<()> {
        let mut left = requests;
        for place in 0..self.connections.len() {
            self.send(place, Instant::now())?;
        }
        let start = Instant::now();
        while left > 0 {
            ensure!(
                start.elapsed() < Duration::from_secs(300),
                "{left} answers are missing"
            );
            left = left.saturating_sub(self.turn(Duration::from_secs(1))?);
        }
        Ok(())
    }

    /// Runs an open loop of one request `every` so often for so long; returns the time from the intended moment to the
    /// whole answer, of each.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_paced(&mut self, every: Duration, duration: Duration) -> anyhow::Result<Vec<Duration>> {
        self.finish()?;
        let start = Instant::now();
        self.pace = Some(Pace {
            every,
            next: start,
            waiting: VecDeque::new(),
            latencies: Vec::new(),
        });
        while start.elapsed() < duration {
            self.send_due()?;
            // Not asleep until the next one is due: a sleep ends late, and the wait would count as a response time.
            self.turn(Duration::ZERO)?;
        }
        self.finish()?;
        Ok(self.pace.take().map(|pace| pace.latencies).unwrap_or_default())
    }

    /// As [`Self::run_paced`], but asleep between requests, so that others may use the core: late by what a sleep is late. The time is
    /// taken from the moment of sending, or from the intended one when all connections are busy then.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_calmly(&mut self, every: Duration, duration: Duration) -> anyhow::Result<Vec<Duration>> {
        self.finish()?;
        let start = Instant::now();
        self.pace = Some(Pace {
            every,
            next: start,
            waiting: VecDeque::new(),
            latencies: Vec::new(),
        });
        while start.elapsed() < duration {
            let is_busy = self
                .connections
                .iter()
                .all(|connection| connection.began.is_some());
            if let Some(pace) = self.pace.as_mut().filter(|_| !is_busy) {
                // What is overdue now was late because of the sleep.
                let now = Instant::now();
                let due = now.saturating_duration_since(pace.next);
                if pace.waiting.is_empty() && due < SLEPT_TOO_LONG && pace.next <= now {
                    pace.next = now;
                }
            }
            self.send_due()?;
            let next = self.pace.as_ref().map_or(start, |pace| pace.next);
            self.turn(next.saturating_duration_since(Instant::now()))?;
        }
        self.finish()?;
        Ok(self.pace.take().map(|pace| pace.latencies).unwrap_or_default())
    }

    /// Waits for the answers under way.
    fn finish(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let pace = self.pace.take();
        let mut latencies = Vec::new();
        while self
            .connections
            .iter()
            .any(|connection| connection.began.is_some())
        {
            ensure!(start.elapsed() < Duration::from_secs(10), "answers are missing");
            self.turn_once(Duration::from_millis(10), &mut |place, client| {
                if let Some(began) = client.connections[place].began.take() {
                    latencies.push(began.elapsed());
                }
                Ok(())
            })?;
        }
        self.pace = pace;
        if let Some(pace) = &mut self.pace {
            pace.latencies.extend(latencies);
        }
        Ok(())
    }

    fn send_due(&mut self) -> anyhow::Result<()> {
        let Some(pace) = &mut self.pace else { return Ok(()) };
        let now = Instant::now();
        while pace.next <= now {
            pace.waiting.push_back(pace.next);
            pace.next += pace.every;
        }
        let mut place = 0;
        while place < self.connections.len() {
            if self.connections[place].began.is_none() {
                let Some(intended) = self.pace.as_mut().and_then(|pace| pace.waiting.pop_front()) else {
                    return Ok(());
                };
                self.send(place, intended)?;
            }
            place += 1;
        }
        Ok(())
    }

    fn turn(&mut self, longest: Duration) -> anyhow::Result<u64> {
        self.turn_once(longest, &mut |place, client| {
            let began = client.connections[place].began.take();
            match &mut client.pace {
                None => client.send(place, Instant::now()),
                Some(pace) => {
                    pace.latencies.extend(began.map(|began| began.elapsed()));
                    let waiting = pace.waiting.pop_front();
                    waiting.map_or(Ok(()), |intended| client.send(place, intended))
                }
            }
        })
    }

    fn turn_once(
        &mut self,
        longest: Duration,
        answered: &mut dyn FnMut(usize, &mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(longest));
        let mut answers = 0;
        if let Err(error) = polled {
            ensure!(
                error.kind() == ErrorKind::Interrupted,
                "wait for answers: {error}"
            );
        }
        for event in &events {
            let Token(place) = event.token();
            if self.read(place)? {
                answers += 1;
                answered(place, self)?;
            }
        }
        self.events = events;
        Ok(answers)
    }

    fn send(&mut self, place: usize, intended: Instant) -> anyhow::Result<()> {
        let connection = &mut self.connections[place];
        connection.began = Some(intended);
        connection
            .stream
            .write_all(self.speech.sent())
            .context("send a request")
    }

    /// Whether a whole answer is there.
    fn read(&mut self, place: usize) -> anyhow::Result<bool> {
        let connection = &mut self.connections[place];
        loop {
            let read = match connection.stream.read(&mut self.buffer) {
                Ok(0) => bail!("the proxy closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("read an answer"),
            };
            let fresh = &self.buffer[..read];
            let is_whole = if connection.received.is_empty() {
                self.speech.is_whole(fresh)?
            } else {
                connection.received.extend_from_slice(fresh);
                self.speech.is_whole(&connection.received)?
            };
            if is_whole {
                connection.received.clear();
                return Ok(true);
            }
            if connection.received.is_empty() {
                connection.received.extend_from_slice(fresh);
            }
            if read < self.buffer.len() {
                return Ok(false);
            }
        }
    }
}

/// Opens so many connections.
///
/// # Errors
/// When one is refused.
pub fn connect(address: std::net::SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpStream>> {
    (0..count)
        .map(|_| std::net::TcpStream::connect(address))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::backend::{Backend, Manner, body};

    fn check(received: &str, expected: Option<bool>) {
        let speech = Speech::get("a", "/", b"body".to_vec());
        assert_eq!(
            speech.is_whole(received.as_bytes()).ok(),
            expected,
            "{received:?}"
        );
    }

    #[test]
    fn an_answer_is_whole_when_the_body_is_and_wrong_when_anything_differs() {
        check("HTTP/1.1 200 OK\r\n", Some(false));
        check("HTTP/1.1 200 OK\r\n\r\nbo", Some(false));
        check("HTTP/1.1 200 OK\r\na: b\r\n\r\nbody", Some(true));
        check("HTTP/1.1 200 OK\r\n\r\nbone", None);
        check("HTTP/1.1 200 OK\r\n\r\nbody and more", None);
        check("HTTP/1.1 503 Service Unavailable\r\n\r\nbody", None);
    }

    fn any_core() -> usize {
        crate::affinity::Cores::choose().map_or(0, |cores| cores.load)
    }

    #[test]
    fn the_closed_loop_keeps_every_connection_busy() {
        for (manner, speech) in [
            (Manner::Http1, Speech::get("a", "/", body())),
            (Manner::Echo, Speech::Echo(body())),
        ] {
            let backend = Backend::local(manner, any_core()).unwrap();
            let mut client = Client::new(connect(backend.address, 4).unwrap(), speech).unwrap();
            assert!(client.run(Duration::from_millis(100)).unwrap() > 4, "{manner:?}");
            assert!(
                client.run(Duration::from_millis(50)).unwrap() > 4,
                "{manner:?}: a second time"
            );
        }
    }

    #[test]
    fn an_answer_that_differs_from_the_backends_ends_the_run() {
        let backend = Backend::local(Manner::Http1, any_core()).unwrap();
        let speech = Speech::get("a", "/", b"something else".to_vec());
        let mut client = Client::new(connect(backend.address, 1).unwrap(), speech).unwrap();
        let error = client.run(Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("differ from what the backend sends"), "{error}");
    }

    #[test]
    fn paced_requests_are_counted_from_their_intended_moment() {
        // Listens, and answers nothing until it has been asleep.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut buffer, mut stalled) = ([0; 4], false);
            while stream.read_exact(&mut buffer).is_ok() {
                if !std::mem::replace(&mut stalled, true) {
                    std::thread::sleep(Duration::from_millis(100));
                }
                if stream.write_all(&buffer).is_err() {
                    break;
                }
            }
        });
        let mut client = Client::new(connect(address, 1).unwrap(), Speech::Echo(b"ping".to_vec())).unwrap();
        let latencies = client
            .run_paced(Duration::from_millis(10), Duration::from_millis(200))
            .unwrap();
        drop(client);
        thread.join().unwrap();
        let late = latencies
            .iter()
            .filter(|latency| **latency > Duration::from_millis(15))
            .count();
        assert!(
            late >= 5,
            "one stall of 100 ms makes ten requests late, not one: {latencies:?}"
        );
    }
}
