//! Captured configuration without the filters that only Istio's build of Envoy has.
//!
//! Stock Envoy refuses a listener that names a filter it was not built with. What goes: `istio.metadata_exchange`,
//! `istio.alpn`, `istio.stats` and the peer-metadata filters, in filter chains, connection managers and clusters. What
//! stays is unchanged, byte for byte where a resource holds none of them.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use crate::control_plane::{CLUSTER, LISTENER};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// A resource without Istio's own filters. What is no cluster or listener, or holds none, comes back as it is.
pub fn without_istio_filters(resource: Any) -> Any {
    match resource.type_url.as_str() {
        CLUSTER => edit(resource, |cluster: &mut Cluster| {
            cluster
                .filters
                .retain(|filter| !filter.typed_config.as_ref().is_some_and(is_istio));
        }),
        LISTENER => edit(resource, |listener: &mut Listener| {
            listener
                .filter_chains
                .iter_mut()
                .chain(&mut listener.default_filter_chain)
                .for_each(strip_chain);
        }),
        _ => resource,
    }
}

fn strip_chain(chain: &mut FilterChain) {
    chain.filters.retain(
        |filter| !matches!(&filter.config_type, Some(filter::ConfigType::TypedConfig(any)) if is_istio(any)),
    );
    for filter in &mut chain.filters {
        if let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type
            && any.type_url == HCM
        {
            *any = edit(std::mem::take(any), strip_http);
        }
    }
}

fn strip_http(manager: &mut HttpConnectionManager) {
    manager.http_filters.retain(|filter| {
        !matches!(&filter.config_type, Some(http_filter::ConfigType::TypedConfig(any)) if is_istio(any))
    });
}

/// Decodes, changes and encodes again. Bytes stay as they are when nothing changed, or when they are no `M`.
fn edit<M: Message + Default + Clone + PartialEq>(any: Any, change: impl FnOnce(&mut M)) -> Any {
    let Ok(before) = M::decode(any.value.as_slice()) else {
        return any;
    };
    let mut after = before.clone();
    change(&mut after);
    if before == after {
        return any;
    }
    Any {
        value: after.encode_to_vec(),
        ..any
    }
}

/// Whether a filter's configuration is for a filter that stock Envoy lacks.
fn is_istio(any: &Any) -> bool {
    let url = &any.type_url;
    url.ends_with("TypedStruct")
        || url.contains("istio")
        || url.contains("metadataexchange")
        || url.ends_with("stats.PluginConfig")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use envoy_types::pb::envoy::config::listener::v3::Filter;

    use super::*;

    fn filter(type_url: &str) -> Filter {
        let any = Any {
            type_url: type_url.to_owned(),
            value: Vec::new(),
        };
        Filter {
            name: type_url.to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(any)),
        }
    }

    fn check(filters: &[&str], expected: &[&str]) {
        let chain = FilterChain {
            filters: filters.iter().map(|url| filter(url)).collect(),
            ..Default::default()
        };
        let listener = Listener {
            default_filter_chain: Some(chain),
            ..Default::default()
        };
        let any = Any {
            type_url: LISTENER.to_owned(),
            value: listener.encode_to_vec(),
        };
        let stripped = without_istio_filters(any);
        let listener = Listener::decode(stripped.value.as_slice()).unwrap();
        let names: Vec<_> = listener
            .default_filter_chain
            .unwrap()
            .filters
            .into_iter()
            .map(|filter| filter.name)
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn filters_of_istio_go_and_others_stay() {
        let tcp_proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
        check(&[tcp_proxy], &[tcp_proxy]);
        check(
            &["type.googleapis.com/udpa.type.v1.TypedStruct", tcp_proxy],
            &[tcp_proxy],
        );
        check(
            &["type.googleapis.com/stats.PluginConfig", tcp_proxy],
            &[tcp_proxy],
        );
    }
}
