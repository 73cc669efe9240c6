//! A default filter chain that no connection can reach. Chains that match the same connections are the model's matter: it refuses them.
//!
//! There is no order among chains, the most specific one wins, so none hides another; but one that asks for nothing leaves nothing over.
//! Source: listener.proto `default_filter_chain`.
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _};

use super::finding::{Findings, Rule};
use super::resource::Resource;
use super::walk::At;

/// Judges the chains of a listener; passes over any other message.
pub(super) fn check(message: &DynamicMessage, at: &At<'_>, resource: &Resource, findings: &mut Findings) {
    if message.descriptor().full_name() != "envoy.config.listener.v3.Listener" {
        return;
    }
    let Ok(listener) = Listener::decode(message.encode_to_vec().as_slice()) else {
        return;
    };
    // A matcher tree chooses by name instead.
    if listener.filter_chain_matcher.is_some() || listener.default_filter_chain.is_none() {
        return;
    }
    let takes_all = |chain: &FilterChain| {
        let criteria = chain.filter_chain_match.as_ref();
        criteria.is_none_or(|criteria| *criteria == FilterChainMatch::default())
    };
    if let Some(index) = listener.filter_chains.iter().position(takes_all) {
        let reason = format!("never used: filter_chains[{index}] matches every connection");
        let path = at.field("default_filter_chain");
        findings.add(Rule::ShadowedChain, resource, &path, reason, None);
    }
}
