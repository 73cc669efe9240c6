//! The way of one downstream connection. Read [`run`].
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::net::TcpStream;

use super::filter_chain::{self, ConnectionFacts};
use super::inspect::{self, InspectError, Inspection};
use super::record::{self, Begun, HttpRecord};
use super::runtime::{Chain, Exchange, Listener, ListenerCell, Terminal, next_connection_id};
use super::table::ListenerTable;
use crate::http::downstream::Downstream;
use crate::net::connect::reset_on_close;
use crate::net::original_dst::original_dst;
use crate::net::prefixed::Prefixed;
use crate::network_filter::limits::{Counted as Entered, Entrance};
use crate::network_filter::{hcm, metadata_exchange};
use crate::telemetry::peer::Peer;
use crate::telemetry::response_flag::ResponseFlag;
use crate::telemetry::stream_info::{ConnectionInfo, StreamInfo, TlsInfo as LoggedTls};
use crate::time::{self, Instant};
use crate::tls::transport::Transport;
use crate::tls::{SslCounter, TlsInfo};

/// Serves one accepted connection to its end.
///
/// 1. A `use_original_dst` listener hands it to the listener of its original destination.
/// 2. Inspectors look at the first bytes. 3. A filter chain is chosen. 4. TLS. 5. The chain's filters.
pub(super) async fn run(
    cell: Arc<ListenerCell>,
    table: Arc<ListenerTable>,
    mut stream: TcpStream,
    remote: SocketAddr,
) {
    let accepted_by = cell.load();
    let Some(_admitted) = accepted_by.limits.admit(&accepted_by.stats) else {
        return;
    };
    let Ok(own) = stream.local_addr().map(canonical) else {
        return;
    };
    let (mut local, remote) = (own, canonical(remote));
    let _ = stream.set_nodelay(true);
    let listener = if accepted_by.use_original_dst {
        if let Some(destination) = original_dst(&stream) {
            local = destination;
        }
        hand_over(&cell, accepted_by, &table, local)
    } else {
        accepted_by
    };
    let _open = listener.limits.count();
    let begun = Begun::now();
    let accepted = Accepted::new(&listener);
    let Some(mut found) = inspect(&listener, &mut stream, local, remote, begun).await else {
        return;
    };
    let destination = found.original_dst.unwrap_or(local);
    let mut info = ConnectionInfo::new(next_connection_id(), destination, remote);
    info.is_restored = destination != own || listener.is_elsewhere(own);
    info.remote_address = found.source.unwrap_or(remote);
    info.proxy_tlvs = found.proxy_tlvs.take();
    info.metadata = found.metadata.take();
    info.original_source = found.original_source;
    let chain = choose(&listener, &found, &info);
    info.requested_server_name = found.server_name.as_deref().map(Arc::from);
    let Some(chain) = chain else {
        reset_if_unread(&stream, &found);
        return no_chain(&listener, begun.info(info));
    };
    let _counted = Counted::new(&listener);
    drop(accepted);
    info.filter_chain_name = Some(chain.name.clone());
    let _entered = match enter(&chain, &mut stream).await {
        Ok(entered) => entered,
        Err(flag) => {
            reset_if_unread(&stream, &found);
            let mut info = begun.info(info);
            flag.into_iter().for_each(|flag| info.set_flag(flag));
            return record::turned_away(&listener, &chain, info);
        }
    };
    let tcp = Prefixed::new(found.buffer.freeze(), stream);
    let (transport, tls) = match secure(&listener, &chain, tcp, &mut info).await {
        Ok(secured) => secured,
        Err(details) => {
            let mut info = begun.info(info);
            info.connection_termination_details = details.map(Into::into);
            return record::unsecured(&listener, &chain, info);
        }
    };
    let downstream = Rc::new(Downstream::new(Arc::new(info), tls.map(Rc::new)));
    serve(&listener, &chain, downstream, transport, begun).await;
}

/// An IPv4 address that a socket of IPv6 took (`ipv4_compat`) is one of IPv4 for everybody, as in Envoy.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip.is_ipv4() && address.is_ipv6() => SocketAddr::new(ip, address.port()),
        // With its scope.
        _ => address,
    }
}

/// The listener of the original destination, else the one that accepted.
fn hand_over(
    cell: &Arc<ListenerCell>,
    listener: Arc<Listener>,
    table: &ListenerTable,
    destination: SocketAddr,
) -> Arc<Listener> {
    match table.find(destination).filter(|other| !Arc::ptr_eq(other, cell)) {
        Some(other) => other.load(),
        None => listener,
    }
}

