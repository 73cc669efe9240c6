//! Endpoints and route tables of one name that two servers should have.
use outrigger_model::bootstrap::GrpcServer;
use outrigger_model::decode::{CLUSTER_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE, ROUTE_TABLE_TYPE};

use super::*;

fn own() -> ConfigServer {
    ConfigServer::Grpc(GrpcServer::of("xds"))
}

/// The source that [`own`] is.
fn own_source() -> Value {
    let service = json!({ "envoyGrpc": { "clusterName": "xds" } });
    let api = json!({ "apiType": "GRPC", "transportApiVersion": "V3", "grpcServices": [service] });
    json!({ "apiConfigSource": api, "resourceApiVersion": "V3" })
}

fn of_own(mut cluster: Value) -> Value {
    cluster["edsClusterConfig"]["edsConfig"] = own_source();
    cluster
}

fn give(control: &mut Control, server: &ConfigServer, type_url: &str, documents: &[Value]) {
    let update = Update {
        type_url: type_url.into(),
        version: "v".to_owned(),
        added: resources(documents).into_values().collect(),
        removed: Vec::new(),
        full_state: false,
    };
    control.apply(server, &update).unwrap();
}

/// What servers are asked for, of one type.
fn asked(control: &Control, type_url: &str) -> Vec<(bool, String)> {
    let wishes = control.wishes().iter().filter(|(_, asked, _)| *asked == type_url);
    let names = wishes.flat_map(|(server, _, names)| {
        let is_ads = *server == ConfigServer::Ads;
        names.iter().map(move |name| (is_ads, name.clone()))
    });
    names.collect()
}

fn problems(control: &Control) -> Vec<String> {
    let problems = control.problems().into_iter();
    problems
        .map(|problem| format!("{}: {}", problem.resource, problem.reason))
        .collect()
}

const DISPUTE: &str = "is wanted from ads, and from grpc cluster \"xds\": only the first is asked, and what wants it from another goes \
                       without; give one of them another name";

/// A listener `l` with the routes of its own name.
fn listener_to(name: &str, port: u16, rds: &Value) -> Value {
    listener(name, port, rds, None)
}

#[tokio::test(start_paused = true)]
async fn a_cluster_does_not_get_the_endpoints_that_another_server_has() {
    let (ads, own) = (ConfigServer::Ads, own());
    let mut control = control();
    let clusters = [
        cluster("a", "x", None, None),
        of_own(cluster("b", "x", None, None)),
    ];
    give(&mut control, &ads, CLUSTER_TYPE, &clusters);
    give(
        &mut control,
        &ads,
        LOAD_ASSIGNMENT_TYPE,
        &[endpoints("x", "10.0.0.1")],
    );
    let listeners = [
        listener_to("la", 1, &rds("ra", None)),
        listener_to("lb", 2, &rds("rb", None)),
    ];
    give(&mut control, &ads, LISTENER_TYPE, &listeners);
    give(
        &mut control,
        &ads,
        ROUTE_TABLE_TYPE,
        &[routes("ra", "a"), routes("rb", "b")],
    );
    tokio::time::advance(Duration::from_secs(15)).await;
    control.tick();
    assert_eq!(ask(&control, "la").unwrap().host, "10.0.0.1:80".parse().unwrap());
    assert_eq!(ask(&control, "lb"), Err(Unserved::NoHost("b".to_owned())));
    assert_eq!(asked(&control, LOAD_ASSIGNMENT_TYPE), [(true, "x".to_owned())]);
    assert_eq!(problems(&control), [format!("x: {DISPUTE}")]);
    // Only one of them is left.
    apply(&mut control, CLUSTER_TYPE, Vec::new(), &["a"]).unwrap();
    assert_eq!(asked(&control, LOAD_ASSIGNMENT_TYPE), [(false, "x".to_owned())]);
    give(
        &mut control,
        &own,
        LOAD_ASSIGNMENT_TYPE,
        &[endpoints("x", "10.0.0.2")],
    );
    assert_eq!(ask(&control, "lb").unwrap().host, "10.0.0.2:80".parse().unwrap());
    assert_eq!(problems(&control), [""; 0]);
}

#[test]
fn a_cluster_that_moves_to_another_server_waits_for_that_one() {
    let (ads, own) = (ConfigServer::Ads, own());
    let mut control = control();
    give(&mut control, &ads, CLUSTER_TYPE, &[cluster("a", "x", None, None)]);
    give(
        &mut control,
        &ads,
        LOAD_ASSIGNMENT_TYPE,
        &[endpoints("x", "10.0.0.1")],
    );
    give(
        &mut control,
        &ads,
        LISTENER_TYPE,
        &[listener_to("l", 1, &rds("r", None))],
    );
    give(&mut control, &ads, ROUTE_TABLE_TYPE, &[routes("r", "a")]);
    let host = |control: &Control| ask(control, "l").unwrap().host.to_string();
    give(
        &mut control,
        &ads,
        CLUSTER_TYPE,
        &[of_own(cluster("a", "x", None, None))],
    );
    assert_eq!(asked(&control, LOAD_ASSIGNMENT_TYPE), [(false, "x".to_owned())]);
    assert_eq!(
        (host(&control).as_str(), problems(&control).len()),
        ("10.0.0.1:80", 0)
    );
    assert_eq!(control.clusters.warming.len(), 1);
    give(
        &mut control,
        &own,
        LOAD_ASSIGNMENT_TYPE,
        &[endpoints("x", "10.0.0.2")],
    );
    assert_eq!(host(&control), "10.0.0.2:80");
    assert_eq!(control.clusters.warming.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_listener_does_not_get_the_routes_that_another_server_has() {
    let (ads, own) = (ConfigServer::Ads, own());
    let mut control = control();
    give(&mut control, &ads, CLUSTER_TYPE, &[cluster("a", "a", None, None)]);
    give(
        &mut control,
        &ads,
        LOAD_ASSIGNMENT_TYPE,
        &[endpoints("a", "10.0.0.1")],
    );
    let of_own = json!({ "routeConfigName": "r", "configSource": own_source() });
    let listeners = [
        listener_to("la", 1, &rds("r", None)),
        listener_to("lb", 2, &of_own),
    ];
    give(&mut control, &ads, LISTENER_TYPE, &listeners);
    give(&mut control, &ads, ROUTE_TABLE_TYPE, &[routes("r", "a")]);
    assert_eq!(ask(&control, "lb"), Err(Unserved::NoListener));
    tokio::time::advance(Duration::from_secs(15)).await;
    control.tick();
    assert!(ask(&control, "la").is_ok());
    assert_eq!(ask(&control, "lb"), Err(Unserved::NoRoute));
    assert_eq!(problems(&control), [format!("r: {DISPUTE}")]);
    apply(&mut control, LISTENER_TYPE, Vec::new(), &["la"]).unwrap();
    give(&mut control, &own, ROUTE_TABLE_TYPE, &[routes("r", "a")]);
    assert!(ask(&control, "lb").is_ok());
}
