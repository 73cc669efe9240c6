//! Filter chains that match the same connections, or none.
//!
//! Source: Envoy `FilterChainManagerImpl::addFilterChains`: every combination of criteria belongs to one chain, or the listener is
//! refused. There is no order among chains, the most specific one wins, so only equal combinations are in each other's way.
use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _};

use super::finding::{Findings, Rule};
use super::resource::Resource;
use super::walk::At;

/// Pairs are compared; a listener with more chains than this is not one that a person reads about.
const MAX_CHAINS: usize = 2000;

/// Judges the chains of a listener; passes over any other message.
pub(super) fn check(message: &DynamicMessage, at: &At<'_>, resource: &Resource, findings: &mut Findings) {
    if message.descriptor().full_name() != "envoy.config.listener.v3.Listener" {
        return;
    }
    let Ok(listener) = Listener::decode(message.encode_to_vec().as_slice()) else {
        return;
    };
    // A matcher tree chooses by name instead.
    if listener.filter_chain_matcher.is_some() || listener.filter_chains.len() > MAX_CHAINS {
        return;
    }
    let chains: Vec<Criteria> = listener.filter_chains.iter().map(Criteria::of).collect();
    for (index, chain) in chains.iter().enumerate() {
        let path = at.field(&format!("filter_chains[{index}]"));
        let earlier = chains.iter().take(index).position(|earlier| earlier.meets(chain));
        if let Some(earlier) = earlier {
            let reason = match chains.get(earlier) {
                Some(other) if other == chain => {
                    format!("matches the same connections as filter_chains[{earlier}]")
                }
                _ => format!(
                    "matches some of the connections that filter_chains[{earlier}] matches, and neither is more specific"
                ),
            };
            findings.add(Rule::DuplicateMatch, resource, &path, reason, None);
        }
    }
    let catches_all = |chain: &Criteria| chain.0.iter().all(Vec::is_empty);
    if listener.default_filter_chain.is_some()
        && let Some(index) = chains.iter().position(catches_all)
    {
        let reason = format!("never used: filter_chains[{index}] matches every connection");
        let path = at.field("default_filter_chain");
        findings.add(Rule::ShadowedChain, resource, &path, reason, None);
    }
}

/// What a chain asks for: of each criterion one of some texts, or nothing.
#[derive(Debug, PartialEq, Eq)]
struct Criteria([Vec<String>; 9]);

impl Criteria {
    fn of(chain: &FilterChain) -> Self {
        let Some(criteria) = &chain.filter_chain_match else {
            return Self(Default::default());
        };
        // Without behaviour in Envoy: address_suffix, suffix_len; refused there when set.
        let FilterChainMatch {
            destination_port,
            prefix_ranges,
            source_type,
            source_prefix_ranges,
            source_ports,
            server_names,
            transport_protocol,
            application_protocols,
            direct_source_prefix_ranges,
            address_suffix: _,
            suffix_len: _,
        } = criteria;
        let ranges = |ranges: &[CidrRange]| sorted(ranges.iter().map(range));
        let text = |text: &str| Vec::from_iter((!text.is_empty()).then(|| text.to_owned()));
        Self([
            sorted(destination_port.iter().map(|port| port.value.to_string())),
            ranges(prefix_ranges),
            sorted(server_names.iter().map(|name| name.to_ascii_lowercase())),
            text(transport_protocol),
            sorted(application_protocols.iter().cloned()),
            ranges(direct_source_prefix_ranges),
            text(
                &Some(source_type)
                    .filter(|kind| **kind != 0)
                    .map(i32::to_string)
                    .unwrap_or_default(),
            ),
            ranges(source_prefix_ranges),
            sorted(source_ports.iter().map(u32::to_string)),
        ])
    }

    /// Some combination of criteria belongs to both.
    fn meets(&self, other: &Self) -> bool {
        let share = |(left, right): (&Vec<String>, &Vec<String>)| {
            (left.is_empty() && right.is_empty()) || left.iter().any(|item| right.binary_search(item).is_ok())
        };
        self.0.iter().zip(&other.0).all(share)
    }
}

fn sorted(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items
}

/// As the network that it means: `10.0.0.1/8` is `10.0.0.0/8`.
fn range(range: &CidrRange) -> String {
    let length = range.prefix_len.as_ref().map_or(0, |length| length.value);
    let network = format!("{}/{length}", range.address_prefix).parse::<ipnet::IpNet>();
    network.map_or_else(
        |_| format!("{}/{length}", range.address_prefix),
        |network| network.trunc().to_string(),
    )
}
