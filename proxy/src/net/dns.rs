//! Names to addresses, with the time that an answer is valid: what `getaddrinfo` does not tell.
//!
//! A stub: it asks the configured or the system's servers, with search domains, and over TCP when an answer is too long. It keeps
//! nothing. Source: RFC 1035; resolv.conf(5).
mod message;
mod system;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use self::message::{Answer, MalformedAnswer, Question};
pub(crate) use self::system::System;
use crate::time;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// Addresses of a name and how long they are valid; empty: it has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resolved {
    /// In the order received.
    pub(crate) addresses: Vec<IpAddr>,
    /// The shortest of all records; zero: not known.
    pub(crate) ttl: Duration,
}

/// Why nothing is known of a name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// No server is configured.
    #[error("there is no name server; add one to resolv.conf or to the resolver of the cluster")]
    NoServer,
    /// A label is too long, or there are too many.
    #[error("{0:?} is no domain name")]
    BadName(String),
    /// The server cannot be reached.
    #[error("name server {server}: {source}")]
    Io {
        /// Which.
        server: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("name server {0}: no answer in time")]
    Timeout(SocketAddr),
    /// It says that it cannot tell.
    #[error("name server {server} refuses to answer with code {code}")]
    Refused {
        /// Which.
        server: SocketAddr,
        /// Source: RFC 1035 §4.1.1.
        code: u8,
    },
    /// Its answer cannot be read.
    #[error("name server {server}: {source}")]
    Malformed {
        /// Which.
        server: SocketAddr,
        /// Why.
        source: MalformedAnswer,
    },
}

/// Bytes of an answer over UDP that are read: as many as `edns_payload` may say.
const MAX_UDP_BYTES: usize = 4096;

/// What is not to be done as the system says. The default: nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// In place of the system's, unless empty,
    pub(crate) servers: Vec<SocketAddr>,
    /// or if the system has none.
    pub(crate) is_fallback: bool,
    /// Never over UDP.
    pub(crate) uses_tcp: bool,
    /// Search domains are not tried.
    pub(crate) is_absolute: bool,
    /// For one answer.
    pub(crate) timeout: Option<Duration>,
    /// How often all servers are asked.
    pub(crate) tries: Option<u32>,
    /// Begins with any server.
    pub(crate) rotates: bool,
    /// Bytes of an answer over UDP; `None`: 512, without EDNS.
    pub(crate) edns_payload: Option<u16>,
}

/// Resolves `name`: as an address, from the hosts file, or by asking.
///
/// # Errors
/// No server gave an answer. That a name does not exist is an answer.
pub(crate) async fn resolve(
    system: &System,
    manner: &Manner,
    name: &str,
    kind: Kind,
) -> Result<Resolved, ResolveError> {
    if let Some(known) = literal(name, kind).or_else(|| system.known(name, kind)) {
        return Ok(known);
    }
    let candidates = match manner.is_absolute {
        true => vec![name.trim_end_matches('.').to_owned()],
        false => system.candidates(name),
    };
    let mut last = Resolved::default();
    for candidate in candidates {
        last = ask_all(system, manner, &candidate, kind).await?;
        if !last.addresses.is_empty() {
            break;
        }
    }
    Ok(last)
}

fn literal(name: &str, kind: Kind) -> Option<Resolved> {
    let address: IpAddr = name.parse().ok()?;
    let addresses = (address.is_ipv4() == (kind == Kind::V4)).then_some(address);
    Some(Resolved {
        addresses: addresses.into_iter().collect(),
        ttl: Duration::ZERO,
    })
}

/// Asks one server after the other, as often as is wanted.
async fn ask_all(system: &System, manner: &Manner, name: &str, kind: Kind) -> Result<Resolved, ResolveError> {
    let is_own = !manner.servers.is_empty() && (!manner.is_fallback || system.servers.is_empty());
    let servers = if is_own { &manner.servers } else { &system.servers };
    let first = match manner.rotates {
        true if !servers.is_empty() => fastrand::usize(..servers.len()),
        _ => 0,
    };
    let mut error = ResolveError::NoServer;
    if servers.is_empty() {
        return Err(error);
    }
    for _ in 0..manner.tries.unwrap_or(system.attempts) {
        for server in servers.iter().cycle().skip(first).take(servers.len()) {
            let timeout = manner.timeout.unwrap_or(system.timeout);
            let asked = time::within(Some(timeout), ask(*server, manner, name, kind)).await;
            match asked.unwrap_or(Err(ResolveError::Timeout(*server))) {
                Ok(resolved) => return Ok(resolved),
                Err(bad @ ResolveError::BadName(_)) => return Err(bad),
                Err(failed) => error = failed,
            }
        }
    }
    Err(error)
}

async fn ask(server: SocketAddr, manner: &Manner, name: &str, kind: Kind) -> Result<Resolved, ResolveError> {
    let io = |source| ResolveError::Io { server, source };
    let malformed = |source| ResolveError::Malformed { server, source };
    let bad_name = || ResolveError::BadName(name.to_owned());
    let question = Question::new(fastrand::u16(..), name, kind).ok_or_else(bad_name)?;
    let encoded = question.encode(manner.edns_payload).ok_or_else(bad_name)?;
    if !manner.uses_tcp {
        let answer = over_udp(server, &question, &encoded).await.map_err(io)?;
        match answer.map_err(malformed)? {
            Answer::Whole(resolved) => return Ok(resolved),
            Answer::Refused(code) => return Err(ResolveError::Refused { server, code }),
            Answer::Truncated => {}
        }
    }
    let whole = over_tcp(server, &encoded).await.map_err(io)?;
    match question.read(&whole).map_err(malformed)? {
        Answer::Whole(resolved) => Ok(resolved),
        Answer::Refused(code) => Err(ResolveError::Refused { server, code }),
        Answer::Truncated => Err(malformed(MalformedAnswer::Cut)),
    }
}

/// What comes first that is an answer to this question: others are old, or of an attacker.
async fn over_udp(
    server: SocketAddr,
    question: &Question,
    encoded: &[u8],
) -> io::Result<Result<Answer, MalformedAnswer>> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connected, so that only the server is heard.
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(server).await?;
    socket.send(encoded).await?;
    let mut buffer = [0; MAX_UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match question.read(buffer.get(..length).unwrap_or_default()) {
            Err(MalformedAnswer::NotOurs) => {}
            answer => return Ok(answer),
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
