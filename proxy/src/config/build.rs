//! Model values to what workers use. Pure but for the cells and counters it registers.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_model::address::Address;
use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::cluster::Cluster as ClusterConfig;
use outrigger_model::filter_chain::{FilterChain, NetworkFilter, TerminalFilter};
use outrigger_model::hcm::{HttpConnectionManager, RouteSource};
use outrigger_model::http_filter::PlacedFilter;
use outrigger_model::listener::{Listener as ListenerConfig, TrafficDirection};
use outrigger_model::scoped_routes::ScopeSource;

use super::clusters::Kept;
use super::recipe;
use super::scopes::inline_scopes;
use super::secrets::Secrets;
use crate::drain::Drain;
use crate::http::manager::{ConnectionManager, Parts};
use crate::http::route_table::{RouteCell, RouteTable};
use crate::http::scoped_routes::{Routes, ScopeCell};
use crate::listener::inspect::Inspector;
use crate::listener::limits::Limits;
use crate::listener::runtime::{Chain, Exchange, Listener, ListenerStats, Terminal};
use crate::network_filter::limits::{Count, Gate, Rate};
use crate::network_filter::metadata_exchange::ExchangeStats;
use crate::network_filter::mongo_proxy::MongoProxy;
use crate::network_filter::tcp_proxy::{Filters, TcpProxy};
use crate::stats::Registry;
use crate::telemetry::access_log::{AccessLogError, AccessLogger, LogSinks};
use crate::telemetry::istio_stats::{IstioMetrics, IstioStats};
use crate::telemetry::peer::LocalPeers;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::ClusterTable;
use crate::upstream::lb::LocalZone;
use crate::upstream::stats::ClusterStats;

/// What building needs of the process.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Counters.
    pub(crate) registry: Arc<Registry>,
    /// Clusters by name.
    pub(crate) clusters: Arc<ClusterTable>,
    /// Log files.
    pub(crate) sinks: LogSinks,
    /// Who this proxy is.
    pub(crate) local_peers: Arc<LocalPeers>,
    /// Connections whose filter chain is gone have this long.
    pub(crate) drain_time: Duration,
    /// Names of hosts are resolved, and clusters wait for that.
    pub(crate) resolves_names: bool,
    /// Where this proxy and its peers are.
    pub(crate) zone: Arc<LocalZone>,
    /// How many downstream connections there may be.
    pub(crate) limits: Limits,
    /// Istio's metrics.
    pub(crate) istio: Arc<IstioMetrics>,
}

/// Why a valid resource cannot be put to use here.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// The log cannot be opened.
    #[error("access_log: {0}")]
    AccessLog(#[from] AccessLogError),
    /// A pattern that the model let pass.
    #[error("http_connection_manager: {0}")]
    Regex(#[from] Box<regex::Error>),
    /// Not an IP address.
    #[error(
        "address: {0}: listeners on pipes or host names are not supported yet (traffic issue); give an IP address"
    )]
    Address(String),
}

/// The runtime cluster of a configuration that is at hand; see [`super::recipe`] for others.
pub(super) fn cluster(
    shared: &Shared,
    config: &Arc<ClusterConfig>,
    kept: &Kept,
    previous: Option<&Cluster>,
) -> Cluster {
    let stats = ClusterStats::new(&shared.registry, &config.stat_name);
    let mut secrets = kept.tls.iter().map(|needs| needs.secrets.clone());
    Cluster::new(config.clone(), stats, previous, &shared.zone, |tls| {
        recipe::client_tls(tls, secrets.next().unwrap_or_default(), previous)
    })
}

/// The cells of what is discovered.
pub(super) trait Cells {
    /// Of a route table.
    fn table(&mut self, server: &ConfigServer, name: &str) -> Arc<RouteCell>;
    /// Of a server's scopes.
    fn scopes(&mut self, server: &ConfigServer) -> Arc<ScopeCell>;
    /// The filters that are there in the place of discovered ones; `None`: none is discovered.
    fn filters(&self, configured: &[PlacedFilter]) -> Option<Vec<PlacedFilter>>;
    /// Updates of these filters are for this connection manager.
    fn follow(&mut self, manager: &Arc<ConnectionManager>, in_use: Vec<PlacedFilter>);
}

/// The runtime listener. Chains that `previous` has too are taken over.
pub(super) fn listener(
    shared: &Shared,
    secrets: &mut Secrets,
    config: &Arc<ListenerConfig>,
    previous: Option<&Listener>,
    cells: &mut dyn Cells,
) -> Result<Listener, BuildError> {
    let addresses = addresses(config)?;
    let mut builder = Builder {
        shared,
        secrets,
        direction: config.direction,
        buffer_limit_bytes: config.buffer_limit_bytes,
        cells,
    };
    let previous = previous.filter(|previous| {
        previous.direction == config.direction
            && previous.config.buffer_limit_bytes == config.buffer_limit_bytes
    });
    let mut chain = |config: &FilterChain| match previous.and_then(|previous| previous.chain_of(config)) {
        Some(unchanged) => Ok(unchanged.clone()),
        None => builder.chain(config).map(Arc::new),
    };
    let chains = config.filter_chains.iter().map(&mut chain);
    let chains = chains.collect::<Result<Vec<_>, _>>()?;
    let default_chain = config.default_filter_chain.as_ref().map(&mut chain);
    let stat_address = addresses.first().map(stat_address).unwrap_or_default();
    Ok(Listener {
        config: config.clone(),
        name: config.name.as_str().into(),
        addresses,
        use_original_dst: config.use_original_dst,
        direction: config.direction,
        listener_filters: config
            .listener_filters
            .iter()
            .map(|filter| Inspector::new(filter, &shared.registry))
            .collect(),
        inspect_timeout: config.listener_filters_timeout,
        continue_on_inspect_timeout: config.continue_on_listener_filters_timeout,
        chains,
        default_chain: default_chain.transpose()?,
        access_log: AccessLogger::build(&config.access_log, &shared.sinks)?,
        limits: shared.limits.of(config),
        stats: ListenerStats::new(&shared.registry, &stat_address),
    })
}

