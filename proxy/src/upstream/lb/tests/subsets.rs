//! What comes and goes with the hosts. Who gets a request is compared with Envoy: `tests/it/alone/subsets.rs`.
use std::collections::BTreeMap;

use outrigger_model::cluster::{SelectorFallback, SubsetFallback, SubsetPolicy, SubsetSelector};
use outrigger_model::metadata::{SUBSET_NAMESPACE, Value};

use super::*;
use crate::stats::{Counter, Gauge};

pub(super) fn subsets() -> SubsetPolicy {
    SubsetPolicy {
        selectors: vec![SubsetSelector {
            keys: vec!["version".into()],
            fallback: SelectorFallback::OfCluster,
            is_single_host: false,
        }],
        fallback: SubsetFallback::Nobody,
        default_subset: BTreeMap::new(),
        weighs_localities: false,
        scales_locality_weights: false,
        panics_to_any: false,
        list_matches_any: false,
        allows_other_labels: false,
        takes_fallback_list: false,
    }
}

/// Hosts with these versions.
pub(super) fn of_versions(versions: &[&str], settings: &Settings) -> HostSet {
    let endpoints = versions.iter().zip(1..).map(|(version, last)| {
        let labels = BTreeMap::from([("version".to_owned(), Value::String((*version).to_owned()))]);
        Arc::new(Endpoint {
            address: Address::Socket(SocketAddr::from(([10, 0, 0, last], 80))),
            additional_addresses: Default::default(),
            hostname: String::new(),
            weight: 1,
            health: Health::Healthy,
            metadata: Metadata(BTreeMap::from([(SUBSET_NAMESPACE.to_owned(), labels)])),
            health_check: None,
        })
    });
    let assignment = LoadAssignment {
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: None,
            endpoints: endpoints.collect(),
        }],
        overprovisioning_factor: 140,
        weighs_health: false,
        stale_after: None,
        dropped: outrigger_model::fraction::Fraction::NONE,
    };
    build(&assignment, settings)
}

#[test]
fn subsets_come_and_go_with_the_versions_of_hosts() {
    let settings = Settings {
        subsets: Some(Arc::new(subsets())),
        ..settings(LbPolicy::RoundRobin)
    };
    let registry = crate::stats::Registry::new(crate::stats::TagRules::new(&[], false).expect("no rule"));
    let counter = |name: &str| -> Counter { registry.counter(name.to_owned()) };
    let gauge = |name: &str| -> Gauge { registry.gauge(name.to_owned()) };
    let stats = SubsetStats::new(counter, gauge);
    let mut before: Option<HostSet> = None;
    for (versions, expected) in [
        (&["v1", "v2", "v1"][..], [2, 2, 0]),
        (&["v1", "v2"], [2, 2, 0]),
        (&["v2", "v3"], [2, 3, 1]),
        (&[], [0, 3, 3]),
    ] {
        let hosts = of_versions(versions, &settings);
        let now = hosts.subsets.as_deref().expect("they are configured");
        stats.show(now, before.as_ref().and_then(|before| before.subsets.as_deref()));
        // Active, created, removed.
        assert_eq!(stats.values(), expected, "{versions:?}");
        before = Some(hosts);
    }
}
