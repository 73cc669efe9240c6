//! The proof of the bill-service mesh: captured and recorded istiod configuration carries real traffic.
//!
//! Each behaviour is proved for four pairs of proxies: outrigger on both sides, mixed with Envoy either way, and Envoy on
//! both sides. What the last one does is what the others must do. Two outriggers agreeing with each other would prove
//! nothing about ALPN, SAN checks or XFCC.

mod bad_input;
mod certificates;
mod compare;
mod dead_hosts;
mod manager_stats;
mod metrics;
mod rotation;
mod snapshot;
mod split;
mod streams;
mod updates;

use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use prost::Message;

use crate::pair::{Pair, assert_no_failure, assert_share, for_every_pair, linger};

/// Gives every connection manager of a listener this `server` header: a change that every response shows.
fn rename_server(listener: &mut Listener, name: &str) {
    let chains = listener
        .filter_chains
        .iter_mut()
        .chain(&mut listener.default_filter_chain);
    for filter in chains.flat_map(|chain| &mut chain.filters) {
        if let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type
            && any.type_url.ends_with("HttpConnectionManager")
        {
            let mut manager = HttpConnectionManager::decode(any.value.as_slice()).expect("captures decode");
            manager.server_name = name.to_owned();
            any.value = manager.encode_to_vec();
        }
    }
}
