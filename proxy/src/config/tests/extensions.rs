//! HTTP filters that come by themselves: what a listener waits for, what its filters are then, and what is refused.
use outrigger_model::decode::{CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE};
use outrigger_model::http_filter::HttpFilter;

use super::*;

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
