//! The bootstrap's own resources: served without what does not come, and not replaced by what does.
use outrigger_model::decode::{CLUSTER_TYPE, LISTENER_TYPE};

use super::*;
use crate::stats::text;

/// One with the listener `fixed` of its own; clusters and listeners from this source.
fn with_listener(source: &str) -> Control {
    let mut listener = listener("fixed", 0, &rds("r", None), None);
    let manager = &mut listener["filterChains"][0]["filters"][0]["typedConfig"];
    manager.as_object_mut().unwrap().remove("rds");
    manager["routeConfig"] = json!({ "name": "r" });
    let mut document: Value = json!({
        "node": { "id": "one", "cluster": "c" },
        "dynamicResources": {},
        "staticResources": { "clusters": [{ "name": "own", "connectTimeout": "1s" }], "listeners": [strip(listener)] },
    });
    let source: Value = serde_json::from_str(source).unwrap();
    let ads = json!({
        "apiType": "GRPC", "transportApiVersion": "V3", "grpcServices": [{ "envoyGrpc": { "clusterName": "own" } }]
    });
    document["dynamicResources"] = json!({ "cdsConfig": source, "ldsConfig": source, "adsConfig": ads });
    let text = document.to_string();
    let (message, encoded) = parse_bootstrap("b.json", text.as_bytes(), None, UnknownFields::Refuse).unwrap();
    let bootstrap = outrigger_model::decode::bootstrap(message).unwrap().value;
    control_of(bootstrap, encoded)
}

/// A resource without its type is a message.
fn strip(mut resource: Value) -> Value {
    resource.as_object_mut().unwrap().remove("@type");
    resource
}

const ADS: &str = r#"{ "ads": {}, "resourceApiVersion": "V3", "initialFetchTimeout": "3s" }"#;
const FOR_EVER: &str = r#"{ "ads": {}, "resourceApiVersion": "V3", "initialFetchTimeout": "0s" }"#;
const FILE: &str = r#"{ "pathConfigSource": { "path": "/no/such/file" }, "resourceApiVersion": "V3" }"#;

/// Serving, and ready.
fn state(control: &Control) -> (bool, bool) {
    (
        control.listeners.active.contains_key("fixed"),
        control.is_initialized(),
    )
}

async fn pass(control: &mut Control, seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    control.tick();
}

#[tokio::test(start_paused = true)]
async fn a_silent_control_plane_is_waited_for_so_long() {
    let mut control = with_listener(ADS);
    pass(&mut control, 2).await;
    assert_eq!(state(&control), (false, false));
    pass(&mut control, 1).await;
    assert_eq!(
        state(&control),
        (true, false),
        "listeners are waited for after clusters"
    );
    pass(&mut control, 3).await;
    assert_eq!(state(&control), (true, true));
    let all = text(&control.shared().registry, None, true);
    for name in ["cluster_manager.cds", "listener_manager.lds"] {
        assert!(all.contains(&format!("{name}.init_fetch_timeout: 1\n")), "{all}");
    }
    let late = cluster("late", "late", Some("0s"), None);
    apply(
        &mut control,
        CLUSTER_TYPE,
        resources(&[late]).into_values().collect(),
        &[],
    )
    .unwrap();
    assert!(
        control.clusters.store.get("late").is_some(),
        "what comes later is taken"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_time_limit_it_is_waited_for() {
    let mut control = with_listener(FOR_EVER);
    pass(&mut control, 3600).await;
    assert_eq!(state(&control), (false, false));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_used_is_not_waited_for() {
    let mut control = with_listener(FILE);
    pass(&mut control, 3600).await;
    assert_eq!(state(&control), (false, false), "it has not been read yet");
    control.unreachable(&ConfigServer::Path("/no/such/file".into()));
    control.tick();
    assert_eq!(state(&control), (true, true));
}

#[test]
fn what_the_bootstrap_brought_is_neither_replaced_nor_taken_away() {
    let mut control = with_listener(ADS);
    let clusters = [cluster("own", "x", None, None), cluster("other", "x", None, None)];
    apply(
        &mut control,
        CLUSTER_TYPE,
        resources(&clusters).into_values().collect(),
        &[],
    )
    .unwrap();
    let listener = listener("fixed", 0, &rds("other", None), None);
    apply(
        &mut control,
        LISTENER_TYPE,
        resources(&[listener]).into_values().collect(),
        &[],
    )
    .unwrap();
    assert!(control.is_static_cluster("own"));
    assert!(
        control.clusters.store.get("other").is_some(),
        "its neighbours are taken"
    );
    assert_eq!(
        wanted(&control, outrigger_model::decode::ROUTE_TABLE_TYPE),
        BTreeSet::new()
    );
    let listed: Vec<_> = control
        .problems()
        .iter()
        .map(|each| each.resource.to_string())
        .collect();
    assert_eq!(listed, ["own", "fixed"]);
    apply(&mut control, CLUSTER_TYPE, Vec::new(), &["own"]).unwrap();
    apply(&mut control, LISTENER_TYPE, Vec::new(), &["fixed"]).unwrap();
    assert!(control.is_static_cluster("own") && control.listeners.store.get("fixed").is_some());
    assert!(control.problems().is_empty());
    assert!(
        control
            .shared()
            .clusters
            .all()
            .iter()
            .any(|cluster| &*cluster.name == "own")
    );
}
