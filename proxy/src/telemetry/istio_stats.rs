//! Istio's standard metrics, `istio_requests_total` and its kin: what `istio.stats` filters count.
//!
//! [`IstioMetrics`] belongs to the process, an [`IstioStats`] to one configured filter. Labels become stats once: a worker then finds
//! the stats of a request by a key of serial numbers (filter, cluster, peer, certificates), code and flags, without touching a string.
//! Where only the Host header says the service, it is part of the key. Costs: one map lookup and four counts a request; a new set of
//! labels takes the registry's lock and about 10 KiB, for as long as the process lives, and there are at most [`LIMIT`].
//!
//! Pure but for counting. Source: contract §5; values and their order as envoy contrib/istio/filters/http/istio_stats.
mod destination;
mod http;
mod labels;
mod messages;
mod series;
mod tcp;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use ::http::HeaderValue;
use outrigger_model::listener::TrafficDirection;
use outrigger_model::metadata::Value;
use outrigger_model::network_filter::istio_stats::IstioStats as Config;
use outrigger_model::node::Node;

pub(crate) use destination::Destination;
pub(crate) use http::HttpEnd;
pub(crate) use messages::MessageReport;
pub(crate) use tcp::TcpReport;

use super::recent::Serial;
use super::stream_info::StreamInfo;
use super::workload::Workload;
use crate::stats::{Counter, Registry, Tags};
use destination::{RouteKind, shows_host};
use labels::Parties;
use series::Overrides;

/// Sets of labels that may exist. What comes later is counted under labels that say so, and in
/// `istio_label_sets_over_limit_total`: clients choose the Host header, and memory has an end.
const LIMIT: usize = 4096;
/// Longest label value, in bytes, of what peers and clients say. Names of Kubernetes and of hosts have at most 253.
const VALUE_BYTES: usize = 256;

/// What all filters of the process share.
#[derive(Debug)]
pub(crate) struct IstioMetrics {
    registry: Arc<Registry>,
    local: Workload,
    label_names: Box<[Arc<str>]>,
    metric_names: Box<[Arc<str>]>,
    sets: AtomicUsize,
    limit: usize,
    over_limit: Counter,
    version: Arc<str>,
}

/// Which side of a request tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reporter {
    /// The client's sidecar: an outbound listener.
    Source,
    /// The server's: an inbound listener.
    Destination,
}

/// One `istio.stats` filter.
#[derive(Debug)]
pub(crate) struct IstioStats {
    serial: Serial,
    reporter: Reporter,
    uses_host: bool,
    overrides: Overrides,
    metrics: Arc<IstioMetrics>,
    /// Time between two reports of what lasts.
    pub(crate) reporting_interval: Option<Duration>,
}

impl IstioMetrics {
    /// For this node. Registers nothing yet.
    pub(crate) fn new(registry: &Arc<Registry>, node: &Node) -> Arc<IstioMetrics> {
        IstioMetrics::with_limit(registry, node, LIMIT)
    }

    fn with_limit(registry: &Arc<Registry>, node: &Node, limit: usize) -> Arc<IstioMetrics> {
        let version = node.metadata.get("ISTIO_VERSION").and_then(Value::as_str);
        Arc::new(IstioMetrics {
            registry: Arc::clone(registry),
            local: Workload::local(&node.metadata),
            label_names: labels::NAMES.map(Arc::from).into(),
            metric_names: series::metric_names(),
            sets: AtomicUsize::new(0),
            limit,
            over_limit: registry.counter("istiocustom.istio_label_sets_over_limit_total"),
            version: version
                .filter(|text| !text.is_empty())
                .unwrap_or("unknown")
                .into(),
        })
    }

    /// `istio_build`: there is a filter, so there is the metric.
    fn tell_version(&self) {
        let tags: Tags = [("component", "proxy"), ("tag", &*self.version)]
            .map(|(tag, value)| (Arc::from(tag), Arc::from(value)))
            .into();
        let metric = Arc::from("istiocustom.istio_build");
        self.registry.tagged_gauge(&metric, &tags).set(1);
    }
}

impl IstioStats {
    /// A filter of a listener of this direction.
    pub(crate) fn new(
        config: &Config,
        direction: TrafficDirection,
        metrics: &Arc<IstioMetrics>,
    ) -> IstioStats {
        metrics.tell_version();
        IstioStats {
            serial: Serial::next(),
            reporter: match direction {
                TrafficDirection::Inbound => Reporter::Destination,
                TrafficDirection::Outbound | TrafficDirection::Unspecified => Reporter::Source,
            },
            uses_host: !config.disable_host_header_fallback,
            overrides: Overrides::new(&config.overrides),
            metrics: Arc::clone(metrics),
            reporting_interval: config.reporting_interval,
        }
    }

    /// Who took part, as far as it is known by now.
    fn parties<'a>(&self, info: &'a StreamInfo, host: Option<&'a HeaderValue>) -> Parties<'a> {
        let (peer, principals) = match self.reporter {
            Reporter::Destination => (&info.downstream_peer, &info.connection.principals),
            Reporter::Source => (&info.upstream_peer, &info.upstream.principals),
        };
        let endpoint = match self.reporter {
            Reporter::Destination => None,
            Reporter::Source => info.upstream.workload.as_deref(),
        };
        let route = RouteKind::of(info.route_name.as_ref());
        let destination = info.destination.as_deref();
        Parties {
            workload: peer.as_ref().map(|peer| &peer.workload).or(endpoint),
            principals: principals.as_deref(),
            route,
            destination,
            host: host.filter(|_| self.uses_host && shows_host(route, destination)),
        }
    }

    fn key(&self, parties: &Parties<'_>) -> Key {
        Key {
            filter: self.serial,
            workload: parties.workload.map_or(Serial::NONE, |workload| workload.serial),
            principals: parties.principals.map_or(Serial::NONE, |both| both.serial),
            destination: parties.destination.map_or(Serial::NONE, |cluster| cluster.serial),
            route: parties.route,
            host: parties.host.map(short),
        }
    }
}

/// What the labels of one request follow from, but for how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    filter: Serial,
    workload: Serial,
    principals: Serial,
    destination: Serial,
    route: RouteKind,
    host: Option<HeaderValue>,
}

impl Key {
    /// Without a share in the buffer that the request came in.
    fn owned(&self) -> Key {
        let copy = |host: &HeaderValue| HeaderValue::from_bytes(host.as_bytes()).ok();
        Key {
            host: self.host.as_ref().and_then(copy),
            ..*self
        }
    }
}

/// Only as much as becomes a label. Copies nothing, unless it is too long.
fn short(host: &HeaderValue) -> HeaderValue {
    match host.as_bytes().get(..VALUE_BYTES) {
        Some(head) => HeaderValue::from_bytes(head).unwrap_or_else(|_| host.clone()),
        None => host.clone(),
    }
}

#[cfg(test)]
mod tests;
