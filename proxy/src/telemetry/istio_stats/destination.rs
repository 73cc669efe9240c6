//! Which service a request was for: the cluster says it, else its name, else the Host header.
use std::sync::Arc;

use outrigger_model::metadata::{Metadata, Struct, Value};

use super::super::recent::Serial;

/// What a cluster says of the service behind it.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Stands for it in keys.
    pub(crate) serial: Serial,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// One of Istio's clusters that stand for no service.
    Special(Arc<str>),
    /// The first of `istio.services`.
    Service {
        host: Option<Arc<str>>,
        name: Option<Arc<str>>,
        namespace: Option<Arc<str>>,
    },
    Unknown,
}

/// Clusters whose name is told as the service's.
const SPECIAL: [&str; 5] = [
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

impl Destination {
    /// Of a cluster, by its name and metadata.
    pub(crate) fn of_cluster(name: &str, metadata: &Metadata) -> Destination {
        let kind = if SPECIAL.contains(&name) {
            Kind::Special(name.into())
        } else {
            service(metadata).map_or(Kind::Unknown, |service| Kind::Service {
                host: text(service, "host"),
                name: text(service, "name"),
                namespace: text(service, "namespace"),
            })
        };
        Destination {
            serial: Serial::next(),
            kind,
        }
    }
}

fn service(metadata: &Metadata) -> Option<&Struct> {
    metadata.get("istio", "services")?.as_list()?.first()?.as_struct()
}

fn text(service: &Struct, key: &str) -> Option<Arc<str>> {
    service.get(key).and_then(Value::as_str).map(Arc::from)
}

/// Routes of Istio whose name says more than their cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RouteKind {
    /// `block_all`: REGISTRY_ONLY, and the host is unknown.
    BlockAll,
    /// `allow_any`: ALLOW_ANY, and the host is unknown.
    AllowAny,
    Other,
}

impl RouteKind {
    pub(super) fn of(route: Option<&Arc<str>>) -> RouteKind {
        match route.map(|name| &**name) {
            Some("block_all") => RouteKind::BlockAll,
            Some("allow_any") => RouteKind::AllowAny,
            _ => RouteKind::Other,
        }
    }
}

/// The service of one request; `None`: not known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) host: Option<Arc<str>>,
    pub(super) name: Option<Arc<str>>,
    pub(super) namespace: Option<Arc<str>>,
}

/// Whether the Host header can show in [`service_of`]'s result.
pub(super) fn shows_host(route: RouteKind, destination: Option<&Destination>) -> bool {
    let says_host =
        |destination: &Destination| matches!(destination.kind, Kind::Service { host: Some(_), .. });
    route != RouteKind::Other || !destination.is_some_and(says_host)
}

/// Source: istio_stats, `populatePeerInfo`. `host`: the Host header, unless it may not be used.
pub(super) fn service_of(
    route: RouteKind,
    destination: Option<&Destination>,
    host: Option<Arc<str>>,
) -> Service {
    let special = |name: Arc<str>, host| Service {
        host,
        name: Some(name),
        namespace: None,
    };
    match (route, destination.map(|destination| &destination.kind)) {
        (RouteKind::BlockAll, _) => special("BlackHoleCluster".into(), host),
        (RouteKind::AllowAny, _) => special("PassthroughCluster".into(), host),
        (RouteKind::Other, Some(Kind::Special(name))) => special(name.clone(), host),
        (
            RouteKind::Other,
            Some(Kind::Service {
                host: service_host,
                name,
                namespace,
            }),
        ) => {
            let host = service_host.clone().or(host);
            let short = || Some(host.as_deref()?.split('.').next()?.into());
            Service {
                name: name.clone().or_else(short),
                namespace: namespace.clone(),
                host,
            }
        }
        (RouteKind::Other, Some(Kind::Unknown) | None) => Service {
            name: host.clone(),
            host,
            namespace: None,
        },
    }
}
