//! Outgoing TCP connections.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::listen;

/// What an outgoing socket needs besides its target.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SocketOptions {
    /// Source to bind to; used only for targets of the same family. Port 0: any.
    pub(crate) source: Option<SocketAddr>,
    /// Keepalive: idle time, interval, probes.
    pub(crate) keepalive: Option<(Option<Duration>, Option<Duration>, Option<u32>)>,
    /// In place of `source`.
    pub(crate) original_source: Option<OriginalSource>,
}

/// A source address that is not this machine's (IP_TRANSPARENT). Source: Envoy, `buildOriginalSrcOptions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OriginalSource {
    /// The client's; the port is any.
    pub(crate) address: IpAddr,
    /// SO_MARK, so that routing rules bring the answers back.
    pub(crate) mark: Option<u32>,
}

/// Connects. No time limit: the caller has the cluster's.
///
/// # Errors
/// The system's, e.g. `ConnectionRefused`; `AddrNotAvailable` when the source address is not this host's; `PermissionDenied` when an
/// original source is asked for without CAP_NET_ADMIN; `InvalidInput` when it is of another family than `target`.
pub(crate) async fn connect(target: SocketAddr, options: SocketOptions) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(OriginalSource { mark, .. }) = options.original_source {
        listen::set_transparent(&socket, target.is_ipv6())?;
        mark.map_or(Ok(()), |mark| socket.set_mark(mark))?;
    }
    if let Some(source) = options.source_for(target) {
        // The kernel then picks the port at connect, from the 4-tuple, not at bind from the 2-tuple (Envoy sets it as well).
        if source.port() == 0 {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
        }
        socket.bind(&source.into())?;
    }
    if let Some((time, interval, probes)) = options.keepalive {
        socket.set_tcp_keepalive(&keepalive(time, interval, probes))?;
    }
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(target).await
}

impl SocketOptions {
    fn source_for(&self, target: SocketAddr) -> Option<SocketAddr> {
        match self.original_source {
            Some(original) => Some(SocketAddr::new(original.address, 0)),
            None => self.source.filter(|source| source.is_ipv4() == target.is_ipv4()),
        }
    }
}

/// Makes the coming close a reset: the peer learns that its bytes went nowhere.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // Best effort: a connection that is gone already needs no reset.
    let _ = stream.set_zero_linger();
}

pub(super) fn keepalive(
    time: Option<Duration>,
    interval: Option<Duration>,
    probes: Option<u32>,
) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = probes {
        keepalive = keepalive.with_retries(probes);
    }
    keepalive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn binds_the_source_of_the_same_family_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let target = listener.local_addr().expect("bound");
        let v4 = SocketOptions {
            source: Some(SocketAddr::from(([127, 0, 0, 6], 0))),
            ..SocketOptions::default()
        };
        let connected = connect(target, v4).await.expect("connects");
        assert_eq!(
            connected.local_addr().expect("connected").ip().to_string(),
            "127.0.0.6"
        );
        let v6 = SocketOptions {
            source: Some("[::6]:0".parse().expect("an address")),
            ..SocketOptions::default()
        };
        connect(target, v6)
            .await
            .expect("the foreign family is not bound");
    }
}
