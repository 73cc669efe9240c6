//! HTTP filters that come by themselves: what a listener waits for, what its filters are then, and what is refused.
use std::time::SystemTime;

use outrigger_model::bootstrap::GrpcServer;
use outrigger_model::decode::{CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE};
use outrigger_model::http_filter::HttpFilter;

use super::*;
use crate::config::history::Limits;
use crate::config::snapshot::{Snapshot, SnapshotOptions};
use crate::stats::text;

const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";

/// A fault that answers with this status.
fn fault(status: u32) -> Value {
    let abort = json!({ "httpStatus": status, "percentage": { "numerator": 100 } });
    typed(FAULT, json!({ "abort": abort }))
}

/// A configuration of the filter `f`.
fn extension(config: &Value) -> Value {
    typed(
        "envoy.config.core.v3.TypedExtensionConfig",
        json!({ "name": "f", "typedConfig": config }),
    )
}

/// A listener with the discovered fault `f`; `more` are further fields of its place.
fn with_filter(timeout: Option<&str>, more: Value) -> Value {
    let mut place =
        json!({ "configSource": ads(timeout), "typeUrls": [format!("type.googleapis.com/{FAULT}")] });
    let more = more.as_object().unwrap().clone();
    place.as_object_mut().unwrap().extend(more);
    let mut listener = listener("l", 1, &rds("r", None), None);
    let manager = &mut listener["filterChains"][0]["filters"][0]["typedConfig"];
    manager.as_object_mut().unwrap().remove("rds");
    manager["routeConfig"] = json!({ "name": "r" });
    let filters = manager["httpFilters"].as_array_mut().unwrap();
    filters.insert(0, json!({ "name": "f", "configDiscovery": place }));
    listener
}

fn give(control: &mut Control, type_url: &str, document: &Value) -> Result<(), String> {
    let resources = resources(std::slice::from_ref(document)).into_values().collect();
    let reasons = |rejections: Vec<Rejection>| rejections.into_iter().map(|each| each.reason).collect();
    apply(control, type_url, resources, &[]).map_err(reasons)
}

