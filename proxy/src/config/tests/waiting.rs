//! How long clusters and listeners wait for what they need: `initial_fetch_timeout`, 15 s where it is not set, for ever where it is 0.
//!
//! What happens then is Envoy's: a cluster is used without endpoints, a listener without routes, TLS without its secret.
//! Source: config_source.proto `initial_fetch_timeout`; behaviour checked beside Envoy 1.40 in tests/it/alone/waiting.rs.
use outrigger_model::decode::{
    CLUSTER_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE, ROUTE_TABLE_TYPE, SECRET_TYPE,
};

use super::*;

/// Timeouts as written, and what they are; `None`: for ever.
const TIMEOUTS: [(Option<&str>, Option<u64>); 4] = [
    (None, Some(15)),
    (Some("3s"), Some(3)),
    (Some("60s"), Some(60)),
    (Some("0s"), None),
];

/// Gives the control a listener with routes to `c`, and a cluster `c`, and all that they need but what is left out.
fn given(listener: Value, cluster: Value, rest: &[(&str, Value)]) -> Control {
    let mut control = control();
    let mut give = |type_url: &str, document: &Value| {
        let resources = resources(std::slice::from_ref(document)).into_values().collect();
        apply(&mut control, type_url, resources, &[]).unwrap();
    };
    give(CLUSTER_TYPE, &cluster);
    give(LISTENER_TYPE, &listener);
    for (type_url, document) in rest {
        give(type_url, document);
    }
    control
}

/// Until `timeout` the process waits; then a request finds `then`.
async fn check(mut control: Control, timeout: Option<u64>, then: Unserved) {
    let is_waiting =
        |control: &Control| !control.is_initialized() && ask(control, "l") == Err(Unserved::NoListener);
    assert!(is_waiting(&control));
    let almost = timeout.unwrap_or(86_400) - 1;
    tokio::time::advance(Duration::from_secs(almost)).await;
    control.tick();
    assert!(is_waiting(&control), "{timeout:?}: {:?}", ask(&control, "l"));
    if timeout.is_some() {
        tokio::time::advance(Duration::from_secs(1)).await;
        control.tick();
        assert_eq!(
            (control.is_initialized(), ask(&control, "l")),
            (true, Err(then)),
            "{timeout:?}"
        );
    }
}

fn own_routes() -> Value {
    rds("r", Some("0s"))
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_endpoints_do_not_come_is_used_empty() {
    for (written, timeout) in TIMEOUTS {
        let rest = [(ROUTE_TABLE_TYPE, routes("r", "c"))];
        let control = given(
            listener("l", 1, &own_routes(), None),
            cluster("c", "c", written, None),
            &rest,
        );
        check(control, timeout, Unserved::NoHost("c".to_owned())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_whose_routes_do_not_come_answers_404() {
    for (written, timeout) in TIMEOUTS {
        let rest = [(LOAD_ASSIGNMENT_TYPE, endpoints("c", "10.0.0.1"))];
        let control = given(
            listener("l", 1, &rds("r", written), None),
            cluster("c", "c", None, None),
            &rest,
        );
        check(control, timeout, Unserved::NoRoute).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_whose_secret_does_not_come_closes_connections() {
    for (written, timeout) in TIMEOUTS {
        let rest = [
            (LOAD_ASSIGNMENT_TYPE, endpoints("c", "10.0.0.1")),
            (ROUTE_TABLE_TYPE, routes("r", "c")),
        ];
        let listener = listener("l", 1, &own_routes(), Some(secret_ref("s", written)));
        let control = given(listener, cluster("c", "c", None, None), &rest);
        check(control, timeout, Unserved::NoCertificate).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_secret_does_not_come_is_used_without() {
    for (written, timeout) in TIMEOUTS {
        let rest = [
            (LOAD_ASSIGNMENT_TYPE, endpoints("c", "10.0.0.1")),
            (ROUTE_TABLE_TYPE, routes("r", "c")),
        ];
        let cluster = cluster("c", "c", None, Some(secret_ref("s", written)));
        let control = given(listener("l", 1, &own_routes(), None), cluster, &rest);
        check(control, timeout, Unserved::NoClientTls("c".to_owned())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_time_limit_is_used() {
    let listener = listener("l", 1, &rds("r", Some("1s")), Some(secret_ref("s", Some("1s"))));
    let mut control = given(listener, cluster("c", "c", Some("1s"), None), &[]);
    tokio::time::advance(Duration::from_secs(1)).await;
    control.tick();
    assert_eq!(ask(&control, "l"), Err(Unserved::NoCertificate));
    let late = [
        (SECRET_TYPE, certificate("s"), Unserved::NoRoute),
        (
            ROUTE_TABLE_TYPE,
            routes("r", "c"),
            Unserved::NoHost("c".to_owned()),
        ),
    ];
    for (type_url, document, then) in late {
        let resources = resources(&[document]).into_values().collect();
        apply(&mut control, type_url, resources, &[]).unwrap();
        assert_eq!(ask(&control, "l"), Err(then));
    }
    let resources = resources(&[endpoints("c", "10.0.0.1")]).into_values().collect();
    apply(&mut control, LOAD_ASSIGNMENT_TYPE, resources, &[]).unwrap();
    assert!(ask(&control, "l").is_ok());
}
