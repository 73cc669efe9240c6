//! The labels of a request or connection, in Istio's order. Source: istio_stats, `populatePeerInfo`.
use std::sync::Arc;

use ::http::HeaderValue;

use super::super::workload::{Principals, Workload};
use super::destination::{Destination, RouteKind, Service, service_of};
use super::{Reporter, VALUE_BYTES};

/// All labels. A label is known by its place here.
pub(super) const NAMES: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];
pub(super) const REPORTER: usize = 0;
pub(super) const REQUEST_PROTOCOL: usize = 20;
pub(super) const RESPONSE_CODE: usize = 21;
pub(super) const GRPC_RESPONSE_STATUS: usize = 22;
pub(super) const RESPONSE_FLAGS: usize = 23;
pub(super) const CONNECTION_SECURITY_POLICY: usize = 24;

/// Labels by their place in [`NAMES`].
pub(super) type Labels = Vec<(usize, Arc<str>)>;

/// Who took part in a request or connection.
pub(super) struct Parties<'a> {
    /// The other side's workload.
    pub(super) workload: Option<&'a Workload>,
    /// Of the connection to the other side.
    pub(super) principals: Option<&'a Principals>,
    pub(super) route: RouteKind,
    pub(super) destination: Option<&'a Destination>,
    /// The Host header, if it may show.
    pub(super) host: Option<&'a HeaderValue>,
}

/// The labels up to `destination_cluster`, which every metric has.
pub(super) fn common(reporter: Reporter, local: &Workload, parties: &Parties<'_>) -> Labels {
    let host = parties.host.map(|host| {
        let text = String::from_utf8_lossy(host.as_bytes());
        Arc::from(cut(&text))
    });
    let service = service_of(parties.route, parties.destination, host);
    let values = match reporter {
        Reporter::Destination => seen_by_server(local, parties, service),
        Reporter::Source => seen_by_client(local, parties, service),
    };
    values.into_iter().enumerate().collect()
}

/// `connection_security_policy`: only the server can say.
pub(super) fn security_policy(reporter: Reporter, principals: Option<&Principals>) -> &'static str {
    match (reporter, principals) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, Some(both)) if both.are_mutual() => "mutual_tls",
        (Reporter::Destination, _) => "none",
    }
}

/// What is known of the other side.
struct Peer {
    workload: Arc<str>,
    canonical_service: Arc<str>,
    canonical_revision: Arc<str>,
    namespace: Option<Arc<str>>,
    principal: Option<Arc<str>>,
    app: Arc<str>,
    version: Arc<str>,
    cluster: Arc<str>,
}

impl Peer {
    fn new(reporter: Reporter, parties: &Parties<'_>) -> Peer {
        let workload = parties.workload;
        let known = |field: fn(&Workload) -> &Arc<str>| workload.map(field).filter(|text| !text.is_empty());
        let or_unknown = |field| known(field).map_or_else(unknown, short);
        let certified = parties.principals.map(|both| &both.peer);
        // A server believes certificates only.
        let said = known(|workload| &workload.identity).filter(|_| reporter == Reporter::Source);
        let principal = certified.filter(|text| !text.is_empty()).or(said).cloned();
        let certified_namespace = principal.as_deref().and_then(Principals::namespace);
        Peer {
            workload: or_unknown(|workload| &workload.name),
            canonical_service: or_unknown(|workload| &workload.canonical_name),
            canonical_revision: known(|workload| &workload.canonical_revision)
                .map_or_else(|| "latest".into(), short),
            namespace: certified_namespace
                .map(Arc::from)
                .or_else(|| known(|workload| &workload.namespace).map(short)),
            app: or_unknown(|workload| &workload.app),
            version: or_unknown(|workload| &workload.version),
            cluster: or_unknown(|workload| &workload.cluster),
            principal,
        }
    }
}

fn seen_by_server(local: &Workload, parties: &Parties<'_>, service: Service) -> [Arc<str>; 20] {
    let peer = Peer::new(Reporter::Destination, parties);
    let canonical = || local.canonical_name.clone();
    [
        "destination".into(),
        peer.workload,
        peer.canonical_service,
        peer.canonical_revision,
        peer.namespace.unwrap_or_else(unknown),
        peer.principal.unwrap_or_else(unknown),
        peer.app,
        peer.version,
        peer.cluster,
        local.name.clone(),
        local.namespace.clone(),
        own_principal(parties),
        local.app.clone(),
        local.version.clone(),
        service.host.unwrap_or_else(canonical),
        canonical(),
        local.canonical_revision.clone(),
        service.name.unwrap_or_else(canonical),
        local.namespace.clone(),
        local.cluster.clone(),
    ]
}

fn seen_by_client(local: &Workload, parties: &Parties<'_>, service: Service) -> [Arc<str>; 20] {
    let peer = Peer::new(Reporter::Source, parties);
    let namespace = peer.namespace.unwrap_or_else(unknown);
    [
        "source".into(),
        local.name.clone(),
        local.canonical_name.clone(),
        local.canonical_revision.clone(),
        local.namespace.clone(),
        own_principal(parties),
        local.app.clone(),
        local.version.clone(),
        local.cluster.clone(),
        peer.workload,
        namespace.clone(),
        peer.principal.unwrap_or_else(unknown),
        peer.app,
        peer.version,
        service.host.unwrap_or_else(unknown),
        peer.canonical_service,
        peer.canonical_revision,
        service.name.unwrap_or_else(unknown),
        service
            .namespace
            .filter(|text| !text.is_empty())
            .unwrap_or(namespace),
        peer.cluster,
    ]
}

fn own_principal(parties: &Parties<'_>) -> Arc<str> {
    let own = parties.principals.map(|both| &both.local);
    own.filter(|text| !text.is_empty())
        .map_or_else(unknown, Arc::clone)
}

fn unknown() -> Arc<str> {
    "unknown".into()
}

fn short(text: &Arc<str>) -> Arc<str> {
    if text.len() <= VALUE_BYTES {
        Arc::clone(text)
    } else {
        cut(text).into()
    }
}

/// At most [`VALUE_BYTES`], whole characters.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(VALUE_BYTES)).unwrap_or(text)
}