/// What `f` does in the listener: answers with a status, `missing`, or nothing because nobody listens.
fn does(control: &Control) -> String {
    if !control.listeners.active.contains_key("l") {
        return "waits".to_owned();
    }
    match control.listeners.extensions.in_use().as_slice() {
        [filters] => match &filters[0].filter {
            HttpFilter::Fault(fault) => format!("{:?}", fault.abort.as_ref().unwrap().answer),
            HttpFilter::Discovered(_) => "missing".to_owned(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn listening(timeout: Option<&str>, more: Value) -> Control {
    let mut control = control();
    give(&mut control, CLUSTER_TYPE, &cluster("c", "c", Some("0s"), None)).unwrap();
    give(&mut control, LOAD_ASSIGNMENT_TYPE, &endpoints("c", "10.0.0.1")).unwrap();
    give(&mut control, LISTENER_TYPE, &with_filter(timeout, more)).unwrap();
    control
}

#[test]
fn a_filter_that_comes_is_used_and_a_refused_one_leaves_the_last() {
    let mut control = listening(None, json!({}));
    assert_eq!(wanted(&control, EXTENSION_TYPE), BTreeSet::from(["f".to_owned()]));
    assert_eq!(does(&control), "waits");
    let awaited = control.unready_listeners();
    assert_eq!(awaited[0].filters, ["f"]);
    let mut check = |config: &Value, expected: &str, reason: Option<&str>| {
        let given = give(&mut control, EXTENSION_TYPE, &extension(config));
        assert_eq!(does(&control), expected, "{config}");
        assert_eq!(given.err().as_deref(), reason, "{config}");
    };
    check(&fault(401), "Http(401)", None);
    check(&fault(402), "Http(402)", None);
    let cors = "extension \"f\": typed_config: has the type \"envoy.extensions.filters.http.cors.v3.Cors\", but type_urls allow \
                envoy.extensions.filters.http.fault.v3.HTTPFault";
    check(&typed(CORS, json!({})), "Http(402)", Some(cors));
    check(
        &fault(1),
        "Http(402)",
        Some("extension \"f\": typed_config.abort.http_status: 1 is not between 200 and 599"),
    );
    let rbac = "extension \"f\": typed_config: http filter \"f\" of type \"envoy.extensions.filters.http.rbac.v3.RBAC\" has no \
                behaviour here, and without it requests that it keeps out would be let in: the security issue builds it";
    check(
        &typed("envoy.extensions.filters.http.rbac.v3.RBAC", json!({})),
        "Http(402)",
        Some(rbac),
    );
    check(&fault(403), "Http(403)", None);
}

#[test]
fn a_filter_that_is_gone_gives_way_to_its_default() {
    for (more, then) in [
        (json!({}), "missing"),
        (json!({ "defaultConfig": fault(418) }), "Http(418)"),
    ] {
        let mut control = listening(None, more);
        give(&mut control, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
        assert_eq!(does(&control), "Http(401)");
        apply(&mut control, EXTENSION_TYPE, Vec::new(), &["f"]).unwrap();
        assert_eq!(does(&control), then);
    }
}

#[test]
fn a_filter_that_is_refused_or_that_nobody_has_is_not_waited_for() {
    let mut control = listening(None, json!({ "defaultConfig": fault(418) }));
    give(&mut control, EXTENSION_TYPE, &extension(&fault(1))).unwrap_err();
    assert_eq!(does(&control), "Http(418)");
    let mut control = listening(None, json!({}));
    apply(&mut control, EXTENSION_TYPE, Vec::new(), &["f"]).unwrap();
    assert_eq!(does(&control), "missing");
}

#[test]
fn a_default_may_be_used_at_once() {
    let more = json!({ "defaultConfig": fault(418), "applyDefaultConfigWithoutWarming": true });
    assert_eq!(does(&listening(None, more)), "Http(418)");
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_does_not_come_is_waited_for_so_long() {
    for (more, then) in [
        (json!({}), "missing"),
        (json!({ "defaultConfig": fault(418) }), "Http(418)"),
    ] {
        for (written, seconds) in [(None, 15), (Some("3s"), 3)] {
            let mut control = listening(written, more.clone());
            tokio::time::advance(Duration::from_secs(seconds - 1)).await;
            control.tick();
            assert_eq!(does(&control), "waits");
            tokio::time::advance(Duration::from_secs(1)).await;
            control.tick();
            assert_eq!(does(&control), then, "{written:?}");
            give(&mut control, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
            assert_eq!(does(&control), "Http(401)");
        }
    }
}

#[test]
fn a_place_that_cannot_be_is_refused_with_its_listener() {
    let check = |more: Value, expected: &str| {
        let refused = give(&mut control(), LISTENER_TYPE, &with_filter(None, more.clone())).unwrap_err();
        assert!(refused.contains(expected), "{more}: {refused}");
    };
    check(
        json!({ "typeUrls": [] }),
        "config_discovery.type_urls: needs at least one",
    );
    check(
        json!({ "applyDefaultConfigWithoutWarming": true }),
        "is set, but default_config is not",
    );
    check(
        json!({ "typeUrls": ["type.googleapis.com/a.B"] }),
        "type_urls[0]: names the unknown type \"a.B\"",
    );
    check(
        json!({ "typeUrls": ["type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"] }),
        "the security issue builds it",
    );
    check(
        json!({ "defaultConfig": typed(CORS, json!({})) }),
        "default_config: has the type",
    );
}

#[test]
fn what_no_listener_names_any_more_is_forgotten() {
    let mut control = listening(None, json!({}));
    give(&mut control, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
    apply(&mut control, LISTENER_TYPE, Vec::new(), &["l"]).unwrap();
    assert_eq!(wanted(&control, EXTENSION_TYPE), BTreeSet::new());
    give(&mut control, LISTENER_TYPE, &with_filter(None, json!({}))).unwrap();
    assert_eq!(does(&control), "waits");
}

#[test]
fn what_a_filter_was_can_be_looked_up() {
    let mut control = control();
    control.keep_history(Limits::default());
    let has_come = |control: &mut Control| {
        give(control, CLUSTER_TYPE, &cluster("c", "c", Some("0s"), None)).unwrap();
        give(control, LOAD_ASSIGNMENT_TYPE, &endpoints("c", "10.0.0.1")).unwrap();
        give(control, LISTENER_TYPE, &with_filter(None, json!({}))).unwrap();
    };
    has_come(&mut control);
    give(&mut control, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
    give(&mut control, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
    give(&mut control, EXTENSION_TYPE, &extension(&fault(402))).unwrap();
    give(&mut control, EXTENSION_TYPE, &extension(&fault(1))).unwrap_err();
    apply(&mut control, EXTENSION_TYPE, Vec::new(), &["f"]).unwrap();
    let versions = control.history();
    let of_filters = versions.iter().filter(|each| each.type_url == EXTENSION_TYPE);
    let totals: Vec<_> = of_filters
        .map(|each| (each.totals.added, each.totals.changed, each.totals.removed))
        .collect();
    assert_eq!(totals, [(0, 0, 1), (0, 1, 0), (1, 0, 0)]);
    let newest = versions[0].number;
    let check = |from: u64, to: u64, expected: (bool, bool)| {
        let differences = control.differences(from, to).unwrap();
        let of_filters = differences.iter().filter(|each| each.type_url == EXTENSION_TYPE);
        let seen: Vec<_> = of_filters
            .map(|each| (&*each.name, (each.before.is_some(), each.after.is_some())))
            .collect();
        assert_eq!(seen, [("f", expected)], "{from} to {to}");
    };
    check(newest - 3, newest - 2, (false, true));
    check(newest - 2, newest - 1, (true, true));
    check(newest - 1, newest, (true, false));
}

#[test]
fn filters_of_two_servers_are_kept_apart_in_the_history() {
    let mut control = control();
    control.keep_history(Limits::default());
    let own = ConfigServer::Grpc(GrpcServer::of("xds"));
    let mut other = with_filter(None, json!({}));
    other["name"] = json!("other");
    other["address"]["socketAddress"]["portValue"] = json!(2);
    let api = json!({ "apiType": "GRPC", "transportApiVersion": "V3",
        "grpcServices": [{ "envoyGrpc": { "clusterName": "xds" } }] });
    other["filterChains"][0]["filters"][0]["typedConfig"]["httpFilters"][0]["configDiscovery"]["configSource"] =
        json!({ "apiConfigSource": api, "resourceApiVersion": "V3" });
    give(&mut control, LISTENER_TYPE, &with_filter(None, json!({}))).unwrap();
    give(&mut control, LISTENER_TYPE, &other).unwrap();
    for (server, status) in [(&ConfigServer::Ads, 401), (&own, 402)] {
        let update = Update {
            type_url: EXTENSION_TYPE.into(),
            version: "v".to_owned(),
            added: resources(&[extension(&fault(status))]).into_values().collect(),
            removed: Vec::new(),
            full_state: false,
        };
        control.apply(server, &update).unwrap();
    }
    let newest = control.history()[0].number;
    let differences = control.differences(newest - 2, newest).unwrap();
    let names: Vec<_> = differences.iter().map(|each| &*each.name).collect();
    assert_eq!(names, ["f", "f of grpc cluster \"xds\""]);
    assert!(differences[0].after != differences[1].after);
    assert_eq!(control.resources_to_keep()[4].resources.len(), 2);
}

#[test]
fn a_filter_of_a_snapshot_serves_until_its_server_answers() {
    let folder = tempfile::tempdir().unwrap();
    let options = SnapshotOptions {
        path: folder.path().join("snapshot"),
        max_age: Duration::from_secs(100),
    };
    let mut before = listening(None, json!({}));
    give(&mut before, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
    let snapshot = Snapshot {
        node: "one".to_owned(),
        saved: SystemTime::now(),
        types: before.resources_to_keep(),
    };
    snapshot.write(&options.path).unwrap();

    let mut control = control();
    control.keep_snapshot(options, "one".to_owned());
    assert!(control.restore());
    assert_eq!(does(&control), "Http(401)");
    let status = control.snapshot_status().unwrap();
    assert!(status.types.contains(&EXTENSION_TYPE), "{status:?}");
    give(&mut control, EXTENSION_TYPE, &extension(&fault(402))).unwrap();
    assert_eq!(does(&control), "Http(402)");
    let status = control.snapshot_status().unwrap();
    assert!(!status.types.contains(&EXTENSION_TYPE), "{status:?}");
}

/// `name=value` of the counters of `f` that are not 0.
fn counted(control: &Control) -> String {
    let all = text(&control.shared().registry, None, true);
    let prefix = "extension_config_discovery.http_filter.f.";
    let names = all.lines().filter_map(|line| line.strip_prefix(prefix));
    let plain = names.filter(|line| {
        !["update_time", "update_duration", "version"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    plain
        .map(|line| line.replace(": ", "="))
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test(start_paused = true)]
async fn what_became_of_filters_is_counted() {
    let mut control = listening(Some("3s"), json!({}));
    assert_eq!(counted(&control), "update_attempt=1");
    tokio::time::advance(Duration::from_secs(3)).await;
    control.tick();
    control.tick();
    assert_eq!(
        counted(&control),
        "config_fail=1 init_fetch_timeout=1 update_attempt=2"
    );
    give(&mut control, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
    give(&mut control, EXTENSION_TYPE, &extension(&fault(401))).unwrap();
    give(&mut control, EXTENSION_TYPE, &extension(&fault(1))).unwrap_err();
    control.unreachable(&ConfigServer::Ads);
    assert_eq!(
        counted(&control),
        "config_fail=2 config_reload=1 init_fetch_timeout=1 update_attempt=6 update_failure=1 update_rejected=1 update_success=2"
    );
    apply(&mut control, LISTENER_TYPE, Vec::new(), &["l"]).unwrap();
    assert_eq!(counted(&control), "", "nobody wants it any more");
}

#[test]
fn a_new_place_that_does_not_allow_what_has_come_is_a_conflict() {
    let both = [FAULT, CORS].map(|name| format!("type.googleapis.com/{name}"));
    let mut control = listening(None, json!({ "typeUrls": both }));
    give(&mut control, EXTENSION_TYPE, &extension(&typed(CORS, json!({})))).unwrap();
    give(&mut control, LISTENER_TYPE, &with_filter(None, json!({}))).unwrap();
    let expected = "config_conflict=1 config_reload=1 update_attempt=2 update_success=1";
    assert_eq!(counted(&control), expected);
}