async fn inspect(
    listener: &Listener,
    stream: &mut TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    begun: Begun,
) -> Option<Inspection> {
    let mut found = Inspection::default();
    let inspected = inspect::run(&listener.listener_filters, stream, local, &mut found);
    match time::within(listener.inspect_timeout, inspected).await {
        Ok(Ok(())) => return Some(found),
        Ok(Err(error)) => {
            tracing::debug!(listener = %listener.name, %error, "connection ended before it was known what it is");
            match error {
                InspectError::Closed => listener.stats.downstream_listener_filter_remote_close.inc(),
                InspectError::Io(_) => listener.stats.downstream_listener_filter_error.inc(),
                InspectError::Refused(_) => {}
            }
        }
        Err(time::Elapsed) => {
            listener.stats.downstream_pre_cx_timeout.inc();
            if listener.continue_on_inspect_timeout {
                return Some(found);
            }
        }
    }
    reset_if_unread(stream, &found);
    let destination = found.original_dst.unwrap_or(local);
    let remote = found.source.unwrap_or(remote);
    let info = ConnectionInfo::new(next_connection_id(), destination, remote);
    record::log(listener, begun.info(info));
    None
}

/// Envoy only peeks: when it closes now, the kernel still has these bytes and resets the connection.
fn reset_if_unread(stream: &TcpStream, found: &Inspection) {
    if !found.buffer.is_empty() {
        reset_on_close(stream);
    }
}

fn choose(listener: &Listener, found: &Inspection, info: &ConnectionInfo) -> Option<Arc<Chain>> {
    let chains = listener.config.filter_chains.iter();
    let matchers: smallvec::SmallVec<[_; 16]> = chains.map(|chain| &chain.matcher).collect();
    let facts = ConnectionFacts {
        destination: info.local_address,
        source: info.remote_address,
        direct_source: info.direct_remote_address,
        server_name: found.server_name.as_deref().unwrap_or_default(),
        transport_protocol: if found.tls { "tls" } else { "raw_buffer" },
        application_protocols: &found.application_protocols,
    };
    filter_chain::choose(&matchers, &facts)
        .and_then(|index| listener.chains.get(index))
        .or(listener.default_chain.as_ref())
        .cloned()
}

/// Asks the chain's limits in order.
///
/// # Errors
/// The connection may not come in, and has waited for its end; the flag is Envoy's.
async fn enter(
    chain: &Chain,
    stream: &mut TcpStream,
) -> Result<SmallVec<[Entered; 1]>, Option<ResponseFlag>> {
    let mut entered = SmallVec::new();
    for gate in &chain.gates {
        match gate.enter() {
            Entrance::Open(counted) => entered.extend(counted),
            Entrance::TooFast => return Err(Some(ResponseFlag::UpstreamRetryLimitExceeded)),
            Entrance::TooMany(None) => return Err(None),
            Entrance::TooMany(Some((_counted, delay))) => {
                // As Envoy: what the client says meanwhile is read, and forgotten.
                let mut forgotten = tokio::io::sink();
                let _ = time::within(Some(delay), tokio::io::copy(stream, &mut forgotten)).await;
                return Err(None);
            }
        }
    }
    Ok(entered)
}

/// Nothing is served here: closed, counted, logged with `NR`.
fn no_chain(listener: &Listener, mut info: StreamInfo) {
    listener.stats.no_filter_chain_match.inc();
    info.set_flag(ResponseFlag::NoRouteFound);
    info.response_code_details = Some("filter_chain_not_found".into());
    record::log(listener, info);
}

/// Terminates TLS if the chain asks for it.
///
/// # Errors
/// There was no handshake, which is counted; with what logs say of why, in Envoy's words where Envoy has some.
async fn secure(
    listener: &Listener,
    chain: &Chain,
    tcp: Prefixed<TcpStream>,
    info: &mut ConnectionInfo,
) -> Result<(Transport, Option<TlsInfo>), Option<&'static str>> {
    let Some(cell) = &chain.tls else {
        return Ok((Transport::plain(tcp), None));
    };
    let Some(context) = cell.load_full() else {
        tracing::warn!(listener = %listener.name, chain = %chain.name, "connection refused: secrets not delivered (SDS)");
        listener.stats.ssl(SslCounter::ConnectionError);
        return Err(None);
    };
    match time::within(chain.handshake_timeout, context.accept(tcp)).await {
        Ok(Ok((stream, tls))) => {
            tls.counters().for_each(|counter| listener.stats.ssl(counter));
            info.tls = Some(logged(&tls));
            info.principals = Some(tls.principals());
            if info.requested_server_name.is_none() {
                info.requested_server_name.clone_from(&tls.server_name);
            }
            Ok((Transport::server(stream), Some(tls)))
        }
        Ok(Err(error)) => {
            error
                .counter()
                .into_iter()
                .for_each(|counter| listener.stats.ssl(counter));
            if error.counter() != Some(SslCounter::ConnectionError) {
                listener.stats.ssl(SslCounter::ConnectionError);
            }
            tracing::info!(listener = %listener.name, chain = %chain.name, peer = %info.remote_address, %error, "TLS handshake refused");
            info.transport_failure_reason = error.transport_failure_reason().map(Into::into);
            Err(None)
        }
        Err(time::Elapsed) => {
            listener
                .stats
                .downstream_cx_transport_socket_connect_timeout
                .inc();
            Err(Some("transport socket timeout was reached"))
        }
    }
}

