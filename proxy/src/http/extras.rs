//! What few connection managers do to heads besides. Source: Envoy `ConnectionManagerUtility::mutateRequestHeaders`,
//! `mutateResponseHeaders`.
mod host;
mod proxy_status;

use std::net::IpAddr;

use http::header::{USER_AGENT, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_model::hcm::HttpConnectionManager;
use outrigger_model::hcm::extras::{HeadExtras, NewScheme};

use self::proxy_status::Status;
use super::client::Finder;
use super::head::X_FORWARDED_PROTO;
use super::header_changes::{Step, change_request, steps};
use super::request_id::X_REQUEST_ID;
use crate::codec::{RequestHead, ResponseHead};
use crate::telemetry::peer::LocalPeers;
use crate::telemetry::stream_info::{ConnectionInfo, StreamInfo};

const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(in crate::http) const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const OWN_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");
const OWN_NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// Headers by which a client that is trusted steers Envoy's router, which sends none of them on.
pub(super) const FOR_THE_ROUTER: [&str; 10] = [
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
];

/// Runtime of [`HeadExtras`].
#[derive(Debug)]
pub(super) struct Extras {
    config: HeadExtras,
    via: Option<HeaderValue>,
    own_cluster: Option<HeaderValue>,
    own_node: Option<HeaderValue>,
    status: Option<Status>,
    finders: Box<[Finder]>,
    early_steps: Box<[Step]>,
}

impl Extras {
    /// Values that do not change from request to request are made once.
    ///
    /// # Errors
    /// A regular expression does not compile (the model refuses such before).
    pub(super) fn new(
        config: &HeadExtras,
        manager: &HttpConnectionManager,
        local: &LocalPeers,
    ) -> Result<Self, regex::Error> {
        let value = |text: &str| HeaderValue::from_str(text).ok().filter(|value| !value.is_empty());
        let names_itself = config.names_itself;
        Ok(Self {
            early_steps: steps(&config.early_steps)?,
            via: value(&config.via_name),
            own_cluster: value(local.cluster()).filter(|_| names_itself),
            own_node: value(local.node_id()).filter(|_| names_itself),
            status: config
                .proxy_status
                .as_ref()
                .map(|config| Status::new(config, manager, local)),
            finders: config.client_finders.iter().filter_map(Finder::new).collect(),
            config: config.clone(),
        })
    }

    /// Changes of headers before anything else is done to them.
    pub(super) fn change_early(&self, head: &mut RequestHead, info: &StreamInfo) {
        change_request(&self.early_steps, head, info);
    }

    /// Somebody with this address is inside.
    pub(super) fn is_internal(&self, client: IpAddr) -> bool {
        self.config
            .internal_ranges
            .iter()
            .any(|range| range.contains(&client))
    }

    /// How clients are found, and how many proxies before this one are trusted.
    pub(super) fn finders(&self) -> (&[Finder], u32) {
        (&self.finders, self.config.trusted_hops)
    }

    /// Proxies before this one are trusted.
    pub(super) fn trusts_hops(&self) -> bool {
        self.config.trusted_hops > 0
    }

    /// Some clients are inside.
    pub(super) fn knows_insiders(&self) -> bool {
        !self.config.internal_ranges.is_empty()
    }

    /// The client is not added to `x-forwarded-for`.
    pub(super) fn keeps_forwarded_for(&self) -> bool {
        self.config.keeps_forwarded_for
    }

    /// Takes from the authority what is not to count. `Some`: the port that a CONNECT has lost.
    pub(super) fn clean_host(&self, own_port: u16, head: &mut RequestHead) -> Option<u32> {
        host::clean(self.config.host_port, self.config.strips_host_dot, own_port, head)
    }

    /// Puts the port back that a CONNECT has lost.
    pub(super) fn restore_port(port: u32, head: &mut RequestHead) {
        host::restore(port, head);
    }

    /// A refused request does not end its connection.
    pub(super) fn keeps_connections(&self) -> bool {
        self.config.keeps_connections
    }

    /// `:scheme` is that of the connection to the server.
    pub(super) fn takes_scheme_of_server(&self) -> bool {
        self.config.new_scheme == Some(NewScheme::OfServer)
    }

    /// What a balancer's port says of the client's scheme.
    pub(super) fn scheme_by_port(&self, connection: &ConnectionInfo) -> Option<&'static str> {
        let port = connection.local_address.port();
        if !connection.is_restored {
            return None;
        }
        if self.config.https_ports.contains(&port) {
            return Some("https");
        }
        self.config.http_ports.contains(&port).then_some("http")
    }

    /// Tells the port that the client reached; `replaces`: nobody before is trusted.
    pub(super) fn tell_port(&self, connection: &ConnectionInfo, replaces: bool, headers: &mut HeaderMap) {
        if self.config.tells_port && (replaces || !headers.contains_key(X_FORWARDED_PORT)) {
            headers.insert(
                X_FORWARDED_PORT,
                HeaderValue::from(connection.local_address.port()),
            );
        }
    }

    /// Marks the request of somebody inside.
    pub(super) fn mark_internal(headers: &mut HeaderMap) {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    }

    /// Says who this proxy is, and sets the scheme.
    pub(super) fn request(&self, head: &mut RequestHead) {
        if let Some(cluster) = &self.own_cluster {
            head.headers.insert(OWN_CLUSTER, cluster.clone());
            let has_agent = head
                .headers
                .get(USER_AGENT)
                .is_some_and(|agent| !agent.is_empty());
            if !has_agent {
                head.headers.insert(USER_AGENT, cluster.clone());
            }
            if let Some(node) = &self.own_node {
                head.headers.insert(OWN_NODE, node.clone());
            }
        }
        self.append_via(&mut head.headers);
        let scheme = match self.config.new_scheme {
            Some(NewScheme::Http) => "http",
            Some(NewScheme::Https) => "https",
            Some(NewScheme::OfServer) | None => return,
        };
        head.scheme = scheme;
        head.headers
            .insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }

    /// The response head, after the filters.
    pub(super) fn response(&self, head: &mut ResponseHead, request: Option<&RequestHead>, info: &StreamInfo) {
        let id = request.filter(|_| self.config.answers_request_id);
        if let Some(id) = id.and_then(|request| request.headers.get(X_REQUEST_ID)) {
            head.headers.insert(X_REQUEST_ID, id.clone());
        }
        self.append_via(&mut head.headers);
        if let Some(status) = &self.status {
            status.tell(head, info);
        }
    }

    fn append_via(&self, headers: &mut HeaderMap) {
        let Some(via) = &self.via else { return };
        let mut value = lines_before(headers, &VIA);
        value.extend_from_slice(via.as_bytes());
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.insert(VIA, value);
        }
    }
}

/// What a value has to begin with that is added to those of all lines there are.
fn lines_before(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let mut before = lines.join(&b","[..]);
    if !before.is_empty() {
        before.extend_from_slice(b", ");
    }
    before
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn extras(config: HeadExtras) -> Extras {
        Extras {
            config,
            via: None,
            own_cluster: None,
            own_node: None,
            status: None,
            finders: Box::default(),
            early_steps: Box::default(),
        }
    }

    #[test]
    fn the_port_that_a_balancer_took_tells_the_scheme() {
        let extras = extras(HeadExtras {
            https_ports: vec![443, 8443],
            http_ports: vec![80],
            ..HeadExtras::default()
        });
        let check = |port: u16, is_restored, expected| {
            let address = ([127, 0, 0, 1], port).into();
            let mut connection = ConnectionInfo::new(0, address, address);
            connection.is_restored = is_restored;
            assert_eq!(extras.scheme_by_port(&Arc::new(connection)), expected, "{port}");
        };
        check(443, true, Some("https"));
        check(8443, true, Some("https"));
        check(80, true, Some("http"));
        check(81, true, None);
        check(443, false, None);
    }
}
