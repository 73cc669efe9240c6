//! Requests that come from outside of what is trusted (`use_remote_address: true`): what they say of themselves is replaced.
//!
//! Source: Envoy `ConnectionManagerUtility::mutateRequestHeaders`; docs, HTTP header manipulation, x-forwarded-for. Who is
//! internal `internal_address_config` says.
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_model::hcm::HttpConnectionManager;

use crate::net::local_address::local_address;

pub(in crate::http) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
/// What only a sidecar of the mesh says of itself.
const OF_A_SIDECAR: [&str; 3] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
];

/// Writes down who `client` is, and takes out what it may not say. It is not internal.
pub(super) fn arrive(config: &HttpConnectionManager, client: IpAddr, headers: &mut HeaderMap) {
    for name in OF_A_SIDECAR {
        headers.remove(name);
    }
    if config.generate_request_id && !config.preserve_external_request_id {
        headers.remove(X_REQUEST_ID);
    }
    if let Ok(value) = HeaderValue::from_str(&client.to_string()) {
        headers.insert(EXTERNAL_ADDRESS, value);
    }
}

/// Adds who connected to the list of hops.
pub(super) fn append_forwarded_for(headers: &mut HeaderMap, client: IpAddr) {
    // Envoy: a hop on this machine is told apart from no hop.
    let hop = match client.is_loopback() {
        true => local_address(),
        false => client,
    };
    let mut list = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        if !list.is_empty() || !value.is_empty() {
            list.extend_from_slice(value.as_bytes());
            list.push(b',');
        }
    }
    list.extend_from_slice(hop.to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}
