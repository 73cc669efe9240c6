//! The bootstrap that Istio's agent writes is read, and what of it has no effect is known. Source of its parts: contract §2.2.
use std::fmt::Write as _;

use super::{check_golden, repository};
use crate::bootstrap::{AdsMode, Bootstrap};
use crate::decode;
use crate::document::{UnknownFields, read_bootstrap};
use crate::field::Converted;

fn converted() -> Converted<Bootstrap> {
    let path = repository().join("tests/data/istio-bootstrap.json");
    let (message, _) = read_bootstrap(&path, None, UnknownFields::Refuse).unwrap();
    decode::bootstrap(message).unwrap()
}

#[test]
fn the_agents_bootstrap_converts_and_its_problems_are_known() {
    let mut text = String::new();
    for problem in converted().problems {
        writeln!(text, "{problem}").unwrap();
    }
    let golden = repository().join("proxy/model/tests/golden/istio_bootstrap_problems.txt");
    check_golden(&golden, &text);
}

#[test]
fn the_agents_bootstrap_leads_to_the_control_plane_and_keeps_the_ports_that_probes_use() {
    let bootstrap = converted().value;
    let ads = bootstrap.ads.unwrap();
    assert_eq!(
        (ads.mode, ads.server.cluster.as_str()),
        (AdsMode::Delta, "xds-grpc")
    );
    assert!(bootstrap.cds.is_some() && bootstrap.lds.is_some());
    assert_eq!(bootstrap.admin, Some(([127, 0, 0, 1], 15000).into()));
    let listeners = bootstrap.listeners.iter().map(|listener| listener.name.as_str());
    assert_eq!(listeners.collect::<Vec<_>>(), ["0.0.0.0:15090", "0.0.0.0:15021"]);
    let look_ahead = bootstrap
        .stats_tags
        .iter()
        .find(|tag| tag.name == "http_conn_manager_listener_prefix");
    assert!(look_ahead.is_some(), "{:?}", bootstrap.stats_tags);
}
