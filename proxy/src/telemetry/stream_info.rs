//! The facts of one HTTP stream or one TCP connection: filled along the way, read by logs, metrics and headers.
//!
//! Plain data, no lock. Creating one reads two clocks and clones one `Arc`; it allocates nothing. Strings that live longer
//! than the stream (cluster and route names) are `Arc<str>` made when configuration came; details are mostly `'static`.
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use outrigger_model::metadata::Metadata;

use super::istio_stats::Destination;
use super::peer::Peer;
use super::response_flag::{ResponseFlag, ResponseFlags};
use super::workload::{Principals, Workload};
use crate::net::connect::OriginalSource;
use crate::net::proxy_protocol::Tlv;

/// Facts of the downstream connection, shared by its streams.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    /// Counts up from 0 in this process.
    pub(crate) id: u64,
    /// Where the client meant to go: the original destination when it was restored.
    pub(crate) local_address: SocketAddr,
    /// Whether it was restored: the socket's own address is another one.
    pub(crate) is_restored: bool,
    /// The client, as a PROXY header or the like says; else `direct_remote_address`.
    pub(crate) remote_address: SocketAddr,
    /// The socket's peer.
    pub(crate) direct_remote_address: SocketAddr,
    /// What a PROXY header said besides the addresses; `None`: there was no header.
    pub(crate) proxy_tlvs: Option<Arc<[Tlv]>>,
    /// Connections to servers come from there.
    pub(crate) original_source: Option<OriginalSource>,
    /// What listener filters noted.
    pub(crate) metadata: Option<Box<Metadata>>,
    /// SNI as sent; logs replace what no host name has.
    pub(crate) requested_server_name: Option<Arc<str>>,
    /// Name of the chosen filter chain.
    pub(crate) filter_chain_name: Option<Arc<str>>,
    /// After a TLS handshake.
    pub(crate) tls: Option<TlsInfo>,
    /// Why the downstream handshake failed.
    pub(crate) transport_failure_reason: Option<Cow<'static, str>>,
    /// Who both ends are, after a TLS handshake.
    pub(crate) principals: Option<Arc<Principals>>,
}

/// What a TLS handshake settled.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsInfo {
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: &'static str,
    /// OpenSSL's name, as Envoy prints it: `TLS_AES_256_GCM_SHA384`, `ECDHE-RSA-AES256-GCM-SHA384`.
    pub(crate) cipher: &'static str,
    /// URI SANs of the peer's certificate; empty without one.
    pub(crate) peer_uri_sans: Vec<Arc<str>>,
    /// Subject of the peer's certificate, RFC 2253.
    pub(crate) peer_subject: Option<Arc<str>>,
    /// URI SANs of our certificate.
    pub(crate) local_uri_sans: Vec<Arc<str>>,
}

impl ConnectionInfo {
    /// A plain-text connection about which nothing else is known yet.
    pub(crate) fn new(id: u64, local_address: SocketAddr, remote_address: SocketAddr) -> ConnectionInfo {
        ConnectionInfo {
            id,
            local_address,
            is_restored: false,
            remote_address,
            direct_remote_address: remote_address,
            proxy_tlvs: None,
            original_source: None,
            metadata: None,
            requested_server_name: None,
            filter_chain_name: None,
            tls: None,
            transport_failure_reason: None,
            principals: None,
        }
    }

    /// Where the client dialled, if the connection was redirected from there: where ORIGINAL_DST clusters connect to. Without
    /// REDIRECT the address is our own, and connecting to it would never end.
    pub(crate) fn original_dst(&self) -> Option<SocketAddr> {
        self.is_restored.then_some(self.local_address)
    }
}

/// Facts of the current (in the end: last) upstream attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct UpstreamInfo {
    /// The chosen host, also when connecting to it did not work.
    pub(crate) host: Option<SocketAddr>,
    /// Our end of the upstream connection; `None` until connected.
    pub(crate) local_address: Option<SocketAddr>,
    /// Why connecting or the handshake did not work.
    pub(crate) transport_failure_reason: Option<Cow<'static, str>>,
    /// Who the host says it is, by its endpoint's metadata.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Who both ends of the upstream connection are, if it is TLS.
    pub(crate) principals: Option<Arc<Principals>>,
    /// First byte of the request sent.
    pub(crate) first_tx: Option<Instant>,
    /// First byte of the response received.
    pub(crate) first_rx: Option<Instant>,
}