/// The addresses a listener has.
pub(super) fn addresses(config: &ListenerConfig) -> Result<Vec<SocketAddr>, BuildError> {
    std::iter::once(&config.address)
        .chain(&config.additional_addresses)
        .map(|address| match address {
            Address::Socket(address) => Ok(*address),
            Address::Pipe(path) => Err(BuildError::Address(path.display().to_string())),
            Address::Host { name, .. } => Err(BuildError::Address(name.clone())),
        })
        .collect()
}

/// `0.0.0.0_15006`, as Envoy's listener stats.
fn stat_address(address: &SocketAddr) -> String {
    address.to_string().replace(':', "_")
}

struct Builder<'a> {
    shared: &'a Shared,
    secrets: &'a mut Secrets,
    direction: TrafficDirection,
    buffer_limit_bytes: u32,
    cells: &'a mut dyn Cells,
}

impl Builder<'_> {
    fn chain(&mut self, config: &FilterChain) -> Result<Chain, BuildError> {
        let exchange = config.filters.iter().find_map(|filter| match filter {
            NetworkFilter::MetadataExchange(exchange) => Some(Exchange {
                protocol: exchange.protocol.clone(),
                local_peer: self.shared.local_peers.with_labels(&exchange.additional_labels),
                stats: ExchangeStats::new(&self.shared.registry),
            }),
            _ => None,
        });
        let istio_stats = config.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::IstioStats(stats) => {
                Some(IstioStats::new(stats, self.direction, &self.shared.istio))
            }
            _ => None,
        });
        let mongo = config.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::MongoProxy(mongo) => {
                Some(MongoProxy::new(mongo, &self.shared.registry, &self.shared.sinks))
            }
            _ => None,
        });
        let registry = &self.shared.registry;
        let gates = config.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::ConnectionLimit(limit) => Some(Gate::Count(Count::new(limit, registry))),
            NetworkFilter::ConnectionRate(rate) => Some(Gate::Rate(Rate::of_chain(rate, registry))),
            _ => None,
        });
        let terminal = match &config.terminal {
            TerminalFilter::TcpProxy(tcp) => {
                let access_log = AccessLogger::build(&tcp.access_log, &self.shared.sinks)?;
                let Shared {
                    clusters,
                    local_peers,
                    registry,
                    ..
                } = self.shared;
                let filters = Filters {
                    istio_stats: istio_stats.collect(),
                    mongo: mongo.collect::<Result<_, _>>()?,
                };
                let proxy = TcpProxy::new(tcp, clusters, access_log, filters, local_peers, registry);
                Terminal::Tcp(Box::new(proxy))
            }
            TerminalFilter::Http(http) => Terminal::Http(self.manager(http)?),
        };
        Ok(Chain {
            name: config.name.as_str().into(),
            tls: config.tls.as_ref().map(|tls| self.secrets.server_cell(tls)),
            handshake_timeout: config.transport_connect_timeout,
            gates: gates.collect(),
            exchange,
            terminal,
            drain: Drain::default(),
            drain_time: self.shared.drain_time,
        })
    }

    fn manager(&mut self, config: &HttpConnectionManager) -> Result<Arc<ConnectionManager>, BuildError> {
        let routes = match &config.routes {
            RouteSource::Rds { name, source } => Routes::Table(self.cells.table(&source.server, name)),
            RouteSource::Inline(table) => {
                let table = RouteTable::new(table, &self.shared.clusters, &self.shared.registry);
                Routes::Table(RouteCell::new(table.map_err(Box::new)?))
            }
            RouteSource::Scoped(routes) => Routes::Scoped {
                key: routes.key_parts.clone(),
                scopes: match &routes.scopes {
                    ScopeSource::Discovered { srds, .. } => self.cells.scopes(&srds.server),
                    ScopeSource::Inline(scopes) => inline_scopes(scopes, self.shared),
                },
            },
        };
        let discovered = self.cells.filters(&config.filters);
        let parts = Parts {
            discovered: discovered.as_deref(),
            direction: self.direction,
            routes,
            access_log: AccessLogger::build(&config.access_log, &self.shared.sinks)?,
            local_peers: &self.shared.local_peers,
            istio: &self.shared.istio,
            registry: &self.shared.registry,
            clusters: &self.shared.clusters,
            buffer_limit_bytes: self.buffer_limit_bytes,
        };
        let manager = ConnectionManager::new(config.clone(), parts).map_err(Box::new)?;
        let manager = Arc::new(manager);
        if let Some(in_use) = discovered {
            self.cells.follow(&manager, in_use);
        }
        Ok(manager)
    }
}