fn logged(tls: &TlsInfo) -> LoggedTls {
    LoggedTls {
        version: tls.version,
        cipher: tls.cipher,
        peer_uri_sans: tls
            .peer
            .iter()
            .flat_map(|peer| peer.uri_sans())
            .map(Arc::from)
            .collect(),
        peer_subject: tls.peer.as_ref().map(|peer| peer.subject.as_str().into()),
        local_uri_sans: tls
            .local
            .iter()
            .flat_map(|local| local.uri_sans())
            .map(Arc::from)
            .collect(),
    }
}

/// The chain's filters, until the connection ends or its chain has been gone for the drain time.
async fn serve(
    listener: &Listener,
    chain: &Chain,
    downstream: Rc<Downstream>,
    transport: Transport,
    begun: Begun,
) {
    let mut drain = chain.drain.watch();
    let drained = async {
        drain.started().await;
        time::sleep(chain.drain_time).await;
    };
    tokio::select! {
        () = run_filters(listener, chain, downstream, transport, begun) => {}
        () = drained => tracing::debug!(chain = %chain.name, "connection closed: its filter chain is gone and the drain time is over"),
    }
}

/// TCP metadata exchange where it was agreed on, then the terminal filter.
async fn run_filters(
    listener: &Listener,
    chain: &Chain,
    downstream: Rc<Downstream>,
    mut transport: Transport,
    begun: Begun,
) {
    let drain = chain.drain.watch();
    match &chain.terminal {
        Terminal::Http(manager) => {
            let recorded = HttpRecord::new(listener, &downstream, begun);
            if let Some(counts) = recorded.as_ref().map(HttpRecord::counts) {
                transport = transport.counted(counts);
            }
            hcm::serve(manager.clone(), downstream, transport, drain).await;
        }
        Terminal::Tcp(proxy) => {
            let mut info = begun.shared(downstream.info.clone());
            if let Some(exchange) = &chain.exchange {
                let exchanged = exchange_metadata(exchange, &downstream, &mut transport);
                match time::within(proxy.idle_timeout(), exchanged).await {
                    Ok(Ok(peer)) => info.downstream_peer = peer,
                    Err(time::Elapsed) => {
                        tracing::debug!(chain = %chain.name, "the client has not begun the metadata exchange in time");
                        return proxy.turned_away(info, &listener.access_log);
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(chain = %chain.name, %error, "metadata exchange failed");
                        return proxy.turned_away(info, &listener.access_log);
                    }
                }
            }
            proxy
                .serve(downstream, transport, info, &listener.access_log, drain)
                .await;
        }
    }
}

async fn exchange_metadata(
    exchange: &Exchange,
    downstream: &Downstream,
    transport: &mut Transport,
) -> std::io::Result<Option<Arc<Peer>>> {
    let alpn = downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    if metadata_exchange::agreed(&exchange.protocol, alpn, &exchange.stats) {
        metadata_exchange::write(transport, &exchange.local_peer).await?;
        return metadata_exchange::read(transport, &exchange.stats).await;
    }
    Ok(None)
}

/// Counts a connection from accept until a filter chain serves it.
struct Accepted {
    listener: Arc<Listener>,
}

impl Accepted {
    fn new(listener: &Arc<Listener>) -> Self {
        listener.stats.downstream_pre_cx_active.inc();
        listener.stats.server_total_connections.inc();
        Self {
            listener: listener.clone(),
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.listener.stats.downstream_pre_cx_active.dec();
        self.listener.stats.server_total_connections.dec();
    }
}

/// Counts a connection while a filter chain serves it.
struct Counted {
    listener: Arc<Listener>,
    since: Instant,
}

impl Counted {
    fn new(listener: &Arc<Listener>) -> Self {
        listener.stats.downstream_cx_total.inc();
        listener.stats.downstream_cx_active.inc();
        listener.stats.server_total_connections.inc();
        Self {
            listener: listener.clone(),
            since: Instant::now(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = &self.listener.stats;
        stats.downstream_cx_active.dec();
        stats.server_total_connections.dec();
        stats.downstream_cx_destroy.inc();
        let millis = self.since.elapsed().as_millis();
        stats
            .downstream_cx_length_ms
            .record(u64::try_from(millis).unwrap_or(u64::MAX));
    }
}
