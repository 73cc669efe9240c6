//! `--run-validation`: one connection proves that the rules capture.
//!
//! Runs as the proxy's user before the proxy exists, so its ports are free: it listens there itself, connects to an
//! address of lo that only the rules can lead to those ports, and asks the kernel where the connection was meant
//! to go. Source: Istio `tools/istio-iptables/pkg/validation`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

use crate::config::Config;
use crate::log::Log;
use crate::routing::INBOUND_SOURCE;
use crate::rule::Family;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one attempt may take on loopback.
const ATTEMPT: Duration = Duration::from_millis(500);

/// The rules do not capture, or it cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    #[error("{family}: listen on {address}: {source}; the port must be free")]
    Listen {
        family: Family,
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "{family}: a connection to {to} is not captured within {} s ({last}); rules are missing, or this is not \
         one of the proxy's users", .timeout.as_secs_f64()
    )]
    NotCaptured {
        family: Family,
        to: SocketAddr,
        timeout: Duration,
        last: String,
    },
}

/// Tries each wanted family until it is captured or `probe_timeout` is over.
///
/// # Errors
/// Of the first family that is not captured.
pub fn run(config: &Config, log: &Log) -> Result<(), ValidationError> {
    for family in Family::BOTH {
        if family == Family::V4 || config.ipv6 {
            Probe::new(config, family)?.run(config.probe_timeout)?;
            log.info(&format!("{family}: validated, connections are captured"));
        }
    }
    Ok(())
}

struct Probe {
    family: Family,
    listeners: Vec<TcpListener>,
    from: SocketAddr,
    to: SocketAddr,
    owner: (u32, u32),
}

impl Probe {
    fn new(config: &Config, family: Family) -> Result<Self, ValidationError> {
        let (local, remote): (IpAddr, IpAddr) = match family {
            Family::V4 => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 6).into()),
            Family::V6 => (Ipv6Addr::LOCALHOST.into(), INBOUND_SOURCE.into()),
        };
        let listen = |port: u16| {
            let address = SocketAddr::new(local, port);
            let listener = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            listener.map_err(|source| ValidationError::Listen {
                family,
                address,
                source,
            })
        };
        let number = |ids: &[crate::rule::Id]| ids.first().map_or(0, |id| id.number);
        Ok(Probe {
            family,
            listeners: vec![
                listen(config.outbound_port.get())?,
                listen(config.inbound_port.get())?,
            ],
            // Not what the kernel would choose: from 127.0.0.6 to itself nothing is captured.
            from: SocketAddr::new(local, 0),
            to: SocketAddr::new(remote, config.probe_port.get()),
            owner: (number(&config.proxy_uids), number(&config.proxy_gids)),
        })
    }

    fn run(&self, timeout: Duration) -> Result<(), ValidationError> {
        let deadline = Instant::now() + timeout;
        loop {
            let Err(last) = self.attempt() else { return Ok(()) };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ValidationError::NotCaptured {
                    family: self.family,
                    to: self.to,
                    timeout,
                    last,
                });
            }
            pause(PAUSE.min(left));
        }
    }

    /// Why the connection was not captured, as text for people.
    fn attempt(&self) -> Result<(), String> {
        let mut client = self.connect().map_err(|error| error.to_string())?;
        let deadline = Instant::now() + ATTEMPT;
        let mut server = loop {
            let mut accepted = self
                .listeners
                .iter()
                .filter_map(|listener| listener.accept().ok());
            match accepted.next() {
                Some((server, _)) => break server,
                None if Instant::now() > deadline => {
                    return Err("it arrived at another listener".to_owned());
                }
                None => pause(Duration::from_millis(1)),
            }
        };
        let port = self.original_port(&server).map_err(|errno| errno.to_string())?;
        let expected = self.to.port().to_string();
        let echo = server
            .write_all(port.to_string().as_bytes())
            .and_then(|()| server.shutdown(std::net::Shutdown::Write));
        echo.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        client
            .read_to_string(&mut answer)
            .map_err(|error| error.to_string())?;
        if answer == expected {
            return Ok(());
        }
        Err(format!("it was meant for port {answer}"))
    }

    fn connect(&self) -> Result<TcpStream, Errno> {
        let family = match self.family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        // Owner rules look at the file-system ids of the thread that makes the socket. Only root may change them,
        // anyone else is the proxy's user or is told that nothing is captured.
        let root = geteuid().is_root();
        let before = root.then(|| {
            (
                setfsuid(Uid::from_raw(self.owner.0)),
                setfsgid(Gid::from_raw(self.owner.1)),
            )
        });
        let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        if let Some((uid, gid)) = before {
            setfsuid(uid);
            setfsgid(gid);
        }
        let client = made?;
        let patience = TimeVal::new(0, i64::from(ATTEMPT.subsec_micros()));
        setsockopt(&client, sockopt::SendTimeout, &patience)?;
        setsockopt(&client, sockopt::ReceiveTimeout, &patience)?;
        bind(client.as_raw_fd(), &SockaddrStorage::from(self.from))?;
        connect(client.as_raw_fd(), &SockaddrStorage::from(self.to))?;
        Ok(TcpStream::from(client))
    }

    fn original_port(&self, server: &TcpStream) -> Result<u16, Errno> {
        Ok(u16::from_be(match self.family {
            Family::V4 => getsockopt(server, sockopt::OriginalDst)?.sin_port,
            Family::V6 => getsockopt(server, sockopt::Ip6tOriginalDst)?.sin6_port,
        }))
    }
}

// No worker of this program has connections that a pause could stop.
#[allow(clippy::disallowed_methods)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