/// One stream or connection. Fields are set by whoever knows them; `finish` ends it.
#[derive(Debug, Clone)]
pub(crate) struct StreamInfo {
    /// Wall clock, for `%START_TIME%`.
    pub(crate) start_time: SystemTime,
    /// Monotonic clock, for durations.
    pub(crate) start: Instant,
    /// Set by [`StreamInfo::finish`].
    pub(crate) end: Option<Instant>,
    /// The downstream connection.
    pub(crate) connection: Arc<ConnectionInfo>,
    /// The client when headers (`x-forwarded-for`) say so; port 0 when they name no port. Else the connection's.
    pub(crate) remote_address: Option<SocketAddr>,
    /// `None` for TCP.
    pub(crate) protocol: Option<http::Version>,
    /// Code sent downstream; `None`: no response was begun.
    pub(crate) response_code: Option<http::StatusCode>,
    /// Who made the response and why; no blanks, e.g. `via_upstream`.
    pub(crate) response_code_details: Option<Cow<'static, str>>,
    /// Why the connection was closed from here, at layer 4.
    pub(crate) connection_termination_details: Option<Cow<'static, str>>,
    /// See [`ResponseFlags`].
    pub(crate) flags: ResponseFlags,
    /// Body bytes from downstream (TCP: all bytes).
    pub(crate) bytes_received: u64,
    /// Body bytes to downstream (TCP: all bytes).
    pub(crate) bytes_sent: u64,
    /// Name of the matched route.
    pub(crate) route_name: Option<Arc<str>>,
    /// Stat name of the cluster (`alt_stat_name` or its name): Envoy's `%UPSTREAM_CLUSTER%`.
    pub(crate) upstream_cluster: Option<Arc<str>>,
    /// Name of the cluster: Envoy's `%UPSTREAM_CLUSTER_RAW%`.
    pub(crate) upstream_cluster_raw: Option<Arc<str>>,
    /// The service behind the cluster; `None` when there is no cluster.
    pub(crate) destination: Option<Arc<Destination>>,
    /// Who the client says it is.
    pub(crate) downstream_peer: Option<Arc<Peer>>,
    /// Who the server says it is.
    pub(crate) upstream_peer: Option<Arc<Peer>>,
    /// Attempts begun, the first included; 0 when no upstream was tried.
    pub(crate) attempt_count: u32,
    /// The attempt in progress, or the last one.
    pub(crate) upstream: UpstreamInfo,
    /// Last byte of the request received.
    pub(crate) last_downstream_rx: Option<Instant>,
    /// It asks for the health of this proxy, or of who is behind it, and is not counted with the others.
    pub(crate) is_health_check: bool,
}

impl StreamInfo {
    /// Begins now. `protocol`: `None` for a TCP connection.
    pub(crate) fn new(connection: Arc<ConnectionInfo>, protocol: Option<http::Version>) -> StreamInfo {
        StreamInfo::started_at(connection, protocol, SystemTime::now(), Instant::now())
    }

    /// Begins when the caller says: both clocks must mean the same moment.
    pub(crate) fn started_at(
        connection: Arc<ConnectionInfo>,
        protocol: Option<http::Version>,
        start_time: SystemTime,
        start: Instant,
    ) -> StreamInfo {
        StreamInfo {
            start_time,
            start,
            end: None,
            connection,
            remote_address: None,
            protocol,
            response_code: None,
            response_code_details: None,
            connection_termination_details: None,
            flags: ResponseFlags::new(),
            bytes_received: 0,
            bytes_sent: 0,
            route_name: None,
            upstream_cluster: None,
            upstream_cluster_raw: None,
            destination: None,
            downstream_peer: None,
            upstream_peer: None,
            attempt_count: 0,
            upstream: UpstreamInfo::default(),
            last_downstream_rx: None,
            is_health_check: false,
        }
    }

    /// Begins an upstream attempt: forgets the host, addresses, reason and times of the one before.
    pub(crate) fn begin_attempt(&mut self) -> &mut UpstreamInfo {
        self.attempt_count += 1;
        self.upstream = UpstreamInfo::default();
        &mut self.upstream
    }

    /// Sets a flag.
    pub(crate) fn set_flag(&mut self, flag: ResponseFlag) {
        self.flags.set(flag);
    }

    /// The client's address.
    pub(crate) fn downstream_remote_address(&self) -> SocketAddr {
        self.remote_address.unwrap_or(self.connection.remote_address)
    }

    /// Marks the end; later calls change nothing.
    pub(crate) fn finish(&mut self) {
        self.finish_at(Instant::now());
    }

    /// As [`StreamInfo::finish`], at a moment the caller knows.
    pub(crate) fn finish_at(&mut self, now: Instant) {
        self.end.get_or_insert(now);
    }

    /// `%DURATION%`: start to end; `None` before the end.
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.since_start(self.end)
    }

    /// `%REQUEST_DURATION%`: start to the last byte from downstream.
    pub(crate) fn request_duration(&self) -> Option<Duration> {
        self.since_start(self.last_downstream_rx)
    }

    /// `%RESPONSE_DURATION%`: start to the first byte from the upstream.
    pub(crate) fn response_duration(&self) -> Option<Duration> {
        self.since_start(self.upstream.first_rx)
    }

    fn since_start(&self, moment: Option<Instant>) -> Option<Duration> {
        moment.map(|moment| moment.saturating_duration_since(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> StreamInfo {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        StreamInfo::new(
            Arc::new(ConnectionInfo::new(0, address, address)),
            Some(http::Version::HTTP_11),
        )
    }

    #[test]
    fn a_new_attempt_forgets_the_one_before() {
        let mut info = info();
        let first = info.begin_attempt();
        first.host = Some(SocketAddr::from(([10, 0, 0, 1], 80)));
        first.transport_failure_reason = Some("delayed_connect_error:_Connection_refused".into());
        info.begin_attempt();
        assert_eq!((info.attempt_count, info.upstream.host), (2, None));
        assert!(info.upstream.transport_failure_reason.is_none());
    }

    #[test]
    fn the_first_finish_counts() {
        let mut info = info();
        let start = info.start;
        assert_eq!(info.duration(), None);
        info.finish_at(start + Duration::from_millis(3));
        info.finish_at(start + Duration::from_millis(9));
        assert_eq!(info.duration(), Some(Duration::from_millis(3)));
    }
}
